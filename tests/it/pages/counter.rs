//! The demo's counter and its load.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use actix_web::{HttpResponse, web};
use futures_util::{StreamExt as _, future::BoxFuture};
use jiff::Timestamp;
use serde_json::Value;
use switchover::demo::{
    counter::{self, Actions, Answer, BUTTONS, Button, Counter, Kind},
    load::{self, Visited},
};
use tokio_util::sync::CancellationToken;

use super::{Served, assert_harmless, assert_secure, client, sample};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One answer: app, release, begun, ended.
fn answer(counter: &Counter, app: &str, release: &str, started: u64, ended: u64) {
    let answer = Answer { app, kind: Kind::Kept, started: ms(started), ended: ms(ended), result: Ok(Some(release)) };
    counter.record(&answer, Timestamp::UNIX_EPOCH);
}

#[test]
fn a_switch_is_told_by_when_requests_began() {
    // Each case: answers in the order in which they came, as (release, begun, ended), and what is said.
    type Case = (&'static str, &'static [(&'static str, u64, u64)], Option<u64>, &'static str, usize);
    let cases: &[Case] = &[
        ("one release", &[("a", 0, 1), ("a", 10, 12)], None, "a", 0),
        ("clean", &[("a", 0, 1), ("a", 100, 101), ("b", 105, 107), ("b", 110, 111)], Some(5), "b", 1),
        (
            "the old slot answers a slow one long after",
            &[("a", 0, 1), ("b", 50, 52), ("b", 900, 901), ("a", 20, 2_020)],
            Some(30),
            "b",
            1,
        ),
        (
            "answers overtake each other",
            &[("a", 100, 101), ("b", 104, 105), ("a", 102, 110), ("b", 103, 111)],
            Some(1),
            "b",
            1,
        ),
        (
            "the old slot still gets some",
            &[("a", 100, 101), ("b", 104, 105), ("a", 130, 131), ("b", 140, 141)],
            Some(26),
            "b",
            1,
        ),
        ("and back", &[("a", 0, 1), ("b", 10, 11), ("b", 4_000, 4_001), ("a", 4_003, 4_004)], Some(3), "a", 2),
        ("a third", &[("a", 0, 1), ("b", 10, 11), ("b", 4_000, 4_001), ("c", 4_004, 4_005)], Some(4), "c", 2),
    ];
    for (name, answers, switch_ms, release, switches) in cases {
        let counter = Counter::new();
        for (release, started, ended) in *answers {
            answer(&counter, "backend", release, *started, *ended);
        }
        let now = counter.snapshot_at(ms(5_000));
        assert_eq!(now.switch_ms, *switch_ms, "{name}");
        assert_eq!(now.apps[0].release, *release, "{name}");
        assert_eq!(now.switches.len(), *switches, "{name}");
        assert_eq!((now.total, now.failed), (answers.len() as u64, 0), "{name}");
    }
}

#[test]
fn neighbours_never_wear_one_colour() {
    let counter = Counter::new();
    let colours: Vec<String> = ["a", "b", "c", "a"]
        .iter()
        .enumerate()
        .map(|(i, release)| {
            answer(&counter, "backend", release, i as u64 * 3_000, i as u64 * 3_000 + 1);
            counter.snapshot_at(ms(12_000)).apps[0].colour.as_str().to_owned()
        })
        .collect();
    assert_eq!(colours, ["blue", "green", "blue", "green"]);
}

#[test]
fn the_strip_is_the_last_minute() {
    let counter = Counter::new();
    for at in (0..70_000).step_by(10) {
        answer(&counter, "backend", if at < 65_000 { "a" } else { "b" }, at, at + 1);
    }
    let lost = Answer {
        app: "backend",
        kind: Kind::Post,
        started: ms(69_999),
        ended: ms(70_000),
        result: Err("the answer broke off"),
    };
    counter.record(&lost, Timestamp::UNIX_EPOCH);
    counter.record(&lost, Timestamp::UNIX_EPOCH);
    let now = counter.snapshot_at(ms(70_100));
    assert_eq!(now.strip.len(), counter::COLUMNS);
    let sum = |f: fn(&counter::Column) -> u32| now.strip.iter().map(f).sum::<u32>();
    assert_eq!(sum(|c| c.green), 500);
    assert_eq!(sum(|c| c.failed), 2);
    assert!((5_450..=5_500).contains(&sum(|c| c.blue)), "{}", sum(|c| c.blue));
    assert_eq!((now.total, now.failed), (7_002, 2));
    assert_eq!(now.per_second, 100);
    assert_eq!((now.events[0].text.as_str(), now.events[0].times), ("backend: the answer broke off (POST)", 2));
    // After a long sleep of the machine the strip is empty, not wrong.
    assert_eq!(counter.snapshot_at(ms(10_000_000)).strip.iter().map(|c| c.blue + c.green).sum::<u32>(), 0);
}

#[derive(Default)]
struct Pressed(Mutex<Vec<String>>);

impl Actions for Pressed {
    fn act<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String, String>> {
        self.0.lock().unwrap().push(name.to_owned());
        let answer = match name {
            "rollback" => Err("Nothing was live before.".to_owned()),
            _ => Ok(format!("done: {name} {}", sample::HOSTILE)),
        };
        Box::pin(async move { answer })
    }

    fn links(&self) -> Vec<(String, String)> {
        vec![
            ("The repository".to_owned(), "http://127.0.0.1:1/acme/shop".to_owned()),
            ("Bad".to_owned(), "javascript:x".to_owned()),
        ]
    }
}

fn served(counter: &Arc<Counter>, pressed: &Arc<Pressed>) -> Served {
    let (counter, pressed) = (counter.clone(), pressed.clone());
    Served::start(move |config| {
        let actions: Arc<dyn Actions> = pressed.clone();
        counter::configure(config, counter.clone(), actions);
    })
}

#[tokio::test]
async fn the_page_is_fed_and_draws_the_release() {
    let (counter, pressed) = (Arc::new(Counter::new()), Arc::new(Pressed::default()));
    let served = served(&counter, &pressed);
    let before: Value = served.get("/counter.json").await.json().await.unwrap();
    let line = sample::line(3, switchover::domain::show::PhaseState::Running);
    counter.release(vec![("backend".to_owned(), line.clone())]);
    counter.release(vec![("backend".to_owned(), line)]);
    let after: Value = served.get("/counter.json").await.json().await.unwrap();
    assert_eq!(after["release"].as_u64(), before["release"].as_u64().map(|n| n + 1), "only a change counts");
    assert!(served.text("/release").await.contains("release-line"));
    answer(&counter, "backend", "a", 0, 1);
    let mut events = served.get("/events").await.bytes_stream();
    let mut kept = String::new();
    while !kept.contains("\"total\":1") {
        let next = tokio::time::timeout(Duration::from_secs(30), events.next()).await.expect("snapshots come");
        kept.push_str(std::str::from_utf8(&next.unwrap().unwrap()).unwrap());
    }
    assert!(kept.contains("event: snapshot"));
}

#[tokio::test]
async fn the_buttons_act_for_people_and_for_no_other_site() {
    let (counter, pressed) = (Arc::new(Counter::new()), Arc::new(Pressed::default()));
    let served = served(&counter, &pressed);
    let press = async |name: &str, site: Option<&str>, json: bool| {
        let mut request = client().post(format!("{}/actions/{name}", served.url));
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        if json {
            request = request.header("accept", "application/json");
        }
        let answer = request.send().await.unwrap();
        assert_secure(&answer, name);
        answer
    };
    assert_eq!(press("push-good", Some("cross-site"), true).await.status(), 403);
    assert_eq!(press("push-good", Some("same-site"), false).await.status(), 403);
    assert_eq!(press("format-disk", Some("same-origin"), true).await.status(), 404);
    assert_eq!(served.get("/actions/push-good").await.status(), 404, "a link presses nothing");
    assert!(pressed.0.lock().unwrap().is_empty());
    let form = press("push-good", Some("same-origin"), false).await;
    assert_eq!((form.status().as_u16(), &form.headers()["location"]), (303, &"/".parse().unwrap()));
    let refused = press("rollback", None, true).await;
    assert_eq!(refused.status(), 409);
    let told: Value = refused.json().await.unwrap();
    assert_eq!(told, serde_json::json!({"ok": false, "text": "Roll back: not done. Nothing was live before."}));
    let done: Value = press("push-bad", Some("none"), true).await.json().await.unwrap();
    assert_eq!(done["text"], format!("done: push-bad {}", sample::HOSTILE));
    assert_eq!(*pressed.0.lock().unwrap(), ["push-good", "rollback", "push-bad"]);
    let html = served.text("/").await;
    assert_harmless(&html, "counter");
    assert!(html.contains("Roll back: not done") && html.contains("done: push-bad &#60;/code&#62;"), "{html}");
    for (name, label, about) in BUTTONS {
        assert!(html.contains(&format!("action=\"/actions/{name}\"")), "{name}");
        assert!(html.contains(label) && html.contains(about), "{name}");
    }
}

/// Over somebody's own repository.
struct Few;

impl Actions for Few {
    fn act<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async move { Ok(name.to_owned()) })
    }

    fn buttons(&self) -> Vec<Button> {
        BUTTONS.into_iter().filter(|(name, ..)| *name == "rollback").collect()
    }

    fn tells_releases(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn the_page_shows_what_there_is_without_a_script() {
    let counter = Arc::new(Counter::new());
    let waiting = served(&counter, &Arc::new(Pressed::default())).text("/").await;
    assert!(waiting.contains("Nobody has answered yet"), "{waiting}");
    let shown = counter.clone();
    let few = Served::start(move |config| counter::configure(config, shown.clone(), Arc::new(Few)));
    for n in 0..1_234 {
        answer(&counter, "backend", "a", n, n + 1);
    }
    let html = few.text("/").await;
    assert!(html.contains("id=\"kind-kept\">1,234<") && html.contains("id=\"kind-post\">0<"), "{html}");
    assert!(html.contains("/actions/rollback") && !html.contains("push-good"), "{html}");
    let press =
        async |name: &str| client().post(format!("{}/actions/{name}", few.url)).send().await.unwrap().status().as_u16();
    assert_eq!((press("rollback").await, press("push-good").await), (303, 404));
    let empty = Served::start(move |config| counter::configure(config, Arc::new(Counter::new()), Arc::new(Few)));
    assert!(!empty.text("/").await.contains("Nobody has answered yet"), "it would stand there for ever");
}

#[tokio::test]
async fn every_page_of_the_counter_is_secure() {
    let served = served(&Arc::new(Counter::new()), &Arc::new(Pressed::default()));
    for (path, status) in [
        ("/", 200),
        ("/release", 200),
        ("/counter.json", 200),
        ("/events", 200),
        ("/nothing", 404),
        ("/actions/%FF", 404),
    ] {
        let response = served.get(path).await;
        assert_eq!(response.status(), status, "{path}");
        assert_secure(&response, path);
    }
}

/// A shop whose answers differ: one is a 503, one breaks off, some name their release in the text.
fn shop(asked: &Arc<AtomicU32>) -> Served {
    let asked = asked.clone();
    Served::start(move |config| {
        let asked = asked.clone();
        let answer = move || {
            let n = asked.fetch_add(1, Ordering::Relaxed);
            async move {
                match n {
                    7 => HttpResponse::ServiceUnavailable().finish(),
                    13 => {
                        HttpResponse::Ok().insert_header(("x-release", "r1")).streaming(futures_util::stream::iter([
                            // So much that it has to be sent before the rest is asked for.
                            Ok(bytes::Bytes::from(vec![b'x'; 4 << 20])),
                            Err(std::io::Error::other("cut")),
                        ]))
                    }
                    // Not good, but an answer.
                    19 => HttpResponse::NotFound().insert_header(("x-release", "r1")).finish(),
                    n if n % 2 == 0 => HttpResponse::Ok().insert_header(("x-release", "r1")).body("hello"),
                    _ => HttpResponse::Ok().body("<small>release r1</small>"),
                }
            }
        };
        config.default_service(web::to(answer));
    })
}

#[tokio::test]
async fn the_load_counts_every_request_and_tells_each_loss() {
    let asked = Arc::new(AtomicU32::new(0));
    let shop = shop(&asked);
    let counter = Arc::new(Counter::new());
    let stop = CancellationToken::new();
    // Bound and never accepted from a moment later: nobody is there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let apps = vec![
        Visited { app: "backend".to_owned(), url: shop.url.parse().unwrap(), paths: Default::default() },
        Visited { app: "gone".to_owned(), url: format!("http://{gone}/").parse().unwrap(), paths: Default::default() },
    ];
    let load = tokio::spawn(load::run(apps, counter.clone(), 400, stop.clone()));
    let enough = async {
        while counter.totals().0 < 150 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), enough).await.expect("requests are sent");
    stop.cancel();
    load.await.unwrap().unwrap();
    let now = counter.snapshot();
    let lost = |app: &str| {
        now.events.iter().filter(|e| e.tone == "failure" && e.text.starts_with(app)).map(|e| e.times).sum::<u64>()
    };
    let sent_to_shop = u64::from(asked.load(Ordering::Relaxed));
    assert_eq!(lost("backend"), 2, "{:?}", now.events);
    assert_eq!(now.failed, now.total - sent_to_shop + 2);
    let words: Vec<&str> = now.events.iter().map(|e| e.text.as_str()).collect();
    for wanted in
        ["backend: answered 503 Service Unavailable", "backend: the answer broke off: ", "gone: could not connect: "]
    {
        assert!(words.iter().any(|w| w.starts_with(wanted)), "{wanted}: {words:?}");
    }
    assert_eq!(now.apps.len(), 1);
    assert_eq!(now.apps[0].release, "r1");
    let sent: u64 = now.kinds.values().sum();
    assert_eq!((sent, now.kinds.len()), (now.total, 4), "all kinds, each counted once: {:?}", now.kinds);
}

#[tokio::test]
async fn a_load_without_apps_ends_at_once() {
    let counter = Arc::new(Counter::new());
    load::run(Vec::new(), counter.clone(), 0, CancellationToken::new()).await.unwrap();
    assert_eq!(counter.totals(), (0, 0));
}

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
    counter::{self, Actions, Answer, Counter, Kind},
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
        ("the old slot answers a slow one long after", &[("a", 0, 1), ("b", 50, 52), ("b", 900, 901), ("a", 20, 2_020)], Some(30), "b", 1),
        ("answers overtake each other", &[("a", 100, 101), ("b", 104, 105), ("a", 102, 110), ("b", 103, 111)], Some(1), "b", 1),
        ("the old slot still gets some", &[("a", 100, 101), ("b", 104, 105), ("a", 130, 131), ("b", 140, 141)], Some(26), "b", 1),
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
    let lost = Answer { app: "backend", kind: Kind::Post, started: ms(69_999), ended: ms(70_000), result: Err("the answer broke off") };
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
        vec![("The repository".to_owned(), "http://127.0.0.1:1/acme/shop".to_owned()), ("Bad".to_owned(), "javascript:x".to_owned())]
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
async fn the_buttons_act_for_people_and_for_no_other_site() {
    let (counter, pressed) = (Arc::new(Counter::new()), Arc::new(Pressed::default()));
    let served = served(&counter, &pressed);
    let press = |name: &str, site: Option<&str>, json: bool| {
        let mut request = client().post(format!("{}/actions/{name}", served.url));
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        if json {
            request = request.header("accept", "application/json");
        }
        request.send()
    };
    assert_eq!(press("push-good", Some("cross-site"), true).await.unwrap().status(), 403);
    assert_eq!(press("push-good", Some("same-site"), false).await.unwrap().status(), 403);
    assert_eq!(press("format-disk", Some("same-origin"), true).await.unwrap().status(), 404);
    assert!(pressed.0.lock().unwrap().is_empty());
    let form = press("push-good", Some("same-origin"), false).await.unwrap();
    assert_eq!((form.status().as_u16(), &form.headers()["location"]), (303, &"/".parse().unwrap()));
    let refused = press("rollback", None, true).await.unwrap();
    assert_eq!(refused.status(), 409);
    let told: Value = refused.json().await.unwrap();
    assert_eq!(told["text"], "Roll back: not done. Nothing was live before.");
    assert_eq!(*pressed.0.lock().unwrap(), ["push-good", "rollback"]);
    let page = served.get("/").await;
    assert_secure(&page, "/");
    let html = page.text().await.unwrap();
    assert_harmless(&html, "counter");
    assert!(html.contains("Roll back: not done") && html.contains("Push a good commit"), "{html}");
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
        kept.push_str(&String::from_utf8(next.unwrap().unwrap().to_vec()).unwrap());
    }
    assert!(kept.contains("event: snapshot"));
}

#[tokio::test]
async fn the_load_counts_every_request_and_tells_each_loss() {
    let asked = Arc::new(AtomicU32::new(0));
    let seen = asked.clone();
    let shop = Served::start(move |config| {
        let seen = seen.clone();
        let answer = move || {
            let n = seen.fetch_add(1, Ordering::Relaxed);
            async move {
                match n {
                    7 => HttpResponse::ServiceUnavailable().finish(),
                    // Half an answer.
                    13 => HttpResponse::Ok().insert_header(("x-release", "r1")).streaming(futures_util::stream::iter([
                        Ok(bytes::Bytes::from_static(b"half")),
                        Err(std::io::Error::other("cut")),
                    ])),
                    n if n % 2 == 0 => HttpResponse::Ok().insert_header(("x-release", "r1")).body("hello"),
                    _ => HttpResponse::Ok().body("<small>release r1</small>"),
                }
            }
        };
        config.default_service(web::to(answer));
    });
    let counter = Arc::new(Counter::new());
    let stop = CancellationToken::new();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let apps = vec![
        Visited { app: "backend".to_owned(), url: shop.url.parse().unwrap() },
        Visited { app: "gone".to_owned(), url: format!("http://{gone}/").parse().unwrap() },
    ];
    let load = tokio::spawn(load::run(apps, counter.clone(), 400, stop.clone()));
    let enough = async {
        while counter.totals().0 < 150 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), enough).await.expect("requests are sent");
    stop.cancel();
    load.await.unwrap().unwrap();
    let now = counter.snapshot();
    let lost_by_shop: u64 = now.events.iter().filter(|e| e.tone == "failure" && e.text.starts_with("backend")).map(|e| e.times).sum();
    let sent_to_shop = u64::from(asked.load(Ordering::Relaxed));
    assert_eq!(lost_by_shop, 2, "{:?}", now.events);
    assert_eq!(now.failed, now.total - sent_to_shop + 2);
    assert!(now.events.iter().any(|e| e.text.contains("answered 503")), "{:?}", now.events);
    assert!(now.events.iter().any(|e| e.text.contains("broke off")), "{:?}", now.events);
    assert!(now.events.iter().any(|e| e.text.starts_with("gone: could not connect")), "{:?}", now.events);
    assert_eq!(now.apps.len(), 1);
    assert_eq!(now.apps[0].release, "r1");
    assert!(now.kinds.contains_key(&Kind::Slow) && now.kinds.contains_key(&Kind::Post), "{:?}", now.kinds);
}

//! The demo's counter and its load.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture};
use jiff::Timestamp;
use serde_json::Value;
use switchover::demo::counter::{self, Actions, Answer, Counter, Kind};

use super::{Served, sample};

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

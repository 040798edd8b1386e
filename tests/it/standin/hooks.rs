//! Deliveries: recorded, paged, sent again; lost, doubled, held back.

use serde_json::{Value, json};
use switchover::demo::github::{HookEffect, HookFault, faults::Release};

use super::support::{LIMIT, World};

/// Deliveries of an event that are done, by status code.
async fn done(w: &World, event: &str, count: usize) -> Vec<u16> {
    let of = |m: &switchover::demo::github::model::Model| {
        let all: Vec<u16> =
            m.deliveries.values().filter(|d| d.event == event && d.done).map(|d| d.status_code).collect();
        (all.len() >= count).then_some(all)
    };
    w.standin.wait_for(&format!("{count} deliveries of {event}"), LIMIT, of).await.unwrap()
}

fn on(event: &str, effect: HookEffect) -> HookFault {
    HookFault { event: event.to_owned(), from: 1, count: Some(1), effect }
}

async fn touch(w: &World, n: u32) -> String {
    let name = format!("file{n}");
    w.standin.commit(w.repo, "main", &[(&name, Some("x"))], &name, "bob").await.unwrap()
}

#[tokio::test]
async fn a_failed_delivery_is_found_and_sent_again() {
    let w = World::start().await;
    *w.hooks.answer.lock().unwrap() = 500;
    touch(&w, 1).await;
    done(&w, "push", 1).await;
    *w.hooks.answer.lock().unwrap() = 202;
    let failed = w.jwt().get("/app/hook/deliveries?status=failure").await.good();
    let push = failed.as_array().unwrap().iter().find(|d| d["event"] == "push").unwrap().clone();
    assert_eq!((&push["status_code"], &push["status"]), (&json!(500), &json!("Invalid HTTP Response: 500")));
    assert_eq!(push["redelivery"], false);
    let path = format!("/app/hook/deliveries/{}", push["id"]);
    let full = w.jwt().get(&path).await.good();
    assert_eq!(full["request"]["headers"]["X-GitHub-Delivery"], push["guid"]);
    assert_eq!(full["request"]["payload"]["ref"], "refs/heads/main");
    assert_eq!(w.jwt().post(&format!("{path}/attempts"), json!({})).await.status, 202);
    assert_eq!(done(&w, "push", 2).await, [500, 202]);
    let got = w.hooks.got.borrow().clone();
    let pushes: Vec<_> = got.iter().filter(|r| r.event == "push").collect();
    assert_eq!(pushes[0].guid, pushes[1].guid, "a redelivery keeps its key");
    assert_eq!(pushes[0].body, pushes[1].body);
    assert!(pushes[1].signed);
    let names: Vec<&str> = pushes[0].headers.iter().map(|(k, _)| k.as_str()).filter(|k| k.starts_with("x-")).collect();
    assert!(names.contains(&"x-github-hook-id") && names.contains(&"x-github-hook-installation-target-id"));
    assert_eq!(w.jwt().post("/app/hook/deliveries/1/attempts", json!({})).await.status, 404);
    w.stop().await;
}

#[tokio::test]
async fn deliveries_come_in_pages_by_cursor() {
    let w = World::start().await;
    for n in 0..4 {
        touch(&w, n).await;
    }
    done(&w, "push", 4).await;
    done(&w, "check_suite", 4).await;
    done(&w, "installation", 1).await;
    let mut seen: Vec<Value> = Vec::new();
    let mut next = "/app/hook/deliveries?per_page=4".to_owned();
    loop {
        let answer = w.jwt().get(&next).await;
        let link = answer.header("link").to_owned();
        let page = answer.good();
        assert!(page.as_array().unwrap().len() <= 4);
        seen.extend(page.as_array().unwrap().iter().cloned());
        match link.strip_prefix('<').and_then(|l| l.split_once('>')) {
            Some((url, rest)) if rest.contains("next") => next = url.to_owned(),
            _ => break,
        }
    }
    let ids: Vec<i64> = seen.iter().map(|d| d["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), 9);
    assert!(ids.is_sorted_by(|a, b| a > b), "newest first, each once: {ids:?}");
    assert_eq!(w.jwt().get("/app/hook/deliveries?cursor=x").await.status, 422);
    w.stop().await;
}

#[tokio::test]
async fn webhooks_get_lost_with_and_without_a_trace() {
    let w = World::start().await;
    w.standin.faults().add_hook(on("push", HookEffect::Lose { listed: false }));
    touch(&w, 1).await;
    w.standin.faults().clear();
    w.standin.faults().add_hook(on("push", HookEffect::Lose { listed: true }));
    touch(&w, 2).await;
    touch(&w, 3).await;
    assert_eq!(done(&w, "push", 3).await, [0, 0, 202]);
    let listed = w.jwt().get("/app/hook/deliveries").await.good();
    let pushes: Vec<&Value> = listed.as_array().unwrap().iter().filter(|d| d["event"] == "push").collect();
    assert_eq!(pushes.len(), 2);
    assert_eq!(w.hooks.names().iter().filter(|n| *n == "push").count(), 1);
    w.stop().await;
}

#[tokio::test]
async fn webhooks_are_doubled_and_reordered() {
    let w = World::start().await;
    w.standin.faults().add_hook(on("push", HookEffect::Duplicate));
    let first = touch(&w, 1).await;
    let fits = |r: &super::support::Received| r.body["after"] == json!(first);
    w.hooks.wait("first", fits).await;
    w.standin.faults().clear();
    w.standin.faults().add_hook(HookFault { count: None, ..on("push", HookEffect::Hold) });
    let (second, third) = (touch(&w, 2).await, touch(&w, 3).await);
    w.standin.release_held(Release::Reversed);
    w.hooks.wait("second", |r| r.body["after"] == json!(second)).await;
    let got = w.hooks.got.borrow().clone();
    let pushes: Vec<&str> =
        got.iter().filter(|r| r.event == "push").map(|r| r.body["after"].as_str().unwrap()).collect();
    assert_eq!(pushes, [first.as_str(), &first, &third, &second]);
    w.stop().await;
}

#[tokio::test]
async fn an_app_without_an_address_polls() {
    let w = World::start().await;
    w.standin.set_webhook(w.app.id, None, None).unwrap();
    touch(&w, 1).await;
    assert_eq!(done(&w, "push", 1).await, [0]);
    let listed = w.jwt().get("/app/hook/deliveries?status=failure&per_page=1").await.good();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    w.stop().await;
}

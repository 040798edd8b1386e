//! What a cluster tells, read.

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;
use switchover::exec::kubernetes::{
    log::Output,
    status::{self, Cost, Loss},
};

fn pod(status: serde_json::Value) -> Pod {
    serde_json::from_value(json!({ "status": status })).unwrap()
}

#[test]
fn who_took_a_pod_away() {
    let disrupted = |reason: &str| json!({ "conditions": [{ "type": "DisruptionTarget", "status": "True", "reason": reason, "message": "as said" }] });
    let cases = [
        (json!({ "phase": "Running" }), "none"),
        (json!({ "conditions": [{ "type": "DisruptionTarget", "status": "False" }] }), "none"),
        (disrupted("PreemptionByScheduler"), "machine: it had to make room for something of higher priority: as said"),
        (disrupted("EvictionByEvictionAPI"), "machine: it was evicted, as when a node is drained: as said"),
        (
            disrupted("DeletionByTaintManager"),
            "machine: its node is not heard of, or lets nothing run any more: as said",
        ),
        (disrupted("DeletionByPodGC"), "machine: its node is gone: as said"),
        (disrupted("TerminationByKubelet"), "machine: its node ended it: as said"),
        (
            json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory." }),
            "machine: the node ran short of something and put it out: The node was low on resource: memory.",
        ),
        (
            json!({ "reason": "Evicted", "message": "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. " }),
            "disk: Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
        ),
        (
            json!({ "reason": "Evicted", "message": "Usage of EmptyDir volume \"work\" exceeds the limit \"1Mi\". " }),
            "disk: Usage of EmptyDir volume \"work\" exceeds the limit \"1Mi\". ",
        ),
        (json!({ "reason": "NodeShutdown" }), "machine: its node went down"),
        (json!({ "reason": "OutOfcpu", "message": "no" }), "machine: its node had no room for it after all: no"),
        (json!({ "reason": "DeadlineExceeded" }), "time"),
    ];
    for (status, told) in cases {
        let said = match status::loss(&pod(status.clone())) {
            None => "none".to_owned(),
            Some(Loss::Machine(why)) => format!("machine: {why}"),
            Some(Loss::Disk(why)) => format!("disk: {why}"),
            Some(Loss::Time) => "time".to_owned(),
        };
        assert_eq!(said, told, "{status}");
    }
}

#[test]
fn what_a_step_cost_is_read_whatever_it_says() {
    let ms = std::time::Duration::from_millis;
    let cases = [
        ("us=1500000 peak=1000 idle=400 oom=0\n", Cost { cpu: ms(1500), peak: 600, killed: 0 }),
        ("ns=1500000000 peak=1000 idle=4000 oom=2", Cost { cpu: ms(1500), peak: 0, killed: 2 }),
        ("us= peak= idle= oom=", Cost::default()),
        ("us=-1 peak=99999999999999999999 whatever = ==", Cost::default()),
        ("", Cost::default()),
    ];
    for (said, cost) in cases {
        assert_eq!(status::cost(said), cost, "{said}");
    }
}

/// A line as the kubelet keeps it: its second, its time, its text.
fn kept(lines: &[(i64, String)]) -> Vec<(i64, String)> {
    lines
        .iter()
        .map(|(second, text)| {
            let stamp = jiff::Timestamp::from_second(1_700_000_000 + second).unwrap();
            (1_700_000_000 + second, format!("{}.123456789Z {text}\n", stamp.to_string().trim_end_matches('Z')))
        })
        .collect()
}

proptest! {
    /// However often and wherever the connection breaks: every line once, in order.
    #[test]
    fn output_is_neither_lost_nor_doubled(
        steps in prop::collection::vec((0_i64..3, "[a-z 0-9\\r]{0,30}"), 0..40),
        breaks in prop::collection::vec(0_usize..200, 0..10),
        chunk in 1_usize..50,
    ) {
        let mut second = 0;
        let lines: Vec<(i64, String)> = steps.into_iter().map(|(by, text)| { second += by; (second, text) }).collect();
        let kept = kept(&lines);
        let mut output = Output::default();
        let mut got = Vec::new();
        for length in breaks.into_iter().map(Some).chain([None]) {
            let since = output.reconnect().map(jiff::Timestamp::as_second);
            let sent: String =
                kept.iter().filter(|(s, _)| since.is_none_or(|since| *s >= since)).map(|(_, line)| line.as_str()).collect();
            let sent = &sent.as_bytes()[..length.unwrap_or(sent.len()).min(sent.len())];
            for part in sent.chunks(chunk) {
                output.take(part, |bytes| got.extend_from_slice(bytes));
            }
        }
        let whole: String = lines.iter().map(|(_, text)| format!("{text}\n")).collect();
        prop_assert_eq!(String::from_utf8(got).unwrap(), whole);
    }
}

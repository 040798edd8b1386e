use serde_json::{Value, json};
use switchover::manifests::no_room;

fn quota(resource: &str, hard: &str, used: &str) -> Value {
    json!({"metadata": {"name": "tight"}, "status": {"hard": {resource: hard}, "used": {resource: used}}})
}

fn asks(kind: &str, what: &str, amount: &str) -> Value {
    json!({"resources": {kind: {what: amount}}})
}

#[test]
fn pods_beside_those_that_run_fit_or_not() {
    let half = json!({"containers": [asks("requests", "cpu", "500m")]});
    let two = json!({"containers": [asks("requests", "cpu", "500m"), asks("limits", "cpu", "0.25")]});
    let init = json!({"initContainers": [asks("requests", "memory", "1Gi")], "containers": [asks("requests", "memory", "1Mi")]});
    let mut sidecar = init.clone();
    sidecar["initContainers"][0]["restartPolicy"] = json!("Always");
    let mut whole = half.clone();
    whole["resources"] = json!({"requests": {"cpu": "2"}});
    let mut heavy = half.clone();
    heavy["overhead"] = json!({"cpu": "100m"});
    let cases: [(&str, Value, &Value, i64, bool); 19] = [
        ("just", quota("requests.cpu", "2", "1"), &half, 2, true),
        ("one too many", quota("requests.cpu", "2", "1"), &half, 3, false),
        ("the short name", quota("cpu", "2000m", "1500m"), &half, 2, false),
        ("a limit is a request", quota("requests.cpu", "750m", "0"), &two, 1, true),
        ("and counts", quota("requests.cpu", "749m", "0"), &two, 1, false),
        ("limits of one alone", quota("limits.cpu", "250m", "0"), &two, 1, true),
        ("are counted as limits", quota("limits.cpu", "249m", "0"), &two, 1, false),
        ("an init container", quota("memory", "1Gi", "0"), &init, 1, true),
        ("a sidecar adds up", quota("memory", "1Gi", "0"), &sidecar, 1, false),
        ("the whole pod's", quota("cpu", "1", "0"), &whole, 1, false),
        ("overhead", quota("cpu", "599m", "0"), &heavy, 1, false),
        ("overhead fits", quota("cpu", "600m", "0"), &heavy, 1, true),
        ("pods", quota("pods", "4", "2"), &init, 2, true),
        ("too many pods", quota("pods", "4", "2"), &init, 3, false),
        ("nothing is said", quota("limits.memory", "1", "1"), &half, 9, true),
        ("another resource", quota("requests.storage", "1", "1"), &half, 9, true),
        ("full already, and none are added", quota("pods", "1", "2"), &half, 0, true),
        ("not counted yet", json!({"spec": {"hard": {"cpu": "1m"}}}), &half, 1, true),
        ("garbage", quota("cpu", "a lot", "{}"), &half, 1, true),
    ];
    for (what, quota, pod, count, fits) in cases {
        assert_eq!(no_room(&quota, &[(pod, count)]).is_none(), fits, "{what}");
    }
    let mut some = quota("pods", "1", "1");
    some["spec"] = json!({"scopes": ["BestEffort"]});
    assert_eq!(no_room(&some, &[(&half, 1)]), None, "it is for some pods only");
    let short = no_room(&quota("cpu", "1", "0.5"), &[(&half, 1), (&two, 1)]).unwrap();
    assert_eq!((short.resource.as_str(), short.hard.as_str(), short.used.as_str()), ("cpu", "1", "0.5"));
    assert_eq!(no_room(&quota("pods", "4", "4"), &[(&half, 2), (&two, -2)]), None, "as many go");
    assert!(no_room(&quota("pods", "4", "4"), &[(&half, 2), (&two, -1)]).is_some());
    // Whatever stands there.
    for pod in [json!(null), json!([]), json!({"containers": {"a": 1}, "initContainers": "x", "overhead": 3})] {
        assert_eq!(no_room(&quota("cpu", "1", "1"), &[(&pod, i64::from(u32::MAX))]), None);
    }
}

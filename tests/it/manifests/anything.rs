//! Whatever an author writes: reading never panics, and a slot loses nothing of it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use switchover::{
    domain::{
        ids::Slot,
        rollout::{AppManifests, ManifestPolicy, Shape},
    },
    manifests::{
        Facts, Pointed, Source, adopt, difference, label, object_name, read, refuse, render, selector,
        slot_of_selector, tie, why,
    },
};

use super::{app, order};

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[a-z]{1,8}(/[a-z]{1,5})?", "[a-zA-Z0-9]{1,12}", 1..5)
}

/// Something that a field may hold.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{1,10}", inner, 0..4).prop_map(|m| json!(m)),
        ]
    })
}

/// A Deployment of any author: any labels, any further fields anywhere.
fn deployment() -> impl Strategy<Value = Value> {
    let name = "[a-z]([-a-z0-9.]{0,80}[a-z0-9])?";
    let extra = || prop::collection::btree_map("x[a-zA-Z]{1,8}", any_json(), 0..4);
    (name, labels(), labels(), extra(), extra(), extra(), prop::option::of(0_u32..20), prop::collection::btree_map("[A-Z_]{1,8}", "[ -~]{0,20}", 0..5))
        .prop_map(|(name, own, more, on_spec, on_pod, on_container, replicas, env)| {
            let mut pods = more;
            pods.extend(own.clone());
            let env: Vec<Value> = env.into_iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
            let mut container = json!(on_container);
            container["name"] = "main".into();
            container["image"] = "acme/shop:latest".into();
            container["env"] = env.into();
            let mut pod = json!(on_pod);
            pod["containers"] = json!([container, {"name": "side", "image": "other:1"}]);
            let mut spec = json!(on_spec);
            spec["selector"] = json!({"matchLabels": own});
            spec["template"] = json!({"metadata": {"labels": pods}, "spec": pod});
            if let Some(replicas) = replicas {
                spec["replicas"] = replicas.into();
            }
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": own}, "spec": spec})
        })
}

fn manifests(workload: Value) -> AppManifests {
    AppManifests {
        shape: Shape::One { workload },
        container: "main".into(),
        also: Vec::new(),
        service: None,
        configs: vec![json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}})],
        autoscaler: None,
        budgets: Vec::new(),
        shared: Vec::new(),
    }
}

/// Fields that are ours, by their place.
fn ours(path: &str) -> bool {
    path == "/metadata/name" || path == "/spec/replicas" || path == "/spec/template/spec/containers/0/image"
}

/// Everything of `a` is in `b`, except what is ours. Lists of containers and variables may have grown.
fn within(path: &str, a: &Value, b: &Value, lost: &mut Vec<String>) {
    if ours(path) {
        return;
    }
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for (key, value) in x {
                within(&format!("{path}/{key}"), value, y.get(key).unwrap_or(&Value::Null), lost);
            }
        }
        (Value::Array(x), Value::Array(_)) if path.ends_with("/env") => {
            for item in x {
                let same = b
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|other| other == item || other["name"] == "OURS" && item["name"] == "OURS");
                if !same {
                    lost.push(format!("{path}: {item}"));
                }
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (i, (one, other)) in x.iter().zip(y).enumerate() {
                within(&format!("{path}/{i}"), one, other, lost);
            }
        }
        _ if a == b => {}
        _ => lost.push(format!("{path}: {a} became {b}")),
    }
}

fn name_is_good(name: &str, most: usize) -> bool {
    let inner = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    inner && !name.is_empty() && name.len() <= most && !name.starts_with('-') && !name.ends_with('-')
}

proptest! {
    #[test]
    fn a_slot_keeps_all_that_the_author_wrote(workload in deployment(), slot in "[0-9a-f]{7}-[0-9a-f]{8}") {
        let mut order = order(&slot);
        order.env.insert("OURS".into(), "1".into());
        let rendered = render(&manifests(workload.clone()), &order).unwrap();
        let made = &rendered.deployment;
        let mut lost = Vec::new();
        within("", &workload, made, &mut lost);
        prop_assert!(lost.is_empty(), "{lost:?}");
        prop_assert!(name_is_good(&rendered.name, 46), "{}", rendered.name);
        prop_assert!(rendered.name.ends_with(&slot));
        // It finds its own pods, and a Service that points at it finds them too.
        let pods = made.pointer("/spec/template/metadata/labels").unwrap();
        for (key, value) in made.pointer("/spec/selector/matchLabels").unwrap().as_object().unwrap() {
            prop_assert_eq!(pods.get(key), Some(value));
        }
        let slot = Slot::new(slot).unwrap();
        let points = selector(&manifests(workload), &slot, None);
        for (key, value) in &points {
            prop_assert_eq!(pods[key].as_str(), Some(value.as_str()));
        }
        // Done twice is done once, and an apply of the same changes nothing.
        prop_assert_eq!(difference(Some(made), made), []);
        let again = render(&manifests(made.clone()), &order).unwrap().deployment;
        prop_assert_eq!(again.pointer("/spec"), made.pointer("/spec"));
    }

    #[test]
    fn two_slots_never_share_pods(workload in deployment(), a in "[0-9a-f]{7}-[0-9a-f]{8}", b in "[0-9a-f]{7}-[0-9a-f]{8}") {
        prop_assume!(a != b);
        let m = manifests(workload.clone());
        let (one, two) = (render(&m, &order(&a)).unwrap(), render(&m, &order(&b)).unwrap());
        prop_assert_ne!(&one.name, &two.name);
        let pods = two.deployment.pointer("/spec/template/metadata/labels").unwrap();
        let selects = one.deployment.pointer("/spec/selector/matchLabels").unwrap().as_object().unwrap();
        prop_assert!(selects.iter().any(|(k, v)| pods.get(k) != Some(v)));
        let (a, b) = (Slot::new(a).unwrap(), Slot::new(b).unwrap());
        prop_assert_ne!(selector(&m, &a, None), selector(&m, &b, None));
        prop_assert_eq!(slot_of_selector(&m, &selector(&m, &a, None)), Pointed::Slot(a.clone()));
        let adopted = adopt(&workload, &a, &order("x").labels).unwrap();
        prop_assert_eq!(adopted.pointer("/spec/template/spec"), workload.pointer("/spec/template/spec"));
    }

    #[test]
    fn names_are_names(text in ".{0,120}", most in 20_usize..253) {
        prop_assert!(name_is_good(&object_name(&text, most), most), "{:?}", object_name(&text, most));
        let value = label(&text);
        prop_assert!(!value.is_empty() && value.len() <= 63);
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        prop_assert!(ends(value.chars().next()) && ends(value.chars().next_back()), "{value:?}");
    }

    #[test]
    fn reading_never_panics(text in "(apiVersion: v1\nkind: (Deployment|Service|List|ConfigMap)\n)?[ -~\n\t\u{e9}:\\[\\]{}&*<>|'\"-]{0,200}") {
        let got = read(&[Source { path: "a.yaml", bytes: text.as_bytes() }]);
        let policy = ManifestPolicy { namespace: "x".into(), ..ManifestPolicy::default() };
        let _ = refuse(&got.objects, &policy);
        for object in &got.objects {
            prop_assert!(object.line() >= 1);
        }
    }

    #[test]
    fn any_objects_can_be_judged_and_tied(bodies in prop::collection::vec((0_usize..8, any_json(), labels()), 0..6)) {
        let kinds = ["Deployment", "Service", "ConfigMap", "Ingress", "HorizontalPodAutoscaler", "PodDisruptionBudget", "CronJob", "Pod"];
        let versions = ["apps/v1", "v1", "v1", "networking.k8s.io/v1", "autoscaling/v2", "policy/v1", "batch/v1", "v1"];
        let all: Vec<Value> = bodies.into_iter().enumerate().map(|(i, (k, body, labels))| json!({
            "apiVersion": versions[k], "kind": kinds[k], "metadata": {"name": format!("n{i}"), "labels": labels},
            "spec": {"selector": body, "template": {"metadata": {"labels": body}, "spec": {"containers": body, "volumes": body}}},
            "data": body,
        })).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string();
        let got = read(&[Source { path: "a.json", bytes: list.as_bytes() }]);
        let policy = ManifestPolicy { namespace: "x".into(), ..ManifestPolicy::default() };
        let _ = refuse(&got.objects, &policy);
        let apps = [app("a", "acme/a"), app("b", "")];
        let tied = tie(&Facts { apps: &apps, environment: "p", scripts: &[] }, &got.objects);
        for manifests in tied.apps.values() {
            let _ = render(manifests, &order("s"));
        }
        for value in &all {
            let _ = why(value, &all, None);
            let _ = difference(all.first(), value);
        }
    }
}

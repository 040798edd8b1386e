//! Names of slots.

use std::{collections::BTreeMap, time::Duration};

use switchover::domain::{
    config::AppKind,
    ids::{Digest, Sha, Slot},
    rollout::{
        AppSpec, ProbeSpec,
        desired::{fingerprint, same_content, slot_name},
    },
};

#[test]
fn configuration_is_part_of_the_name() {
    let spec = AppSpec {
        start: Some("serve".into()),
        env: BTreeMap::from([("A".into(), "1".into())]),
        secrets: vec!["DB_URL".into()],
        port: None,
        health: Some("/health".into()),
        replicas: 1,
        pre_deploy: None,
        smoke: None,
        probe: ProbeSpec { path: None, interval: Duration::from_millis(20), body: None },
        image: None,
        resources: switchover::domain::config::Resources::default(),
        hosts: vec![],
        manifests: None,
    };
    let secrets = |v: &str| BTreeMap::from([("DB_URL".to_owned(), v.to_owned()), ("OTHER".to_owned(), "x".to_owned())]);
    let commit = |c: &str| Sha::new(c.repeat(40)).unwrap();
    let digest = Digest::of(b"one");
    let base = slot_name(&commit("a"), AppKind::Web, &digest, &spec, &secrets("s"), b"key");
    assert!(base.as_str().starts_with("aaaaaaa-") && base.as_str().len() == 16, "{base}");

    let other_commit = slot_name(&commit("b"), AppKind::Web, &digest, &spec, &secrets("s"), b"key");
    assert!(base != other_commit && same_content(&base, &other_commit));
    let mut other_probe = spec.clone();
    other_probe.probe.path = Some("/x".into());
    assert_eq!(base, slot_name(&commit("a"), AppKind::Web, &digest, &other_probe, &secrets("s"), b"key"));

    let mut env = spec.clone();
    env.env.insert("A".into(), "2".into());
    let mut moved = spec.clone();
    moved.env = BTreeMap::from([("A1".into(), String::new())]);
    let mut twice = spec.clone();
    twice.replicas = 2;
    for (what, other) in [
        ("environment", slot_name(&commit("a"), AppKind::Web, &digest, &env, &secrets("s"), b"key")),
        ("environment's shape", slot_name(&commit("a"), AppKind::Web, &digest, &moved, &secrets("s"), b"key")),
        ("replicas", slot_name(&commit("a"), AppKind::Web, &digest, &twice, &secrets("s"), b"key")),
        ("secret", slot_name(&commit("a"), AppKind::Web, &digest, &spec, &secrets("t"), b"key")),
        ("no secret", slot_name(&commit("a"), AppKind::Web, &digest, &spec, &BTreeMap::new(), b"key")),
        ("content", slot_name(&commit("a"), AppKind::Web, &Digest::of(b"two"), &spec, &secrets("s"), b"key")),
        ("kind", slot_name(&commit("a"), AppKind::Worker, &digest, &spec, &secrets("s"), b"key")),
        ("key", slot_name(&commit("a"), AppKind::Web, &digest, &spec, &secrets("s"), b"yek")),
    ] {
        assert!(!same_content(&base, &other), "{what}: {other}");
    }
}

#[test]
fn colours_have_no_fingerprint() {
    for name in ["blue", "green", "v-1", "abcdefg-12345678", "aaaaaaa-1234567", "aaaaaaa-12345678-x"] {
        assert_eq!(fingerprint(&Slot::new(name).unwrap()), None, "{name}");
    }
    assert!(!same_content(&Slot::new("blue").unwrap(), &Slot::new("green").unwrap()));
}

/// A command that the engine killed is not told as if it had failed by itself.
#[test]
fn what_was_ended_from_outside_is_told_as_such() {
    use switchover::rollout::docker::ended_with;
    assert_eq!(ended_with("pre_deploy", 5), "exit code 5");
    let killed = ended_with("pre_deploy", 137);
    assert!(killed.contains("Docker engine") && killed.contains("half migrated"), "{killed}");
    let smoke = ended_with("smoke", 143);
    assert!(smoke.contains("ended by TERM") && !smoke.contains("migrated"), "{smoke}");
}

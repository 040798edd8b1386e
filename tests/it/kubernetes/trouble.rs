//! Steps that want more than they may have, and clusters that take away.

use std::{collections::BTreeMap, time::Duration};

use switchover::{
    docker::pull::Logins,
    domain::run::StepEnd,
    exec::{
        kubernetes::KubernetesExecutor,
        limits::StepLimits,
        local::{ExecError, Executor},
    },
};
use tokio_util::sync::CancellationToken;

use super::rig::{GNU, SMALL, Stage, built, container, line, log, run, service, step, unlocked, until};

#[tokio::test(flavor = "multi_thread")]
async fn too_much_memory_is_said_as_such() {
    let Some(stage) = Stage::new("too_much_memory_is_said_as_such") else { return };
    let most = 64 << 20;
    let executor = stage.executor(StepLimits { memory: Some(most), ..StepLimits::default() }).await;
    let cases = [
        // The shell's child is killed, and the step fails for it.
        ("echo before; tail /dev/zero; echo after", None),
        ("tail /dev/zero || exit 3", None),
        // The step asks for less than the operator allows; and for more.
        ("tail /dev/zero", Some(32 << 20)),
        ("tail /dev/zero", Some(1 << 40)),
    ];
    for (command, asked) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = step(&dir, SMALL, command);
        container(&mut spec).resources.memory = asked;
        let result = run(&executor, &spec).await;
        let limit = asked.unwrap_or(most).min(most);
        let lines = log(&spec).join("\n");
        let StepEnd::OutOfMemory { limit: told, .. } = result.end else { panic!("{command}: {result:?} {lines}") };
        assert_eq!(told, Some(limit));
        assert!(result.peak_bytes >= limit, "{result:?}");
        let words = format!("a process of it was killed: out of memory ({} MiB allowed)", limit >> 20);
        assert!(lines.contains(&words) && !lines.contains("after"), "{lines}");
        assert_eq!(lines.contains("this server allows 64 MiB"), asked == Some(1 << 40), "{lines}");
    }
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_can_not_be_had_or_used_are_told_in_words() {
    let Some(stage) = Stage::new("images_that_can_not_be_had_or_used_are_told_in_words") else { return };
    let executor = stage.executor(StepLimits::default()).await;
    let registry = stage.space.cluster.registry();
    let bare = built(stage.space.cluster, "steps/bare", "FROM scratch\nCOPY file /file\n", &[("file", b"")]);
    let no_tar =
        built(stage.space.cluster, "steps/no-tar", &format!("FROM {GNU}\nRUN rm -f /bin/tar /usr/bin/tar\n"), &[]);
    let missing = format!("{registry}/no/such:1");
    let cases = [
        (missing.as_str(), "was not found"),
        ("Not An Image", "is no name of an image"),
        (bare.as_str(), "its image can't run `sh`, which a step needs, and `tar`"),
        (no_tar.as_str(), "its image has no `tar`"),
    ];
    for (image, words) in cases {
        let dir = tempfile::tempdir().unwrap();
        let spec = step(&dir, image, "echo ran");
        let result = run(&executor, &spec).await;
        let StepEnd::NotStarted(why) = &result.end else { panic!("{image}: {result:?}") };
        assert!(why.contains(words), "{image}: {why}");
        assert_eq!(log(&spec), [format!("[switchover] {why}")]);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut spec = step(&dir, SMALL, "echo ran");
    container(&mut spec).services.insert("db".into(), service(&missing, None));
    let result = run(&executor, &spec).await;
    assert!(matches!(&result.end, StepEnd::NotStarted(why) if why.contains("was not found")), "{result:?}");
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn companions_that_fail_say_why() {
    let Some(stage) = Stage::new("companions_that_fail_say_why") else { return };
    let ready = |s| StepLimits { ready: Some(Duration::from_secs(s)), ..StepLimits::default() };
    // One that ends by itself is told as soon as it has, and one that never listens at its time.
    let (patient, executor) = (stage.executor(ready(60)).await, stage.executor(ready(3)).await);
    let web = stage.space.cluster.push_app("steps/companion", "v7", &[]).exact();
    let cases = [
        // A shell without a terminal ends at once.
        (SMALL, Some("tcp:5432"), "it ended with exit code 0 before it was ready"),
        (web.as_str(), Some("tcp:6380"), "nothing listens on its port 6380 within 3 s"),
        (web.as_str(), Some("health"), "does not run an image's own health check"),
    ];
    for (image, ready, why) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = step(&dir, SMALL, "echo ran");
        container(&mut spec).services.insert("other".into(), service(image, ready));
        let executor = if why.contains("ended") { &patient } else { &executor };
        let result = run(executor, &spec).await;
        let lines = log(&spec).join("\n");
        let StepEnd::NotStarted(said) = &result.end else { panic!("{result:?} {lines}") };
        assert!(said.starts_with("companion other (") && said.contains(why), "{said}\n{lines}");
        assert!(!lines.contains("\nran"), "{lines}");
    }
    // One that is dead when the step fails is told of.
    let dir = tempfile::tempdir().unwrap();
    let mut spec = step(&dir, SMALL, "sleep 2; exit 1");
    container(&mut spec).services.insert("shell".into(), service(SMALL, None));
    let result = run(&executor, &spec).await;
    assert_eq!(result.end, StepEnd::Exited(1));
    let told = format!("[switchover] companion shell ({SMALL}) had ended: exit code 0");
    assert_eq!(log(&spec).last(), Some(&told));
    // Two on one port can't be in one pod.
    for name in ["one", "two"] {
        container(&mut spec).services.insert(name.into(), service(&web, Some("tcp:8080")));
    }
    let result = run(&executor, &spec).await;
    assert!(matches!(&result.end, StepEnd::NotStarted(why) if why.contains("both listen on port 8080")), "{result:?}");
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_taken_away_is_not_the_steps_fault() {
    let Some(stage) = Stage::new("a_pod_that_is_taken_away_is_not_the_steps_fault") else { return };
    let executor = stage.executor(StepLimits::default()).await;
    // By hand; and by the API that drains nodes.
    for (evict, words) in [(false, "somebody deleted it"), (true, "it was evicted")] {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = step(&dir, SMALL, "trap 'echo told' TERM; echo ready; while :; do sleep 0.1; done");
        spec.grace = Duration::from_secs(3);
        let (result, ()) = tokio::join!(executor.run(&spec, CancellationToken::new()), async {
            line(&spec, "ready").await;
            let pod = stage.pod();
            if evict {
                let name = pod.trim_start_matches("pod/");
                let path = format!("/api/v1/namespaces/{}/pods/{name}/eviction", stage.space.name);
                let body = format!(
                    r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{name}","namespace":"{}"}}}}"#,
                    stage.space.name
                );
                let file = dir.path().join("eviction.json");
                std::fs::write(&file, body).unwrap();
                stage.space.kubectl(&["create", "--raw", &path, "-f", file.to_str().unwrap()]);
            } else {
                stage.space.kubectl(&["delete", &pod, "--wait=false"]);
            }
        });
        let Err(ExecError::PodLost(why)) = &result else { panic!("{result:?} {:?}", log(&spec)) };
        assert!(why.contains(words), "{why}");
        // The same step again: in the same place, under the same name.
        spec.command = "echo again".into();
        assert_eq!(run(&executor, &spec).await.end, StepEnd::Exited(0));
        assert_eq!(log(&spec), ["again"]);
        stage.nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_node_or_quota_takes_is_told_while_it_waits() {
    let Some(stage) = Stage::new("what_no_node_or_quota_takes_is_told_while_it_waits") else { return };
    let dir = tempfile::tempdir().unwrap();
    let nowhere = BTreeMap::from([("switchover.dev/no-such".to_owned(), "node".to_owned())]);
    let executor = KubernetesExecutor::new(stage.connection().await, StepLimits::default(), Logins::default(), nowhere);
    let mut spec = step(&dir, SMALL, "echo ran");
    let cancel = CancellationToken::new();
    let told = || log(&spec).first().is_some_and(|l| l.starts_with("[switchover] no node takes it for now: 0/"));
    let (result, ()) = tokio::join!(executor.run(&spec, cancel.clone()), async {
        until("that no node takes it is told", told).await;
        cancel.cancel();
    });
    assert_eq!(result.unwrap().end, StepEnd::Cancelled);
    assert_eq!(log(&spec).last().unwrap(), "[switchover] cancelled before it began");
    stage.nothing_left().await;
    stage.space.apply("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none}\nspec: {hard: {pods: \"0\"}}\n");
    let executor = stage.executor(StepLimits::default()).await;
    spec.timeout = Duration::from_secs(100);
    let (result, ()) = tokio::join!(executor.run(&spec, CancellationToken::new()), async {
        until("the quota is told", || log(&spec).join("\n").contains("exceeded quota")).await;
        stage.space.kubectl(&["delete", "resourcequota", "none"]);
    });
    assert_eq!(result.unwrap().end, StepEnd::Exited(0));
    assert_eq!(log(&spec).last().unwrap(), "ran");
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_servers_steps_are_swept_at_its_next_start() {
    let Some(stage) = Stage::new("a_killed_servers_steps_are_swept_at_its_next_start") else { return };
    let executor = stage.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let spec = step(&dir, SMALL, "echo ready; while :; do sleep 0.1; done");
    // Another process of the same server: it knows nothing of what the first one runs.
    let next = stage.executor(StepLimits::default()).await;
    let (lost, swept) = tokio::join!(executor.run(&spec, CancellationToken::new()), async {
        line(&spec, "ready").await;
        assert_eq!(executor.sweep().await.unwrap(), 0, "its own");
        next.sweep().await
    });
    assert!(swept.unwrap() >= 1);
    assert!(matches!(lost, Err(ExecError::PodLost(_))), "{lost:?}");
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_future_that_is_dropped_ends_its_step() {
    let Some(stage) = Stage::new("a_future_that_is_dropped_ends_its_step") else { return };
    let executor = stage.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut spec = step(&dir, SMALL, "trap '' TERM; echo ready; while :; do sleep 0.1; done");
    spec.grace = Duration::from_secs(1);
    tokio::select! {
        _ = executor.run(&spec, CancellationToken::new()) => panic!("it never ends by itself"),
        () = line(&spec, "ready") => {}
    }
    // The lock goes last.
    until("the workspace is free", || unlocked(spec.hold.as_ref().unwrap())).await;
    stage.nothing_left().await;
}

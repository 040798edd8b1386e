//! Steps that want more than they may have.

use std::fs;

use switchover::{domain::run::StepEnd, exec::docker::StepLimits};

use super::rig::{self, SMALL, engine, log, run, step};

#[tokio::test(flavor = "multi_thread")]
async fn too_much_memory_is_said_as_such() {
    let Some(engine) = engine("too_much_memory_is_said_as_such") else { return };
    let most = 64 << 20;
    let executor = engine.executor(StepLimits { memory: Some(most), ..StepLimits::default() }).await;
    let cases = [
        // The shell's child is killed, and the step fails for it.
        ("echo before; tail /dev/zero; echo after", None),
        ("tail /dev/zero || exit 3", None),
        // The step asks for less than the operator allows; and for more.
        ("tail /dev/zero", Some(16 << 20)),
        ("tail /dev/zero", Some(1 << 40)),
    ];
    for (command, asked) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = step(&dir, SMALL, command);
        spec.container.as_mut().unwrap().resources.memory = asked;
        let result = run(&executor, &spec).await;
        let limit = asked.unwrap_or(most).min(most);
        let lines = log(&spec).join("\n");
        assert_eq!(
            result.end,
            StepEnd::OutOfMemory { peak: limit, limit: Some(limit) },
            "{command} {asked:?}: {lines}"
        );
        assert_eq!(result.peak_bytes, limit);
        let words = format!("a process of it was killed: out of memory ({} MiB allowed)", limit >> 20);
        assert!(lines.contains(&words) && !lines.contains("after"), "{lines}");
        assert_eq!(lines.contains("this server allows 64 MiB"), asked == Some(1 << 40), "{lines}");
    }
    // One that lives on is told of and not failed.
    let dir = tempfile::tempdir().unwrap();
    let spec = step(&dir, SMALL, "tail /dev/zero || true; echo went on");
    assert_eq!(run(&executor, &spec).await.end, StepEnd::Exited(0));
    assert!(log(&spec).join("\n").contains("out of memory"));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_processes_are_refused_to_the_step_alone() {
    let Some(engine) = engine("too_many_processes_are_refused_to_the_step_alone") else { return };
    let executor = engine.executor(StepLimits { pids: 64, ..StepLimits::default() }).await;
    let dir = tempfile::tempdir().unwrap();
    let spec = step(&dir, SMALL, "i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done");
    let result = run(&executor, &spec).await;
    let lines = log(&spec).join("\n");
    assert!(matches!(result.end, StepEnd::Exited(n) if n != 0), "{result:?}");
    assert!(lines.contains("can't fork"), "{lines}");
    assert_eq!(rig::left(executor.docker()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_cut_and_counted() {
    let Some(engine) = engine("a_flood_is_cut_and_counted") else { return };
    let executor = engine.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut spec = step(&dir, SMALL, "yes 0123456789 | head -c 20000000; echo; echo last");
    spec.output_limit = 10_000;
    let result = run(&executor, &spec).await;
    assert_eq!((result.end, result.truncated), (StepEnd::Exited(0), true));
    assert_eq!(result.output_bytes, 20_000_006);
    assert!(fs::metadata(&spec.log).unwrap().len() < 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_output_does_not_keep_it_from_its_time_limit() {
    let Some(engine) = engine("endless_output_does_not_keep_it_from_its_time_limit") else { return };
    let executor = engine.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut spec = step(&dir, SMALL, "trap '' TERM; while :; do yes; done");
    spec.output_limit = 10_000;
    spec.timeout = std::time::Duration::from_secs(4);
    spec.grace = std::time::Duration::from_millis(300);
    let result = run(&executor, &spec).await;
    assert_eq!((result.end, result.truncated), (StepEnd::TimedOut, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_on_disk_ends_the_step() {
    let Some(engine) = engine("too_much_on_disk_ends_the_step") else { return };
    let executor = engine.executor(StepLimits { disk: Some(32 << 20), ..StepLimits::default() }).await;
    // In its home, and in its container's own layer.
    for folder in ["$TMPDIR", "/tmp"] {
        let dir = tempfile::tempdir().unwrap();
        let command = format!(
            "i=0; while :; do head -c 8000000 /dev/zero >{folder}/file$i; i=$((i+1)); [ $i -lt 12 ] || sleep 0.1; done"
        );
        let mut spec = step(&dir, SMALL, &command);
        spec.grace = std::time::Duration::from_millis(100);
        let result = run(&executor, &spec).await;
        let over = matches!(result.end, StepEnd::OverDisk { used, limit } if used > limit && limit == 32 << 20);
        assert!(over, "{folder}: {result:?}");
        assert!(log(&spec).join("\n").contains("lie in its workspace, home, caches and containers; ending"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_reach_the_world_only_where_they_may_and_never_each_other() {
    let Some(engine) = engine("steps_reach_the_world_only_where_they_may_and_never_each_other") else { return };
    for internet in [true, false] {
        let executor = engine.executor(StepLimits { internet, ..StepLimits::default() }).await;
        let dir = tempfile::tempdir().unwrap();
        let spec = step(&dir, SMALL, "touch ready; while [ ! -e stop ]; do sleep 0.05; done");
        let (result, ()) = tokio::join!(run(&executor, &spec), async {
            rig::file(&spec.cwd.join("ready")).await;
            // What the engine makes of it is the engine's own affair: no way out, and none in.
            let network = rig::networks(executor.docker()).await;
            assert_eq!(network.iter().map(|n| n.internal).collect::<Vec<_>>(), [Some(!internet)]);
            fs::write(spec.cwd.join("stop"), "").unwrap();
        });
        assert_eq!(result.end, StepEnd::Exited(0), "internet {internet}: {:?}", log(&spec));
    }
    let executor = engine.executor(StepLimits::default()).await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let listening = step(
        &one,
        SMALL,
        "ip -4 -o addr show eth0 | awk '{print $4}' | cut -d/ -f1 >address.new; nc -ll -p 9000 -e echo heard & mv address.new address; while [ ! -e stop ]; do sleep 0.05; done",
    );
    let (heard, ()) = tokio::join!(run(&executor, &listening), async {
        rig::file(&listening.cwd.join("address")).await;
        let address = fs::read_to_string(listening.cwd.join("address")).unwrap();
        let knock = step(&two, SMALL, &format!("nc -w 2 {} 9000 </dev/null", address.trim()));
        assert_ne!(run(&executor, &knock).await.end, StepEnd::Exited(0), "{address}");
        fs::write(listening.cwd.join("stop"), "").unwrap();
    });
    assert_eq!(heard.end, StepEnd::Exited(0), "{:?}", log(&listening));
}

//! An API server that goes away while a step runs.

use std::{fs, time::Duration};

use switchover::{
    domain::run::StepEnd,
    exec::{
        limits::StepLimits,
        local::{ExecError, Executor},
    },
};
use tokio_util::sync::CancellationToken;

use crate::cluster::rig::Cluster;

use super::rig::{SMALL, Stage, line, log, run, step, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_step_goes_on_while_nobody_can_ask_for_it() {
    let Some(cluster) = Cluster::own("a_step_goes_on_while_nobody_can_ask_for_it") else { return };
    let stage = Stage::on(&cluster);
    let executor = stage.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    // It ends while the API is away, or not: nothing of its output is lost or doubled, and its files are here.
    for (lines, pause) in [(400, "0.05"), (100, "0.05")] {
        let command =
            format!("i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line $i; sleep {pause}; done; echo done >left");
        let mut spec = step(&dir, SMALL, &command);
        spec.timeout = Duration::from_secs(200);
        let (result, ()) = tokio::join!(run(&executor, &spec), async {
            line(&spec, "line 5").await;
            tokio::task::block_in_place(|| stage.space.cluster.stop_api());
            // Long enough for the shorter step to end meanwhile.
            tokio::time::sleep(Duration::from_secs(8)).await;
            tokio::task::block_in_place(|| stage.space.cluster.start_api());
        });
        assert_eq!(result.end, StepEnd::Exited(0), "{:?}", log(&spec));
        let all: Vec<String> = (1..=lines).map(|n| format!("line {n}")).collect();
        assert_eq!(log(&spec), all);
        assert_eq!(fs::read_to_string(spec.cwd.join("left")).unwrap(), "done\n");
    }
    // Away from the begin: said, and nothing is left when it is back.
    tokio::task::block_in_place(|| stage.space.cluster.stop_api());
    let spec = step(&dir, SMALL, "echo ran");
    let away = executor.run(&spec, CancellationToken::new()).await;
    assert!(matches!(away, Err(ExecError::Cluster { .. })), "{away:?}");
    tokio::task::block_in_place(|| stage.space.cluster.start_api());
    until("nothing is left", || stage.left().is_empty()).await;
    assert_eq!(run(&executor, &spec).await.end, StepEnd::Exited(0));
}

//! A whole server whose steps are Jobs: push, steps, reports, and a server that is killed in the middle.

use std::path::Path;

use super::rig::{GNU, Stage, until};
use crate::engine::rig::Rig;

fn config(step: &str) -> String {
    format!(
        "version: 1
apps:
  web:
    container: {GNU}
    cache: [\"~/.cache/kept\"]
    steps:
      first: {{run: \"{step}\"}}
      test:
        run: mkdir -p out && cp made out/result.xml && cat ~/.cache/kept/word
        reports: [\"out/*.xml\"]
"
    )
}

const REPORT: &str = r#"<testsuite name="s"><testcase classname="c" name="one"/><testcase classname="c" name="two"><failure message="no">at a.txt:1</failure></testcase></testsuite>"#;

fn settings(stage: &Stage<'_>) -> impl Fn(&Path) -> String {
    let (kubeconfig, namespace) = (stage.space.cluster.kubeconfig().to_owned(), stage.space.name.clone());
    move |_| {
        format!(
            "executor = \"kubernetes\"\n[kubernetes]\nkubeconfig_file = \"{}\"\nnamespace = \"{namespace}\"\n",
            kubeconfig.display()
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_tested_in_the_cluster() {
    let Some(stage) = Stage::new("a_push_is_tested_in_the_cluster") else { return };
    let rig = Rig::start_with(&settings(&stage)).await;
    let step = "cp report.xml made; echo word >~/.cache/kept/word";
    let files = [(".github/switchover.yml", Some(config(step))), ("report.xml", Some(REPORT.to_owned()))];
    let files: Vec<(&str, Option<&str>)> = files.iter().map(|(p, t)| (*p, t.as_deref())).collect();
    let bad = rig.push("main", &files, "one").await;
    let check = rig.check(&bad, "web / test (push)").await;
    assert_eq!(check.conclusion.as_deref(), Some("failure"), "{:?}", check.output);
    let title = check.output.title.unwrap_or_default();
    assert!(title.contains("1 passed") && title.contains("1 failed"), "{title}");
    let good = REPORT.replace("<failure message=\"no\">at a.txt:1</failure>", "");
    let good = rig.push("main", &[("report.xml", Some(&good))], "two").await;
    assert_eq!(rig.conclusion(&good, "switchover").await, "success");
    stage.nothing_left().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_runs_the_step_again_and_leaves_nothing() {
    let Some(stage) = Stage::new("a_server_killed_in_the_middle_runs_the_step_again_and_leaves_nothing") else {
        return;
    };
    for crash in ["exec.kubernetes.job_made", "exec.kubernetes.job_begun", "runner.after_step_ran"] {
        let mut rig = Rig::start_with(&settings(&stage)).await;
        rig.kill().await;
        rig.serve(Some(crash)).await;
        let step = "test ! -e made && cp report.xml made; echo word >~/.cache/kept/word";
        let good = REPORT.replace("<failure message=\"no\">at a.txt:1</failure>", "");
        let files = [(".github/switchover.yml", Some(config(step))), ("report.xml", Some(good))];
        let files: Vec<(&str, Option<&str>)> = files.iter().map(|(p, t)| (*p, t.as_deref())).collect();
        let sha = rig.push("main", &files, "one").await;
        assert!(rig.ended(crate::engine::rig::PATIENCE).await, "{crash}: {}", rig.log());
        rig.serve(None).await;
        assert_eq!(rig.conclusion(&sha, "switchover").await, "success", "{crash}: {}", rig.log());
        until("nothing is left in the cluster", || stage.left().is_empty()).await;
        rig.stop().await;
    }
}

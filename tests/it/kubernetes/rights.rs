//! The executor's rights: what its documentation lists is enough, and a missing one is named.

use std::collections::BTreeMap;

use switchover::{
    cluster::Cluster as Connection,
    docker::pull::Logins,
    domain::run::StepEnd,
    exec::{kubernetes::KubernetesExecutor, limits::StepLimits, local::Executor},
    settings::ClusterSettings,
};
use tokio_util::sync::CancellationToken;

use super::rig::{SMALL, Stage, log, step};

/// The rules that the table in `exec/kubernetes` says: group, resource, verbs.
fn table() -> Vec<(String, String, Vec<String>)> {
    let source = include_str!("../../../src/exec/kubernetes/mod.rs");
    let lines = source.lines().skip_while(|l| !l.starts_with("//! # Rights")).take_while(|l| l.starts_with("//!"));
    let cell = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    lines
        .filter(|l| l.contains("| `") || l.contains("| | `"))
        .map(|line| {
            let cells: Vec<Vec<String>> = line.trim_start_matches("//! |").split('|').map(cell).collect();
            (cells[0].first().cloned().unwrap_or_default(), cells[1][0].clone(), cells[2].clone())
        })
        .collect()
}

fn role(rules: &[(String, String, Vec<String>)]) -> String {
    let rules: Vec<String> = rules
        .iter()
        .map(|(group, resource, verbs)| {
            format!("- {{apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: {verbs:?}}}")
        })
        .collect();
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: steps}}\nrules:\n{}\n",
        rules.join("\n")
    )
}

/// An executor as an account that has the Role and nothing else.
async fn as_account(stage: &Stage<'_>, dir: &tempfile::TempDir) -> KubernetesExecutor {
    let space = &stage.space;
    let kubeconfig = space.account("steps", dir.path());
    let settings = ClusterSettings { kubeconfig: Some(kubeconfig), context: None, namespace: space.name.clone() };
    let connection = Connection::new(&settings, "rights").await.unwrap();
    let limits = StepLimits { internet: false, ..StepLimits::default() };
    KubernetesExecutor::new(connection, limits, Logins::default(), BTreeMap::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_of_the_table_are_enough_and_a_missing_one_is_named() {
    let Some(stage) = Stage::new("the_rights_of_the_table_are_enough_and_a_missing_one_is_named") else { return };
    let rules = table();
    assert_eq!(rules.len(), 7, "{rules:?}");
    stage.space.apply(&role(&rules));
    let dir = tempfile::tempdir().unwrap();
    let executor = as_account(&stage, &dir).await;
    let spec = step(&dir, SMALL, "echo ran; touch left");
    let result = executor.run(&spec, CancellationToken::new()).await.unwrap();
    assert_eq!(result.end, StepEnd::Exited(0), "{:?}", log(&spec));
    assert!(spec.cwd.join("left").exists());
    stage.nothing_left().await;
    assert_eq!(executor.sweep().await.unwrap(), 0);
    for missing in ["jobs", "pods", "pods/exec", "secrets", "networkpolicies"] {
        let fewer: Vec<_> = rules.iter().filter(|(_, resource, _)| resource != missing).cloned().collect();
        stage.space.apply(&role(&fewer));
        // Rules take a moment to reach the one who decides.
        let can = || {
            let (resource, sub) = missing.split_once('/').unwrap_or((missing, ""));
            let account = format!("--as=system:serviceaccount:{}:switchover", stage.space.name);
            let verb = &rules.iter().find(|(_, r, _)| r == missing).unwrap().2[0];
            let sub = format!("--subresource={sub}");
            stage.space.try_kubectl(&["auth", "can-i", verb, resource, &sub, &account]).is_ok()
        };
        super::rig::until("the right is gone", || !can()).await;
        let said = executor.run(&spec, CancellationToken::new()).await.unwrap_err().to_string();
        assert!(said.contains("lacks a right") && said.contains(missing), "{missing}: {said}");
        stage.space.apply(&role(&rules));
        super::rig::until("the right is back", can).await;
        super::rig::until("nothing is left", || stage.left().is_empty()).await;
    }
}

//! What a pull request's file would change about releases.

use insta::assert_snapshot;
use switchover::domain::config::changes::between;

const OLD: &str = "version: 1
apps: {web: {steps: {test: {run: make}}}}
environments:
  staging: {deploy: {branch: develop}}
  production:
    deploy: {branch: main}
    watch_for: 2m
    env: {LOG: info, KEY: \"AKIAABCDEFGHIJKLMNOP\"}
    windows: ['mon-fri 09:00-17:00 UTC']
notify: {slack: '#deploys'}
";

fn told(old: &str, new: &str) -> String {
    between(old.as_bytes(), new.as_bytes()).join("\n")
}

#[test]
fn what_changes_is_told_key_by_key() {
    let new = "version: 1
environments:
  production:
    deploy: {branch: develop}
    approval: required
    env: {LOG: debug, KEY: \"AKIAABCDEFGHIJKLMNOQ\"}
    windows: ['mon-fri 09:00-17:00 UTC', 'sat 10:00-12:00 UTC']
  canary: {deploy: {promote_from: production}, replicas: 2}
";
    assert_snapshot!(told(OLD, new), @r"
    messages to Slack: removed (slack #deploys)
    production: approval not written → required
    production: deploy.branch main → develop
    production: env.KEY ******************** → ********************
    production: env.LOG info → debug
    production: watch_for 2m → not written
    production: windows [mon-fri 09:00-17:00 UTC] → [mon-fri 09:00-17:00 UTC, sat 10:00-12:00 UTC]
    environment staging: removed (deploy.branch develop)
    environment canary: added (deploy.promote_from production, replicas 2)
    ");
    assert_snapshot!(told(OLD, ""), @r"
    messages to Slack: removed (slack #deploys)
    environment production: removed (deploy.branch main)
    environment staging: removed (deploy.branch develop)
    ");
    assert_snapshot!(told("", OLD), @r"
    messages to Slack: added (slack #deploys)
    environment production: added (deploy.branch main, env.KEY ********************, env.LOG info, watch_for 2m, windows [mon-fri 09:00-17:00 UTC])
    environment staging: added (deploy.branch develop)
    ");
    assert_snapshot!(told("version: 1\nenvironments: [", OLD), @r"
    the file has mistakes now, so nothing is released by it; this one is right
    messages to Slack: added (slack #deploys)
    environment production: added (deploy.branch main, env.KEY ********************, env.LOG info, watch_for 2m, windows [mon-fri 09:00-17:00 UTC])
    environment staging: added (deploy.branch develop)
    ");
}

#[test]
fn what_says_the_same_changes_nothing() {
    let other =
        OLD.replace("web", "site").replace("watch_for: 2m", "watch_for: 120s").replace("{run: make}", "{run: x}");
    assert_eq!(told(OLD, &format!("# words\n{other}")), "");
    assert_eq!(told("", "# words\n"), "");
    // Its mistakes are told by themselves.
    assert_eq!(told(OLD, "version: 1\nenvironments: ["), "");
}

#[test]
fn a_long_list_is_cut() {
    let many: String = (0..50).map(|n| format!("  e{n}: {{deploy: {{branch: main}}}}\n")).collect();
    let lines = between(b"", format!("version: 1\nenvironments:\n{many}").as_bytes());
    assert_eq!((lines.len(), lines[30].as_str()), (31, "… and 20 more"));
}

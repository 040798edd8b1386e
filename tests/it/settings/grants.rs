use secrecy::ExposeSecret as _;
use switchover::domain::run::Trigger;

use super::Server;

fn server() -> Server {
    Server::good().secret("s", "value", 0o600).secret("url", "https://hooks.example/x", 0o600).toml(
        r##"trusted_local = ["acme/*", "Other/Tool"]
[targets.one]
kind = "local"
repositories = ["acme/shop"]
[targets.two]
kind = "local"
repositories = ["acme/*"]
[secrets."acme/shop"]
DB = {file = "s", environments = ["production"]}
NEXUS = {file = "s", steps = true, pull_requests = true}
SIGN = {file = "s", steps = true}
[slack]
"#deploys" = {url_file = "url"}
"##,
    )
}

#[test]
fn targets() {
    let settings = server().right();
    let cases = [
        ("acme/shop", Some("one")),
        ("ACME/Shop", Some("two")),
        ("acme/shop", None),
        ("acme/other", None),
        ("acme/other", Some("one")),
        ("evil/shop", None),
        ("evil/shop", Some("one")),
        ("acme", None),
        ("evilacme/shop", None),
    ];
    let told: Vec<String> = cases
        .iter()
        .map(|(repository, wanted)| {
            let found = match settings.target_for(repository, *wanted) {
                Ok((name, _)) => format!("-> {name}"),
                Err(words) => words,
            };
            format!("{repository} {wanted:?}: {found}")
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    acme/shop Some("one"): -> one
    ACME/Shop Some("two"): -> two
    acme/shop None: several targets are granted to acme/shop (one, two): name one with `target:`
    acme/other None: -> two
    acme/other Some("one"): the operator of this server granted acme/other no target named "one" (granted: two): add the repository to [targets.one] in switchover.toml
    evil/shop None: the operator of this server granted evil/shop no target: add one to switchover.toml with `repositories = ["evil/shop"]`
    evil/shop Some("one"): the operator of this server granted evil/shop no target named "one" (granted: none): add the repository to [targets.one] in switchover.toml
    acme None: the operator of this server granted acme no target: add one to switchover.toml with `repositories = ["acme"]`
    evilacme/shop None: the operator of this server granted evilacme/shop no target: add one to switchover.toml with `repositories = ["evilacme/shop"]`
    "#);
}

#[test]
fn secrets_reach_only_what_they_are_granted_to() {
    let settings = server().right();
    let wanted: Vec<String> = ["DB", "NEXUS", "SIGN", "NONE"].map(str::to_owned).to_vec();
    let names = |granted: Vec<(String, secrecy::SecretString)>| {
        assert!(granted.iter().all(|(_, value)| value.expose_secret() == "value"));
        granted.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
    };
    for (trigger, expected) in
        [(Trigger::Release, "NEXUS SIGN"), (Trigger::OwnPull, "NEXUS"), (Trigger::Branch, ""), (Trigger::Stranger, "")]
    {
        assert_eq!(names(settings.step_secrets("Acme/shop", trigger, &wanted)), expected, "{trigger:?}");
        assert_eq!(names(settings.step_secrets("acme/other", trigger, &wanted)), "", "{trigger:?}");
    }
    assert_eq!(names(settings.step_secrets("acme/shop", Trigger::Release, &wanted[2..])), "SIGN");
    for (environment, expected) in [("production", "DB"), ("staging", ""), ("Production", "")] {
        assert_eq!(names(settings.environment_secrets("acme/shop", environment, &wanted)), expected, "{environment}");
    }
}

#[test]
fn trust_and_channels() {
    let settings = server().right();
    for (repository, trusted) in [
        ("acme/x", true),
        ("ACME/x", true),
        ("other/tool", true),
        ("other/x", false),
        ("acmex/y", false),
        ("acme", false),
    ] {
        assert_eq!(settings.trusted_local(repository), trusted, "{repository}");
    }
    assert!(settings.slack_for(Some("#deploys")).is_some() && settings.slack_for(Some("#x")).is_none());
    let settings = server().var("SWITCHOVER_SLACK_URL", "https://hooks.example/default").right();
    assert_eq!(settings.slack_for(Some("#deploys")).map(|s| s.expose_secret()), Some("https://hooks.example/x"));
    assert_eq!(settings.slack_for(None).map(|s| s.expose_secret()), Some("https://hooks.example/default"));
    assert!(!Server::good().right().trusted_local("acme/shop"));
}

//! What the documentation says of the settings is so.

use std::fs;

use secrecy::ExposeSecret as _;
use switchover::settings::{self, variables::VARIABLES};

use super::Server;

#[test]
fn the_example_of_the_documentation() {
    let server = Server::good()
        .secret("hub", "pw", 0o600)
        .secret("db", "postgres://x", 0o600)
        .secret("nexus", "n", 0o600)
        .secret("slack", "https://hooks.example/s", 0o600)
        .toml(
            r##"trusted_local = ["acme/shop"]

[targets.prod]
kind = "local"
repositories = ["acme/*"]    # who may use it
listen = { "backend" = "0.0.0.0:8080", "staging/backend" = "127.0.0.1:8081" }
agent = "agents/prod"

[registries."docker.io"]
username = "acme"
password_file = "hub"
repositories = ["acme/*"]

[secrets."acme/shop"]
DB_URL = {file = "db", environments = ["production"]}
NEXUS_TOKEN = {file = "nexus", steps = true, pull_requests = true}

[slack]
"#deploys" = {url_file = "slack"}

[limits]
concurrent_steps = 4
step_memory = "4Gi"
"##,
        );
    let settings = server.right();
    assert_eq!((settings.limits.concurrent_steps, settings.limits.step_memory), (4, Some(4 << 30)));
    let settings::TargetSettings::Local(local) = &settings.targets["prod"] else { panic!("another kind") };
    assert_eq!(local.agent, server.path().join("agents/prod"));
    assert_eq!(local.listen["staging/backend"].address.to_string(), "127.0.0.1:8081");
    assert_eq!(settings.registries["docker.io"].password.expose_secret(), "pw");
    assert!(settings.slack.contains_key("#deploys"));
    let schema = settings::schema();
    jsonschema::meta::validate(&schema).expect("a JSON schema");
    let text = fs::read_to_string(server.path().join("switchover.toml")).expect("text");
    let json = serde_json::to_value(toml::from_str::<toml::Table>(&text).expect("TOML")).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a JSON schema");
    assert_eq!(validator.iter_errors(&json).map(|e| e.to_string()).collect::<Vec<_>>(), Vec::<String>::new());
    assert!(!validator.is_valid(&serde_json::json!({"targets": {"x": {"kind": "local"}}})));
}

#[test]
fn the_reference_names_every_variable() {
    let reference = settings::reference_markdown();
    for variable in &VARIABLES {
        assert!(reference.contains(&format!("| `{}`", variable.name)), "{}", variable.name);
        assert!(reference.contains(variable.doc), "{}", variable.name);
    }
    assert!(reference.contains("`SWITCHOVER_PRIVATE_KEY_FILE`") && reference.contains("## Target"));
}

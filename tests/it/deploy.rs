//! The files under `deploy/`, as far as they can be judged without what runs them.

use std::path::Path;

use switchover::domain::config::tree::{self, Node};

fn items(node: &Node) -> Vec<String> {
    node.items().iter().filter_map(|i| i.text().map(str::to_owned)).collect()
}

/// The server asks slots, the agent's listeners and a registry at addresses that exist in the host's network alone; and the
/// agent reads the certificates that the settings name.
#[test]
fn the_compose_file_puts_server_and_agent_where_they_reach_all() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose.yml");
    // The one anchor is for what does not matter here.
    let text = std::fs::read_to_string(file).unwrap().replace("&switchover", "").replace("    <<: *switchover\n", "");
    let root = tree::read(&text).unwrap().unwrap();
    let services = root.get("services").unwrap();
    let mounts = |name: &str| {
        let service = services.get(name).unwrap();
        assert_eq!(service.get("network_mode").and_then(Node::text), Some("host"), "{name}");
        assert!(service.get("ports").is_none(), "{name}: nothing is published out of the host's network");
        items(service.get("volumes").unwrap())
    };
    let (server, agent) = (mounts("server"), mounts("agent"));
    let data = "/var/lib/switchover:/var/lib/switchover".to_owned();
    assert!(server.contains(&data) && agent.contains(&data), "{server:?} {agent:?}");
    assert!(server.contains(&"/etc/switchover:/etc/switchover:ro".to_owned()), "{server:?}");
    assert_eq!(agent, [data, "/etc/switchover/tls:/etc/switchover/tls:ro".to_owned()], "no secret, no engine");
    let environment = services.get("server").and_then(|s| s.get("environment")).unwrap();
    // Without it the image's own setting would offer pages without a login to everybody.
    assert_eq!(environment.get("SWITCHOVER_LISTEN").and_then(Node::text), Some("${SWITCHOVER_LISTEN:-127.0.0.1:8080}"));
}

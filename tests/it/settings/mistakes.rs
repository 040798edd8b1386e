use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt as _};

use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use switchover::settings::variables::VARIABLES;

use super::{KEY, Server};

#[test]
fn nothing_at_all() {
    insta::assert_snapshot!(Server::new().told(), @r#"
    3 settings are wrong:

    SWITCHOVER_APP_ID: is missing. The GitHub App's id, from its settings page.
        expected: SWITCHOVER_APP_ID=…, or `app_id = …` in the file
        see: `switchover schema settings`, docs/configure.md

    SWITCHOVER_PRIVATE_KEY: is missing. The GitHub App's private key (PEM), from its settings page.
        expected: SWITCHOVER_PRIVATE_KEY_FILE=PATH (or SWITCHOVER_PRIVATE_KEY), or `private_key_file = "PATH"` in the file
        see: `switchover schema settings`, docs/configure.md

    SWITCHOVER_WEBHOOK_SECRET: is missing. The webhook's secret; during a rotation several, separated by commas.
        expected: SWITCHOVER_WEBHOOK_SECRET_FILE=PATH (or SWITCHOVER_WEBHOOK_SECRET), or `webhook_secret_file = "PATH"` in the file
        see: `switchover schema settings`, docs/configure.md
    "#);
}

#[test]
fn defaults() {
    let settings = Server::good().right();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.public_url.as_str(), "http://127.0.0.1:8080/");
    assert_eq!(settings.data.to_str(), Some("./data"));
    assert_eq!(settings.github_url.as_str(), "https://api.github.com/");
    assert_eq!(settings.github_web_url.as_str(), "https://github.com/");
    assert_eq!((settings.app_id, settings.webhook_secrets.len()), (7, 1));
    assert!(settings.limits.concurrent_steps >= 1 && settings.limits.step_memory.is_none());
    assert!(settings.slack_url.is_none() && settings.targets.is_empty() && settings.database_url.is_none());
    assert!(!format!("{settings:?}").contains("BEGIN") && !format!("{settings:?}").contains("hush"));
}

#[test]
fn the_environment_wins_over_the_file() {
    let server = Server::good().toml("listen = '1.2.3.4:5'\napp_id = 9\npublic_url = 'https://a.example/x/'\ndata = 'd'\ngithub_url = 'https://ghe.example/api/v3/'\nexecutor = 'local'\n");
    let settings = server.right();
    assert_eq!((settings.app_id, settings.listen.to_string().as_str()), (7, "1.2.3.4:5"));
    assert_eq!(settings.public_url.as_str(), "https://a.example/x");
    // Paths in the file are from its folder, and pages of GitHub Enterprise Server are beside its API.
    assert_eq!(settings.data, server.path().join("d"));
    assert_eq!(settings.github_url.as_str(), "https://ghe.example/api/v3");
    assert_eq!(settings.github_web_url.as_str(), "https://ghe.example/");
    let settings = server
        .var("SWITCHOVER_LISTEN", "0.0.0.0:80")
        .var("SWITCHOVER_PUBLIC_URL", "")
        .var("SWITCHOVER_DATA", "here")
        .right();
    assert_eq!((settings.listen.to_string().as_str(), settings.data.to_str()), ("0.0.0.0:80", Some("here")));
    assert_eq!(settings.public_url.as_str(), "https://a.example/x");
    assert_eq!(
        Server::good().var("SWITCHOVER_LISTEN", "0.0.0.0:81").right().public_url.as_str(),
        "http://localhost:81/"
    );
}

#[test]
fn secrets_in_files() {
    let server = Server::new().secret("key", &KEY, 0o600).secret("hook", "one, two,\n", 0o440).secret(
        "slack",
        "https://hooks.example/x\n",
        0o400,
    );
    let server =
        server.toml("app_id = 1\nprivate_key_file = 'key'\nwebhook_secret_file = 'hook'\nslack_url_file = 'slack'");
    let settings = server.right();
    let hooks: Vec<&str> = settings.webhook_secrets.iter().map(|s| s.expose_secret()).collect();
    assert_eq!(hooks, ["one", "two"]);
    assert_eq!(settings.slack_url.as_ref().map(|s| s.expose_secret()), Some("https://hooks.example/x"));
    assert_eq!(settings.private_key.expose_secret(), KEY.trim_end());
    // A variable names a file too, and wins.
    let other = server.path().join("other");
    let server =
        server.secret("other", "three", 0o600).var("SWITCHOVER_WEBHOOK_SECRET_FILE", other.to_str().expect("text"));
    assert_eq!(server.right().webhook_secrets[0].expose_secret(), "three");
    // Line breaks as two characters, as files of variables hold them.
    let escaped = Server::good().var("SWITCHOVER_PRIVATE_KEY", &KEY.replace('\n', "\\n"));
    assert_eq!(escaped.right().private_key.expose_secret(), KEY.as_str());
}

#[test]
fn variables() {
    let mut server = Server::good()
        .var("SWITCHOVER_LISTEN", ":80")
        .var("SWITCHOVER_PUBLIC_URL", "switchover.example.com")
        .var("SWITCHOVER_GITHUB_URL", "ftp://x.org")
        .var("SWITCHOVER_GITHUB_WEB_URL", "https://me:pw@x.org")
        .var("SWITCHOVER_APP_ID", "seven")
        .var("SWITCHOVER_PRIVATE_KEY", "-----BEGIN RSA PRIVATE KEY-----\nsecretsecret\n-----END RSA PRIVATE KEY-----")
        .var("SWITCHOVER_WEBHOOK_SECRET", " , ")
        .var("SWITCHOVER_SLACK_URL", "xoxb-token")
        .var("SWITCHOVER_EXECUTOR", "nomad")
        .var("SWITCHOVER_DATABASE_URL", "postgres://u:pw@db/x")
        .var("SWITCHOVER_APPID", "1")
        .var("SWITCHOVER_NONSENSE", "1")
        // Read elsewhere, or put there by Kubernetes for a Service named switchover.
        .var("SWITCHOVER_LOG", "debug")
        .var("SWITCHOVER_RELEASE", "x")
        .var("SWITCHOVER_TEST_KUBECONFIG", "x")
        .var("SWITCHOVER_SERVICE_HOST", "10.0.0.1")
        .var("SWITCHOVER_PORT_8080_TCP_ADDR", "10.0.0.1");
    server.env.insert("SWITCHOVER_DATA".to_owned(), OsString::from_vec(vec![b'a', 0xFF]));
    let told = server.told();
    assert!(!told.contains("pw") && !told.contains("secretsecret") && !told.contains("xoxb-token"), "{told}");
    insta::assert_snapshot!(told, @r#"
    13 settings are wrong:

    SWITCHOVER_APPID: there is no such setting
        expected: SWITCHOVER_APP_ID, or the variable unset
        see: `switchover schema settings`, docs/configure.md

    SWITCHOVER_NONSENSE: there is no such setting
        expected: the variable unset
        see: `switchover schema settings`, docs/configure.md

    SWITCHOVER_DATA: is not text (UTF-8)
        expected: a path
        see: `switchover schema settings`, docs/configure.md

    SWITCHOVER_LISTEN: `:80` is not an address with a port
        expected: an address and a port, such as 127.0.0.1:8080 or [::]:8080; did you mean `0.0.0.0:80`?
        see: `switchover schema settings`, docs/configure.md

    SWITCHOVER_PUBLIC_URL: `switchover.example.com` is not an address
        expected: an address such as https://shop.example.com; did you mean `https://switchover.example.com`?
        see: `switchover schema settings`, docs/configure.md

    SWITCHOVER_DATABASE_URL: `postgres://u:**@db/x` is not available in this build
        expected: the setting left out: this build has SQLite inside the data folder alone
        see: `switchover schema settings`, docs/configure.md

    SWITCHOVER_GITHUB_URL: `ftp://x.org` is not an http(s) address
        expected: an address such as https://shop.example.com
        see: `switchover schema settings`, docs/configure.md

    SWITCHOVER_GITHUB_WEB_URL: `https://me:**@x.org` contains a password
        expected: an address such as https://shop.example.com
        see: `switchover schema settings`, docs/configure.md

    SWITCHOVER_APP_ID: `seven` is not a whole number in range
        expected: a whole number from 1 to 9223372036854775807
        see: `switchover schema settings`, docs/configure.md

    SWITCHOVER_EXECUTOR: `nomad` is not one of the words
        expected: one of local, docker, kubernetes
        see: `switchover schema settings`, docs/configure.md

    SWITCHOVER_PRIVATE_KEY: is not an RSA private key in PEM form
        expected: the whole .pem file that GitHub gave, from -----BEGIN to -----END
        see: GitHub, the App's settings, "Private keys"

    SWITCHOVER_WEBHOOK_SECRET: holds no secret
        expected: the secret of the App's webhook; several separated by commas
        see: `switchover schema settings`, docs/configure.md

    SWITCHOVER_SLACK_URL: is not the address of an incoming webhook
        expected: an address such as https://hooks.slack.com/services/…
        see: `switchover schema settings`, docs/configure.md
    "#);
}

#[test]
fn secret_files() {
    let server = Server::new()
        .secret("open", "x", 0o644)
        .secret("empty", "\n", 0o600)
        .secret("large", &"x".repeat(70_000), 0o600)
        .toml("app_id = 1\nprivate_key_file = 'open'\nwebhook_secret_file = 'empty'\nslack_url_file = 'none'\n[registries.'docker.io']\nusername = 'a'\npassword_file = 'large'\nrepositories = ['a/*']\n[secrets.'a/b']\nX = {file = 'folder', steps = true}\nY = {file = 'bytes', steps = true}\nZ = {file = 'pipe', steps = true}");
    fs::create_dir(server.path().join("folder")).expect("a folder");
    let server = server.secret("bytes", "", 0o600);
    fs::write(server.path().join("bytes"), [0xFF, 0xFE]).expect("written");
    // Nobody writes into the pipe: the start must not wait for it.
    nix::unistd::mkfifo(&server.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    insta::assert_snapshot!(server.told(), @r#"
    7 settings are wrong:

    private_key_file: /etc/switchover/open can be read by everybody (mode 0644)
        expected: `chmod o-r /etc/switchover/open`; in Compose `mode: 0440` for the secret, in Kubernetes `defaultMode: 0440`
        see: /etc/switchover/switchover.toml:2:20

    webhook_secret_file: /etc/switchover/empty is empty
        expected: a file with the secret
        see: /etc/switchover/switchover.toml:3:23

    slack_url_file: /etc/switchover/none cannot be read: No such file or directory (os error 2)
        expected: a file with the secret
        see: /etc/switchover/switchover.toml:4:18

    registries."docker.io".password_file: /etc/switchover/large is larger than 64 KiB
        expected: a file with the secret alone
        see: /etc/switchover/switchover.toml:7:17

    secrets."a/b".X.file: /etc/switchover/folder is not a file
        expected: a file with the secret
        see: /etc/switchover/switchover.toml:10:13

    secrets."a/b".Y.file: /etc/switchover/bytes is not text (UTF-8)
        expected: a file with the secret as text
        see: /etc/switchover/switchover.toml:11:13

    secrets."a/b".Z.file: /etc/switchover/pipe is not a file
        expected: a file with the secret
        see: /etc/switchover/switchover.toml:12:13
    "#);
    let both = Server::good().var("SWITCHOVER_WEBHOOK_SECRET_FILE", "/nowhere");
    insta::assert_snapshot!(both.told(), @r#"
    One setting is wrong:

    SWITCHOVER_WEBHOOK_SECRET: is set beside SWITCHOVER_WEBHOOK_SECRET_FILE
        expected: one of the two
        see: `switchover schema settings`, docs/configure.md
    "#);
}

#[test]
fn the_file() {
    let server = Server::good().secret("s", "x", 0o600).toml(
        "listen = 8080
executer = 'local'
private_key = 'x'
trusted_local = ['acme', '*', 'https://github.com/acme/shop.git']

[targets.prod]
kind = 'kubernetes'
namespace = 'shop'
[targets.local]
kind = 'locl'
listen = {web = '0.0.0.0:80', 'production/web' = '0.0.0.0:80', 'a b' = '1.2.3.4:5', x = 'localhost:9'}
[targets.'a b']
kind = 'local'
repositories = []

[registries.'https://docker.io/v2']
username = 'a'
password = 'x'
repositories = ['acme/shop']

[secrets.acme]
[secrets.'acme/shop']
A = {file = 's'}
B = 'value'
C = {file = 's', pull_requests = true}
PORT = {file = 's', environments = ['x y'], steps = 'yes'}

[slack]
deploys = {url_file = 's'}
'#ops' = {url = 'https://x'}

[limits]
concurrent_steps = 0
step_memory = '4GB'
",
    );
    insta::assert_snapshot!(server.told(), @r##"
    31 settings are wrong:

    listen: `8080` is not an address with a port
        expected: an address and a port, such as 127.0.0.1:8080 or [::]:8080; did you mean `127.0.0.1:8080`?
        see: /etc/switchover/switchover.toml:1:10

    executer: `executer` is not a key of the file
        expected: one of listen, public_url, data, database_url, github_url, github_web_url, app_id, private_key_file, webhook_secret_file, slack_url_file, executor, docker_host, docker_certs, start_agent, trusted_local, targets, kubernetes, registries, secrets, slack, limits; did you mean `executor`?
        see: /etc/switchover/switchover.toml:2:1

    private_key: `private_key` is not a key of the file
        expected: one of listen, public_url, data, database_url, github_url, github_web_url, app_id, private_key_file, webhook_secret_file, slack_url_file, executor, docker_host, docker_certs, start_agent, trusted_local, targets, kubernetes, registries, secrets, slack, limits; did you mean `private_key_file`?
        see: /etc/switchover/switchover.toml:3:1

    trusted_local[0]: `acme` is not a repository
        expected: a repository as owner/name, or owner/* for all of an owner; did you mean `acme/*`?
        see: /etc/switchover/switchover.toml:4:18

    trusted_local[1]: `*` would let in everybody who installs the App
        expected: a repository as owner/name, or owner/* for all of an owner
        see: /etc/switchover/switchover.toml:4:26

    trusted_local[2]: `https://github.com/acme/shop.git` is not a repository
        expected: a repository as owner/name, or owner/* for all of an owner; did you mean `acme/shop`?
        see: /etc/switchover/switchover.toml:4:31

    targets.prod: `prod` (a target) has no `repositories`
        expected: `repositories`, a list in brackets, each item a repository as owner/name, or owner/* for all of an owner
        see: /etc/switchover/switchover.toml:6:10

    targets.local: `local` (a target) has no `repositories`
        expected: `repositories`, a list in brackets, each item a repository as owner/name, or owner/* for all of an owner
        see: /etc/switchover/switchover.toml:9:10

    targets.local.kind: `locl` is not one of the words
        expected: one of local, docker, kubernetes; did you mean `local`?
        see: /etc/switchover/switchover.toml:10:8

    targets.local.listen."a b": the name `a b` is neither an app nor environment/app
        expected: an app, or environment/app
        see: /etc/switchover/switchover.toml:11:64

    targets.local.listen.x: `localhost:9` is not an address with a port
        expected: an address and a port, such as 127.0.0.1:8080 or [::]:8080, or a mapping with the keys address, hosts, certificate_file, key_file, redirect; did you mean `127.0.0.1:9`?
        see: /etc/switchover/switchover.toml:11:89

    targets."a b": the name `a b` is not a name
        expected: a name of 1 to 63 letters, digits, dots, dashes and underscores; did you mean `a-b`?
        see: /etc/switchover/switchover.toml:12:10

    registries."https://docker.io/v2": the name `https://docker.io/v2` is not the host of a registry
        expected: a registry's host, such as docker.io or registry.example.com:5000; did you mean `docker.io`?
        see: /etc/switchover/switchover.toml:16:13

    registries."https://docker.io/v2": `https://docker.io/v2` (a registry) has no `password_file`
        expected: `password_file`, a path
        see: /etc/switchover/switchover.toml:16:13

    registries."https://docker.io/v2".password: `password` is not a key of a registry
        expected: one of username, password_file, repositories, plain_http; did you mean `password_file`?
        see: /etc/switchover/switchover.toml:18:1

    secrets.acme: the name `acme` is not a repository
        expected: a repository as owner/name
        see: /etc/switchover/switchover.toml:21:10

    secrets."acme/shop".B: `B` is a single value
        expected: a mapping with the keys file, environments, steps, pull_requests
        see: /etc/switchover/switchover.toml:24:5

    secrets."acme/shop".PORT: the name `PORT` is set by Switchover itself
        expected: letters, digits and underscores, such as DB_URL; PORT, URL and SWITCHOVER_… are Switchover's own
        see: /etc/switchover/switchover.toml:26:1

    secrets."acme/shop".PORT.environments[0]: `x y` is not a name
        expected: a name of 1 to 63 letters, digits, dots, dashes and underscores; did you mean `x-y`?
        see: /etc/switchover/switchover.toml:26:37

    secrets."acme/shop".PORT.steps: `yes` is not a boolean
        expected: true or false; did you mean `true`?
        see: /etc/switchover/switchover.toml:26:53

    slack.deploys: the name `deploys` does not begin with `#`
        expected: a channel in quotes, such as "#deploys" (a bare # begins a comment); did you mean `"#deploys"`?
        see: /etc/switchover/switchover.toml:29:1

    slack."#ops": `#ops` (a channel) has no `url_file`
        expected: `url_file`, a path
        see: /etc/switchover/switchover.toml:30:1

    slack."#ops".url: `url` is not a key of a channel
        expected: one of url_file; did you mean `url_file`?
        see: /etc/switchover/switchover.toml:30:11

    limits.concurrent_steps: `0` is not a whole number in range
        expected: a whole number from 1 to 1024
        see: /etc/switchover/switchover.toml:33:20

    limits.step_memory: `4GB` is not a size
        expected: a size such as 512Mi or 2Gi; did you mean `4Gi`?
        see: /etc/switchover/switchover.toml:34:15

    targets.local.listen."production/web": 0.0.0.0:80 is that of targets.local.listen.web too
        expected: an address of its own, or `hosts` of its own at the same address
        see: /etc/switchover/switchover.toml:11:50

    targets."a b".repositories: nobody may use it
        expected: who may use it, such as repositories = ["acme/*"]
        see: /etc/switchover/switchover.toml:14:1

    secrets."acme/shop".A: it is granted to nothing
        expected: environments = ["…"], steps = true, or both
        see: /etc/switchover/switchover.toml:23:1

    secrets."acme/shop".C: pull requests without `steps`
        expected: environments = ["…"], steps = true, or both
        see: /etc/switchover/switchover.toml:25:1

    secrets."acme/shop".PORT: it is granted to nothing
        expected: environments = ["…"], steps = true, or both
        see: /etc/switchover/switchover.toml:26:1

    slack.deploys.url_file: is not the address of an incoming webhook
        expected: an address such as https://hooks.slack.com/services/…
        see: /etc/switchover/switchover.toml:29:1
    "##);
}

#[test]
fn files_that_are_none() {
    insta::assert_snapshot!(Server::good().toml("listen = \nx = [1,\n[a]\n").told(), @r#"
    3 settings are wrong:

    the file: unclosed array, expected `]`
        expected: well-formed TOML
        see: /etc/switchover/switchover.toml:3:4

    the file: string values must be quoted, expected literal string
        expected: well-formed TOML
        see: /etc/switchover/switchover.toml:1:10

    the file: string values must be quoted, expected literal string
        expected: well-formed TOML
        see: /etc/switchover/switchover.toml:3:2
    "#);
    insta::assert_snapshot!(Server::good().toml("app_id = 1\napp_id = 2").told(), @r#"
    One setting is wrong:

    the file: duplicate key
        expected: well-formed TOML
        see: /etc/switchover/switchover.toml:2:1
    "#);
    let absent = Server { file: true, ..Server::new() };
    insta::assert_snapshot!(absent.told(), @r#"
    One setting is wrong:

    /etc/switchover/switchover.toml: the file cannot be read: No such file or directory (os error 2)
        expected: a TOML file
        see: `--config`, SWITCHOVER_CONFIG
    "#);
    let folder = Server { file: true, ..Server::good() };
    fs::create_dir(folder.path().join("switchover.toml")).expect("a folder");
    insta::assert_snapshot!(folder.told(), @r#"
    One setting is wrong:

    /etc/switchover/switchover.toml: the file cannot be read: it is not a file
        expected: a TOML file
        see: `--config`, SWITCHOVER_CONFIG
    "#);
    let large = Server::good().toml(&"#\n".repeat(600_000));
    insta::assert_snapshot!(large.told(), @r#"
    One setting is wrong:

    /etc/switchover/switchover.toml: the file cannot be read: it is larger than 1 MiB
        expected: a TOML file
        see: `--config`, SWITCHOVER_CONFIG
    "#);
    let deep = Server::good().toml(&format!("a = {}", "[".repeat(100_000)));
    assert!(!deep.told().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks_it(text in prop_oneof![
        "\\PC{0,200}",
        "((listen|data|app_id|targets|secrets|slack|limits|\\[targets\\.x\\]|\\[secrets\\.\"a/b\"\\]|kind|X) ?(=|\n) ?(\"[a-z:0-9]{0,9}\"|[0-9]{1,30}|\\{\\}|\\[\\]|true|1\\.5|1979-05-27)?\n?){0,12}",
    ], value in "\\PC{0,20}") {
        let server = VARIABLES.iter().fold(Server::new().toml(&text), |s, v| s.var(v.name, &value.replace('\0', "")));
        if let Err(mistakes) = server.load() {
            prop_assert!(!mistakes.is_empty());
            for mistake in mistakes {
                prop_assert!(!mistake.name.is_empty() && !mistake.problem.is_empty() && !mistake.see.is_empty(), "{:?}", mistake);
            }
        }
    }
}

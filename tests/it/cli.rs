//! The command line as a process: its output when nobody reads it, its signals, its words.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use switchover::{agent, demo::github::AppKey};

/// For a machine with two cores where everything else compiles.
const DEADLINE: Duration = Duration::from_secs(120);

fn switchover(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchover"));
    command.args(args).stdin(Stdio::null());
    command
}

/// The end of a process; it is killed if it does not come.
fn ended(mut child: Child) -> ExitStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn send(child: &Child, signals: &[Signal]) {
    for signal in signals {
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), *signal).unwrap();
    }
}

#[test]
fn the_version_names_the_commit() {
    let out = switchover(&["--version"]).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    let rest = said.trim_end().strip_prefix(concat!("switchover ", env!("CARGO_PKG_VERSION"))).unwrap();
    let commit = rest.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')'));
    let named = commit.is_some_and(|commit| commit.len() >= 7 && !commit.contains(char::is_whitespace));
    // Git may not want to know a repository that somebody else owns.
    let here = ["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "HEAD"];
    let repository = Command::new("git").args(here).output().unwrap().status.success();
    assert!(named || (rest.is_empty() && !repository), "{said}");
}

#[test]
fn a_reader_that_is_gone_ends_it_quietly() {
    for args in [["schema", "settings"], ["schema", "config"], ["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = switchover(&args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), said.as_ref()), (Some(141), ""), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_signals_at_once_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let child = switchover(&["agent", "--data"]).arg(folder.path()).stderr(Stdio::null()).spawn().unwrap();
    let client = agent::Client::new(agent::socket_path(folder.path()));
    let deadline = Instant::now() + DEADLINE;
    while client.hello().await.is_err() {
        assert!(Instant::now() < deadline, "no agent");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    send(&child, &[Signal::SIGTERM, Signal::SIGINT]);
    assert_eq!(ended(child).code(), Some(0), "it ends gently");
}

/// The demo ends with its terminal, and with whoever reads it; nothing of it is left.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_leaves_nothing_behind() {
    for hangup in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = switchover(&["demo", "--once", "--data"]);
        command.arg(folder.path()).stdout(writer).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Ours goes with the command.
        drop(command);
        let mut errors = child.stderr.take().unwrap();
        if hangup {
            let mut lines = BufReader::new(reader);
            let mut first = String::new();
            lines.read_line(&mut first).unwrap();
            assert!(first.contains("pushed"), "{first}");
            send(&child, &[Signal::SIGHUP]);
            assert_eq!(ended(child).code(), Some(1));
        } else {
            drop(reader);
            assert_eq!(ended(child).code(), Some(1));
        }
        let mut said = String::new();
        errors.read_to_string(&mut said).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        let client = agent::Client::new(agent::socket_path(&folder.path().join("server").join("agent")));
        assert!(client.hello().await.is_err(), "the agent is left");
    }
}

#[test]
fn the_demo_says_what_is_missing_before_it_starts_anything() {
    let folder = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let who = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
        let done = Command::new("git").current_dir(folder.path()).args(who).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let place = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(place("plain")).unwrap();
    std::os::unix::fs::symlink(which("git"), Path::new(&place("plain")).join("git")).unwrap();
    git(&["init", "-q", "empty"]);
    git(&["init", "-q", "whole"]);
    for message in ["one", "two"] {
        git(&["-C", "whole", "commit", "-q", "--allow-empty", "-m", message]);
    }
    git(&["clone", "-q", "--depth", "1", &format!("file://{}", place("whole")), "shallow"]);
    for (name, words) in [
        ("nowhere", "there is no such folder"),
        ("plain", "git finds no repository there"),
        ("empty", "there is no commit yet"),
        ("shallow", "fetch --unshallow"),
    ] {
        let mut demo = switchover(&["demo", "--once", "--repo", &place(name), "--data", &place("data")]);
        // The folder itself may lie in somebody's repository.
        let out = demo.env("GIT_CEILING_DIRECTORIES", folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(words) && said.contains(&place(name)) && said.lines().count() == 1, "{name}: {said}");
        assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(2), b"".as_slice()), "{name}");
    }
    let out = switchover(&["demo", "--once", "--data", &place("data")]).env("PATH", place("plain")).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("built with cargo") && said.contains("--repo") && said.lines().count() == 1, "{said}");
    assert!(!Path::new(&place("data")).exists(), "nothing was begun");
}

fn which(program: &str) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file()).unwrap()
}

#[test]
fn a_server_that_can_not_start_says_why_once() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = (folder.path().join("data"), folder.path().join("app.pem"));
    std::fs::create_dir(&data).unwrap();
    let held = File::create(data.join("server.lock")).unwrap();
    held.try_lock().unwrap();
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(&key).unwrap();
    file.write_all(AppKey::generate().unwrap().private_pem.as_bytes()).unwrap();
    for log in ["info", "off"] {
        let mut serve = switchover(&["serve", "--log", log]);
        serve.current_dir(folder.path()).env("SWITCHOVER_LISTEN", "127.0.0.1:0").env("SWITCHOVER_DATA", &data);
        serve.env("SWITCHOVER_APP_ID", "1").env("SWITCHOVER_PRIVATE_KEY_FILE", &key);
        let out = serve.env("SWITCHOVER_WEBHOOK_SECRET", "It's a Secret to Everybody").output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), said.matches("another server runs").count()), (Some(1), 1), "{log}: {said}");
    }
}

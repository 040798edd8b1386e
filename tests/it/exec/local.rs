//! Steps as real processes under the real supervisor.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};
use switchover::{
    domain::run::{StepEnd, StepResult},
    exec::{
        host::HostEnv,
        local::{ExecError, Executor, LocalExecutor, StepSpec},
        log::LogReader,
        shim::Order,
    },
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::git::wait_until;

const EXE: &str = env!("CARGO_BIN_EXE_switchover");

fn spec(dir: &TempDir, command: &str) -> StepSpec {
    let home = dir.path().join("home");
    fs::create_dir_all(&home).unwrap();
    fs::create_dir_all(dir.path().join("work")).unwrap();
    StepSpec {
        command: command.into(),
        cwd: dir.path().join("work"),
        env: Vec::new(),
        home,
        timeout: Duration::from_secs(60),
        grace: Duration::from_secs(10),
        log: dir.path().join("logs/step"),
        output_limit: 1_000_000,
        hold: None,
        container: None,
    }
}

async fn run(spec: &StepSpec) -> StepResult {
    LocalExecutor::new(EXE.into()).run(spec, CancellationToken::new()).await.unwrap()
}

fn log(spec: &StepSpec) -> Vec<String> {
    let mut reader = LogReader::open(&spec.log).unwrap();
    reader.lines(0, usize::MAX).unwrap().into_iter().map(|l| l.text).collect()
}

/// Processes whose home is that of the step.
fn of_step(spec: &StepSpec) -> Vec<i32> {
    let mark = format!("HOME={}", spec.home.display());
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| env.split(|b| *b == 0).any(|e| e == mark.as_bytes()))
    })
    .collect()
}

async fn wait_for_file(path: PathBuf) {
    wait_until(&path.display().to_string(), || path.exists()).await;
}

#[tokio::test]
async fn a_step_tells_how_it_ended_and_what_it_cost() {
    let cases: &[(&str, StepEnd)] = &[
        ("true", StepEnd::Exited(0)),
        ("exit 3", StepEnd::Exited(3)),
        ("false; echo not reached", StepEnd::Exited(1)),
        ("no-such-program-anywhere", StepEnd::Exited(127)),
        ("kill -9 $$", StepEnd::Signalled(9)),
        ("kill -TERM $$", StepEnd::Signalled(15)),
        ("exec >&- 2>&-; exit 4", StepEnd::Exited(4)),
        ("cat; exit 5", StepEnd::Exited(5)),
        ("echo 'umlaut ü'; echo err >&2; printf 'no end'", StepEnd::Exited(0)),
    ];
    for (command, end) in cases {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(&dir, command);
        let result = run(&spec).await;
        assert_eq!(result.end, *end, "{command}");
        assert!(!log(&spec).iter().any(|l| l == "not reached"));
        assert!(result.finished_at >= result.started_at);
    }
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(&dir, "echo out; echo err >&2; printf end; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done");
    let result = run(&spec).await;
    assert_eq!(log(&spec), ["out", "err", "end"]);
    assert_eq!((result.output_bytes, result.truncated), (11, false));
    assert!(result.cpu_ms > 0 && result.peak_bytes > 100_000, "{result:?}");
}

#[tokio::test]
async fn a_step_sees_a_clean_environment_and_no_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec =
        spec(&dir, "env | sort; ls /proc/self/fd | tr '\\n' ' '; grep SigBlk /proc/self/status; pwd; test -d $TMPDIR");
    spec.env = vec![("APP".into(), "ä b".into()), ("LANG".into(), "de".into())];
    let host = HostEnv { path: "/usr/bin:/bin".into(), user: "u".into(), ..HostEnv::default() };
    let result = LocalExecutor::with_host(EXE.into(), host).run(&spec, CancellationToken::new()).await.unwrap();
    assert_eq!(result.end, StepEnd::Exited(0));
    let shown = log(&spec).join("\n").replace(dir.path().to_str().unwrap(), "DIR");
    // 3 is the folder that ls reads.
    insta::assert_snapshot!(shown, @r"
    APP=ä b
    CI=true
    HOME=DIR/home
    LANG=de
    PATH=/usr/bin:/bin
    PWD=DIR/work
    TMPDIR=DIR/home/tmp
    USER=u
    0 1 2 3 SigBlk:	0000000000000000
    DIR/work
    ");
    spec.env = vec![("A=B".into(), "x".into())];
    let refused = LocalExecutor::new(EXE.into()).run(&spec, CancellationToken::new()).await;
    assert!(matches!(refused, Err(ExecError::Spec(_))), "{refused:?}");
}

#[test]
fn the_host_shows_what_is_named_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(".rustup")).unwrap();
    let vars = [
        ("PATH", "/p"),
        ("HOME", dir.path().to_str().unwrap()),
        ("HTTPS_PROXY", "http://p"),
        ("SWITCHOVER_APP_ID", "1"),
    ];
    let host = HostEnv::choose(&|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()));
    assert_eq!(host.rustup_home, Some(dir.path().join(".rustup")));
    assert_eq!(host.network, [("HTTPS_PROXY".into(), "http://p".into())]);
    assert!(!format!("{host:?}").contains("SWITCHOVER"));
}

/// Ignores TERM, starts helpers that left the group and the session, forks on.
const STUBBORN: &str = r#"
trap '' TERM HUP INT
setsid sh -c 'trap "" TERM; (setsid sh -c "trap \"\" TERM; while :; do sleep 0.05; done" &); while :; do sleep 0.05; done' &
sh -c 'trap "" TERM; while :; do (sleep 0.01 &); sleep 0.05; done' &
env -i setsid sleep 1000 &
touch ready
while :; do sleep 0.05; done
"#;

#[tokio::test]
async fn past_its_time_limit_nothing_of_a_step_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(&dir, STUBBORN);
    spec.timeout = Duration::from_secs(3);
    spec.grace = Duration::from_millis(200);
    let hold = dir.path().join("hold");
    spec.hold = Some(hold.clone());
    let result = run(&spec).await;
    assert_eq!(result.end, StepEnd::TimedOut);
    assert!(dir.path().join("work/ready").exists());
    assert!(of_step(&spec).is_empty());
    fs::File::open(&hold).unwrap().try_lock().unwrap();
    insta::assert_snapshot!(log(&spec).join("\n"), @"[switchover] the time limit of 3 s is reached; ending");
}

#[tokio::test]
async fn a_step_that_minds_term_ends_within_its_grace() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(&dir, "trap 'echo bye; exit 0' TERM; touch ready; while :; do sleep 0.02; done");
    spec.grace = Duration::from_secs(60);
    let cancel = CancellationToken::new();
    let executor = LocalExecutor::new(EXE.into());
    let (result, ()) = tokio::join!(executor.run(&spec, cancel.clone()), async {
        wait_for_file(dir.path().join("work/ready")).await;
        cancel.cancel();
    });
    assert_eq!(result.unwrap().end, StepEnd::Cancelled);
    let lines = log(&spec);
    assert_eq!((lines[0].as_str(), lines.last().unwrap().as_str()), ("[switchover] cancelled; ending", "bye"));
    let result = executor.run(&spec, cancel).await.unwrap();
    assert_eq!(result.end, StepEnd::Cancelled, "cancelled before it began");
}

#[tokio::test]
async fn helpers_left_behind_go_with_the_step_that_started_them() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(&dir, "setsid sleep 1000 & sleep 1000 & (trap '' TERM; setsid sleep 1000) & echo done");
    let result = run(&spec).await;
    assert_eq!((result.end, log(&spec)), (StepEnd::Exited(0), vec!["done".to_owned()]));
    assert!(of_step(&spec).is_empty());
}

#[tokio::test]
async fn a_future_that_is_dropped_ends_its_step() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(&dir, STUBBORN);
    spec.grace = Duration::from_millis(100);
    let executor = LocalExecutor::new(EXE.into());
    tokio::select! {
        _ = executor.run(&spec, CancellationToken::new()) => panic!("it never ends by itself"),
        () = wait_for_file(dir.path().join("work/ready")) => {}
    }
    wait_until("the step is gone", || of_step(&spec).is_empty()).await;
}

/// The order as the server would give it, for a supervisor whose server the test plays.
fn order(spec: &StepSpec) -> Order {
    Order {
        command: spec.command.clone(),
        cwd: spec.cwd.clone(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), spec.home.to_str().unwrap().into())],
        timeout_ms: 60_000,
        grace_ms: 100,
        log: spec.log.clone(),
        output_limit: 1000,
        hold: spec.hold.clone(),
    }
}

#[tokio::test]
async fn a_server_that_is_killed_takes_its_steps_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(&dir, STUBBORN);
    spec.hold = Some(dir.path().join("hold"));
    let mut line = serde_json::to_string(&order(&spec)).unwrap();
    line.push('\n');
    fs::write(dir.path().join("order"), line).unwrap();
    // The "server": holds the write end of the supervisor's standard input, and is killed by SIGKILL.
    let script = format!(
        "mkfifo {d}/in; exec 9<>{d}/in; {EXE} step-shim <{d}/in 9<&- & cat {d}/order >&9; touch {d}/given; exec sleep 1000",
        d = dir.path().display()
    );
    // A FIFO opened for both ends keeps it open: only the server itself has it.
    let mut server = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).spawn().unwrap();
    wait_for_file(dir.path().join("work/ready")).await;
    wait_until("the step runs", || of_step(&spec).len() > 3).await;
    assert!(fs::File::open(dir.path().join("hold")).unwrap().try_lock().is_err());
    server.kill().unwrap();
    server.wait().unwrap();
    wait_until("the step is gone", || of_step(&spec).is_empty()).await;
    wait_until("the workspace is free", || fs::File::open(dir.path().join("hold")).unwrap().try_lock().is_ok()).await;
    assert_eq!(log(&spec), ["[switchover] the server is gone; ending"]);
}

#[tokio::test]
async fn a_supervisor_that_is_killed_is_told_and_its_step_ended() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(&dir, STUBBORN.replace("env -i setsid sleep 1000 &", "").as_str());
    let executor = LocalExecutor::new(EXE.into());
    let (result, ()) = tokio::join!(executor.run(&spec, CancellationToken::new()), async {
        wait_for_file(dir.path().join("work/ready")).await;
        // Processes come and go while they are looked at: one may be seen whose parent is not known as the step's.
        let is_shim = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.contains("step-shim"))
        };
        let mut found = None;
        wait_until("its supervisor is found", || {
            found = of_step(&spec).iter().map(|pid| parent(*pid)).find(is_shim);
            found.is_some()
        })
        .await;
        let shim = found.unwrap();
        nix::sys::signal::kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    });
    assert!(matches!(result, Err(ExecError::Lost(_))), "{result:?}");
    wait_until("the step is gone", || of_step(&spec).is_empty()).await;
}

fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|l| l.strip_prefix("PPid:")?.trim().parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_flood_is_cut_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(&dir, "yes 0123456789 | head -c 20000000; echo; echo last");
    spec.output_limit = 10_000;
    let result = run(&spec).await;
    assert_eq!((result.end, result.truncated), (StepEnd::Exited(0), true));
    assert_eq!(result.output_bytes, 20_000_006);
    assert!(fs::metadata(&spec.log).unwrap().len() < 20_000);
    assert_eq!(
        log(&spec).last().unwrap(),
        "[switchover] the output limit of 10000 bytes is reached; the rest is not kept"
    );
}

#[tokio::test]
async fn output_is_readable_while_the_step_runs() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(&dir, "echo first; while [ ! -e go ]; do sleep 0.01; done; echo second");
    let executor = LocalExecutor::new(EXE.into());
    fs::create_dir_all(spec.log.parent().unwrap()).unwrap();
    let mut reader = LogReader::open(&spec.log).unwrap();
    let (result, ()) = tokio::join!(executor.run(&spec, CancellationToken::new()), async {
        reader.changed().await.unwrap();
        assert_eq!(reader.tail(9).unwrap()[0].text, "first");
        fs::write(spec.cwd.join("go"), "").unwrap();
    });
    assert_eq!(result.unwrap().end, StepEnd::Exited(0));
    assert_eq!(log(&spec), ["first", "second"]);
}

#[tokio::test]
async fn what_cannot_begin_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut broken = spec(&dir, "true");
    broken.cwd = dir.path().join("nowhere");
    let result = run(&broken).await;
    assert!(matches!(&result.end, StepEnd::NotStarted(why) if why.contains("nowhere")), "{result:?}");
    fs::write(dir.path().join("file"), "").unwrap();
    let mut broken = spec(&dir, "true");
    broken.log = dir.path().join("file/log");
    assert!(matches!(run(&broken).await.end, StepEnd::NotStarted(_)));
    let fine = spec(&dir, "true");
    let none = LocalExecutor::new(PathBuf::from("/nonexistent/switchover"));
    let error = none.run(&fine, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, ExecError::Supervisor { .. }), "{error}");
    let other = LocalExecutor::new("/bin/false".into()).run(&fine, CancellationToken::new()).await;
    assert!(matches!(other, Err(ExecError::Lost(_))), "{other:?}");

    for input in ["", "{}\n", "no json\n", "{\"command\":1}\n"] {
        let mut shim = Command::new(EXE).arg("step-shim").stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(&mut shim.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let code = shim.wait().unwrap().code();
        assert_eq!(code, Some(if input.is_empty() { 0 } else { 2 }), "{input:?}");
    }
}

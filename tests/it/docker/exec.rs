//! Steps in real containers.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use switchover::{
    domain::{
        ids::{AppName, RepoId},
        run::StepEnd,
    },
    exec::{
        caches::{CacheJob, Caches},
        docker::StepLimits,
        local::{ExecError, Executor, StepSpec},
    },
};
use tokio_util::sync::CancellationToken;

use super::rig::{self, ENDS, Engine, SMALL, engine, file, log, run, service, step};

fn container(spec: &mut StepSpec) -> &mut switchover::exec::local::ContainerStep {
    spec.container.as_mut().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_tells_how_it_ended_and_what_it_cost() {
    let Some(engine) = engine("a_step_tells_how_it_ended_and_what_it_cost") else { return };
    let executor = engine.executor(StepLimits::default()).await;
    for (command, end) in ENDS {
        let dir = tempfile::tempdir().unwrap();
        let spec = step(&dir, SMALL, command);
        let result = run(&executor, &spec).await;
        assert_eq!(result.end, *end, "{command}");
        assert!(!log(&spec).iter().any(|l| l == "not reached"));
    }
    let dir = tempfile::tempdir().unwrap();
    let busy = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done";
    let spec = step(&dir, SMALL, &format!("echo out; echo err >&2; echo 'umlaut ü'; printf end; {busy}"));
    let result = run(&executor, &spec).await;
    assert_eq!(log(&spec), ["out", "err", "umlaut ü", "end"]);
    assert_eq!((result.output_bytes, result.truncated), (21, false));
    assert!(result.cpu_ms > 0 && result.peak_bytes > 100_000, "{result:?}");
    assert_eq!(rig::left(executor.docker()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_nobody_and_sees_its_own_alone() {
    let Some(engine) = engine("a_step_is_nobody_and_sees_its_own_alone") else { return };
    let executor = engine.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("server-key.pem"), "secret").unwrap();
    fs::create_dir_all(dir.path().join("caches/other")).unwrap();
    fs::write(dir.path().join("caches/other/file"), "theirs").unwrap();
    let look = r#"
        env | sort | grep -v ^HOSTNAME; whoami; pwd; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status
        for path in @DIR@/server-key.pem @DIR@/caches/other/file /var/run/docker.sock /run/docker.sock @SOCKET@; do
            if [ -e "$path" ]; then echo "sees $path"; fi
        done
        ls @DIR@; ps >"$TMPDIR/ps"; wc -l <"$TMPDIR/ps"
        touch /usr-file 2>&1 || true
        mount -t tmpfs none /tmp 2>&1 || true
        su nobody 2>&1 </dev/null || true
        grep -c 'docker' /proc/net/unix || true
        touch made "$HOME/made" "$TMPDIR/made"
    "#;
    let socket = engine.host.trim_start_matches("unix://");
    let look = look.replace("@DIR@", dir.path().to_str().unwrap()).replace("@SOCKET@", socket);
    let mut spec = step(&dir, SMALL, &look);
    spec.env = vec![("APP".into(), "ä b".into()), ("LANG".into(), "de".into())];
    let result = run(&executor, &spec).await;
    let shown = log(&spec).join("\n").replace(dir.path().to_str().unwrap(), "DIR").replace("DIR/work", "WORK");
    assert_eq!(result.end, StepEnd::Exited(0), "{shown}");
    insta::assert_snapshot!(shown, @r"
    APP=ä b
    CI=true
    HOME=DIR/home
    LANG=de
    PATH=/bin
    PWD=WORK/app
    SHLVL=2
    TMPDIR=DIR/home/tmp
    USER=switchover
    switchover
    WORK/app
    CapEff:	0000000000000000
    NoNewPrivs:	1
    home
    work
    4
    touch: /usr-file: Permission denied
    mount: permission denied (are you root?)
    su: must be suid to work properly
    0
    ");
    // Ours to remove; and its home is the one that other programs find.
    assert_eq!(fs::metadata(spec.cwd.join("made")).unwrap().len(), 0);
    spec.env = vec![("A=B".into(), "x".into())];
    let refused = executor.run(&spec, CancellationToken::new()).await;
    assert!(matches!(refused, Err(ExecError::Spec(_))), "{refused:?}");
    let mut none = step(&dir, SMALL, "true");
    container(&mut none).image = None;
    let result = run(&executor, &none).await;
    assert!(matches!(&result.end, StepEnd::NotStarted(why) if why.contains("`container:`")), "{result:?}");
}

/// What the engine does for tools that ask the list of users, and whether git has its mirror: with a real Maven.
#[tokio::test(flavor = "multi_thread")]
async fn tools_find_their_home_and_git_its_mirror() {
    let Some(engine) = engine("tools_find_their_home_and_git_its_mirror") else { return };
    engine.image("maven:3-eclipse-temurin-17");
    let executor = engine.executor(StepLimits::default()).await;
    let host = crate::exec::host::Host::start();
    let (_mirrors_dir, mirrors) = crate::exec::git::mirrors();
    let sha = host.commit("the message", &[("app/a.txt", "one")]);
    mirrors.fetch(RepoId(7), &host.url, None, &[]).await.unwrap();
    for (n, name) in ["first", "again"].into_iter().enumerate() {
        // The second time in a worktree of the pool, with what the first step left there.
        let workspace = mirrors.checkout(RepoId(7), &sha, "app-own").await.unwrap();
        assert!(!workspace.path().join("left").exists(), "{name}");
        let dir = tempfile::tempdir().unwrap();
        let command = "git log -1 --format=%s; touch ../left left; rm a.txt; git status --short
            java -XshowSettings:properties -version 2>&1 | grep -E 'user.(home|name)'
            echo \"config=$MAVEN_CONFIG\"; git push 2>/dev/null || echo 'no push'";
        let mut spec = step(&dir, "maven:3-eclipse-temurin-17", command);
        spec.cwd = workspace.path().join("app");
        spec.hold = Some(workspace.steps_lock().to_owned());
        container(&mut spec).workspace = workspace.path().to_owned();
        container(&mut spec).mirror = Some(mirrors.dir(RepoId(7)));
        container(&mut spec).job = format!("job-{n}");
        let result = run(&executor, &spec).await;
        let shown = log(&spec).join("\n").replace(dir.path().to_str().unwrap(), "DIR");
        let shown = shown.lines().filter(|l| !l.contains("pull")).collect::<Vec<_>>().join("\n");
        assert_eq!(result.end, StepEnd::Exited(0), "{shown}");
        insta::allow_duplicates! { insta::assert_snapshot!(shown, @r"
    the message
     D a.txt
    ?? left
    ?? ../left
        user.home = DIR/home
        user.name = switchover
    config=
    no push
    ") }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_are_kept_for_the_next_step_and_for_no_other_app() {
    let Some(engine) = engine("caches_are_kept_for_the_next_step_and_for_no_other_app") else { return };
    let executor = engine.executor(StepLimits::default()).await;
    let root = tempfile::tempdir().unwrap();
    let caches = Caches::new(root.path().join("caches"));
    let entries = ["~/.m2/repository".to_owned(), "node_modules".to_owned()];
    let mut seen = Vec::new();
    for app in ["backend", "backend", "frontend"] {
        let dir = tempfile::tempdir().unwrap();
        let command = "cat ~/.m2/repository/x node_modules/y 2>/dev/null || echo empty; echo kept | tee ~/.m2/repository/x >node_modules/y";
        let mut spec = step(&dir, SMALL, command);
        let name = AppName::new(app).unwrap();
        let job =
            CacheJob { repo: RepoId(1), app: &name, trust: "own", seed: None, home: &spec.home, app_dir: &spec.cwd };
        let held = caches.prepare(&job, &entries).unwrap();
        container(&mut spec).caches = held.folders().to_vec();
        assert_eq!(run(&executor, &spec).await.end, StepEnd::Exited(0), "{:?}", log(&spec));
        seen.push(log(&spec).join(" "));
    }
    assert_eq!(seen, ["empty", "kept kept", "empty"]);
    caches.remove(RepoId(1)).unwrap();
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

fn unlocked(path: &Path) -> bool {
    fs::File::open(path).unwrap().try_lock().is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn past_its_time_limit_nothing_of_a_step_is_left() {
    let Some(engine) = engine("past_its_time_limit_nothing_of_a_step_is_left") else { return };
    let executor = engine.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut spec = step(&dir, SMALL, STUBBORN);
    spec.timeout = Duration::from_secs(4);
    spec.grace = Duration::from_millis(200);
    let result = run(&executor, &spec).await;
    assert_eq!(result.end, StepEnd::TimedOut);
    assert!(spec.cwd.join("ready").exists());
    assert!(unlocked(spec.hold.as_ref().unwrap()));
    assert_eq!(log(&spec), ["[switchover] the time limit of 4 s is reached; ending"]);
    assert_eq!(rig::left(executor.docker()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_shell_started_has_its_grace_too() {
    let Some(engine) = engine("what_the_shell_started_has_its_grace_too") else { return };
    let executor = engine.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    // The outer shell dies of the signal at once; what it waits for needs a moment.
    let inner = "trap 'sleep 1; echo bye; exit 0' TERM; touch ready; while :; do sleep 0.02; done";
    let mut spec = step(&dir, SMALL, &format!("sh -c \"{inner}\"; echo not reached"));
    spec.grace = Duration::from_secs(60);
    let cancel = CancellationToken::new();
    let (result, ()) = tokio::join!(executor.run(&spec, cancel.clone()), async {
        file(&spec.cwd.join("ready")).await;
        cancel.cancel();
    });
    assert_eq!(result.unwrap().end, StepEnd::Cancelled);
    let lines = log(&spec);
    assert_eq!((lines[0].as_str(), lines.last().unwrap().as_str()), ("[switchover] cancelled; ending", "bye"));
    let result = executor.run(&spec, cancel).await.unwrap();
    assert_eq!(result.end, StepEnd::Cancelled, "cancelled before it began");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_future_that_is_dropped_ends_its_step() {
    let Some(engine) = engine("a_future_that_is_dropped_ends_its_step") else { return };
    let executor = engine.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let spec = step(&dir, SMALL, STUBBORN);
    let ready = spec.cwd.join("ready");
    tokio::select! {
        _ = executor.run(&spec, CancellationToken::new()) => panic!("it never ends by itself"),
        () = file(&ready) => {}
    }
    // The lock goes last.
    rig::until("the workspace is free", || unlocked(spec.hold.as_ref().unwrap())).await;
    assert_eq!(rig::left(executor.docker()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_servers_steps_are_swept_at_its_next_start() {
    let Some(engine) = engine("a_killed_servers_steps_are_swept_at_its_next_start") else { return };
    let executor = engine.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let spec = step(&dir, SMALL, STUBBORN);
    // Another process of the same server: it knows nothing of what the first one runs.
    let next = switchover::exec::docker::DockerExecutor::new(
        executor.docker().clone(),
        StepLimits::default(),
        Default::default(),
    );
    let (lost, swept) = tokio::join!(executor.run(&spec, CancellationToken::new()), async {
        file(&spec.cwd.join("ready")).await;
        assert_eq!(executor.sweep().await.unwrap(), 0, "its own");
        next.sweep().await
    });
    assert!(swept.unwrap() >= 1, "its container; the network may go with the step's own end");
    assert!(lost.is_err() || lost.as_ref().is_ok_and(|r| r.end == StepEnd::Signalled(9)), "{lost:?}");
    assert_eq!(rig::left(executor.docker()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn companions_are_reached_by_name_and_gone_afterwards() {
    let Some(engine) = engine("companions_are_reached_by_name_and_gone_afterwards") else { return };
    engine.image("postgres:16");
    let executor = engine.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut spec =
        step(&dir, SMALL, "nc -w 5 db 5432 </dev/null && echo reached; nslookup db >/dev/null && echo named");
    let mut db = service("postgres:16", Some("tcp:5432"));
    db.env.insert("POSTGRES_PASSWORD".into(), "test".into());
    container(&mut spec).services.insert("db".into(), db);
    let result = run(&executor, &spec).await;
    let lines = log(&spec);
    assert_eq!(result.end, StepEnd::Exited(0), "{lines:?}");
    assert!(lines.iter().any(|l| l.contains("companion db (postgres:16) is ready after")), "{lines:?}");
    assert_eq!(lines[lines.len() - 2..], ["reached", "named"]);
    assert_eq!(rig::left(executor.docker()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn companions_that_fail_say_why() {
    let Some(engine) = engine("companions_that_fail_say_why") else { return };
    engine.image("postgres:16");
    engine.image("redis:7");
    let limits = StepLimits { ready: Some(Duration::from_secs(3)), ..StepLimits::default() };
    // One that ends by itself is told as soon as it has, and one that never listens at its time.
    let (patient, executor) = (engine.executor(StepLimits::default()).await, engine.executor(limits).await);
    let cases = [
        (
            "postgres:16",
            Some("tcp:5432"),
            "it ended with exit code 1 before it was ready",
            "superuser password is not specified",
        ),
        ("redis:7", Some("tcp:6380"), "nothing listens on its port 6380 within 3 s", "Ready to accept connections"),
        ("redis:7", Some("health"), "its image has no health check", ""),
        ("no-such-image-anywhere.invalid/x:1", None, "no-such-image-anywhere.invalid", ""),
    ];
    for (image, ready, why, last) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = step(&dir, SMALL, "echo ran");
        container(&mut spec).services.insert("other".into(), service(image, ready));
        let executor = if why.contains("ended") { &patient } else { &executor };
        let said = match executor.run(&spec, CancellationToken::new()).await {
            Ok(result) => format!("{:?}", result.end),
            Err(e) => e.to_string(),
        };
        let lines = log(&spec).join("\n");
        assert!(said.contains(why), "{image}: {said}\n{lines}");
        assert!(lines.contains(last) && !lines.contains("\nran"), "{image}: {lines}");
    }
    assert_eq!(rig::left(executor.docker()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_restarts_in_the_middle_is_not_the_steps_fault() {
    if engine("an_engine_that_restarts_in_the_middle_is_not_the_steps_fault").is_none() {
        return;
    }
    // Its own: the others go on with theirs.
    let Ok(engine) = Engine::start() else { panic!("a second engine does not start") };
    let executor = engine.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut spec = step(&dir, SMALL, STUBBORN);
    let (result, engine) = tokio::join!(executor.run(&spec, CancellationToken::new()), async {
        file(&spec.cwd.join("ready")).await;
        tokio::task::spawn_blocking(move || {
            engine.down();
            engine
        })
        .await
        .unwrap()
    });
    assert!(matches!(result, Err(ExecError::Docker(_))), "{result:?}");
    // Nobody knows whether it is gone before the engine is asked.
    assert!(!unlocked(spec.hold.as_ref().unwrap()));
    let away = executor.run(&spec, CancellationToken::new()).await;
    assert!(matches!(away, Err(ExecError::Docker(_) | ExecError::Image(_))), "{away:?}");
    engine.up();
    rig::until("the workspace is free", || unlocked(spec.hold.as_ref().unwrap())).await;
    assert_eq!(rig::left(executor.docker()).await, Vec::<String>::new());
    spec.command = "echo again".into();
    assert_eq!(run(&executor, &spec).await.end, StepEnd::Exited(0));
    assert_eq!(log(&spec), ["again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_given_to_the_step_without_following_its_links() {
    let Some(engine) = engine("folders_are_given_to_the_step_without_following_its_links") else { return };
    let executor = engine.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "").unwrap();
    let spec = step(&dir, SMALL, "ls -ld . >/dev/null; touch new");
    std::os::unix::fs::symlink(&outside, spec.cwd.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.join("file"), spec.home.join("link")).unwrap();
    let before = (fs::metadata(&outside).unwrap().uid(), fs::metadata(outside.join("file")).unwrap().uid());
    assert_eq!(run(&executor, &spec).await.end, StepEnd::Exited(0), "{:?}", log(&spec));
    let after = (fs::metadata(&outside).unwrap().uid(), fs::metadata(outside.join("file")).unwrap().uid());
    assert_eq!(before, after);
    let made = fs::metadata(spec.cwd.join("new")).unwrap().uid();
    let expected = if nix::unistd::geteuid().is_root() { 65532 } else { nix::unistd::geteuid().as_raw() };
    assert_eq!(made, expected);
}

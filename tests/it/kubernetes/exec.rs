//! Steps as Jobs.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, time::Duration};

use secrecy::SecretString;
use switchover::{
    domain::{ids::RepoId, run::StepEnd},
    exec::{
        limits::StepLimits,
        local::{ExecError, Executor},
    },
    settings::Registry,
};
use tokio_util::sync::CancellationToken;

use super::rig::{GNU, SMALL, Stage, container, line, log, run, service, step};
use crate::docker::rig::ENDS;

#[tokio::test(flavor = "multi_thread")]
async fn a_step_tells_how_it_ended_and_what_it_cost() {
    let Some(stage) = Stage::new("a_step_tells_how_it_ended_and_what_it_cost") else { return };
    let executor = stage.executor(StepLimits::default()).await;
    // All at once: steps of different jobs are nothing to each other.
    let all = ENDS.iter().map(|(command, end)| {
        let executor = &executor;
        async move {
            let dir = tempfile::tempdir().unwrap();
            let spec = step(&dir, SMALL, command);
            let result = run(executor, &spec).await;
            assert_eq!(result.end, *end, "{command}: {:?}", log(&spec));
            assert!(!log(&spec).iter().any(|l| l == "not reached"));
        }
    });
    futures_util::future::join_all(all).await;
    let dir = tempfile::tempdir().unwrap();
    let busy = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done";
    let spec = step(&dir, SMALL, &format!("echo out; echo err >&2; echo 'umlaut ü'; {busy}; printf end"));
    let result = run(&executor, &spec).await;
    assert_eq!(log(&spec), ["out", "err", "umlaut ü", "end"]);
    assert!(!result.truncated);
    assert!(result.cpu_ms > 0 && result.peak_bytes > 100_000, "{result:?}");
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_nobody_and_gets_its_own_alone() {
    let Some(stage) = Stage::new("a_step_is_nobody_and_gets_its_own_alone") else { return };
    let executor = stage.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("server-key.pem"), "secret").unwrap();
    let look = r#"
        env | sort | grep -Ev '^(HOSTNAME|KUBERNETES_)'; whoami; pwd; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status
        for path in @DIR@/server-key.pem /var/run/secrets /run/docker.sock; do
            if [ -e "$path" ]; then echo "sees $path"; fi
        done
        ls @DIR@; grep switchover /etc/passwd
        touch /usr-file 2>&1 || true
        touch /.switchover/go 2>&1 || true
        su nobody 2>&1 </dev/null || true
        touch made "$HOME/made" "$TMPDIR/made"
        stat -c '%U %a' . "$HOME"
        df -k /dev/shm | tail -1 | awk '{print $2}'
    "#;
    let mut spec = step(&dir, SMALL, &look.replace("@DIR@", dir.path().to_str().unwrap()));
    fs::set_permissions(&spec.home, fs::Permissions::from_mode(0o700)).unwrap();
    let strange = "a $(HOME) $$ 'b' ä\nsecond line";
    spec.env = vec![("APP".into(), strange.into()), ("LANG".into(), "de".into())];
    let result = run(&executor, &spec).await;
    let shown = log(&spec).join("\n").replace(dir.path().to_str().unwrap(), "DIR").replace("DIR/work", "WORK");
    assert_eq!(result.end, StepEnd::Exited(0), "{shown}");
    insta::assert_snapshot!(shown, @r"
    APP=a $(HOME) $$ 'b' ä
    CI=true
    GIT_CONFIG_COUNT=1
    GIT_CONFIG_KEY_0=safe.directory
    GIT_CONFIG_VALUE_0=*
    HOME=DIR/home
    LANG=de
    PATH=/bin
    PWD=WORK/app
    SHLVL=2
    TMPDIR=DIR/home/tmp
    USER=switchover
    second line
    switchover
    WORK/app
    CapEff:	0000000000000000
    NoNewPrivs:	1
    home
    work
    switchover:x:65532:65532::DIR/home:/bin/sh
    touch: /usr-file: Permission denied
    touch: /.switchover/go: Read-only file system
    su: must be suid to work properly
    switchover 755
    switchover 700
    524288
    ");
    // Ours to read and remove.
    assert_eq!(fs::metadata(spec.cwd.join("made")).unwrap().len(), 0);
    assert!(spec.home.join("made").exists() && spec.home.join("tmp/made").exists());
    spec.env = vec![("A=B".into(), "x".into())];
    let refused = executor.run(&spec, CancellationToken::new()).await;
    assert!(matches!(refused, Err(ExecError::Spec(_))), "{refused:?}");
    let mut none = step(&dir, SMALL, "true");
    container(&mut none).image = None;
    let result = run(&executor, &none).await;
    assert!(matches!(&result.end, StepEnd::NotStarted(why) if why.contains("`container:`")), "{result:?}");
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_cluster_shows_no_secret_and_asks_for_little() {
    let Some(stage) = Stage::new("what_stands_in_the_cluster_shows_no_secret_and_asks_for_little") else { return };
    let registry = |repository: &str| Registry {
        username: "acme".into(),
        password: SecretString::from("hub-password"),
        repositories: vec![repository.into()],
        plain_http: false,
    };
    let registries = [("docker.io", registry("acme/*")), ("ghcr.io", registry("other/*"))];
    let executor = stage.with_logins(registries.map(|(n, r)| (n.to_owned(), r)).into()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut spec = step(&dir, SMALL, "echo ready; while [ ! -e stop ]; do sleep 0.1; done");
    spec.env = vec![("TOKEN".into(), "step-secret".into())];
    container(&mut spec).resources.memory = Some(64 << 20);
    container(&mut spec).resources.cpu = Some(0.25);
    let cancel = CancellationToken::new();
    let (result, ()) = tokio::join!(executor.run(&spec, cancel.clone()), async {
        line(&spec, "ready").await;
        let all = stage.space.kubectl(&["get", "jobs,pods,events", "-o", "yaml"]);
        assert!(!all.contains("step-secret") && !all.contains("hub-password"), "{all}");
        let pod = stage.pod();
        let of = |path: &str| stage.space.field(&pod, path);
        let seen = [
            ".spec.automountServiceAccountToken",
            ".spec.enableServiceLinks",
            ".spec.restartPolicy",
            ".spec.securityContext.seccompProfile.type",
            ".spec.containers[0].resources",
            ".spec.containers[0].securityContext",
            ".spec.volumes[*].name",
        ]
        .map(of);
        insta::assert_snapshot!(seen.join("\n"), @r#"
        false
        false
        Never
        RuntimeDefault
        {"limits":{"cpu":"250m","ephemeral-storage":"21474836480","memory":"67108864"},"requests":{"cpu":"250m","ephemeral-storage":"67108864","memory":"67108864"}}
        {"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]},"runAsGroup":65532,"runAsNonRoot":true,"runAsUser":65532}
        work shared shm
        "#);
        let logins = of(".spec.imagePullSecrets[0].name");
        let secret = stage.space.field(&format!("secret/{logins}"), ".data");
        let held = secret.split('"').nth(3).unwrap();
        let held = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, held).unwrap();
        let held: serde_json::Value = serde_json::from_slice(&held).unwrap();
        let hosts: Vec<&String> = held["auths"].as_object().unwrap().keys().collect();
        assert_eq!(hosts, ["https://index.docker.io/v1/"], "and not what is granted to others");
        let owner = stage.space.field(&format!("secret/{logins}"), ".metadata.ownerReferences[0].kind");
        assert_eq!(owner, "Job");
        cancel.cancel();
    });
    assert_eq!(result.unwrap().end, StepEnd::Cancelled);
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_its_time_limit_nothing_of_a_step_runs_and_its_files_are_here() {
    let Some(stage) = Stage::new("past_its_time_limit_nothing_of_a_step_runs_and_its_files_are_here") else { return };
    let executor = stage.executor(StepLimits::default()).await;
    // Ignores TERM, starts helpers that left the group and the session, forks on.
    let stubborn = r#"
trap '' TERM HUP INT
setsid sh -c 'trap "" TERM; (setsid sh -c "trap \"\" TERM; while :; do sleep 0.05; done" &); while :; do sleep 0.05; done' &
sh -c 'trap "" TERM; while :; do (sleep 0.01 &); sleep 0.05; done' &
echo written >file
echo ready
while :; do sleep 0.05; done
"#;
    let dir = tempfile::tempdir().unwrap();
    let mut spec = step(&dir, SMALL, stubborn);
    spec.timeout = Duration::from_secs(30);
    spec.grace = Duration::from_millis(500);
    let result = run(&executor, &spec).await;
    assert_eq!(result.end, StepEnd::TimedOut);
    assert_eq!(log(&spec), ["ready", "[switchover] the time limit of 30 s is reached; ending"]);
    assert_eq!(fs::read_to_string(spec.cwd.join("file")).unwrap(), "written\n");
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_step_has_its_grace_and_is_gone() {
    let Some(stage) = Stage::new("a_cancelled_step_has_its_grace_and_is_gone") else { return };
    let executor = stage.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    // The outer shell dies of the signal at once; what it waits for needs a moment.
    let inner = "trap 'sleep 1; echo bye; exit 0' TERM; echo ready; while :; do sleep 0.02; done";
    let mut spec = step(&dir, SMALL, &format!("sh -c \"{inner}\"; echo not reached"));
    spec.grace = Duration::from_secs(60);
    let cancel = CancellationToken::new();
    let (result, ()) = tokio::join!(executor.run(&spec, cancel.clone()), async {
        line(&spec, "ready").await;
        cancel.cancel();
    });
    assert_eq!(result.unwrap().end, StepEnd::Cancelled);
    let lines = log(&spec);
    assert_eq!(lines[..2], ["ready", "[switchover] cancelled; ending"]);
    assert_eq!(lines.last().unwrap(), "bye", "{lines:?}");
    let result = executor.run(&spec, cancel).await.unwrap();
    assert_eq!(result.end, StepEnd::Cancelled, "cancelled before it began");
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn companions_are_reached_by_name_and_gone_afterwards() {
    let Some(stage) = Stage::new("companions_are_reached_by_name_and_gone_afterwards") else { return };
    let web = stage.space.cluster.push_app("steps/companion", "v7", &[]);
    let executor = stage.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut spec = step(&dir, SMALL, "wget -q -O - http://web:8080/ && echo && echo reached");
    container(&mut spec).services.insert("web".into(), service(&web.exact(), Some("tcp:8080")));
    let result = run(&executor, &spec).await;
    let lines = log(&spec).join("\n");
    assert_eq!(result.end, StepEnd::Exited(0), "{lines}");
    assert!(lines.contains("companion web (") && lines.contains(" is ready after "), "{lines}");
    assert!(lines.contains("v7") && lines.ends_with("reached"), "{lines}");
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_step_of_a_job_finds_what_the_first_one_left() {
    let Some(stage) = Stage::new("a_later_step_of_a_job_finds_what_the_first_one_left") else { return };
    let executor = stage.executor(StepLimits::default()).await;
    for image in [GNU, SMALL] {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("caches/1/repository");
        fs::create_dir_all(&cache).unwrap();
        let mut spec = step(&dir, image, "");
        fs::write(spec.cwd.join("given"), "given").unwrap();
        fs::write(spec.cwd.join("old"), "old").unwrap();
        fs::write(spec.cwd.join("as-it-was"), "same").unwrap();
        fs::write(spec.cwd.parent().unwrap().join(".git"), "gitdir: elsewhere\n").unwrap();
        std::os::unix::fs::symlink(&cache, spec.home.join("cache")).unwrap();
        container(&mut spec).caches = vec![cache.clone()];
        spec.command = r#"
            rm old; mkdir -p target/reports deep/er; echo '<testsuite/>' >target/reports/a.xml
            printf '#!/bin/sh\necho runs\n' >script; chmod 755 script; ln script deep/same; ln -s ../given deep/link
            touch -d '2001-02-03 04:05:06' deep/er/dated; printf 'a b\n' >'with space'; : >"$(printf 'new\nline')"
            chmod 555 deep/er; rm given; echo changed >given; echo kept >~/cache/kept; echo home >~/.settings
            mkfifo pipe; chmod 4755 script
        "#
        .into();
        let result = run(&executor, &spec).await;
        assert_eq!(result.end, StepEnd::Exited(0), "{image}: {:?}", log(&spec));
        let read = |path: &str| fs::read_to_string(spec.cwd.join(path)).unwrap();
        assert_eq!((read("target/reports/a.xml").as_str(), read("given").as_str()), ("<testsuite/>\n", "changed\n"));
        assert_eq!((read("as-it-was").as_str(), read("with space").as_str()), ("same", "a b\n"));
        assert!(
            !spec.cwd.join("old").exists() && !spec.cwd.join("pipe").exists() && spec.cwd.join("new\nline").exists()
        );
        let mode = fs::metadata(spec.cwd.join("script")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "nobody becomes somebody else by running it");
        assert_eq!(fs::read_link(spec.cwd.join("deep/link")).unwrap().to_str(), Some("../given"));
        assert_eq!(fs::read_to_string(cache.join("kept")).unwrap(), "kept\n");
        assert_eq!(fs::read_to_string(spec.home.join(".settings")).unwrap(), "home\n");
        assert!(spec.cwd.parent().unwrap().join(".git").exists());
        spec.command =
            "./script; deep/same; cat deep/link ~/cache/kept ~/.settings; for f in *; do echo \"$f\"; done; date -r deep/er/dated +%Y".into();
        spec.log = dir.path().join("logs/second");
        let result = run(&executor, &spec).await;
        assert_eq!(result.end, StepEnd::Exited(0), "{image}: {:?}", log(&spec));
        let mut lines = log(&spec);
        lines[5..].sort();
        insta::allow_duplicates! { insta::assert_snapshot!(lines.join("\n"), @r"
        runs
        runs
        changed
        kept
        home
        2001
        as-it-was
        deep
        given
        line
        new
        script
        target
        with space
        ") }
    }
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn much_goes_both_ways_and_git_finds_its_history() {
    let Some(stage) = Stage::new("much_goes_both_ways_and_git_finds_its_history") else { return };
    let executor = stage.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let host = crate::exec::host::Host::start();
    let (_mirrors_dir, mirrors) = crate::exec::git::mirrors();
    let sha = host.commit("the message", &[("app/a.txt", "one")]);
    mirrors.fetch(RepoId(7), &host.url, None, &[]).await.unwrap();
    let workspace = mirrors.checkout(RepoId(7), &sha, "app-own").await.unwrap();
    let command = "[ $(ls many | wc -l) = 1500 ]; wc -c <large; head -c 50000000 large >made; rm -r many; mkdir many
        echo x >many/one; cat $(sed 's/gitdir: //' ../.git)/HEAD";
    let mut spec = step(&dir, GNU, command);
    spec.cwd = workspace.path().join("app");
    spec.hold = Some(workspace.steps_lock().to_owned());
    container(&mut spec).workspace = workspace.path().to_owned();
    container(&mut spec).mirror = Some(mirrors.dir(RepoId(7)));
    fs::create_dir(spec.cwd.join("many")).unwrap();
    for n in 0..1500 {
        fs::write(spec.cwd.join(format!("many/a-file-with-a-name-of-some-length-{n}.txt")), n.to_string()).unwrap();
    }
    let large: Vec<u8> = (0..100_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(spec.cwd.join("large"), &large).unwrap();
    let result = run(&executor, &spec).await;
    let lines: Vec<String> = log(&spec).into_iter().filter(|l| !l.starts_with("[switchover]")).collect();
    assert_eq!(result.end, StepEnd::Exited(0), "{lines:?}");
    assert_eq!(lines, ["100000000".to_owned(), sha.to_string()]);
    assert!(fs::read(spec.cwd.join("made")).unwrap() == large[..50_000_000]);
    let left: Vec<_> = fs::read_dir(spec.cwd.join("many")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["one"]);
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_cut_and_counted() {
    let Some(stage) = Stage::new("a_flood_is_cut_and_counted") else { return };
    let executor = stage.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut spec = step(&dir, SMALL, "yes \"$(printf '%0999d' 0)\" | head -c 3000000; echo; echo last");
    spec.output_limit = 10_000;
    let result = run(&executor, &spec).await;
    assert_eq!((result.end, result.truncated), (StepEnd::Exited(0), true));
    assert_eq!(result.output_bytes, 3_000_006);
    assert!(fs::metadata(&spec.log).unwrap().len() < 20_000);
    // One endless line, and lines with anything in them.
    let mut spec =
        step(&dir, SMALL, "head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'a\\rb \\033[31mred\\n\\n'; seq 1 500");
    spec.output_limit = 1_000_000;
    assert_eq!(run(&executor, &spec).await.end, StepEnd::Exited(0));
    let lines = log(&spec);
    assert_eq!(lines[..3].iter().map(String::len).collect::<Vec<_>>(), [16384, 16384, 7232]);
    assert_eq!(lines[3..5], ["b \u{1b}[31mred".to_owned(), String::new()]);
    assert_eq!(lines[5..], (1..=500).map(|n| n.to_string()).collect::<Vec<_>>());
    stage.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_without_the_internet_have_a_policy_and_nodes_are_chosen() {
    let Some(stage) = Stage::new("steps_without_the_internet_have_a_policy_and_nodes_are_chosen") else { return };
    let executor = stage.executor(StepLimits { internet: false, ..StepLimits::default() }).await;
    let dir = tempfile::tempdir().unwrap();
    let spec = step(&dir, SMALL, "echo ready; sleep 100");
    let cancel = CancellationToken::new();
    let (result, ()) = tokio::join!(executor.run(&spec, cancel.clone()), async {
        line(&spec, "ready").await;
        // Whether it holds is the cluster's network's affair.
        let policy = stage.space.kubectl(&["get", "networkpolicies", "-o", "jsonpath={.items[*].spec.policyTypes}"]);
        assert_eq!(policy, r#"["Ingress","Egress"]"#);
        let chosen =
            stage.space.kubectl(&["get", "networkpolicies", "-o", "jsonpath={.items[0].spec.podSelector.matchLabels}"]);
        let labels = stage.space.field(&stage.pod(), ".metadata.labels");
        let of = |text: &str| -> BTreeMap<String, String> { serde_json::from_str(text).unwrap() };
        let (chosen, labels) = (of(&chosen), of(&labels));
        assert!(!chosen.is_empty() && chosen.iter().all(|(k, v)| labels.get(k) == Some(v)), "{chosen:?} {labels:?}");
        cancel.cancel();
    });
    assert_eq!(result.unwrap().end, StepEnd::Cancelled);
    stage.nothing_left().await;
}

//! Repositories that are broken, empty, hostile or odd: a clear check each.

use super::{
    rig::{ANN, HERE, NAME, OWNER, PATIENCE, Rig, TRUSTED, released_config},
    stories::pull,
};

const GOOD: &str = "version: 1\non: {push: [\"**\"]}\napps:\n  web:\n    steps:\n      test: {run: \"true\"}\n";

#[tokio::test(flavor = "multi_thread")]
async fn configurations_that_can_not_be_used() {
    let rig = Rig::start().await;
    let enormous = format!("{GOOD}#{}\n", "x".repeat(400_000));
    let bomb = format!(
        "a: &a [x, x, x, x, x, x, x, x, x]\n{}",
        ('b'..='j')
            .map(|c| format!("{c}: &{c} [*{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}]\n", p = (c as u8 - 1) as char))
            .collect::<String>()
    );
    let deep = format!("version: 1\napps: {}1{}\n", "[".repeat(5000), "]".repeat(5000));
    let cases: [(&str, &str, bool); 7] = [
        ("an unknown key", "version: 1\napps:\n  web:\n    stepz:\n      test: {run: \"true\"}\n", true),
        ("no YAML", "version: 1\napps: [\n", true),
        ("enormous", &enormous, true),
        ("an alias bomb", &bomb, true),
        ("deep", &deep, true),
        (
            "a path that leads out",
            "version: 1\napps:\n  web:\n    path: ../../etc\n    steps: {test: {run: \"true\"}}\n",
            true,
        ),
        ("empty", "", false),
    ];
    for (what, text, fails) in cases {
        let sha = rig.push("main", &[(".github/switchover.yml", Some(text))], what).await;
        let check = rig.check(&sha, "switchover").await;
        let conclusion = check.conclusion.clone().unwrap_or_default();
        assert_eq!(conclusion, if fails { "failure" } else { "success" }, "{what}: {:?}", check.output.title);
        if fails {
            let annotation = check.output.annotations.first().unwrap_or_else(|| panic!("{what}: no annotation"));
            assert_eq!(annotation.path, ".github/switchover.yml", "{what}");
        }
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_file_that_can_not_be_read_is_no_green_check() {
    let rig = Rig::start().await;
    let package = |name: &str| format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
    let (backend, frontend) = (package("backend"), package("frontend"));
    let sha = rig
        .push("main", &[("backend/Cargo.toml", Some(&backend)), ("frontend/Cargo.toml", Some(&frontend))], "two apps")
        .await;
    // Without sources nothing of them can be tested; that they are there is enough.
    rig.wait("both apps", |m| {
        let names: Vec<String> = m.repo(OWNER, NAME)?.latest_checks(&sha).iter().map(|c| c.name.clone()).collect();
        ["backend / test (push)", "frontend / test (push)"].iter().all(|n| names.iter().any(|m| m == n)).then_some(())
    })
    .await;
    let head = rig.push("one", &[("backend/Cargo.toml", Some("# mine\n[package\n"))], "breaks one").await;
    rig.github.open_pull(rig.repo, ANN, pull("one")).await.expect("opened");
    let check = rig.check(&head, "switchover").await;
    assert_eq!(check.conclusion.as_deref(), Some("failure"), "{:?}", check.output);
    assert_eq!(check.output.title.as_deref(), Some("1 mistake in backend/Cargo.toml"));
    let annotation = check.output.annotations.first().expect("an annotation");
    assert_eq!((annotation.path.as_str(), annotation.start_line), ("backend/Cargo.toml", 2));
    let both = [("backend/Cargo.toml", Some("[package")), ("frontend/Cargo.toml", Some("\u{1}"))];
    let head = rig.push("main", &both, "breaks both").await;
    let check = rig.check(&head, "switchover").await;
    assert_eq!(check.conclusion.as_deref(), Some("failure"), "{:?}", check.output);
    assert_eq!(check.output.title.as_deref(), Some("2 mistakes in backend/Cargo.toml, frontend/Cargo.toml"));
    let large = format!("# {}", "x".repeat(2 << 20));
    let head = rig.push("main", &[("backend/Cargo.toml", Some(&large)), ("frontend/Cargo.toml", None)], "large").await;
    let check = rig.check(&head, "switchover").await;
    assert_eq!(check.conclusion.as_deref(), Some("failure"), "{:?}", check.output);
    let said = format!("{:?}", check.output.annotations.first().map(|a| a.message.clone()));
    assert!(said.contains("larger than 1 MiB"), "{said}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_a_link_is_told() {
    let rig = Rig::start().await;
    rig.push("main", &[("elsewhere.yml", Some(GOOD)), ("Cargo.toml", Some("[workspace]"))], "begin").await;
    let url = rig.github.push_url(ANN, OWNER, NAME).expect("an address");
    let script = format!(
        "git clone -q '{url}' of-ann && cd of-ann && mkdir .github && ln -s ../elsewhere.yml .github/switchover.yml && \
         git add . && git -c user.name=ann -c user.email=ann@example.com commit -qm link && git push -q && \
         git rev-parse HEAD"
    );
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-ec", &script]).current_dir(&rig.data).env("GIT_CONFIG_GLOBAL", "/dev/null");
    let done = shell.env("GIT_TERMINAL_PROMPT", "0").output().await.expect("run");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let sha = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    let check = rig.check(&sha, "switchover").await;
    assert_eq!(check.conclusion.as_deref(), Some("failure"), "{:?}", check.output);
    let annotation = check.output.annotations.first().expect("an annotation");
    assert_eq!(annotation.path, ".github/switchover.yml");
    assert!(annotation.message.contains("is a link, which is not followed"), "{}", annotation.message);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_shows_what_its_file_would_change() {
    let rig = Rig::start().await;
    let of = |environments: &str| format!("{GOOD}environments:\n{environments}");
    let here = of("  production: {deploy: {branch: live}}\n  staging: {deploy: {branch: next}}\n");
    rig.push("main", &[(".github/switchover.yml", Some(&here))], "the policy").await;
    let there = of("  production: {deploy: {branch: main}, approval: required}\n");
    let mut said = Vec::new();
    for (branch, text) in [("moves", there.as_str()), ("empties", "")] {
        let head = rig.push(branch, &[(".github/switchover.yml", Some(text))], branch).await;
        rig.github.open_pull(rig.repo, ANN, pull(branch)).await.expect("opened");
        // A branch's own push has a run too, which knows no base.
        let summary = rig
            .wait("words of the pull request", |m| {
                let checks = m.repo(OWNER, NAME)?.latest_checks(&head);
                let check = checks.into_iter().find(|c| c.name == "switchover" && c.status == "completed")?;
                check.output.summary.clone().filter(|s| s.contains("What this changes once merged"))
            })
            .await;
        said.push(summary);
    }
    for line in ["deploy.branch live → main", "approval not written → required", "environment staging: removed"] {
        assert!(said[0].contains(line), "{line} is not in {}", said[0]);
    }
    assert!(said[1].contains("environment production: removed"), "{}", said[1]);
    assert!(!said[1].contains("nothing is released"), "{}", said[1]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_with_nothing_to_run_and_odd_branches() {
    let rig = Rig::start().await;
    let sha = rig.push("main", &[("README.md", Some("hello"))], "only words").await;
    let check = rig.check(&sha, "switchover").await;
    assert_eq!(check.conclusion.as_deref(), Some("success"));
    let said = format!("{:?} {:?}", check.output.title, check.output.summary);
    assert!(said.contains("othing"), "{said}");
    for branch in ["feature/ünïcode-日本", "a'b\"c$(x)", "x-;rm", "release/1.0@2", &"l".repeat(200)] {
        let sha = rig.push(branch, &[(".github/switchover.yml", Some(GOOD)), ("b", Some(branch))], branch).await;
        assert_eq!(rig.conclusion(&sha, "switchover").await, "success", "{branch}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_says_its_last_words() {
    let rig = Rig::start().await;
    let config = GOOD.replace("\"true\"", "\"echo before; echo the reason >&2; exit 3\"");
    let sha = rig.push("main", &[(".github/switchover.yml", Some(&config))], "fails").await;
    assert_eq!(rig.conclusion(&sha, "switchover").await, "failure");
    let check = rig.check(&sha, "web / test (push)").await;
    assert_eq!(check.conclusion.as_deref(), Some("failure"));
    let said = format!("{:?} {:?}", check.output.summary, check.output.text);
    assert!(said.contains("the reason"), "{said}");
    // The check's link leads to the log.
    let url = check.details_url.expect("a link");
    let page = reqwest::get(url.split('#').next().expect("an address")).await.expect("answered");
    assert_eq!(page.status(), 200);
    assert!(page.text().await.expect("text").contains("the reason"));
    let repo = rig.github.read(|m| m.repo(OWNER, NAME).map(|r| r.checks.len()));
    assert_eq!(repo, Some(2));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_not_there_stands_in_the_check_of_its_step() {
    let rig = Rig::start().await;
    // The second app's command names a tool whose image is known: of no use to steps on this host.
    let config = "version: 1\napps:\n  missing:\n    path: nowhere\n    steps:\n      a: {run: \"true\"}\n  web:\n    \
                  steps:\n      test: {run: \"true # npm\"}\n";
    let sha = rig.push("main", &[(".github/switchover.yml", Some(config))], "missing").await;
    let all = rig.check(&sha, "switchover").await;
    assert!(!all.output.summary.as_deref().unwrap_or_default().contains("in a container"), "{:?}", all.output);
    let check = rig.check(&sha, "missing / a (push)").await;
    assert_eq!(check.conclusion.as_deref(), Some("cancelled"));
    let (title, said) = (check.output.title.unwrap_or_default(), check.output.summary.unwrap_or_default());
    assert!(title.starts_with("Not run: The folder `nowhere` of app missing is not in"), "{title}");
    assert!(!said.contains("The whole log") && said.ends_with("press **Re-run**."), "{said}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_without_a_place_says_so_in_its_check() {
    const DEPLOY: &str = "deploy (production)";
    let mut rig = Rig::start().await;
    let app = released_config();
    let files = |version| [(".github/switchover.yml", Some(app.as_str())), ("version", Some(version))];
    // The operator takes the target away while a release is just being made.
    rig.kill().await;
    rig.serve(Some("releases.before_decided")).await;
    let first = rig.push("main", &files("1"), "first").await;
    assert!(rig.ended(PATIENCE).await);
    rig.set(TRUSTED);
    rig.serve(None).await;
    rig.wait("words why it waits", |m| {
        let checks = m.repo(OWNER, NAME)?.latest_checks(&first);
        let waits = checks.into_iter().find(|c| c.name == DEPLOY && c.status == "queued")?;
        let title = waits.output.title.clone().unwrap_or_default();
        title.starts_with("Waits: the operator of this server granted acme/shop no target").then_some(())
    })
    .await;
    // A newer one takes its place, and fails for the same reason.
    let second = rig.push("main", &files("2"), "second").await;
    let check = rig.check(&second, DEPLOY).await;
    assert_eq!(check.conclusion.as_deref(), Some("failure"), "{:?}", check.output);
    let title = check.output.title.unwrap_or_default();
    assert!(title.starts_with("Not released: the operator of this server granted acme/shop no target"), "{title}");
    let check = rig.check(&first, DEPLOY).await;
    assert_eq!(check.conclusion.as_deref(), Some("cancelled"), "{:?}", check.output);
    rig.deployed(&second, "failure").await;
    // With a target again all goes on; with two of them somebody must say which.
    rig.kill().await;
    rig.set(&format!("{TRUSTED}{HERE}"));
    rig.serve(None).await;
    let third = rig.push("main", &files("3"), "third").await;
    rig.deployed(&third, "success").await;
    rig.kill().await;
    rig.set(&format!("{TRUSTED}{HERE}{}", HERE.replace("here", "there")));
    rig.serve(None).await;
    let fourth = rig.push("main", &files("4"), "fourth").await;
    let check = rig.check(&fourth, DEPLOY).await;
    assert_eq!(check.conclusion.as_deref(), Some("failure"), "{:?}", check.output);
    let title = check.output.title.unwrap_or_default();
    assert!(
        title.contains("several targets are granted to acme/shop (here, there): name one with `target:`"),
        "{title}"
    );
    rig.stop().await;
}

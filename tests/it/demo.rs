//! The demo's samples and figures; that the play holds is the play's own word (`switchover demo --once`).

use std::process::Command;

use switchover::{
    demo::{
        github::model::{CheckOutput, CheckRun},
        play::{
            own::{failed, with_environment},
            phases::image_parts,
            sample::{SAMPLES, Sample},
        },
    },
    domain::config::{self, AppKind, DeployFrom},
};

fn text(sample: &Sample, path: &str) -> &'static str {
    let files = (sample.files)();
    files.iter().find(|(p, _)| *p == path).unwrap_or_else(|| panic!("{} has no {path}", sample.name)).1
}

#[test]
fn every_sample_says_what_it_is() {
    for sample in SAMPLES {
        let parsed = config::parse(text(&sample, config::FILE_NAME)).unwrap();
        assert_eq!(parsed.warnings, [], "{}", sample.name);
        let apps = parsed.config.apps;
        for app in ["backend", "frontend"] {
            let found = apps.iter().find(|(name, _)| name.as_str() == app).unwrap().1;
            let files = (sample.files)();
            assert!(files.iter().any(|(path, _)| path.starts_with(&format!("{}/", found.path))), "{}", sample.name);
            assert_eq!(found.container.is_some(), sample.is_in_containers(), "{}", sample.name);
        }
        let environments: Vec<_> = parsed.config.environments.values().map(|e| e.deploy.clone()).collect();
        assert_eq!(environments, [DeployFrom::Branch("main".into())]);
    }
    let spring = config::parse(text(&Sample::named("spring").unwrap(), config::FILE_NAME)).unwrap().config;
    let workers = spring.apps.values().filter(|a| a.kind == AppKind::Worker).map(|a| a.image_of.clone().unwrap());
    assert_eq!(workers.map(|a| a.to_string()).collect::<Vec<_>>(), ["backend"]);
}

#[test]
fn every_change_changes_what_it_names_and_nothing_else() {
    for sample in SAMPLES {
        let mut changes = vec![
            (sample.wrong)(),
            (sample.right)(),
            (sample.greeting)("It is 10:00:00"),
            (sample.unwell)("It is 10:00:01"),
        ];
        changes.extend(sample.draft.map(|draft| draft()));
        for change in &changes {
            let changed = change.files.iter().filter(|(path, new)| text(&sample, path) != new).count();
            assert!(changed > 0, "{}: {} changes nothing", sample.name, change.message);
        }
        // A good release after a bad one mends all that the bad one broke.
        let (good, bad) = (&changes[2], &changes[3]);
        for (path, _) in &bad.files {
            assert!(good.files.iter().any(|(p, _)| p == path), "{}: {path} stays broken", sample.name);
        }
        let (file, line) = sample.place.rsplit_once(':').unwrap();
        let line = text(&sample, file).lines().nth(line.parse::<usize>().unwrap() - 1).unwrap();
        assert!(line.contains("10)"), "{}: no test of the tenth piece at {}: {line}", sample.name, sample.place);
    }
}

#[test]
fn an_environment_is_added_where_there_is_none() {
    for (file, added) in [
        (None, true),
        (Some(""), true),
        (Some("version: 1\napps:\n  web: {path: web}"), true),
        (Some("version: 1\nenvironments:\n  staging: {deploy: {branch: develop}}\n"), false),
        (Some("version: 1\nenvironments:\n"), false),
        (Some("version: 2\n"), false),
        (Some("\tno: yaml: [\n"), false),
    ] {
        let more = with_environment(file);
        assert_eq!(more.is_some(), added, "{file:?}");
        let Some(more) = more else { continue };
        assert!(more.starts_with(file.unwrap_or("version: 1").trim_end()), "{more}");
        let environments = config::parse(&more).unwrap().config.environments;
        assert_eq!(environments.keys().map(ToString::to_string).collect::<Vec<_>>(), ["production"]);
    }
}

#[test]
fn a_failed_check_is_told_with_its_last_lines() {
    let check = |name: &str, conclusion: &str, text: &str| CheckRun {
        id: 1,
        suite: 1,
        app: 1,
        name: name.into(),
        head_sha: "a".repeat(40),
        external_id: None,
        details_url: None,
        status: "completed".into(),
        conclusion: Some(conclusion.into()),
        started_at: None,
        completed_at: None,
        output: CheckOutput {
            title: Some(format!("{name} did it")),
            summary: None,
            text: Some(text.into()),
            annotations: Vec::new(),
        },
        actions: Vec::new(),
        writes: 1,
    };
    let long: String = (0..40).map(|n| format!("line {n}\n")).collect();
    let sum = check("switchover", "failure", "see above");
    let test = check("web / test (push)", "failure", &format!("### Last lines\n\n```text\n{long}```\n"));
    let good = check("web / lint (push)", "success", "fine");
    let lines = failed(&[&sum, &good, &test]);
    assert_eq!((lines[0].as_str(), lines.len()), ("web / test (push): web / test (push) did it", 16));
    assert_eq!((lines[1].as_str(), lines[15].as_str()), ("    line 25", "    line 39"));
    assert_eq!(failed(&[&sum, &good]), ["switchover: switchover did it", "    see above"]);
    assert_eq!(failed(&[&good]), Vec::<String>::new());
}

#[test]
fn the_parts_of_an_image_step_are_read_from_its_last_line() {
    let line = "127.0.0.1:5000/acme/shop-backend@sha256:4b2f: base images 0.4 s, build 3.2 s, push 1.1 s (2 layers pushed, 4 were there)";
    for (text, parts) in [
        (line.to_owned(), Some((3_600, 1_100))),
        (format!("### Last lines\n\n```text\nStep 1/4\n{line}\n```"), Some((3_600, 1_100))),
        (line.replace("3.2 s", "soon"), None),
        (line.replace("build", "made"), None),
        (line.replace("1.1", "-1.1"), None),
        (line.replace("1.1", "NaN"), None),
        ("push 1.0 s".to_owned(), None),
        (String::new(), None),
    ] {
        assert_eq!(image_parts(&text), parts, "{text}");
    }
}

#[test]
fn without_an_engine_it_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = format!("unix://{}/docker.sock", folder.path().display());
    for host in [nowhere.as_str(), "tcp://127.0.0.1:1", "ssh://somewhere"] {
        let out = Command::new(env!("CARGO_BIN_EXE_switchover"))
            .args(["demo", "--sample", "spring", "--once", "--docker-host", host])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains(host) && said.contains("--docker-host") && said.lines().count() <= 3, "{said}");
    }
}

use jiff::Timestamp;
use switchover::domain::config::{
    self, AppKind, Approval, DeployFrom, RepoConfig, branches, tree,
    units::{format_duration, format_size, parse_cpu, parse_duration, parse_size},
    window::{self, Window},
};

use super::{EXAMPLE, right, told};

#[test]
fn the_documented_example_is_read_whole() {
    let config = right(EXAMPLE);
    assert_eq!(config.on.push.as_deref(), Some(&["develop".to_owned(), "main".to_owned()][..]));
    let backend = &config.apps["backend"];
    assert_eq!(backend.steps.keys().map(|s| s.as_str()).collect::<Vec<_>>(), ["lint", "test", "build"]);
    let test = &backend.steps["test"];
    assert_eq!(test.timeout.as_secs(), 1200);
    assert_eq!(test.resources.cpu, Some(2.0));
    assert_eq!(test.resources.memory, Some(2 << 30));
    assert_eq!(test.services["db"].ready.as_deref(), Some("tcp:3306"));
    assert_eq!(backend.steps["lint"].run, "mvn -B -ntp spotless:check");
    assert_eq!(backend.steps["lint"].timeout.as_secs(), 1800);
    assert!(backend.pre_deploy.as_ref().is_some_and(|p| p.reversible && p.timeout.as_secs() == 600));
    assert_eq!(config.apps["frontend"].switch_after[0].as_str(), "backend");
    let mailer = &config.apps["mailer"];
    assert_eq!((mailer.kind, mailer.image_of.as_ref().map(|a| a.as_str())), (AppKind::Worker, Some("backend")));
    let production = &config.environments["production"];
    assert_eq!(production.deploy, DeployFrom::Branch("main".to_owned()));
    assert_eq!(production.approval, Approval::Required);
    assert_eq!(production.after, ["switchover", "ci / e2e"]);
    assert_eq!(production.manifests.as_deref(), Some("k8s"));
    assert_eq!(production.probe.interval.as_millis(), 20);
    assert_eq!(production.watch_for.as_secs(), 120);
    assert_eq!(config.environments["staging"].after, ["switchover"]);
    assert_eq!(config.notify.slack.as_deref(), Some("#deploys"));
    assert!(config::parse(EXAMPLE).is_ok_and(|p| p.warnings.is_empty()));
}

#[test]
fn a_file_that_says_nothing_is_no_file() {
    for yaml in ["", "\n", "   \n\n", "# nothing yet\n", "\u{FEFF}", "\u{FEFF}# with a byte order mark\r\n"] {
        assert_eq!(right(yaml), RepoConfig::default(), "{yaml:?}");
    }
    assert_eq!(right("version: 1"), RepoConfig::default());
    assert!(RepoConfig::default().on.pull_request);
}

#[test]
fn texts_are_taken_as_they_are_written() {
    let yaml = "version: 1\r\napps:\r\n  a:\r\n    env: {PORT_A: 0080, ON: yes, V: 1.10, T: true, E: \"\", N: 'null'}\r\n    steps:\r\n      test:\r\n        run: |\r\n          one\r\n          two\r\n";
    let config = right(yaml);
    let app = &config.apps["a"];
    let env: Vec<_> = app.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(env, ["E=", "N=null", "ON=yes", "PORT_A=0080", "T=true", "V=1.10"]);
    assert_eq!(app.steps["test"].run, "one\ntwo\n");
}

#[test]
fn paths_are_tidied() {
    for (written, meant) in [(".", ""), ("./", ""), ("./a//b/", "a/b"), ("a/b", "a/b"), ("ünïcode/ä", "ünïcode/ä")]
    {
        assert_eq!(right(&format!("version: 1\napps: {{a: {{path: {written}}}}}")).apps["a"].path, meant);
    }
}

#[test]
fn aliases_stand_for_whole_values() {
    let yaml = "version: 1\napps:\n  a: {path: a, steps: &s {test: {run: make}}}\n  b: {path: b, steps: *s}\n";
    assert_eq!(right(yaml).apps["b"].steps["test"].run, "make");
}

#[test]
fn which_pushes_are_tested() {
    let implicit = right("version: 1\nenvironments: {p: {deploy: {branch: release}}}");
    let explicit = right("version: 1\non: {push: ['release/**', main, '!release/old/*']}");
    let cases = [
        ("trunk", true, false),
        ("develop", true, false),
        ("release", true, false),
        ("main", false, true),
        ("release/1", false, true),
        ("release/1/2", false, true),
        ("release/old/1", false, false),
        ("feature", false, false),
    ];
    for (branch, by_default, by_patterns) in cases {
        let tests = |c: &RepoConfig| c.on.tests_push(branch, "trunk", &c.environments);
        assert_eq!((tests(&implicit), tests(&explicit)), (by_default, by_patterns), "{branch}");
    }
    let none = right("version: 1\non: {push: []}");
    assert!(!none.on.tests_push("main", "main", &none.environments));
    assert!(branches::matches(&["**".to_owned()], "a/b") && !branches::matches(&["*".to_owned()], "a/b"));
}

#[test]
fn durations_sizes_and_cores() {
    for (text, millis) in [("20m", 1_200_000), ("1h30m", 5_400_000), ("250ms", 250), ("0s", 0), ("2d", 172_800_000)] {
        let duration = parse_duration(text).expect(text);
        assert_eq!((duration.as_millis(), format_duration(duration).as_str()), (millis, text));
    }
    for bad in
        ["", "20", "m", "30m1h", "1m1m", "-1s", "1.5h", "1 h", "99999999999999999999s", "18446744073709551615d", "1µs"]
    {
        assert_eq!(parse_duration(bad), None, "{bad}");
    }
    for (text, bytes) in [("2Gi", 2_u64 << 30), ("512Mi", 512 << 20), ("1G", 1_000_000_000), ("17", 17), ("0", 0)] {
        let size = parse_size(text).expect(text);
        assert_eq!((size, format_size(size).as_str()), (bytes, text));
    }
    for bad in ["", "2GB", "Gi", "1.5Gi", "-1", "18446744073709551615Ti", "2 Gi"] {
        assert_eq!(parse_size(bad), None, "{bad}");
    }
    assert_eq!((parse_cpu("500m"), parse_cpu("0.5"), parse_cpu("2")), (Some(0.5), Some(0.5), Some(2.0)));
    for bad in ["", "0", "-1", "1e3", "NaN", "inf", "m", ".", "2000"] {
        assert_eq!(parse_cpu(bad), None, "{bad}");
    }
}

#[test]
fn windows_open_and_close_in_their_own_zone() {
    let at = |t: &str| t.parse::<Timestamp>().expect("a time");
    // Thursday 1 January 2026, 09:00 in Seoul is midnight UTC.
    let seoul = Window::parse("mon-fri 09:00-17:00 Asia/Seoul").expect("a window");
    let night = Window::parse("fri 22:00-06:00 UTC").expect("a window");
    let around = Window::parse("sat-mon,wed 00:00-24:00 UTC").expect("a window");
    let cases = [
        (&seoul, "2026-01-01T00:00:00Z", true, "2026-01-01T00:00:00Z"),
        (&seoul, "2025-12-31T23:59:59Z", false, "2026-01-01T00:00:00Z"),
        (&seoul, "2026-01-01T08:00:00Z", false, "2026-01-02T00:00:00Z"),
        (&seoul, "2026-01-02T08:00:00Z", false, "2026-01-05T00:00:00Z"),
        (&night, "2026-01-02T23:00:00Z", true, "2026-01-02T23:00:00Z"),
        (&night, "2026-01-03T05:59:00Z", true, "2026-01-03T05:59:00Z"),
        (&night, "2026-01-03T06:00:00Z", false, "2026-01-09T22:00:00Z"),
        (&night, "2026-01-02T05:00:00Z", false, "2026-01-02T22:00:00Z"),
        (&around, "2026-01-06T12:00:00Z", false, "2026-01-07T00:00:00Z"),
        (&around, "2026-01-05T12:00:00Z", true, "2026-01-05T12:00:00Z"),
    ];
    for (window, now, open, next) in cases {
        assert_eq!((window.contains(at(now)), window.next_open(at(now))), (open, Some(at(next))), "{now}");
    }
    // 02:30 is skipped in Berlin on 29 March 2026: the window opens after the gap, at 01:30 UTC.
    let gap = Window::parse("sun 02:30-04:00 Europe/Berlin").expect("a window");
    assert_eq!(gap.next_open(at("2026-03-29T00:00:00Z")), Some(at("2026-03-29T01:30:00Z")));
    let both = ["mon 09:00-10:00 UTC".to_owned(), "sun 09:00-10:00 UTC".to_owned()];
    assert_eq!(window::next_open(&both, at("2026-01-03T00:00:00Z")), Some(at("2026-01-04T09:00:00Z")));
    assert_eq!(window::next_open(&[], at("2026-01-03T00:00:00Z")), Some(at("2026-01-03T00:00:00Z")));
}

#[test]
fn the_schema_takes_the_example_and_refuses_what_the_checks_refuse() {
    let schema = config::schema();
    jsonschema::meta::validate(&schema).expect("a JSON schema");
    let validator = jsonschema::validator_for(&schema).expect("a JSON schema");
    let json = |yaml: &str| tree::read(yaml).expect("YAML").expect("a document").to_json();
    assert_eq!(validator.iter_errors(&json(EXAMPLE)).map(|e| e.to_string()).collect::<Vec<_>>(), Vec::<String>::new());
    for bad in [
        "version: 2",
        "version: 1\napps: {a: {prot: 1}}",
        "version: 1\napps: {a: {port: 0}}",
        "version: 1\napps: {'a b': {}}",
        "version: 1\napps: {a: {path: ../b}}",
        "version: 1\napps: {a: {steps: {test: {}}}}",
        "version: 1\napps: {a: {steps: {test: {run: x, timeout: 5 min}}}}",
        "version: 1\nenvironments: {p: {}}",
        "version: 1\nenvironments: {p: {deploy: sometimes}}",
        "version: 1\nenvironments: {p: {deploy: {}}}",
        "version: 1\nenvironments: {p: {deploy: {branch: main, promote_from: q}}, q: {deploy: {branch: main}}}",
        "apps: {}",
    ] {
        assert!(!validator.is_valid(&json(bad)), "the schema takes {bad}");
        assert!(!told(bad).is_empty(), "the checks take {bad}");
    }
}

#[test]
fn the_reference_names_every_key_once_per_table() {
    let reference = config::reference_markdown();
    for line in [
        "## App",
        "## Environment",
        "| `timeout` | a duration such as 20m, 30s or 250ms, 1s to 1d | `30m` | Time limit. |",
    ] {
        assert!(reference.contains(line), "{line} is missing in\n{reference}");
    }
    assert!(!reference.contains("\n\n\n"));
}

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use proptest::{collection::vec, option, prelude::*, sample::select};
use switchover::domain::{
    config::{
        self, Allow, App, AppKind, Approval, DeployFrom, Environment, Notify, On, PreDeploy, Probe, RepoConfig,
        Resources, Service, Smoke, Step, tree,
    },
    ids::{AppName, EnvironmentName, StepName},
};

use super::{EXAMPLE, right};

/// Texts that YAML would read as something else, and ordinary ones.
fn text() -> BoxedStrategy<String> {
    let odd = vec![
        "true",
        "null",
        "~",
        "1.5",
        "0x1",
        "- a",
        "a: b",
        "a #b",
        "# a",
        "'",
        "\"",
        "\\",
        "{a}",
        "[a]",
        "a,b",
        "*x",
        "&x",
        "!x",
        "%x",
        "@x",
        "`x`",
        "|",
        ">",
        "a:",
        ":a",
        "?",
        "---",
        "...",
        "a\nb",
        "a\nb\n",
        "a\n\n\nb",
        "\nb",
        "  a\nb",
        "a \nb\t",
        "a\n b\n",
        "é",
        "日本",
        "\u{2028}x",
        "a\n\n",
        "x\u{FEFF}y",
        "no",
        "on",
        "echo \"$A\" && make -j2",
        "a\tb",
        "\ta\nb",
        "a\n#b",
    ];
    prop_oneof![
        select(odd).prop_map(str::to_owned),
        "[a-z ./$-]{1,20}".prop_filter("not blank", |t| !t.trim().is_empty()),
        "\\PC{1,12}".prop_filter("not blank", |t| !t.trim().is_empty()),
    ]
    .boxed()
}

fn line() -> BoxedStrategy<String> {
    text().prop_map(|t| t.replace(['\n', '\t'], " ")).prop_filter("not blank", |t| !t.trim().is_empty()).boxed()
}

fn variable() -> impl Strategy<Value = String> {
    select(vec!["A", "B_2", "_c", "null", "true", "no", "Path"]).prop_map(str::to_owned)
}

fn variables() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(variable(), prop_oneof![text(), Just(String::new()), Just(" ".to_owned())], 0..3)
}

fn duration(least_ms: u64, most_ms: u64) -> impl Strategy<Value = Duration> {
    prop_oneof![least_ms..most_ms, Just(most_ms), Just(least_ms)].prop_map(Duration::from_millis)
}

fn words(of: &[&'static str]) -> BoxedStrategy<Vec<String>> {
    vec(select(of.to_vec()).prop_map(str::to_owned), 0..3).boxed()
}

fn opt(of: &[&'static str]) -> BoxedStrategy<Option<String>> {
    option::of(select(of.to_vec()).prop_map(str::to_owned)).boxed()
}

prop_compose! {
    fn service()(image in select(vec!["mysql:8", "localhost:5000/x"]), env in variables(), ready in opt(&["tcp:1", "health"])) -> Service {
        Service { image: image.to_owned(), env, ready }
    }
}

prop_compose! {
    fn step()(
        run in text(), reports in words(&["a/*.xml", "**/TEST-*.xml", "[ab].xml"]),
        service in option::of(service()), timeout in duration(1000, 86_400_000), env in variables(),
        cpu in option::of(prop_oneof![Just(0.5), Just(2.0), 0.001..1024.0]), memory in option::of(any::<u64>()),
    ) -> Step {
        let services = service.into_iter().map(|s| ("db".to_owned(), s)).collect();
        Step { run, reports, services, timeout, env, resources: Resources { cpu, memory } }
    }
}

prop_compose! {
    fn app()(
        base in (opt(&["maven:3", "rust"]), words(&["~/.m2", "target", "a b"]), variables(), words(&["SECRET", "OTHER"])),
        steps in vec((select(vec!["test", "build", "true", "a b", "1"]), step()), 0..3),
        made in (opt(&["acme/x", "localhost:5000/y"]), opt(&["Dockerfile", "a/b"]), option::of(words(&["dist/**", "*.jar"]))),
        pushed in opt(&["{sha}", "ci-{short}"]),
        start in option::of(text()),
        web in option::of((option::of(1_u16..), opt(&["/", "/health?a=b"]))),
        most in (option::of(0.001..1024.0), option::of(any::<u64>())),
        pre_deploy in option::of((text(), any::<bool>(), duration(1000, 86_400_000))),
        path in select(vec!["", "a", "a/b c", "日本", "true", "#x"]),
    ) -> App {
        let (container, cache, env, secrets) = base;
        let (image, dockerfile, files) = made;
        // What another CI pushes is not made here.
        let image_tag = pushed.filter(|_| dockerfile.is_none() && files.is_none());
        let kind = if web.is_some() { AppKind::Web } else { AppKind::Worker };
        let (port, health) = web.unwrap_or_default();
        App {
            kind, path: path.to_owned(), container, cache, env, secrets,
            steps: steps.into_iter().map(|(n, s)| (StepName::new(n).expect("a name"), s)).collect(),
            image, image_tag, image_of: None, dockerfile, files, start, port, health,
            resources: Resources { cpu: most.0, memory: most.1 },
            pre_deploy: pre_deploy.map(|(run, reversible, timeout)| PreDeploy { run, reversible, timeout }),
            switch_after: Vec::new(),
        }
    }
}

prop_compose! {
    fn environment()(
        branch in option::of(select(vec!["main", "feature/x", "1", "#a", "日本"])),
        after in words(&["switchover", "ci / e2e", "a: b"]), approval in any::<bool>(),
        allow in option::of((vec(select(vec!["write", "admin"]), 1..3), words(&["acme/sre"]), words(&["me-1"]))),
        place in (opt(&["prod", "null"]), opt(&["k8s", ""]), opt(&["https://x.org/a?b#c", "http://[::1]:80"])),
        env in variables(), secrets in words(&["SECRET", "OTHER"]), replicas in 1_u32..1000,
        probe in (opt(&["/health"]), duration(1, 60_000), option::of(prop_oneof![text(), Just(String::new())])),
        smoke in option::of((text(), duration(1000, 3_600_000))),
        times in (duration(0, 999), duration(1000, 86_400_000), duration(0, 604_800_000), duration(0, 2_592_000_000), duration(0, 86_400_000)),
        windows in words(&["mon-fri 09:00-17:00 Asia/Seoul", "daily 22:00-06:00 UTC"]),
    ) -> Environment {
        let (target, manifests, url) = place;
        Environment {
            deploy: branch.map_or(DeployFrom::Command, |b| DeployFrom::Branch(b.to_owned())),
            after,
            approval: if approval { Approval::Required } else { Approval::None },
            allow: allow.map(|(r, teams, users)| Allow { roles: r.into_iter().map(str::to_owned).collect(), teams, users }),
            target, manifests, url, env, secrets, replicas,
            probe: Probe { path: probe.0, interval: probe.1, body: probe.2 },
            smoke: smoke.map(|(run, timeout)| Smoke { run, timeout }),
            min_ready: times.0, start_timeout: times.1, watch_for: times.2, keep_previous: times.3, drain_timeout: times.4,
            windows,
        }
    }
}

prop_compose! {
    fn whole()(
        push in option::of(words(&["main", "release/**", "!x", "[ab]"])), pull_request in any::<bool>(),
        apps in vec((select(vec!["a", "null", "1.5", "true", "a.b-c_d"]), app()), 0..4),
        environments in vec((select(vec!["staging", "production", "null"]), environment()), 0..3),
        slack in opt(&["#deploys", "#日本"]),
        chain in any::<bool>(),
    ) -> RepoConfig {
        let mut config = RepoConfig {
            on: On { push, pull_request },
            apps: apps.into_iter().map(|(n, a)| (AppName::new(n).expect("a name"), a)).collect(),
            environments: environments.into_iter().map(|(n, e)| (EnvironmentName::new(n).expect("a name"), e)).collect(),
            notify: Notify { slack },
        };
        if chain {
            let names: Vec<AppName> = config.apps.keys().cloned().collect();
            for (app, before) in config.apps.values_mut().skip(1).zip(&names) {
                app.switch_after = vec![before.clone()];
            }
            if let [first, .., last] = names.as_slice() {
                let last = &mut config.apps[last.as_str()];
                (last.image, last.image_tag, last.dockerfile, last.files) = (None, None, None, None);
                last.image_of = Some(first.clone());
            }
            let names: Vec<EnvironmentName> = config.environments.keys().cloned().collect();
            for (environment, before) in config.environments.values_mut().skip(1).zip(&names) {
                environment.deploy = DeployFrom::PromoteFrom(before.clone());
            }
        }
        config
    }
}

static SCHEMA: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::validator_for(&config::schema()).expect("a JSON schema"));

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(config in whole(), name in line()) {
        let yaml = config.to_yaml();
        match config::parse(&yaml) {
            Ok(parsed) => prop_assert_eq!(&parsed.config, &config, "{}", yaml),
            Err(mistakes) => prop_assert!(false, "{}\n{}", config::render(&mistakes, &yaml, "f"), yaml),
        }
        let json = tree::read(&yaml).expect("YAML").expect("a document").to_json();
        let errors: Vec<String> = SCHEMA.iter_errors(&json).map(|e| format!("{} {e}", e.instance_path())).collect();
        prop_assert!(errors.is_empty(), "{:?}\n{}", errors, yaml);
        // Comments change nothing, whatever stands in them.
        let commented = config.to_yaml_with(&|_| vec![name.clone()]);
        prop_assert_eq!(config::parse(&commented).map(|p| p.config), Ok(config));
    }
}

#[test]
fn the_example_is_read_back() {
    let config = right(EXAMPLE);
    assert_eq!(right(&config.to_yaml()), config);
}

#[test]
fn only_what_differs_from_the_defaults_is_written() {
    assert_eq!(RepoConfig::default().to_yaml(), "version: 1\n");
    let yaml = "version: 1\n\n# how it is tested\napps:\n  web:\n    path: .\n    steps:\n      test:\n        run: |-\n          make\n          make test\n\nenvironments:\n  production:\n    deploy: {branch: main}\n";
    let comments = |path: &str| if path == "apps" { vec!["how it is tested".to_owned()] } else { Vec::new() };
    assert_eq!(right(yaml).to_yaml_with(&comments), yaml);
}

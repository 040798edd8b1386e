//! The stand-in's pages with everything that Apps and people may leave out or overdo.

use jiff::Timestamp;
use switchover::demo::github::model::{
    Action, Annotation, Author, CheckOutput, CheckRun, Comment, CommentPlace, CommitStatus, Delivery, Deployment,
    DeploymentStatus, Repo,
};

use super::{assert_harmless, sample::HOSTILE, standin::World};

fn annotation(change: impl FnOnce(&mut Annotation)) -> Annotation {
    let mut annotation = Annotation {
        path: "src/a.rs".to_owned(),
        start_line: 2,
        end_line: 2,
        start_column: None,
        end_column: None,
        annotation_level: "failure".to_owned(),
        message: HOSTILE.to_owned(),
        title: None,
        raw_details: None,
    };
    change(&mut annotation);
    annotation
}

type Change = (&'static str, Box<dyn FnOnce(&mut CheckRun)>);

/// Check runs with one oddity each.
fn odd_checks() -> Vec<Change> {
    fn odd(name: &'static str, change: impl FnOnce(&mut CheckRun) + 'static) -> Change {
        (name, Box::new(change))
    }
    let mut all = vec![
        odd("no output", |c| c.output = CheckOutput::default()),
        odd("an empty output", |c| {
            c.output = CheckOutput {
                title: Some(String::new()),
                summary: Some(String::new()),
                text: Some(String::new()),
                annotations: Vec::new(),
            };
        }),
        odd("nothing but text", |c| c.output = CheckOutput { text: Some(HOSTILE.into()), ..CheckOutput::default() }),
        odd("a name of markup", |c| c.name = HOSTILE.into()),
        odd("no name", |c| c.name = String::new()),
        odd("a long name", |c| c.name = "n<".repeat(5_000)),
        odd("an App that is gone", |c| c.app = 999_999),
        odd("a suite that is gone", |c| c.suite = 999_999),
        odd("over without conclusion", |c| c.conclusion = None),
        odd("stale", |c| c.conclusion = Some("stale".into())),
        odd("a conclusion of markup", |c| c.conclusion = Some(HOSTILE.into())),
        odd("a status of markup", |c| c.status = HOSTILE.into()),
        odd("waiting with a conclusion", |c| c.status = "waiting".into()),
        odd("under way since never", |c| (c.status, c.started_at) = ("in_progress".into(), None)),
        odd("over before it began", |c| c.completed_at = Some(Timestamp::MIN)),
        odd("at the end of time", |c| (c.started_at, c.completed_at) = (Some(Timestamp::MIN), Some(Timestamp::MAX))),
        odd("under way since the beginning of time", |c| {
            (c.status, c.started_at, c.completed_at) = ("in_progress".into(), Some(Timestamp::MIN), None);
        }),
        odd("no link", |c| c.details_url = None),
        odd("a link of markup", |c| c.details_url = Some(format!("https://x/{HOSTILE}"))),
        odd("buttons of markup", |c| {
            let text = || HOSTILE.to_owned();
            c.actions = vec![Action { label: text(), description: text(), identifier: text() }];
        }),
        odd("half a table", |c| c.output.summary = Some("| a |\n|--\n```\n<details>".into())),
        odd("deep quotes", |c| c.output.summary = Some(format!("{} x", ">".repeat(20_000)))),
        odd("deep lists", |c| c.output.text = Some("- ".repeat(20_000))),
        odd("controls", |c| c.output.summary = Some("\u{0}\u{1b}[31m\u{202e}x\u{feff}".into())),
        odd("many annotations", |c| c.output.annotations = vec![annotation(|_| {}); 300]),
        odd("an annotation on a commit that is gone", |c| c.output.annotations = vec![annotation(|_| {})]),
    ];
    // Many of a kind on one page: a page takes a while, and one that breaks names what it broke on.
    all.push(odd("lines", |c| {
        let lines = [
            (0, 0),
            (-5, -1),
            (2, 1),
            (99_999, 99_999),
            (i64::MIN, i64::MAX),
            (i64::MAX, i64::MIN),
            (i64::MAX, i64::MAX),
        ];
        let of = |(start, end)| annotation(|a| (a.start_line, a.end_line) = (start, end));
        c.output.annotations = lines.map(of).to_vec();
    }));
    all.push(odd("paths", |c| {
        let long = "a/".repeat(100_000);
        let paths = [
            "",
            "/",
            ".",
            "..",
            "../../etc/passwd",
            "/etc/passwd",
            "src",
            "src/",
            "src//a.rs",
            "src/a.rs/x",
            "./src/a.rs",
            "-x",
            "--help",
            ":(top)src/a.rs",
            ":!src",
            ":/",
            "*",
            "src/[a",
            "a\0b",
            "a\nb",
            "\\",
            "\u{202e}",
            HOSTILE,
            &long,
        ];
        c.output.annotations = paths.map(|path| annotation(|a| a.path = path.to_owned())).to_vec();
    }));
    all.push(odd("levels", |c| {
        let levels = ["", "error", "notice", "warning", HOSTILE];
        c.output.annotations = levels.map(|level| annotation(|a| a.annotation_level = level.to_owned())).to_vec();
    }));
    all.push(odd("texts", |c| {
        let of = |text: &str| {
            annotation(|a| {
                a.message = text.to_owned();
                (a.title, a.raw_details) = (Some(text.to_owned()), Some(text.to_owned()));
            })
        };
        c.output.annotations = ["", "\n", HOSTILE].map(of).to_vec();
    }));
    all
}

/// The pages that show checks.
async fn look(world: &World, what: &str) {
    let (pull, check, head) = (world.pull, world.check, &world.head);
    for path in [
        format!("/acme/shop/pull/{pull}/checks"),
        format!("/acme/shop/runs/{check}"),
        format!("/acme/shop/pull/{pull}"),
        format!("/acme/shop/commit/{head}"),
    ] {
        let html = world.page(&path).await;
        assert_harmless(&html, &format!("{what}: {path}"));
        assert!(html.ends_with("</html>\n") || html.trim_end().ends_with("</html>"), "{what}: {path} is whole");
    }
}

#[tokio::test]
async fn checks_of_every_kind_are_shown() {
    let world = World::new("").await;
    let usual = world.standin.check(world.repo, world.check).unwrap();
    for (what, change) in odd_checks() {
        let mut check = usual.clone();
        change(&mut check);
        let gone = what.ends_with("a commit that is gone");
        world.standin.write(|m| {
            let repo = m.repos.get_mut(&world.repo).unwrap();
            // On the pages of the commit only if it is the commit's; a page of its own it has anyway.
            if gone {
                check.head_sha = "f".repeat(40);
            }
            repo.checks.insert(world.check, check);
        });
        look(&world, what).await;
    }
    // Two of one name, by two Apps, and many.
    world.standin.write(|m| {
        for id in 1..200 {
            let check = CheckRun { id, app: id % 3, suite: id % 3, ..usual.clone() };
            m.repos.get_mut(&world.repo).unwrap().checks.insert(id, check);
        }
    });
    look(&world, "many").await;
    world.standin.stop().await;
}

fn deployment(id: i64, change: impl FnOnce(&mut Deployment)) -> Deployment {
    let mut deployment = Deployment {
        id,
        sha: "0".repeat(40),
        git_ref: HOSTILE.to_owned(),
        task: HOSTILE.to_owned(),
        payload: serde_json::Value::Null,
        environment: HOSTILE.to_owned(),
        description: None,
        creator: "ghost".to_owned(),
        app: None,
        transient: false,
        production: false,
        created_at: Timestamp::MIN,
        updated_at: Timestamp::MAX,
        statuses: Vec::new(),
    };
    change(&mut deployment);
    deployment
}

fn status(state: &str, url: &str) -> DeploymentStatus {
    DeploymentStatus {
        id: 1,
        state: state.to_owned(),
        description: HOSTILE.to_owned(),
        log_url: url.to_owned(),
        environment_url: url.to_owned(),
        environment: HOSTILE.to_owned(),
        creator: "ghost".to_owned(),
        app: Some(999_999),
        created_at: Timestamp::MIN,
    }
}

fn unusual(repo: &mut Repo, world: &World) {
    let urls = ["", "javascript:alert(1)", "//evil.example", "https://x/\"><script>alert(1)</script>"];
    let states = ["success", "inactive", "odd", HOSTILE];
    for (id, (state, url)) in (1..).zip(states.into_iter().zip(urls)) {
        repo.deployments.insert(id, deployment(id, |d| d.statuses = vec![status(state, url)]));
    }
    repo.deployments.insert(9, deployment(9, |d| d.environment = String::new()));
    for (context, state) in [("", "success"), (HOSTILE, "odd")] {
        repo.statuses.push(CommitStatus {
            id: 1,
            sha: world.head.clone(),
            state: state.to_owned(),
            context: context.to_owned(),
            description: Some(HOSTILE.to_owned()),
            target_url: Some("javascript:alert(1)".to_owned()),
            creator: "ghost".to_owned(),
            created_at: Timestamp::MIN,
        });
    }
    let places = [
        CommentPlace::Issue(world.pull),
        CommentPlace::Line { number: world.pull, commit_id: String::new(), path: HOSTILE.to_owned(), line: i64::MIN },
        CommentPlace::Commit(world.head.clone()),
    ];
    for (id, place) in (1..).zip(places) {
        let author = Author { login: format!("ghost{HOSTILE}"), app: Some(999_999) };
        let (created_at, updated_at) = (Timestamp::MAX, Timestamp::MIN);
        let comment =
            Comment { id, place, author, body: HOSTILE.repeat(50), created_at, updated_at, reactions: Vec::new() };
        repo.comments.insert(id, comment);
    }
    // A fork that was deleted.
    if let Some(pull) = repo.pulls.get_mut(&world.pull) {
        pull.head.repo = None;
        pull.author.login = "ghost".to_owned();
    }
    repo.required_checks.insert("main".to_owned(), vec![HOSTILE.to_owned(), String::new()]);
}

#[tokio::test]
async fn everything_else_that_is_odd_is_shown() {
    let world = World::new("").await;
    let app = world.standin.read(|m| m.apps.keys().copied().next().unwrap());
    world.standin.write(|m| {
        unusual(m.repos.get_mut(&world.repo).unwrap(), &world);
        let usual = m.deliveries.values().next().unwrap().clone();
        let durations = [f64::NAN, f64::NEG_INFINITY, f64::MAX, -1.0, 0.0];
        let payloads = ["", "{", "null", HOSTILE, "\"\u{202e}\""];
        for (id, (duration, payload)) in (1..).zip(durations.into_iter().zip(payloads)) {
            let delivery = Delivery {
                id,
                app,
                duration,
                payload: payload.to_owned(),
                event: HOSTILE.to_owned(),
                action: (id % 2 == 0).then(|| HOSTILE.to_owned()),
                status: HOSTILE.to_owned(),
                status_code: [0, 99, 202, 599, u16::MAX][usize::try_from(id).unwrap() % 5],
                delivered_at: Timestamp::MAX,
                done: id != 3,
                listed: true,
                ..usual.clone()
            };
            m.deliveries.insert(id, delivery);
        }
    });
    let mut paths: Vec<String> = world.paths().into_values().collect();
    paths.extend((1..=5).map(|id| format!("/apps/switchover/deliveries/{id}")));
    paths.push("/acme/shop/deployments?environment=%3Cscript%3E".to_owned());
    paths.push("/acme/shop/deployments?environment=".to_owned());
    for path in paths {
        assert_harmless(&world.page(&path).await, &path);
    }
    for (path, status) in [("/acme/shop/commits?after=%3Cscript%3E", 404), ("/acme/shop/commits?after=a&after=b", 400)]
    {
        let response = super::client().get(world.url(path)).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        super::assert_secure(&response, path);
        assert_harmless(&response.text().await.unwrap(), path);
    }
    world.standin.stop().await;
}

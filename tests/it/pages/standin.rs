//! The stand-in's pages: what a person sees, what hostile content can't do.

use std::{collections::HashMap, path::Path};

use jiff::Timestamp;
use switchover::demo::github::{
    NewPull, StandIn, StandInConfig,
    model::{Action, Annotation, CheckOutput, CheckRun, Deployment, DeploymentStatus, Role},
    pages::markdown,
};

use super::{assert_harmless, assert_secure, client, sample::HOSTILE};

pub struct World {
    pub standin: StandIn,
    pub repo: i64,
    pub pull: i64,
    pub head: String,
    pub check: i64,
    _data: tempfile::TempDir,
}

async fn start(data: &Path) -> StandIn {
    let config = StandInConfig { data: data.to_owned(), listen: "127.0.0.1:0".parse().unwrap(), record: false };
    StandIn::start(config).await.unwrap()
}

impl World {
    /// A repository with a pull request whose required check failed on a line, and a deployment. `outside` stands
    /// before every text that people or Apps write.
    pub async fn new(outside: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let standin = start(data.path()).await;
        standin.create_user("ada").unwrap();
        standin.create_organization("acme").unwrap();
        let repo = standin.create_repository("acme", "shop", "main", false).await.unwrap();
        standin.permission(repo, "ada", Role::Write, None).unwrap();
        standin.permission(repo, "mallory", Role::Read, None).unwrap();
        let app = standin.register_app("Switchover", None, None).unwrap();
        standin.install(app.id, "acme", None).unwrap();
        let files = [
            ("README.md", Some(format!("# Shop\n\n{outside}\n\n[link](javascript:alert(1)) ![x](http://x/y.png)"))),
            ("src/a.rs", Some("one\ntwo <b>\nthree\n".to_owned())),
        ];
        let files: Vec<(&str, Option<&str>)> = files.iter().map(|(p, t)| (*p, t.as_deref())).collect();
        standin.commit(repo, "main", &files, &format!("{outside}Open the shop"), "ada").await.unwrap();
        let branch = if outside.is_empty() { "feature/round" } else { "x\"><script>alert(1)</script>" };
        let change = [("src/a.rs", Some("one\ntwo <script>\nthree\nfour\n"))];
        let head =
            standin.commit(repo, branch, &change, &format!("{outside}Round\n\n{outside}body"), "ada").await.unwrap();
        let new = NewPull {
            title: format!("{outside}Round prices"),
            body: format!("{outside}**why**"),
            head: branch.to_owned(),
            ..NewPull::default()
        };
        let pull = standin.open_pull(repo, "ada", new).await.unwrap();
        standin.comment(repo, pull, "mallory", &format!("{outside}`/deploy production`")).unwrap();
        standin.require_checks(repo, "main", &["switchover", "other"]).unwrap();
        let text = |t: &str| format!("{outside}{t}");
        let now = Timestamp::UNIX_EPOCH;
        let check = standin.write(|m| {
            let (id, deployment, status) = (m.big_id(), m.big_id(), m.big_id());
            let r = m.repos.get_mut(&repo).unwrap();
            let annotation = Annotation {
                path: "src/a.rs".to_owned(),
                start_line: 2,
                end_line: 2,
                start_column: None,
                end_column: None,
                annotation_level: "failure".to_owned(),
                message: text("expected 2"),
                title: Some(text("a::b")),
                raw_details: Some(text("trace")),
            };
            let beyond = Annotation {
                path: "../../etc/passwd".to_owned(),
                start_line: i64::MAX,
                end_line: i64::MIN,
                ..annotation.clone()
            };
            r.checks.insert(
                id,
                CheckRun {
                    id,
                    suite: 1,
                    app: app.id,
                    name: "switchover".to_owned(),
                    head_sha: head.clone(),
                    external_id: None,
                    details_url: Some("javascript:alert(1)".to_owned()),
                    status: "completed".to_owned(),
                    conclusion: Some("failure".to_owned()),
                    started_at: Some(now),
                    completed_at: Some(now),
                    output: CheckOutput {
                        title: Some(text("1 failed")),
                        summary: Some(text("| a | b |\n|---|---|\n| 1 | **2** |")),
                        text: None,
                        annotations: vec![annotation, beyond],
                    },
                    actions: vec![Action {
                        label: "Roll back".to_owned(),
                        description: text("goes back"),
                        identifier: "rollback".to_owned(),
                    }],
                    writes: 1,
                },
            );
            let state = DeploymentStatus {
                id: status,
                state: "in_progress".to_owned(),
                description: text("warming"),
                log_url: "javascript:alert(1)".to_owned(),
                environment_url: "https://shop.example.com".to_owned(),
                environment: text("production"),
                creator: "switchover[bot]".to_owned(),
                app: Some(app.id),
                created_at: now,
            };
            r.deployments.insert(
                deployment,
                Deployment {
                    id: deployment,
                    sha: head.clone(),
                    git_ref: head.clone(),
                    task: "deploy".to_owned(),
                    payload: serde_json::Value::Null,
                    environment: text("production"),
                    description: Some(text("push by ada")),
                    creator: "switchover[bot]".to_owned(),
                    app: Some(app.id),
                    transient: false,
                    production: true,
                    created_at: now,
                    updated_at: now,
                    statuses: vec![state],
                },
            );
            id
        });
        Self { standin, repo, pull, head, check, _data: data }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.standin.web_url().as_str().trim_end_matches('/'))
    }

    pub async fn page(&self, path: &str) -> String {
        let response = client().get(self.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_secure(&response, path);
        response.text().await.unwrap()
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)], site: &str) -> reqwest::Response {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        client()
            .post(self.url(path))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", site)
            // What browsers send with forms of pages that give no referrer.
            .header("origin", "null")
            .body(body)
            .send()
            .await
            .unwrap()
    }

    /// Every page that there is, by what it is for.
    pub fn paths(&self) -> HashMap<&'static str, String> {
        let (head, pull, check) = (&self.head, self.pull, self.check);
        HashMap::from([
            ("home", "/".to_owned()),
            ("account", "/acme".to_owned()),
            ("repository", "/acme/shop".to_owned()),
            ("commits", "/acme/shop/commits".to_owned()),
            ("commits of a branch", "/acme/shop/commits/main".to_owned()),
            ("commit", format!("/acme/shop/commit/{head}")),
            ("compare", format!("/acme/shop/compare/main...{}", &head[..7])),
            ("file", format!("/acme/shop/blob/{head}/src/a.rs")),
            ("folder", "/acme/shop/tree/main/src".to_owned()),
            ("pulls", "/acme/shop/pulls".to_owned()),
            ("pull", format!("/acme/shop/pull/{pull}")),
            ("pull commits", format!("/acme/shop/pull/{pull}/commits")),
            ("pull checks", format!("/acme/shop/pull/{pull}/checks")),
            ("pull files", format!("/acme/shop/pull/{pull}/files")),
            ("check", format!("/acme/shop/runs/{check}")),
            ("deployments", "/acme/shop/deployments".to_owned()),
            ("app", "/apps/switchover".to_owned()),
        ])
    }
}

#[tokio::test]
async fn hostile_content_stays_text_on_every_page() {
    let world = World::new(HOSTILE).await;
    // Pages with nothing on them that somebody else wrote.
    let plain = ["home", "account", "folder", "app", "file"];
    for (what, path) in world.paths() {
        let html = world.page(&path).await;
        assert_harmless(&html, what);
        let shown = html.contains("&#60;script&#62;alert(1)") || html.contains("&lt;script&gt;alert(1)");
        assert!(shown || plain.contains(&what), "{what} shows it as text:\n{html}");
    }
    world.standin.stop().await;
}

#[tokio::test]
async fn a_person_sees_what_happened() {
    let world = World::new("").await;
    let paths = world.paths();
    for (page, words) in [
        ("home", vec!["acme / <b>shop</b>", "1 open pull request", "Switchover"]),
        ("repository", vec!["Open the shop", "<h1>Shop</h1>", "feature/round", "production", "/acme/shop.git"]),
        ("commits", vec!["Open the shop"]),
        ("commit", vec!["Round", "switchover", "1 failed", "1 changed file", "+four"]),
        ("compare", vec!["Round", "1 commits"]),
        ("file", vec!["id=\"L2\"", "two &#60;script&#62;"]),
        ("folder", vec!["a.rs"]),
        ("pulls", vec!["Round prices", "0 of 1 checks"]),
        (
            "pull",
            vec![
                "<strong>why</strong>",
                "<code>/deploy production</code>",
                "switchover is required, and failed: it blocks the merge",
                "other is expected: nobody has reported it yet",
                "No conflicts with main",
                "disabled>Merge pull request",
                "Roll back",
            ],
        ),
        ("pull checks", vec!["src/a.rs:2", "two &#60;script&#62;", "expected 2", "required"]),
        ("pull files", vec!["+four", "-two &#60;b&#62;"]),
        ("check", vec!["<td><strong>2</strong></td>", "src/a.rs:2", "Re-run", "Roll back", "2 annotations"]),
        ("deployments", vec!["warming", "https://shop.example.com"]),
        ("app", vec!["has no webhook address", "push"]),
    ] {
        let html = world.page(&paths[page]).await;
        for word in words {
            assert!(html.contains(word), "{page}: {word}\n{html}");
        }
    }
    world.standin.stop().await;
}

#[tokio::test]
async fn forms_work_from_these_pages_and_from_no_other() {
    let world = World::new("").await;
    let number = world.pull.to_string();
    let comment = [("as", "ada"), ("number", number.as_str()), ("body", "from a form"), ("back", "/acme/shop/pull/1")];
    assert_eq!(world.post("/_web/acme/shop/comment", &comment, "cross-site").await.status(), 403);
    let done = world.post("/_web/acme/shop/comment", &comment, "same-origin").await;
    assert_eq!((done.status().as_u16(), &done.headers()["location"]), (303, &"/acme/shop/pull/1".parse().unwrap()));
    assert!(world.page(&world.paths()["pull"]).await.contains("from a form"));
    // Who may not write sees no buttons, and a form made by hand says why not.
    let refused = world.post("/_web/acme/shop/merge", &[("as", "mallory"), ("number", &number)], "same-origin").await;
    assert_eq!(refused.status(), 422);
    let html = refused.text().await.unwrap();
    assert!(html.contains("mallory may not do this") && html.contains("What to do:"), "{html}");
    let as_mallory = client().get(world.url(&world.paths()["check"])).header("cookie", "standin_user=mallory");
    assert!(!as_mallory.send().await.unwrap().text().await.unwrap().contains("Re-run"));
    world.standin.stop().await;
}

#[tokio::test]
async fn a_delivery_is_sent_again_by_its_button() {
    let world = World::new("").await;
    let app = world.standin.read(|m| m.apps.keys().next().copied().unwrap());
    let before = world.standin.read(|m| m.deliveries_of(app).len());
    let first = world.standin.read(|m| m.deliveries_of(app).last().map(|d| d.id).unwrap()).to_string();
    let back = "/apps/switchover";
    let fields = [("delivery", first.as_str()), ("back", back)];
    assert_eq!(world.post("/_web/redeliver", &fields, "cross-site").await.status(), 403);
    let done = world.post("/_web/redeliver", &fields, "same-origin").await;
    assert_eq!((done.status().as_u16(), done.headers()["location"].to_str().unwrap()), (303, back));
    assert_eq!(world.standin.read(|m| m.deliveries_of(app).len()), before + 1);
    assert!(world.page(back).await.contains("again"));
    assert_harmless(&world.page(&format!("/apps/switchover/deliveries/{first}")).await, "delivery");
    let away = world.post("/_web/redeliver", &[("delivery", &first), ("back", "//evil.example")], "same-origin").await;
    assert_eq!(away.headers()["location"], "/");
    assert_eq!(world.post("/_web/redeliver", &[("delivery", "x")], "same-origin").await.status(), 404);
    world.standin.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let world = World::new("").await;
    let long = "a".repeat(3_000);
    for path in [
        "/acme/none".to_owned(),
        "/nobody/none".to_owned(),
        "/acme/shop/commit/ffffffff".to_owned(),
        "/acme/shop/commit/--help".to_owned(),
        "/acme/shop/commits/none".to_owned(),
        "/acme/shop/blob/main/../../etc/passwd".to_owned(),
        "/acme/shop/blob/main/--all".to_owned(),
        "/acme/shop/tree/none/x".to_owned(),
        "/acme/shop/compare/main".to_owned(),
        "/acme/shop/compare/main...none".to_owned(),
        "/acme/shop/pull/99".to_owned(),
        "/acme/shop/runs/1".to_owned(),
        "/apps/none".to_owned(),
        format!("/acme/shop/tree/{long}"),
        // Numbers that are none, addresses that lead nowhere, bytes that are no text.
        "/acme/shop/runs/x".to_owned(),
        "/acme/shop/runs/-1".to_owned(),
        "/acme/shop/pull/99999999999999999999".to_owned(),
        "/acme/shop/pull/1/other".to_owned(),
        "/acme/shop/issues/x".to_owned(),
        "/apps/switchover/deliveries/x".to_owned(),
        "/apps/switchover/deliveries/1".to_owned(),
        "/a/b/c/d/e/f".to_owned(),
        "/acme/%FF".to_owned(),
        "/%00".to_owned(),
        "/acme/shop/commits/%3Cscript%3E".to_owned(),
        "/assets/../Cargo.toml".to_owned(),
    ] {
        let response = client().get(world.url(&path)).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert_secure(&response, &path);
        let html = response.text().await.unwrap();
        assert_harmless(&html, &path);
        assert!(html.contains("What to do:"), "{path}:\n{html}");
    }
    let empty = world.standin.create_repository("acme", "empty", "trunk", true).await.unwrap();
    assert_ne!(empty, world.repo);
    let html = world.page("/acme/empty").await;
    assert!(html.contains("There is no commit yet") && html.contains("HEAD:trunk"), "{html}");
    assert!(world.page("/acme/empty/commits").await.contains("There is no commit here yet"));
    assert!(world.page("/acme/empty/pulls").await.contains("No pull request is open"));
    assert!(world.page("/acme/empty/deployments").await.contains("Deployments appear here"));
    world.standin.stop().await;
}

#[test]
fn markdown_keeps_its_form_and_loses_its_teeth() {
    let cases = [
        ("**b** `c`", "<p><strong>b</strong> <code>c</code></p>\n"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a <img src=x onerror=alert(1)> b", "<p>a &lt;img src=x onerror=alert(1)&gt; b</p>\n"),
        ("<!-- a\nhidden --> shown", " shown"),
        ("<!-- never ends", ""),
        ("<details><summary>s</summary>\n\nx\n\n</details>", "<details><summary>s</summary>\n<p>x</p>\n</details>"),
        ("<details>\n\nx", "<details>\n<p>x</p>\n</details>"),
        ("x </div></main>", "<p>x &lt;/div&gt;&lt;/main&gt;</p>\n"),
        ("</details>", ""),
        ("<details onclick=x>", "&lt;details onclick=x&gt;"),
        ("[a](javascript:alert(1))", "<p><a href=\"#\">a</a></p>\n"),
        ("[a](JaVaScRiPt:alert(1) \"t\")", "<p><a href=\"#\" title=\"t\">a</a></p>\n"),
        ("[a](https://x/?a=\"b\")", "<p><a href=\"https://x/?a=%22b%22\">a</a></p>\n"),
        ("![alt](https://x/y.png)", "<p><a href=\"https://x/y.png\">alt</a></p>\n"),
        ("<https://x>", "<p><a href=\"https://x\">https://x</a></p>\n"),
        ("<a@b.c>", "<p><a href=\"#\">a@b.c</a></p>\n"),
    ];
    for (text, expected) in cases {
        assert_eq!(markdown::render(text).to_string(), expected, "{text:?}");
    }
}

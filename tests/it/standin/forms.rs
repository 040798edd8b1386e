//! The forms behind the pages, and the App manifest flow.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};
use switchover::demo::github::{
    NewPull, Registered,
    model::{AppSpec, Role},
};

use super::support::{Api, World};

fn encoded(request: reqwest::RequestBuilder, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    request.header("content-type", "application/x-www-form-urlencoded").body(body)
}

/// What a refusal's page says, up to what to do next; other pages as they are.
fn words(html: &str) -> String {
    let Some(said) = html.split("<h1>").nth(1).and_then(|rest| rest.split_once("<p class=\"next\">")) else {
        return html.to_owned();
    };
    let mut text = String::new();
    for part in said.0.split('<') {
        text.push_str(part.split_once('>').map_or(part, |(_, text)| text));
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

type Fields<'a> = &'a [(&'a str, &'a str)];

/// Posts a form; the answer's status, and where it leads or the whole page.
async fn page(w: &World, path: &str, fields: Fields<'_>) -> (u16, String) {
    let api = Api::new(&w.standin, None);
    let url = format!("{}{}", w.standin.web_url(), path.trim_start_matches('/'));
    let answer = encoded(api.request("POST", &url), fields).send().await.unwrap();
    crate::pages::assert_secure(&answer, path);
    let location = answer.headers().get("location").map_or(String::new(), |v| v.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    let body = answer.text().await.unwrap();
    (status, if location.is_empty() { body } else { location })
}

/// Posts a form; the answer's status, and where it leads or what it says.
async fn post(w: &World, path: &str, fields: Fields<'_>) -> (u16, String) {
    let (status, text) = page(w, path, fields).await;
    (status, words(&text))
}

#[tokio::test]
async fn buttons_do_what_they_say() {
    let w = World::start().await;
    let api = w.token(None).await;
    let head = w.standin.commit(w.repo, "p", &[("p", Some("1"))], "p", "bob").await.unwrap();
    let open = [("as", "bob"), ("title", "P"), ("head", "p"), ("back", "/acme/shop")];
    assert_eq!(post(&w, "/_web/acme/shop/open", &open).await, (303, "/acme/shop".to_owned()));
    let check = json!({"name": "t", "head_sha": head, "conclusion": "failure",
        "actions": [{"label": "Go", "description": "Go on", "identifier": "go"}]});
    let check = api.post("/repos/acme/shop/check-runs", check).await.good()["id"].to_string();
    let suite = w.standin.read(|m| m.repos[&w.repo].checks.values().last().unwrap().suite).to_string();
    let steps: [(&str, Fields<'_>, &str, &str); 7] = [
        ("comment", &[("number", "1"), ("body", "/help")], "issue_comment", "created"),
        ("rerun", &[("check", &check)], "check_run", "rerequested"),
        ("rerun-all", &[("suite", &suite)], "check_suite", "rerequested"),
        ("press", &[("check", &check), ("identifier", "go")], "check_run", "requested_action"),
        ("close", &[("number", "1")], "pull_request", "closed"),
        ("reopen", &[("number", "1")], "pull_request", "reopened"),
        ("merge", &[("number", "1")], "push", ""),
    ];
    for (what, fields, event, action) in steps {
        let mut fields = fields.to_vec();
        fields.push(("as", "bob"));
        assert_eq!(post(&w, &format!("/_web/acme/shop/{what}"), &fields).await, (303, "/".to_owned()), "{what}");
        assert_eq!(w.hooks.event(event, action).await.body["sender"]["login"], "bob", "{what}");
    }
    w.stop().await;
}

#[tokio::test]
async fn buttons_refuse_who_may_not() {
    let w = World::start().await;
    w.standin.permission(w.repo, "cat", Role::Read, None).unwrap();
    w.standin.commit(w.repo, "p", &[("p", Some("1"))], "p", "bob").await.unwrap();
    let new = NewPull { title: "P".into(), head: "p".into(), ..NewPull::default() };
    w.standin.open_pull(w.repo, "bob", new).await.unwrap();
    let check = json!({"name": "t", "head_sha": w.head, "conclusion": "failure",
        "actions": [{"label": "Go", "description": "Go on", "identifier": "go"}]});
    let api = w.token(None).await;
    let check = api.post("/repos/acme/shop/check-runs", check).await.good()["id"].to_string();
    let suite = w.standin.read(|m| m.repos[&w.repo].checks.values().last().unwrap().suite).to_string();
    let cases: [(&str, Fields<'_>); 9] = [
        ("merge", &[("as", "eve"), ("number", "1")]),
        ("comment", &[("as", "eve"), ("number", "1"), ("body", "hi")]),
        ("comment", &[("number", "1"), ("body", "hi")]),
        ("comment", &[("as", "nobody"), ("number", "1"), ("body", "hi")]),
        ("comment", &[("as", "bob"), ("number", "x"), ("body", "hi")]),
        ("comment", &[("as", "bob"), ("number", "7"), ("body", "hi")]),
        ("comment", &[("as", "bob"), ("number", "1"), ("body", "")]),
        ("review", &[("as", "bob"), ("number", "1"), ("state", "approve")]),
        ("dance", &[("as", "bob")]),
    ];
    let mut seen = Vec::new();
    for (what, fields) in cases {
        let (status, text) = post(&w, &format!("/_web/acme/shop/{what}"), fields).await;
        seen.push(format!("{what}: {status} {text}"));
    }
    insta::assert_snapshot!(seen.join("\n"), @r"
    merge: 422 This was not done. eve may not do this in acme/shop.
    comment: 422 This was not done. eve may not do this in acme/shop.
    comment: 422 This was not done. choose who you are first.
    comment: 404 There is no user nobody here. It was never made, it was cleaned up after its time, or the address is cut short.
    comment: 422 This was not done. the field number is not a number: &#34;x&#34;.
    comment: 404 There is no issue 7 here. It was never made, it was cleaned up after its time, or the address is cut short.
    comment: 422 This was not done. Body can&#39;t be blank.
    review: 422 This was not done. Can not approve your own pull request.
    dance: 404 There is no button dance here. It was never made, it was cleaned up after its time, or the address is cut short.
    ");
    // Who reads may talk, and nothing else; nothing of what was refused has happened.
    let before = w.standin.read(|m| m.deliveries.len());
    let writes: [(&str, Fields<'_>); 10] = [
        ("rerun", &[("check", &check)]),
        ("rerun-all", &[("suite", &suite)]),
        ("press", &[("check", &check), ("identifier", "go")]),
        ("merge", &[("number", "1")]),
        ("enqueue", &[("number", "1")]),
        ("close", &[("number", "1")]),
        ("reopen", &[("number", "1")]),
        ("ready", &[("number", "1")]),
        ("base", &[("number", "1"), ("base", "p")]),
        ("delete-branch", &[("branch", "p")]),
    ];
    for (what, fields) in writes {
        let fields = [fields, &[("as", "cat")]].concat();
        let refused = post(&w, &format!("/_web/acme/shop/{what}"), &fields).await;
        assert_eq!(refused, (422, "This was not done. cat may not do this in acme/shop.".to_owned()), "{what}");
    }
    assert_eq!(w.standin.read(|m| m.deliveries.len()), before);
    let talk = [("as", "cat"), ("number", "1"), ("body", "hi"), ("back", "//evil.example/")];
    assert_eq!(post(&w, "/_web/acme/shop/comment", &talk).await, (303, "/".to_owned()), "never to another server");
    // One's own pull request may be closed.
    w.standin.permission(w.repo, "bob", Role::Read, None).unwrap();
    assert_eq!(post(&w, "/_web/acme/shop/close", &[("as", "bob"), ("number", "1")]).await.0, 303);
    w.stop().await;
}

#[tokio::test]
async fn forms_of_other_sites_do_nothing() {
    let w = World::start().await;
    w.standin.commit(w.repo, "p", &[("p", Some("1"))], "p", "bob").await.unwrap();
    let new = NewPull { title: "P".into(), head: "p".into(), ..NewPull::default() };
    w.standin.open_pull(w.repo, "bob", new).await.unwrap();
    let api = Api::new(&w.standin, None);
    let fields = [("as", "bob"), ("number", "1"), ("user", "bob"), ("account", "bob"), ("delivery", "1"), ("key", "k")];
    let paths = ["acme/shop/merge", "user", "apps/ship/install", "redeliver", "settings/apps"];
    for path in paths {
        let url = format!("{}_web/{path}", w.standin.web_url());
        for (name, value) in
            [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "http://evil.example")]
        {
            let request = encoded(api.request("POST", &url).header(name, value), &fields);
            let answer = request.send().await.unwrap();
            assert!(answer.headers().get("set-cookie").is_none(), "{path}");
            assert_eq!(answer.status(), 403, "{path} {name}: {value}");
            crate::pages::assert_secure(&answer, path);
        }
    }
    assert!(w.standin.pull(w.repo, 1).unwrap().open);
    // What is no form at all, and what is none of ours.
    let url = format!("{}_web/acme/shop/merge", w.standin.web_url());
    for (kind, body, status) in [
        ("text/plain", "as=bob", 415),
        ("application/json", "{}", 415),
        ("application/x-www-form-urlencoded", "as=%ff", 200),
    ] {
        let answer = api.request("POST", &url).header("content-type", kind).body(body).send().await.unwrap();
        crate::pages::assert_secure(&answer, kind);
        if status != 200 {
            assert_eq!(answer.status(), 400, "{kind}");
        }
        assert!(!answer.status().is_success() && !answer.status().is_server_error(), "{kind}: {}", answer.status());
    }
    w.stop().await;
}

/// The key in the hidden field of the page that asks the owner.
fn key(page: &str) -> String {
    page.split("name=\"key\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

/// The manifest that Switchover brings: what it asks for is held against `app-manifest.yml` in `client`.
fn manifest(w: &World) -> Value {
    let spec = AppSpec::new("x");
    json!({
        "name": "From <Manifest>", "url": "https://example.com/", "redirect_url": "http://127.0.0.1:1/done?x=1",
        "hook_attributes": {"url": w.hooks.url}, "public": false,
        "default_permissions": spec.permissions.iter().map(|(n, l)| (n.clone(), json!(l.as_str()))).collect::<serde_json::Map<_, _>>(),
        "default_events": spec.events,
    })
}

#[tokio::test]
async fn an_app_is_made_from_a_manifest() {
    let w = World::start().await;
    let fields = [("manifest", &*manifest(&w).to_string())];
    let (status, page) = page(&w, "/organizations/acme/settings/apps/new?state=abc", &fields).await;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("From &#60;Manifest&#62;") && !page.contains("<Manifest>"));
    let key = key(&page);
    // A name that is taken, or none, can be changed.
    for (name, why) in [("Ship", "the name ship is taken"), ("!", "&#34;!&#34; is not a name for an App")] {
        let refused = post(&w, "/_web/settings/apps", &[("key", &key), ("name", name)]).await;
        assert_eq!(refused, (422, format!("This was not done. {why}.")));
    }
    let (status, location) = post(&w, "/_web/settings/apps", &[("key", &key), ("name", "Made Here")]).await;
    assert_eq!(status, 302);
    let url = url::Url::parse(&location).unwrap();
    let query: HashMap<_, _> = url.query_pairs().into_owned().collect();
    assert_eq!((url.path(), query["x"].as_str(), query["state"].as_str()), ("/done", "1", "abc"));
    let again = post(&w, "/_web/settings/apps", &[("key", &key), ("name", "Twice")]).await;
    assert_eq!(again.0, 404, "one App for one page");
    let api = Api::new(&w.standin, None);
    let path = format!("/app-manifests/{}/conversions", query["code"]);
    let made = api.send(api.request("POST", &path)).await.good();
    assert_eq!((&made["slug"], &made["owner"]["login"]), (&json!("made-here"), &json!("acme")));
    assert_eq!(made["permissions"], manifest(&w)["default_permissions"]);
    let sorted =
        |v: &Value| v.as_array().unwrap().iter().map(|e| e.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&made["events"]), sorted(&manifest(&w)["default_events"]));
    assert!(made["pem"].as_str().unwrap().starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
    let secret = made["webhook_secret"].as_str().unwrap();
    assert_eq!(api.send(api.request("POST", &path)).await.status, 404, "a code is good once");
    // Installed, it is an App like any other: its key opens the API, its webhooks come.
    let shop = [("account", "acme"), ("repository", "shop")];
    assert_eq!(post(&w, "/_web/apps/made-here/install", &shop).await.0, 303);
    assert_eq!(post(&w, "/_web/apps/made-here/install", &shop).await.0, 422, "once");
    let id = made["id"].as_i64().unwrap();
    let installation = w.standin.read(|m| m.installations.values().find(|i| i.app == id).unwrap().id);
    let told =
        |r: &super::support::Received| r.event == "installation" && r.body["installation"]["id"] == json!(installation);
    assert!(!w.hooks.wait("its installation", told).await.signed, "by a secret of its own");
    let app = Registered {
        id,
        slug: "made-here".into(),
        private_key_pem: made["pem"].as_str().unwrap().into(),
        webhook_secret: Some(secret.into()),
    };
    let w = World { app, installation, ..w };
    let token = w.token(Some(json!({"checks": "write"}))).await;
    let check = json!({"name": "t", "head_sha": w.head});
    assert_eq!(token.post("/repos/acme/shop/check-runs", check).await.good()["app"]["slug"], "made-here");
    w.stop().await;
}

#[tokio::test]
async fn manifests_that_cannot_be_are_refused() {
    let w = World::start().await;
    let cases = [
        "{".to_owned(),
        String::new(),
        json!("not a manifest").to_string(),
        json!({"url": "u", "default_events": ["installation"]}).to_string(),
        json!({"url": "u", "default_events": [1]}).to_string(),
        json!({"url": "u", "default_permissions": {"checks": "all"}}).to_string(),
    ];
    let mut seen = Vec::new();
    for wrong in cases {
        let (status, text) = post(&w, "/settings/apps/new", &[("manifest", &wrong)]).await;
        seen.push(format!("{status} {text}"));
    }
    insta::assert_snapshot!(seen.join("\n"), @r"
    422 This was not done. the manifest is not JSON: EOF while parsing an object at line 1 column 1.
    422 This was not done. the manifest is not JSON: EOF while parsing a value at line 1 column 0.
    422 This was not done. the manifest&#39;s url is missing.
    422 This was not done. the manifest&#39;s default_events must not contain installation.
    422 This was not done. the manifest&#39;s default_events are not all names.
    422 This was not done. the manifest&#39;s permission checks has no known level.
    ");
    // Too late: "Registering a GitHub App from a manifest" gives an hour.
    let late = |w: &World| {
        w.standin.write(|m| {
            for waiting in m.manifests.values_mut() {
                waiting.created_at = waiting.created_at.checked_sub(jiff::Span::new().hours(2)).unwrap();
            }
        });
    };
    let text = manifest(&w).to_string();
    let (_, first) = page(&w, "/settings/apps/new", &[("manifest", &text)]).await;
    late(&w);
    let refused = post(&w, "/_web/settings/apps", &[("key", &key(&first)), ("name", "Late")]).await;
    assert_eq!(refused, (422, "This was not done. this page is more than an hour old.".to_owned()));
    let (_, second) = page(&w, "/settings/apps/new", &[("manifest", &text)]).await;
    let (_, location) = post(&w, "/_web/settings/apps", &[("key", &key(&second)), ("name", "Later")]).await;
    let code = url::Url::parse(&location).unwrap().query_pairs().find(|(k, _)| k == "code").unwrap().1.into_owned();
    late(&w);
    let api = Api::new(&w.standin, None);
    assert_eq!(api.send(api.request("POST", &format!("/app-manifests/{code}/conversions"))).await.status, 404);
    w.stop().await;
}

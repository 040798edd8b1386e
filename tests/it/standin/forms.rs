//! The forms behind the pages, and the App manifest flow.

use serde_json::{Value, json};

use switchover::demo::github::NewPull;

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

async fn post(w: &World, path: &str, fields: Fields<'_>) -> (u16, String) {
    let api = Api::new(&w.standin, None);
    let url = format!("{}{}", w.standin.web_url(), path.trim_start_matches('/'));
    let answer = encoded(api.request("POST", &url), fields).send().await.unwrap();
    let location = answer.headers().get("location").map_or(String::new(), |v| v.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    let body = answer.text().await.unwrap();
    (status, if location.is_empty() { words(&body) } else { location })
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
    w.standin.commit(w.repo, "p", &[("p", Some("1"))], "p", "bob").await.unwrap();
    let new = NewPull { title: "P".into(), head: "p".into(), ..NewPull::default() };
    w.standin.open_pull(w.repo, "bob", new).await.unwrap();
    let cases: [(&str, Fields<'_>); 8] = [
        ("merge", &[("as", "eve"), ("number", "1")]),
        ("comment", &[("as", "eve"), ("number", "1"), ("body", "hi")]),
        ("comment", &[("number", "1"), ("body", "hi")]),
        ("comment", &[("as", "nobody"), ("number", "1"), ("body", "hi")]),
        ("comment", &[("as", "bob"), ("number", "x"), ("body", "hi")]),
        ("comment", &[("as", "bob"), ("number", "7"), ("body", "hi")]),
        ("comment", &[("as", "bob"), ("number", "1"), ("body", "")]),
        ("dance", &[("as", "bob")]),
    ];
    let mut seen = Vec::new();
    for (what, fields) in cases {
        let (status, text) = post(&w, &format!("/_web/acme/shop/{what}"), fields).await;
        seen.push(format!("{what}: {status} {text}"));
    }
    insta::assert_snapshot!(seen.join("\n"), @r#"
    merge: 422 eve may not do this in acme/shop
    comment: 422 eve may not do this in acme/shop
    comment: 422 choose who you are first
    comment: 404 there is no user nobody
    comment: 422 the field number is not a number: "x"
    comment: 404 there is no issue 7
    comment: 422 Body can't be blank
    dance: 404 there is no button dance
    "#);
    let fields = [("as", "bob"), ("number", "1"), ("body", "hi"), ("back", "//evil.example/")];
    assert_eq!(post(&w, "/_web/acme/shop/comment", &fields).await.1, "/", "never to another server");
    let api = Api::new(&w.standin, None);
    let url = format!("{}_web/acme/shop/merge", w.standin.web_url());
    let foreign = api.request("POST", &url).header("origin", "http://evil.example");
    let foreign = encoded(foreign, &[("as", "bob"), ("number", "1")]);
    assert_eq!(api.send(foreign).await.status, 403);
    w.stop().await;
}

#[tokio::test]
async fn an_app_is_made_from_a_manifest() {
    let w = World::start().await;
    let manifest = json!({
        "name": "From <Manifest>", "url": "https://example.com/", "redirect_url": "http://127.0.0.1:1/done?x=1",
        "hook_attributes": {"url": w.hooks.url}, "public": false,
        "default_permissions": {"checks": "write", "contents": "read"}, "default_events": ["push", "check_run"],
    });
    let fields = [("manifest", &*manifest.to_string())];
    let (status, page) = post(&w, "/organizations/acme/settings/apps/new?state=abc", &fields).await;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("From &#60;Manifest&#62;") && !page.contains("<Manifest>"));
    let key = page.split("name=\"key\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let (status, location) = post(&w, "/_web/settings/apps", &[("key", key), ("name", "Made Here")]).await;
    assert_eq!(status, 302);
    let url = url::Url::parse(&location).unwrap();
    let query: std::collections::HashMap<_, _> = url.query_pairs().into_owned().collect();
    assert_eq!((query["x"].as_str(), query["state"].as_str()), ("1", "abc"));
    let api = Api::new(&w.standin, None);
    let path = format!("/app-manifests/{}/conversions", query["code"]);
    let made = api.send(api.request("POST", &path)).await.good();
    assert_eq!((&made["slug"], &made["owner"]["login"]), (&json!("made-here"), &json!("acme")));
    assert!(made["pem"].as_str().unwrap().starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
    assert!(made["webhook_secret"].is_string());
    assert_eq!(api.send(api.request("POST", &path)).await.status, 404, "a code is good once");
    let (status, _) = post(&w, "/_web/apps/made-here/install", &[("account", "acme"), ("repository", "shop")]).await;
    assert_eq!(status, 303);
    assert_eq!(w.standin.read(|m| m.installations.len()), 2);
    let mut seen = Vec::new();
    for wrong in [
        json!("not a manifest"),
        json!({"url": "u", "default_events": ["installation"]}),
        json!({"url": "u", "default_permissions": {"checks": "all"}}),
    ] {
        let wrong: Value = wrong;
        let (status, text) = post(&w, "/settings/apps/new", &[("manifest", &wrong.to_string())]).await;
        seen.push(format!("{status} {text}"));
    }
    seen.push(format!("{:?}", post(&w, "/settings/apps/new", &[("manifest", "{")]).await));
    insta::assert_snapshot!(seen.join("\n"), @r#"
    422 the manifest's url is missing
    422 the manifest's default_events must not contain installation
    422 the manifest's permission checks has no known level
    (422, "The manifest is not JSON: EOF while parsing an object at line 1 column 1")
    "#);
    w.stop().await;
}

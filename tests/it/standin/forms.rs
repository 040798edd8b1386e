//! The forms behind the pages, and the App manifest flow.

use serde_json::json;

use super::support::{Api, World};

fn encoded(request: reqwest::RequestBuilder, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    request.header("content-type", "application/x-www-form-urlencoded").body(body)
}

async fn post(w: &World, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
    let api = Api::new(&w.standin, None);
    let url = format!("{}{}", w.standin.web_url(), path.trim_start_matches('/'));
    let answer = encoded(api.request("POST", &url), fields).send().await.unwrap();
    let location = answer.headers().get("location").map_or(String::new(), |v| v.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    let body = answer.text().await.unwrap();
    (status, if location.is_empty() { body } else { location })
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
    #[expect(clippy::type_complexity, reason = "a table of cases")]
    let steps: [(&str, &[(&str, &str)], &str, &str); 7] = [
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

//! Registries that fail while an image is pushed.

use super::{
    Order, access,
    faulty::{Fault, Faulty},
    place, repository, workspace,
};

use switchover::image::{Blame, ImageError, ProblemKind, RegistryProblem};

/// A layer that the registry can't have yet.
fn fresh_layer(name: &str) -> tempfile::TempDir {
    let unique = format!("{name} {}", uuid::Uuid::new_v4());
    workspace(&[("Dockerfile", "FROM busybox\nCOPY unique /\n"), ("unique", &unique)])
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let Some(place) = place::place("refusals_are_told_apart").await else { return };
    let fault = |method, path, status, body| Fault { method, path, status, body, times: 1000 };
    let denied = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    let unauthorized = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
    let unknown = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#;
    let quota = r#"{"errors":[{"code":"DENIED","message":"adding 5.0 MiB of storage resource, which when updated to current usage of 1.0 GiB will exceed the configured upper limit of 1.0 GiB."}]}"#;
    let nginx = "<html><head><title>413 Request Entity Too Large</title></head></html>";
    let mut all = String::new();
    for (name, fault, wanted) in [
        ("401", fault("POST", "/blobs/uploads/", 401, unauthorized), ProblemKind::Unauthorized),
        ("403", fault("POST", "/blobs/uploads/", 403, denied), ProblemKind::Forbidden),
        ("404", fault("POST", "/blobs/uploads/", 404, unknown), ProblemKind::NotFound),
        ("413", fault("PATCH", "/blobs/uploads/", 413, nginx), ProblemKind::TooLarge),
        ("quota", fault("PUT", "/manifests/", 403, quota), ProblemKind::Full),
        ("403 at the end", fault("PUT", "/manifests/", 403, denied), ProblemKind::Forbidden),
    ] {
        let door = Faulty::before(&place.registry).await;
        door.fault(fault);
        let images = place.images(vec![access(&door.host, "", "")]);
        let (built, said) = Order::new(&repository(&door.host)).run(&images, fresh_layer(name).path()).await;
        let error = built.expect_err(name);
        let ImageError::Registry { problem, .. } = &error else { panic!("{error:?}\n{said:#?}") };
        assert_eq!(
            (problem.kind, error.blame()),
            (wanted, Blame::Operator),
            "{name}: {error}\n{said:#?}\n{:#?}",
            door.seen()
        );
        all.push_str(&format!("{name}: {}\n", problem.to_string().replace(&door.host, "HOST")));
    }
    insta::assert_snapshot!(all, @r#"
    401: HOST does not accept the user name and password (401). The operator mends them under [registries."HOST"] of switchover.toml. It said: unauthorized
    403: HOST does not allow it (403). The user under [registries."HOST"] of switchover.toml needs the right to it, or the repository has another name. It said: denied
    404: HOST has no such image or repository, or shows it to nobody without a password (404). Look at its name; a private one needs [registries."HOST"] of switchover.toml. It said: name unknown
    413: HOST takes no upload of this size (413). Raise the limit of the proxy in front of it (nginx: `client_max_body_size 0`), or make the layers smaller. It said: error parsing HTTP 413 response body: invalid character '<' looking for beginning of value: "<html><head><title>413 Request Entity Too Large</title></head></html>"
    quota: HOST has no room left. Remove old images there, raise its quota, or give it a larger disk. It said: denied: adding 5.0 MiB of storage resource, which when updated to current usage of 1.0 GiB will exceed the configured upper limit of 1.0 GiB.
    403 at the end: HOST does not allow it (403). The user under [registries."HOST"] of switchover.toml needs the right to it, or the repository has another name. It said: denied
    "#);
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    let Some(place) = place::place("what_passes_is_tried_again").await else { return };
    for (name, method, path, status) in [
        ("a blob breaks in the middle", "PATCH", "/blobs/uploads/", 500),
        ("the manifest meets a broken registry", "PUT", "/manifests/", 503),
        ("too many requests", "PUT", "/manifests/", 429),
    ] {
        let door = Faulty::before(&place.registry).await;
        door.fault(Fault { method, path, status, body: "", times: 1 });
        let images = place.images(vec![access(&door.host, "", "")]);
        let order = Order::new(&repository(&door.host));
        let (built, said) = order.run(&images, fresh_layer(name).path()).await;
        let built = built.unwrap_or_else(|e| panic!("{name}: {e}\n{said:#?}\n{:#?}", door.seen()));
        assert!(images.exists(&order.repository, &built.digest).await.unwrap());
        assert!(door.seen().iter().any(|s| s.ends_with(&status.to_string())), "{:#?}", door.seen());
    }
}

/// The engine passes on the code and the words of an answer with errors in JSON, and not its status.
#[test]
fn a_refusal_without_a_code_of_its_own_is_the_registrys() {
    for (said, kind) in [
        ("unknown: request body too long", ProblemKind::Unclear),
        ("unknown: quota of the project", ProblemKind::Full),
        ("unknown: unknown error", ProblemKind::Broken),
    ] {
        let problem = RegistryProblem::understood("registry.example", said).expect(said);
        assert_eq!(problem.kind, kind, "{said}");
        assert!(problem.to_string().starts_with("registry.example"), "{problem}");
    }
    assert!(RegistryProblem::understood("registry.example", "tag does not exist: acme/shop:1").is_none());
}

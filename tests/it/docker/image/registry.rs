//! Registries: who may push, which digest a tag has, what a base image is now.

use std::{collections::BTreeMap, time::Duration};

use super::{Order, access, place, repository, workspace};

use switchover::{
    domain::ids::{Digest, Sha},
    image::{Blame, ImageError, ProblemKind, RegistryAccess},
};
use tokio_util::sync::CancellationToken;

const SIMPLE: &str = "FROM busybox\nCOPY hello.txt /\n";
/// With characters that both alphabets of base64 write differently.
const PASSWORD: &str = "s3>cr?et~~~/+ü";
/// The same, as htpasswd has it.
const HTPASSWD: &str = "acme:$2y$05$abcdefghijklmnopqrstuuvKe7qrjuAUN.Ya3XOeCt3N/sO83jyke";

fn kind(error: &ImageError) -> ProblemKind {
    match error {
        ImageError::Registry { problem, .. } => problem.kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_the_right_password_opens_it() {
    let Some(place) = place::place("only_the_right_password_opens_it").await else { return };
    let guarded = place::registry_with_password(HTPASSWD).await;
    let folder = workspace(&[("Dockerfile", SIMPLE), ("hello.txt", "guarded")]);
    let order = Order::new(&repository(&guarded.host));
    for (login, wanted) in [
        (access(&guarded.host, "acme", "wrong"), ProblemKind::Unauthorized),
        (access(&guarded.host, "", ""), ProblemKind::Unauthorized),
        (RegistryAccess { plain_http: false, ..access(&guarded.host, "acme", PASSWORD) }, ProblemKind::PlainHttp),
    ] {
        let images = place.images(vec![login]);
        let (built, said) = order.run(&images, folder.path()).await;
        let error = built.expect_err("it is guarded");
        assert_eq!((kind(&error), error.blame()), (wanted, Blame::Operator), "{error}\n{said:#?}");
        assert!(!error.to_string().contains(PASSWORD));
        if wanted == ProblemKind::Unauthorized {
            let asked = images.find_by_tag(&order.repository, "x").await.expect_err("it is guarded");
            assert_eq!(kind(&asked), wanted, "{asked}");
        }
    }
    let images = place.images(vec![access("other.example", "x", "y"), access(&guarded.host, "acme", PASSWORD)]);
    let (built, said) = order.run(&images, folder.path()).await;
    let built = built.unwrap_or_else(|e| panic!("{e}\n{said:#?}"));
    assert!(!said.iter().any(|l| l.contains(PASSWORD)));
    assert!(images.exists(&order.repository, &built.digest).await.unwrap());

    // A base image from there, which the engine must not have by itself.
    place.api().remove_image(&built.reference, None::<bollard::query_parameters::RemoveImageOptions>, None).await.ok();
    let text = format!("FROM {}\nRUN cat /hello.txt\n", built.reference);
    let next = workspace(&[("Dockerfile", &text)]);
    let (again, said) = order.run(&images, next.path()).await;
    again.unwrap_or_else(|e| panic!("{e}\n{said:#?}"));
}

#[tokio::test]
async fn a_tag_is_waited_for_and_a_lost_image_is_known() {
    let Some(place) = place::place("a_tag_is_waited_for_and_a_lost_image_is_known").await else { return };
    let images = place.images(vec![access(&place.registry, "", "")]);
    let folder = workspace(&[("Dockerfile", SIMPLE), ("hello.txt", "waited for")]);
    let mut order = Order::new(&repository(&place.registry));
    order.commit = Sha::new("a".repeat(40)).unwrap();
    let tag = order.commit.to_string();
    assert_eq!(images.find_by_tag(&order.repository, &tag).await, Ok(None));
    let (every, cancel) = (Duration::from_millis(50), CancellationToken::new());
    let waiting = images.wait_for_tag(&order.repository, &tag, every, Duration::from_secs(120), &cancel);
    let (found, (built, _)) = tokio::join!(waiting, order.run(&images, folder.path()));
    let digest = built.unwrap().digest;
    assert_eq!(found, Ok(digest.clone()));

    // Reused for another commit.
    images.tag(&order.repository, &digest, "next").await.unwrap();
    assert_eq!(images.find_by_tag(&order.repository, "next").await, Ok(Some(digest.clone())));

    // Deleted.
    let (host, path) = order.repository.split_once('/').unwrap();
    let address = format!("http://{host}/v2/{path}/manifests/{digest}");
    assert_eq!(reqwest::Client::new().delete(address).send().await.unwrap().status().as_u16(), 202);
    assert!(!images.exists(&order.repository, &digest).await.unwrap());
    assert!(images.tag(&order.repository, &digest, "gone").await.is_err());

    let short = Duration::from_millis(200);
    let waited = images.wait_for_tag(&order.repository, "never", every, short, &cancel).await;
    assert_eq!(waited, Err(ImageError::TimedOut(short)));
    cancel.cancel();
    let waited = images.wait_for_tag(&order.repository, "never", every, Duration::from_secs(60), &cancel).await;
    assert_eq!(waited, Err(ImageError::Cancelled));
}

#[tokio::test]
async fn a_newer_base_has_another_digest_and_is_fetched() {
    let Some(place) = place::place("a_newer_base_has_another_digest_and_is_fetched").await else { return };
    let images = place.images(vec![access(&place.registry, "", "")]);
    let base = repository(&place.registry);
    let order = Order::new(&base);
    let mut digests: Vec<Digest> = Vec::new();
    let above = Order::new(&repository(&place.registry));
    let text = format!("FROM scratch AS none\nFROM {base}:latest\nFROM {base}\nRUN cat /hello.txt\n");
    let names = |text: &str| format!("FROM {base}:latest AS a\nFROM {base}@{text}\nCOPY --from=a / /\n");
    for word in ["first", "second"] {
        let word = format!("{word} {}", uuid::Uuid::new_v4());
        let folder = workspace(&[("Dockerfile", SIMPLE), ("hello.txt", &word)]);
        let (built, _) = order.run(&images, folder.path()).await;
        let digest = built.unwrap().digest;
        images.tag(&base, &digest, "latest").await.unwrap();
        let now = images.base_digests("Dockerfile", &names(digest.as_str()), &BTreeMap::new()).await.unwrap();
        assert_eq!(now[&format!("{base}:latest")], digest);
        assert_eq!(now[&format!("{base}@{digest}")], digest);
        let folder = workspace(&[("Dockerfile", &text)]);
        let (built, said) = above.run(&images, folder.path()).await;
        built.unwrap_or_else(|e| panic!("{e}\n{said:#?}"));
        assert!(said.iter().any(|l| l.ends_with(&word)), "{said:#?}");
        digests.push(digest);
    }
    assert_ne!(digests[0], digests[1]);
    let lost = images.base_digests("Dockerfile", &format!("FROM {base}:gone\n"), &BTreeMap::new()).await;
    assert_eq!(lost.expect_err("no such tag").blame(), Blame::Author);
}

#[tokio::test]
async fn a_registry_that_is_away_is_said() {
    let Some(place) = place::place("a_registry_that_is_away_is_said").await else { return };
    // Bound and never listened on: nobody else gets it, and nobody answers.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let free = nobody.local_addr().unwrap().to_string();
    let images = place.images(vec![access(&free, "x", "y")]);
    let error = images.find_by_tag(&format!("{free}/acme/x"), "1").await.expect_err("nobody is there");
    assert_eq!((kind(&error), error.blame()), (ProblemKind::Away, Blame::Infrastructure), "{error}");
    let folder = workspace(&[("Dockerfile", &format!("FROM {free}/acme/x\n"))]);
    let (built, _) = Order::new(&repository(&place.registry)).run(&images, folder.path()).await;
    let error = built.expect_err("nobody is there");
    assert_eq!((kind(&error), error.blame()), (ProblemKind::Away, Blame::Infrastructure), "{error}");
}

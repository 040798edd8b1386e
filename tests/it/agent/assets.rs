//! A page that was loaded before a switch still gets its files.

use super::{E1, Host, SERVICE, get};

#[tokio::test(flavor = "multi_thread")]
async fn old_hashed_files_are_answered_by_the_release_before() {
    for spa in [false, true] {
        let host = Host::new().await;
        let release = |name: &str| {
            let mut spec = host.release(name);
            if spa {
                spec.env.insert("SPA".into(), "1".into());
            }
            spec
        };
        let address = host.serving("v1", release("v1")).await;
        host.put("v2", release("v2")).await;
        let (old, new) = ("/assets/index-v1Abc9xY.js", "/assets/index-v2Abc9xY.js");
        let missing = if spa { 200 } else { 404 };
        assert_eq!(get(address, old).await, (200, "v1".into()));
        assert_eq!(get(address, new).await, (missing, "v1".into()));
        host.client.switch(SERVICE, E1, Some("v1"), "v2").await.unwrap();
        assert_eq!(get(address, new).await, (200, "v2".into()));
        assert_eq!(get(address, old).await, (200, "v1".into()), "the old tab lost its file (spa: {spa})");
        // What has no hash has a wrong version, and what neither has is the live one's to refuse.
        for path in ["/assets/v1.js", "/assets/old-v1-page", "/assets/about-document.js", "/assets/index-xxAbc9xY.js"] {
            assert_eq!(get(address, path).await, (missing, "v2".into()), "{path}");
        }
        let post = super::fresh().post(format!("http://{address}{old}")).body("x").send().await.unwrap();
        assert_eq!(post.text().await.unwrap(), "v2", "a POST was answered by the release before");
        host.client.remove_slot(SERVICE, "v1", E1).await.unwrap();
        assert_eq!(get(address, old).await, (missing, "v2".into()));
    }
}

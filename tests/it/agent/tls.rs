//! TLS from files, and the way there from plain HTTP.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use reqwest::redirect::Policy;
use switchover::agent::protocol::{Door, ErrorCode, TlsFiles};

use super::{DEADLINE, E1, Host, SERVICE, refusal};

/// A certificate of that name, signed by itself, and its key.
pub(crate) fn certificate(folder: &Path, host: &str) -> TlsFiles {
    fs::create_dir_all(folder).unwrap();
    let config = format!(
        "[req]\ndistinguished_name=dn\nx509_extensions=ext\nprompt=no\n[dn]\nCN={host}\n[ext]\n\
         subjectAltName=DNS:{host}\nbasicConstraints=critical,CA:FALSE\n"
    );
    fs::write(folder.join("config"), config).unwrap();
    let line = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout new.key -out new.pem -days 2 \
                -config config";
    let made = Command::new("openssl").args(line.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Each replaced whole, as certbot does.
    for (from, to) in [("new.key", "key.pem"), ("new.pem", "cert.pem")] {
        fs::rename(folder.join(from), folder.join(to)).unwrap();
    }
    TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") }
}

/// A client that trusts this certificate alone and finds the host at the address.
pub(crate) fn trusting(files: &TlsFiles, host: &str, at: SocketAddr) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(&fs::read(&files.certificate).unwrap()).unwrap();
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([root])
        .resolve(host, at)
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(DEADLINE)
        .build()
        .unwrap()
}

pub(crate) async fn ask(client: &reqwest::Client, url: &str) -> Result<(u16, String), String> {
    let answer = client.get(url).send().await.map_err(|e| format!("{e:?}"))?;
    Ok((answer.status().as_u16(), answer.text().await.map_err(|e| format!("{e:?}"))?))
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_by_name_reloaded_and_redirected_to() {
    let host = Host::new().await;
    host.serving("v1", host.release("v1")).await;
    let folder = |name: &str| host.dir.path().join(name);
    let (shop, blog) = (certificate(&folder("shop"), "shop.example"), certificate(&folder("blog"), "blog.example"));
    let (tls, plain) = (free(), free());
    let door = |hosts: &[&str], files: &TlsFiles| Door {
        listen: tls,
        hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
        tls: Some(files.clone()),
        https: None,
    };
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let redirect = Door { listen: plain, hosts: vec![], tls: None, https: Some(tls.port()) };
    let doors = vec![door(&["shop.example"], &shop), redirect];
    host.client.put_service_with(SERVICE, listen, &[], doors, None).await.unwrap();
    // A second service with a certificate of its own on the same listener.
    let other = "octo-1/production/blog";
    host.client.put_service_with(other, listen, &[], vec![door(&["blog.example"], &blog)], None).await.unwrap();
    host.client.claim(other, E1).await.unwrap();

    let url = format!("https://shop.example:{}", tls.port());
    let client = trusting(&shop, "shop.example", tls);
    let answer = client.get(format!("{url}/head")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    let head = answer.text().await.unwrap();
    assert!(head.contains("x-forwarded-proto: https") && head.contains("host: shop.example"), "{head}");
    let of_blog = ask(&trusting(&blog, "blog.example", tls), &format!("https://blog.example:{}/", tls.port())).await;
    assert_eq!(of_blog, Ok((503, "nothing is released here yet\n".into())));
    assert!(ask(&trusting(&blog, "shop.example", tls), &url).await.is_err(), "the wrong certificate was shown");

    // From plain HTTP with the same path and method.
    let answer = client.post(format!("http://{plain}/a/b?c=d")).header("host", "shop.example").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 308);
    assert_eq!(answer.headers()["location"], format!("{url}/a/b?c=d").as_str());

    // Another certificate under the same names; requests go on meanwhile.
    let old = shop.clone();
    fs::copy(&old.certificate, folder("old.pem")).unwrap();
    let renewed = certificate(&folder("shop"), "shop.example");
    let fresh = trusting(&renewed, "shop.example", tls);
    let shown = async {
        while ask(&fresh, &url).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, shown).await.expect("the new certificate is not shown");
    // Garbage changes nothing.
    fs::write(&renewed.certificate, "garbage").unwrap();
    let noticed = async {
        while !host.log().contains("the one before stays") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, noticed).await.expect("nobody says that the certificate is broken");
    assert_eq!(ask(&fresh, &url).await, Ok((200, "v1".into())));

    // After a crash the doors are there again.
    let _ = certificate(&folder("shop"), "shop.example");
    let mut host = host;
    host.kill();
    host.start().await;
    assert_eq!(ask(&trusting(&shop, "shop.example", tls), &url).await, Ok((200, "v1".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_a_door_is_refused() {
    let host = Host::new().await;
    host.serving("v1", host.release("v1")).await;
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let good = certificate(&host.dir.path().join("a"), "a.example");
    let other = certificate(&host.dir.path().join("b"), "b.example");
    let mixed = TlsFiles { certificate: good.certificate.clone(), key: other.key.clone() };
    let missing = TlsFiles { certificate: PathBuf::from("/nothing.pem"), key: good.key.clone() };
    let relative = TlsFiles { certificate: PathBuf::from("cert.pem"), key: good.key.clone() };
    let at = free();
    let door = |tls: Option<TlsFiles>| Door { listen: at, hosts: vec![], tls, https: None };
    let cases: [(Vec<Door>, ErrorCode, &str); 8] = [
        (vec![door(Some(mixed))], ErrorCode::Invalid, "do not go together"),
        (vec![door(Some(missing))], ErrorCode::Invalid, "/nothing.pem can't be read"),
        (vec![door(Some(relative))], ErrorCode::Invalid, "cert.pem"),
        (vec![Door { listen: "127.0.0.1:0".parse().unwrap(), ..door(None) }], ErrorCode::Invalid, "real port"),
        (vec![door(None), door(None)], ErrorCode::Invalid, "named twice"),
        (vec![Door { https: Some(1), ..door(Some(good.clone())) }], ErrorCode::Invalid, "TLS already"),
        (vec![Door { hosts: vec!["*.example".into()], ..door(None) }], ErrorCode::Invalid, "plain host name"),
        (vec![Door { hosts: vec![String::new()], ..door(None) }], ErrorCode::Invalid, "plain host name"),
    ];
    let before = host.service().await;
    for (doors, code, words) in cases {
        let shown = format!("{doors:?}");
        let (got, message) = refusal(host.client.put_service_with(SERVICE, listen, &[], doors, None).await);
        assert!(got == code && message.contains(words), "{shown}: {message}");
    }
    assert_eq!(host.service().await, before);
    // One listener speaks one language, and a name has one answer.
    host.client.put_service_with(SERVICE, listen, &[], vec![door(Some(good.clone()))], None).await.unwrap();
    let second = |door: Door| host.client.put_service_with("octo-1/production/b", listen, &[], vec![door], None);
    let (code, message) = refusal(second(Door { hosts: vec!["b.example".into()], ..door(None) }).await);
    assert!(code == ErrorCode::Conflict && message.contains("TLS or plain"), "{message}");
    let (code, message) = refusal(second(door(Some(good))).await);
    assert!(code == ErrorCode::Conflict && message.contains("all hosts"), "{message}");
    let worker = host.client.put_service_with("octo-1/production/w", None, &[], vec![door(None)], None).await;
    let (code, message) = refusal(worker);
    assert!(code == ErrorCode::Invalid && message.contains("a worker listens nowhere"), "{message}");
}

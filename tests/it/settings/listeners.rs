//! Where users reach apps: an address, or more than that.

use switchover::settings::TargetSettings;

use super::Server;

#[test]
fn an_address_or_more_than_that() {
    let settings = Server::good()
        .toml(
            r#"[targets.here]
kind = "local"
repositories = ["acme/shop"]
[targets.here.listen]
blog = "127.0.0.1:9000"
"production/shop" = {address = "0.0.0.0:443", hosts = ["shop.example.com", "www.example.com"], certificate_file = "tls/shop.pem", key_file = "/etc/shop.key", redirect = "0.0.0.0:80"}
"staging/shop" = {address = "0.0.0.0:443", hosts = ["staging.example.com"], certificate_file = "tls/staging.pem", key_file = "tls/staging.key"}
plain = {address = "127.0.0.1:9001", hosts = ["a.example"]}
rest = {address = "127.0.0.1:9001"}
"#,
        )
        .right();
    let TargetSettings::Local(here) = &settings.targets["here"] else { panic!("another kind") };
    let told: Vec<String> = here
        .listen
        .iter()
        .map(|(app, l)| {
            let tls = l.tls.as_ref().map_or("plain".to_owned(), |(c, k)| {
                let name = |p: &std::path::Path| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
                format!("{} {} {}", name(c), name(k), k.is_absolute())
            });
            format!("{app}: {} {:?} {tls} {:?}", l.address, l.hosts, l.redirect)
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    blog: 127.0.0.1:9000 [] plain None
    plain: 127.0.0.1:9001 ["a.example"] plain None
    production/shop: 0.0.0.0:443 ["shop.example.com", "www.example.com"] shop.pem shop.key true Some(0.0.0.0:80)
    rest: 127.0.0.1:9001 [] plain None
    staging/shop: 0.0.0.0:443 ["staging.example.com"] staging.pem staging.key true None
    "#);
}

#[test]
fn what_can_not_be() {
    let server = Server::good().toml(
        r#"[targets.here]
kind = "docker"
repositories = ["acme/shop"]
[targets.here.listen]
a = {address = "0.0.0.0:443", hosts = ["Shop.example.com"]}
b = {address = "0.0.0.0:443", hosts = ["shop.example.com"]}
c = "127.0.0.1:9000"
d = {address = "127.0.0.1:9000"}
e = {hosts = ["x.example"]}
f = {address = "127.0.0.1:9001", hosts = ["https://f.example/x"]}
g = {address = "127.0.0.1:9002", certificate_file = "c.pem"}
h = {address = "127.0.0.1:9003", redirect = "127.0.0.1:9003"}
i = {address = "127.0.0.1:0", hosts = ["i.example"]}
j = {adress = "127.0.0.1:9004"}
k = ["127.0.0.1:9005"]
"#,
    );
    insta::assert_snapshot!(server.told(), @r#"
    11 settings are wrong:

    targets.here.listen.e: `e` (a listener) has no `address`
        expected: `address`, an address and a port, such as 127.0.0.1:8080 or [::]:8080
        see: /etc/switchover/switchover.toml:9:1

    targets.here.listen.f.hosts[0]: `https://f.example/x` is not a host name
        expected: a host name, such as shop.example.com; did you mean `f.example`?
        see: /etc/switchover/switchover.toml:10:43

    targets.here.listen.j: `j` (a listener) has no `address`
        expected: `address`, an address and a port, such as 127.0.0.1:8080 or [::]:8080
        see: /etc/switchover/switchover.toml:14:1

    targets.here.listen.j.adress: `adress` is not a key of a listener
        expected: one of address, hosts, certificate_file, key_file, redirect; did you mean `address`?
        see: /etc/switchover/switchover.toml:14:6

    targets.here.listen.k: `k` is a list
        expected: an address and a port, such as 127.0.0.1:8080 or [::]:8080, or a mapping with the keys address, hosts, certificate_file, key_file, redirect
        see: /etc/switchover/switchover.toml:15:5

    targets.here.listen.b: shop.example.com at 0.0.0.0:443 is that of targets.here.listen.a too
        expected: an address of its own, or `hosts` of its own at the same address
        see: /etc/switchover/switchover.toml:6:5

    targets.here.listen.d: 127.0.0.1:9000 is that of targets.here.listen.c too
        expected: an address of its own, or `hosts` of its own at the same address
        see: /etc/switchover/switchover.toml:8:5

    targets.here.listen.g: has a certificate and no key
        expected: `key_file` beside `certificate_file`
        see: /etc/switchover/switchover.toml:11:1

    targets.here.listen.h: sends on to https and speaks none
        expected: `certificate_file` and `key_file`
        see: /etc/switchover/switchover.toml:12:1

    targets.here.listen.h: sends on to itself
        expected: `redirect` at another port, such as 0.0.0.0:80
        see: /etc/switchover/switchover.toml:12:1

    targets.here.listen.i: has port 0
        expected: the port that users know
        see: /etc/switchover/switchover.toml:13:1
    "#);
}

//! Where users reach apps.

use std::{collections::BTreeMap, net::SocketAddr};

use super::Loader;
use crate::{
    domain::config::{
        checker::dotted,
        grammar::{Pair, Value},
    },
    settings::Listen,
};

/// Which listener has a host of an address; no host: all that nobody else has.
pub(super) type Taken = BTreeMap<(SocketAddr, Option<String>), String>;

impl Loader<'_> {
    /// The listeners of a target. One address may serve several apps, told apart by their hosts; not in different ways.
    pub(super) fn listeners(&mut self, target: &Pair, taken: &mut Taken) -> BTreeMap<String, Listen> {
        let mut all = BTreeMap::new();
        for pair in target.value.get("listen").map_or(&[][..], Value::pairs) {
            let key = dotted(&["targets".into(), target.key.clone(), "listen".into(), pair.key.clone()]);
            let Some(listen) = self.listener(pair, &key) else { continue };
            let hosts = match listen.hosts.as_slice() {
                [] => vec![None],
                hosts => hosts.iter().map(|h| Some(h.to_ascii_lowercase())).collect(),
            };
            let redirect = listen.redirect.filter(|r| *r != listen.address);
            let places = [Some(listen.address), redirect].into_iter().flatten().filter(|a| a.port() != 0);
            for (address, host) in places.flat_map(|a| hosts.iter().map(move |h| (a, h.clone()))) {
                let what = host.as_ref().map_or(address.to_string(), |h| format!("{h} at {address}"));
                if let Some(other) = taken.insert((address, host), key.clone()) {
                    let see = self.place(pair.value.at);
                    self.wrong(
                        &key,
                        format!("{what} is that of {other} too"),
                        "an address of its own, or `hosts` of its own at the same address",
                        see,
                    );
                }
            }
            all.insert(pair.key.clone(), listen);
        }
        all
    }

    fn listener(&mut self, pair: &Pair, key: &str) -> Option<Listen> {
        if let Some(address) = pair.value.as_text() {
            return Some(Listen::from(address.parse::<SocketAddr>().ok()?));
        }
        let address: SocketAddr = pair.value.text("address")?.parse().ok()?;
        let file = |name: &str| pair.value.written(name).filter(|p| p.value.as_text().is_some()).map(|p| self.path(p));
        let (certificate, private) = (file("certificate_file"), file("key_file"));
        let redirect = pair.value.text("redirect").and_then(|a| a.parse::<SocketAddr>().ok());
        let hosts = pair.value.texts("hosts");
        let see = self.place(pair.at);
        let tls = match (certificate, private) {
            (Some(certificate), Some(private)) => Some((certificate, private)),
            (None, None) => None,
            (Some(_), None) => {
                self.wrong(key, "has a certificate and no key", "`key_file` beside `certificate_file`", &see);
                None
            }
            (None, Some(_)) => {
                self.wrong(key, "has a key and no certificate", "`certificate_file` beside `key_file`", &see);
                None
            }
        };
        if tls.is_none() && redirect.is_some() {
            self.wrong(key, "sends on to https and speaks none", "`certificate_file` and `key_file`", &see);
        }
        if (tls.is_some() || !hosts.is_empty()) && address.port() == 0 {
            self.wrong(key, "has port 0", "the port that users know", &see);
        }
        if redirect == Some(address) {
            self.wrong(key, "sends on to itself", "`redirect` at another port, such as 0.0.0.0:80", &see);
        }
        Some(Listen { address, hosts, tls, redirect })
    }
}

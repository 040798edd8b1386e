//! What processes started here see of the server's own environment: chosen by name, never all of it.

use std::{ffi::OsString, path::PathBuf, sync::OnceLock};

/// Variables that git may need to reach its host. None of them is ours.
const NETWORK: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "CURL_CA_BUNDLE",
];

/// The part of the server's environment that children may see.
#[derive(Debug, Clone, Default)]
pub struct HostEnv {
    /// Where programs are found.
    pub path: OsString,
    /// Name of the user that the server runs as.
    pub user: OsString,
    /// The server's rustup folder, if it has one: a step with another `HOME` would not find its toolchains.
    pub rustup_home: Option<PathBuf>,
    /// Proxies and trusted certificates, for git alone.
    pub network: Vec<(OsString, OsString)>,
}

impl HostEnv {
    /// Chooses from what `lookup` answers.
    #[must_use]
    pub fn choose(lookup: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let rustup_home = lookup("RUSTUP_HOME")
            .map(PathBuf::from)
            .or_else(|| lookup("HOME").map(|home| PathBuf::from(home).join(".rustup")))
            .filter(|dir| dir.is_dir());
        Self {
            path: lookup("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
            user: lookup("USER").or_else(|| lookup("LOGNAME")).unwrap_or_else(|| "switchover".into()),
            rustup_home,
            network: NETWORK.iter().filter_map(|name| Some((OsString::from(name), lookup(name)?))).collect(),
        }
    }

    /// That of this process, read once.
    #[must_use]
    pub fn of_process() -> &'static Self {
        static HOST: OnceLock<HostEnv> = OnceLock::new();
        HOST.get_or_init(|| Self::choose(&|name| std::env::var_os(name)))
    }
}

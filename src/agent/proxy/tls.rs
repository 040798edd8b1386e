//! TLS on a listener: certificates from files, chosen by the name that the client asks for, read again when they change.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use tokio_rustls::rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::agent::protocol::TlsFiles;

/// What tells whether a file is another one: its time, its length, its number.
type Stamp = (Option<SystemTime>, u64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok(), found.len(), found.ino()))
}

fn stamps(files: &TlsFiles) -> [Option<Stamp>; 2] {
    [stamp(&files.certificate), stamp(&files.key)]
}

/// Reads a certificate and its key.
///
/// # Errors
/// What is wrong with which file, in words.
pub(in crate::agent) fn load(files: &TlsFiles) -> Result<Arc<CertifiedKey>, String> {
    let (certificate, key) = (files.certificate.display(), files.key.display());
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| format!("the certificate {certificate} can't be read: {e}"))?;
    if certificates.is_empty() {
        return Err(format!("{certificate} holds no certificate (PEM: BEGIN CERTIFICATE)"));
    }
    let key_der = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| format!("the key {key} can't be read: {e}"))?;
    let found = CertifiedKey::from_der(certificates, key_der, &aws_lc_rs::default_provider())
        .map_err(|e| format!("{certificate} and {key} do not go together: {e}"))?;
    Ok(Arc::new(found))
}

#[derive(Debug)]
struct Entry {
    /// Empty: for every name that nobody else has.
    hosts: Vec<String>,
    files: TlsFiles,
    seen: [Option<Stamp>; 2],
    /// None: its files were never good.
    key: Option<Arc<CertifiedKey>>,
}

/// The certificates of one listener.
#[derive(Debug, Default)]
pub(in crate::agent) struct Certificates(RwLock<Vec<Entry>>);

impl Certificates {
    /// Sets which files serve which names; those that were read already are not read again.
    pub(super) fn set(&self, wanted: Vec<(Vec<String>, TlsFiles)>) {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut *entries);
        for (hosts, files) in wanted {
            let entry = match old.iter().position(|e| e.files == files) {
                Some(at) => Entry { hosts, ..old.swap_remove(at) },
                None => Entry { hosts, files, seen: [None; 2], key: None },
            };
            entries.push(entry);
        }
        drop(entries);
        self.refresh();
    }

    /// Reads files that are others than before. Bad ones change nothing: the certificate before goes on.
    pub(in crate::agent) fn refresh(&self) {
        let stale = {
            let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
            let stale = entries.iter().map(|e| (e.files.clone(), stamps(&e.files), e.seen));
            stale.filter(|(_, now, seen)| now != seen).map(|(files, now, _)| (files, now)).collect::<Vec<_>>()
        };
        for (files, now) in stale {
            let loaded = load(&files);
            match &loaded {
                Ok(_) => tracing::info!(certificate = %files.certificate.display(), "a certificate was read"),
                Err(e) => tracing::error!(error = e, "a certificate can't be used; the one before stays"),
            }
            let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
            for entry in entries.iter_mut().filter(|e| e.files == files) {
                entry.seen = now;
                if let Ok(key) = &loaded {
                    entry.key = Some(Arc::clone(key));
                }
            }
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let name = hello.server_name();
        let named = name.and_then(|n| entries.iter().find(|e| e.hosts.iter().any(|h| h.eq_ignore_ascii_case(n))));
        let found = named.or_else(|| entries.iter().find(|e| e.hosts.is_empty())).or(entries.first())?;
        found.key.clone()
    }
}

/// How a listener with these certificates speaks.
pub(super) fn config(certificates: Arc<Certificates>) -> io::Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

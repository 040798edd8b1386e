//! The App's private key ("Managing private keys for GitHub Apps").

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{Engine, engine::general_purpose::STANDARD};

/// A key that cannot be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The random source or the library failed.
    #[error("an RSA key cannot be generated")]
    Generate,
    /// Not what GitHub lets one download.
    #[error("not an RSA private key in PEM form; GitHub's begins with -----BEGIN RSA PRIVATE KEY-----")]
    Unreadable,
}

/// A new RSA key of 2048 bits as PKCS#8 PEM: what GitHub would let the App's owner download (GitHub writes PKCS#1;
/// both are read). For the stand-in GitHub and for tests; takes some 100 ms.
///
/// # Errors
/// [`KeyError::Generate`] if the library or its random source fails.
pub fn generate_app_key() -> Result<String, KeyError> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate)?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Generate)?;
    Ok(pem("PRIVATE KEY", der.as_ref()))
}

/// The public half of a private key in PEM form (PKCS#1 or PKCS#8), as PKCS#1 DER: what a verifier of the App's JWTs
/// needs (`jsonwebtoken::DecodingKey::from_rsa_der`).
///
/// # Errors
/// [`KeyError::Unreadable`] where the text is no such key.
pub fn public_key(private_pem: &str) -> Result<Vec<u8>, KeyError> {
    let body: String = private_pem.lines().map(str::trim).filter(|l| !l.starts_with("-----")).collect();
    let der = STANDARD.decode(body).map_err(|_| KeyError::Unreadable)?;
    let pair = KeyPair::from_pkcs8(&der).or_else(|_| KeyPair::from_der(&der)).map_err(|_| KeyError::Unreadable)?;
    Ok(pair.public_key().as_ref().to_vec())
}

/// RFC 7468: base64 in lines of 64.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

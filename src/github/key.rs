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

/// A new RSA key of 2048 bits as PKCS#1 PEM: what GitHub would let the App's owner download. For the stand-in GitHub
/// and for tests; takes some 100 ms.
///
/// # Errors
/// [`KeyError::Generate`] if the library or its random source fails.
pub fn generate_app_key() -> Result<String, KeyError> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate)?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Generate)?;
    Ok(pem("RSA PRIVATE KEY", pkcs1(der.as_ref()).ok_or(KeyError::Generate)?))
}

/// The PKCS#1 key inside a PKCS#8 one (RFC 5208: version, algorithm, then the key as an octet string).
fn pkcs1(pkcs8: &[u8]) -> Option<&[u8]> {
    let (_, body, _) = der_value(pkcs8)?;
    let (_, _, rest) = der_value(body)?;
    let (_, _, rest) = der_value(rest)?;
    let (tag, key, _) = der_value(rest)?;
    (tag == 4).then_some(key)
}

/// One DER value: its tag, its content, what follows it.
fn der_value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        (digits.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
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

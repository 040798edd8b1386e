//! The one place that makes an App's key, as GitHub would let the App's owner download it.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::Engine as _;

use super::StandInError;

/// An App's key and its public half.
#[derive(Clone)]
pub struct AppKey {
    /// PKCS#1 in PEM form: `BEGIN RSA PRIVATE KEY` ("Managing private keys for GitHub Apps").
    pub private_pem: String,
    /// PKCS#1 DER: what verifies the App's JWTs (`jsonwebtoken::DecodingKey::from_rsa_der`).
    pub public_der: Vec<u8>,
}

impl std::fmt::Debug for AppKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AppKey(…)")
    }
}

impl AppKey {
    /// A new RSA key of 2048 bits; takes some 100 ms.
    ///
    /// # Errors
    /// [`StandInError::Key`] if the library or its random source fails.
    pub fn generate() -> Result<Self, StandInError> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| StandInError::Key)?;
        let private: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| StandInError::Key)?;
        let private_pem = pem(pkcs1(private.as_ref()).ok_or(StandInError::Key)?);
        Ok(Self { private_pem, public_der: pair.public_key().as_ref().to_vec() })
    }
}

/// The PKCS#1 key inside a PKCS#8 one (RFC 5208: version, algorithm, then the key as an octet string).
fn pkcs1(pkcs8: &[u8]) -> Option<&[u8]> {
    let (_, body, _) = value(pkcs8)?;
    let (_, _, rest) = value(body)?;
    let (_, _, rest) = value(rest)?;
    let (tag, key, _) = value(rest)?;
    (tag == 4).then_some(key)
}

/// One DER value: its tag, its content, what follows it.
fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
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

/// RFC 7468: base64 in lines of 64.
fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|i| &text[i..text.len().min(i + 64)]).collect();
    format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n", lines.join("\n"))
}

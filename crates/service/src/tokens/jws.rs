//! The text of a token: a compact JWS (RFC 7515) with one algorithm.
//!
//! Written by hand, since all that a library offers here is choice, and choice
//! is what JWT attacks live on. The header is never parsed: a token is accepted
//! only if its header is, byte for byte, the one that a known key writes, so
//! `alg` and `kid` cannot be anything else. (jsonwebtoken 11 would bring RSA,
//! P-256 and a second Ed25519 with its own signature traits, or a provider
//! installed for the whole process.)

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The longest token that is looked at. Ours have about 290 bytes.
pub(crate) const MAX_TOKEN: usize = 1_024;

/// What a token says of itself. What it may do is in the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// The token's id.
    pub(crate) jti: Uuid,
    /// The account, for people who look into a token.
    pub(crate) sub: String,
    /// When it was made, in seconds since 1970.
    pub(crate) iat: i64,
    /// When it ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exp: Option<i64>,
}

/// A key with the header of the tokens that it signs.
#[derive(Clone)]
pub(crate) struct NamedKey {
    /// Names the key in headers and in the database.
    pub(crate) kid: String,
    pub(crate) key: SigningKey,
    header: String,
}

impl NamedKey {
    /// Names a key by a digest of its public half.
    pub(crate) fn new(key: SigningKey) -> Self {
        let digest = Sha256::digest(key.verifying_key().as_bytes());
        let kid = BASE64URL_NOPAD.encode(&digest[..12]);
        let header = format!("{{\"alg\":\"EdDSA\",\"kid\":\"{kid}\",\"typ\":\"JWT\"}}");
        Self { kid, key, header: BASE64URL_NOPAD.encode(header.as_bytes()) }
    }

    /// The first part of every token that this key signs.
    pub(crate) fn header(&self) -> &str {
        &self.header
    }
}

/// The SHA-256 of a token's text: what is stored and remembered of it.
pub(crate) fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Writes a token.
pub(crate) fn sign(key: &NamedKey, claims: &Claims) -> String {
    let claims = serde_json::to_vec(claims).expect("claims are text and numbers");
    let signed = format!("{}.{}", key.header, BASE64URL_NOPAD.encode(&claims));
    let signature = key.key.sign(signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature.to_bytes()))
}

/// The first part of a token, by which its key is found; none where the text
/// cannot be a token at all.
pub(crate) fn header(token: &str) -> Option<&str> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    token.split_once('.').map(|(header, _)| header)
}

/// Checks the signature and reads the claims. The caller has found the key by
/// the header. Malleable signatures and weak keys are refused.
pub(crate) fn verify(key: &VerifyingKey, token: &str) -> Option<Claims> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (_, claims) = signed.split_once('.')?;
    let signature: [u8; 64] = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?.try_into().ok()?;
    key.verify_strict(signed.as_bytes(), &Signature::from_bytes(&signature)).ok()?;
    serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> NamedKey {
        NamedKey::new(SigningKey::from_bytes(&[seed; 32]))
    }

    fn claims() -> Claims {
        Claims { jti: Uuid::from_u128(7), sub: "1".to_owned(), iat: 1_700_000_000, exp: None }
    }

    #[test]
    fn a_token_is_read_back_and_fits_a_header() {
        let key = key(1);
        let token = sign(&key, &claims());
        assert_eq!(header(&token), Some(key.header()));
        assert_eq!(verify(&key.key.verifying_key(), &token), Some(claims()));
        assert!(token.len() < 400, "{}", token.len());
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
    }

    #[test]
    fn a_changed_token_is_refused() {
        let (key, other) = (key(1), key(2));
        let token = sign(&key, &claims());
        assert_eq!(verify(&other.key.verifying_key(), &token), None);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let same_header = header(&changed) == Some(key.header());
            let accepted = same_header && verify(&key.key.verifying_key(), &changed).is_some();
            assert!(!accepted, "a change at {at} was accepted");
        }
    }

    #[test]
    fn forms_that_are_no_token_are_refused() {
        let key = key(1);
        let token = sign(&key, &claims());
        let (signed, _) = token.rsplit_once('.').unwrap();
        let long = format!("{token}.{}", "a".repeat(2_000));
        for text in
            ["", ".", "..", "a.b", signed, &format!("{signed}."), &format!("{token}="), &format!("{token}.x")]
        {
            assert_eq!(verify(&key.key.verifying_key(), text), None, "{text}");
        }
        assert_eq!(header(&long), None);
    }

    #[test]
    fn another_algorithm_has_another_header() {
        let key = key(1);
        for alg in ["none", "HS256", "EdDSA "] {
            let forged = format!("{{\"alg\":\"{alg}\",\"kid\":\"{}\",\"typ\":\"JWT\"}}", key.kid);
            assert_ne!(BASE64URL_NOPAD.encode(forged.as_bytes()), key.header());
        }
    }
}

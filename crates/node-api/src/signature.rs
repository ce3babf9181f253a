//! How a request proves which node sent it.
//!
//! The node's key is its libp2p key, always Ed25519. The signed text is
//!
//! ```text
//! "pinfold/node-api/1" 00 len(service) service len(path) path
//!     session:u64 sequence:u64 sha256(body)
//! ```
//!
//! with every length and number a big-endian u64. It travels in four headers.

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

/// Header with the node's public key, 32 bytes in unpadded base64url.
pub const NODE_HEADER: &str = "pinfold-node";
/// Header with the session, decimal; 0 in a hello.
pub const SESSION_HEADER: &str = "pinfold-session";
/// Header with the sequence, decimal. It grows by at least one per request
/// within (session, path); in a hello it repeats `sent_at_ms`.
pub const SEQUENCE_HEADER: &str = "pinfold-sequence";
/// Header with the signature, 64 bytes in unpadded base64url.
pub const SIGNATURE_HEADER: &str = "pinfold-signature";

const DOMAIN: &[u8] = b"pinfold/node-api/1\0";

/// What a signature covers besides the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context<'a> {
    /// The service's id, from `GET /node/v1/service`.
    pub service: &'a str,
    /// The request's path.
    pub path: &'a str,
    /// The session, 0 in a hello.
    pub session: i64,
    /// The request's number.
    pub sequence: i64,
}

/// Why a signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The key header is not an Ed25519 key.
    #[error("the node key is not 32 bytes of an Ed25519 key in base64url")]
    Key,
    /// The signature header has another form.
    #[error("the signature is not 64 bytes in base64url")]
    Form,
    /// The signature does not belong to this request, key and service.
    #[error("the signature does not match the request; sign for this service, path and body")]
    Mismatch,
}

/// Signs a request; the value of [`SIGNATURE_HEADER`].
#[must_use]
pub fn sign(key: &SigningKey, context: Context<'_>, body: &[u8]) -> String {
    BASE64URL_NOPAD.encode(&key.sign(&signed_text(context, body)).to_bytes())
}

/// The value of [`NODE_HEADER`] for a key.
#[must_use]
pub fn encode_key(key: &VerifyingKey) -> String {
    BASE64URL_NOPAD.encode(key.as_bytes())
}

/// Verifies a request and returns the node's public key.
///
/// # Errors
/// When the key or the signature is malformed or does not match. Weak keys
/// and malleable signatures are refused.
pub fn verify(
    key: &str,
    signature: &str,
    context: Context<'_>,
    body: &[u8],
) -> Result<[u8; 32], SignatureError> {
    let bytes: [u8; 32] = decode(key).ok_or(SignatureError::Key)?;
    let verifier = VerifyingKey::from_bytes(&bytes).map_err(|_| SignatureError::Key)?;
    let signature: [u8; 64] = decode(signature).ok_or(SignatureError::Form)?;
    verifier
        .verify_strict(&signed_text(context, body), &Signature::from_bytes(&signature))
        .map_err(|_| SignatureError::Mismatch)?;
    Ok(bytes)
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()
}

fn signed_text(context: Context<'_>, body: &[u8]) -> Vec<u8> {
    let mut text = DOMAIN.to_vec();
    for part in [context.service, context.path] {
        text.extend((part.len() as u64).to_be_bytes());
        text.extend(part.as_bytes());
    }
    text.extend(context.session.to_be_bytes());
    text.extend(context.sequence.to_be_bytes());
    text.extend(Sha256::digest(body));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context<'static> =
        Context { service: "service", path: "/node/v1/pull", session: 7, sequence: 9 };

    #[test]
    fn a_signature_is_bound_to_everything_that_it_covers() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let name = encode_key(&key.verifying_key());
        let signature = sign(&key, CONTEXT, b"body");
        assert_eq!(verify(&name, &signature, CONTEXT, b"body"), Ok(key.verifying_key().to_bytes()));
        for other in [
            Context { service: "other", ..CONTEXT },
            Context { path: "/node/v1/report", ..CONTEXT },
            Context { session: 8, ..CONTEXT },
            Context { sequence: 10, ..CONTEXT },
        ] {
            assert_eq!(verify(&name, &signature, other, b"body"), Err(SignatureError::Mismatch));
        }
        assert_eq!(verify(&name, &signature, CONTEXT, b"bodies"), Err(SignatureError::Mismatch));
        assert_eq!(verify("AA", &signature, CONTEXT, b"body"), Err(SignatureError::Key));
        assert_eq!(verify(&name, "AA", CONTEXT, b"body"), Err(SignatureError::Form));
    }
}

//! Access tokens: how they are made, sealed, checked and remembered.
//!
//! A token is a JWT signed with Ed25519. It is shown once; the database keeps
//! its SHA-256, its scopes and its end, and is asked on every request, so that a
//! revoked token is refused at once by every process. The signature is what
//! keeps strangers from asking the database at all.
//!
//! [`secret`] is the file that seals the signing keys, [`keyring`] the keys,
//! [`jws`] the format, [`verifier`] the check.

pub(crate) mod jws;
pub mod keyring;
pub mod secret;
pub(crate) mod verifier;

pub use keyring::{Keyring, KeyringError};
pub use secret::{Secret, SecretError};

use uuid::Uuid;

use crate::db::{self, AccountId, Database, Millis, Scope, Token};

/// What a new token is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The account that it acts for.
    pub account: AccountId,
    /// What its owner calls it, at most [`MAX_NAME`] characters.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it ends by itself, in milliseconds since 1970.
    pub expires: Option<Millis>,
}

/// Characters of a token's name.
pub const MAX_NAME: usize = 255;

/// A token just made. Its text exists nowhere else.
#[derive(Clone, Debug)]
pub struct Issued {
    /// What the client sends.
    pub text: String,
    /// What is kept of it.
    pub token: Token,
}

/// Makes a token and stores what is kept of it, with `actor` as who did it in
/// the audit table.
///
/// # Errors
/// When there is no such account, or the database fails.
pub async fn issue(
    database: &Database,
    keyring: &Keyring,
    request: TokenRequest,
    actor: &str,
) -> db::Result<Issued> {
    let id = Uuid::now_v7();
    let claims = jws::Claims {
        jti: id,
        sub: request.account.to_string(),
        iat: jiff::Timestamp::now().as_second(),
        // Rounded up: the database's own end, in milliseconds, is decisive.
        exp: request.expires.map(|end| end.div_euclid(1_000) + 1),
    };
    let text = jws::sign(&keyring.signing_key(), &claims);
    let token = Token {
        id,
        account: request.account,
        name: request.name,
        scopes: request.scopes,
        hash: jws::hash(&text),
        created: 0,
        expires: request.expires,
        last_used: None,
        revoked: None,
    };
    Ok(Issued { token: database.create_token(token, actor).await?, text })
}

//! The check of a token on a request.

use std::collections::HashMap;

use parking_lot::Mutex;
use uuid::Uuid;

use super::{jws, keyring::Keyring};
use crate::{
    api::error::{ACCOUNT_DISABLED, ApiError},
    db::{Access, Database, Millis},
};

/// Verified signatures that are remembered, twice this at most: about 2 MiB.
const REMEMBERED: usize = 8_192;

/// Checks tokens: the signature by the keys, everything else by the database.
pub(crate) struct Verifier {
    keyring: Keyring,
    database: Database,
    verified: Mutex<Generations>,
}

const NOT_VALID: &str = "the access token is not valid; make a new one";

impl Verifier {
    pub(crate) fn new(database: Database, keyring: Keyring) -> Self {
        Self { keyring, database, verified: Mutex::new(Generations::default()) }
    }

    /// The keys, with which tokens are made.
    pub(crate) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// What the token may do now, by the clock given.
    ///
    /// # Errors
    /// `Unauthorized` when it is not ours, expired or revoked; `Forbidden` when
    /// its account is disabled.
    pub(crate) async fn access(&self, token: &str, now: Millis) -> Result<Access, ApiError> {
        let hash = jws::hash(token);
        let Some(jti) = self.signed(token, hash).await? else {
            return Err(ApiError::Unauthorized(NOT_VALID));
        };
        let access = self.database.access(jti).await?.filter(|access| access.token.hash == hash);
        let access = access.ok_or(ApiError::Unauthorized(NOT_VALID))?;
        if access.token.revoked.is_some() {
            return Err(ApiError::Unauthorized("the access token was revoked; make a new one"));
        }
        if access.token.expires.is_some_and(|end| end <= now) {
            return Err(ApiError::Unauthorized("the access token has expired; make a new one"));
        }
        if access.account_disabled {
            return Err(ApiError::Forbidden(ACCOUNT_DISABLED.into()));
        }
        Ok(access)
    }

    /// The token's id, if one of our keys signed it.
    async fn signed(&self, token: &str, hash: [u8; 32]) -> Result<Option<Uuid>, ApiError> {
        let Some(header) = jws::header(token) else { return Ok(None) };
        let key = self.keyring.find(header).await.map_err(ApiError::internal)?;
        let Some(key) = key else { return Ok(None) };
        if let Some(jti) = self.verified.lock().get(&hash) {
            return Ok(Some(jti));
        }
        let jti = jws::verify(&key, token).map(|claims| claims.jti);
        if let Some(jti) = jti {
            self.verified.lock().insert(hash, jti);
        }
        Ok(jti)
    }
}

/// A bounded memory: when the young half is full, it becomes the old half and
/// what was old is forgotten, unless it is asked for.
#[derive(Default)]
struct Generations {
    young: HashMap<[u8; 32], Uuid>,
    old: HashMap<[u8; 32], Uuid>,
}

impl Generations {
    fn get(&mut self, hash: &[u8; 32]) -> Option<Uuid> {
        if let Some(jti) = self.young.get(hash) {
            return Some(*jti);
        }
        let jti = self.old.remove(hash)?;
        self.insert(*hash, jti);
        Some(jti)
    }

    fn insert(&mut self, hash: [u8; 32], jti: Uuid) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, jti);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> [u8; 32] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        key
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_is_used() {
        let mut generations = Generations::default();
        for n in 0..10 * REMEMBERED {
            generations.insert(key(n), Uuid::from_u128(n as u128));
            assert_eq!(generations.get(&key(0)), Some(Uuid::nil()), "after {n}");
        }
        assert!(generations.young.len() + generations.old.len() <= 2 * REMEMBERED);
        assert_eq!(generations.get(&key(1)), None);
    }
}

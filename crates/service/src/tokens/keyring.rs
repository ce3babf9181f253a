//! The token-signing keys: sealed in the database, several valid at once.
//!
//! The newest key that is not retired signs; all of them verify, so that a
//! rotation leaves tokens valid until they are revoked or their key is removed.
//! Other processes rotate too: a key that is not known is looked up in the
//! database, at most once a second.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::{SigningKey, VerifyingKey};
use parking_lot::RwLock;

use super::{
    jws::NamedKey,
    secret::{Secret, SecretError},
};
use crate::db::{self, Database, SealedKey};

/// Between two looks into the database for a key that is not known.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A key cannot be opened or sealed.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The database failed.
    #[error("the token keys cannot be read or stored: {0}")]
    Database(#[from] db::Error),
    /// Every key was retired and none put in its place.
    #[error("every token key is retired; make a new one")]
    NoKey,
}

/// The keys of a service. Cheap to clone.
#[derive(Clone)]
pub struct Keyring {
    database: Database,
    secret: Secret,
    state: Arc<RwLock<State>>,
}

struct State {
    by_header: HashMap<String, VerifyingKey>,
    signing: NamedKey,
    loaded: Instant,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.state.read().by_header.len())
    }
}

impl Keyring {
    /// Opens the keys of a database, making the first one where there is none.
    ///
    /// # Errors
    /// When the secret is not the one that sealed them, or the database fails.
    pub async fn open(database: Database, secret: Secret) -> Result<Self, KeyringError> {
        if database.keys().await?.is_empty() {
            // Another process may be first; then its key is the one.
            database.add_first_key(new_key(&secret)?).await?;
        }
        let state = load(&database, &secret).await?;
        Ok(Self { database, secret, state: Arc::new(RwLock::new(state)) })
    }

    /// Begins anew after the secret was lost: every key that it sealed is
    /// removed, and the tokens signed with them end.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_anew(database: Database, secret: Secret) -> Result<Self, KeyringError> {
        database.rotate_keys(new_key(&secret)?, true).await?;
        Self::open(database, secret).await
    }

    /// Makes a new signing key and retires the others, whose tokens stay valid.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rotate(&self) -> Result<(), KeyringError> {
        self.database.rotate_keys(new_key(&self.secret)?, false).await?;
        self.reload().await
    }

    /// Reads the keys again: what another process added or removed.
    ///
    /// # Errors
    /// When the secret is not the one that sealed them, or the database fails.
    pub async fn reload(&self) -> Result<(), KeyringError> {
        let state = load(&self.database, &self.secret).await?;
        *self.state.write() = state;
        Ok(())
    }

    pub(super) fn signing_key(&self) -> NamedKey {
        self.state.read().signing.clone()
    }

    /// The key that writes this header, if there is one.
    pub(super) async fn find(&self, header: &str) -> Result<Option<VerifyingKey>, KeyringError> {
        if let Some(key) = self.known(header) {
            return Ok(Some(key));
        }
        if !self.may_reload() {
            return Ok(None);
        }
        self.reload().await?;
        Ok(self.known(header))
    }

    /// Whether the key that writes this header is still known.
    pub(super) fn known(&self, header: &str) -> Option<VerifyingKey> {
        self.state.read().by_header.get(header).copied()
    }

    /// True once a pause; so a flood of bad tokens costs one read a second.
    fn may_reload(&self) -> bool {
        let mut state = self.state.write();
        let due = state.loaded.elapsed() >= RELOAD_PAUSE;
        if due {
            state.loaded = Instant::now();
        }
        due
    }
}

fn sealed_name(kid: &str) -> String {
    format!("pinfold/token-key/1/{kid}")
}

fn new_key(secret: &Secret) -> Result<SealedKey, SecretError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(SecretError::Random)?;
    let key = NamedKey::new(SigningKey::from_bytes(&seed));
    let sealed = secret.seal(&sealed_name(&key.kid), &seed)?;
    let created = jiff::Timestamp::now().as_millisecond();
    Ok(SealedKey { kid: key.kid, sealed, created, retired: None })
}

fn open_key(secret: &Secret, sealed: &SealedKey) -> Result<NamedKey, SecretError> {
    let seed = secret.open(&sealed_name(&sealed.kid), &sealed.sealed)?;
    let seed: [u8; 32] = seed.try_into().map_err(|_| SecretError::Foreign)?;
    let key = NamedKey::new(SigningKey::from_bytes(&seed));
    if key.kid == sealed.kid { Ok(key) } else { Err(SecretError::Foreign) }
}

async fn load(database: &Database, secret: &Secret) -> Result<State, KeyringError> {
    let mut by_header = HashMap::new();
    let mut signing = None;
    for sealed in database.keys().await? {
        let key = open_key(secret, &sealed)?;
        by_header.insert(key.header().to_owned(), key.key.verifying_key());
        if sealed.retired.is_none() {
            signing = Some(key);
        }
    }
    let signing = signing.ok_or(KeyringError::NoKey)?;
    Ok(State { by_header, signing, loaded: Instant::now() })
}

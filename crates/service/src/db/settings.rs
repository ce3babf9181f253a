//! What a database is opened with.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use super::types::Millis;

/// A source of the time in milliseconds since 1970, for tests.
pub type Clock = Arc<dyn Fn() -> Millis + Send + Sync>;

/// Where the data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// An SQLite file, made where it does not exist.
    Sqlite(PathBuf),
    /// A PostgreSQL URL, `postgres://user:password@host/database`, with
    /// `?sslmode=verify-full` and `sslrootcert=FILE` where TLS is to be checked.
    Postgres(String),
}

/// What a database is opened with. [`Settings::new`] has the defaults of
/// `pinfold service`.
#[derive(Clone)]
pub struct Settings {
    /// Where the data is.
    pub location: Location,
    /// Who it is that uses the database, as the audit table names them.
    pub actor: String,
    /// Whether [`super::Database::open`] migrates an older schema.
    pub migrate: bool,
    /// Durable copies that make a content `pinned`, at least 1.
    pub replicas_min: u32,
    /// Durable copies wanted, at least [`Self::replicas_min`].
    pub replicas_target: u32,
    /// A node that was silent for longer has its contents allocated anew.
    pub repair_after: Duration,
    /// A node that was silent for longer is given no work.
    pub node_live: Duration,
    /// How long a pin may go without progress.
    pub pin_deadline: Duration,
    /// Pins that an account may have queued.
    pub max_queued: u64,
    /// Contents that are fetched at once for an account; the rest waits for
    /// its turn.
    pub max_pinning: u32,
    /// Bytes of a new account's quota.
    pub free_quota: u64,
    /// Longest time of one read.
    pub query_timeout: Duration,
    /// Connections to PostgreSQL, or reading threads of SQLite.
    pub pool: usize,
    /// Replaces the database's clock in tests.
    pub clock: Option<Clock>,
}

impl Settings {
    /// The defaults, for a database at this place.
    #[must_use]
    pub fn new(location: Location) -> Self {
        Self {
            location,
            actor: "service".to_owned(),
            migrate: true,
            replicas_min: 2,
            replicas_target: 3,
            repair_after: Duration::from_secs(4 * 3600),
            node_live: Duration::from_secs(90),
            pin_deadline: Duration::from_secs(24 * 3600),
            max_queued: 100_000,
            max_pinning: 64,
            free_quota: 20_000_000_000,
            query_timeout: Duration::from_secs(5),
            pool: 8,
            clock: None,
        }
    }
}

impl fmt::Debug for Settings {
    /// Leaves out the location, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("replicas_min", &self.replicas_min)
            .field("replicas_target", &self.replicas_target)
            .field("pin_deadline", &self.pin_deadline)
            .field("max_queued", &self.max_queued)
            .field("max_pinning", &self.max_pinning)
            .finish_non_exhaustive()
    }
}

//! What can go wrong in the data layer, one enum per concern.

use std::{error::Error as _, sync::Arc};

use deadpool_postgres::{HookError, PoolError};
use rusqlite::ErrorCode;
use tokio_postgres::error::SqlState;

use super::types::MAX_PINS_OF_A_ROOT;

/// Why a pin was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinRefusal {
    /// The account is over its quota.
    #[error("the account uses {used} of its {quota} bytes")]
    OverQuota {
        /// Charged and reserved.
        used: u64,
        /// The limit.
        quota: u64,
    },
    /// The CID is on the denylist.
    #[error("the CID is on the denylist")]
    Denied,
    /// The pin to replace does not exist in this account.
    #[error("no such pin")]
    NotFound,
    /// [`MAX_PINS_OF_A_ROOT`] reached.
    #[error("the account has {MAX_PINS_OF_A_ROOT} pins of this root already")]
    TooManyOfRoot,
    /// The account's queue is full.
    #[error("the account has {queued} queued pins, the limit")]
    QueueFull {
        /// Its queued pins.
        queued: u64,
    },
    /// `created` would run more than an hour ahead of the clock.
    #[error("pins arrive faster than one a millisecond for more than an hour")]
    TooFast,
    /// No node was ever known.
    #[error("no storage node is known yet")]
    NoNode,
    /// The account is disabled or removed.
    #[error("the account is disabled")]
    AccountDisabled,
}

/// Why a node's request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeRefusal {
    /// No node has this key.
    #[error("no node with this key is known; the operator adds it with --operator-node")]
    Unknown,
    /// A later hello opened another session.
    #[error("the session has ended; send a hello")]
    OldSession,
    /// The sequence was used before.
    #[error("the request was seen before")]
    Replayed,
}

/// Why an operation on an account or a token was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountRefusal {
    /// There is no such account.
    #[error("no such account")]
    NotFound,
    /// The name is taken.
    #[error("an account with this name exists; choose another name")]
    NameTaken,
    /// There is no such token.
    #[error("no such token")]
    NoSuchToken,
}

/// Why an operation on the database did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pin was refused.
    #[error(transparent)]
    Pin(#[from] PinRefusal),
    /// The node's request was refused.
    #[error(transparent)]
    Node(#[from] NodeRefusal),
    /// The operation on the account or token was refused.
    #[error(transparent)]
    Account(#[from] AccountRefusal),
    /// A value that the database cannot hold; says which.
    #[error("{0}")]
    Invalid(String),
    /// The query ran into its time limit.
    #[error("the query took longer than its time limit; narrow its filters")]
    QueryTooLong,
    /// Too much is waiting for the database.
    #[error("the database has too many requests waiting; try again in a moment")]
    Busy,
    /// The database was closed while the request waited.
    #[error("the database is closed")]
    Closed,
    /// The schema is another one than this version can use.
    #[error("{0}")]
    Schema(String),
    /// The database holds something that this version cannot read.
    #[error("the database holds {0}; run `pinfold check`")]
    Corrupt(String),
    /// SQLite failed.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL failed.
    #[error("PostgreSQL: {}", told(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// No connection to PostgreSQL could be had.
    #[error("cannot connect to PostgreSQL: {0}; check that it runs and that the URL is right")]
    Pool(String),
    /// A file could not be read or written.
    #[error("{what}: {source}")]
    File {
        /// What was done, to which file.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Another transaction changed what this one had read before it could lock
    /// it. Repeated by the data layer; told when that did not help.
    #[error("other requests change the same pins; try again in a moment")]
    Raced,
    /// SQLite gave up the transaction, of which nothing is left.
    #[error("SQLite ended the transaction; is the disk full?")]
    Ended,
    /// The transaction failed, as did all those in its batch.
    #[error("the transaction was not committed: {0}")]
    NotCommitted(#[source] Arc<Error>),
}

impl Error {
    /// Whether the database cannot be reached or is overloaded, so that the
    /// same request may succeed a little later.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Busy | Self::Closed | Self::Raced | Self::Ended | Self::NotCommitted(_))
            || self.is_unreachable()
            || self.is_of_the_disk()
    }

    /// Whether the disk below SQLite is full or fails: nothing of the request
    /// was kept, and it may succeed once the disk is well.
    #[must_use]
    pub fn is_of_the_disk(&self) -> bool {
        match self {
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen)
            ),
            // SQLite ends a transaction by itself for that, as a rule.
            Self::Ended => true,
            Self::NotCommitted(cause) => cause.is_of_the_disk(),
            _ => false,
        }
    }

    /// Whether the database went away before or while it was asked: it is
    /// down, starting, or being restarted.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Pool(_) => true,
            Self::Postgres(error) => is_cut(error),
            Self::NotCommitted(cause) => cause.is_unreachable(),
            _ => false,
        }
    }
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Self {
        Self::Pool(match error {
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => told(&error),
            PoolError::Timeout(_) => "none of the connections became free in time".to_owned(),
            other => other.to_string(),
        })
    }
}

/// What the driver leaves to the causes of its errors: what the server said,
/// or the system.
fn told(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => format!("{}: {} ({})", said.severity(), said.message(), said.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// Whether the connection is gone, and not the statement at fault.
fn is_cut(error: &tokio_postgres::Error) -> bool {
    const WORDS: [SqlState; 3] =
        [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW];
    /// Connection exceptions, by the standard.
    const CLASS: &str = "08";
    let told = error.code().is_some_and(|code| WORDS.contains(code) || code.code().starts_with(CLASS));
    told || error.is_closed() || error.source().is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// The result of an operation on the database.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_said_of_a_connection_is_told() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Nobody listens on port 1.
        let failed =
            runtime.block_on(tokio_postgres::connect("postgres://x@127.0.0.1:1/x", tokio_postgres::NoTls));
        let Err(error) = failed else { panic!("there is a server on port 1") };
        assert!(told(&error).contains("refused"), "{}", told(&error));
        assert!(Error::from(error).to_string().contains("refused"));
        let parsed = "postgres://x/y?port=none".parse::<tokio_postgres::Config>();
        let text = Error::from(PoolError::Backend(parsed.unwrap_err())).to_string();
        assert!(text.contains("invalid connection string: "), "{text}");
    }

    #[test]
    fn a_batch_is_as_reachable_as_its_database() {
        let batch = |cause| Error::NotCommitted(Arc::new(cause));
        for (error, unreachable) in [
            (Error::Pool("refused".into()), true),
            (batch(Error::Pool("refused".into())), true),
            (batch(Error::Ended), false),
            (Error::Busy, false),
            (Error::Corrupt("nonsense".into()), false),
        ] {
            assert_eq!(error.is_unreachable(), unreachable, "{error}");
            assert!(!unreachable || error.is_unavailable(), "{error}");
        }
    }

    #[test]
    fn a_full_or_bad_disk_is_told_from_a_mistake() {
        let sqlite =
            |code| Error::Sqlite(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        for (code, is_disk) in [
            (rusqlite::ffi::SQLITE_FULL, true),
            (rusqlite::ffi::SQLITE_IOERR_FSYNC, true),
            (rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE, false),
            (rusqlite::ffi::SQLITE_CORRUPT, false),
        ] {
            assert_eq!(Error::NotCommitted(Arc::new(sqlite(code))).is_of_the_disk(), is_disk, "{code}");
            assert_eq!(sqlite(code).is_unavailable(), is_disk, "{code}");
        }
    }
}

//! The data layer: [`Database`], on SQLite or PostgreSQL.
//!
//! One text of SQL and one implementation of the data logic serve both
//! databases, over the small [`tx::Tx`]; two thin drivers are below it
//! ([`sqlite`] by rusqlite, [`postgres`] by tokio-postgres). So the same tests
//! prove both. sqlx is not used: its Any driver costs twice the time (no
//! prepared writer, no arrays, no LISTEN), and typed it would need every
//! statement twice.
//!
//! | module | what lives there |
//! |---|---|
//! | [`engine`] | transactions: batches, readers, repetition, notices |
//! | [`mod@unit`], [`ahead`], [`order`] | what a transaction has locked and changes |
//! | [`pins`], [`list`], [`records`] | adding, replacing, removing, listing, reading pins |
//! | [`effects`] | what follows for pins and accounts when a fact changes |
//! | [`tally`] | exact counts in the time of a page |
//! | [`grants`], [`ledger`], [`holding`] | quota |
//! | [`placement`], [`nodes`], [`events`], [`mod@turns`] | who fetches and holds what |
//! | [`facade`] | the methods of [`Database`], by concern |
//! | [`accounts`], [`tokens`], [`operator`], [`denylist`], [`property`] | the operator's side |
//! | [`jobs`] | deadlines, repair, retention: the row is the job |
//! | [`instances`] | which services live |
//! | [`inventories`] | what nodes hold beyond a restored database |
//! | [`schema`], [`backup`], [`check`] | migrations, copies, the recount |
//!
//! What was answered is on disk: a result comes after the commit. A status is
//! never set; it follows from facts by [`pinfold_core::status::derive`] and is
//! stored for listing in the transaction of the fact.

mod accounts;
mod ahead;
mod backup;
mod check;
mod content;
mod denylist;
mod effects;
mod engine;
mod error;
mod events;
mod facade;
mod grants;
mod holding;
mod instances;
mod inventories;
mod jobs;
mod ledger;
mod list;
mod nodes;
mod operator;
mod order;
mod pins;
mod placement;
mod postgres;
mod property;
mod records;
mod schema;
mod settings;
mod sql;
mod sqlite;
mod tally;
mod tokens;
mod turns;
mod tx;
mod types;
mod unit;
mod validate;

use std::{collections::HashMap, path::Path, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use engine::Engine;
pub use error::{Error, Result};
pub use settings::{Clock, Location, Settings};
pub use types::*;

/// The most rows of one answer.
const MAX_ROWS: u32 = 1_000;

/// Tokens whose last use is remembered, so that it is not written again within
/// the minute.
const MAX_USED: usize = 10_000;

/// The service's data, on SQLite or PostgreSQL. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    engine: Arc<Engine>,
    settings: Arc<Settings>,
    schema: i64,
    owner: Arc<Owner>,
}

/// What ends with the last [`Database`].
struct Owner {
    stop: CancellationToken,
    tasks: TaskTracker,
    used: Mutex<HashMap<Uuid, Millis>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Owner {
    /// Whether this use of a token is to be written.
    fn note_use(&self, token: &Token, now: Millis) -> bool {
        let mut used = self.used.lock();
        let last = used.get(&token.id).copied().max(token.last_used).unwrap_or(0);
        if now - last < tokens::USE_MS {
            return false;
        }
        if used.len() >= MAX_USED {
            used.clear();
        }
        used.insert(token.id, now);
        true
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn rows(limit: u32) -> i64 {
    i64::from(limit.clamp(1, MAX_ROWS))
}

/// Gives turns as they become free.
async fn turns(engine: Arc<Engine>, stop: CancellationToken) {
    let freed = engine.freed();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = freed.notified() => {}
        }
        if let Err(error) = jobs::give_turns(&engine).await {
            tracing::warn!(%error, "free turns were not given; the next job does it");
        }
    }
}

impl Database {
    /// Opens the database, creating it where it does not exist, and migrates the
    /// schema when [`Settings::migrate`] says so.
    ///
    /// # Errors
    /// [`Error::Schema`] when the schema is newer than this version, or older and
    /// not to be migrated.
    pub async fn open(settings: Settings) -> Result<Self> {
        if settings.replicas_min == 0 || settings.replicas_target < settings.replicas_min {
            return Err(Error::Invalid(format!(
                "{} of {} replicas cannot be kept; the minimum is 1, the target no less than the minimum",
                settings.replicas_min, settings.replicas_target
            )));
        }
        let settings = Arc::new(settings);
        let schema = schema::prepare(&settings, settings.migrate).await?;
        let engine = Arc::new(Engine::open(Arc::clone(&settings)).await?);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(turns(Arc::clone(&engine), stop.clone()));
        let owner = Arc::new(Owner { stop, tasks, used: Mutex::default() });
        Ok(Self { engine, settings, schema, owner })
    }

    /// Migrates the schema to this version's and returns its number. Safe to run
    /// from several processes at once.
    pub async fn migrate(settings: &Settings) -> Result<i64> {
        schema::prepare(&Arc::new(settings.clone()), true).await
    }

    /// Waits until what was accepted is committed and closes the connections.
    /// Later calls answer [`Error::Closed`].
    pub async fn close(&self) {
        self.owner.stop.cancel();
        self.owner.tasks.close();
        self.owner.tasks.wait().await;
        self.engine.close().await;
    }

    /// Copies the database into a new file while it is in use (SQLite); `told`
    /// how many of its pages are copied, and of how many.
    ///
    /// # Errors
    /// When the file exists, cannot be written, or the database is PostgreSQL,
    /// which has its own tools.
    pub async fn backup(&self, file: &Path, told: impl Fn(u64, u64) + Send + 'static) -> Result<()> {
        let (settings, file) = (Arc::clone(&self.settings), file.to_owned());
        let copied = tokio::task::spawn_blocking(move || backup::backup(&settings, &file, &told));
        copied.await.map_err(|_| Error::Closed)?
    }

    /// Puts a backup in the place of the database, which must not be open or must
    /// not exist, with a new generation; `told` how many pages are copied, and of
    /// how many.
    ///
    /// # Errors
    /// When the place is taken by a database that is not empty, or the backup is
    /// damaged or of a newer schema.
    pub async fn restore(
        backup: &Path,
        settings: &Settings,
        told: impl Fn(u64, u64) + Send + 'static,
    ) -> Result<()> {
        backup::restore(backup, &Arc::new(settings.clone()), told).await
    }

    /// Begins a new generation, after PostgreSQL was restored with its own tools;
    /// [`Self::restore`] does so by itself. Answers the new one.
    pub async fn begin_generation(&self) -> Result<i64> {
        self.engine.write(move |tx| Box::pin(schema::new_generation(tx, "PostgreSQL"))).await
    }

    /// What nodes hold and this database does not know, as found by their
    /// inventories since a restore.
    pub async fn strays(&self) -> Result<Strays> {
        self.engine.read(move |tx| Box::pin(inventories::strays(tx))).await
    }

    /// Has nodes delete their [`Self::strays`]. The operator's decision; answers
    /// how many contents it concerns.
    ///
    /// # Errors
    /// [`Error::Invalid`] while the inventory of a live node is not in.
    pub async fn release_strays(&self) -> Result<u64> {
        self.engine.write(move |tx| Box::pin(inventories::release(tx))).await
    }

    /// Counts restores from a backup, from 1.
    pub async fn database_generation(&self) -> Result<i64> {
        self.engine.look_up(move |tx| Box::pin(property::number(tx, "generation"))).await
    }

    /// Recounts everything that is stored twice and says what differs. Shares no
    /// SQL with what writes.
    pub async fn check(&self) -> Result<CheckReport> {
        self.check_telling(|_, _| ()).await
    }

    /// The same; `told` how many of the recounts are done, and of how many.
    pub async fn check_telling(
        &self,
        told: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<CheckReport> {
        let told: Arc<dyn Fn(u64, u64) + Send + Sync> = Arc::new(told);
        self.engine
            .read(move |tx| {
                let told = Arc::clone(&told);
                Box::pin(async move { check::check(tx, &*told).await })
            })
            .await
    }

    /// Whether this process may serve.
    pub async fn health(&self) -> Result<Health> {
        let schema = self.schema;
        self.engine
            .read(move |tx| {
                let now = tx.now();
                Box::pin(operator::health(tx, schema, now))
            })
            .await
    }

    /// Totals for metrics.
    pub async fn totals(&self) -> Result<Totals> {
        self.engine.read(move |tx| Box::pin(operator::totals(tx))).await
    }

    /// Changes as they are committed, by this process and (on PostgreSQL, within
    /// a second) by others. A receiver that lags loses the oldest: it reads again
    /// whatever it watches.
    pub fn subscribe(&self) -> broadcast::Receiver<Changed> {
        self.engine.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_of_a_token_are_noted_once_a_minute() {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let owner = Owner { stop, tasks, used: Mutex::default() };
        let mut token = Token {
            id: Uuid::from_u128(1),
            account: 1,
            name: String::new(),
            scopes: Vec::new(),
            hash: [0; 32],
            created: 0,
            expires: None,
            last_used: None,
            revoked: None,
        };
        let start = 10 * tokens::USE_MS;
        assert!(owner.note_use(&token, start));
        assert!(!owner.note_use(&token, start + tokens::USE_MS - 1));
        assert!(owner.note_use(&token, start + tokens::USE_MS));
        // Another process has noted it since.
        token.last_used = Some(start + 2 * tokens::USE_MS);
        assert!(!owner.note_use(&token, start + 2 * tokens::USE_MS + 1));
        token.id = Uuid::from_u128(2);
        assert!(owner.note_use(&token, start + 3 * tokens::USE_MS));
    }
}

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
//! | [`unit`] | what a transaction has locked and changes |
//! | [`pins`], [`list`], [`records`] | adding, replacing, removing, listing, reading pins |
//! | [`effects`] | what follows for pins and accounts when a fact changes |
//! | [`tally`] | exact counts in the time of a page |
//! | [`grants`], [`ledger`], [`holding`] | quota |
//! | [`placement`], [`nodes`], [`events`], [`turns`] | who fetches and holds what |
//! | [`accounts`], [`tokens`], [`operator`], [`property`] | the operator's side |
//! | [`jobs`] | deadlines, repair, retention: the row is the job |
//! | [`schema`], [`backup`], [`check`] | migrations, copies, the recount |
//!
//! What was answered is on disk: a result comes after the commit. A status is
//! never set; it follows from facts by [`pinfold_core::status::derive`] and is
//! stored for listing in the transaction of the fact.

mod accounts;
mod backup;
mod check;
mod content;
mod effects;
mod engine;
mod error;
mod events;
mod grants;
mod holding;
mod jobs;
mod ledger;
mod list;
mod nodes;
mod operator;
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
use pinfold_node_api::{Inventory, InventoryAck, Pull, Pulled, Report, ReportAck};
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
    async fn mark(&self, contents: &[i64], denied: bool) -> Result<u64> {
        let contents: Vec<i64> = contents.iter().copied().take(MAX_ROWS as usize).collect();
        let contents = Arc::new(contents);
        self.engine
            .write(move |tx| {
                let contents = Arc::clone(&contents);
                Box::pin(async move { operator::deny(tx, &contents, denied).await })
            })
            .await
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
        let owner = Arc::new(Owner { stop: stop, tasks, used: Mutex::default() });
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

    /// Copies the database into a new file while it is in use (SQLite).
    ///
    /// # Errors
    /// When the file exists, cannot be written, or the database is PostgreSQL,
    /// which has its own tools.
    pub async fn backup(&self, file: &Path) -> Result<()> {
        let (settings, file) = (Arc::clone(&self.settings), file.to_owned());
        let copied = tokio::task::spawn_blocking(move || backup::backup(&settings, &file));
        copied.await.map_err(|_| Error::Closed)?
    }

    /// Puts a backup in the place of the database, which must not be open or must
    /// not exist, with a new generation.
    ///
    /// # Errors
    /// When the place is taken by a database that is not empty, or the backup is
    /// damaged or of a newer schema.
    pub async fn restore(backup: &Path, settings: &Settings) -> Result<()> {
        backup::restore(backup, &Arc::new(settings.clone())).await
    }

    /// Begins a new generation, after PostgreSQL was restored with its own tools;
    /// [`Self::restore`] does so by itself. Answers the new one.
    pub async fn begin_generation(&self) -> Result<i64> {
        self.engine.write(move |tx| Box::pin(schema::new_generation(tx))).await
    }

    /// Has nodes delete what they hold and this database does not know, as found
    /// by their inventories since a restore. The operator's decision; answers how
    /// many contents it concerns.
    pub async fn release_strays(&self) -> Result<u64> {
        self.engine.write(move |tx| Box::pin(operator::release_strays(tx))).await
    }

    /// Counts restores from a backup, from 1.
    pub async fn database_generation(&self) -> Result<i64> {
        self.engine.look_up(move |tx| Box::pin(property::number(tx, "generation"))).await
    }

    /// Recounts everything that is stored twice and says what differs. Shares no
    /// SQL with what writes.
    pub async fn check(&self) -> Result<CheckReport> {
        self.engine.read(move |tx| Box::pin(check::check(tx))).await
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

impl Database {
    /// Stores a pin durably, with its content, charges and allocations in one
    /// transaction.
    ///
    /// # Errors
    /// [`Error::Pin`] with the refusal; nothing is stored then.
    pub async fn add_pin(&self, pin: NewPin) -> Result<PinRecord> {
        validate::pin(&pin)?;
        self.engine.add(pin).await
    }

    /// Replaces the pin `old` of the same account in one transaction. What `old`
    /// held is kept until the new pin is pinned.
    ///
    /// # Errors
    /// As [`Self::add_pin`], and [`PinRefusal::NotFound`]; of two simultaneous
    /// replacements of one pin, one gets it.
    pub async fn replace_pin(&self, old: Uuid, pin: NewPin) -> Result<PinRecord> {
        validate::pin(&pin)?;
        {
            let pin = Arc::new(pin);
            self.engine
                .write(move |tx| {
                    let pin = Arc::clone(&pin);
                    Box::pin(async move { pins::replace(tx, old, &pin).await })
                })
                .await
        }
    }

    /// Removes a pin, and frees its quota where it was the account's last of its
    /// content.
    ///
    /// # Errors
    /// [`PinRefusal::NotFound`] when the account has no such pin.
    pub async fn delete_pin(&self, account: AccountId, requestid: Uuid) -> Result<()> {
        self.engine.write(move |tx| Box::pin(pins::remove(tx, account, requestid))).await
    }

    /// A pin of the account, if it exists.
    pub async fn pin(&self, account: AccountId, requestid: Uuid) -> Result<Option<PinRecord>> {
        self.engine.look_up(move |tx| Box::pin(records::of_account(tx, account, requestid))).await
    }

    /// Those of the given pins that exist (at most 1,000 are looked up), in any
    /// order: one read for all subscribers of live events.
    pub async fn pins(&self, requestids: &[Uuid]) -> Result<Vec<PinRecord>> {
        let requestids: Vec<Uuid> = requestids.iter().copied().take(MAX_ROWS as usize).collect();
        {
            let requestids = Arc::new(requestids);
            self.engine
                .read(move |tx| {
                    let requestids = Arc::clone(&requestids);
                    Box::pin(async move { records::some(tx, &requestids).await })
                })
                .await
        }
    }

    /// A page of an account's pins and their count, in one snapshot.
    ///
    /// # Errors
    /// [`Error::QueryTooLong`] when filters by name, meta or CID take too long.
    pub async fn list(&self, account: AccountId, query: ListQuery) -> Result<Page> {
        validate::query(&query)?;
        {
            let query = Arc::new(query);
            self.engine
                .read(move |tx| {
                    let query = Arc::clone(&query);
                    Box::pin(async move { list::list(tx, account, &query).await })
                })
                .await
        }
    }
}

impl Database {
    /// Makes an account; `quota` in bytes, [`Settings::free_quota`] where none is
    /// given.
    ///
    /// # Errors
    /// [`AccountRefusal::NameTaken`].
    pub async fn create_account(&self, name: &str, quota: Option<u64>) -> Result<Account> {
        let name = validate::name(name, "the account's name")?;
        let quota = quota.unwrap_or(self.settings.free_quota);
        {
            let name = Arc::new(name);
            self.engine
                .write(move |tx| {
                    let name = Arc::clone(&name);
                    Box::pin(async move { accounts::create(tx, &name, quota).await })
                })
                .await
        }
    }

    /// The account with this number.
    pub async fn account(&self, id: AccountId) -> Result<Option<Account>> {
        self.engine.look_up(move |tx| Box::pin(accounts::by_id(tx, id))).await
    }

    /// The account with this name.
    pub async fn account_by_name(&self, name: &str) -> Result<Option<Account>> {
        let name = name.to_owned();
        {
            let name = Arc::new(name);
            self.engine
                .look_up(move |tx| {
                    let name = Arc::clone(&name);
                    Box::pin(async move { accounts::by_name(tx, &name).await })
                })
                .await
        }
    }

    /// Accounts with numbers above `after`, ascending, at most 1,000.
    pub async fn accounts(&self, after: AccountId, limit: u32) -> Result<Vec<Account>> {
        let limit = rows(limit);
        self.engine.read(move |tx| Box::pin(accounts::some(tx, after, limit))).await
    }

    /// Sets the quota in bytes; what is held beyond it stays.
    ///
    /// # Errors
    /// [`AccountRefusal::NotFound`].
    pub async fn set_quota(&self, id: AccountId, quota: u64) -> Result<()> {
        self.engine.write(move |tx| Box::pin(accounts::set_quota(tx, id, quota))).await
    }

    /// Disables the account, whose tokens are then refused while its pins stay,
    /// or enables it again.
    ///
    /// # Errors
    /// [`AccountRefusal::NotFound`].
    pub async fn set_account_disabled(&self, id: AccountId, disabled: bool) -> Result<()> {
        self.engine.write(move |tx| Box::pin(accounts::set_disabled(tx, id, disabled))).await
    }

    /// Removes the account with its tokens and pins. Large ones take several
    /// transactions; a removal that was interrupted is finished by the service's
    /// own jobs.
    ///
    /// # Errors
    /// [`AccountRefusal::NotFound`].
    pub async fn remove_account(&self, id: AccountId) -> Result<()> {
        self.engine.write(move |tx| Box::pin(accounts::begin_removal(tx, id))).await?;
        while self.engine.write(move |tx| Box::pin(accounts::remove_part(tx, Some(id)))).await? > 0 {}
        Ok(())
    }

    /// The account's pins, oldest first, created after `after` (0 for the first
    /// part), at most 1,000.
    pub async fn export_pins(&self, id: AccountId, after: Millis, limit: u32) -> Result<Vec<PinRecord>> {
        self.engine.read(move |tx| Box::pin(list::export(tx, id, after, limit))).await
    }
}

impl Database {
    /// Stores a token; `created`, `last_used` and `revoked` are set by the
    /// database.
    ///
    /// # Errors
    /// [`AccountRefusal::NotFound`] when there is no such account.
    pub async fn create_token(&self, token: Token) -> Result<Token> {
        validate::name(&token.name, "the token's name")?;
        {
            let token = Arc::new(token);
            self.engine
                .write(move |tx| {
                    let token = Arc::clone(&token);
                    Box::pin(async move { tokens::create(tx, &token).await })
                })
                .await
        }
    }

    /// Tokens of an account, or of all, newest first, at most 10,000, revoked
    /// ones included.
    pub async fn tokens(&self, account: Option<AccountId>) -> Result<Vec<Token>> {
        self.engine.read(move |tx| Box::pin(tokens::some(tx, account))).await
    }

    /// Revokes a token at once, for every process. Revoking again changes
    /// nothing. With an account, only a token of that account.
    ///
    /// # Errors
    /// [`AccountRefusal::NoSuchToken`].
    pub async fn revoke_token(&self, id: Uuid, account: Option<AccountId>) -> Result<()> {
        self.engine.write(move |tx| Box::pin(tokens::revoke(tx, id, account))).await
    }

    /// What a token's `jti` resolves to; meant for every request. Reading it
    /// notes the use, at most once a minute, without waiting for that.
    pub async fn access(&self, id: Uuid) -> Result<Option<Access>> {
        let (access, now) = self.engine.look_up(move |tx| Box::pin(tokens::access_at(tx, id))).await?;
        if let Some(access) = &access
            && self.owner.note_use(&access.token, now)
        {
            let engine = Arc::clone(&self.engine);
            self.owner.tasks.spawn(async move {
                if let Err(error) = engine.write(move |tx| Box::pin(tokens::touch(tx, id))).await {
                    tracing::warn!(%error, "the use of a token was not noted");
                }
            });
        }
        Ok(access)
    }
}

impl Database {
    /// The sealed token-signing keys, oldest first.
    pub async fn keys(&self) -> Result<Vec<SealedKey>> {
        self.engine.read(move |tx| Box::pin(operator::keys(tx))).await
    }

    /// Stores a key. Where `only_if_none` is set and a key exists, nothing is
    /// stored; answers whether it was.
    pub async fn add_key(&self, key: SealedKey, only_if_none: bool) -> Result<bool> {
        validate::name(&key.kid, "the key's id")?;
        {
            let key = Arc::new(key);
            self.engine
                .write(move |tx| {
                    let key = Arc::clone(&key);
                    Box::pin(async move { operator::add_key(tx, &key, only_if_none).await })
                })
                .await
        }
    }

    /// Marks a key as signing no more; answers whether it exists.
    pub async fn retire_key(&self, kid: &str) -> Result<bool> {
        let kid = kid.to_owned();
        {
            let kid = Arc::new(kid);
            self.engine
                .write(move |tx| {
                    let kid = Arc::clone(&kid);
                    Box::pin(async move { operator::retire_key(tx, &kid).await })
                })
                .await
        }
    }

    /// Removes a key: its tokens end. Answers whether it existed.
    pub async fn remove_key(&self, kid: &str) -> Result<bool> {
        let kid = kid.to_owned();
        {
            let kid = Arc::new(kid);
            self.engine
                .write(move |tx| {
                    let kid = Arc::clone(&kid);
                    Box::pin(async move { operator::remove_key(tx, &kid).await })
                })
                .await
        }
    }

    /// The service's own id, made from `proposal` the first time.
    pub async fn service_id(&self, proposal: &str) -> Result<String> {
        let proposal = validate::name(proposal, "the service id")?;
        {
            let proposal = Arc::new(proposal);
            self.engine
                .write(move |tx| {
                    let proposal = Arc::clone(&proposal);
                    Box::pin(async move { property::set_once(tx, "service", &proposal).await })
                })
                .await
        }
    }

    /// Records a deed of the operator.
    pub async fn record_deed(&self, deed: Deed) -> Result<()> {
        let deed = Arc::new(deed);
        self.engine
            .write(move |tx| {
                let deed = Arc::clone(&deed);
                Box::pin(async move { operator::record_deed(tx, &deed).await })
            })
            .await
    }

    /// Deeds with numbers below `before` (`i64::MAX` for the newest), newest
    /// first, at most 1,000.
    pub async fn deeds(&self, before: i64, limit: u32) -> Result<Vec<Deed>> {
        let limit = rows(limit);
        self.engine.read(move |tx| Box::pin(operator::deeds(tx, before, limit))).await
    }
}

impl Database {
    /// Opens a session for a node and makes the node known.
    ///
    /// # Errors
    /// [`NodeRefusal::Replayed`] when `sent_at` is not above the last hello's.
    pub async fn hello(&self, hello: NodeHello) -> Result<Node> {
        validate::hello(&hello)?;
        {
            let hello = Arc::new(hello);
            self.engine
                .write(move |tx| {
                    let hello = Arc::clone(&hello);
                    Box::pin(async move { nodes::hello(tx, &hello).await })
                })
                .await
        }
    }

    /// Accepts a request of a node on a channel and notes the heartbeat; for
    /// requests that have no method of their own.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub async fn accept(&self, request: NodeRequest, channel: Channel) -> Result<Node> {
        self.engine.write(move |tx| Box::pin(nodes::accept(tx, request, channel))).await
    }

    /// Notes the acknowledgements and answers with work, up to
    /// [`pinfold_node_api::MAX_ALLOCATIONS`] each. An empty answer: wait for a
    /// [`Changed::work`], then ask with [`Self::pull_again`].
    ///
    /// # Errors
    /// [`Error::Node`].
    pub async fn pull(&self, request: NodeRequest, pull: Pull) -> Result<Pulled> {
        let pull = Arc::new(pull);
        self.engine
            .write(move |tx| {
                let pull = Arc::clone(&pull);
                Box::pin(async move { nodes::pull(tx, request, &pull).await })
            })
            .await
    }

    /// Work for a pull that was accepted and waits; `request` is the same.
    ///
    /// # Errors
    /// [`NodeRefusal::OldSession`] when another session was opened meanwhile.
    pub async fn pull_again(&self, request: NodeRequest) -> Result<Pulled> {
        let (node, work) = self.engine.read(move |tx| Box::pin(nodes::waiting(tx, request))).await?;
        if !work {
            return Ok(Pulled {
                denylist_version: self
                    .engine
                    .look_up(|tx| Box::pin(property::number(tx, "denylist")))
                    .await?,
                ..Pulled::default()
            });
        }
        self.engine.write(move |tx| Box::pin(nodes::work(tx, node))).await
    }

    /// Notes what became of allocations, and answers each event after the commit.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub async fn report(&self, request: NodeRequest, report: Report) -> Result<ReportAck> {
        let report = Arc::new(report);
        self.engine
            .write(move |tx| {
                let report = Arc::clone(&report);
                Box::pin(async move { events::report(tx, request, &report).await })
            })
            .await
    }

    /// Compares a part of what the node holds with what is allocated to it.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub async fn inventory(&self, request: NodeRequest, inventory: Inventory) -> Result<InventoryAck> {
        let inventory = Arc::new(inventory);
        self.engine
            .write(move |tx| {
                let inventory = Arc::clone(&inventory);
                Box::pin(async move { events::inventory(tx, request, &inventory).await })
            })
            .await
    }

    /// Every node, by number.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        let nodes = self.engine.read(move |tx| Box::pin(nodes::all(tx))).await?;
        Ok(nodes.to_vec())
    }

    /// Nodes that hold this content durably and were heard lately, at most 100;
    /// none when it is denied.
    pub async fn providers(&self, content: &[u8]) -> Result<Vec<Provider>> {
        let content = content.to_vec();
        {
            let content = Arc::new(content);
            self.engine
                .read(move |tx| {
                    let content = Arc::clone(&content);
                    Box::pin(async move { nodes::providers(tx, &content).await })
                })
                .await
        }
    }
}

impl Database {
    /// Contents that are pinned or kept, with numbers above `after`, ascending,
    /// at most 1,000.
    pub async fn held_contents(&self, after: i64, limit: u32) -> Result<Vec<HeldContent>> {
        let limit = rows(limit);
        self.engine.read(move |tx| Box::pin(operator::held_contents(tx, after, limit))).await
    }

    /// Denies contents (at most 1,000): their pins fail with `denied` and are
    /// kept for 30 days. Answers how many were not denied before.
    pub async fn deny(&self, contents: &[i64]) -> Result<u64> {
        self.mark(contents, true).await
    }

    /// Lifts the denial of contents (at most 1,000): their pins are as they were.
    /// Answers how many were denied.
    pub async fn lift(&self, contents: &[i64]) -> Result<u64> {
        self.mark(contents, false).await
    }

    /// The version of the denylist whose rules have this digest: the stored one,
    /// or the next where the digest is new.
    pub async fn denylist_version(&self, digest: [u8; 32]) -> Result<i64> {
        let digest = data_encoding::HEXLOWER.encode(&digest);
        {
            let digest = Arc::new(digest);
            self.engine
                .write(move |tx| {
                    let digest = Arc::clone(&digest);
                    Box::pin(async move { property::denylist_version(tx, &digest).await })
                })
                .await
        }
    }
}

impl Database {
    /// Runs the service's own jobs that are due and that no other process has a
    /// lease on: deadlines, turns, placement and repair, denied contents past
    /// their time, retention, large contents. To be called about once a second,
    /// and at once while [`JobsDone::more`].
    pub async fn run_jobs(&self) -> Result<JobsDone> {
        jobs::run(&self.engine).await
    }

    /// Allocations that are not stored yet, and contents that wait for one, with
    /// content numbers above `after`, at most 1,000.
    pub async fn queue(&self, after: i64, limit: u32) -> Result<Vec<QueueEntry>> {
        let limit = rows(limit);
        self.engine.read(move |tx| Box::pin(operator::queue(tx, after, limit))).await
    }

    /// Sends an unfinished content to its nodes anew, or places it; answers
    /// whether there is such a content.
    pub async fn retry(&self, content: i64) -> Result<bool> {
        self.engine.write(move |tx| Box::pin(jobs::retry(tx, content))).await
    }
}

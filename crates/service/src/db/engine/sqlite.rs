//! The threads of SQLite: one that writes, a few that read, one that moves the
//! write-ahead log into the database file.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use futures::FutureExt;
use parking_lot::Mutex;

use super::{Addition, BATCH, Command, Signal, WAITING, add_batch, answer, queue::Queue};
use crate::db::{
    error::{Error, Result},
    settings::Settings,
    sqlite::{self, Access, Connection},
    tx::{Driver, Effects, Future_, Tx},
    types::{Millis, NewPin, PinRecord},
};

/// Between two looks at the length of the write-ahead log.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(500);

/// Commits after which a checkpoint is worth its syncs.
const CHECKPOINT_COMMITS: u64 = 32;

/// Frames (pages of 4 KiB) beyond which the writer waits for a checkpoint, so
/// that the log does not grow without end under a load that never pauses:
/// 256 MiB.
const LOG_FRAMES: i64 = 65_536;

/// What the writer takes from its queue.
enum Message {
    Add(Addition),
    Command(Box<dyn Command>),
}

/// SQLite in use.
pub(crate) struct Sqlite {
    writes: Arc<Queue<Message>>,
    reads: Arc<Queue<Box<dyn Command>>>,
    idle: Mutex<Vec<Tx>>,
    pub(super) signal: Signal,
    threads: Mutex<Vec<JoinHandle<()>>>,
    file: std::path::PathBuf,
    settings: Arc<Settings>,
}

/// The writing connection of a file, for migrations and the like.
pub(crate) fn open_writer(file: &Path, settings: &Arc<Settings>) -> Result<Tx> {
    let connection = Connection::open(file, Access::Write)?;
    let mut tx = Tx::new(Driver::Sqlite(connection), Arc::clone(settings));
    tx.start(sqlite::now());
    Ok(tx)
}

impl Sqlite {
    pub(super) fn open(file: &Path, settings: Arc<Settings>) -> Result<Self> {
        let engine = Self {
            writes: Arc::new(Queue::new(WAITING)),
            reads: Arc::new(Queue::new(WAITING)),
            idle: Mutex::default(),
            signal: Signal::new(),
            threads: Mutex::default(),
            file: file.to_owned(),
            settings,
        };
        engine.start_writer()?;
        for _ in 0..engine.settings.pool.max(1) {
            engine.start_reader()?;
        }
        Ok(engine)
    }

    fn start_writer(&self) -> Result<()> {
        let mut tx = open_writer(&self.file, &self.settings)?;
        let mut checkpointer = Connection::open(&self.file, Access::Write)?;
        let (queue, signal) = (Arc::clone(&self.writes), self.signal.clone());
        let log = Arc::new(Log::default());
        let seen = Arc::clone(&log);
        self.spawn("sqlite-write", move || {
            let _abandon = Abandon(&queue);
            while let Some(messages) = queue.take(BATCH) {
                let effects = batch(&mut tx, messages);
                seen.committed(&mut tx);
                signal.send(&effects);
            }
        })?;
        let queue = Arc::clone(&self.writes);
        self.spawn("sqlite-checkpoint", move || {
            while !queue.closed_within(CHECKPOINT_EVERY) {
                log.checkpoint(&mut checkpointer);
            }
        })
    }

    fn start_reader(&self) -> Result<()> {
        let mut tx = self.reader()?;
        let queue = Arc::clone(&self.reads);
        self.spawn("sqlite-read", move || {
            while let Some(commands) = queue.take(1) {
                for command in commands {
                    answer_read(&mut tx, command);
                }
            }
        })
    }

    fn reader(&self) -> Result<Tx> {
        let connection = Connection::open(&self.file, Access::Read)?;
        Ok(Tx::new(Driver::Sqlite(connection), Arc::clone(&self.settings)))
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread =
            thread.map_err(|source| Error::File { what: format!("starting thread {name}"), source })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    pub(super) fn write(&self, command: Box<dyn Command>) -> Result<()> {
        self.writes.push(Message::Command(command))
    }

    pub(super) fn add(&self, addition: Addition) -> Result<()> {
        self.writes.push(Message::Add(addition))
    }

    pub(super) fn read(&self, command: Box<dyn Command>) -> Result<()> {
        self.reads.push(command)
    }

    pub(super) fn look_up<T>(&self, work: &dyn for<'t> Fn(&'t mut Tx) -> Future_<'t, T>) -> Result<T> {
        let idle = self.idle.lock().pop();
        let mut tx = match idle {
            Some(tx) => tx,
            None => self.reader()?,
        };
        let outcome = in_snapshot(&mut tx, |tx| ready(work(tx)));
        let mut idle = self.idle.lock();
        if idle.len() < self.settings.pool {
            idle.push(tx);
        }
        outcome
    }

    pub(super) async fn close(&self) {
        self.writes.close();
        self.reads.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().map(JoinHandle::join).all(|joined| joined.is_ok())
        });
        if !matches!(joined.await, Ok(true)) {
            tracing::error!("a thread of the database panicked");
        }
        self.idle.lock().clear();
        let emptied = Connection::open(&self.file, Access::Write)
            .and_then(|mut connection| checkpoint(&mut connection, "TRUNCATE"));
        if let Err(error) = emptied {
            tracing::warn!(%error, "the write-ahead log was left; the next start reads it");
        }
    }
}

/// Has callers told that the database is closed when its writer ends, even by
/// a panic.
struct Abandon<'q>(&'q Queue<Message>);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.writes.close();
        self.reads.close();
    }
}

/// The result of a future that never waits, as all of SQLite's.
fn ready<T>(future: Future_<'_, T>) -> Result<T> {
    future.now_or_never().expect("work on SQLite never waits")
}

fn connection(tx: &mut Tx) -> &mut Connection {
    match &mut tx.driver {
        Driver::Sqlite(connection) => connection,
        Driver::Postgres(_) => unreachable!("the threads of SQLite have connections of SQLite"),
    }
}

fn in_snapshot<T>(tx: &mut Tx, work: impl FnOnce(&mut Tx) -> Result<T>) -> Result<T> {
    tx.start(sqlite::now());
    let time = tx.settings.query_timeout;
    connection(tx).limit_time(time);
    connection(tx).batch("BEGIN")?;
    let outcome = work(tx);
    connection(tx).limit_time(Duration::MAX);
    if !connection(tx).transaction_ended() {
        connection(tx).batch("COMMIT")?;
    }
    outcome
}

fn answer_read(tx: &mut Tx, mut command: Box<dyn Command>) {
    let outcome = in_snapshot(tx, |tx| {
        command.run(tx).now_or_never().expect("work on SQLite never waits");
        Ok(())
    });
    command.finish(outcome.err());
}

/// Runs a batch in one transaction and answers it.
fn batch(tx: &mut Tx, messages: Vec<Message>) -> Effects {
    let (additions, mut commands) = split(messages);
    let pins: Vec<_> = additions.iter().map(|addition| addition.pin.clone()).collect();
    match transaction(tx, &pins, &mut commands) {
        Ok((added, effects)) => {
            answer(additions, added);
            commands.into_iter().for_each(|command| command.finish(None));
            effects
        }
        Err(error) => {
            tracing::error!(%error, "a batch of writes was not committed");
            let cause = Arc::new(error);
            answer(additions, Err(Error::NotCommitted(Arc::clone(&cause))));
            for command in commands {
                command.finish(Some(Error::NotCommitted(Arc::clone(&cause))));
            }
            Effects::default()
        }
    }
}

fn split(messages: Vec<Message>) -> (Vec<Addition>, Vec<Box<dyn Command>>) {
    let (mut additions, mut commands) = (Vec::new(), Vec::new());
    for message in messages {
        match message {
            Message::Add(addition) => additions.push(addition),
            Message::Command(command) => commands.push(command),
        }
    }
    (additions, commands)
}

type Added = Result<Vec<Result<PinRecord>>>;

fn transaction(tx: &mut Tx, pins: &[NewPin], commands: &mut [Box<dyn Command>]) -> Result<(Added, Effects)> {
    connection(tx).batch("BEGIN IMMEDIATE")?;
    let outcome = within(tx, pins, commands);
    if outcome.is_err() && !connection(tx).transaction_ended() {
        connection(tx).batch("ROLLBACK")?;
    }
    outcome
}

fn within(tx: &mut Tx, pins: &[NewPin], commands: &mut [Box<dyn Command>]) -> Result<(Added, Effects)> {
    let now = sqlite::now();
    let mut effects = Effects::default();
    let added = add(tx, pins, now, &mut effects);
    still_open(tx)?;
    for command in commands {
        tx.start(now);
        let kept = savepoint(tx, |tx| {
            let keep = command.run(tx).now_or_never().expect("work on SQLite never waits");
            if keep { Ok(()) } else { Err(Error::Closed) }
        });
        still_open(tx)?;
        if kept.is_ok() {
            effects.merge(std::mem::take(&mut tx.effects));
        }
    }
    connection(tx).batch("COMMIT")?;
    Ok((added, effects))
}

/// Some failures, such as a full disk, end the whole transaction.
fn still_open(tx: &mut Tx) -> Result<()> {
    if connection(tx).transaction_ended() {
        return Err(Error::Ended);
    }
    Ok(())
}

/// Adds pins together; each by itself when they fail together, so that none
/// fails because of another.
fn add(tx: &mut Tx, pins: &[NewPin], now: Millis, effects: &mut Effects) -> Added {
    if pins.is_empty() {
        return Ok(Vec::new());
    }
    let together = add_some(tx, pins, now, effects);
    match together {
        Err(error) if pins.len() > 1 && !connection(tx).transaction_ended() => {
            tracing::warn!(%error, "a batch of new pins failed; each is tried by itself");
            Ok(pins.iter().map(|pin| add_alone(tx, pin, now, effects)).collect())
        }
        outcome => outcome,
    }
}

fn add_some(tx: &mut Tx, pins: &[NewPin], now: Millis, effects: &mut Effects) -> Added {
    tx.start(now);
    let added = savepoint(tx, |tx| ready(Box::pin(add_batch(tx, pins))))?;
    effects.merge(std::mem::take(&mut tx.effects));
    Ok(added)
}

fn add_alone(tx: &mut Tx, pin: &NewPin, now: Millis, effects: &mut Effects) -> Result<PinRecord> {
    let added = add_some(tx, std::slice::from_ref(pin), now, effects)?;
    added.into_iter().next().unwrap_or(Err(Error::Closed))
}

/// Runs work that leaves no trace when it fails.
fn savepoint<T>(tx: &mut Tx, work: impl FnOnce(&mut Tx) -> Result<T>) -> Result<T> {
    connection(tx).batch("SAVEPOINT command")?;
    let outcome = work(tx);
    let end = if outcome.is_ok() { "RELEASE command" } else { "ROLLBACK TO command; RELEASE command" };
    if !connection(tx).transaction_ended() {
        connection(tx).batch(end)?;
    }
    outcome
}

/// How long the write-ahead log has grown.
#[derive(Default)]
struct Log {
    commits: AtomicU64,
    frames: AtomicU64,
}

impl Log {
    /// Counts a commit; waits for a checkpoint when the log is too long.
    fn committed(&self, tx: &mut Tx) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        if self.frames.load(Ordering::Relaxed) > LOG_FRAMES.unsigned_abs() {
            self.frames.store(0, Ordering::Relaxed);
            if let Err(error) = checkpoint(connection(tx), "RESTART") {
                tracing::warn!(%error, "the write-ahead log could not be restarted");
            }
        }
    }

    /// Moves committed pages into the database file, if there are enough.
    fn checkpoint(&self, connection: &mut Connection) {
        if self.commits.load(Ordering::Relaxed) < CHECKPOINT_COMMITS {
            return;
        }
        self.commits.store(0, Ordering::Relaxed);
        match checkpoint(connection, "PASSIVE") {
            Ok(frames) => self.frames.store(frames, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "a checkpoint failed; it is tried again"),
        }
    }
}

/// Runs a checkpoint and answers how many frames the log has.
fn checkpoint(connection: &mut Connection, mode: &str) -> Result<u64> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let frames = connection.raw().query_row(&sql, [], |row| row.get::<_, i64>(1))?;
    Ok(frames.try_into().unwrap_or(0))
}

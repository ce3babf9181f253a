//! Runs work in transactions, on either database.
//!
//! Writing goes in batches: whatever waits, up to [`BATCH`], shares one
//! transaction and so one sync of the disk, and is answered after the commit.
//! New pins of a batch are even written together. On SQLite one thread does
//! all of it, and each command of a batch has its own savepoint, so that one
//! that is refused leaves no trace. On PostgreSQL new pins are batched by one
//! task per process; other commands have a transaction each, on the pool.

mod postgres;
mod queue;
mod sqlite;

use std::sync::Arc;

use tokio::sync::{broadcast, oneshot};

pub(crate) use sqlite::open_writer;

use super::{
    error::{Error, Result},
    settings::{Location, Settings},
    tx::{Effects, Future_, Tx, Work},
    types::{Changed, NewPin, PinRecord},
};

/// The most commands that share a transaction. More would make the first of
/// them wait longer than the sync that they save.
pub(crate) const BATCH: usize = 128;

/// Commands that may wait; beyond it callers are told that the database is
/// busy. At a few thousand commands a second this is less than two seconds.
const WAITING: usize = 4_096;

/// Changes that a subscriber may lag behind before it loses the oldest.
const CHANGES: usize = 4_096;

/// A command for a writer or a reader: work, and where its result goes.
pub(crate) trait Command: Send {
    /// Does the work within the transaction; answers whether it is to be kept.
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> std::pin::Pin<Box<dyn Future<Output = bool> + Send + 't>>;
    /// Answers, after the commit or when there is none.
    fn finish(self: Box<Self>, failure: Option<Error>);
}

/// A [`Command`] from a closure.
struct Operation<T> {
    work: Box<Work<T>>,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T: Send + 'static> Command for Operation<T> {
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> std::pin::Pin<Box<dyn Future<Output = bool> + Send + 't>> {
        Box::pin(async move {
            let outcome = complete(&*self.work, tx).await;
            let keep = outcome.is_ok();
            self.outcome = Some(outcome);
            keep
        })
    }

    fn finish(self: Box<Self>, failure: Option<Error>) {
        let outcome = match (failure, self.outcome) {
            (_, Some(Err(error))) => Err(error),
            (Some(failure), _) => Err(failure),
            (None, Some(outcome)) => outcome,
            (None, None) => Err(Error::Closed),
        };
        // A caller that went away needs no answer.
        let _ = self.reply.send(outcome);
    }
}

/// Does the work and writes what it summed up.
async fn complete<T>(work: &Work<T>, tx: &mut Tx) -> Result<T> {
    let value = work(tx).await?;
    super::unit::flush(tx).await?;
    Ok(value)
}

/// New pins of one batch, each with its own result.
async fn add_batch(tx: &mut Tx, pins: &[NewPin]) -> Result<Vec<Result<PinRecord>>> {
    let records = super::pins::add(tx, pins).await?;
    super::unit::flush(tx).await?;
    Ok(records)
}

/// A new pin that waits for its batch.
struct Addition {
    pin: NewPin,
    reply: oneshot::Sender<Result<PinRecord>>,
}

/// Answers every addition of a batch.
fn answer(additions: Vec<Addition>, outcome: Result<Vec<Result<PinRecord>>>) {
    match outcome {
        Ok(records) => {
            for (addition, record) in additions.into_iter().zip(records) {
                let _ = addition.reply.send(record);
            }
        }
        Err(error) => {
            let cause = match error {
                Error::NotCommitted(cause) => cause,
                error => Arc::new(error),
            };
            for addition in additions {
                let _ = addition.reply.send(Err(Error::NotCommitted(Arc::clone(&cause))));
            }
        }
    }
}

/// A database in use.
pub(crate) enum Engine {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

impl Engine {
    /// Opens the database, whose schema is the current one.
    pub(crate) async fn open(settings: Arc<Settings>) -> Result<Self> {
        match &settings.location {
            Location::Sqlite(file) => {
                let file = file.clone();
                Ok(Self::Sqlite(sqlite::Sqlite::open(&file, settings)?))
            }
            Location::Postgres(url) => {
                let url = url.clone();
                Ok(Self::Postgres(postgres::Postgres::open(&url, settings).await?))
            }
        }
    }

    /// Runs work in a transaction that writes; answers after the commit.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut Tx) -> Future_<'t, T> + Send + Sync + 'static,
    {
        match self {
            Self::Sqlite(engine) => {
                let (reply, answer) = oneshot::channel();
                engine.write(Box::new(Operation { work: Box::new(work), outcome: None, reply }))?;
                answer.await.map_err(|_| Error::Closed)?
            }
            Self::Postgres(engine) => engine.write(Arc::new(work)).await,
        }
    }

    /// Adds a pin, together with others that wait.
    pub(crate) async fn add(&self, pin: NewPin) -> Result<PinRecord> {
        let (reply, answer) = oneshot::channel();
        let addition = Addition { pin, reply };
        match self {
            Self::Sqlite(engine) => engine.add(addition)?,
            Self::Postgres(engine) => engine.add(addition)?,
        }
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Runs work in one snapshot.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut Tx) -> Future_<'t, T> + Send + Sync + 'static,
    {
        match self {
            Self::Sqlite(engine) => {
                let (reply, answer) = oneshot::channel();
                engine.read(Box::new(Operation { work: Box::new(work), outcome: None, reply }))?;
                answer.await.map_err(|_| Error::Closed)?
            }
            Self::Postgres(engine) => engine.read(&work).await,
        }
    }

    /// Runs a few look-ups by key: on SQLite on the caller's own thread, since
    /// they take microseconds, on PostgreSQL without a transaction.
    pub(crate) async fn look_up<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut Tx) -> Future_<'t, T> + Send + Sync + 'static,
    {
        match self {
            Self::Sqlite(engine) => engine.look_up(&work),
            Self::Postgres(engine) => engine.look_up(&work).await,
        }
    }

    /// Changes as they are committed.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Changed> {
        match self {
            Self::Sqlite(engine) => engine.signal.changes.subscribe(),
            Self::Postgres(engine) => engine.signal.changes.subscribe(),
        }
    }

    /// Told of accounts in which a turn became free.
    pub(crate) fn freed(&self) -> Arc<tokio::sync::Notify> {
        match self {
            Self::Sqlite(engine) => Arc::clone(&engine.signal.freed),
            Self::Postgres(engine) => Arc::clone(&engine.signal.freed),
        }
    }

    /// Commits what was accepted and closes.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(engine) => engine.close().await,
            Self::Postgres(engine) => engine.close().await,
        }
    }
}

/// What is told within the process after a commit.
#[derive(Clone)]
pub(crate) struct Signal {
    changes: broadcast::Sender<Changed>,
    freed: Arc<tokio::sync::Notify>,
}

impl Signal {
    fn new() -> Self {
        Self { changes: broadcast::channel(CHANGES).0, freed: Arc::default() }
    }

    fn send(&self, effects: &Effects) {
        for change in effects.changes() {
            // Nobody listens: nobody has to be told.
            let _ = self.changes.send(change);
        }
        if !effects.freed.is_empty() {
            self.freed.notify_one();
        }
    }
}

//! PostgreSQL's side: a pool for commands, a task that batches new pins, a
//! connection that listens for the changes of other processes.

mod listen;

use std::{sync::Arc, time::Duration};

use deadpool_postgres::Pool;
use rand::RngExt;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Addition, BATCH, Signal, WAITING, add_batch, answer, complete};
use crate::db::{
    error::{Error, Result},
    order::Order,
    postgres::{self, Mode, Session, Target},
    settings::Settings,
    tx::{Driver, Effects, Tx, Work},
    types::{NewPin, PinRecord},
};

/// How often a transaction that met a deadlock is repeated before its caller
/// is told.
const ATTEMPTS: u32 = 8;

/// The longest pause before the first repetition; it doubles each time.
const PAUSE: Duration = Duration::from_millis(4);

/// How long closing waits for what is running.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// PostgreSQL in use.
pub(crate) struct Postgres {
    shared: Shared,
    additions: mpsc::Sender<Addition>,
    tasks: TaskTracker,
    stop: CancellationToken,
    pub(super) signal: Signal,
}

/// What tasks need.
#[derive(Clone)]
struct Shared {
    pool: Pool,
    settings: Arc<Settings>,
    told: mpsc::Sender<Effects>,
}

impl Postgres {
    pub(super) async fn open(url: &str, settings: Arc<Settings>) -> Result<Self> {
        let target = Target::new(url)?;
        let pool = postgres::pool(&target, settings.pool)?;
        let signal = Signal::new();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (told, effects) = mpsc::channel(WAITING);
        tasks.spawn(listen::tell(pool.clone(), effects, signal.clone(), stop.clone()));
        tasks.spawn(listen::listen(target, signal.clone(), stop.clone()));
        let shared = Shared { pool, settings, told };
        let (additions, waiting) = mpsc::channel(WAITING);
        tasks.spawn(add_batches(shared.clone(), waiting, stop.clone()));
        Ok(Self { shared, additions, tasks, stop, signal })
    }

    pub(super) fn add(&self, addition: Addition) -> Result<()> {
        self.additions.try_send(addition).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Closed,
        })
    }

    /// Runs to its end even when the caller goes away.
    pub(super) async fn write<T: Send + 'static>(&self, work: Arc<Work<T>>) -> Result<T> {
        self.check_open()?;
        let shared = self.shared.clone();
        let task = self.tasks.spawn(async move { shared.repeat(&*work).await });
        task.await.map_err(|_| Error::Closed)?
    }

    pub(super) async fn read<T>(&self, work: &Work<T>) -> Result<T> {
        self.check_open()?;
        let mode = Mode::Snapshot(self.shared.settings.query_timeout);
        let mut tx = self.shared.begin(mode).await?;
        let outcome = work(&mut tx).await;
        // Nobody has to wait for the end of what changed nothing. Where that
        // fails, the connection is dropped.
        self.tasks.spawn(async move { end(&mut tx, Ok(())).await });
        outcome
    }

    pub(super) async fn look_up<T>(&self, work: &Work<T>) -> Result<T> {
        self.check_open()?;
        let mut tx = self.shared.begin(Mode::Single).await?;
        work(&mut tx).await
    }

    fn check_open(&self) -> Result<()> {
        if self.stop.is_cancelled() { Err(Error::Closed) } else { Ok(()) }
    }

    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("transactions were still running when the database was closed");
        }
        self.shared.pool.close();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    async fn begin(&self, mode: Mode) -> Result<Tx> {
        let (session, now) = Session::begin(&self.pool, mode).await?;
        let mut tx = Tx::new(Driver::Postgres(session), Arc::clone(&self.settings));
        tx.start(now);
        Ok(tx)
    }

    /// Runs work in a transaction, again when PostgreSQL asks for it, or when
    /// it found out too late what it had to lock.
    async fn repeat<T>(&self, work: &Work<T>) -> Result<T> {
        let (mut order, mut pause) = (Order::default(), PAUSE);
        for attempt in 1..ATTEMPTS {
            match self.once(work, &mut order).await {
                Err(Error::Raced) => order = order.next(attempt + 1 == ATTEMPTS),
                Err(error) if postgres::is_retriable(&error) => {
                    order = order.next(false);
                    let share = rand::rng().random::<f64>();
                    tokio::time::sleep(pause.mul_f64(share)).await;
                    pause *= 2;
                }
                outcome => return outcome,
            }
        }
        self.once(work, &mut order).await
    }

    /// Runs work once, in this order of locks.
    async fn once<T>(&self, work: &Work<T>, order: &mut Order) -> Result<T> {
        let mut tx = self.begin(Mode::Write).await?;
        tx.unit.order = std::mem::take(order);
        let outcome = complete(work, &mut tx).await;
        let ended = end(&mut tx, outcome).await;
        *order = std::mem::take(&mut tx.unit.order);
        let value = ended?;
        self.tell(tx).await;
        Ok(value)
    }

    async fn tell(&self, mut tx: Tx) {
        let effects = std::mem::take(&mut tx.effects);
        drop(tx);
        if effects != Effects::default() {
            // Fails only when the database is being closed.
            let _ = self.told.send(effects).await;
        }
    }

    /// Adds pins and answers them; each by itself when they fail together, so
    /// that none fails because of another.
    async fn add_all(&self, additions: Vec<Addition>) {
        let pins = additions.iter().map(|addition| addition.pin.clone()).collect();
        match self.add(pins).await {
            Err(error) if additions.len() > 1 && !error.is_unavailable() => {
                tracing::warn!(%error, "a batch of new pins failed; each is tried by itself");
                for addition in additions {
                    let alone = self.add(vec![addition.pin.clone()]).await;
                    answer(vec![addition], alone);
                }
            }
            outcome => answer(additions, outcome),
        }
    }

    async fn add(&self, pins: Vec<NewPin>) -> Result<Vec<Result<PinRecord>>> {
        let pins = Arc::new(pins);
        let work: Box<Work<Vec<Result<PinRecord>>>> = Box::new(move |tx| {
            let pins = Arc::clone(&pins);
            Box::pin(async move { add_batch(tx, &pins).await })
        });
        self.repeat(&*work).await
    }
}

/// Commits after a success, rolls back after a failure.
async fn end<T>(tx: &mut Tx, outcome: Result<T>) -> Result<T> {
    let Driver::Postgres(session) = &mut tx.driver else { return outcome };
    match outcome {
        Ok(value) => {
            session.commit().await?;
            Ok(value)
        }
        Err(error) => {
            // A connection that cannot roll back is dropped, which does it.
            let _ = session.rollback().await;
            Err(error)
        }
    }
}

/// Takes whatever waits, up to [`BATCH`], into one transaction after another,
/// until the database is closed and nothing waits any more.
async fn add_batches(shared: Shared, mut waiting: mpsc::Receiver<Addition>, stop: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let taken = tokio::select! {
            taken = waiting.recv_many(&mut batch, BATCH) => taken,
            () = stop.cancelled(), if !waiting.is_closed() => {
                waiting.close();
                continue;
            }
        };
        if taken == 0 {
            return;
        }
        shared.add_all(std::mem::take(&mut batch)).await;
    }
}

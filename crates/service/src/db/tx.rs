//! A transaction, on either database.
//!
//! The data logic is written once, as async functions over [`Tx`]. On SQLite
//! their futures are ready at once and run on a thread of their own; on
//! PostgreSQL they wait for the server, and [`Tx::query_many`] makes one
//! statement of many.
//!
//! Locks are taken in one order everywhere; see [`super::order`].

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use super::{
    error::Result,
    postgres::Session,
    settings::Settings,
    sql::{Row, Value},
    sqlite::Connection,
    types::{AccountId, Changed, Millis},
    unit::Unit,
};

/// A future of the data logic.
pub(crate) type Future_<'t, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 't>>;

/// Work within a transaction that may be run again when the transaction has to
/// be repeated.
pub(crate) type Work<T> = dyn for<'t> Fn(&'t mut Tx) -> Future_<'t, T> + Send + Sync;

/// [`Work`] on what was given from outside, which each run looks at anew.
pub(crate) fn with<A, T, F>(
    given: A,
    work: F,
) -> impl for<'t> Fn(&'t mut Tx) -> Future_<'t, T> + Send + Sync + 'static
where
    A: Send + Sync + 'static,
    T: Send + 'static,
    F: for<'t> Fn(&'t mut Tx, &'t A) -> Future_<'t, T> + Send + Sync + 'static,
{
    let shared = Arc::new((given, work));
    move |tx| {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            let (given, work) = &*shared;
            work(tx, given).await
        })
    }
}

/// A statement that answers rows, and the lists of parameters to run it for.
pub(crate) type Question<'s> = (&'s str, Vec<Vec<Value>>);

/// The connection below a transaction.
#[derive(Debug)]
pub(crate) enum Driver {
    /// SQLite.
    Sqlite(Connection),
    /// PostgreSQL.
    Postgres(Session),
}

/// What has to happen after the commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Contents whose pins look different, and whether a node has new work.
    pub(crate) changed: BTreeMap<i64, bool>,
    /// Accounts in which a turn became free.
    pub(crate) freed: BTreeSet<AccountId>,
}

impl Effects {
    /// Adds those of another transaction.
    pub(crate) fn merge(&mut self, other: Self) {
        for (content, work) in other.changed {
            *self.changed.entry(content).or_default() |= work;
        }
        self.freed.extend(other.freed);
    }

    /// What subscribers are told.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Changed> {
        self.changed.iter().map(|(&content, &work)| Changed { content, work })
    }
}

/// A transaction; see the module.
#[derive(Debug)]
pub(crate) struct Tx {
    pub(crate) driver: Driver,
    pub(crate) settings: Arc<Settings>,
    pub(crate) unit: Unit,
    pub(crate) effects: Effects,
    now: Millis,
}

impl Tx {
    pub(crate) fn new(driver: Driver, settings: Arc<Settings>) -> Self {
        Self { driver, settings, unit: Unit::default(), effects: Effects::default(), now: 0 }
    }

    /// Forgets what an earlier transaction left, and sets the time of this one.
    pub(crate) fn start(&mut self, now: Millis) {
        self.unit = Unit::default();
        self.effects = Effects::default();
        self.now = self.settings.clock.as_ref().map_or(now, |clock| clock());
    }

    /// The time of the transaction, by the database's clock.
    pub(crate) fn now(&self) -> Millis {
        self.now
    }

    /// Whether this is SQLite.
    pub(crate) fn is_sqlite(&self) -> bool {
        matches!(self.driver, Driver::Sqlite(_))
    }

    /// Notes that pins of a content look different after the commit.
    pub(crate) fn changed(&mut self, content: i64) {
        self.effects.changed.entry(content).or_default();
    }

    /// Notes that a node has new work after the commit.
    pub(crate) fn work(&mut self, content: i64) {
        self.effects.changed.insert(content, true);
    }

    /// The rows of a statement.
    pub(crate) async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        match &mut self.driver {
            Driver::Sqlite(connection) => connection.query(sql, parameters),
            Driver::Postgres(session) => session.query(sql, parameters).await,
        }
    }

    /// The first row of a statement.
    pub(crate) async fn first(&mut self, sql: &str, parameters: &[Value]) -> Result<Option<Row>> {
        Ok(self.query(sql, parameters).await?.into_iter().next())
    }

    /// Runs a statement and answers how many rows it changed.
    pub(crate) async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64> {
        match &mut self.driver {
            Driver::Sqlite(connection) => connection.execute(sql, parameters),
            Driver::Postgres(session) => session.execute(sql, parameters).await,
        }
    }

    /// The rows of one statement for each of several parameter lists, which
    /// differ. An `INSERT` has to answer a row for each.
    pub(crate) async fn query_many(&mut self, sql: &str, lists: &[Vec<Value>]) -> Result<Vec<Vec<Row>>> {
        match &mut self.driver {
            Driver::Sqlite(connection) => lists.iter().map(|list| connection.query(sql, list)).collect(),
            Driver::Postgres(session) => session.query_many(sql, lists).await,
        }
    }

    /// The rows of several questions, list by list. None needs what another one
    /// answers: PostgreSQL is sent all before it answers the first.
    pub(crate) async fn query_all<const N: usize>(
        &mut self,
        questions: [Question<'_>; N],
    ) -> Result<[Vec<Vec<Row>>; N]> {
        let mut answers = [const { Vec::new() }; N];
        match &mut self.driver {
            Driver::Sqlite(connection) => {
                for (answer, (sql, lists)) in answers.iter_mut().zip(&questions) {
                    *answer = lists.iter().map(|list| connection.query(sql, list)).collect::<Result<_>>()?;
                }
            }
            Driver::Postgres(session) => {
                let all = questions.iter().map(|(sql, lists)| session.query_many(sql, lists));
                let all = futures::future::try_join_all(all).await?;
                answers.iter_mut().zip(all).for_each(|(answer, rows)| *answer = rows);
            }
        }
        Ok(answers)
    }

    /// The rows that an `INSERT … ON CONFLICT DO NOTHING RETURNING` makes of
    /// several parameter lists: none for those that were there.
    pub(crate) async fn insert_new(&mut self, sql: &str, lists: &[Vec<Value>]) -> Result<Vec<Row>> {
        match &mut self.driver {
            Driver::Sqlite(connection) => {
                let rows =
                    lists.iter().map(|list| connection.query(sql, list)).collect::<Result<Vec<_>>>()?;
                Ok(rows.into_iter().flatten().collect())
            }
            Driver::Postgres(session) => session.insert_new(sql, lists).await,
        }
    }

    /// Runs one statement for each of several parameter lists, no two of which
    /// concern the same row.
    pub(crate) async fn execute_many(&mut self, sql: &str, lists: &[Vec<Value>]) -> Result<u64> {
        match &mut self.driver {
            Driver::Sqlite(connection) => lists.iter().map(|list| connection.execute(sql, list)).sum(),
            Driver::Postgres(session) => session.execute_many(sql, lists).await,
        }
    }

    /// Runs several statements, each for each of its lists. None needs what
    /// another one did: PostgreSQL is sent all before it answers the first.
    pub(crate) async fn execute_all(&mut self, changes: &[(&str, Vec<Vec<Value>>)]) -> Result<()> {
        match &mut self.driver {
            Driver::Sqlite(connection) => {
                for (sql, lists) in changes {
                    lists.iter().try_for_each(|list| connection.execute(sql, list).map(drop))?;
                }
            }
            Driver::Postgres(session) => {
                let all = changes.iter().map(|(sql, lists)| session.execute_many(sql, lists));
                futures::future::try_join_all(all).await?;
            }
        }
        Ok(())
    }

    /// Runs statements without parameters.
    pub(crate) async fn batch(&mut self, sql: &str) -> Result<()> {
        match &mut self.driver {
            Driver::Sqlite(connection) => connection.batch(sql),
            Driver::Postgres(session) => session.batch(sql).await,
        }
    }

    /// Gives the statements of this transaction more time, because they read
    /// whole tables.
    pub(crate) async fn allow(&mut self, time: Duration) -> Result<()> {
        match &mut self.driver {
            Driver::Sqlite(connection) => {
                connection.limit_time(time);
                Ok(())
            }
            Driver::Postgres(session) => session.allow(time).await,
        }
    }
}

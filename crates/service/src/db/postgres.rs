//! PostgreSQL below a [`super::tx::Tx`]: a connection of the pool for the time
//! of one transaction.

mod bulk;
mod tls;

use std::time::Duration;

use bytes::BytesMut;
use deadpool::managed::QueueMode;
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use futures::future::try_join_all;
use tokio_postgres::{
    SimpleQueryMessage, Statement,
    error::SqlState,
    tls::MakeTlsConnect,
    types::{IsNull, ToSql, Type, to_sql_checked},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    error::{Error, Result},
    sql::{self, Row, Value},
    types::Millis,
};

/// Longest time of a writing statement: locks are held for milliseconds, so
/// one that waits longer waits for something that is stuck.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a caller waits for a free connection before it is told that the
/// database is unavailable.
const POOL_TIMEOUT: Duration = Duration::from_secs(5);

/// Has statements go by key, whatever the planner believes of tables that have
/// just begun to grow, and keeps each plan with its statement. Left alone, a
/// page of ten is planned anew each time, which takes ten times as long as it.
const BY_KEY: &str = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off \
    -c plan_cache_mode=force_generic_plan";

/// Has pages come from an index in their order, for the same reason: what is
/// sorted was read as a whole before.
const IN_ORDER: &str = "SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off";

/// Leaves all of this to the planner, for statements that read everything.
const AS_PLANNED: &str = "SET LOCAL plan_cache_mode = auto; SET LOCAL enable_seqscan = on; \
    SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; SET LOCAL enable_sort = on; \
    SET LOCAL enable_incremental_sort = on";

/// The clock of the database in milliseconds.
const NOW: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// Has a commit wait until it is on the server's disk. What a role or a
/// database is set to must not weaken that, and what is stronger, as
/// `remote_apply` is, stays.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false) \
                       WHERE current_setting('synchronous_commit') = 'off'";

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Reads what is committed, locks what it changes.
    Write,
    /// One snapshot, under this time limit.
    Snapshot(Duration),
    /// A single statement, without a transaction around it.
    Single,
}

/// A connection, within a transaction unless its mode is [`Mode::Single`].
pub(crate) struct Session {
    /// Taken when the session ends.
    client: Option<Object>,
    open: bool,
    mode: Mode,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("postgres::Session").field("open", &self.open).finish_non_exhaustive()
    }
}

/// Where the database is, and how a connection to it is encrypted.
#[derive(Clone)]
pub(crate) struct Target {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
}

/// A connection outside the pool, to be driven by whoever made it.
pub(crate) type Connection = tokio_postgres::Connection<
    tokio_postgres::Socket,
    <MakeRustlsConnect as MakeTlsConnect<tokio_postgres::Socket>>::Stream,
>;

impl Target {
    /// Reads the URL and adds what every connection has to be set to.
    pub(crate) fn new(url: &str) -> Result<Self> {
        let (url, demands) = tls::Demands::take(url)?;
        let mut config = config(&url)?;
        let tls = demands.connector(&mut config)?;
        Ok(Self { config, tls })
    }

    /// Opens a connection of its own.
    pub(crate) async fn connect(&self) -> Result<(tokio_postgres::Client, Connection)> {
        let connected = tokio::time::timeout(POOL_TIMEOUT, self.config.connect(self.tls.clone())).await;
        Ok(connected.map_err(|_| Error::Pool("the server took too long to answer".to_owned()))??)
    }
}

fn config(url: &str) -> Result<tokio_postgres::Config> {
    let mut config: tokio_postgres::Config = url.parse().map_err(|error| {
        Error::Pool(format!(
            "the URL is not valid ({error}); it has the form postgres://user:password@host/database"
        ))
    })?;
    let given = config.get_options().unwrap_or_default().to_owned();
    let options = format!("{given} -c statement_timeout={} -c jit=off {BY_KEY}", WRITE_TIMEOUT.as_millis());
    config.options(options.trim()).application_name("pinfold");
    config.connect_timeout(POOL_TIMEOUT);
    Ok(config)
}

/// A pool of at most `size` connections, opened when they are needed.
pub(crate) fn pool(target: &Target, size: usize) -> Result<Pool> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(target.config.clone(), target.tls.clone(), recycling);
    Pool::builder(manager)
        .max_size(size.max(2))
        // Whose server process was busy last still has everything at hand.
        .queue_mode(QueueMode::Lifo)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(POOL_TIMEOUT))
        .create_timeout(Some(POOL_TIMEOUT))
        .post_create(Hook::async_fn(|client, _| {
            Box::pin(async move { client.batch_execute(DURABLE).await.map_err(HookError::Backend) })
        }))
        .build()
        .map_err(|error| Error::Pool(error.to_string()))
}

impl Session {
    /// Takes a connection and begins; answers the database's time too.
    pub(crate) async fn begin(pool: &Pool, mode: Mode) -> Result<(Self, Millis)> {
        let client = pool.get().await?;
        let mut session = Self { client: Some(client), open: false, mode };
        let begin = match mode {
            Mode::Single => return Ok((session, 0)),
            Mode::Write => format!("BEGIN ISOLATION LEVEL READ COMMITTED; {NOW}"),
            Mode::Snapshot(limit) => format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {IN_ORDER}; \
                 SET LOCAL statement_timeout = {}; {NOW}",
                limit.as_millis().max(1)
            ),
        };
        session.open = true;
        let answers = session.client()?.simple_query(&begin).await.map_err(limited)?;
        Ok((session, time(&answers)?))
    }

    /// Gives statements that read whole tables this time.
    pub(crate) async fn allow(&self, time: Duration) -> Result<()> {
        let limit = format!("SET LOCAL statement_timeout = {}; {AS_PLANNED}", time.as_millis());
        self.batch(&limit).await
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        self.end("COMMIT").await
    }

    pub(crate) async fn rollback(&mut self) -> Result<()> {
        self.end("ROLLBACK").await
    }

    async fn end(&mut self, how: &str) -> Result<()> {
        if self.open {
            self.client()?.batch_execute(how).await.map_err(limited)?;
            self.open = false;
        }
        Ok(())
    }

    fn client(&self) -> Result<&Object> {
        self.client.as_ref().ok_or(Error::Closed)
    }

    async fn prepare(&self, sql: &str) -> Result<Statement> {
        // The statement cache is keyed by the text as it is written here.
        self.client()?.prepare_cached(&sql::postgres(sql)).await.map_err(limited)
    }

    pub(crate) async fn query(&self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        let statement = self.prepare(sql).await?;
        self.run(&statement, parameters).await
    }

    async fn run(&self, statement: &Statement, parameters: &[Value]) -> Result<Vec<Row>> {
        let references: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|value| value as _).collect();
        let rows = self.client()?.query(statement, &references).await.map_err(limited)?;
        rows.iter().map(row).collect()
    }

    pub(crate) async fn execute(&self, sql: &str, parameters: &[Value]) -> Result<u64> {
        let statement = self.prepare(sql).await?;
        self.change(&statement, parameters).await
    }

    async fn change(&self, statement: &Statement, parameters: &[Value]) -> Result<u64> {
        let references: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|value| value as _).collect();
        self.client()?.execute(statement, &references).await.map_err(limited)
    }

    pub(crate) async fn query_many(&self, sql: &str, lists: &[Vec<Value>]) -> Result<Vec<Vec<Row>>> {
        self.rows_of_many(sql, lists, apart).await
    }

    pub(crate) async fn insert_new(&self, sql: &str, lists: &[Vec<Value>]) -> Result<Vec<Row>> {
        Ok(self.rows_of_many(sql, lists, together).await?.into_iter().flatten().collect())
    }

    /// The rows of one statement for many lists; where it is sent once for all
    /// of them, `sort` says whose they are.
    async fn rows_of_many(&self, sql: &str, lists: &[Vec<Value>], sort: Sort) -> Result<Vec<Vec<Row>>> {
        if lists.is_empty() {
            return Ok(Vec::new());
        }
        let single = self.prepare(sql).await?;
        let Some((statement, answer)) = self.bulk(sql, &single, lists).await? else {
            return try_join_all(lists.iter().map(|list| self.run(&single, list))).await;
        };
        let parts = lists.chunks(bulk::ROWS).map(|part| async {
            let columns = bulk::columns(part, single.params().len());
            let rows = self.client()?.query(&statement, &references(&columns)).await.map_err(limited)?;
            sort(&rows, part.len(), answer)
        });
        Ok(try_join_all(parts).await?.into_iter().flatten().collect())
    }

    pub(crate) async fn execute_many(&self, sql: &str, lists: &[Vec<Value>]) -> Result<u64> {
        if lists.is_empty() {
            return Ok(0);
        }
        let single = self.prepare(sql).await?;
        let Some((statement, _)) = self.bulk(sql, &single, lists).await? else {
            let changed = try_join_all(lists.iter().map(|list| self.change(&single, list))).await?;
            return Ok(changed.into_iter().sum());
        };
        let parts = lists.chunks(bulk::ROWS).map(|part| async {
            let columns = bulk::columns(part, single.params().len());
            self.client()?.execute(&statement, &references(&columns)).await.map_err(limited)
        });
        Ok(try_join_all(parts).await?.into_iter().sum())
    }

    /// The statement for many rows that stands for one for a single row, where
    /// there is one and it is worth it: it is where rows are locked.
    async fn bulk(
        &self,
        sql: &str,
        single: &Statement,
        lists: &[Vec<Value>],
    ) -> Result<Option<(Statement, bulk::Answer)>> {
        if self.mode != Mode::Write || lists.len() < 2 {
            return Ok(None);
        }
        let Some(bulk) = bulk::rewrite(&sql::postgres(sql), single.params()) else { return Ok(None) };
        Ok(Some((self.client()?.prepare_cached(&bulk.sql).await.map_err(limited)?, bulk.answer)))
    }

    /// Runs statements without parameters, outside a transaction or in it.
    pub(crate) async fn batch(&self, sql: &str) -> Result<()> {
        self.client()?.batch_execute(sql).await.map_err(limited)
    }
}

impl Drop for Session {
    /// A connection whose transaction was neither committed nor rolled back
    /// does not return to the pool.
    fn drop(&mut self) {
        if self.open
            && let Some(client) = self.client.take()
        {
            drop(Object::take(client));
        }
    }
}

/// Whether the transaction may succeed when it is repeated.
pub(crate) fn is_retriable(error: &Error) -> bool {
    let Error::Postgres(error) = error else { return false };
    error.code().is_some_and(|code| {
        [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(code)
    })
}

fn limited(error: tokio_postgres::Error) -> Error {
    if error.code() == Some(&SqlState::QUERY_CANCELED) { Error::QueryTooLong } else { error.into() }
}

fn time(answers: &[SimpleQueryMessage]) -> Result<Millis> {
    let text = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    text.and_then(|text| text.parse().ok()).ok_or_else(|| Error::Corrupt("no clock".into()))
}

fn row(row: &tokio_postgres::Row) -> Result<Row> {
    columns_from(row, 0)
}

/// A row without its first `skipped` columns.
fn columns_from(row: &tokio_postgres::Row, skipped: usize) -> Result<Row> {
    (skipped..row.len()).map(|at| column(row, at)).collect::<Result<_>>().map(Row)
}

fn references<'c>(columns: &'c [Vec<&Value>]) -> Vec<&'c (dyn ToSql + Sync)> {
    columns.iter().map(|column| column as _).collect()
}

/// Whose the rows of a statement for so many lists are.
type Sort = fn(&[tokio_postgres::Row], usize, bulk::Answer) -> Result<Vec<Vec<Row>>>;

/// All of them together: some lists have none, and nobody can tell which.
fn together(rows: &[tokio_postgres::Row], _: usize, _: bulk::Answer) -> Result<Vec<Vec<Row>>> {
    Ok(vec![rows.iter().map(row).collect::<Result<_>>()?])
}

/// List by list.
fn apart(rows: &[tokio_postgres::Row], lists: usize, answer: bulk::Answer) -> Result<Vec<Vec<Row>>> {
    let mut found = vec![Vec::new(); lists];
    for (at, from) in rows.iter().enumerate() {
        let (list, skipped) = match answer {
            bulk::Answer::Numbered => (usize::try_from(from.try_get::<_, i64>(0)? - 1).ok(), 1),
            bulk::Answer::InOrder if rows.len() == lists => (Some(at), 0),
            bulk::Answer::InOrder | bulk::Answer::Counted => (None, 0),
        };
        let rows_of_list = list.and_then(|list| found.get_mut(list));
        rows_of_list
            .ok_or_else(|| Error::Corrupt("a row that belongs to no list".into()))?
            .push(columns_from(from, skipped)?);
    }
    Ok(found)
}

fn column(row: &tokio_postgres::Row, at: usize) -> Result<Value> {
    Ok(match *row.columns()[at].type_() {
        Type::INT8 => row.try_get::<_, Option<i64>>(at)?.into(),
        Type::INT4 => row.try_get::<_, Option<i32>>(at)?.map(i64::from).into(),
        Type::BOOL => row.try_get::<_, Option<bool>>(at)?.into(),
        Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(at)?.into(),
        Type::TEXT | Type::VARCHAR | Type::NAME => row.try_get::<_, Option<String>>(at)?.into(),
        ref other => return Err(Error::Corrupt(format!("a column of type {other}"))),
    })
}

impl ToSql for Value {
    fn to_sql(
        &self,
        to: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(value) if *to == Type::INT4 => i32::try_from(*value)?.to_sql(to, out),
            Self::Int(value) => value.to_sql(to, out),
            Self::Text(value) => value.to_sql(to, out),
            Self::Bytes(value) => value.to_sql(to, out),
            Self::Ints(values) => values.to_sql(to, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        // Statements fix the types; a wrong one is refused by the server.
        true
    }

    to_sql_checked!();
}

//! SQLite below a [`super::tx::Tx`]: one connection, its statements prepared
//! once.
//!
//! WAL with `synchronous=FULL`: a commit is on disk when it returns. The
//! writer does not checkpoint; [`super::engine`] has a thread for it.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rusqlite::{OpenFlags, config::DbConfig, params_from_iter, types::ToSqlOutput, types::ValueRef};

use super::{
    error::{Error, Result},
    sql::{self, Row, Value},
    types::Millis,
};

/// How long a statement waits for another process that writes, such as
/// `pinfold token create` beside `pinfold up`.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Distinct statements kept prepared for each connection; the data layer has
/// fewer, filters of lists included.
const STATEMENTS: usize = 256;

/// Steps of SQLite's machine between two looks at the time limit: well below a
/// millisecond.
const STEPS_PER_CHECK: i32 = 2_000;

/// Page cache of one connection in KiB, as SQLite counts it.
const CACHE_KIB: i64 = 8 * 1024;

/// What of the write-ahead log's file is kept after a long one was moved into
/// the database.
const LOG_BYTES: i64 = 64 << 20;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The one that writes.
    Write,
    /// One of those that read.
    Read,
}

/// A connection with its statements.
pub(crate) struct Connection {
    inner: rusqlite::Connection,
    rewritten: HashMap<String, Arc<str>>,
    limit: Arc<Limit>,
}

/// When the running statement has to end, in microseconds since `base`.
#[derive(Debug)]
struct Limit {
    base: Instant,
    at: AtomicU64,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("sqlite::Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// Opens the file; with [`Access::Write`] it is made where it is missing.
    pub(crate) fn open(file: &Path, access: Access) -> Result<Self> {
        let flags = match access {
            Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
            Access::Read => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let mut inner = rusqlite::Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        configure(&inner, access)?;
        let limit = Arc::new(Limit { base: Instant::now(), at: AtomicU64::new(u64::MAX) });
        if access == Access::Read {
            let limit = Arc::clone(&limit);
            inner.progress_handler(STEPS_PER_CHECK, Some(move || limit.passed()))?;
        }
        Ok(Self { inner, rewritten: HashMap::new(), limit })
    }

    /// The connection itself, for what is not a statement of the data layer.
    pub(crate) fn raw(&mut self) -> &mut rusqlite::Connection {
        &mut self.inner
    }

    /// Ends statements that run longer than this from now on.
    pub(crate) fn limit_time(&self, time: Duration) {
        let at = self.limit.base.elapsed().saturating_add(time).as_micros();
        self.limit.at.store(u64::try_from(at).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        let sql = self.rewrite(sql);
        let mut statement = self.inner.prepare_cached(&sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query(params_from_iter(parameters)).map_err(limited)?;
        let mut out = Vec::new();
        while let Some(row) = rows.next().map_err(limited)? {
            let values = (0..columns).map(|at| value(row.get_ref(at)?)).collect::<Result<_>>()?;
            out.push(Row(values));
        }
        Ok(out)
    }

    pub(crate) fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64> {
        let sql = self.rewrite(sql);
        let mut statement = self.inner.prepare_cached(&sql)?;
        Ok(statement.execute(params_from_iter(parameters)).map_err(limited)? as u64)
    }

    /// Runs statements without parameters, such as `BEGIN`.
    pub(crate) fn batch(&mut self, sql: &str) -> Result<()> {
        Ok(self.inner.execute_batch(sql)?)
    }

    /// Whether a failed statement has ended the whole transaction.
    pub(crate) fn transaction_ended(&self) -> bool {
        self.inner.is_autocommit()
    }

    fn rewrite(&mut self, sql: &str) -> Arc<str> {
        if let Some(known) = self.rewritten.get(sql) {
            return Arc::clone(known);
        }
        if self.rewritten.len() >= 2 * STATEMENTS {
            self.rewritten.clear();
        }
        let text: Arc<str> = sql::sqlite(sql).into();
        self.rewritten.insert(sql.to_owned(), Arc::clone(&text));
        text
    }
}

impl Limit {
    fn passed(&self) -> bool {
        self.base.elapsed().as_micros() > u128::from(self.at.load(Ordering::Relaxed))
    }
}

/// The time by this machine's clock, which is the database's.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

fn configure(connection: &rusqlite::Connection, access: Access) -> Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Originals of pages, kept for a savepoint: as many as one batch changes.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Without it SQLite plans a statement anew for each value that is bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    match access {
        Access::Write => {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            // macOS answers fsync before the disk has the bytes.
            connection.pragma_update(None, "fullfsync", true)?;
            connection.pragma_update(None, "checkpoint_fullfsync", true)?;
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        }
        Access::Read => connection.pragma_update(None, "query_only", true)?,
    }
    Ok(())
}

fn limited(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::OperationInterrupted) => Error::QueryTooLong,
        _ => Error::Sqlite(error),
    }
}

fn value(value: ValueRef<'_>) -> Result<Value> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Int(value),
        ValueRef::Blob(value) => Value::Bytes(value.to_vec()),
        ValueRef::Text(value) => match std::str::from_utf8(value) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => return Err(Error::Corrupt("a text that is not UTF-8".into())),
        },
        ValueRef::Real(_) => return Err(Error::Corrupt("a number with a fraction".into())),
    })
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Self::Int(value) => ToSqlOutput::Borrowed(ValueRef::Integer(*value)),
            Self::Text(value) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
            Self::Bytes(value) => ToSqlOutput::Borrowed(ValueRef::Blob(value)),
            Self::Ints(values) => ToSqlOutput::Owned(json(values).into()),
        })
    }
}

/// A JSON array, for `json_each`.
fn json(values: &[i64]) -> String {
    let numbers: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("[{}]", numbers.join(","))
}

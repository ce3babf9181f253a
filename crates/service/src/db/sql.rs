//! Values, rows, and where the two dialects differ.
//!
//! Every statement of the data layer is written once. Parameters are `$1`,
//! `$2`, …; columns are BIGINT, TEXT and bytes, so that both databases give
//! the same three types. What remains is rewritten for SQLite by [`sqlite`]
//! and for PostgreSQL by [`postgres`]:
//!
//! | written | SQLite | PostgreSQL |
//! |---|---|---|
//! | `$1` | `?1` | as it is |
//! | `ANY_OF($1)` | `(SELECT value FROM json_each(?1))` | `(SELECT unnest($1::BIGINT[]))` |
//! | `FOR UPDATE`, `FOR NO KEY UPDATE`, `SKIP LOCKED` | nothing: there is one writer | as it is |
//! | `GREATEST(a, b)` | `max(a, b)` | as it is |
//! | `strpos(a, b)` | `instr(a, b)` | as it is |

use super::error::{Error, Result};

/// A parameter or a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// NULL of any type.
    Null,
    /// BIGINT.
    Int(i64),
    /// TEXT.
    Text(String),
    /// BLOB or BYTEA.
    Bytes(Vec<u8>),
    /// The parameter of `ANY_OF`; never a column.
    Ints(Vec<i64>),
}

/// Builds the parameters of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::db::sql::Value::from($value)),*] };
}
pub(crate) use values;

macro_rules! from {
    ($($type:ty, $value:ident => $into:expr;)*) => {
        $(impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $into
            }
        })*
    };
}

from! {
    i64, value => Self::Int(value);
    bool, value => Self::Int(value.into());
    String, value => Self::Text(value);
    &str, value => Self::Text(value.to_owned());
    &String, value => Self::Text(value.clone());
    Vec<u8>, value => Self::Bytes(value);
    &[u8], value => Self::Bytes(value.to_vec());
    &Vec<u8>, value => Self::Bytes(value.clone());
    &[u8; 32], value => Self::Bytes(value.to_vec());
    uuid::Uuid, value => Self::Bytes(value.as_bytes().to_vec());
    Vec<i64>, value => Self::Ints(value);
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A row. Columns are taken by position; another type than the expected one
/// is [`Error::Corrupt`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Row(pub(crate) Vec<Value>);

impl Row {
    /// A BIGINT.
    pub(crate) fn int(&self, at: usize) -> Result<i64> {
        self.opt_int(at)?.ok_or_else(|| unexpected(at, "a number"))
    }

    /// A BIGINT or NULL.
    pub(crate) fn opt_int(&self, at: usize) -> Result<Option<i64>> {
        match self.0.get(at) {
            Some(Value::Int(value)) => Ok(Some(*value)),
            Some(Value::Null) => Ok(None),
            _ => Err(unexpected(at, "a number")),
        }
    }

    /// A BIGINT that is not negative.
    pub(crate) fn count(&self, at: usize) -> Result<u64> {
        u64::try_from(self.int(at)?).map_err(|_| unexpected(at, "a count"))
    }

    /// A flag.
    pub(crate) fn flag(&self, at: usize) -> Result<bool> {
        Ok(self.int(at)? != 0)
    }

    /// A TEXT.
    pub(crate) fn text(&self, at: usize) -> Result<&str> {
        self.opt_text(at)?.ok_or_else(|| unexpected(at, "a text"))
    }

    /// A TEXT or NULL.
    pub(crate) fn opt_text(&self, at: usize) -> Result<Option<&str>> {
        match self.0.get(at) {
            Some(Value::Text(value)) => Ok(Some(value)),
            Some(Value::Null) => Ok(None),
            _ => Err(unexpected(at, "a text")),
        }
    }

    /// Bytes.
    pub(crate) fn bytes(&self, at: usize) -> Result<&[u8]> {
        match self.0.get(at) {
            Some(Value::Bytes(value)) => Ok(value),
            _ => Err(unexpected(at, "bytes")),
        }
    }

    /// 32 bytes: a key or a digest.
    pub(crate) fn bytes32(&self, at: usize) -> Result<[u8; 32]> {
        self.bytes(at)?.try_into().map_err(|_| unexpected(at, "32 bytes"))
    }

    /// A UUID.
    pub(crate) fn uuid(&self, at: usize) -> Result<uuid::Uuid> {
        uuid::Uuid::from_slice(self.bytes(at)?).map_err(|_| unexpected(at, "a UUID"))
    }
}

fn unexpected(at: usize, expected: &str) -> Error {
    Error::Corrupt(format!("something else than {expected} in column {at} of a row"))
}

/// The statement as SQLite understands it.
pub(crate) fn sqlite(sql: &str) -> String {
    numbered(sql)
        .replace("FOR UPDATE", "")
        .replace("FOR NO KEY UPDATE", "")
        .replace("SKIP LOCKED", "")
        .replace("GREATEST(", "max(")
        .replace("strpos(", "instr(")
}

/// `$1` becomes `?1`, `ANY_OF($1)` a table of the array's values.
fn numbered(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 64);
    let mut rest = sql;
    while let Some(at) = rest.find("ANY_OF($") {
        let (before, after) = rest.split_at(at);
        let after = &after["ANY_OF($".len()..];
        let end = after.find(')').unwrap_or(after.len());
        out.push_str(before);
        out.push_str("(SELECT value FROM json_each(?");
        out.push_str(&after[..end]);
        out.push_str("))");
        rest = after.get(end + 1..).unwrap_or("");
    }
    out.push_str(rest);
    out.replace('$', "?")
}

/// The statement as PostgreSQL understands it.
pub(crate) fn postgres(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 64);
    let mut rest = sql;
    while let Some(at) = rest.find("ANY_OF($") {
        let (before, after) = rest.split_at(at);
        let after = &after["ANY_OF(".len()..];
        let end = after.find(')').unwrap_or(after.len());
        out.push_str(before);
        out.push_str("(SELECT unnest(");
        out.push_str(&after[..end]);
        out.push_str("::BIGINT[]))");
        rest = after.get(end + 1..).unwrap_or("");
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_serves_both_dialects() {
        let sql = "SELECT GREATEST(a, $2) FROM t WHERE id IN ANY_OF($1) AND x = $12 FOR UPDATE SKIP LOCKED";
        assert_eq!(
            sqlite(sql).trim(),
            "SELECT max(a, ?2) FROM t WHERE id IN (SELECT value FROM json_each(?1)) AND x = ?12"
        );
        assert_eq!(
            postgres(sql),
            "SELECT GREATEST(a, $2) FROM t WHERE id IN (SELECT unnest($1::BIGINT[])) AND x = $12 FOR UPDATE SKIP LOCKED"
        );
    }

    #[test]
    fn a_column_of_another_type_is_corrupt() {
        let row = Row(vec![Value::Text("x".into()), Value::Null, Value::Int(-1)]);
        assert!(matches!(row.int(0), Err(Error::Corrupt(_))));
        assert!(matches!(row.int(1), Err(Error::Corrupt(_))));
        assert!(matches!(row.count(2), Err(Error::Corrupt(_))));
        assert_eq!(row.opt_int(1).ok(), Some(None));
        assert!(matches!(row.text(7), Err(Error::Corrupt(_))));
    }
}

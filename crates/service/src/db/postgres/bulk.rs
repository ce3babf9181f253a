//! One statement for many lists of parameters.
//!
//! A statement that is written for one row costs the server its parsing of the
//! message, a snapshot and an execution each time, which is more than the row
//! itself. So the driver rewrites it once more: the lists become columns,
//! `unnest` makes a table `v` of them, and each `$1` becomes `v.p1`.
//!
//! | written | sent |
//! |---|---|
//! | `SELECT …` | `SELECT v.n, q.* FROM v CROSS JOIN LATERAL (SELECT … OFFSET 0) q` |
//! | `INSERT INTO t (…) VALUES (…) …` | `INSERT INTO t (…) SELECT … FROM v …` |
//! | `UPDATE t SET … WHERE …` | `UPDATE t SET … FROM v WHERE …` |
//! | `DELETE FROM t WHERE …` | `DELETE FROM t USING v WHERE …` |
//!
//! Rows are found, and locked, in the order of the lists: `OFFSET 0` keeps the
//! planner from turning the look-ups into a join of its own order, and
//! [`super::BY_KEY`] has the joins of the other three go by index.

use tokio_postgres::types::Type;

use crate::db::sql::Value;

/// Rows of one statement. A batch of new pins, a report or a part of a content
/// has fewer; more would only make the message larger.
pub(super) const ROWS: usize = 1_024;

/// How the answer of a rewritten statement belongs to the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The first column is the number of the list, from 1.
    Numbered,
    /// A row for each list, in their order.
    InOrder,
    /// Rows that nobody can tell apart; only their number counts.
    Counted,
}

/// A rewritten statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bulk {
    pub(super) sql: String,
    pub(super) answer: Answer,
}

/// Rewrites a statement whose parameters have these types; `None` where it has
/// another form, and has to be sent once for each list.
pub(super) fn rewrite(sql: &str, types: &[Type]) -> Option<Bulk> {
    let table = table(types)?;
    let sql = sql.trim();
    let (sql, answer) = match sql.split_whitespace().next()? {
        "SELECT" => (select(sql, &table), Answer::Numbered),
        "INSERT" => (insert(sql, &table)?, Answer::InOrder),
        "UPDATE" => (changed(sql, "FROM", &table)?, Answer::Counted),
        "DELETE" => (changed(sql, "USING", &table)?, Answer::Counted),
        _ => return None,
    };
    Some(Bulk { sql, answer })
}

/// The lists as columns, one for each parameter.
pub(super) fn columns(lists: &[Vec<Value>], parameters: usize) -> Vec<Vec<&Value>> {
    const NONE: &Value = &Value::Null;
    (0..parameters).map(|at| lists.iter().map(|list| list.get(at).unwrap_or(NONE)).collect()).collect()
}

fn table(types: &[Type]) -> Option<String> {
    if types.is_empty() {
        return None;
    }
    let arrays: Option<Vec<String>> =
        types.iter().enumerate().map(|(at, kind)| Some(format!("${}::{}[]", at + 1, name(kind)?))).collect();
    let names: Vec<String> = (1..=types.len()).map(|at| format!("p{at}")).collect();
    Some(format!("unnest({}) WITH ORDINALITY AS v({}, n)", arrays?.join(", "), names.join(", ")))
}

/// The types of the data layer's columns.
fn name(kind: &Type) -> Option<&'static str> {
    match *kind {
        Type::INT8 => Some("BIGINT"),
        Type::TEXT => Some("TEXT"),
        Type::BYTEA => Some("BYTEA"),
        _ => None,
    }
}

fn select(sql: &str, table: &str) -> String {
    format!("SELECT v.n, q.* FROM {table} CROSS JOIN LATERAL ({} OFFSET 0) AS q", named(sql))
}

fn insert(sql: &str, table: &str) -> Option<String> {
    let (into, rest) = sql.split_once("VALUES (")?;
    let (values, rest) = rest.split_at(closing(rest)?);
    let rest = &rest[1..];
    if rest.contains('$') {
        return None;
    }
    Some(format!("{into}SELECT {} FROM {table}{rest}", named(values)))
}

/// Where the parenthesis closes that was open before the text.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1;
    text.char_indices().find_map(|(at, letter)| {
        open += i32::from(letter == '(') - i32::from(letter == ')');
        (open == 0).then_some(at)
    })
}

/// An `UPDATE` or `DELETE` of one table, by a condition.
fn changed(sql: &str, joins: &str, table: &str) -> Option<String> {
    let (what, condition) = sql.split_once("WHERE ")?;
    if sql.contains(" RETURNING ") || what.contains("(SELECT ") {
        return None;
    }
    Some(format!("{}{joins} {table} WHERE {}", named(what), named(condition)))
}

/// `$1` becomes `v.p1`.
fn named(sql: &str) -> String {
    sql.replace('$', "v.p")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, types: &[Type], expected: Option<(&str, Answer)>) {
        let expected = expected.map(|(sql, answer)| Bulk { sql: sql.to_owned(), answer });
        assert_eq!(rewrite(sql, types), expected, "{sql}");
    }

    #[test]
    fn each_form_is_written_for_many_rows() {
        check(
            "SELECT a FROM t WHERE b = $1 ORDER BY a LIMIT $2 FOR UPDATE",
            &[Type::BYTEA, Type::INT8],
            Some((
                "SELECT v.n, q.* FROM unnest($1::BYTEA[], $2::BIGINT[]) WITH ORDINALITY AS v(p1, p2, n) \
                 CROSS JOIN LATERAL (SELECT a FROM t WHERE b = v.p1 ORDER BY a LIMIT v.p2 FOR UPDATE \
                 OFFSET 0) AS q",
                Answer::Numbered,
            )),
        );
        check(
            "INSERT INTO t (a, b) VALUES (coalesce($1, 0), $2) ON CONFLICT (a) DO NOTHING",
            &[Type::INT8, Type::TEXT],
            Some((
                "INSERT INTO t (a, b) SELECT coalesce(v.p1, 0), v.p2 FROM unnest($1::BIGINT[], $2::TEXT[]) \
                 WITH ORDINALITY AS v(p1, p2, n) ON CONFLICT (a) DO NOTHING",
                Answer::InOrder,
            )),
        );
        check(
            "UPDATE t SET a = $2 WHERE b = $1",
            &[Type::INT8, Type::INT8],
            Some((
                "UPDATE t SET a = v.p2 FROM unnest($1::BIGINT[], $2::BIGINT[]) WITH ORDINALITY \
                 AS v(p1, p2, n) WHERE b = v.p1",
                Answer::Counted,
            )),
        );
        check(
            "DELETE FROM t WHERE b = $1",
            &[Type::INT8],
            Some((
                "DELETE FROM t USING unnest($1::BIGINT[]) WITH ORDINALITY AS v(p1, n) WHERE b = v.p1",
                Answer::Counted,
            )),
        );
    }

    #[test]
    fn other_forms_are_sent_one_by_one() {
        check("SELECT 1", &[], None);
        check("SELECT 1 WHERE 1 IN (SELECT unnest($1::BIGINT[]))", &[Type::INT8_ARRAY], None);
        check("WITH a AS (SELECT $1) SELECT * FROM a", &[Type::INT8], None);
        check("INSERT INTO t SELECT a FROM u WHERE b = $1", &[Type::INT8], None);
        check("INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET b = $1", &[Type::INT8], None);
        check("UPDATE t SET a = $1 WHERE b = 2 RETURNING a", &[Type::INT8], None);
        check("UPDATE t SET a = $1", &[Type::INT8], None);
    }

    #[test]
    fn lists_are_turned_into_columns() {
        let lists = [vec![Value::Int(1), Value::Null], vec![Value::Int(2), Value::Text("b".into())]];
        let text = Value::Text("b".into());
        assert_eq!(columns(&lists, 2), [vec![&Value::Int(1), &Value::Int(2)], vec![&Value::Null, &text]]);
    }
}

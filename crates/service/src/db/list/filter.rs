//! Lists under filters by name, CID and metadata.
//!
//! Each filter has an index: names by their folded form, parts of names by
//! their trigrams (FTS5, pg_trgm), contents by (content, account), metadata by
//! the digest of key and value. What an index finds is compared again with
//! what was asked for.

use pinfold_core::names;

use crate::db::{
    content,
    error::Result,
    pins, records,
    sql::{Value, values},
    tally,
    tx::Tx,
    types::{AccountId, ListQuery, NameMatch, Page},
};

use super::{EXACT, bounds, newest};

/// The shortest text that a trigram index can find.
const TRIGRAM: usize = 3;

/// The conditions of a query and their parameters.
struct Conditions {
    text: String,
    parameters: Vec<Value>,
    sqlite: bool,
}

impl Conditions {
    /// Adds a condition in which `{}` stands for the parameter.
    fn and(&mut self, condition: &str, value: impl Into<Value>) {
        self.parameters.push(value.into());
        let name = format!("${}", self.parameters.len());
        self.text.push_str(" AND ");
        self.text.push_str(&condition.replace("{}", &name));
    }
}

/// A page and its count under filters.
pub(super) async fn list(tx: &mut Tx, account: AccountId, query: &ListQuery, limit: u32) -> Result<Page> {
    let Some(conditions) = conditions(tx, account, query).await? else {
        return Ok(Page { count: 0, pins: Vec::new() });
    };
    if !tx.is_sqlite() {
        // A plan that is kept for any text reads all pins of the account
        // beside the index of names, and what that finds has to be sorted.
        tx.batch("SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_sort = on").await?;
    }
    let count = count(tx, &conditions).await?;
    if count == 0 {
        return Ok(Page { count, pins: Vec::new() });
    }
    let mut parameters = conditions.parameters;
    parameters.push(Value::Int(limit.into()));
    let source = format!(
        "(SELECT * FROM pin q WHERE {} ORDER BY q.created DESC LIMIT ${}) p",
        conditions.text,
        parameters.len()
    );
    let rows = tx.query(&records::select(&source), &parameters).await?;
    Ok(Page { count, pins: records::read(tx, &newest(vec![rows], limit)?).await? })
}

async fn count(tx: &mut Tx, conditions: &Conditions) -> Result<u64> {
    let mut parameters = conditions.parameters.clone();
    parameters.push(Value::Int(content::amount(EXACT)));
    let sql = format!(
        "SELECT COUNT(*) FROM (SELECT 1 FROM pin q WHERE {} LIMIT ${}) counted",
        conditions.text,
        parameters.len()
    );
    tx.first(&sql, &parameters).await?.map_or(Ok(0), |row| row.count(0))
}

/// The conditions of a query; `None` when nothing can match.
async fn conditions(tx: &mut Tx, account: AccountId, query: &ListQuery) -> Result<Option<Conditions>> {
    let (before, after) = bounds(query);
    let parameters = values![account, before, after].to_vec();
    let part = query.name.as_ref().and_then(|(name, way)| part(name, *way));
    // Of an account with many pins SQLite would go through all of them: it does
    // not know how few the trigrams find. A plus keeps it from other indexes.
    let own = if tx.is_sqlite() && part.is_some() { "+" } else { "" };
    let text = format!("{own}q.account = $1 AND {own}q.created < $2 AND {own}q.created > $3");
    let mut conditions = Conditions { text, parameters, sqlite: tx.is_sqlite() };
    let statuses: Vec<i64> = query.statuses.iter().map(|&status| tally::number(status)).collect();
    if super::distinct(&query.statuses).len() < 4 {
        conditions.and(&format!("{own}q.status IN ANY_OF({{}})"), statuses);
    }
    if !query.contents.is_empty() {
        let contents = numbers(tx, &query.contents).await?;
        if contents.is_empty() {
            return Ok(None);
        }
        conditions.and("q.content IN ANY_OF({})", contents);
    }
    for (key, value) in &query.meta {
        let condition = "EXISTS (SELECT 1 FROM pin_meta m
            WHERE m.account = q.account AND m.pair = {} AND m.created = q.created)";
        conditions.and(condition, pins::pair(key, value));
    }
    if let Some((key, value)) = query.meta.iter().next() {
        // Drives the search where there is no better index.
        let condition =
            "q.created IN (SELECT m.created FROM pin_meta m WHERE m.account = $1 AND m.pair = {})";
        conditions.and(condition, pins::pair(key, value));
    }
    if let Some(part) = part {
        by_trigrams(&mut conditions, &part);
    }
    if let Some((name, way)) = &query.name {
        by_name(&mut conditions, name, *way);
    }
    Ok(Some(conditions))
}

/// The numbers of contents by their keys; unknown ones are left out.
async fn numbers(tx: &mut Tx, keys: &[Vec<u8>]) -> Result<Vec<i64>> {
    let lists: Vec<_> = keys.iter().map(|key| values![key].to_vec()).collect();
    let rows = tx.query_many("SELECT id FROM content WHERE key = $1", &lists).await?;
    rows.iter().flatten().map(|row| row.int(0)).collect()
}

fn by_name(conditions: &mut Conditions, name: &str, way: NameMatch) {
    match way {
        NameMatch::Exact => {
            conditions.and("q.folded = {}", names::fold(name));
            conditions.and("q.name = {}", name);
        }
        NameMatch::Iexact => conditions.and("q.folded = {}", names::fold(name)),
        NameMatch::Partial => conditions.and("strpos(q.name, {}) > 0", name),
        NameMatch::Ipartial => conditions.and("strpos(q.folded, {}) > 0", names::fold(name)),
    }
}

/// A part of the folded form of every name that a filter finds, where there is
/// one that is long enough for the trigram index.
fn part(name: &str, way: NameMatch) -> Option<String> {
    let part = match way {
        NameMatch::Exact | NameMatch::Iexact => return None,
        NameMatch::Partial => ascii_part(name),
        NameMatch::Ipartial => names::fold(name),
    };
    (part.chars().count() >= TRIGRAM).then_some(part)
}

/// What of a text is certainly part of the folded form of every name that
/// contains it: a run of ASCII without its last character, which a combining
/// mark after it could change.
fn ascii_part(text: &str) -> String {
    let runs = text.split(|letter: char| !letter.is_ascii());
    let longest = runs.max_by_key(|run| run.len()).unwrap_or_default();
    longest[..longest.len().saturating_sub(1)].to_ascii_lowercase()
}

/// Narrows by the trigram index.
fn by_trigrams(conditions: &mut Conditions, folded: &str) {
    if conditions.sqlite {
        let condition = "q.id IN (SELECT rowid FROM pin_name WHERE pin_name MATCH {})";
        conditions.and(condition, trigrams(folded));
    } else {
        conditions.and("q.folded LIKE {}", like(folded));
    }
}

/// All trigrams of a text, as an FTS5 expression.
fn trigrams(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut all: Vec<String> = letters
        .windows(TRIGRAM)
        .map(|three| format!("\"{}\"", three.iter().collect::<String>().replace('"', "\"\"")))
        .collect();
    all.sort_unstable();
    all.dedup();
    all.join(" AND ")
}

/// A LIKE pattern for texts that contain this one.
fn like(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::executor::block_on;
    use pinfold_core::status::Status;

    use crate::db::{engine, schema, settings::Location};

    use super::*;

    /// How SQLite looks for what a query names, step by step.
    fn plan(tx: &mut Tx, query: &ListQuery) -> Vec<String> {
        let conditions = block_on(conditions(tx, 1, query)).unwrap().expect("something can match");
        let sql = format!("EXPLAIN QUERY PLAN SELECT 1 FROM pin q WHERE {}", conditions.text);
        let rows = block_on(tx.query(&sql, &conditions.parameters)).unwrap();
        rows.iter().map(|row| row.text(3).unwrap().to_owned()).collect()
    }

    #[test]
    fn each_filter_goes_by_its_index_and_none_reads_all_pins() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pins.db");
        let settings = Arc::new(crate::db::Settings::new(Location::Sqlite(file.clone())));
        block_on(schema::prepare(&settings, true)).unwrap();
        let mut tx = engine::open_writer(&file, &settings).unwrap();
        let known = "INSERT INTO content (key, cid) VALUES ($1, 'bafkqaaa')";
        block_on(tx.execute(known, &values![vec![1_u8]])).unwrap();
        let none = ListQuery { statuses: vec![Status::Pinned], limit: 10, ..ListQuery::default() };
        let named = |way| ListQuery { name: Some(("photos".into(), way)), ..none.clone() };
        let meta = [("app".to_owned(), "e2e".to_owned())].into();
        for (query, index) in [
            (named(NameMatch::Exact), "pin_folded"),
            (named(NameMatch::Iexact), "pin_folded"),
            (named(NameMatch::Partial), "SEARCH q USING INTEGER PRIMARY KEY"),
            (named(NameMatch::Ipartial), "SEARCH q USING INTEGER PRIMARY KEY"),
            (ListQuery { contents: vec![vec![1]], ..none.clone() }, "pin_content"),
            (ListQuery { meta, ..none.clone() }, "SEARCH m USING PRIMARY KEY (account=? AND pair=?"),
        ] {
            let plan = plan(&mut tx, &query);
            assert!(plan.iter().any(|step| step.contains(index)), "{index} is not used: {plan:#?}");
            assert!(!plan.iter().any(|step| step.starts_with("SCAN q")), "all pins are read: {plan:#?}");
        }
    }

    #[test]
    fn only_what_folding_cannot_change_is_looked_up() {
        let check = |text, want| assert_eq!(ascii_part(text), want, "{text:?}");
        check("Photos", "photo");
        check("été Photos ß", " photos");
        check("é", "");
        check("", "");
    }

    #[test]
    fn patterns_escape_what_they_look_for() {
        assert_eq!(like("50%_\\x"), "%50\\%\\_\\\\x%");
        assert_eq!(trigrams("a\"b\"a"), "\"\"\"b\"\"\" AND \"a\"\"b\" AND \"b\"\"a\"");
    }
}

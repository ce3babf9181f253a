//! Lists of an account's pins, newest first, with their count.
//!
//! Without filters by name, CID or metadata the cost is that of the page: the
//! page comes from ranges of (account, status, created), one for each status,
//! and the count from the tally ([`prefix`]), both in one snapshot and in two
//! steps, which are two round trips on PostgreSQL. With such filters the page comes
//! from the filter's own index, and the count is exact up to [`EXACT`].

mod filter;
mod prefix;

use pinfold_core::status::Status;

use super::{
    error::Result,
    records,
    sql::{Row, values},
    tally,
    tx::Tx,
    types::{AccountId, ListQuery, Millis, Page, PinRecord},
};
use prefix::Prefix;

/// Counts under filters by name, CID or metadata are exact up to this, and
/// this beyond it. Clients end when the count is that of the results, so they
/// still read everything.
pub(crate) const EXACT: u64 = 10_000;

/// The most pins of a page.
const MAX_LIMIT: u32 = 1_000;

/// The newest pins of one status. With equality on the status PostgreSQL may
/// choose the index of dates and walk past every newer pin of another status.
/// The cursor `$4` is applied to what was found: PostgreSQL would not end a
/// scan there, but read all older pins of the status.
const RANGE: &str = "(SELECT * FROM
    (SELECT * FROM pin WHERE account = $1 AND (status, created) < ($2, $3) AND status >= $2
        ORDER BY account DESC, status DESC, created DESC LIMIT $5) newest
    WHERE created > $4) p";

/// A page and its count.
pub(crate) async fn list(tx: &mut Tx, account: AccountId, query: &ListQuery) -> Result<Page> {
    let limit = query.limit.clamp(1, MAX_LIMIT);
    if !query.contents.is_empty() || query.name.is_some() || !query.meta.is_empty() {
        return filter::list(tx, account, query, limit).await;
    }
    let (before, after) = bounds(query);
    let statuses = distinct(&query.statuses);
    // Counted up to `before`, less what is not above `after`.
    let moments = [query.before, query.after.map(|after| after.saturating_add(1))];
    let looks = moments.into_iter().flatten().map(|moment| prefix::look(account, moment)).collect();
    let page = records::select(RANGE);
    let ranges = statuses
        .iter()
        .map(|&status| values![account, tally::number(status), before, after, i64::from(limit)].to_vec())
        .collect();
    let [looked, rows] = tx.query_all([(prefix::LOOK, looks), (&page, ranges)]).await?;
    let mut prefixes =
        looked.iter().map(|newest| Prefix::upto(newest, &statuses)).collect::<Result<Vec<_>>>()?;
    if query.before.is_none() {
        prefixes.insert(0, Prefix::WHOLE);
    }
    let sums = prefixes.iter().map(|prefix| prefix.sums(account)).collect();
    let rows = newest(rows, limit)?;
    let (pins, sums) = records::read_beside(tx, &rows, (prefix::SUMS, sums)).await?;
    let counts = prefixes.iter().zip(&sums).map(|(prefix, sums)| prefix.count(sums, &statuses));
    let counts = counts.collect::<Result<Vec<u64>>>()?;
    let count = counts.into_iter().reduce(u64::saturating_sub).unwrap_or_default();
    Ok(Page { count, pins })
}

/// The cursors: strictly before, strictly after.
fn bounds(query: &ListQuery) -> (Millis, Millis) {
    (query.before.unwrap_or(Millis::MAX), query.after.unwrap_or(-1))
}

fn distinct(statuses: &[Status]) -> Vec<Status> {
    Status::ALL.into_iter().filter(|status| statuses.contains(status)).collect()
}

/// The newest of the rows of several ranges.
fn newest(rows: Vec<Vec<Row>>, limit: u32) -> Result<Vec<Row>> {
    let rows = rows.into_iter().flatten();
    let mut dated = rows.map(|row| Ok((row.int(3)?, row))).collect::<Result<Vec<_>>>()?;
    dated.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
    dated.truncate(limit as usize);
    Ok(dated.into_iter().map(|(_, row)| row).collect())
}

/// Pins of an account in the order of their creation.
pub(crate) async fn export(
    tx: &mut Tx,
    account: AccountId,
    after: Millis,
    limit: u32,
) -> Result<Vec<PinRecord>> {
    let source = "(SELECT * FROM pin WHERE account = $1 AND created > $2 ORDER BY created LIMIT $3) p";
    let sql = format!("{} ORDER BY p.created", records::select(source));
    let limit = i64::from(limit.clamp(1, MAX_LIMIT));
    let rows = tx.query(&sql, &values![account, after, limit]).await?;
    records::read(tx, &rows).await
}

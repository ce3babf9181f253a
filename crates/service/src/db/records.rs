//! Pins as callers see them, read with what their contents and nodes tell.

use std::collections::BTreeMap;

use pinfold_core::status::{Reason, Status};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    content::{self, Content, State},
    error::{Error, Result},
    nodes, placement,
    sql::{Row, Value, values},
    tally, turns,
    tx::{Question, Tx},
    types::{AccountId, Node, PinInfo, PinRecord},
};

/// The columns of a pin, for a table named `p`.
const PIN_COLUMNS: &str = "p.requestid, p.account, p.content, p.created, p.cid, p.name, p.meta, p.origins, \
    p.status, p.failure, p.detail";

/// How many [`PIN_COLUMNS`] there are.
const PIN_WIDTH: usize = 11;

/// Which nodes are to hold some contents.
const ALLOCATED: &str =
    "SELECT content, node FROM allocation WHERE content IN ANY_OF($1) AND state IN (0, 1)";

/// A statement that reads records: of the pins of `source`, a table
/// expression named `p`.
pub(crate) fn select(source: &str) -> String {
    let columns: Vec<String> =
        content::COLUMNS.split(", ").map(|column| format!("c.{}", column.trim())).collect();
    format!(
        "SELECT {PIN_COLUMNS}, {}, o.cid FROM {source} JOIN content c ON c.id = p.content
         LEFT JOIN hold h ON h.requestid = p.requestid LEFT JOIN content o ON o.id = h.content",
        columns.join(", ")
    )
}

/// The records of rows of a [`select`], in the same order.
pub(crate) async fn read(tx: &mut Tx, rows: &[Row]) -> Result<Vec<PinRecord>> {
    let (records, _) = read_beside(tx, rows, ("", Vec::new())).await?;
    Ok(records)
}

/// The same, and what another question answers that is sent with theirs.
pub(crate) async fn read_beside(
    tx: &mut Tx,
    rows: &[Row],
    other: Question<'_>,
) -> Result<(Vec<PinRecord>, Vec<Vec<Row>>)> {
    let mut contents = rows.iter().map(|row| row.int(2)).collect::<Result<Vec<i64>>>()?;
    contents.sort_unstable();
    contents.dedup();
    let contents = if contents.is_empty() { Vec::new() } else { vec![vec![Value::from(contents)]] };
    let questions = [(ALLOCATED, contents), nodes::question(tx), other];
    let [allocations, nodes, answer] = tx.query_all(questions).await?;
    let (allocated, nodes) = (allocated(&allocations)?, nodes::answered(tx, &nodes)?);
    let wanted = tx.settings.replicas_target;
    let records = rows.iter().map(|row| record(row, &allocated, &nodes, wanted));
    let mut records = records.collect::<Result<Vec<_>>>()?;
    tell_quotas(tx, &mut records).await?;
    Ok((records, answer))
}

/// Adds to pins that failed for their account's quota what is used of it now.
async fn tell_quotas(tx: &mut Tx, records: &mut [PinRecord]) -> Result<()> {
    let mut known: BTreeMap<AccountId, Option<(u64, u64)>> = BTreeMap::new();
    for record in records.iter_mut().filter(|record| record.info.reason == Some(Reason::OverQuota)) {
        record.info.quota = match known.get(&record.account) {
            Some(quota) => *quota,
            None => {
                let sql = "SELECT used + reserved, quota FROM account WHERE id = $1";
                let row = tx.first(sql, &values![record.account]).await?;
                let quota = row.map(|row| Ok::<_, Error>((row.count(0)?, row.count(1)?))).transpose()?;
                known.insert(record.account, quota);
                quota
            }
        };
    }
    Ok(())
}

/// A pin of the account by its id, with its place in the account's queue.
pub(crate) async fn of_account(
    tx: &mut Tx,
    account: AccountId,
    requestid: Uuid,
) -> Result<Option<PinRecord>> {
    let found = some(tx, &[requestid]).await?.pop();
    let Some(mut pin) = found.filter(|pin| pin.account == account) else { return Ok(None) };
    if pin.status == Status::Queued {
        pin.info.queued_ahead = turns::ahead(tx, account, pin.content).await?;
    }
    Ok(Some(pin))
}

/// Those of some pins that exist.
pub(crate) async fn some(tx: &mut Tx, requestids: &[Uuid]) -> Result<Vec<PinRecord>> {
    let sql = format!("{} WHERE p.requestid = $1", select("pin p"));
    let lists: Vec<_> = requestids.iter().map(|&id| values![id].to_vec()).collect();
    let rows: Vec<Row> = tx.query_many(&sql, &lists).await?.into_iter().flatten().collect();
    read(tx, &rows).await
}

/// The nodes that are to hold each content, of the rows that answer
/// [`ALLOCATED`].
fn allocated(rows: &[Vec<Row>]) -> Result<BTreeMap<i64, Vec<i64>>> {
    let mut allocated: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for row in rows.iter().flatten() {
        allocated.entry(row.int(0)?).or_default().push(row.int(1)?);
    }
    Ok(allocated)
}

fn record(row: &Row, allocated: &BTreeMap<i64, Vec<i64>>, nodes: &[Node], wanted: u32) -> Result<PinRecord> {
    let content = Content::read(row, PIN_WIDTH)?;
    let failure = content::reason(row.opt_text(9)?)?;
    let detail = row.opt_text(10)?.map(str::to_owned);
    let mut info = info(&content, failure, detail, wanted);
    info.replaces = row.opt_text(PIN_WIDTH + content::WIDTH)?.map(str::to_owned);
    let allocated = allocated.get(&content.id).map_or(&[][..], Vec::as_slice);
    Ok(PinRecord {
        requestid: row.uuid(0)?,
        account: row.int(1)?,
        content: content.id,
        created: row.int(3)?,
        cid: row.text(4)?.to_owned(),
        name: row.opt_text(5)?.map(str::to_owned),
        meta: decode(row.text(6)?)?,
        origins: decode(row.text(7)?)?,
        status: tally::status(row.int(8)?)?,
        info,
        delegates: delegates(content.inline, nodes, allocated),
    })
}

/// The facts behind a pin's `info`. A pin that ended by itself tells of its
/// own end, not of what others reach with its content.
pub(crate) fn info(
    content: &Content,
    failure: Option<Reason>,
    detail: Option<String>,
    wanted: u32,
) -> PinInfo {
    if failure.is_some() {
        return PinInfo { reason: failure, detail, replicas_wanted: wanted, ..PinInfo::default() };
    }
    if content.inline {
        return PinInfo::default();
    }
    let number = |value: i64| value.max(0).unsigned_abs();
    let manifest = content.manifest.as_ref();
    let replicas = u32::try_from(content.stored.max(0)).unwrap_or(u32::MAX);
    PinInfo {
        reason: reason(content),
        detail: content.detail.clone(),
        blocks: manifest.map_or(number(content.progress_blocks), |manifest| manifest.blocks),
        bytes: manifest.map_or(number(content.progress_bytes), |manifest| manifest.bytes),
        total_bytes: manifest.map(|manifest| manifest.bytes),
        replicas,
        replicas_wanted: wanted,
        attempts: u32::try_from(content.attempts).unwrap_or(u32::MAX),
        next_attempt: content.next_attempt,
        replaces: None,
        queued_ahead: None,
        quota: None,
    }
}

fn reason(content: &Content) -> Option<Reason> {
    match content.state {
        _ if content.denied.is_some() => Some(Reason::Denied),
        State::Held => None,
        State::Fetching if content.stored > 0 => Some(Reason::Replicating),
        _ => content.failure.or(content.reason),
    }
}

/// The delegates of a pin; an inline one needs none.
pub(crate) fn delegates(inline: bool, nodes: &[Node], allocated: &[i64]) -> Vec<String> {
    if inline { Vec::new() } else { placement::delegates(nodes, allocated) }
}

/// Text for a column that holds a list or a map.
pub(crate) fn encode(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("maps and lists of texts are JSON")
}

/// What [`encode`] wrote.
pub(crate) fn decode<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::Corrupt(format!("JSON that is damaged ({error})")))
}

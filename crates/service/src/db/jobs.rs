//! The service's own work: the row is the job.
//!
//! Every job finds its rows through a partial index, takes a few of them in
//! one short transaction each, and can be run twice without harm. A lease
//! keeps two processes from doing the same at once; when a process dies, its
//! lease ends by itself.

use std::sync::LazyLock;

use pinfold_core::status::Reason;
use uuid::Uuid;

use super::{
    accounts, ahead, effects,
    engine::Engine,
    error::Result,
    events, nodes, operator,
    placement::{self, millis},
    property,
    sql::values,
    turns,
    tx::Tx,
    types::{JobsDone, Millis},
    unit,
};

/// How long a process may be busy with the jobs before another takes over.
const LEASE_MS: i64 = 30_000;

/// Rows that one transaction of a job takes.
pub(crate) const ROWS: i64 = 100;

/// How long a denied content is kept: lifting the entry brings it back.
const DENIED_KEPT_MS: i64 = 30 * 24 * 3_600_000;

/// How long the operator's deeds are kept.
const DEEDS_KEPT_MS: i64 = 400 * 24 * 3_600_000;

/// How long revoked and expired tokens are listed.
const TOKENS_KEPT_MS: i64 = 90 * 24 * 3_600_000;

/// When the deadline of a content is looked at again that no live node has.
const LOOK_AGAIN_MS: i64 = 10 * 60_000;

/// The property that holds how far the contents with too few copies were gone
/// through; -1 when they were to the end.
const SWEEP: &str = "sweep";

/// Names this process as the holder of a lease.
static PROCESS: LazyLock<String> = LazyLock::new(|| Uuid::now_v7().simple().to_string());

/// Runs every job once; see [`super::Database::run_jobs`].
pub(super) async fn run(engine: &Engine) -> Result<JobsDone> {
    if !engine.write(|tx| Box::pin(lease(tx))).await? {
        return Ok(JobsDone::default());
    }
    let mut done = give_turns(engine).await?;
    done.add(engine.write(|tx| Box::pin(expire(tx))).await?, ROWS);
    done.add(engine.write(|tx| Box::pin(place(tx))).await?, ROWS);
    done.add(engine.write(|tx| Box::pin(sweep(tx))).await?, ROWS);
    done.add(engine.write(|tx| Box::pin(repair(tx))).await?, ROWS);
    done.add(engine.write(|tx| Box::pin(follow(tx))).await?, 1);
    done.add(engine.write(|tx| Box::pin(reclaim_denied(tx))).await?, 1);
    done.add(engine.write(|tx| Box::pin(accounts::remove_part(tx, None))).await?, 1);
    done.changed += engine.write(|tx| Box::pin(retain(tx))).await?;
    Ok(done)
}

/// Gives the turns that became free, each account in a transaction of its
/// own: contents are locked before accounts.
pub(super) async fn give_turns(engine: &Engine) -> Result<JobsDone> {
    let accounts = engine
        .look_up(|tx| {
            Box::pin(async move {
                let sql = "SELECT id FROM account WHERE turns_due = 1 ORDER BY id LIMIT $1";
                let rows = tx.query(sql, &values![ROWS]).await?;
                rows.iter().map(|row| row.int(0)).collect::<Result<Vec<i64>>>()
            })
        })
        .await?;
    let mut done = JobsDone { changed: 0, more: accounts.len() as i64 >= ROWS };
    for account in accounts {
        done.changed += engine.write(move |tx| Box::pin(turns::give(tx, account))).await?;
    }
    Ok(done)
}

impl JobsDone {
    fn add(&mut self, changed: u64, full: i64) {
        self.changed += changed;
        self.more |= changed >= full.unsigned_abs();
    }
}

/// Takes the lease, or keeps it; answers whether this process has it.
async fn lease(tx: &mut Tx) -> Result<bool> {
    let sql = "INSERT INTO lease (name, owner, until) VALUES ('jobs', $1, $2)
        ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
        WHERE lease.owner = excluded.owner OR lease.until < $3 OR lease.until > $4 RETURNING owner";
    let now = tx.now();
    // An end far in the future was written by a clock that jumped.
    let parameters = values![&*PROCESS, now + LEASE_MS, now, now + 2 * LEASE_MS];
    Ok(tx.first(sql, &parameters).await?.is_some())
}

async fn ids(tx: &mut Tx, sql: &str, limit: Millis) -> Result<Vec<i64>> {
    let rows = tx.query(sql, &values![limit, ROWS]).await?;
    rows.iter().map(|row| row.int(0)).collect()
}

/// Contents that are due by a statement that skips what others have locked,
/// with their allocations.
async fn due(tx: &mut Tx, sql: &str) -> Result<Vec<i64>> {
    // Before the statement locks: what it locks it does not wait for.
    unit::load_ahead(tx).await?;
    let found = ids(tx, sql, tx.now()).await?;
    unit::load_locked_contents(tx, found.iter().copied()).await?;
    unit::load_allocations(tx, found.iter().copied()).await?;
    Ok(found)
}

/// Locks contents that a job has found, with their allocations, and leaves out
/// those that are gone.
async fn load(tx: &mut Tx, mut contents: Vec<i64>) -> Result<Vec<i64>> {
    unit::load_contents(tx, contents.iter().copied()).await?;
    contents.retain(|id| tx.unit.contents.contains_key(id));
    unit::load_allocations(tx, contents.iter().copied()).await?;
    Ok(contents)
}

/// Fails pins that waited for their deadline without progress.
async fn expire(tx: &mut Tx) -> Result<u64> {
    let sql = "SELECT id FROM content WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
        FOR UPDATE SKIP LOCKED";
    let due = due(tx, sql).await?;
    ahead::load(tx, &due).await?;
    for &content in &due {
        expire_content(tx, content).await?;
    }
    Ok(due.len() as u64)
}

async fn expire_content(tx: &mut Tx, content: i64) -> Result<()> {
    let now = tx.now();
    let facts = tx.unit.content(content)?;
    if !facts.is_unfinished() || facts.manifest.is_some() {
        facts.expires_at = None;
        return Ok(());
    }
    if let Some(later) = chance(tx, content).await? {
        tx.unit.content(content)?.expires_at = Some(later);
        return Ok(());
    }
    let limit = now - millis(tx.settings.pin_deadline);
    let why = tx.unit.content(content)?.reason.filter(|reason| *reason == Reason::InvalidBlock);
    let reason = why.unwrap_or(Reason::Expired);
    let sql = "SELECT DISTINCT account FROM pin WHERE content = $1 AND created <= $2 AND failure IS NULL
        ORDER BY account LIMIT $3";
    let rows = tx.query(sql, &values![content, limit, effects::PART]).await?;
    let accounts = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<i64>>>()?;
    unit::load_accounts(tx, accounts.iter().copied()).await?;
    unit::load_holdings(tx, accounts.iter().map(|&account| (account, content))).await?;
    for account in accounts {
        effects::fail_older(tx, account, content, limit, reason, None).await?;
    }
    let sql = "SELECT MIN(created) FROM pin WHERE content = $1 AND failure IS NULL";
    let oldest = tx.first(sql, &values![content]).await?.map_or(Ok(None), |row| row.opt_int(0))?;
    let deadline = millis(tx.settings.pin_deadline);
    tx.unit.content(content)?.expires_at = oldest.map(|oldest| oldest + deadline);
    Ok(())
}

/// When a content that is due should rather be looked at again: its nodes are
/// away, or have not been back for long. What the operator's nodes missed is
/// not the pins' fault.
async fn chance(tx: &mut Tx, content: i64) -> Result<Option<Millis>> {
    let sql = "SELECT MAX(n.alive_since), MAX(n.last_seen) FROM allocation a JOIN node n ON n.id = a.node
        WHERE a.content = $1 AND a.state IN (0, 1)";
    let (now, settings) = (tx.now(), tx.settings.clone());
    let Some(row) = tx.first(sql, &values![content]).await? else { return Ok(None) };
    let (Some(since), Some(seen)) = (row.opt_int(0)?, row.opt_int(1)?) else { return Ok(None) };
    if now - seen > millis(settings.node_live) {
        return Ok(Some(now + LOOK_AGAIN_MS));
    }
    Ok(Some(since + millis(settings.pin_deadline)).filter(|later| *later > now))
}

/// Places contents that have too few nodes.
async fn place(tx: &mut Tx) -> Result<u64> {
    let sql = "SELECT id FROM content WHERE place_at <= $1 ORDER BY place_at LIMIT $2
        FOR UPDATE SKIP LOCKED";
    let due = due(tx, sql).await?;
    for &content in &due {
        place_if_wanted(tx, content).await?;
    }
    Ok(due.len() as u64)
}

async fn place_if_wanted(tx: &mut Tx, content: i64) -> Result<()> {
    let sql = "SELECT 1 FROM holding WHERE content = $1 AND (turn >= 2 OR turn = 0) LIMIT 1";
    if tx.first(sql, &values![content]).await?.is_some() {
        return events::replace_copy(tx, content).await;
    }
    tx.unit.content(content)?.place_at = None;
    Ok(())
}

/// Has contents with too few copies gone through again: a node came.
pub(super) async fn begin_sweep(tx: &mut Tx) -> Result<()> {
    property::set(tx, SWEEP, 0, "").await
}

/// Places contents with fewer copies than wanted, where a node came since.
async fn sweep(tx: &mut Tx) -> Result<u64> {
    let after = property::number(tx, SWEEP).await?;
    if after < 0 {
        return Ok(0);
    }
    let found =
        ids(tx, "SELECT id FROM content WHERE short = 1 AND id > $1 ORDER BY id LIMIT $2", after).await?;
    let next = if (found.len() as i64) < ROWS { -1 } else { found.last().copied().unwrap_or(-1) };
    for content in load(tx, found.clone()).await? {
        place_if_wanted(tx, content).await?;
    }
    property::set(tx, SWEEP, next, "").await?;
    Ok(found.len() as u64)
}

/// Gives contents of nodes that are silent for long to others.
async fn repair(tx: &mut Tx) -> Result<u64> {
    let limit = tx.now() - millis(tx.settings.repair_after);
    let sql = "SELECT id, COALESCE(repair_cursor, 0) FROM node
        WHERE last_seen < $1 AND COALESCE(repair_cursor, 0) < $2 ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED";
    let Some(row) = tx.first(sql, &values![limit, i64::MAX]).await? else { return Ok(0) };
    let (node, after) = (row.int(0)?, row.int(1)?);
    let sql = "SELECT content FROM allocation WHERE node = $1 AND content > $2 AND state IN (0, 1)
        ORDER BY content LIMIT $3";
    let rows = tx.query(sql, &values![node, after, ROWS]).await?;
    let found = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<i64>>>()?;
    let next = if (found.len() as i64) < ROWS { i64::MAX } else { found.last().copied().unwrap_or(i64::MAX) };
    for content in load(tx, found.clone()).await? {
        place_if_wanted(tx, content).await?;
    }
    tx.execute("UPDATE node SET repair_cursor = $2 WHERE id = $1", &values![node, next]).await?;
    Ok(found.len() as u64)
}

/// Shows a content that has many pins in the next part of them.
async fn follow(tx: &mut Tx) -> Result<u64> {
    let sql = "SELECT id FROM content WHERE follow IS NOT NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";
    unit::load_ahead(tx).await?;
    let Some(row) = tx.first(sql, &[]).await? else { return Ok(0) };
    let content = row.int(0)?;
    unit::load_locked_contents(tx, [content]).await?;
    if let Some(after) = tx.unit.content(content)?.follow {
        effects::show_after(tx, content, after).await?;
    }
    Ok(1)
}

/// Ends pins of contents that were denied for long.
async fn reclaim_denied(tx: &mut Tx) -> Result<u64> {
    let sql = "SELECT id FROM content WHERE denied <= $1 AND follow IS NULL
        AND EXISTS (SELECT 1 FROM holding h WHERE h.content = content.id) ORDER BY denied LIMIT 1";
    let limit = tx.now() - DENIED_KEPT_MS;
    let Some(row) = tx.first(sql, &values![limit]).await? else { return Ok(0) };
    let content = row.int(0)?;
    unit::load_contents(tx, [content]).await?;
    let facts = tx.unit.content(content)?;
    (facts.state, facts.failure) = (super::content::State::Failed, Some(Reason::Denied));
    effects::show(tx, content).await?;
    Ok(1)
}

/// Forgets what is kept for a named time.
async fn retain(tx: &mut Tx) -> Result<u64> {
    let now = tx.now();
    let deeds = "DELETE FROM deed WHERE id IN (SELECT id FROM deed WHERE at < $1 ORDER BY at LIMIT $2)";
    let deeds = tx.execute(deeds, &values![now - DEEDS_KEPT_MS, ROWS]).await?;
    let tokens = "DELETE FROM token WHERE id IN
        (SELECT id FROM token WHERE revoked < $1 OR expires < $1 LIMIT $2)";
    let tokens = tx.execute(tokens, &values![now - TOKENS_KEPT_MS, ROWS]).await?;
    Ok(deeds + tokens)
}

/// Sends those contents that are unfinished to their nodes anew, or places
/// them; answers how many.
pub(super) async fn retry(tx: &mut Tx, contents: &[i64]) -> Result<u64> {
    let mut retried = Vec::new();
    for content in load(tx, contents.to_vec()).await? {
        if retry_content(tx, content).await? {
            retried.push(content);
        }
    }
    let subject = match retried[..] {
        [] => return Ok(0),
        [content] => tx.unit.content(content)?.cid.clone(),
        _ => format!("{} contents", retried.len()),
    };
    operator::note_deed(tx, "queue.retry", subject, "").await?;
    Ok(retried.len() as u64)
}

async fn retry_content(tx: &mut Tx, content: i64) -> Result<bool> {
    let facts = tx.unit.content(content)?;
    if facts.inline || facts.state == super::content::State::Held {
        return Ok(false);
    }
    for allocation in tx.unit.allocations_of(content) {
        if allocation.phase == placement::Phase::Refused {
            allocation.retry_at = 0;
        }
    }
    if nodes::tell_again(tx, content) {
        tx.work(content);
    }
    place_if_wanted(tx, content).await?;
    Ok(true)
}

//! What nodes report about their allocations.

use std::{collections::BTreeSet, sync::Arc};

use pinfold_core::policy::LEAST_PACE;
use pinfold_core::status::Reason;
use pinfold_node_api::{
    Answer, Event, EventKind, Inventory, InventoryAck, MAX_ALLOCATIONS, ManifestSummary, Report,
};

use super::{
    ahead,
    content::{State, Why, amount},
    effects,
    error::Result,
    grants,
    holding::Turn,
    inventories, nodes,
    placement::{self, Allocation, Phase, ROOM_AGAIN_MS, millis},
    sql::values,
    tx::Tx,
    types::{AccountId, Channel, Millis, NodeRequest},
    unit,
};

/// Events of one transaction: as long as it runs, the accounts that they
/// concern accept no pins.
pub(crate) const PART: usize = 32;

/// When a node is asked again for a content that it had to leave because of a
/// denied block in it, in ms: each time it is fetched as far as that block. A
/// rule is seldom lifted, and an operator who does so can have the fetch
/// retried.
const DENIED_AGAIN_MS: i64 = 24 * 3_600_000;

/// Accepts a report, and notes what the node says of itself.
pub(crate) async fn accept(tx: &mut Tx, request: NodeRequest, report: &Report) -> Result<()> {
    let node = nodes::accept(tx, request, Channel::Report).await?.id;
    let sql = "UPDATE node SET used = $2, capacity = $3 WHERE id = $1";
    let space = values![node, amount(report.used_bytes), amount(report.capacity_bytes)];
    tx.execute(sql, &space).await?;
    Ok(())
}

/// Notes some events of an accepted report and answers each.
pub(crate) async fn note(tx: &mut Tx, request: NodeRequest, events: &[Event]) -> Result<Vec<Answer>> {
    let node = nodes::accepted_report(tx, request).await?;
    let contents: Vec<i64> = events.iter().map(|event| event.allocation.content).collect();
    unit::load_contents(tx, contents.iter().copied()).await?;
    let known: Vec<i64> = contents.into_iter().filter(|id| tx.unit.contents.contains_key(id)).collect();
    unit::load_allocations(tx, known).await?;
    let touching: Vec<i64> = events
        .iter()
        .filter(|event| touches_accounts(tx, event))
        .map(|event| event.allocation.content)
        .collect();
    ahead::load(tx, &touching).await?;
    forget_strays(tx, node, events).await?;
    let mut answers = Vec::with_capacity(events.len());
    for event in events {
        answers.push(handle(tx, node, event).await?);
    }
    Ok(answers)
}

/// Forgets strays that the node has let go, in the order in which their rows
/// are locked.
async fn forget_strays(tx: &mut Tx, node: i64, events: &[Event]) -> Result<()> {
    let released = events.iter().filter(|event| event.kind == EventKind::Released);
    let contents: BTreeSet<i64> = released.map(|event| event.allocation.content).collect();
    let lists: Vec<_> = contents.into_iter().map(|content| values![node, content].to_vec()).collect();
    tx.execute_many("DELETE FROM stray WHERE node = $1 AND content = $2", &lists).await?;
    Ok(())
}

/// Whether an event may change what accounts see or pay: all but the progress
/// of a fetch that was under way before.
fn touches_accounts(tx: &mut Tx, event: &Event) -> bool {
    let EventKind::Progress { next_attempt_ms, .. } = &event.kind else { return true };
    tx.unit.content(event.allocation.content).is_ok_and(|facts| {
        facts.state == State::Waiting || facts.next_attempt.is_some() != next_attempt_ms.is_some()
    })
}

async fn handle(tx: &mut Tx, node: i64, event: &Event) -> Result<Answer> {
    let id = event.allocation;
    let found = tx.unit.allocations_of(id.content).find(|a| a.node == node && a.generation == id.generation);
    let phase = found.map(|allocation| allocation.phase);
    match (&event.kind, phase) {
        (EventKind::Released, phase) => released(tx, node, id.content, phase).await,
        (_, None | Some(Phase::Releasing | Phase::Refused)) => Ok(Answer::Stale),
        (EventKind::Progress { .. }, _) => progress(tx, node, id.content, &event.kind).await,
        (EventKind::WantGrant { bytes, least }, _) => {
            grants::want(tx, id.content, amount(*bytes), amount(*least)).await
        }
        (EventKind::Stored { manifest }, _) => stored(tx, node, id.content, *manifest).await,
        (EventKind::Failed { reason, detail }, _) => failed(tx, node, id.content, *reason, detail).await,
        (EventKind::NoCapacity, _) => no_capacity(tx, node, id.content).await,
        (EventKind::Lost { .. }, _) => lost(tx, node, id.content).await,
        (EventKind::Compared { denylist, denied }, _) => {
            compared(tx, node, id.content, *denylist, *denied).await
        }
    }
}

/// Changes an allocation that is known to be loaded.
fn allocation(tx: &mut Tx, node: i64, content: i64, change: impl FnOnce(&mut Allocation)) {
    if let Some(allocation) = tx.unit.allocations_of(content).find(|a| a.node == node) {
        change(allocation);
    }
}

async fn progress(tx: &mut Tx, node: i64, content: i64, kind: &EventKind) -> Result<Answer> {
    let EventKind::Progress { blocks, bytes, reason, attempts, next_attempt_ms } = kind else {
        return Ok(Answer::Noted);
    };
    let (bytes, blocks) = (amount(*bytes), amount(*blocks));
    let mut more = 0;
    allocation(tx, node, content, |allocation| {
        // A new attempt counts from the beginning what it finds held already.
        more = bytes - allocation.bytes;
        allocation.bytes = allocation.bytes.max(bytes);
    });
    let alone = tx.unit.allocations_of(content).filter(|a| a.is_wanted()).count() < 2;
    let (now, deadline) = (tx.now(), millis(tx.settings.pin_deadline));
    let facts = tx.unit.content(content)?;
    if facts.state == State::Held || facts.state == State::Failed {
        return Ok(Answer::Noted);
    }
    facts.expires_at = facts.expires_at.map(|at| moved(at, more, now + deadline));
    if alone || bytes >= facts.progress_bytes {
        (facts.progress_bytes, facts.progress_blocks) = (bytes, blocks);
        // That a block is too large is said by peers, whom nobody can verify:
        // it explains the pin, and fails it no sooner than its deadline does.
        let explains = !reason.is_final() || *reason == Reason::InvalidBlock;
        facts.reason = explains.then_some(*reason);
        facts.attempts = i64::from(*attempts);
    }
    let pauses = next_attempt_ms.is_some();
    let changed = pauses != facts.next_attempt.is_some();
    facts.next_attempt = next_attempt_ms.map(plausible);
    let begins = facts.state == State::Waiting;
    if begins {
        facts.state = State::Fetching;
        effects::show(tx, content).await?;
    }
    if changed {
        pause(tx, content, pauses).await?;
    }
    tx.changed(content);
    Ok(Answer::Noted)
}

/// The deadline after so many new bytes: each moves it by what it takes at the
/// slowest pace that is waited for, up to `latest`. So a source that sends one
/// small block now and then keeps nothing open for ever.
fn moved(deadline: Millis, new: i64, latest: Millis) -> Millis {
    let bought = new.max(0).saturating_mul(1_000) / LEAST_PACE.cast_signed();
    deadline.saturating_add(bought).min(latest).max(deadline)
}

/// A time from a node's clock, cut to what can be written as a date.
fn plausible(at: i64) -> Millis {
    const YEAR_9999: Millis = 253_402_300_799_000;
    at.clamp(0, YEAR_9999)
}

/// While a fetch pauses between attempts, others of the account may go on.
async fn pause(tx: &mut Tx, content: i64, pauses: bool) -> Result<()> {
    let (from, to) = if pauses { (Turn::Active, Turn::Aside) } else { (Turn::Aside, Turn::Active) };
    let accounts = holders(tx, content, from).await?;
    unit::load_accounts(tx, accounts.iter().copied()).await?;
    unit::load_holdings(tx, accounts.iter().map(|&account| (account, content))).await?;
    for account in accounts {
        effects::set_turn(tx, account, content, to).await?;
    }
    Ok(())
}

/// The accounts whose holding of a content has this turn, [`effects::PART`] at
/// most.
async fn holders(tx: &mut Tx, content: i64, turn: Turn) -> Result<Vec<AccountId>> {
    if tx.unit.is_whole(content) {
        let holders = tx.unit.holdings_of(content).filter(|holding| holding.turn == turn);
        return Ok(holders.map(|holding| holding.account).collect());
    }
    unit::flush(tx).await?;
    let sql = "SELECT account FROM holding WHERE content = $1 AND turn = $2 ORDER BY account LIMIT $3";
    let rows = tx.query(sql, &values![content, turn as i64, effects::PART]).await?;
    rows.iter().map(|row| row.int(0)).collect()
}

async fn stored(tx: &mut Tx, node: i64, content: i64, manifest: ManifestSummary) -> Result<Answer> {
    let facts = tx.unit.content(content)?;
    if facts.manifest.is_some_and(|known| known != manifest) {
        tracing::error!(content, node, "a node reports another manifest than was settled");
        refuse(tx, node, content, Millis::MAX).await?;
        return Ok(Answer::Refused { reason: Reason::InvalidBlock });
    }
    let manifest = ManifestSummary {
        bytes: amount(manifest.bytes).unsigned_abs(),
        blocks: amount(manifest.blocks).unsigned_abs(),
        ..manifest
    };
    facts.manifest = Some(manifest);
    (facts.reason, facts.detail, facts.next_attempt, facts.expires_at) = (None, None, None, None);
    let mut more = 0;
    allocation(tx, node, content, |allocation| {
        more = i64::from(allocation.phase != Phase::Stored);
        allocation.phase = Phase::Stored;
        allocation.repair = false;
        allocation.bytes = amount(manifest.bytes);
    });
    let minimum = i64::from(tx.settings.replicas_min.max(1));
    let now = tx.now();
    let facts = tx.unit.content(content)?;
    facts.stored += more;
    if more > 0 {
        // The node compares what it stores, and tells what it finds.
        facts.deny(Why::Block, false, now);
    }
    if facts.stored >= minimum {
        facts.state = State::Held;
    } else if facts.state == State::Waiting {
        facts.state = State::Fetching;
    }
    effects::show(tx, content).await?;
    tx.unit.acknowledged(content, node);
    tell_others(tx, content);
    let wanted = tx.unit.content(content)?.manifest.is_some();
    Ok(if wanted { Answer::Noted } else { Answer::Refused { reason: Reason::OverQuota } })
}

/// Nodes that still fetch a content learn that another one has it.
fn tell_others(tx: &mut Tx, content: i64) {
    if nodes::tell_again(tx, content) {
        tx.work(content);
    }
}

async fn failed(tx: &mut Tx, node: i64, content: i64, reason: Reason, detail: &str) -> Result<Answer> {
    let of_content = matches!(
        reason,
        Reason::InvalidBlock | Reason::UnsupportedCodec | Reason::OverLimit | Reason::Denied
    );
    let now = tx.now();
    let facts = tx.unit.content(content)?;
    if reason == Reason::Denied && facts.state == State::Lost {
        // Its pins say so, and it is kept as what is held and denied is.
        facts.deny(Why::Block, true, now);
        refuse(tx, node, content, now + DENIED_AGAIN_MS).await?;
        return Ok(Answer::Noted);
    }
    if !of_content || facts.manifest.is_some() {
        // Others hold it, so it is this node's trouble; it is asked again later.
        refuse(tx, node, content, tx.now() + ROOM_AGAIN_MS).await?;
        return Ok(Answer::Noted);
    }
    facts.state = State::Failed;
    facts.failure = Some(reason);
    facts.detail = Some(nodes::clean(detail)).filter(|detail| !detail.is_empty());
    effects::show(tx, content).await?;
    Ok(Answer::Noted)
}

async fn no_capacity(tx: &mut Tx, node: i64, content: i64) -> Result<Answer> {
    let until = tx.now() + ROOM_AGAIN_MS;
    refuse(tx, node, content, until).await?;
    if tx.unit.allocations_of(content).all(|allocation| !allocation.is_wanted()) {
        tx.unit.content(content)?.reason = Some(Reason::NoCapacity);
        tx.changed(content);
    }
    Ok(Answer::Noted)
}

/// Takes a content from a node for some time, and gives it to another.
async fn refuse(tx: &mut Tx, node: i64, content: i64, until: Millis) -> Result<()> {
    lose_copy(tx, node, content)?;
    allocation(tx, node, content, |allocation| {
        allocation.phase = Phase::Refused;
        allocation.retry_at = until;
    });
    replace_copy(tx, content).await?;
    effects::show(tx, content).await
}

/// Places a content anew, where nodes can be found.
pub(crate) async fn replace_copy(tx: &mut Tx, content: i64) -> Result<()> {
    let nodes = nodes::all(tx).await?;
    let (settings, now) = (Arc::clone(&tx.settings), tx.now());
    if placement::place(&mut tx.unit, &settings, &nodes, content, &[], now)? {
        tx.work(content);
    }
    Ok(())
}

/// A copy that was counted is none any more.
fn lose_copy(tx: &mut Tx, node: i64, content: i64) -> Result<()> {
    let mut less = 0;
    allocation(tx, node, content, |allocation| less = i64::from(allocation.phase == Phase::Stored));
    let facts = tx.unit.content(content)?;
    facts.stored -= less;
    if facts.stored <= 0 && facts.state == State::Held {
        facts.state = State::Lost;
    }
    Ok(())
}

/// What a node found when it compared a content's blocks with the denylist. Of
/// two nodes the one with the later list is right.
async fn compared(tx: &mut Tx, node: i64, content: i64, denylist: i64, denied: bool) -> Result<Answer> {
    let now = tx.now();
    let facts = tx.unit.content(content)?;
    if denylist < facts.compared || facts.state == State::Failed {
        return Ok(Answer::Noted);
    }
    facts.compared = denylist;
    if facts.deny(Why::Block, denied, now) {
        tracing::warn!(content, node, denied, "a held content has a denied block in it, or no longer");
        effects::show(tx, content).await?;
    }
    Ok(Answer::Noted)
}

/// The node fetches again what it lost, and other nodes learn that it has it
/// no more.
pub(crate) async fn lost(tx: &mut Tx, node: i64, content: i64) -> Result<Answer> {
    lose_copy(tx, node, content)?;
    allocation(tx, node, content, |allocation| {
        allocation.phase = Phase::Assigned;
        allocation.repair = true;
        allocation.touch();
    });
    tx.work(content);
    effects::show(tx, content).await?;
    Ok(Answer::Noted)
}

async fn released(tx: &mut Tx, node: i64, content: i64, phase: Option<Phase>) -> Result<Answer> {
    if phase == Some(Phase::Releasing) {
        tx.unit.remove_allocation(content, node);
        effects::forget(tx, content).await?;
    }
    Ok(Answer::Noted)
}

/// Compares a part of what a node holds with what is allocated to it.
pub(crate) async fn inventory(tx: &mut Tx, request: NodeRequest, part: &Inventory) -> Result<InventoryAck> {
    let node = nodes::accept(tx, request, Channel::Inventory).await?.id;
    let held = &part.held[..part.held.len().min(MAX_ALLOCATIONS)];
    let last =
        if held.len() < MAX_ALLOCATIONS { i64::MAX } else { held.last().map_or(part.after, |id| id.content) };
    let sql = "SELECT content FROM allocation WHERE node = $1 AND content > $2 AND content <= $3";
    let rows = tx.query(sql, &values![node, part.after, last]).await?;
    inventories::note(tx, node, part, last).await?;
    let contents = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<i64>>>()?;
    unit::load_contents(tx, contents.iter().copied()).await?;
    unit::load_allocations(tx, contents.iter().copied()).await?;
    let is_held = |content: i64| held.iter().any(|id| id.content == content);
    let missing = contents.iter().copied().filter(|content| !is_held(*content));
    let missing: Vec<i64> = missing.filter(|content| tx.unit.contents.contains_key(content)).collect();
    ahead::load(tx, &missing).await?;
    let mut answer = InventoryAck::default();
    let unknown = held.iter().filter(|id| !contents.contains(&id.content)).copied();
    answer.unknown = unknown.collect::<BTreeSet<_>>().into_iter().collect();
    for id in &answer.unknown {
        note_stray(tx, node, id.content, id.generation).await?;
    }
    for content in contents {
        compare(tx, node, content, is_held(content), &mut answer).await?;
    }
    Ok(answer)
}

async fn compare(
    tx: &mut Tx,
    node: i64,
    content: i64,
    is_held: bool,
    answer: &mut InventoryAck,
) -> Result<()> {
    let Some(found) = tx.unit.allocations_of(content).find(|a| a.node == node).cloned() else {
        return Ok(());
    };
    match (found.phase, is_held) {
        (Phase::Stored, false) => {
            let generation = found.generation;
            answer.missing.push(pinfold_node_api::AllocationId { content, generation });
            lost(tx, node, content).await?;
        }
        // Told again, the node reports what it holds.
        (Phase::Assigned, true) => {
            allocation(tx, node, content, Allocation::touch);
            tx.work(content);
        }
        (Phase::Releasing, false) => {
            tx.unit.remove_allocation(content, node);
            effects::forget(tx, content).await?;
        }
        (Phase::Stored | Phase::Refused | Phase::Assigned | Phase::Releasing, _) => {}
    }
    Ok(())
}

async fn note_stray(tx: &mut Tx, node: i64, content: i64, generation: i64) -> Result<()> {
    let sql = "INSERT INTO stray (node, content, generation, found) VALUES ($1, $2, $3, $4)
        ON CONFLICT (node, content) DO UPDATE SET generation = excluded.generation";
    let found = tx.now();
    tx.execute(sql, &values![node, content, generation, found]).await?;
    Ok(())
}

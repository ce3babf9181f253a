//! Which nodes hold a content: allocations, and how they are chosen.
//!
//! [`place`] is idempotent: where enough nodes have a content, it changes
//! nothing. Live nodes with the most free space come first, before them those
//! that hold what the content replaces. Where no node is live, the content
//! goes to one that was, and waits for it.

use std::cmp::Reverse;

use super::{
    error::{Error, Result},
    settings::Settings,
    sql::{Row, Value, values},
    types::{Millis, Node},
    unit::Unit,
};

pub(crate) const SELECT: &str = "SELECT content, node, generation, state, version, sent, acked, repair, \
    bytes, since, retry_at FROM allocation WHERE content = $1";

/// `sent` and `acked` belong to the node's pulls, which do not lock the
/// content: they are never written over.
pub(crate) const UPSERT: &str = "INSERT INTO allocation (content, node, generation, state, version, sent, \
    acked, repair, bytes, since, retry_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
    ON CONFLICT (content, node) DO UPDATE SET generation = excluded.generation, state = excluded.state, \
    version = excluded.version, repair = excluded.repair, \
    bytes = excluded.bytes, since = excluded.since, retry_at = excluded.retry_at";

pub(crate) const DELETE: &str = "DELETE FROM allocation WHERE content = $1 AND node = $2";

/// A node that reports a content as stored need not be told of it.
pub(crate) const ACKNOWLEDGE: &str =
    "UPDATE allocation SET acked = version WHERE content = $1 AND node = $2 AND state = 1";

/// When placement is tried again where too few nodes could be found, in ms.
const PLACE_AGAIN_MS: i64 = 60_000;

/// How long a node that had no room is not asked again for the same content,
/// in ms.
pub(crate) const ROOM_AGAIN_MS: i64 = 10 * 60_000;

/// Where an allocation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// To be fetched, or being fetched.
    Assigned = 0,
    /// Held durably.
    Stored = 1,
    /// To be let go.
    Releasing = 2,
    /// The node had no room or cannot do it; not asked before `retry_at`.
    Refused = 3,
}

/// A row of `allocation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allocation {
    pub(crate) content: i64,
    pub(crate) node: i64,
    pub(crate) generation: i64,
    pub(crate) phase: Phase,
    pub(crate) version: i64,
    pub(crate) sent: i64,
    pub(crate) acked: i64,
    pub(crate) repair: bool,
    pub(crate) bytes: i64,
    pub(crate) since: Millis,
    pub(crate) retry_at: Millis,
}

impl Allocation {
    /// Reads the columns of [`SELECT`].
    pub(crate) fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            content: row.int(0)?,
            node: row.int(1)?,
            generation: row.int(2)?,
            phase: phase(row.int(3)?)?,
            version: row.int(4)?,
            sent: row.int(5)?,
            acked: row.int(6)?,
            repair: row.flag(7)?,
            bytes: row.int(8)?,
            since: row.int(9)?,
            retry_at: row.int(10)?,
        })
    }

    /// The parameters of [`UPSERT`].
    pub(crate) fn values(&self) -> Vec<Value> {
        values![
            self.content,
            self.node,
            self.generation,
            self.phase as i64,
            self.version,
            self.sent,
            self.acked,
            self.repair,
            self.bytes,
            self.since,
            self.retry_at
        ]
        .to_vec()
    }

    /// Whether the node is to hold the content.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(self.phase, Phase::Assigned | Phase::Stored)
    }

    /// Has the node told again.
    pub(crate) fn touch(&mut self) {
        self.version += 1;
    }
}

/// Allocates a content to as many further nodes as are wanted, where they can
/// be found; answers whether any was added. Its content and allocations are
/// loaded.
pub(crate) fn place(
    unit: &mut Unit,
    settings: &Settings,
    nodes: &[Node],
    id: i64,
    preferred: &[i64],
    now: Millis,
) -> Result<bool> {
    let repair_after = millis(settings.repair_after);
    let counts = |node: i64| nodes.iter().any(|n| n.id == node && now - n.last_seen <= repair_after);
    let mut have = unit.allocations_of(id).filter(|a| a.is_wanted() && counts(a.node)).count();
    let wanted = settings.replicas_target.max(settings.replicas_min).max(1) as usize;
    let mut added = false;
    for node in candidates(unit, nodes, id, preferred, now, have == 0) {
        if have >= wanted {
            break;
        }
        assign(unit, id, node, now)?;
        have += 1;
        added = true;
    }
    let content = unit.content(id)?;
    content.place_at = (have < settings.replicas_min.max(1) as usize).then_some(now + PLACE_AGAIN_MS);
    content.short = have < wanted;
    if have > 0 && content.is_unfinished() && content.manifest.is_none() && content.expires_at.is_none() {
        content.expires_at = Some(now + millis(settings.pin_deadline));
    }
    Ok(added)
}

/// Nodes that may be added, best first.
fn candidates(
    unit: &mut Unit,
    nodes: &[Node],
    content: i64,
    preferred: &[i64],
    now: Millis,
    even_silent: bool,
) -> Vec<i64> {
    let taken: Vec<i64> = unit
        .allocations_of(content)
        .filter(|a| a.is_wanted() || (a.phase == Phase::Refused && a.retry_at > now))
        .map(|a| a.node)
        .collect();
    let usable = |node: &&Node| node.hello.operated && !taken.contains(&node.id);
    let mut live: Vec<&Node> =
        nodes.iter().filter(usable).filter(|node| node.live && has_room(node)).collect();
    live.sort_by_key(|node| (!preferred.contains(&node.id), Reverse(free(node)), node.id));
    if live.is_empty() && even_silent && !nodes.iter().any(|node| node.live) {
        let last = nodes.iter().filter(usable).max_by_key(|node| (node.last_seen, Reverse(node.id)));
        live.extend(last);
    }
    live.into_iter().map(|node| node.id).collect()
}

fn free(node: &Node) -> u64 {
    node.hello.capacity_bytes.saturating_sub(node.hello.used_bytes)
}

/// Less than a block of room is none.
fn has_room(node: &Node) -> bool {
    free(node) > pinfold_core::policy::MAX_BLOCK as u64
}

fn assign(unit: &mut Unit, id: i64, node: i64, now: Millis) -> Result<()> {
    let content = unit.content(id)?;
    content.generation += 1;
    let (generation, repair) = (content.generation, content.was_held());
    let before = unit.allocations_of(id).find(|a| a.node == node).map(|a| (a.version, a.sent, a.acked));
    let (version, sent, acked) = before.unwrap_or_default();
    unit.put_allocation(Allocation {
        content: id,
        node,
        generation,
        phase: Phase::Assigned,
        version: version + 1,
        sent,
        acked,
        repair,
        bytes: 0,
        since: now,
        retry_at: 0,
    });
    Ok(())
}

/// Has every node let the content go. What no node was ever told is forgotten
/// at once. Answers whether a node has to be told.
pub(crate) fn release(unit: &mut Unit, content: i64) -> bool {
    let mut gone = Vec::new();
    let mut told = false;
    for allocation in unit.allocations_of(content) {
        match allocation.phase {
            Phase::Releasing => {}
            Phase::Assigned if allocation.sent == 0 => gone.push(allocation.node),
            // A node that had no room keeps what it fetched until then.
            Phase::Assigned | Phase::Stored | Phase::Refused => {
                allocation.phase = Phase::Releasing;
                allocation.touch();
                told = true;
            }
        }
    }
    for node in gone {
        unit.remove_allocation(content, node);
    }
    told
}

/// Nodes whose word counts for delegates, best first: those that hold or fetch
/// the content, else those that would be chosen.
pub(crate) fn delegate_nodes<'n>(nodes: &'n [Node], allocated: &[i64]) -> Vec<&'n Node> {
    let mut chosen: Vec<&Node> = nodes.iter().filter(|node| allocated.contains(&node.id)).collect();
    if chosen.is_empty() {
        chosen = nodes.iter().filter(|node| node.hello.operated).collect();
    }
    chosen.sort_by_key(|node| (!node.live, Reverse(node.last_seen / LIKE_MS), Reverse(free(node)), node.id));
    chosen
}

/// Nodes heard within the same minute count as heard at the same time.
const LIKE_MS: i64 = 60_000;

/// The most delegates of a pin: a client dials one after another.
const MAX_DELEGATES: usize = 3;

/// The delegates of a pin: an address of each node in turn, 3 at most.
pub(crate) fn delegates(nodes: &[Node], allocated: &[i64]) -> Vec<String> {
    let chosen = delegate_nodes(nodes, allocated);
    let most = chosen.iter().map(|node| node.hello.addresses.len()).max().unwrap_or(0);
    let rounds = (0..most).flat_map(|at| chosen.iter().filter_map(move |n| n.hello.addresses.get(at)));
    rounds.take(MAX_DELEGATES).cloned().collect()
}

/// A duration in milliseconds.
pub(crate) fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

fn phase(number: i64) -> Result<Phase> {
    Ok(match number {
        0 => Phase::Assigned,
        1 => Phase::Stored,
        2 => Phase::Releasing,
        3 => Phase::Refused,
        _ => return Err(Error::Corrupt(format!("state {number} of an allocation"))),
    })
}

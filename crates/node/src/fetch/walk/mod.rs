//! The walk over one DAG: what to look up next, and in which order what was
//! found is consumed. Pure: it neither waits nor reads nor sends.
//!
//! Blocks are consumed in strict depth-first pre-order, each (codec,
//! multihash) once, because that order defines the manifest. They are asked
//! for long before: a link is wanted as soon as its parent is known, and a
//! block that is late keeps nobody from looking further behind it
//! ([`Walk::look_ahead`]). How far is bounded by [`Limits::ahead`] blocks and
//! by the memory that links may take; links beyond it are dropped and read
//! again from their block, which the store holds ([`Reload`]).
//!
//! Identity CIDs hold their data: they are decoded in place and never looked
//! up. A block of a codec whose links are unknown is a leaf.

mod agenda;
mod consume;
mod far;
mod links;
mod memory;
mod visited;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use pinfold_core::content::{self, BlockCid, Cid};
use pinfold_core::manifest::{self, NO_PARENT};

use super::limits::Limits;
use agenda::{Agenda, FrameId, Head, Label, Node};
use far::Far;
use visited::Visited;

pub(crate) use links::{Links, normal};

/// Links that one call looks at before it gives way to other work.
const STEPS: usize = 1 << 14;

/// Why a walk cannot go on, ever.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalkError {
    /// A named limit.
    #[error("the DAG exceeds the limit of {limit} {what} at {cid}")]
    OverLimit { what: &'static str, limit: u64, cid: Cid },
    /// On the denylist.
    #[error("{0} is on the denylist")]
    Denied(Cid),
    /// A link that names no block which could be fetched.
    #[error("the digest of {0} is longer than any that peers exchange")]
    Digest(Cid),
    /// The data of an identity CID.
    #[error("the data inside {0} cannot be decoded")]
    Inline(Cid),
    /// The manifest refused a leaf.
    #[error("the block {cid} does not fit the manifest: {error}")]
    Manifest { cid: Cid, error: String },
}

/// What is known of a block once its bytes were seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Derived {
    /// In bytes.
    pub(crate) length: u32,
    /// Root of the tree over its chunks.
    pub(crate) chunk_root: [u8; 32],
    /// In order of appearance.
    pub(crate) links: Links,
}

/// Distinct blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

/// Links that were dropped and are needed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reload {
    frame: FrameId,
    /// The block to read them from.
    pub(crate) cid: Cid,
}

/// What [`Walk::look_ahead`] needs before it can find more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// Blocks to arrive, or room.
    Wait,
    /// To be called again: there is more to look at.
    Again,
    /// These links.
    Reload(Reload),
}

/// The links of one block, as far as they are not consumed.
struct Frame {
    source: Cid,
    links: Option<Links>,
    memory: usize,
    /// Index of the leaf that is their parent, known once it is consumed.
    parent: u64,
    depth: u32,
    nesting: u32,
    /// Whether its block is still to be consumed.
    is_owned: bool,
    /// Nodes, a span and an owner that refer to this frame.
    live: u32,
}

/// A node's key with a name of its own: labels change, and two nodes may link
/// to the same block.
struct Link {
    id: u64,
    cid: Cid,
}

/// A block that was asked for and not yet consumed.
struct Pending {
    /// The first node that links to it.
    owner: u64,
    label: Label,
    found: Option<Found>,
}

struct Found {
    length: u32,
    chunk_root: [u8; 32],
    links: u32,
    /// The frame behind the node whose owner it had when it was found.
    expanded: Option<(u64, FrameId)>,
}

/// See the module's description.
pub(crate) struct Walk {
    limits: Limits,
    decode: DecodeInline,
    visited: Visited,
    agenda: Agenda<Link>,
    /// What comes behind the agenda's end.
    far: Far,
    frames: Vec<Option<Frame>>,
    free: Vec<FrameId>,
    link_memory: usize,
    pending: HashMap<Cid, Pending>,
    names: u64,
    builder: manifest::Builder,
    consumed: Totals,
    ahead: Totals,
    fresh: Vec<BlockHash>,
}

/// A multihash as block stores and exchanges take it.
pub(crate) type BlockHash = pinfold_blockstore::Multihash;

/// Reads the links out of an identity CID's data: codec and data.
pub(crate) type DecodeInline = fn(u64, &[u8]) -> Option<Links>;

impl Walk {
    /// A walk that starts at `root`.
    pub(crate) fn new(root: &Cid, limits: Limits, decode: DecodeInline) -> Self {
        let mut walk = Self {
            limits,
            decode,
            visited: Visited::new(),
            agenda: Agenda::new(),
            far: Far::default(),
            frames: Vec::new(),
            free: Vec::new(),
            link_memory: 0,
            pending: HashMap::new(),
            names: 0,
            builder: manifest::Builder::new(),
            consumed: Totals::default(),
            ahead: Totals::default(),
            fresh: Vec::new(),
        };
        let root = normal(root);
        let frame = walk.add_frame(root, Some(Links::from_iter([root])), 0, 0, 1);
        walk.frame_mut(frame).parent = NO_PARENT;
        walk.agenda.insert(0, frame, 1);
        walk
    }

    /// Blocks consumed or known already, each counted once.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            blocks: self.consumed.blocks + self.ahead.blocks,
            bytes: self.consumed.bytes + self.ahead.bytes,
        }
    }

    /// The distinct multihashes consumed since the last call, in pre-order.
    pub(crate) fn take_consumed(&mut self) -> Vec<BlockHash> {
        std::mem::take(&mut self.fresh)
    }

    /// Blocks that were found and wait for an earlier one.
    pub(crate) fn waiting(&self) -> Vec<BlockHash> {
        let found = self.pending.iter().filter(|(_, pending)| pending.found.is_some());
        let blocks = found.filter(|(cid, _)| content::inline_data(cid).is_none());
        blocks.filter_map(|(cid, _)| content::block_cid(cid)).map(|cid| *cid.hash()).collect()
    }

    /// Whether [`consume`](Self::consume) would get on.
    pub(crate) fn can_consume(&self) -> bool {
        let Head::Node(label) = self.agenda.head() else { return false };
        let cid = self.agenda.nodes[&label].key.cid;
        self.visited.contains(cid.codec(), cid.hash())
            || self.pending.get(&cid).is_some_and(|pending| pending.found.is_some())
    }

    /// Whether everything is consumed.
    pub(crate) fn is_done(&self) -> bool {
        self.agenda.head() == Head::End && self.far.is_empty()
    }

    /// The manifest, once [`is_done`](Self::is_done).
    pub(crate) fn finish(self) -> manifest::Manifest {
        debug_assert!(self.is_done(), "a manifest covers every block");
        self.builder.finish()
    }

    /// Appends to `out` what is to be looked up next, in pre-order, until it
    /// holds `max`.
    ///
    /// # Errors
    /// When a link is denied, or is one that nobody could fetch.
    pub(crate) fn look_ahead(
        &mut self,
        max: usize,
        denied: &dyn Fn(&Cid) -> bool,
        out: &mut Vec<BlockCid>,
    ) -> Result<Ahead, WalkError> {
        if self.agenda.spans.len() > self.limits.spans {
            self.put_far();
        }
        for _ in 0..STEPS {
            if self.agenda.spans.is_empty() {
                self.bring_near();
            }
            let Some((&label, &span)) = self.agenda.spans.first_key_value() else { return Ok(Ahead::Wait) };
            let is_head = self.agenda.head() == Head::Span(label);
            if self.agenda.nodes.len() >= self.limits.ahead && !is_head {
                return Ok(Ahead::Wait);
            }
            let Some(cid) = self.link(span.frame, span.next)? else {
                return Ok(Ahead::Reload(Reload { frame: span.frame, cid: self.frame(span.frame).source }));
            };
            if self.is_earlier(&cid, label) {
                self.advance();
                continue;
            }
            if denied(&cid) {
                return Err(WalkError::Denied(cid));
            }
            let is_new = !self.pending.contains_key(&cid);
            if is_new && content::inline_data(&cid).is_none() {
                if out.len() >= max {
                    return Ok(Ahead::Wait);
                }
                out.push(content::block_cid(&cid).ok_or(WalkError::Digest(cid))?);
            }
            self.ask(cid, label, span.frame, span.next)?;
        }
        Ok(Ahead::Again)
    }

    /// Takes what a look-up or a fetch found. Returns whether it was awaited.
    pub(crate) fn found(&mut self, cid: &Cid, block: Derived) -> bool {
        let cid = normal(cid);
        let Some(pending) = self.pending.get(&cid) else { return false };
        if pending.found.is_some() {
            return false;
        }
        self.ahead.blocks += 1;
        self.ahead.bytes += u64::from(block.length);
        self.expand(&cid, block);
        true
    }

    /// Takes links that [`look_ahead`](Self::look_ahead) needed.
    pub(crate) fn reloaded(&mut self, reload: &Reload, links: Links) {
        let frame = self.frames.get_mut(reload.frame).and_then(Option::as_mut);
        let Some(frame) = frame.filter(|frame| frame.source == reload.cid && frame.links.is_none()) else {
            return;
        };
        frame.memory = links.memory();
        self.link_memory += frame.memory;
        frame.links = Some(links);
        self.drop_far_links(reload.frame);
    }

    /// Consumes what is known at the head, as far as that goes.
    ///
    /// # Errors
    /// When the DAG exceeds a limit.
    pub(crate) fn consume(&mut self) -> Result<(), WalkError> {
        while self.can_consume() {
            let Some((&label, node)) = self.agenda.nodes.first_key_value() else { break };
            let cid = node.key.cid;
            if !self.visited.contains(cid.codec(), cid.hash()) {
                self.consume_block(label, cid)?;
            }
            // Not by its label, which may have changed. It is still the first.
            if let Some((_, node)) = self.agenda.nodes.pop_first() {
                self.leave(node.frame);
            }
        }
        Ok(())
    }

    /// The link at a place, none where its frame's links were dropped.
    fn link(&mut self, frame: FrameId, index: u32) -> Result<Option<Cid>, WalkError> {
        if self.frame(frame).links.is_none() {
            let source = self.frame(frame).source;
            let Some(data) = content::inline_data(&source) else { return Ok(None) };
            let links = (self.decode)(source.codec(), data).ok_or(WalkError::Inline(source))?;
            self.reloaded(&Reload { frame, cid: source }, links);
        }
        Ok(self.frame(frame).links.as_ref().map(|links| links.get(index)))
    }

    /// Whether a link at `label` will have been consumed when it is reached.
    fn is_earlier(&self, cid: &Cid, label: Label) -> bool {
        self.visited.contains(cid.codec(), cid.hash())
            || self.pending.get(cid).is_some_and(|pending| pending.label < label)
    }

    /// Turns the first link of the first span into a node.
    fn ask(&mut self, cid: Cid, label: Label, frame: FrameId, index: u32) -> Result<(), WalkError> {
        self.frame_mut(frame).live += 1;
        self.advance();
        self.names += 1;
        let id = self.names;
        self.agenda.nodes.insert(label, Node { key: Link { id, cid }, frame, index });
        let pending = self.pending.entry(cid).or_insert(Pending { owner: id, label, found: None });
        (pending.owner, pending.label) = (id, label);
        if let (Some(data), true) = (content::inline_data(&cid), pending.found.is_none()) {
            let links = (self.decode)(cid.codec(), data).ok_or(WalkError::Inline(cid))?;
            self.expand(&cid, Derived { length: 0, chunk_root: [0; 32], links });
        }
        Ok(())
    }

    /// Notes what was found of a pending block, and puts its links behind it.
    fn expand(&mut self, cid: &Cid, block: Derived) {
        let Derived { length, chunk_root, links } = block;
        let count = links.len();
        let owner = self.pending[cid].owner;
        let expanded = (count > 0).then(|| (owner, self.open(cid, Some(links), count, 2)));
        let pending = self.pending.get_mut(cid).expect("the caller found it pending");
        pending.found = Some(Found { length, chunk_root, links: count, expanded });
    }

    /// Makes a frame behind the node that owns a pending block.
    fn open(&mut self, cid: &Cid, links: Option<Links>, count: u32, live: u32) -> FrameId {
        let above = self.frame(self.agenda.nodes[&self.pending[cid].label].frame);
        let depth = above.depth.saturating_add(1);
        let nesting = if content::inline_data(cid).is_some() { above.nesting + 1 } else { 0 };
        let frame = self.add_frame(*cid, links, depth, nesting, live);
        if !self.agenda.has_room(self.pending[cid].label, count) {
            let pending = &mut self.pending;
            self.agenda.relabel(|link, to| {
                if let Some(pending) = pending.get_mut(&link.cid).filter(|pending| pending.owner == link.id) {
                    pending.label = to;
                }
            });
        }
        self.agenda.insert(self.pending[cid].label, frame, count);
        self.drop_far_links(frame);
        frame
    }
}

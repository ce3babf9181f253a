//! What a walk remembers, and how it keeps that small: frames are counted and
//! freed, links that are needed last are dropped, and the far end of the
//! agenda is written down.

use pinfold_core::content::{self, Cid};
use pinfold_core::manifest::NO_PARENT;

use super::agenda::{FrameId, Last};
use super::far::FarSpan;
use super::{Frame, Link, Links, Walk};

impl Walk {
    /// Writes the last half of the agenda small.
    pub(super) fn put_far(&mut self) {
        let Some(from) = self.agenda.spans.keys().nth(self.limits.spans / 2).copied() else { return };
        while let Some(last) = self.agenda.pop_last(from) {
            let (frame, next, count) = match last {
                Last::Span(span) => (span.frame, span.next, span.count),
                Last::Node(node) => {
                    self.forget(&node.key);
                    (node.frame, node.index, node.index + 1)
                }
            };
            let &Frame { source, parent, depth, nesting, is_owned, .. } = self.frame(frame);
            if is_owned {
                // Its block is not consumed, and brings its links again.
                self.close(&source, frame);
            } else {
                self.far.push(&FarSpan { source, parent, depth, nesting, next, count });
            }
            self.leave(frame);
        }
    }

    /// Forgets that a node's block was asked for: when the node is asked for
    /// again, the store has it.
    pub(super) fn forget(&mut self, link: &Link) {
        if self.pending.get(&link.cid).is_none_or(|pending| pending.owner != link.id) {
            return;
        }
        let found = self.pending.remove(&link.cid).and_then(|pending| pending.found);
        let Some(found) = found else { return };
        if content::inline_data(&link.cid).is_none() {
            self.ahead.blocks -= 1;
            self.ahead.bytes -= u64::from(found.length);
        }
        if let Some((_, frame)) = found.expanded {
            self.disown(frame);
        }
    }

    /// The links of a block that is not consumed are gone from the agenda, at
    /// least in part.
    pub(super) fn close(&mut self, source: &Cid, frame: FrameId) {
        let found = self.pending.get_mut(source).and_then(|pending| pending.found.as_mut());
        if let Some(found) = found.filter(|found| found.expanded.is_some_and(|(_, open)| open == frame)) {
            found.expanded = None;
        }
        self.disown(frame);
    }

    /// The owner of a frame refers to it no longer.
    pub(super) fn disown(&mut self, frame: FrameId) {
        let owned = self.frame_mut(frame);
        if std::mem::take(&mut owned.is_owned) {
            self.leave(frame);
        }
    }

    /// Takes back what comes next of what was put far.
    pub(super) fn bring_near(&mut self) {
        for _ in 0..(self.limits.spans / 4).max(1) {
            if !self.agenda.has_room_behind() {
                return;
            }
            let Some(FarSpan { source, parent, depth, nesting, next, count }) = self.far.pop() else {
                return;
            };
            let frame = self.add_frame(source, None, depth, nesting, 1);
            self.frame_mut(frame).parent = parent;
            self.agenda.append(frame, next, count);
        }
    }

    pub(super) fn add_frame(
        &mut self,
        source: Cid,
        links: Option<Links>,
        depth: u32,
        nesting: u32,
        live: u32,
    ) -> FrameId {
        let memory = links.as_ref().map_or(0, Links::memory);
        self.link_memory += memory;
        let is_owned = live > 1;
        let frame = Frame { source, links, memory, parent: NO_PARENT, depth, nesting, is_owned, live };
        if let Some(id) = self.free.pop() {
            self.frames[id] = Some(frame);
            return id;
        }
        self.frames.push(Some(frame));
        self.frames.len() - 1
    }

    /// Takes the first link off the first span. Links are kept for the sake of
    /// spans alone.
    pub(super) fn advance(&mut self) {
        if let Some((frame, true)) = self.agenda.take() {
            let ended = self.frame_mut(frame);
            ended.links = None;
            let memory = std::mem::take(&mut ended.memory);
            self.link_memory -= memory;
            self.leave(frame);
        }
    }

    /// One fewer refers to a frame.
    pub(super) fn leave(&mut self, id: FrameId) {
        let frame = self.frame_mut(id);
        frame.live -= 1;
        if frame.live == 0 {
            let memory = frame.memory;
            self.link_memory -= memory;
            self.frames[id] = None;
            self.free.push(id);
        }
    }

    /// Keeps the memory for links within its limit by dropping those that are
    /// needed last; never those of `keep` and of the first span.
    pub(super) fn drop_far_links(&mut self, keep: FrameId) {
        if self.link_memory <= self.limits.link_memory {
            return;
        }
        let first = self.agenda.spans.first_key_value().map(|(_, span)| span.frame);
        for span in self.agenda.spans.values().rev() {
            if self.link_memory <= self.limits.link_memory / 2 {
                break;
            }
            let Some(frame) = self.frames[span.frame].as_mut() else { continue };
            if span.frame != keep && Some(span.frame) != first && frame.links.take().is_some() {
                self.link_memory -= frame.memory;
                frame.memory = 0;
            }
        }
    }

    pub(super) fn frame(&self, id: FrameId) -> &Frame {
        self.frames[id].as_ref().expect("nodes and spans keep their frame alive")
    }

    pub(super) fn frame_mut(&mut self, id: FrameId) -> &mut Frame {
        self.frames[id].as_mut().expect("nodes and spans keep their frame alive")
    }
}

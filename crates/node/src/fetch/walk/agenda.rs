//! The order of what a walk has yet to consume.
//!
//! The agenda is the classical stack of a depth-first walk, laid out as one
//! list in pre-order and open in the middle: the links of a block that arrived
//! early are inserted right behind that block, wherever it stands. Positions
//! are 128-bit labels with room between them; when a gap is used up, all
//! labels are drawn anew ([`Agenda::relabel`]), which happens at most once in
//! about a hundred insertions at the same place.
//!
//! A link that was asked for is a *node*; the links of a block behind the last
//! one asked for are a *span*, which costs the same whether it stands for one
//! link or for fifty thousand.

use std::collections::BTreeMap;

/// A position. Smaller is earlier.
pub(crate) type Label = u128;

/// Whose links a span or a node belongs to; an index into the walk's frames.
pub(crate) type FrameId = usize;

/// A link that was asked for.
#[derive(Debug)]
pub(crate) struct Node<K> {
    /// What it links to.
    pub(crate) key: K,
    /// Whose link it is.
    pub(crate) frame: FrameId,
    /// Which of its links.
    pub(crate) index: u32,
}

/// Links `next..count` of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Whose links.
    pub(crate) frame: FrameId,
    /// The first that was not asked for.
    pub(crate) next: u32,
    /// One past the last.
    pub(crate) count: u32,
    /// From the label of one link to that of the following.
    stride: Label,
}

/// What stood last.
pub(crate) enum Last<K> {
    /// A link that was asked for.
    Node(Node<K>),
    /// Links that were not.
    Span(Span),
}

/// What stands first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// A link that was asked for.
    Node(Label),
    /// A link that was not.
    Span(Label),
    /// Nothing: the walk is over.
    End,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Agenda<K> {
    pub(crate) nodes: BTreeMap<Label, Node<K>>,
    pub(crate) spans: BTreeMap<Label, Span>,
}

impl<K> Agenda<K> {
    pub(crate) fn new() -> Self {
        Self { nodes: BTreeMap::new(), spans: BTreeMap::new() }
    }

    pub(crate) fn head(&self) -> Head {
        match (self.nodes.first_key_value(), self.spans.first_key_value()) {
            (None, None) => Head::End,
            (Some((&node, _)), Some((&span, _))) if span < node => Head::Span(span),
            (None, Some((&span, _))) => Head::Span(span),
            (Some((&node, _)), _) => Head::Node(node),
        }
    }

    /// Whether `count` links fit right behind a label.
    pub(crate) fn has_room(&self, after: Label, count: u32) -> bool {
        self.stride(after, count) > 0
    }

    /// Puts the links `0..count` of a frame right behind a label, where
    /// [`has_room`](Self::has_room) said so.
    pub(crate) fn insert(&mut self, after: Label, frame: FrameId, count: u32) {
        let stride = self.stride(after, count);
        debug_assert!(stride > 0 && count > 0, "insert asks has_room first");
        self.spans.insert(after + stride, Span { frame, next: 0, count, stride });
    }

    /// Puts the links `next..count` of a frame behind everything else, with
    /// room left for as many again.
    pub(crate) fn append(&mut self, frame: FrameId, next: u32, count: u32) {
        let last_node = self.nodes.last_key_value().map_or(0, |(&label, _)| label);
        let last_link =
            |(&label, span): (&Label, &Span)| label + span.stride * Label::from(span.count - span.next);
        let last = self.spans.last_key_value().map_or(0, last_link).max(last_node);
        let stride = (Label::MAX - last) / (2 * Label::from(count - next) + 1);
        debug_assert!(stride > 0, "the caller makes room first");
        self.spans.insert(last + stride, Span { frame, next, count, stride });
    }

    /// Whether so many links can be appended, one after the other.
    pub(crate) fn has_room_behind(&self) -> bool {
        let node = self.nodes.last_key_value().map_or(0, |(&label, _)| label);
        let span = self
            .spans
            .last_key_value()
            .map_or(0, |(&label, span)| label + span.stride * Label::from(span.count - span.next));
        Label::MAX - node.max(span) > Label::MAX >> 64
    }

    /// Takes what stands last, if it stands at or behind a label.
    pub(crate) fn pop_last(&mut self, from: Label) -> Option<Last<K>> {
        let node = self.nodes.last_key_value().map(|(&label, _)| label);
        let span = self.spans.last_key_value().map(|(&label, _)| label);
        if node.max(span)? < from {
            return None;
        }
        if node > span {
            self.nodes.pop_last().map(|(_, node)| Last::Node(node))
        } else {
            self.spans.pop_last().map(|(_, span)| Last::Span(span))
        }
    }

    /// Takes the first link off the first span: whose it is, and whether it
    /// was the last.
    pub(crate) fn take(&mut self) -> Option<(FrameId, bool)> {
        let (label, span) = self.spans.pop_first()?;
        let is_last = span.next + 1 == span.count;
        if !is_last {
            self.spans.insert(label + span.stride, Span { next: span.next + 1, ..span });
        }
        Some((span.frame, is_last))
    }

    /// Draws all labels anew, evenly, and tells each node's.
    pub(crate) fn relabel(&mut self, mut moved: impl FnMut(&K, Label)) {
        let nodes = std::mem::take(&mut self.nodes);
        let links: u128 = self.spans.values().map(|span| u128::from(span.count - span.next)).sum();
        let stride = Label::MAX / (links + nodes.len() as u128 + 2);
        let mut spans = std::mem::take(&mut self.spans).into_iter().peekable();
        let mut at = stride;
        for (label, node) in nodes {
            while let Some((_, span)) = spans.next_if(|(span, _)| *span < label) {
                at = self.place(at, stride, span);
            }
            moved(&node.key, at);
            self.nodes.insert(at, node);
            at += stride;
        }
        for (_, span) in spans {
            at = self.place(at, stride, span);
        }
    }

    fn place(&mut self, at: Label, stride: Label, span: Span) -> Label {
        self.spans.insert(at, Span { stride, ..span });
        at + stride * Label::from(span.count - span.next)
    }

    fn stride(&self, after: Label, count: u32) -> Label {
        (self.next_label(after) - after) / (Label::from(count) + 1)
    }

    fn next_label(&self, after: Label) -> Label {
        let from = after + 1..;
        let node = self.nodes.range(from.clone()).next().map(|(&label, _)| label);
        let span = self.spans.range(from).next().map(|(&label, _)| label);
        node.into_iter().chain(span).min().unwrap_or(Label::MAX)
    }
}

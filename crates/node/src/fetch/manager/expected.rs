//! Peers that unfinished contents name as origins, and what they should have.
//!
//! A user's Kubo behind NAT cannot be dialled, but it dials its delegates once,
//! right after the pin was posted: that connection is kept, and its arrival
//! starts the fetch.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Peers that are expected at a time; each may keep a connection open.
const MAX_PEERS: usize = 4_096;

/// Contents remembered per peer. Those beyond it are tried at their own time,
/// and find the peer connected then.
const MAX_CONTENTS: usize = 4_096;

/// See the module's description. `G` is the guard that keeps the connection.
pub(super) struct Expected<P, G> {
    peers: HashMap<P, Peer<G>>,
}

struct Peer<G> {
    contents: HashSet<i64>,
    _guard: G,
}

impl<P: Eq + Hash + Copy, G> Expected<P, G> {
    pub(super) fn new() -> Self {
        Self { peers: HashMap::new() }
    }

    /// Expects a peer for a content, if there is room for it.
    pub(super) fn add(&mut self, peer: P, content: i64, guard: impl FnOnce() -> G) {
        if !self.peers.contains_key(&peer) && self.peers.len() >= MAX_PEERS {
            return;
        }
        let peer = self.peers.entry(peer);
        let known = peer.or_insert_with(|| Peer { contents: HashSet::new(), _guard: guard() });
        if known.contents.len() < MAX_CONTENTS {
            known.contents.insert(content);
        }
    }

    /// The contents that a peer was named for.
    pub(super) fn contents(&self, peer: &P) -> Vec<i64> {
        let found = self.peers.get(peer);
        found.map(|peer| peer.contents.iter().copied().collect()).unwrap_or_default()
    }

    /// A content needs its origins no longer.
    pub(super) fn remove(&mut self, content: i64, peers: &[P]) {
        for id in peers {
            let Some(peer) = self.peers.get_mut(id) else { continue };
            peer.contents.remove(&content);
            if peer.contents.is_empty() {
                self.peers.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_guard_lives_as_long_as_a_content_needs_it() {
        let guard = Rc::new(());
        let mut expected = Expected::new();
        for content in [1, 2] {
            expected.add("peer", content, || guard.clone());
        }
        assert_eq!(Rc::strong_count(&guard), 2);
        expected.remove(1, &["peer", "other"]);
        assert_eq!((expected.contents(&"peer"), Rc::strong_count(&guard)), (vec![2], 2));
        expected.remove(2, &["peer"]);
        assert_eq!(Rc::strong_count(&guard), 1);
    }

    #[test]
    fn peers_and_contents_are_bounded() {
        let mut expected = Expected::new();
        for peer in 0..MAX_PEERS + 10 {
            expected.add(peer, 1, || ());
        }
        for content in 0..2 * MAX_CONTENTS {
            expected.add(0, content as i64, || ());
        }
        assert_eq!((expected.peers.len(), expected.contents(&0).len()), (MAX_PEERS, MAX_CONTENTS));
    }
}

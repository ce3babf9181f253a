//! The newest changes of the index, before they go to its tree.
//!
//! A block is put, referred to and found within moments. Here these are
//! changes of one entry of a hash map; the tree sees the last one only, and
//! nothing of an entry that came and went.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use lsm_tree::Slice;
use parking_lot::RwLock;

/// What an entry roughly occupies besides its key and value, in bytes.
const ENTRY_BYTES: usize = 80;

/// A change of one entry.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// The entry is this now. If it is `fresh`, the tree has none.
    Set { value: Slice, fresh: bool },
    /// There is no such entry now.
    Removed,
}

impl Change {
    fn value(&self) -> Option<Slice> {
        match self {
            Self::Set { value, .. } => Some(value.clone()),
            Self::Removed => None,
        }
    }
}

/// Changes by key.
pub(crate) type Changes = HashMap<Box<[u8]>, Change>;

/// Changes that the tree does not have yet. One thread at a time makes them;
/// any number read.
#[derive(Debug, Default)]
pub(crate) struct Overlay(RwLock<Layers>);

#[derive(Debug, Default)]
struct Layers {
    active: Changes,
    /// On their way to the tree.
    leaving: Arc<Changes>,
    bytes: usize,
}

impl Overlay {
    /// The entry's value as of the last change here: `None` where there was no
    /// change, `Some(None)` where it was removed.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Slice>> {
        let layers = self.0.read();
        layers.active.get(key).or_else(|| layers.leaving.get(key)).map(Change::value)
    }

    /// Sets an entry. `fresh` promises that there was none.
    pub(crate) fn set(&self, key: &[u8], value: Slice, fresh: bool) {
        let mut layers = self.0.write();
        layers.bytes += key.len() + value.len() + ENTRY_BYTES;
        match layers.active.get_mut(key) {
            // The tree still has none, if it had none.
            Some(Change::Set { value: old, .. }) => *old = value,
            Some(change) => *change = Change::Set { value, fresh: false },
            None => {
                layers.active.insert(key.into(), Change::Set { value, fresh });
            }
        }
    }

    /// Removes an entry.
    pub(crate) fn remove(&self, key: &[u8]) {
        let mut layers = self.0.write();
        if let Some(Change::Set { fresh: true, .. }) = layers.active.get(key) {
            layers.active.remove(key);
        } else {
            layers.bytes += key.len() + ENTRY_BYTES;
            layers.active.insert(key.into(), Change::Removed);
        }
    }

    /// Bytes that the changes occupy, roughly.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.read().bytes as u64
    }

    /// Sets the changes until now apart, for the tree. They are read from here
    /// until [`Overlay::left`].
    pub(crate) fn detach(&self) -> Arc<Changes> {
        let mut layers = self.0.write();
        debug_assert!(layers.leaving.is_empty(), "one set of changes leaves at a time");
        layers.bytes = 0;
        layers.leaving = Arc::new(mem::take(&mut layers.active));
        Arc::clone(&layers.leaving)
    }

    /// The tree has the changes that were set apart.
    pub(crate) fn left(&self) {
        let leaving = mem::take(&mut self.0.write().leaving);
        // Freed without the lock.
        drop(leaving);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(overlay: &Overlay) -> Vec<(Box<[u8]>, Option<Slice>)> {
        let mut all = Vec::new();
        let changes = overlay.detach();
        for (key, change) in changes.iter() {
            all.push((key.clone(), change.value()));
            // Still readable on the way.
            assert_eq!(overlay.get(key), Some(change.value()));
        }
        overlay.left();
        all.sort();
        all
    }

    #[test]
    fn what_came_and_went_leaves_nothing() {
        let overlay = Overlay::default();
        overlay.set(b"a", "1".into(), true);
        overlay.set(b"a", "2".into(), false);
        assert_eq!(overlay.get(b"a"), Some(Some("2".into())));
        overlay.remove(b"a");
        assert_eq!(overlay.get(b"a"), None);
        assert_eq!(drained(&overlay), []);
    }

    #[test]
    fn removing_what_the_tree_may_have_is_remembered() {
        let overlay = Overlay::default();
        overlay.set(b"a", "1".into(), true);
        assert_eq!(drained(&overlay), [(b"a".as_slice().into(), Some("1".into()))]);
        overlay.remove(b"a");
        assert_eq!(overlay.get(b"a"), Some(None));
        // It is there no more, but the tree has the older one.
        overlay.set(b"a", "2".into(), true);
        overlay.remove(b"a");
        assert_eq!(overlay.get(b"a"), Some(None));
        assert_eq!(drained(&overlay), [(b"a".as_slice().into(), None)]);
        assert_eq!(overlay.get(b"a"), None);
    }
}

//! The denylist that the service has told this node, applied to everything
//! that is fetched or served.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use pinfold_core::content::{Cid, ContentKey};
use pinfold_core::denylist::Denylist;
use pinfold_node_api as api;

/// The file in the data folder. It is applied at the start, before the
/// service can be reached.
const FILE: &str = "denylist.json";

/// The denylist in force. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Denied {
    shared: Arc<RwLock<Current>>,
}

#[derive(Default)]
struct Current {
    version: i64,
    rules: Arc<Denylist>,
    /// Roots of contents that have a denied block in them: as many as there
    /// are such contents on this node, some 70 bytes each.
    withheld: HashSet<ContentKey>,
}

impl Denied {
    /// The list as it was last told. One that cannot be read is fetched again,
    /// because its version is then unknown.
    pub(crate) fn load(dir: &Path) -> Self {
        let denied = Self::default();
        let saved = std::fs::read(path(dir)).ok();
        if let Some(list) = saved.and_then(|bytes| serde_json::from_slice::<Saved>(&bytes).ok()) {
            denied.apply(list.version, &list.rules);
        }
        denied
    }

    /// Its version, 0 before there was one.
    pub(crate) fn version(&self) -> i64 {
        self.shared.read().version
    }

    /// The rules in force, and their version.
    pub(crate) fn rules(&self) -> (i64, Arc<Denylist>) {
        let current = self.shared.read();
        (current.version, current.rules.clone())
    }

    /// Withholds a root because of what is in its DAG, or not any more.
    pub(crate) fn withhold(&self, root: ContentKey, withheld: bool) {
        let mut current = self.shared.write();
        if withheld {
            current.withheld.insert(root);
        } else {
            current.withheld.remove(&root);
        }
    }

    /// Whether a CID may not be served: the rules deny it, or it is the root
    /// of a held content with a denied block in it.
    pub(crate) fn is_withheld(&self, cid: &Cid, path: &str) -> bool {
        let (rules, withheld) = {
            let current = self.shared.read();
            let withheld = !current.withheld.is_empty() && current.withheld.contains(&ContentKey::of(cid));
            (current.rules.clone(), withheld)
        };
        withheld || rules.is_denied(cid, path)
    }

    /// Whether the rules say that a CID may neither be fetched nor served.
    pub(crate) fn is_denied(&self, cid: &Cid) -> bool {
        // Not held while the rules are looked at: a reader that waits behind a
        // writer would hold up the network's tasks.
        let rules = self.shared.read().rules.clone();
        rules.is_denied(cid, "")
    }

    /// Saves a new list and applies it.
    pub(crate) fn update(&self, dir: &Path, list: &api::Denylist) -> std::io::Result<()> {
        let saved = Saved { version: list.version, rules: list.rules.clone() };
        let bytes = serde_json::to_vec(&saved)?;
        replace(&path(dir), &bytes)?;
        self.apply(list.version, &list.rules);
        Ok(())
    }

    fn apply(&self, version: i64, rules: &str) {
        let (rules, errors) = Denylist::parse(rules);
        if let Some(first) = errors.first() {
            tracing::warn!(count = errors.len(), %first, "the denylist has lines that are not understood; they are skipped");
        }
        let mut current = self.shared.write();
        (current.version, current.rules) = (version, Arc::new(rules));
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Saved {
    version: i64,
    rules: String,
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// Replaces a file as a whole: the old one or the new one is there, whatever
/// happens.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    if let Some(parent) = path.parent() {
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

//! The denylist that the service has told this node, applied to everything
//! that is fetched or served.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use pinfold_core::content::{Cid, ContentKey};
use pinfold_core::denylist::Denylist;
use pinfold_node_api as api;

/// The file in the data folder. It is applied at the start, before the
/// service can be reached.
const FILE: &str = "denylist.json";

/// Between two lines in the log about what is refused: strangers choose how
/// often they ask, and must not fill the disk by it.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// The denylist in force. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Denied {
    shared: Arc<RwLock<Current>>,
    told: Arc<Mutex<Told>>,
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

    /// Logs and counts that something was asked for and not served: `way` is
    /// how. What comes too soon after the last line is told with the next.
    pub(crate) fn refused(&self, cid: &Cid, path: &str, way: &'static str) {
        metrics::counter!("pinfold_denied_requests_total", "way" => way).increment(1);
        if let Some(further) = self.told.lock().ask(Instant::now()) {
            tracing::info!(%cid, path, way, further, "what the denylist forbids was asked for and refused");
        }
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

/// When something refused was last in the log, and how much was not since.
#[derive(Default)]
struct Told {
    last: Option<Instant>,
    unsaid: u64,
}

impl Told {
    /// Whether a line is due, and how many were refused since the last one.
    fn ask(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < LOG_PAUSE) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_at_a_bounded_pace_and_none_is_left_out() {
        let (mut told, begin) = (Told::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        let said = [0, 1, 999, 1_000, 5_000].map(|ms| told.ask(at(ms)));
        assert_eq!(said, [Some(0), None, None, Some(2), Some(0)]);
    }
}

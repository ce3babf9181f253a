//! The denylist, in the compact format of IPIP-383: the rules of a file, then
//! those that `pinfold denylist` keeps in the database. Both are looked at
//! every few seconds, applied to new pins at once and to held contents soon
//! after.
//!
//! A file that cannot be read later on leaves the rules as they were: a list
//! that is being replaced must not let anything through. At the start it is an
//! error, so that no service runs without the list that it was given.
//!
//! The version grows with each list that is another than the last. Services on
//! one database that are given different files would lift what the others deny;
//! so one whose list is not the newest denies but never lifts.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use pinfold_core::{
    content::{Cid, ContentKey},
    denylist::{Denylist as Rules, RuleError},
};
use pinfold_node_api::Denylist as ForNodes;
use sha2::{Digest, Sha256};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::db::{self, Database, HeldContent};

/// How often the file and the database are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The longest file. The largest public list has 30 MiB.
const MAX_FILE: u64 = 128 << 20;
/// The most bytes of rules in the database that are applied.
const MAX_RULES: usize = 128 << 20;
/// Contents matched, or rules taken, in one read.
const PAGE: u32 = 1_000;
/// A pin that passed under the old rules may be stored just after the held
/// contents were matched; so they are matched once more, after this.
const SECOND_PASS: Duration = Duration::from_secs(60);
/// Faulty lines that are logged one by one.
const MAX_FAULTS_LOGGED: usize = 10;

/// Why the denylist cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DenylistError {
    /// The file cannot be read.
    #[error("cannot read the denylist {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not one that can be applied.
    #[error("the denylist {} {what}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The database failed.
    #[error("the denylist cannot be applied: {0}")]
    Database(#[from] db::Error),
}

/// The rules in force. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Denylists(Arc<RwLock<InForce>>);

struct InForce {
    rules: Arc<Rules>,
    text: Arc<str>,
    version: watch::Sender<i64>,
}

impl Default for Denylists {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(InForce {
            rules: Arc::default(),
            text: Arc::from(""),
            version: watch::channel(0).0,
        })))
    }
}

impl Denylists {
    /// Whether this root may not be pinned.
    pub(crate) fn denies(&self, cid: &Cid) -> bool {
        let rules = self.0.read().rules.clone();
        rules.is_denied(cid, "")
    }

    /// Grows with each change; 0 where there is no denylist.
    pub(crate) fn version(&self) -> i64 {
        *self.0.read().version.borrow()
    }

    /// Tells of each new version.
    pub(crate) fn subscribe(&self) -> watch::Receiver<i64> {
        self.0.read().version.subscribe()
    }

    /// What nodes apply.
    pub(crate) fn for_nodes(&self) -> ForNodes {
        let in_force = self.0.read();
        ForNodes { version: *in_force.version.borrow(), rules: in_force.text.to_string() }
    }

    fn set(&self, list: Loaded, version: i64) {
        let mut in_force = self.0.write();
        in_force.rules = Arc::new(list.rules);
        in_force.text = list.text.into();
        in_force.version.send_replace(version);
    }
}

struct Loaded {
    rules: Rules,
    text: String,
    digest: [u8; 32],
}

/// What tells that the rules may be others than before: of the file its time
/// and length, of those in the database how often they were changed.
type Stamp = (Option<(Option<SystemTime>, u64)>, i64);

/// Follows the rules; see the module.
pub(crate) struct Watcher {
    path: Option<PathBuf>,
    database: Database,
    lists: Denylists,
    stamp: Option<Stamp>,
    digest: Option<[u8; 32]>,
}

impl Watcher {
    /// Reads the rules for the first time and puts them in force.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) async fn start(
        path: Option<PathBuf>,
        database: Database,
        lists: Denylists,
    ) -> Result<Self, DenylistError> {
        let mut watcher = Self { path, database, lists, stamp: None, digest: None };
        watcher.load_if_changed().await?;
        Ok(watcher)
    }

    /// Applies the rules to what is held, then follows them until it is
    /// cancelled.
    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        let mut passes_due = 2_u8;
        let mut pause = Duration::ZERO;
        let mut failing = false;
        loop {
            if passes_due > 0 && pause.is_zero() {
                passes_due -= 1;
                pause = SECOND_PASS;
                if let Err(error) = self.apply().await {
                    tracing::error!(%error, "held contents are not matched; trying again");
                    passes_due = 2;
                    pause = LOOK;
                }
            }
            sleep(LOOK).await;
            pause = pause.saturating_sub(LOOK);
            match self.load_if_changed().await {
                Ok(true) => (passes_due, pause, failing) = (2, Duration::ZERO, false),
                Ok(false) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    tracing::error!(%error, "the rules stay as they were");
                }
                Err(_) => {}
            }
        }
    }

    /// Puts the rules in force that are there now; answers whether they are new.
    async fn load_if_changed(&mut self) -> Result<bool, DenylistError> {
        let stamp = self.look().await?;
        if self.stamp == Some(stamp) {
            return Ok(false);
        }
        let kept = self.kept().await?;
        let path = self.path.clone();
        let loaded = tokio::task::spawn_blocking(move || read(path.as_deref(), &kept)).await;
        let loaded =
            loaded.unwrap_or_else(|error| Err(self.unusable(&format!("cannot be parsed: {error}"))))?;
        self.stamp = Some(stamp);
        if self.digest == Some(loaded.digest) {
            return Ok(false);
        }
        let is_empty = loaded.text.trim().is_empty();
        let version = self.database.denylist_version(loaded.digest, is_empty).await?;
        self.digest = Some(loaded.digest);
        self.lists.set(loaded, version);
        tracing::info!(version, "the denylist is in force");
        Ok(true)
    }

    async fn look(&self) -> Result<Stamp, DenylistError> {
        let file = self.path.as_deref().map(stamp).transpose()?;
        Ok((file, self.database.denylist_changes().await?))
    }

    /// The rules in the database, a line each.
    async fn kept(&self) -> Result<String, DenylistError> {
        let (mut text, mut after) = (String::new(), 0);
        loop {
            let page = self.database.denylist_rules(after, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(text) };
            after = *last;
            for (_, rule) in &page {
                text.push_str(rule);
                text.push('\n');
            }
            if text.len() > MAX_RULES {
                return Err(self.unusable("has more than 128 MiB of rules in the database; use a file"));
            }
        }
    }

    fn unusable(&self, what: &str) -> DenylistError {
        DenylistError::Form { path: self.path.clone().unwrap_or_default(), what: what.to_owned() }
    }

    /// Matches what is held with the rules, and denies or lifts what differs.
    async fn apply(&self) -> Result<(), DenylistError> {
        let rules = self.lists.0.read().rules.clone();
        let newest = self.database.newest_denylist().await? == self.lists.version();
        if !newest {
            tracing::warn!("another service applies another denylist: give all services the same file");
        }
        let (mut after, mut denied, mut lifted) = (0, 0, 0);
        loop {
            let page = self.database.held_contents(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            let (deny, lift) = judge(&rules, newest, &page);
            if !deny.is_empty() {
                denied += self.database.deny(&deny).await?;
            }
            if !lift.is_empty() {
                lifted += self.database.lift(&lift).await?;
            }
        }
        if denied + lifted > 0 {
            tracing::warn!(denied, lifted, "held contents are denied, or no longer denied");
        }
        Ok(())
    }
}

/// Contents to deny, and contents to lift: none of these by rules that are not
/// the newest.
fn judge(rules: &Rules, newest: bool, contents: &[HeldContent]) -> (Vec<i64>, Vec<i64>) {
    let (mut deny, mut lift) = (Vec::new(), Vec::new());
    for content in contents {
        let Ok(key) = ContentKey::from_bytes(&content.key) else { continue };
        match (rules.is_denied(&key.to_cid(), ""), content.denied) {
            (true, false) => deny.push(content.id),
            (false, true) if newest => lift.push(content.id),
            _ => {}
        }
    }
    (deny, lift)
}

fn stamp(path: &Path) -> Result<(Option<SystemTime>, u64), DenylistError> {
    let failed = |source| DenylistError::File { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    Ok((metadata.modified().ok(), metadata.len()))
}

/// The rules of a file, if there is one, and those that are `kept` elsewhere.
fn read(path: Option<&Path>, kept: &str) -> Result<Loaded, DenylistError> {
    let mut text = path.map(read_file).transpose()?.unwrap_or_default();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(kept);
    let path = path.unwrap_or(Path::new("in the database"));
    let digest = Sha256::digest(&text).into();
    let (rules, faults) = Rules::parse(&text);
    if faults.iter().any(|fault| matches!(fault.error, RuleError::Version { .. })) {
        let what = "is in a later format than this version reads; update Pinfold".to_owned();
        return Err(DenylistError::Form { path: path.to_owned(), what });
    }
    for fault in faults.iter().take(MAX_FAULTS_LOGGED) {
        tracing::warn!(path = %path.display(), %fault, "a line of the denylist is left out");
    }
    if faults.len() > MAX_FAULTS_LOGGED {
        tracing::warn!(path = %path.display(), faults = faults.len(), "more lines are left out");
    }
    Ok(Loaded { rules, text, digest })
}

fn read_file(path: &Path) -> Result<String, DenylistError> {
    let failed = |source| DenylistError::File { path: path.to_owned(), source };
    let form = |what: &str| DenylistError::Form { path: path.to_owned(), what: what.to_owned() };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(form("is longer than 128 MiB; split it, or remove comments"));
    }
    String::from_utf8(bytes).map_err(|_| form("is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_rules_lift() {
        let cids = ["bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "bafkqaaa"];
        let [denied, other] = cids.map(|cid| Cid::try_from(cid).expect("a CID"));
        let content =
            |id, cid, denied| HeldContent { id, key: ContentKey::of(cid).as_bytes().to_vec(), denied };
        let held = [content(1, &denied, false), content(2, &other, true)];
        let (rules, _) = Rules::parse(&format!("/ipfs/{denied}"));
        assert_eq!(judge(&rules, true, &held), (vec![1], vec![2]));
        assert_eq!(judge(&rules, false, &held), (vec![1], vec![]));
    }
}

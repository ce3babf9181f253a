//! The denylist: a file in the compact format of IPIP-383, read again whenever
//! it changes, applied to new pins at once and to held contents soon after.
//!
//! A file that cannot be read later on leaves the rules as they were: a list
//! that is being replaced must not let anything through. At the start it is an
//! error, so that no service runs without the list that it was given.

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

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The longest file. The largest public list has 30 MiB.
const MAX_FILE: u64 = 128 << 20;
/// Contents matched in one read.
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

/// What tells that a file is another one than before.
type Stamp = (Option<SystemTime>, u64);

/// Follows a file; see the module.
pub(crate) struct Watcher {
    path: PathBuf,
    database: Database,
    lists: Denylists,
    stamp: Stamp,
    digest: Option<[u8; 32]>,
}

impl Watcher {
    /// Reads the file for the first time and puts its rules in force.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn start(
        path: PathBuf,
        database: Database,
        lists: Denylists,
    ) -> Result<Self, DenylistError> {
        let mut watcher = Self { path, database, lists, stamp: (None, 0), digest: None };
        watcher.load().await?;
        Ok(watcher)
    }

    /// Applies the rules to what is held, then follows the file until it is
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

    async fn load_if_changed(&mut self) -> Result<bool, DenylistError> {
        if stamp(&self.path)? == self.stamp { Ok(false) } else { self.load().await }
    }

    /// Puts the file's rules in force; answers whether they are new.
    async fn load(&mut self) -> Result<bool, DenylistError> {
        let stamp = stamp(&self.path)?;
        let path = self.path.clone();
        let loaded = tokio::task::spawn_blocking(move || read(&path)).await;
        let loaded = loaded.unwrap_or_else(|error| {
            Err(DenylistError::Form { path: self.path.clone(), what: format!("cannot be parsed: {error}") })
        })?;
        self.stamp = stamp;
        if self.digest == Some(loaded.digest) {
            return Ok(false);
        }
        let version = self.database.denylist_version(loaded.digest).await?;
        self.digest = Some(loaded.digest);
        self.lists.set(loaded, version);
        tracing::info!(path = %self.path.display(), version, "the denylist is in force");
        Ok(true)
    }

    /// Matches what is held with the rules, and denies or lifts what differs.
    async fn apply(&self) -> Result<(), DenylistError> {
        let rules = self.lists.0.read().rules.clone();
        let (mut after, mut denied, mut lifted) = (0, 0, 0);
        loop {
            let page = self.database.held_contents(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            let (deny, lift) = judge(&rules, &page);
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

/// Contents to deny, and contents to lift.
fn judge(rules: &Rules, contents: &[HeldContent]) -> (Vec<i64>, Vec<i64>) {
    let (mut deny, mut lift) = (Vec::new(), Vec::new());
    for content in contents {
        let Ok(key) = ContentKey::from_bytes(&content.key) else { continue };
        match (rules.is_denied(&key.to_cid(), ""), content.denied) {
            (true, false) => deny.push(content.id),
            (false, true) => lift.push(content.id),
            _ => {}
        }
    }
    (deny, lift)
}

fn stamp(path: &Path) -> Result<Stamp, DenylistError> {
    let failed = |source| DenylistError::File { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    Ok((metadata.modified().ok(), metadata.len()))
}

fn read(path: &Path) -> Result<Loaded, DenylistError> {
    let failed = |source| DenylistError::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    let form = |what: &str| DenylistError::Form { path: path.to_owned(), what: what.to_owned() };
    if bytes.len() as u64 > MAX_FILE {
        return Err(form("is longer than 128 MiB; split it, or remove comments"));
    }
    let digest = Sha256::digest(&bytes).into();
    let text = String::from_utf8(bytes).map_err(|_| form("is not UTF-8"))?;
    let (rules, faults) = Rules::parse(&text);
    if faults.iter().any(|fault| matches!(fault.error, RuleError::Version { .. })) {
        return Err(form("is in a later format than this version reads; update Pinfold"));
    }
    for fault in faults.iter().take(MAX_FAULTS_LOGGED) {
        tracing::warn!(path = %path.display(), %fault, "a line of the denylist is left out");
    }
    if faults.len() > MAX_FAULTS_LOGGED {
        tracing::warn!(path = %path.display(), faults = faults.len(), "more lines are left out");
    }
    Ok(Loaded { rules, text, digest })
}

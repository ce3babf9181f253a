//! Compares what is held with the denylist, block by block.
//!
//! A content is denied as a whole when one block of it is: its root is
//! withheld here at once, and the service, which knows no blocks, is told. The
//! lists of all held contents are gone through when the denylist has changed,
//! and that of a single one when it was stored. One task does it, in slices
//! with rests between them, so that it takes no more than half of a processor
//! from what a node is for. Nothing has to be remembered of how far it came:
//! each record says which version its content was compared under, from when
//! the service has noted what was found.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pinfold_blockstore::{self as blockstore, List, Store};
use pinfold_core::content::{self, BlockCid, ContentKey};
use pinfold_core::denylist::Denylist;
use pinfold_core::links::Codec;
use pinfold_node_api::EventKind;
use tokio::sync::Notify;
use tokio::sync::mpsc;

use crate::agent::Outbox;
use crate::assignments::{self, Assignments, Record, State};
use crate::denied::Denied;
use crate::fetch::Workers;

/// Records read at a time.
const PAGE: usize = 256;
/// Blocks compared at a time: some 100 ms with double hashes in the list.
const SLICE: usize = 1 << 14;
/// Work after which it rests for as long.
const WORK: Duration = Duration::from_millis(10);
/// Stored contents that wait to be compared; beyond, all are gone through.
const WAITING: usize = 1_024;
/// The pause after the assignments or the store could not be read.
const PAUSE: Duration = Duration::from_secs(10);

/// Why a pass was broken off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Assignments(#[from] assignments::Error),
    #[error(transparent)]
    Store(#[from] blockstore::Error),
}

/// Asks for comparisons. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Compare {
    stored: mpsc::Sender<i64>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Everything is to be compared.
    is_due: AtomicBool,
    asked: Notify,
    /// Contents of which the service was told something and has not answered:
    /// what their records say is not what it knows.
    telling: Mutex<HashSet<i64>>,
}

/// What it is done with.
pub(crate) struct Setup {
    pub(crate) store: Store,
    pub(crate) assignments: Assignments,
    pub(crate) denied: Denied,
    pub(crate) outbox: Outbox,
    pub(crate) workers: Workers,
}

impl Compare {
    /// The handle, and the task behind it, which begins with a pass over
    /// everything.
    pub(crate) fn new(setup: Setup) -> (Self, impl Future<Output = ()> + Send) {
        let (stored, contents) = mpsc::channel(WAITING);
        let shared = Arc::<Shared>::default();
        let handle = Self { stored, shared: shared.clone() };
        handle.all();
        let task = Task { setup, contents, shared, worked: Duration::ZERO };
        (handle, task.run())
    }

    /// The denylist has changed.
    pub(crate) fn all(&self) {
        self.shared.is_due.store(true, Ordering::Release);
        self.shared.asked.notify_one();
    }

    /// The service has noted what was told of a content. It is looked at once
    /// more: the denylist may have changed meanwhile.
    pub(crate) fn noted(&self, content: i64) {
        self.shared.telling.lock().remove(&content);
        self.stored(content);
    }

    /// A content was stored.
    pub(crate) fn stored(&self, content: i64) {
        if self.stored.try_send(content).is_err() {
            self.all();
        }
    }
}

struct Task {
    setup: Setup,
    contents: mpsc::Receiver<i64>,
    shared: Arc<Shared>,
    /// Since the last rest.
    worked: Duration,
}

impl Task {
    async fn run(mut self) {
        loop {
            let done = if self.shared.is_due.swap(false, Ordering::AcqRel) {
                self.pass().await
            } else {
                tokio::select! {
                    () = self.shared.asked.notified() => Ok(()),
                    content = self.contents.recv() => match content {
                        Some(content) => self.one(content).await,
                        None => return,
                    },
                }
            };
            if let Err(error) = done {
                tracing::error!(%error, "what is held cannot be compared with the denylist; tried again");
                self.shared.is_due.store(true, Ordering::Release);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Compares whatever was not compared under the rules in force.
    async fn pass(&mut self) -> Result<(), Broken> {
        let (version, rules) = self.setup.denied.rules();
        let mut after = None;
        loop {
            let assignments = self.setup.assignments.clone();
            let page = self.setup.workers.run(move || assignments.after(after, PAGE)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.content);
            for record in page.into_iter().filter(|record| record.compared != version) {
                if self.shared.is_due.load(Ordering::Acquire) {
                    // Newer rules: begin anew.
                    return Ok(());
                }
                self.compare(record, version, &rules).await?;
            }
        }
    }

    async fn one(&mut self, content: i64) -> Result<(), Broken> {
        let assignments = self.setup.assignments.clone();
        let record = self.setup.workers.run(move || assignments.get(content)).await?;
        let (version, rules) = self.setup.denied.rules();
        match record.filter(|record| record.compared != version) {
            Some(record) => self.compare(record, version, &rules).await,
            None => Ok(()),
        }
    }

    async fn compare(&mut self, record: Record, version: i64, rules: &Arc<Denylist>) -> Result<(), Broken> {
        // Anything else is walked, and compared on the way.
        let Some(root) = record.key().filter(|_| record.state == State::Held) else { return Ok(()) };
        let Some(denied) = self.is_denied(&root, rules).await? else { return Ok(()) };
        self.setup.denied.withhold(root, denied);
        let id = record.allocation();
        let is_telling = self.shared.telling.lock().contains(&record.content);
        let assignments = self.setup.assignments.clone();
        let note = move || {
            if denied {
                assignments.note_denied(id)?;
            }
            // What the service knows may have changed while this was compared.
            if is_telling { Ok(false) } else { assignments.confirm_compared(id, version, denied) }
        };
        if self.setup.workers.run(note).await? {
            return Ok(());
        }
        tracing::warn!(root = record.root, denied, "a held content has a denied block in it, or no longer");
        self.shared.telling.lock().insert(record.content);
        self.setup.outbox.tell(id, EventKind::Compared { denylist: version, denied });
        Ok(())
    }

    /// Whether a root's list has a denied block; none where there is no list
    /// to read: the root is let go, or fetched again, and compared then.
    async fn is_denied(&mut self, root: &ContentKey, rules: &Arc<Denylist>) -> Result<Option<bool>, Broken> {
        if rules.is_empty() {
            return Ok(Some(false));
        }
        let Some(mut list) = self.setup.store.list(root.as_bytes())? else { return Ok(None) };
        loop {
            let (rules, began) = (rules.clone(), Instant::now());
            let (rest, found) = self.setup.workers.run(move || slice(list, &rules)).await;
            self.rest(began.elapsed()).await;
            match found {
                Found::Denied => return Ok(Some(true)),
                Found::End => return Ok(Some(false)),
                Found::Unreadable(error) => {
                    tracing::warn!(%root, %error, "the list of a root ended early; it is compared later");
                    return Ok(None);
                }
                Found::More => list = rest,
            }
        }
    }

    async fn rest(&mut self, worked: Duration) {
        self.worked += worked;
        if self.worked >= WORK {
            tokio::time::sleep(std::mem::take(&mut self.worked)).await;
        }
    }
}

/// What a slice of a list came to.
enum Found {
    Denied,
    More,
    End,
    Unreadable(blockstore::Error),
}

fn slice(mut list: List, rules: &Denylist) -> (List, Found) {
    for _ in 0..SLICE {
        let found = match list.next() {
            None => Found::End,
            Some(Err(error)) => Found::Unreadable(error),
            Some(Ok(multihash)) => {
                let block = content::of_block_cid(&BlockCid::new_v1(Codec::Raw.code(), multihash));
                if !rules.is_block_denied(block.hash()) {
                    continue;
                }
                Found::Denied
            }
        };
        return (list, found);
    }
    (list, Found::More)
}

//! What the service has assigned to this node, on disk.
//!
//! A small database beside the block store. Keyspaces: `contents` has one
//! record per content, in the order of the service's numbers, which is the
//! order of inventories; `open` names the contents with something left to do
//! or to report; `roots` finds a content by its root; `denied` names the roots
//! of contents with a denied block in them.
//!
//! An assignment or a release is synced before it is acknowledged. Everything
//! that happens later can be derived again after a crash from the record and
//! the block store, and is written without a sync: a fetch that was open is
//! resumed; a root that the store holds is reported as stored; a release that
//! was noted is carried out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use pinfold_core::content::{self, ContentKey};
use pinfold_core::status::Reason;
use pinfold_node_api::{AllocationId, Assignment, MAX_ORIGINS, PeerHint, Release};
use serde::{Deserialize, Serialize};

/// Version of the records; a newer one is refused.
const FORMAT: u32 = 1;
const FORMAT_KEY: &str = "format";
/// There while the service allows private addresses.
const PRIVATE_KEY: &str = "private";

/// Addresses that are kept of another node.
const MAX_PEER_ADDRESSES: usize = 20;
/// Other nodes that are kept of one content.
const MAX_PEERS: usize = 8;
/// The longest address that is kept: a multiaddr with a relay, a certificate
/// hash and a name is shorter.
const MAX_ADDRESS: usize = 1_024;

/// Memory for cached parts of the database, in bytes: records are read once
/// per attempt.
const CACHE_BYTES: u64 = 1 << 20;
/// Changes kept in memory before they are written out, in bytes.
const MEMTABLE_BYTES: u64 = 1 << 20;
/// The least journal that the database allows, in bytes.
const JOURNAL_BYTES: u64 = 64 << 20;

/// An error of the assignments.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error("the node's assignments cannot be read or written: {0}; check the disk, then start again")]
    Database(#[from] fjall::Error),
    /// A record of a later version.
    #[error("the node's assignments have format {0}, and this program knows {FORMAT}; use the newer program")]
    Newer(u32),
    /// A record that is not ours.
    #[error("the record of content {content} is damaged ({error}); it is assigned again when it is gone")]
    Damaged {
        /// The service's number.
        content: i64,
        /// What is wrong.
        error: String,
    },
}

/// Where a content stands on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum State {
    /// To be fetched.
    Open,
    /// It was held, and a block of it is gone: to be walked again.
    Lost,
    /// Held; whether the service knows is told by `open`.
    Held,
    /// It can never succeed; the service is to be told.
    Failed { reason: Reason, detail: String },
    /// To be let go.
    Releasing,
    /// The service does not know this allocation: nothing is done about it,
    /// and nothing deleted, until a release or a new assignment comes.
    Stopped,
}

/// A content assigned to this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) content: i64,
    pub(crate) generation: i64,
    pub(crate) root: String,
    pub(crate) origins: Vec<String>,
    pub(crate) peers: Vec<PeerHint>,
    pub(crate) fairness: i64,
    pub(crate) granted_bytes: u64,
    pub(crate) repair: bool,
    /// The version of the denylist that its blocks were compared under, and
    /// what was found, once the service has noted that. Forgotten with each
    /// time that it is stored.
    #[serde(default)]
    pub(crate) compared: i64,
    #[serde(default)]
    pub(crate) denied: bool,
    #[serde(flatten)]
    pub(crate) state: State,
}

impl Record {
    pub(crate) fn allocation(&self) -> AllocationId {
        AllocationId { content: self.content, generation: self.generation }
    }

    /// The root, none where the service sent a text that is not a CID.
    pub(crate) fn key(&self) -> Option<ContentKey> {
        content::parse(&self.root).ok().map(|cid| ContentKey::of(&cid))
    }

    fn is_open(&self) -> bool {
        !matches!(self.state, State::Stopped)
    }
}

/// See the module's description. Calls can wait for the disk.
#[derive(Clone)]
pub(crate) struct Assignments(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    /// None after a write has failed: a database whose journal could not be
    /// written takes no other change until it is opened again, and a disk may
    /// be full for a while.
    tables: RwLock<Option<Tables>>,
    /// Held while a record is read, changed and written.
    change: Mutex<()>,
}

struct Tables {
    database: Database,
    contents: Keyspace,
    open: Keyspace,
    roots: Keyspace,
    denied: Keyspace,
    meta: Keyspace,
}

impl Tables {
    fn open(dir: &Path) -> Result<Self, Error> {
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .worker_threads(1)
            .max_journaling_size(JOURNAL_BYTES)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let meta = database.keyspace("meta", options)?;
        match meta.get(FORMAT_KEY)? {
            None => meta.insert(FORMAT_KEY, FORMAT.to_be_bytes())?,
            Some(found) => check_format(&found)?,
        }
        Ok(Self {
            contents: database.keyspace("contents", options)?,
            open: database.keyspace("open", options)?,
            roots: database.keyspace("roots", options)?,
            denied: database.keyspace("denied", options)?,
            meta,
            database,
        })
    }

    /// The record as this call is about to leave it, or as it is.
    fn known(&self, changed: &[Record], content: i64) -> Result<Option<Record>, Error> {
        let new = changed.iter().rev().find(|record| record.content == content);
        new.map_or_else(|| self.get(content), |record| Ok(Some(record.clone())))
    }

    fn put_compared(&self, record: Record, denylist: i64, denied: bool) -> Result<(), Error> {
        let mut batch = self.database.batch();
        if let Some(root) = record.key() {
            let root = root.as_bytes();
            match (denied, self.denied.contains_key(root)?) {
                (true, false) => batch.insert(&self.denied, root, []),
                (false, true) => batch.remove(&self.denied, root),
                (true, true) | (false, false) => {}
            }
        }
        let content = record.content;
        let value = encode(&Record { compared: denylist, denied, ..record });
        batch.insert(&self.contents, key(content), value);
        Ok(batch.commit()?)
    }

    fn get(&self, content: i64) -> Result<Option<Record>, Error> {
        let found = self.contents.get(key(content))?;
        found.map(|value| read(content, &value)).transpose()
    }

    fn current(&self, id: AllocationId) -> Result<Option<Record>, Error> {
        Ok(self.get(id.content)?.filter(|record| record.generation == id.generation))
    }

    fn put(&self, batch: &mut fjall::OwnedWriteBatch, record: &Record) {
        batch.insert(&self.contents, key(record.content), encode(record));
        if record.is_open() {
            batch.insert(&self.open, key(record.content), []);
        } else {
            batch.remove(&self.open, key(record.content));
        }
        if let Some(root) = record.key() {
            batch.insert(&self.roots, root.as_bytes(), key(record.content));
        }
    }
}

impl Assignments {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let tables = RwLock::new(Some(Tables::open(dir)?));
        Ok(Self(Arc::new(Shared { dir: dir.to_owned(), tables, change: Mutex::default() })))
    }

    /// The database, opened again where a write had failed.
    fn tables(&self) -> Result<MappedRwLockReadGuard<'_, Tables>, Error> {
        loop {
            let tables = RwLockReadGuard::try_map(self.0.tables.read(), Option::as_ref);
            if let Ok(tables) = tables {
                return Ok(tables);
            }
            drop(tables);
            let mut closed = self.0.tables.write();
            if closed.is_none() {
                *closed = Some(Tables::open(&self.0.dir)?);
            }
        }
    }

    /// Runs a change alone; see [`Shared::tables`] for one that fails.
    fn change<T>(&self, change: impl FnOnce(&Tables) -> Result<T, Error>) -> Result<T, Error> {
        let _change = self.0.change.lock();
        let changed = change(&*self.tables()?);
        if let Err(Error::Database(error)) = &changed {
            tracing::warn!(%error, "the node's assignments are opened again");
            *self.0.tables.write() = None;
        }
        changed
    }

    /// Notes assignments and releases, durably. Returns the records that they
    /// left; those of an older generation than is known leave none.
    pub(crate) fn note(
        &self,
        assignments: Vec<Assignment>,
        releases: &[Release],
    ) -> Result<Vec<Record>, Error> {
        self.change(|tables| {
            let mut batch = tables.database.batch().durability(Some(PersistMode::SyncAll));
            let mut changed: Vec<Record> = Vec::new();
            for assignment in assignments {
                let known = tables.known(&changed, assignment.allocation.content)?;
                changed.extend(assigned(assignment, known));
            }
            for release in releases {
                let known = tables.known(&changed, release.allocation.content)?;
                changed.extend(released(release, known));
            }
            for record in &changed {
                tables.put(&mut batch, record);
            }
            batch.commit()?;
            Ok(changed)
        })
    }

    /// Whether the service allowed private addresses when it was last heard.
    pub(crate) fn allows_private(&self) -> Result<bool, Error> {
        let tables = self.tables()?;
        Ok(tables.meta.contains_key(PRIVATE_KEY)?)
    }

    /// Notes whether the service allows private addresses, so that a fetch
    /// goes on after a start before the service has answered. Not synced.
    pub(crate) fn set_allows_private(&self, allows: bool) -> Result<(), Error> {
        self.change(|tables| {
            let change =
                if allows { tables.meta.insert(PRIVATE_KEY, []) } else { tables.meta.remove(PRIVATE_KEY) };
            Ok(change?)
        })
    }

    /// Notes where a content stands, unless it is gone or has been assigned
    /// anew. Not synced.
    pub(crate) fn set_state(&self, id: AllocationId, state: State) -> Result<(), Error> {
        self.change(|tables| {
            let Some(record) = tables.current(id)? else { return Ok(()) };
            let mut batch = tables.database.batch();
            // The service is told that it is stored, and forgets what was found.
            let forgets = state == State::Held;
            let (compared, denied) = if forgets { (0, false) } else { (record.compared, record.denied) };
            tables.put(&mut batch, &Record { state, compared, denied, ..record });
            Ok(batch.commit()?)
        })
    }

    /// Notes what comparing a content with the denylist found, unless it is
    /// gone or has been assigned anew. Not synced.
    pub(crate) fn set_compared(&self, id: AllocationId, denylist: i64, denied: bool) -> Result<(), Error> {
        self.change(|tables| match tables.current(id)? {
            Some(record) => tables.put_compared(record, denylist, denied),
            None => Ok(()),
        })
    }

    /// Notes that a content has a denied block in it, before the service knows:
    /// after a restart its root is withheld from the first moment.
    pub(crate) fn note_denied(&self, id: AllocationId) -> Result<(), Error> {
        self.change(|tables| {
            let root = tables.current(id)?.and_then(|record| record.key());
            Ok(root.map_or(Ok(()), |root| tables.denied.insert(root.as_bytes(), []))?)
        })
    }

    /// Notes what comparing found where the service knows it already; answers
    /// whether it does, or need not: the content is gone.
    pub(crate) fn confirm_compared(
        &self,
        id: AllocationId,
        denylist: i64,
        denied: bool,
    ) -> Result<bool, Error> {
        self.change(|tables| match tables.current(id)? {
            Some(record) if record.denied != denied => Ok(false),
            Some(record) => tables.put_compared(record, denylist, denied).map(|()| true),
            None => Ok(true),
        })
    }

    /// The roots of contents with a denied block in them.
    pub(crate) fn denied_roots(&self) -> Result<Vec<ContentKey>, Error> {
        let tables = self.tables()?;
        let mut roots = Vec::new();
        for entry in tables.denied.iter() {
            roots.extend(ContentKey::from_bytes(&entry.key()?).ok());
        }
        Ok(roots)
    }

    /// Up to `limit` contents above `after`, ascending.
    pub(crate) fn after(&self, after: Option<i64>, limit: usize) -> Result<Vec<Record>, Error> {
        let tables = self.tables()?;
        let mut records = Vec::new();
        for entry in tables.contents.range(above(after)).take(limit) {
            let (key, value) = entry.into_inner()?;
            let Some(content) = number(&key) else { continue };
            records.push(read(content, &value)?);
        }
        Ok(records)
    }

    /// Nothing is left to report about an allocation.
    pub(crate) fn settle(&self, id: AllocationId) -> Result<(), Error> {
        self.change(|tables| {
            if tables.current(id)?.is_some() {
                tables.open.remove(key(id.content))?;
            }
            Ok(())
        })
    }

    /// Forgets an allocation.
    pub(crate) fn remove(&self, id: AllocationId) -> Result<(), Error> {
        self.change(|tables| {
            let Some(record) = tables.current(id)? else { return Ok(()) };
            let mut batch = tables.database.batch();
            batch.remove(&tables.contents, key(id.content));
            batch.remove(&tables.open, key(id.content));
            if let Some(root) = record.key() {
                batch.remove(&tables.roots, root.as_bytes());
                batch.remove(&tables.denied, root.as_bytes());
            }
            Ok(batch.commit()?)
        })
    }

    /// The content with this root.
    pub(crate) fn by_root(&self, root: &[u8]) -> Result<Option<Record>, Error> {
        let tables = self.tables()?;
        match tables.roots.get(root)?.and_then(|value| number(&value)) {
            Some(content) => tables.get(content),
            None => Ok(None),
        }
    }

    /// Up to `limit` contents above `after` with something left to do or to
    /// report, ascending.
    pub(crate) fn open_after(&self, after: Option<i64>, limit: usize) -> Result<Vec<Record>, Error> {
        let tables = self.tables()?;
        let mut records = Vec::new();
        for entry in tables.open.range(above(after)).take(limit) {
            let Some(content) = number(&entry.key()?) else { continue };
            records.extend(tables.get(content)?);
        }
        Ok(records)
    }

    /// Up to `limit` allocations above `after` whose content is held,
    /// ascending.
    pub(crate) fn held_after(&self, after: i64, limit: usize) -> Result<Vec<AllocationId>, Error> {
        let tables = self.tables()?;
        let mut held = Vec::new();
        for entry in tables.contents.range(above(Some(after))) {
            let (key, value) = entry.into_inner()?;
            let Some(content) = number(&key) else { continue };
            let record = read(content, &value)?;
            if matches!(record.state, State::Held | State::Stopped) {
                held.push(record.allocation());
            }
            if held.len() >= limit {
                break;
            }
        }
        Ok(held)
    }

    pub(crate) fn get(&self, content: i64) -> Result<Option<Record>, Error> {
        self.tables()?.get(content)
    }
}

fn encode(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).expect("texts and numbers always serialise")
}

/// The record that an assignment leaves, none if a newer one is known.
fn assigned(new: Assignment, known: Option<Record>) -> Option<Record> {
    let AllocationId { content, generation } = new.allocation;
    let same = known.as_ref().filter(|known| known.generation == generation);
    let (compared, denied) = same.map_or((0, false), |known| (known.compared, known.denied));
    let state = match known {
        Some(known) if known.generation > generation => return None,
        // A root that lost blocks stays so until it is whole again; what
        // failed under this generation has failed.
        Some(Record { state: State::Lost, .. }) => State::Lost,
        Some(known) if known.generation == generation && known.state != State::Stopped => known.state,
        _ => State::Open,
    };
    let mut origins = new.origins;
    origins.retain(|origin| origin.len() <= MAX_ADDRESS);
    origins.truncate(MAX_ORIGINS);
    let mut peers = new.peers;
    peers.truncate(MAX_PEERS);
    for peer in &mut peers {
        peer.addresses.retain(|address| address.len() <= MAX_ADDRESS);
        peer.addresses.truncate(MAX_PEER_ADDRESSES);
    }
    let Assignment { root, fairness, granted_bytes, repair, .. } = new;
    Some(Record {
        content,
        generation,
        root,
        origins,
        peers,
        fairness,
        granted_bytes,
        repair,
        compared,
        denied,
        state,
    })
}

/// The record that a release leaves. One of an older generation than is known
/// leaves none: the content has been assigned anew.
fn released(release: &Release, known: Option<Record>) -> Option<Record> {
    let AllocationId { content, generation } = release.allocation;
    match known {
        Some(known) if known.generation > generation => None,
        Some(known) => Some(Record { generation, state: State::Releasing, ..known }),
        None => Some(Record {
            content,
            generation,
            root: release.root.clone(),
            origins: Vec::new(),
            peers: Vec::new(),
            fairness: 0,
            granted_bytes: 0,
            repair: false,
            compared: 0,
            denied: false,
            state: State::Releasing,
        }),
    }
}

fn check_format(found: &[u8]) -> Result<(), Error> {
    let found = found.try_into().map_or(u32::MAX, u32::from_be_bytes);
    if found == FORMAT { Ok(()) } else { Err(Error::Newer(found)) }
}

fn read(content: i64, value: &[u8]) -> Result<Record, Error> {
    serde_json::from_slice(value).map_err(|error| Error::Damaged { content, error: error.to_string() })
}

/// Numbers as bytes that sort as the numbers do.
fn key(content: i64) -> [u8; 8] {
    (content.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

fn number(key: &[u8]) -> Option<i64> {
    let bytes: [u8; 8] = key.try_into().ok()?;
    Some((u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed())
}

fn above(after: Option<i64>) -> (std::ops::Bound<[u8; 8]>, std::ops::Bound<[u8; 8]>) {
    use std::ops::Bound::{Excluded, Unbounded};
    (after.map_or(Unbounded, |after| Excluded(key(after))), Unbounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";

    fn id(content: i64, generation: i64) -> AllocationId {
        AllocationId { content, generation }
    }

    fn assignment(content: i64, generation: i64) -> Assignment {
        Assignment {
            allocation: id(content, generation),
            root: ROOT.into(),
            origins: vec!["/ip4/127.0.0.1/tcp/1".into(); 100],
            peers: Vec::new(),
            predecessor: None,
            fairness: 1,
            granted_bytes: 64 << 20,
            repair: false,
        }
    }

    fn release(content: i64, generation: i64) -> Release {
        Release { allocation: id(content, generation), root: ROOT.into() }
    }

    fn states(assignments: &Assignments) -> Vec<(i64, i64, State)> {
        let open = assignments.open_after(None, 100).unwrap();
        open.into_iter().map(|record| (record.content, record.generation, record.state)).collect()
    }

    #[test]
    fn what_was_noted_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        {
            let assignments = Assignments::open(dir.path()).unwrap();
            let noted =
                assignments.note(vec![assignment(7, 1), assignment(-3, 1)], &[release(9, 4)]).unwrap();
            assert_eq!(noted.len(), 3);
            assert_eq!(noted[0].origins.len(), MAX_ORIGINS);
        }
        let assignments = Assignments::open(dir.path()).unwrap();
        let want = [(-3, 1, State::Open), (7, 1, State::Open), (9, 4, State::Releasing)];
        assert_eq!(states(&assignments), want);
        assert_eq!(assignments.open_after(Some(-3), 1).unwrap()[0].content, 7);
    }

    #[test]
    fn a_database_that_could_not_be_written_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let assignments = Assignments::open(dir.path()).unwrap();
        assignments.note(vec![assignment(1, 1)], &[]).unwrap();
        let failed = assignments.change::<()>(|_| Err(fjall::Error::Poisoned.into()));
        assert!(failed.is_err());
        assert!(assignments.0.tables.read().is_none());
        assignments.note(vec![assignment(2, 1)], &[]).unwrap();
        assert_eq!(states(&assignments), [(1, 1, State::Open), (2, 1, State::Open)]);
    }

    #[test]
    fn a_generation_replaces_older_ones_and_never_newer_ones() {
        let dir = tempfile::tempdir().unwrap();
        let assignments = Assignments::open(dir.path()).unwrap();
        assignments.note(vec![assignment(1, 2)], &[]).unwrap();
        assert!(assignments.note(vec![assignment(1, 1)], &[release(1, 1)]).unwrap().is_empty());
        assignments.set_state(id(1, 1), State::Held).unwrap();
        assert_eq!(states(&assignments), [(1, 2, State::Open)]);
        assignments.set_state(id(1, 2), State::Held).unwrap();
        // The same again keeps its state; a new one is to be reported anew.
        assert_eq!(assignments.note(vec![assignment(1, 2)], &[]).unwrap()[0].state, State::Held);
        assert_eq!(assignments.note(vec![assignment(1, 3)], &[]).unwrap()[0].state, State::Open);
        assignments.set_state(id(1, 3), State::Lost).unwrap();
        assert_eq!(assignments.note(vec![assignment(1, 4)], &[]).unwrap()[0].state, State::Lost);
        // Released and assigned anew in one answer: the newer one stays.
        let noted = assignments.note(vec![assignment(1, 5)], &[release(1, 4)]).unwrap();
        assert_eq!((noted.len(), noted[0].generation), (1, 5));
    }

    #[test]
    fn settled_contents_are_held_and_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let assignments = Assignments::open(dir.path()).unwrap();
        assignments.note((1..=5).map(|content| assignment(content, 1)).collect(), &[]).unwrap();
        for content in [2, 3, 5] {
            assignments.set_state(id(content, 1), State::Held).unwrap();
            assignments.settle(id(content, 1)).unwrap();
        }
        assignments.set_state(id(4, 1), State::Stopped).unwrap();
        assert_eq!(states(&assignments), [(1, 1, State::Open)]);
        assert_eq!(assignments.held_after(2, 2).unwrap(), [id(3, 1), id(4, 1)]);
        let root = content::parse(ROOT).unwrap();
        assert!(assignments.by_root(ContentKey::of(&root).as_bytes()).unwrap().is_some());
        assignments.remove(id(1, 2)).unwrap();
        assert!(assignments.get(1).unwrap().is_some());
        assignments.remove(id(1, 1)).unwrap();
        assert_eq!(assignments.get(1).unwrap(), None);
    }
}

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

mod record;
mod tables;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::PersistMode;
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use pinfold_core::content::ContentKey;
use pinfold_node_api::{AllocationId, Assignment, Release};

pub(crate) use self::record::{Record, State};
use self::record::{assigned, released};
use self::tables::{FORMAT, Tables, above, key, number, read};

/// There while the service allows private addresses.
const PRIVATE_KEY: &str = "private";

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
            if let Some(root) = record.key().filter(|_| !matches!(tables.is_shared(&record), Ok(true))) {
                batch.remove(&tables.roots, root.as_bytes());
                batch.remove(&tables.denied, root.as_bytes());
            }
            Ok(batch.commit()?)
        })
    }

    /// Runs what lets a content's root go, unless another content has the same
    /// root: after a restore the service knows what is pinned again by another
    /// number. Nothing is noted meanwhile. Answers nothing where it is kept.
    pub(crate) fn unless_shared<T>(
        &self,
        record: &Record,
        let_go: impl FnOnce() -> T,
    ) -> Result<Option<T>, Error> {
        self.change(|tables| Ok((!tables.is_shared(record)?).then(let_go)))
    }

    /// The content with this root.
    pub(crate) fn by_root(&self, root: &[u8]) -> Result<Option<Record>, Error> {
        self.tables()?.by_root(root)
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

#[cfg(test)]
mod tests;

//! The database below the assignments: its keyspaces, and records as bytes.

use std::ops::Bound::{self, Excluded, Unbounded};
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch};
use pinfold_node_api::AllocationId;

use super::Error;
use super::record::{Record, State};

/// Version of the records; a newer one is refused.
pub(super) const FORMAT: u32 = 1;
const FORMAT_KEY: &str = "format";

/// Memory for cached parts of the database, in bytes: records are read once
/// per attempt.
const CACHE_BYTES: u64 = 1 << 20;
/// Changes kept in memory before they are written out, in bytes.
const MEMTABLE_BYTES: u64 = 1 << 20;
/// The least journal that the database allows, in bytes.
const JOURNAL_BYTES: u64 = 64 << 20;

/// The database and its keyspaces, see the parent module.
pub(super) struct Tables {
    pub(super) database: Database,
    pub(super) contents: Keyspace,
    pub(super) open: Keyspace,
    pub(super) roots: Keyspace,
    pub(super) denied: Keyspace,
    pub(super) meta: Keyspace,
}

impl Tables {
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
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
    pub(super) fn known(&self, changed: &[Record], content: i64) -> Result<Option<Record>, Error> {
        let new = changed.iter().rev().find(|record| record.content == content);
        new.map_or_else(|| self.get(content), |record| Ok(Some(record.clone())))
    }

    /// Writes what comparing a content with the denylist found.
    pub(super) fn put_compared(&self, record: Record, denylist: i64, denied: bool) -> Result<(), Error> {
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

    pub(super) fn get(&self, content: i64) -> Result<Option<Record>, Error> {
        let found = self.contents.get(key(content))?;
        found.map(|value| read(content, &value)).transpose()
    }

    /// The record, where it is still of this generation.
    pub(super) fn current(&self, id: AllocationId) -> Result<Option<Record>, Error> {
        Ok(self.get(id.content)?.filter(|record| record.generation == id.generation))
    }

    /// Adds a record, and what finds it, to a batch.
    pub(super) fn put(&self, batch: &mut OwnedWriteBatch, record: &Record) {
        batch.insert(&self.contents, key(record.content), encode(record));
        if record.is_open() {
            batch.insert(&self.open, key(record.content), []);
        } else {
            batch.remove(&self.open, key(record.content));
        }
        // One that the service does not want takes the root from nobody.
        let is_wanted = matches!(record.state, State::Open | State::Lost | State::Held);
        if let Some(root) = record.key().filter(|_| is_wanted) {
            batch.insert(&self.roots, root.as_bytes(), key(record.content));
        }
    }

    /// The content with this root, the newest where there are several.
    pub(super) fn by_root(&self, root: &[u8]) -> Result<Option<Record>, Error> {
        match self.roots.get(root)?.and_then(|value| number(&value)) {
            Some(content) => self.get(content),
            None => Ok(None),
        }
    }

    /// Whether another content than this has its root too.
    pub(super) fn is_shared(&self, record: &Record) -> Result<bool, Error> {
        let Some(root) = record.key() else { return Ok(false) };
        let other = self.by_root(root.as_bytes())?.filter(|other| other.content != record.content);
        Ok(other.is_some_and(|other| !matches!(other.state, State::Releasing | State::Failed { .. })))
    }
}

fn encode(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).expect("texts and numbers always serialise")
}

fn check_format(found: &[u8]) -> Result<(), Error> {
    let found = found.try_into().map_or(u32::MAX, u32::from_be_bytes);
    if found == FORMAT { Ok(()) } else { Err(Error::Newer(found)) }
}

pub(super) fn read(content: i64, value: &[u8]) -> Result<Record, Error> {
    serde_json::from_slice(value).map_err(|error| Error::Damaged { content, error: error.to_string() })
}

/// Numbers as bytes that sort as the numbers do.
pub(super) fn key(content: i64) -> [u8; 8] {
    (content.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

pub(super) fn number(key: &[u8]) -> Option<i64> {
    let bytes: [u8; 8] = key.try_into().ok()?;
    Some((u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed())
}

/// The range of the keys above a number, of all without one.
pub(super) fn above(after: Option<i64>) -> (Bound<[u8; 8]>, Bound<[u8; 8]>) {
    (after.map_or(Unbounded, |after| Excluded(key(after))), Unbounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node has noted outlives the program that noted it.
    #[test]
    fn records_of_format_1_are_read_and_written() {
        const CONTENT: &str = concat!(
            r#"{"content":7,"generation":3,"root":"bafkqaaa","origins":["/dns/a.test/tcp/4001"],"#,
            r#""peers":[{"addresses":["/ip4/10.0.0.1/tcp/4001"],"gateway":"https://b.test"}],"#,
            r#""fairness":5,"granted_bytes":1048576,"repair":true,"compared":9,"denied":true,"#
        );
        assert_eq!(FORMAT, 1, "each format that nodes have noted is still read");
        for state in [
            r#""state":"open"}"#,
            r#""state":"lost"}"#,
            r#""state":"held"}"#,
            r#""state":"failed","reason":"invalid_block","detail":"too large"}"#,
            r#""state":"releasing"}"#,
            r#""state":"stopped"}"#,
        ] {
            let noted = format!("{CONTENT}{state}");
            let record = read(7, noted.as_bytes()).expect("a record of format 1");
            assert_eq!(String::from_utf8(encode(&record)).unwrap(), noted);
        }
    }
}

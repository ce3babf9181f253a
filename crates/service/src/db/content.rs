//! A content: its row, its state, and what follows from it.

use pinfold_core::{
    quota,
    status::{ContentState, Facts, Reason, Status, Verdict, derive},
};
use pinfold_node_api::ManifestSummary;

use super::{
    error::{Error, Result},
    sql::{Row, Value, values},
    types::Millis,
};

/// The columns of [`Content::read`].
pub(crate) const COLUMNS: &str = "id, key, cid, inline, state, failure, detail, denied, generation, granted, \
    stored, manifest_version, manifest_root, bytes, blocks, progress_bytes, progress_blocks, reason, \
    attempts, next_attempt, expires_at, place_at, short, follow, denied_why, compared";

/// How many [`COLUMNS`] there are.
pub(crate) const WIDTH: usize = 26;

/// Writes [`Content::values`].
pub(crate) const UPDATE: &str = "UPDATE content SET state = $2, failure = $3, detail = $4, denied = $5, \
    generation = $6, granted = $7, stored = $8, manifest_version = $9, manifest_root = $10, bytes = $11, \
    blocks = $12, progress_bytes = $13, progress_blocks = $14, reason = $15, attempts = $16, \
    next_attempt = $17, expires_at = $18, place_at = $19, short = $20, follow = $21, \
    denied_why = $22, compared = $23 WHERE id = $1";

/// Amounts beyond this are cut: 4 PiB, far above any node, far below what
/// sums of them could overflow.
pub(crate) const MAX_BYTES: i64 = 1 << 52;

/// Where a content stands, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No node has begun.
    Waiting = 0,
    /// A node fetches it, or too few hold it.
    Fetching = 1,
    /// The minimum was reached, and a copy is held.
    Held = 2,
    /// It was held; every copy is lost.
    Lost = 3,
    /// It can never be held; its pins are told in turn.
    Failed = 4,
}

/// Why a content is denied; both can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The denylist names its root.
    Root = 1,
    /// A node found a block of it that the denylist names.
    Block = 2,
}

/// A row of `content`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) id: i64,
    pub(crate) key: Vec<u8>,
    pub(crate) cid: String,
    pub(crate) inline: bool,
    pub(crate) state: State,
    pub(crate) failure: Option<Reason>,
    pub(crate) detail: Option<String>,
    pub(crate) denied: Option<Millis>,
    pub(crate) denied_why: i64,
    pub(crate) compared: i64,
    pub(crate) generation: i64,
    pub(crate) granted: i64,
    pub(crate) stored: i64,
    pub(crate) manifest: Option<ManifestSummary>,
    pub(crate) progress_bytes: i64,
    pub(crate) progress_blocks: i64,
    pub(crate) reason: Option<Reason>,
    pub(crate) attempts: i64,
    pub(crate) next_attempt: Option<Millis>,
    pub(crate) expires_at: Option<Millis>,
    pub(crate) place_at: Option<Millis>,
    pub(crate) short: bool,
    pub(crate) follow: Option<i64>,
}

impl Content {
    /// Reads [`COLUMNS`] from position `at`.
    pub(crate) fn read(row: &Row, at: usize) -> Result<Self> {
        Ok(Self {
            id: row.int(at)?,
            key: row.bytes(at + 1)?.to_vec(),
            cid: row.text(at + 2)?.to_owned(),
            inline: row.flag(at + 3)?,
            state: state(row.int(at + 4)?)?,
            failure: reason(row.opt_text(at + 5)?)?,
            detail: row.opt_text(at + 6)?.map(str::to_owned),
            denied: row.opt_int(at + 7)?,
            generation: row.int(at + 8)?,
            granted: row.int(at + 9)?,
            stored: row.int(at + 10)?,
            manifest: manifest(row, at + 11)?,
            progress_bytes: row.int(at + 15)?,
            progress_blocks: row.int(at + 16)?,
            reason: reason(row.opt_text(at + 17)?)?,
            attempts: row.int(at + 18)?,
            next_attempt: row.opt_int(at + 19)?,
            expires_at: row.opt_int(at + 20)?,
            place_at: row.opt_int(at + 21)?,
            short: row.flag(at + 22)?,
            follow: row.opt_int(at + 23)?,
            denied_why: row.int(at + 24)?,
            compared: row.int(at + 25)?,
        })
    }

    /// The parameters of [`UPDATE`].
    pub(crate) fn values(&self) -> Vec<Value> {
        let manifest = self.manifest.as_ref();
        values![
            self.id,
            self.state as i64,
            self.failure.map(Reason::as_str),
            self.detail.as_deref(),
            self.denied,
            self.generation,
            self.granted,
            self.stored,
            manifest.map(|manifest| i64::from(manifest.version)),
            manifest.map(|manifest| &manifest.root),
            manifest.map(|manifest| amount(manifest.bytes)),
            manifest.map(|manifest| amount(manifest.blocks)),
            self.progress_bytes,
            self.progress_blocks,
            self.reason.map(Reason::as_str),
            self.attempts,
            self.next_attempt,
            self.expires_at,
            self.place_at,
            self.short,
            self.follow,
            self.denied_why,
            self.compared,
        ]
        .to_vec()
    }

    /// As it is when nobody wants it: what was learned is forgotten, save that
    /// its root is denied.
    pub(crate) fn reset(&mut self) {
        let root = self.denied_why & Why::Root as i64;
        let denied = self.denied.filter(|_| root != 0);
        let blank = Self { id: self.id, inline: self.inline, denied, denied_why: root, ..Self::blank() };
        let (key, cid) = (std::mem::take(&mut self.key), std::mem::take(&mut self.cid));
        let generation = self.generation;
        *self = Self { key, cid, generation, ..blank };
        if self.inline {
            self.state = State::Held;
        }
    }

    fn blank() -> Self {
        Self {
            id: 0,
            key: Vec::new(),
            cid: String::new(),
            inline: false,
            state: State::Waiting,
            failure: None,
            detail: None,
            denied: None,
            denied_why: 0,
            compared: 0,
            generation: 0,
            granted: 0,
            stored: 0,
            manifest: None,
            progress_bytes: 0,
            progress_blocks: 0,
            reason: None,
            attempts: 0,
            next_attempt: None,
            expires_at: None,
            place_at: None,
            short: false,
            follow: None,
        }
    }

    /// Denies it for a reason, or lifts that; answers whether its pins look
    /// different now.
    pub(crate) fn deny(&mut self, why: Why, denied: bool, now: Millis) -> bool {
        let before = self.denied.is_some();
        let bit = why as i64;
        self.denied_why = if denied { self.denied_why | bit } else { self.denied_why & !bit };
        self.denied = (self.denied_why != 0).then(|| self.denied.unwrap_or(now));
        self.denied.is_some() != before
    }

    /// Whether nodes have still to bring it to the minimum of copies.
    pub(crate) fn is_unfinished(&self) -> bool {
        matches!(self.state, State::Waiting | State::Fetching)
    }

    /// Whether its pins are, or were, pinned.
    pub(crate) fn was_held(&self) -> bool {
        matches!(self.state, State::Held | State::Lost)
    }

    /// The status of its pins that have not failed by themselves.
    pub(crate) fn status(&self) -> Status {
        derive(&self.facts()).0
    }

    fn facts(&self) -> Facts {
        let state = match self.state {
            State::Waiting => ContentState::Waiting,
            State::Fetching => ContentState::Fetching,
            State::Held => ContentState::Held,
            State::Lost => ContentState::Lost,
            State::Failed => ContentState::Failed(self.failure.unwrap_or(Reason::InvalidBlock)),
        };
        let verdict = if self.denied.is_some() { Verdict::Denied } else { Verdict::None };
        Facts { verdict, was_pinned: self.was_held(), ..Facts::of(state) }
    }

    /// What an account that wants it is charged and has reserved, where
    /// `credit` bytes of it are paid by what it replaces.
    pub(crate) fn due(&self, credit: i64) -> (i64, i64) {
        match &self.manifest {
            _ if self.inline => (0, 0),
            Some(manifest) => (excess(amount(manifest.bytes), credit), 0),
            None if self.granted == 0 => (0, 0),
            None => (0, excess(self.granted, credit)),
        }
    }
}

/// What is billed for an amount, beyond the credit.
pub(crate) fn excess(bytes: i64, credit: i64) -> i64 {
    (amount(quota::billed(bytes.unsigned_abs())) - credit).max(0)
}

/// A number from outside as the database keeps it.
pub(crate) fn amount(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(MAX_BYTES).min(MAX_BYTES)
}

fn state(number: i64) -> Result<State> {
    Ok(match number {
        0 => State::Waiting,
        1 => State::Fetching,
        2 => State::Held,
        3 => State::Lost,
        4 => State::Failed,
        _ => return Err(Error::Corrupt(format!("state {number} of a content"))),
    })
}

/// A reason by its word.
pub(crate) fn reason(word: Option<&str>) -> Result<Option<Reason>> {
    let Some(word) = word else { return Ok(None) };
    Reason::parse(word).map(Some).ok_or_else(|| Error::Corrupt(format!("the reason {word:?}")))
}

fn manifest(row: &Row, at: usize) -> Result<Option<ManifestSummary>> {
    let Some(version) = row.opt_int(at)? else { return Ok(None) };
    let version = u32::try_from(version).map_err(|_| Error::Corrupt("a manifest's version".into()))?;
    let (root, bytes, blocks) = (row.bytes32(at + 1)?, row.count(at + 2)?, row.count(at + 3)?);
    Ok(Some(ManifestSummary { version, root, bytes, blocks }))
}

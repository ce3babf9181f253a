//! The sentence that a person reads in `info.status_details`.

use std::fmt;

use super::{Reason, Status};

/// What is known when a sentence is written. Everything is optional: a
/// sentence leaves out what is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Distinct blocks fetched so far.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the whole DAG, once known.
    pub total_bytes: Option<u64>,
    /// Durable copies now.
    pub replicas: u32,
    /// Copies wanted.
    pub replicas_wanted: u32,
    /// Attempts begun.
    pub attempts: u32,
    /// When the next attempt begins, as RFC 3339.
    pub next_attempt: Option<&'a str>,
    /// Pins of the same account that come before this one.
    pub queued_ahead: Option<u64>,
    /// Bytes that the account uses, and its quota.
    pub quota: Option<(u64, u64)>,
    /// What a node or the service said about a failure, such as which CID.
    pub detail: Option<&'a str>,
}

/// A sentence (or two) that says where a pin stands, and what to do where
/// something can be done. Text of `detail` is repeated as it is: whoever shows
/// the sentence escapes it.
#[must_use]
pub fn sentence(status: Status, reason: Option<Reason>, progress: &Progress<'_>) -> String {
    let text = match (status, reason) {
        (Status::Pinned, _) => pinned(progress),
        (Status::Queued, Some(Reason::NoCapacity)) => no_capacity(),
        (Status::Queued, _) => queued(progress),
        (_, Some(reason)) => of_reason(status, reason, progress),
        (Status::Pinning, None) => retrieving(progress),
        (Status::Failed, None) => "The pin failed.".to_owned(),
    };
    match progress.detail {
        Some(detail) if !detail.is_empty() => format!("{text} {detail}"),
        _ => text,
    }
}

fn of_reason(status: Status, reason: Reason, progress: &Progress<'_>) -> String {
    match reason {
        Reason::Searching if progress.blocks > 0 => {
            format!("Looking for a peer that has the rest: {} so far.", Blocks(progress))
        }
        Reason::Searching => "Looking for a peer that has the root block.".to_owned(),
        Reason::OriginUnreachable => again(
            "None of the origins could be reached; the search goes on with other peers. Keep the node that has the data online and connected to one of the delegates.",
            progress,
        ),
        Reason::NoProviders if progress.blocks > 0 => again(
            &format!(
                "No known peer has the next of the blocks that are missing: {} so far. Keep a node that has them all online, or pin again with its addresses as origins.",
                Blocks(progress)
            ),
            progress,
        ),
        Reason::NoProviders => again(
            "No known peer has the root block. Keep a node that has it online, or pin again with its addresses as origins.",
            progress,
        ),
        Reason::Retrieving => retrieving(progress),
        Reason::Replicating => format!(
            "All {} are held; {} of {} copies are made.",
            Blocks(progress),
            progress.replicas,
            progress.replicas_wanted
        ),
        Reason::InvalidBlock if status == Status::Pinning => again(
            "Whoever was asked sends a block that is larger than 2 MiB, which is refused; the search goes on with other peers. If the data is yours, add it anew with smaller blocks.",
            progress,
        ),
        Reason::InvalidBlock => {
            "A block of the DAG is invalid: it cannot be decoded, uses a hash function that is not accepted, or is larger than 2 MiB.".to_owned()
        }
        Reason::UnsupportedCodec => {
            "The root has a codec whose links are unknown; roots may be raw, dag-pb, dag-cbor or dag-json.".to_owned()
        }
        Reason::OverQuota => over_quota(progress),
        Reason::OverLimit => "The DAG exceeds a limit on its number of blocks, its depth or its nesting.".to_owned(),
        Reason::Denied => "The CID, or one in its DAG, is on this service's denylist.".to_owned(),
        Reason::Expired => {
            format!("Nothing arrived before the deadline, after {}. Pin it again once a node that has it is online.", Attempts(progress.attempts))
        }
        Reason::NoCapacity => no_capacity(),
    }
}

fn pinned(progress: &Progress<'_>) -> String {
    if progress.replicas_wanted == 0 {
        return "Pinned.".to_owned();
    }
    format!("Pinned: {} of {} copies are held.", progress.replicas, progress.replicas_wanted)
}

fn queued(progress: &Progress<'_>) -> String {
    match progress.queued_ahead {
        Some(0) | None => "Waiting for a storage node to begin.".to_owned(),
        Some(1) => "Waiting for a turn: one other pin of this account comes first.".to_owned(),
        Some(ahead) => format!("Waiting for a turn: {ahead} other pins of this account come first."),
    }
}

fn no_capacity() -> String {
    "No storage node has room for it at present; it waits until one has.".to_owned()
}

fn retrieving(progress: &Progress<'_>) -> String {
    match progress.total_bytes {
        Some(total) if total >= progress.bytes => {
            format!("Retrieving: {} of {} so far.", Blocks(progress), Bytes(total))
        }
        _ => format!("Retrieving: {} so far.", Blocks(progress)),
    }
}

fn over_quota(progress: &Progress<'_>) -> String {
    let what = match progress.quota {
        Some((used, quota)) => format!("The account uses {} of its {}.", Bytes(used), Bytes(quota)),
        None => "The account's quota is used up.".to_owned(),
    };
    format!("{what} Remove pins or ask the operator for a larger quota, then pin it again.")
}

fn again(text: &str, progress: &Progress<'_>) -> String {
    match progress.next_attempt {
        Some(time) => format!("{text} Next attempt: {time}, after {}.", Attempts(progress.attempts)),
        None => text.to_owned(),
    }
}

struct Blocks<'a>(&'a Progress<'a>);

impl fmt::Display for Blocks<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.0.blocks == 1 { "block" } else { "blocks" };
        write!(to, "{} {word}, {}", self.0.blocks, Bytes(self.0.bytes))
    }
}

struct Attempts(u32);

impl fmt::Display for Attempts {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.0 == 1 { "attempt" } else { "attempts" };
        write!(to, "{} {word}", self.0)
    }
}

/// Bytes in decimal units, as quotas are given, with one decimal, in integers.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
        if self.0 < 1_000 {
            return write!(to, "{} bytes", self.0);
        }
        let mut unit = 1_000_u64;
        let mut index = 0;
        while index + 1 < UNITS.len() && self.0 / unit >= 1_000 {
            unit *= 1_000;
            index += 1;
        }
        let tenths = self.0 / (unit / 10);
        write!(to, "{}.{} {}", tenths / 10, tenths % 10, UNITS[index])
    }
}

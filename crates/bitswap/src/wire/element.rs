//! What is small in a message: entries, presences, and the prefixes of blocks.

use cid::Cid;

use super::decode::DecodeError;
use super::field::{self, Fields, Read, Value};
use super::{Entry, IDENTITY, Kind, MAX_CID, Prefix};

/// A CID that peers may want: not identity, not too long, of a known form.
fn wantable(bytes: &[u8]) -> Option<Cid> {
    if bytes.len() > MAX_CID {
        return None;
    }
    let cid = Cid::read_bytes(bytes).ok()?;
    (cid.hash().code() != IDENTITY).then_some(cid)
}

/// `None` within `Ok` for an entry that is skipped.
pub(super) fn entry(bytes: &[u8]) -> Result<Option<Entry>, DecodeError> {
    let mut cid = None;
    let (mut priority, mut cancel, mut kind, mut send_dont_have) = (1, false, Kind::Block, false);
    for field in Fields(bytes) {
        match field.ok_or(DecodeError::Malformed)? {
            (1, Value::Bytes(bytes)) => cid = wantable(bytes),
            // A negative number takes ten bytes; the low half is its value.
            (2, Value::Varint(value)) => priority = value as i32,
            (3, Value::Varint(value)) => cancel = value != 0,
            (4, Value::Varint(value)) => kind = if value == 1 { Kind::Have } else { Kind::Block },
            (5, Value::Varint(value)) => send_dont_have = value != 0,
            (_, Value::Varint(_) | Value::Bytes(_)) => {}
        }
    }
    Ok(cid.map(|cid| Entry { cid, priority, cancel, kind, send_dont_have }))
}

pub(super) fn presence(bytes: &[u8]) -> Result<Option<(Cid, bool)>, DecodeError> {
    let (mut cid, mut have) = (None, true);
    for field in Fields(bytes) {
        match field.ok_or(DecodeError::Malformed)? {
            (1, Value::Bytes(bytes)) => cid = wantable(bytes),
            (2, Value::Varint(value)) => have = value == 0,
            (_, Value::Varint(_) | Value::Bytes(_)) => {}
        }
    }
    Ok(cid.map(|cid| (cid, have)))
}

/// Version, codec, hash function and digest length.
pub(super) fn prefix(mut bytes: &[u8]) -> Option<Prefix> {
    let mut values = [0u64; 4];
    for value in &mut values {
        let Read::Done(read, used) = field::varint(bytes) else { return None };
        *value = read;
        bytes = &bytes[used..];
    }
    let [_, _, hash, length] = values;
    Some(Prefix { hash, length: usize::try_from(length).ok()? })
}

//! Writes messages.

use bytes::{BufMut, Bytes, BytesMut};
use cid::Cid;

use super::{Entry, Kind, Version};

/// Data of at least this many bytes is written from where it is; less is
/// copied beside its neighbours, so that tiny blocks share frames.
const COPY_BELOW: usize = 4 << 10;

/// The most bytes that a block takes in a message beside its data: tags and
/// lengths of payload, prefix and data, and the prefix itself.
pub(crate) const BLOCK_OVERHEAD: usize = 64;

/// The most bytes that a presence takes.
pub(crate) const PRESENCE_SIZE: usize = 96;

fn varint_size(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn bytes_field_size(length: usize) -> usize {
    1 + varint_size(length as u64) + length
}

fn put_bytes_header(out: &mut BytesMut, field: u8, length: usize) {
    out.put_u8(field << 3 | 2);
    put_varint(out, length as u64);
}

/// A wantlist message with its length prefix. Peers below 1.2 are told
/// neither kinds nor DONT_HAVE flags.
pub(crate) fn wantlist(entries: &[Entry], version: Version) -> Bytes {
    let mut list = BytesMut::with_capacity(entries.len() * 56);
    let mut scratch = BytesMut::with_capacity(256);
    for entry in entries {
        scratch.clear();
        put_entry(&mut scratch, entry, version);
        put_bytes_header(&mut list, 1, scratch.len());
        list.put_slice(&scratch);
    }
    let mut out = BytesMut::with_capacity(list.len() + 16);
    put_varint(&mut out, bytes_field_size(list.len()) as u64);
    put_bytes_header(&mut out, 1, list.len());
    out.put_slice(&list);
    out.freeze()
}

fn put_entry(out: &mut BytesMut, entry: &Entry, version: Version) {
    put_bytes_header(out, 1, entry.cid.encoded_len());
    put_cid(out, &entry.cid);
    if entry.priority != 0 {
        out.put_u8(2 << 3);
        put_varint(out, i64::from(entry.priority) as u64);
    }
    if entry.cancel {
        out.put_slice(&[3 << 3, 1]);
    }
    if version.has_presences() {
        if entry.kind == Kind::Have {
            out.put_slice(&[4 << 3, 1]);
        }
        if entry.send_dont_have {
            out.put_slice(&[5 << 3, 1]);
        }
    }
}

fn put_cid(out: &mut BytesMut, cid: &Cid) {
    cid.write_bytes(out.writer()).expect("writing to memory cannot fail");
}

/// Version, codec, hash function and digest length of a CID.
fn cid_prefix(cid: &Cid) -> BytesMut {
    let mut out = BytesMut::with_capacity(16);
    put_varint(&mut out, cid.version().into());
    put_varint(&mut out, cid.codec());
    put_varint(&mut out, cid.hash().code());
    put_varint(&mut out, u64::from(cid.hash().size()));
    out
}

/// The message of `blocks` and `presences`, with its length prefix, as pieces
/// to be written one after the other. Presences go to peers of 1.2 alone, and
/// to a peer of 1.0 only blocks that it can name: the caller sees to that.
pub(crate) fn response(blocks: &[(Cid, Bytes)], presences: &[(Cid, bool)], version: Version) -> Vec<Bytes> {
    let prefixes: Vec<_> = blocks.iter().map(|(cid, _)| cid_prefix(cid)).collect();
    let inner: Vec<_> = (blocks.iter().zip(&prefixes))
        .map(|((_, data), prefix)| bytes_field_size(prefix.len()) + bytes_field_size(data.len()))
        .collect();
    let blocks_size: usize = match version {
        Version::V1_0 => blocks.iter().map(|(_, data)| bytes_field_size(data.len())).sum(),
        Version::V1_1 | Version::V1_2 => inner.iter().map(|size| bytes_field_size(*size)).sum(),
    };
    let presences_size: usize =
        presences.iter().map(|presence| bytes_field_size(presence_size(presence))).sum();

    let mut out = Pieces::default();
    put_varint(&mut out.small, (blocks_size + presences_size) as u64);
    for presence in presences {
        put_presence(&mut out.small, presence);
    }
    for (((_, data), prefix), size) in blocks.iter().zip(&prefixes).zip(inner) {
        if version == Version::V1_0 {
            put_bytes_header(&mut out.small, 2, data.len());
        } else {
            put_bytes_header(&mut out.small, 3, size);
            put_bytes_header(&mut out.small, 1, prefix.len());
            out.small.put_slice(prefix);
            put_bytes_header(&mut out.small, 2, data.len());
        }
        out.put(data);
    }
    out.finish()
}

fn presence_size((cid, have): &(Cid, bool)) -> usize {
    bytes_field_size(cid.encoded_len()) + if *have { 0 } else { 2 }
}

fn put_presence(out: &mut BytesMut, presence: &(Cid, bool)) {
    put_bytes_header(out, 4, presence_size(presence));
    let (cid, have) = presence;
    put_bytes_header(out, 1, cid.encoded_len());
    put_cid(out, cid);
    if !have {
        out.put_slice(&[2 << 3, 1]);
    }
}

#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    small: BytesMut,
}

impl Pieces {
    fn put(&mut self, data: &Bytes) {
        if data.len() < COPY_BELOW {
            self.small.put_slice(data);
        } else {
            self.done.push(self.small.split().freeze());
            self.done.push(data.clone());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.small.is_empty() {
            self.done.push(self.small.freeze());
        }
        self.done
    }
}

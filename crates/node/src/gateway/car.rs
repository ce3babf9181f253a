//! CAR version 1: a header, then sections of CID and block.
//!
//! Source: the CARv1 specification. A section is its length as an unsigned
//! varint, the CID's bytes, the block.

use bytes::{BufMut, Bytes, BytesMut};
use pinfold_core::content::Cid;

/// Blocks up to this many bytes are copied behind one another: that is cheaper
/// than a piece of the answer for each. Larger ones are sent from where they
/// were read to.
const COPIED: usize = 16 << 10;
/// Copied sections are handed on in pieces of about this many bytes.
const PIECE: usize = 64 << 10;
/// Bytes that a CID may have besides its digest of up to 128: version, codec,
/// function and length, each a varint of up to ten.
const MAX_CID: usize = 40 + 128;

/// Pieces of a CAR or a file, gathered for one hand-over.
#[derive(Default)]
pub(super) struct Pieces {
    whole: Vec<Bytes>,
    copied: BytesMut,
    bytes: usize,
}

impl Pieces {
    /// The header with one root.
    pub(super) fn header(&mut self, root: &Cid) {
        self.copied.extend_from_slice(&header(root));
        self.bytes += self.copied.len();
    }

    /// A section.
    pub(super) fn section(&mut self, cid: &Cid, block: Bytes) {
        let cid_bytes = cid.encoded_len();
        self.copied.reserve(MAX_CID);
        put_varint(&mut self.copied, cid_bytes + block.len());
        // Writing to memory does not fail.
        let _ = cid.write_bytes((&mut self.copied).writer());
        self.bytes += cid_bytes;
        self.data(block);
    }

    /// Bytes as they are.
    pub(super) fn data(&mut self, data: Bytes) {
        self.bytes += data.len();
        if data.len() > COPIED {
            self.flush();
            self.whole.push(data);
            return;
        }
        self.copied.extend_from_slice(&data);
        if self.copied.len() >= PIECE {
            self.flush();
        }
    }

    /// How many bytes were gathered, nearly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The pieces in order, none of them empty.
    pub(super) fn finish(mut self) -> Vec<Bytes> {
        self.flush();
        self.whole
    }

    fn flush(&mut self) {
        if !self.copied.is_empty() {
            self.whole.push(self.copied.split().freeze());
        }
    }
}

/// DAG-CBOR of `{"roots": [root], "version": 1}`, keys in canonical order,
/// behind its length.
fn header(root: &Cid) -> BytesMut {
    let cid = root.to_bytes();
    let mut body = vec![0xa2, 0x65];
    body.extend(b"roots");
    body.extend([0x81, 0xd8, 0x2a]);
    cbor_bytes(&mut body, cid.len() + 1);
    body.push(0);
    body.extend(cid);
    body.push(0x67);
    body.extend(b"version");
    body.push(1);
    let mut out = BytesMut::new();
    put_varint(&mut out, body.len());
    out.extend_from_slice(&body);
    out
}

/// The head of a CBOR byte string.
fn cbor_bytes(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short @ 0..=23) => out.push(0x40 | short),
        Ok(byte) => out.extend([0x58, byte]),
        // A CID has at most some 170 bytes.
        Err(_) => {
            out.push(0x59);
            out.extend((length as u16).to_be_bytes());
        }
    }
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(text: &str) -> Cid {
        pinfold_core::content::parse(text).expect("a CID")
    }

    #[test]
    fn a_header_is_canonical_dag_cbor() {
        let expected = [
            &[0x17, 0xa2, 0x65][..],
            b"roots",
            &[0x81, 0xd8, 0x2a, 0x45, 0, 1, 0x55, 0, 0, 0x67],
            b"version",
            &[1],
        ]
        .concat();
        let header = header(&cid("bafkqaaa"));
        assert_eq!(header[1..], expected[1..]);
        assert_eq!(usize::from(header[0]), header.len() - 1);
    }

    #[test]
    fn sections_count_the_cid_and_the_block() {
        let cid = cid("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
        for length in [0, 1, 91, 92, 1_000, COPIED, COPIED + 1, 300_000] {
            let mut pieces = Pieces::default();
            let block = Bytes::from(vec![7; length]);
            pieces.section(&cid, block.clone());
            pieces.section(&cid, block.clone());
            assert!(pieces.bytes() >= 2 * length);
            let bytes = pieces.finish().concat();
            let mut varint = BytesMut::new();
            put_varint(&mut varint, 36 + length);
            let section = [&varint[..], &cid.to_bytes(), &block].concat();
            assert!(bytes == [section.clone(), section].concat(), "{length}");
        }
    }
}

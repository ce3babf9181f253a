//! DAGs for tests, built block by block.

use std::collections::BTreeMap;

use pinfold_core::{
    content::{self, Cid, Multihash},
    hash::{self, SHA2_256},
    unixfs::murmur3_x64_64,
};

pub(super) const RAW: u64 = 0x55;
pub(super) const PB: u64 = 0x70;
pub(super) const CBOR: u64 = 0x71;
pub(super) const JSON: u64 = 0x0129;

/// Blocks by CID.
#[derive(Clone, Default)]
pub(super) struct Dag {
    pub(super) blocks: BTreeMap<Cid, Vec<u8>>,
}

impl Dag {
    pub(super) fn add(&mut self, codec: u64, bytes: impl Into<Vec<u8>>) -> Cid {
        let bytes = bytes.into();
        let cid = Cid::new_v1(codec, hash::multihash(SHA2_256, &bytes).expect("SHA-256"));
        self.blocks.insert(cid, bytes);
        cid
    }

    pub(super) fn leaf(&mut self, bytes: impl Into<Vec<u8>>) -> Cid {
        self.add(RAW, bytes)
    }

    /// Forgets a block, as if it had never been fetched.
    pub(super) fn lose(&mut self, cid: &Cid) {
        self.blocks.remove(cid).expect("it was there");
    }

    /// A file of these parts and sizes.
    pub(super) fn parts(&mut self, parts: &[(Cid, u64)]) -> Cid {
        let mut data = number(1, 2);
        data.extend(number(3, parts.iter().map(|(_, size)| size).sum()));
        parts.iter().for_each(|(_, size)| data.extend(number(4, *size)));
        let links: Vec<_> = parts.iter().map(|(cid, _)| (String::new(), *cid)).collect();
        self.add(PB, node(&data, &links))
    }

    /// A file of raw leaves of `size` bytes; its root and they.
    pub(super) fn file(&mut self, bytes: &[u8], size: usize) -> (Cid, Vec<Cid>) {
        let leaves: Vec<_> = bytes.chunks(size).map(|chunk| (self.leaf(chunk), chunk.len() as u64)).collect();
        (self.parts(&leaves), leaves.into_iter().map(|(cid, _)| cid).collect())
    }

    /// A file whose bytes are in its one dag-pb node.
    pub(super) fn inline(&mut self, bytes: &[u8]) -> Cid {
        let data = [number(1, 2), field(2, bytes), number(3, bytes.len() as u64)].concat();
        self.add(PB, node(&data, &[]))
    }

    pub(super) fn dir(&mut self, entries: &[(&str, Cid)]) -> Cid {
        let entries: Vec<_> = entries.iter().map(|(name, cid)| ((*name).to_owned(), *cid)).collect();
        self.add(PB, node(&number(1, 1), &entries))
    }

    pub(super) fn symlink(&mut self, target: &str) -> Cid {
        self.add(PB, node(&[number(1, 4), field(2, target.as_bytes())].concat(), &[]))
    }

    /// A sharded directory; its root and its other shards in depth-first
    /// order.
    pub(super) fn shards(&mut self, fanout: u64, entries: &[(String, Cid)]) -> (Cid, Vec<Cid>) {
        self.shard(fanout, entries, 0)
    }

    fn shard(&mut self, fanout: u64, entries: &[(String, Cid)], level: u32) -> (Cid, Vec<Cid>) {
        let bits = fanout.trailing_zeros();
        let width = format!("{:X}", fanout - 1).len();
        let mut buckets: BTreeMap<u64, Vec<(String, Cid)>> = BTreeMap::new();
        for entry in entries {
            let hash = murmur3_x64_64(entry.0.as_bytes());
            buckets.entry((hash << (level * bits)) >> (64 - bits)).or_default().push(entry.clone());
        }
        let (mut links, mut below) = (Vec::new(), Vec::new());
        for (bucket, entries) in buckets {
            if let [(name, cid)] = &entries[..] {
                links.push((format!("{bucket:0width$X}{name}"), *cid));
            } else {
                let (cid, deeper) = self.shard(fanout, &entries, level + 1);
                links.push((format!("{bucket:0width$X}"), cid));
                below.push(cid);
                below.extend(deeper);
            }
        }
        (self.add(PB, shard_node(fanout, &links)), below)
    }

    /// A list of links in DAG-CBOR under the key `links`, and a number.
    pub(super) fn cbor(&mut self, salt: u8, links: &[Cid]) -> Cid {
        let mut bytes = vec![0xa2, 0x65];
        bytes.extend(b"links");
        bytes.extend([0x9a]);
        bytes.extend((links.len() as u32).to_be_bytes());
        links.iter().for_each(|cid| bytes.extend(cbor_link(cid)));
        bytes.extend([0x64]);
        bytes.extend(b"salt");
        bytes.extend([0x18, salt]);
        self.add(CBOR, bytes)
    }
}

/// A link in DAG-CBOR.
pub(super) fn cbor_link(cid: &Cid) -> Vec<u8> {
    let cid = cid.to_bytes();
    [&[0xd8, 0x2a, 0x58, cid.len() as u8 + 1, 0][..], &cid].concat()
}

pub(super) fn shard_node(fanout: u64, links: &[(String, Cid)]) -> Vec<u8> {
    let data = [number(1, 5), field(2, &[0]), number(5, 0x22), number(6, fanout)].concat();
    node(&data, links)
}

/// A dag-pb node: links first, as everyone writes it.
pub(super) fn node(data: &[u8], links: &[(String, Cid)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, cid) in links {
        let link = [field(1, &cid.to_bytes()), field(2, name.as_bytes()), number(3, 1)].concat();
        bytes.extend(field(2, &link));
    }
    bytes.extend(field(1, data));
    bytes
}

pub(super) fn number(field: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    put_varint(&mut bytes, value);
    bytes
}

pub(super) fn field(field: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    put_varint(&mut bytes, value.len() as u64);
    bytes.extend(value);
    bytes
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// An identity CID.
pub(super) fn identity(codec: u64, data: &[u8]) -> Cid {
    Cid::new_v1(codec, Multihash::wrap(content::IDENTITY, data).expect("it fits"))
}

/// Bytes that differ from block to block.
pub(super) fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

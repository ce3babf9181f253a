//! DAGs, and how a node comes to hold them, for tests.

use data_encoding::HEXLOWER;
use pinfold_blockstore::Block;
use pinfold_core::content::{self, BlockCid, Cid, ContentKey};
use pinfold_core::hash;
use pinfold_node::Node;
use pinfold_node_api::{AllocationId, Assignment};

pub fn id(content: i64) -> AllocationId {
    AllocationId { content, generation: 1 }
}

pub fn assignment(content: i64, root: &Cid, origins: Vec<String>) -> Assignment {
    Assignment {
        allocation: id(content),
        root: root.to_string(),
        origins,
        peers: Vec::new(),
        predecessor: None,
        fairness: 1,
        granted_bytes: 1 << 20,
        repair: false,
    }
}

/// A file of `count` leaves under two levels of dag-cbor lists.
pub fn blocks(count: u32, length: usize) -> (Cid, Vec<(BlockCid, Vec<u8>)>) {
    let mut blocks = Vec::new();
    let mut level: Vec<Cid> = (0..count)
        .map(|n| {
            let mut bytes = vec![0; length];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            add(&mut blocks, 0x55, bytes)
        })
        .collect();
    while level.len() > 1 {
        level = level.chunks(100).map(|links| add(&mut blocks, 0x71, list(links))).collect();
    }
    (level[0], blocks)
}

pub fn add(blocks: &mut Vec<(BlockCid, Vec<u8>)>, codec: u64, bytes: Vec<u8>) -> Cid {
    let cid = Cid::new_v1(codec, hash::multihash(hash::SHA2_256, &bytes).unwrap());
    blocks.push((content::block_cid(&cid).unwrap(), bytes));
    cid
}

/// A dag-cbor list of links.
pub fn list(links: &[Cid]) -> Vec<u8> {
    let mut bytes = vec![0x98, u8::try_from(links.len()).unwrap()];
    for link in links {
        let cid = link.to_bytes();
        bytes.extend([0xd8, 42, 0x58, u8::try_from(cid.len() + 1).unwrap(), 0]);
        bytes.extend(cid);
    }
    bytes
}

/// Makes a node hold blocks under a root, without a network.
pub fn hold(node: &Node, root: &Cid, blocks: &[(BlockCid, Vec<u8>)]) {
    let store = node.held().store();
    let mut walk = store.begin(ContentKey::of(root).as_bytes()).unwrap();
    for (cid, bytes) in blocks {
        walk.reference(&[*cid.hash()]).unwrap();
        store.put(&[Block::computed(*cid.hash(), bytes.clone().into()).unwrap()]).unwrap();
    }
    walk.complete(b"").unwrap();
}

/// The legacy double hash of a block, as a denylist has it.
pub fn double_hash(cid: &Cid) -> String {
    let hash = hash::multihash(hash::SHA2_256, format!("{cid}/").as_bytes()).unwrap();
    HEXLOWER.encode(hash.digest())
}

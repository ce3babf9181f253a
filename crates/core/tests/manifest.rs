//! The manifest against a naive model, and proofs clause by clause.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::HashMap;

use pinfold_core::content::{Cid, Multihash, parse};
use pinfold_core::manifest::{
    BlockLeaf, Builder, CHUNK, Draw, Hash, Manifest, NO_PARENT, Proof, ProofError, VERSION, WalkError,
    chunk_root, locate, of_dag, open, verify,
};
use pinfold_core::{hash, links};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// The definitions once more, as directly as they can be written: whole trees
/// by recursion over slices.
mod model {
    use super::*;

    fn sha(parts: &[&[u8]]) -> Hash {
        Sha256::digest(parts.concat()).into()
    }

    fn head(prefix: u8) -> Vec<u8> {
        [b"pinfold/manifest/1\0".as_slice(), &[prefix]].concat()
    }

    fn number(number: u64) -> [u8; 8] {
        number.to_be_bytes()
    }

    pub(super) fn split(count: usize) -> usize {
        let mut split = 1;
        while split * 2 < count {
            split *= 2;
        }
        split
    }

    pub(super) fn chunks(chunks: &[&[u8]]) -> Hash {
        match chunks {
            [] => sha(&[&head(1)]),
            [chunk] => sha(&[&head(0), &number(chunk.len() as u64), chunk]),
            _ => {
                let (left, right) = chunks.split_at(split(chunks.len()));
                sha(&[&head(1), &self::chunks(left), &self::chunks(right)])
            }
        }
    }

    pub(super) fn chunk_root(block: &[u8]) -> Hash {
        chunks(&block.chunks(1_024).collect::<Vec<_>>())
    }

    pub(super) fn leaf(leaf: &BlockLeaf) -> Hash {
        let multihash = leaf.multihash.to_bytes();
        sha(&[
            &head(2),
            &number(multihash.len() as u64),
            &multihash,
            &number(leaf.codec),
            &number(leaf.length),
            &leaf.chunk_root,
            &number(leaf.parent),
        ])
    }

    pub(super) fn tree(leaves: &[BlockLeaf]) -> (Hash, u64) {
        match leaves {
            [] => (sha(&[&head(3)]), 0),
            [one] => (leaf(one), one.length),
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len()));
                let ((left, a), (right, b)) = (tree(left), tree(right));
                (sha(&[&head(3), &left, &number(a), &right, &number(b)]), a + b)
            }
        }
    }
}

fn block(fill: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (fill + 7 * at + at / 256) as u8).collect()
}

/// Leaves of these lengths. No two chunks of a block are alike.
fn content(lengths: &[usize]) -> (Vec<Vec<u8>>, Vec<BlockLeaf>, Manifest) {
    let blocks: Vec<_> = lengths.iter().zip(0..).map(|(&length, fill)| block(fill, length)).collect();
    let mut builder = Builder::new();
    let mut leaves = Vec::new();
    for (index, block) in (0_u64..).zip(&blocks) {
        let leaf = BlockLeaf {
            multihash: hash::multihash(hash::SHA2_256, block).unwrap(),
            codec: 0x55,
            length: block.len() as u64,
            chunk_root: chunk_root(block),
            parent: index.checked_sub(1).unwrap_or(NO_PARENT),
        };
        assert_eq!(builder.push(leaf.multihash, leaf.codec, block, leaf.parent), Ok(index));
        leaves.push(leaf);
    }
    (blocks, leaves, builder.finish())
}

fn open_at(content: &(Vec<Vec<u8>>, Vec<BlockLeaf>, Manifest), block: u64, chunk: u64) -> Proof {
    let (blocks, leaves, manifest) = content;
    open(manifest, leaves.iter().copied(), block, chunk, &blocks[block as usize]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunk_roots_are_those_of_the_model(length in 0_usize..20_000, fill in any::<u8>()) {
        let block: Vec<u8> = (0..length).map(|at| (at as u8).wrapping_mul(fill)).collect();
        prop_assert_eq!(chunk_root(&block), model::chunk_root(&block));
    }

    #[test]
    fn manifests_are_those_of_the_model(lengths in prop::collection::vec(0_usize..3_000, 0..40)) {
        let (_, leaves, manifest) = content(&lengths);
        let (root, bytes) = model::tree(&leaves);
        let blocks = lengths.len() as u64;
        prop_assert_eq!(manifest, Manifest { version: VERSION, root, bytes, blocks });
    }

    #[test]
    fn every_byte_can_be_opened(
        lengths in prop::collection::vec(0_usize..5_000, 1..24),
        draw in any::<prop::sample::Index>(),
    ) {
        let content = content(&lengths);
        let total: usize = lengths.iter().sum();
        prop_assume!(total > 0);
        let offset = draw.index(total) as u64;
        let (block, within) = locate(content.1.iter().map(|leaf| leaf.length), offset).unwrap();
        let chunk = within / CHUNK as u64;
        let proof = open_at(&content, block, chunk);
        let bytes: Vec<u8> = content.0.concat();
        prop_assert_eq!(proof.chunk[within as usize % CHUNK], bytes[offset as usize]);
        prop_assert_eq!(verify(&content.2, Draw::Offset(offset), &proof), Ok(()));
        prop_assert_eq!(verify(&content.2, Draw::Index { block, chunk }, &proof), Ok(()));
    }

    #[test]
    fn a_proof_for_one_place_opens_no_other(
        lengths in prop::collection::vec(1_usize..3_000, 2..16),
        a in any::<prop::sample::Index>(),
        b in any::<prop::sample::Index>(),
    ) {
        let content = content(&lengths);
        let total: usize = lengths.iter().sum();
        let place = |draw: prop::sample::Index| {
            let offset = draw.index(total) as u64;
            let (block, within) = locate(content.1.iter().map(|leaf| leaf.length), offset).unwrap();
            (offset, block, within / CHUNK as u64)
        };
        let (a, b) = (place(a), place(b));
        prop_assume!((a.1, a.2) != (b.1, b.2));
        let proof = open_at(&content, a.1, a.2);
        prop_assert!(verify(&content.2, Draw::Offset(b.0), &proof).is_err());
        let index = Draw::Index { block: b.1, chunk: b.2 };
        prop_assert!(verify(&content.2, index, &proof).is_err());
    }

    #[test]
    fn no_bit_of_a_proof_may_be_turned(
        lengths in prop::collection::vec(1_usize..3_000, 1..16),
        at in any::<prop::sample::Index>(),
        bit in any::<prop::sample::Index>(),
    ) {
        let content = content(&lengths);
        let block = at.index(lengths.len()) as u64;
        let mut proof = open_at(&content, block, 0);
        let draw = Draw::Index { block, chunk: 0 };
        turn(&mut proof, bit);
        prop_assert!(verify(&content.2, draw, &proof).is_err());
    }
}

/// Turns one bit somewhere in a proof.
fn turn(proof: &mut Proof, bit: prop::sample::Index) {
    let mut sites: Vec<&mut [u8]> = vec![&mut proof.chunk, &mut proof.leaf.chunk_root];
    sites.extend(proof.chunk_path.iter_mut().map(|hash| &mut hash[..]));
    let mut sums = Vec::new();
    for step in &mut proof.path {
        sites.push(&mut step.sibling);
        sums.extend([&mut step.left, &mut step.right]);
    }
    sums.extend([&mut proof.leaf.length, &mut proof.leaf.codec, &mut proof.leaf.parent]);
    let bits = sites.iter().map(|site| site.len() * 8).sum::<usize>() + sums.len() * 64;
    let mut bit = bit.index(bits);
    for site in sites {
        if bit < site.len() * 8 {
            site[bit / 8] ^= 1 << (bit % 8);
            return;
        }
        bit -= site.len() * 8;
    }
    *sums[bit / 64] ^= 1 << (bit % 64);
}

#[test]
fn builders_refuse_parents_that_do_not_precede_and_totals_beyond_64_bits() {
    let leaf = content(&[1]).1[0];
    let mut builder = Builder::new();
    assert!(builder.push_leaf(&BlockLeaf { parent: 0, ..leaf }).is_err());
    assert_eq!(builder.push_leaf(&leaf), Ok(0));
    assert!(builder.push_leaf(&BlockLeaf { parent: 1, ..leaf }).is_err());
    assert!(builder.push_leaf(&BlockLeaf { length: u64::MAX, ..leaf }).is_err());
    assert_eq!((builder.blocks(), builder.bytes()), (1, 1));
}

#[test]
fn opening_needs_the_blocks_of_the_manifest() {
    let (blocks, leaves, manifest) = content(&[3_000, 10, 0]);
    let open = |leaves: &[BlockLeaf], index, chunk, block: &[u8]| {
        open(&manifest, leaves.iter().copied(), index, chunk, block)
    };
    assert!(open(&leaves, 0, 2, &blocks[0]).is_ok());
    for (index, chunk) in [(0, 3), (0, u64::MAX), (3, 0), (u64::MAX, 0)] {
        assert_eq!(open(&leaves, index, chunk, &blocks[0]), Err(ProofError::Draw));
    }
    assert_eq!(open(&leaves, 2, 0, &blocks[2]), Err(ProofError::Draw));
    assert_eq!(open(&leaves[..2], 0, 0, &blocks[0]), Err(ProofError::Source));
    assert_eq!(open(&leaves, 0, 0, &blocks[1]), Err(ProofError::Source));
    let swapped = [leaves[1], leaves[0], leaves[2]];
    assert_eq!(open(&swapped, 0, 0, &blocks[1]), Err(ProofError::Source));
}

#[test]
fn what_holds_no_block_bills_nothing() {
    let manifest = |lengths: &[usize]| content(lengths).2.billed();
    assert_eq!(manifest(&[]), 0);
    assert_eq!(manifest(&[0]), 4_096);
    assert_eq!(manifest(&[4_000, 97]), 4_097);
}

/// A DAG in memory, made leaf by leaf.
#[derive(Default)]
struct Dag(HashMap<Vec<u8>, Vec<u8>>);

impl Dag {
    fn put(&mut self, codec: u64, block: Vec<u8>) -> Cid {
        let multihash = hash::multihash(hash::SHA2_256, &block).unwrap();
        self.0.insert(multihash.to_bytes(), block);
        Cid::new_v1(codec, multihash)
    }

    fn node(&mut self, salt: u8, children: &[Cid]) -> Cid {
        self.put(0x71, node(salt, children))
    }

    fn walk(&self, root: &Cid) -> Result<(Manifest, Vec<BlockLeaf>), WalkError> {
        of_dag(root, &mut |cid| self.0.get(&cid.hash().to_bytes()).cloned())
    }

    /// (multihash of a CID, codec, parent) of every leaf.
    fn listed(&self, root: &Cid) -> Vec<(Multihash, u64, u64)> {
        let (manifest, leaves) = self.walk(root).unwrap();
        assert_eq!((manifest.root, manifest.bytes), model::tree(&leaves));
        leaves.iter().map(|leaf| (leaf.multihash, leaf.codec, leaf.parent)).collect()
    }
}

/// A DAG-CBOR list of a number and links.
fn node(salt: u8, children: &[Cid]) -> Vec<u8> {
    let mut block = vec![0x98, u8::try_from(children.len() + 1).unwrap(), 0x18, salt];
    for child in children {
        let bytes = child.to_bytes();
        block.extend([0xd8, 42, 0x58, u8::try_from(bytes.len() + 1).unwrap(), 0]);
        block.extend(bytes);
    }
    block
}

fn identity(codec: u64, data: &[u8]) -> Cid {
    Cid::new_v1(codec, Multihash::wrap(0, data).unwrap())
}

#[test]
fn blocks_are_listed_in_pre_order_each_multihash_once() {
    let mut dag = Dag::default();
    let a = dag.put(0x55, b"a".to_vec());
    let b = dag.put(0x55, b"b".to_vec());
    let left = dag.node(1, &[a, b, a]);
    let right = dag.node(2, &[b, a]);
    let root = dag.node(3, &[right, left, right]);
    let (hash, codec) = (|cid: &Cid| *cid.hash(), 0x71);
    assert_eq!(
        dag.listed(&root),
        [
            (hash(&root), codec, NO_PARENT),
            (hash(&right), codec, 0),
            (hash(&b), 0x55, 1),
            (hash(&a), 0x55, 1),
            (hash(&left), codec, 0),
        ]
    );
}

#[test]
fn a_multihash_under_two_codecs_is_walked_twice_and_listed_once() {
    let mut dag = Dag::default();
    let leaf = dag.put(0x55, b"leaf".to_vec());
    let inner = dag.node(1, &[leaf]);
    let as_raw = Cid::new_v1(0x55, *inner.hash());
    let root = dag.node(2, &[as_raw, inner]);
    assert_eq!(
        dag.listed(&root),
        [(*root.hash(), 0x71, NO_PARENT), (*inner.hash(), 0x55, 0), (*leaf.hash(), 0x55, 1)]
    );
}

#[test]
fn identity_cids_are_followed_and_never_listed() {
    let mut dag = Dag::default();
    let leaf = dag.put(0x55, b"leaf".to_vec());
    let inline = identity(0x71, &node(1, &[leaf]));
    let outer = identity(0x71, &node(2, &[inline]));
    let root = dag.node(3, &[outer, identity(0x55, b"text")]);
    assert_eq!(dag.listed(&root), [(*root.hash(), 0x71, NO_PARENT), (*leaf.hash(), 0x55, 0)]);
    assert_eq!(dag.listed(&outer), [(*leaf.hash(), 0x55, NO_PARENT)]);
    assert_eq!(dag.listed(&parse("bafkqaaa").unwrap()), []);
}

#[test]
fn a_doubling_dag_of_64_levels_ends_in_65_visits() {
    let mut dag = Dag::default();
    let mut root = dag.put(0x55, b"bottom".to_vec());
    for level in 0..64 {
        root = dag.node(level, &[root, root]);
    }
    let mut visits = 0;
    let (manifest, _) = of_dag(&root, &mut |cid| {
        visits += 1;
        dag.0.get(&cid.hash().to_bytes()).cloned()
    })
    .unwrap();
    assert_eq!((visits, manifest.blocks), (65, 65));
}

#[test]
fn sizes_that_links_claim_are_not_billed() {
    let mut dag = Dag::default();
    let leaf = dag.put(0x55, vec![7; 10_000]).to_bytes();
    for tsize in [vec![0], vec![0xff, 0xff, 0xff, 0xff, 0x7f]] {
        // Of DAG-PB: field 2 a link, of which field 1 is the CID and 3 the claim.
        let link = [&[0x0a, leaf.len() as u8][..], &leaf, &[0x18], &tsize].concat();
        let root = dag.put(0x70, [&[0x12, link.len() as u8][..], &link].concat());
        let (manifest, _) = dag.walk(&root).unwrap();
        assert_eq!(manifest.billed(), 10_000 + link.len() as u64 + 2);
    }
}

#[test]
fn a_dag_with_a_wrong_or_missing_block_has_no_manifest() {
    let mut dag = Dag::default();
    let leaf = dag.put(0x55, b"leaf".to_vec());
    let foreign = dag.put(0x72, b"foreign".to_vec());
    let broken = dag.put(0x71, vec![0x82]);
    let root = dag.node(1, &[leaf, foreign]);
    assert_eq!(dag.walk(&root).unwrap().0.blocks, 3);
    assert!(matches!(dag.walk(&foreign), Err(WalkError::Root(_))));
    let bad = dag.node(2, &[broken]);
    assert_eq!(dag.walk(&bad), Err(WalkError::Block(Box::new(broken), links::BlockError::Truncated)));
    dag.0.insert(leaf.hash().to_bytes(), b"lead".to_vec());
    assert_eq!(dag.walk(&root), Err(WalkError::Hash(Box::new(leaf), hash::HashError::Mismatch)));
    dag.0.remove(&leaf.hash().to_bytes());
    assert_eq!(dag.walk(&root), Err(WalkError::Missing(Box::new(leaf))));
}

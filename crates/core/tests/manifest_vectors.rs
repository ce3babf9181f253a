//! The manifest's test vectors: every clause with what it accepts and rejects.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::HashMap;

use data_encoding::HEXLOWER;
use pinfold_core::content::{Cid, Multihash, parse};
use pinfold_core::manifest::{
    BlockLeaf, Builder, Draw, Hash, Manifest, Proof, ProofError, Step, WalkError, chunk_root, of_dag,
    of_dag_within, open, verify,
};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/manifest.json")).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().unwrap().iter()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn hash(value: &Value) -> Hash {
    bytes(value).try_into().unwrap()
}

fn manifest(value: &Value) -> Manifest {
    Manifest {
        version: u32::try_from(number(&value["version"])).unwrap(),
        root: hash(&value["root"]),
        bytes: number(&value["bytes"]),
        blocks: number(&value["blocks"]),
    }
}

fn leaf(value: &Value) -> BlockLeaf {
    BlockLeaf {
        multihash: Multihash::from_bytes(&bytes(&value["multihash"])).unwrap(),
        codec: number(&value["codec"]),
        length: number(&value["length"]),
        chunk_root: hash(&value["chunk_root"]),
        parent: number(&value["parent"]),
    }
}

fn proof(value: &Value) -> Proof {
    let step = |step: &Value| Step {
        left: number(&step["left"]),
        right: number(&step["right"]),
        sibling: hash(&step["sibling"]),
    };
    Proof {
        chunk: bytes(&value["chunk"]),
        chunk_path: list(value, "chunk_path").map(hash).collect(),
        leaf: leaf(&value["leaf"]),
        path: list(value, "path").map(step).collect(),
    }
}

fn draw(value: &Value) -> Draw {
    match value.get("offset") {
        Some(offset) => Draw::Offset(number(offset)),
        None => Draw::Index { block: number(&value["block"]), chunk: number(&value["chunk"]) },
    }
}

fn block(fill: u64, length: u64) -> Vec<u8> {
    (0..length).map(|at| (fill + 7 * at + at / 256) as u8).collect()
}

#[test]
fn chunk_roots() {
    for case in list(&vectors(), "chunk_roots") {
        let length = number(&case["length"]);
        let block = block(length, length);
        assert_eq!(chunk_root(&block), hash(&case["root"]), "{length}");
    }
}

#[test]
fn manifests() {
    for case in list(&vectors(), "manifests") {
        let mut builder = Builder::new();
        for value in list(case, "leaves") {
            builder.push_leaf(&leaf(value)).unwrap();
        }
        assert_eq!(builder.finish(), manifest(&case["manifest"]));
    }
}

#[test]
fn dags() {
    for case in list(&vectors(), "dags") {
        let name = case["name"].as_str().unwrap();
        let blocks: HashMap<_, _> = case["blocks"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(cid, block)| (parse(cid).unwrap().hash().to_bytes(), bytes(block)))
            .collect();
        let root = parse(case["root"].as_str().unwrap()).unwrap();
        let (found, leaves) = of_dag(&root, &mut |cid| blocks.get(&cid.hash().to_bytes()).cloned()).unwrap();
        assert_eq!(leaves, list(case, "leaves").map(leaf).collect::<Vec<_>>(), "{name}");
        assert_eq!(found, manifest(&case["manifest"]), "{name}");
        for (rule, wrong) in case["wrong"].as_object().unwrap() {
            assert_ne!(found, manifest(wrong), "{name}: {rule}");
        }
    }
}

#[test]
fn refused_dags() {
    let mut seen = std::collections::BTreeSet::new();
    for case in list(&vectors(), "dags_refused") {
        let key = |cid: &str| parse(cid).unwrap().hash().to_bytes();
        let blocks = case["blocks"].as_object().unwrap().iter().map(|(cid, block)| (key(cid), bytes(block)));
        let zeros = case["zeros"].as_object().unwrap().iter();
        let zeros = zeros.map(|(cid, length)| (key(cid), vec![0; number(length) as usize]));
        let blocks: HashMap<_, _> = blocks.chain(zeros).collect();
        let root = parse(case["root"].as_str().unwrap()).unwrap();
        let error = of_dag(&root, &mut |cid| blocks.get(&cid.hash().to_bytes()).cloned()).unwrap_err();
        let found = match error {
            WalkError::Root(_) => "Root",
            WalkError::Missing(_) => "Missing",
            WalkError::Hash(..) => "Hash",
            WalkError::Block(..) => "Block",
            WalkError::OverLimit | WalkError::Builder(_) => "OverLimit",
        };
        assert_eq!(found, case["error"], "{}", case["name"]);
        seen.insert(found);
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

/// A chain of `links` nodes above a leaf; see the vectors.
fn chain(links: u64, again: bool) -> (Cid, HashMap<Vec<u8>, Vec<u8>>) {
    let mut blocks = HashMap::new();
    let mut put = |codec, block: Vec<u8>| {
        let cid = Cid::new_v1(codec, pinfold_core::hash::multihash(0x12, &block).unwrap());
        blocks.insert(cid.hash().to_bytes(), block);
        cid
    };
    let leaf = put(0x55, b"leaf".to_vec());
    let mut top = leaf;
    for level in 1..=links {
        let children = if again && level == links { vec![leaf, top] } else { vec![top] };
        let mut node = vec![0x80 | u8::try_from(children.len()).unwrap()];
        for cid in children {
            node.extend([0xd8, 42, 0x58, 37, 0]);
            node.extend(cid.to_bytes());
        }
        top = put(0x71, node);
    }
    (top, blocks)
}

#[test]
fn depths() {
    for case in list(&vectors(), "depths") {
        let (root, blocks) = chain(number(&case["links"]), case["again"].as_bool().unwrap());
        let limit = u32::try_from(number(&case["limit"])).unwrap();
        let found = of_dag_within(&root, limit, &mut |cid| blocks.get(&cid.hash().to_bytes()).cloned());
        assert_eq!(found.is_ok(), case["accepted"].as_bool().unwrap(), "{case}: {found:?}");
    }
}

#[test]
fn proofs() {
    let mut seen = std::collections::BTreeSet::new();
    for case in list(&vectors(), "proofs") {
        let (name, want) = (case["name"].as_str().unwrap(), case["result"].as_str().unwrap());
        let found = match verify(&manifest(&case["manifest"]), draw(&case["draw"]), &proof(&case["proof"])) {
            Ok(()) => "accept".to_owned(),
            Err(ProofError::Version(_)) => "Version".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(found, want, "{name}");
        seen.insert(want.to_owned());
    }
    // Every clause but the prover's own, `Source`.
    assert_eq!(seen.len(), 12, "{seen:?}");
}

#[test]
fn proofs_are_opened_as_they_are_written_there() {
    let lengths = [3_000_u64, 0, 1_024, 5_000, 1, 2_048, 700];
    let blocks: Vec<Vec<u8>> = (0..).zip(lengths).map(|(fill, length)| block(fill, length)).collect();
    let mut opened = 0;
    let vectors = vectors();
    let accepted = list(&vectors, "proofs").filter(|case| case["result"] == "accept");
    for case in accepted.filter(|case| case["manifest"]["blocks"] == 7) {
        let Draw::Index { block, chunk } = draw(&case["draw"]) else { continue };
        let leaves = (0..).zip(&blocks).map(|(index, block): (u64, &Vec<u8>)| BlockLeaf {
            multihash: pinfold_core::hash::multihash(0x12, block).unwrap(),
            codec: 0x55,
            length: block.len() as u64,
            chunk_root: chunk_root(block),
            parent: index.wrapping_sub(1),
        });
        let made = open(&manifest(&case["manifest"]), leaves, block, chunk, &blocks[block as usize]).unwrap();
        assert_eq!(made, proof(&case["proof"]));
        opened += 1;
    }
    assert_eq!(opened, 13);
}

//! The largest blocks that peers exchange, and very many of the smallest:
//! from a Kubo, and back to another.

use std::time::Duration;

use anyhow::{Result, ensure};
use cid::{Cid, multihash::Multihash};
use pinfold_e2e::{
    car, data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::Place,
    scenario::{gateway_car, import, reader_for_many_blocks, remote_add},
    test_within,
};
use sha2::{Digest, Sha256};

/// Two cores are shared with other tests, and each block is looked up three times.
const LIMIT: Duration = Duration::from_secs(400);

/// The largest block that Bitswap carries.
const LARGEST: usize = 2 << 20;

/// Blocks of that size.
const LARGE: usize = 6;

/// Lists of small blocks, each in a block of its own: the CIDs of all do not
/// fit into one.
const LISTS: usize = 4;

/// Small blocks in a list.
const SMALL: usize = 25_000;

/// Bytes of a small block.
const SMALLEST: usize = 100;

/// Codes of the codecs.
const RAW: u64 = 0x55;
const DAG_CBOR: u64 = 0x71;

/// A block under its CID.
type Block = (Cid, Vec<u8>);

fn block(codec: u64, data: Vec<u8>) -> Block {
    let digest = Multihash::wrap(0x12, &Sha256::digest(&data)).expect("a digest of SHA2-256 fits");
    (Cid::new_v1(codec, digest), data)
}

/// A list of links in DAG-CBOR.
fn list(of: &[Block]) -> Block {
    let length = u16::try_from(of.len()).expect("a list has less than 65,536 links");
    // The shortest form, as DAG-CBOR demands it.
    let mut data = match u8::try_from(length) {
        Ok(short @ 0..24) => vec![0x80 | short],
        Ok(byte) => vec![0x98, byte],
        Err(_) => [&[0x99], &length.to_be_bytes()[..]].concat(),
    };
    for (cid, _) in of {
        // Tag 42 on bytes that begin with a zero.
        let cid = cid.to_bytes();
        data.extend([0xd8, 42, 0x58, u8::try_from(cid.len() + 1).expect("a CID is short"), 0]);
        data.extend(cid);
    }
    block(DAG_CBOR, data)
}

/// A list of the largest blocks; the root comes first.
fn large() -> Vec<Block> {
    let mut blocks: Vec<_> =
        (0..LARGE).map(|number| block(RAW, data::bytes(number as u64, LARGEST))).collect();
    blocks.insert(0, list(&blocks));
    blocks
}

/// A list of lists of the smallest blocks; the root comes first.
fn small() -> Vec<Block> {
    let bytes = data::bytes(77, LISTS * SMALL * SMALLEST);
    let leaves: Vec<_> = bytes.chunks(SMALLEST).map(|leaf| block(RAW, leaf.to_vec())).collect();
    let lists: Vec<_> = leaves.chunks(SMALL).map(list).collect();
    [vec![list(&lists)], lists, leaves].concat()
}

#[test]
fn the_largest_blocks_and_a_hundred_thousand_tiny_ones_come_back() {
    test_within(LIMIT, async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let mut origin = Kubo::start_for_many_blocks(place, "origin").await?;
        origin.use_service(&pinfold).await?;
        let mut originals = Vec::new();
        for blocks in [large(), small()] {
            import(&origin, &car::write(&blocks[0].0, &blocks)).await?;
            let root = blocks[0].0.to_string();
            assert_eq!(remote_add(&origin, &root, &[]).await?.status, "pinned");
            let original = exported(&origin, &root).await?;
            assert_eq!(car::read(&original)?.len(), blocks.len());
            originals.push((root, original));
        }
        origin.stop().await?;
        come_back(place, &pinfold, &originals).await
    });
}

/// All of a DAG, in the order in which a walk meets it.
async fn exported(kubo: &Kubo, root: &str) -> Result<Vec<u8>> {
    let export = kubo.try_ipfs(&["dag", "export", "--progress=false", root]).await?;
    Ok(export.success("ipfs dag export")?.stdout)
}

async fn come_back(place: &Place, pinfold: &Pinfold, originals: &[(String, Vec<u8>)]) -> Result<()> {
    let reader = reader_for_many_blocks(place, pinfold).await?;
    let offline = Kubo::offline(place, "offline").await?;
    for (root, original) in originals {
        reader.ipfs_within(&["pin", "add", "--progress=false", root], LIMIT).await?;
        ensure!(exported(&reader, root).await? == *original, "{root} came back with other bytes");
        import(&offline, &gateway_car(pinfold, root).await?).await?;
        ensure!(exported(&offline, root).await? == *original, "{root} is another in the gateway's CAR");
    }
    Ok(())
}

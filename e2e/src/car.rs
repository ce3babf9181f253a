//! Reads a CAR (version 1) and checks every block's hash, so that a test
//! knows that a DAG is held whole and right; and writes one, of blocks that no
//! client makes by itself.

use std::{collections::BTreeMap, io::Cursor};

use anyhow::{Context, Result, bail, ensure};
use cid::Cid;
use sha2::{Digest, Sha256};

/// Codes of the hash functions that tests use.
const IDENTITY: u64 = 0x00;
const SHA2_256: u64 = 0x12;

/// The blocks of a CAR by CID.
pub fn read(car: &[u8]) -> Result<BTreeMap<Cid, Vec<u8>>> {
    let (_header, mut rest) = section(car)?;
    let mut blocks = BTreeMap::new();
    while !rest.is_empty() {
        let (block, after) = section(rest)?;
        let mut cursor = Cursor::new(block);
        let cid = Cid::read_bytes(&mut cursor)?;
        let data = &block[usize::try_from(cursor.position())?..];
        verify(&cid, data)?;
        blocks.insert(cid, data.to_vec());
        rest = after;
    }
    Ok(blocks)
}

/// The roots that a CAR's header names.
pub fn roots(car: &[u8]) -> Result<Vec<Cid>> {
    let (mut header, _) = section(car)?;
    // DAG-CBOR writes a CID as tag 42 on bytes that begin with a zero.
    let mut roots = Vec::new();
    while let Some(at) = header.windows(2).position(|pair| pair == [0xd8, 42]) {
        let head = header.get(at + 2..).context("a header ends early")?;
        let skip = if head.first() == Some(&0x58) { 2 } else { 1 };
        let mut cursor = Cursor::new(head.get(skip + 1..).context("a header ends early")?);
        roots.push(Cid::read_bytes(&mut cursor)?);
        header = &head[skip + 1 + usize::try_from(cursor.position())?..];
    }
    Ok(roots)
}

/// A CAR with one root and these blocks, in their order.
pub fn write(root: &Cid, blocks: &[(Cid, Vec<u8>)]) -> Vec<u8> {
    // DAG-CBOR of {"roots": [root], "version": 1}.
    let root = root.to_bytes();
    let length = u8::try_from(root.len() + 1).expect("a root's CID is short");
    let mut header = b"\xa2\x65roots\x81\xd8\x2a\x58".to_vec();
    header.extend([length, 0]);
    header.extend(root);
    header.extend(b"\x67version\x01");
    let mut car = Vec::new();
    put_section(&mut car, &[&header]);
    for (cid, data) in blocks {
        put_section(&mut car, &[&cid.to_bytes(), data]);
    }
    car
}

/// Writes a varint of the length of all parts, then the parts.
fn put_section(car: &mut Vec<u8>, parts: &[&[u8]]) {
    let mut length: usize = parts.iter().map(|part| part.len()).sum();
    while length >= 0x80 {
        car.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    car.push(length as u8);
    parts.iter().for_each(|part| car.extend_from_slice(part));
}

/// Checks that `data` is what `cid` names.
pub fn verify(cid: &Cid, data: &[u8]) -> Result<()> {
    let digest = match cid.hash().code() {
        IDENTITY => data.to_vec(),
        SHA2_256 => Sha256::digest(data).to_vec(),
        other => bail!("no test uses the hash function {other:#x}"),
    };
    ensure!(digest == cid.hash().digest(), "the bytes of {cid} are wrong");
    Ok(())
}

/// Splits what a varint counts from what follows.
fn section(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return bytes[index + 1..].split_at_checked(length).context("the CAR is cut short");
        }
    }
    bail!("the CAR has no length where one is due")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, then the raw block `hello` under its CID.
    fn example() -> Vec<u8> {
        let mut car = vec![2, 0xa0, 0x00, 41, 1, 0x55, 0x12, 0x20];
        car.extend(Sha256::digest(b"hello"));
        car.extend(b"hello");
        car
    }

    #[test]
    fn a_right_block_is_read() {
        let blocks = read(&example()).unwrap();
        assert_eq!(blocks.into_values().collect::<Vec<_>>(), [b"hello".to_vec()]);
    }

    #[test]
    fn what_is_written_is_read() {
        let (cid, data) = read(&example()).unwrap().into_iter().next().unwrap();
        let car = write(&cid, &[(cid, data.clone())]);
        assert_eq!(roots(&car).unwrap(), [cid]);
        assert_eq!(read(&car).unwrap(), [(cid, data)].into());
    }

    #[test]
    fn a_wrong_block_is_an_error() {
        let mut car = example();
        *car.last_mut().unwrap() ^= 1;
        assert!(read(&car).is_err());
    }

    #[test]
    fn a_car_cut_short_is_an_error() {
        let car = example();
        assert!(read(&car[..car.len() - 1]).is_err());
    }
}

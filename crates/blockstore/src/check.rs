//! The recount: what is stored about references and sums, against what the
//! records themselves say.

use std::collections::{BTreeMap, HashMap};

use crate::block::inherent;
use crate::inner::Inner;
use crate::state::{BlockEntry, RootEntry, SegmentStat, Sums, parse_chunk_key};
use crate::writer::Writer;
use crate::{Check, Difference, Error, Multihash};

/// How many differences are returned; all are counted.
const MAX_EXAMPLES: usize = 100;

/// How many blocks are counted in one pass, which bounds the memory: some
/// 30 MiB. Larger stores are counted in several passes.
const BLOCKS_PER_PASS: u64 = 1 << 18;

impl Inner {
    /// See [`Store::check`](crate::Store::check).
    pub(crate) fn check(&self) -> Result<Check, Error> {
        let _no_maintenance = self.maintenance.lock();
        let _no_checkpoint = self.checkpointing.lock();
        let writer = self.writer.lock();
        let mut check = Check::default();
        let passes = writer.ledger.sums.blocks / BLOCKS_PER_PASS + 1;
        for pass in 0..passes {
            let in_pass = |key: &[u8]| u64::from(crc32fast::hash(key)) % passes == pass;
            self.check_references(&in_pass, &mut check)?;
        }
        self.check_roots(&mut check)?;
        self.check_sums(&writer, &mut check)?;
        Ok(check)
    }

    /// Counts the entries of all lists and compares.
    fn check_references(&self, in_pass: &impl Fn(&[u8]) -> bool, check: &mut Check) -> Result<(), Error> {
        let mut counted: HashMap<Vec<u8>, u64> = HashMap::new();
        for pair in self.index.pairs(b"l") {
            let (key, _) = pair?;
            let (walk, number) = parse_chunk_key(&key[1..]).ok_or_else(crate::index::malformed)?;
            for multihash in self.expect_chunk(walk, number)? {
                let key = multihash.to_bytes();
                if in_pass(&key) && inherent(&multihash).is_none() {
                    *counted.entry(key).or_default() += 1;
                }
            }
        }
        for pair in self.index.pairs(b"b") {
            let (key, value) = pair?;
            if !in_pass(&key[1..]) {
                continue;
            }
            check.blocks += 1;
            let entry = BlockEntry::decode(&value).ok_or_else(crate::index::malformed)?;
            let references = counted.remove(&key[1..]).unwrap_or_default();
            compare_references(&key[1..], entry.refs.into(), references, check);
        }
        counted.iter().for_each(|(key, references)| compare_references(key, 0, *references, check));
        Ok(())
    }

    /// Every block of a held root is held, and the root's sums are right.
    fn check_roots(&self, check: &mut Check) -> Result<(), Error> {
        for pair in self.index.pairs(b"r") {
            let (_, value) = pair?;
            let entry = RootEntry::decode(&value).ok_or_else(crate::index::malformed)?;
            let Some(held) = entry.root.held else {
                continue;
            };
            check.roots += 1;
            let (mut blocks, mut bytes, mut missing) = (0, 0, 0);
            for number in 0..held.chunks {
                for multihash in self.expect_chunk(held.walk, number)? {
                    blocks += 1;
                    match self.held(&multihash)? {
                        Some(len) => bytes += len,
                        None => {
                            missing += 1;
                            differ(check, Difference::Missing { multihash });
                        }
                    }
                }
            }
            compare("blocks of a root", held.blocks, blocks, check);
            if missing == 0 {
                compare("bytes of a root", held.bytes, bytes, check);
            }
        }
        Ok(())
    }

    /// The store's sums, and those of every segment.
    fn check_sums(&self, writer: &Writer, check: &mut Check) -> Result<(), Error> {
        let (mut sums, mut live) = (Sums::default(), BTreeMap::<u32, u64>::new());
        let mut idle = 0;
        for (letter, key_len) in [(b"b", None), (b"l", Some(12)), (b"r", None)] {
            for pair in self.index.pairs(letter) {
                let (key, value) = pair?;
                let Some(location) = place(letter[0], &value, &mut sums, &mut idle, key.len() - 1)? else {
                    continue;
                };
                let key_len = key_len.unwrap_or(key.len() as u64 - 1);
                *live.entry(location.segment).or_default() +=
                    crate::record::record_len(key_len, location.len.into());
            }
        }
        compare("blocks", writer.ledger.sums.blocks, sums.blocks, check);
        compare("bytes of blocks", writer.ledger.sums.block_bytes, sums.block_bytes, check);
        compare("bytes of released roots", writer.ledger.sums.released_bytes, sums.released_bytes, check);
        compare("blocks without references", self.index.pairs(b"i").count() as u64, idle, check);
        for (segment, stat) in writer.ledger.segments() {
            compare("live bytes of a segment", stat.live, live.remove(segment).unwrap_or_default(), check);
            self.check_len(*segment, stat, check)?;
        }
        compare("live bytes in segments that do not exist", 0, live.values().sum(), check);
        Ok(())
    }

    fn check_len(&self, segment: u32, stat: &SegmentStat, check: &mut Check) -> Result<(), Error> {
        let len = self.segments.file(segment)?.len();
        let len = len.map_err(|source| self.segments.failed("read", segment, source))?;
        compare("length of a segment", stat.len, len, check);
        Ok(())
    }
}

/// Where an entry's record lies, adding the entry to the sums.
fn place(
    letter: u8,
    value: &[u8],
    sums: &mut Sums,
    idle: &mut u64,
    key_len: usize,
) -> Result<Option<crate::state::Location>, Error> {
    let malformed = crate::index::malformed;
    match letter {
        b'b' => {
            let entry = BlockEntry::decode(value).ok_or_else(malformed)?;
            if let Some(location) = entry.location() {
                sums.blocks += 1;
                sums.block_bytes += u64::from(location.len);
                *idle += u64::from(entry.refs == 0);
            }
            Ok(entry.location())
        }
        b'r' => {
            let entry = RootEntry::decode(value).ok_or_else(malformed)?;
            if entry.root.is_released() {
                sums.released_bytes += crate::record::record_len(key_len as u64, entry.location.len.into());
            }
            Ok(Some(entry.location))
        }
        _ => crate::state::Location::decode(value).map(Some).ok_or_else(malformed),
    }
}

fn compare_references(key: &[u8], stored: u64, counted: u64, check: &mut Check) {
    if stored == counted {
        return;
    }
    match Multihash::from_bytes(key) {
        Ok(multihash) => differ(check, Difference::References { multihash, stored, counted }),
        Err(_) => differ(check, Difference::Sum { what: "references of a malformed key", stored, counted }),
    }
}

fn compare(what: &'static str, stored: u64, counted: u64, check: &mut Check) {
    if stored != counted {
        differ(check, Difference::Sum { what, stored, counted });
    }
}

fn differ(check: &mut Check, difference: Difference) {
    check.differences += 1;
    if check.examples.len() < MAX_EXAMPLES {
        check.examples.push(difference);
    }
}

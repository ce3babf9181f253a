//! The recount: what is stored about references and sums, against what the
//! records themselves say, as of one moment. Writers go on meanwhile; reclaim
//! and compaction wait.

use std::collections::{BTreeMap, HashMap};

use crate::block::inherent;
use crate::index::Snapshot;
use crate::inner::Inner;
use crate::record::Kind;
use crate::roots::damaged_part;
use crate::segments::Read;
use crate::state::{
    BlockEntry, Location, RootEntry, SegmentStat, Sums, WalkId, chunk_key, parse_chunk, parse_chunk_key,
};
use crate::{Check, Difference, Error, Multihash};

/// How many differences are returned; all are counted.
const MAX_EXAMPLES: usize = 100;

/// How many blocks are counted in one pass, which bounds the memory: some
/// 30 MiB. Larger stores are counted in several passes.
const BLOCKS_PER_PASS: u64 = 1 << 18;

/// What is compared: index and sums as of one moment, while writers go on.
struct Moment<'a> {
    index: Snapshot<'a>,
    sums: Sums,
    segments: BTreeMap<u32, SegmentStat>,
    /// The segment that was open, and the length of its file.
    open: (u32, u64),
}

impl Inner {
    /// See [`Store::check`](crate::Store::check).
    pub(crate) fn check(&self) -> Result<Check, Error> {
        // No segment is deleted meanwhile, so that lists are read where they
        // lay at the moment.
        let _no_maintenance = self.maintenance.lock();
        let moment = self.moment()?;
        let mut check = Check::default();
        let passes = moment.sums.blocks / BLOCKS_PER_PASS + 1;
        for pass in 0..passes {
            let in_pass = |key: &[u8]| u64::from(crc32fast::hash(key)) % passes == pass;
            self.check_references(&moment, &in_pass, &mut check)?;
        }
        self.check_roots(&moment, &mut check)?;
        self.check_sums(&moment, &mut check)?;
        Ok(check)
    }

    /// What is true now. Writers wait for the newest changes to be sorted in,
    /// some milliseconds.
    fn moment(&self) -> Result<Moment<'_>, Error> {
        let _no_checkpoint = self.checkpointing.lock();
        // Most of them, before anyone waits.
        self.index.settle_all();
        let writer = self.writer.lock();
        let len = writer.file.len().map_err(|source| self.segments.failed("read", writer.segment, source))?;
        Ok(Moment {
            index: self.index.snapshot(),
            sums: writer.ledger.sums,
            segments: writer.ledger.segments().clone(),
            open: (writer.segment, len),
        })
    }

    /// Counts the entries of all lists and compares.
    fn check_references(
        &self,
        moment: &Moment<'_>,
        in_pass: &impl Fn(&[u8]) -> bool,
        check: &mut Check,
    ) -> Result<(), Error> {
        let mut counted: HashMap<Vec<u8>, u64> = HashMap::new();
        for pair in moment.index.pairs(b"l") {
            let (key, value) = pair?;
            let (walk, number) = parse_chunk_key(&key[1..]).ok_or_else(crate::index::malformed)?;
            for multihash in self.part(walk, number, Location::decode(&value))? {
                let key = multihash.to_bytes();
                if in_pass(&key) && inherent(&multihash).is_none() {
                    *counted.entry(key).or_default() += 1;
                }
            }
        }
        for pair in moment.index.pairs(b"b") {
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
    fn check_roots(&self, moment: &Moment<'_>, check: &mut Check) -> Result<(), Error> {
        for pair in moment.index.pairs(b"r") {
            let (_, value) = pair?;
            let entry = RootEntry::decode(&value).ok_or_else(crate::index::malformed)?;
            let Some(held) = entry.root.held else {
                continue;
            };
            check.roots += 1;
            let (mut blocks, mut bytes, mut missing) = (0, 0, 0);
            for number in 0..held.chunks {
                for multihash in self.part(held.walk, number, moment.index.chunk(held.walk, number)?)? {
                    blocks += 1;
                    match moment.held(&multihash)? {
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
    fn check_sums(&self, moment: &Moment<'_>, check: &mut Check) -> Result<(), Error> {
        let (mut sums, mut live) = (Sums::default(), BTreeMap::<u32, u64>::new());
        let mut idle = 0;
        for (letter, key_len) in [(b"b", None), (b"l", Some(12)), (b"r", None)] {
            for pair in moment.index.pairs(letter) {
                let (key, value) = pair?;
                let Some(location) = place(letter[0], &value, &mut sums, &mut idle, key.len() - 1)? else {
                    continue;
                };
                let key_len = key_len.unwrap_or(key.len() as u64 - 1);
                *live.entry(location.segment).or_default() +=
                    crate::record::record_len(key_len, location.len.into());
            }
        }
        compare("blocks", moment.sums.blocks, sums.blocks, check);
        compare("bytes of blocks", moment.sums.block_bytes, sums.block_bytes, check);
        compare("bytes of released roots", moment.sums.released_bytes, sums.released_bytes, check);
        compare("blocks without references", moment.index.pairs(b"i").count() as u64, idle, check);
        for (segment, stat) in &moment.segments {
            compare("live bytes of a segment", stat.live, live.remove(segment).unwrap_or_default(), check);
            self.check_len(*segment, stat, moment, check)?;
        }
        compare("live bytes in segments that do not exist", 0, live.values().sum(), check);
        Ok(())
    }

    fn check_len(
        &self,
        segment: u32,
        stat: &SegmentStat,
        moment: &Moment<'_>,
        check: &mut Check,
    ) -> Result<(), Error> {
        // The open one has grown since; the others stay as they are.
        let len = if segment == moment.open.0 {
            moment.open.1
        } else {
            let len = self.segments.file(segment)?.len();
            len.map_err(|source| self.segments.failed("read", segment, source))?
        };
        compare("length of a segment", stat.len, len, check);
        Ok(())
    }

    /// One part of a list, where it lay at the moment.
    fn part(&self, walk: WalkId, number: u32, at: Option<Location>) -> Result<Vec<Multihash>, Error> {
        let location = at.ok_or_else(|| damaged_part(number))?;
        let list = match self.segments.read(Kind::Chunk, &chunk_key(walk, number), location)? {
            Read::Intact(payload) => parse_chunk(&payload),
            Read::Damaged(_) => None,
        };
        list.ok_or_else(|| damaged_part(number))
    }
}

impl Moment<'_> {
    /// The block's length, where it was held.
    fn held(&self, multihash: &Multihash) -> Result<Option<u64>, Error> {
        if let Some(bytes) = inherent(multihash) {
            return Ok(Some(bytes.len() as u64));
        }
        let entry = self.index.block(&multihash.to_bytes())?;
        Ok(entry.and_then(|entry| entry.location()).map(|location| location.len.into()))
    }
}

/// Where an entry's record lies, adding the entry to the sums.
fn place(
    letter: u8,
    value: &[u8],
    sums: &mut Sums,
    idle: &mut u64,
    key_len: usize,
) -> Result<Option<Location>, Error> {
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
        _ => Location::decode(value).map(Some).ok_or_else(malformed),
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

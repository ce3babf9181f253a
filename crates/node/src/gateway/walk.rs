//! The blocks of a CAR, in depth-first order, read as the client takes them.

use bytes::Bytes;
use pinfold_core::{
    content::{self, Cid},
    links::{self, Codec},
    unixfs::Node,
};

use super::{
    below,
    body::{BATCH_BYTES, BATCH_VISITS, Batch, Batches},
    budget::{Budget, Lease},
    car::Pieces,
    format::{Car, EntityBytes, Scope},
    pending::{Below, Level, Pending, Visit},
    seen::{Known, Seen},
    source::{Source, Unserved},
};

/// A walk in progress.
pub(super) struct Walk {
    source: Source,
    /// None where blocks are sent as often as they are met.
    seen: Option<Seen>,
    pending: Pending,
    lease: Lease,
    header: Option<Cid>,
    failed: Option<Unserved>,
}

impl Walk {
    /// Begins a walk: the blocks of the way, all but the last of which are
    /// sent alone, then what is wanted of the last.
    ///
    /// # Errors
    /// When the budget is used up.
    pub(super) fn new(
        source: Source,
        budget: &Budget,
        way: &[Cid],
        below: Below,
        dups: bool,
    ) -> Result<Self, Unserved> {
        let (mut pending, mut lease) = (Pending::default(), budget.lease());
        let (last, parents) = way.split_last().expect("a way has its root at least");
        pending.push(Level::of(&Visit { cid: *last, below }), &mut lease)?;
        for parent in parents.iter().rev() {
            pending.push(Level::of(&Visit { cid: *parent, below: Below::Nothing }), &mut lease)?;
        }
        let seen = (!dups).then(Seen::default);
        Ok(Self { source, seen, pending, lease, header: Some(*last), failed: None })
    }

    fn visit(&mut self, visit: &Visit, pieces: &mut Pieces) -> Result<(), Unserved> {
        // The CID itself holds the data of an identity CID.
        let is_inline = content::inline_data(&visit.cid).is_some();
        let known = match &mut self.seen {
            Some(seen) if !is_inline => seen.visit(&visit.cid, visit.below.is_whole(), &mut self.lease)?,
            _ => Known::No,
        };
        if known == Known::Done {
            return Ok(());
        }
        let block = self.source.block(&visit.cid)?;
        if visit.below == Below::All {
            below::allow(&self.source, &visit.cid, &[])?;
        }
        self.descend(visit, &block)?;
        if known == Known::No && !is_inline {
            pieces.section(&visit.cid, block);
        }
        Ok(())
    }

    fn descend(&mut self, visit: &Visit, block: &Bytes) -> Result<(), Unserved> {
        let level = match &visit.below {
            Below::Nothing => return Ok(()),
            Below::All => links_of(&visit.cid, block)?,
            Below::Shards => shards_of(&visit.cid, block)?,
            Below::Part { size, range } => {
                let mut level = Level::parts();
                if let Some(file) = part(&visit.cid, *size, block)? {
                    for part in file.cover(range.clone()).parts {
                        level.push_part(&part.cid, part.size, &part.range);
                    }
                }
                level
            }
        };
        self.pending.push(level, &mut self.lease)
    }

    fn fill(&mut self, pieces: &mut Pieces) -> Result<bool, Unserved> {
        for _ in 0..BATCH_VISITS {
            if pieces.bytes() >= BATCH_BYTES {
                break;
            }
            let Some(visit) = self.pending.pop(&mut self.lease) else { return Ok(true) };
            self.visit(&visit, pieces)?;
        }
        Ok(false)
    }
}

impl Batches for Walk {
    fn next(&mut self) -> Result<Batch, Unserved> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut pieces = Pieces::default();
        if let Some(root) = self.header.take() {
            pieces.header(&root);
        }
        let filled = self.fill(&mut pieces);
        Batch::of(pieces, filled, &mut self.failed)
    }
}

/// What a CAR has below the last block of its way.
///
/// # Errors
/// When the block is not held, or the range lies beyond the file.
pub(super) fn below(source: &Source, last: &Cid, car: Car) -> Result<Below, Unserved> {
    match car.scope {
        Scope::Block => Ok(Below::Nothing),
        Scope::All => Ok(Below::All),
        Scope::Entity(bytes) => {
            let block = source.block(last)?;
            // Whatever is no file and no directory is one block.
            match Node::decode(last.codec(), &block) {
                Ok(Node::File(file)) => entity(bytes, file.size()),
                Ok(Node::Shard(_)) => Ok(Below::Shards),
                Ok(Node::Directory(_) | Node::Symlink(_)) | Err(_) => Ok(Below::Nothing),
            }
        }
    }
}

fn entity(bytes: Option<EntityBytes>, size: u64) -> Result<Below, Unserved> {
    let range = bytes.map_or(0..size, |bytes| bytes.resolve(size));
    if !range.is_empty() {
        return Ok(Below::Part { size, range });
    }
    if size == 0 {
        return Ok(Below::Nothing);
    }
    Err(Unserved::Bad(format!("entity-bytes lies outside of the file, which has {size} bytes")))
}

fn links_of(cid: &Cid, block: &Bytes) -> Result<Level, Unserved> {
    let mut level = Level::all();
    // Where nothing is known of a codec's links, it is a leaf.
    if Codec::of(cid.codec()).is_some() {
        let found = links::links(cid.codec(), block, &mut |link| level.push(&link));
        found.map_err(|error| Unserved::link(cid, error))?;
    }
    Ok(level)
}

fn shards_of(cid: &Cid, block: &Bytes) -> Result<Level, Unserved> {
    let mut level = Level::shards();
    match Node::decode(cid.codec(), block).map_err(|error| Unserved::unixfs(cid, error))? {
        Node::Shard(shard) => shard.shards().for_each(|cid| level.push(cid)),
        _ => return Err(wrong(cid, "it is no shard of a directory")),
    }
    Ok(level)
}

/// A part of a file with the size that its parent says; none where it is a
/// leaf of bytes alone.
///
/// # Errors
/// When it is no part of a file, or of another size.
pub(super) fn part(
    cid: &Cid,
    size: u64,
    block: &Bytes,
) -> Result<Option<pinfold_core::unixfs::File>, Unserved> {
    let (found, file) = if cid.codec() == Codec::Raw.code() {
        (block.len() as u64, None)
    } else {
        match Node::decode(cid.codec(), block).map_err(|error| Unserved::unixfs(cid, error))? {
            Node::File(file) => (file.size(), Some(file)),
            _ => return Err(wrong(cid, "it is no part of a file")),
        }
    };
    if found == size { Ok(file) } else { Err(wrong(cid, "it is not of the size that its parent says")) }
}

fn wrong(cid: &Cid, reason: &str) -> Unserved {
    Unserved::Undecodable { cid: Box::new(*cid), reason: reason.into() }
}

//! From a content path to the block that it ends at.
//!
//! Names lead through UnixFS directories, whole or sharded, and through the
//! links of DAG-CBOR and DAG-JSON documents. Every step is compared with the
//! denylist, with what of the path is left below it.

use bytes::Bytes;
use pinfold_core::{
    content::Cid,
    links::{self, Codec},
    unixfs::{Found, Node, Shard},
};

use super::{
    ipld,
    path::ContentPath,
    source::{Source, Unserved},
};

/// The blocks of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Every block that is needed to follow the path, from the root to the
    /// content, shards of directories included.
    pub(super) blocks: Vec<Cid>,
    /// The root, and what each name or link led to.
    pub(super) roots: Vec<Cid>,
    /// How many names of the path led to each of `roots`.
    names: Vec<usize>,
}

impl Way {
    /// Where the path ends.
    pub(super) fn last(&self) -> &Cid {
        self.blocks.last().expect("a way has its root at least")
    }

    /// Each root of the way, with how many names of the path led to it.
    pub(super) fn steps(&self) -> impl Iterator<Item = (&Cid, usize)> {
        self.roots.iter().zip(self.names.iter().copied())
    }

    fn go(&mut self, cid: Cid) {
        self.blocks.push(cid);
        self.roots.push(cid);
    }
}

/// Follows a path to its end, whose own block is not read.
///
/// # Errors
/// When a block is missing, denied or invalid, or a name is not there.
pub(super) fn resolve(source: &Source, path: &ContentPath) -> Result<Way, Unserved> {
    source.allow(&path.root, &path.segments.join("/"))?;
    follow(source, &path.root, &path.segments, &|cid, names| source.allow(cid, &names.join("/")))
}

/// What refuses a step, given the names that are left below it.
pub(super) type Allow<'a> = &'a dyn Fn(&Cid, &[String]) -> Result<(), Unserved>;

/// Follows names from a block; `allow` is asked about each step, with the
/// names that are left below it.
///
/// # Errors
/// When a block is missing, denied or invalid, or a name is not there.
pub(super) fn follow(
    source: &Source,
    root: &Cid,
    mut names: &[String],
    allow: Allow<'_>,
) -> Result<Way, Unserved> {
    let all = names.len();
    let mut way = Way { blocks: vec![*root], roots: vec![*root], names: vec![0] };
    while let Some(name) = names.first() {
        let here = *way.last();
        let block = source.block(&here)?;
        let used = match Codec::of(here.codec()) {
            Some(Codec::DagPb) => follow_name(source, &mut way, &block, name).map(|()| 1)?,
            Some(Codec::DagCbor | Codec::DagJson) => follow_link(&mut way, &block, names)?,
            Some(Codec::Raw) | None => return Err(no_link(name, &here)),
        };
        names = &names[used..];
        way.names.push(all - names.len());
        allow(way.last(), names)?;
    }
    Ok(way)
}

/// The entry of a directory, none where there is no such name.
///
/// # Errors
/// When a shard is missing or invalid.
pub(super) fn entry(source: &Source, directory: &Node, name: &str) -> Result<Option<Cid>, Unserved> {
    match directory {
        Node::Directory(directory) => Ok(directory.get(name).copied()),
        Node::Shard(shard) => find(source, shard, name, &mut |_| {}),
        Node::File(_) | Node::Symlink(_) => Ok(None),
    }
}

fn follow_name(source: &Source, way: &mut Way, block: &Bytes, name: &str) -> Result<(), Unserved> {
    let here = *way.last();
    let node = Node::decode(here.codec(), block).map_err(|error| Unserved::unixfs(&here, error))?;
    let found = match &node {
        Node::Shard(shard) => {
            let blocks = &mut way.blocks;
            find(source, shard, name, &mut |cid| blocks.push(*cid))?
        }
        node => entry(source, node, name)?,
    };
    way.go(found.ok_or_else(|| no_link(name, &here))?);
    Ok(())
}

/// Looks a name up in a sharded directory; `passed` is given the shards below
/// its root that lead there.
fn find(
    source: &Source,
    root: &Shard,
    name: &str,
    passed: &mut dyn FnMut(&Cid),
) -> Result<Option<Cid>, Unserved> {
    let mut below;
    let (mut shard, mut level) = (root, 0);
    loop {
        // A name whose hash is used up is not there.
        let cid = match shard.find(name, level) {
            Ok(Found::Entry(cid)) => return Ok(Some(*cid)),
            Ok(Found::Shard(cid)) => *cid,
            Ok(Found::Missing) | Err(_) => return Ok(None),
        };
        passed(&cid);
        let Node::Shard(next) = source.node(&cid)? else {
            return Err(Unserved::Undecodable {
                cid: Box::new(cid),
                reason: "it is no shard of a directory".into(),
            });
        };
        below = next;
        (shard, level) = (&below, level + 1);
    }
}

/// Follows names inside a document to its next link; says how many.
fn follow_link(way: &mut Way, block: &Bytes, names: &[String]) -> Result<usize, Unserved> {
    let here = *way.last();
    // What the codec does not allow is refused before a look inside.
    links::links(here.codec(), block, &mut |_| {}).map_err(|error| Unserved::link(&here, error))?;
    match ipld::lookup(here.codec(), block, names) {
        Some(ipld::Found::Link { cid, used }) => {
            way.go(cid);
            Ok(used)
        }
        Some(ipld::Found::Value) => Err(Unserved::Inside(Box::new(here))),
        None => Err(no_link(&names.join("/"), &here)),
    }
}

fn no_link(name: &str, parent: &Cid) -> Unserved {
    Unserved::NoLink { name: name.to_owned(), parent: Box::new(*parent) }
}

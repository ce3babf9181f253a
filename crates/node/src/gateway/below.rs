//! What the denylist says of paths below a block that is sent with all that
//! it links to.
//!
//! A rule about a path denies what is found there, not the block by itself:
//! the same file under another name may be served. A CAR has no names, so that
//! one with a denied path in it is refused as a whole: with a status where the
//! rule is about a block of the way, and by breaking it off where the block is
//! met in mid-stream. A path that leads nowhere denies nothing. Rules that
//! hash a path cannot be followed: they hold for requests by that path.

use pinfold_core::{content::Cid, links::Codec};

use super::{
    directory,
    resolve::{self, Way},
    source::{Source, Unserved},
};

/// Refuses a way whose last block is to be sent with everything below it,
/// where a rule denies something there.
///
/// # Errors
/// [`Unserved::Denied`], and those of reading.
pub(super) fn allow_way(source: &Source, way: &Way, names: &[String]) -> Result<(), Unserved> {
    way.steps().try_for_each(|(cid, used)| allow(source, cid, &names[used..]))
}

/// Refuses a block where a rule denies a path below it that begins with
/// `within` and leads to something.
///
/// # Errors
/// [`Unserved::Denied`], and those of reading.
pub(super) fn allow(source: &Source, cid: &Cid, within: &[String]) -> Result<(), Unserved> {
    for (path, is_prefix) in source.denied_paths(cid) {
        let names: Vec<String> = path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let (parent, stem) = match names.split_last() {
            // A star behind a slash, or the block itself, is denied by CID.
            None => continue,
            Some((stem, parent)) if is_prefix => (parent, Some(stem.as_str())),
            Some(_) => (&names[..], None),
        };
        // What lies above, or beside, is not sent.
        if parent.len() < within.len() || !parent.starts_with(within) {
            continue;
        }
        if leads_to_denied(source, cid, parent, stem)? {
            return Err(Unserved::Denied(Box::new(*cid)));
        }
    }
    Ok(())
}

fn leads_to_denied(
    source: &Source,
    cid: &Cid,
    parent: &[String],
    stem: Option<&str>,
) -> Result<bool, Unserved> {
    let way = match resolve::follow(source, cid, parent, &|_, _| Ok(())) {
        Ok(way) => way,
        // Nothing is there, or nothing of it is sent.
        Err(Unserved::NoLink { .. } | Unserved::Inside(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    let Some(stem) = stem else { return Ok(source.allow(cid, &parent.join("/")).is_err()) };
    let last = way.last();
    if Codec::of(last.codec()) != Some(Codec::DagPb) {
        return Ok(false);
    }
    let listing = directory::list(source, source.node(last)?)?;
    let denied = |name: &str| {
        let path = [parent, &[name.to_owned()]].concat().join("/");
        name.starts_with(stem) && source.allow(cid, &path).is_err()
    };
    // A directory too large to be looked through has what the rule is about.
    Ok(listing.is_cut || listing.entries.iter().any(|(name, _)| denied(name)))
}

//! DAG-PB: a node is `Data` (field 1) and `Links` (field 2, each with `Hash`,
//! `Name`, `Tsize` in fields 1 to 3). As in every implementation that others
//! run, `Data` may come before or after the links, never between them; fields
//! are not repeated, and unknown ones are refused.

use super::{BlockError, binary_link};
use crate::content::Cid;
use crate::protobuf::{Field, Reader, Value, WireError};

/// A link, with the bytes where they lie in the block.
pub(crate) struct Link<'a> {
    /// Where it points.
    pub(crate) cid: Cid,
    /// Its name, by no means always UTF-8. None where it has none.
    pub(crate) name: Option<&'a [u8]>,
}

/// What [`walk`] finds.
pub(crate) enum Part<'a> {
    Data(&'a [u8]),
    Link(Link<'a>),
}

pub(super) fn links(block: &[u8], sink: &mut dyn FnMut(Cid)) -> Result<(), BlockError> {
    walk(block, &mut |part| {
        if let Part::Link(link) = part {
            sink(link.cid);
        }
    })
}

/// Gives the parts of a node in the order of the block's bytes.
pub(crate) fn walk<'a>(block: &'a [u8], sink: &mut dyn FnMut(Part<'a>)) -> Result<(), BlockError> {
    let mut reader = Reader::new(block, 0);
    let mut have_data = false;
    let mut links_ended = false;
    let mut have_links = false;
    while let Some(field) = next(&mut reader)? {
        match (field.number, field.value) {
            (1, Value::Bytes(data, _)) if !have_data => {
                have_data = true;
                links_ended = have_links;
                sink(Part::Data(data));
            }
            (1, _) => return Err(invalid("a second or malformed Data", &field)),
            (2, Value::Bytes(bytes, at)) if !links_ended => {
                have_links = true;
                sink(Part::Link(link(bytes, at)?));
            }
            (2, _) => return Err(invalid("a Link out of place or malformed", &field)),
            _ => return Err(invalid("an unknown field", &field)),
        }
    }
    Ok(())
}

fn link(bytes: &[u8], base: usize) -> Result<Link<'_>, BlockError> {
    let mut reader = Reader::new(bytes, base);
    let mut cid = None;
    let mut name = None;
    // The number of the last field: they come in ascending order, once each.
    let mut last = 0;
    while let Some(field) = next(&mut reader)? {
        if field.number <= last {
            return Err(invalid("a link's field out of order", &field));
        }
        last = field.number;
        match (field.number, field.value) {
            (1, Value::Bytes(hash, at)) => cid = Some(binary_link(hash, at)?),
            (2, Value::Bytes(text, _)) => name = Some(text),
            (3, Value::Varint(_)) => {}
            _ => return Err(invalid("an unknown or malformed field of a link", &field)),
        }
    }
    Ok(Link { cid: cid.ok_or(BlockError::NotACid(base))?, name })
}

fn next<'a>(reader: &mut Reader<'a>) -> Result<Option<Field<'a>>, BlockError> {
    reader.next().map_err(|error| match error {
        WireError::Truncated => BlockError::Truncated,
        WireError::Invalid(at) => BlockError::Invalid { what: "malformed protobuf", at },
    })
}

fn invalid(what: &'static str, field: &Field<'_>) -> BlockError {
    BlockError::Invalid { what, at: field.at }
}

//! DAG-CBOR: CBOR with string keys and one tag, 42, around a byte string of a
//! zero byte and a binary CID.
//!
//! Indefinite lengths, other tags, keys that are not strings and simple
//! values beyond false, true, null and undefined are refused. Numbers, the
//! order of keys and the text of strings are not looked at.

use super::{BlockError, MAX_NESTING, binary_link};
use crate::content::Cid;

const LINK_TAG: u64 = 42;

/// A list or map that is open.
struct Frame {
    /// Items to come; those of a map count twice, keys and values.
    items: u64,
    is_map: bool,
}

pub(super) fn links(block: &[u8], sink: &mut dyn FnMut(Cid)) -> Result<(), BlockError> {
    let mut scanner = Scanner { block, at: 0, open: Vec::new() };
    scanner.run(sink)?;
    if scanner.at < block.len() {
        return Err(BlockError::Trailing(scanner.at));
    }
    Ok(())
}

struct Scanner<'a> {
    block: &'a [u8],
    at: usize,
    open: Vec<Frame>,
}

/// The head of an item: its major type, its argument, where it began.
struct Head {
    major: u8,
    argument: u64,
    at: usize,
}

impl Scanner<'_> {
    fn run(&mut self, sink: &mut dyn FnMut(Cid)) -> Result<(), BlockError> {
        loop {
            self.item(sink)?;
            loop {
                match self.open.last_mut() {
                    None => return Ok(()),
                    Some(frame) if frame.items == 0 => drop(self.open.pop()),
                    Some(frame) => {
                        frame.items -= 1;
                        break;
                    }
                }
            }
        }
    }

    fn item(&mut self, sink: &mut dyn FnMut(Cid)) -> Result<(), BlockError> {
        let is_key = self.next_is_key();
        let head = self.head()?;
        match head.major {
            3 => self.take(head.argument).map(drop),
            _ if is_key => Err(invalid("a map key that is not a string", head.at)),
            0 | 1 => Ok(()),
            2 => self.take(head.argument).map(drop),
            4 => self.enter(Some(head.argument), false),
            5 => self.enter(head.argument.checked_mul(2), true),
            6 => self.tag(&head, sink),
            _ => Ok(()),
        }
    }

    /// After its count was taken down, a map with an odd number of items to
    /// come is at a key.
    fn next_is_key(&self) -> bool {
        self.open.last().is_some_and(|frame| frame.is_map && frame.items % 2 == 1)
    }

    fn enter(&mut self, items: Option<u64>, is_map: bool) -> Result<(), BlockError> {
        // Every item takes a byte at least, so that a count beyond the rest
        // of the block is known to be false before anything is read.
        let rest = (self.block.len() - self.at) as u64;
        let items = items.filter(|&items| items <= rest).ok_or(BlockError::Truncated)?;
        if self.open.len() == MAX_NESTING {
            return Err(BlockError::TooDeep);
        }
        self.open.push(Frame { items, is_map });
        Ok(())
    }

    fn tag(&mut self, head: &Head, sink: &mut dyn FnMut(Cid)) -> Result<(), BlockError> {
        if head.argument != LINK_TAG {
            return Err(invalid("a tag other than 42", head.at));
        }
        let content = self.head()?;
        if content.major != 2 {
            return Err(BlockError::NotACid(content.at));
        }
        match self.take(content.argument)? {
            [0, cid @ ..] => sink(binary_link(cid, content.at)?),
            _ => return Err(BlockError::NotACid(content.at)),
        }
        Ok(())
    }

    fn head(&mut self) -> Result<Head, BlockError> {
        let at = self.at;
        let first = self.take(1)?[0];
        let (major, low) = (first >> 5, first & 0x1f);
        let argument = match low {
            0..=23 => u64::from(low),
            24..=27 => self.number(1 << (low - 24))?,
            _ => return Err(invalid("an indefinite length or a reserved value", at)),
        };
        // Of the simple values and floats (major 7), false to undefined are
        // 20 to 23, floats 25 to 27.
        if major == 7 && !(20..=23).contains(&low) && !(25..=27).contains(&low) {
            return Err(invalid("an unknown simple value", at));
        }
        Ok(Head { major, argument, at })
    }

    fn number(&mut self, length: u64) -> Result<u64, BlockError> {
        Ok(self.take(length)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn take(&mut self, length: u64) -> Result<&[u8], BlockError> {
        let rest = &self.block[self.at..];
        if length > rest.len() as u64 {
            return Err(BlockError::Truncated);
        }
        let length = length as usize;
        self.at += length;
        Ok(&rest[..length])
    }
}

fn invalid(what: &'static str, at: usize) -> BlockError {
    BlockError::Invalid { what, at }
}

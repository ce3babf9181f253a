//! Reads messages from a stream, part by part.
//!
//! [`Decoder`] does no I/O: it says where the next bytes go
//! ([`room`](Decoder::room)), is told how many came
//! ([`filled`](Decoder::filled)) and gives what is complete
//! ([`next`](Decoder::next)). A large block is read into memory of its own,
//! which grows as its bytes arrive; small parts go through a small buffer
//! that is let go between messages.

use bytes::Bytes;

use super::element::{entry, prefix, presence};
use super::field::{self, Read, Wire};
use super::growing::Growing;
use super::{Item, MAX_BLOCK, MAX_ENTRIES, MAX_MESSAGE, MAX_PRESENCES, Prefix, Tail};

/// The buffer for everything but large blocks.
const INPUT: usize = 32 << 10;

/// The longest wantlist entry or presence that is read, more than twice what
/// one with the longest CID takes. Longer ones are skipped.
const MAX_SMALL: usize = 512;

/// The longest block prefix: four varints.
const MAX_PREFIX: usize = 40;

/// Why a stream is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("a message of {0} bytes exceeds the limit of {MAX_MESSAGE}")]
    MessageTooLarge(u64),
    #[error("a block of {0} bytes exceeds the limit of {MAX_BLOCK}")]
    BlockTooLarge(usize),
    #[error("a message is not valid protobuf of Bitswap")]
    Malformed,
}

/// The part of a message that has an end of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Wantlist,
    Payload,
}

/// Reads the messages of one stream.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the current message not yet consumed; `None` before its
    /// length is known.
    message: Option<usize>,
    /// The part that is being read, and its bytes not yet consumed.
    part: Option<(Part, usize)>,
    /// Bytes to skip.
    skip: usize,
    growing: Option<Growing>,
    prefix: Option<Prefix>,
    data: Option<Bytes>,
    skipped: Option<usize>,
    tail: Tail,
}

impl Decoder {
    /// Where the next bytes go; never empty once [`next`](Self::next) has
    /// given all that was complete.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if let Some(growing) = &mut self.growing
            && self.start == self.end
            && !growing.is_complete()
        {
            return growing.room();
        }
        if self.input.is_empty() {
            self.input = vec![0; INPUT];
        }
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.input[self.end..]
    }

    /// Tells how many bytes were put into [`room`](Self::room).
    pub(crate) fn filled(&mut self, count: usize) {
        match &mut self.growing {
            Some(growing) if self.start == self.end && !growing.is_complete() => {
                growing.filled(count);
                self.consume(count);
            }
            _ => self.end += count,
        }
    }

    /// Bytes of memory held for a block that has not arrived in whole.
    pub(crate) fn held(&self) -> usize {
        self.growing.as_ref().map_or(0, Growing::held)
    }

    /// The next part that is complete, if one is. Blocks are skipped unless
    /// they are expected. After an error the stream is of no more use.
    pub(crate) fn next(&mut self, expects_blocks: bool) -> Result<Option<Item>, DecodeError> {
        loop {
            if !self.finish_pending() {
                return Ok(None);
            }
            if self.part.is_none()
                && let Some(item) = self.take_bare_block()
            {
                return Ok(Some(item));
            }
            let step = match (self.message, self.part) {
                (None, _) => self.read_length()?,
                (Some(0), None) => {
                    self.message = None;
                    self.release_idle_buffer();
                    return Ok(Some(Item::End(std::mem::take(&mut self.tail))));
                }
                (Some(_), Some((part, 0))) => {
                    self.part = None;
                    if part == Part::Payload {
                        return Ok(Some(self.end_payload()?));
                    }
                    true
                }
                (Some(_), None) => self.read_field(expects_blocks)?,
                (Some(_), Some((Part::Wantlist, left))) => self.read_wantlist_field(left)?,
                (Some(_), Some((Part::Payload, left))) => self.read_payload_field(left, expects_blocks)?,
            };
            if !step {
                return Ok(None);
            }
        }
    }

    /// Skips and copies what is due; false when more bytes are needed first.
    fn finish_pending(&mut self) -> bool {
        if self.skip > 0 {
            let count = self.skip.min(self.end - self.start);
            self.skip -= count;
            self.start += count;
            self.consume(count);
            if self.skip > 0 {
                return false;
            }
        }
        if let Some(growing) = &mut self.growing {
            let count = growing.take_from(&self.input[self.start..self.end]);
            self.start += count;
            let complete = growing.is_complete();
            self.consume(count);
            if !complete {
                return false;
            }
            self.data = self.growing.take().map(Growing::into_bytes);
        }
        true
    }

    /// Counts bytes that have left the input, or gone round it.
    fn consume(&mut self, count: usize) {
        if let Some(left) = &mut self.message {
            *left -= count;
        }
        if let Some((_, left)) = &mut self.part {
            *left -= count;
        }
    }

    fn advance(&mut self, count: usize) {
        self.start += count;
        self.consume(count);
    }

    fn available(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    /// Lets the buffer go while nothing is expected, so that thousands of idle
    /// streams cost next to nothing.
    fn release_idle_buffer(&mut self) {
        if self.start == self.end {
            self.input = Vec::new();
            (self.start, self.end) = (0, 0);
        }
    }

    fn read_length(&mut self) -> Result<bool, DecodeError> {
        match field::varint(self.available()) {
            Read::Short => Ok(false),
            Read::Malformed => Err(DecodeError::Malformed),
            Read::Done(length, used) => {
                if length > MAX_MESSAGE as u64 {
                    return Err(DecodeError::MessageTooLarge(length));
                }
                self.start += used;
                self.message = Some(length as usize);
                Ok(true)
            }
        }
    }

    /// A field's header within `left` bytes of its message, consumed; `None`
    /// when more bytes are needed. A field with a value of at most
    /// [`MAX_SMALL`] bytes, which `whole` selects, is left until it is held in
    /// whole.
    fn read_header(
        &mut self,
        left: usize,
        whole: fn(u64) -> bool,
    ) -> Result<Option<(u64, Wire)>, DecodeError> {
        let available = self.available();
        let visible = &available[..available.len().min(left)];
        let ((number, wire), used) = match field::header(visible) {
            Read::Done(header, used) => (header, used),
            Read::Short if visible.len() < left => return Ok(None),
            Read::Short | Read::Malformed => return Err(DecodeError::Malformed),
        };
        if let Wire::Bytes(length) | Wire::Fixed(length) = wire {
            if length > left - used {
                return Err(DecodeError::Malformed);
            }
            if whole(number) && length <= MAX_SMALL && visible.len() < used + length {
                return Ok(None);
            }
        }
        self.advance(used);
        Ok(Some((number, wire)))
    }

    /// A field of the message itself.
    fn read_field(&mut self, expects_blocks: bool) -> Result<bool, DecodeError> {
        let left = self.message.unwrap_or(0);
        let Some((number, wire)) = self.read_header(left, |number| number == 4)? else {
            return Ok(false);
        };
        match (number, wire) {
            (1, Wire::Bytes(length)) => self.part = Some((Part::Wantlist, length)),
            (2, Wire::Bytes(length)) => self.begin_block(length, expects_blocks)?,
            (3, Wire::Bytes(length)) => {
                (self.prefix, self.data, self.skipped) = (None, None, None);
                self.part = Some((Part::Payload, length));
            }
            (4, Wire::Bytes(length)) if length <= MAX_SMALL => {
                let presence = presence(self.small(length));
                if let Some(presence) = presence?
                    && self.tail.presences.len() < MAX_PRESENCES
                {
                    self.tail.presences.push(presence);
                }
                self.advance(length);
            }
            (_, Wire::Bytes(length) | Wire::Fixed(length)) => self.skip = length,
            (_, Wire::Varint(_)) => {}
        }
        Ok(true)
    }

    fn read_wantlist_field(&mut self, left: usize) -> Result<bool, DecodeError> {
        let Some((number, wire)) = self.read_header(left, |number| number == 1)? else {
            return Ok(false);
        };
        match (number, wire) {
            (1, Wire::Bytes(length)) if length <= MAX_SMALL => {
                let entry = entry(self.small(length));
                if let Some(entry) = entry?
                    && self.tail.wants.len() < MAX_ENTRIES
                {
                    self.tail.wants.push(entry);
                }
                self.advance(length);
            }
            (2, Wire::Varint(full)) => self.tail.full = full != 0,
            (_, Wire::Bytes(length) | Wire::Fixed(length)) => self.skip = length,
            (_, Wire::Varint(_)) => {}
        }
        Ok(true)
    }

    fn read_payload_field(&mut self, left: usize, expects_blocks: bool) -> Result<bool, DecodeError> {
        let Some((number, wire)) = self.read_header(left, |number| number == 1)? else {
            return Ok(false);
        };
        match (number, wire) {
            (1, Wire::Bytes(length)) if length <= MAX_PREFIX => {
                self.prefix = Some(prefix(self.small(length)).ok_or(DecodeError::Malformed)?);
                self.advance(length);
            }
            (1, _) => return Err(DecodeError::Malformed),
            (2, Wire::Bytes(length)) => self.begin_block(length, expects_blocks)?,
            (_, Wire::Bytes(length) | Wire::Fixed(length)) => self.skip = length,
            (_, Wire::Varint(_)) => {}
        }
        Ok(true)
    }

    /// The value of a small field that is held in whole.
    fn small(&self, length: usize) -> &[u8] {
        &self.input[self.start..self.start + length]
    }

    fn begin_block(&mut self, length: usize, expects_blocks: bool) -> Result<(), DecodeError> {
        if length > MAX_BLOCK {
            return Err(DecodeError::BlockTooLarge(length));
        }
        if !expects_blocks {
            self.skipped = Some(length);
            self.skip = length;
        } else if self.end - self.start >= length {
            self.data = Some(Bytes::copy_from_slice(self.small(length)));
            self.advance(length);
        } else {
            self.growing = Some(Growing::new(length));
        }
        Ok(())
    }

    fn end_payload(&mut self) -> Result<Item, DecodeError> {
        if let Some(length) = self.skipped.take() {
            return Ok(Item::Skipped(length));
        }
        let prefix = self.prefix.take().ok_or(DecodeError::Malformed)?;
        Ok(Item::Block { prefix, data: self.data.take().unwrap_or_default() })
    }

    /// A block of version 1.0, which is a field of the message itself.
    fn take_bare_block(&mut self) -> Option<Item> {
        if let Some(length) = self.skipped.take() {
            return Some(Item::Skipped(length));
        }
        self.data.take().map(|data| Item::Block { prefix: Prefix::V0, data })
    }
}

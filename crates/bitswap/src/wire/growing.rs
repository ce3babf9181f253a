//! Memory for a block that arrives bit by bit.

use bytes::Bytes;

/// The first allocation for a block.
const FIRST_GROWTH: usize = 64 << 10;

/// What it grows by when it is full, so that no more than this many times what
/// came is ever held, and little is copied on the way.
const GROWTH: usize = 4;

/// A block's bytes as far as they came.
#[derive(Debug)]
pub(super) struct Growing {
    data: Vec<u8>,
    filled: usize,
    length: usize,
}

impl Growing {
    pub(super) fn new(length: usize) -> Self {
        Self { data: Vec::new(), filled: 0, length }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.filled == self.length
    }

    /// The memory taken, in bytes.
    pub(super) fn held(&self) -> usize {
        self.data.len()
    }

    /// Tells how many bytes were put into [`room`](Self::room).
    pub(super) fn filled(&mut self, count: usize) {
        self.filled += count;
    }

    /// The block, once it is complete.
    pub(super) fn into_bytes(self) -> Bytes {
        self.data.into()
    }

    /// Memory for the next bytes; not empty unless complete.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.filled == self.data.len() && !self.is_complete() {
            let size = (self.filled * GROWTH).max(FIRST_GROWTH).min(self.length);
            self.data.reserve_exact(size - self.data.len());
            self.data.resize(size, 0);
        }
        &mut self.data[self.filled..]
    }

    /// Copies what belongs to the block, and answers how many bytes those are.
    pub(super) fn take_from(&mut self, input: &[u8]) -> usize {
        let mut taken = 0;
        while taken < input.len() && !self.is_complete() {
            let room = self.room();
            let count = room.len().min(input.len() - taken);
            room[..count].copy_from_slice(&input[taken..taken + count]);
            self.filled += count;
            taken += count;
        }
        taken
    }
}

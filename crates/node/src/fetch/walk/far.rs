//! The far end of the agenda, written small.
//!
//! A chain of a million blocks, each with a link behind the one that leads on,
//! leaves a million spans to come back to. Those that are needed last are kept
//! here, in some sixty bytes each instead of several hundred.

use pinfold_core::content::Cid;

/// A span with all that is known of its frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FarSpan {
    pub(super) source: Cid,
    pub(super) parent: u64,
    pub(super) depth: u32,
    pub(super) nesting: u32,
    pub(super) next: u32,
    pub(super) count: u32,
}

/// A stack of spans; the one on top is needed first.
#[derive(Default)]
pub(super) struct Far {
    bytes: Vec<u8>,
}

impl Far {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn push(&mut self, span: &FarSpan) {
        let begin = self.bytes.len();
        span.source.write_bytes(&mut self.bytes).expect("writing to a vector cannot fail");
        self.bytes.extend(span.parent.to_le_bytes());
        for number in [span.depth, span.nesting, span.next, span.count] {
            self.bytes.extend(number.to_le_bytes());
        }
        let length = u8::try_from(self.bytes.len() - begin).expect("a CID has at most 150 bytes");
        self.bytes.push(length);
    }

    pub(super) fn pop(&mut self) -> Option<FarSpan> {
        let length = usize::from(self.bytes.pop()?);
        let record = self.bytes.split_off(self.bytes.len() - length);
        // A stack that has shrunk gives memory back, and not at every step.
        if self.bytes.capacity() > 4 * self.bytes.len() + (1 << 20) {
            self.bytes.shrink_to(2 * self.bytes.len());
        }
        let (cid, numbers) = record.split_at(length - size_of::<u64>() - 4 * size_of::<u32>());
        let (parent, numbers) = numbers.split_first_chunk().expect("split above");
        let mut numbers =
            numbers.chunks_exact(4).map(|n| u32::from_le_bytes(n.try_into().expect("four bytes")));
        let mut number = || numbers.next().expect("four numbers were written");
        Some(FarSpan {
            source: Cid::read_bytes(cid).expect("written by push"),
            parent: u64::from_le_bytes(*parent),
            depth: number(),
            nesting: number(),
            next: number(),
            count: number(),
        })
    }
}

#[cfg(test)]
mod tests {
    use pinfold_core::content;

    use super::*;

    #[test]
    fn the_last_span_in_is_the_first_out() {
        let span = |depth, text: &str| FarSpan {
            source: content::parse(text).unwrap(),
            parent: u64::MAX - 1,
            depth,
            nesting: 2,
            next: 3,
            count: u32::MAX,
        };
        let spans = [
            span(1, "bafkqaaa"),
            span(2, "bafybeihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq"),
            span(3, "bafyaabakaieac"),
        ];
        let mut far = Far::default();
        spans.iter().for_each(|span| far.push(span));
        for span in spans.iter().rev() {
            assert_eq!(far.pop().as_ref(), Some(span));
        }
        assert!(far.is_empty() && far.pop().is_none());
    }
}

//! The HTTP `Range` header.
//!
//! Of several ranges the first that exists is sent alone, which RFC 9110,
//! 15.3.7 allows: no client has to be sent more than it asks for, and none
//! can make a short request into a long answer.

use std::ops::Range;

/// Ranges of one header that are looked at.
const MAX_RANGES: usize = 16;

/// What a `Range` header asks of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: no range, or one that is malformed or not of bytes.
    Whole,
    /// These bytes, never none.
    Part(Range<u64>),
    /// Nothing that exists: 416.
    Unsatisfiable,
}

/// Reads a header against a body of `length` bytes.
pub(super) fn wanted(header: Option<&str>, length: u64) -> Wanted {
    let Some(list) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    let mut found = Wanted::Unsatisfiable;
    for spec in list.split(',').take(MAX_RANGES) {
        // One malformed range makes the header as if it were not there.
        let Some(range) = one(spec, length) else { return Wanted::Whole };
        if found == Wanted::Unsatisfiable && range.start < range.end {
            found = Wanted::Part(range);
        }
    }
    found
}

fn one(spec: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = spec.trim().split_once('-')?;
    match (number(first)?, number(last)?) {
        (Some(first), Some(last)) if first <= last => Some(first..last.saturating_add(1).min(length)),
        (Some(first), None) => Some(first..length),
        (None, Some(suffix)) => Some(length.saturating_sub(suffix)..length),
        _ => None,
    }
}

/// A number, or nothing, of digits alone. One beyond 64 bits is beyond every
/// body's end.
fn number(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        let check = |header: &str, expected| assert_eq!(wanted(Some(header), 100), expected, "{header}");
        check("bytes=0-0", Wanted::Part(0..1));
        check("bytes=10-", Wanted::Part(10..100));
        check("bytes=-10", Wanted::Part(90..100));
        check("bytes=-1000", Wanted::Part(0..100));
        check("bytes=90-1000", Wanted::Part(90..100));
        check("bytes=100-", Wanted::Unsatisfiable);
        check("bytes=-0", Wanted::Unsatisfiable);
        check("bytes=6-16,0-4", Wanted::Part(6..17));
        check("bytes=200-300, 5-6", Wanted::Part(5..7));
        check("bytes=0-1,x", Wanted::Whole);
        check("bytes=5-1", Wanted::Whole);
        check("bytes=-", Wanted::Whole);
        check("bytes=+1-2", Wanted::Whole);
        check("bytes=a-b", Wanted::Whole);
        check("items=0-1", Wanted::Whole);
        check(&format!("bytes=0-{}", u64::MAX), Wanted::Part(0..100));
        check("bytes=99999999999999999999999-", Wanted::Unsatisfiable);
        check(&format!("bytes={}", "0-99,".repeat(10_000)), Wanted::Part(0..100));
        assert_eq!(wanted(None, 100), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }
}

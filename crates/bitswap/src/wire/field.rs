//! Fields of protobuf messages.

/// The most bytes of a varint of 64 bits.
const MAX_VARINT: usize = 10;

/// Wire types that Bitswap's messages use, and those that are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Varint(u64),
    /// A field of so many bytes, which follow.
    Bytes(usize),
    /// A fixed field of so many bytes, which follow.
    Fixed(usize),
}

/// What can be read at the start of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read<T> {
    /// A value, and the bytes that it took.
    Done(T, usize),
    /// The slice ends too early.
    Short,
    /// No such value.
    Malformed,
}

/// Reads a varint.
pub(crate) fn varint(bytes: &[u8]) -> Read<u64> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().take(MAX_VARINT).enumerate() {
        let low = u64::from(byte & 0x7f);
        if i == MAX_VARINT - 1 && low > 1 {
            return Read::Malformed;
        }
        value |= low << (7 * i);
        if byte & 0x80 == 0 {
            return Read::Done(value, i + 1);
        }
    }
    if bytes.len() < MAX_VARINT { Read::Short } else { Read::Malformed }
}

/// Reads a field's number and wire type, with the value of a varint and the
/// length of what is longer.
pub(crate) fn header(bytes: &[u8]) -> Read<(u64, Wire)> {
    let (tag, used) = match varint(bytes) {
        Read::Done(tag, used) => (tag, used),
        Read::Short => return Read::Short,
        Read::Malformed => return Read::Malformed,
    };
    let number = tag >> 3;
    match tag & 7 {
        1 => Read::Done((number, Wire::Fixed(8)), used),
        5 => Read::Done((number, Wire::Fixed(4)), used),
        wire @ (0 | 2) => match varint(&bytes[used..]) {
            Read::Done(value, more) if wire == 0 => Read::Done((number, Wire::Varint(value)), used + more),
            Read::Done(value, more) => match usize::try_from(value) {
                Ok(length) => Read::Done((number, Wire::Bytes(length)), used + more),
                Err(_) => Read::Malformed,
            },
            Read::Short => Read::Short,
            Read::Malformed => Read::Malformed,
        },
        _ => Read::Malformed,
    }
}

/// The value of a field in a small message that is held in whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

/// The fields of a small message that is held in whole; fixed ones are left
/// out. `None` as an item says that the message is malformed.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            let Read::Done((number, wire), used) = header(self.0) else {
                self.0 = &[];
                return Some(None);
            };
            let rest = &self.0[used..];
            let length = match wire {
                Wire::Varint(value) => {
                    self.0 = rest;
                    return Some(Some((number, Value::Varint(value))));
                }
                Wire::Bytes(length) | Wire::Fixed(length) => length,
            };
            let Some((value, rest)) = rest.split_at_checked(length) else {
                self.0 = &[];
                return Some(None);
            };
            self.0 = rest;
            if matches!(wire, Wire::Bytes(_)) {
                return Some(Some((number, Value::Bytes(value))));
            }
        }
        None
    }
}

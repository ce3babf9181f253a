//! Reading protobuf fields where they lie, without copies or allocation.

/// Why bytes are not protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// They end in the middle of a field.
    Truncated,
    /// A tag, number or length that protobuf does not allow, at this byte.
    Invalid(usize),
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire types 1 and 5, never used by what is read here.
    Fixed,
    /// Wire type 2, and the byte at which the bytes begin.
    Bytes(&'a [u8], usize),
}

/// A field and the byte at which its tag begins.
pub(crate) struct Field<'a> {
    pub(crate) number: u64,
    pub(crate) value: Value<'a>,
    pub(crate) at: usize,
}

/// Walks over the fields of a message.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where `bytes` begins in the whole, for errors.
    base: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], base: usize) -> Self {
        Self { bytes, at: 0, base }
    }

    /// The next field, none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let at = self.base + self.at;
        let tag = self.varint()?;
        // Field numbers are 29 bits, and 0 is none.
        let number = tag >> 3;
        if number == 0 || number > 0x1fff_ffff {
            return Err(WireError::Invalid(at));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.fixed(8)?,
            2 => self.bytes()?,
            5 => self.fixed(4)?,
            _ => return Err(WireError::Invalid(at)),
        };
        Ok(Some(Field { number, value, at }))
    }

    fn fixed(&mut self, length: usize) -> Result<Value<'a>, WireError> {
        self.take(length as u64)?;
        Ok(Value::Fixed)
    }

    fn bytes(&mut self) -> Result<Value<'a>, WireError> {
        let length = self.varint()?;
        let at = self.base + self.at;
        Ok(Value::Bytes(self.take(length)?, at))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], WireError> {
        let rest = &self.bytes[self.at..];
        if length > rest.len() as u64 {
            return Err(WireError::Truncated);
        }
        let length = length as usize;
        self.at += length;
        Ok(&rest[..length])
    }

    /// At most ten bytes and 64 bits. Longer writings of a number than needed
    /// are allowed, as every protobuf decoder does.
    fn varint(&mut self) -> Result<u64, WireError> {
        let start = self.at;
        varint(self.bytes, &mut self.at).map_err(|error| match error {
            WireError::Invalid(_) => WireError::Invalid(self.base + start),
            WireError::Truncated => error,
        })
    }
}

/// Reads one varint at `at` and moves `at` behind it.
pub(crate) fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, WireError> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.get(*at).ok_or(WireError::Truncated)?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return Err(WireError::Invalid(*at));
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(WireError::Invalid(*at))
}

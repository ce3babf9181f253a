//! DAG-JSON: JSON in which a map with the single key `/` is a link where its
//! value is a string, and bytes where it is `{"bytes": "…"}`.
//!
//! `/` counts where it is the first key, as in its canonical form, where it
//! precedes whatever else a map may hold. Such a map with a second key is
//! refused, as the codec's specification asks. Any other value below `/` is
//! an ordinary map.

use super::{BlockError, MAX_NESTING, accepted};
use crate::content::{self, Cid, MAX_CID_TEXT};

pub(super) fn links(block: &[u8], sink: &mut dyn FnMut(Cid)) -> Result<(), BlockError> {
    // Once for the whole block: strings then need no further check.
    let text = std::str::from_utf8(block).map_err(|error| invalid("no UTF-8", error.valid_up_to()))?;
    let mut scanner = Scanner { text: text.as_bytes(), at: 0, open: Vec::new() };
    scanner.value(sink)?;
    while !scanner.open.is_empty() {
        scanner.step(sink)?;
    }
    scanner.skip_space();
    if scanner.at < block.len() { Err(BlockError::Trailing(scanner.at)) } else { Ok(()) }
}

/// What is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    List,
    Map,
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    open: Vec<Open>,
}

impl<'a> Scanner<'a> {
    /// Behind a value inside something open: what comes next?
    fn step(&mut self, sink: &mut dyn FnMut(Cid)) -> Result<(), BlockError> {
        let Some(&open) = self.open.last() else { return Ok(()) };
        let at = self.at;
        match (self.token()?, open) {
            (b']', Open::List) | (b'}', Open::Map) => {
                self.open.pop();
                Ok(())
            }
            (b',', Open::List) => self.value(sink),
            (b',', Open::Map) => {
                self.key()?;
                self.value(sink)
            }
            _ => Err(invalid("neither a comma nor a closing bracket", at)),
        }
    }

    /// A value up to its end, or, where it is a list or map with something in
    /// it, up to the end of its first scalar.
    fn value(&mut self, sink: &mut dyn FnMut(Cid)) -> Result<(), BlockError> {
        loop {
            let at = self.skip_space();
            match self.token()? {
                b'"' => return self.string().map(drop),
                b'[' => {
                    if self.closes(b']') {
                        return Ok(());
                    }
                    self.enter(Open::List)?;
                }
                b'{' => {
                    if self.closes(b'}') || self.map(sink)? {
                        return Ok(());
                    }
                }
                b't' => return self.word(b"rue"),
                b'f' => return self.word(b"alse"),
                b'n' => return self.word(b"ull"),
                b'-' | b'0'..=b'9' => return self.number(at),
                _ => return Err(invalid("no value", at)),
            }
        }
    }

    /// Behind the bracket of a map with something in it: true when it was a
    /// link or bytes and is complete, false when its first value comes next.
    fn map(&mut self, sink: &mut dyn FnMut(Cid)) -> Result<bool, BlockError> {
        if !self.key()?.is("/") {
            self.enter(Open::Map)?;
            return Ok(false);
        }
        match self.peek() {
            Some(b'"') => return self.link(sink).map(|()| true),
            Some(b'{') if self.bytes()? => return Ok(true),
            _ => {}
        }
        self.enter(Open::Map)?;
        Ok(false)
    }

    fn link(&mut self, sink: &mut dyn FnMut(Cid)) -> Result<(), BlockError> {
        let at = self.at;
        self.at += 1;
        let text = self.string()?.decode().ok_or(BlockError::NotACid(at))?;
        if !self.closes(b'}') {
            return Err(invalid("a link with further keys", self.at));
        }
        let cid = content::parse(&text).map_err(|_| BlockError::NotACid(at))?;
        sink(accepted(cid)?);
        Ok(())
    }

    /// Behind `{"/":`, before a `{`: takes `{"bytes": "…"}}` and is true, or
    /// takes nothing.
    fn bytes(&mut self) -> Result<bool, BlockError> {
        let start = self.at;
        self.at += 1;
        if self.peek() != Some(b'"') || !self.key()?.is("bytes") || self.peek() != Some(b'"') {
            self.at = start;
            return Ok(false);
        }
        self.at += 1;
        self.string()?;
        if !self.closes(b'}') || !self.closes(b'}') {
            return Err(invalid("bytes with further keys", self.at));
        }
        Ok(true)
    }

    fn enter(&mut self, open: Open) -> Result<(), BlockError> {
        if self.open.len() == MAX_NESTING {
            return Err(BlockError::TooDeep);
        }
        self.open.push(open);
        Ok(())
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<Text<'a>, BlockError> {
        let at = self.skip_space();
        if self.token()? != b'"' {
            return Err(invalid("a map key that is not a string", at));
        }
        let key = self.string()?;
        let at = self.skip_space();
        if self.token()? != b':' {
            return Err(invalid("no colon after a map key", at));
        }
        Ok(key)
    }

    /// The rest of a string, behind its opening quote.
    fn string(&mut self) -> Result<Text<'a>, BlockError> {
        let start = self.at;
        let mut escaped = false;
        loop {
            match self.byte()? {
                b'"' => return Ok(Text { raw: &self.text[start..self.at - 1], escaped }),
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                0..=0x1f => return Err(invalid("a control character in a string", self.at - 1)),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Result<(), BlockError> {
        let at = self.at;
        match self.byte()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => (0..4).try_for_each(|_| {
                let digit = self.byte()?;
                if digit.is_ascii_hexdigit() { Ok(()) } else { Err(invalid("a malformed escape", at)) }
            }),
            _ => Err(invalid("an unknown escape", at)),
        }
    }

    /// A number whose first byte has been read.
    fn number(&mut self, at: usize) -> Result<(), BlockError> {
        self.at = at;
        if self.peek_byte() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek_byte() == Some(b'0');
        let digits = self.digits();
        if digits == 0 || (leading_zero && digits > 1) {
            return Err(invalid("a malformed number", at));
        }
        if self.peek_byte() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(invalid("a malformed number", at));
            }
        }
        if matches!(self.peek_byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek_byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(invalid("a malformed number", at));
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let count = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn word(&mut self, rest: &[u8]) -> Result<(), BlockError> {
        if !self.text[self.at..].starts_with(rest) {
            return Err(invalid("an unknown word", self.at - 1));
        }
        self.at += rest.len();
        Ok(())
    }

    /// Takes the next bracket where it is this one.
    fn closes(&mut self, bracket: u8) -> bool {
        let closes = self.peek() == Some(bracket);
        self.at += usize::from(closes);
        closes
    }

    fn token(&mut self) -> Result<u8, BlockError> {
        self.skip_space();
        self.byte()
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.peek_byte()
    }

    fn skip_space(&mut self) -> usize {
        while matches!(self.peek_byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.at
    }

    fn peek_byte(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn byte(&mut self) -> Result<u8, BlockError> {
        let byte = self.peek_byte().ok_or(BlockError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }
}

/// A string as it is written, without its quotes.
struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl Text<'_> {
    fn is(&self, word: &str) -> bool {
        if self.escaped { self.decode().as_deref() == Some(word) } else { self.raw == word.as_bytes() }
    }

    /// The string that is meant; none where it is longer than any text of
    /// interest, or holds a lone surrogate.
    fn decode(&self) -> Option<String> {
        // Each character takes up to six bytes when it is escaped.
        if self.raw.len() > 6 * MAX_CID_TEXT {
            return None;
        }
        let raw = std::str::from_utf8(self.raw).ok()?;
        if !self.escaped {
            return Some(raw.to_owned());
        }
        let mut text = String::new();
        let mut chars = raw.chars();
        while let Some(char) = chars.next() {
            text.push(if char == '\\' { unescape(&mut chars)? } else { char });
        }
        Some(text)
    }
}

fn unescape(chars: &mut std::str::Chars<'_>) -> Option<char> {
    Some(match chars.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let unit =
                chars.by_ref().take(4).try_fold(0, |unit, char| Some(unit * 16 + char.to_digit(16)?))?;
            // CIDs hold no characters that need a pair of surrogates.
            char::from_u32(unit)?
        }
        char => char,
    })
}

fn invalid(what: &'static str, at: usize) -> BlockError {
    BlockError::Invalid { what, at }
}

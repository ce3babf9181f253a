//! What the program says, on standard output and standard error.
//!
//! Names of pins, errors of an endpoint and answers of peers are words of
//! others. Whatever a terminal would act on in them is written as its escape,
//! here, for everything that leaves: tables, JSON, sentences and logs. No other
//! module prints.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use anyhow::{Context, Result};
use serde::Serialize;

/// Whether a terminal acts on it: the control characters of both sets, and
/// what turns the direction of a text or ends its line.
fn acts(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

fn escaped(text: &str, unsafe_char: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(&unsafe_char) {
        return text.into();
    }
    let safe = |c: char| if unsafe_char(c) { escape(c) } else { c.to_string() };
    text.chars().map(safe).collect::<String>().into()
}

fn in_words(c: char) -> String {
    c.escape_default().to_string()
}

/// As JSON escapes it; none of them lies beyond the first 65,536 characters.
fn in_json(c: char) -> String {
    format!("\\u{:04x}", u32::from(c))
}

/// Text of others as a part of one line.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, acts, |c| if c == '\n' { " ".into() } else { in_words(c) })
}

/// Lines of ours, in which text of others may stand.
fn safe_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| acts(c) && !matches!(c, '\n' | '\t'), in_words)
}

/// JSON with nothing in it that a terminal acts on. Outside of its strings,
/// where escapes have no place, only line ends are such, and they stay.
fn safe_json(text: &str) -> Cow<'_, str> {
    escaped(text, |c| acts(c) && c != '\n', in_json)
}

/// Prints a line on standard output.
///
/// # Errors
/// When it cannot be written, as when its reader is gone: see [`is_closed`].
pub(crate) fn print(text: &str) -> Result<()> {
    put(&safe_lines(text))
}

/// Prints one line of JSON on standard output.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    put(&safe_json(&serde_json::to_string(value)?))
}

/// Prints JSON for people on standard output.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_pretty_json(value: &impl Serialize) -> Result<()> {
    put(&safe_json(&serde_json::to_string_pretty(value)?))
}

fn put(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("cannot write to standard output")
}

/// Whether an error is that whoever read standard output has had enough, as
/// `head` has.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Says something about the work on standard error. Nothing fails where nobody
/// can hear it.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{}", safe_lines(text));
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogText {
    /// Lines for people, in a file or a pipe.
    Plain,
    /// Lines for people on a terminal, in colours that the logger chose; it
    /// escapes what others' words have of that kind.
    Coloured,
    /// A JSON object a line.
    Json,
}

/// Standard error for logs, which quote what peers and clients said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log(pub(crate) LogText);

impl Log {
    fn safe<'a>(self, text: &'a str) -> Cow<'a, str> {
        match self.0 {
            LogText::Plain => safe_lines(text),
            LogText::Coloured => escaped(text, |c| acts(c) && !matches!(c, '\n' | '\t' | '\u{1b}'), in_words),
            LogText::Json => safe_json(text),
        }
    }
}

impl Write for Log {
    /// Takes whole lines, as the logger hands them over.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        io::stderr().write_all(self.safe(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// ESC and C1 sequences, DEL, an override and an isolate of the direction,
    /// a line separator.
    const HOSTILE: &str = "a\u{1b}[31mb\u{9b}2Jc\u{7f}\u{202e}d\u{2066}e\u{2028}f";

    #[test]
    fn what_a_terminal_acts_on_is_escaped() {
        let safe = "a\\u{1b}[31mb\\u{9b}2Jc\\u{7f}\\u{202e}d\\u{2066}e\\u{2028}f";
        assert_eq!(printable(HOSTILE), safe);
        assert_eq!(safe_lines(HOSTILE), safe);
        assert_eq!(printable("zwölf\tCIDs\nmehr"), "zwölf\\tCIDs mehr");
        assert_eq!(safe_lines("zwölf\tCIDs\nمرحبا 👩‍🚀"), "zwölf\tCIDs\nمرحبا 👩‍🚀");
        for c in ('\0'..='\u{9f}').filter(|c| c.is_control()) {
            assert!(!printable(&c.to_string()).contains(c), "{c:?}");
        }
    }

    #[test]
    fn json_says_the_same_in_characters_that_do_nothing() {
        let value = json!({ "name": HOSTILE, "umlaut": "ö" });
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let safe = safe_json(&text);
            assert!(!safe.contains(|c| acts(c) && c != '\n') && safe.contains('ö'), "{safe}");
            assert_eq!(serde_json::from_str::<Value>(&safe).unwrap(), value);
        }
    }

    #[test]
    fn logs_keep_the_colours_of_the_logger_alone() {
        let line = "\u{1b}[32mINFO\u{1b}[0m \u{9b}2J\u{202e}";
        assert_eq!(Log(LogText::Coloured).safe(line), "\u{1b}[32mINFO\u{1b}[0m \\u{9b}2J\\u{202e}");
        assert_eq!(Log(LogText::Plain).safe("\u{1b}["), "\\u{1b}[");
        assert_eq!(Log(LogText::Json).safe("{\"a\":\"\u{9b}\"}\n"), "{\"a\":\"\\u009b\"}\n");
    }
}

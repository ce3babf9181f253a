//! Names of pins: what is allowed, and how filters compare.
//!
//! A name is kept as it was submitted. Comparing without case goes by its
//! folded form: NFC, full Unicode case folding, NFC again. So "STRASSE" meets
//! "straße", and an é meets an e with a combining accent. Databases store the
//! folded form beside the name and compare it byte by byte, which for UTF-8
//! is code point by code point.

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;

/// The longest name, in code points.
pub const MAX_NAME: usize = 255;

/// Why a name is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// More than [`MAX_NAME`] code points.
    #[error("the name has {0} characters; at most {MAX_NAME} are allowed")]
    TooLong(usize),
    /// U+0000, which databases cannot store in text.
    #[error("the name holds the character U+0000; leave it out")]
    Nul,
}

/// How a name filter compares: `match` in the Pinning Service API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Match {
    /// Full match, case-sensitive.
    #[default]
    Exact,
    /// Full match, ignoring case.
    Iexact,
    /// Anywhere in the name, case-sensitive.
    Partial,
    /// Anywhere in the name, ignoring case.
    Ipartial,
}

impl Match {
    /// Every way to compare.
    pub const ALL: [Self; 4] = [Self::Exact, Self::Iexact, Self::Partial, Self::Ipartial];

    /// The word of the Pinning Service API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Iexact => "iexact",
            Self::Partial => "partial",
            Self::Ipartial => "ipartial",
        }
    }

    /// The way with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.as_str() == word)
    }

    /// Whether a name passes a filter.
    #[must_use]
    pub fn matches(self, name: &str, wanted: &str) -> bool {
        match self {
            Self::Exact => name == wanted,
            Self::Partial => name.contains(wanted),
            Self::Iexact => fold(name) == fold(wanted),
            Self::Ipartial => fold(name).contains(&fold(wanted)),
        }
    }
}

/// Checks a name, or the name of a filter.
///
/// # Errors
/// When it is too long, or holds U+0000.
pub fn check(name: &str) -> Result<(), NameError> {
    if name.contains('\0') {
        return Err(NameError::Nul);
    }
    match name.chars().count() {
        length if length > MAX_NAME => Err(NameError::TooLong(length)),
        _ => Ok(()),
    }
}

/// The form in which names are compared without case. At most eighteen times
/// as many bytes as the name has: folding gives three code points for one at
/// most, and each may decompose under NFC.
#[must_use]
pub fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    name.nfc().default_case_fold().nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_ways_compare_as_their_words_say() {
        // exact, iexact, partial, ipartial
        let check = |name: &str, wanted: &str, want: [bool; 4]| {
            assert_eq!(Match::ALL.map(|way| way.matches(name, wanted)), want, "{name:?} {wanted:?}");
        };
        check("photos", "photos", [true, true, true, true]);
        check("Photos", "photos", [false, true, false, true]);
        check("My photos", "photos", [false, false, true, true]);
        check("My PHOTOS", "photos", [false, false, false, true]);
        check("photos", "videos", [false, false, false, false]);
        check("photos", "", [false, false, true, true]);
        check("50%_\\x", "%_\\", [false, false, true, true]);
        check("Straße", "STRASSE", [false, true, false, true]);
        check("ΣΊΣΥΦΟΣ", "σίσυφος", [false, true, false, true]);
        // Composed and decomposed é; the Kelvin sign; a ligature.
        check("caf\u{e9}", "cafe\u{301}", [false, true, false, true]);
        check("\u{212a}elvin", "kelvin", [false, true, false, true]);
        check("o\u{fb03}ce", "OFFICE", [false, true, false, true]);
        check("İstanbul", "i\u{307}stanbul", [false, true, false, true]);
    }

    #[test]
    fn length_is_counted_in_code_points() {
        assert_eq!(check(&"é".repeat(255)), Ok(()));
        assert_eq!(check(&"😀".repeat(256)), Err(NameError::TooLong(256)));
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("a\0b"), Err(NameError::Nul));
    }

    #[test]
    fn words_read_back() {
        for way in Match::ALL {
            assert_eq!(Match::parse(way.as_str()), Some(way));
        }
        assert_eq!(Match::parse("Exact"), None);
    }

    #[test]
    fn folding_ascii_has_no_short_cut_that_shows() {
        let ascii: String = (1_u8..128).map(char::from).collect();
        let long: String = ascii.nfc().default_case_fold().nfc().collect();
        assert_eq!(fold(&ascii), long);
    }
}

//! Denylists in the compact format of IPIP-383.
//!
//! A list is text: an optional YAML header ended by `---`, then one rule a
//! line. Rules go by multihash, whatever version, base or codec a CID is
//! written in; by path below one; or by a hash of either, so that a list can be
//! shared without being a directory of what it denies. A rule that begins with
//! `!` allows. Of all rules that match, the last one decides.
//!
//! | rule | denies |
//! |---|---|
//! | `/ipfs/CID` | the block, not the paths below it |
//! | `/ipfs/CID/path` | that path |
//! | `/ipfs/CID/*`, `/ipfs/CID/pa*` | every path that begins so; `/*` is the block too |
//! | `/ipns/NAME` and with paths | nothing here, where no names are resolved |
//! | `//MULTIHASH` | what hashes to it: base58btc multihash, `/path` behind it |
//! | `//64 hex digits` | the same with `CIDv1 in base32/path` and SHA-256 |
//!
//! A rule that cannot be read is reported with its line and left out; the
//! others hold. Hints are left aside. Empty blocks and directories are never
//! denied: applications cannot do without them, and nothing is in them.

mod key;
mod rule;

pub use rule::RuleError;

use std::collections::HashMap;

use crate::content::{Cid, Multihash};
use crate::links::Codec;
use key::{CidKeys, DoubleHash};
use rule::{PathRule, Rule, Target};

/// The longest line, in bytes with its end, as the format's specification
/// has it.
pub const MAX_LINE: usize = 2 << 20;

/// The longest header, in bytes, as the specification has it.
pub const MAX_HEADER: usize = 1 << 20;

/// The most rules of a denylist; the largest public one has half a million.
/// Each takes some 100 bytes of memory.
pub const MAX_RULES: usize = 1 << 22;

/// The most errors that are reported for one text.
pub const MAX_ERRORS: usize = 1_000;

/// The most kinds of double hashes, by function and length. Each costs one
/// hash for every CID that is looked up.
pub const MAX_DOUBLE_HASHES: usize = 8;

/// A line that was left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {error}")]
pub struct LineError {
    /// Its number, from 1.
    pub line: usize,
    /// Why.
    pub error: RuleError,
}

/// Rules, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Denylist {
    /// Rules without a path, by multihash.
    blocks: HashMap<Box<[u8]>, Mark>,
    /// Rules with paths, by multihash.
    paths: HashMap<Box<[u8]>, Vec<(PathRule, Mark)>>,
    /// Legacy double hashes: SHA-256 of `CIDv1/path`.
    legacy: HashMap<[u8; 32], Mark>,
    /// Double hashes by function and length.
    double: HashMap<DoubleHash, HashMap<Box<[u8]>, Mark>>,
    rules: u32,
}

/// What a rule says, and its place: the highest of those that match decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    place: u32,
    allows: bool,
}

impl Denylist {
    /// Reads a list. What cannot be read is left out and reported.
    ///
    /// One error is of another kind: with [`RuleError::Version`] the whole
    /// list is in a later format, and nothing of it holds.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<LineError>) {
        let mut list = Self::default();
        let errors = list.add(text);
        (list, errors)
    }

    /// Reads a further list behind what there is: its rules come later, and
    /// so decide where both match.
    pub fn add(&mut self, text: &str) -> Vec<LineError> {
        let mut errors = Vec::new();
        let header = rule::header(text);
        if let Some(error) = header.error {
            errors.push(LineError { line: 1, error });
            return errors;
        }
        for (index, line) in text[header.end..].split('\n').enumerate() {
            if let Err(error) = self.add_line(line)
                && errors.len() < MAX_ERRORS
            {
                errors.push(LineError { line: header.lines + index + 1, error });
            }
        }
        errors
    }

    /// Reads one line, which may be empty or a comment.
    ///
    /// # Errors
    /// When it is not a rule, or there are too many.
    pub fn add_line(&mut self, line: &str) -> Result<(), RuleError> {
        let Some(rule) = rule::parse(line)? else { return Ok(()) };
        if self.rules as usize >= MAX_RULES {
            return Err(RuleError::TooMany);
        }
        let mark = Mark { place: self.rules, allows: rule.allows };
        self.insert(rule, mark)?;
        self.rules += 1;
        Ok(())
    }

    fn insert(&mut self, rule: Rule, mark: Mark) -> Result<(), RuleError> {
        match rule.target {
            Target::Multihash(multihash, None) => {
                self.blocks.insert(multihash, mark);
            }
            Target::Multihash(multihash, Some(path)) => {
                self.paths.entry(multihash).or_default().push((path, mark));
            }
            Target::Name => {}
            Target::Hashed { legacy, double } => {
                if let Some((kind, digest)) = double {
                    if self.double.len() >= MAX_DOUBLE_HASHES && !self.double.contains_key(&kind) {
                        return Err(RuleError::TooManyFunctions);
                    }
                    self.double.entry(kind).or_default().insert(digest, mark);
                }
                if let Some(digest) = legacy {
                    self.legacy.insert(digest, mark);
                }
            }
        }
        Ok(())
    }

    /// The number of rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules as usize
    }

    /// Whether there are no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules == 0
    }

    /// Whether a CID, or a path below it, is denied. An empty path means the
    /// block. Slashes around the path make no difference; it is text as it
    /// is meant, not percent-encoded.
    #[must_use]
    pub fn is_denied(&self, cid: &Cid, path: &str) -> bool {
        if self.is_empty() || key::is_harmless(cid) {
            return false;
        }
        let path = path.trim_matches('/');
        let keys = CidKeys::new(cid, path);
        let multihash = cid.hash().to_bytes();
        let block = self.blocks.get(&*multihash).copied().filter(|_| path.is_empty());
        let below = self.paths.get(&*multihash).and_then(|rules| last_match(rules, path));
        let legacy = self.legacy_match(|| keys.legacy());
        let double = self.double_match(|| keys.modern());
        denies([block, below, legacy, double])
    }

    /// Whether a block with this multihash is denied by itself, under any of
    /// the codecs that are walked: where lists of blocks are compared, codecs
    /// are not known any more, and only one of the double hashes goes by them.
    #[must_use]
    pub fn is_block_denied(&self, multihash: &Multihash) -> bool {
        let codecs = if self.legacy.is_empty() { &Codec::ALL[..1] } else { &Codec::ALL[..] };
        codecs.iter().any(|codec| self.is_denied(&Cid::new_v1(codec.code(), *multihash), ""))
    }

    /// The paths below a CID that rules deny by name, with whether the rule
    /// is about everything that begins so. A later rule may allow some of
    /// them again: [`is_denied`](Self::is_denied) decides. Paths in double
    /// hashes cannot be told.
    pub fn denied_paths(&self, cid: &Cid) -> impl Iterator<Item = (&str, bool)> {
        let rules = if self.paths.is_empty() { None } else { self.paths.get(&*cid.hash().to_bytes()) };
        let denying = rules.into_iter().flatten().filter(|(_, mark)| !mark.allows);
        denying.map(|(rule, _)| rule.written())
    }

    fn legacy_match(&self, text: impl FnOnce() -> String) -> Option<Mark> {
        if self.legacy.is_empty() {
            return None;
        }
        self.legacy.get(&key::sha256(text().as_bytes())).copied()
    }

    fn double_match(&self, text: impl FnOnce() -> String) -> Option<Mark> {
        if self.double.is_empty() {
            return None;
        }
        let text = text();
        let found = self.double.iter().filter_map(|(kind, marks)| {
            let digest = kind.hash(text.as_bytes())?;
            marks.get(&*digest).copied()
        });
        found.max()
    }
}

fn last_match(rules: &[(PathRule, Mark)], path: &str) -> Option<Mark> {
    rules.iter().rev().find(|(rule, _)| rule.matches(path)).map(|(_, mark)| *mark)
}

fn denies(marks: [Option<Mark>; 4]) -> bool {
    marks.into_iter().flatten().max().is_some_and(|mark| !mark.allows)
}

#[cfg(test)]
mod tests;

//! Reading the lines of a denylist.

use percent_encoding::percent_decode_str;

use super::key::{self, DoubleHash};
use super::{MAX_DOUBLE_HASHES, MAX_HEADER, MAX_LINE, MAX_RULES};
use crate::content::Multihash;

/// Why a line is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The list's header says another version than 1: no rule of it holds.
    #[error("the list has version {0}; only version 1 can be read")]
    Version(String),
    /// The line exceeds [`MAX_LINE`].
    #[error("the line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// It begins with something else than `/ipfs/`, `/ipns/` or `//`.
    #[error("not a rule; rules begin with /ipfs/, /ipns/ or //, or with ! before these")]
    Unknown,
    /// There is no CID where one is needed.
    #[error("no valid CID or base58btc multihash follows /ipfs/")]
    Cid,
    /// There is no name where one is needed.
    #[error("no name follows /ipns/")]
    Name,
    /// The path is not percent-encoded UTF-8.
    #[error("the path is not percent-encoded UTF-8")]
    Path,
    /// Behind `//` is neither form of a double hash.
    #[error("neither a base58btc multihash of a known function nor 64 hexadecimal digits follows //")]
    DoubleHash,
    /// It denies an empty block or directory.
    #[error("this is an empty block or directory, which is never denied")]
    Harmless,
    /// [`MAX_RULES`] reached.
    #[error("there are more than {MAX_RULES} rules")]
    TooMany,
    /// [`MAX_DOUBLE_HASHES`] reached.
    #[error("double hashes use more than {MAX_DOUBLE_HASHES} functions")]
    TooManyFunctions,
}

/// A rule as it was read.
pub(super) struct Rule {
    pub(super) allows: bool,
    pub(super) target: Target,
}

/// What a rule is about.
pub(super) enum Target {
    /// A multihash, and paths below it.
    Multihash(Box<[u8]>, Option<PathRule>),
    /// An IPNS name, and paths below it.
    Name,
    /// A double hash in one of its forms, or in both where the text can be
    /// read either way.
    Hashed { legacy: Option<[u8; 32]>, double: Option<(DoubleHash, Box<[u8]>)> },
}

/// Which paths a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathRule {
    path: Box<str>,
    is_prefix: bool,
}

impl PathRule {
    /// Reads what follows a CID or a name. A star at the end means a prefix; it
    /// is looked for first, so that an encoded one is a star.
    fn parse(text: &str) -> Result<Self, RuleError> {
        let prefix = text.strip_suffix("/*").or_else(|| text.strip_suffix('*'));
        let raw = prefix.unwrap_or(text);
        let path = percent_decode_str(raw).decode_utf8().map_err(|_| RuleError::Path)?;
        Ok(Self { path: path.trim_matches('/').into(), is_prefix: prefix.is_some() })
    }

    /// The path as it is meant, and whether what begins so is meant too.
    pub(super) fn written(&self) -> (&str, bool) {
        (&self.path, self.is_prefix)
    }

    /// Whether a path, without slashes around it, is meant.
    pub(super) fn matches(&self, path: &str) -> bool {
        if self.is_prefix { path.starts_with(&*self.path) } else { path == &*self.path }
    }
}

/// Reads a line; none where it is empty or a comment.
pub(super) fn parse(line: &str) -> Result<Option<Rule>, RuleError> {
    if line.len() >= MAX_LINE {
        return Err(RuleError::TooLong);
    }
    // What follows the first space are hints.
    let Some(item) = line.split_whitespace().next() else { return Ok(None) };
    if item.starts_with('#') {
        return Ok(None);
    }
    let (allows, item) = match item.strip_prefix('!') {
        Some(item) => (true, item),
        None => (false, item),
    };
    let target = if let Some(text) = item.strip_prefix("//") {
        double_hash(text)?
    } else if let Some(text) = item.strip_prefix("/ipfs/").or_else(|| item.strip_prefix("/ipld/")) {
        multihash(text)?
    } else if let Some(text) = item.strip_prefix("/ipns/") {
        name(text)?
    } else {
        return Err(RuleError::Unknown);
    };
    Ok(Some(Rule { allows, target }))
}

fn multihash(text: &str) -> Result<Target, RuleError> {
    let (cid, path) = text.split_once('/').map_or((text, None), |(cid, path)| (cid, Some(path)));
    let multihash = key::multihash_of(cid).ok_or(RuleError::Cid)?;
    if key::is_harmless_multihash(&multihash) {
        return Err(RuleError::Harmless);
    }
    let path = path.map(PathRule::parse).transpose()?;
    let path = path.filter(|path| path.is_prefix || !path.path.is_empty());
    Ok(Target::Multihash(multihash.to_bytes().into(), path))
}

fn name(text: &str) -> Result<Target, RuleError> {
    let (name, path) = text.split_once('/').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(RuleError::Name);
    }
    PathRule::parse(path)?;
    Ok(Target::Name)
}

fn double_hash(text: &str) -> Result<Target, RuleError> {
    let legacy = key::hex32(text);
    let double = key::base58(text)
        .and_then(|bytes| Multihash::from_bytes(&bytes).ok())
        .and_then(|hash| Some((DoubleHash::of(&hash)?, hash.digest().into())));
    if legacy.is_none() && double.is_none() {
        return Err(RuleError::DoubleHash);
    }
    Ok(Target::Hashed { legacy, double })
}

/// Where a list's rules begin.
pub(super) struct Header {
    /// Byte behind the header, 0 without one.
    pub(super) end: usize,
    /// Lines of the header.
    pub(super) lines: usize,
    pub(super) error: Option<RuleError>,
}

/// Looks for a header: whatever precedes a line `---` within [`MAX_HEADER`].
///
/// Of its fields the version alone matters here, so that no YAML is read but
/// this one line. Text that has rules before the `---` has no header: rather
/// are a few lines reported as no rules than rules passed over.
pub(super) fn header(text: &str) -> Header {
    let none = Header { end: 0, lines: 0, error: None };
    let mut end = 0;
    let mut error = None;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        end += line.len();
        let line = line.trim_end();
        if end > MAX_HEADER || matches!(parse(line), Ok(Some(_))) {
            return none;
        }
        if line == "---" {
            return Header { end, lines: index + 1, error };
        }
        if let Some(value) = line.strip_prefix("version:") {
            let value = value.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']);
            error = (value != "1").then(|| RuleError::Version(value.chars().take(20).collect()));
        }
    }
    none
}

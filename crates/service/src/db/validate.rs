//! What the database refuses to hold, whoever sends it. The layers above refuse
//! most of it with a better word; here nothing gets past.

use pinfold_core::names;

use super::{
    MAX_ROWS,
    error::{Error, Result},
    types::{ListQuery, NewPin, NodeHello},
};

/// The longest CID text, in bytes: an identity CID of 128 bytes in base 2.
const MAX_CID: usize = 2_048;
/// The longest content key, in bytes.
const MAX_KEY: usize = 256;
/// The most origins of a pin.
const MAX_ORIGINS: usize = 20;
/// The most addresses of a node.
const MAX_ADDRESSES: usize = 64;
/// The longest multiaddr or URL, in bytes.
const MAX_ADDRESS: usize = 1_024;
/// The most metadata of a pin, in bytes of keys and values.
const MAX_META: usize = 64 << 10;
/// The longest rule that a command adds to the denylist, in bytes: PostgreSQL
/// indexes no more than 2,700. A file's rules may be longer.
const MAX_RULE: usize = 2_000;
/// The longest name of an account, token or key, in code points.
const MAX_NAME: usize = 255;

fn invalid<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(what.into()))
}

/// Rules for the denylist.
pub(crate) fn denylist_rules(rules: &[String]) -> Result<()> {
    if rules.len() > MAX_ROWS as usize {
        return invalid(format!("at most {MAX_ROWS} rules are added at a time"));
    }
    match rules.iter().find(|rule| rule.len() > MAX_RULE || rule.contains(['\0', '\n', '\r'])) {
        Some(rule) => {
            let start: String = rule.chars().take(64).collect();
            invalid(format!(
                "a rule is one line of at most {MAX_RULE} bytes; the one that begins with {start:?} is not; put it into a file for --denylist"
            ))
        }
        None => Ok(()),
    }
}

/// A pin.
pub(crate) fn pin(pin: &NewPin) -> Result<()> {
    if pin.cid.len() > MAX_CID || !pin.cid.is_ascii() || pin.cid.contains('\0') {
        return invalid("the CID is not a CID's text");
    }
    if pin.content.is_empty() || pin.content.len() > MAX_KEY {
        return invalid(format!("a content key has 1 to {MAX_KEY} bytes"));
    }
    if let Some(text) = &pin.name {
        names::check(text).map_err(|error| Error::Invalid(error.to_string()))?;
    }
    let meta: usize = pin.meta.iter().map(|(key, value)| key.len() + value.len()).sum();
    if meta > MAX_META {
        return invalid(format!("the metadata exceeds {MAX_META} bytes"));
    }
    if pin.origins.len() > MAX_ORIGINS || pin.origins.iter().any(|origin| origin.len() > MAX_ADDRESS) {
        return invalid(format!("a pin has at most {MAX_ORIGINS} origins of at most {MAX_ADDRESS} bytes"));
    }
    Ok(())
}

/// The filters of a list.
pub(crate) fn query(query: &ListQuery) -> Result<()> {
    if query.statuses.is_empty() {
        return invalid("a list names at least one status");
    }
    if let Some((text, _)) = &query.name {
        names::check(text).map_err(|error| Error::Invalid(error.to_string()))?;
    }
    Ok(())
}

/// A short text that people give to something.
pub(crate) fn name(text: &str, what: &str) -> Result<String> {
    if text.is_empty() || text.chars().count() > MAX_NAME || text.chars().any(char::is_control) {
        return invalid(format!("{what} has 1 to {MAX_NAME} characters, and no control characters"));
    }
    Ok(text.to_owned())
}

/// What a node says about itself.
pub(crate) fn hello(hello: &NodeHello) -> Result<()> {
    let long = |text: &String| text.len() > MAX_ADDRESS;
    if hello.addresses.len() > MAX_ADDRESSES || hello.addresses.iter().any(long) {
        return invalid(format!(
            "a node has at most {MAX_ADDRESSES} addresses of at most {MAX_ADDRESS} bytes"
        ));
    }
    if hello.gateway.as_ref().is_some_and(long) {
        return invalid(format!("a gateway's URL has at most {MAX_ADDRESS} bytes"));
    }
    Ok(())
}

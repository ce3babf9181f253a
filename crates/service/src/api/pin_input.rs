//! What clients send to be pinned: a `Pin` object, read and bounded.
//!
//! Clients differ in what they leave out: a field may be absent, null or
//! empty. Origins are hints, so they never fail a request: what is too long,
//! repeated or beyond the twentieth is left out, what cannot be dialled is kept
//! and echoed, and the node skips it.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use super::error::ApiError;

/// Code points of a name, by the specification.
pub(crate) const MAX_NAME: usize = 255;
/// Origins kept, by the specification.
pub(crate) const MAX_ORIGINS: usize = 20;
/// Bytes of one origin: the longest real multiaddrs (a WebRTC address with
/// certificate hashes through a relay) stay below 500.
const MAX_ORIGIN_BYTES: usize = 1_024;
/// Pairs of metadata, by the specification.
pub(crate) const MAX_META: usize = 1_000;
/// Bytes of all keys and values of one pin's metadata: it is stored, indexed
/// and sent with every list, a thousand pins a page.
pub(crate) const MAX_META_BYTES: usize = 16 << 10;

/// A request to pin, of at most 262,144 bytes.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PinInput {
    /// The root of the DAG to hold, a CID in any version and base.
    #[schema(example = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi")]
    pub(crate) cid: String,
    /// What the owner calls it; it can be searched for.
    #[serde(default)]
    #[schema(max_length = 255, nullable = false)]
    pub(crate) name: Option<String>,
    /// Multiaddrs of peers that have the DAG. Those that are repeated or have
    /// more than 1,024 bytes are left out, more than 20 are cut off.
    #[serde(default)]
    #[schema(max_items = 20, nullable = false)]
    pub(crate) origins: Option<Vec<String>>,
    /// Text by key, kept with the pin; pins can be listed by it. At most 1,000
    /// keys, and 16,384 bytes in all keys and values.
    #[serde(default)]
    #[schema(nullable = false)]
    pub(crate) meta: Option<BTreeMap<String, String>>,
}

impl PinInput {
    /// Reads a body.
    ///
    /// # Errors
    /// `BadRequest`, with the field and the rule that it breaks.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let pin: Self = serde_json::from_slice(body).map_err(|error| {
            ApiError::bad(format!("the body is not a pin, such as {{\"cid\":\"bafy…\"}}: {error}"))
        })?;
        if let Some(name) = &pin.name {
            check_name(name)?;
        }
        if let Some(meta) = &pin.meta {
            check_meta(meta)?;
        }
        Ok(pin)
    }

    /// The origins that are kept.
    pub(crate) fn kept_origins(&mut self) -> Vec<String> {
        let mut kept: Vec<String> = Vec::new();
        for origin in self.origins.take().unwrap_or_default() {
            let usable = !origin.is_empty() && origin.len() <= MAX_ORIGIN_BYTES && !origin.contains('\0');
            if usable && !kept.contains(&origin) {
                kept.push(origin);
            }
            if kept.len() == MAX_ORIGINS {
                break;
            }
        }
        kept
    }
}

/// Whether the text may name a pin.
///
/// # Errors
/// `BadRequest`, with the bound.
pub(crate) fn check_name(name: &str) -> Result<(), ApiError> {
    if name.contains('\0') {
        return Err(ApiError::bad("name holds the character U+0000, which is not allowed"));
    }
    if name.len() > MAX_NAME && name.chars().count() > MAX_NAME {
        return Err(ApiError::bad(format!("name is longer than {MAX_NAME} characters")));
    }
    Ok(())
}

/// Whether the pairs may be a pin's metadata.
///
/// # Errors
/// `BadRequest`, with the bound.
pub(crate) fn check_meta(meta: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if meta.len() > MAX_META {
        return Err(ApiError::bad(format!("meta has more than {MAX_META} keys")));
    }
    let bytes: usize = meta.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_META_BYTES {
        return Err(ApiError::bad(format!(
            "meta has more than {MAX_META_BYTES} bytes in its keys and values"
        )));
    }
    if meta.iter().any(|(key, value)| key.contains('\0') || value.contains('\0')) {
        return Err(ApiError::bad("meta holds the character U+0000, which is not allowed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> String {
        match PinInput::parse(body.as_bytes()) {
            Err(ApiError::BadRequest(text)) => text.into_owned(),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn empty_fields_may_be_absent_or_null() {
        for body in ["{\"cid\":\"x\"}", "{\"cid\":\"x\",\"name\":null,\"origins\":null,\"meta\":null}\n"] {
            let mut pin = PinInput::parse(body.as_bytes()).unwrap();
            assert_eq!((pin.cid.as_str(), &pin.name, &pin.meta), ("x", &None, &None));
            assert_eq!(pin.kept_origins(), Vec::<String>::new());
        }
    }

    #[test]
    fn origins_are_cut_and_never_refused() {
        let many: Vec<String> = (0..30).map(|n| format!("/ip4/10.0.0.{n}/tcp/1")).collect();
        let body = serde_json::json!({ "cid": "x", "origins": many }).to_string();
        assert_eq!(PinInput::parse(body.as_bytes()).unwrap().kept_origins(), many[..20]);
        let odd = ["", "/dns4/a", "/dns4/a", "nonsense", &"/".repeat(2_000), "a\u{0}b"];
        let body = serde_json::json!({ "cid": "x", "origins": odd }).to_string();
        assert_eq!(PinInput::parse(body.as_bytes()).unwrap().kept_origins(), ["/dns4/a", "nonsense"]);
    }

    #[test]
    fn names_have_255_code_points() {
        let body = |name: &str| serde_json::json!({ "cid": "x", "name": name }).to_string();
        assert!(PinInput::parse(body(&"𝄞".repeat(255)).as_bytes()).is_ok());
        assert!(refusal(&body(&"n".repeat(256))).contains("255"));
        assert!(refusal(&body("a\u{0}b")).contains("U+0000"));
    }

    #[test]
    fn metadata_is_bounded() {
        let pairs =
            |count: usize| (0..count).map(|n| (n.to_string(), "v".to_owned())).collect::<BTreeMap<_, _>>();
        let body =
            |meta: &BTreeMap<String, String>| serde_json::json!({ "cid": "x", "meta": meta }).to_string();
        assert!(PinInput::parse(body(&pairs(1_000)).as_bytes()).is_ok());
        assert!(refusal(&body(&pairs(1_001))).contains("1000"));
        assert!(refusal("{\"cid\":\"x\",\"meta\":{\"a\":1}}").contains("string"));
        assert!(refusal("{\"cid\":\"x\",\"meta\":{\"a\":\"\\u0000\"}}").contains("U+0000"));
        let long = BTreeMap::from([("a".to_owned(), "v".repeat(MAX_META_BYTES))]);
        assert!(refusal(&body(&long)).contains("bytes"));
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        for body in ["", "null", "[]", "{}", "{\"cid\":1}", "{\"cid\":\"x\"} x", "{\"cid\":\"\\ud800\"}"] {
            assert!(refusal(body).starts_with("the body"), "{body}");
        }
        assert!(PinInput::parse(b"{\"cid\":\"\xff\"}").is_err());
    }
}

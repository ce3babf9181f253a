//! Headers: validators, caching, file names, what other origins may read.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What a path under `/ipfs/` names never changes.
pub(super) const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=29030400, immutable");
/// Pages made here may look otherwise in a later version.
pub(super) const GENERATED: HeaderValue =
    HeaderValue::from_static("public, max-age=604800, stale-while-revalidate=2678400");
/// What is not here now may be here in a moment.
pub(super) const NEVER: HeaderValue = HeaderValue::from_static("no-store");

/// For what a browser might run, where DAGs share an origin: it runs in one of
/// its own, which nothing else is in.
pub(super) const SANDBOX: HeaderValue = HeaderValue::from_static(
    "sandbox allow-downloads allow-forms allow-modals allow-popups allow-popups-to-escape-sandbox allow-scripts",
);
/// For the pages made here: no scripts, nothing loaded, not framed.
pub(super) const PAGE: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     sandbox allow-downloads",
);

pub(super) const X_IPFS_PATH: HeaderName = HeaderName::from_static("x-ipfs-path");
pub(super) const X_IPFS_ROOTS: HeaderName = HeaderName::from_static("x-ipfs-roots");
pub(super) const SERVICE_WORKER: HeaderName = HeaderName::from_static("service-worker");

/// The longest `X-Ipfs-Roots`, in bytes: clients allow some 16 KiB for all
/// headers together. A longer one is left out.
pub(super) const MAX_ROOTS: usize = 6 << 10;
/// The longest file name that is suggested, in bytes: what file systems take.
const MAX_FILE_NAME: usize = 255;

/// What every answer has: anyone may read it, from any origin.
pub(super) fn common(headers: &mut HeaderMap) {
    let expose = "Accept-Ranges, Content-Length, Content-Location, Content-Range, ETag, X-Chunked-Output, \
                  X-Ipfs-Path, X-Ipfs-Roots, X-Stream-Output";
    let pairs = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Accept, Cache-Control, Content-Type, If-None-Match, If-Range, Range, User-Agent, X-Requested-With",
        ),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, expose),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in pairs {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// A header whose text is ours, or made safe; left out where it is not.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// Whether a list of entity tags has this one, strong or weak (RFC 9110,
/// 13.1.2).
pub(super) fn matches(list: &str, tag: &str) -> bool {
    list.split(',').map(str::trim).any(|item| item == "*" || weak(item) == weak(tag))
}

fn weak(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// `Content-Disposition` with a name in ASCII, and in UTF-8 where that says
/// more (RFC 6266).
pub(super) fn disposition(kind: &str, name: &str) -> String {
    let name = safe(name);
    let ascii: String = name.chars().map(|char| if char.is_ascii() { char } else { '_' }).collect();
    let mut text = format!("{kind}; filename=\"{ascii}\"");
    if ascii != name {
        text.push_str("; filename*=UTF-8''");
        text.push_str(&super::path::encode(&name));
    }
    text
}

/// A name that fits into quotes and is no path.
fn safe(name: &str) -> String {
    let mut safe = String::new();
    for char in name.chars() {
        let char = if char.is_control() || "\"\\/".contains(char) { '_' } else { char };
        if safe.len() + char.len_utf8() > MAX_FILE_NAME {
            break;
        }
        safe.push(char);
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_compared_weakly() {
        let check = |list, expected| assert_eq!(matches(list, "\"a.raw\""), expected, "{list}");
        check("\"a.raw\"", true);
        check("W/\"a.raw\"", true);
        check("\"x\", \"y\",\"a.raw\"", true);
        check("*", true);
        check("\"a\"", false);
        check("a.raw", false);
        check("", false);
        assert!(matches("\"c\"", "W/\"c\""));
    }

    #[test]
    fn file_names_are_made_safe() {
        let check = |name: &str, expected: &str| assert_eq!(disposition("inline", name), expected, "{name}");
        check("a b.txt", "inline; filename=\"a b.txt\"");
        check("\"\r\n/../x\\", "inline; filename=\"____.._x_\"");
        check(
            "testтест.pdf",
            "inline; filename=\"test____.pdf\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.pdf",
        );
        assert!(disposition("inline", &"é".repeat(10_000)).len() < 1_200);
    }
}

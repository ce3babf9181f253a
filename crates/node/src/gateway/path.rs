//! Which content a request names: by path, or by the host where each DAG has
//! its own origin.

use cid::multibase::Base;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use pinfold_core::content::{self, Cid};

/// Segments that a path may have: directories nested deeper are read as CARs.
const MAX_SEGMENTS: usize = 128;
/// The longest label of a host name (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;
/// What may stand as it is in a path's segment (RFC 3986, 3.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A root and the names below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContentPath {
    pub(super) root: Cid,
    /// The root as the client wrote it.
    pub(super) text: String,
    pub(super) segments: Vec<String>,
    /// Whether the path ends in `/`, as a directory's should.
    pub(super) trailing_slash: bool,
    /// Whether the DAG has an origin of its own, so that `/` is its root.
    pub(super) is_origin: bool,
}

impl ContentPath {
    /// `/ipfs/CID/a/b`, percent-encoded, with its trailing slash.
    pub(super) fn named(&self) -> String {
        self.below(format!("/ipfs/{}", self.text), self.trailing_slash)
    }

    /// The same as a path of this origin.
    pub(super) fn local(&self) -> String {
        self.below(self.prefix(), self.trailing_slash)
    }

    /// The same as a path of this origin, with a trailing slash.
    pub(super) fn directory(&self) -> String {
        self.below(self.prefix(), true)
    }

    /// What precedes a path below the root at this origin.
    fn prefix(&self) -> String {
        if self.is_origin { String::new() } else { format!("/ipfs/{}", self.text) }
    }

    fn below(&self, prefix: String, slash: bool) -> String {
        let mut path = self.segments.iter().fold(prefix, |path, segment| path + "/" + &encode(segment));
        if slash {
            path.push('/');
        }
        path
    }

    /// The last name, if there is one.
    pub(super) fn file_name(&self) -> Option<&str> {
        self.segments.last().map(String::as_str)
    }
}

/// What a request's host and path come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Serve this.
    Content(ContentPath),
    /// The same content at its own origin: `//HOST/PATH`.
    Redirect(String),
    /// Neither a content path nor a host of the gateway's domain.
    NotFound,
    /// The CID cannot be read; the text goes to the client.
    Invalid(String),
}

/// Reads a request. `domain` is the gateway's domain, in lower case, where
/// each DAG has its own origin; `host` the request's, with its port. Bytes
/// that no browser renders are served from the domain itself too.
pub(super) fn target(domain: Option<&str>, host: &str, path: &str, is_rendered: bool) -> Target {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, format!(":{port}")),
        _ => (host, String::new()),
    };
    let name = name.to_ascii_lowercase();
    let site = Site { domain, port: &port };
    if let Some(label) = domain.and_then(|domain| name.strip_suffix(domain)?.strip_suffix(".ipfs.")) {
        return site.origin(label, path);
    }
    let Some(rest) = path.strip_prefix("/ipfs/") else { return Target::NotFound };
    let (root, rest) = rest.split_once('/').map_or((rest, None), |(root, rest)| (root, Some(rest)));
    let slash = rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
    match content_path(root, rest.unwrap_or_default(), slash, false) {
        Target::Content(content) if is_rendered && Some(name.as_str()) == domain => {
            site.redirect(&content.root, rest.unwrap_or_default())
        }
        found => found,
    }
}

/// The path of an `ipfs://` URI, which browsers hand over where this gateway
/// is registered for them; none where it names no CID.
pub(super) fn of_uri(uri: &str) -> Option<String> {
    let rest = uri.strip_prefix("ipfs://")?;
    let root = rest.split(['/', '?', '#']).next().unwrap_or_default();
    content::parse(root).ok()?;
    // What the URI has encoded stays so.
    Some(format!("/ipfs/{}", utf8_percent_encode(rest, CONTROLS)))
}

/// The gateway's domain as the client reached it.
struct Site<'a> {
    domain: Option<&'a str>,
    port: &'a str,
}

impl Site<'_> {
    /// A path at a DAG's own origin.
    fn origin(&self, label: &str, path: &str) -> Target {
        let rest = path.strip_prefix('/').unwrap_or(path);
        match content_path(label, rest, rest.is_empty() || rest.ends_with('/'), true) {
            // One origin for one DAG, whatever its CID is written in.
            Target::Content(content) => match host_label(&content.root) {
                Ok(canonical) if canonical == label => Target::Content(content),
                Ok(_) => self.redirect(&content.root, rest),
                Err(error) => Target::Invalid(error),
            },
            other => other,
        }
    }

    fn redirect(&self, root: &Cid, rest: &str) -> Target {
        match host_label(root) {
            Ok(label) => {
                let domain = self.domain.unwrap_or_default();
                Target::Redirect(format!("//{label}.ipfs.{domain}{}/{rest}", self.port))
            }
            Err(error) => Target::Invalid(error),
        }
    }
}

fn content_path(root: &str, rest: &str, trailing_slash: bool, is_origin: bool) -> Target {
    let cid = match content::parse(root) {
        Ok(cid) => cid,
        Err(error) => {
            let shown: String = root.chars().take(128).collect();
            return Target::Invalid(format!("invalid path \"/ipfs/{shown}\": {error}"));
        }
    };
    let segments: Option<Vec<String>> = rest
        .split('/')
        .filter(|segment| !segment.is_empty())
        .take(MAX_SEGMENTS + 1)
        .map(|segment| percent_decode_str(segment).decode_utf8().ok().map(Into::into))
        .collect();
    match segments {
        Some(segments) if segments.len() <= MAX_SEGMENTS => Target::Content(ContentPath {
            root: cid,
            text: root.to_owned(),
            segments,
            trailing_slash,
            is_origin,
        }),
        Some(_) => Target::Invalid(format!("the path has more than {MAX_SEGMENTS} segments")),
        None => Target::Invalid("the path is not UTF-8".into()),
    }
}

/// The label of a DAG's own host: CIDv1 in base32, or in base36 where that
/// makes it too long.
fn host_label(root: &Cid) -> Result<String, String> {
    let v1 = Cid::new_v1(root.codec(), *root.hash());
    [Base::Base32Lower, Base::Base36Lower]
        .into_iter()
        .filter_map(|base| v1.to_string_of_base(base).ok())
        .find(|label| label.len() <= MAX_LABEL)
        .ok_or_else(|| {
            format!(
                "CID incompatible with DNS label length limit of {MAX_LABEL}: {v1}; \
                 ask for it with format=raw or format=car"
            )
        })
}

/// One segment, percent-encoded.
pub(super) fn encode(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V0: &str = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG";
    const V1: &str = "bafybeie5nqv6kd3qnfjupgvz34woh3oksc3iau6abmyajn7qvtf6d2ho34";

    fn content(domain: Option<&str>, host: &str, path: &str) -> ContentPath {
        match target(domain, host, path, true) {
            Target::Content(content) => content,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_are_decoded_by_segment() {
        let check = |path: &str, names: &[&str], slash, named: &str| {
            let content = content(None, "127.0.0.1:8071", &format!("/ipfs/{V0}{path}"));
            assert_eq!(
                (&content.segments[..], content.trailing_slash),
                (&names.map_owned()[..], slash),
                "{path}"
            );
            assert_eq!(content.named(), format!("/ipfs/{V0}{named}"));
        };
        check("", &[], false, "");
        check("/", &[], true, "/");
        check("/a/b%20c", &["a", "b c"], false, "/a/b%20c");
        check("/a%2Fb/", &["a/b"], true, "/a%2Fb/");
        check("//a", &["a"], false, "/a");
        check("/%252C+", &["%2C+"], false, "/%252C%2B");
        check("/ą", &["ą"], false, "/%C4%85");
    }

    trait Owned {
        fn map_owned(&self) -> Vec<String>;
    }

    impl Owned for [&str] {
        fn map_owned(&self) -> Vec<String> {
            self.iter().map(|name| (*name).to_owned()).collect()
        }
    }

    #[test]
    fn each_dag_has_its_own_origin_where_there_is_a_domain() {
        let domain = Some("dweb.example");
        let at = |host: &str, path: &str| target(domain, host, path, true);
        let redirect = |path: &str| Target::Redirect(format!("//{V1}.ipfs.dweb.example:8071/{path}"));
        assert_eq!(at("Dweb.example:8071", &format!("/ipfs/{V0}/a%20/")), redirect("a%20/"));
        assert_eq!(at("dweb.example:8071", &format!("/ipfs/{V1}")), redirect(""));
        let base36 = content::parse(V1).expect("a CID").to_string_of_base(Base::Base36Lower).expect("base36");
        assert_eq!(at(&format!("{base36}.ipfs.dweb.example:8071"), "/a"), redirect("a"));
        let found = content(domain, &format!("{V1}.ipfs.dweb.example"), "/ipfs/b");
        assert_eq!((found.segments.join(" "), found.directory()), ("ipfs b".into(), "/ipfs/b/".into()));
        assert_eq!(found.named(), format!("/ipfs/{V1}/ipfs/b"));
        assert!(content(domain, &format!("{V1}.ipfs.dweb.example"), "/").trailing_slash);
        let found = content(domain, "127.0.0.1:8071", &format!("/ipfs/{V0}"));
        assert!(!found.is_origin);
        let raw = target(domain, "dweb.example", &format!("/ipfs/{V0}"), false);
        assert!(matches!(raw, Target::Content(_)));
        assert_eq!(at("other.example", "/"), Target::NotFound);
        assert_eq!(at("dweb.example", "/"), Target::NotFound);
        assert!(matches!(at("nonsense.ipfs.dweb.example", "/"), Target::Invalid(_)));
        let name = format!("evil-{V1}.ipfs.dweb.example.evil.example");
        assert_eq!(at(&name, "/"), Target::NotFound);
    }

    #[test]
    fn uris_become_paths() {
        let path = format!("/ipfs/{V0}/wiki/a%20ą?b#c");
        assert_eq!(of_uri(&format!("ipfs:/{}", &path[5..])), Some(path.replace('ą', "%C4%85")));
        assert_eq!(of_uri(&format!("ipfs://{V1}")), Some(format!("/ipfs/{V1}")));
        for none in [
            "",
            "ipfs://",
            "ipfs:///x",
            "ipfs://nonsense/x",
            &format!("https://{V0}"),
            &format!("/ipfs/{V0}"),
        ] {
            assert_eq!(of_uri(none), None, "{none}");
        }
    }

    #[test]
    fn a_cid_too_long_for_a_host_says_so() {
        let multihash = pinfold_core::hash::multihash(0x13, b"x").expect("SHA-512");
        let long = Cid::new_v1(0x55, multihash).to_string();
        let check = |host: &str, path: &str| match target(Some("d.example"), host, path, true) {
            Target::Invalid(text) => assert!(text.contains("DNS label length limit of 63"), "{text}"),
            other => panic!("{other:?}"),
        };
        check("d.example", &format!("/ipfs/{long}/"));
        check(&format!("{long}.ipfs.d.example"), "/");
    }

    #[test]
    fn hostile_paths_are_refused() {
        for path in
            ["/ipfs/nonsense", "/ipfs/", &format!("/ipfs/{}", "b".repeat(1000)), &format!("/ipfs/{V0}/%ff")]
        {
            assert!(matches!(target(None, "h", path, true), Target::Invalid(_)), "{path}");
        }
        let deep = format!("/ipfs/{V0}{}", "/a".repeat(MAX_SEGMENTS + 1));
        assert!(matches!(target(None, "h", &deep, true), Target::Invalid(_)));
    }
}

//! The index page of a directory.
//!
//! Names and CIDs alone, so that no child is read. The page has no scripts,
//! loads nothing, and every text in it is escaped.

use std::fmt::Write;

use pinfold_core::{content::Cid, unixfs::Node};

use super::{
    path::{ContentPath, encode},
    source::{Source, Unserved},
};

/// Entries that are listed. What is more is said.
const MAX_LISTED: usize = 10_000;
/// Shards of a directory that are read for one page: with the usual fanout
/// they hold more entries than are listed.
const MAX_SHARDS: usize = 1_024;
/// Changes with the look of the page, so that caches drop the old one.
pub(super) const VERSION: &str = "1";

/// The names of a directory, as far as they are listed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) entries: Vec<(String, Cid)>,
    /// There are more.
    pub(super) is_cut: bool,
}

/// Reads the entries of a directory, those of its shards included.
///
/// # Errors
/// When a shard is missing, denied or invalid.
pub(super) fn list(source: &Source, directory: Node) -> Result<Listing, Unserved> {
    let mut listing = Listing::default();
    let root = match directory {
        Node::Directory(directory) => {
            let entries = directory.entries().iter().map(|entry| (&*entry.name, &entry.cid));
            listing.extend(entries);
            return Ok(listing);
        }
        Node::Shard(shard) => shard,
        Node::File(_) | Node::Symlink(_) => return Ok(listing),
    };
    listing.extend(root.entries());
    let mut shards: Vec<Cid> = root.shards().copied().collect();
    drop(root);
    let mut read = 0;
    while let Some(cid) = shards.pop() {
        if listing.is_cut || read == MAX_SHARDS {
            listing.is_cut = true;
            break;
        }
        read += 1;
        let Node::Shard(shard) = source.node(&cid)? else {
            return Err(Unserved::Undecodable {
                cid: Box::new(cid),
                reason: "it is no shard of a directory".into(),
            });
        };
        listing.extend(shard.entries());
        // No more than are read at all need to wait.
        shards.extend(shard.shards().take(MAX_SHARDS));
    }
    // Shards are in the order of their hashes, which says nothing to anyone.
    listing.entries.sort();
    Ok(listing)
}

impl Listing {
    fn extend<'a>(&mut self, entries: impl Iterator<Item = (&'a [u8], &'a Cid)>) {
        for (name, cid) in entries {
            if self.entries.len() == MAX_LISTED {
                self.is_cut = true;
                return;
            }
            self.entries.push((String::from_utf8_lossy(name).into_owned(), *cid));
        }
    }
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#1b1f24;background:#fff}h1{font-size:1.1rem;font-weight:600;overflow-wrap:anywhere}\
table{border-collapse:collapse;width:100%}td{padding:.3rem .5rem;border-top:1px solid #e3e6ea;overflow-wrap:anywhere}\
td:last-child{text-align:right;white-space:nowrap;font:13px ui-monospace,monospace}a{color:#0a58ca;text-decoration:none}\
a:hover{text-decoration:underline}p{color:#57606a}\
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}td{border-color:#30363d}a{color:#58a6ff}}";

/// The page of a directory at a path. `gateway` is the gateway's own host,
/// `//HOST`, where the path's is the DAG's; empty otherwise.
pub(super) fn page(path: &ContentPath, gateway: &str, listing: &Listing) -> String {
    let title = escape(&format!("/ipfs/{}{}", path.text, join(&path.segments)));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><h1>Index of {}</h1><table>\n",
        crumbs(path, gateway)
    );
    let here = path.directory();
    if !path.segments.is_empty() {
        let _ = writeln!(page, "<tr><td><a href=\"{here}..\">..</a></td><td></td></tr>");
    }
    for (name, cid) in &listing.entries {
        row(&mut page, &here, gateway, name, cid);
    }
    page.push_str("</table>\n");
    if listing.is_cut {
        let shown = listing.entries.len();
        let _ = write!(
            page,
            "<p>There are more than these {shown} entries. Ask for <code>?format=car&amp;dag-scope=entity</code> to have them all.</p>"
        );
    }
    page.push_str("</body></html>\n");
    page
}

fn row(page: &mut String, here: &str, gateway: &str, name: &str, cid: &Cid) {
    let (text, encoded, cid) = (escape(name), encode(name), cid.to_string());
    let _ = writeln!(
        page,
        "<tr><td><a href=\"{here}{encoded}\">{text}</a></td><td><a class=\"ipfs-hash\" translate=\"no\" \
         href=\"{gateway}/ipfs/{cid}?filename={encoded}\">{}</a></td></tr>",
        short(&cid)
    );
}

/// The path with a link for each of its names.
fn crumbs(path: &ContentPath, gateway: &str) -> String {
    let mut href = format!("{gateway}/ipfs/{}", path.text);
    let mut crumbs = format!("/ipfs/<a href=\"{href}\">{}</a>", escape(&path.text));
    for name in &path.segments {
        href = href + "/" + &encode(name);
        let _ = write!(crumbs, "/<a href=\"{href}\">{}</a>", escape(name));
    }
    crumbs
}

fn join(names: &[String]) -> String {
    names.iter().fold(String::new(), |path, name| path + "/" + name)
}

/// A CID by its ends. CIDs are ASCII.
fn short(cid: &str) -> String {
    if cid.len() <= 14 { cid.to_owned() } else { format!("{}…{}", &cid[..4], &cid[cid.len() - 6..]) }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_text() {
        let root = pinfold_core::content::parse("bafkqaaa").expect("a CID");
        let name = "\"><script>alert('&')</script>";
        let path = ContentPath {
            root,
            text: "bafkqaaa".into(),
            segments: vec![name.into()],
            trailing_slash: true,
            is_origin: false,
        };
        let listing =
            Listing { entries: vec![(name.into(), root), ("javascript:x".into(), root)], is_cut: true };
        let page = page(&path, "", &listing);
        assert!(!page.contains("<script") && !page.contains("alert('"));
        assert!(page.contains("&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)"));
        assert!(page.contains(
            "href=\"/ipfs/bafkqaaa/%22%3E%3Cscript%3Ealert%28%27%26%27%29%3C%2Fscript%3E/javascript%3Ax\""
        ));
        assert!(page.contains("more than these 2 entries"));
    }
}

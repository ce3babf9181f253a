//! The media type of a file: by its name's extension, else by how it begins.

/// Bytes of a file that are looked at.
pub(super) const SNIFFED: usize = 3_072;

/// What cannot be told.
pub(super) const BYTES: &str = "application/octet-stream";

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const XML: &str = "text/xml; charset=utf-8";

/// Extensions in lower case, sorted.
const BY_EXTENSION: &[(&str, &str)] = &[
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("apk", "application/vnd.android.package-archive"),
    ("apng", "image/apng"),
    ("avi", "video/x-msvideo"),
    ("avif", "image/avif"),
    ("bin", BYTES),
    ("bmp", "image/bmp"),
    ("bz2", "application/x-bzip2"),
    ("c", TEXT),
    ("car", "application/vnd.ipld.car"),
    ("cbor", "application/cbor"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("eot", "application/vnd.ms-fontobject"),
    ("epub", "application/epub+zip"),
    ("flac", "audio/flac"),
    ("geojson", "application/geo+json"),
    ("gif", "image/gif"),
    ("glb", "model/gltf-binary"),
    ("gltf", "model/gltf+json"),
    ("go", TEXT),
    ("gz", "application/gzip"),
    ("htm", HTML),
    ("html", HTML),
    ("ico", "image/x-icon"),
    ("ics", "text/calendar; charset=utf-8"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", JSON),
    ("jsonld", "application/ld+json"),
    ("jxl", "image/jxl"),
    ("log", TEXT),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("map", JSON),
    ("md", "text/markdown; charset=utf-8"),
    ("mid", "audio/midi"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpd", "application/dash+xml"),
    ("mpeg", "video/mpeg"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("py", TEXT),
    ("rar", "application/vnd.rar"),
    ("rs", TEXT),
    ("rss", "application/rss+xml"),
    ("rtf", "application/rtf"),
    ("sh", TEXT),
    ("sol", TEXT),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("toml", TEXT),
    ("ts", "video/mp2t"),
    ("ttf", "font/ttf"),
    ("txt", TEXT),
    ("vtt", "text/vtt; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", XML),
    ("xz", "application/x-xz"),
    ("yaml", TEXT),
    ("yml", TEXT),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// The type that a name's extension says.
pub(super) fn by_name(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    let extension = extension.to_ascii_lowercase();
    let found = BY_EXTENSION.binary_search_by_key(&extension.as_str(), |(known, _)| known).ok()?;
    Some(BY_EXTENSION[found].1)
}

/// How files of a type begin: the offset and the bytes there.
const BY_MAGIC: &[(usize, &[u8], &str)] = &[
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftypqt", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1a\x45\xdf\xa3", "video/webm"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"\0asm", "application/wasm"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"wOFF", "font/woff"),
    (0, b"wOF2", "font/woff2"),
];

/// The type that the first bytes of a file suggest; `is_all` where there are
/// no more.
pub(super) fn sniff(first: &[u8], is_all: bool) -> &'static str {
    let magic =
        BY_MAGIC.iter().find(|(at, bytes, _)| first.get(*at..).is_some_and(|rest| rest.starts_with(bytes)));
    if let Some((.., media_type)) = magic {
        return media_type;
    }
    if !is_text(first, is_all) {
        return BYTES;
    }
    let start = first.trim_ascii_start();
    let begins = |tag: &[u8]| start.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
    if begins(b"<!doctype html") || begins(b"<html") || begins(b"<head") || begins(b"<body") {
        HTML
    } else if begins(b"<svg") {
        "image/svg+xml"
    } else if begins(b"<?xml") {
        if first.windows(4).any(|part| part == b"<svg") { "image/svg+xml" } else { XML }
    } else if is_all && matches!(start.first(), Some(b'{' | b'[')) && is_json(first) {
        JSON
    } else {
        TEXT
    }
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

/// Whether it is UTF-8, perhaps cut in a character, without control characters
/// that no text has.
fn is_text(first: &[u8], is_all: bool) -> bool {
    let is_utf8 = match std::str::from_utf8(first) {
        Ok(_) => true,
        Err(error) => !is_all && error.error_len().is_none(),
    };
    is_utf8 && !first.iter().any(|byte| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f))
}

/// Whether a browser shows this type without ever running scripts in it.
pub(super) fn is_passive(media_type: &str) -> bool {
    let kind = media_type.split(';').next().unwrap_or_default();
    let (family, name) = kind.split_once('/').unwrap_or_default();
    match family {
        "image" => name != "svg+xml",
        "audio" | "video" | "font" => true,
        "text" => matches!(name, "plain" | "css" | "csv" | "javascript" | "markdown" | "vtt" | "calendar"),
        _ => matches!(name, "json" | "pdf" | "octet-stream" | "wasm" | "zip" | "gzip"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_by_extension() {
        assert!(BY_EXTENSION.is_sorted_by_key(|(extension, _)| *extension));
        let check = |name, expected| assert_eq!(by_name(name), expected, "{name}");
        check("a.html", Some(HTML));
        check("A.B.PNG", Some("image/png"));
        check("a.tar.gz", Some("application/gzip"));
        check("README", None);
        check(".", None);
        check("a.unknown", None);
    }

    #[test]
    fn first_bytes_are_sniffed() {
        let check = |bytes: &[u8], expected| assert_eq!(sniff(bytes, true), expected, "{bytes:?}");
        check(b"hello\n", TEXT);
        check(b"", TEXT);
        check(b"\0\x01", BYTES);
        check(b"  <!DOCTYPE HTML><p>", HTML);
        check(b"<?xml version='1.0'?><svg/>", "image/svg+xml");
        check(b"<?xml version='1.0'?><a/>", XML);
        check(b"{\"a\": [1]}", JSON);
        check(b"{a}", TEXT);
        check(b"\x89PNG\r\n\x1a\n\0", "image/png");
        check(b"RIFF....WEBPVP8", "image/webp");
        check(b"\xc4", BYTES);
        assert_eq!(sniff(b"abc\xc4", false), TEXT);
    }

    #[test]
    fn what_may_run_scripts_is_not_passive() {
        for active in [HTML, XML, "image/svg+xml", "application/xhtml+xml", "application/rss+xml", "x"] {
            assert!(!is_passive(active), "{active}");
        }
        for passive in [TEXT, JSON, BYTES, "image/png", "video/mp4", "application/pdf"] {
            assert!(is_passive(passive), "{passive}");
        }
    }
}

//! What a request asks for: a block, a CAR, a document, or the file or
//! directory itself.
//!
//! Source: the trustless and path gateway specifications, "HTTP Request". The
//! `format` query parameter comes before the `Accept` header, and
//! `car-version`, `car-order` and `car-dups` before the content type's
//! parameters.

use std::{fmt, ops::Range};

/// The content type of a block.
pub(super) const RAW: &str = "application/vnd.ipld.raw";
/// The content type of a CAR, without parameters.
pub(super) const CAR: &str = "application/vnd.ipld.car";

/// Entries of `Accept` headers that are looked at; browsers send about eight.
const MAX_ACCEPTED: usize = 32;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One block as it is.
    Raw,
    /// A stream of blocks.
    Car(Car),
    /// A block of this codec, or nothing.
    Document(Document),
    /// A file's bytes, or a directory's index page.
    Deserialized,
}

impl Format {
    /// A word for metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Car(_) => "car",
            Self::Document(_) => "document",
            Self::Deserialized => "deserialized",
        }
    }
}

/// Codecs whose blocks are documents of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Document {
    DagJson,
    DagCbor,
    Json,
    Cbor,
}

impl Document {
    const ALL: [Self; 4] = [Self::DagJson, Self::DagCbor, Self::Json, Self::Cbor];

    /// The document that a block of this codec is.
    pub(super) fn of(codec: u64) -> Option<Self> {
        match codec {
            0x0129 => Some(Self::DagJson),
            0x71 => Some(Self::DagCbor),
            0x0200 => Some(Self::Json),
            0x51 => Some(Self::Cbor),
            _ => None,
        }
    }

    /// Whether its bytes may be sent as those of `other`: every DAG-JSON is
    /// JSON, every DAG-CBOR is CBOR.
    pub(super) fn is_also(self, other: Self) -> bool {
        self == other || matches!((self, other), (Self::DagJson, Self::Json) | (Self::DagCbor, Self::Cbor))
    }

    /// Its name as a format, which ends its ETag too.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::DagJson => "dag-json",
            Self::DagCbor => "dag-cbor",
            Self::Json => "json",
            Self::Cbor => "cbor",
        }
    }

    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::DagJson => "application/vnd.ipld.dag-json",
            Self::DagCbor => "application/vnd.ipld.dag-cbor",
            Self::Json => "application/json",
            Self::Cbor => "application/cbor",
        }
    }

    /// What its file name ends in.
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::DagJson | Self::Json => "json",
            Self::DagCbor | Self::Cbor => "cbor",
        }
    }
}

/// How blocks are put into a CAR. Version 1 and depth-first order are the
/// only ones; an `order=unk` is satisfied by them too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Car {
    /// Whether a block is sent each time that the walk meets it.
    pub(super) dups: bool,
    pub(super) scope: Scope,
}

impl Car {
    pub(super) fn media_type(self) -> String {
        format!("{CAR}; version=1; order=dfs; dups={}", self.dups_text())
    }

    pub(super) fn dups_text(self) -> &'static str {
        if self.dups { "y" } else { "n" }
    }
}

/// Which blocks follow those of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The last block alone.
    Block,
    /// What reading the file, or listing the directory, needs; for a file
    /// perhaps a range of it.
    Entity(Option<EntityBytes>),
    /// The whole DAG below.
    All,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block => f.write_str("block"),
            Self::Entity(None) => f.write_str("entity"),
            Self::Entity(Some(EntityBytes { from, to: Some(to) })) => write!(f, "entity.{from}:{to}"),
            Self::Entity(Some(EntityBytes { from, to: None })) => write!(f, "entity.{from}:*"),
            Self::All => f.write_str("all"),
        }
    }
}

/// `entity-bytes=from:to`, both inclusive, negative ones from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntityBytes {
    pub(super) from: i64,
    /// None: to the end.
    pub(super) to: Option<i64>,
}

impl EntityBytes {
    /// The bytes meant in a file of this length, end exclusive; empty where
    /// nothing of the file is meant.
    pub(super) fn resolve(self, length: u64) -> Range<u64> {
        let length = i128::from(length);
        let absolute = |at: i64| if at < 0 { length + i128::from(at) } else { i128::from(at) };
        let start = absolute(self.from).clamp(0, length);
        let end = self.to.map_or(length, |to| absolute(to) + 1).clamp(start, length);
        // Both lie within 0..=length, which was a u64.
        u64::try_from(start).unwrap_or(0)..u64::try_from(end).unwrap_or(0)
    }
}

/// A request for a form that does not exist. The text goes to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadFormat(pub(super) String);

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Negotiated {
    pub(super) format: Format,
    /// The `Accept` header named a form that is offered, and the URL alone
    /// would not give the same: the answer names one that does.
    pub(super) by_accept: bool,
    /// The URL asked for the form: another one is an error then, where an
    /// `Accept` header is a wish.
    pub(super) by_url: bool,
}

/// Reads the form from the query's pairs and the `Accept` headers.
pub(super) fn negotiate(query: &[(String, String)], accept: &[&str]) -> Result<Negotiated, BadFormat> {
    let format = value(query, "format").filter(|text| !text.is_empty());
    let accepted = accepted(accept);
    let kind = match format {
        Some("raw") => Kind::Raw,
        Some("car") => Kind::Car,
        Some(other) => Document::ALL
            .into_iter()
            .find(|document| document.name() == other)
            .map(Kind::Document)
            .ok_or_else(|| BadFormat(not_offered(other)))?,
        None => match accepted {
            Some((kind, _)) => kind,
            None => return Ok(Negotiated { format: Format::Deserialized, by_accept: false, by_url: false }),
        },
    };
    let differs = accepted.is_some_and(|(wanted, _)| format.is_none() || wanted != kind || kind == Kind::Car);
    let parameters = accepted.filter(|(wanted, _)| *wanted == Kind::Car).map(|(_, rest)| rest);
    let format_found = match kind {
        Kind::Raw => Format::Raw,
        Kind::Document(document) => Format::Document(document),
        Kind::Car => Format::Car(car(query, parameters)?),
    };
    Ok(Negotiated { format: format_found, by_accept: differs, by_url: format.is_some() })
}

fn not_offered(format: &str) -> String {
    let format: String = format.chars().take(32).collect();
    format!("format={format} is not offered here; raw, car, dag-json, dag-cbor, json and cbor are")
}

/// The first value of a name.
pub(super) fn value<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Raw,
    Car,
    Document(Document),
}

/// Of the types offered here, the one that is wanted most, the first of
/// several, with its parameters.
fn accepted<'a>(accept: &[&'a str]) -> Option<(Kind, &'a str)> {
    let entries = accept.iter().flat_map(|header| header.split(',')).take(MAX_ACCEPTED);
    let mut best: Option<(u16, Kind, &str)> = None;
    for (kind, parameters) in entries.filter_map(media_type) {
        let weight = weight(parameters);
        if weight > best.map_or(0, |(weight, ..)| weight) {
            best = Some((weight, kind, parameters));
        }
    }
    best.map(|(_, kind, parameters)| (kind, parameters))
}

/// One of the types offered here, with its parameters, or none.
fn media_type(text: &str) -> Option<(Kind, &str)> {
    let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
    let name = name.trim();
    let documents =
        Document::ALL.into_iter().map(|document| (document.media_type(), Kind::Document(document)));
    let known = [(RAW, Kind::Raw), (CAR, Kind::Car)].into_iter().chain(documents);
    let kind = known.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known))?.1;
    Some((kind, parameters))
}

/// A weight in thousandths (RFC 9110, 12.4.2); 1 where it cannot be read.
fn weight(parameters: &str) -> u16 {
    let weight = parameter(parameters, "q").and_then(|text| text.parse::<f32>().ok());
    weight.map_or(1_000, |weight| (weight.clamp(0.0, 1.0) * 1_000.0) as u16)
}

fn parameter(parameters: &str, name: &str) -> Option<String> {
    parameters.split(';').filter_map(|pair| pair.split_once('=')).find_map(|(key, value)| {
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn car(query: &[(String, String)], accept: Option<&str>) -> Result<Car, BadFormat> {
    let wanted = |name: &str| {
        let by_url = value(query, &format!("car-{name}")).filter(|value| !value.is_empty());
        by_url.map(str::to_owned).or_else(|| parameter(accept?, name))
    };
    match wanted("version").as_deref() {
        None | Some("" | "1") => {}
        Some(other) => return Err(BadFormat(format!("CAR version {other} is not offered; version 1 is"))),
    }
    match wanted("order").as_deref() {
        None | Some("" | "dfs" | "unk") => {}
        Some(other) => return Err(BadFormat(format!("CAR order {other} is not offered; dfs is"))),
    }
    let dups = match wanted("dups").as_deref() {
        None | Some("" | "n") => false,
        Some("y") => true,
        Some(other) => return Err(BadFormat(format!("CAR dups={other} is neither y nor n"))),
    };
    Ok(Car { dups, scope: scope(value(query, "dag-scope"), value(query, "entity-bytes"))? })
}

fn scope(scope: Option<&str>, bytes: Option<&str>) -> Result<Scope, BadFormat> {
    let bytes = bytes.filter(|text| !text.is_empty()).map(entity_bytes).transpose()?;
    match (scope, bytes) {
        (Some("block"), _) => Ok(Scope::Block),
        (Some("entity"), bytes) => Ok(Scope::Entity(bytes)),
        // Bytes imply the entity.
        (None | Some(""), Some(bytes)) => Ok(Scope::Entity(Some(bytes))),
        (None | Some("all" | ""), _) => Ok(Scope::All),
        (Some(other), _) => Err(BadFormat(format!("dag-scope={other} is none of block, entity and all"))),
    }
}

fn entity_bytes(text: &str) -> Result<EntityBytes, BadFormat> {
    let parsed = text.split_once(':').and_then(|(from, to)| {
        let to = if to == "*" { None } else { Some(to.parse().ok()?) };
        Some(EntityBytes { from: from.parse().ok()?, to })
    });
    let bytes = parsed
        .ok_or_else(|| BadFormat(format!("entity-bytes={text} is not FROM:TO, such as 0:1023 or -5:*")))?;
    let ordered = bytes.to.is_none_or(|to| (bytes.from < 0) != (to < 0) || bytes.from <= to);
    ordered.then_some(bytes).ok_or_else(|| BadFormat(format!("entity-bytes={text} ends before it begins")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.into(), value.into())).collect()
    }

    fn check(query: &str, accept: &[&str], expected: Result<Format, &str>) {
        match (negotiate(&pairs(query), accept), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.format, expected, "{query} {accept:?}"),
            (Err(BadFormat(text)), Err(part)) => assert!(text.contains(part), "{text}"),
            (got, expected) => panic!("{query} {accept:?}: {got:?}, expected {expected:?}"),
        }
    }

    const ALL: Format = Format::Car(Car { dups: false, scope: Scope::All });

    #[test]
    fn the_query_comes_before_the_header() {
        check("", &["text/html,*/*"], Ok(Format::Deserialized));
        check("", &[], Ok(Format::Deserialized));
        check("", &[RAW], Ok(Format::Raw));
        check("", &["text/html", "application/vnd.ipld.car;q=0.9"], Ok(ALL));
        check("", &["application/vnd.ipld.raw;q=0.5, application/vnd.ipld.car;q=0.9"], Ok(ALL));
        check("", &["application/vnd.ipld.raw;q=0"], Ok(Format::Deserialized));
        check("format=raw", &[CAR], Ok(Format::Raw));
        check("format=car", &[RAW], Ok(ALL));
        check("format=dag-json", &[RAW], Ok(Format::Document(Document::DagJson)));
        check("", &["application/cbor"], Ok(Format::Document(Document::Cbor)));
        check("format=tar", &[], Err("tar"));
    }

    #[test]
    fn a_location_is_due_where_the_url_alone_gives_something_else() {
        let check = |query: &str, accept: &[&str], expected: bool| {
            let found = negotiate(&pairs(query), accept).expect("a format that is offered");
            assert_eq!(found.by_accept, expected, "{query} {accept:?}");
        };
        check("", &[RAW], true);
        check("format=raw", &[RAW], false);
        check("format=raw", &[CAR], true);
        check("format=car", &[CAR], true);
        check("format=car", &["text/html"], false);
        check("", &["text/html"], false);
    }

    #[test]
    fn car_parameters_are_read_in_both_spellings() {
        let dups = Ok(Format::Car(Car { dups: true, scope: Scope::All }));
        check("", &["application/vnd.ipld.car; version=1; order=dfs; dups=y"], dups);
        check("format=car&car-dups=y&car-order=dfs&car-version=1", &[], dups);
        check("format=car&car-dups=n", &["application/vnd.ipld.car;dups=y"], Ok(ALL));
        check("format=car&car-dups=y", &["application/vnd.ipld.car; dups=n"], dups);
        check("format=car&car-order=dfs", &["application/vnd.ipld.car; order=unk"], Ok(ALL));
        check("format=car", &["application/vnd.ipld.car;dups=y"], dups);
        check("format=car&car-version=2", &[], Err("version 2"));
        check("", &["application/vnd.ipld.car;order=bfs"], Err("order bfs"));
        check("format=car&car-dups=maybe", &[], Err("dups=maybe"));
    }

    #[test]
    fn scopes_and_ranges_are_read() {
        let scoped = |scope| Ok(Format::Car(Car { dups: false, scope }));
        check("format=car&dag-scope=block", &[], scoped(Scope::Block));
        check("format=car&dag-scope=entity", &[], scoped(Scope::Entity(None)));
        let bytes = |from, to| scoped(Scope::Entity(Some(EntityBytes { from, to })));
        check("format=car&entity-bytes=-5:*", &[], bytes(-5, None));
        check("format=car&dag-scope=entity&entity-bytes=512:-256", &[], bytes(512, Some(-256)));
        check("format=car&dag-scope=half", &[], Err("half"));
        check("format=car&entity-bytes=5", &[], Err("FROM:TO"));
        check("format=car&entity-bytes=5:4", &[], Err("ends before"));
        check("format=car&entity-bytes=99999999999999999999:*", &[], Err("FROM:TO"));
    }

    #[test]
    fn entity_bytes_resolve_within_the_file() {
        let check = |from, to, expected: Range<u64>| {
            assert_eq!(EntityBytes { from, to }.resolve(1026), expected, "{from}:{to:?}");
        };
        check(0, None, 0..1026);
        check(512, Some(1023), 512..1024);
        check(512, Some(-256), 512..771);
        check(-5, None, 1021..1026);
        check(-9999, Some(-3), 0..1024);
        check(0, Some(0), 0..1);
        check(5000, None, 1026..1026);
        check(i64::MIN, Some(i64::MAX), 0..1026);
    }
}

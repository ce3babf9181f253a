//! The query of `GET /pins`, from hostile text to [`ListQuery`].
//!
//! Two spellings exist in the wild beyond the specification's own and are read
//! alike: lists with `%2C` for the comma, or with the parameter repeated, and
//! `meta[key]=value` beside the JSON object. A value out of bounds is refused
//! with the bound; parameters that nobody defined are ignored.

use std::collections::BTreeMap;

use percent_encoding::percent_decode;
use pinfold_core::status::Status;

use super::{cids, error::ApiError, pin_input, time};
use crate::db::{ListQuery, NameMatch};

/// The page when no limit is given, by the specification.
const DEFAULT_LIMIT: u32 = 10;
/// The largest page, by the specification.
pub(crate) const MAX_LIMIT: u32 = 1_000;
/// The most CIDs in one filter, by the specification.
pub(crate) const MAX_CIDS: usize = 10;
/// More parameters than any client sends; each costs an allocation.
const MAX_PARAMETERS: usize = 1_100;

/// Reads the text after the question mark.
///
/// # Errors
/// `BadRequest`, with the parameter and the rule that it breaks.
pub(crate) fn parse(query: &str) -> Result<ListQuery, ApiError> {
    let mut raw = Raw::default();
    for (index, part) in query.split('&').filter(|part| !part.is_empty()).enumerate() {
        if index >= MAX_PARAMETERS {
            return Err(ApiError::bad(format!("a query has at most {MAX_PARAMETERS} parameters")));
        }
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        raw.take(&decode(key)?, decode(value)?)?;
    }
    raw.finish()
}

fn decode(text: &str) -> Result<String, ApiError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8();
    Ok(decoded.map_err(|_| ApiError::bad("the query is not UTF-8 once it is percent-decoded"))?.into_owned())
}

/// Parameters as text, before they are judged together.
#[derive(Default)]
struct Raw {
    cids: Vec<String>,
    statuses: Vec<String>,
    name: Option<String>,
    matching: Option<String>,
    before: Option<String>,
    after: Option<String>,
    limit: Option<String>,
    meta: BTreeMap<String, String>,
}

impl Raw {
    fn take(&mut self, key: &str, value: String) -> Result<(), ApiError> {
        match key {
            "cid" => extend(&mut self.cids, &value),
            "status" => extend(&mut self.statuses, &value),
            "name" => once(&mut self.name, "name", value)?,
            "match" => once(&mut self.matching, "match", value)?,
            "before" => once(&mut self.before, "before", value)?,
            "after" => once(&mut self.after, "after", value)?,
            "limit" => once(&mut self.limit, "limit", value)?,
            "meta" => self.meta.extend(meta_object(&value)?),
            _ => self.take_bracketed(key, value)?,
        }
        Ok(())
    }

    /// `meta[key]=value`; any other parameter is none of ours.
    fn take_bracketed(&mut self, key: &str, value: String) -> Result<(), ApiError> {
        let Some(rest) = key.strip_prefix("meta[") else { return Ok(()) };
        let Some(name) = rest.strip_suffix(']') else {
            return Err(ApiError::bad("meta[key] lacks its closing bracket"));
        };
        self.meta.insert(name.to_owned(), value);
        Ok(())
    }

    fn finish(self) -> Result<ListQuery, ApiError> {
        pin_input::check_meta(&self.meta)?;
        let matching = self.matching.as_deref().map_or(Ok(NameMatch::Exact), name_match)?;
        if let Some(name) = &self.name {
            pin_input::check_name(name)?;
        }
        Ok(ListQuery {
            contents: contents(&self.cids)?,
            // An empty name is what a form sends when nothing was typed.
            name: self.name.filter(|name| !name.is_empty()).map(|name| (name, matching)),
            statuses: statuses(&self.statuses)?,
            before: instant("before", self.before.as_deref(), time::parse_before)?,
            after: instant("after", self.after.as_deref(), time::parse_after)?,
            meta: self.meta,
            limit: self.limit.as_deref().map_or(Ok(DEFAULT_LIMIT), limit)?,
        })
    }
}

/// Adds the items of a comma-separated list; an empty text has none.
fn extend(list: &mut Vec<String>, value: &str) {
    if !value.is_empty() {
        list.extend(value.split(',').map(str::to_owned));
    }
}

fn once(slot: &mut Option<String>, key: &str, value: String) -> Result<(), ApiError> {
    if slot.replace(value).is_some() {
        return Err(ApiError::bad(format!("{key} is given twice; give it once")));
    }
    Ok(())
}

fn meta_object(value: &str) -> Result<BTreeMap<String, String>, ApiError> {
    serde_json::from_str(value).map_err(|_| {
        ApiError::bad("meta is not a JSON object with text values, such as meta={\"key\":\"value\"}")
    })
}

fn name_match(text: &str) -> Result<NameMatch, ApiError> {
    match text {
        "exact" => Ok(NameMatch::Exact),
        "iexact" => Ok(NameMatch::Iexact),
        "partial" => Ok(NameMatch::Partial),
        "ipartial" => Ok(NameMatch::Ipartial),
        _ => Err(ApiError::bad("match is one of exact, iexact, partial, ipartial")),
    }
}

fn contents(texts: &[String]) -> Result<Vec<Vec<u8>>, ApiError> {
    if texts.len() > MAX_CIDS {
        return Err(ApiError::bad(format!("cid names at most {MAX_CIDS} CIDs; send more requests")));
    }
    let mut keys = texts.iter().map(|text| cids::parse_filter(text)).collect::<Result<Vec<_>, ApiError>>()?;
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// Without any, the specification lists what is pinned.
fn statuses(texts: &[String]) -> Result<Vec<Status>, ApiError> {
    if texts.is_empty() {
        return Ok(vec![Status::Pinned]);
    }
    let mut statuses = Vec::with_capacity(Status::ALL.len());
    for text in texts {
        let status = Status::ALL.into_iter().find(|status| status.as_str() == text);
        let status = status.ok_or_else(|| {
            ApiError::bad("status is a comma-separated list of queued, pinning, pinned, failed")
        })?;
        if !statuses.contains(&status) {
            statuses.push(status);
        }
    }
    Ok(statuses)
}

fn instant(key: &str, text: Option<&str>, parse: fn(&str) -> Option<i64>) -> Result<Option<i64>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let refusal =
        || ApiError::bad(format!("{key} is an instant by RFC 3339, such as 2026-01-02T03:04:05.678Z"));
    parse(text).map(Some).ok_or_else(refusal)
}

fn limit(text: &str) -> Result<u32, ApiError> {
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| ApiError::bad(format!("limit is a number from 1 to {MAX_LIMIT}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V0: &str = "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR";
    const V1: &str = "bafkqaaa";

    fn refusal(query: &str) -> String {
        match parse(query) {
            Err(ApiError::BadRequest(text)) => text.into_owned(),
            other => panic!("{query}: {other:?}"),
        }
    }

    fn meta(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn nothing_means_ten_of_what_is_pinned() {
        let query = parse("").unwrap();
        assert_eq!(query, ListQuery { statuses: vec![Status::Pinned], limit: 10, ..ListQuery::default() });
        assert_eq!(parse("cid=&status=&name=&unknown=1").unwrap(), query);
    }

    #[test]
    fn lists_are_read_in_every_spelling() {
        let expected = vec![Status::Queued, Status::Pinning];
        for text in [
            "status=queued,pinning",
            "status=queued%2Cpinning",
            "status=queued%2cpinning,queued",
            "status=queued&status=pinning",
        ] {
            assert_eq!(parse(text).unwrap().statuses, expected, "{text}");
        }
        assert_eq!(parse(&format!("cid={V0}%2C{V1},{V0}")).unwrap().contents.len(), 2);
    }

    #[test]
    fn contents_do_not_depend_on_version_or_base() {
        let of = |text: &str| parse(&format!("cid={text}")).unwrap().contents;
        let cid: cid::Cid = V0.parse().unwrap();
        assert_eq!(of(V0), of(&cid.into_v1().unwrap().to_string()));
    }

    #[test]
    fn both_forms_of_meta_are_read() {
        for text in [
            "meta={\"app_id\":\"x\"}",
            "meta=%7B%22app_id%22%3A%22x%22%7D",
            "meta[app_id]=x",
            "meta%5Bapp_id%5D=x",
        ] {
            assert_eq!(parse(text).unwrap().meta, meta(&[("app_id", "x")]), "{text}");
        }
        let spaced = parse("meta%5Ba+key%20here%5D=a+b&meta[c]=d").unwrap().meta;
        assert_eq!(spaced, meta(&[("a key here", "a b"), ("c", "d")]));
        assert_eq!(parse("meta=%7B%7D").unwrap().meta, meta(&[]));
    }

    #[test]
    fn malformed_meta_is_refused() {
        for text in ["meta=x", "meta=", "meta=[]", "meta={\"a\":1}", "meta={\"a\":null}", "meta[a=x"] {
            assert!(refusal(text).contains("meta"), "{text}");
        }
    }

    #[test]
    fn a_refusal_names_the_bound() {
        for (text, word) in [
            ("limit=0".to_owned(), "1 to 1000"),
            ("limit=1001".to_owned(), "1 to 1000"),
            ("limit=-1".to_owned(), "1 to 1000"),
            ("limit=".to_owned(), "1 to 1000"),
            ("limit=99999999999999999999".to_owned(), "1 to 1000"),
            (format!("cid={}", [V0; 11].join(",")), "10 CIDs"),
            (format!("name={}", "n".repeat(256)), "255"),
            ("name=%00".to_owned(), "U+0000"),
            ("match=fuzzy".to_owned(), "ipartial"),
            ("status=done".to_owned(), "queued"),
            ("status=queued,".to_owned(), "queued"),
            ("before=yesterday".to_owned(), "RFC 3339"),
            ("after=".to_owned(), "RFC 3339"),
            ("name=a&name=b".to_owned(), "twice"),
            ("name=%ff".to_owned(), "UTF-8"),
            ("cid=nonsense".to_owned(), "cid"),
            ("x&".repeat(2_000), "parameters"),
        ] {
            assert!(refusal(&text).contains(word), "{text}: {}", refusal(&text));
        }
    }

    #[test]
    fn names_are_taken_as_they_are() {
        for (text, name) in [
            ("name=policy/12D3/mfs", "policy/12D3/mfs"),
            ("name=policy%2F12D3%2Fmfs", "policy/12D3/mfs"),
            ("name=100%25_%5C", "100%_\\"),
            ("name=%C3%A9", "é"),
        ] {
            assert_eq!(parse(text).unwrap().name, Some((name.to_owned(), NameMatch::Exact)));
        }
        let long = "é".repeat(255);
        assert!(parse(&format!("name={long}&match=ipartial")).is_ok(), "255 counts code points");
    }

    proptest::proptest! {
        #[test]
        fn no_query_and_no_body_is_a_panic(text in ".{0,200}", pairs in "(status|cid|meta|limit|before|name)=.{0,60}") {
            let _ = parse(&text);
            let _ = parse(&pairs);
            let _ = pin_input::PinInput::parse(text.as_bytes());
        }
    }

    #[test]
    fn limits_are_inclusive() {
        assert_eq!(parse("limit=1").unwrap().limit, 1);
        assert_eq!(parse("limit=1000").unwrap().limit, 1_000);
    }
}

//! Names inside DAG-CBOR and DAG-JSON documents, up to the first link.
//!
//! The blocks were checked by [`pinfold_core::links`] before; still nothing
//! here trusts them. A name is a key of a map or an index of a list. Nothing
//! is built in memory: what the names do not lead to is skipped.

use std::fmt;

use pinfold_core::{
    content::{self, Cid},
    links::Codec,
};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The key of a link in DAG-JSON.
const LINK_KEY: &str = "/";
/// The tag of a link in DAG-CBOR.
const LINK_TAG: u64 = 42;

/// Where names lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// To a link, after so many of them.
    Link { cid: Cid, used: usize },
    /// All of them to something that is no link.
    Value,
}

/// Follows names from the top of a document; none where there is no such key.
pub(super) fn lookup(codec: u64, block: &[u8], names: &[String]) -> Option<Found> {
    match Codec::of(codec)? {
        Codec::DagCbor => cbor(block, names),
        Codec::DagJson => {
            let mut json = serde_json::Deserializer::from_slice(block);
            Seek { names, used: 0 }.deserialize(&mut json).ok()?
        }
        Codec::Raw | Codec::DagPb => None,
    }
}

fn cbor(block: &[u8], names: &[String]) -> Option<Found> {
    let mut reader = Cbor { rest: block };
    let mut used = 0;
    loop {
        let (major, argument) = reader.head()?;
        match (major, names.get(used)) {
            (6, _) if argument == LINK_TAG => {
                let (2, length) = reader.head()? else { return None };
                let cid = content::from_bytes(reader.take(length)?.strip_prefix(&[0])?).ok()?;
                return Some(Found::Link { cid, used });
            }
            (_, None) => return Some(Found::Value),
            (4, Some(name)) => {
                let index: u64 = name.parse().ok().filter(|index| *index < argument)?;
                (0..index).try_for_each(|_| reader.skip())?;
            }
            (5, Some(name)) => reader.enter(argument, name)?,
            _ => return None,
        }
        used += 1;
    }
}

struct Cbor<'a> {
    rest: &'a [u8],
}

impl<'a> Cbor<'a> {
    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    /// An item's major type and argument.
    fn head(&mut self) -> Option<(u8, u64)> {
        let first = self.take(1)?[0];
        let argument = match first & 0x1f {
            low @ 0..=23 => u64::from(low),
            low @ 24..=27 => {
                let bytes = self.take(1 << (low - 24))?;
                bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
            }
            _ => return None,
        };
        Some((first >> 5, argument))
    }

    /// Skips an item with all that it holds.
    fn skip(&mut self) -> Option<()> {
        let mut items = 1_u64;
        while items > 0 {
            items -= 1;
            let more = match self.head()? {
                (2 | 3, length) => self.take(length).map(|_| 0)?,
                (4, count) => count,
                (5, count) => count.checked_mul(2)?,
                (6, _) => 1,
                _ => 0,
            };
            items = items.checked_add(more)?;
        }
        Some(())
    }

    /// Goes to the value of a key in a map of so many.
    fn enter(&mut self, count: u64, name: &str) -> Option<()> {
        for _ in 0..count {
            let (3, length) = self.head()? else { return None };
            if self.take(length)? == name.as_bytes() {
                return Some(());
            }
            self.skip()?;
        }
        None
    }
}

/// Looks for names in JSON, `used` of which have led here.
struct Seek<'a> {
    names: &'a [String],
    used: usize,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Option<Found>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seek<'_> {
    fn next(&self) -> Self {
        Seek { names: self.names, used: self.used + 1 }
    }

    /// A value that is neither a map nor a list.
    fn scalar<E>(&self) -> Result<Option<Found>, E> {
        Ok((self.used == self.names.len()).then_some(Found::Value))
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Option<Found>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DAG-JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let wanted = self.names.get(self.used);
        let mut found = wanted.is_none().then_some(Found::Value);
        let mut is_first = true;
        while let Some(key) = map.next_key::<String>()? {
            if is_first && key == LINK_KEY {
                if let Text(Some(text)) = map.next_value()? {
                    // With a second key it is no link; the check before has
                    // refused it.
                    found = content::parse(&text).ok().map(|cid| Found::Link { cid, used: self.used });
                }
            } else if found.is_none() && wanted == Some(&key) {
                found = map.next_value_seed(self.next())?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            is_first = false;
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let wanted = self.names.get(self.used);
        let mut found = wanted.is_none().then_some(Found::Value);
        let index = wanted.and_then(|name| name.parse::<usize>().ok());
        for at in 0_usize.. {
            if index == Some(at) {
                match list.next_element_seed(self.next())? {
                    Some(value) => found = value,
                    None => break,
                }
            } else if list.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        self.scalar()
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        self.scalar()
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        self.scalar()
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        self.scalar()
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        self.scalar()
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        self.scalar()
    }
}

/// A string, or none where it is something else.
struct Text(Option<String>);

impl<'de> serde::Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(Some(text.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Text(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Text, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Text(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_unit<E>(self) -> Result<Text, E> {
                Ok(Text(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";

    fn check(codec: u64, block: &[u8], path: &str, expected: Option<&Found>) {
        let names: Vec<String> = path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        assert_eq!(lookup(codec, block, &names).as_ref(), expected, "{path}");
    }

    fn link(used: usize) -> Option<Found> {
        Some(Found::Link { cid: content::parse(CID).expect("a CID"), used })
    }

    #[test]
    fn names_lead_through_dag_json() {
        let json = format!(
            r#"{{"a":{{"b":{{"/":"{CID}"}},"n":1,"/":5}},"bytes":{{"/":{{"bytes":"AA"}}}},"list":[0,[{{"/":"{CID}"}}]],"é":null}}"#
        );
        let check = |path, expected: Option<Found>| check(0x0129, json.as_bytes(), path, expected.as_ref());
        check("a/b", link(2));
        check("a/b/more/names", link(2));
        check("list/1/0/x", link(3));
        check("list/0", Some(Found::Value));
        check("a", Some(Found::Value));
        check("é", Some(Found::Value));
        check("bytes", Some(Found::Value));
        for missing in ["b", "a/c", "a/n/x", "list/2", "list/-1", "list/x", "é/x"] {
            check(missing, None);
        }
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(lookup(0x0129, deep.as_bytes(), &vec!["0".to_owned(); 256]), None);
    }

    #[test]
    fn names_lead_through_dag_cbor() {
        let cid = [&[0][..], &content::parse(CID).expect("a CID").to_bytes()].concat();
        let link_bytes = [&[0xd8, 0x2a, 0x58, cid.len() as u8][..], &cid].concat();
        // {"a": {"b": link, "n": -1}, "list": [1.5, [link]], "s": "x", "y": h'00'}
        let block = [
            &[0xa4, 0x61, b'a', 0xa2, 0x61, b'b'][..],
            &link_bytes,
            &[0x61, b'n', 0x20, 0x64],
            b"list",
            &[0x82, 0xfb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0, 0x81],
            &link_bytes,
            &[0x61, b's', 0x61, b'x', 0x61, b'y', 0x41, 0],
        ]
        .concat();
        let check = |path, expected: Option<Found>| check(0x71, &block, path, expected.as_ref());
        check("a/b", link(2));
        check("a/b/c", link(2));
        check("list/1/0", link(3));
        for value in ["a", "list", "list/0", "s", "y", "a/n"] {
            check(value, Some(Found::Value));
        }
        for missing in ["b", "a/c", "a/n/x", "list/2", "list/x", "s/x"] {
            check(missing, None);
        }
        for end in 0..block.len() {
            // Never a panic, never more than there is.
            let _ = lookup(0x71, &block[..end], &["y".to_owned()]);
        }
        let endless = [0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(lookup(0x71, &endless, &[u64::MAX.to_string()]), None);
        assert_eq!(lookup(0x71, &endless, &["5".to_owned()]), None);
    }
}

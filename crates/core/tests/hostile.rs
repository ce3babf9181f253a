//! Whatever bytes arrive: an answer or an error, never a panic.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use pinfold_core::content::{self, Cid, ContentKey};
use pinfold_core::denylist::Denylist;
use pinfold_core::unixfs::Node;
use pinfold_core::{address, hash, links, names, policy};
use proptest::prelude::*;

const CODECS: [u64; 6] = [0x55, 0x70, 0x71, 0x0129, 0x72, u64::MAX];

/// Bytes that look like something: pieces of valid blocks in any order.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let cid =
        content::parse("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku").unwrap().to_bytes();
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        Just(cid),
        prop::sample::select(vec![
            b"\x12\x2e\x0a\x24".to_vec(),
            b"\x0a\x02\x08\x01".to_vec(),
            b"\xd8\x2a\x58\x25\x00".to_vec(),
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            b"\xa1\x61a\x82".to_vec(),
            b"{\"/\":".to_vec(),
            b"{\"bytes\":\"".to_vec(),
            b"\"bafkqaaa\"}".to_vec(),
            b"[1.5e3,\"\\u00".to_vec(),
            b"}]".to_vec(),
        ]),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Lines that look like rules.
fn rules() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        prop::sample::select(vec![
            "!",
            "/ipfs/",
            "/ipns/",
            "//",
            "/",
            "*",
            "%",
            "%C3",
            "\n",
            "---\n",
            "version: 1\n",
            " a:b",
            "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
            "QmX9dhRcQcKUw3Ws8485T5a9dtjrSCQaUAHnG4iK9i4ceM",
            "d9d295bde21f422d471a90f2a37ec53049fdf3e5fa3ee2e8f20e10003da429e7",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks(block in pieces(), codec in prop::sample::select(CODECS.to_vec())) {
        if let Ok(found) = links::list(codec, &block) {
            for cid in found {
                prop_assert_eq!(policy::check(&cid), Ok(()));
            }
        }
        let _ = Node::decode(codec, &block);
    }

    #[test]
    fn directories_and_files(data in pieces(), link in pieces(), name in any::<String>()) {
        // A dag-pb node around pieces, so that UnixFS itself is reached.
        let field = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8 & 0x7f], &bytes[..bytes.len() & 0x7f]].concat();
        let cut = |bytes: &[u8]| bytes[..bytes.len().min(100)].to_vec();
        let block = [field(0x12, &cut(&link)), field(0x0a, &cut(&data))].concat();
        match Node::decode(0x70, &block) {
            Ok(Node::Shard(shard)) => drop(shard.find(&name, 3)),
            Ok(Node::File(file)) => drop(file.cover(1..u64::MAX)),
            _ => {}
        }
    }

    #[test]
    fn cids(text in any::<String>(), bytes in pieces()) {
        let _ = content::parse(&text);
        let _ = ContentKey::from_bytes(&bytes);
        if let Ok(cid) = content::from_bytes(&bytes) {
            prop_assert_eq!(content::parse(&cid.to_string()), Ok(cid));
            prop_assert_eq!(ContentKey::from_bytes(ContentKey::of(&cid).as_bytes()), Ok(ContentKey::of(&cid)));
            let _ = policy::check_root(&cid);
            let _ = hash::verify(cid.hash(), &bytes);
        }
    }

    #[test]
    fn denylists(text in rules(), path in any::<String>()) {
        let (list, errors) = Denylist::parse(&text);
        prop_assert!(list.len() + errors.len() <= text.split('\n').count());
        let cid: Cid = content::parse("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy").unwrap();
        let _ = list.is_denied(&cid, &path);
    }

    #[test]
    fn names_and_addresses(name in any::<String>(), other in any::<String>(), v4 in any::<u32>(), v6 in any::<u128>()) {
        let _ = names::check(&name);
        prop_assert!(names::Match::Iexact.matches(&name, &name));
        prop_assert!(names::Match::Ipartial.matches(&name, ""));
        prop_assert!(names::fold(&name).len() <= 18 * name.len());
        let _ = names::Match::Ipartial.matches(&name, &other);
        // An IPv4 address is of the same class wherever it is embedded.
        let plain = address::class(std::net::Ipv4Addr::from(v4).into());
        let mapped = std::net::Ipv4Addr::from(v4).to_ipv6_mapped();
        prop_assert_eq!(address::class(mapped.into()), plain);
        let _ = address::class(std::net::Ipv6Addr::from(v6).into());
    }
}

use data_encoding::HEXLOWER_PERMISSIVE as HEX;

use super::*;
use crate::content::parse;

const A: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
const B: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
const C: &str = "bafkqaaa";

fn cids(texts: &[&str]) -> Vec<Cid> {
    texts.iter().map(|text| parse(text).unwrap()).collect()
}

fn invalid(error: &BlockError) -> bool {
    matches!(error, BlockError::Invalid { .. })
}

mod pb {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        field.extend(bytes);
        field
    }

    fn link(cid: &str, name: &str) -> Vec<u8> {
        let parts = [field(1, &parse(cid).unwrap().to_bytes()), field(2, name.as_bytes()), vec![0x18, 5]];
        field(2, &parts.concat())
    }

    fn found(parts: &[Vec<u8>]) -> Result<Vec<Cid>, BlockError> {
        list(0x70, &parts.concat())
    }

    #[test]
    fn links_come_in_the_order_of_the_bytes() {
        let (a, b, c) = (link(A, "a"), link(B, "b"), link(C, ""));
        let data = field(1, b"data");
        assert_eq!(found(&[]), Ok(vec![]));
        assert_eq!(found(std::slice::from_ref(&data)), Ok(vec![]));
        for parts in [[&a, &b, &c, &data], [&data, &a, &b, &c]] {
            assert_eq!(found(&parts.map(Clone::clone)), Ok(cids(&[A, B, C])));
        }
        assert_eq!(found(&[b.clone(), a.clone(), b, data]), Ok(cids(&[B, A, B])));
    }

    #[test]
    fn a_node_of_a_real_directory() {
        // The directory of `ipfs add -w` around the empty file.
        let block = HEX
            .decode(
                b"122f0a2212200000000000000000000000000000000000000000000000000000000000000000120765\
                  6d7074792e7418060a020801"
                    .iter()
                    .copied()
                    .filter(|byte| !byte.is_ascii_whitespace())
                    .collect::<Vec<_>>()
                    .as_slice(),
            )
            .unwrap();
        assert_eq!(list(0x70, &block).unwrap().len(), 1);
    }

    #[test]
    fn what_other_decoders_refuse_is_refused() {
        let a = link(A, "a");
        let data = field(1, b"data");
        let cid = field(1, &parse(A).unwrap().to_bytes());
        let name = field(2, b"name");
        for parts in [
            vec![a.clone(), data.clone(), a.clone()],
            vec![data.clone(), data.clone()],
            vec![field(3, b"x")],
            vec![vec![0x08, 1]],
            vec![vec![0x10, 1]],
            vec![vec![0x00, 1]],
            vec![vec![0x0b]],
            vec![field(2, &[name.clone(), cid.clone()].concat())],
            vec![field(2, &[cid.clone(), cid.clone()].concat())],
            vec![field(2, &[cid.clone(), vec![0x18, 1], name].concat())],
            vec![field(2, &[cid.clone(), vec![0x20, 1]].concat())],
            vec![field(2, &[cid, vec![0x1a, 0]].concat())],
        ] {
            assert!(invalid(&found(&parts).unwrap_err()), "{parts:?}");
        }
    }

    #[test]
    fn a_link_without_a_good_cid_is_refused() {
        let of = |cid: &[u8]| found(&[field(2, &field(1, cid))]);
        assert_eq!(of(&[]), Err(BlockError::NotACid(4)));
        assert_eq!(found(&[field(2, &[])]), Err(BlockError::NotACid(2)));
        assert_eq!(of(&[1, 0x55, 0x12, 0x20, 0]), Err(BlockError::NotACid(4)));
        let mut longer = parse(A).unwrap().to_bytes();
        longer.push(0);
        assert_eq!(of(&longer), Err(BlockError::NotACid(4)));
        assert_eq!(of(&[1, 0x55, 0x12, 1, 0]), Err(BlockError::Link(PolicyError::DigestTooShort(1))));
    }

    #[test]
    fn declared_lengths_are_not_believed() {
        for tail in [vec![0x7f], vec![0xff, 0xff, 0xff, 0xff, 0x0f], [vec![0xff; 9], vec![1]].concat()] {
            for tag in [0x0a, 0x12] {
                assert_eq!(found(&[vec![tag], tail.clone()]), Err(BlockError::Truncated), "{tail:?}");
            }
        }
        assert!(invalid(&found(&[vec![0x0a], vec![0xff; 9], vec![2]]).unwrap_err()));
        assert!(invalid(&found(&[vec![0x0a], vec![0xff; 11]]).unwrap_err()));
        let whole = link(A, "name");
        for end in 1..whole.len() {
            found(&[whole[..end].to_vec()]).unwrap_err();
        }
    }
}

mod cbor {
    use super::*;

    fn link(cid: &str) -> Vec<u8> {
        let bytes = parse(cid).unwrap().to_bytes();
        let mut item = vec![0xd8, 0x2a, 0x58, u8::try_from(bytes.len() + 1).unwrap(), 0];
        item.extend(bytes);
        item
    }

    fn found(parts: &[&[u8]]) -> Result<Vec<Cid>, BlockError> {
        list(0x71, &parts.concat())
    }

    #[test]
    fn links_come_in_the_order_of_the_bytes() {
        let (a, b, c) = (link(A), link(B), link(C));
        assert_eq!(found(&[&a]), Ok(cids(&[A])));
        assert_eq!(found(&[&[0x83], &b, &a, &b]), Ok(cids(&[B, A, B])));
        // {"x": [a, {"": b}, 1.5], "y": c, "z": null}
        let map: [&[u8]; 9] = [
            &[0xa3, 0x61, b'x', 0x83],
            &a,
            &[0xa1, 0x60],
            &b,
            &[0xfb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0],
            &[0x61, b'y'],
            &c,
            &[0x61, b'z'],
            &[0xf6],
        ];
        assert_eq!(found(&map), Ok(cids(&[A, B, C])));
    }

    #[test]
    fn scalars_of_every_kind_are_skipped() {
        for hex in [
            "00",
            "17",
            "1818",
            "19ffff",
            "1affffffff",
            "1bffffffffffffffff",
            "20",
            "3bffffffffffffffff",
            "40",
            "4101",
            "590003010203",
            "60",
            "6161",
            "80",
            "8100",
            "a0",
            "a1616100",
            "f4",
            "f5",
            "f6",
            "f7",
            "f93e00",
            "fa7f800000",
            "fb7ff0000000000000",
        ] {
            assert_eq!(list(0x71, &HEX.decode(hex.as_bytes()).unwrap()), Ok(vec![]), "{hex}");
        }
    }

    #[test]
    fn what_the_codec_does_not_allow_is_refused() {
        for hex in [
            "9f00ff",
            "bf616100ff",
            "5f4100ff",
            "7f6161ff",
            "ff",
            "c000",
            "d82b4100",
            "d9d9f700",
            "a10000",
            "a1410000",
            "a18000",
            "f0",
            "f814",
            "f8ff",
            "fc",
            "1c",
            "1f",
            "a1d82a4200",
        ] {
            let error = list(0x71, &HEX.decode(hex.as_bytes()).unwrap()).unwrap_err();
            assert!(invalid(&error), "{hex}: {error}");
        }
        assert_eq!(found(&[&[0, 0]]), Err(BlockError::Trailing(1)));
        assert_eq!(found(&[]), Err(BlockError::Truncated));
    }

    #[test]
    fn a_link_without_a_good_cid_is_refused() {
        for hex in ["d82a00", "d82a6161", "d82a40", "d82a4100", "d82a420155", "d82ad82a4100", "d82a4101"] {
            let error = list(0x71, &HEX.decode(hex.as_bytes()).unwrap()).unwrap_err();
            assert!(matches!(error, BlockError::NotACid(_)), "{hex}: {error}");
        }
        let weak = HEX.decode(b"d82a4600015512010f").unwrap();
        assert_eq!(list(0x71, &weak), Err(BlockError::Link(PolicyError::DigestTooShort(1))));
    }

    #[test]
    fn declared_lengths_are_not_believed() {
        for head in [0x5b_u8, 0x7b, 0x9b, 0xbb] {
            for count in [u64::MAX, 1 << 63, 1 << 32, 2] {
                let mut block = vec![head];
                block.extend(count.to_be_bytes());
                assert_eq!(list(0x71, &block), Err(BlockError::Truncated), "{head:x} {count}");
            }
        }
    }

    #[test]
    fn nesting_is_capped() {
        for open in [&[0x81_u8][..], &[0xa1, 0x60]] {
            let mut block = open.repeat(MAX_NESTING);
            block.push(0);
            assert_eq!(list(0x71, &block), Ok(vec![]));
            let mut block = open.repeat(MAX_NESTING + 1);
            block.push(0);
            assert_eq!(list(0x71, &block), Err(BlockError::TooDeep));
            assert_eq!(list(0x71, &open.repeat(1 << 19)), Err(BlockError::TooDeep));
        }
    }
}

mod json {
    use super::*;

    fn found(text: &str) -> Result<Vec<Cid>, BlockError> {
        list(0x0129, text.as_bytes())
    }

    fn check(text: &str, want: &[&str]) {
        let text = text.replace("$A", A).replace("$B", B).replace("$C", C);
        assert_eq!(found(&text), Ok(cids(want)), "{text}");
    }

    #[test]
    fn links_come_in_the_order_of_the_bytes() {
        check(r#"{"/":"$A"}"#, &[A]);
        check(r#" { "/" : "$B" } "#, &[B]);
        check(r#"[{"/":"$B"},{"/":"$A"},{"/":"$B"}]"#, &[B, A, B]);
        check(r#"{"x":[{"/":"$A"},{"":{"/":"$B"}},-1.5e+9],"y":{"/":"$C"},"z":null}"#, &[A, B, C]);
        check(r#"{"a":{"b":{"/":"$A"}},"c":[[[{"/":"$B"}]]]}"#, &[A, B]);
    }

    #[test]
    fn keys_and_links_may_be_escaped() {
        check(r#"{"\/":"$A"}"#, &[A]);
        check(r#"{"\u002f":"$A"}"#, &[A]);
        check(r#"{"/":"\u0062afkqaaa"}"#, &[C]);
        check(r#"{"\u002F":{"\u0062ytes":"AA"}}"#, &[]);
    }

    #[test]
    fn bytes_and_ordinary_maps_are_no_links() {
        check(r#"{"/":{"bytes":"mAQI"}}"#, &[]);
        check(r#"{"/": { "bytes" : "" } }"#, &[]);
        check(r#"{"/":1,"a":{"/":"$A"}}"#, &[A]);
        check(r#"{"/":[{"/":"$A"}],"b":2}"#, &[A]);
        check(r#"{"/":{},"a":1}"#, &[]);
        check(r#"{"/":{"bytes":5}}"#, &[]);
        check(r#"{"/":{"bytes":{"/":"$A"}}}"#, &[A]);
        check(r#"{"/":{"/":"$A"}}"#, &[A]);
        check(r#"{"/":{"/":{"/":"$A"}},"b":{"/":"$B"}}"#, &[A, B]);
        check(r#"{"/":{"/":{"bytes":"AA"}}}"#, &[]);
        check(r#"{"a":1,"/":"not a cid"}"#, &[]);
        check(r#"{"/":null}"#, &[]);
    }

    #[test]
    fn scalars_of_every_kind_are_skipped() {
        for text in [
            "0",
            "-0",
            "12",
            "1.0",
            "-1.5e9",
            "1E-7",
            "true",
            "false",
            "null",
            r#""""#,
            r#""é\n\u00e9\"""#,
            "[]",
            "{}",
            " [ ] ",
            "[1 ,2]",
            r#"{"":{}}"#,
            "[[],{}]",
            r#"{"a":[],"b":{}}"#,
        ] {
            assert_eq!(found(text), Ok(vec![]), "{text}");
        }
    }

    #[test]
    fn what_json_does_not_allow_is_refused() {
        for text in [
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "1e+",
            "tru",
            "nul",
            "NaN",
            "'a'",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{1:2}",
            r#"{"a"}"#,
            r#"{"a" 1}"#,
            r#"{"a":1,}"#,
            r#"{"a":1]"#,
            "[1}",
            r#""\x""#,
            r#""\u12g4""#,
            "\"\n\"",
            "}",
            "]",
            ",",
            r#"{"/":{"bytes":"AA","b":1}}"#,
            r#"{"/":{"bytes":"AA"},"b":1}"#,
        ] {
            assert!(invalid(&found(text).unwrap_err()), "{text}");
        }
        assert!(invalid(&found(&format!(r#"{{"/":"{A}","b":1}}"#)).unwrap_err()));
        for text in
            ["", " ", "[", "{", r#"{"a""#, r#"{"a":"#, r#""a"#, r#""\"#, "[1", r#"{"/":"#, r#"{"/":{"#]
        {
            assert_eq!(found(text), Err(BlockError::Truncated), "{text}");
        }
        assert_eq!(found("1 1"), Err(BlockError::Trailing(2)));
        assert_eq!(found("{}{}"), Err(BlockError::Trailing(2)));
        assert!(invalid(&list(0x0129, b"\"\xff\"").unwrap_err()));
    }

    #[test]
    fn a_link_without_a_good_cid_is_refused() {
        for text in [r#"{"/":""}"#, r#"{"/":"bafy"}"#, r#"{"/":"\ud800"}"#, r#"{"/":"/ipfs/bafkqaaa"}"#] {
            assert_eq!(found(text), Err(BlockError::NotACid(5)), "{text}");
        }
        let long = format!(r#"{{"/":"b{}"}}"#, "a".repeat(1 << 20));
        assert_eq!(found(&long), Err(BlockError::NotACid(5)));
        let weak = r#"{"/":"f015512010f"}"#;
        assert_eq!(found(weak), Err(BlockError::Link(PolicyError::DigestTooShort(1))));
    }

    #[test]
    fn nesting_is_capped() {
        let nest =
            |open: &str, depth: usize, close: &str| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"{"/":"#, "}")] {
            assert_eq!(found(&nest(open, MAX_NESTING, close)), Ok(vec![]));
            assert_eq!(found(&nest(open, MAX_NESTING + 1, close)), Err(BlockError::TooDeep));
            assert_eq!(found(&open.repeat(100_000)), Err(BlockError::TooDeep));
        }
    }
}

#[test]
fn raw_blocks_have_no_links_and_unknown_codecs_are_named() {
    assert_eq!(list(0x55, b"anything"), Ok(vec![]));
    assert_eq!(list(0x72, b""), Err(BlockError::Codec(0x72)));
    assert_eq!(BlockError::Codec(0x72).reason(), Reason::UnsupportedCodec);
    assert_eq!(list(0x55, &vec![0; policy::MAX_BLOCK + 1]), Err(BlockError::TooLarge(policy::MAX_BLOCK + 1)));
}

use super::*;
use crate::content::Multihash;
use crate::hash;

/// Encodes the UnixFS messages of these tests.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn of(kind: u8) -> Self {
        Self(vec![0x08, kind])
    }

    fn number(mut self, field: u8, number: u64) -> Self {
        self.0.push(field << 3);
        varint(&mut self.0, number);
        self
    }

    fn bytes(mut self, field: u8, bytes: &[u8]) -> Self {
        self.0.push(field << 3 | 2);
        varint(&mut self.0, bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn node(&self, links: &[(&str, Cid)]) -> Vec<u8> {
        let mut node = Self::default();
        for (name, cid) in links {
            let link = Self::default().bytes(1, &cid.to_bytes()).bytes(2, name.as_bytes()).number(3, 9);
            node = node.bytes(2, &link.0);
        }
        node.bytes(1, &self.0).0
    }
}

fn varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn leaf(fill: u8) -> Cid {
    Cid::new_v1(0x55, hash::multihash(hash::SHA2_256, &[fill]).unwrap())
}

fn decode(message: &Message, links: &[(&str, Cid)]) -> Result<Node, UnixFsError> {
    Node::decode(0x70, &message.node(links))
}

fn file(message: &Message, links: &[(&str, Cid)]) -> File {
    match decode(message, links).unwrap() {
        Node::File(file) => file,
        other => panic!("{other:?}"),
    }
}

fn shard(fanout: u64, links: &[(&str, Cid)]) -> Result<Shard, UnixFsError> {
    match decode(&Message::of(5).number(5, 0x22).number(6, fanout), links)? {
        Node::Shard(shard) => Ok(shard),
        other => panic!("{other:?}"),
    }
}

#[test]
fn raw_blocks_and_small_files_hold_their_bytes() {
    let Node::File(raw) = Node::decode(0x55, b"bytes").unwrap() else { panic!() };
    assert_eq!((raw.bytes(), raw.size(), raw.children().count()), (&b"bytes"[..], 5, 0));
    for kind in [0, 2] {
        let small = file(&Message::of(kind).bytes(2, b"hello").number(3, 5).number(7, 0o644), &[]);
        assert_eq!((small.bytes(), small.size()), (&b"hello"[..], 5));
    }
    let empty = file(&Message::of(2), &[]);
    assert_eq!((empty.size(), empty.cover(0..10).inline), (0, &[][..]));
}

#[test]
fn a_range_is_covered_by_the_parts_that_overlap_it() {
    let message = Message::of(2).bytes(2, b"in").number(3, 12).number(4, 4).number(4, 0).number(4, 6);
    let file = file(&message, &[("", leaf(1)), ("", leaf(2)), ("", leaf(3))]);
    let check = |range: std::ops::Range<u64>, inline: &[u8], parts: &[(u8, u64, std::ops::Range<u64>)]| {
        let cover = file.cover(range.clone());
        let want: Vec<_> = parts
            .iter()
            .map(|(fill, size, range)| Part { cid: leaf(*fill), size: *size, range: range.clone() })
            .collect();
        assert_eq!((cover.inline, cover.parts), (inline, want), "{range:?}");
    };
    check(0..12, b"in", &[(1, 4, 0..4), (3, 6, 0..6)]);
    check(0..u64::MAX, b"in", &[(1, 4, 0..4), (3, 6, 0..6)]);
    check(0..2, b"in", &[]);
    check(1..3, b"n", &[(1, 4, 0..1)]);
    check(3..5, b"", &[(1, 4, 1..3)]);
    check(5..7, b"", &[(1, 4, 3..4), (3, 6, 0..1)]);
    check(11..12, b"", &[(3, 6, 5..6)]);
    check(4..4, b"", &[]);
    check(12..20, b"", &[]);
    check(u64::MAX..u64::MAX, b"", &[]);
}

#[test]
fn ranges_of_any_kind_are_covered_without_gap_or_overlap() {
    let sizes = [3_u64, 0, 7, 1, 0, 12];
    let message =
        sizes.iter().fold(Message::of(2).bytes(2, b"head"), |message, &size| message.number(4, size));
    let links: Vec<_> = (0..).zip(sizes).map(|(fill, _)| ("", leaf(fill))).collect();
    let file = file(&message, &links);
    for start in 0..=28 {
        for end in start..=28 {
            let cover = file.cover(start..end);
            let covered: u64 = cover.parts.iter().map(|part| part.range.end - part.range.start).sum();
            assert_eq!(covered + cover.inline.len() as u64, end.min(27) - start.min(27), "{start}..{end}");
        }
    }
}

#[test]
fn files_whose_sizes_do_not_add_up_are_refused() {
    let one = [("", leaf(1))];
    for message in [
        Message::of(2),
        Message::of(2).number(4, 1).number(4, 1),
        Message::of(2).number(4, 5).number(3, 6),
        Message::of(2).number(4, 5).number(3, u64::MAX),
        Message::of(2).bytes(2, b"x").number(4, u64::MAX),
        Message::of(2).bytes(4, &[0x80]),
        Message::of(2).bytes(3, b"x"),
        Message::of(2).number(2, 1),
    ] {
        assert!(matches!(decode(&message, &one), Err(UnixFsError::Data(_))), "{:?}", message.0);
    }
    assert_eq!(file(&Message::of(2).number(4, u64::MAX), &one).size(), u64::MAX);
    assert_eq!(file(&Message::of(2).bytes(4, &[5]), &one).size(), 5);
}

#[test]
fn directories_symlinks_and_what_is_neither() {
    let Node::Directory(directory) =
        decode(&Message::of(1), &[("a", leaf(1)), ("ü", leaf(2)), ("a", leaf(3))]).unwrap()
    else {
        panic!()
    };
    assert_eq!(directory.get("a"), Some(&leaf(1)));
    assert_eq!(directory.get("ü"), Some(&leaf(2)));
    assert_eq!((directory.get("b"), directory.entries().len()), (None, 3));
    assert_eq!(decode(&Message::of(4).bytes(2, b"../x"), &[]), Ok(Node::Symlink(b"../x".to_vec())));
    assert_eq!(decode(&Message::of(3), &[]), Err(UnixFsError::Type(3)));
    assert_eq!(decode(&Message::of(6), &[]), Err(UnixFsError::Type(6)));
    assert_eq!(decode(&Message::default(), &[]), Err(UnixFsError::NotUnixFs));
    assert_eq!(Node::decode(0x70, b""), Err(UnixFsError::NotUnixFs));
    assert_eq!(Node::decode(0x71, b"\xa0"), Err(UnixFsError::Codec(0x71)));
    assert_eq!(Node::decode(0x70, b"\x0a"), Err(UnixFsError::Block(BlockError::Truncated)));
}

#[test]
fn links_of_tiny_identity_cids_are_bounded() {
    let tiny = Cid::new_v1(0x55, Multihash::wrap(0, &[]).unwrap());
    let link = Message::default().bytes(1, &tiny.to_bytes());
    let one = Message::default().bytes(2, &link.0).0;
    let mut block = one.repeat(MAX_LINKS + 1);
    block.extend(Message::default().bytes(1, &Message::of(1).0).0);
    assert_eq!(Node::decode(0x70, &block), Err(UnixFsError::TooManyLinks));
}

#[test]
fn murmur3_is_the_published_one() {
    for (text, want) in [
        ("", 0_u64),
        ("hello", 0xcbd8_a7b3_41bd_9b02),
        ("hello, world", 0x342f_ac62_3a5e_bc8e),
        ("19 Jan 2038 at 3:14:07 AM", 0xb89e_5988_b737_affc),
        ("The quick brown fox jumps over the lazy dog.", 0xcd99_481f_9ee9_02c9),
    ] {
        assert_eq!(murmur3_x64_64(text.as_bytes()), want, "{text:?}");
    }
}

#[test]
fn a_shard_is_searched_by_the_bits_of_the_name() {
    // The hash of "hello" begins with CB D8; of "hello, world" with 34 2F.
    let entry = shard(256, &[("34", leaf(1)), ("CBhello", leaf(2))]).unwrap();
    assert_eq!(entry.find("hello", 0), Ok(Found::Entry(&leaf(2))));
    assert_eq!(entry.find("hello, world", 0), Ok(Found::Shard(&leaf(1))));
    assert_eq!(entry.find("hello", 1), Ok(Found::Missing));
    let deeper = shard(256, &[("D8hello", leaf(3)), ("2Fhello, world", leaf(4))]).unwrap();
    assert_eq!(deeper.find("hello", 1), Ok(Found::Entry(&leaf(3))));
    assert_eq!(deeper.find("hello, world", 1), Ok(Found::Entry(&leaf(4))));
    assert_eq!(entry.entries().collect::<Vec<_>>(), [(&b"hello"[..], &leaf(2))]);
    assert_eq!(entry.shards().collect::<Vec<_>>(), [&leaf(1)]);
    // Another name in the same bucket.
    let other = shard(256, &[("CBother", leaf(2))]).unwrap();
    assert_eq!(other.find("hello", 0), Ok(Found::Missing));
}

#[test]
fn a_shard_of_another_width_and_its_depth() {
    // CBD8… in steps of four bits, then of ten (1100 1011 11 = 32F).
    let narrow = shard(16, &[("Chello", leaf(1))]).unwrap();
    assert_eq!(narrow.find("hello", 0), Ok(Found::Entry(&leaf(1))));
    let wide = shard(1_024, &[("32Fhello", leaf(2))]).unwrap();
    assert_eq!(wide.find("hello", 0), Ok(Found::Entry(&leaf(2))));
    assert!(narrow.find("hello", 15).is_ok());
    for level in [16, u32::MAX] {
        assert_eq!(narrow.find("hello", level), Err(ShardError::TooDeep));
    }
    assert!(wide.find("hello", 5).is_ok());
    assert_eq!(wide.find("hello", 6), Err(ShardError::TooDeep));
}

#[test]
fn shards_that_are_not_well_formed_are_refused() {
    for fanout in [0, 1, 7, 100, 2_048, u64::MAX] {
        assert!(shard(fanout, &[]).is_err(), "{fanout}");
    }
    for name in ["", "A", "G0x", "ab", "+1x"] {
        assert!(shard(256, &[(name, leaf(1))]).is_err(), "{name}");
    }
    assert!(shard(8, &[("8", leaf(1))]).is_err());
    assert!(decode(&Message::of(5).number(6, 256), &[]).is_err());
}

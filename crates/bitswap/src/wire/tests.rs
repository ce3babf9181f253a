use cid::Cid;
use multihash_codetable::{Code, MultihashDigest};
use proptest::prelude::*;
use prost::Message as _;

use self::proto::{Block, Entry as ProtoEntry, Message, Presence, Wantlist};
use super::decode::{DecodeError, Decoder};
use super::*;

#[path = "../../tests/swarms/common/peer/proto.rs"]
pub(crate) mod proto;

fn cid(number: u64) -> Cid {
    Cid::new_v1(0x55, Code::Sha2_256.digest(&number.to_le_bytes()))
}

/// The prefix of a raw block hashed with SHA-256.
const PREFIX: [u8; 4] = [1, 0x55, 0x12, 32];

fn framed(message: &Message) -> Vec<u8> {
    message.encode_length_delimited_to_vec()
}

/// Feeds bytes in pieces of the given sizes, in turn.
fn decode(mut bytes: &[u8], sizes: &[usize], expects: bool) -> Result<Vec<Item>, DecodeError> {
    let mut decoder = Decoder::default();
    let mut items = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !bytes.is_empty() {
        let size = (*sizes.next().unwrap()).max(1).min(bytes.len());
        let room = decoder.room();
        let count = size.min(room.len());
        assert!(count > 0, "the decoder has no room");
        room[..count].copy_from_slice(&bytes[..count]);
        decoder.filled(count);
        bytes = &bytes[count..];
        while let Some(item) = decoder.next(expects)? {
            items.push(item);
        }
        assert!(decoder.held() <= MAX_BLOCK);
    }
    Ok(items)
}

/// What the decoder should give for a message.
fn expected(message: &Message) -> (Vec<(Vec<u8>, usize)>, Tail) {
    let mut blocks: Vec<_> = message.blocks.iter().map(|data| (data.clone(), 32)).collect();
    blocks.extend(message.payload.iter().map(|block| (block.data.clone(), usize::from(block.prefix[3]))));
    let list = message.wantlist.clone().unwrap_or_default();
    let wants = list.entries.iter().map(|entry| Entry {
        cid: Cid::try_from(entry.cid.as_slice()).unwrap(),
        priority: entry.priority,
        cancel: entry.cancel,
        kind: if entry.want_type == 1 { Kind::Have } else { Kind::Block },
        send_dont_have: entry.send_dont_have,
    });
    let presences = message
        .presences
        .iter()
        .map(|presence| (Cid::try_from(presence.cid.as_slice()).unwrap(), presence.kind == 0));
    (blocks, Tail { wants: wants.collect(), full: list.full, presences: presences.collect() })
}

fn entries() -> impl Strategy<Value = ProtoEntry> {
    (any::<u64>(), any::<i32>(), any::<bool>(), 0..2i32, any::<bool>()).prop_map(
        |(number, priority, cancel, want_type, send_dont_have)| ProtoEntry {
            cid: cid(number).to_bytes(),
            // The default of an absent priority is one.
            priority: if priority == 0 { 1 } else { priority },
            cancel,
            want_type,
            send_dont_have,
        },
    )
}

fn messages() -> impl Strategy<Value = Message> {
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        (any::<u8>(), 0..200_000usize).prop_map(|(byte, length)| vec![byte; length]),
    ];
    (
        prop::option::of(
            (prop::collection::vec(entries(), 0..40), any::<bool>())
                .prop_map(|(entries, full)| Wantlist { entries, full }),
        ),
        prop::collection::vec(data.clone(), 0..3),
        prop::collection::vec(data.prop_map(|data| Block { prefix: PREFIX.to_vec(), data }), 0..4),
        prop::collection::vec(
            (any::<u64>(), 0..2i32).prop_map(|(number, kind)| Presence { cid: cid(number).to_bytes(), kind }),
            0..20,
        ),
        any::<i32>(),
    )
        .prop_map(|(wantlist, blocks, payload, presences, pending_bytes)| Message {
            wantlist,
            blocks,
            payload,
            presences,
            pending_bytes,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_message_is_read_however_it_is_cut(
        sent in prop::collection::vec(messages(), 1..3),
        sizes in prop::collection::vec(prop_oneof![1..9usize, 1_000..70_000usize], 1..5),
    ) {
        let bytes: Vec<u8> = sent.iter().flat_map(framed).collect();
        let mut items = decode(&bytes, &sizes, true).unwrap().into_iter();
        for message in &sent {
            let (blocks, tail) = expected(message);
            for (data, length) in blocks {
                let Some(Item::Block { prefix, data: read }) = items.next() else { panic!("no block") };
                prop_assert_eq!(prefix.length, length);
                prop_assert!(data == read);
            }
            prop_assert_eq!(items.next(), Some(Item::End(tail)));
        }
        prop_assert_eq!(items.next(), None);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600), expects: bool) {
        let _ = decode(&bytes, &[7, 300], expects);
    }

    #[test]
    fn a_flipped_byte_is_survived(
        message in messages(), at: prop::sample::Index, bit in 0..8u32, expects: bool,
    ) {
        let mut bytes = framed(&message);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let _ = decode(&bytes, &[5_000], expects);
    }

    #[test]
    fn written_wantlists_are_read_by_others(entries in prop::collection::vec(entries(), 0..60)) {
        let (_, tail) = expected(&Message {
            wantlist: Some(Wantlist { entries: entries.clone(), full: false }),
            ..Message::default()
        });
        let written = encode::wantlist(&tail.wants, Version::V1_2);
        let read = Message::decode_length_delimited(&written[..]).unwrap();
        prop_assert_eq!(read.wantlist.unwrap().entries, entries);
    }

    #[test]
    fn written_answers_are_read_by_others(
        datas in prop::collection::vec((any::<u8>(), 0..20_000usize), 0..6),
        presences in prop::collection::vec((any::<u64>(), any::<bool>()), 0..20),
    ) {
        let blocks: Vec<_> = (datas.iter())
            .map(|(byte, length)| Bytes::from(vec![*byte; *length]))
            .map(|data| (Cid::new_v1(0x55, Code::Sha2_256.digest(&data)), data))
            .collect();
        let presences: Vec<_> = presences.iter().map(|(number, have)| (cid(*number), *have)).collect();
        let bytes: Vec<u8> = encode::response(&blocks, &presences, Version::V1_2).concat();
        let read = Message::decode_length_delimited(&bytes[..]).unwrap();
        prop_assert_eq!(read.payload.len(), blocks.len());
        for (read, (_, data)) in read.payload.iter().zip(&blocks) {
            prop_assert_eq!(&read.prefix[..], &PREFIX);
            prop_assert!(read.data == data[..]);
        }
        let told: Vec<_> = (read.presences.iter())
            .map(|presence| (Cid::try_from(&presence.cid[..]).unwrap(), presence.kind == 0))
            .collect();
        prop_assert_eq!(told, presences);
        let old: Vec<u8> = encode::response(&blocks, &[], Version::V1_0).concat();
        let old = Message::decode_length_delimited(&old[..]).unwrap();
        prop_assert!(old.blocks.iter().map(|data| &data[..]).eq(blocks.iter().map(|(_, data)| &data[..])));
    }
}

#[test]
fn old_peers_are_told_neither_kinds_nor_flags() {
    let entry = Entry { cid: cid(1), priority: 1, cancel: false, kind: Kind::Block, send_dont_have: true };
    let read = Message::decode_length_delimited(&encode::wantlist(&[entry], Version::V1_1)[..]).unwrap();
    assert!(!read.wantlist.unwrap().entries[0].send_dont_have);
}

#[test]
fn the_largest_block_is_read_and_a_larger_one_refused_at_its_length() {
    let data = vec![7; MAX_BLOCK];
    let message = Message { payload: vec![Block { prefix: PREFIX.to_vec(), data }], ..Message::default() };
    let items = decode(&framed(&message), &[65_536], true).unwrap();
    assert!(matches!(&items[0], Item::Block { data, .. } if data.len() == MAX_BLOCK));

    for payload in [true, false] {
        let data = vec![7; MAX_BLOCK + 1];
        let message = if payload {
            Message { payload: vec![Block { prefix: PREFIX.to_vec(), data }], ..Message::default() }
        } else {
            Message { blocks: vec![data], ..Message::default() }
        };
        // The first twenty bytes hold the lengths and hardly a byte of data.
        assert_eq!(
            decode(&framed(&message)[..20], &[20], true),
            Err(DecodeError::BlockTooLarge(MAX_BLOCK + 1))
        );
    }
}

#[test]
fn a_message_is_refused_at_its_length() {
    let mut bytes = Message { blocks: vec![vec![0; 1_000]; 5_000], ..Message::default() }.encode_to_vec();
    let length = bytes.len();
    bytes.splice(0..0, prost_varint(length as u64));
    assert_eq!(decode(&bytes[..4], &[4], true), Err(DecodeError::MessageTooLarge(length as u64)));
}

fn prost_varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(value, &mut out);
    out
}

#[test]
fn memory_follows_what_arrives_not_what_is_announced() {
    let mut bytes = prost_varint(3 << 20);
    bytes.extend([0x1a]);
    bytes.extend(prost_varint(2 << 20));
    bytes.extend([0x12]);
    bytes.extend(prost_varint(1 << 20));
    bytes.extend([1; 1_000]);
    let mut decoder = Decoder::default();
    decoder.room()[..bytes.len()].copy_from_slice(&bytes);
    decoder.filled(bytes.len());
    assert_eq!(decoder.next(true), Ok(None));
    assert!(decoder.held() <= 64 << 10, "holds {} bytes for a thousand", decoder.held());
}

#[test]
fn blocks_that_nobody_expects_are_skipped_without_memory() {
    let data = vec![7; 1_000_000];
    let message = Message {
        blocks: vec![data.clone()],
        payload: vec![Block { prefix: PREFIX.to_vec(), data }],
        ..Message::default()
    };
    let items = decode(&framed(&message), &[4_096], false).unwrap();
    assert_eq!(items, [Item::Skipped(1_000_000), Item::Skipped(1_000_000), Item::End(Tail::default())]);
}

#[test]
fn a_flood_of_entries_is_cut_and_odd_cids_are_skipped() {
    let odd = [
        Cid::new_v1(0x55, Multihash::wrap(0, b"identity").unwrap()).to_bytes(),
        vec![1; 200],
        vec![1, 0x55, 0x12],
        Vec::new(),
    ];
    let wants = (0..50_000).map(|number| cid(number).to_bytes());
    let entries =
        odd.into_iter().chain(wants).map(|cid| ProtoEntry { cid, priority: 1, ..ProtoEntry::default() });
    let wantlist = Some(Wantlist { entries: entries.collect(), full: true });
    let items = decode(&framed(&Message { wantlist, ..Message::default() }), &[30_000], true).unwrap();
    let [Item::End(tail)] = &items[..] else { panic!("one message") };
    assert_eq!(tail.wants.len(), MAX_ENTRIES);
    assert_eq!(tail.wants[0].cid, cid(0));
}

//! Contents: which bytes a CID names, whatever its text looks like.
//!
//! Two CIDs name the same content when their codec and multihash are equal;
//! version and base are a matter of writing. A [`ContentKey`] is that pair in
//! bytes, and is what databases, block stores and filters compare. The text
//! of a CID is echoed as it was submitted, so callers keep it beside the key.

use std::fmt;

use cid::multibase::{self, Base};
use serde::{Deserialize, Serialize};

use crate::policy::MAX_DIGEST;

/// A CID whose digest, or inline data, is at most 128 bytes.
pub type Cid = cid::CidGeneric<MAX_DIGEST>;

/// A multihash whose digest, or inline data, is at most 128 bytes.
pub type Multihash = cid::multihash::Multihash<MAX_DIGEST>;

/// A CID as block exchanges and block stores use it. Digests of more than 64
/// bytes do not fit; nothing that is fetched has one, identity CIDs do.
pub type BlockCid = cid::Cid;

/// The code of the identity function: the multihash holds the data itself.
pub const IDENTITY: u64 = 0x00;

/// The longest text of a CID, in bytes. The largest CID that [`crate::policy`]
/// accepts has 150 bytes, which base 2, the longest one, writes in 1,201.
pub const MAX_CID_TEXT: usize = 1_280;

/// The length of a CIDv0 in text: 34 bytes in base58btc.
const V0_TEXT: usize = 46;

/// Why a text or some bytes are not a CID, or not a content key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidError {
    /// The text exceeds [`MAX_CID_TEXT`].
    #[error("the CID has {0} characters; the longest has {MAX_CID_TEXT}")]
    TooLong(usize),
    /// There is nothing.
    #[error("the CID is empty")]
    Empty,
    /// The text is not in a known multibase.
    #[error("the CID is not valid text in a known multibase")]
    Base,
    /// The bytes are not those of a CIDv0 or CIDv1, or there are more.
    #[error("the CID is malformed: it must be a CIDv0 or CIDv1 and nothing else")]
    Form,
    /// A CIDv0 has no multibase prefix.
    #[error("a CIDv0 must not have a multibase prefix; write it as Qm…, or as a CIDv1")]
    PrefixedV0,
}

/// Reads a CID from text: CIDv0, or CIDv1 in any multibase.
///
/// # Errors
/// When the text is empty, too long, not in a known base, or holds anything
/// besides one CID. Paths such as `/ipfs/…` are refused.
pub fn parse(text: &str) -> Result<Cid, CidError> {
    if text.len() > MAX_CID_TEXT {
        return Err(CidError::TooLong(text.len()));
    }
    if text.is_empty() {
        return Err(CidError::Empty);
    }
    if text.len() == V0_TEXT && text.starts_with("Qm") {
        let bytes = Base::Base58Btc.decode(text).map_err(|_| CidError::Base)?;
        return from_bytes(&bytes);
    }
    // The identity base would take control characters as they are.
    if text.starts_with('\0') {
        return Err(CidError::Base);
    }
    let (_, bytes) = multibase::decode(text).map_err(|_| CidError::Base)?;
    if bytes.first() == Some(&0x12) {
        return Err(CidError::PrefixedV0);
    }
    from_bytes(&bytes)
}

/// Reads a CID from its binary form and requires that nothing follows it.
///
/// # Errors
/// When the bytes are not exactly one CID.
pub fn from_bytes(mut bytes: &[u8]) -> Result<Cid, CidError> {
    let cid = Cid::read_bytes(&mut bytes).map_err(|_| CidError::Form)?;
    if bytes.is_empty() { Ok(cid) } else { Err(CidError::Form) }
}

/// The inline data of an identity CID.
#[must_use]
pub fn inline_data(cid: &Cid) -> Option<&[u8]> {
    (cid.hash().code() == IDENTITY).then(|| cid.hash().digest())
}

/// The CID as block exchanges and block stores take it, none where the digest
/// exceeds 64 bytes. The version is kept.
#[must_use]
pub fn block_cid(cid: &Cid) -> Option<BlockCid> {
    let hash = cid.hash().resize().ok()?;
    BlockCid::new(cid.version(), cid.codec(), hash).ok()
}

/// The CID of a block as this crate takes it.
#[must_use]
pub fn of_block_cid(cid: &BlockCid) -> Cid {
    let hash = cid.hash().resize().expect("64 bytes fit into 128");
    Cid::new(cid.version(), cid.codec(), hash).expect("version and codec belonged together before")
}

/// A content: unsigned varint of the codec, then the bytes of the multihash.
/// Ordered and compared as bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct ContentKey(Box<[u8]>);

impl ContentKey {
    /// The content that a CID names.
    #[must_use]
    pub fn of(cid: &Cid) -> Self {
        let mut buffer = unsigned_varint::encode::u64_buffer();
        let codec = unsigned_varint::encode::u64(cid.codec(), &mut buffer);
        let mut bytes = Vec::with_capacity(codec.len() + cid.hash().encoded_len());
        bytes.extend_from_slice(codec);
        bytes.extend_from_slice(&cid.hash().to_bytes());
        Self(bytes.into())
    }

    /// Reads a key back.
    ///
    /// # Errors
    /// When the bytes are not a codec and a multihash, exactly.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CidError> {
        split(bytes).map(|_| Self(bytes.into()))
    }

    /// The bytes, as they are stored and compared.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The codec.
    #[must_use]
    pub fn codec(&self) -> u64 {
        self.parts().0
    }

    /// The multihash.
    #[must_use]
    pub fn multihash(&self) -> Multihash {
        self.parts().1
    }

    /// The CIDv1 of this content.
    #[must_use]
    pub fn to_cid(&self) -> Cid {
        let (codec, multihash) = self.parts();
        Cid::new_v1(codec, multihash)
    }

    fn parts(&self) -> (u64, Multihash) {
        split(&self.0).expect("a key was validated when it was made")
    }
}

fn split(bytes: &[u8]) -> Result<(u64, Multihash), CidError> {
    let (codec, rest) = unsigned_varint::decode::u64(bytes).map_err(|_| CidError::Form)?;
    let multihash = Multihash::from_bytes(rest).map_err(|_| CidError::Form)?;
    Ok((codec, multihash))
}

impl From<&Cid> for ContentKey {
    fn from(cid: &Cid) -> Self {
        Self::of(cid)
    }
}

impl TryFrom<Vec<u8>> for ContentKey {
    type Error = CidError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, CidError> {
        split(&bytes)?;
        Ok(Self(bytes.into()))
    }
}

impl From<ContentKey> for Vec<u8> {
    fn from(key: ContentKey) -> Self {
        key.0.into()
    }
}

impl fmt::Display for ContentKey {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_cid().fmt(to)
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "ContentKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V0: &str = "QmesfgDQ3q6prBy2Kg2gKbW4MAGuWiRP2DVuGA5MZSERLo";
    const V1: &str = "bafybeihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq";
    const RAW: &str = "bafkreihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq";

    #[test]
    fn a_content_is_codec_and_multihash_whatever_the_text() {
        let v1 = parse(V1).unwrap();
        let key = ContentKey::of(&v1);
        let bases = [Base::Base16Lower, Base::Base36Lower, Base::Base58Btc, Base::Base64, Base::Base2];
        let texts = bases.map(|base| v1.to_string_of_base(base).unwrap());
        for text in texts.iter().map(String::as_str).chain([V0, V1]) {
            assert_eq!(ContentKey::of(&parse(text).unwrap()), key, "{text}");
        }
        assert_ne!(ContentKey::of(&parse(RAW).unwrap()), key);
        assert_eq!(key.to_string(), V1);
        assert_eq!(key.codec(), 0x70);
        assert_eq!(key.multihash(), *v1.hash());
    }

    #[test]
    fn a_key_reads_back_from_its_bytes_alone() {
        for text in [V0, V1, RAW, "bafkqaaa", "bafkqac2imvwgy3zao5xxe3de"] {
            let key = ContentKey::of(&parse(text).unwrap());
            assert_eq!(ContentKey::from_bytes(key.as_bytes()), Ok(key.clone()));
            let mut longer = key.as_bytes().to_vec();
            longer.push(0);
            assert_eq!(ContentKey::from_bytes(&longer), Err(CidError::Form));
            assert_eq!(ContentKey::from_bytes(&longer[..longer.len() - 2]), Err(CidError::Form));
        }
        assert_eq!(ContentKey::from_bytes(&[]), Err(CidError::Form));
    }

    #[test]
    fn whatever_is_not_exactly_one_cid_is_refused() {
        let check = |text: &str, want| assert_eq!(parse(text), Err(want), "{text:?}");
        check("", CidError::Empty);
        check(&"b".repeat(MAX_CID_TEXT + 1), CidError::TooLong(MAX_CID_TEXT + 1));
        check(&format!("/ipfs/{V0}"), CidError::Base);
        check(&format!("f00/ipfs/{V1}"), CidError::Base);
        check(&format!(" {V1}"), CidError::Base);
        check(&format!("{V1} "), CidError::Base);
        check(&format!("z{V0}"), CidError::PrefixedV0);
        check(&V0.replace('L', "0"), CidError::Base);
        check("\0\u{1}U\0\0", CidError::Base);
        check("bafy", CidError::Base);
        check("bafya", CidError::Form);
        check("b", CidError::Form);
        check(
            &format!("f{}00", data_encoding::HEXLOWER.encode(&parse(V1).unwrap().to_bytes())),
            CidError::Form,
        );
        // Version 2; a digest of 129 bytes; a declared one of 2^63.
        check("f02551220", CidError::Form);
        check(&format!("f0155008101{}", "00".repeat(129)), CidError::Form);
        check("f01550080808080808080808001", CidError::Form);
    }

    #[test]
    fn the_longest_identity_cid_fits_and_is_not_a_block() {
        let cid = Cid::new_v1(0x55, Multihash::wrap(IDENTITY, &[7; 128]).unwrap());
        let text = cid.to_string_of_base(Base::Base2).unwrap();
        assert_eq!(parse(&text), Ok(cid));
        assert_eq!(inline_data(&cid), Some(&[7_u8; 128][..]));
        assert_eq!(block_cid(&cid), None);
        for text in [V0, V1] {
            let cid = parse(text).unwrap();
            let block = block_cid(&cid).unwrap();
            assert_eq!((block.to_string(), of_block_cid(&block)), (text.to_owned(), cid));
        }
    }
}

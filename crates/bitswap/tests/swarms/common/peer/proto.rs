//! Bitswap's messages as the specification has them, by a protobuf library:
//! what the crate's own reader and writer are compared with.

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Message {
    #[prost(message, optional, tag = "1")]
    pub(crate) wantlist: Option<Wantlist>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(crate) blocks: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) payload: Vec<Block>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) presences: Vec<Presence>,
    #[prost(int32, tag = "5")]
    pub(crate) pending_bytes: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Wantlist {
    #[prost(message, repeated, tag = "1")]
    pub(crate) entries: Vec<Entry>,
    #[prost(bool, tag = "2")]
    pub(crate) full: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Entry {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) cid: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub(crate) priority: i32,
    #[prost(bool, tag = "3")]
    pub(crate) cancel: bool,
    #[prost(int32, tag = "4")]
    pub(crate) want_type: i32,
    #[prost(bool, tag = "5")]
    pub(crate) send_dont_have: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Block {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) prefix: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Presence {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) cid: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub(crate) kind: i32,
}

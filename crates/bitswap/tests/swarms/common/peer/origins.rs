//! Origins that misbehave, each in a way of its own, and one that serves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::proto::{Block, Message, Presence};
use super::raw::{self, Raw};

/// What origins speak here.
pub(crate) const BITSWAP: &str = "/ipfs/bitswap/1.2.0";

/// The most bytes of blocks in a message, but for one block that is larger.
const MESSAGE: usize = 512 << 10;

/// The bytes of a CID that are not its digest, for a CIDv1 with SHA-256.
const PREFIX: usize = 4;

/// Blocks by the bytes of their CIDs, which are version 1.
pub(crate) type Blocks = HashMap<Vec<u8>, Vec<u8>>;

/// Says that it has everything, and sends nothing. Tells `asked` what it is
/// asked to send.
pub(crate) async fn stall(mut peer: Raw, asked: impl Fn(&[u8])) {
    while let Some(mut wantlist) = peer.inbound.recv().await {
        while let Ok(message) = raw::read(&mut wantlist).await {
            for entry in raw::wanted(&message) {
                if entry.want_type == 0 {
                    asked(&entry.cid);
                }
                let _ = peer.try_send(&raw::have(entry.cid)).await;
            }
        }
    }
}

/// Says that it has everything, and sends what nobody asked for. Tells `lied`
/// each time.
pub(crate) async fn lie(mut peer: Raw, lied: impl Fn()) {
    while let Some(mut wantlist) = peer.inbound.recv().await {
        while let Ok(message) = raw::read(&mut wantlist).await {
            for entry in raw::wanted(&message) {
                let answer = match entry.want_type {
                    0 => raw::blocks([&b"wanted by nobody"[..]]),
                    _ => raw::have(entry.cid),
                };
                let _ = peer.try_send(&answer).await;
                if entry.want_type == 0 {
                    lied();
                }
            }
        }
    }
}

/// Serves, and resets every stream of the other peer's on which nothing comes
/// for `idle`, whether or not something is on its way.
pub(crate) async fn serve(mut peer: Raw, blocks: Arc<Blocks>, idle: Duration) {
    while let Some(mut wantlist) = peer.inbound.recv().await {
        while let Ok(Ok(message)) = tokio::time::timeout(idle, raw::read(&mut wantlist)).await {
            for answer in answers(&message, &blocks) {
                let _ = peer.try_send(&answer).await;
            }
        }
    }
}

/// What a message is answered, in pieces.
fn answers(message: &Message, blocks: &Blocks) -> Vec<Message> {
    let (mut answers, mut answer, mut filled) = (Vec::new(), Message::default(), 0);
    for entry in raw::wanted(message) {
        match (blocks.get(&entry.cid), entry.want_type) {
            (Some(data), 0) => {
                if filled > 0 && filled + data.len() > MESSAGE {
                    answers.push(std::mem::take(&mut answer));
                    filled = 0;
                }
                filled += data.len();
                answer.payload.push(Block { prefix: entry.cid[..PREFIX].to_vec(), data: data.clone() });
            }
            (found, _) => {
                answer.presences.push(Presence { cid: entry.cid, kind: i32::from(found.is_none()) });
            }
        }
    }
    if answer != Message::default() {
        answers.push(answer);
    }
    answers
}

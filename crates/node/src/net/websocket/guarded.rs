//! A stream that ends at the header of a WebSocket frame that is too large.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::io::{AsyncRead, AsyncWrite};

/// The largest message that is taken. What libp2p sends in one is at most a
/// frame of its encryption, 64 KiB; other implementations send more at once.
pub(in crate::net) const MAX_MESSAGE: u64 = 2 << 20;

/// The longest answer to the WebSocket handshake.
const MAX_HANDSHAKE: usize = 16 << 10;

/// A stream whose incoming WebSocket frames are watched.
pub(in crate::net) struct Guarded<S> {
    stream: S,
    guard: Option<Guard>,
}

impl<S> Guarded<S> {
    /// A stream that is not watched.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, guard: None }
    }

    /// A stream to a server that has not answered the handshake yet.
    pub(super) fn watched(stream: S) -> Self {
        Self { stream, guard: Some(Guard::default()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if let Some(guard) = &mut self.guard {
            guard.follow(&buffer[..read])?;
        }
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// Follows a server's side of a WebSocket connection byte by byte, without
/// keeping any: the end of the HTTP answer, then each frame's header.
#[derive(Debug)]
enum Guard {
    /// In the HTTP answer: how long it is so far, and how much of the empty
    /// line that ends it has been seen.
    Handshake { length: usize, end: usize },
    /// In a frame's header: what has been read of it, and the bytes of the
    /// message that earlier frames brought.
    Header { bytes: [u8; 14], length: usize, message: u64 },
    /// In a frame's payload: what is left of it, and the message so far.
    Payload { left: u64, message: u64 },
}

impl Default for Guard {
    fn default() -> Self {
        Self::Handshake { length: 0, end: 0 }
    }
}

impl Guard {
    const fn header(message: u64) -> Self {
        Self::Header { bytes: [0; 14], length: 0, message }
    }

    fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((first, rest)) = bytes.split_first() {
            if let Self::Payload { left, message } = self {
                let skipped = (*left).min(bytes.len() as u64);
                *left -= skipped;
                bytes = &bytes[usize::try_from(skipped).unwrap_or(bytes.len())..];
                if *left == 0 {
                    *self = Self::header(*message);
                }
                continue;
            }
            self.step(*first)?;
            bytes = rest;
        }
        Ok(())
    }

    /// One byte of the handshake or of a header.
    fn step(&mut self, byte: u8) -> io::Result<()> {
        match self {
            Self::Handshake { length, end } => {
                *length += 1;
                *end = match (byte, *end) {
                    (b'\r', 0 | 2) | (b'\n', 1 | 3) => *end + 1,
                    (b'\r', _) => 1,
                    _ => 0,
                };
                if *end == 4 {
                    *self = Self::header(0);
                } else if *length == MAX_HANDSHAKE {
                    return Err(io::Error::other("the WebSocket server's handshake is too long"));
                }
            }
            Self::Header { bytes, length, message } => {
                bytes[*length] = byte;
                *length += 1;
                if let Some(payload) = payload(&bytes[..*length]) {
                    *self = frame(bytes[0], payload, *message)?;
                }
            }
            Self::Payload { .. } => {}
        }
        Ok(())
    }
}

/// The payload's length, once the header (RFC 6455, 5.2) is complete.
fn payload(header: &[u8]) -> Option<u64> {
    let (second, rest) = header.get(1..)?.split_first()?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (width, short) = match second & 0x7f {
        126 => (2, None),
        127 => (8, None),
        short => (0, Some(u64::from(short))),
    };
    if rest.len() < width + mask {
        return None;
    }
    let extended = || rest[..width].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
    Some(short.unwrap_or_else(extended))
}

/// What follows a frame's header.
fn frame(first: u8, payload: u64, message: u64) -> io::Result<Guard> {
    const FINAL: u8 = 0x80;
    const CONTROL: u8 = 0x08;
    if first & CONTROL != 0 {
        // Control frames (at most 125 bytes) come between those of a message.
        return if payload > 125 { Err(too_large()) } else { Ok(into_payload(payload, message)) };
    }
    let message = message.saturating_add(payload);
    if message > MAX_MESSAGE {
        return Err(too_large());
    }
    Ok(into_payload(payload, if first & FINAL == 0 { message } else { 0 }))
}

fn into_payload(left: u64, message: u64) -> Guard {
    if left == 0 { Guard::header(message) } else { Guard::Payload { left, message } }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the WebSocket server announced too large a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    /// Follows `bytes` in pieces of every small size and at once.
    fn check(bytes: &[u8], expected: bool) {
        for size in [1, 2, 3, 7, 1000, bytes.len()] {
            let mut guard = Guard::default();
            let followed = bytes.chunks(size).try_for_each(|piece| guard.follow(piece));
            assert_eq!(followed.is_ok(), expected, "in pieces of {size}");
        }
    }

    fn frames(frames: &[(u8, u64, usize)]) -> Vec<u8> {
        let mut bytes = ANSWER.to_vec();
        for (first, declared, sent) in frames {
            bytes.push(*first);
            match declared {
                0..=125 => bytes.push(*declared as u8),
                126..=0xffff => {
                    bytes.push(126);
                    bytes.extend((*declared as u16).to_be_bytes());
                }
                _ => {
                    bytes.push(127);
                    bytes.extend(declared.to_be_bytes());
                }
            }
            bytes.resize(bytes.len() + sent, 0x7f);
        }
        bytes
    }

    #[test]
    fn ordinary_messages_pass() {
        check(ANSWER, true);
        check(&frames(&[(0x82, 5, 5), (0x82, 0, 0), (0x89, 4, 4), (0x82, 300, 300)]), true);
        check(&frames(&[(0x82, 70_000, 70_000), (0x82, MAX_MESSAGE, 10)]), true);
    }

    #[test]
    fn what_is_too_large_ends_at_its_header() {
        check(&frames(&[(0x82, MAX_MESSAGE + 1, 0)]), false);
        check(&frames(&[(0x82, u64::MAX, 0)]), false);
        check(&frames(&[(0x82, 5, 5), (0x82, 256 << 20, 0)]), false);
        check(&frames(&[(0x89, 126, 0)]), false);
        check(&[b'x'; MAX_HANDSHAKE], false);
    }

    #[test]
    fn fragments_count_together() {
        let third = MAX_MESSAGE / 3;
        let fragments = [(0x02, third, third as usize), (0x8a, 0, 0), (0x00, third, third as usize)];
        check(&frames(&fragments), true);
        check(&frames(&[fragments.as_slice(), &[(0x80, third + 3, 0)]].concat()), false);
        // A finished message starts the count anew.
        check(
            &frames(&[fragments.as_slice(), &[(0x80, third, third as usize), (0x82, third, 0)]].concat()),
            true,
        );
    }
}

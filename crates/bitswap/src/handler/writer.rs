//! A stream of our own, on which one message after the other is written.
//!
//! A peer may close an idle stream at any time, so that the next message needs
//! another. A message is kept until it is flushed, and written again on a new
//! stream when writing it fails.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{AsyncRead, AsyncWrite};

use crate::wire::Version;

/// Streams on which one message is tried.
const MAX_ATTEMPTS: usize = 3;

/// What a peer has for reading a message, whatever its length.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Beside that, bytes per second that a peer must read at least: else it would
/// hold our memory for nothing.
const MIN_RATE: usize = 32 << 10;

/// The pause after a stream could not be opened.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// What became of a writer, or what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is no stream. When there is a message to be written, or one is
    /// under way, a stream is to be opened.
    NoStream,
    /// A message can be given.
    Idle(Version),
    /// The message is written and flushed.
    Written,
    /// The peer has closed the stream: between two messages, or in one that
    /// is then written again. It may not have read those before.
    Closed,
    /// The message could not be written, and is given up.
    GivenUp,
}

struct Message {
    pieces: Vec<Bytes>,
    piece: usize,
    offset: usize,
    attempts: usize,
    deadline: Instant,
}

/// Writes messages to a stream that is opened when it is needed.
#[derive(Default)]
pub(crate) struct Writer {
    stream: Option<(libp2p::Stream, Version)>,
    opening: bool,
    reopen_at: Option<Instant>,
    message: Option<Message>,
    given_up: bool,
}

impl Writer {
    /// Gives it a message, as pieces. It must be idle.
    pub(crate) fn start(&mut self, pieces: Vec<Bytes>, now: Instant) {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let deadline = now + TIMEOUT + Duration::from_secs((length / MIN_RATE) as u64);
        self.message = Some(Message { pieces, piece: 0, offset: 0, attempts: 0, deadline });
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.message.is_some()
    }

    pub(crate) fn has_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether a stream is to be requested now; says so once.
    pub(crate) fn request(&mut self, now: Instant) -> bool {
        let request =
            self.stream.is_none() && !self.opening && self.reopen_at.is_none_or(|reopen_at| now >= reopen_at);
        self.opening |= request;
        request
    }

    /// The stream that was requested.
    pub(crate) fn opened(&mut self, mut stream: libp2p::Stream, version: Version) {
        stream.ignore_for_keep_alive();
        (self.opening, self.reopen_at) = (false, None);
        self.stream = Some((stream, version));
    }

    /// The stream that was requested could not be opened.
    pub(crate) fn not_opened(&mut self, now: Instant) {
        (self.opening, self.reopen_at) = (false, Some(now + REOPEN_AFTER));
        self.fail();
    }

    /// Whether it waits until a stream may be requested again.
    pub(crate) fn is_waiting(&self) -> bool {
        self.reopen_at.is_some() && self.stream.is_none()
    }

    /// Gives up a message that the peer does not read.
    pub(crate) fn check_deadline(&mut self, now: Instant) {
        if self.message.as_ref().is_some_and(|message| now >= message.deadline) {
            self.stream = None;
            self.message = None;
            self.given_up = true;
        }
    }

    /// Moves on as far as it can.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        if std::mem::take(&mut self.given_up) {
            return Poll::Ready(Progress::GivenUp);
        }
        let Some((stream, version)) = &mut self.stream else { return Poll::Ready(Progress::NoStream) };
        let Some(message) = &mut self.message else {
            if is_closed(stream, cx) {
                self.stream = None;
                return Poll::Ready(Progress::Closed);
            }
            return Poll::Ready(Progress::Idle(*version));
        };
        match ready!(message.poll_write(stream, cx)) {
            Ok(()) => {
                self.message = None;
                Poll::Ready(Progress::Written)
            }
            Err(_) => {
                self.stream = None;
                self.fail();
                Poll::Ready(if std::mem::take(&mut self.given_up) {
                    Progress::GivenUp
                } else {
                    Progress::Closed
                })
            }
        }
    }

    /// Begins the message anew, or gives it up.
    fn fail(&mut self) {
        let Some(message) = &mut self.message else { return };
        message.attempts += 1;
        (message.piece, message.offset) = (0, 0);
        if message.attempts >= MAX_ATTEMPTS {
            self.message = None;
            self.given_up = true;
        }
    }
}

impl Message {
    fn poll_write(&mut self, stream: &mut libp2p::Stream, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while let Some(piece) = self.pieces.get(self.piece) {
            if self.offset == piece.len() {
                (self.piece, self.offset) = (self.piece + 1, 0);
                continue;
            }
            match ready!(Pin::new(&mut *stream).poll_write(cx, &piece[self.offset..]))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                count => self.offset += count,
            }
        }
        Pin::new(stream).poll_flush(cx)
    }
}

/// Whether the peer has closed the stream. It has nothing to say on it
/// otherwise; what it says all the same is dropped.
fn is_closed(stream: &mut libp2p::Stream, cx: &mut Context<'_>) -> bool {
    let mut unexpected = [0; 64];
    match Pin::new(stream).poll_read(cx, &mut unexpected) {
        Poll::Ready(Ok(count)) => {
            if count > 0 {
                cx.waker().wake_by_ref();
            }
            count == 0
        }
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}

//! How fast a peer answers, and how much may be asked of it.
//!
//! The window begins small and grows with every answer, so that it doubles
//! each round trip. Once the peer's rate is known it holds what the peer
//! delivers within [`HORIZON`]: more would only queue there, where it can be
//! neither cancelled in time nor asked of a faster peer.

use std::time::{Duration, Instant};

use crate::Config;

/// Wants that a peer of unknown pace is asked.
const FIRST_WANTS: usize = 16;

/// Bytes that are expected of a peer of unknown pace.
const FIRST_BYTES: usize = 1 << 20;

/// The least that a slow peer's window shrinks to.
const MIN_WANTS: usize = 32;

/// How much of a peer's time its window covers.
const HORIZON: Duration = Duration::from_millis(400);

/// The most of it, for peers far away.
const MAX_HORIZON: Duration = Duration::from_secs(2);

/// How long the shortest answer stands for the round trip, at least.
const FLOOR: Duration = Duration::from_secs(30);

/// How long arrivals are counted for one reading of the rate.
const SAMPLE: Duration = Duration::from_millis(100);

/// The least time after which a want that was passed over is taken for lost.
const MIN_LOST: Duration = Duration::from_secs(1);

/// The shortest time after which another peer is asked for the same block.
const MIN_HEDGE: Duration = Duration::from_millis(100);

/// The same for a peer whose pace is unknown.
const UNKNOWN_HEDGE: Duration = Duration::from_millis(300);

/// Measures one peer.
#[derive(Debug)]
pub(crate) struct Pace {
    wants: usize,
    bytes: usize,
    rtt: Floor,
    rate: Option<Rate>,
    sample: Sample,
}

/// The least time that an answer took of late: the round trip, without the
/// time that wants wait in the peer's queue.
#[derive(Debug)]
struct Floor {
    since: Instant,
    least: Option<Duration>,
    /// The least of the time before `since`.
    before: Option<Duration>,
}

impl Floor {
    fn new(since: Instant) -> Self {
        Self { since, least: None, before: None }
    }

    fn note(&mut self, waited: Duration, now: Instant) {
        if now.saturating_duration_since(self.since) >= FLOOR {
            self.before = self.least.take();
            self.since = now;
        }
        self.least = Some(self.least.map_or(waited, |least| least.min(waited)));
    }

    fn get(&self) -> Option<Duration> {
        [self.least, self.before].into_iter().flatten().min()
    }
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    bytes: f64,
    blocks: f64,
}

#[derive(Debug)]
struct Sample {
    since: Instant,
    bytes: usize,
    blocks: usize,
    /// The window was full at some time, so that the peer, not the demand,
    /// set the rate.
    full: bool,
}

impl Sample {
    fn new(since: Instant) -> Self {
        Self { since, bytes: 0, blocks: 0, full: false }
    }
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            wants: FIRST_WANTS,
            bytes: FIRST_BYTES,
            rtt: Floor::new(now),
            rate: None,
            sample: Sample::new(now),
        }
    }

    /// The peer owes something after having owed nothing.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.sample = Sample::new(now);
    }

    /// The peer has not kept its pace: it must earn its window anew.
    pub(crate) fn reset_window(&mut self) {
        (self.wants, self.bytes) = (FIRST_WANTS, FIRST_BYTES);
    }

    /// An answer to what was asked at `asked` has come.
    pub(crate) fn answered(&mut self, asked: Instant, now: Instant) {
        self.rtt.note(now.saturating_duration_since(asked), now);
    }

    /// The peer has said that it lacks a block.
    pub(crate) fn denied(&mut self, config: &Config) {
        self.wants = (self.wants + 1).min(config.peer_window_wants);
    }

    /// A block of `length` bytes that was asked for has come.
    pub(crate) fn delivered(&mut self, length: usize, now: Instant, config: &Config) {
        self.wants = (self.wants + 1).min(config.peer_window_wants);
        self.bytes = (self.bytes + length).min(config.peer_window_bytes);
        self.sample.bytes += length;
        self.sample.blocks += 1;
        let elapsed = now.saturating_duration_since(self.sample.since);
        if elapsed >= SAMPLE {
            self.read_sample(elapsed);
            self.sample = Sample::new(now);
        }
    }

    fn read_sample(&mut self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let read =
            Rate { bytes: self.sample.bytes as f64 / seconds, blocks: self.sample.blocks as f64 / seconds };
        self.rate = Some(match self.rate {
            None => read,
            Some(rate) if self.sample.full => {
                Rate { bytes: (rate.bytes + read.bytes) / 2.0, blocks: (rate.blocks + read.blocks) / 2.0 }
            }
            Some(rate) => Rate { bytes: rate.bytes.max(read.bytes), blocks: rate.blocks.max(read.blocks) },
        });
    }

    fn horizon(&self) -> f64 {
        (self.rtt().unwrap_or_default() * 3).clamp(HORIZON, MAX_HORIZON).as_secs_f64()
    }

    fn window(&self) -> (usize, usize) {
        let Some(rate) = self.rate else { return (self.wants, self.bytes) };
        let wants = ((rate.blocks * self.horizon()) as usize).max(MIN_WANTS);
        let bytes = ((rate.bytes * self.horizon()) as usize).max(FIRST_BYTES);
        (self.wants.min(wants), self.bytes.min(bytes))
    }

    /// Whether one more may be asked, with `wants` and `bytes` asked already.
    pub(crate) fn has_room(&mut self, wants: usize, bytes: usize) -> bool {
        let (max_wants, max_bytes) = self.window();
        let room = wants < max_wants && bytes < max_bytes;
        self.sample.full |= !room;
        room
    }

    /// Half of the wants that may be asked: while more are under way, small
    /// additions can wait for each other.
    pub(crate) fn half_window(&self) -> usize {
        self.window().0 / 2
    }

    /// How long the peer probably takes for what is `queued` there; nothing
    /// for a peer that was not measured, so that it is tried.
    pub(crate) fn time_for(&self, queued: usize) -> Duration {
        match self.rate {
            Some(rate) if rate.bytes > 0.0 => {
                let seconds = queued as f64 / rate.bytes.max(1.0);
                self.rtt().unwrap_or_default() + Duration::from_secs_f64(seconds.min(3_600.0))
            }
            Some(_) => Duration::from_secs(3_600),
            None => Duration::ZERO,
        }
    }

    /// How old a want may become before another peer is asked as well.
    pub(crate) fn hedge_after(&self, queued: usize) -> Duration {
        match self.rate {
            Some(_) => (self.time_for(queued) * 3).max(MIN_HEDGE),
            None => UNKNOWN_HEDGE,
        }
    }

    /// How old a want may become while the peer answers younger ones, before
    /// it is taken for lost.
    pub(crate) fn lost_after(&self) -> Duration {
        MIN_LOST + Duration::from_secs_f64(self.horizon() * 4.0)
    }

    /// The time that an answer takes at least, once one has come.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt.get()
    }
}

//! How far long work has come, on standard error: on a terminal in one line
//! that is written over, elsewhere in lines at a bounded pace.

use std::{
    io::{self, IsTerminal, Stderr, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::output::printable;

/// Nothing is told of work that ends sooner.
const SOONER: Duration = Duration::from_secs(1);
/// Between two texts on a terminal: as often as people can read.
const REWRITE_EVERY: Duration = Duration::from_millis(200);
/// Between two lines elsewhere: a night's work does not fill a log.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Characters of the line that is written over; one that is wider than the
/// terminal would leave its beginning behind.
const WIDTH: usize = 79;
/// Goes back to the line's beginning and empties it.
const CLEAR: &str = "\r\u{1b}[K";

/// Where progress is told.
enum To {
    /// A terminal.
    Line,
    /// Anything else.
    Lines,
    /// Nowhere: standard output tells it, on the same terminal.
    Nowhere,
}

/// Tells how far one work has come, until it is dropped.
pub(crate) struct Progress<W: Write = Stderr> {
    out: W,
    to: To,
    begun: Instant,
    last: Option<Instant>,
    /// Whether the line that is written over has something in it.
    shown: bool,
}

impl Progress {
    /// For work that says on standard output what came of it at its end.
    pub(crate) fn new() -> Self {
        let to = if io::stderr().is_terminal() { To::Line } else { To::Lines };
        Self::to(io::stderr(), to, Instant::now())
    }

    /// For work that lists on standard output what it does.
    pub(crate) fn beside_list() -> Self {
        let mut progress = Self::new();
        if io::stdout().is_terminal() {
            progress.to = To::Nowhere;
        }
        progress
    }
}

impl<W: Write> Progress<W> {
    fn to(out: W, to: To, begun: Instant) -> Self {
        Self { out, to, begun, last: None, shown: false }
    }

    /// A step among many: told when it is time.
    pub(crate) fn step(&mut self, text: impl FnOnce() -> String) {
        self.step_at(Instant::now(), text);
    }

    fn step_at(&mut self, now: Instant, text: impl FnOnce() -> String) {
        let pause = match self.to {
            To::Line => REWRITE_EVERY,
            To::Lines => LINE_EVERY,
            To::Nowhere => return,
        };
        let due = match self.last {
            Some(last) => now.saturating_duration_since(last) >= pause,
            None => now.saturating_duration_since(self.begun) >= SOONER,
        };
        if due {
            self.turn_at(now, &text());
        }
    }

    /// Something that must not be missed: told at once.
    pub(crate) fn turn(&mut self, text: &str) {
        self.turn_at(Instant::now(), text);
    }

    fn turn_at(&mut self, now: Instant, text: &str) {
        let text = printable(text);
        // Where nobody can hear it, the work goes on.
        let _ = match self.to {
            To::Line => {
                self.shown = true;
                let end = text.char_indices().nth(WIDTH).map_or(text.len(), |(at, _)| at);
                write!(self.out, "{CLEAR}{}", &text[..end]).and_then(|()| self.out.flush())
            }
            To::Lines => writeln!(self.out, "{text}"),
            To::Nowhere => Ok(()),
        };
        self.last = Some(now);
    }

    /// Something that stays, wherever it is told.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        let _ = writeln!(self.out, "{}", printable(text));
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(self.out, "{CLEAR}").and_then(|()| self.out.flush());
        }
    }
}

impl<W: Write> Drop for Progress<W> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Counts work that is done elsewhere, on another thread.
#[derive(Debug)]
pub(crate) struct Meter {
    what: &'static str,
    of: &'static str,
    done: AtomicU64,
    total: AtomicU64,
}

impl Meter {
    /// Nothing is done yet, of nobody knows how much.
    pub(crate) fn new(what: &'static str, of: &'static str) -> Arc<Self> {
        Arc::new(Self { what, of, done: AtomicU64::new(0), total: AtomicU64::new(0) })
    }

    /// For the work to call: how much is done, and of how much.
    pub(crate) fn counts(self: &Arc<Self>) -> impl Fn(u64, u64) + Send + Sync + 'static {
        let meter = Arc::clone(self);
        move |done, total| {
            meter.done.store(done, Ordering::Relaxed);
            meter.total.store(total, Ordering::Relaxed);
        }
    }

    /// Waits for the work and tells how far it is.
    pub(crate) async fn watch<T>(&self, work: impl Future<Output = T>) -> T {
        let mut progress = Progress::new();
        let mut work = std::pin::pin!(work);
        let mut looks = tokio::time::interval(REWRITE_EVERY);
        let begun = Instant::now();
        loop {
            tokio::select! {
                done = work.as_mut() => return done,
                _ = looks.tick() => progress.step(|| self.text(begun.elapsed())),
            }
        }
    }

    fn text(&self, elapsed: Duration) -> String {
        let (what, of, seconds) = (self.what, self.of, elapsed.as_secs());
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        match done.min(total).saturating_mul(100).checked_div(total) {
            Some(percent) => format!("{what}: {done} of {total} {of}, {percent} %, {seconds} s"),
            None => format!("{what}: {seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written of a step every 100 ms for `tenths` of a second, and of
    /// a turn in the middle.
    fn written(to: To, tenths: u32) -> String {
        let (begun, mut out) = (Instant::now(), Vec::new());
        let mut progress = Progress::to(&mut out, to, begun);
        for tenth in 0..tenths {
            let now = begun + Duration::from_millis(100) * tenth;
            progress.step_at(now, || format!("step {tenth}"));
            if tenth == tenths / 2 {
                progress.turn_at(now, "turn\u{9b}");
            }
        }
        progress.note("note");
        drop(progress);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn elsewhere_lines_come_at_a_bounded_pace() {
        assert_eq!(written(To::Lines, 5), "turn\\u{9b}\nnote\n", "too short to be told");
        let text = written(To::Lines, 600);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            ["step 10", "step 110", "step 210", "turn\\u{9b}", "step 400", "step 500", "note"]
        );
        assert!(!text.contains(['\r', '\u{1b}']));
    }

    #[test]
    fn on_a_terminal_one_line_is_written_over() {
        let text = written(To::Line, 20);
        let clear = "\r\u{1b}[K";
        assert_eq!(text.split(clear).count(), 8, "{text:?}");
        assert!(text.ends_with(&format!("{clear}step 18{clear}note\n")), "{text:?}");
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn a_long_line_is_cut_where_a_character_ends() {
        let (begun, mut out) = (Instant::now(), Vec::new());
        Progress::to(&mut out, To::Line, begun).turn_at(begun, &"ö".repeat(200));
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('ö').count(), WIDTH);
    }

    #[test]
    fn a_list_on_the_same_terminal_tells_enough() {
        assert_eq!(written(To::Nowhere, 600), "note\n");
    }

    #[test]
    fn a_meter_tells_what_it_knows() {
        let meter = Meter::new("copying the database", "pages");
        assert_eq!(meter.text(Duration::from_secs(3)), "copying the database: 3 s");
        meter.counts()(5, 20);
        assert_eq!(meter.text(Duration::from_secs(4)), "copying the database: 5 of 20 pages, 25 %, 4 s");
    }
}

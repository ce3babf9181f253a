//! The order in which a search tries its kinds of sources, and when the next
//! kind begins.
//!
//! Plain state: the search says what it has to wait for, and does what begins.

use std::time::Duration;

use tokio::time::Instant;

/// How long a stage has before the next one begins beside it.
pub(super) const STAGE: Duration = Duration::from_secs(3);

/// A kind of sources; see [`super`] for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Origins,
    Nodes,
    Providers,
    Gateways,
    /// There is no further kind.
    Nothing,
}

impl Stage {
    fn next(self) -> Self {
        match self {
            Self::Origins => Self::Nodes,
            Self::Nodes => Self::Providers,
            Self::Providers => Self::Gateways,
            Self::Gateways | Self::Nothing => Self::Nothing,
        }
    }
}

/// Where a search stands.
pub(super) struct Stages {
    stage: Stage,
    began: Instant,
}

impl Stages {
    /// Begins with the origins.
    pub(super) fn new(now: Instant) -> Self {
        Self { stage: Stage::Origins, began: now }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// The stage's time begins anew: something came, or something new is
    /// looked for.
    pub(super) fn renew(&mut self, now: Instant) {
        self.began = now;
    }

    /// When the stage's time is over; none for the last one.
    pub(super) fn ends(&self) -> Option<Instant> {
        (self.stage < Stage::Nothing).then(|| self.began + STAGE)
    }

    /// Begins the next stage if it is time: this one's is over, or it has
    /// nothing left to wait for.
    pub(super) fn advance(&mut self, is_idle: bool, now: Instant) -> Option<Stage> {
        let ends = self.ends()?;
        if !is_idle && now < ends {
            return None;
        }
        *self = Self { stage: self.stage.next(), began: now };
        Some(self.stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: [Stage; 4] = [Stage::Nodes, Stage::Providers, Stage::Gateways, Stage::Nothing];

    #[test]
    fn each_stage_has_three_seconds_while_there_is_something_to_wait_for() {
        let start = Instant::now();
        let mut stages = Stages::new(start);
        assert_eq!(stages.stage(), Stage::Origins);
        for (begun, next) in ORDER.into_iter().enumerate() {
            let ends = start + Duration::from_secs(3) * (begun as u32 + 1);
            assert_eq!(stages.ends(), Some(ends));
            assert_eq!(stages.advance(false, ends - Duration::from_millis(1)), None);
            assert_eq!(stages.advance(false, ends), Some(next));
        }
        assert_eq!(
            (stages.ends(), stages.advance(true, start + STAGE * 99)),
            (None, None),
            "nothing follows"
        );
    }

    #[test]
    fn stages_follow_each_other_at_once_when_there_is_nothing_to_wait_for() {
        let now = Instant::now();
        let mut stages = Stages::new(now);
        let begun: Vec<_> = std::iter::from_fn(|| stages.advance(true, now)).collect();
        assert_eq!(begun, ORDER);
    }

    #[test]
    fn what_comes_gives_a_stage_its_time_again() {
        let now = Instant::now();
        let mut stages = Stages::new(now);
        stages.renew(now + Duration::from_secs(2));
        assert_eq!(stages.advance(false, now + STAGE), None);
        assert_eq!(stages.advance(false, now + STAGE + Duration::from_secs(2)), Some(Stage::Nodes));
    }
}

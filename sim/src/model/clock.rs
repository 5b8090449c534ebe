//! The clocks of one machine, which may be off: [`Clock`].

use cronclave::time::{Mono, Now, Wall};

/// 2026-11-23T02:00:00Z: when every simulation begins.
const BEGIN: Wall = Wall::from_secs(1_795_399_200);

/// Nodes never see the very start of their monotonic clock, as in production.
pub(crate) const MONO_BEGIN: Mono = Mono::from_micros(1_000_000);

/// The true civil time at an instant of the simulation.
pub(crate) fn true_wall(at: Mono) -> Wall {
    BEGIN + at.saturating_since(MONO_BEGIN)
}

/// A monotonic clock that may run fast or slow, and a civil clock that may besides be off.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// Parts in a million by which both run fast.
    drift: i32,
    /// The true time at which the drift last changed, and what the clock showed then.
    since: Mono,
    shown: Mono,
    /// How far the civil clock is ahead of the begin and the monotonic clock, in microseconds.
    ahead: i64,
    /// How far it is ahead when it is well.
    skew: i64,
}

impl Clock {
    /// Clocks that show the true time, but for `skew` microseconds.
    pub(crate) fn new(skew: i64) -> Self {
        Self { drift: 0, since: MONO_BEGIN, shown: MONO_BEGIN, ahead: skew, skew }
    }

    /// What the monotonic clock shows at a true time.
    pub(crate) fn mono(&self, at: Mono) -> Mono {
        let passed = i128::from(at.as_micros()) - i128::from(self.since.as_micros());
        let run = passed * i128::from(1_000_000 + self.drift) / 1_000_000;
        Mono::from_micros(saturate(i128::from(self.shown.as_micros()) + run))
    }

    /// Both clocks at a true time.
    pub(crate) fn now(&self, at: Mono) -> Now {
        let mono = self.mono(at);
        let wall = (BEGIN + mono.saturating_since(MONO_BEGIN)).as_micros();
        Now { mono, wall: Wall::from_micros(wall.saturating_add(self.ahead)) }
    }

    /// The true time at which the monotonic clock shows `shown`, or later by a microsecond.
    pub(crate) fn when(&self, shown: Mono) -> Mono {
        let rate = i128::from(1_000_000 + self.drift);
        let run = i128::from(shown.as_micros()) - i128::from(self.shown.as_micros());
        let passed = (run * 1_000_000).div_euclid(rate) + i128::from(run * 1_000_000 % rate != 0);
        Mono::from_micros(saturate(i128::from(self.since.as_micros()) + passed))
    }

    /// Has the civil clock jump.
    pub(crate) fn jump(&mut self, by: i64) {
        self.ahead = self.ahead.saturating_add(by);
    }

    /// Has both run fast by so many parts in a million from `at` on.
    pub(crate) fn set_drift(&mut self, at: Mono, ppm: i32) {
        self.shown = self.mono(at);
        self.since = at;
        self.drift = ppm;
    }

    /// Sets the civil clock right, and stops the drift. The monotonic clock keeps what it shows.
    pub(crate) fn set_right(&mut self, at: Mono) {
        self.set_drift(at, 0);
        let fast = i128::from(self.shown.as_micros()) - i128::from(self.since.as_micros());
        self.ahead = self.skew.saturating_sub(i64::try_from(fast).unwrap_or(i64::MAX));
    }

    /// How far the civil clock is off the true time, without its sign.
    #[cfg(test)]
    fn off(&self, at: Mono) -> std::time::Duration {
        let shown = self.now(at).wall;
        let is = true_wall(at);
        shown.saturating_since(is).max(is.saturating_since(shown))
    }
}

fn saturate(micros: i128) -> u64 {
    u64::try_from(micros.max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u32) -> Mono {
        MONO_BEGIN + SECOND * seconds
    }

    #[test]
    fn a_clock_that_runs_fast_is_ahead_and_its_deadlines_come_early() {
        let mut clock = Clock::new(0);
        clock.set_drift(at(10), 100_000);
        assert_eq!(clock.mono(at(20)), at(21));
        assert_eq!(clock.when(at(21)), at(20));
        assert_eq!(clock.when(clock.mono(at(15)) + Duration::from_micros(1)).as_micros(), {
            at(15).as_micros() + 1
        });
        assert_eq!(clock.off(at(20)), SECOND);
        clock.set_right(at(20));
        assert_eq!((clock.mono(at(20)), clock.off(at(30))), (at(21), Duration::ZERO));
    }

    #[test]
    fn a_jump_moves_the_civil_clock_alone() {
        let mut clock = Clock::new(5_000);
        clock.jump(-3_600_000_000);
        assert_eq!(clock.mono(at(3)), at(3));
        assert_eq!(clock.off(at(3)), SECOND * 3_600 - Duration::from_micros(5_000));
        clock.set_right(at(4));
        assert_eq!(clock.off(at(4)), Duration::from_micros(5_000));
    }

    #[test]
    fn a_deadline_is_never_early_by_the_clock_itself() {
        for ppm in [-300_000, -7, 0, 3, 999_999] {
            let mut clock = Clock::new(0);
            clock.set_drift(at(1), ppm);
            for micros in [1, 2, 3, 1_000, 123_457] {
                let deadline = clock.mono(at(2)) + Duration::from_micros(micros);
                assert!(clock.mono(clock.when(deadline)) >= deadline, "{ppm} {micros}");
            }
        }
    }
}

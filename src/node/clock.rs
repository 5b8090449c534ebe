//! The cluster's clock: what the leader stamps entries with, whatever its own clock says.
//!
//! Every envelope carries its sender's civil clock. A leader takes, at the start of its term, the
//! lower median of a quorum's clocks as the base, and from then on runs on its monotonic clock,
//! drawn towards the median by at most 5 % of the time that passes. So a clock that jumps, the
//! leader's own included, moves nothing that is due.
//!
//! **Invariants**
//! - Within a term the clock never goes back and never jumps.
//! - Without samples of a quorum it says nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::NodeId;
use crate::time::{Mono, Now, Wall};

/// A sample older than this no longer counts.
const SAMPLE_AGE_MAX: Duration = Duration::from_secs(5);

/// A leader further off the median than this claims nothing and hands over.
pub(super) const OFF_MAX: Duration = Duration::from_secs(2);

/// The clock is drawn towards the median by at most one part in this many of the time that passes.
const SLEW_DIVISOR: i64 = 20;

/// The clocks of the peers, and the cluster's clock while this node leads.
#[derive(Clone, Debug, Default)]
pub(super) struct ClusterClock {
    samples: BTreeMap<NodeId, Sample>,
    running: Option<Running>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Civil minus monotonic time, microseconds.
    offset: i64,
    at: Mono,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    /// Cluster minus monotonic time, microseconds.
    offset: i64,
    at: Mono,
}

impl Running {
    /// Drawn towards `median` by as much as the time since the last reading allows. Time too short
    /// for a whole microsecond is kept for the next reading.
    fn drawn(self, now: Mono, median: i64) -> Self {
        let passed = i64::try_from(now.saturating_since(self.at).as_micros()).unwrap_or(i64::MAX);
        let most = passed / SLEW_DIVISOR;
        let wanted = median.saturating_sub(self.offset);
        // The magnitude of the lowest number is none that an i64 can hold.
        if wanted.unsigned_abs() <= most.unsigned_abs() {
            return Self { offset: median, at: now };
        }
        let used = Duration::from_micros((most * SLEW_DIVISOR).unsigned_abs());
        Self { offset: self.offset.saturating_add(most * wanted.signum()), at: self.at + used }
    }
}

impl ClusterClock {
    /// A peer's clock said `wall`.
    pub(super) fn on_sample(&mut self, now: Now, peer: NodeId, wall: Wall) {
        self.samples.insert(peer, Sample { offset: offset(wall, now.mono), at: now.mono });
    }

    /// Forgets samples that no longer count, so that there are never more than live peers.
    pub(super) fn prune(&mut self, now: Mono) {
        self.samples.retain(|_, sample| now.saturating_since(sample.at) <= SAMPLE_AGE_MAX);
    }

    /// The node does not lead: the clock of its term is over.
    pub(super) fn stop(&mut self) {
        self.running = None;
    }

    /// The cluster's clock, for the leader among `voters`; `None` without samples of a quorum.
    pub(super) fn read(&mut self, now: Now, me: NodeId, voters: &[NodeId]) -> Option<Wall> {
        let median = self.median(now, me, voters);
        let running = match (self.running, median) {
            (None, None) => return None,
            (None, Some(median)) => Running { offset: median, at: now.mono },
            (Some(running), None) => Running { at: now.mono, ..running },
            (Some(running), Some(median)) => running.drawn(now.mono, median),
        };
        self.running = Some(running);
        let mono = i64::try_from(now.mono.as_micros()).unwrap_or(i64::MAX);
        Some(Wall::from_micros(mono.saturating_add(running.offset)))
    }

    /// How far this node's civil clock is ahead of the voters' median, in microseconds.
    pub(super) fn ahead(&self, now: Now, me: NodeId, voters: &[NodeId]) -> Option<i64> {
        let median = self.median(now, me, voters)?;
        Some(offset(now.wall, now.mono).saturating_sub(median))
    }

    /// Of `voters`, the one whose clock is nearest to the median, if that is not off itself.
    pub(super) fn nearest(&self, now: Now, me: NodeId, voters: &[NodeId]) -> Option<NodeId> {
        let median = self.median(now, me, voters)?;
        let others = voters.iter().filter(|&&voter| voter != me);
        let distance = |id: &NodeId| Some(self.samples.get(id)?.offset.abs_diff(median));
        let (near, off) = others.filter_map(|id| Some((*id, distance(id)?))).min_by_key(|x| x.1)?;
        (u128::from(off) <= OFF_MAX.as_micros()).then_some(near)
    }

    /// The lower median of the voters' offsets, if a quorum of them is known.
    fn median(&self, now: Now, me: NodeId, voters: &[NodeId]) -> Option<i64> {
        let fresh = |sample: &&Sample| now.mono.saturating_since(sample.at) <= SAMPLE_AGE_MAX;
        let known = |id: &NodeId| match *id == me {
            true => Some(offset(now.wall, now.mono)),
            false => self.samples.get(id).filter(fresh).map(|sample| sample.offset),
        };
        let mut offsets: Vec<i64> = voters.iter().filter_map(known).collect();
        if offsets.len() < voters.len() / 2 + 1 {
            return None;
        }
        offsets.sort_unstable();
        offsets.get((offsets.len() - 1) / 2).copied()
    }
}

fn offset(wall: Wall, mono: Mono) -> i64 {
    wall.as_micros().saturating_sub(i64::try_from(mono.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const VOTERS: [NodeId; 3] = [ME, NodeId(2), NodeId(3)];

    fn at(mono_ms: u64, wall_ms: i64) -> Now {
        let mono = Mono::from_micros(mono_ms * 1_000);
        Now { mono, wall: Wall::from_micros(wall_ms * 1_000) }
    }

    #[test]
    fn without_a_quorum_of_samples_there_is_no_time() {
        let mut clock = ClusterClock::default();
        assert_eq!(clock.read(at(0, 5), ME, &VOTERS), None);
        clock.on_sample(at(0, 5), NodeId(2), Wall::from_micros(7_000));
        assert_eq!(clock.read(at(0, 5), ME, &VOTERS), Some(Wall::from_micros(5_000)));
        assert_eq!(ClusterClock::default().read(at(0, 5), ME, &[ME]), Some(at(0, 5).wall));
    }

    #[test]
    fn a_leader_an_hour_ahead_uses_the_others_time_and_knows_it_is_off() {
        let mut clock = ClusterClock::default();
        for peer in [2, 3] {
            clock.on_sample(at(0, 3_600_000), NodeId(peer), Wall::EPOCH);
        }
        assert_eq!(clock.read(at(0, 3_600_000), ME, &VOTERS), Some(Wall::EPOCH));
        assert_eq!(clock.ahead(at(0, 3_600_000), ME, &VOTERS), Some(3_600_000_000));
        assert_eq!(clock.nearest(at(0, 3_600_000), ME, &VOTERS), Some(NodeId(2)));
    }

    #[test]
    fn the_furthest_clock_there_is_draws_no_further_than_another() {
        let mut clock = ClusterClock::default();
        assert_eq!(clock.read(at(0, 0), ME, &[ME]), Some(Wall::EPOCH));
        let mono = Mono::from_micros(1_000_000);
        let now = Now { mono, wall: Wall::from_micros(i64::MIN) };
        assert_eq!(clock.read(now, ME, &[ME]), Some(Wall::from_micros(950_000)));
    }

    #[test]
    fn a_jump_of_the_median_is_followed_by_at_most_a_twentieth() {
        let mut clock = ClusterClock::default();
        assert_eq!(clock.read(at(0, 0), ME, &[ME]), Some(Wall::EPOCH));
        let jumped = clock.read(at(1_000, 3_601_000), ME, &[ME]).unwrap();
        assert_eq!(jumped, Wall::from_micros(1_050_000));
        let back = clock.read(at(2_000, -10_000), ME, &[ME]).unwrap();
        assert_eq!(back, Wall::from_micros(2_000_000));
    }

    #[test]
    fn many_readings_in_a_row_draw_as_far_as_one() {
        let mut clock = ClusterClock::default();
        clock.read(at(0, 0), ME, &[ME]);
        let mut last = Wall::EPOCH;
        for micros in (0..=1_000_000).step_by(7) {
            let now = Now {
                mono: Mono::from_micros(micros),
                wall: Wall::from_micros(i64::try_from(micros).unwrap() + 60_000_000),
            };
            let read = clock.read(now, ME, &[ME]).unwrap();
            assert!(read >= last);
            last = read;
        }
        assert!(last > Wall::from_micros(1_049_000), "{last}");
    }
}

//! The cluster's clock: what the leader stamps entries with, whatever its own clock says.
//!
//! Every envelope carries its sender's civil clock. A leader takes, at the start of its term, the
//! lower median of a quorum's clocks as the base, and from then on runs on its monotonic clock,
//! drawn towards the median by at most 5 % of the time that passes, as long as a quorum agrees on
//! it. So a clock that jumps, the leader's own included, moves nothing that is due. What the log
//! was stamped with is past: with one of three servers lost and one of the others an hour behind,
//! the samples cannot tell which of the two is right, and the log can.
//!
//! **Invariants**
//! - Within a term the clock never goes back, and never jumps but over what the log has seen.
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

/// The lower median of a quorum's clocks, as civil minus monotonic time, microseconds.
#[derive(Clone, Copy, Debug)]
struct Median {
    offset: i64,
    /// Whether a quorum is within [`OFF_MAX`] of it. Otherwise it may itself be a wrong clock.
    agreed: bool,
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
    /// `floor` is the last stamp in the log: the clock is past it, whatever the samples say.
    pub(super) fn read(
        &mut self,
        now: Now,
        me: NodeId,
        voters: &[NodeId],
        floor: Wall,
    ) -> Option<Wall> {
        let median = self.median(now, me, voters);
        let mut running = match (self.running, median) {
            (None, None) => return None,
            (None, Some(Median { offset, .. })) => Running { offset, at: now.mono },
            (Some(running), Some(Median { offset, agreed: true })) => {
                running.drawn(now.mono, offset)
            }
            (Some(running), _) => Running { at: now.mono, ..running },
        };
        running.offset = running.offset.max(offset(floor, now.mono));
        self.running = Some(running);
        let mono = i64::try_from(now.mono.as_micros()).unwrap_or(i64::MAX);
        Some(Wall::from_micros(mono.saturating_add(running.offset)))
    }

    /// How far this node's civil clock is ahead of the cluster's, in microseconds, while it leads.
    pub(super) fn ahead(&self, now: Now) -> Option<i64> {
        Some(offset(now.wall, now.mono).saturating_sub(self.running?.offset))
    }

    /// Of `voters`, the one whose clock is nearest to the cluster's, if that is not off itself.
    pub(super) fn nearest(&self, me: NodeId, voters: &[NodeId]) -> Option<NodeId> {
        let reference = self.running?.offset;
        let others = voters.iter().filter(|&&voter| voter != me);
        let distance = |id: &NodeId| Some(self.samples.get(id)?.offset.abs_diff(reference));
        let (near, off) = others.filter_map(|id| Some((*id, distance(id)?))).min_by_key(|x| x.1)?;
        (u128::from(off) <= OFF_MAX.as_micros()).then_some(near)
    }

    /// The lower median of the voters' offsets, if a quorum of them is known.
    fn median(&self, now: Now, me: NodeId, voters: &[NodeId]) -> Option<Median> {
        let fresh = |sample: &&Sample| now.mono.saturating_since(sample.at) <= SAMPLE_AGE_MAX;
        let known = |id: &NodeId| match *id == me {
            true => Some(offset(now.wall, now.mono)),
            false => self.samples.get(id).filter(fresh).map(|sample| sample.offset),
        };
        let mut offsets: Vec<i64> = voters.iter().filter_map(known).collect();
        let quorum = voters.len() / 2 + 1;
        if offsets.len() < quorum {
            return None;
        }
        offsets.sort_unstable();
        let offset = *offsets.get((offsets.len() - 1) / 2)?;
        let near = |other: &&i64| u128::from(other.abs_diff(offset)) <= OFF_MAX.as_micros();
        Some(Median { offset, agreed: offsets.iter().filter(near).count() >= quorum })
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
        assert_eq!(clock.read(at(0, 5), ME, &VOTERS, Wall::EPOCH), None);
        clock.on_sample(at(0, 5), NodeId(2), Wall::from_micros(7_000));
        assert_eq!(clock.read(at(0, 5), ME, &VOTERS, Wall::EPOCH), Some(Wall::from_micros(5_000)));
        assert_eq!(
            ClusterClock::default().read(at(0, 5), ME, &[ME], Wall::EPOCH),
            Some(at(0, 5).wall)
        );
    }

    #[test]
    fn a_leader_an_hour_ahead_uses_the_others_time_and_knows_it_is_off() {
        let mut clock = ClusterClock::default();
        for peer in [2, 3] {
            clock.on_sample(at(0, 3_600_000), NodeId(peer), Wall::EPOCH);
        }
        assert_eq!(clock.read(at(0, 3_600_000), ME, &VOTERS, Wall::EPOCH), Some(Wall::EPOCH));
        assert_eq!(clock.ahead(at(0, 3_600_000)), Some(3_600_000_000));
        assert_eq!(clock.nearest(ME, &VOTERS), Some(NodeId(2)));
    }

    #[test]
    fn the_furthest_clock_there_is_draws_no_further_than_another() {
        let mut clock = ClusterClock::default();
        assert_eq!(clock.read(at(0, 0), ME, &[ME], Wall::EPOCH), Some(Wall::EPOCH));
        let mono = Mono::from_micros(1_000_000);
        let now = Now { mono, wall: Wall::from_micros(i64::MIN) };
        assert_eq!(clock.read(now, ME, &[ME], Wall::EPOCH), Some(Wall::from_micros(950_000)));
    }

    #[test]
    fn a_jump_of_the_median_is_followed_by_at_most_a_twentieth() {
        let mut clock = ClusterClock::default();
        assert_eq!(clock.read(at(0, 0), ME, &[ME], Wall::EPOCH), Some(Wall::EPOCH));
        let jumped = clock.read(at(1_000, 3_601_000), ME, &[ME], Wall::EPOCH).unwrap();
        assert_eq!(jumped, Wall::from_micros(1_050_000));
        let back = clock.read(at(2_000, -10_000), ME, &[ME], Wall::EPOCH).unwrap();
        assert_eq!(back, Wall::from_micros(2_000_000));
    }

    #[test]
    fn many_readings_in_a_row_draw_as_far_as_one() {
        let mut clock = ClusterClock::default();
        clock.read(at(0, 0), ME, &[ME], Wall::EPOCH);
        let mut last = Wall::EPOCH;
        for micros in (0..=1_000_000).step_by(7) {
            let now = Now {
                mono: Mono::from_micros(micros),
                wall: Wall::from_micros(i64::try_from(micros).unwrap() + 60_000_000),
            };
            let read = clock.read(now, ME, &[ME], Wall::EPOCH).unwrap();
            assert!(read >= last);
            last = read;
        }
        assert!(last > Wall::from_micros(1_049_000), "{last}");
    }

    #[test]
    fn with_one_lost_and_one_an_hour_behind_the_log_says_what_time_it_is() {
        let stamp = Wall::from_secs(3_600);
        let mut clock = ClusterClock::default();
        clock.on_sample(at(0, 3_600_000), NodeId(2), Wall::EPOCH);
        assert_eq!(clock.read(at(0, 3_600_000), ME, &VOTERS, stamp), Some(stamp));
        assert_eq!(clock.ahead(at(0, 3_600_000)), Some(0), "the right clock leads on");
        clock.on_sample(at(1_000, 3_601_000), NodeId(2), Wall::from_secs(1));
        let later = clock.read(at(1_000, 3_601_000), ME, &VOTERS, stamp);
        assert_eq!(later, Some(Wall::from_secs(3_601)), "nobody agrees with the wrong one");

        let mut clock = ClusterClock::default();
        clock.on_sample(at(0, 0), NodeId(2), stamp);
        assert_eq!(clock.read(at(0, 0), ME, &VOTERS, stamp), Some(stamp));
        assert_eq!(clock.ahead(at(0, 0)), Some(-3_600_000_000));
        assert_eq!(clock.nearest(ME, &VOTERS), Some(NodeId(2)), "the wrong clock hands over");
    }
}

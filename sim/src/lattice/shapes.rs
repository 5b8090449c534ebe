//! Networks in which not all who reach each other reach the same others: chain, bridge, star, and
//! the constrained election (after Ng et al., "Omni-Paxos", EuroSys 2023, section 2, and the outage
//! at Cloudflare of November 2020).
//!
//! What Raft must do in such a network depends on who reaches a quorum by links that go both ways:
//!
//! - **The leader does.** It keeps its lease, and nobody whom it reaches lets another campaign: the
//!   leader and whom it reaches work (P), whatever the rest tries.
//! - **Nobody does.** Nothing is granted anywhere (Z).
//! - **Others do, the leader does not.** Some network lets Raft elect one of them, another does
//!   not: who has to be elected may have a log that is too old, or may hear a leader that lost its
//!   quorum. Only safety is asked for, and that all works again when it is mended.

use std::time::Duration;

use super::script::Script;
use super::sets::{Places, quorum};
use super::{Experiment, Kind};
use crate::plan::Way;

/// The links of a shape, between positions from 0.
struct Shape {
    name: &'static str,
    linked: fn(usize, usize, usize) -> bool,
}

/// Each position reaches its neighbours.
const CHAIN: Shape = Shape { name: "chain", linked: |_, a, b| a.abs_diff(b) == 1 };

/// Position 0 reaches all, and nobody else anybody else.
const STAR: Shape = Shape { name: "star", linked: |_, a, b| a == 0 || b == 0 };

/// Position 0 reaches all; of the rest, the first half reaches itself and so does the second.
const BRIDGE: Shape = Shape {
    name: "bridge",
    linked: |size, a, b| a == 0 || b == 0 || (a <= size / 2) == (b <= size / 2),
};

/// P5, of clusters of `size` servers.
pub(super) fn all(size: usize, all: &mut Vec<Experiment>) {
    if size < 3 {
        return;
    }
    for shape in [CHAIN, STAR, BRIDGE] {
        for leader in 0..size {
            all.push(shaped(size, &shape, leader));
        }
    }
    all.push(constrained(size));
}

/// A shape with the leader at a position of it.
fn shaped(size: usize, shape: &Shape, leader: usize) -> Experiment {
    let everyone = Places::all(size);
    let id = format!("P5/n{size}/{}/leader{leader}", shape.name);
    let mut script = Script::new(id, size);
    let place = |position: usize| (position + size - leader) % size;
    let reached = |position: usize| -> Places {
        let is_reached = |&b: &usize| b == position || (shape.linked)(size, position, b);
        (0..size).filter(is_reached).map(place).collect()
    };
    for a in 0..size {
        for b in (0..a).filter(|&b| !(shape.linked)(size, a, b)) {
            script.cut_both(place(a), place(b));
        }
    }
    let has_quorum = |position: usize| reached(position).len() >= quorum(size);
    if has_quorum(leader) {
        script.progress(reached(leader));
        Experiment::within(Kind::P5, size, script)
    } else if (0..size).any(has_quorum) {
        script.either(everyone);
        Experiment::beyond(Kind::P5, size, script)
    } else {
        script.still(everyone);
        Experiment::beyond(Kind::P5, size, script)
    }
}

/// How long one server lags behind before it is the only one who reaches the others.
const LAGS: Duration = Duration::from_secs(1);

/// The constrained election: one server, the hub, is cut off until its log is behind. Then the
/// leader is, and the rest reach each other by the hub alone. Only the hub reaches a quorum, and
/// with its log it must not lead; of three servers the third reaches it and itself, which is a
/// quorum, and has the log.
fn constrained(size: usize) -> Experiment {
    let mut script = Script::new(format!("P5/n{size}/constrained"), size);
    let (leader, hub) = (Places::one(0), Places::one(1));
    let rest = Places::all(size).without(leader.or(hub));
    script.isolate(1, Way::Both);
    script.wait(LAGS);
    script.works(leader.or(rest));
    script.isolate(0, Way::Both);
    for (a, b) in rest.iter().flat_map(|a| rest.iter().map(move |b| (a, b))) {
        if a < b {
            script.cut_both(a, b);
        }
    }
    for place in rest.iter() {
        script.mend_both(1, place);
    }
    if size == 3 {
        script.progress(hub.or(rest));
        return Experiment::within(Kind::P5, size, script);
    }
    script.still(hub.or(rest));
    Experiment::beyond(Kind::P5, size, script)
}

//! Partitions: every way to part the servers, and links that are cut in other ways.

use std::time::Duration;

use super::script::{SILENCE, Script};
use super::sets::{Places, partitions, quorum};
use super::{Experiment, Kind, shapes};
use crate::plan::{Keep, Way};

/// All experiments with partitions, of clusters of `size` servers.
pub(super) fn all(size: usize) -> Vec<Experiment> {
    let mut all = Vec::new();
    every(size, &mut all);
    halves(size, &mut all);
    one_way(size, &mut all);
    isolated(size, &mut all);
    shapes::all(size, &mut all);
    swizzle(size, &mut all);
    mixed(size, &mut all);
    all
}

fn named(blocks: &[Places]) -> String {
    let blocks: Vec<String> = blocks.iter().map(Places::to_string).collect();
    blocks.join("+")
}

/// P1: every partition. A block that is a quorum works, with the agent on its side, and no other
/// does. Where none is, as many servers are moved to the largest block as it lacks (R).
fn every(size: usize, all: &mut Vec<Experiment>) {
    let everyone = Places::all(size);
    for blocks in partitions(size) {
        let mut script = Script::new(format!("P1/n{size}/{}", named(&blocks)), size);
        let working = blocks.iter().copied().find(|block| block.len() >= quorum(size));
        match working {
            Some(working) => {
                let mut sides = vec![working];
                sides.extend(blocks.iter().copied().filter(|&block| block != working));
                script.part(&sides);
                script.still_beside(everyone.without(working), working);
                all.push(Experiment::within(Kind::P1, size, script));
            }
            None => {
                script.part(&blocks);
                script.still(everyone);
                let largest = blocks.iter().copied().max_by_key(|block| block.len());
                let largest = largest.expect("a cluster has a server");
                let missing = quorum(size) - largest.len();
                let moved = everyone.without(largest).first(missing);
                move_to(&mut script, &blocks, largest, moved);
                script.progress(largest.or(moved));
                all.push(Experiment::beyond(Kind::P1, size, script));
            }
        }
    }
}

/// Moves servers from their blocks to another one.
fn move_to(script: &mut Script, blocks: &[Places], to: Places, moved: Places) {
    for place in moved.iter() {
        let old = blocks.iter().find(|block| block.has(place)).expect("each has its block");
        for other in old.without(moved).iter() {
            script.cut_both(place, other);
        }
        for other in to.or(moved).iter().filter(|&other| other != place) {
            script.mend_both(place, other);
        }
    }
    script.heal(to.or(moved));
}

/// P2: halves of an even number, the agent with either, and then each server alone goes over to the
/// other half.
fn halves(size: usize, all: &mut Vec<Experiment>) {
    let everyone = Places::all(size);
    for near in everyone.subsets().filter(|half| half.len() * 2 == size && half.has(0)) {
        let far = everyone.without(near);
        for (agent, sides) in [("near", [near, far]), ("far", [far, near])] {
            for place in 0..size {
                let id = format!("P2/n{size}/{near}+{far}/agent-{agent}/over@{place}");
                let mut script = Script::new(id, size);
                script.part(&sides);
                script.still(everyone);
                let other = if near.has(place) { far } else { near };
                move_to(&mut script, &sides, other, Places::one(place));
                script.progress(other.or(Places::one(place)));
                all.push(Experiment::beyond(Kind::P2, size, script));
            }
        }
    }
}

/// P3: each split in two, cut in one direction only. An acknowledgement needs both, so it is judged
/// as a split, once whoever hears nothing has ended its sessions.
fn one_way(size: usize, all: &mut Vec<Experiment>) {
    let everyone = Places::all(size);
    let sides = |from: Places| from.subsets().filter(|side| !side.is_empty());
    for from in sides(everyone).filter(|&from| from != everyone) {
        let to = everyone.without(from);
        let mut script = Script::new(format!("P3/n{size}/{from}to{to}"), size);
        for (a, b) in from.iter().flat_map(|a| to.iter().map(move |b| (a, b))) {
            script.cut(a, b);
        }
        let working = [from, to].into_iter().find(|side| side.len() >= quorum(size));
        script.wait(SILENCE);
        match working {
            Some(working) => {
                script.works(working);
                all.push(Experiment::within(Kind::P3, size, script));
            }
            None => {
                script.still(everyone);
                all.push(Experiment::beyond(Kind::P3, size, script));
            }
        }
    }
}

/// P4: the leader, and each follower, hears nothing, is not heard, or both.
fn isolated(size: usize, all: &mut Vec<Experiment>) {
    let everyone = Places::all(size);
    for place in (0..size).filter(|_| size > 1) {
        for (name, way) in [("in", Way::In), ("out", Way::Out), ("both", Way::Both)] {
            let mut script = Script::new(format!("P4/n{size}/@{place}/{name}"), size);
            script.isolate(place, way);
            let (alone, others) = (Places::one(place), everyone.without(Places::one(place)));
            if way != Way::Both {
                script.wait(SILENCE);
            }
            if others.len() >= quorum(size) {
                script.still_beside(alone, others);
                all.push(Experiment::within(Kind::P4, size, script));
            } else {
                script.still(everyone);
                all.push(Experiment::beyond(Kind::P4, size, script));
            }
        }
    }
}

/// In how much time all links are cut, and mended again.
const SWIZZLE: Duration = Duration::from_secs(5);

/// P6: all links are cut one after the other, and mended in another order.
fn swizzle(size: usize, all: &mut Vec<Experiment>) {
    let everyone = Places::all(size);
    let links: Vec<(usize, usize)> =
        (0..size).flat_map(|a| (0..size).filter(move |&b| b != a).map(move |b| (a, b))).collect();
    for number in 1..=if size > 1 { 5 } else { 0 } {
        let mut script = Script::new(format!("P6/n{size}/{number}"), size);
        let gap = SWIZZLE / u32::try_from(links.len()).expect("few links");
        for (a, b) in shuffled(&links, &mut script) {
            script.cut(a, b);
            script.wait(gap);
        }
        script.still(everyone);
        for (a, b) in shuffled(&links, &mut script) {
            script.mend(a, b);
            script.wait(gap);
        }
        script.progress(everyone);
        all.push(Experiment::beyond(Kind::P6, size, script));
    }
}

fn shuffled<T: Copy>(of: &[T], script: &mut Script) -> Vec<T> {
    let mut left = of.to_vec();
    let mut order = Vec::new();
    while !left.is_empty() {
        let next = script.draws.index(left.len());
        order.push(left.swap_remove(next));
    }
    order
}

/// P7: some crash and others are cut off, so that a quorum, or one less, is left: for each number
/// of both, with the leader among the dead, the cut off and the rest, every choice of the dead.
fn mixed(size: usize, all: &mut Vec<Experiment>) {
    let everyone = Places::all(size);
    for left in [quorum(size), quorum(size).saturating_sub(1)] {
        let gone = size - left;
        for dead in (1..gone).flat_map(|count| everyone.subsets_of(count)) {
            let apart = gone - dead.len();
            let others = everyone.without(dead);
            // The leader, if it lives, once on each side.
            let rest = others.without(Places::one(0));
            let mut sides = Vec::new();
            if others.has(0) {
                sides.push(Places::one(0).or(rest.first(apart - 1)));
            }
            if rest.len() >= apart {
                sides.push(rest.first(apart));
            }
            for cut_off in sides {
                let id = format!("P7/n{size}/{left}left/dead{dead}/cut{cut_off}");
                let mut script = Script::new(id, size);
                let rest = others.without(cut_off);
                script.crash(dead, Keep::All);
                script.part(&[rest, cut_off]);
                if left == quorum(size) {
                    script.still_beside(cut_off, rest);
                    all.push(Experiment::within(Kind::P7, size, script));
                } else {
                    script.still(others);
                    let back = dead.first(1);
                    script.restart(back);
                    script.progress(rest.or(back));
                    all.push(Experiment::beyond(Kind::P7, size, script));
                }
            }
        }
    }
}

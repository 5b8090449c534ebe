//! Crashes: every set of servers that dies.

use std::time::Duration;

use super::script::Script;
use super::sets::{Places, quorum, tolerated};
use super::{Experiment, Kind};
use crate::plan::{Action, Keep, Target};

/// All experiments with crashes, of clusters of `size` servers.
pub(super) fn all(size: usize) -> Vec<Experiment> {
    let mut all = Vec::new();
    tolerable(size, &mut all);
    one_by_one(size, &mut all);
    rolling(size, &mut all);
    beyond(size, &mut all);
    beyond_torn(size, &mut all);
    all_at_once(size, &mut all);
    others(size, &mut all);
    all
}

/// C1: as many as may be lost lose their power at one instant, under load, and logs are torn.
fn tolerable(size: usize, all: &mut Vec<Experiment>) {
    let lost = tolerated(size);
    for set in Places::all(size).subsets_of(lost) {
        let mut script = Script::new(format!("C1/n{size}/{lost}of{size}/{set}"), size);
        script.crash(set, Keep::Torn);
        script.progress(Places::all(size).without(set));
        script.restart(set);
        all.push(Experiment::within(Kind::C1, size, script));
    }
}

/// C1': the same sets, one server after the other, 1 ms to two election timeouts apart.
fn one_by_one(size: usize, all: &mut Vec<Experiment>) {
    let lost = tolerated(size);
    if lost < 2 {
        return;
    }
    for set in Places::all(size).subsets_of(lost) {
        for order in ["up", "down"] {
            let id = format!("C1s/n{size}/{lost}of{size}/{set}/{order}");
            let mut script = Script::new(id, size);
            let mut places: Vec<usize> = set.iter().collect();
            if order == "down" {
                places.reverse();
            }
            for place in places {
                script.act(Action::Crash(Target::After(place), Keep::Torn));
                // Short gaps are as likely as long ones.
                let most = [2, 10, 50, 500][script.draws.index(4)];
                let gap = script.draws.number(1..=most);
                script.wait(Duration::from_millis(gap));
            }
            script.progress(Places::all(size).without(set));
            script.restart(set);
            all.push(Experiment::within(Kind::C1Staggered, size, script));
        }
    }
}

/// How long a server that was started again has to come back to the others.
const COMES_BACK: Duration = Duration::from_millis(1_000);

/// C1': all servers crash one after the other and come back, from each place on, with one or as
/// many down at any time as may be lost.
fn rolling(size: usize, all: &mut Vec<Experiment>) {
    let lost = tolerated(size);
    let everyone = Places::all(size);
    for first in 0..if lost > 0 { size } else { 0 } {
        for down in std::iter::once(1).chain((lost > 1).then_some(lost)) {
            let mut script = Script::new(format!("C1s/n{size}/rolling{down}/@{first}"), size);
            let place = |number: usize| (first + number) % size;
            let mut dead = Places::NONE;
            for number in 0..size {
                if number >= down {
                    let back = Places::one(place(number - down));
                    script.restart(back);
                    dead = dead.without(back);
                    script.wait(COMES_BACK);
                }
                let next = Places::one(place(number));
                script.crash(next, Keep::Torn);
                dead = dead.or(next);
                if dead.len() == down {
                    script.progress(everyone.without(dead));
                } else {
                    script.wait(COMES_BACK);
                }
            }
            script.restart(dead);
            all.push(Experiment::within(Kind::C1Staggered, size, script));
        }
    }
}

/// C2: one more than may be lost loses its power; then each one of them alone comes back. Nothing
/// that a disk was given is lost, so that no server is in doubt.
fn beyond(size: usize, all: &mut Vec<Experiment>) {
    let lost = tolerated(size) + 1;
    let everyone = Places::all(size);
    for set in everyone.subsets_of(lost) {
        for back in set.iter() {
            let id = format!("C2/n{size}/{lost}of{size}/{set}/back@{back}");
            let mut script = Script::new(id, size);
            script.crash(set, Keep::All);
            still_and_back(&mut script, everyone, set, Places::one(back));
            all.push(Experiment::beyond(Kind::C2, size, script));
        }
    }
}

/// Z while these are dead, then R with those that come back.
fn still_and_back(script: &mut Script, everyone: Places, dead: Places, back: Places) {
    let alive = everyone.without(dead);
    // Of nobody alive all the dead are asked: nobody listens, and nothing starts.
    script.still(if alive.is_empty() { everyone } else { alive });
    script.restart(back);
    script.progress(alive.or(back));
}

/// C2 with torn logs, and with nothing kept that was not synced. A server whose log was cut is in
/// doubt, and votes for nobody until a leader has settled it or all have answered: with the leader
/// among the dead R is not owed before that.
fn beyond_torn(size: usize, all: &mut Vec<Experiment>) {
    let lost = tolerated(size) + 1;
    let everyone = Places::all(size);
    for set in everyone.subsets_of(lost) {
        for (name, keep) in [("torn", Keep::Torn), ("unsynced", Keep::None)] {
            let id = format!("C2/n{size}/{lost}of{size}/{set}/{name}");
            let mut script = Script::new(id, size);
            script.crash(set, keep);
            let dead: Vec<usize> = set.iter().collect();
            let back = Places::one(dead[script.draws.index(dead.len())]);
            let alive = everyone.without(set);
            script.still(if alive.is_empty() { everyone } else { alive });
            script.restart(back);
            if keep == Keep::Torn && set.has(0) {
                script.either(alive.or(back));
                script.restart(set);
                script.progress(everyone);
            } else {
                script.progress(alive.or(back));
            }
            all.push(Experiment::beyond(Kind::C2, size, script));
        }
    }
}

/// C2': the power fails everywhere at one instant. With one less than a quorum back nothing goes,
/// with each quorum it does; and with torn logs it does when all are back.
fn all_at_once(size: usize, all: &mut Vec<Experiment>) {
    let everyone = Places::all(size);
    for set in everyone.subsets_of(quorum(size)) {
        let mut script = Script::new(format!("C2a/n{size}/all/back{set}"), size);
        let last = {
            let places: Vec<usize> = set.iter().collect();
            Places::one(places[script.draws.index(places.len())])
        };
        script.crash(everyone, Keep::All);
        script.wait(COMES_BACK);
        script.restart(set.without(last));
        still_and_back(&mut script, everyone, everyone.without(set.without(last)), last);
        all.push(Experiment::beyond(Kind::C2All, size, script));
    }
    for number in 1..=5 {
        let mut script = Script::new(format!("C2a/n{size}/all/torn{number}"), size);
        script.crash(everyone, Keep::Torn);
        script.wait(COMES_BACK);
        script.restart(everyone);
        script.progress(everyone);
        all.push(Experiment::beyond(Kind::C2All, size, script));
    }
}

/// C3: every other set, once. The boundary lies at the quorum and nowhere else.
fn others(size: usize, all: &mut Vec<Experiment>) {
    let (everyone, lost) = (Places::all(size), tolerated(size));
    for set in everyone.subsets().filter(|set| set.len() != lost && set.len() != lost + 1) {
        let id = format!("C3/n{size}/{}of{size}/{set}", set.len());
        let mut script = Script::new(id, size);
        let is_beyond = set.len() > lost;
        if is_beyond {
            script.crash(set, Keep::All);
            let dead: Vec<usize> = set.iter().collect();
            let missing = set.len() - lost;
            let begin = script.draws.index(dead.len());
            let back = dead.iter().cycle().skip(begin).take(missing).copied().collect();
            still_and_back(&mut script, everyone, set, back);
            all.push(Experiment::beyond(Kind::C3, size, script));
        } else {
            script.crash(set, Keep::Torn);
            script.progress(everyone.without(set));
            script.restart(set);
            all.push(Experiment::within(Kind::C3, size, script));
        }
    }
}

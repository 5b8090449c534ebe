//! Disks: lost, taken out, rotten, full, failing and hanging ones.

use std::time::Duration;

use super::script::Script;
use super::sets::{Places, quorum, tolerated};
use super::{Experiment, Kind};
use crate::plan::{Action, Disk, Keep, Place};

/// All experiments with disks, of clusters of `size` servers.
pub(super) fn all(size: usize) -> Vec<Experiment> {
    let mut all = Vec::new();
    wiped(size, &mut all);
    all.extend(holders(size).map(|(held, lost)| wiped_holders(size, held, lost)));
    detached(size, &mut all);
    rotten(size, &mut all);
    rotten_beyond(size, &mut all);
    full(size, &mut all);
    failing(size, &mut all);
    hung(size, &mut all);
    all
}

/// All sets that are not empty and no larger than may be lost.
fn tolerable(size: usize) -> impl Iterator<Item = Places> {
    let most = tolerated(size);
    Places::all(size).subsets().filter(move |set| !set.is_empty() && set.len() <= most)
}

/// D1: disks of no more servers than may be lost are lost, or set back to an older image. The rest
/// goes on, and they come back as other servers.
fn wiped(size: usize, all: &mut Vec<Experiment>) {
    for set in tolerable(size) {
        let others = Places::all(size).without(set);
        let mut script = Script::new(format!("D1/n{size}/wiped{set}"), size);
        script.each(set, Action::Wipe);
        script.progress(others);
        script.restart(set);
        all.push(Experiment::within(Kind::D1, size, script));

        let mut script = Script::new(format!("D1/n{size}/set-back{set}"), size);
        script.each(set, Action::Image);
        // Who is set back is known by the boots that it has forgotten.
        script.each(set, Action::Kill);
        script.restart(set);
        script.wait(IMAGE_AGE);
        script.each(set, Action::SetBack);
        script.restart(set);
        script.progress(others);
        all.push(Experiment::within(Kind::D1, size, script));
    }
}

/// How old the image is to which a disk is set back.
const IMAGE_AGE: Duration = Duration::from_millis(2_000);

/// Every quorum that holds what nobody else does, the leader in it, with each set of those holders
/// that is not empty and no larger than may be lost.
pub(super) fn holders(size: usize) -> impl Iterator<Item = (Places, Places)> {
    let held = Places::all(size).subsets_of(quorum(size)).filter(|held| held.has(0));
    held.flat_map(move |held| {
        let most = tolerated(size);
        let lost = held.subsets().filter(move |lost| !lost.is_empty() && lost.len() <= most);
        lost.map(move |lost| (held, lost))
    })
}

/// Whether the holders that lost their disks would be a quorum with those who never had the
/// entries, if they came back as who they were.
pub(super) fn would_forget(size: usize, lost: Places) -> bool {
    lost.len() + tolerated(size) >= quorum(size)
}

/// D1: entries are committed on exactly a quorum, the others being cut off. Some holders lose their
/// disks, the other holders crash, and the empty ones meet those who were cut off: they must not
/// elect, for together they lack what was committed. With so many other holders back that voters
/// with a disk are a quorum they must.
pub(super) fn wiped_holders(size: usize, held: Places, lost: Places) -> Experiment {
    let mut script = Script::new(format!("D1/n{size}/held{held}/wiped{lost}"), size);
    let laggards = Places::all(size).without(held);
    script.part(&[held, laggards]);
    script.progress(held);
    script.each(lost, Action::Wipe);
    let dead = held.without(lost);
    script.crash(dead, Keep::All);
    script.heal(laggards.or(lost));
    script.still(laggards.or(lost));
    let back = dead.first(quorum(size) - laggards.len());
    script.heal(laggards.or(lost).or(back));
    script.progress(laggards.or(back));
    Experiment::within(Kind::D1, size, script)
}

/// How long it takes to change a disk: as long as a name is another living server's, who comes
/// under it is refused, and asks again after 5 s.
const SWAPPED: Duration = Duration::from_secs(2);

/// D2: the disks of one server more than may be lost are taken out, and the servers start on empty
/// ones: neither they nor the rest elect or found anything. Then each original disk alone is put
/// back. A lone server with an empty disk cannot be told from a fresh one.
fn detached(size: usize, all: &mut Vec<Experiment>) {
    let (everyone, lost) = (Places::all(size), tolerated(size) + 1);
    for set in everyone.subsets_of(lost).filter(|_| size > 1) {
        for back in set.iter().map(Places::one) {
            let mut script = Script::new(format!("D2/n{size}/{set}/back{back}"), size);
            script.each(set, Action::Detach);
            script.wait(SWAPPED);
            script.restart(set);
            script.still(everyone);
            script.each(back, Action::Attach);
            script.wait(SWAPPED);
            script.restart(back);
            script.progress(everyone.without(set).or(back));
            script.each(set.without(back), Action::Attach);
            script.wait(SWAPPED);
            all.push(Experiment::beyond(Kind::D2, size, script));
        }
    }
}

/// D4: logs of no more servers than may be lost rot while these are down. They notice when they
/// start: what they cannot read they learn again, or refuse to start, and are given a new disk.
fn rotten(size: usize, all: &mut Vec<Experiment>) {
    for set in tolerable(size) {
        for (name, place) in [("end", Place::End), ("middle", Place::Middle)] {
            let mut script = Script::new(format!("D4/n{size}/{name}{set}"), size);
            script.crash(set, Keep::All);
            script.each(set, |target| Action::Rot(target, place));
            script.restart(set);
            script.progress(Places::all(size).without(set));
            all.push(Experiment::within(Kind::D4, size, script));
        }
    }
}

/// D4: the logs of one more rot. They refuse to start, so that nothing goes; with the disks as they
/// were it does.
fn rotten_beyond(size: usize, all: &mut Vec<Experiment>) {
    let everyone = Places::all(size);
    for set in everyone.subsets_of(tolerated(size) + 1) {
        let mut script = Script::new(format!("D4/n{size}/beyond{set}"), size);
        script.crash(set, Keep::All);
        script.each(set, Action::Image);
        script.each(set, |target| Action::Rot(target, Place::Middle));
        script.restart(set);
        script.still(everyone);
        script.each(set, Action::SetBack);
        script.restart(set);
        script.progress(everyone);
        all.push(Experiment::beyond(Kind::D4, size, script));
    }
}

/// How long a full disk may go unnoticed, and a hung one: until something is written, and a leader
/// hands over what it cannot write for 2 s.
const NOTICED: Duration = Duration::from_secs(3);

/// D5: disks are full. As long as a quorum has room it works. If not, no write is taken and nothing
/// starts, and it works again when one has room.
fn full(size: usize, all: &mut Vec<Experiment>) {
    let (everyone, lost) = (Places::all(size), tolerated(size));
    for set in tolerable(size) {
        let mut script = Script::new(format!("D5/n{size}/full{set}"), size);
        script.each(set, |target| Action::Disk(target, Disk::Full));
        script.wait(NOTICED);
        script.works(everyone.without(set));
        all.push(Experiment::within(Kind::D5, size, script));
    }
    for set in everyone.subsets_of(lost + 1) {
        for back in set.iter().map(Places::one) {
            let mut script = Script::new(format!("D5/n{size}/full{set}/freed{back}"), size);
            script.each(set, |target| Action::Disk(target, Disk::Full));
            script.wait(NOTICED);
            script.read_only(everyone);
            script.each(back, |target| Action::Disk(target, Disk::Well));
            script.progress(everyone.without(set).or(back));
            all.push(Experiment::beyond(Kind::D5, size, script));
        }
    }
}

/// D5: syncs fail, and the servers end.
fn failing(size: usize, all: &mut Vec<Experiment>) {
    let (everyone, lost) = (Places::all(size), tolerated(size));
    for set in tolerable(size) {
        let mut script = Script::new(format!("D5/n{size}/sync{set}"), size);
        script.each(set, |target| Action::Disk(target, Disk::FailSync));
        script.progress(everyone.without(set));
        all.push(Experiment::within(Kind::D5, size, script));
    }
    for set in everyone.subsets_of(lost + 1) {
        let mut script = Script::new(format!("D5/n{size}/sync{set}"), size);
        script.each(set, |target| Action::Disk(target, Disk::FailSync));
        script.wait(NOTICED);
        script.still(everyone);
        all.push(Experiment::beyond(Kind::D5, size, script));
    }
}

/// D6: disks hang, with the network well. As long as a quorum has disks that do not it works: a
/// leader whose disk hangs hands over.
fn hung(size: usize, all: &mut Vec<Experiment>) {
    let (everyone, lost) = (Places::all(size), tolerated(size));
    for set in tolerable(size) {
        let mut script = Script::new(format!("D6/n{size}/hung{set}"), size);
        script.each(set, |target| Action::Disk(target, Disk::Hang));
        script.wait(NOTICED);
        script.progress(everyone.without(set));
        all.push(Experiment::within(Kind::D6, size, script));
    }
    for set in everyone.subsets_of(lost + 1) {
        let back = set.first(1);
        let mut script = Script::new(format!("D6/n{size}/hung{set}"), size);
        script.each(set, |target| Action::Disk(target, Disk::Hang));
        script.wait(NOTICED);
        script.read_only(everyone);
        script.each(back, |target| Action::Disk(target, Disk::Well));
        script.progress(everyone.without(set).or(back));
        all.push(Experiment::beyond(Kind::D6, size, script));
    }
}

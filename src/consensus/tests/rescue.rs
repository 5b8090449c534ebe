//! Going on with one server after the others are gone for good.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::world::{Note, World, id, keep};
use crate::codec::record::Recovered;
use crate::consensus::*;
use crate::id::{LogIndex, NodeId, Term};

/// What the disk of a server holds after its log was replaced by the rescued one.
fn rescued(disk: &Recovered, me: NodeId, commands: &[&'static [u8]]) -> Recovered {
    let commands: Vec<Bytes> = commands.iter().map(|text| Bytes::from_static(text)).collect();
    let records = rescue(disk, me, None, &commands).unwrap();
    let mut new = Recovered { snapshot: disk.snapshot.clone(), ..Recovered::default() };
    records.into_iter().for_each(|record| keep(&mut new, record));
    new
}

/// Leaves one server of `world`, on a rescued log, and runs it until it leads.
fn go_on_alone(world: &mut World, left: NodeId) {
    let others: Vec<NodeId> = world.servers.keys().copied().filter(|n| *n != left).collect();
    world.kill_if_up(left);
    others.iter().for_each(|other| world.kill_if_up(*other));
    let disk = rescued(&world.servers[&left].disk, left, &[b"refound"]);
    world.servers.get_mut(&left).unwrap().disk = disk;
    world.start(left);
    assert_eq!(world.await_leader(), left);
}

fn texts(world: &World, node: NodeId) -> Vec<Bytes> {
    world.tally(node).0
}

#[test]
fn a_survivor_leads_alone_with_all_that_its_log_held_and_others_join_it() {
    for left in [1, 2, 3].map(id) {
        let (mut world, leader) = World::founded(3, 40 + left.0);
        for n in 0..10_u64 {
            world.commit(leader, n, &[b'a' + u8::try_from(n).unwrap()]);
        }
        world.run_for(Duration::from_secs(1));
        let before = survey(&world.servers[&left].disk).unwrap();
        assert_eq!(before.voters, BTreeSet::from([1, 2, 3].map(id)));
        go_on_alone(&mut world, left);

        let mut wanted: Vec<Bytes> = (b'a'..b'k').map(|c| Bytes::from(vec![c])).collect();
        wanted.push(Bytes::from_static(b"refound"));
        world.until("all to be applied", |w| (texts(w, left).len() == 11).then_some(()));
        assert_eq!(texts(&world, left), wanted);
        assert_eq!(*world.status(left).voters, BTreeSet::from([left]));
        assert!(world.status(left).term > before.term.unwrap());

        for fresh in [7, 8] {
            world.add(fresh);
            world.engine(left).add_learner(id(fresh), Peer::default());
            world.touch(left);
            let done = Note::Change(Change::AddLearner(id(fresh)), Ok(()));
            world.until("the learner", |w| w.log.contains(&(left, done.clone())).then_some(()));
        }
        let voters = BTreeSet::from([left, id(7), id(8)]);
        world.engine(left).change_voters(voters.clone());
        world.touch(left);
        world.until("three voters", |w| {
            let status = w.status(left);
            (*status.voters == voters && status.is_settled && !status.is_joint).then_some(())
        });
        world.kill(left);
        let next = world.await_leader();
        world.commit(next, 99, b"after");
        wanted.push(Bytes::from_static(b"after"));
        assert_eq!(texts(&world, next), wanted);
        world.assert_no_trouble();
    }
}

#[test]
fn what_was_never_committed_counts_as_committed() {
    let (mut world, leader) = World::founded(3, 5);
    world.commit(leader, 1, b"sure");
    world.isolate(leader);
    world.propose(leader, 2, b"unsure");
    world.run_for(Duration::from_millis(50));
    let disk = &world.servers[&leader].disk;
    let found = survey(disk).unwrap();
    assert!(found.committed < found.last, "{found:?}");
    go_on_alone(&mut world, leader);
    let wanted: [&[u8]; 3] = [b"sure", b"unsure", b"refound"];
    assert_eq!(texts(&world, leader), wanted.map(Bytes::from_static));
}

#[test]
fn a_log_behind_its_snapshot_goes_on_behind_it() {
    let tweak = |config: &mut EngineConfig| {
        config.log.snapshot_after_bytes = 2_000;
        (config.log.keep_bytes, config.log.keep_entries) = (0, 0);
    };
    let mut world = World::with(3, 9, tweak);
    world.found();
    let leader = world.await_leader();
    let mut seq = 0;
    while world.servers[&leader].disk.purged.is_none() {
        seq += 1;
        world.commit(leader, seq, &[b'x'; 100]);
    }
    world.run_for(Duration::from_secs(1));
    // As after a crash between the snapshot of a leader and the purge of what it covers.
    let disk = &mut world.servers.get_mut(&leader).unwrap().disk;
    disk.entries.clear();
    disk.purged = None;
    let covered = disk.snapshot.as_ref().map(|snapshot| snapshot.index());
    assert_eq!(survey(disk).unwrap().last.map(|last| last.index), covered);
    let count = world.tally(leader).0.len();
    go_on_alone(&mut world, leader);
    let tally = texts(&world, leader);
    assert!(tally.len() > 1 && tally.len() <= count + 1, "{} of {count}", tally.len());
    assert_eq!(tally.last(), Some(&Bytes::from_static(b"refound")));
}

#[test]
fn a_log_can_be_rescued_again() {
    let (mut world, leader) = World::founded(3, 6);
    world.commit(leader, 1, b"one");
    go_on_alone(&mut world, leader);
    world.commit(leader, 2, b"two");
    go_on_alone(&mut world, leader);
    let wanted: [&[u8]; 4] = [b"one", b"refound", b"two", b"refound"];
    world.until("all to be applied", |w| (texts(w, leader).len() == 4).then_some(()));
    assert_eq!(texts(&world, leader), wanted.map(Bytes::from_static));
}

#[test]
fn who_is_no_member_is_refused() {
    let (mut world, leader) = World::founded(3, 7);
    world.run_for(Duration::from_secs(1));
    let disk = &world.servers[&leader].disk;
    assert_eq!(rescue(disk, id(9), None, &[]), Err(RescueError::NotAMember(id(9))));
    let fresh = Recovered::default();
    assert_eq!(rescue(&fresh, id(1), None, &[]), Err(RescueError::NoMembership));
    assert_eq!(survey(&fresh), Ok(Survey::default()));
}

#[test]
fn logs_compare_by_their_last_term_before_their_length() {
    let at = |term, index| Position { term: Term(term), index: LogIndex(index) };
    assert!(at(3, 10) > at(2, 99));
    assert!(at(3, 11) > at(3, 10));
}

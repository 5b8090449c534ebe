//! Tests of what checkers make of the log and of votes, fed with whole runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use cronclave::codec::record::Record;
use cronclave::consensus::{Content, Role, Status};
use cronclave::id::{LogIndex, NodeId, Term};
use cronclave::node::io::Event;

use super::coverage::Situation;
use super::fixtures::*;
use super::seen::{Ending, Load, Seen};
use super::{Setup, Verdict};

const QUORUM: &str = "committed on quorum";
const IMMUTABLE: &str = "committed entries immutable";
const MATCHING: &str = "log matching";

fn blank(index: u64, term: u64) -> Record {
    entry(index, term, &Content::Blank)
}

fn verdict_of(verdicts: &[Verdict], checker: &str) -> Verdict {
    verdicts.iter().find(|verdict| verdict.checker == checker).cloned().unwrap()
}

#[test]
fn a_healthy_life_is_healthy() {
    let mut cluster = Cluster::new(3);
    for _ in 0..5 {
        cluster.append(&Content::Blank);
        cluster.commit();
    }
    // One dies and comes back; the leader dies, another leads.
    cluster.down(1);
    cluster.boot(1, id(1));
    cluster.commit();
    cluster.down(0);
    cluster.boot(0, id(0));
    cluster.elect(1);
    cluster.status(1, Role::Leader, Some(5));
    cluster.append(&Content::Blank);
    cluster.status(1, Role::Leader, Some(6));
    cluster.status(0, Role::Follower, Some(6));
    cluster.status(2, Role::Follower, Some(6));
    cluster.assert_healthy();
    let ending = Ending { disks: cluster.disks.clone(), ..Ending::default() };
    let verdicts = cluster.finish(ending);
    for checker in ["election", MATCHING, "leader completeness", QUORUM, IMMUTABLE] {
        assert!(verdict_of(&verdicts, checker).is_green(), "{checker}");
    }
    assert_eq!(cluster.checkers.terms_led(), 2);
    assert_eq!(cluster.checkers.coverage().count(Situation::LeaderCrash), 1);
}

#[test]
fn a_commit_that_no_quorum_has_synced_is_found() {
    let mut cluster = Cluster::new(3);
    let next = blank(1, 1);
    cluster.write(0, std::slice::from_ref(&next));
    cluster.write_unsynced(1, std::slice::from_ref(&next));
    cluster.write_unsynced(2, &[next]);
    cluster.assert_healthy();
    cluster.status(0, Role::Leader, Some(1));
    assert_eq!(cluster.found(QUORUM).len(), 1);
}

#[test]
fn a_commit_whose_quorum_is_dead_or_wiped_since_is_well() {
    let mut cluster = Cluster::new(5);
    let next = blank(1, 1);
    for host in 1..4 {
        cluster.write(host, std::slice::from_ref(&next));
    }
    // The leader's own disk is slow. Two who have acknowledged are gone by then, one for good.
    cluster.down(1);
    cluster.wipe(2);
    cluster.status(0, Role::Leader, Some(1));
    cluster.assert_healthy();
}

#[test]
fn a_commit_on_a_minority_that_lost_what_it_had_is_found() {
    let mut cluster = Cluster::new(3);
    cluster.wipe(1);
    cluster.wipe(2);
    let next = blank(1, 1);
    cluster.write(0, std::slice::from_ref(&next));
    cluster.status(0, Role::Leader, Some(1));
    assert_eq!(cluster.found(QUORUM).len(), 1);
}

#[test]
fn each_half_of_a_joint_membership_needs_a_majority() {
    let run = |holders: &[usize]| {
        let mut cluster = Cluster::new(5);
        let halves: Vec<BTreeSet<NodeId>> =
            vec![(0..3).map(id).collect(), (2..5).map(id).collect()];
        let joint = Content::Membership { halves, learners: BTreeSet::new() };
        cluster.append(&joint);
        let status = Status { is_joint: true, ..cluster.status_of(Role::Leader, Some(1)) };
        cluster.say(0, &status);
        for host in holders {
            cluster.write(*host, &[blank(2, 1)]);
        }
        cluster.say(0, &Status { committed: Some(LogIndex(2)), ..status });
        cluster.found(QUORUM).len()
    };
    assert_eq!(run(&[0, 2, 3]), 0);
    assert_eq!(run(&[0, 1, 2]), 1, "three of five, and one of the second half");
}

#[test]
fn who_hears_of_a_commit_need_not_know_the_voters() {
    let mut cluster = Cluster::new(3);
    // The leader goes on alone by a membership that the follower does not have yet.
    let alone = Content::Membership { halves: vec![[id(0)].into()], learners: BTreeSet::new() };
    cluster.write(0, &[blank(1, 1), entry(2, 1, &alone)]);
    cluster.status(1, Role::Follower, Some(1));
    cluster.assert_healthy();
    let mut cluster = Cluster::new(3);
    cluster.write(0, &[blank(1, 1)]);
    cluster.status(1, Role::Follower, Some(1));
    assert_eq!(cluster.found(QUORUM).len(), 1);
}

#[test]
fn voters_may_change_between_two_statuses() {
    let mut cluster = Cluster::new(3);
    let next = blank(1, 1);
    cluster.write(0, std::slice::from_ref(&next));
    cluster.write(1, std::slice::from_ref(&next));
    // Entry 1 was committed by two of three, and the next membership is of others.
    let voters: BTreeSet<NodeId> = [id(0), NodeId(8), NodeId(9)].into();
    let status = cluster.status_of(Role::Leader, Some(1));
    cluster.say(0, &Status { voters: Arc::new(voters), ..status });
    cluster.assert_healthy();
}

#[test]
fn another_entry_than_the_committed_one_is_found_on_who_says_that_it_is() {
    let mut cluster = Cluster::new(3);
    cluster.write(0, &[blank(1, 2)]);
    cluster.write(1, &[blank(1, 2)]);
    cluster.write(2, &[blank(1, 1)]);
    cluster.elect(0);
    cluster.status(0, Role::Leader, Some(1));
    cluster.status(2, Role::Follower, Some(0));
    cluster.assert_healthy();
    cluster.status(2, Role::Follower, Some(1));
    assert_eq!(cluster.found(IMMUTABLE).len(), 1);
}

#[test]
fn an_entry_below_the_commit_that_comes_late_to_the_disk_is_compared() {
    let mut cluster = Cluster::new(3);
    let next = blank(1, 1);
    cluster.write(0, std::slice::from_ref(&next));
    cluster.write(1, std::slice::from_ref(&next));
    cluster.status(0, Role::Leader, Some(1));
    cluster.status(2, Role::Follower, Some(1));
    cluster.write(2, &[next]);
    cluster.assert_healthy();
    cluster.write(2, &[Record::Truncate { from: LogIndex(1) }, blank(1, 3)]);
    assert_eq!(cluster.found(IMMUTABLE).len(), 2, "it is cut off, and another takes its place");
}

#[test]
fn a_commit_or_an_apply_that_goes_back_is_found() {
    let mut cluster = Cluster::new(1);
    cluster.append(&Content::Blank);
    cluster.commit();
    cluster.status(0, Role::Leader, Some(0));
    assert_eq!(cluster.found(IMMUTABLE).len(), 2);
    let mut cluster = Cluster::new(1);
    cluster.append(&Content::Blank);
    cluster.commit();
    cluster.down(0);
    cluster.boot(0, id(0));
    cluster.status(0, Role::Follower, Some(0));
    cluster.assert_healthy();
    let status = cluster.status_of(Role::Follower, Some(0));
    cluster.say(0, &Status { applied: Some(LogIndex(1)), ..status });
    assert_eq!(cluster.found(IMMUTABLE).len(), 1, "applied and not committed");
}

#[test]
fn a_committed_entry_that_is_cut_off_by_its_quorum_is_found() {
    let mut cluster = Cluster::new(3);
    let next = blank(1, 1);
    cluster.write(0, std::slice::from_ref(&next));
    cluster.write(1, std::slice::from_ref(&next));
    cluster.status(0, Role::Leader, Some(1));
    // Server 1 does not know yet that it is committed.
    cluster.write(1, &[Record::Truncate { from: LogIndex(1) }]);
    assert_eq!(cluster.found(QUORUM).len(), 1);
    // With a third copy a quorum is left.
    let mut cluster = Cluster::new(3);
    cluster.append(&Content::Blank);
    cluster.status(0, Role::Leader, Some(1));
    cluster.write(1, &[Record::Truncate { from: LogIndex(1) }]);
    cluster.assert_healthy();
}

#[test]
fn a_conflict_that_is_cut_off_is_well() {
    let mut cluster = Cluster::new(3);
    cluster.write(2, &[blank(1, 1), blank(2, 1)]);
    let next = blank(1, 2);
    cluster.write(0, std::slice::from_ref(&next));
    cluster.write(1, std::slice::from_ref(&next));
    cluster.elect(0);
    cluster.status(0, Role::Leader, Some(1));
    cluster.write(2, &[Record::Truncate { from: LogIndex(1) }, next]);
    cluster.status(2, Role::Follower, Some(1));
    cluster.assert_healthy();
    assert_eq!(cluster.checkers.coverage().count(Situation::LogTruncated), 1);
}

#[test]
fn a_purge_needs_a_durable_snapshot() {
    let run = |covers: u64| {
        let mut cluster = Cluster::new(1);
        cluster.append(&Content::Blank);
        cluster.append(&Content::Blank);
        cluster.commit();
        cluster.see(&Seen::Snapshot { host: 0, index: LogIndex(covers) });
        let purge = Record::Purge { upto: LogIndex(1), body: log_id(1, 1) };
        cluster.write(0, &[purge, Record::Reset { next: LogIndex(2) }]);
        cluster.found(IMMUTABLE).len()
    };
    assert_eq!(run(1), 0);
    assert_eq!(run(0), 2);
}

#[test]
fn a_snapshot_stands_for_what_is_purged() {
    let mut cluster = Cluster::new(3);
    for _ in 0..3 {
        cluster.append(&Content::Blank);
    }
    cluster.commit();
    // Server 2 gets a snapshot in the place of its log, and goes on behind it.
    cluster.see(&Seen::Snapshot { host: 2, index: LogIndex(3) });
    let purge = Record::Purge { upto: LogIndex(3), body: log_id(1, 3) };
    cluster.write(2, &[purge, Record::Reset { next: LogIndex(4) }]);
    cluster.disks.get_mut(&2).unwrap().snapshot = Some(snapshot(3));
    cluster.append(&Content::Blank);
    cluster.commit();
    cluster.down(2);
    cluster.boot(2, id(2));
    cluster.commit();
    cluster.elect(2);
    cluster.status(2, Role::Leader, Some(4));
    cluster.assert_healthy();
    // Its snapshot is gone, and nobody has lost a disk.
    cluster.disks.get_mut(&2).unwrap().snapshot = None;
    cluster.down(2);
    assert_eq!(cluster.found(IMMUTABLE).len(), 1);
}

#[test]
fn a_synced_entry_or_vote_that_a_crash_takes_is_found() {
    let forget = |setup: Setup, doubt: bool| {
        let mut cluster = Cluster::with_setup(1, Setup { machines: 1, ..setup });
        cluster.append(&Content::Blank);
        let disk = cluster.disks.get_mut(&0).unwrap();
        disk.entries.pop();
        disk.vote = None;
        let cut =
            cronclave::codec::record::Doubt { next: LogIndex(1), segment: 0, offset: 0, len: 9 };
        disk.doubt = doubt.then_some(cut);
        cluster.down(0);
        (cluster.found(IMMUTABLE).len(), cluster.found("election").len())
    };
    assert_eq!(forget(Setup::default(), false), (1, 1));
    assert_eq!(forget(Setup::default(), true), (1, 1), "nothing rots in this run");
    assert_eq!(forget(Setup { may_rot: true, ..Setup::default() }, true), (0, 0));
}

#[test]
fn a_lost_disk_an_older_image_and_a_new_life_are_well() {
    let mut cluster = Cluster::new(3);
    cluster.append(&Content::Blank);
    cluster.commit();
    let old = cluster.disks[&2].clone();
    cluster.append(&Content::Blank);
    cluster.write(2, &[vote(2, 2)]);
    cluster.commit();
    // The image of a while ago is put back, its node boots on it, and then draws a new id.
    cluster.disks.insert(2, old.clone());
    cluster.see(&Seen::Down { host: 2, durable: Some(&old), is_wiped: true });
    cluster.boot(2, id(2));
    cluster.write(2, &[vote(2, 1)]);
    cluster.wipe(2);
    cluster.boot(2, NodeId(77));
    cluster.write(2, &[Record::Reset { next: LogIndex(0) }]);
    cluster.append(&Content::Blank);
    cluster.status(0, Role::Leader, Some(3));
    cluster.assert_healthy();
    // It votes again under its new id, and counts.
    let voters: BTreeSet<NodeId> = [id(0), id(1), NodeId(77)].into();
    let status = cluster.status_of(Role::Leader, Some(3));
    cluster.say(0, &Status { voters: Arc::new(voters), ..status });
    assert_eq!(cluster.checkers.coverage().count(Situation::WipedRejoined), 1);
}

#[test]
fn hints_of_what_is_committed_are_no_log() {
    let mut cluster = Cluster::new(1);
    cluster.write_unsynced(0, &[Record::Committed(log_id(9, 9)), Record::Settled]);
    cluster.down(0);
    cluster.assert_healthy();
}

#[test]
fn a_leader_without_what_was_committed_is_found() {
    let mut cluster = Cluster::new(3);
    let next = blank(1, 1);
    cluster.write(0, std::slice::from_ref(&next));
    cluster.write(1, std::slice::from_ref(&next));
    cluster.status(0, Role::Leader, Some(1));
    cluster.elect(1);
    cluster.status(1, Role::Leader, Some(0));
    cluster.assert_healthy();
    cluster.elect(2);
    cluster.status(2, Role::Leader, Some(0));
    assert_eq!(cluster.found("leader completeness").len(), 1);
}

#[test]
fn two_leaders_by_status_and_by_event_are_found() {
    let mut cluster = Cluster::new(3);
    let won = Event::LeadershipWon(Term(1));
    cluster.see(&Seen::Event { host: 0, event: &won });
    cluster.assert_healthy();
    cluster.see(&Seen::Event { host: 1, event: &won });
    cluster.status(2, Role::Leader, Some(0));
    assert_eq!(cluster.found("election").len(), 3, "and nobody has voted for the last");
}

#[test]
fn logs_that_do_not_match_are_found_at_boot_too() {
    let mut cluster = Cluster::new(3);
    cluster.append(&Content::Blank);
    let body = entry(1, 1, &Content::Command(bytes::Bytes::from_static(b"x")));
    let Record::Entry { index, term, body } = body else { unreachable!("it is an entry") };
    cluster.disks.get_mut(&2).unwrap().entries[1] = (index, term, body);
    cluster.boot(2, id(2));
    assert_eq!(cluster.found(MATCHING).len(), 2, "others have another, and so had this disk");
}

#[test]
fn a_majority_of_lost_disks_silences_what_rests_on_one_log() {
    let setup = Setup { machines: 1, may_lose: true, ..Setup::default() };
    let mut cluster = Cluster::with_setup(1, setup);
    cluster.append(&Content::Blank);
    cluster.commit();
    cluster.wipe(0);
    cluster.boot(0, NodeId(9));
    let other = Content::Membership { halves: vec![[NodeId(9)].into()], learners: [].into() };
    cluster.write(0, &[entry(0, 1, &other)]);
    cluster.status(0, Role::Leader, Some(0));
    assert_eq!(cluster.found(MATCHING), Vec::<String>::new());
    let verdicts = cluster.finish(Ending::default());
    assert!(verdicts.iter().all(|verdict| verdict.checker != MATCHING));
    assert!(verdicts.iter().any(|verdict| verdict.checker == "election"));
}

#[test]
fn disks_of_members_are_compared_in_the_end() {
    let finish = |cluster: &mut Cluster| {
        let states = (0..3).map(|host| (host, cronclave::jobs::State::default())).collect();
        let ending = Ending { disks: cluster.disks.clone(), states, ..Ending::default() };
        cluster.finish(ending)
    };
    let mut cluster = Cluster::new(3);
    cluster.append(&Content::Blank);
    cluster.commit();
    assert!(verdict_of(&finish(&mut cluster), QUORUM).is_green());
    let mut cluster = Cluster::new(3);
    cluster.append(&Content::Blank);
    cluster.commit();
    for host in 1..3 {
        cluster.disks.get_mut(&host).unwrap().entries.pop();
    }
    let found = verdict_of(&finish(&mut cluster), QUORUM).violations;
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn load_and_halts_reach_their_checkers() {
    let mut cluster = Cluster::new(1);
    let load = Load { requests: 1, ..Load::default() };
    cluster.see(&Seen::Load { host: 0, load });
    cluster.see(&Seen::Halted { host: 0, reason: "a sync failed", is_excused: true });
    cluster.assert_healthy();
    cluster.pass(1);
    cluster.see(&Seen::Load { host: 0, load: Load { requests: 1 << 20, ..load } });
    cluster.see(&Seen::Halted { host: 0, reason: "a bug", is_excused: false });
    for checker in ["bounds", "halts"] {
        assert_eq!(cluster.found(checker).len(), 1, "{checker}");
    }
}

#[test]
fn situations_are_noticed() {
    let mut cluster = Cluster::new(3);
    cluster.write(1, &[vote(2, 1)]);
    cluster.write(2, &[vote(2, 2)]);
    cluster.write_unsynced(0, &[blank(1, 1)]);
    let status = cluster.status_of(Role::Leader, Some(0));
    cluster.say(0, &Status { is_joint: true, ..status });
    cluster.down(0);
    cluster.checkers.note(Situation::SyncHung);
    let coverage = cluster.checkers.coverage();
    for situation in [
        Situation::TwoCandidatesInTerm,
        Situation::LeaderCrash,
        Situation::LeaderCrashUnsynced,
        Situation::JointInterrupted,
        Situation::SyncHung,
    ] {
        assert_eq!(coverage.count(situation), 1, "{situation:?}");
    }
    assert!(coverage.missing().contains(&Situation::LogTruncated));
}

#[test]
fn the_shape_of_figure_8_is_noticed() {
    let mut cluster = Cluster::new(3);
    cluster.write(0, &[blank(1, 1)]);
    cluster.elect(1);
    cluster.status(1, Role::Leader, Some(0));
    cluster.elect(0);
    cluster.status(0, Role::Leader, Some(0));
    cluster.write(1, &[blank(1, 1)]);
    assert_eq!(cluster.checkers.coverage().count(Situation::EarlierTermOnQuorum), 1);
    cluster.assert_healthy();
}

#[test]
fn a_snapshot_over_a_log_that_differs_is_noticed() {
    let mut cluster = Cluster::new(3);
    cluster.write(2, &[blank(1, 1)]);
    let next = blank(1, 2);
    cluster.write(0, std::slice::from_ref(&next));
    cluster.write(1, &[next]);
    cluster.elect(0);
    cluster.status(0, Role::Leader, Some(1));
    cluster.see(&Seen::Snapshot { host: 2, index: LogIndex(1) });
    let coverage = cluster.checkers.coverage();
    assert_eq!(coverage.count(Situation::SnapshotOverDivergedLog), 1);
    assert_eq!(coverage.count(Situation::SnapshotInstalled), 1);
}

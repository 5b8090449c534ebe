//! Tests of what checkers make of states and of what clients are told, fed with whole runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use cronclave::consensus::{Content, Role};
use cronclave::id::{JobName, LogIndex, Revision};
use cronclave::jobs::State;
use cronclave::jobs::command::{Applied, Command, Reject, Stamped};
use cronclave::jobs::job::JobSpec;
use cronclave::node::request::{Consistency, Reply, Request, RequestError, View, Write};

use super::Verdict;
use super::coverage::Situation;
use super::fixtures::*;
use super::seen::{Answer, Ending};

const LINEAR: &str = "linearizability";
const DURABILITY: &str = "durability";
const STATES: &str = "equal states";

fn name(text: &str) -> JobName {
    JobName::new(text).unwrap()
}

fn request(spec: &JobSpec) -> Request {
    Request::Write(Write::PutJob(Arc::new(spec.clone())))
}

fn written(applied: Applied) -> Answer {
    Answer::Reply(Reply::Written(Box::new(applied)))
}

fn failed(error: RequestError) -> Answer {
    Answer::Reply(Reply::Failed(error))
}

const READ: Request = Request::Read(Consistency::Linearizable);

/// A cluster and the state that its log makes.
struct Run {
    cluster: Cluster,
    state: State,
}

impl Run {
    fn new() -> Self {
        Self { cluster: Cluster::new(3), state: State::default() }
    }

    /// The command is committed; what came of it.
    fn apply(&mut self, stamped: &Stamped) -> Applied {
        let index = self.cluster.apply(stamped);
        self.state.apply(LogIndex(index), stamped).0
    }

    /// A client puts a job, and is told that it was done.
    fn put(&mut self, op: u64, job: &str) -> Applied {
        let spec = spec(job, "@manually");
        self.cluster.ask(op, &request(&spec));
        let applied = self.apply(&put(op, 0, &spec, None));
        self.cluster.answer(op, &written(applied.clone()));
        applied
    }

    fn view(&self) -> Answer {
        Self::view_of(&self.state)
    }

    fn view_of(state: &State) -> Answer {
        let (state, applied) = (state.clone(), state.applied());
        Answer::Reply(Reply::View(Box::new(View { state, applied, leader: None })))
    }

    fn finish(mut self) -> Vec<Verdict> {
        let states: BTreeMap<usize, State> =
            (0..3).map(|host| (host, self.state.clone())).collect();
        let histories = (0..3).map(|host| (host, (self.state.applied(), Vec::new()))).collect();
        self.cluster.finish(Ending { states, histories, ..Ending::default() })
    }

    fn complaints(self, checker: &str) -> Vec<String> {
        let verdicts = self.finish();
        verdicts.into_iter().find(|it| it.checker == checker).unwrap().violations
    }
}

#[test]
fn clients_that_are_told_the_truth_are_well() {
    let mut run = Run::new();
    run.put(1, "a");
    run.put(2, "b");
    run.cluster.ask(3, &READ);
    let view = run.view();
    run.cluster.answer(3, &view);
    let revision = run.state.job(&name("a")).unwrap().revision;
    run.cluster.ask(4, &Request::Write(Write::ToggleJob(name("a"))));
    let toggle = Command::ToggleJob { name: name("a"), revision, next: None };
    let applied = run.apply(&stamped(1, toggle));
    run.cluster.answer(4, &written(applied));
    run.cluster.ask(5, &Request::Write(Write::DeleteJob(name("b"))));
    let applied = run.apply(&stamped(1, Command::DeleteJob { name: name("b") }));
    run.cluster.answer(5, &written(applied));
    run.cluster.ask(6, &Request::Write(Write::DeleteJob(name("b"))));
    let applied = run.apply(&stamped(1, Command::DeleteJob { name: name("b") }));
    assert_eq!(applied, Applied::Rejected(Reject::JobNotFound));
    run.cluster.answer(6, &written(applied));
    // Of one that is never answered nobody knows; the next is refused.
    run.cluster.ask(7, &request(&spec("c", "@manually")));
    run.cluster.ask(8, &request(&spec("d", "@manually")));
    run.cluster.answer(8, &failed(RequestError::NoLeader("none".to_owned())));
    run.cluster.ask(9, &READ);
    let view = run.view();
    run.cluster.answer(9, &view);
    let state = run.state.clone();
    run.cluster.checkers.on_state(1, &state);
    run.cluster.assert_healthy();
    let verdicts = run.finish();
    for checker in [LINEAR, DURABILITY, STATES, "equal histories"] {
        let verdict = verdicts.iter().find(|it| it.checker == checker).unwrap();
        assert!(verdict.is_green(), "{verdict:?}");
    }
}

#[test]
fn a_read_that_misses_what_was_told_before_is_found() {
    let mut run = Run::new();
    run.put(1, "a");
    let old = run.view();
    run.cluster.ask(8, &READ);
    run.put(2, "b");
    run.cluster.ask(9, &READ);
    run.cluster.answer(8, &old);
    run.cluster.assert_healthy();
    run.cluster.answer(9, &old);
    assert_eq!(run.cluster.found(LINEAR).len(), 1);
}

#[test]
fn a_read_behind_an_earlier_read_is_found_and_a_stale_one_is_not() {
    let mut run = Run::new();
    run.put(1, "a");
    let old = run.view();
    // Nobody was told of this write, but a read has shown it.
    run.cluster.ask(2, &request(&spec("b", "@manually")));
    run.apply(&put(2, 0, &spec("b", "@manually"), None));
    run.cluster.ask(3, &READ);
    let view = run.view();
    run.cluster.answer(3, &view);
    run.cluster.ask(4, &Request::Read(Consistency::Stale));
    run.cluster.answer(4, &old);
    run.cluster.assert_healthy();
    run.cluster.ask(5, &READ);
    run.cluster.answer(5, &old);
    assert_eq!(run.cluster.found(LINEAR).len(), 1);
}

#[test]
fn a_read_that_shows_another_job_than_the_log_is_found() {
    let mut run = Run::new();
    run.put(1, "a");
    let mut other = State::default();
    other.apply(LogIndex(0), &put(1, 0, &spec("a", "@manually"), None));
    other.apply(LogIndex(1), &put(9, 0, &spec("b", "@manually"), None));
    run.cluster.ask(2, &Request::Read(Consistency::Stale));
    run.cluster.answer(2, &Run::view_of(&other));
    assert_eq!(run.cluster.found(LINEAR).len(), 2, "a has another revision, and b is not there");
}

#[test]
fn a_read_of_what_is_not_committed_is_found_in_the_end() {
    let mut run = Run::new();
    run.put(1, "a");
    let mut ahead = run.state.clone();
    ahead.apply(LogIndex(5), &put(2, 0, &spec("b", "@manually"), None));
    run.cluster.ask(3, &READ);
    run.cluster.answer(3, &Run::view_of(&ahead));
    run.cluster.assert_healthy();
    assert_eq!(run.complaints(LINEAR).len(), 1);
}

#[test]
fn a_read_may_be_told_before_its_entry_is_known_to_be_committed() {
    let mut run = Run::new();
    run.cluster.ask(1, &request(&spec("a", "@manually")));
    run.cluster.ask(2, &READ);
    let stamped = put(1, 0, &spec("a", "@manually"), None);
    run.state.apply(LogIndex(1), &stamped);
    let view = run.view();
    run.cluster.answer(2, &view);
    run.cluster.apply(&stamped);
    run.cluster.assert_healthy();
    assert_eq!(run.complaints(LINEAR), Vec::<String>::new());
}

#[test]
fn a_write_before_what_was_known_when_it_was_asked_is_found() {
    let mut run = Run::new();
    let late = put(2, 0, &spec("b", "@manually"), None);
    run.cluster.append(&Content::Command(cronclave::codec::encode(&late)));
    let applied = {
        run.cluster.ask(1, &request(&spec("a", "@manually")));
        let stamped = put(1, 0, &spec("a", "@manually"), None);
        let content = Content::Command(cronclave::codec::encode(&stamped));
        let index = run.cluster.append(&content);
        run.state.apply(LogIndex(index), &stamped).0
    };
    run.cluster.answer(1, &written(applied));
    run.cluster.ask(2, &request(&spec("b", "@manually")));
    run.cluster.commit();
    assert_eq!(run.cluster.found(LINEAR).len(), 1);
}

#[test]
fn a_write_that_nobody_asked_for_is_found() {
    let mut run = Run::new();
    run.apply(&put(7, 0, &spec("a", "@manually"), None));
    assert_eq!(run.cluster.found(LINEAR).len(), 1);
}

#[test]
fn an_acknowledged_put_that_is_not_in_the_log_is_found() {
    let mut run = Run::new();
    let applied = run.put(1, "a");
    run.cluster.ask(2, &request(&spec("a", "@manually")));
    run.cluster.answer(2, &written(applied));
    run.cluster.assert_healthy();
    let found = run.complaints(DURABILITY);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("write 2 of a was acknowledged and is gone"));
}

#[test]
fn a_refused_put_that_is_in_the_log_is_found_before_and_after() {
    let refusals = [failed(RequestError::Stopping), Answer::Unheard];
    for refusal in refusals {
        let mut run = Run::new();
        run.cluster.ask(1, &request(&spec("a", "@manually")));
        run.cluster.answer(1, &refusal);
        run.apply(&put(1, 0, &spec("a", "@manually"), None));
        assert_eq!(run.cluster.found(DURABILITY).len(), 1);
        run.cluster.ask(2, &request(&spec("b", "@manually")));
        run.apply(&put(2, 0, &spec("b", "@manually"), None));
        run.cluster.answer(2, &refusal);
        assert_eq!(run.cluster.found(DURABILITY).len(), 2);
    }
    for unknown in [failed(RequestError::Unknown), Answer::Lost, Answer::Silence] {
        let mut run = Run::new();
        run.cluster.ask(1, &request(&spec("a", "@manually")));
        run.cluster.answer(1, &unknown);
        run.apply(&put(1, 0, &spec("a", "@manually"), None));
        run.cluster.assert_healthy();
    }
}

#[test]
fn a_put_that_is_done_twice_is_found_and_one_that_is_repeated_is_not() {
    let mut run = Run::new();
    run.put(1, "a");
    let again = put(1, 0, &spec("a", "@manually"), None);
    run.apply(&again);
    run.cluster.assert_healthy();
    assert_eq!(run.cluster.checkers.coverage().count(Situation::DuplicateWrite), 1);
    let other_id = put(2, 0, &spec("a", "@manually"), None).id;
    run.apply(&Stamped { id: other_id, ..again });
    assert_eq!(run.cluster.found(DURABILITY).len(), 1);
}

#[test]
fn toggles_deletions_and_runs_are_counted() {
    let toggle = |run: &mut Run, op: u64| {
        let revision = run.state.job(&name("a")).unwrap().revision;
        run.cluster.ask(op, &Request::Write(Write::ToggleJob(name("a"))));
        run.apply(&stamped(1, Command::ToggleJob { name: name("a"), revision, next: None }))
    };
    // More is acknowledged than is in the log.
    let mut run = Run::new();
    run.put(1, "a");
    let applied = toggle(&mut run, 2);
    run.cluster.answer(2, &written(applied.clone()));
    run.cluster.ask(3, &Request::Write(Write::ToggleJob(name("a"))));
    run.cluster.answer(3, &written(applied));
    assert_eq!(run.complaints(DURABILITY).len(), 1);
    // More is in the log than anybody may know of.
    let mut run = Run::new();
    run.put(1, "a");
    toggle(&mut run, 2);
    toggle(&mut run, 3);
    run.cluster.answer(3, &failed(RequestError::NotServer));
    assert_eq!(run.complaints(DURABILITY).len(), 1);
    // A deletion of unknown outcome was carried out.
    let mut run = Run::new();
    run.put(1, "a");
    run.cluster.ask(2, &Request::Write(Write::DeleteJob(name("a"))));
    run.apply(&stamped(1, Command::DeleteJob { name: name("a") }));
    run.cluster.answer(2, &failed(RequestError::Unknown));
    assert_eq!(run.complaints(DURABILITY), Vec::<String>::new());
}

#[test]
fn an_answer_that_names_another_entry_is_found() {
    let mut run = Run::new();
    let applied = run.put(1, "a");
    let Applied::Put { job, .. } = applied else { panic!("it is put") };
    run.cluster.ask(2, &Request::Write(Write::ToggleJob(name("a"))));
    let mut job = (*job).clone();
    job.revision = Revision(0);
    run.cluster.answer(2, &written(Applied::Toggled(Arc::new(job))));
    assert_eq!(run.cluster.found(DURABILITY).len(), 1);
}

#[test]
fn states_that_lack_what_was_acknowledged_are_found_in_the_end() {
    let mut run = Run::new();
    run.put(1, "a");
    let behind = run.state.clone();
    run.put(2, "b");
    let states = BTreeMap::from([(0, run.state.clone()), (1, behind)]);
    let verdicts = run.cluster.finish(Ending { states, ..Ending::default() });
    let found = verdicts.into_iter().find(|it| it.checker == DURABILITY).unwrap().violations;
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_state_that_is_not_what_the_log_says_is_found() {
    let mut run = Run::new();
    run.put(1, "a");
    let old = run.state.clone();
    run.put(2, "b");
    run.cluster.checkers.on_state(0, &old);
    let state = run.state.clone();
    run.cluster.checkers.on_state(1, &state);
    run.cluster.assert_healthy();
    let mut other = old;
    other.apply(LogIndex(2), &put(3, 0, &spec("b", "@manually"), None));
    run.cluster.checkers.on_state(2, &other);
    assert_eq!(run.cluster.found(STATES).len(), 1);
}

#[test]
fn a_state_ahead_of_the_log_waits_to_be_compared() {
    let mut run = Run::new();
    run.put(1, "a");
    let stamped = put(2, 0, &spec("b", "@manually"), None);
    let mut ahead = run.state.clone();
    ahead.apply(LogIndex(2), &stamped);
    run.cluster.checkers.on_state(0, &ahead);
    run.cluster.ask(2, &request(&spec("b", "@manually")));
    run.apply(&stamped);
    run.cluster.checkers.on_state(1, &ahead);
    run.cluster.assert_healthy();
    ahead.apply(LogIndex(9), &put(3, 0, &spec("c", "@manually"), None));
    run.cluster.checkers.on_state(0, &ahead);
    assert_eq!(run.complaints(STATES).len(), 1);
}

#[test]
fn histories_that_differ_are_found() {
    let mut run = Run::new();
    run.put(1, "a");
    let row = |reason: &str| {
        let mut state = State::default();
        let plan = cronclave::jobs::command::Plan::Skip(reason.to_owned());
        state.apply(LogIndex(0), &put(1, 0, &spec("a", "@manually"), None));
        let claim = cronclave::jobs::command::Claim {
            job: name("a"),
            revision: Revision(0),
            trigger: cronclave::jobs::job::Trigger::Manual,
            due: wall(0),
            next: None,
            plan,
        };
        let (_, changes) = state.apply(LogIndex(1), &stamped(0, Command::Claim(vec![claim])));
        let cronclave::jobs::history::change::Change::Put(row) = &changes[0] else {
            panic!("a skipped run leaves a row")
        };
        Arc::clone(row)
    };
    let upto = Some(LogIndex(1));
    let histories =
        |two: &str| BTreeMap::from([(0, (upto, vec![row("one")])), (1, (upto, vec![row(two)]))]);
    let judge = |two: &str| {
        let mut cluster = Cluster::new(2);
        let verdicts = cluster.finish(Ending { histories: histories(two), ..Ending::default() });
        verdicts.into_iter().find(|it| it.checker == "equal histories").unwrap()
    };
    assert!(judge("one").is_green());
    assert_eq!(judge("two").violations.len(), 1);
}

#[test]
fn situations_of_clients_are_noticed() {
    let mut run = Run::new();
    run.put(1, "a");
    // A leader dies and is back at once; a read goes to it, and is answered in the next term.
    run.cluster.down(0);
    run.cluster.boot(0, id(0));
    run.cluster.ask(2, &READ);
    run.cluster.elect(1);
    run.cluster.status(1, Role::Leader, Some(1));
    let view = run.view();
    run.cluster.answer(2, &view);
    run.cluster.ask(3, &request(&spec("b", "@manually")));
    run.cluster.answer(3, &failed(RequestError::Unknown));
    run.cluster.ask(4, &request(&spec("c", "@manually")));
    run.cluster.answer(4, &failed(RequestError::NoLeader("none".to_owned())));
    run.cluster.assert_healthy();
    let Run { mut cluster, state } = run;
    cluster.finish(Ending { states: BTreeMap::from([(0, state)]), ..Ending::default() });
    for situation in [
        Situation::LeaderRestartedInLeaseThenRead,
        Situation::ReadAcrossTerms,
        Situation::UnknownWriteNotDone,
        Situation::NoLeaderTold,
    ] {
        assert_eq!(cluster.checkers.coverage().count(situation), 1, "{situation:?}");
    }
}

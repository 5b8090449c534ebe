//! Tests of the run ledger, fed with whole runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use cronclave::id::{ExecutionId, JobName, LogIndex, Revision};
use cronclave::jobs::State;
use cronclave::jobs::command::{Claim, Command, Plan, Stamped, Timing};
use cronclave::jobs::history::change::Change;
use cronclave::jobs::job::{Concurrency, Execution, JobSpec, Outcome, RunResult, Trigger};

use super::coverage::Situation;
use super::fixtures::*;
use super::seen::Ending;

const RUNS: &str = "run ledger";

fn name(text: &str) -> JobName {
    JobName::new(text).unwrap()
}

/// A cluster with a job `a`, the state that its log makes, and the rows of its history.
struct Run {
    cluster: Cluster,
    state: State,
    rows: BTreeMap<ExecutionId, Arc<Execution>>,
    revision: u64,
}

impl Run {
    /// The job is put at second 0.
    fn new(spec: &JobSpec) -> Self {
        let mut run = Self {
            cluster: Cluster::new(3),
            state: State::default(),
            rows: BTreeMap::new(),
            revision: 0,
        };
        run.put(0, spec, Some(10));
        run
    }

    fn put(&mut self, secs: i64, spec: &JobSpec, next: Option<i64>) {
        let timing = Timing { anchor: wall(secs), next: next.map(wall) };
        let spec = Arc::new(spec.clone());
        self.revision = self.apply(&stamped(secs, Command::PutJob { spec, timing }));
    }

    fn apply(&mut self, stamped: &Stamped) -> u64 {
        let index = self.cluster.apply(stamped);
        let (_, changes) = self.state.apply(LogIndex(index), stamped);
        for change in changes {
            match change {
                Change::Put(row) => drop(self.rows.insert(row.id, row)),
                Change::Forget(job) => self.rows.retain(|_, row| row.job != job),
            }
        }
        index
    }

    fn pass_to(&mut self, secs: i64) {
        let gone = u32::try_from(secs - self.cluster.secs).unwrap();
        self.cluster.pass(gone);
    }

    fn claim_as(&mut self, trigger: Trigger, due: i64, next: Option<i64>, plan: Plan) -> u64 {
        self.pass_to(due.max(self.cluster.secs));
        let (job, revision) = (name("a"), Revision(self.revision));
        let (due, next) = (wall(due), next.map(wall));
        let claim = Claim { job, revision, trigger, due, next, plan };
        self.apply(&stamped(self.cluster.secs, Command::Claim(vec![claim])))
    }

    /// The instant is claimed for the server 0.
    fn claim(&mut self, due: i64) -> u64 {
        let plan = Plan::Run(vec![target(0)]);
        self.claim_as(Trigger::Schedule, due, Some(due + 10), plan)
    }

    fn finished(&mut self, claim: u64, outcome: Outcome) -> u64 {
        let is_well = outcome == Outcome::Succeeded;
        let reason = if is_well { String::new() } else { "for a reason".to_owned() };
        let result = RunResult { reason, ..result(outcome) };
        let command = Command::Finished { execution: execution(claim, 0), result };
        self.apply(&stamped(self.cluster.secs, command))
    }

    /// The instant is claimed, and its process runs and ends.
    fn run(&mut self, due: i64) {
        let claim = self.claim(due);
        self.cluster.start(execution(claim, 0), "a", due, 0);
        self.cluster.end(execution(claim, 0), 0, Outcome::Succeeded);
        self.finished(claim, Outcome::Succeeded);
    }

    fn found(&self) -> Vec<String> {
        self.cluster.found(RUNS)
    }

    /// All is over so many seconds later; what the ledger says.
    fn finish(mut self, secs: u32) -> Vec<String> {
        self.cluster.pass(secs);
        let rows: Vec<Arc<Execution>> = self.rows.values().cloned().collect();
        let histories = (0..3).map(|host| (host, (self.state.applied(), rows.clone()))).collect();
        let states = (0..3).map(|host| (host, self.state.clone())).collect();
        let verdicts = self.cluster.finish(Ending { states, histories, ..Ending::default() });
        let others = verdicts.iter().filter(|it| it.checker.starts_with("equal"));
        assert!(others.clone().all(|verdict| verdict.violations.is_empty()), "{verdicts:?}");
        let mine = verdicts.into_iter().find(|verdict| verdict.checker == RUNS).unwrap();
        mine.violations
    }
}

fn every_ten() -> JobSpec {
    spec("a", "@every 10s")
}

#[test]
fn a_job_that_runs_at_its_instants_is_well() {
    let mut run = Run::new(&every_ten());
    for due in [10, 20, 30] {
        run.run(due);
    }
    let claim = run.claim_as(Trigger::Manual, 33, None, Plan::Run(vec![target(1)]));
    run.cluster.start(execution(claim, 0), "a", 33, 1);
    run.run(40);
    run.claim_as(Trigger::Schedule, 50, Some(60), Plan::Miss("nobody was there".to_owned()));
    run.cluster.assert_healthy();
    assert_eq!(run.finish(5), Vec::<String>::new());
}

#[test]
fn an_execution_that_starts_twice_is_found() {
    let mut run = Run::new(&every_ten());
    let claim = run.claim(10);
    run.cluster.start(execution(claim, 0), "a", 10, 0);
    run.cluster.assert_healthy();
    run.cluster.start(execution(claim, 0), "a", 10, 0);
    assert_eq!(run.found().len(), 1);
}

#[test]
fn a_start_without_a_committed_claim_is_found() {
    let mut run = Run::new(&every_ten());
    run.pass_to(10);
    run.cluster.start(execution(9, 0), "a", 10, 0);
    assert_eq!(run.found().len(), 1);
    let mut run = Run::new(&every_ten());
    run.pass_to(10);
    let put = run.revision;
    run.cluster.start(execution(put, 0), "a", 10, 0);
    assert_eq!(run.found().len(), 1, "that entry claims nothing");
}

#[test]
fn a_start_that_is_not_what_was_claimed_is_found() {
    let start = |host: usize, job: &str, due: i64, slot: u32| {
        let mut run = Run::new(&every_ten());
        let claim = run.claim(10);
        run.cluster.start(execution(claim, slot), job, due, host);
        run.found().len()
    };
    assert_eq!(start(0, "a", 10, 0), 0);
    assert_eq!(start(1, "a", 10, 0), 1, "another node");
    assert_eq!(start(0, "b", 10, 0), 1, "another job");
    assert_eq!(start(0, "a", 9, 0), 1, "another instant");
    assert_eq!(start(0, "a", 10, 1), 1, "another execution");
}

#[test]
fn an_early_start_is_found() {
    let mut run = Run::new(&every_ten());
    let stamped = stamped(10, Command::Claim(Vec::new()));
    run.apply(&stamped);
    let claim = run.claim(10);
    run.cluster.secs = 9;
    run.cluster.start(execution(claim, 0), "a", 10, 0);
    assert_eq!(run.found().len(), 2, "by its instant, and by its claim");
}

#[test]
fn an_instant_that_is_left_out_twice_claimed_or_made_up_is_found() {
    let mut run = Run::new(&every_ten());
    run.run(10);
    run.claim(30);
    assert_eq!(run.found().len(), 1, "20 is left out");
    let mut run = Run::new(&every_ten());
    run.claim(10);
    run.claim(10);
    run.cluster.assert_healthy();
    assert_eq!(run.state.open_count(), 1, "the second claim is void");
    let mut run = Run::new(&every_ten());
    run.claim(13);
    assert_eq!(run.found().len(), 1, "13 is no instant");
}

#[test]
fn an_instant_that_is_never_claimed_is_found_in_the_end() {
    let mut run = Run::new(&every_ten());
    run.run(10);
    run.pass_to(29);
    run.apply(&stamped(29, Command::Claim(Vec::new())));
    assert_eq!(run.finish(1).len(), 1);
    let mut run = Run::new(&every_ten());
    run.run(10);
    run.pass_to(24);
    run.apply(&stamped(24, Command::Claim(Vec::new())));
    assert_eq!(run.finish(1), Vec::<String>::new(), "its claim may be on its way");
}

#[test]
fn what_a_change_makes_void_has_to_leave_a_row() {
    let change = |secs: i64| {
        let mut run = Run::new(&every_ten());
        run.run(10);
        run.pass_to(secs);
        let disabled = JobSpec { disabled: true, ..every_ten() };
        run.put(secs, &disabled, None);
        run.finish(0)
    };
    assert_eq!(change(19), Vec::<String>::new());
    assert_eq!(change(23), Vec::<String>::new(), "20 is missed");
    assert_eq!(change(45).len(), 1, "30 and 40 leave no row");
    let mut run = Run::new(&every_ten());
    run.pass_to(45);
    run.apply(&stamped(45, Command::DeleteJob { name: name("a") }));
    assert_eq!(run.finish(0), Vec::<String>::new(), "with a job its history goes");
}

#[test]
fn times_begin_anew_with_another_schedule_and_go_on_with_the_same() {
    let mut run = Run::new(&every_ten());
    run.run(10);
    let renamed = JobSpec { owner: "somebody".to_owned(), ..every_ten() };
    run.put(12, &renamed, Some(20));
    run.run(20);
    run.put(21, &spec("a", "@every 7s"), Some(28));
    let plan = Plan::Run(vec![target(0)]);
    run.claim_as(Trigger::Schedule, 28, Some(35), plan.clone());
    run.cluster.assert_healthy();
    run.claim_as(Trigger::Schedule, 38, Some(45), plan);
    assert_eq!(run.found().len(), 1);
}

#[test]
fn another_zone_of_the_cluster_counts_for_jobs_that_name_none() {
    let cron = spec("a", "0 45 * * * *");
    let mut run = Run::new(&cron);
    run.put(1, &cron, Some(45 * 60));
    let timezone = "Asia/Kolkata".to_owned();
    run.apply(&stamped(2, Command::Settings { timezone }));
    // What is stored stays; then the half hour of the zone counts.
    let plan = Plan::Run(vec![target(0)]);
    run.claim_as(Trigger::Schedule, 45 * 60, Some(75 * 60), plan.clone());
    run.claim_as(Trigger::Schedule, 75 * 60, Some(135 * 60), plan);
    run.cluster.assert_healthy();
}

#[test]
fn a_run_that_is_skipped_or_missed_for_no_reason_is_found() {
    for plan in [Plan::Skip(String::new()), Plan::Miss(String::new())] {
        let mut run = Run::new(&every_ten());
        run.claim_as(Trigger::Schedule, 10, Some(20), plan);
        assert_eq!(run.found().len(), 1);
    }
}

#[test]
fn a_run_that_is_forbidden_and_starts_is_found() {
    let forbid = JobSpec { concurrency: Concurrency::Forbid, ..every_ten() };
    let mut run = Run::new(&forbid);
    let first = run.claim(10);
    run.cluster.start(execution(first, 0), "a", 10, 0);
    let second = run.claim(20);
    run.cluster.assert_healthy();
    assert_eq!(run.cluster.checkers.coverage().count(Situation::RunSkipped), 1);
    run.cluster.start(execution(second, 0), "a", 20, 0);
    assert_eq!(run.found().len(), 1);
    let mut run = Run::new(&forbid);
    run.run(10);
    run.run(20);
    assert_eq!(run.finish(5), Vec::<String>::new(), "one after the other is allowed");
}

#[test]
fn a_lost_run_needs_a_fault() {
    let mut run = Run::new(&every_ten());
    run.pass_to(500);
    let claim = run.claim_as(Trigger::Manual, 502, None, Plan::Run(vec![target(0)]));
    let mut other = Run::new(&every_ten());
    other.pass_to(500);
    let again = other.claim_as(Trigger::Manual, 502, None, Plan::Run(vec![target(0)]));
    run.finished(claim, Outcome::Lost);
    assert_eq!(run.found().len(), 1, "nothing has befallen the node");
    let at = other.cluster.now;
    other.cluster.checkers.disturb(at, 0);
    other.pass_to(600);
    other.cluster.checkers.calm(other.cluster.now, 0);
    other.finished(again, Outcome::Lost);
    other.cluster.assert_healthy();
    // It comes back with its result.
    other.cluster.start(execution(again, 0), "a", 502, 0);
    other.cluster.end(execution(again, 0), 0, Outcome::Succeeded);
    other.finished(again, Outcome::Succeeded);
    let coverage = other.cluster.checkers.coverage();
    assert_eq!(coverage.count(Situation::RunLost), 1);
    assert_eq!(coverage.count(Situation::RunFoundAgain), 1);
}

#[test]
fn a_result_that_is_lost_or_another_is_found_in_the_end() {
    let end = |booked: Option<Outcome>, falls: bool| {
        let mut run = Run::new(&spec("a", "@manually"));
        let claim = run.claim_as(Trigger::Manual, 10, None, Plan::Run(vec![target(0)]));
        run.cluster.start(execution(claim, 0), "a", 10, 0);
        run.cluster.end(execution(claim, 0), 0, Outcome::Succeeded);
        if falls {
            run.cluster.down(0);
            run.cluster.boot(0, id(0));
        }
        if let Some(outcome) = booked {
            run.finished(claim, outcome);
        }
        run.finish(300).len()
    };
    assert_eq!(end(Some(Outcome::Succeeded), false), 0);
    assert_eq!(end(Some(Outcome::Failed), false), 1);
    assert_eq!(end(Some(Outcome::Lost), true), 0, "it may have died before the end was durable");
    assert_eq!(end(None, false), 2, "its end is lost, and its row stays open");
    assert_eq!(end(None, true), 2, "though its node is back");
}

#[test]
fn a_success_that_never_was_is_found_in_the_end() {
    let mut run = Run::new(&spec("a", "@manually"));
    let claim = run.claim_as(Trigger::Manual, 10, None, Plan::Run(vec![target(0)]));
    run.finished(claim, Outcome::Succeeded);
    assert_eq!(run.finish(0).len(), 1);
}

#[test]
fn a_claim_that_never_starts_is_found_in_the_end() {
    let finish = |secs: u32| {
        let mut run = Run::new(&spec("a", "@manually"));
        run.claim_as(Trigger::Manual, 10, None, Plan::Run(vec![target(0)]));
        run.finish(secs).len()
    };
    assert_eq!((finish(5), finish(300)), (0, 1));
}

#[test]
fn a_history_that_lacks_a_row_or_makes_one_up_is_found() {
    let tamper = |change: fn(&mut BTreeMap<ExecutionId, Arc<Execution>>)| {
        let mut run = Run::new(&every_ten());
        run.run(10);
        run.run(20);
        change(&mut run.rows);
        run.finish(5).len()
    };
    assert_eq!(tamper(|_| {}), 0);
    assert_eq!(tamper(|rows| drop(rows.pop_first())), 3, "on each of three servers");
    let lie = |rows: &mut BTreeMap<ExecutionId, Arc<Execution>>| {
        let row = Arc::make_mut(rows.values_mut().next().unwrap());
        row.outcome = Outcome::Failed;
    };
    assert_eq!(tamper(lie), 3);
    let make_up = |rows: &mut BTreeMap<ExecutionId, Arc<Execution>>| {
        let mut row = (**rows.values().next().unwrap()).clone();
        row.id = execution(99, 0);
        rows.insert(row.id, Arc::new(row));
    };
    assert_eq!(tamper(make_up), 3);
}

#[test]
fn failed_runs_are_tried_again_under_ids_that_are_known() {
    let mut run = Run::new(&JobSpec { retries: 1, ..spec("a", "@manually") });
    let claim = run.claim_as(Trigger::Manual, 10, None, Plan::Run(vec![target(0)]));
    run.cluster.start(execution(claim, 0), "a", 10, 0);
    run.cluster.end(execution(claim, 0), 0, Outcome::Failed);
    let failed = run.finished(claim, Outcome::Failed);
    run.cluster.start(execution(failed, 0), "a", 10, 0);
    assert_eq!(run.found().len(), 1, "the pause before it is not over");
    run.pass_to(11);
    run.cluster.end(execution(failed, 0), 0, Outcome::Succeeded);
    run.finished(failed, Outcome::Succeeded);
    assert_eq!(run.cluster.checkers.coverage().count(Situation::RunRetried), 1);
    assert_eq!(run.finish(300).len(), 1);
}

#[test]
fn a_fire_window_that_crosses_leaders_is_noticed() {
    let mut run = Run::new(&every_ten());
    run.pass_to(15);
    run.cluster.elect(0);
    run.cluster.commit();
    run.run(10);
    run.cluster.assert_healthy();
    let coverage = run.cluster.checkers.coverage();
    assert_eq!(coverage.count(Situation::FireAcrossLeaders), 1);
    assert_eq!(coverage.count(Situation::RunLate), 1);
}

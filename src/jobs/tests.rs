//! What the replicated state promises, one sentence a test; `random` has the properties.

mod ended;
mod random;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::{Boot, ClusterId, CommandId, ExecutionId, JobName, LogIndex, NodeId, NodeName};
use crate::id::{Incarnation, Revision};
use crate::jobs::command::{Applied, Claim, Command, Plan, Reject, Role, Rows, Stamped, Timing};
use crate::jobs::history::change::Change;
use crate::jobs::job::{
    Concurrency, Execution, Job, JobSpec, JobStatus, Outcome, RunResult, Target, Trigger,
};
use crate::jobs::state::State;
use crate::time::Wall;

pub(super) fn name(text: &str) -> JobName {
    JobName::new(text).unwrap()
}

pub(super) fn spec(job: &str) -> JobSpec {
    JobSpec {
        name: name(job),
        displayname: String::new(),
        schedule: "@every 10s".to_owned(),
        timezone: String::new(),
        owner: String::new(),
        owner_email: String::new(),
        disabled: false,
        tags: BTreeMap::new(),
        metadata: BTreeMap::new(),
        retries: 0,
        concurrency: Concurrency::Allow,
        executor: "shell".to_owned(),
        executor_config: BTreeMap::from([("command".to_owned(), "date".to_owned())]),
        ephemeral: false,
        starts_at: None,
        expires_at: None,
    }
}

pub(super) fn target(node: &str) -> Target {
    let name = NodeName::new(node).unwrap();
    Target { id: NodeId::derive(&name, Incarnation(1)), name }
}

pub(super) fn result(outcome: Outcome) -> RunResult {
    RunResult {
        outcome,
        reason: if outcome == Outcome::Succeeded { String::new() } else { "exit 1".to_owned() },
        exit_code: Some(i32::from(outcome != Outcome::Succeeded)),
        output: "out".to_owned(),
        output_truncated: false,
    }
}

fn secs(secs: i64) -> Wall {
    Wall::from_secs(secs)
}

/// The history as a store holds it that never drops a row by itself.
#[derive(Clone, Debug, Default, PartialEq)]
struct History(BTreeMap<ExecutionId, Arc<Execution>>);

impl History {
    fn carry_out(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(row) => drop(self.0.insert(row.id, row)),
                Change::Forget(job) => self.0.retain(|_, row| row.job != job),
            }
        }
    }

    fn of(&self, job: &str) -> impl Iterator<Item = &Arc<Execution>> {
        self.0.values().filter(move |row| row.job.as_str() == job)
    }
}

/// A state with its history, and the log that makes them: each command is the next entry, stamped
/// with `now`.
#[derive(Default)]
struct Bench {
    state: State,
    history: History,
    log: Vec<Stamped>,
    now: Wall,
}

impl Bench {
    fn at(&mut self, seconds: i64) -> &mut Self {
        self.now = secs(seconds);
        self
    }

    fn run(&mut self, command: Command) -> Applied {
        self.run_as(None, command)
    }

    fn run_as(&mut self, id: Option<CommandId>, command: Command) -> Applied {
        let entry = Stamped { stamp: self.now, id, command };
        self.log.push(entry.clone());
        let (applied, changes) = self.state.apply(LogIndex(self.log.len() as u64), &entry);
        self.history.carry_out(changes);
        applied
    }

    /// Puts a job that is next due 10 seconds from now.
    fn put(&mut self, spec: JobSpec) -> Arc<Job> {
        let anchor = self.state.anchor_for(&spec, self.now);
        let next = Some(secs(self.now.as_secs() + 10));
        let applied =
            self.run(Command::PutJob { spec: Arc::new(spec), timing: Timing { anchor, next } });
        let Applied::Put { job, .. } = applied else { panic!("not put: {applied:?}") };
        job
    }

    fn claim_of(&self, job: &str, trigger: Trigger, plan: Plan) -> Claim {
        let job = self.state.job(&name(job)).unwrap();
        let due = match trigger {
            Trigger::Schedule => job.next.unwrap(),
            Trigger::Manual | Trigger::Retry => self.now,
        };
        let next = Some(secs(due.as_secs() + 10));
        Claim { job: job.spec.name.clone(), revision: job.revision, trigger, due, next, plan }
    }

    fn claim(&mut self, job: &str, trigger: Trigger, plan: Plan) -> Result<Rows, Reject> {
        let claim = self.claim_of(job, trigger, plan);
        self.claim_this(claim)
    }

    fn claim_this(&mut self, claim: Claim) -> Result<Rows, Reject> {
        let applied = self.run(Command::Claim(vec![claim]));
        let Applied::Claimed(claims) = applied else { panic!("not claimed: {applied:?}") };
        claims[0]
    }

    /// Runs a job by hand on these nodes; the executions.
    fn fire(&mut self, job: &str, nodes: &[&str]) -> Vec<ExecutionId> {
        let targets = nodes.iter().map(|node| target(node)).collect();
        self.claim(job, Trigger::Manual, Plan::Run(targets)).unwrap().ids().collect()
    }

    fn finish(&mut self, execution: ExecutionId, outcome: Outcome) -> Option<ExecutionId> {
        let applied = self.run(Command::Finished { execution, result: result(outcome) });
        let Applied::Finished { retry } = applied else { panic!("not finished: {applied:?}") };
        retry
    }

    fn job(&self, job: &str) -> &Job {
        self.state.job(&name(job)).unwrap()
    }

    fn row(&self, id: ExecutionId) -> &Execution {
        self.find(id).unwrap()
    }

    /// The row of an execution, open or ended.
    fn find(&self, id: ExecutionId) -> Option<&Execution> {
        self.state.open_execution(id).or_else(|| self.history.0.get(&id)).map(|row| &**row)
    }

    /// The rows of a job, open and ended.
    fn rows_of(&self, job: &str) -> Vec<&Execution> {
        let stored = self.state.job(&name(job));
        let open = stored.into_iter().flat_map(|stored| self.state.open_of(stored));
        open.chain(self.history.of(job)).map(|row| &**row).collect()
    }
}

#[test]
fn a_new_job_waits_for_its_first_due_instant() {
    let mut bench = Bench::default();
    let job = bench.at(5).put(spec("a"));
    assert_eq!((job.anchor, job.cursor, job.next), (secs(5), secs(5), Some(secs(15))));
    assert_eq!((job.created, job.revision), (LogIndex(1), Revision(1)));
    assert_eq!(bench.state.next_due(), Some(secs(15)));
    assert_eq!(bench.state.due_until(secs(14)).count(), 0);
    assert_eq!(bench.state.due_until(secs(15)).collect::<Vec<_>>(), [(secs(15), &name("a"))]);
}

#[test]
fn putting_the_same_definition_again_changes_nothing() {
    let mut bench = Bench::default();
    let job = bench.put(spec("a"));
    assert_eq!(bench.at(5).put(spec("a")), job);
}

#[test]
fn an_edit_that_keeps_the_schedule_keeps_times_and_counters() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let ids = bench.at(3).fire("a", &["n1"]);
    bench.finish(ids[0], Outcome::Succeeded);
    let before = bench.job("a").clone();
    let after = bench.at(7).put(JobSpec { owner: "me".to_owned(), ..spec("a") });
    assert_eq!(after.revision, Revision(4));
    let spec = Arc::clone(&after.spec);
    assert_eq!(*after, Job { spec, revision: Revision(4), ..before });
}

#[test]
fn a_new_schedule_starts_anew_and_accounts_for_what_was_due() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let job = bench.at(12).put(JobSpec { schedule: "@hourly".to_owned(), ..spec("a") });
    assert_eq!((job.anchor, job.cursor, job.next), (secs(12), secs(12), Some(secs(22))));
    assert_eq!(bench.state.due_until(secs(99)).count(), 1);
    let rows = bench.rows_of("a");
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].due, rows[0].outcome), (secs(10), Outcome::Missed));
    assert_eq!(rows[0].reason, "the job was changed before it could run");
}

#[test]
fn another_expiry_takes_new_times_but_keeps_the_anchor() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let job = bench.at(4).put(JobSpec { expires_at: Some(secs(99)), ..spec("a") });
    assert_eq!((job.anchor, job.cursor, job.next), (secs(0), secs(4), Some(secs(14))));
}

#[test]
fn a_disabled_job_is_not_due_and_what_fell_due_meanwhile_is_not_run() {
    let mut bench = Bench::default();
    let revision = bench.put(spec("a")).revision;
    let toggle = |revision, next| Command::ToggleJob { name: name("a"), revision, next };
    let Applied::Toggled(job) = bench.at(3).run(toggle(revision, None)) else { panic!() };
    assert!(job.spec.disabled);
    assert_eq!((job.next, bench.state.next_due()), (None, None));
    assert_eq!(
        bench.run(toggle(revision, None)),
        Applied::Rejected(Reject::StaleRevision(job.revision))
    );
    let Applied::Toggled(job) = bench.at(55).run(toggle(job.revision, Some(secs(60)))) else {
        panic!()
    };
    assert!(!job.spec.disabled);
    assert_eq!((job.anchor, job.cursor, job.next), (secs(0), secs(55), Some(secs(60))));
    assert_eq!(bench.history, History::default());
}

#[test]
fn a_due_instant_is_claimed_once() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let claim = bench.claim_of("a", Trigger::Schedule, Plan::Run(vec![target("n1")]));
    assert_eq!(bench.at(9).claim_this(claim.clone()), Err(Reject::Early(secs(9))));
    let rows = bench.at(11).claim_this(claim.clone()).unwrap();
    let row = bench.row(rows.first);
    assert_eq!((row.due, row.claimed_at, row.outcome), (secs(10), secs(11), Outcome::Claimed));
    assert_eq!((bench.job("a").cursor, bench.job("a").next), (secs(10), Some(secs(20))));
    assert_eq!(bench.claim_this(claim), Err(Reject::NotDue(secs(10))));
    assert_eq!(bench.state.open_count(), 1);
}

#[test]
fn a_claim_that_was_worked_out_from_other_facts_is_void() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let claim = bench.claim_of("a", Trigger::Schedule, Plan::Run(vec![target("n1")]));
    let revision = bench.put(JobSpec { owner: "me".to_owned(), ..spec("a") }).revision;
    assert_eq!(bench.at(10).claim_this(claim.clone()), Err(Reject::StaleRevision(revision)));
    let off = bench.at(5).put(JobSpec { disabled: true, ..spec("a") }).revision;
    bench.at(10);
    let disabled = Claim { revision: off, ..claim.clone() };
    assert_eq!(bench.claim_this(disabled.clone()), Err(Reject::Disabled));
    let retry = Claim { trigger: Trigger::Retry, ..disabled };
    assert_eq!(bench.claim_this(retry), Err(Reject::RetryClaimed));
    let other = Claim { job: name("b"), ..claim };
    assert_eq!(bench.claim_this(other), Err(Reject::JobNotFound));
    assert_eq!(bench.state.open_count(), 0);
}

#[test]
fn several_instants_of_a_job_are_claimed_in_one_entry() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let first = bench.claim_of("a", Trigger::Schedule, Plan::Run(vec![target("n1"), target("n2")]));
    let second = Claim { due: secs(20), next: Some(secs(30)), ..first.clone() };
    let Applied::Claimed(claims) = bench.at(25).run(Command::Claim(vec![first, second])) else {
        panic!()
    };
    let ids: Vec<String> =
        claims.into_iter().flat_map(|rows| rows.unwrap().ids()).map(|id| id.to_string()).collect();
    assert_eq!(ids, ["2-0", "2-1", "2-2", "2-3"]);
    assert_eq!((bench.job("a").cursor, bench.job("a").next), (secs(20), Some(secs(30))));
}

#[test]
fn an_instant_that_is_claimed_and_still_next_can_be_left() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let claim = bench.claim_of("a", Trigger::Schedule, Plan::Skip("no".to_owned()));
    bench.at(10).claim_this(Claim { next: Some(secs(10)), ..claim.clone() }).unwrap();
    assert_eq!(bench.claim_this(claim), Err(Reject::NotDue(secs(10))));
    assert_eq!(bench.job("a").next, Some(secs(20)));
    assert_eq!(bench.history.0.len(), 1);
}

#[test]
fn what_does_not_run_leaves_a_row_with_the_reason() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let skipped = bench.at(10).claim("a", Trigger::Schedule, Plan::Skip("why".to_owned()));
    let missed = bench.at(20).claim("a", Trigger::Schedule, Plan::Miss("late".to_owned()));
    let nowhere = bench.at(30).claim("a", Trigger::Schedule, Plan::Run(Vec::new()));
    let ends: Vec<_> = [skipped, missed, nowhere]
        .map(|rows| bench.row(rows.unwrap().first))
        .map(|row| (row.outcome, row.reason.as_str(), row.finished_at.is_some()))
        .to_vec();
    assert_eq!(
        ends,
        [
            (Outcome::Skipped, "why", true),
            (Outcome::Missed, "late", true),
            (Outcome::Missed, "no node to run it on", true),
        ]
    );
    assert_eq!((bench.job("a").error_count, bench.job("a").status), (0, JobStatus::Untriggered));
}

#[test]
fn forbid_skips_while_an_execution_is_open_also_by_hand() {
    let mut bench = Bench::default();
    bench.put(JobSpec { concurrency: Concurrency::Forbid, ..spec("a") });
    let run = || Plan::Run(vec![target("n1")]);
    let first = bench.at(10).claim("a", Trigger::Schedule, run()).unwrap().first;
    let second = bench.at(20).claim("a", Trigger::Schedule, run()).unwrap().first;
    let by_hand = bench.claim("a", Trigger::Manual, run()).unwrap().first;
    for id in [second, by_hand] {
        assert_eq!(bench.row(id).outcome, Outcome::Skipped);
        assert_eq!(bench.row(id).reason, "concurrency forbid: execution 2-0 is still open");
    }
    bench.finish(first, Outcome::Succeeded);
    let third = bench.at(30).claim("a", Trigger::Schedule, run()).unwrap().first;
    assert_eq!(bench.row(third).outcome, Outcome::Claimed);
}

#[test]
fn a_manual_run_leaves_the_schedule_alone_and_runs_disabled_jobs() {
    let mut bench = Bench::default();
    bench.put(JobSpec { disabled: true, ..spec("a") });
    let before = bench.job("a").clone();
    let ids = bench.at(3).fire("a", &["n1"]);
    assert_eq!(bench.row(ids[0]).due, secs(3));
    assert_eq!(*bench.job("a"), before);
}

#[test]
fn a_repeated_write_is_done_once_and_answered_alike() {
    let mut bench = Bench::default();
    let id = |seq| Some(CommandId { node: NodeId(1), boot: Boot(1), seq });
    let put = Command::PutJob {
        spec: Arc::new(spec("a")),
        timing: Timing { anchor: secs(0), next: Some(secs(10)) },
    };
    let first = bench.run_as(id(1), put.clone());
    assert!(matches!(first, Applied::Put { created: true, .. }));
    assert_eq!(bench.run_as(id(1), put.clone()), first);

    let run = bench.claim_of("a", Trigger::Manual, Plan::Run(vec![target("n1")]));
    let opened = bench.run_as(id(2), Command::Claim(vec![run.clone()]));
    assert_eq!(bench.run_as(id(2), Command::Claim(vec![run])), opened);
    assert_eq!(bench.state.open_count(), 1);

    let stale = Command::ToggleJob { name: name("a"), revision: Revision(99), next: None };
    assert!(matches!(bench.run_as(id(3), stale), Applied::Rejected(_)));
    let revision = bench.job("a").revision;
    let toggle = Command::ToggleJob { name: name("a"), revision, next: None };
    // Its client was told that nothing was done, so a copy must not do it after all.
    assert!(matches!(bench.run_as(id(3), toggle.clone()), Applied::Rejected(_)));
    assert!(!bench.job("a").spec.disabled);
    let toggled = bench.run_as(id(5), toggle.clone());
    assert_eq!(bench.run_as(id(5), toggle), toggled);
    assert!(bench.job("a").spec.disabled);

    let delete = Command::DeleteJob { name: name("a") };
    assert!(matches!(bench.run_as(id(4), delete.clone()), Applied::Deleted(_)));
    assert_eq!(bench.run_as(id(4), delete.clone()), Applied::Repeated);
    assert_eq!(bench.run_as(id(1), put), Applied::Repeated);
    assert_eq!(bench.run(delete), Applied::Rejected(Reject::JobNotFound));
    assert_eq!(bench.state.job_count(), 0);
}

#[test]
fn an_entry_is_applied_once() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let before = bench.state.clone();
    let again = bench.log[0].clone();
    let rejected = Applied::Rejected(Reject::AlreadyApplied(LogIndex(1)));
    assert_eq!(bench.state.apply(LogIndex(1), &again), (rejected, Vec::new()));
    assert_eq!(bench.state, before);
}

#[test]
fn a_stamp_never_goes_back() {
    let mut bench = Bench::default();
    bench.at(9).put(spec("a"));
    bench.at(4).put(spec("b"));
    assert_eq!((bench.state.last_stamp(), bench.job("b").cursor), (secs(9), secs(9)));
}

#[test]
fn a_cluster_is_founded_once() {
    let mut bench = Bench::default();
    let found = |id| Command::Found { cluster: ClusterId(id) };
    assert_eq!(bench.run(found(7)), Applied::Founded(ClusterId(7)));
    assert_eq!(bench.run(found(7)), Applied::Founded(ClusterId(7)));
    assert_eq!(bench.run(found(8)), Applied::Rejected(Reject::OtherCluster(ClusterId(7))));
    assert_eq!(bench.state.cluster(), Some(ClusterId(7)));
}

#[test]
fn a_recovered_cluster_has_another_id_and_keeps_everything_else() {
    let mut bench = Bench::default();
    bench.run(Command::Found { cluster: ClusterId(7) });
    bench.at(3).put(spec("a"));
    let refound = Command::Refound { cluster: ClusterId(8) };
    assert_eq!(bench.run(refound), Applied::Founded(ClusterId(8)));
    assert_eq!(bench.state.cluster(), Some(ClusterId(8)));
    assert_eq!(bench.state.job_count(), 1);
    let again = Command::Found { cluster: ClusterId(7) };
    assert_eq!(bench.run(again), Applied::Rejected(Reject::OtherCluster(ClusterId(8))));
}

#[test]
fn a_node_is_admitted_once_a_boot_and_a_new_disk_replaces_the_old() {
    let mut bench = Bench::default();
    let node = NodeName::new("n1").unwrap();
    let admit = |id, boot| Command::Admit {
        name: NodeName::new("n1").unwrap(),
        id: NodeId(id),
        boot: Boot(boot),
        role: Role::Server,
    };
    assert_eq!(bench.run(admit(1, 2)), Applied::Admitted);
    for boot in [1, 2] {
        let refused = Applied::Rejected(Reject::RepeatedBoot(Boot(boot)));
        assert_eq!(bench.run(admit(1, boot)), refused);
    }
    assert_eq!(bench.run(admit(1, 3)), Applied::Admitted);
    assert_eq!(bench.run(admit(5, 1)), Applied::Admitted);
    assert_eq!(bench.state.node(&node).map(|record| record.id), Some(NodeId(5)));
    assert_eq!(bench.state.nodes().count(), 1);
}

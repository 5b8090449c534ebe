//! What becomes of executions: ends, retries, groups, lost ones, deleted jobs, and how they show.

use serde_json::json;

use super::*;
use crate::jobs::job::OUTPUT_LEN_MAX;
use crate::jobs::state::LOST_COUNT_MAX;
use crate::jobs::view::{ExecutionView, JobView};

#[test]
fn an_end_that_is_reported_twice_counts_once() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let id = bench.at(3).fire("a", &["n1"])[0];
    bench.at(5).finish(id, Outcome::Succeeded);
    bench.at(6).finish(id, Outcome::Succeeded);
    bench.at(7).finish(id, Outcome::Failed);
    let job = bench.job("a");
    assert_eq!((job.success_count, job.error_count), (1, 0));
    assert_eq!((job.last_success, job.last_error), (Some(secs(5)), None));
    assert_eq!(
        (bench.row(id).outcome, bench.row(id).finished_at),
        (Outcome::Succeeded, job.last_success)
    );
}

#[test]
fn a_start_is_booked_between_its_claim_and_its_report() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let ids = bench.at(10).fire("a", &["n1", "n2", "n3"]);
    bench.at(20);
    for (id, at) in ids.iter().zip([5, 15, 25]) {
        let start = Command::Started { execution: *id, at: secs(at) };
        assert_eq!(bench.run(start), Applied::Started);
    }
    let starts: Vec<_> =
        ids.iter().map(|id| bench.row(*id).started_at.unwrap().as_secs()).collect();
    assert_eq!(starts, [10, 15, 20]);
    bench.at(30).run(Command::Started { execution: ids[0], at: secs(30) });
    assert_eq!(bench.row(ids[0]).started_at, Some(secs(10)));
}

#[test]
fn a_failed_attempt_is_tried_again_on_its_node_after_a_growing_pause() {
    let mut bench = Bench::default();
    bench.put(JobSpec { retries: 2, ..spec("a") });
    let first = bench.at(3).fire("a", &["n1"])[0];
    let second = bench.at(10).finish(first, Outcome::Failed).unwrap();
    let row = bench.row(second).clone();
    assert_eq!((row.attempt, row.trigger, row.node), (2, Trigger::Retry, Some(target("n1"))));
    assert_eq!((row.group, row.due, row.claimed_at), (first, secs(3), secs(3)));
    assert_eq!(row.not_before, Wall::from_micros(10_500_000));
    assert_eq!(bench.job("a").status, JobStatus::Untriggered);
    let third = bench.at(20).finish(second, Outcome::Failed).unwrap();
    assert_eq!(bench.row(third).not_before, secs(21));
    assert_eq!(bench.at(30).finish(third, Outcome::Failed), None);
    let job = bench.job("a");
    assert_eq!((job.status, job.error_count), (JobStatus::Failed, 3));
}

#[test]
fn a_group_stands_as_its_last_attempts_do() {
    let mut bench = Bench::default();
    bench.put(JobSpec { retries: 1, ..spec("a") });
    let ids = bench.fire("a", &["n1", "n2"]);
    let retry = bench.finish(ids[0], Outcome::Failed).unwrap();
    bench.finish(ids[1], Outcome::Succeeded);
    assert_eq!(bench.job("a").status, JobStatus::Untriggered);
    bench.finish(retry, Outcome::Succeeded);
    assert_eq!(bench.job("a").status, JobStatus::Success);

    let ids = bench.fire("a", &["n1", "n2"]);
    bench.finish(ids[0], Outcome::Lost);
    bench.finish(ids[1], Outcome::Succeeded);
    assert_eq!(bench.job("a").status, JobStatus::PartiallyFailed);
}

#[test]
fn the_real_end_takes_the_place_of_a_lost_one() {
    let mut bench = Bench::default();
    bench.put(JobSpec { retries: 3, ..spec("a") });
    let ids = bench.fire("a", &["n1"]);
    assert_eq!(bench.at(5).finish(ids[0], Outcome::Lost), None);
    assert_eq!((bench.job("a").error_count, bench.job("a").status), (1, JobStatus::Failed));
    bench.at(9).finish(ids[0], Outcome::Succeeded);
    let job = bench.job("a");
    assert_eq!((job.success_count, job.error_count), (1, 0));
    assert_eq!((job.status, bench.row(ids[0]).outcome), (JobStatus::Success, Outcome::Succeeded));
    bench.finish(ids[0], Outcome::Lost);
    assert_eq!(bench.row(ids[0]).outcome, Outcome::Succeeded);
}

#[test]
fn a_late_end_of_an_older_group_does_not_touch_the_status() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let old = bench.fire("a", &["n1"])[0];
    bench.finish(old, Outcome::Lost);
    let new = bench.fire("a", &["n1"])[0];
    bench.finish(new, Outcome::Failed);
    bench.finish(old, Outcome::Succeeded);
    let job = bench.job("a");
    assert_eq!((job.status, job.success_count, job.error_count), (JobStatus::Failed, 1, 1));
}

#[test]
fn an_ephemeral_job_goes_with_its_first_success() {
    let mut bench = Bench::default();
    bench.put(JobSpec { ephemeral: true, ..spec("a") });
    let id = bench.fire("a", &["n1"])[0];
    bench.finish(id, Outcome::Failed);
    assert_eq!(bench.job("a").status, JobStatus::Failed);
    let ids = bench.fire("a", &["n1", "n2"]);
    bench.finish(ids[0], Outcome::Succeeded);
    assert!(bench.state.job(&name("a")).is_some());
    bench.finish(ids[1], Outcome::Succeeded);
    assert_eq!((bench.state.job_count(), bench.state.next_due()), (0, None));
    assert_eq!(bench.history, History::default());
}

#[test]
fn deleting_a_job_leaves_one_whose_name_begins_alike() {
    let mut bench = Bench::default();
    for job in ["foo", "foobar"] {
        bench.put(spec(job));
        let id = bench.fire(job, &["n1"])[0];
        bench.finish(id, Outcome::Succeeded);
    }
    bench.run(Command::DeleteJob { name: name("foo") });
    assert_eq!(bench.history.of("foo").count(), 0);
    assert_eq!(bench.rows_of("foobar").len(), 1);
}

#[test]
fn a_new_job_of_an_old_name_inherits_nothing() {
    let mut bench = Bench::default();
    let forbid = || JobSpec { concurrency: Concurrency::Forbid, retries: 5, ..spec("a") };
    bench.put(forbid());
    let old = bench.fire("a", &["n1"])[0];
    bench.run(Command::DeleteJob { name: name("a") });
    bench.put(forbid());
    assert_eq!(bench.rows_of("a"), [] as [&Execution; 0]);
    let new = bench.fire("a", &["n1"])[0];
    assert_eq!(bench.row(new).outcome, Outcome::Claimed);
    assert_eq!(bench.finish(old, Outcome::Failed), None);
    assert!(bench.find(old).is_none());
    assert_eq!(bench.job("a").error_count, 0);
    assert_eq!(bench.finish(old, Outcome::Failed), None);
    assert!(bench.find(old).is_none());
}

#[test]
fn an_end_of_an_execution_that_is_not_known_changes_nothing_and_may_be_forgotten() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let never = ExecutionId { claim: LogIndex(1), slot: 7 };
    let before = (bench.job("a").clone(), bench.history.clone());
    assert!(!bench.state.awaits_end(never));
    assert_eq!(bench.finish(never, Outcome::Succeeded), None);
    assert_eq!(bench.run(Command::Started { execution: never, at: secs(1) }), Applied::Started);
    assert_eq!((bench.job("a").clone(), bench.history.clone()), before);
    // The entry that would have claimed it is yet to come.
    let execution = ExecutionId { claim: LogIndex(4), slot: 0 };
    let end = Command::Finished { execution, result: result(Outcome::Failed) };
    assert_eq!(bench.run(end), Applied::Rejected(Reject::ExecutionNotFound));
}

#[test]
fn of_lost_executions_the_newest_can_still_be_corrected_and_no_more_are_remembered() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let first = bench.fire("a", &["n1"])[0];
    bench.finish(first, Outcome::Lost);
    let second = bench.fire("a", &["n1"])[0];
    bench.finish(second, Outcome::Lost);
    let sample = bench.row(second).clone();
    for slot in 1..u32::try_from(LOST_COUNT_MAX).unwrap() {
        let id = ExecutionId { slot, ..second };
        bench.state.store_lost(Arc::new(Execution { id, ..sample.clone() }));
    }
    assert!(!bench.state.awaits_end(first));
    bench.finish(first, Outcome::Succeeded);
    assert_eq!(bench.row(first).outcome, Outcome::Lost);
    assert!(bench.state.awaits_end(second));
    bench.finish(second, Outcome::Succeeded);
    assert_eq!(bench.row(second).outcome, Outcome::Succeeded);
    assert_eq!((bench.job("a").success_count, bench.job("a").error_count), (1, 1));
    bench.run(Command::DeleteJob { name: name("a") });
    assert_eq!(bench.state.lost.len(), 0);
    assert_eq!(bench.state.lost_by_job.len_of(&name("a")), 0);
}

#[test]
fn only_an_end_ends_an_execution() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let execution = bench.fire("a", &["n1"])[0];
    for outcome in [Outcome::Claimed, Outcome::Running, Outcome::Skipped, Outcome::Missed] {
        let end = Command::Finished { execution, result: result(outcome) };
        assert_eq!(bench.run(end), Applied::Rejected(Reject::NotAnEnd));
    }
    assert_eq!(bench.state.open_count(), 1);
}

#[test]
fn no_more_output_is_kept_than_the_bound_and_its_end_rather_than_its_beginning() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let execution = bench.fire("a", &["n1"])[0];
    let output = "\u{e4}".repeat(OUTPUT_LEN_MAX / 2) + "end";
    let result = RunResult { output, ..result(Outcome::Succeeded) };
    bench.run(Command::Finished { execution, result });
    let row = bench.row(execution);
    assert!(row.output_truncated && row.output.ends_with("end"));
    assert_eq!(row.output.len(), OUTPUT_LEN_MAX - 1);
}

#[test]
fn a_job_shows_in_dkrons_shape() {
    let mut bench = Bench::default();
    bench.put(JobSpec { disabled: true, ..spec("a") });
    assert_eq!(
        serde_json::to_value(JobView::from(bench.job("a"))).unwrap(),
        json!({
            "id": "a", "name": "a", "displayname": "", "timezone": "", "schedule": "@every 10s",
            "owner": "", "owner_email": "", "success_count": 0, "error_count": 0,
            "last_success": null, "last_error": null, "disabled": true, "tags": null,
            "metadata": null, "retries": 0, "dependent_jobs": null, "parent_job": "",
            "processors": null, "concurrency": "allow", "executor": "shell",
            "executor_config": {"command": "date"}, "status": "",
            "next": "0001-01-01T00:00:00Z", "ephemeral": false, "starts_at": null,
            "expires_at": null,
        })
    );
}

#[test]
fn an_execution_shows_in_dkrons_shape_and_with_our_fields() {
    let mut bench = Bench::default();
    bench.put(spec("a"));
    let rows = bench.at(12).claim("a", Trigger::Schedule, Plan::Run(vec![target("n1")]));
    let id = rows.unwrap().first;
    let view = |bench: &Bench| serde_json::to_value(ExecutionView::from(bench.row(id))).unwrap();
    assert_eq!(view(&bench)["started_at"], "0001-01-01T00:00:00Z");
    assert_eq!(view(&bench)["lateness"], serde_json::Value::Null);
    bench.at(13).run(Command::Started { execution: id, at: Wall::from_micros(12_500_000) });
    bench.at(14).finish(id, Outcome::Failed);
    assert_eq!(
        view(&bench),
        json!({
            "id": "2-0", "job_name": "a", "started_at": "1970-01-01T00:00:12.500Z",
            "finished_at": "1970-01-01T00:00:14Z", "success": false, "output": "out",
            "output_truncated": false, "node_name": "n1", "group": 12_000_000_000_i64,
            "attempt": 1, "due": "1970-01-01T00:00:10Z", "outcome": "failed", "reason": "exit 1",
            "exit_code": 1, "trigger": "schedule", "lateness": 2.5,
        })
    );
}

//! What is dropped, and that no change drops much.

use super::*;
use crate::jobs::history::store::{DROPS_MAX, ROW_OVERHEAD};

fn claims(store: &Store) -> Vec<u64> {
    all(store).iter().map(|row| row.id.claim.0).collect()
}

#[test]
fn a_job_keeps_its_newest_claims() {
    let mut store = empty(Limits { rows_per_job: 3, ..WIDE });
    for claim in 1..=5 {
        apply(&mut store, claim * 2, put(row("a", claim * 2, "")));
        apply(&mut store, claim * 2 + 1, put(row("b", claim * 2 + 1, "")));
    }
    assert_eq!(claims(&store), [6, 8, 10, 7, 9, 11]);
}

#[test]
fn over_the_bytes_of_all_those_that_ended_first_go() {
    let weight = ROW_OVERHEAD + 1_000 + 1 + 5;
    let mut store = empty(Limits { bytes: 3 * weight, ..WIDE });
    let output = "x".repeat(1_000);
    for (at, claim) in (10..).zip([4, 1, 3, 2, 5]) {
        let name = if claim % 2 == 0 { "a" } else { "b" };
        apply(&mut store, at, put(row(name, claim, &output)));
    }
    assert_eq!(claims(&store), [4, 3, 5]);
    assert_eq!(store.bytes(), 3 * weight);
}

#[test]
fn rows_past_their_age_go_when_another_execution_ends() {
    let mut store = empty(Limits { age: Duration::from_secs(10), ..WIDE });
    for claim in [1, 2, 12] {
        apply(&mut store, claim, put(row("a", claim, "")));
    }
    assert_eq!(claims(&store), [2, 12], "10 s old is not past 10 s");
}

#[test]
fn a_limit_that_was_lowered_is_reached_in_steps() {
    let backend = MemoryBackend::new();
    let mut store = open(&backend, WIDE);
    let count = 4 * DROPS_MAX;
    for claim in 1..=count {
        apply(&mut store, claim, put(row("a", claim, "")));
    }
    store.commit().unwrap();
    drop(store);
    let mut store = open(&backend, Limits { rows_per_job: 5, ..WIDE });
    assert_eq!(store.rows(), count, "opening drops nothing");
    let mut rows = count;
    for claim in count + 1.. {
        apply(&mut store, claim, put(row("a", claim, "")));
        let dropped = rows + 1 - store.rows();
        assert!(dropped <= DROPS_MAX + 2, "{dropped} at once");
        rows = store.rows();
        if rows == 5 {
            break;
        }
        assert!(claim < count + 8, "it takes too long");
    }
}

#[test]
fn one_large_row_makes_room_for_itself_among_many_small_ones() {
    let small = 1_000;
    let mut store = empty(WIDE);
    for claim in 1..=small {
        apply(&mut store, claim, put(row("a", claim, "")));
    }
    let bytes = store.bytes();
    store.limits.bytes = bytes;
    apply(&mut store, small + 1, put(row("a", small + 1, &"x".repeat(256_000))));
    assert!(store.bytes() <= bytes);
    assert!(store.rows() > 400, "no more than needed are dropped: {}", store.rows());
}

#[test]
fn a_forgotten_job_takes_no_row_of_another_with_it() {
    let mut store = empty(WIDE);
    for (at, name) in ["a", "a-b", "ab", "b"].into_iter().enumerate() {
        for claim in 0..5 {
            let claim = 1 + at as u64 * 5 + claim;
            apply(&mut store, claim, put(row(name, claim, "text")));
        }
    }
    apply(&mut store, 30, Change::Forget(job("a")));
    apply(&mut store, 31, Change::Forget(job("nobody")));
    let left: Vec<String> = all(&store).iter().map(|row| row.job.to_string()).collect();
    assert_eq!(left, [["a-b"; 5], ["ab"; 5], ["b"; 5]].concat());
    apply(&mut store, 32, put(row("a", 32, "")));
    assert_eq!(store.rows(), 16);
}

#[test]
fn what_is_known_is_skipped() {
    let mut store = empty(WIDE);
    apply(&mut store, 5, put(row("a", 5, "first")));
    apply(&mut store, 5, put(row("a", 5, "again")));
    apply(&mut store, 4, Change::Forget(job("a")));
    let mixed =
        [(LogIndex(5), Change::Forget(job("a"))), (LogIndex(6), put(row("a", 6, "second")))];
    store.apply(LogIndex(7), &mixed).unwrap();
    assert_eq!(store.upto(), Some(LogIndex(7)));
    let outputs: Vec<String> = all(&store).iter().map(|row| row.output.to_string()).collect();
    assert_eq!(outputs, ["first", "second"]);
}

//! Crashes at any point, with any part of what was not synced, and damage.

use proptest::collection::vec;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::model::{Model, changes};
use super::*;

/// Retention is at work in these runs.
const NARROW: Limits = Limits { rows_per_job: 12, bytes: 40_000, age: Duration::from_millis(60) };

/// How many changes are applied between two commits.
const COMMIT_EVERY: usize = 7;

/// What a crash keeps of what was not synced.
fn keep(rng: &mut StdRng, len: usize) -> usize {
    match rng.random_range(0..4_u8) {
        0 => 0,
        1 => rng.random_range(0..=len),
        _ => len,
    }
}

/// Applies the changes after what the store has, with commits, until the disk stops or all are
/// done. Gives the last entry that is known durable, before the first commit that failed.
fn run(store: &mut Store, changes: &[(LogIndex, Change)]) -> Option<LogIndex> {
    let mut durable = store.durable();
    for (at, change) in changes.iter().enumerate() {
        let done = store.apply(change.0, std::slice::from_ref(change));
        if done.is_err() {
            return durable;
        }
        if at % COMMIT_EVERY == COMMIT_EVERY - 1 {
            match store.commit() {
                Ok(upto) => durable = upto,
                Err(_) => return durable,
            }
        }
    }
    durable
}

fn expected(changes: &[(LogIndex, Change)], upto: Option<LogIndex>) -> Vec<Execution> {
    let mut model = Model::default();
    for (index, change) in changes {
        if Some(*index) <= upto {
            model.carry_out(NARROW, change);
        }
    }
    model.rows.values().map(|row| (**row).clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn after_any_crash_no_row_is_lost_and_none_is_doubled(
        changes in changes(100),
        crashes in vec(0_u64..40, 1..4),
        seed in any::<u64>(),
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        // An entry is carried out as one.
        let changes: Vec<(LogIndex, Change)> = changes
            .into_iter()
            .enumerate()
            .map(|(at, (_, change))| (LogIndex(at as u64), change))
            .collect();
        let mut backend = MemoryBackend::new();
        let mut durable = None;
        for syncs in crashes {
            backend.fail_after(backend.syncs() + syncs);
            if let Ok(mut store) = Store::open(backend.clone(), NARROW) {
                prop_assert!(store.upto() >= durable);
                durable = run(&mut store, &changes).max(durable);
                backend = backend.crash(|len| keep(&mut rng, len));
            } else {
                backend = backend.crash(|len| keep(&mut rng, len));
            }
            let store = open(&backend, NARROW);
            prop_assert!(store.upto() >= durable, "{:?} < {durable:?}", store.upto());
            durable = store.upto();
            prop_assert_eq!(all(&store), expected(&changes, durable));
            drop(store);
            backend = backend.crash(|len| keep(&mut rng, len));
        }
        let mut store = open(&backend, NARROW);
        run(&mut store, &changes);
        prop_assert_eq!(all(&store), expected(&changes, changes.last().map(|last| last.0)));
    }
}

#[test]
fn what_was_not_committed_is_gone_after_a_crash_and_comes_again() {
    let backend = MemoryBackend::new();
    let mut store = open(&backend, WIDE);
    apply(&mut store, 1, put(row("a", 1, "kept")));
    assert_eq!(store.durable(), None);
    assert_eq!(store.commit().unwrap(), Some(LogIndex(1)));
    apply(&mut store, 2, put(row("a", 2, "lost")));
    store.apply(LogIndex(9), &[]).unwrap();
    assert_eq!((store.upto(), store.durable()), (Some(LogIndex(9)), Some(LogIndex(1))));
    let whole = digest(&store);
    let mut store = open(&backend.crash(|_| 0), WIDE);
    assert_eq!((store.upto(), store.rows()), (Some(LogIndex(1)), 1));
    apply(&mut store, 2, put(row("a", 2, "lost")));
    assert_eq!(digest(&store), whole);
}

#[test]
fn a_transfer_that_a_crash_interrupts_leaves_the_old_history() {
    let mut source = empty(WIDE);
    for claim in 1..200 {
        apply(&mut source, claim, put(row("a", claim, &"x".repeat(5_000))));
    }
    let sent = blocks(&source);
    let backend = MemoryBackend::new();
    let mut store = open(&backend, WIDE);
    let syncs = backend.syncs();
    replace(&mut store, 199, &sent).unwrap();
    let syncs = backend.syncs() - syncs;
    drop(store);
    let mut outcomes = [0; 2];
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let backend = MemoryBackend::new();
        let mut store = open(&backend, WIDE);
        apply(&mut store, 3, put(row("own", 3, "text")));
        store.commit().unwrap();
        let before = digest(&store);
        backend.fail_after(backend.syncs() + seed % (syncs + 1));
        let done = replace(&mut store, 199, &sent);
        let found = open(&backend.crash(|len| keep(&mut rng, len)), WIDE);
        if found.upto() == Some(LogIndex(199)) {
            assert_eq!(digest(&found), digest(&source));
            outcomes[1] += 1;
        } else {
            assert!(done.is_err(), "it was said to be durable");
            assert_eq!((found.upto(), digest(&found)), (Some(LogIndex(3)), before));
            outcomes[0] += 1;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "both ends were seen: {outcomes:?}");
}

#[test]
fn a_file_that_was_never_finished_is_made_again() {
    for syncs in 0..12 {
        for seed in 0..8 {
            let mut rng = StdRng::seed_from_u64(seed);
            let backend = MemoryBackend::new();
            backend.fail_after(syncs);
            drop(Store::open(backend.clone(), WIDE));
            let store = open(&backend.crash(|len| keep(&mut rng, len)), WIDE);
            assert_eq!((store.upto(), store.rows()), (None, 0));
        }
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let backend = MemoryBackend::new();
    let mut store = open(&backend, WIDE);
    apply(&mut store, 1, put(row("a", 1, "text")));
    store.commit().unwrap();
    let txn = store.db.begin_write().unwrap();
    let format = 7_u32.to_le_bytes();
    let mut meta = txn.open_table(super::super::META).unwrap();
    meta.insert(super::super::tables::META_FORMAT, format.as_slice()).unwrap();
    drop(meta);
    txn.commit().unwrap();
    drop(store);
    let error = Store::open(backend, WIDE).unwrap_err();
    assert_eq!(error.to_string(), "the history has format 7, this version knows only 1");
}

#[test]
fn a_file_of_something_else_is_damaged() {
    let backend = MemoryBackend::new();
    redb::StorageBackend::write(&backend, 0, &[7; 20_000]).unwrap();
    let error = Store::open(backend, WIDE).unwrap_err();
    assert!(matches!(error, HistoryError::Damaged(_)), "{error}");

    let backend = MemoryBackend::new();
    let db = redb::Database::builder().create_with_backend(backend.clone()).unwrap();
    let other: redb::TableDefinition<'_, u64, u64> = redb::TableDefinition::new("other");
    let txn = db.begin_write().unwrap();
    txn.open_table(other).unwrap().insert(1, 1).unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = Store::open(backend, WIDE).unwrap_err();
    assert!(matches!(error, HistoryError::Damaged(_)), "{error}");
}

#[test]
fn rot_in_an_output_is_an_error_and_no_text() {
    let backend = MemoryBackend::new();
    let mut store = open(&backend, WIDE);
    apply(&mut store, 1, put(row("a", 1, &"needle".repeat(2_000))));
    store.commit().unwrap();
    drop(store);
    let mut page = vec![0; backend.file_len()];
    redb::StorageBackend::read(&backend, 0, &mut page).unwrap();
    let at = page.windows(12).rposition(|bytes| bytes == b"needleneedle").unwrap();
    backend.rot(at, 1);
    let store = open(&backend, WIDE);
    let error = store.view().unwrap().digest().unwrap_err();
    assert!(matches!(error, HistoryError::Damaged(_)), "{error}");
}

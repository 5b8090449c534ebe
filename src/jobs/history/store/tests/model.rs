//! The same changes done to a plain list of rows, for comparison.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Execution, Limits, all, empty, id, job, row};
use crate::id::{ExecutionId, JobName, LogIndex};
use crate::jobs::history::change::{Change, Order, Page, Query, Select, Sort};
use crate::jobs::history::store::tables::weight;
use crate::jobs::history::store::{DROPS_MAX, PAGE_ROWS_MAX, ROW_OVERHEAD};
use crate::jobs::job::Outcome;
use crate::time::Wall;

/// What the store has to be equal to.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) rows: BTreeMap<(JobName, ExecutionId), Arc<Execution>>,
    newest: Option<Wall>,
}

impl Model {
    pub(super) fn carry_out(&mut self, limits: Limits, change: &Change) {
        match change {
            Change::Put(row) => {
                self.rows.insert((row.job.clone(), row.id), Arc::clone(row));
                self.newest = self.newest.max(row.finished_at);
                let added = weight(row, row.output.len()).div_ceil(ROW_OVERHEAD);
                for _ in 0..DROPS_MAX + added {
                    let victim = self.of_job(limits, &row.job).or_else(|| self.of_all(limits));
                    let Some(victim) = victim else { break };
                    self.rows.remove(&victim);
                }
            }
            Change::Forget(name) => self.rows.retain(|(job, _), _| job != name),
        }
    }

    fn of_job(&self, limits: Limits, name: &JobName) -> Option<(JobName, ExecutionId)> {
        let mut of_it = self.rows.keys().filter(|(job, _)| job == name);
        let count = of_it.clone().count() as u64;
        if count > limits.rows_per_job { of_it.next().cloned() } else { None }
    }

    fn of_all(&self, limits: Limits) -> Option<(JobName, ExecutionId)> {
        // Within one instant the store goes by the numbers that it gave to jobs. The rows of these
        // tests end at instants of their own.
        let first = self.rows.values().min_by_key(|row| row.finished_at)?;
        let bytes: u64 = self.rows.values().map(|row| weight(row, row.output.len())).sum();
        let aged = first.finished_at? < self.newest? - limits.age;
        (aged || bytes > limits.bytes).then(|| (first.job.clone(), first.id))
    }

    fn page(&self, query: &Query) -> Page {
        let mut rows: BTreeMap<ExecutionId, Arc<Execution>> =
            query.open.iter().map(|row| (row.id, Arc::clone(row))).collect();
        let ended = self.rows.values().filter(|row| row.job == query.job);
        rows.extend(ended.map(|row| (row.id, Arc::clone(row))));
        let total = rows.len() as u64;
        let rows = match query.select {
            Select::One(id) => rows.remove(&id).into_iter().collect(),
            Select::Part { sort, order, skip, limit, output_len_max } => {
                let mut rows: Vec<_> = rows.into_values().collect();
                rows.sort_by_key(|row| (key(row, sort), row.id));
                if order == Order::Descending {
                    rows.reverse();
                }
                let limit = usize::try_from(limit.min(PAGE_ROWS_MAX)).unwrap();
                let rows = rows.into_iter().skip(usize::try_from(skip).unwrap()).take(limit);
                rows.map(|row| shorten(&row, output_len_max)).collect()
            }
        };
        Page { rows, total }
    }
}

fn key(row: &Execution, sort: Sort) -> Option<i64> {
    match sort {
        Sort::Id => None,
        Sort::Due => Some(row.due.as_micros()),
        Sort::StartedAt => row.started_at.map(Wall::as_micros),
        Sort::FinishedAt => row.finished_at.map(Wall::as_micros),
        Sort::Attempt => Some(row.attempt.into()),
    }
}

/// The outputs of these tests are ASCII.
fn shorten(row: &Arc<Execution>, len_max: u64) -> Arc<Execution> {
    let cut = row.output.len().saturating_sub(usize::try_from(len_max).unwrap());
    if cut == 0 {
        return Arc::clone(row);
    }
    let output = Arc::from(&row.output[cut..]);
    Arc::new(Execution { output, output_truncated: true, ..Execution::clone(row) })
}

const NAMES: [&str; 4] = ["a", "a-b", "ab", "b"];

/// Changes of few jobs and few ids, so that rows are replaced and forgotten, two for an entry. Each
/// row that is put ends at an instant of its own.
pub(super) fn changes(len_max: usize) -> impl Strategy<Value = Vec<(LogIndex, Change)>> {
    let put = (0..NAMES.len(), 1_u64..40, 0_usize..1_200, any::<(bool, u32, u8)>());
    let put = put.prop_map(|(name, claim, len, (started, attempt, lag))| {
        let output: String = (0..len).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
        // The job is a part of the id, as it is of a real one.
        let mut row = row(NAMES[name], claim * 4 + name as u64, &output);
        row.started_at = started.then_some(row.claimed_at);
        row.finished_at = Some(Wall::from_micros(-i64::from(lag) * 100_000));
        row.attempt = attempt;
        Change::Put(Arc::new(row))
    });
    let forget = (0..NAMES.len()).prop_map(|name| Change::Forget(job(NAMES[name])));
    vec(prop_oneof![12 => put, 1 => forget], 1..len_max).prop_map(|changes| {
        let changes = changes.into_iter().enumerate();
        changes.map(|(at, change)| (LogIndex(at as u64 / 2), place(change, at))).collect()
    })
}

/// Lets the change be the one at `at`.
fn place(change: Change, at: usize) -> Change {
    match change {
        Change::Put(mut row) => {
            let since = Duration::from_millis(at as u64);
            let end = &mut Arc::make_mut(&mut row).finished_at;
            *end = end.map(|end| end + since);
            Change::Put(row)
        }
        Change::Forget(name) => Change::Forget(name),
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    (1_u64..20, 1_000_u64..60_000, 1_u64..40).prop_map(|(rows_per_job, bytes, age)| Limits {
        rows_per_job,
        bytes,
        age: Duration::from_millis(age),
    })
}

fn query() -> impl Strategy<Value = Query> {
    let sorts = [Sort::Id, Sort::Due, Sort::StartedAt, Sort::FinishedAt, Sort::Attempt];
    let sort = (0..sorts.len()).prop_map(move |at| sorts[at]);
    let order = prop_oneof![Just(Order::Ascending), Just(Order::Descending)];
    let part = (sort, order, 0_u64..30, 0_u64..30, 0_u64..1_500);
    let part = part.prop_map(|(sort, order, skip, limit, output_len_max)| Select::Part {
        sort,
        order,
        skip,
        limit,
        output_len_max,
    });
    let one = (0_u64..160).prop_map(|claim| Select::One(id(claim)));
    let open = vec(0_u64..160, 0..6);
    (0..NAMES.len(), open, prop_oneof![3 => part, 1 => one]).prop_map(|(name, open, select)| {
        let mut open: Vec<u64> = open;
        open.sort_unstable();
        open.dedup();
        let open = open.into_iter().map(|claim| {
            let mut row = row(NAMES[name], claim, "half");
            row.outcome = Outcome::Running;
            row.finished_at = None;
            Arc::new(row)
        });
        Query { job: job(NAMES[name]), open: open.collect(), select }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_store_holds_what_a_plain_list_holds(
        limits in limits(),
        later in limits(),
        changes in changes(120),
        queries in vec(query(), 1..8),
        batch in 1_u64..9,
    ) {
        let mut store = empty(limits);
        let mut model = Model::default();
        let mut limits = limits;
        let batches = changes.chunk_by(|a, b| a.0.0 / batch == b.0.0 / batch);
        for (at, part) in batches.enumerate() {
            if at == 5 {
                limits = later;
                store.limits = later;
            }
            store.apply(part.last().unwrap().0, part).unwrap();
            for (_, change) in part {
                model.carry_out(limits, change);
            }
            let expected: Vec<Execution> = model.rows.values().map(|row| (**row).clone()).collect();
            prop_assert_eq!(all(&store), expected);
        }
        let bytes = model.rows.values().map(|row| weight(row, row.output.len())).sum::<u64>();
        prop_assert_eq!((store.rows(), store.bytes()), (model.rows.len() as u64, bytes));
        for query in &queries {
            prop_assert_eq!(store.page(query).unwrap(), model.page(query));
        }
    }
}

//! Which executions belong to which job: the index over rows that are kept by their id.

use imbl::{OrdMap, OrdSet};

use crate::id::{ExecutionId, JobName};

/// Which executions belong to which job.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ByJob(OrdMap<JobName, OrdSet<ExecutionId>>);

impl ByJob {
    pub(super) fn insert(&mut self, job: &JobName, id: ExecutionId) {
        self.0.entry(job.clone()).or_default().insert(id);
    }

    pub(super) fn remove(&mut self, job: &JobName, id: ExecutionId) {
        if let Some(ids) = self.0.get_mut(job) {
            ids.remove(&id);
            if ids.is_empty() {
                self.0.remove(job);
            }
        }
    }

    /// Ascending.
    pub(super) fn of(&self, job: &JobName) -> impl DoubleEndedIterator<Item = ExecutionId> {
        self.0.get(job).into_iter().flat_map(|ids| ids.iter().copied())
    }

    pub(super) fn len_of(&self, job: &JobName) -> usize {
        self.0.get(job).map_or(0, OrdSet::len)
    }
}

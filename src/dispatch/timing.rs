//! When a job is due, from its definition: the schedule with the job's own bounds laid over it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{JobName, Revision};
use crate::jobs::State;
use crate::jobs::job::{Job, JobSpec};
use crate::schedule::{Schedule, ScheduleError};
use crate::time::Wall;

/// How many parsed schedules are kept.
const CACHE_LEN_MAX: usize = 65_536;

/// Parses a job's schedule in its own time zone, or else in the cluster's.
///
/// # Errors
/// If the schedule or the time zone is not valid.
pub fn parse(spec: &JobSpec, cluster_zone: &str) -> Result<Schedule, ScheduleError> {
    let zone = crate::schedule::parse_zone(cluster_zone).unwrap_or(chrono_tz::UTC);
    Schedule::parse(&spec.schedule, &spec.timezone, zone, &spec.name)
}

/// The first instant after `after` at which a job of this definition is due.
pub fn next_after(schedule: &Schedule, spec: &JobSpec, after: Wall, anchor: Wall) -> Option<Wall> {
    let before_start = spec.starts_at.map(|at| at - Duration::from_micros(1));
    let after = before_start.map_or(after, |start| after.max(start));
    let next = schedule.next_after(after, anchor)?;
    spec.expires_at.is_none_or(|end| next <= end).then_some(next)
}

/// Parsed schedules of the jobs that were due lately.
#[derive(Debug, Default)]
pub struct Schedules {
    zone: String,
    parsed: BTreeMap<JobName, (Revision, Schedule)>,
}

impl Schedules {
    /// The first instant after `after` at which `job` is due.
    pub fn next_after(&mut self, state: &State, job: &Job, after: Wall) -> Option<Wall> {
        if self.zone != state.timezone() || self.parsed.len() > CACHE_LEN_MAX {
            self.zone = state.timezone().to_owned();
            self.parsed.clear();
        }
        let name = &job.spec.name;
        let stale = self.parsed.get(name).is_none_or(|(revision, _)| *revision != job.revision);
        if stale {
            // What is stored was parsed before it was proposed; if it no longer parses, it is due
            // never again rather than at a wrong time.
            let schedule = parse(&job.spec, &self.zone).ok()?;
            self.parsed.insert(name.clone(), (job.revision, schedule));
        }
        let (_, schedule) = self.parsed.get(name)?;
        next_after(schedule, &job.spec, after, job.anchor)
    }
}

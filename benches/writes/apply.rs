//! What applying one entry costs, without Raft around it.

use std::sync::Arc;

use cronclave::codec::{decode, encode};
use cronclave::id::{Boot, CommandId, LogIndex, NodeId};
use cronclave::jobs::State;
use cronclave::jobs::command::{Command, Stamped, Timing};
use cronclave::jobs::job::JobSpec;
use cronclave::jobs::json::parse_job;
use cronclave::time::Wall;

use super::load;

/// How many entries are applied: each job is put several times.
const ENTRIES: u64 = 100_000;

/// How many definitions there are: two of each job, so that each entry changes one.
const SPECS: u64 = 2 * load::JOBS;

/// Entries of the log that store the jobs of the load.
pub(crate) struct Entries {
    specs: Vec<Arc<JobSpec>>,
}

impl Entries {
    pub(crate) fn new() -> Self {
        let parse = |number| parse_job(load::job(number).as_bytes(), &|_spec| Ok(()));
        let spec = |number| Arc::new(parse(number).expect("the load's jobs are valid"));
        Self { specs: (0..SPECS).map(spec).collect() }
    }

    /// The entry of the write `number`.
    pub(crate) fn entry(&self, number: u64) -> Stamped {
        let at = usize::try_from(number % SPECS).expect("there are few");
        stamped(number, Arc::clone(&self.specs[at]))
    }
}

fn stamped(number: u64, spec: Arc<JobSpec>) -> Stamped {
    let stamp = Wall::from_micros(1_700_000_000_000_000);
    let timing = Timing { anchor: stamp, next: Some(Wall::from_micros(4_000_000_000_000_000)) };
    let id = CommandId { node: NodeId(1), boot: Boot(1), seq: number + 1 };
    Stamped { stamp, id: Some(id), command: Command::PutJob { spec, timing } }
}

/// Microseconds of CPU to decode and apply one entry.
pub(crate) fn micros_per_entry() -> f64 {
    let entries = Entries::new();
    let payloads: Vec<_> = (0..ENTRIES).map(|number| encode(&entries.entry(number))).collect();
    let mut state = State::default();
    let before = load::thread_cpu_micros();
    for (index, payload) in (1..).zip(&payloads) {
        let entry = decode::<Stamped>("log entry", payload).expect("it was just encoded");
        state.apply(LogIndex(index), &entry);
    }
    (load::thread_cpu_micros() - before) / ENTRIES as f64
}

//! What applying one entry costs, without Raft around it.

use std::sync::Arc;

use cronclave::codec::{decode, encode};
use cronclave::id::{Boot, CommandId, LogIndex, NodeId};
use cronclave::jobs::State;
use cronclave::jobs::command::{Command, Stamped, Timing};
use cronclave::jobs::json::parse_job;
use cronclave::time::Wall;

use super::load;

/// How many entries are applied: each job is put several times.
const ENTRIES: u64 = 100_000;

/// An entry of the log that stores the job of the write `number`.
pub(crate) fn entry(number: u64) -> Stamped {
    let job = load::job(number);
    let spec = parse_job(job.as_bytes(), &|_spec| Ok(())).expect("the load's jobs are valid");
    let stamp = Wall::from_micros(1_700_000_000_000_000);
    let timing = Timing { anchor: stamp, next: Some(Wall::from_micros(4_000_000_000_000_000)) };
    let id = CommandId { node: NodeId(1), boot: Boot(1), seq: number + 1 };
    Stamped { stamp, id: Some(id), command: Command::PutJob { spec: Arc::new(spec), timing } }
}

/// Microseconds of CPU to decode and apply one entry.
pub(crate) fn micros_per_entry() -> f64 {
    let payloads: Vec<_> = (0..ENTRIES).map(|number| encode(&entry(number))).collect();
    let mut state = State::default();
    let before = load::thread_cpu_micros();
    for (index, payload) in (1..).zip(&payloads) {
        let entry = decode::<Stamped>("log entry", payload).expect("it was just encoded");
        state.apply(LogIndex(index), &entry);
    }
    (load::thread_cpu_micros() - before) / ENTRIES as f64
}

//! Simulated processes. They run beside their node and outlive it.

use std::time::Duration;

use cronclave::dispatch::launch::LaunchSpec;
use cronclave::id::ExecutionId;
use cronclave::jobs::job::{Outcome, RunResult};
use cronclave::node::io::Input;

use super::{Event, Sim};
use crate::check::seen::{Seen, Start};
use crate::story::What;

/// A process that runs.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// The life of the machine in which its node started it.
    life: u64,
    /// Tells it from another one of the same execution.
    serial: u64,
    /// Why it was told to end, if it was.
    killed: Option<String>,
}

impl Sim {
    /// A node starts a process. What it does then is out of the node's hands.
    pub(super) fn launch(&mut self, host: usize, spec: &LaunchSpec) {
        let (at, wall) = (self.since_begin(), self.wall());
        let node = self.machines[host].config.id();
        let start = Start {
            execution: spec.execution,
            job: spec.job.clone(),
            due: spec.due,
            host,
            node,
            at,
            wall,
        };
        self.starts += 1;
        self.see(&Seen::Started(&start));
        self.tell(host, || What::Process(format!("{} of {} starts", spec.execution, spec.job)));
        self.serial += 1;
        let process = Process { life: self.machines[host].life, serial: self.serial, killed: None };
        let (execution, serial) = (spec.execution, self.serial);
        self.machines[host].processes.insert(execution, process);
        let runs = self.draws.run.span(self.options.run);
        self.after(runs, Event::ProcessEnds { host, execution, serial });
    }

    /// A node tells a process to end, which takes a moment.
    pub(super) fn kill_process(&mut self, host: usize, execution: ExecutionId, reason: String) {
        if let Some(process) = self.machines[host].processes.get_mut(&execution) {
            process.killed = Some(reason);
            let serial = process.serial;
            let event = Event::ProcessEnds { host, execution, serial };
            self.after(Duration::from_millis(1), event);
        }
    }

    pub(super) fn on_process_ends(&mut self, host: usize, execution: ExecutionId, serial: u64) {
        let machine = &mut self.machines[host];
        let is_it = |process: &&Process| process.serial == serial;
        if machine.processes.get(&execution).filter(is_it).is_none() {
            return;
        }
        let Some(process) = machine.processes.remove(&execution) else { return };
        let fails = self.draws.run.chance(self.options.fails * 10_000);
        let result = match process.killed {
            Some(reason) => result(Outcome::Failed, reason, None),
            None if fails => result(Outcome::Failed, "exit status: 3".to_owned(), Some(3)),
            None => result(Outcome::Succeeded, String::new(), Some(0)),
        };
        let machine = &self.machines[host];
        let is_heard = machine.host.is_some() && machine.life == process.life;
        self.see(&Seen::Ended { execution, host, result: &result, is_heard });
        self.tell(host, || What::Process(format!("{execution} ends, {}", result.outcome.as_str())));
        if is_heard {
            self.give(host, Input::RunFinished { execution, result });
        }
    }
}

fn result(outcome: Outcome, reason: String, exit_code: Option<i32>) -> RunResult {
    let output = "a line of output\n".to_owned();
    RunResult { outcome, reason, exit_code, output, output_truncated: false }
}

//! Simulated processes. They run beside their node and outlive it; the ledger knows of each start.

use std::rc::Rc;
use std::time::Duration;

use cronclave::dispatch::launch::LaunchSpec;
use cronclave::jobs::job::{Outcome, RunResult};
use cronclave::node::io::Input;
use madsim::task::spawn_local;
use madsim::time::timeout;
use rand::RngExt;

use crate::ledger::Start;
use crate::mailbox::Mailbox;
use crate::shared::Shared;

/// How long a process runs, in microseconds.
const RUN_MICROS: std::ops::Range<u64> = 5_000..400_000;

/// One process in this many ends badly.
const FAILS_ONE_IN: u32 = 10;

/// A process that a node has just started.
pub(crate) struct Launched {
    pub(crate) host: usize,
    pub(crate) boot: u64,
    pub(crate) spec: LaunchSpec,
    /// Takes the reason for which the process is to be ended.
    pub(crate) kill: Rc<Mailbox<String>>,
}

/// Enters a start in the ledger, at the instant at which it happens.
pub(crate) fn record(shared: &Shared, host: usize, spec: &LaunchSpec) {
    shared.ledger.borrow_mut().starts.push(Start {
        execution: spec.execution,
        job: spec.job.clone(),
        due: spec.due,
        host,
        at: shared.mono(),
        wall: shared.wall(),
    });
}

/// Runs all processes of a simulation.
pub(crate) async fn run_processes(shared: Rc<Shared>) {
    loop {
        let launched = shared.launched.pop().await;
        spawn_local(run_process(Rc::clone(&shared), launched));
    }
}

async fn run_process(shared: Rc<Shared>, launched: Launched) {
    let Launched { host, boot, spec, kill } = launched;
    let fails = shared.rng.borrow_mut().random_ratio(1, FAILS_ONE_IN);
    let duration: Duration = shared.draw_micros(RUN_MICROS);
    let result = match timeout(duration, kill.pop()).await {
        Ok(reason) => result(Outcome::Failed, reason, None),
        Err(_) if fails => result(Outcome::Failed, "exit status: 3".into(), Some(3)),
        Err(_) => result(Outcome::Succeeded, String::new(), Some(0)),
    };
    let node = shared.host(host).filter(|node| node.boot() == boot);
    if let Some(node) = node {
        node.inbox.push(Input::RunFinished { execution: spec.execution, result });
    }
}

fn result(outcome: Outcome, reason: String, exit_code: Option<i32>) -> RunResult {
    let output = "a line of output\n".to_owned();
    RunResult { outcome, reason, exit_code, output, output_truncated: false }
}

//! Bytes as a source of choices: [`Choices`], and the values that are chosen by them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{Boot, ClusterId, CommandId, ExecutionId, JobName, LogIndex, NodeId, NodeName};
use crate::id::{Revision, Term};
use crate::jobs::command::{Claim, Command, Plan, Role, Stamped, Timing};
use crate::jobs::history::change::{Order, Select, Sort};
use crate::jobs::job::{Concurrency, JobSpec, Outcome, RunResult, Target, Trigger};
use crate::node::request::{Consistency, Request, Write};
use crate::time::Wall;

/// Schedules that are due often, seldom, once, never, and one that is none.
const SCHEDULES: [&str; 8] = [
    "@every 1s",
    "* * * * * *",
    "@every 1h",
    "0 0 0 1 1 *",
    "@at 2026-01-01T00:00:30Z",
    "@manually",
    "0 30 2 * * *",
    "nonsense",
];

const ZONES: [&str; 4] = ["", "Europe/Berlin", "America/New_York", "No/Where"];

/// Names of jobs and of nodes: few, so that they meet again.
const NAMES: [&str; 4] = ["a", "b", "n2", "n9"];

/// Bytes that decide; zeros when they are used up.
pub(super) struct Choices<'a>(pub(super) &'a [u8]);

impl<'a> Choices<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A place in something that has `len` places; 0 if it has none.
    pub(super) fn place(&mut self, len: usize) -> usize {
        usize::from(self.byte()).checked_rem(len).unwrap_or(0)
    }

    pub(super) fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.place(values.len())]
    }

    pub(super) fn coin(&mut self) -> bool {
        self.byte().is_multiple_of(2)
    }

    /// Up to 255 bytes as they are.
    pub(super) fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    /// Mostly a number near `near`, and now and then any number or a limit.
    pub(super) fn number(&mut self, near: u64) -> u64 {
        match self.byte() {
            byte @ 0..=215 => near.saturating_add(u64::from(byte % 8)).saturating_sub(3),
            216..=235 => u64::from(self.byte()),
            236..=249 => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
            250 => u64::MAX,
            251 => 1 << 62,
            252 => (1 << 62) - 1,
            253 => i64::MAX.unsigned_abs(),
            254.. => 0,
        }
    }

    /// Mostly an instant within two minutes of `near`, and now and then any instant.
    pub(super) fn wall(&mut self, near: Wall) -> Wall {
        match self.byte() {
            byte @ 0..=199 => near + Duration::from_secs(u64::from(byte)) - Duration::from_secs(99),
            200..=229 => near,
            230..=249 => Wall::from_micros(self.number(0).cast_signed()),
            250..=252 => Wall::from_micros(i64::MIN),
            253.. => Wall::from_micros(i64::MAX),
        }
    }

    pub(super) fn maybe_wall(&mut self, near: Wall) -> Option<Wall> {
        self.coin().then(|| self.wall(near))
    }

    /// A duration between nothing and more than a life.
    pub(super) fn duration(&mut self) -> Duration {
        match self.byte() {
            byte @ 0..=99 => Duration::from_millis(u64::from(byte) * 10),
            byte @ 100..=199 => Duration::from_secs(u64::from(byte - 99)),
            200..=249 => Duration::from_secs(3_600),
            250..=254 => Duration::from_secs(86_400 * 366),
            255 => Duration::MAX,
        }
    }

    pub(super) fn job_name(&mut self) -> JobName {
        JobName::new(self.one_of(&NAMES)).expect("a lowercase name is a job's name")
    }

    pub(super) fn node_name(&mut self) -> NodeName {
        NodeName::new(self.one_of(&NAMES)).expect("a lowercase name is a node's name")
    }

    pub(super) fn node_id(&mut self, known: &[NodeId]) -> NodeId {
        match self.byte() {
            0..=239 => self.one_of(known),
            240.. => NodeId(self.number(0)),
        }
    }

    pub(super) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    pub(super) fn execution(&mut self, near: u64) -> ExecutionId {
        let claim = LogIndex(self.number(near));
        ExecutionId { claim, slot: u32::from(self.byte() % 3) }
    }

    pub(super) fn result(&mut self) -> RunResult {
        let outcomes = [
            Outcome::Succeeded,
            Outcome::Failed,
            Outcome::Lost,
            Outcome::Claimed,
            Outcome::Running,
            Outcome::Skipped,
            Outcome::Missed,
        ];
        RunResult {
            outcome: self.one_of(&outcomes),
            reason: self.text(),
            exit_code: self.coin().then(|| i32::from(self.byte()) - 128),
            output: self.text(),
            output_truncated: self.coin(),
        }
    }

    pub(super) fn spec(&mut self, near: Wall) -> Arc<JobSpec> {
        let tags: BTreeMap<String, String> = match self.byte() % 4 {
            0 | 1 => BTreeMap::new(),
            2 => BTreeMap::from([("role".to_owned(), "cronclave:1".to_owned())]),
            3.. => BTreeMap::from([(self.text(), self.text())]),
        };
        let command = ("command".to_owned(), "true".to_owned());
        Arc::new(JobSpec {
            name: self.job_name(),
            displayname: String::new(),
            schedule: self.one_of(&SCHEDULES).to_owned(),
            timezone: self.one_of(&ZONES).to_owned(),
            owner: String::new(),
            owner_email: String::new(),
            disabled: self.byte().is_multiple_of(8),
            tags,
            metadata: BTreeMap::new(),
            retries: u32::from(self.byte() % 4),
            concurrency: self.one_of(&[Concurrency::Allow, Concurrency::Forbid]),
            executor: self.one_of(&["shell", "shell", "shell", "other"]).to_owned(),
            executor_config: BTreeMap::from([command]),
            ephemeral: self.byte().is_multiple_of(8),
            starts_at: if self.byte().is_multiple_of(8) { Some(self.wall(near)) } else { None },
            expires_at: if self.byte().is_multiple_of(8) { Some(self.wall(near)) } else { None },
        })
    }

    pub(super) fn write(&mut self, near: Wall) -> Write {
        match self.byte() % 8 {
            0..=2 => Write::PutJob(self.spec(near)),
            3 => Write::DeleteJob(self.job_name()),
            4 => Write::ToggleJob(self.job_name()),
            5 | 6 => Write::RunJob(self.job_name()),
            7.. => Write::SetTimezone(self.one_of(&ZONES).to_owned()),
        }
    }

    pub(super) fn request(&mut self, near: Wall) -> Request {
        match self.byte() % 20 {
            0..=8 => Request::Write(self.write(near)),
            9 | 10 => Request::Read(Consistency::Linearizable),
            11 | 12 => Request::Read(Consistency::Stale),
            13 => Request::Members,
            14 => Request::Status,
            15 => Request::Leave,
            16.. => self.executions(),
        }
    }

    fn executions(&mut self) -> Request {
        let select = match self.coin() {
            true => Select::One(self.execution(1)),
            false => Select::Part {
                sort: self.one_of(&[Sort::Id, Sort::Due, Sort::Attempt]),
                order: self.one_of(&[Order::Ascending, Order::Descending]),
                skip: self.number(0),
                limit: self.number(1_000),
                output_len_max: self.number(0),
            },
        };
        let consistency = self.one_of(&[Consistency::Linearizable, Consistency::Stale]);
        Request::Executions { job: self.job_name(), select, consistency }
    }

    pub(super) fn command_id(&mut self, known: &[NodeId]) -> CommandId {
        let node = self.node_id(known);
        CommandId { node, boot: Boot(self.number(1)), seq: self.number(2) }
    }

    /// A command that a correct leader could have written, but for its numbers.
    pub(super) fn stamped(&mut self, near: Wall, index: u64, known: &[NodeId]) -> Stamped {
        let stamp = self.wall(near);
        let id = self.coin().then(|| self.command_id(known));
        Stamped { stamp, id, command: self.command(near, index, known) }
    }

    fn command(&mut self, near: Wall, index: u64, known: &[NodeId]) -> Command {
        match self.byte() % 12 {
            0 => Command::Found { cluster: ClusterId(self.number(7)) },
            1 => Command::Admit {
                name: self.node_name(),
                id: self.node_id(known),
                boot: Boot(self.number(1)),
                role: self.one_of(&[Role::Server, Role::Agent]),
            },
            2 => Command::Settings { timezone: self.one_of(&ZONES).to_owned() },
            3..=5 => {
                let timing = Timing { anchor: self.wall(near), next: self.maybe_wall(near) };
                Command::PutJob { spec: self.spec(near), timing }
            }
            6 => Command::DeleteJob { name: self.job_name() },
            7 => Command::ToggleJob {
                name: self.job_name(),
                revision: Revision(self.number(index)),
                next: self.maybe_wall(near),
            },
            8 | 9 => {
                let count = 1 + self.byte() % 3;
                Command::Claim((0..count).map(|_| self.claim(near, index, known)).collect())
            }
            10 => Command::Started { execution: self.execution(index), at: self.wall(near) },
            11.. => Command::Finished { execution: self.execution(index), result: self.result() },
        }
    }

    fn claim(&mut self, near: Wall, index: u64, known: &[NodeId]) -> Claim {
        let trigger = self.one_of(&[Trigger::Schedule, Trigger::Manual, Trigger::Retry]);
        let plan = match self.byte() % 4 {
            0 | 1 => {
                let count = self.byte() % 4;
                let target = |_| Target { id: self.node_id(known), name: self.node_name() };
                Plan::Run((0..count).map(target).collect())
            }
            2 => Plan::Skip(self.text()),
            3.. => Plan::Miss(self.text()),
        };
        Claim {
            job: self.job_name(),
            revision: Revision(self.number(index)),
            trigger,
            due: self.wall(near),
            next: self.maybe_wall(near),
            plan,
        }
    }

    pub(super) fn term(&mut self, near: u64) -> Term {
        Term(self.number(near))
    }
}

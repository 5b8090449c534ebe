//! One host: the world of its node, and the tasks that move its bytes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use cronclave::codec::record::Record;
use cronclave::codec::snapshot::History;
use cronclave::consensus::{SnapshotDone, SnapshotTask, TaskId};
use cronclave::driver::{Turn, World, turn};
use cronclave::id::{Boot, ExecutionId, LogIndex, RequestId, WriteId};
use cronclave::node::Node;
use cronclave::node::io::{Input, Output};
use cronclave::node::request::Request;
use cronclave::time::{Mono, Now};
use madsim::net::Endpoint;
use madsim::task::{spawn_local, yield_now};
use madsim::time::{sleep, timeout};
use rand::RngExt;

use crate::archive::{self, Archive, Task};
use crate::exec::{Launched, record};
use crate::mailbox::Mailbox;
use crate::model::links::{GOSSIP_PORT, Links, PEER_PORT, Packet, addr_of, host_of};
use crate::shared::{Happened, Open, Outcome, Room, Shared};

/// How long a sync takes, in microseconds. madsim sleeps no shorter than a millisecond.
const SYNC_MICROS: std::ops::Range<u64> = 1_000..5_000;

/// How long a look-up takes, in microseconds.
const RESOLVE_MICROS: std::ops::Range<u64> = 1_000..5_000;

/// A log that is idle for so long is sealed, as the shell does it.
const SEAL_AFTER: Duration = Duration::from_millis(100);

/// How often a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_millis(200);

/// How often sessions are looked after.
const TICK: Duration = Duration::from_millis(100);

/// Without a deadline a node waits for an input; an hour stands for ever.
const FOREVER: Duration = Duration::from_secs(3_600);

/// How many packets a host takes in at once. madsim delays each by a millisecond while it is taken
/// in, so that one receiver alone would take a thousand a second.
const RECEIVERS: usize = 32;

/// The tag of all packets; madsim's endpoints sort by it.
const TAG: u64 = 0;

struct Write {
    write: WriteId,
    records: Vec<Record>,
}

/// One boot of one node, seen from its machine.
pub(crate) struct Host {
    index: usize,
    boot: u64,
    shared: Rc<Shared>,
    pub(crate) inbox: Mailbox<Input>,
    links: RefCell<Links>,
    writes: Mailbox<Write>,
    pub(crate) archive: Archive,
    tasks: Mailbox<(TaskId, SnapshotTask)>,
    open: Open,
    request_last: Cell<u64>,
    kills: RefCell<BTreeMap<ExecutionId, Rc<Mailbox<String>>>>,
    over: Cell<bool>,
}

impl Host {
    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    /// Hands a request to the node; the answer comes into the mailbox.
    pub(crate) fn ask(&self, request: Request) -> Rc<Mailbox<Outcome>> {
        self.request_last.set(self.request_last.get() + 1);
        let id = RequestId(self.request_last.get());
        let answer = Rc::new(Mailbox::default());
        self.open.borrow_mut().insert(id, Rc::clone(&answer));
        self.inbox.push(Input::Request { id, request });
        answer
    }

    /// The node is dead: who waits for an answer learns that none will come.
    pub(crate) fn abandon(&self) {
        for answer in std::mem::take(&mut *self.open.borrow_mut()).into_values() {
            answer.push(Outcome::Lost);
        }
    }

    fn trace(&self, what: &impl std::fmt::Debug) {
        if let Some(trace) = &mut *self.shared.trace.borrow_mut() {
            trace.add(self.index, self.shared.now(self.index), what);
        }
    }

    fn deliver(&self, inputs: Vec<Input>) {
        for input in inputs {
            self.inbox.push(input);
        }
    }

    async fn wait(&self, deadline: Option<Mono>) {
        let now = self.shared.mono();
        let patience = deadline.map_or(FOREVER, |at| at.saturating_since(now));
        let mut sleep = pin!(sleep(patience));
        poll_fn(|cx| match self.inbox.poll_ready(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => sleep.as_mut().poll(cx),
        })
        .await;
    }

    fn send_all(&self, endpoint: &Arc<Endpoint>) {
        let packets = self.links.borrow_mut().flush(self.shared.mono());
        for (to, packet) in packets {
            send(endpoint, to, packet);
        }
    }

    /// Makes one write after the other durable, and seals the log when there is nothing to do.
    async fn write_disk(self: Rc<Self>) {
        let mut sealed = true;
        loop {
            let next = match sealed {
                true => Some(self.writes.pop().await),
                false => timeout(SEAL_AFTER, self.writes.pop()).await.ok(),
            };
            sealed = next.is_none();
            let Some(Write { write, records }) = next else {
                self.machine().disk.borrow_mut().seal();
                self.run_disk().await;
                continue;
            };
            self.wait_for_room().await;
            let queued = self.machine().disk.borrow_mut().write(&records, None);
            if let Err(error) = queued {
                self.inbox.push(Input::DiskFailed { reason: error.to_string() });
                return;
            }
            self.run_disk().await;
            self.inbox.push(Input::Persisted { write });
        }
    }

    /// Does one task with snapshot files after the other; snapshots are built beside them.
    async fn keep_snapshots(self: Rc<Self>) {
        loop {
            let (id, task) = self.tasks.pop().await;
            match &task {
                SnapshotTask::Build(source) => {
                    let index = source.index;
                    spawn_local(Rc::clone(&self).build_snapshot(id, task, index));
                    continue;
                }
                SnapshotTask::Install { .. } => {
                    self.room().await;
                    sleep(self.shared.draw_micros(SYNC_MICROS)).await;
                    let installed = self.perform_task(task, &History::default());
                    // The node may die in between: its next life does the rest then.
                    let history = self.machine().snapshots.borrow().history();
                    self.archive.replace(history).await;
                    self.report_task(id, installed);
                    continue;
                }
                // What is not synced costs no time that a simulation could show.
                SnapshotTask::Read { .. }
                | SnapshotTask::Close { .. }
                | SnapshotTask::Receive { .. }
                | SnapshotTask::Verify { .. }
                | SnapshotTask::Discard { .. } => {}
            }
            let done = self.perform_task(task, &History::default());
            self.report_task(id, done);
        }
    }

    async fn build_snapshot(self: Rc<Self>, id: TaskId, task: SnapshotTask, index: LogIndex) {
        self.room().await;
        let history = self.archive.export(index).await;
        sleep(self.shared.draw_micros(SYNC_MICROS)).await;
        let built = self.perform_task(task, &history);
        self.report_task(id, built);
    }

    fn perform_task(&self, task: SnapshotTask, history: &History) -> Option<SnapshotDone> {
        let begins = matches!(task, SnapshotTask::Receive { offset: 0, .. });
        let has_room = self.machine().room.get() == Room::Free;
        let snapshots = &mut *self.machine().snapshots.borrow_mut();
        let done = if let (SnapshotTask::Receive { file, .. }, false) = (&task, has_room) {
            snapshots.discard(*file);
            let reason = "no space is left on a simulated disk".to_owned();
            Some(SnapshotDone::Received(Err(reason)))
        } else {
            task.perform(snapshots, history)
        }?;
        let mut counts = self.shared.snapshots.get();
        match &done {
            SnapshotDone::Built(_) => counts.built += 1,
            SnapshotDone::Received(Ok(())) => {
                counts.received += 1;
                counts.begun += u64::from(begins);
            }
            SnapshotDone::Installed => counts.installed += 1,
            SnapshotDone::Read(_) | SnapshotDone::Received(Err(_)) | SnapshotDone::Verified(_) => {}
        }
        self.shared.snapshots.set(counts);
        Some(done)
    }

    /// Some tasks are not answered.
    fn report_task(&self, id: TaskId, done: Option<SnapshotDone>) {
        if let Some(done) = done {
            self.inbox.push(Input::SnapshotDone { id, done });
        }
    }

    /// Waits while there is no space.
    async fn room(&self) {
        while self.machine().room.get() == Room::None {
            sleep(FULL_RETRY).await;
        }
    }

    /// Holds a write back while there is no space for it, as the shell does.
    async fn wait_for_room(&self) {
        if self.machine().room.get() == Room::Free {
            return;
        }
        let reason = "no space is left on a simulated disk".to_owned();
        self.inbox.push(Input::DiskFull { reason });
        self.room().await;
        self.inbox.push(Input::DiskFree);
    }

    async fn run_disk(&self) {
        loop {
            self.machine().disk.borrow_mut().run_to_sync();
            if self.machine().disk.borrow().pending() == 0 {
                return;
            }
            sleep(self.shared.draw_micros(SYNC_MICROS)).await;
            self.machine().disk.borrow_mut().step();
        }
    }

    async fn receive(self: Rc<Self>, endpoint: Arc<Endpoint>) {
        loop {
            let Ok((payload, from)) = endpoint.recv_from_raw(TAG).await else { return };
            let (Ok(packet), Some(from)) = (payload.downcast::<Packet>(), host_of(from)) else {
                continue;
            };
            let now = self.shared.mono();
            let inputs = self.links.borrow_mut().on_packet(now, from, *packet);
            self.deliver(inputs);
            self.send_all(&endpoint);
        }
    }

    async fn keep_links(self: Rc<Self>, endpoint: Arc<Endpoint>) {
        loop {
            sleep(TICK).await;
            let inputs = self.links.borrow_mut().on_tick(self.shared.mono());
            self.deliver(inputs);
            self.send_all(&endpoint);
        }
    }

    fn machine(&self) -> &crate::shared::Machine {
        self.shared.machine(self.index)
    }
}

/// madsim delays each packet, or loses it; the sender does not wait for that.
fn send(endpoint: &Arc<Endpoint>, to: usize, packet: Packet) {
    let endpoint = Arc::clone(endpoint);
    spawn_local(async move {
        let to = addr_of(to, PEER_PORT);
        // A packet that cannot be sent is a lost one.
        let _ = endpoint.send_to_raw(to, TAG, Box::new(packet)).await;
    });
}

struct SimWorld {
    host: Rc<Host>,
    endpoint: Arc<Endpoint>,
}

impl World for SimWorld {
    fn now(&mut self) -> Now {
        self.host.shared.now(self.host.index)
    }

    fn next_input(&mut self) -> Option<Input> {
        let input = self.host.inbox.try_pop()?;
        self.host.trace(&input);
        Some(input)
    }

    fn perform(&mut self, output: Output) {
        let host = &self.host;
        host.trace(&output);
        match output {
            Output::Dial { dial, addr } => {
                let peer = addr.parse().ok().and_then(host_of);
                match peer {
                    Some(peer) => {
                        let (now, conn) = (host.shared.mono(), host.shared.fresh());
                        host.links.borrow_mut().dial(now, dial, peer, conn);
                    }
                    None => {
                        let reason = "no such address".to_owned();
                        host.inbox.push(Input::ConnectFailed { dial, reason });
                    }
                }
            }
            Output::Send { session, lane, payload } => {
                host.links.borrow_mut().send(session, lane, payload);
            }
            Output::Close { session } => host.links.borrow_mut().close(session),
            Output::Datagram { to, payload } => {
                if let Some(to) = host_of(to) {
                    send(&self.endpoint, to, Packet::Datagram { payload });
                }
            }
            Output::Resolve { name } => {
                spawn_local(resolve(Rc::clone(host), name));
            }
            Output::Persist { write, records } => host.writes.push(Write { write, records }),
            Output::Snapshot { id, task } => host.tasks.push((id, task)),
            Output::History { upto, changes } => {
                host.archive.push(Task::Apply { upto, changes });
            }
            Output::ReadHistory { id, query } => host.archive.push(Task::Read { id, query }),
            Output::Launch(spec) => {
                let kill = Rc::new(Mailbox::default());
                record(&host.shared, host.index, &spec);
                host.kills.borrow_mut().insert(spec.execution, Rc::clone(&kill));
                let (boot, index) = (host.boot, host.index);
                host.shared.launched.push(Launched { host: index, boot, spec, kill });
            }
            Output::Kill { execution, reason } => {
                if let Some(kill) = host.kills.borrow_mut().remove(&execution) {
                    kill.push(reason);
                }
            }
            Output::Reply { id, reply } => {
                if let Some(answer) = host.open.borrow_mut().remove(&id) {
                    answer.push(Outcome::Answered(reply));
                }
            }
            Output::Event(event) => {
                let at = host.shared.mono();
                let happened = Happened { at, host: host.index, event };
                host.shared.events.borrow_mut().push(happened);
            }
            Output::Stopped => host.over.set(true),
            // No simulated disk is set back.
            Output::Reincarnate { reason, .. } | Output::Halt { reason } => {
                host.shared.halts.borrow_mut().push((host.index, reason));
                host.over.set(true);
            }
        }
    }
}

/// Names are `host-1:8946` and so on.
async fn resolve(host: Rc<Host>, name: String) {
    sleep(host.shared.draw_micros(RESOLVE_MICROS)).await;
    let number = name.strip_prefix("host-").and_then(|rest| rest.split(':').next());
    let index = number.and_then(|number| number.parse::<usize>().ok()?.checked_sub(1));
    let known = index.filter(|index| *index < host.shared.machines.len());
    let result = match known {
        Some(index) => Ok(vec![addr_of(index, GOSSIP_PORT)]),
        None => Err("no such host".to_owned()),
    };
    host.inbox.push(Input::Resolved { name, result });
}

/// Starts what moves the bytes of a host.
fn start_tasks(host: &Rc<Host>, endpoint: &Arc<Endpoint>) {
    for _ in 0..RECEIVERS {
        spawn_local(Rc::clone(host).receive(Arc::clone(endpoint)));
    }
    spawn_local(Rc::clone(host).keep_links(Arc::clone(endpoint)));
    spawn_local(Rc::clone(host).write_disk());
    if host.machine().config.is_server() {
        spawn_local(archive::keep(Rc::clone(host), Rc::clone(&host.shared), host.index));
    }
    spawn_local(Rc::clone(host).keep_snapshots());
}

/// Boots the machine's node and runs it until it stops or is killed.
pub(crate) async fn run_host(index: usize) {
    let shared = Shared::current();
    let machine = shared.machine(index);
    let boot = machine.boots.get() + 1;
    machine.boots.set(boot);
    let newest = machine.snapshots.borrow().newest();
    machine.disk.borrow_mut().set_snapshot(newest);
    let recovered = machine.disk.borrow_mut().recover();
    let recovered = match recovered {
        Ok(recovered) => recovered,
        Err(damage) => {
            shared.halts.borrow_mut().push((index, damage.to_string()));
            return;
        }
    };
    if machine.config.is_server()
        && let Err(error) = archive::open(machine)
    {
        shared.halts.borrow_mut().push((index, error.to_string()));
        return;
    }
    let mut config = machine.config.clone();
    config.boot = Boot(boot);
    let seed = shared.rng.borrow_mut().random();
    let mut node = match Node::boot(config, seed, &recovered, shared.now(index)) {
        Ok(node) => node,
        Err(error) => {
            shared.halts.borrow_mut().push((index, error.to_string()));
            return;
        }
    };
    drop(recovered);
    let endpoint = Endpoint::bind(addr_of(index, PEER_PORT)).await;
    let endpoint = Arc::new(endpoint.expect("a machine's ports are its own"));
    let host = Rc::new(Host {
        index,
        boot,
        shared: Rc::clone(&shared),
        inbox: Mailbox::default(),
        links: RefCell::default(),
        writes: Mailbox::default(),
        archive: Archive::default(),
        tasks: Mailbox::default(),
        open: RefCell::default(),
        request_last: Cell::default(),
        kills: RefCell::default(),
        over: Cell::default(),
    });
    *machine.host.borrow_mut() = Some(Rc::clone(&host));
    start_tasks(&host, &endpoint);
    let mut world = SimWorld { host: Rc::clone(&host), endpoint: Arc::clone(&endpoint) };
    loop {
        let next = turn(&mut node, &mut world);
        shared.turns.set(shared.turns.get() + 1);
        host.send_all(&endpoint);
        if host.over.get() {
            break;
        }
        match next {
            Turn::Again => yield_now().await,
            Turn::Wait(deadline) => host.wait(deadline.map(|(at, _)| at)).await,
        }
    }
    host.abandon();
    machine.host.borrow_mut().take();
}

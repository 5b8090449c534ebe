//! Tokio's world around a node: channels in, effects out, two clocks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use crate::consensus::Settled;
use crate::driver::World;
use crate::id::{ClusterId, RequestId};
use crate::node::io::{Event, Input, Output};
use crate::node::request::{Reply, Request, RequestError};
use crate::shell::archive::{Archive, ArchiveEvent, ArchiveStopped};
use crate::shell::counters::Counters;
use crate::shell::disk::{Completion, Disk, DiskEvent, SnapshotEvent, Snapshots};
use crate::shell::exec::{ExecEvent, Executor};
use crate::shell::http::Backend;
use crate::shell::net::{DialId, Net, NetEvent};
use crate::time::{Mono, Now, Wall};

/// How many things may wait to enter the node, of each kind. Past it their senders wait.
pub const QUEUE_LEN_MAX: usize = 4_096;

/// A client's request, and where its answer goes.
pub type Call = (Request, oneshot::Sender<Reply>);

/// How a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// In good order.
    Stopped,
    /// Its disk was set back, and it is to begin again as another incarnation.
    Reborn {
        /// What has shown it.
        reason: String,
        /// The only cluster that it may belong to.
        cluster: ClusterId,
        /// Where to look for the others.
        join: Vec<String>,
    },
    /// It could not go on.
    Halted(String),
}

/// Where a node's inputs come from.
#[derive(Debug)]
pub struct Sources {
    /// Writes that are durable, or failed, and whether there is space for more.
    pub disk: mpsc::Receiver<DiskEvent>,
    /// What has become of snapshot files.
    pub snapshots: mpsc::Receiver<SnapshotEvent>,
    /// What the history of executions has done.
    pub archive: mpsc::Receiver<ArchiveEvent>,
    /// What happens on the network.
    pub net: mpsc::Receiver<NetEvent>,
    /// Processes that have started or ended.
    pub exec: mpsc::Receiver<ExecEvent>,
    /// What clients ask.
    pub calls: mpsc::Receiver<Call>,
    /// What the operator wants.
    pub control: mpsc::Receiver<Input>,
}

/// Asks a node, from any task.
#[derive(Clone, Debug)]
pub struct Client {
    calls: mpsc::Sender<Call>,
}

impl Client {
    /// A client that asks through `calls`.
    pub fn new(calls: mpsc::Sender<Call>) -> Self {
        Self { calls }
    }
}

impl Backend for Client {
    async fn request(&self, request: Request) -> Reply {
        let (reply, answer) = oneshot::channel();
        // What a node took that died may have been proposed.
        let unanswered = match &request {
            Request::Write(_) => RequestError::Unknown,
            Request::Read(_)
            | Request::Executions { .. }
            | Request::Members
            | Request::Status
            | Request::Leave => RequestError::Stopping,
        };
        match self.calls.try_send((request, reply)) {
            Ok(()) => answer.await.unwrap_or(Reply::Failed(unanswered)),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Reply::Failed(RequestError::Busy(QUEUE_LEN_MAX))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Reply::Failed(RequestError::Stopping),
        }
    }
}

/// What keeps a server's history and its snapshots.
#[derive(Debug)]
pub struct Keeper {
    /// The history of executions.
    pub archive: Archive,
    /// The snapshot files.
    pub snapshots: Snapshots,
}

impl Keeper {
    fn stop(self) {
        let Self { archive, snapshots } = self;
        snapshots.stop(|| archive.stop());
    }
}

/// The world of one node. See the [module](self).
#[derive(Debug)]
pub struct TokioWorld {
    started: Instant,
    sources: Sources,
    /// What was received while waiting, and enters first.
    ready: VecDeque<Input>,
    net: Net,
    disk: Option<Disk>,
    keeper: Option<Keeper>,
    exec: Executor,
    replies: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    request_last: u64,
    counters: Arc<Counters>,
    end: Option<End>,
}

impl TokioWorld {
    /// A world of these parts, which counts in `counters`. An agent has no keeper.
    pub fn new(
        sources: Sources,
        net: Net,
        disk: Disk,
        keeper: Option<Keeper>,
        exec: Executor,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            started: Instant::now(),
            sources,
            ready: VecDeque::new(),
            net,
            disk: Some(disk),
            keeper,
            exec,
            replies: BTreeMap::new(),
            request_last: 0,
            counters,
            end: None,
        }
    }

    /// What is counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How the node ended, if it has.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Waits until an input is ready or the deadline has passed.
    pub async fn wait(&mut self, deadline: Option<Mono>) {
        let now = self.mono();
        // Without a deadline the node waits for an input alone; an hour stands for ever.
        let patience = deadline.map_or(Duration::from_secs(3_600), |at| at.saturating_since(now));
        let sources = &mut self.sources;
        let input = tokio::select! {
            biased;
            done = sources.disk.recv() => Some(done.map_or_else(disk_ended, from_disk)),
            Some(event) = sources.snapshots.recv() => Some(from_snapshots(event)),
            Some(event) = sources.archive.recv() => Some(from_archive(event)),
            Some(event) = sources.net.recv() => Some(from_net(event)),
            Some(event) = sources.exec.recv() => from_exec(event),
            Some(input) = sources.control.recv() => Some(input),
            Some(call) = sources.calls.recv() => Some(self.take_call(call)),
            () = tokio::time::sleep(patience) => None,
        };
        self.ready.extend(input);
    }

    /// Writes what waits for the disk and for the network, and lets go of both.
    pub async fn close(mut self) {
        self.net.clone().shutdown().await;
        let (disk, keeper) = (self.disk.take(), self.keeper.take());
        // What they report goes nowhere, and so never waits for room in a queue.
        drop(self.sources);
        let stopped = tokio::task::spawn_blocking(|| {
            disk.into_iter().for_each(Disk::stop);
            keeper.into_iter().for_each(Keeper::stop);
        });
        if let Err(error) = stopped.await {
            tracing::error!(%error, "a thread of the disk did not end in order");
        }
    }

    /// The node belongs to this cluster, durably.
    pub fn set_cluster(&mut self, cluster: ClusterId) {
        let log = self.disk.as_ref().map(|disk| disk.set_cluster(cluster));
        let log = log.and_then(Result::err).map(|error| error.to_string());
        let kept = self.keeper.as_ref().map(|keeper| keeper.snapshots.set_cluster(cluster));
        let kept = kept.and_then(Result::err).map(|error| error.to_string());
        let failed = log.into_iter().chain(kept).map(|reason| Input::DiskFailed { reason });
        self.ready.extend(failed);
    }

    fn mono(&self) -> Mono {
        let micros = self.started.elapsed().as_micros();
        // From 1 s on, so that a deadline before the start can be told from none.
        Mono::from_micros(u64::try_from(micros).unwrap_or(u64::MAX).saturating_add(1_000_000))
    }

    /// Tells the archive something. Only servers have one, and only servers have something for it.
    fn ask(&mut self, tell: impl FnOnce(&Archive) -> Result<(), ArchiveStopped>) {
        let told = self.keeper.as_ref().map_or(Err(ArchiveStopped), |keeper| tell(&keeper.archive));
        if let Err(error) = told {
            self.ready.push_back(Input::DiskFailed { reason: error.to_string() });
        }
    }

    fn take_call(&mut self, (request, reply): Call) -> Input {
        self.request_last += 1;
        self.counters.node.requests.add(1);
        let id = RequestId(self.request_last);
        self.replies.insert(id, reply);
        Input::Request { id, request }
    }

    fn receive(&mut self) -> Option<Input> {
        if let Ok(done) = self.sources.disk.try_recv() {
            return Some(from_disk(done));
        }
        if let Ok(event) = self.sources.snapshots.try_recv() {
            return Some(from_snapshots(event));
        }
        if let Ok(event) = self.sources.archive.try_recv() {
            return Some(from_archive(event));
        }
        if let Ok(event) = self.sources.net.try_recv() {
            return Some(from_net(event));
        }
        while let Ok(event) = self.sources.exec.try_recv() {
            if let Some(input) = from_exec(event) {
                return Some(input);
            }
        }
        if let Ok(input) = self.sources.control.try_recv() {
            return Some(input);
        }
        let call = self.sources.calls.try_recv().ok()?;
        Some(self.take_call(call))
    }
}

impl World for TokioWorld {
    fn now(&mut self) -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Wall::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        Now { mono: self.mono(), wall }
    }

    fn next_input(&mut self) -> Option<Input> {
        let input = self.ready.pop_front().or_else(|| self.receive());
        self.counters.node.inputs.add(u64::from(input.is_some()));
        input
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { dial, addr } => self.net.dial(DialId(dial.0), addr),
            Output::Send { session, lane, payload } => self.net.send(session, lane, payload),
            Output::Close { session } => self.net.close(session),
            Output::Datagram { to, payload } => self.net.datagram(to, payload),
            Output::Resolve { name } => self.net.resolve(name),
            Output::Persist { write, records } => {
                self.counters.log.count_group(&records);
                let submitted = self.disk.as_ref().map(|disk| disk.submit(write, records));
                if let Some(Err(error)) = submitted {
                    self.ready.push_back(Input::DiskFailed { reason: error.to_string() });
                }
            }
            Output::Snapshot { id, task } => {
                let submit = |keeper: &Keeper| keeper.snapshots.submit(id, task);
                let submitted = self.keeper.as_ref().map(submit);
                if let Some(Err(error)) = submitted {
                    self.ready.push_back(Input::DiskFailed { reason: error.to_string() });
                }
            }
            Output::History { upto, changes } => self.ask(|archive| archive.apply(upto, changes)),
            Output::ReadHistory { id, query } => self.ask(|archive| archive.read(id, query)),
            Output::Launch(spec) => self.exec.launch(spec),
            Output::Kill { execution, reason } => self.exec.kill(execution, reason),
            Output::Reply { id, reply } => {
                if let Some(caller) = self.replies.remove(&id) {
                    // A caller that has gone needs no answer.
                    let _ = caller.send(reply);
                }
            }
            Output::Event(event) => log(&event),
            Output::Stopped => self.end = Some(End::Stopped),
            Output::Reincarnate { reason, cluster, join } => {
                self.end = Some(End::Reborn { reason, cluster, join });
            }
            Output::Halt { reason } => self.end = Some(End::Halted(reason)),
        }
    }
}

/// The disk's thread ends before the node only if it was torn down by a bug.
fn disk_ended() -> Input {
    Input::DiskFailed { reason: "the disk's thread has ended".into() }
}

fn from_disk(event: DiskEvent) -> Input {
    match event {
        DiskEvent::Written(Completion { write, result: Ok(()) }) => Input::Persisted { write },
        DiskEvent::Written(Completion { result: Err(error), .. }) => {
            Input::DiskFailed { reason: error.to_string() }
        }
        DiskEvent::Full { reason } => Input::DiskFull { reason },
        DiskEvent::Free => Input::DiskFree,
    }
}

fn from_snapshots(event: SnapshotEvent) -> Input {
    match event {
        SnapshotEvent::Done { id, done } => Input::SnapshotDone { id, done },
        SnapshotEvent::Failed { reason } => Input::DiskFailed { reason },
    }
}

fn from_archive(event: ArchiveEvent) -> Input {
    match event {
        ArchiveEvent::Kept { upto } => Input::HistoryKept { upto },
        ArchiveEvent::Read { id, page } => Input::HistoryRead { id, page },
        ArchiveEvent::Failed { reason } => {
            Input::DiskFailed { reason: format!("the history of executions: {reason}") }
        }
    }
}

fn from_net(event: NetEvent) -> Input {
    match event {
        NetEvent::Connected { session, remote, dialed } => {
            let dial = dialed.map(|dial| crate::node::io::DialId(dial.0));
            Input::Connected { session, dial, remote }
        }
        NetEvent::ConnectFailed { dial, reason } => {
            Input::ConnectFailed { dial: crate::node::io::DialId(dial.0), reason }
        }
        NetEvent::Frame { session, bytes } => Input::Frame { session, payload: bytes },
        NetEvent::Disconnected { session, reason } => Input::Disconnected { session, reason },
        NetEvent::Datagram { from, bytes } => Input::Datagram { from, payload: bytes },
        NetEvent::Resolved { name, result } => Input::Resolved { name, result },
    }
}

fn from_exec(event: ExecEvent) -> Option<Input> {
    match event {
        // The journal has recorded the start before the process was launched.
        ExecEvent::Started { .. } => None,
        ExecEvent::Finished { execution, result } => Some(Input::RunFinished { execution, result }),
    }
}

/// What an operator reads: info is leadership and membership, warn what to look at, debug each run.
fn log(event: &Event) {
    match event {
        Event::ClusterJoined(_)
        | Event::Settled { how: Settled::ByLeader, .. }
        | Event::LeadershipWon(_)
        | Event::LeadershipLost(_)
        | Event::LeaderKnown { .. }
        | Event::MemberUp { .. }
        | Event::MemberDown { .. }
        | Event::MemberLeft { .. }
        | Event::VotersChanged { .. }
        | Event::HistoryCaughtUp
        | Event::DiskFree => tracing::info!("{event}"),
        Event::NoLeader(_)
        | Event::InDoubt(_)
        | Event::Settled { how: Settled::WithoutQuorum, .. }
        | Event::Rejected { .. }
        | Event::Refused(_)
        | Event::ClockOff { .. }
        | Event::JobTrouble(_)
        | Event::HistoryBehind { .. }
        | Event::DiskFull(_) => tracing::warn!("{event}"),
        Event::Launching(_) => tracing::debug!("{event}"),
    }
}

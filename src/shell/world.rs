//! Tokio's world around a node: channels in, effects out, two clocks.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use crate::driver::World;
use crate::id::{ClusterId, RequestId};
use crate::node::io::{Event, Input, Output};
use crate::node::request::{Reply, Request, RequestError};
use crate::shell::disk::{Completion, Disk, DiskEvent, SnapshotSource};
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
    /// It could not go on.
    Halted(String),
}

/// Where a node's inputs come from.
#[derive(Debug)]
pub struct Sources {
    /// Writes that are durable, or failed, and whether there is space for more.
    pub disk: mpsc::Receiver<DiskEvent>,
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
        match self.calls.try_send((request, reply)) {
            Ok(()) => answer.await.unwrap_or(Reply::Failed(RequestError::Stopping)),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Reply::Failed(RequestError::Busy(QUEUE_LEN_MAX))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Reply::Failed(RequestError::Stopping),
        }
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
    exec: Executor,
    replies: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    request_last: u64,
    end: Option<End>,
}

impl TokioWorld {
    /// A world of these parts.
    pub fn new(sources: Sources, net: Net, disk: Disk, exec: Executor) -> Self {
        Self {
            started: Instant::now(),
            sources,
            ready: VecDeque::new(),
            net,
            disk: Some(disk),
            exec,
            replies: BTreeMap::new(),
            request_last: 0,
            end: None,
        }
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
            Some(event) = sources.net.recv() => Some(from_net(event)),
            Some(event) = sources.exec.recv() => from_exec(event),
            Some(input) = sources.control.recv() => Some(input),
            Some(call) = sources.calls.recv() => Some(self.take_call(call)),
            () = tokio::time::sleep(patience) => None,
        };
        self.ready.extend(input);
    }

    /// Tells the disk which cluster the node is a member of.
    pub fn set_cluster(&mut self, cluster: ClusterId) {
        let told = self.disk.as_ref().map(|disk| disk.set_cluster(cluster));
        if let Some(Err(error)) = told {
            self.ready.push_back(Input::DiskFailed { reason: error.to_string() });
        }
    }

    /// Writes what waits for the disk and for the network, and lets go of both.
    pub async fn close(mut self) {
        self.net.clone().shutdown().await;
        if let Some(disk) = self.disk.take() {
            let stopped = tokio::task::spawn_blocking(|| disk.stop()).await;
            if let Err(error) = stopped {
                tracing::error!(%error, "the disk's thread did not end in order");
            }
        }
    }

    fn mono(&self) -> Mono {
        let micros = self.started.elapsed().as_micros();
        // From 1 s on, so that a deadline before the start can be told from none.
        Mono::from_micros(u64::try_from(micros).unwrap_or(u64::MAX).saturating_add(1_000_000))
    }

    fn take_call(&mut self, (request, reply): Call) -> Input {
        self.request_last += 1;
        let id = RequestId(self.request_last);
        self.replies.insert(id, reply);
        Input::Request { id, request }
    }

    fn receive(&mut self) -> Option<Input> {
        if let Ok(done) = self.sources.disk.try_recv() {
            return Some(from_disk(done));
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
        self.ready.pop_front().or_else(|| self.receive())
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { dial, addr } => self.net.dial(DialId(dial.0), addr),
            Output::Send { session, lane, payload } => self.net.send(session, lane, payload),
            Output::Close { session } => self.net.close(session),
            Output::Datagram { to, payload } => self.net.datagram(to, payload),
            Output::Resolve { name } => self.net.resolve(name),
            Output::Persist { write, records, snapshot } => {
                let snapshot = snapshot.map(|source| SnapshotSource {
                    meta: source.meta.clone(),
                    index: source.index,
                    encode: Box::new(move || source.encode()),
                });
                let submitted = self.disk.as_ref().map(|d| d.submit(write, records, snapshot));
                if let Some(Err(error)) = submitted {
                    self.ready.push_back(Input::DiskFailed { reason: error.to_string() });
                }
            }
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
        DiskEvent::Written(Completion { write, result: Ok(snapshot) }) => {
            Input::Persisted { write, snapshot }
        }
        DiskEvent::Written(Completion { result: Err(error), .. }) => {
            Input::DiskFailed { reason: error.to_string() }
        }
        DiskEvent::Full { reason } => Input::DiskFull { reason },
        DiskEvent::Free => Input::DiskFree,
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
        | Event::LeadershipWon(_)
        | Event::LeadershipLost(_)
        | Event::LeaderKnown { .. }
        | Event::MemberUp { .. }
        | Event::MemberDown { .. }
        | Event::MemberLeft { .. }
        | Event::VotersChanged { .. }
        | Event::DiskFree => tracing::info!("{event}"),
        Event::NoLeader(_)
        | Event::Rejected { .. }
        | Event::Refused(_)
        | Event::ClockOff { .. }
        | Event::JobTrouble(_)
        | Event::DiskFull(_) => tracing::warn!("{event}"),
        Event::Launching(_) => tracing::debug!("{event}"),
    }
}

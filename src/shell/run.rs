//! A node in production: from its configuration to its end.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use rand::RngExt;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::codec::record::{Recovered, Snapshot};
use crate::dispatch::leader::Patience;
use crate::driver::{Turn, turn};
use crate::jobs::history::change::Limits;
use crate::jobs::history::store::Store;
use crate::membership::Profile;
use crate::membership::autopilot::GRACE_DEFAULT;
use crate::node::config::{NodeConfig, NodeRole};
use crate::node::io::Input;
use crate::node::rescue::Position;
use crate::node::{BootError, Node};
use crate::shell::archive::{self, Archive, ArchiveEvent};
use crate::shell::config::{AgentConfig, GossipProfile, Mode};
use crate::shell::disk::recover_by_peers_file;
use crate::shell::disk::{
    DataDir, DataDirError, Disk, DiskEvent, ExitClass, LogFiles, SnapshotEvent, Snapshots,
};
use crate::shell::exec::Executor;
use crate::shell::exit::ExitError;
use crate::shell::http::{self, HttpConfig};
use crate::shell::net::{self, Net, NetLimits};
use crate::shell::world::{Client, End, Keeper, QUEUE_LEN_MAX, Sources, TokioWorld};
use crate::time::Now;

/// The threads that answer HTTP and watch processes, beside the one that owns the node.
const WORKER_THREADS: usize = 2;

/// Runs a server or an agent until it is told to stop, or cannot go on.
///
/// # Errors
/// If something that it needs is not there: a port, a directory, a disk that works, undamaged data.
pub fn run(config: AgentConfig) -> Result<(), ExitError> {
    let no_threads =
        |error| ExitError::Environment(format!("the system gives no threads: {error}"));
    let workers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .thread_name("cronclave-http")
        .enable_all()
        .build()
        .map_err(no_threads)?;
    // The sessions with the peers are on the node's own thread: handing each frame over to another
    // one would cost more than to read it.
    let node = tokio::runtime::Builder::new_current_thread().enable_all().build();
    node.map_err(no_threads)?.block_on(serve(config, workers.handle()))
}

async fn serve(config: AgentConfig, workers: &Handle) -> Result<(), ExitError> {
    greet(&config);
    let mut signals = Signals::new()?;
    let mut known = Vec::new();
    loop {
        match live(&config, workers, signals, &known).await? {
            Life::Over => return Ok(()),
            Life::Again(next, join) => (signals, known) = (next, join),
        }
    }
}

/// What follows when a node has ended in order.
enum Life {
    /// The process ends.
    Over,
    /// Another incarnation begins, with these signals and these addresses of others.
    Again(Signals, Vec<String>),
}

/// One life of a data directory, from its opening to its end. `known` are addresses where the
/// others were found before, beside those that are configured.
async fn live(
    config: &AgentConfig,
    workers: &Handle,
    signals: Signals,
    known: &[String],
) -> Result<Life, ExitError> {
    let sockets = Sockets::bind(config).await?;
    recover_if_told(config)?;
    let data = DataDir::open(&config.data_dir, &config.node_name).map_err(data_error)?;
    let mut data = data.with_log_limits(config.log_limits);
    let (recovered, files) = data.recover().map_err(data_error)?;
    let counters = files.counters();
    let (disk_done, disk) = mpsc::channel(QUEUE_LEN_MAX);
    let (net_events, net) = mpsc::channel(QUEUE_LEN_MAX);
    let (exec_events, exec) = mpsc::channel(QUEUE_LEN_MAX);
    let (calls_in, calls) = mpsc::channel(QUEUE_LEN_MAX);
    let (control_in, control) = mpsc::channel(16);
    let writer = start_disk(files, disk_done)?;
    let (archive_events, archive) = mpsc::channel(QUEUE_LEN_MAX);
    let (snapshot_events, snapshots) = mpsc::channel(QUEUE_LEN_MAX);
    let limits = config.history;
    let start = || start_keeper(&data, limits, &recovered, archive_events, snapshot_events);
    let keeper = config.server.then(start).transpose()?;
    let links = Net::start(sockets.peers, sockets.gossip, net_events, NetLimits::default());
    let executor = Executor::new(exec_events, workers.clone());
    let sources = Sources { disk, archive, snapshots, net, exec, calls, control };
    let mut world =
        TokioWorld::new(sources, links, writer, keeper, executor, Arc::clone(&counters));
    let node_config = node_config(config, &data, known);
    tracing::info!(
        node = %node_config.name,
        id = %node_config.id(),
        boot = %node_config.boot,
        data_dir = %data.path().display(),
        gossip = %config.advertise,
        peers = %node_config.peer_addr,
        "the node starts"
    );
    let now = crate::driver::World::now(&mut world);
    let mut node = boot(node_config, &recovered, now)?;
    drop(recovered);
    let (stop_http, stopped) = watch::channel(false);
    let server = sockets.http.map(|listener| {
        let http = HttpConfig { counters, ..HttpConfig::new(config.node_name.clone()) };
        workers.spawn(serve_http(listener, http::router(Client::new(calls_in), http), stopped))
    });
    // For a life after this one. From here on they note what comes, so that nothing is missed.
    let next = Signals::new()?;
    let watcher = tokio::spawn(signals.watch(config.clone(), control_in));
    let end = drive(&mut node, &mut world, &mut data).await;
    stop_http.send_replace(true);
    if let Some(server) = server
        && let Ok(Err(error)) = server.await
    {
        tracing::warn!(%error, "the HTTP listener failed");
    }
    world.close().await;
    watcher.abort();
    match end {
        End::Stopped => {
            tracing::info!("the node has stopped");
            Ok(Life::Over)
        }
        End::Reborn { reason, cluster, join } => {
            let aside = data.put_aside(cluster).map_err(data_error)?;
            tracing::warn!(
                reason,
                kept = %aside.display(),
                "the node begins again as a new one, and gets its state from its peers"
            );
            Ok(Life::Again(next, join))
        }
        End::Halted(reason) => Err(ExitError::Environment(format!("the node halts: {reason}"))),
    }
}

/// Answers clients until it is told to stop. On the workers, since `listener` is registered with
/// the runtime that it is used on.
async fn serve_http(
    listener: std::net::TcpListener,
    router: axum::Router,
    mut stopped: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let stop = async move {
        // An error says that the other end is gone, which stops the listener too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    http::serve(listener, router, stop).await
}

fn start_disk(files: LogFiles, events: mpsc::Sender<DiskEvent>) -> Result<Disk, ExitError> {
    let report = Box::new(move |event| {
        // The node is gone: nobody waits for what becomes of the write.
        let _ = events.blocking_send(event);
    });
    Disk::start(files, report).map_err(|error| {
        ExitError::Environment(format!("the system gives no thread for the disk: {error}"))
    })
}

/// Starts what keeps the history and the snapshots of a server.
fn start_keeper(
    data: &DataDir,
    limits: Limits,
    recovered: &Recovered,
    archive_events: mpsc::Sender<ArchiveEvent>,
    snapshot_events: mpsc::Sender<SnapshotEvent>,
) -> Result<Keeper, ExitError> {
    let archive = start_archive(data, limits, recovered, archive_events)?;
    let report = Arc::new(move |event| {
        // The node is gone: nobody waits for what becomes of the task.
        let _ = snapshot_events.blocking_send(event);
    });
    let history = Arc::new(archive.snapshots());
    let snapshots = Snapshots::start(data.snapshots(), history, report).map_err(|error| {
        ExitError::Environment(format!("the system gives no thread for snapshots: {error}"))
    })?;
    Ok(Keeper { archive, snapshots })
}

fn start_archive(
    data: &DataDir,
    limits: Limits,
    recovered: &Recovered,
    events: mpsc::Sender<ArchiveEvent>,
) -> Result<Archive, ExitError> {
    let (mut store, space) =
        archive::open(data.path(), limits).map_err(|error| match error.exit_class() {
            ExitClass::Environment => ExitError::Environment(error.to_string()),
            ExitClass::Damaged => ExitError::Damaged(error.to_string()),
        })?;
    if let Some(snapshot) = &recovered.snapshot
        && store.upto() < Some(snapshot.index())
    {
        take_history_of(data, snapshot, &mut store)?;
    }
    tracing::info!(rows = store.rows(), upto = ?store.upto(), "the history of executions");
    let report = Box::new(move |event| {
        // The node is gone: nobody waits for what becomes of the history.
        let _ = events.blocking_send(event);
    });
    Archive::start(store, space, report).map_err(|error| {
        ExitError::Environment(format!("the system gives no thread for the history: {error}"))
    })
}

/// The history is behind the snapshot: the node died before it had put the history of a snapshot
/// that came in in its place, or the history's file was moved away.
fn take_history_of(
    data: &DataDir,
    snapshot: &Snapshot,
    store: &mut Store,
) -> Result<(), ExitError> {
    let before = store.upto();
    let blocks = data.history_of(snapshot.file).map_err(data_error)?;
    let failed = |reason: String| {
        let (dir, index) = (data.path().display(), snapshot.index());
        ExitError::Damaged(format!(
            "data-dir {dir}: the history cannot be made anew from the snapshot up to {index}: \
             {reason}"
        ))
    };
    let upto = blocks.upto().ok_or_else(|| failed("it holds none".to_owned()))?;
    store.replace(upto, blocks).map_err(|error| failed(error.to_string()))?;
    tracing::warn!(?before, %upto, "the history was behind the snapshot, and is made anew from it");
    Ok(())
}

/// The loop: one task owns the node.
async fn drive(node: &mut Node, world: &mut TokioWorld, data: &mut DataDir) -> End {
    loop {
        let next = turn(node, world);
        world.counters().node.turns.add(1);
        if let Some(end) = world.end() {
            return end.clone();
        }
        if let (None, Some(cluster)) = (data.cluster(), node.cluster()) {
            if let Err(error) = data.set_cluster(cluster) {
                return End::Halted(error.to_string());
            }
            world.set_cluster(cluster);
        }
        match next {
            Turn::Again => tokio::task::yield_now().await,
            Turn::Wait(deadline) => {
                if let Some((at, timer)) = deadline {
                    tracing::trace!(%at, ?timer, "waits");
                }
                world.wait(deadline.map(|(at, _)| at)).await;
            }
        }
    }
}

fn greet(config: &AgentConfig) {
    let tz = crate::schedule::TZ_VERSION;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), time_zones = tz, "cronclave");
    match &config.config_file {
        Some(file) => tracing::info!(file = %file.display(), "configuration read"),
        None => tracing::info!("no configuration file: flags, environment and defaults hold"),
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

/// Carries out Dkron's file for a recovery from a lost quorum, if the operator has left one.
fn recover_if_told(config: &AgentConfig) -> Result<(), ExitError> {
    let told = recover_by_peers_file(&config.data_dir, &config.node_name)?;
    if let Some((survey, cluster, aside)) = told {
        let index = |at: Option<Position>| at.map_or(0, |at| at.index.0);
        tracing::warn!(
            %cluster,
            certain_upto = index(survey.raft.committed),
            kept_upto = index(survey.raft.last),
            old_log = %aside.display(),
            "raft/peers.json: this server goes on alone as a new cluster; \
             what the others alone had is lost"
        );
    }
    Ok(())
}

fn boot(config: NodeConfig, recovered: &Recovered, now: Now) -> Result<Node, ExitError> {
    let seed = rand::rng().random();
    Node::boot(config, seed, recovered, now).map_err(|error| match error {
        BootError::Local(_) | BootError::Consensus(_) => ExitError::Damaged(error.to_string()),
    })
}

fn data_error(error: DataDirError) -> ExitError {
    match error.exit_class() {
        ExitClass::Environment => ExitError::Environment(error.to_string()),
        ExitClass::Damaged => ExitError::Damaged(error.to_string()),
    }
}

fn node_config(config: &AgentConfig, data: &DataDir, known: &[String]) -> NodeConfig {
    let bootstrap_expect = config.bootstrap_expect.map_or(0, std::num::NonZeroU32::get);
    let role = match config.server {
        true => NodeRole::Server { bootstrap_expect },
        false => NodeRole::Agent,
    };
    let join = if config.retry_join.is_empty() { &config.join } else { &config.retry_join };
    let join = join.iter().chain(known).cloned().collect();
    NodeConfig {
        name: config.node_name.clone(),
        incarnation: data.incarnation(),
        boot: data.boot(),
        role,
        gossip_addr: config.advertise,
        peer_addr: SocketAddr::new(config.advertise.ip(), config.advertise_rpc_port),
        tags: config.tags.clone(),
        joins: data.joins(),
        join,
        retry_interval: config.retry_interval,
        reconnect_timeout: config.reconnect_timeout,
        dead_server_grace: GRACE_DEFAULT,
        profile: match config.profile {
            GossipProfile::Lan => Profile::Lan,
            GossipProfile::Wan => Profile::Wan,
            GossipProfile::Local => Profile::Local,
        },
        raft_multiplier: config.raft_multiplier,
        log: config.log_bounds,
        patience: Patience { misfire_grace: config.misfire_grace, ..Patience::default() },
        timezone: config.timezone.name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The node's listeners, bound before anything is touched, so that a taken port harms nothing.
struct Sockets {
    peers: TcpListener,
    gossip: UdpSocket,
    /// To be served on other threads than the rest.
    http: Option<std::net::TcpListener>,
}

impl Sockets {
    async fn bind(config: &AgentConfig) -> Result<Self, ExitError> {
        let taken = |what: &str, addr: SocketAddr, error: std::io::Error| {
            ExitError::Environment(format!("cannot listen for {what} on {addr}: {error}"))
        };
        let peer_addr = SocketAddr::new(config.bind.ip(), config.rpc_port);
        let peers = net::listen(peer_addr).map_err(|e| taken("peers (tcp)", peer_addr, e))?;
        let gossip = UdpSocket::bind(config.bind).await;
        let gossip = gossip.map_err(|e| taken("gossip (udp)", config.bind, e))?;
        let http = match config.server {
            true => {
                let bound = net::listen(config.http_addr).and_then(TcpListener::into_std);
                Some(bound.map_err(|e| taken("HTTP (tcp)", config.http_addr, e))?)
            }
            false => None,
        };
        if let Some(addr) = http.as_ref().and_then(|listener| listener.local_addr().ok()) {
            tracing::info!("HTTP on http://{addr}");
            if config.mode == Mode::Dev {
                introduce(addr);
            }
        }
        Ok(Self { peers, gossip, http })
    }
}

/// Tells who tries a node out where it is and what to type.
fn introduce(addr: SocketAddr) {
    let job = concat!(
        r#"{"name":"hello","schedule":"@every 5s","executor":"shell","#,
        r#""executor_config":{"command":"echo hello"}}"#,
    );
    let text = format!(
        "cronclave --dev on http://{addr}\n  curl -X POST http://{addr}/v1/jobs -d '{job}'\n  \
         curl http://{addr}/v1/jobs/hello/executions?pretty\n"
    );
    // Whoever closed standard output does not want to read it.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// What the operator tells a running node.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, ExitError> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                ExitError::Environment(format!("cannot listen for signals: {error}"))
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The first SIGTERM or SIGINT stops the node, the second ends the process at once.
    async fn watch(mut self, config: AgentConfig, control: mpsc::Sender<Input>) {
        let mut stopping = false;
        loop {
            let input = tokio::select! {
                _ = self.hangup.recv() => reload(&config).await,
                _ = self.terminate.recv() => None,
                _ = self.interrupt.recv() => None,
            };
            let input = match input {
                Some(Ok(input)) => input,
                Some(Err(())) => continue,
                None if stopping => {
                    tracing::warn!("a second signal: the process ends at once");
                    std::process::exit(1);
                }
                None => {
                    stopping = true;
                    let drain = config.drain_timeout;
                    tracing::info!(drain_timeout = ?drain, "the node is told to stop");
                    Input::Shutdown { drain }
                }
            };
            if control.send(input).await.is_err() {
                return;
            }
        }
    }
}

/// Reads tags and log level again. The files are read away from the threads that move bytes.
async fn reload(config: &AgentConfig) -> Option<Result<Input, ()>> {
    let reload = config.reload.clone();
    let read = tokio::task::spawn_blocking(move || reload.read()).await;
    Some(match read {
        Ok(Ok(reloaded)) => {
            for warning in &reloaded.warnings {
                tracing::warn!("{warning}");
            }
            tracing::info!(log_level = %reloaded.log_level, "tags and log level read again");
            Ok(Input::Retag(reloaded.tags))
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the configuration is not read again");
            Err(())
        }
        Err(error) => {
            tracing::error!(%error, "the configuration is not read again");
            Err(())
        }
    })
}

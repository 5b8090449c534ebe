//! A node in production: from its configuration to its end.

use std::io::Write as _;
use std::net::SocketAddr;

use rand::RngExt;
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::dispatch::leader::Patience;
use crate::driver::{Turn, turn};
use crate::membership::Profile;
use crate::membership::autopilot::GRACE_DEFAULT;
use crate::node::config::{NodeConfig, NodeRole};
use crate::node::io::Input;
use crate::node::{BootError, Node};
use crate::shell::config::{AgentConfig, GossipProfile, Mode};
use crate::shell::disk::{DataDir, DataDirError, Disk, ExitClass};
use crate::shell::exec::Executor;
use crate::shell::exit::ExitError;
use crate::shell::http::{self, HttpConfig};
use crate::shell::net::{self, Net, NetLimits};
use crate::shell::world::{Client, End, QUEUE_LEN_MAX, Sources, TokioWorld};
use crate::time::Now;

/// The threads that move bytes and answer HTTP, beside the one that owns the node.
const WORKER_THREADS: usize = 2;

/// Runs a server or an agent until it is told to stop, or cannot go on.
///
/// # Errors
/// If something that it needs is not there: a port, a directory, a disk that works, undamaged data.
pub fn run(config: AgentConfig) -> Result<(), ExitError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(|error| ExitError::Environment(format!("the system gives no threads: {error}")))?;
    runtime.block_on(serve(config))
}

async fn serve(config: AgentConfig) -> Result<(), ExitError> {
    greet(&config);
    let signals = Signals::new()?;
    let sockets = Sockets::bind(&config).await?;
    let mut data = DataDir::open(&config.data_dir, &config.node_name).map_err(data_error)?;
    let (recovered, files) = data.recover(config.log_limits).map_err(data_error)?;
    let (disk_done, disk) = mpsc::channel(QUEUE_LEN_MAX);
    let (net_events, net) = mpsc::channel(QUEUE_LEN_MAX);
    let (exec_events, exec) = mpsc::channel(QUEUE_LEN_MAX);
    let (calls_in, calls) = mpsc::channel(QUEUE_LEN_MAX);
    let (control_in, control) = mpsc::channel(16);
    let done = Box::new(move |completion| {
        // The node is gone: nobody waits for what becomes of the write.
        let _ = disk_done.blocking_send(completion);
    });
    let writer = Disk::start(files, done).map_err(|error| {
        ExitError::Environment(format!("the system gives no thread for the disk: {error}"))
    })?;
    let links = Net::start(sockets.peers, sockets.gossip, net_events, NetLimits::default());
    let executor = Executor::new(exec_events);
    let sources = Sources { disk, net, exec, calls, control };
    let mut world = TokioWorld::new(sources, links, writer, executor);
    let node_config = node_config(&config, &data);
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
        let http = HttpConfig::new(config.node_name.clone());
        let router = http::router(Client::new(calls_in), http);
        let mut stopped = stopped;
        tokio::spawn(http::serve(listener, router, async move {
            // An error says that the other end is gone, which stops the listener too.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }))
    });
    let watcher = tokio::spawn(signals.watch(config, control_in));
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
            Ok(())
        }
        End::Halted(reason) => Err(ExitError::Environment(format!("the node halts: {reason}"))),
    }
}

/// The loop: one task owns the node.
async fn drive(node: &mut Node, world: &mut TokioWorld, data: &mut DataDir) -> End {
    loop {
        let next = turn(node, world);
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

fn boot(
    config: NodeConfig,
    recovered: &crate::codec::record::Recovered,
    now: Now,
) -> Result<Node, ExitError> {
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

fn node_config(config: &AgentConfig, data: &DataDir) -> NodeConfig {
    let bootstrap_expect = config.bootstrap_expect.map_or(0, std::num::NonZeroU32::get);
    let role = match config.server {
        true => NodeRole::Server { bootstrap_expect },
        false => NodeRole::Agent,
    };
    let join = if config.retry_join.is_empty() { &config.join } else { &config.retry_join };
    NodeConfig {
        name: config.node_name.clone(),
        incarnation: data.incarnation(),
        boot: data.boot(),
        role,
        gossip_addr: config.advertise,
        peer_addr: SocketAddr::new(config.advertise.ip(), config.advertise_rpc_port),
        tags: config.tags.clone(),
        join: join.clone(),
        retry_interval: config.retry_interval,
        reconnect_timeout: config.reconnect_timeout,
        dead_server_grace: GRACE_DEFAULT,
        profile: match config.profile {
            GossipProfile::Lan => Profile::Lan,
            GossipProfile::Wan => Profile::Wan,
            GossipProfile::Local => Profile::Local,
        },
        raft_multiplier: config.raft_multiplier,
        patience: Patience { misfire_grace: config.misfire_grace, ..Patience::default() },
        timezone: config.timezone.name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The node's listeners, bound before anything is touched, so that a taken port harms nothing.
struct Sockets {
    peers: TcpListener,
    gossip: UdpSocket,
    http: Option<TcpListener>,
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
                let bound = net::listen(config.http_addr);
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

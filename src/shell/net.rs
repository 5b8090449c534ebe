//! Moves bytes between nodes: ordered sessions over TCP, datagrams over UDP. It knows no rule of
//! what they say.
//!
//! Each session is one task, which reads frames into the events and writes what waits, the frames
//! of a higher [`Lane`] first. A session begins for its owner ([`NetEvent::Connected`]) when the
//! other side's preface was read, so a stranger is turned away before anybody hears of it.
//!
//! **Invariants**
//! - Of each session the events are one `Connected`, its frames in order, one `Disconnected`.
//! - A frame is delivered whole and once, or the session ends.
//! - Nothing here waits for the owner but reading: where the events are full, the other side is
//!   held back, and sending goes on.
//! - An idle session sends a sign of life, and one that hears nothing for
//!   [`NetLimits::silence_max`] ends, so a peer that vanished is noticed.
//!
//! **Left out on purpose**
//! - Dialing again, and who may connect: the node decides.
//! - A bound on dials and look-ups under way: each ends by itself, and the node asks for few.

mod queue;
mod session;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket, lookup_host};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use self::session::{CLOSE_TIMEOUT, Greeted, Session};
use crate::codec::frame::Lane;
use crate::id::SessionId;

/// The port of a gossip address that names none.
pub const GOSSIP_PORT_DEFAULT: u16 = 8946;

/// How many datagrams may wait to be sent; more are dropped, as the network would.
const DATAGRAMS_MAX: usize = 1_024;

/// The longest datagram that UDP can carry, and then some.
const DATAGRAM_LEN_MAX: usize = 64 * 1024;

/// How many addresses of a name are tried.
const ADDRESSES_MAX: usize = 8;

/// How long a name may take to be resolved.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of a session the system may hold unsent. A frame of a higher lane cannot pass what is
/// there, and left to itself the system takes megabytes, which on a slow link outlast an election.
const SEND_BUFFER_LEN: u32 = 256 * 1024;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// The pause after a socket failed to accept or to receive, so that a lasting failure costs little.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// One attempt to reach a peer. The owner draws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// What happens on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// A session began.
    Connected {
        /// The session, of an id that was never used before.
        session: SessionId,
        /// The other side.
        remote: SocketAddr,
        /// The attempt that made it; `None` if the other side did.
        dialed: Option<DialId>,
    },
    /// An attempt made no session.
    ConnectFailed {
        /// The attempt.
        dial: DialId,
        /// Why.
        reason: String,
    },
    /// A frame came.
    Frame {
        /// On this session.
        session: SessionId,
        /// Its payload.
        bytes: Bytes,
    },
    /// A session ended.
    Disconnected {
        /// The session, of which no more is heard.
        session: SessionId,
        /// Why.
        reason: String,
    },
    /// A datagram came.
    Datagram {
        /// The other side, as it says.
        from: SocketAddr,
        /// What it sent.
        bytes: Bytes,
    },
    /// A name was looked up.
    Resolved {
        /// The name, as it was asked for.
        name: String,
        /// Its addresses, at least one, or why there are none.
        result: Result<Vec<SocketAddr>, String>,
    },
}

/// The bounds of a [`Net`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetLimits {
    /// The most sessions that others may have opened at a time; further ones are closed at once.
    pub sessions_max: usize,
    /// The most bytes that may wait to be sent on one session. More end it.
    pub queue_len_max: usize,
    /// How long one address may take to answer, and a new connection to say what it is.
    pub connect_timeout: Duration,
    /// After how long without a frame a session sends a sign of life. Well below `silence_max`.
    pub keep_alive: Duration,
    /// After how long without a byte, or with none taken, a session ends.
    pub silence_max: Duration,
}

impl Default for NetLimits {
    fn default() -> Self {
        Self {
            sessions_max: 16_384,
            queue_len_max: 64 * 1024 * 1024,
            connect_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_secs(2),
            silence_max: Duration::from_secs(10),
        }
    }
}

/// Listens for peers at `address`, with the socket options that sessions need.
///
/// # Errors
/// If the system refuses, for example because the port is taken.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    // A server that is restarted must not wait until the last sessions of its port are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket for `address` or its peers. What is set on a listener, its connections inherit.
fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_send_buffer_size(SEND_BUFFER_LEN)?;
    Ok(socket)
}

/// A handle on the network; its clones are the same network.
#[derive(Clone, Debug)]
pub struct Net {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    events: mpsc::Sender<NetEvent>,
    limits: NetLimits,
    sessions: Mutex<Sessions>,
    sessions_drawn: AtomicU64,
    /// A session was removed.
    removed: Notify,
    /// `None` after the last one that is to be sent.
    datagrams: mpsc::Sender<Option<(SocketAddr, Bytes)>>,
    datagrams_dropped: AtomicU64,
    refused: AtomicU64,
    tasks: Mutex<Option<Tasks>>,
}

#[derive(Debug, Default)]
struct Sessions {
    open: BTreeMap<SessionId, Arc<Session>>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Running,
    Stopped,
}

#[derive(Debug)]
struct Tasks {
    accept: JoinHandle<()>,
    receive: JoinHandle<()>,
    send: JoinHandle<()>,
}

impl Net {
    /// Accepts from `peers` (made by [`listen`]), receives `gossip`, and reports to `events`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        peers: TcpListener,
        gossip: UdpSocket,
        events: mpsc::Sender<NetEvent>,
        limits: NetLimits,
    ) -> Self {
        let (datagrams, outgoing) = mpsc::channel(DATAGRAMS_MAX);
        let sessions_max = limits.sessions_max.min(Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            events,
            limits,
            sessions: Mutex::default(),
            sessions_drawn: AtomicU64::new(0),
            removed: Notify::new(),
            datagrams,
            datagrams_dropped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            tasks: Mutex::default(),
        });
        let gossip = Arc::new(gossip);
        let slots = Arc::new(Semaphore::new(sessions_max));
        let tasks = Tasks {
            accept: tokio::spawn(accept(Arc::clone(&shared), peers, slots)),
            receive: tokio::spawn(receive(Arc::clone(&shared), Arc::clone(&gossip))),
            send: tokio::spawn(send_datagrams(Arc::clone(&shared), gossip, outgoing)),
        };
        *lock(&shared.tasks) = Some(tasks);
        Self { shared }
    }

    /// Tries to reach `address` (`host:port`, looked up each time), and reports a
    /// [`NetEvent::Connected`] or a [`NetEvent::ConnectFailed`].
    pub fn dial(&self, dial: DialId, address: String) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            match connect(&address, &shared.limits).await {
                Ok((remote, greeted)) => shared.serve(remote, Some(dial), greeted).await,
                Err(reason) => shared.report(NetEvent::ConnectFailed { dial, reason }).await,
            }
        });
    }

    /// Queues a frame. It is lost if the session has ended, and ends it if too much waits already.
    pub fn send(&self, session: SessionId, lane: Lane, frame: Bytes) {
        if let Some(session) = self.session(session) {
            session.send(lane, frame);
        }
    }

    /// Ends a session after what waits was written, or after a second. Frames may arrive until its
    /// [`NetEvent::Disconnected`].
    pub fn close(&self, session: SessionId) {
        if let Some(session) = self.session(session) {
            session.close();
        }
    }

    /// Sends a datagram, or drops it as the network may.
    pub fn datagram(&self, to: SocketAddr, bytes: Bytes) {
        if self.shared.datagrams.try_send(Some((to, bytes))).is_err() {
            self.shared.datagrams_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Looks up `name` (`host`, or `host:port`; the port is else [`GOSSIP_PORT_DEFAULT`]), and
    /// reports a [`NetEvent::Resolved`].
    pub fn resolve(&self, name: String) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let result = look_up(&with_port(&name, GOSSIP_PORT_DEFAULT)).await;
            shared.report(NetEvent::Resolved { name, result }).await;
        });
    }

    /// How many datagrams could not be sent.
    pub fn datagrams_dropped(&self) -> u64 {
        self.shared.datagrams_dropped.load(Ordering::Relaxed)
    }

    /// How many connections were turned away: too many, or no peer of ours.
    pub fn connections_refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Takes nothing new, writes what waits for about a second at most, and ends every session.
    /// After it both ports are free.
    pub async fn shutdown(self) {
        let Some(tasks) = lock(&self.shared.tasks).take() else {
            return;
        };
        for task in [tasks.accept, tasks.receive] {
            task.abort();
            // Until it has ended it holds its socket.
            let _ = task.await;
        }
        {
            let mut sessions = lock(&self.shared.sessions);
            sessions.phase = Phase::Stopped;
            sessions.open.values().for_each(|session| session.close());
        }
        let mut send = tasks.send;
        let flushed = async {
            // It fails only if the task has ended.
            let _ = self.shared.datagrams.send(None).await;
            let _ = (&mut send).await;
            self.shared.until_empty().await;
        };
        if timeout(CLOSE_TIMEOUT + FAILURE_PAUSE, flushed).await.is_err() {
            send.abort();
        }
    }

    fn session(&self, session: SessionId) -> Option<Arc<Session>> {
        lock(&self.shared.sessions).open.get(&session).cloned()
    }
}

impl Shared {
    async fn report(&self, event: NetEvent) {
        // It fails only if nobody listens any more.
        let _ = self.events.send(event).await;
    }

    async fn serve(&self, remote: SocketAddr, dialed: Option<DialId>, greeted: Greeted) {
        let Some((id, session)) = self.open() else {
            return;
        };
        self.report(NetEvent::Connected { session: id, remote, dialed }).await;
        let reason = session::serve(id, &session, greeted, &self.events, &self.limits).await;
        lock(&self.sessions).open.remove(&id);
        self.removed.notify_waiters();
        self.report(NetEvent::Disconnected { session: id, reason }).await;
    }

    fn open(&self) -> Option<(SessionId, Arc<Session>)> {
        let mut sessions = lock(&self.sessions);
        if sessions.phase == Phase::Stopped {
            return None;
        }
        let id = SessionId(1 + self.sessions_drawn.fetch_add(1, Ordering::Relaxed));
        let session = Arc::new(Session::new(&self.limits));
        sessions.open.insert(id, Arc::clone(&session));
        Some((id, session))
    }

    async fn until_empty(&self) {
        loop {
            let removed = self.removed.notified();
            tokio::pin!(removed);
            removed.as_mut().enable();
            if lock(&self.sessions).open.is_empty() {
                return;
            }
            removed.await;
        }
    }

    fn refuse(&self, remote: SocketAddr, reason: &str) {
        let count = 1 + self.refused.fetch_add(1, Ordering::Relaxed);
        // Who connects in a loop must not fill the log.
        if count.is_power_of_two() {
            tracing::info!(%remote, reason, count, "refused a connection");
        } else {
            tracing::debug!(%remote, reason, count, "refused a connection");
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, slots: Arc<Semaphore>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => match Arc::clone(&slots).try_acquire_owned() {
                Ok(slot) => {
                    tokio::spawn(serve_accepted(Arc::clone(&shared), stream, remote, slot));
                }
                Err(_) => shared.refuse(remote, "too many sessions"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(FAILURE_PAUSE).await;
            }
        }
    }
}

async fn serve_accepted(
    shared: Arc<Shared>,
    stream: TcpStream,
    remote: SocketAddr,
    slot: OwnedSemaphorePermit,
) {
    match greet(stream, &shared.limits).await {
        Ok(greeted) => shared.serve(remote, None, greeted).await,
        Err(reason) => shared.refuse(remote, &reason),
    }
    drop(slot);
}

async fn greet(stream: TcpStream, limits: &NetLimits) -> Result<Greeted, String> {
    match timeout(limits.connect_timeout, session::greet(stream)).await {
        Ok(greeted) => greeted,
        Err(_) => Err(format!("said nothing for {:?}", limits.connect_timeout)),
    }
}

async fn connect(address: &str, limits: &NetLimits) -> Result<(SocketAddr, Greeted), String> {
    let mut reasons = Vec::new();
    for remote in look_up(address).await? {
        let stream = async { socket(remote)?.connect(remote).await };
        let greeted = match timeout(limits.connect_timeout, stream).await {
            Ok(Ok(stream)) => greet(stream, limits).await,
            Ok(Err(error)) => Err(cause(&error)),
            Err(_) => Err(format!("no answer for {:?}", limits.connect_timeout)),
        };
        match greeted {
            Ok(greeted) => return Ok((remote, greeted)),
            Err(reason) => reasons.push(format!("{remote}: {reason}")),
        }
    }
    Err(reasons.join("; "))
}

async fn look_up(address: &str) -> Result<Vec<SocketAddr>, String> {
    let mut found: Vec<_> = match timeout(RESOLVE_TIMEOUT, lookup_host(address)).await {
        Ok(Ok(found)) => found.take(ADDRESSES_MAX).collect(),
        Ok(Err(error)) => return Err(format!("cannot resolve {address}: {error}")),
        Err(_) => return Err(format!("cannot resolve {address} within {RESOLVE_TIMEOUT:?}")),
    };
    found.dedup();
    if found.is_empty() {
        return Err(format!("{address} has no address"));
    }
    Ok(found)
}

/// The everyday cause in a word, as an operator would say it.
fn cause(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        "refused".to_owned()
    } else {
        error.to_string()
    }
}

/// `name` with `port`, unless it has one. A bare IPv6 address is put in brackets.
fn with_port(name: &str, port: u16) -> String {
    match name.matches(':').count() {
        _ if name.ends_with(']') => format!("{name}:{port}"),
        0 => format!("{name}:{port}"),
        1 => name.to_owned(),
        _ if name.starts_with('[') => name.to_owned(),
        _ => format!("[{name}]:{port}"),
    }
}

async fn receive(shared: Arc<Shared>, gossip: Arc<UdpSocket>) {
    let mut buffer = vec![0; DATAGRAM_LEN_MAX];
    loop {
        match gossip.recv_from(&mut buffer).await {
            Ok((len, from)) => {
                let bytes = Bytes::copy_from_slice(&buffer[..len]);
                shared.report(NetEvent::Datagram { from, bytes }).await;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot receive a datagram");
                sleep(FAILURE_PAUSE).await;
            }
        }
    }
}

async fn send_datagrams(
    shared: Arc<Shared>,
    gossip: Arc<UdpSocket>,
    mut outgoing: mpsc::Receiver<Option<(SocketAddr, Bytes)>>,
) {
    while let Some(Some((to, bytes))) = outgoing.recv().await {
        if gossip.send_to(&bytes, to).await.is_err() {
            shared.datagrams_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

#[cfg(test)]
mod tests;

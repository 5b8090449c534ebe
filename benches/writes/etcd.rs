//! etcd under the same load: three members on loopback, puts over gRPC.
//!
//! What is sent is written here by hand: a put is two fields of bytes, and a unary call of gRPC is
//! one request of HTTP/2.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::http::Request;
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use serde_json::Value;

use super::cluster::wait;
use super::load::{self, BODY_LEN, Client, Seen};
use super::sample::{Sample, Used};

/// The members of the cluster.
const MEMBERS: usize = 3;
/// How many clients share a connection: fewer connections cost etcd less.
const CLIENTS_PER_CONNECTION: usize = 16;
/// Where etcd listens for clients and for the other members.
const PORTS: [u16; 2] = [2379, 2380];

/// What one number of clients showed.
pub(crate) struct Step {
    pub(crate) seen: Seen,
    /// Microseconds of CPU of all members.
    pub(crate) cpu_micros: f64,
}

/// etcd's version, or why there is none to run.
pub(crate) fn version() -> Result<String, String> {
    let output = Command::new("etcd").arg("--version").output();
    let output = output.map_err(|error| {
        format!("etcd cannot be started ({error}); `make bench-peers` installs it")
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next().and_then(|line| line.strip_prefix("etcd Version: "));
    version.map(str::to_owned).ok_or_else(|| format!("etcd does not say its version: {text}"))
}

/// Has each number of clients write for `length` to the leader.
pub(crate) fn measure(clients: &[usize], length: Duration) -> Vec<Step> {
    let members = Members::start();
    let mut number = 0;
    let step = |&clients: &usize| {
        // A connection ends with the runtime of its step.
        OPEN.set(None);
        let leader = members.leader();
        let addr = members.addr(leader, PORTS[0]);
        let sample = || -> Vec<Sample> {
            members.children.iter().map(|child| Sample::take(child.id(), None)).collect()
        };
        let (seen, before, after) =
            load::run::<Grpc, _>(addr, clients, length, &mut number, sample);
        let used = before.into_iter().zip(after).map(|(a, b)| Used::between(a, b));
        Step { seen, cpu_micros: used.map(|used| used.cpu_micros_all()).sum() }
    };
    clients.iter().map(step).collect()
}

/// The processes, and their directory; both end with this value.
struct Members {
    children: Vec<Child>,
    net: [u8; 2],
    _dir: tempfile::TempDir,
}

impl Members {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("there is room for a directory");
        let net = super::cluster::free_net();
        let mut members = Self { children: Vec::new(), net, _dir: dir };
        for member in 0..MEMBERS {
            let child = members.command(member).spawn().expect("etcd starts");
            members.children.push(child);
        }
        wait("etcd to elect a leader", || members.find_leader());
        members
    }

    fn command(&self, member: usize) -> Command {
        let url = |member: usize, port: u16| format!("http://{}", self.addr(member, port));
        let of = |member: usize| format!("m{member}={}", url(member, PORTS[1]));
        let all: Vec<String> = (0..MEMBERS).map(of).collect();
        let dir: &Path = self._dir.path();
        let log = File::create(dir.join(format!("m{member}.log"))).expect("the directory is ours");
        let mut command = Command::new("etcd");
        command.arg("--name").arg(format!("m{member}"));
        command.arg("--data-dir").arg(dir.join(format!("m{member}")));
        command.args(["--listen-client-urls", &url(member, PORTS[0])]);
        command.args(["--advertise-client-urls", &url(member, PORTS[0])]);
        command.args(["--listen-peer-urls", &url(member, PORTS[1])]);
        command.args(["--initial-advertise-peer-urls", &url(member, PORTS[1])]);
        command.args(["--initial-cluster", &all.join(",")]);
        command.args(["--initial-cluster-state", "new", "--log-level", "error"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    fn addr(&self, member: usize, port: u16) -> SocketAddr {
        let host = 21 + u8::try_from(member).expect("there are few members");
        SocketAddr::from((Ipv4Addr::new(127, self.net[0], self.net[1], host), port))
    }

    fn leader(&self) -> usize {
        wait("etcd's leader", || self.find_leader())
    }

    fn find_leader(&self) -> Option<usize> {
        (0..MEMBERS).find(|&member| {
            let status = status(self.addr(member, PORTS[0])).unwrap_or_default();
            let leader = status["leader"].as_str().filter(|leader| *leader != "0");
            leader.is_some() && leader == status["header"]["member_id"].as_str()
        })
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a member says of itself.
fn status(addr: SocketAddr) -> io::Result<Value> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let request = "POST /v3/maintenance/status HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    Ok(serde_json::from_str(body).unwrap_or_default())
}

thread_local! {
    /// The connection that the next client shares, and how many share it already.
    static OPEN: RefCell<Option<(SocketAddr, usize, SendRequest<Bytes>)>> =
        const { RefCell::new(None) };
}

/// A client over a connection that it may share.
pub(crate) struct Grpc {
    requests: SendRequest<Bytes>,
    url: String,
}

impl Client for Grpc {
    async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let url = format!("http://{addr}/etcdserverpb.KV/Put");
        let shared = OPEN.with_borrow_mut(|open| {
            let (of, sharing, requests) = open.as_mut()?;
            let has_room = *of == addr && *sharing < CLIENTS_PER_CONNECTION;
            *sharing += 1;
            has_room.then(|| requests.clone())
        });
        if let Some(requests) = shared {
            return Ok(Self { requests, url });
        }
        let stream = tokio::net::TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) = h2::client::handshake(stream).await.map_err(other)?;
        tokio::task::spawn_local(async move {
            // It ends when etcd does, which the client that waits for an answer notices.
            let _ = connection.await;
        });
        OPEN.set(Some((addr, 1, requests.clone())));
        Ok(Self { requests, url })
    }

    async fn write(&mut self, number: u64) -> io::Result<bool> {
        let request = Request::post(&self.url)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(other)?;
        let mut requests = self.requests.clone().ready().await.map_err(other)?;
        let (answer, mut body) = requests.send_request(request, false).map_err(other)?;
        body.send_data(put(number), true).map_err(other)?;
        let mut answer = answer.await.map_err(other)?.into_body();
        while let Some(data) = answer.data().await {
            let len = data.map_err(other)?.len();
            answer.flow_control().release_capacity(len).map_err(other)?;
        }
        let trailers = answer.trailers().await.map_err(other)?.unwrap_or_default();
        Ok(trailers.get("grpc-status").is_some_and(|status| status == "0"))
    }
}

/// `PutRequest { key, value }` as a message of gRPC, with a value of [`BODY_LEN`] bytes.
fn put(number: u64) -> Bytes {
    let (key, value) = (load::job_name(number), load::job(number));
    let value = &value.as_bytes()[..BODY_LEN];
    let mut fields = BytesMut::new();
    fields.put_u8(0x0a);
    put_varint(&mut fields, key.len());
    fields.put_slice(key.as_bytes());
    fields.put_u8(0x12);
    put_varint(&mut fields, value.len());
    fields.put_slice(value);
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(fields.len()).expect("puts are small"));
    message.put_slice(&fields);
    message.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(0x80 | u8::try_from(value & 0x7f).expect("seven bits"));
        value >>= 7;
    }
    out.put_u8(u8::try_from(value).expect("seven bits"));
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

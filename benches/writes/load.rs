//! Clients that write without pause, each with one request under way, and what they saw.
//!
//! One thread drives all of them, so that the generator costs little beside what it measures.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// How long clients write before anything counts.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);
/// How many jobs the clients write, each again and again.
pub(crate) const JOBS: u64 = 10_000;
/// The length of a request's body.
pub(crate) const BODY_LEN: usize = 256;
/// The most bytes of an answer that are read at a time; answers are shorter.
const READ_LEN: usize = 8 * 1024;

/// What the clients of one run saw after the warm-up.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) clients: usize,
    pub(crate) seconds: f64,
    pub(crate) refused: u64,
    /// Microseconds that each acknowledged write took, ascending.
    pub(crate) micros: Vec<u32>,
    /// Microseconds of CPU that all clients took together.
    pub(crate) cpu_micros: f64,
}

impl Seen {
    pub(crate) fn writes(&self) -> u64 {
        self.micros.len() as u64
    }

    pub(crate) fn rate(&self) -> f64 {
        self.writes() as f64 / self.seconds
    }

    /// Milliseconds that `share` of the writes did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let last = self.micros.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.micros.get(at).map_or(f64::NAN, |micros| f64::from(*micros) / 1_000.0)
    }
}

/// One client: it writes, and says whether that was acknowledged.
pub(crate) trait Client: Sized + 'static {
    /// Connects to `addr`.
    fn connect(addr: SocketAddr) -> impl Future<Output = io::Result<Self>>;

    /// Carries out the write of this number.
    fn write(&mut self, number: u64) -> impl Future<Output = io::Result<bool>>;
}

/// Has `clients` of them write to `addr` for `length` after [`WARM_UP`]. `sample` is called when
/// the warm-up is over and at the end, on a thread of its own. Numbers are drawn from `number`.
pub(crate) fn run<C: Client, S: Send>(
    addr: SocketAddr,
    clients: usize,
    length: Duration,
    number: &mut u64,
    sample: impl Fn() -> S + Sync,
) -> (Seen, S, S) {
    let begin = Instant::now() + WARM_UP;
    let end = begin + length;
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let at = |then: Instant| {
                std::thread::sleep(then.saturating_duration_since(Instant::now()));
                sample()
            };
            (at(begin), at(end))
        });
        let mut seen = drive::<C>(addr, clients, number, begin, end);
        let (before, after) = sampler.join().expect("the sampler does not panic");
        seen.micros.sort_unstable();
        (seen, before, after)
    })
}

/// What all clients share.
struct Shared {
    number: Cell<u64>,
    seen: RefCell<Seen>,
    begin: Instant,
    end: Instant,
}

fn drive<C: Client>(
    addr: SocketAddr,
    clients: usize,
    number: &mut u64,
    begin: Instant,
    end: Instant,
) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system gives a runtime");
    let (number_cell, seen) = (Cell::new(*number), RefCell::new(Seen::default()));
    let shared = Rc::new(Shared { number: number_cell, seen, begin, end });
    let local = LocalSet::new();
    let one = |_| local.spawn_local(one::<C>(addr, Rc::clone(&shared)));
    let clients_run: Vec<_> = (0..clients).map(one).collect();
    let cpu = local.block_on(&runtime, async {
        tokio::time::sleep_until(begin.into()).await;
        let before = thread_cpu_micros();
        tokio::time::sleep_until(end.into()).await;
        let cpu = thread_cpu_micros() - before;
        for client in clients_run {
            client.await.expect("a client does not panic");
        }
        cpu
    });
    *number = shared.number.get();
    let mut seen = shared.seen.take();
    seen.clients = clients;
    seen.seconds = (end - begin).as_secs_f64();
    seen.cpu_micros = cpu;
    seen
}

async fn one<C: Client>(addr: SocketAddr, shared: Rc<Shared>) {
    let mut client = C::connect(addr).await.expect("the server takes connections");
    loop {
        let number = shared.number.get();
        shared.number.set(number + 1);
        let start = Instant::now();
        let done = client.write(number).await.expect("the server answers");
        let now = Instant::now();
        if now >= shared.end {
            return;
        }
        if now < shared.begin {
            continue;
        }
        let mut seen = shared.seen.borrow_mut();
        match done {
            true => {
                let micros = u32::try_from((now - start).as_micros()).unwrap_or(u32::MAX);
                seen.micros.push(micros);
            }
            false => seen.refused += 1,
        }
    }
}

/// The CPU time of this thread so far.
pub(crate) fn thread_cpu_micros() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok());
    nanos.unwrap_or(f64::NAN) / 1_000.0
}

/// The name of the job that the write of this number is about.
pub(crate) fn job_name(number: u64) -> String {
    format!("bench-{:06}", number % JOBS)
}

/// A job of [`BODY_LEN`] bytes as JSON. No two numbers give the same, and none is due soon.
pub(crate) fn job(number: u64) -> String {
    let name = job_name(number);
    let head = format!(
        "{{\"name\":\"{name}\",\"schedule\":\"0 15 3 1 1 *\",\"owner\":\"team-{number:012}\",\
         \"tags\":{{\"kind\":\"worker:1\"}},\"executor\":\"shell\",\
         \"executor_config\":{{\"command\":\""
    );
    let tail = "\"}}";
    let pad = BODY_LEN.saturating_sub(head.len() + tail.len());
    format!("{head}{:x<pad$}{tail}", "/usr/local/bin/report ")
}

/// A client over one HTTP connection that is kept alive.
pub(crate) struct Http {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Client for Http {
    async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), answer: vec![0; READ_LEN] })
    }

    async fn write(&mut self, number: u64) -> io::Result<bool> {
        use std::io::Write as _;
        let body = job(number);
        self.request.clear();
        write!(
            self.request,
            "POST /v1/jobs HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        self.stream.write_all(&self.request).await?;
        let mut len = 0;
        loop {
            let read = self.stream.read(&mut self.answer[len..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            len += read;
            if let Some(status) = whole_answer(&self.answer[..len]) {
                return Ok(status == 201);
            }
        }
    }
}

/// The status of an answer that has come as a whole.
fn whole_answer(bytes: &[u8]) -> Option<u16> {
    let head_len = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_len]).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    (bytes.len() >= head_len + length).then_some(status)
}

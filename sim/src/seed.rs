//! Which seeds run, and the command that replays one that failed.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use madsim::Config;
use madsim::runtime::Runtime;

/// The variable that holds the first seed to be run, instead of those that the test names.
pub const VARIABLE: &str = "CRONCLAVE_SIM_SEED";

/// The variable that says how many seeds are run from that one on; 1 if it is not set.
pub const COUNT_VARIABLE: &str = "CRONCLAVE_SIM_COUNT";

/// No run takes so much simulated time; one that does hangs.
const TIME_MAX: Duration = Duration::from_secs(3_600);

/// Latencies of packets. madsim adds a millisecond at each end.
const LATENCY: std::ops::Range<Duration> = Duration::from_micros(100)..Duration::from_millis(1);

static RUNS: AtomicU64 = AtomicU64::new(0);

/// How many simulated runs this process has finished.
pub fn runs() -> u64 {
    RUNS.load(Ordering::Relaxed)
}

/// Runs `body` under simulation, once with each of `seeds`, or with those that the environment
/// names. `binary` is the test's file, for the command that replays a failure.
///
/// # Panics
/// If `body` does; the last line printed is the command that replays it.
pub fn simulate<F, Fut>(binary: &str, seeds: &[u64], body: F)
where
    F: Fn(u64) -> Fut + Copy + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let given = number(VARIABLE).map(|first| {
        let count = number(COUNT_VARIABLE).unwrap_or(1);
        (first..first.saturating_add(count)).collect::<Vec<u64>>()
    });
    for seed in given.unwrap_or_else(|| seeds.to_vec()) {
        run(binary, seed, move || body(seed));
    }
}

/// Runs `body` under simulation with one seed and gives what it gives.
///
/// # Panics
/// If `body` does; the last line printed is the command that replays it.
#[expect(clippy::print_stdout, reason = "the test harness shows it if the test fails")]
pub fn run<F, Fut, T>(binary: &str, seed: u64, body: F) -> T
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let test = std::thread::current().name().unwrap_or("main").to_owned();
    // A thread of its own: madsim seeds the hash maps of a thread once.
    let thread = std::thread::spawn(move || {
        let mut config = Config::default();
        config.net.send_latency = LATENCY;
        let mut runtime = Runtime::with_seed_and_config(seed, config);
        runtime.set_time_limit(TIME_MAX);
        runtime.block_on(body())
    });
    match thread.join() {
        Ok(value) => {
            RUNS.fetch_add(1, Ordering::Relaxed);
            value
        }
        Err(panic) => {
            println!(
                "replay: {VARIABLE}={seed} cargo test -p cronclave-sim --features sim \
                 --test {binary} -- --exact {test}"
            );
            std::panic::resume_unwind(panic)
        }
    }
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")))
}

//! A hunt: seed after seed on several threads, until a time is over.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cronclave_sim::campaign::{Campaign, Failure, Size};
use cronclave_sim::mutants::program::Program;
use cronclave_sim::plan::{Options, Plan};
use cronclave_sim::run::{Class, Look, World};
use cronclave_sim::shrink::run_safely;
use rustix::time::{ClockId, clock_gettime};

use crate::one::{SELF, hash_elsewhere, hash_here, plan_of};

/// One seed in so many is run in another process too.
const REPEATED_ONE_IN: u64 = 50;

/// How long the idle clusters run, in simulated time.
const CEILING: Duration = Duration::from_secs(300);

/// One seed in so many is run in madsim's world too.
const BOTH_ONE_IN: u64 = 10;

/// Runs seed after seed.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Hunt {
    /// For how many minutes.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// How many seeds at the most.
    #[arg(long)]
    seeds: Option<u64>,
    /// How many runs go on at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// The first seed; drawn if it is not given.
    #[arg(long)]
    from: Option<u64>,
    /// Only clusters of so many servers.
    #[arg(long)]
    servers: Option<usize>,
    /// This program, built with debug assertions: every other seed is run by it too.
    #[arg(long)]
    checked: Option<PathBuf>,
    /// Stops at the first failure.
    #[arg(long)]
    first: bool,
}

struct Shared {
    next: AtomicU64,
    until: Instant,
    is_over: AtomicBool,
    all: Mutex<Campaign>,
}

impl Hunt {
    pub(crate) fn run(&self) -> u8 {
        let from = self.from.unwrap_or_else(|| u64::from(rand::random::<u32>()));
        let time = Duration::from_secs_f64(self.minutes * 60.0);
        println!("seeds from {from} on, {} at a time, for {time:?}", self.jobs);
        let shared = Shared {
            next: AtomicU64::new(0),
            until: Instant::now() + time,
            is_over: AtomicBool::new(false),
            all: Mutex::default(),
        };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| self.work(&shared, from));
            }
        });
        let campaign = shared.all.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!("{campaign}");
        ceilings();
        let gates = campaign.gates();
        for gate in &gates {
            println!("no proof: {gate}");
        }
        for Failure { seed, checker, text } in &campaign.failures {
            println!("violated {checker}: {text}\nreplay: {SELF} run {seed}");
        }
        match campaign.failures.first() {
            Some(failure) => Class::of(&failure.checker).exit_code(),
            None => u8::from(!gates.is_empty()),
        }
    }

    fn work(&self, shared: &Shared, from: u64) {
        let mut mine = Campaign::default();
        while !shared.is_over.load(Ordering::Relaxed) && Instant::now() < shared.until {
            let number = shared.next.fetch_add(1, Ordering::Relaxed);
            if self.seeds.is_some_and(|seeds| number >= seeds) {
                break;
            }
            let seed = from.wrapping_add(number);
            let failures = mine.failures.len();
            self.one(&mut mine, seed, number);
            for Failure { seed, checker, text } in &mine.failures[failures..] {
                println!("violated {checker}: {text}\nreplay: {SELF} run {seed}");
                shared.is_over.fetch_or(self.first, Ordering::Relaxed);
            }
        }
        shared.all.lock().unwrap_or_else(PoisonError::into_inner).merge(&mine);
    }

    fn one(&self, campaign: &mut Campaign, seed: u64, number: u64) {
        let Ok(plan) = plan_of(seed, None) else { return };
        let servers = plan.options.servers;
        if self.servers.is_some_and(|wanted| wanted != servers) {
            return;
        }
        let fail = |campaign: &mut Campaign, checker: &str, text: String| {
            let checker = checker.to_owned();
            campaign.failures.push(Failure { seed, checker, text });
        };
        let (run, core) =
            timed(ClockId::ThreadCPUTime, || run_safely(&plan, World::Heap, Look::default()));
        let green = match run {
            Ok(report) => {
                campaign.add(seed, servers, &report, core);
                report.violations.is_empty()
            }
            Err(text) => {
                fail(campaign, "unwinds", text);
                return;
            }
        };
        if number % BOTH_ONE_IN == BOTH_ONE_IN - 1 {
            campaign.in_both_worlds += 1;
            match run_safely(&plan, World::Madsim, Look::default()) {
                Ok(report) if report.violations.is_empty() == green => {}
                Ok(report) => {
                    let text = format!("on the heap {green}, in madsim {:?}", report.violation());
                    fail(campaign, "both worlds", text);
                }
                Err(text) => fail(campaign, "unwinds", text),
            }
        }
        if number % REPEATED_ONE_IN == REPEATED_ONE_IN - 1 {
            campaign.repeated += 1;
            let hashes = (hash_here(&plan, World::Heap), hash_elsewhere(seed, World::Heap));
            if hashes.0.is_err() || hashes.0 != hashes.1 {
                fail(campaign, "determinism", format!("two processes: {hashes:x?}"));
            }
        }
        if let Some(checked) = self.checked.clone().filter(|_| number % 2 == 1) {
            campaign.with_assertions += 1;
            match Program::new(checked).run(seed) {
                Ok(summary) if summary.violated.is_empty() => {}
                Ok(summary) if !green => drop(summary),
                Ok(summary) => {
                    fail(campaign, "debug assertions", summary.violated.join(", "));
                }
                Err(reason) => fail(campaign, "debug assertions", reason),
            }
        }
    }
}

/// How fast five servers are that nothing befalls: without a client and without checkers, which is
/// what the nodes and the world cost, and so on to the load of a default plan.
fn ceilings() {
    println!("simulated seconds a core-second of five servers without faults");
    println!("{:>8} {:>14} {:>14} {:>14}", "", "idle unwatched", "idle", "under load");
    for (world, name) in [(World::Heap, "heap"), (World::Madsim, "madsim")] {
        let speed = |clients: usize, watched: bool| {
            let agents = clients.min(1);
            let options = Options { servers: 5, agents, clients, ..Options::default() };
            let plan = Plan { options, steps: Vec::new(), end: CEILING };
            // madsim has a thread of its own, and no other runs now.
            let look = Look { watched, ..Look::default() };
            let (run, core) = timed(ClockId::ProcessCPUTime, || run_safely(&plan, world, look));
            match run {
                Ok(report) if report.violations.is_empty() => {
                    let size = Size { runs: 1, simulated: report.simulated, core };
                    format!("{:.0}", size.speed())
                }
                Ok(_) | Err(_) => "failed".to_owned(),
            }
        };
        let (unwatched, idle, loaded) = (speed(0, false), speed(0, true), speed(2, true));
        println!("{name:>8} {unwatched:>14} {idle:>14} {loaded:>14}");
    }
}

/// What a piece of work takes of a core.
fn timed<T>(clock: ClockId, work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = core_time(clock);
    let done = work();
    (done, core_time(clock).saturating_sub(begun))
}

fn core_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

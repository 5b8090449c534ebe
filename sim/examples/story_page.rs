//! Writes the page and the short log of a made-up run, to look at them without a simulator:
//! `cargo run -p cronclave-sim --example story_page -- run.html [SECONDS]`. The log goes to
//! standard output. The more seconds the run has before its failure, the more moments.

use std::time::Duration;

use cronclave::consensus::Role;
use cronclave::id::{LogIndex, Term};
use cronclave::time::Mono;
use cronclave_sim::story::{Moment, REPLAY, Story, What, log, page};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SERVERS: usize = 5;
const AGENTS: usize = 2;
const HEARTBEAT: Duration = Duration::from_millis(100);

/// The run so far.
struct Script {
    story: Story,
    rng: StdRng,
    /// The machine that leads, if there is one.
    leader: Option<usize>,
    /// The servers that the leader reaches.
    reached: Vec<usize>,
    term: u64,
    last: u64,
}

impl Script {
    fn new(seed: u64) -> Self {
        let servers = (1..=SERVERS).map(|n| format!("n{n}"));
        let options = [
            ("seed", seed.to_string()),
            ("servers", SERVERS.to_string()),
            ("agents", AGENTS.to_string()),
            ("heartbeat-ms", "100".to_owned()),
            ("election-ms", "120..250".to_owned()),
            ("loss", "0.02".to_owned()),
            ("latency-ms", "0.3..4".to_owned()),
            ("jobs", "40".to_owned()),
            (REPLAY, format!("cargo run -p cronclave-sim --features sim -- run {seed}")),
        ];
        let story = Story {
            hosts: servers.chain((1..=AGENTS).map(|n| format!("a{n}"))).collect(),
            servers: SERVERS,
            options: options.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            moments: Vec::new(),
        };
        let (rng, reached) = (StdRng::seed_from_u64(seed), (0..SERVERS).collect());
        Self { story, rng, leader: None, reached, term: 0, last: 0 }
    }

    fn add(&mut self, at: f64, host: Option<usize>, what: What) {
        self.story.moments.push(Moment {
            at: Mono::ZERO + Duration::from_secs_f64(at),
            host,
            what,
        });
    }

    fn fault(&mut self, at: f64, line: &str) {
        self.add(at, None, What::Fault(format!("t={at:.3} {line}")));
    }

    fn event(&mut self, at: f64, host: usize, text: &str) {
        self.add(at, Some(host), What::Event(text.to_owned()));
    }

    fn stands(&mut self, at: f64, host: usize, role: Role, leader: Option<usize>) {
        let (last, committed) = (Some(LogIndex(self.last)), self.last.checked_sub(1));
        let committed = committed.map(LogIndex);
        let term = Term(self.term);
        let what = What::Stands { role, term, leader, last, committed, applied: committed };
        self.add(at, Some(host), what);
    }

    /// A server asks for votes, and wins those of the servers it reaches.
    fn election(&mut self, at: f64, winner: usize, reached: &[usize]) {
        self.term += 1;
        self.stands(at, winner, Role::Candidate, None);
        for voter in reached.iter().copied().filter(|voter| *voter != winner) {
            self.message(at + 0.000_1, winner, voter, "vote");
            self.message(at + 0.006, voter, winner, "vote-reply");
        }
        self.last += 1;
        self.stands(at + 0.018, winner, Role::Leader, Some(winner));
        self.event(at + 0.018_1, winner, &format!("this node leads in term {}", self.term));
        for follower in reached.iter().copied().filter(|voter| *voter != winner) {
            let heard = at + 0.019 + self.rng.random_range(0.000_3..0.004);
            self.stands(heard, follower, Role::Follower, Some(winner));
        }
        self.leader = Some(winner);
        self.reached = reached.to_vec();
    }

    fn message(&mut self, at: f64, from: usize, to: usize, label: &str) {
        let cut = self.reached.contains(&from) != self.reached.contains(&to);
        let lost = cut || self.rng.random_bool(0.02);
        let delay = Duration::from_secs_f64(self.rng.random_range(0.000_3..0.004));
        let arrives = (!lost).then(|| Mono::ZERO + Duration::from_secs_f64(at) + delay);
        self.add(at, Some(from), What::Message { to, label: label.to_owned(), arrives });
    }

    /// Heartbeats, writes and runs, from one time to another.
    fn works(&mut self, from: f64, to: f64) {
        let mut at = from;
        while at < to {
            if let Some(leader) = self.leader {
                for peer in (0..SERVERS).filter(|peer| *peer != leader) {
                    let jitter = self.rng.random_range(0.0..0.002);
                    self.message(at + jitter, leader, peer, "heartbeat");
                    if self.reached.contains(&peer) {
                        self.message(at + jitter + 0.005, peer, leader, "heartbeat-reply");
                    }
                }
                self.write(at + 0.02, leader);
                if self.rng.random_bool(0.15) {
                    self.run(at + 0.05);
                }
            } else {
                let via = self.rng.random_range(0..SERVERS) + 1;
                let text = format!("put job-{} via n{via}: refused, no leader", self.last % 40);
                self.add(at + 0.02, None, What::Client(text));
            }
            at += HEARTBEAT.as_secs_f64();
        }
    }

    fn write(&mut self, at: f64, leader: usize) {
        let job = format!("put job-{} via n{}", self.last % 40, leader + 1);
        self.add(at, None, What::Client(job.clone()));
        self.last += 1;
        for peer in (0..SERVERS).filter(|peer| *peer != leader) {
            self.message(at + 0.001, leader, peer, "append");
        }
        let fate = if self.rng.random_bool(0.03) { "unknown" } else { "acknowledged" };
        self.add(at + 0.012, None, What::Client(format!("{job}: {fate}")));
    }

    fn run(&mut self, at: f64) {
        let agent = SERVERS + self.rng.random_range(0..AGENTS);
        let run = format!("job-{}#{}", self.last % 40, self.last);
        self.add(at, Some(agent), What::Process(format!("starts {run}, due 02:00:00")));
        let length = self.rng.random_range(0.05..0.9);
        self.add(at + length, Some(agent), What::Process(format!("ends {run}, exit code 0")));
    }

    fn down(&mut self, at: f64, host: usize, why: &str) {
        self.add(at, Some(host), What::Down { why: why.to_owned() });
    }

    fn up(&mut self, at: f64, host: usize, boot: u64) {
        self.add(at, Some(host), What::Up { boot });
    }
}

/// A quiet time of `quiet` seconds, faults that the cluster survives, and one that it does not.
fn failing_run(quiet: f64) -> Story {
    let mut run = Script::new(8_311);
    for host in 0..SERVERS + AGENTS {
        run.up(0.001 * host as f64, host, 1);
    }
    run.election(0.41, 1, &[0, 1, 2, 3, 4]);
    run.works(0.5, 3.0 + quiet);
    survived(&mut run, 3.0 + quiet);
    fatal(&mut run, 10.0 + quiet);
    let mut story = run.story;
    story.moments.sort_by_key(|moment| moment.at);
    story
}

/// The leader dies and comes back, a disk is slow, packets are lost.
fn survived(run: &mut Script, start: f64) {
    run.fault(start, "crash n2 keep-unsynced=2 torn");
    run.down(start, 1, "crash, 2 writes unsynced, the last one torn");
    run.leader = None;
    run.works(start + 0.05, start + 0.35);
    run.election(start + 0.37, 0, &[0, 2, 3, 4]);
    run.fault(start + 1.2, "slow-disk n5 80ms for=2.5");
    run.works(start + 0.45, start + 2.0);
    run.up(start + 2.0, 1, 2);
    run.event(start + 2.001, 1, "the log was cut by 312 bytes, half written at a crash");
    run.stands(start + 2.002, 1, Role::Follower, None);
    run.stands(start + 2.09, 1, Role::Follower, Some(0));
    run.reached = (0..SERVERS).collect();
    run.fault(start + 3.0, "loss 0.2 for=1.5");
    run.works(start + 2.1, start + 7.0);
}

/// The leader is cut off while its clock is wrong, and both sides start the same run.
fn fatal(run: &mut Script, start: f64) {
    run.add(start, Some(0), What::Fault(format!("t={start:.3} skew -900ms")));
    run.works(start, start + 1.0);
    run.fault(start + 1.0, "partition n1 n2 | n3 n4 n5 a1 a2");
    run.add(start + 1.1, Some(1), What::Fault(format!("t={:.3} pause", start + 1.1)));
    run.reached = vec![0, 1];
    run.works(start + 1.02, start + 1.25);
    run.stands(start + 1.26, 0, Role::Leader, None);
    run.event(start + 1.261, 0, "no leader: 2 of 5 servers answer");
    let missed = [(2, 1.21), (3, 1.23), (4, 1.22)];
    for (host, after) in missed {
        run.stands(start + after, host, Role::Follower, None);
    }
    run.leader = None;
    run.term += 1;
    run.stands(start + 1.45, 3, Role::Candidate, None);
    run.term -= 1;
    run.reached = vec![2, 3, 4];
    run.election(start + 1.71, 2, &[2, 3, 4]);
    let due = "starts nightly#412, due 02:00:00";
    run.add(start + 1.92, Some(5), What::Process(due.to_owned()));
    run.add(start + 1.955, Some(6), What::Process(due.to_owned()));
    let text = format!(
        "execution nightly#412 was started twice: on a1 at {:.6} by order of n1 (term 2), and on \
         a2 at {:.6} by order of n3 (term 3)",
        start + 1.92,
        start + 1.955
    );
    let what = What::Violation { checker: "run ledger".to_owned(), text };
    run.add(start + 1.956, Some(6), what);
    run.works(start + 1.8, start + 2.6);
    run.fault(start + 2.6, "heal");
    run.add(start + 2.65, Some(1), What::Fault("resume".to_owned()));
    run.stands(start + 2.7, 0, Role::Follower, Some(2));
    run.stands(start + 2.7, 1, Role::Follower, Some(2));
    run.reached = (0..SERVERS).collect();
    run.works(start + 2.7, start + 5.0);
}

#[expect(clippy::print_stdout, reason = "the log is what the example shows")]
fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().unwrap_or_else(|| "run.html".to_owned());
    let quiet = arguments.next().and_then(|secs| secs.parse().ok()).unwrap_or(5.0);
    let story = failing_run(quiet);
    std::fs::write(&file, page::render(&story))?;
    let mut short = story;
    short.moments.retain(|moment| !matches!(moment.what, What::Message { .. }));
    print!("{}", log::render(&short));
    Ok(())
}

//! The search for other nodes at the `retry-join` names, which never ends.
//!
//! Each round resolves every name anew and greets each address that is no live member's. Rounds
//! are a second apart while we are alone, and grow apart to `retry-interval` once we are not. They
//! go on then, so that two halves of a cluster heal and a server that moved is found again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::time::Mono;

/// Time between rounds while no other node is known to live.
const QUICK: Duration = Duration::from_secs(1);

/// The most addresses of one name that are greeted; the rest is ignored.
const ADDRS_PER_NAME_MAX: usize = 64;

/// A name that is looked for, and what came of it.
#[derive(Clone, Debug)]
struct Target {
    join: String,
    found: Found,
    /// Those of its addresses from which a datagram came.
    heard: BTreeSet<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    NotYet,
    Failed(String),
    Addrs(Vec<SocketAddr>),
}

#[derive(Clone, Debug)]
pub(super) struct Joins {
    me: SocketAddr,
    targets: Vec<Target>,
    retry_interval: Duration,
    /// The last interval without jitter.
    interval: Duration,
    next_round: Option<Mono>,
}

impl Joins {
    pub(super) fn new(
        me: SocketAddr,
        joins: Vec<String>,
        retry_interval: Duration,
        now: Mono,
    ) -> Self {
        let mut seen = BTreeSet::new();
        let targets: Vec<Target> = joins
            .into_iter()
            .filter(|join| seen.insert(join.clone()))
            .map(|join| Target { join, found: Found::NotYet, heard: BTreeSet::from([me]) })
            .collect();
        let next_round = (!targets.is_empty()).then_some(now);
        Self { me, targets, retry_interval: retry_interval.max(QUICK), interval: QUICK, next_round }
    }

    pub(super) fn poll_timeout(&self) -> Option<Mono> {
        self.next_round
    }

    /// The names to resolve, if a round is due.
    pub(super) fn on_timeout(
        &mut self,
        now: Mono,
        live: &BTreeSet<SocketAddr>,
        rng: &mut StdRng,
    ) -> Vec<String> {
        if self.next_round.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let settled = self.targets.iter().all(|target| target.is_answered(live));
        self.interval = if live.is_empty() {
            QUICK
        } else if settled {
            self.retry_interval
        } else {
            (self.interval * 2).min(self.retry_interval)
        };
        self.next_round = Some(now + jitter(self.interval, rng));
        self.targets.iter().map(|target| target.join.clone()).collect()
    }

    /// Takes what a name resolved to; the addresses, or a failure that is news.
    pub(super) fn on_resolved(
        &mut self,
        join: &str,
        result: Result<Vec<SocketAddr>, String>,
    ) -> Result<Vec<SocketAddr>, Option<String>> {
        let Some(target) = self.targets.iter_mut().find(|target| target.join == join) else {
            return Err(None);
        };
        let result = result.and_then(|addrs| match addrs.is_empty() {
            true => Err("no addresses".to_owned()),
            false => Ok(addrs),
        });
        match result {
            Ok(mut addrs) => {
                addrs.truncate(ADDRS_PER_NAME_MAX);
                target.heard.retain(|addr| *addr == self.me || addrs.contains(addr));
                target.found = Found::Addrs(addrs.clone());
                addrs.retain(|addr| *addr != self.me);
                Ok(addrs)
            }
            Err(reason) => {
                let found = Found::Failed(reason.clone());
                let news = target.found != found;
                target.found = found;
                Err(news.then_some(reason))
            }
        }
    }

    /// A datagram came from `from`.
    pub(super) fn on_heard(&mut self, from: SocketAddr) {
        for target in &mut self.targets {
            if target.addrs().contains(&from) {
                target.heard.insert(from);
            }
        }
    }

    /// The server at `gone` is dead: it may live elsewhere, so look again soon.
    pub(super) fn on_server_down(&mut self, gone: SocketAddr, now: Mono, rng: &mut StdRng) {
        for target in self.targets.iter_mut().filter(|_| gone != self.me) {
            target.heard.remove(&gone);
        }
        self.hurry(now, rng);
    }

    /// Starts again with quick rounds.
    pub(super) fn hurry(&mut self, now: Mono, rng: &mut StdRng) {
        let soon = now + jitter(QUICK, rng);
        self.interval = QUICK;
        self.next_round = self.next_round.map(|at| at.min(soon));
    }

    /// What is known of each name that has not answered, for people.
    pub(super) fn unanswered(&self, live: &BTreeSet<SocketAddr>) -> Vec<String> {
        let silent = self.targets.iter().filter(|target| !target.is_answered(live));
        silent.map(|target| target.describe(live)).collect()
    }
}

impl Target {
    fn addrs(&self) -> &[SocketAddr] {
        match &self.found {
            Found::NotYet | Found::Failed(_) => &[],
            Found::Addrs(addrs) => addrs,
        }
    }

    fn silent<'a>(
        &'a self,
        live: &'a BTreeSet<SocketAddr>,
    ) -> impl Iterator<Item = &'a SocketAddr> {
        let is_silent = |addr: &&SocketAddr| !live.contains(addr) && !self.heard.contains(addr);
        self.addrs().iter().filter(is_silent)
    }

    fn is_answered(&self, live: &BTreeSet<SocketAddr>) -> bool {
        !self.addrs().is_empty() && self.silent(live).next().is_none()
    }

    fn describe(&self, live: &BTreeSet<SocketAddr>) -> String {
        match &self.found {
            Found::NotYet => format!("{} is not resolved yet", self.join),
            Found::Failed(reason) => format!("{} does not resolve: {reason}", self.join),
            Found::Addrs(_) => {
                let silent: Vec<String> = self.silent(live).map(SocketAddr::to_string).collect();
                format!("no answer from {} ({})", self.join, silent.join(", "))
            }
        }
    }
}

/// `interval`, give or take 20 %, so that nodes that start together do not stay in step.
fn jitter(interval: Duration, rng: &mut StdRng) -> Duration {
    interval * rng.random_range(80..=120) / 100
}

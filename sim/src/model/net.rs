//! What becomes of packets between two machines: [`Net`].

use std::time::Duration;

use crate::draws::Draws;
use crate::plan::{Options, Range};

/// What makes a packet late takes at most so many times the longest latency.
const TAIL_FACTOR: u64 = 100;

/// A stream sends a lost packet again, so that it breaks for only one in so many.
const STREAM_SPARED: u32 = 100;

/// What a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Gossip.
    Datagram,
    /// A session.
    Stream,
}

/// One direction between two machines.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    is_cut: bool,
    lag: Duration,
}

/// All links, and what happens on every one of them.
#[derive(Debug)]
pub(crate) struct Net {
    count: usize,
    links: Vec<Link>,
    latency: Range,
    loss: u32,
    duplicate: u32,
    tail: u32,
    draws: Draws,
}

/// When a packet arrives: not at all, once or twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    /// After so long, if it does.
    pub(crate) first: Option<Duration>,
    /// Once more.
    pub(crate) again: Option<Duration>,
}

impl Net {
    pub(crate) fn new(options: &Options) -> Self {
        let count = options.machines();
        Self {
            count,
            links: vec![Link::default(); count * count],
            latency: options.latency,
            loss: options.loss,
            duplicate: options.duplicate,
            tail: options.tail,
            draws: Draws::new(options.seed, "net"),
        }
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.count + to]
    }

    /// Nothing gets from one to the other.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.link(from, to).is_cut = true;
    }

    /// The link is well.
    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        *self.link(from, to) = Link::default();
    }

    /// Packets take so much longer.
    pub(crate) fn set_lag(&mut self, from: usize, to: usize, by: Duration) {
        self.link(from, to).lag = by;
    }

    /// So many of a million packets are lost from here on.
    pub(crate) fn set_loss(&mut self, ppm: u32) {
        self.loss = ppm;
    }

    /// Whether nothing gets from one to the other.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links[from * self.count + to].is_cut
    }

    /// What becomes of the next packet, on a network of this crate's own.
    pub(crate) fn fate(&mut self, from: usize, to: usize, kind: Kind) -> Fate {
        let Fate { first, again } = self.delay(from, to, kind);
        if self.is_cut(from, to) {
            return Fate::default();
        }
        let travels = self.draws.span(self.latency);
        Fate { first: first.map(|by| by + travels), again: again.map(|by| by + travels) }
    }

    /// What is added to the way of the next packet by what madsim's network does not do: lags, a
    /// long tail, packets that arrive twice, and losses that spare streams.
    pub(crate) fn delay(&mut self, from: usize, to: usize, kind: Kind) -> Fate {
        let loss = match kind {
            Kind::Datagram => self.loss,
            Kind::Stream => self.loss / STREAM_SPARED,
        };
        if self.draws.chance(loss) {
            return Fate::default();
        }
        let mut by = self.link(from, to).lag;
        let longest = self.latency.to;
        if self.draws.chance(self.tail) {
            by += self.draws.span(Range::micros(longest, longest * TAIL_FACTOR));
        }
        let twice = self.draws.chance(self.duplicate);
        let again = twice.then(|| by + self.draws.span(Range::micros(0, longest * 2)));
        Fate { first: Some(by), again }
    }

    /// A hash of all chance so far.
    pub(crate) fn hash(&self) -> u64 {
        self.draws.hash()
    }
}

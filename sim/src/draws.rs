//! Chance, in streams that do not disturb each other: [`Draws`].

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::plan::Range;

/// One stream of chance. All draws are hashed, so two runs that draw differently are told apart.
#[derive(Debug)]
pub(crate) struct Draws {
    rng: StdRng,
    hash: u64,
}

impl Draws {
    /// The stream called `name` of a seed. A fault that is taken out of a plan changes what comes
    /// after it in no stream but its own.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let mut mixed = seed;
        for byte in name.bytes() {
            mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
        Self { rng: StdRng::seed_from_u64(mixed), hash: mixed }
    }

    fn note(&mut self, drawn: u64) -> u64 {
        self.hash = (self.hash ^ drawn).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        drawn
    }

    /// Any number.
    pub(crate) fn any(&mut self) -> u64 {
        let drawn = self.rng.random();
        self.note(drawn)
    }

    /// A number of a range.
    pub(crate) fn number(&mut self, range: RangeInclusive<u64>) -> u64 {
        let drawn = self.rng.random_range(range);
        self.note(drawn)
    }

    /// An index of a list of `len` things, which is not empty.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        let last = len.checked_sub(1).expect("a choice has something to choose from");
        usize::try_from(self.number(0..=last as u64)).expect("it is below a length")
    }

    /// True `ppm` times of a million.
    pub(crate) fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.number(0..=999_999) < u64::from(ppm)
    }

    /// A duration of a range.
    pub(crate) fn span(&mut self, range: Range) -> Duration {
        if range.from == range.to {
            return Duration::from_micros(range.from);
        }
        Duration::from_micros(self.number(range.from..=range.to))
    }

    /// A hash of everything that was drawn.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

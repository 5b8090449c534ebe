//! The trace of a run, as one number: [`Trace`].

use std::fmt::{self, Write as _};

use cronclave::time::Now;

/// A hash over everything that entered and left all nodes, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace {
    hash: u64,
    len: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, len: 0 }
    }
}

impl Trace {
    /// Adds what happened at `node`.
    pub(crate) fn add(&mut self, node: usize, now: Now, what: &impl fmt::Debug) {
        self.len += 1;
        writeln!(self, "{node} {} {} {what:?}", now.mono, now.wall.as_micros())
            .expect("a hash takes any text");
    }

    /// The hash, and over how many inputs and outputs it goes.
    pub(crate) fn value(&self) -> (u64, u64) {
        (self.hash, self.len)
    }
}

impl fmt::Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // FNV-1a, over eight bytes at a time: it tells runs apart, and need not resist anybody.
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.hash ^= u64::from_le_bytes(word);
            self.hash = self.hash.wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
        Ok(())
    }
}

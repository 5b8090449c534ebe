//! Bounded memory and log: what a node and its surroundings hold stays under what the run allows.

use super::Verdict;
use super::seen::Load;
use super::tally::{Count, Judge};

#[derive(Debug)]
pub(super) struct Bounds {
    count: Count,
}

impl Bounds {
    pub(super) fn new() -> Self {
        Self { count: Count::new("bounds") }
    }

    pub(super) fn on_load(&mut self, judge: &mut Judge, host: usize, load: Load, max: Load) {
        let held = [
            ("inputs", load.inputs as u64, max.inputs as u64),
            ("log bytes", load.log_bytes, max.log_bytes),
            ("disk bytes", load.disk_bytes, max.disk_bytes),
            ("requests", load.requests as u64, max.requests as u64),
            ("frames", load.frames as u64, max.frames as u64),
        ];
        for (what, has, may) in held {
            self.count.check(judge, has <= may, || {
                format!("n{} holds {has} {what}, and at most {may} are allowed", host + 1)
            });
        }
    }

    pub(super) fn verdict(&self, judge: &Judge) -> Verdict {
        self.count.verdict(judge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_that_is_passed_is_found() {
        let max = Load { inputs: 1, log_bytes: 2, disk_bytes: 3, requests: 4, frames: 5 };
        let (mut judge, mut bounds) = (Judge::default(), Bounds::new());
        bounds.on_load(&mut judge, 0, max, max);
        assert!(bounds.verdict(&judge).is_green());
        let more = Load { inputs: 2, log_bytes: 3, disk_bytes: 4, requests: 5, frames: 6 };
        bounds.on_load(&mut judge, 0, more, max);
        let found = bounds.verdict(&judge).violations;
        assert_eq!(found.len(), 5);
        assert_eq!(found[0], "at 0.000000: n1 holds 2 inputs, and at most 1 are allowed");
    }
}

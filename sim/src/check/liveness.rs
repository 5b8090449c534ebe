//! Liveness: what was promised has to come by its deadline. Whoever knows that the cluster can
//! work promises; this keeps the books.

use std::collections::{BTreeMap, BTreeSet};

use cronclave::time::Mono;

use super::Verdict;
use super::tally::{Count, Judge};

#[derive(Debug)]
pub(super) struct Liveness {
    count: Count,
    promises: BTreeMap<String, (Mono, Mono)>,
    deadlines: BTreeSet<(Mono, String)>,
}

impl Liveness {
    pub(super) fn new() -> Self {
        let count = Count::new("liveness");
        Self { count, promises: BTreeMap::new(), deadlines: BTreeSet::new() }
    }

    /// From `at` on `what` is awaited, until `deadline`. A promise of the same name is replaced.
    pub(super) fn expect(&mut self, at: Mono, deadline: Mono, what: &str) {
        if let Some((_, before)) = self.promises.insert(what.to_owned(), (at, deadline)) {
            self.deadlines.remove(&(before, what.to_owned()));
        }
        self.deadlines.insert((deadline, what.to_owned()));
    }

    /// It has come. Nothing if nobody awaits it.
    pub(super) fn kept(&mut self, judge: &mut Judge, what: &str) {
        if let Some((_, deadline)) = self.promises.remove(what) {
            self.deadlines.remove(&(deadline, what.to_owned()));
            self.count.check(judge, true, String::new);
        }
    }

    /// The promise does not hold any more, and nobody is to blame.
    pub(super) fn release(&mut self, what: &str) {
        if let Some((_, deadline)) = self.promises.remove(what) {
            self.deadlines.remove(&(deadline, what.to_owned()));
        }
    }

    /// Time has passed.
    pub(super) fn on_time(&mut self, judge: &mut Judge) {
        let now = judge.at;
        while self.deadlines.first().is_some_and(|first| first.0 < now) {
            let Some((deadline, what)) = self.deadlines.pop_first() else { return };
            let since = self.promises.remove(&what).map(|(at, _)| at).unwrap_or_default();
            self.count.check(judge, false, || {
                format!("{what} was awaited from {since} to {deadline}, and has not come")
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

    fn at(micros: u64) -> Mono {
        Mono::from_micros(micros)
    }

    #[test]
    fn a_promise_that_is_kept_in_time_is_well_and_one_that_is_not_is_found() {
        let (mut judge, mut liveness) = (Judge::default(), Liveness::new());
        liveness.expect(at(1), at(10), "a leader");
        liveness.expect(at(1), at(20), "a write");
        liveness.expect(at(1), at(5), "a read");
        liveness.expect(at(2), at(15), "a read");
        judge.at = at(10);
        liveness.on_time(&mut judge);
        liveness.kept(&mut judge, "a leader");
        liveness.kept(&mut judge, "a leader");
        liveness.release("a write");
        assert!(liveness.verdict(&judge).is_green());
        assert_eq!(liveness.verdict(&judge).comparisons, 1);
        judge.at = at(30);
        liveness.on_time(&mut judge);
        assert_eq!(
            liveness.verdict(&judge).violations,
            ["at 0.000030: a read was awaited from 0.000002 to 0.000015, and has not come"]
        );
    }
}

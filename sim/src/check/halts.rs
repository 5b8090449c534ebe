//! No node halts or unwinds but for a fault of its machine, and no peer says what it may not.

use cronclave::node::io::Event;

use super::tally::{Count, Judge};
use super::{Setup, Verdict};

#[derive(Debug)]
pub(super) struct Halts {
    count: Count,
    /// How many messages of peers were rejected.
    pub(super) rejected: usize,
}

impl Halts {
    pub(super) fn new() -> Self {
        Self { count: Count::new("halts"), rejected: 0 }
    }

    pub(super) fn on_boot(&mut self, judge: &mut Judge) {
        // A node that runs is one that has not halted so far.
        self.count.check(judge, true, String::new);
    }

    pub(super) fn on_halt(
        &mut self,
        judge: &mut Judge,
        host: usize,
        reason: &str,
        is_excused: bool,
    ) {
        self.count.check(judge, is_excused, || format!("n{} halts: {reason}", host + 1));
    }

    pub(super) fn on_event(
        &mut self,
        judge: &mut Judge,
        setup: &Setup,
        host: usize,
        event: &Event,
    ) {
        if let Event::Rejected { peer, reason } = event {
            self.rejected += 1;
            self.count.check(judge, !setup.forbids_rejections, || {
                format!("n{} rejects a message of {peer:?}: {reason}", host + 1)
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
    fn a_halt_without_an_excuse_is_found() {
        let (mut judge, mut halts) = (Judge::default(), Halts::new());
        halts.on_boot(&mut judge);
        halts.on_halt(&mut judge, 1, "a sync failed", true);
        assert!(halts.verdict(&judge).is_green());
        halts.on_halt(&mut judge, 1, "a bug", false);
        assert_eq!(halts.verdict(&judge).violations, ["at 0.000000: n2 halts: a bug"]);
    }

    #[test]
    fn a_rejection_counts_as_the_run_says() {
        let rejected = Event::Rejected { peer: None, reason: "odd".to_owned() };
        let (mut judge, mut halts) = (Judge::default(), Halts::new());
        halts.on_event(&mut judge, &Setup::default(), 0, &rejected);
        assert!(halts.verdict(&judge).is_green());
        let strict = Setup { forbids_rejections: true, ..Setup::default() };
        halts.on_event(&mut judge, &strict, 0, &rejected);
        assert_eq!(halts.verdict(&judge).violations.len(), 1);
        assert_eq!(halts.rejected, 2);
    }
}

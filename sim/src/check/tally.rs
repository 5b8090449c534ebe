//! How checkers count what they compare, and where they leave what does not hold.

use cronclave::time::{Mono, Wall};

use super::Verdict;

/// The most violations of one checker that are kept; the rest are counted.
const KEPT_MAX: usize = 32;

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which checker found it.
    pub checker: &'static str,
    /// When, by the simulation's clock.
    pub at: Mono,
    /// What, as a sentence with the data in it.
    pub text: String,
}

/// The time, and all violations so far.
#[derive(Debug, Default)]
pub(super) struct Judge {
    pub(super) at: Mono,
    pub(super) wall: Wall,
    pub(super) violations: Vec<Violation>,
}

/// How much one checker has compared.
#[derive(Debug)]
pub(super) struct Count {
    checker: &'static str,
    comparisons: usize,
    violated: usize,
}

impl Count {
    pub(super) fn new(checker: &'static str) -> Self {
        Self { checker, comparisons: 0, violated: 0 }
    }

    /// Counts a comparison, and keeps `text` if it does not hold. Gives back whether it does.
    pub(super) fn check(
        &mut self,
        judge: &mut Judge,
        holds: bool,
        text: impl FnOnce() -> String,
    ) -> bool {
        self.comparisons += 1;
        if !holds {
            self.violated += 1;
            if self.violated <= KEPT_MAX {
                let Judge { at, violations, .. } = judge;
                violations.push(Violation { checker: self.checker, at: *at, text: text() });
            }
        }
        holds
    }

    /// What this checker says.
    pub(super) fn verdict(&self, judge: &Judge) -> Verdict {
        let mine = judge.violations.iter().filter(|violation| violation.checker == self.checker);
        let mut violations: Vec<String> =
            mine.map(|violation| format!("at {}: {}", violation.at, violation.text)).collect();
        if self.violated > KEPT_MAX {
            violations.push(format!("and {} more", self.violated - KEPT_MAX));
        }
        Verdict { checker: self.checker, comparisons: self.comparisons, violations }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_hold_is_kept_up_to_a_bound_and_counted_beyond() {
        let (mut judge, mut count) = (Judge::default(), Count::new("test"));
        assert!(count.check(&mut judge, true, || "never said".to_owned()));
        for number in 0..KEPT_MAX + 2 {
            assert!(!count.check(&mut judge, false, || format!("{number}")));
        }
        let verdict = count.verdict(&judge);
        assert_eq!(verdict.comparisons, KEPT_MAX + 3);
        assert_eq!(verdict.violations.first().unwrap(), "at 0.000000: 0");
        assert_eq!(verdict.violations.last().unwrap(), "and 2 more");
    }
}

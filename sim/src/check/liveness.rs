//! Liveness: what came of requests to servers that have to work, and its contrary, to servers that
//! must grant nothing. A plan says who has to do which, [`Wanted`]; what came of it is [`Probed`].
//!
//! "Works" and "stands still" are seen from outside alone, by what clients were granted and what
//! started, and each request has to have an answer in time, whichever it is.

use std::collections::BTreeMap;

use cronclave::time::Mono;

/// A cluster that works grants at least so many writes, and so many reads.
pub(crate) const GRANTED_MIN: usize = 50;

/// How many requests are made of each server that is to stand still, or has no space: writes and
/// reads in turn.
pub(crate) const STILL_ATTEMPTS: usize = 100;

/// What is expected of servers: see [`crate::plan::Expect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// They grant writes and reads, and jobs start.
    Progress,
    /// They grant nothing, and nothing starts.
    Still,
    /// They may do either; only that there are answers is judged.
    Either,
    /// They grant reads, and refuse each write for want of space by the name of who has none.
    Full,
    /// They grant no write, and nothing starts; reads are as may be.
    ReadOnly,
    /// They grant every write.
    Writes,
}

impl Wanted {
    /// The checker that judges it, if anything is judged but answers.
    pub(crate) fn checker(self) -> Option<&'static str> {
        match self {
            Self::Progress => Some("progress"),
            Self::Still | Self::ReadOnly => Some("stands still"),
            Self::Full => Some("full disks"),
            Self::Writes => Some("writes"),
            Self::Either => None,
        }
    }
}

/// What came of the requests to one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Writes that were granted.
    pub(crate) written: usize,
    /// Reads that were granted.
    pub(crate) read: usize,
    /// Refused for want of space, by the name of a server that has none.
    pub(crate) full: usize,
    /// Refused for another reason, or never taken.
    pub(crate) refused: usize,
    /// Of unknown outcome.
    pub(crate) unknown: usize,
    /// Granted, to who has to work, but only after the plan's next fault, or the end of the one
    /// under which it has to work.
    pub(crate) late: usize,
    /// Without any answer in time.
    pub(crate) silent: usize,
}

/// What came of a probe.
#[derive(Clone, Debug)]
pub(crate) struct Probed<'a> {
    pub(crate) wanted: Wanted,
    /// Who was asked.
    pub(crate) hosts: &'a [usize],
    /// From when on.
    pub(crate) since: Mono,
    /// How many requests were made of all of them.
    pub(crate) made: usize,
    pub(crate) tallies: &'a BTreeMap<usize, Tally>,
    /// How many processes started meanwhile, anywhere.
    pub(crate) started: u64,
    /// Whether there is somewhere to start them.
    pub(crate) can_start: bool,
    /// Whether others that may work were asked meanwhile.
    pub(crate) works_elsewhere: bool,
}

impl Probed<'_> {
    /// What does not hold: a checker, and a sentence.
    pub(crate) fn complaints(&self) -> Vec<(&'static str, String)> {
        let sum = |of: fn(&Tally) -> usize| self.tallies.values().map(of).sum::<usize>();
        let (written, read) = (sum(|tally| tally.written), sum(|tally| tally.read));
        let silent = sum(|tally| tally.silent);
        let told = self.told(written, read);
        let mut found = Vec::new();
        match self.wanted {
            Wanted::Progress => {
                if written < GRANTED_MIN || read < GRANTED_MIN {
                    found.push(format!("too little is granted by {told}"));
                }
                if self.started == 0 && self.can_start {
                    found.push(format!("nothing is started by {told}"));
                }
            }
            Wanted::Still | Wanted::ReadOnly => {
                if written > 0 || (read > 0 && self.wanted == Wanted::Still) {
                    found.push(format!("without a quorum something is granted by {told}"));
                }
                if self.started > 0 && !self.works_elsewhere {
                    let started = self.started;
                    found.push(format!("without a quorum {started} processes start: {told}"));
                }
            }
            Wanted::Full => {
                let half = STILL_ATTEMPTS / 2;
                let all = Tally { read: half, full: half, ..Tally::default() };
                if self.hosts.iter().any(|host| self.tallies.get(host) != Some(&all)) {
                    found.push(format!("not every write is refused for space by {told}"));
                }
            }
            Wanted::Writes => {
                if written < self.made / 2 {
                    found.push(format!("not every write is granted by {told}"));
                }
            }
            Wanted::Either => {}
        }
        let checker = self.wanted.checker();
        let found = found.into_iter().filter_map(|text| Some((checker?, text)));
        let silence =
            (silent > 0).then(|| ("answers", format!("{silent} requests have no answer: {told}")));
        found.chain(silence).collect()
    }

    fn told(&self, written: usize, read: usize) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(|host| format!("n{}", host + 1)).collect();
        format!(
            "{}, asked from {} on: {written} writes and {read} reads granted: {:?}",
            hosts.join(","),
            self.since,
            self.tallies
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who complains if servers n1 and n2 have each given these answers, and this many processes
    /// have started.
    fn complaints(wanted: Wanted, each: Tally, started: u64) -> Vec<&'static str> {
        judged(wanted, each, started, false)
    }

    fn judged(
        wanted: Wanted,
        each: Tally,
        started: u64,
        works_elsewhere: bool,
    ) -> Vec<&'static str> {
        let tallies = BTreeMap::from([(0, each), (1, each)]);
        let probed = Probed {
            wanted,
            hosts: &[0, 1],
            since: Mono::ZERO,
            made: 2 * STILL_ATTEMPTS,
            tallies: &tallies,
            started,
            can_start: true,
            works_elsewhere,
        };
        probed.complaints().into_iter().map(|(checker, _)| checker).collect()
    }

    const BUSY: Tally =
        Tally { written: 25, read: 25, full: 0, refused: 0, unknown: 0, late: 0, silent: 0 };
    const NOTHING: Tally = Tally { written: 0, read: 0, refused: 100, ..BUSY };

    #[test]
    fn who_works_grants_writes_and_reads_and_starts_jobs() {
        assert_eq!(complaints(Wanted::Progress, BUSY, 1), [""; 0]);
        for (each, started) in
            [(Tally { written: 24, ..BUSY }, 1), (Tally { read: 24, ..BUSY }, 1), (BUSY, 0)]
        {
            assert_eq!(complaints(Wanted::Progress, each, started), ["progress"], "{each:?}");
        }
        assert_eq!(complaints(Wanted::Progress, NOTHING, 0), ["progress", "progress"]);
        let late = Tally { late: 100, ..Tally::default() };
        assert_eq!(complaints(Wanted::Progress, late, 1), ["progress"], "after the fault");
    }

    #[test]
    fn who_stands_still_grants_nothing_and_starts_nothing() {
        assert_eq!(complaints(Wanted::Still, NOTHING, 0), [""; 0]);
        for (each, started) in
            [(Tally { written: 1, ..NOTHING }, 0), (Tally { read: 1, ..NOTHING }, 0), (NOTHING, 1)]
        {
            assert_eq!(complaints(Wanted::Still, each, started), ["stands still"], "{each:?}");
        }
        assert_eq!(judged(Wanted::Still, NOTHING, 1, true), [""; 0], "others started it");
        assert_eq!(complaints(Wanted::ReadOnly, Tally { read: 50, ..NOTHING }, 0), [""; 0]);
        assert_eq!(complaints(Wanted::ReadOnly, BUSY, 0), ["stands still"]);
    }

    #[test]
    fn want_of_space_is_named_in_every_answer_and_whoever_has_space_writes() {
        let full = Tally { read: 50, full: 50, ..Tally::default() };
        assert_eq!(complaints(Wanted::Full, full, 0), [""; 0]);
        assert_eq!(
            complaints(Wanted::Full, Tally { full: 49, refused: 1, ..full }, 0),
            ["full disks"]
        );
        assert_eq!(complaints(Wanted::Writes, Tally { written: 50, ..full }, 0), [""; 0]);
        assert_eq!(complaints(Wanted::Writes, Tally { written: 49, ..full }, 0), ["writes"]);
    }

    #[test]
    fn every_request_has_an_answer_whatever_is_expected() {
        let silent = Tally { silent: 1, ..NOTHING };
        assert_eq!(complaints(Wanted::Either, NOTHING, 0), [""; 0]);
        assert_eq!(complaints(Wanted::Either, silent, 0), ["answers"]);
        assert_eq!(complaints(Wanted::Still, silent, 0), ["answers"]);
    }
}

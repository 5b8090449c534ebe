//! What has to happen sometimes, lest a campaign proves nothing: [`Situation`], and how often each
//! has happened, [`Coverage`].

macro_rules! situations {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Something that a campaign must have met.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Situation {
            $($(#[$doc])* $name,)*
        }

        impl Situation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name in reports.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

situations! {
    /// The leader was cut off with a minority. Noted by whoever cuts.
    LeaderInMinority = "leader in minority",
    /// A minority was cut off, and the leader was not among it. Noted by whoever cuts.
    LeaderInMajority = "leader in majority",
    /// A link was cut in one direction only. Noted by whoever cuts.
    OneWayPartition = "one-way partition",
    /// Not all servers that reach each other reach the same others. Noted by whoever cuts.
    PartialPartition = "partial partition",
    /// As many servers as may be lost were lost for 10 s. Noted by whoever does it.
    ToleratedHeld = "tolerated faults held 10 s",
    /// One more was lost for 10 s. Noted by whoever does it.
    BeyondToleratedHeld = "one fault too many held 10 s",
    /// A leader died while something was on its way to its disk.
    LeaderCrashUnsynced = "leader crash with unsynced tail",
    /// A leader died.
    LeaderCrash = "leader crash",
    /// A leader was started again inside its lease, and was read from before that was over.
    LeaderRestartedInLeaseThenRead = "leader restarted inside its lease, then read",
    /// A server with a log that differs from the committed one made a snapshot durable.
    SnapshotOverDivergedLog = "snapshot installed while log diverges",
    /// A snapshot came from another server.
    SnapshotInstalled = "snapshot installed",
    /// A server died while a snapshot came in. Noted by whoever kills it.
    SnapshotReceiverDied = "snapshot receiver died",
    /// A server died while another one read a snapshot of its. Noted by whoever kills it.
    SnapshotSenderDied = "snapshot sender died",
    /// Two servers voted for themselves in one term.
    TwoCandidatesInTerm = "two candidates in one term",
    /// An entry of an earlier term stood on a majority and was not committed (Raft, figure 8).
    EarlierTermOnQuorum = "figure-8 shape",
    /// A server died that led a joint membership.
    JointInterrupted = "joint phase interrupted by crash",
    /// The set of voters changed.
    VotersChanged = "voters changed",
    /// A server campaigned and got no further than asking.
    PreVoteRefused = "pre-vote refused",
    /// A read was asked in one term and answered in a later one.
    ReadAcrossTerms = "read retried across terms",
    /// A server that had lost its disk votes again, as another.
    WipedRejoined = "wiped node rejoined",
    /// A log was cut at a start, and its end is in doubt.
    TornRecordFound = "torn record found",
    /// The end of a doubt was noted.
    DoubtSettled = "doubt settled",
    /// A disk could not be read for its damage. Noted by whoever boots on it.
    CorruptRecordFound = "corrupt record found",
    /// A sync failed. Noted by whoever lets it fail.
    SyncFailed = "sync failed",
    /// A sync hung. Noted by whoever lets it hang.
    SyncHung = "sync hung",
    /// A disk was full.
    DiskFull = "disk full",
    /// Entries were cut off because a leader's were others.
    LogTruncated = "log truncated on conflict",
    /// The log was purged.
    LogPurged = "log purged",
    /// An instant fell due under one leader, and was claimed by a later one.
    FireAcrossLeaders = "fire window crossed a leader change",
    /// A write was in the log twice, and done once.
    DuplicateWrite = "duplicate client retry",
    /// A write of unknown outcome turned out to be in the log.
    UnknownWriteDone = "unknown write was done",
    /// A write of unknown outcome turned out not to be in the log.
    UnknownWriteNotDone = "unknown write was not done",
    /// A client was told that there is no leader.
    NoLeaderTold = "client told of no leader",
    /// A process ended, and its node was not there to hear it.
    ProcessOutlivedNode = "process outlived its node",
    /// A node died while a process that it had started ran.
    NodeDiedWithRun = "node died during a run",
    /// An execution was given up as lost.
    RunLost = "run lost",
    /// An execution that was given up had an end after all.
    RunFoundAgain = "lost run ended after all",
    /// A due instant was skipped.
    RunSkipped = "run skipped",
    /// A due instant was missed.
    RunMissed = "run missed",
    /// A failed execution was tried again.
    RunRetried = "run retried",
    /// A process started more than 2 s after it was due.
    RunLate = "run late",
    /// A job was changed while an execution of it was open.
    JobChangedWhileOpen = "job changed while it ran",
    /// A leader's clock was off the cluster's.
    ClockOff = "leader's clock off",
    /// A process was paused while its clock went on. Noted by whoever does it.
    Paused = "node paused",
    /// A session hung. Noted by whoever lets it.
    SessionHung = "session hung",
    /// Servers of different configurations ran together. Noted by whoever starts them.
    MixedConfiguration = "mixed configuration",
    /// A thousand jobs and more were there. Noted by whoever puts them.
    ManyJobs = "thousands of jobs",
    /// Leadership was handed over without a crash: another server leads while the last one lives.
    HandedOver = "leadership moved to another live node",
}

/// How often each situation has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    counts: Vec<u64>,
}

impl Default for Coverage {
    fn default() -> Self {
        Self { counts: vec![0; Situation::ALL.len()] }
    }
}

impl Coverage {
    /// The situation has happened once more.
    pub fn note(&mut self, situation: Situation) {
        self.counts[situation as usize] += 1;
    }

    /// How often it has happened.
    pub fn count(&self, situation: Situation) -> u64 {
        self.counts[situation as usize]
    }

    /// Adds what another run has met.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// Those that have never happened.
    pub fn missing(&self) -> Vec<Situation> {
        Situation::ALL.iter().copied().filter(|situation| self.count(*situation) == 0).collect()
    }

    /// All of them with their counts.
    pub fn counts(&self) -> impl Iterator<Item = (Situation, u64)> + '_ {
        Situation::ALL.iter().map(|situation| (*situation, self.count(*situation)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_missing() {
        let mut coverage = Coverage::default();
        assert_eq!(coverage.missing().len(), Situation::ALL.len());
        for situation in &Situation::ALL[1..] {
            coverage.note(*situation);
        }
        assert_eq!(coverage.missing(), [Situation::LeaderInMinority]);
        let mut other = Coverage::default();
        other.note(Situation::LeaderInMinority);
        coverage.add(&other);
        assert_eq!(coverage.missing(), []);
        assert_eq!(coverage.counts().map(|(_, count)| count).sum::<u64>() as usize, 48);
    }
}

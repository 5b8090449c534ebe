//! What can be done to a simulated cluster: [`Action`].

use std::time::Duration;

use super::{Expect, Range};

/// A machine, by its number or by its place after the leader at the last [`Action::Mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The machine of this number, from 0; `n1` is 0.
    Host(usize),
    /// The server so many places after the marked leader, around; `@0` is the leader.
    After(usize),
}

/// What a loss of power leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Of each sector nothing, all, or its beginning, by chance.
    Torn,
}

/// A direction, seen from a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What it is sent is lost.
    In,
    /// What it sends is lost.
    Out,
    /// Both.
    Both,
}

/// What befalls a disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Disk {
    /// It has no space.
    Full,
    /// It takes so many times as long to sync.
    Slow(u32),
    /// It does nothing.
    Hang,
    /// Its next sync fails: the server ends, and what was not synced is lost by chance.
    FailSync,
    /// The next start cannot read it.
    FailRead,
    /// All of these are over.
    Well,
}

/// Where rot strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the last frame that is whole.
    End,
    /// In the middle of what is sealed.
    Middle,
}

/// What befalls a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The civil clock jumps by so many milliseconds.
    Jump(i64),
    /// Both clocks run fast by so many parts in a million.
    Drift(i32),
    /// Right again, to within milliseconds.
    Well,
}

/// What a server's configuration says otherwise than the options of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// What stretches the times of Raft, 1 to 10.
    RaftMultiplier(u8),
    /// A snapshot is taken after so many kilobytes of log; 0 is the product's default.
    SnapshotKb(u32),
}

/// What a server is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum During {
    /// A write to its log is on its way to the disk.
    Write,
    /// The voters are a joint membership.
    Joint,
    /// The end of its log is cut, and others write there: whoever does it.
    Truncate,
}

/// One thing that is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Takes note of the leader, for [`Target::After`], and of the moment, for [`Expect`]. The run
    /// fails if nobody leads and an expectation speaks of the leader.
    Mark,
    /// The power fails: the node and all processes of the machine die.
    Crash(Target, Keep),
    /// From here on, until something is healed: the power of the first server that is in the middle
    /// of this fails. With [`During::Write`] and [`During::Joint`] it has to lead.
    Ambush(During, Keep),
    /// The node is killed; its processes and what the system holds for the disk live on.
    Kill(Target),
    /// The node is told to stop, and hands over before it does.
    Stop(Target),
    /// A node that is down boots again.
    Restart(Target),
    /// The configuration is changed, from the next start on.
    Config(Target, Setting),
    /// The disk is lost. A node that runs dies.
    Wipe(Target),
    /// An image of the disk is taken, for [`Action::SetBack`].
    Image(Target),
    /// The power fails, and the disk is set back to the image.
    SetBack(Target),
    /// The power fails, and the disk is taken out. An empty one is in its place.
    Detach(Target),
    /// The power fails, and the disk that was taken out is in its place again.
    Attach(Target),
    /// A bit of the log rots. A node that runs does not notice.
    Rot(Target, Place),
    /// Something befalls the disk.
    Disk(Target, Disk),
    /// Nothing gets from the first to the second.
    Cut(Target, Target),
    /// Ends [`Action::Cut`].
    Mend(Target, Target),
    /// Only machines of one block reach each other. Agents and spares that are named nowhere are in
    /// the first.
    Partition(Vec<Vec<Target>>),
    /// A machine is cut off.
    Isolate(Target, Way),
    /// All links of a machine are mended, whatever else is wrong with it.
    Rejoin(Target),
    /// The packets from the first to the second take so much longer.
    Lag(Target, Target, Duration),
    /// Sessions from the first to the second hang: what is sent over them stays on its way.
    Hang(Target, Target),
    /// All sessions between the two break.
    Break(Target, Target),
    /// From here on so many of a million packets are lost.
    Loss(u32),
    /// From here on a client rests so long between two requests.
    Rest(Range),
    /// So many writes at once, of jobs that are never due, through this machine.
    Burst(Target, u32),
    /// The process stands still; its clocks and its disk go on.
    Pause(Target),
    /// Ends [`Action::Pause`].
    Resume(Target),
    /// Something befalls the clocks.
    Clock(Target, Clock),
    /// The node leaves the cluster, and stops when it has left.
    Leave(Target),
    /// All cuts, lags and hangs among these machines are over, they run, their disks and clocks are
    /// well.
    Heal(Vec<Target>),
    /// The same for all machines.
    HealAll,
    /// Something has to hold.
    Expect(Expect),
}

impl Action {
    /// Whether it does something to machines or links, for better or worse.
    pub fn befalls_machines(&self) -> bool {
        let is_ask =
            matches!(self, Self::Mark | Self::Image(_) | Self::Config(..) | Self::Expect(_));
        let is_load = matches!(self, Self::Rest(_) | Self::Burst(..));
        !is_ask && !is_load
    }

    /// Whether it breaks something.
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Mark
            | Self::Rest(_)
            | Self::Burst(..)
            | Self::Restart(_)
            | Self::Config(..)
            | Self::Mend(..)
            | Self::Rejoin(_)
            | Self::Resume(_)
            | Self::Heal(_)
            | Self::HealAll
            | Self::Expect(_)
            | Self::Image(_)
            | Self::Attach(_)
            | Self::Disk(_, Disk::Well)
            | Self::Clock(_, Clock::Well) => false,
            Self::Crash(..)
            | Self::Ambush(..)
            | Self::Kill(_)
            | Self::Stop(_)
            | Self::Wipe(_)
            | Self::SetBack(_)
            | Self::Detach(_)
            | Self::Rot(..)
            | Self::Disk(..)
            | Self::Cut(..)
            | Self::Partition(_)
            | Self::Isolate(..)
            | Self::Lag(..)
            | Self::Hang(..)
            | Self::Break(..)
            | Self::Loss(_)
            | Self::Pause(_)
            | Self::Clock(..)
            | Self::Leave(_) => true,
        }
    }
}

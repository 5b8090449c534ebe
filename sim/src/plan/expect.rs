//! What a plan expects of a cluster: [`Expect`].

use std::fmt;

use super::Target;
use super::text::{List, number, target, targets};
use crate::check::coverage::Situation;

/// What has to hold.
///
/// The first six are judged by requests to the servers that they name, from their moment on. The
/// others are judged at their moment; "since" is since the last [`Action::Mark`](super::Action), or
/// the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// These servers have a quorum: they have a leader, acknowledge and answer.
    Progress(Vec<Target>),
    /// These servers have none: they name no leader, acknowledge and answer nothing, and nothing
    /// starts.
    Still(Vec<Target>),
    /// Safe either way: what is acknowledged is checked as ever, and nothing is asked of progress.
    Either(Vec<Target>),
    /// These servers refuse every write for want of space, name a server that has none, and answer
    /// every read.
    Full(Vec<Target>),
    /// Too few disks take anything: these servers acknowledge no write, and nothing starts. They
    /// may name a leader and answer reads.
    ReadOnly(Vec<Target>),
    /// Every write through these servers is granted.
    Writes(Vec<Target>),
    /// One of these servers leads, by its own word.
    Leader(Vec<Target>),
    /// The node has told of this since: a variant's name of [`cronclave::node::io::Event`].
    Event(Target, String),
    /// At least so many processes have started since.
    Starts(u64),
    /// No process has started since.
    NoStarts,
    /// This has happened since.
    Situation(Situation),
    /// This has not happened since.
    NoSituation(Situation),
}

impl Expect {
    /// The machines that it names.
    pub fn targets(&self) -> Vec<Target> {
        match self {
            Self::Progress(targets)
            | Self::Still(targets)
            | Self::Either(targets)
            | Self::Full(targets)
            | Self::ReadOnly(targets)
            | Self::Writes(targets)
            | Self::Leader(targets) => targets.clone(),
            Self::Event(target, _) => vec![*target],
            Self::Starts(_) | Self::NoStarts | Self::Situation(_) | Self::NoSituation(_) => {
                Vec::new()
            }
        }
    }

    /// What the words of a plan after `expect` mean.
    pub(super) fn parse(words: &[&str]) -> Result<Self, String> {
        Ok(match *words {
            ["progress", hosts] => Self::Progress(targets(hosts)?),
            ["still", hosts] => Self::Still(targets(hosts)?),
            ["either", hosts] => Self::Either(targets(hosts)?),
            ["full", hosts] => Self::Full(targets(hosts)?),
            ["read-only", hosts] => Self::ReadOnly(targets(hosts)?),
            ["writes", hosts] => Self::Writes(targets(hosts)?),
            ["leader", hosts] => Self::Leader(targets(hosts)?),
            ["event", host, name] => Self::Event(target(host)?, name.to_owned()),
            ["starts", count] => Self::Starts(number(count)?),
            ["no", "starts"] => Self::NoStarts,
            ["situation", ref name @ ..] => Self::Situation(situation(name)?),
            ["no", "situation", ref name @ ..] => Self::NoSituation(situation(name)?),
            _ => return Err(format!("expect {}: nothing that a plan knows", words.join(" "))),
        })
    }
}

fn situation(words: &[&str]) -> Result<Situation, String> {
    let name = words.join(" ");
    let found = Situation::ALL.iter().copied().find(|known| known.as_str() == name);
    found.ok_or_else(|| format!("{name:?} is no situation that is counted"))
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Progress(targets) => write!(f, "progress {}", List(targets)),
            Self::Still(targets) => write!(f, "still {}", List(targets)),
            Self::Either(targets) => write!(f, "either {}", List(targets)),
            Self::Full(targets) => write!(f, "full {}", List(targets)),
            Self::ReadOnly(targets) => write!(f, "read-only {}", List(targets)),
            Self::Writes(targets) => write!(f, "writes {}", List(targets)),
            Self::Leader(targets) => write!(f, "leader {}", List(targets)),
            Self::Event(target, name) => write!(f, "event {target} {name}"),
            Self::Starts(count) => write!(f, "starts {count}"),
            Self::NoStarts => f.write_str("no starts"),
            Self::Situation(situation) => write!(f, "situation {}", situation.as_str()),
            Self::NoSituation(situation) => write!(f, "no situation {}", situation.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Expect, String> {
        Expect::parse(&text.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn what_is_expected_is_printed_and_read_back_to_the_letter() {
        for text in [
            "progress n1,@1",
            "still n1",
            "either n1,n2",
            "full @0,@1",
            "read-only @0,@1",
            "writes @0",
            "leader @1,@2",
            "event n3 DiskFull",
            "starts 18",
            "no starts",
            "situation snapshot installed",
            "situation leader restarted inside its lease, then read",
            "no situation run late",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("event n3 DiskFull").unwrap().targets(), [Target::Host(2)]);
    }

    #[test]
    fn what_nobody_can_expect_is_named() {
        assert!(parse("situation bliss").unwrap_err().contains("\"bliss\" is no situation"));
        assert!(parse("starts many").unwrap_err().contains("\"many\" is no number"));
        assert!(parse("no progress n1").unwrap_err().contains("expect no progress n1"));
        assert!(parse("").is_err());
    }
}

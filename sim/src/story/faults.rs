//! From when until when each fault of a plan holds, and on which machines.
//!
//! A line of the plan is read as the [`Action`] that it is. One that breaks something lasting (a
//! link, a disk, a clock, a pause) holds until it is mended, or the run ends; any other is over at
//! once.

use std::collections::BTreeMap;

use cronclave::time::Mono;

use super::telling::{name, without_time};
use super::{Moment, Story, What};
use crate::plan::{Action, Clock, Disk, Target};

/// A line of the plan that befell something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The line, without its time and with its machine.
    pub(super) label: String,
    /// Since when.
    pub(super) from: Mono,
    /// Until when it holds.
    pub(super) until: Until,
    /// The machines that it touches, each with its side; empty for the whole cluster.
    pub(super) touched: BTreeMap<usize, usize>,
    /// The line that mended it.
    pub(super) mended_by: Option<String>,
}

/// Until when a fault holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// It was over at once.
    AtOnce,
    /// Until then.
    Then(Mono),
    /// It was never mended.
    Open,
}

impl Fault {
    /// Whether it holds at `at`.
    pub(super) fn holds(&self, at: Mono) -> bool {
        let over = match self.until {
            Until::AtOnce => true,
            Until::Then(until) => at >= until,
            Until::Open => false,
        };
        self.from <= at && !over
    }
}

/// All faults of a story, in order.
pub(super) fn faults(story: &Story) -> Vec<Fault> {
    let mut faults: Vec<(Option<Action>, Fault)> = Vec::new();
    for moment in &story.moments {
        let What::Fault(line) = &moment.what else { continue };
        let line = without_time(line);
        let action: Option<Action> = line.parse().ok();
        let mended = action.as_ref().is_some_and(|action| {
            let open = faults.iter_mut().filter(|(broken, fault)| {
                let is_open = fault.until == Until::Open;
                is_open && broken.as_ref().is_some_and(|broken| mends(action, broken))
            });
            let ended = open.map(|(_, fault)| {
                fault.until = Until::Then(moment.at);
                fault.mended_by = Some(line.to_owned());
            });
            ended.count() > 0
        });
        let is_news = action.as_ref().is_none_or(|action| !is_mender(action) || !mended);
        if is_news {
            let fault = begin(story, moment, line, action.as_ref());
            faults.push((action, fault));
        }
    }
    faults.into_iter().map(|(_, fault)| fault).collect()
}

/// Whether a line names a machine.
pub(super) fn names(hosts: &[String], line: &str, host: usize) -> bool {
    let inside = |c: char| c.is_alphanumeric() || ['-', '_', '.'].contains(&c);
    let mut words = line.split(move |c| !inside(c));
    words.any(|word| hosts.get(host).is_some_and(|name| name == word))
}

fn begin(story: &Story, moment: &Moment, line: &str, action: Option<&Action>) -> Fault {
    let label = match moment.host {
        Some(host) if !names(&story.hosts, line, host) => {
            format!("{}: {line}", name(&story.hosts, host))
        }
        Some(_) | None => line.to_owned(),
    };
    let until = match action {
        Some(action) if is_lasting(action) => Until::Open,
        Some(_) | None => Until::AtOnce,
    };
    let mut touched = action.map(touched).unwrap_or_default();
    if let Some(host) = moment.host {
        touched.entry(host).or_default();
    }
    Fault { label, from: moment.at, until, touched, mended_by: None }
}

/// The machines that an action names, each with its side.
#[expect(clippy::wildcard_enum_match_arm, reason = "most actions are none of these")]
fn touched(action: &Action) -> BTreeMap<usize, usize> {
    let blocks = match action {
        Action::Partition(blocks) => blocks.clone(),
        _ => vec![action.targets()],
    };
    let sided = blocks.into_iter().enumerate();
    let sided = sided.flat_map(|(side, block)| block.into_iter().map(move |target| (target, side)));
    sided.filter_map(|(target, side)| Some((host(target)?, side))).collect()
}

/// A story names machines by their numbers.
fn host(target: Target) -> Option<usize> {
    match target {
        Target::Host(host) => Some(host),
        Target::After(_) => None,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "most actions are none of these")]
fn is_lasting(action: &Action) -> bool {
    match action {
        Action::Disk(_, disk) => *disk != Disk::Well,
        Action::Clock(_, clock) => *clock != Clock::Well,
        Action::Loss(ppm) => *ppm > 0,
        Action::Cut(..)
        | Action::Partition(_)
        | Action::Isolate(..)
        | Action::Lag(..)
        | Action::Hang(..)
        | Action::Pause(_) => true,
        _ => false,
    }
}

/// Whether an action only ends others.
fn is_mender(action: &Action) -> bool {
    matches!(
        action,
        Action::Mend(..)
            | Action::Rejoin(_)
            | Action::Resume(_)
            | Action::Heal(_)
            | Action::HealAll
            | Action::Disk(_, Disk::Well)
            | Action::Clock(_, Clock::Well)
            | Action::Loss(0)
    )
}

/// Whether an action ends one that holds.
fn mends(action: &Action, broken: &Action) -> bool {
    match (action, broken) {
        (Action::HealAll, _) => true,
        (Action::Heal(targets), _) => broken.targets().iter().all(|it| targets.contains(it)),
        (Action::Mend(from, to), Action::Cut(a, b) | Action::Lag(a, b, _) | Action::Hang(a, b)) => {
            (from, to) == (a, b)
        }
        (Action::Rejoin(host), Action::Isolate(alone, _)) => host == alone,
        (
            Action::Rejoin(host),
            Action::Cut(..) | Action::Lag(..) | Action::Hang(..) | Action::Partition(_),
        ) => broken.targets().len() == 2 && broken.targets().contains(host),
        (Action::Resume(host), Action::Pause(paused)) => host == paused,
        (Action::Disk(host, Disk::Well), Action::Disk(ill, _)) => host == ill,
        (Action::Clock(host, Clock::Well), Action::Clock(off, _)) => host == off,
        (Action::Loss(_), Action::Loss(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[(u64, &str)]) -> Vec<Fault> {
        let moment = |(secs, line): &(u64, &str)| Moment {
            at: Mono::from_micros(secs * 1_000_000),
            host: None,
            what: What::Fault((*line).to_owned()),
        };
        let hosts = ["n1", "n2", "n3", "n4"].map(str::to_owned).to_vec();
        let moments = lines.iter().map(moment).collect();
        faults(&Story { hosts, servers: 3, agents: 1, options: Vec::new(), moments })
    }

    fn then(secs: u64) -> Until {
        Until::Then(Mono::from_micros(secs * 1_000_000))
    }

    fn untils(lines: &[(u64, &str)]) -> Vec<Until> {
        read(lines).into_iter().map(|fault| fault.until).collect()
    }

    #[test]
    fn a_partition_holds_until_it_is_healed_and_has_sides() {
        let faults = read(&[(1, "t=1.000 partition n1,n2 n3"), (4, "heal all")]);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].label, "partition n1,n2 n3");
        assert_eq!(faults[0].until, then(4));
        assert_eq!(faults[0].touched, BTreeMap::from([(0, 0), (1, 0), (2, 1)]));
        assert_eq!(faults[0].mended_by.as_deref(), Some("heal all"));
        assert!(!faults[0].holds(Mono::ZERO));
        assert!(faults[0].holds(Mono::from_micros(1_000_000)));
        assert!(!faults[0].holds(Mono::from_micros(4_000_000)));
    }

    #[test]
    fn what_is_mended_ends_on_its_own_machine_only() {
        let lines = [
            (1, "pause n1"),
            (1, "pause n2"),
            (2, "disk n3 slow=80"),
            (2, "cut n1 n2"),
            (2, "clock n1 jump=-9"),
            (3, "resume n1"),
            (4, "disk n3 well"),
            (5, "mend n2 n1"),
            (6, "mend n1 n2"),
            (7, "clock n1 well"),
        ];
        let wrong_way = Until::AtOnce;
        assert_eq!(untils(&lines), [then(3), Until::Open, then(4), then(6), then(7), wrong_way]);
    }

    #[test]
    fn a_heal_mends_what_lies_among_its_machines() {
        let lines = [(1, "cut n1 n2"), (1, "cut n1 n3"), (1, "isolate n2 both"), (3, "heal n1,n2")];
        assert_eq!(untils(&lines), [then(3), Until::Open, then(3)]);
    }

    #[test]
    fn a_crash_is_over_at_once_and_another_loss_takes_the_place_of_the_last() {
        let lines = [(1, "crash n1 keep=torn"), (2, "loss 900"), (3, "loss 10"), (4, "gremlins")];
        assert_eq!(untils(&lines), [Until::AtOnce, then(3), Until::Open, Until::AtOnce]);
    }
}

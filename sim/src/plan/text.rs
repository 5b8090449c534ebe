//! Plans as text, and back.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::mutant::Mutant;

use super::{
    Action, Clock, Disk, During, Expect, Keep, Options, Place, Plan, Range, Seconds, Step,
};
use super::{Setting, Target, Way};

/// The first line of every plan.
const HEAD: &str = "plan 1";

/// Why a text is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for ParseError {}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}")?;
        write!(f, "{}", self.options)?;
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        writeln!(f, "t={} end", Seconds(self.end))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t={} {}", Seconds(self.at), self.action)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "n{}", host + 1),
            Self::After(place) => write!(f, "@{place}"),
        }
    }
}

/// Targets with commas between them.
pub(super) struct List<'a>(pub(super) &'a [Target]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, target) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{target}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "keep=none",
            Self::All => "keep=all",
            Self::Torn => "keep=torn",
        })
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::None, Self::All, Self::Torn];
        let found = all.into_iter().find(|keep| keep.to_string() == text);
        found.ok_or_else(|| format!("{text:?}: keep=none, keep=all or keep=torn"))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark => f.write_str("mark"),
            Self::Crash(target, keep) => write!(f, "crash {target} {keep}"),
            Self::Ambush(During::Write, keep) => write!(f, "ambush write {keep}"),
            Self::Ambush(During::Joint, keep) => write!(f, "ambush joint {keep}"),
            Self::Ambush(During::Truncate, keep) => write!(f, "ambush truncate {keep}"),
            Self::Kill(target) => write!(f, "kill {target}"),
            Self::Stop(target) => write!(f, "stop {target}"),
            Self::Restart(target) => write!(f, "restart {target}"),
            Self::Config(target, setting) => write!(f, "config {target} {setting}"),
            Self::Wipe(target) => write!(f, "wipe {target}"),
            Self::Image(target) => write!(f, "image {target}"),
            Self::SetBack(target) => write!(f, "set-back {target}"),
            Self::Detach(target) => write!(f, "detach {target}"),
            Self::Attach(target) => write!(f, "attach {target}"),
            Self::Rot(target, Place::End) => write!(f, "rot {target} end"),
            Self::Rot(target, Place::Middle) => write!(f, "rot {target} middle"),
            Self::Disk(target, disk) => match disk {
                Disk::Full => write!(f, "disk {target} full"),
                Disk::Slow(factor) => write!(f, "disk {target} slow={factor}"),
                Disk::Hang => write!(f, "disk {target} hang"),
                Disk::FailSync => write!(f, "disk {target} fail-sync"),
                Disk::FailRead => write!(f, "disk {target} fail-read"),
                Disk::Well => write!(f, "disk {target} well"),
            },
            Self::Cut(from, to) => write!(f, "cut {from} {to}"),
            Self::Mend(from, to) => write!(f, "mend {from} {to}"),
            Self::Partition(blocks) => {
                f.write_str("partition")?;
                blocks.iter().try_for_each(|block| write!(f, " {}", List(block)))
            }
            Self::Isolate(target, way) => {
                let way = match way {
                    Way::In => "in",
                    Way::Out => "out",
                    Way::Both => "both",
                };
                write!(f, "isolate {target} {way}")
            }
            Self::Rejoin(target) => write!(f, "rejoin {target}"),
            Self::Lag(from, to, by) => write!(f, "lag {from} {to} {}", Seconds(*by)),
            Self::Hang(from, to) => write!(f, "hang {from} {to}"),
            Self::Break(a, b) => write!(f, "break {a} {b}"),
            Self::Loss(ppm) => write!(f, "loss {ppm}"),
            Self::Rest(rest) => write!(f, "rest {rest}"),
            Self::Burst(target, count) => write!(f, "burst {target} {count}"),
            Self::Pause(target) => write!(f, "pause {target}"),
            Self::Resume(target) => write!(f, "resume {target}"),
            Self::Clock(target, clock) => match clock {
                Clock::Jump(ms) => write!(f, "clock {target} jump={ms}"),
                Clock::Drift(ppm) => write!(f, "clock {target} drift={ppm}"),
                Clock::Well => write!(f, "clock {target} well"),
            },
            Self::Leave(target) => write!(f, "leave {target}"),
            Self::Heal(targets) => write!(f, "heal {}", List(targets)),
            Self::HealAll => f.write_str("heal all"),
            Self::Expect(expect) => write!(f, "expect {expect}"),
        }
    }
}

impl FromStr for Plan {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut lines =
            text.lines().enumerate().map(|(at, line)| (at + 1, line)).filter_map(|(at, line)| {
                let line = line.split('#').next().unwrap_or_default().trim();
                (!line.is_empty()).then_some((at, line))
            });
        let bad = |line: usize, reason: String| ParseError { line, reason };
        match lines.next() {
            Some((_, HEAD)) => {}
            Some((at, line)) => return Err(bad(at, format!("{line:?}: a plan begins {HEAD:?}"))),
            None => return Err(bad(1, format!("nothing: a plan begins {HEAD:?}"))),
        }
        let (mut options, mut steps, mut end) = (Options::default(), Vec::<Step>::new(), None);
        for (at, line) in lines {
            if end.is_some() {
                return Err(bad(at, format!("{line:?} comes after the end")));
            }
            let Some(rest) = line.strip_prefix("t=") else {
                options.set(line).map_err(|reason| bad(at, reason))?;
                continue;
            };
            let (time, action) = rest.split_once(' ').unwrap_or((rest, ""));
            let time = seconds(time).map_err(|reason| bad(at, reason))?;
            if steps.last().is_some_and(|step| step.at > time) {
                return Err(bad(at, format!("{rest:?} comes before the step above it")));
            }
            if action == "end" {
                end = Some(time);
                continue;
            }
            let action = action.parse().map_err(|reason| bad(at, reason))?;
            steps.push(Step { at: time, action });
        }
        let last = text.lines().count();
        let end = end.ok_or_else(|| bad(last, "a plan ends with `t=SECONDS end`".to_owned()))?;
        let plan = Self { options, steps, end };
        plan.check().map_err(|reason| bad(last, reason))?;
        Ok(plan)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..1e6).contains(number));
    let number = number.ok_or_else(|| format!("{text:?} is no time in seconds"))?;
    // Rounded, since 12.403 is no sum of powers of two.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 1e12")]
    Ok(Duration::from_micros((number * 1e6).round() as u64))
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        target(text)
    }
}

pub(super) fn target(text: &str) -> Result<Target, String> {
    let wanted = || format!("{text:?} is no machine: n1, n2, ... or @0, @1, ...");
    if let Some(number) = text.strip_prefix('n') {
        let number: usize = number.parse().map_err(|_| wanted())?;
        return number.checked_sub(1).map(Target::Host).ok_or_else(wanted);
    }
    let place = text.strip_prefix('@').and_then(|place| place.parse().ok());
    place.map(Target::After).ok_or_else(wanted)
}

pub(super) fn targets(text: &str) -> Result<Vec<Target>, String> {
    text.split(',').map(target).collect()
}

pub(super) fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number that fits here"))
}

/// A server holds only so many requests, and each is an event of its own.
const BURST_MAX: u32 = 1_000;

fn burst(count: &str) -> Result<u32, String> {
    match number(count)? {
        count @ 1..=BURST_MAX => Ok(count),
        count => Err(format!("{count} writes: a burst is from 1 to {BURST_MAX}")),
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        Ok(match words[..] {
            ["mark"] => Self::Mark,
            ["crash", host, keep] => Self::Crash(target(host)?, keep.parse()?),
            ["ambush", "write", keep] => Self::Ambush(During::Write, keep.parse()?),
            ["ambush", "joint", keep] => Self::Ambush(During::Joint, keep.parse()?),
            ["ambush", "truncate", keep] => Self::Ambush(During::Truncate, keep.parse()?),
            ["kill", host] => Self::Kill(target(host)?),
            ["stop", host] => Self::Stop(target(host)?),
            ["restart", host] => Self::Restart(target(host)?),
            ["config", host, what] => Self::Config(target(host)?, what.parse()?),
            ["wipe", host] => Self::Wipe(target(host)?),
            ["image", host] => Self::Image(target(host)?),
            ["set-back", host] => Self::SetBack(target(host)?),
            ["detach", host] => Self::Detach(target(host)?),
            ["attach", host] => Self::Attach(target(host)?),
            ["rot", host, "end"] => Self::Rot(target(host)?, Place::End),
            ["rot", host, "middle"] => Self::Rot(target(host)?, Place::Middle),
            ["disk", host, what] => Self::Disk(target(host)?, disk(what)?),
            ["cut", from, to] => Self::Cut(target(from)?, target(to)?),
            ["mend", from, to] => Self::Mend(target(from)?, target(to)?),
            ["partition", ref blocks @ ..] if blocks.len() > 1 => Self::Partition(
                blocks.iter().map(|block| targets(block)).collect::<Result<_, _>>()?,
            ),
            ["isolate", host, way] => Self::Isolate(
                target(host)?,
                match way {
                    "in" => Way::In,
                    "out" => Way::Out,
                    "both" => Way::Both,
                    _ => return Err(format!("{way:?}: in, out or both")),
                },
            ),
            ["rejoin", host] => Self::Rejoin(target(host)?),
            ["lag", from, to, by] => Self::Lag(target(from)?, target(to)?, seconds(by)?),
            ["hang", from, to] => Self::Hang(target(from)?, target(to)?),
            ["break", a, b] => Self::Break(target(a)?, target(b)?),
            ["loss", ppm] => Self::Loss(number(ppm)?),
            ["rest", range] => Self::Rest(range.parse()?),
            ["burst", host, count] => Self::Burst(target(host)?, burst(count)?),
            ["pause", host] => Self::Pause(target(host)?),
            ["resume", host] => Self::Resume(target(host)?),
            ["clock", host, what] => Self::Clock(target(host)?, clock(what)?),
            ["leave", host] => Self::Leave(target(host)?),
            ["heal", "all"] => Self::HealAll,
            ["heal", hosts] => Self::Heal(targets(hosts)?),
            ["expect", ref what @ ..] => Self::Expect(Expect::parse(what)?),
            _ => return Err(format!("{text:?} is no action that a plan knows")),
        })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RaftMultiplier(by) => write!(f, "raft-multiplier={by}"),
            Self::SnapshotKb(kb) => write!(f, "snapshot-kb={kb}"),
        }
    }
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("raft-multiplier", by)) => match number(by)? {
                by @ 1..=10 => Ok(Self::RaftMultiplier(by)),
                by => Err(format!("raft-multiplier={by}: 1 to 10")),
            },
            Some(("snapshot-kb", kb)) => Ok(Self::SnapshotKb(number(kb)?)),
            _ => Err(format!("{text:?}: raft-multiplier=N or snapshot-kb=N")),
        }
    }
}

fn disk(text: &str) -> Result<Disk, String> {
    Ok(match text.split_once('=') {
        Some(("slow", factor)) => Disk::Slow(number(factor)?),
        None if text == "full" => Disk::Full,
        None if text == "hang" => Disk::Hang,
        None if text == "fail-sync" => Disk::FailSync,
        None if text == "fail-read" => Disk::FailRead,
        None if text == "well" => Disk::Well,
        _ => return Err(format!("{text:?}: full, slow=N, hang, fail-sync, fail-read or well")),
    })
}

fn clock(text: &str) -> Result<Clock, String> {
    Ok(match text.split_once('=') {
        Some(("jump", ms)) => Clock::Jump(number(ms)?),
        Some(("drift", ppm)) => {
            let ppm = number(ppm)?;
            if !(-900_000..=9_000_000).contains(&ppm) {
                return Err(format!("drift={ppm}: from -900000 to 9000000 parts in a million"));
            }
            Clock::Drift(ppm)
        }
        None if text == "well" => Clock::Well,
        _ => return Err(format!("{text:?}: jump=MILLISECONDS, drift=PPM or well")),
    })
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pairs().into_iter().try_for_each(|(name, value)| writeln!(f, "{name} {value}"))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}us", self.from, self.to)
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text.strip_suffix("us").and_then(|text| text.split_once(".."));
        let (from, to) = ends.ok_or_else(|| format!("{text:?}: a range is FROM..TOus"))?;
        let range = Self { from: number(from)?, to: number(to)? };
        if range.from > range.to {
            return Err(format!("{text:?}: the first is greater than the second"));
        }
        Ok(range)
    }
}

impl Options {
    /// Every option with its value, in the order in which they are printed.
    pub fn pairs(&self) -> Vec<(String, String)> {
        let pairs: [(&str, &dyn fmt::Display); 25] = [
            ("seed", &self.seed),
            ("servers", &self.servers),
            ("agents", &self.agents),
            ("spares", &self.spares),
            ("raft-multiplier", &self.raft_multiplier),
            ("latency", &self.latency),
            ("loss", &self.loss),
            ("duplicate", &self.duplicate),
            ("tail", &self.tail),
            ("sync", &self.sync),
            ("turn", &self.turn),
            ("skew", &self.skew),
            ("clients", &self.clients),
            ("rest", &self.rest),
            ("jobs", &self.jobs),
            ("stock", &self.stock),
            ("reads", &self.reads),
            ("job-bytes", &self.job_bytes),
            ("period", &self.period),
            ("run", &self.run),
            ("fails", &self.fails),
            ("snapshot-kb", &self.snapshot_kb),
            ("segment-kb", &self.segment_kb),
            ("grace", &self.grace),
            ("lost-after", &self.lost_after),
        ];
        let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_string()));
        pairs.chain(self.mutant.iter().map(|name| ("mutant".to_owned(), name.clone()))).collect()
    }

    fn set(&mut self, line: &str) -> Result<(), String> {
        let (name, value) = line
            .split_once(' ')
            .map(|(name, value)| (name, value.trim()))
            .ok_or_else(|| format!("{line:?} is no option with its value"))?;
        let told = |reason: String| format!("option {name}: {reason}");
        match name {
            "seed" => self.seed = number(value).map_err(told)?,
            "servers" => self.servers = number(value).map_err(told)?,
            "agents" => self.agents = number(value).map_err(told)?,
            "spares" => self.spares = number(value).map_err(told)?,
            "raft-multiplier" => self.raft_multiplier = number(value).map_err(told)?,
            "latency" => self.latency = value.parse().map_err(told)?,
            "loss" => self.loss = number(value).map_err(told)?,
            "duplicate" => self.duplicate = number(value).map_err(told)?,
            "tail" => self.tail = number(value).map_err(told)?,
            "sync" => self.sync = value.parse().map_err(told)?,
            "turn" => self.turn = value.parse().map_err(told)?,
            "skew" => self.skew = number(value).map_err(told)?,
            "clients" => self.clients = number(value).map_err(told)?,
            "rest" => self.rest = value.parse().map_err(told)?,
            "jobs" => self.jobs = number(value).map_err(told)?,
            "stock" => self.stock = number(value).map_err(told)?,
            "reads" => self.reads = number(value).map_err(told)?,
            "job-bytes" => self.job_bytes = number(value).map_err(told)?,
            "period" => self.period = number(value).map_err(told)?,
            "run" => self.run = value.parse().map_err(told)?,
            "fails" => self.fails = number(value).map_err(told)?,
            "snapshot-kb" => self.snapshot_kb = number(value).map_err(told)?,
            "segment-kb" => self.segment_kb = number(value).map_err(told)?,
            "grace" => self.grace = number(value).map_err(told)?,
            "lost-after" => self.lost_after = number(value).map_err(told)?,
            "mutant" => self.mutant = Some(value.to_owned()),
            _ => return Err(format!("{name:?} is no option that a plan knows")),
        }
        Ok(())
    }
}

impl Plan {
    /// What a plan may not say, for whoever edits one.
    fn check(&self) -> Result<(), String> {
        let options = &self.options;
        if !(1..=7).contains(&options.servers) || options.servers + options.spares > 9 {
            return Err("servers: 1 to 7, and 9 with the spares".to_owned());
        }
        if options.agents > 8 {
            return Err("agents: at most 8".to_owned());
        }
        if !(1..=10).contains(&options.raft_multiplier) {
            return Err("raft-multiplier: 1 to 10".to_owned());
        }
        for (name, value) in [("loss", options.loss), ("duplicate", options.duplicate)] {
            if value > 1_000_000 {
                return Err(format!("{name} {value}: at most 1000000, parts in a million"));
            }
        }
        if options.job_bytes > 500_000 {
            return Err("job-bytes: at most 500000".to_owned());
        }
        if options.stock > 10_000 {
            return Err("stock: at most 10000".to_owned());
        }
        if options.jobs == 0 || options.period == 0 || options.segment_kb < 8 {
            return Err("jobs and period are at least 1, segment-kb at least 8".to_owned());
        }
        if let Some(name) = &options.mutant {
            name.parse::<Mutant>().map_err(|error| error.to_string())?;
        }
        let machines = options.machines();
        for step in &self.steps {
            let known = |target: &Target| match *target {
                Target::Host(host) => host < machines,
                Target::After(place) => place < options.servers,
            };
            if let Some(target) = step.action.targets().iter().find(|target| !known(target)) {
                return Err(format!("{step}: there is no machine {target}"));
            }
        }
        Ok(())
    }
}

impl Action {
    /// The machines that it names.
    pub fn targets(&self) -> Vec<Target> {
        match self {
            Self::Mark | Self::Ambush(..) | Self::Loss(_) | Self::Rest(_) | Self::HealAll => {
                Vec::new()
            }
            Self::Crash(target, _)
            | Self::Kill(target)
            | Self::Stop(target)
            | Self::Restart(target)
            | Self::Config(target, _)
            | Self::Wipe(target)
            | Self::Image(target)
            | Self::SetBack(target)
            | Self::Detach(target)
            | Self::Attach(target)
            | Self::Rot(target, _)
            | Self::Disk(target, _)
            | Self::Burst(target, _)
            | Self::Isolate(target, _)
            | Self::Rejoin(target)
            | Self::Pause(target)
            | Self::Resume(target)
            | Self::Clock(target, _)
            | Self::Leave(target) => vec![*target],
            Self::Cut(a, b)
            | Self::Mend(a, b)
            | Self::Lag(a, b, _)
            | Self::Hang(a, b)
            | Self::Break(a, b) => vec![*a, *b],
            Self::Partition(blocks) => blocks.concat(),
            Self::Heal(targets) => targets.clone(),
            Self::Expect(expect) => expect.targets(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "plan 1
seed 42
servers 5
agents 2
spares 1
raft-multiplier 1
latency 200..1500us
loss 10
duplicate 0
tail 0
sync 1000..5000us
turn 0..0us
skew 5
clients 2
rest 100000..400000us
jobs 8
stock 0
reads 40
job-bytes 0
period 1
run 5000..400000us
fails 10
snapshot-kb 0
segment-kb 64
grace 86400
lost-after 60
mutant early-completion
t=1.000 mark
t=12.403 crash n3 keep=torn
t=12.403001 ambush write keep=none
t=12.403001 ambush joint keep=all
t=12.403001 ambush truncate keep=all
t=12.403001 kill @0
t=13.000 stop n1
t=13.000 restart n3
t=13.500 image n2
t=13.500 config n2 raft-multiplier=3
t=13.500 config n2 snapshot-kb=16
t=14.000 wipe n3
t=14.000 set-back n2
t=14.050 detach n2
t=14.060 attach n2
t=14.100 rot n1 end
t=14.200 rot n1 middle
t=15.000 disk n1 full
t=15.000 disk n1 slow=20
t=15.000 disk n1 hang
t=15.000 disk n1 fail-sync
t=15.000 disk n1 fail-read
t=15.000 disk n1 well
t=16.000 cut n1 n2
t=16.000 mend n1 n2
t=16.000 partition @0,@1 @2,@3,@4
t=16.000 isolate n1 in
t=16.000 rejoin n1
t=16.000 lag n1 n2 0.250
t=16.000 hang n1 n2
t=16.000 break n1 n2
t=16.000 loss 5000
t=16.000 rest 1000..5000us
t=16.000 burst @0 100
t=17.000 pause n4
t=18.000 resume n4
t=18.000 clock n4 jump=-3600000
t=18.000 clock n4 drift=200
t=18.000 clock n4 well
t=19.000 leave n5
t=20.000 heal n1,n2
t=21.000 heal all
t=22.000 expect progress @1,@2
t=22.000 expect still n1
t=22.000 expect either n1
t=22.000 expect event @0 DiskFull
t=30.000 end
";

    #[test]
    fn a_plan_is_printed_and_read_back_to_the_letter() {
        let plan: Plan = TEXT.parse().unwrap();
        assert_eq!(plan.to_string(), TEXT);
        assert_eq!(plan.options.servers, 5);
        assert_eq!(plan.end, Duration::from_secs(30));
        assert_eq!(plan.steps.len(), 46);
    }

    #[test]
    fn what_a_plan_leaves_out_is_the_default_and_comments_are_passed_over() {
        let plan: Plan = "# why\nplan 1\nservers 1 # one\n\nt=9 end".parse().unwrap();
        assert_eq!(plan.options, Options { servers: 1, ..Options::default() });
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let told = |text: &str| text.parse::<Plan>().unwrap_err().to_string();
        assert!(told("plan 2\nt=1 end").starts_with("line 1: \"plan 2\""));
        assert!(told("plan 1\nsize 3\nt=1 end").starts_with("line 2: \"size\" is no option"));
        assert!(told("plan 1\nt=1 crash n3\nt=2 end").starts_with("line 2: \"crash n3\""));
        assert!(told("plan 1\nt=1 kill n9\nt=2 end").contains("there is no machine n9"));
        assert!(told("plan 1\nt=2 mark\nt=1 mark\nt=3 end").starts_with("line 3:"));
        assert!(told("plan 1\nt=-1 mark\nt=3 end").contains("no time in seconds"));
        assert!(told("plan 1\nservers 8\nt=3 end").contains("1 to 7"));
        assert!(told("plan 1\nt=1 config n1 raft-multiplier=11\nt=3 end").contains("1 to 10"));
        assert!(told("plan 1\nt=1 burst n1 5000\nt=3 end").contains("from 1 to 1000"));
        assert!(told("plan 1").contains("end"));
        assert!(told("").contains("a plan begins"));
    }

    #[test]
    fn plans_that_seeds_make_are_read_back_as_they_were() {
        for seed in 0..500 {
            let plan = crate::plan::generate(seed);
            let text = plan.to_string();
            assert_eq!(text.parse::<Plan>().unwrap(), plan, "{text}");
        }
    }
}

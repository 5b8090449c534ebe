//! What the demo shows: a table on a terminal, else a line for each change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::nodes::Nodes;
use super::watch::{Run, View};

/// Where a time of day begins and ends in an RFC 3339 time; tenths of a second are enough.
const TIME_OF_DAY: std::ops::Range<usize> = 11..21;
/// How many ended runs are remembered as shown.
const SHOWN_MAX: usize = 64;

/// What stands above the table.
pub(super) fn heading(nodes: &Nodes) -> String {
    let mut text = "cronclave demo: three servers and an agent; Ctrl-C ends it\n".to_owned();
    for (name, addr) in nodes.servers() {
        let _ = writeln!(text, "  {name}  curl http://{addr}:8080/v1/jobs/demo/executions?pretty");
    }
    let _ = writeln!(text, "  data and logs: {}\n", nodes.directory().display());
    text
}

/// The cluster at this moment.
pub(super) fn table(nodes: &Nodes, view: &View) -> String {
    table_of(view, nodes.notes())
}

fn table_of(view: &View, notes: &[String]) -> String {
    let mut text = String::new();
    let leader = view.leader.as_deref().unwrap_or("none");
    let _ = writeln!(text, "leader {leader}   term {}", view.term);
    if !view.waiting_for.is_empty() {
        let _ = writeln!(text, "{}", view.waiting_for);
    }
    let _ = writeln!(text, "\nMEMBER  ADDRESS              ROLE    RAFT     STATUS");
    for member in &view.members {
        let _ = writeln!(
            text,
            "{:<7} {:<20} {:<7} {:<8} {}",
            member.name, member.addr, member.role, member.raft, member.status
        );
    }
    let _ = writeln!(text, "\nDUE (UTC)   NODE    OUTCOME    LATENESS");
    for run in &view.runs {
        let (due, late) = (time_of_day(&run.due), lateness(run));
        let _ = writeln!(text, "{due:<11} {:<7} {:<10} {late}", run.node, run.outcome);
    }
    text.push('\n');
    for note in notes {
        let _ = writeln!(text, "{note}");
    }
    text
}

/// Turns looks at the cluster into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    leader: Option<(String, u64)>,
    waiting_for: String,
    members: BTreeMap<String, String>,
    runs: BTreeSet<(String, String)>,
    note: Option<String>,
    success: Seen,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    #[default]
    NotYet,
    Yes,
}

impl Lines {
    /// A line for whatever is new.
    pub(super) fn changes(&mut self, nodes: &Nodes, view: &View) -> String {
        self.changes_of(view, nodes.notes())
    }

    pub(super) fn has_success(&self) -> bool {
        self.success == Seen::Yes
    }

    fn changes_of(&mut self, view: &View, notes: &[String]) -> String {
        let mut text = String::new();
        let known = self.note.as_ref().and_then(|last| notes.iter().rposition(|n| n == last));
        for note in notes.iter().skip(known.map_or(0, |known| known + 1)) {
            let _ = writeln!(text, "{note}");
            self.note = Some(note.clone());
        }
        if view.waiting_for != self.waiting_for {
            self.waiting_for.clone_from(&view.waiting_for);
            if !view.waiting_for.is_empty() {
                let _ = writeln!(text, "{}", view.waiting_for);
            }
        }
        let leader = view.leader.clone().map(|leader| (leader, view.term));
        if leader != self.leader {
            let _ = match &leader {
                Some((name, term)) => writeln!(text, "leader {name}, term {term}"),
                None => writeln!(text, "no leader"),
            };
            self.leader = leader;
        }
        for member in &view.members {
            let state = format!("{} {} {}", member.role, member.raft, member.status);
            if self.members.get(&member.name) != Some(&state) {
                let _ = writeln!(text, "member {} at {}: {state}", member.name, member.addr);
                self.members.insert(member.name.clone(), state);
            }
        }
        for run in view.runs.iter().rev().filter(|run| run.has_ended()) {
            if self.runs.insert((run.due.clone(), run.id.clone())) {
                let (due, late) = (time_of_day(&run.due), lateness(run));
                let _ = writeln!(text, "run due {due} on {}: {}, {late}", run.node, run.outcome);
            }
        }
        while self.runs.len() > SHOWN_MAX {
            self.runs.pop_first();
        }
        if view.has_success() {
            self.success = Seen::Yes;
        }
        text
    }
}

fn time_of_day(time: &str) -> &str {
    time.get(TIME_OF_DAY).unwrap_or(time)
}

fn lateness(run: &Run) -> String {
    match run.lateness {
        Some(late) => format!("{:.0} ms late", late * 1_000.0),
        None => "not started".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::watch::Member;
    use super::*;

    fn view() -> View {
        let text = |text: &str| text.to_owned();
        let member = Member {
            name: text("s1"),
            addr: text("127.1.1.11:8946"),
            role: "server",
            raft: text("leader"),
            status: text("alive"),
        };
        let run = Run {
            id: text("7"),
            due: text("2026-11-23T01:45:34.185261Z"),
            node: text("a1"),
            outcome: text("succeeded"),
            lateness: Some(0.0123),
        };
        View {
            leader: Some(text("s1")),
            term: 2,
            waiting_for: String::new(),
            members: vec![member],
            runs: vec![run],
        }
    }

    #[test]
    fn the_table_shows_leader_members_runs_and_notes() {
        let text = table_of(&view(), &["kill -9 s2".to_owned()]);
        for part in [
            "leader s1   term 2\n",
            "s1      127.1.1.11:8946      server  leader   alive\n",
            "01:45:34.1  a1      succeeded  12 ms late\n",
            "kill -9 s2\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn what_has_not_changed_makes_no_line() {
        let mut lines = Lines::default();
        let notes = ["kill -9 s2".to_owned()];
        let first = lines.changes_of(&view(), &notes);
        assert_eq!(
            first,
            "kill -9 s2\nleader s1, term 2\n\
             member s1 at 127.1.1.11:8946: server leader alive\n\
             run due 01:45:34.1 on a1: succeeded, 12 ms late\n"
        );
        assert!(lines.has_success());
        assert_eq!(lines.changes_of(&view(), &notes), "");
        let mut later = view();
        later.leader = None;
        assert_eq!(lines.changes_of(&later, &notes), "no leader\n");
    }

    #[test]
    fn a_run_is_told_when_it_has_ended() {
        let mut view = view();
        "running".clone_into(&mut view.runs[0].outcome);
        let mut lines = Lines::default();
        assert!(!lines.changes_of(&view, &[]).contains("run due"));
        "lost".clone_into(&mut view.runs[0].outcome);
        assert!(lines.changes_of(&view, &[]).contains("run due 01:45:34.1 on a1: lost"));
        assert!(!lines.has_success());
    }
}

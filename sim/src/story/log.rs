//! The short log of a run: [`Log`], one line per moment, with a column per machine.
//!
//! As TigerBeetle's VOPR does, an event stands in the column of its machine, so that one machine
//! can be followed down the page; the other columns show in one character how their machines
//! stand, so that a leader is a line of stars and a machine that is down leaves a gap:
//!
//! ```text
//!         time     n1    n2    n3   last/commit/apply  what
//!     3.000000 *   L4    |     |        310/310/310    leads term 4
//!     3.100000 !    *    |     |                       FAULT partition n1 n2,n3
//!     3.600000 ?    *    C5    |        310/310/310    asks for votes, term 5
//! ```
//!
//! The symbol after the time: `^` boots, `v` is down; `*` leads, `?` asks for votes, `.` stands in
//! another way; `!` a fault of the plan, or its end; `>` a process starts, `<` ends; `-` the node
//! says something; `c` a client asks or is answered; `m` a message is sent, `x` is lost; `#` a
//! checker found something.
//!
//! In the column of the machine: `L4` leader of term 4, `l4` the same with its lease over, `C`
//! candidate, `F` follower, `N` learner, which has no vote; `up` or `down` if it has not said yet
//! how it stands. In the columns of others: `*` leads, `|` runs, blank is down or not known; `o`
//! the message goes there; `!` the fault names it.

use std::fmt::Write as _;

use cronclave::consensus::Role;

use super::standing::{Board, Server, Standing};
use super::telling::{index, is_start, sentence};
use super::{Moment, Story, What, faults};

/// Width of the time: up to 99,999 s with microseconds.
const TIME_LEN: usize = 12;

/// Least width of a machine's column: a role's letter and a term of four digits, or `down`.
const COLUMN_LEN_MIN: usize = 5;

/// Greatest width of a machine's column. Longer names are cut in the header.
const COLUMN_LEN_MAX: usize = 10;

/// Width of the indexes: three of up to six digits.
const INDEXES_LEN: usize = 20;

/// Writes the lines of the short log. It keeps how the machines stand, nothing else, so a run can
/// be told while it goes on.
#[derive(Clone, Debug)]
pub struct Log {
    hosts: Vec<String>,
    column_len: usize,
    board: Board,
}

impl Log {
    /// For machines of these names, in the order of their numbers.
    pub fn new(hosts: &[String]) -> Self {
        let longest = hosts.iter().map(|host| host.chars().count()).max().unwrap_or(0);
        Self {
            hosts: hosts.to_vec(),
            column_len: longest.clamp(COLUMN_LEN_MIN, COLUMN_LEN_MAX),
            board: Board::new(hosts.len()),
        }
    }

    /// The line above all others, without a line break.
    pub fn header(&self) -> String {
        let mut columns = String::new();
        for host in &self.hosts {
            let host: String = host.chars().take(self.column_len).collect();
            columns.push_str(&self.cell(&host));
        }
        line("time", ' ', &columns, "last/commit/apply", "what")
    }

    /// The line of a moment, without a line break. Moments come by time.
    pub fn line(&mut self, moment: &Moment) -> String {
        self.board.see(moment);
        let mut columns = String::new();
        for host in 0..self.hosts.len() {
            columns.push_str(&self.cell(&self.column(host, moment)));
        }
        let own = moment.host.and_then(|host| self.board.of(host).server);
        let indexes = own.as_ref().map(indexes).unwrap_or_default();
        let what = sentence(&self.hosts, moment);
        line(&moment.at.to_string(), symbol(moment), &columns, &indexes, &what)
    }

    /// What stands in a machine's column on the line of `moment`.
    fn column(&self, host: usize, moment: &Moment) -> String {
        let standing = self.board.of(host);
        if moment.host == Some(host) {
            return own(host, standing);
        }
        match &moment.what {
            What::Message { to, .. } if *to == host => "o".to_owned(),
            What::Fault(line) if faults::names(&self.hosts, line, host) => "!".to_owned(),
            What::Up { .. }
            | What::Down { .. }
            | What::Stands { .. }
            | What::Fault(_)
            | What::Event(_)
            | What::Process(_)
            | What::Client(_)
            | What::Message { .. }
            | What::Violation { .. } => guide(host, standing).to_owned(),
        }
    }

    /// A text in the middle of a column.
    fn cell(&self, text: &str) -> String {
        format!(" {text:^0$}", self.column_len)
    }
}

/// The whole log of a story, header first; each line ends with a line break.
pub fn render(story: &Story) -> String {
    let mut log = Log::new(&story.hosts);
    let mut text = log.header();
    text.push('\n');
    for moment in &story.moments {
        text.push_str(&log.line(moment));
        text.push('\n');
    }
    text
}

fn line(time: &str, symbol: char, columns: &str, indexes: &str, what: &str) -> String {
    let mut line = String::new();
    write!(line, "{time:>TIME_LEN$} {symbol}{columns}  {indexes:^INDEXES_LEN$}  {what}")
        .expect("a text takes any text");
    line
}

/// The machine to which something happens, in its own column.
fn own(host: usize, standing: Standing) -> String {
    match (standing.server, standing.up) {
        (Some(server), _) => {
            let letter = match server.role {
                Role::Leader if server.leads(host) => 'L',
                Role::Leader => 'l',
                Role::Candidate => 'C',
                Role::Follower => 'F',
                Role::Learner => 'N',
            };
            format!("{letter}{}", server.term)
        }
        (None, Some(true)) => "up".to_owned(),
        (None, Some(false)) => "down".to_owned(),
        (None, None) => "?".to_owned(),
    }
}

/// A machine to which nothing happens.
fn guide(host: usize, standing: Standing) -> &'static str {
    match (standing.server, standing.up) {
        (Some(server), _) if server.leads(host) => "*",
        (_, Some(true)) => "|",
        (_, Some(false) | None) => "",
    }
}

fn indexes(server: &Server) -> String {
    let (last, committed) = (index(server.last), index(server.committed));
    format!("{last}/{committed}/{}", index(server.applied))
}

fn symbol(moment: &Moment) -> char {
    match &moment.what {
        What::Up { .. } => '^',
        What::Down { .. } => 'v',
        What::Stands { role, leader, .. } => match role {
            Role::Leader if *leader == moment.host => '*',
            Role::Candidate => '?',
            Role::Leader | Role::Follower | Role::Learner => '.',
        },
        What::Fault(_) => '!',
        What::Event(_) => '-',
        What::Process(text) if is_start(text) => '>',
        What::Process(_) => '<',
        What::Client(_) => 'c',
        What::Message { arrives: Some(_), .. } => 'm',
        What::Message { arrives: None, .. } => 'x',
        What::Violation { .. } => '#',
    }
}

#[cfg(test)]
mod tests {
    use cronclave::id::{LogIndex, Term};
    use cronclave::time::Mono;

    use super::*;

    fn at(millis: u64, host: Option<usize>, what: What) -> Moment {
        Moment { at: Mono::from_micros(millis * 1_000), host, what }
    }

    fn stands(role: Role, term: u64, leader: Option<usize>, last: Option<u64>) -> What {
        let last = last.map(LogIndex);
        What::Stands { role, term: Term(term), leader, last, committed: last, applied: None }
    }

    fn story() -> Story {
        let arrives = Some(Mono::from_micros(3_100_512));
        let message = |label: &str, arrives| What::Message { to: 1, label: label.into(), arrives };
        let violation = What::Violation {
            checker: "election safety".into(),
            text: "n1 and n2\nlead term 4".into(),
        };
        Story {
            hosts: ["n1", "n2", "n3", "agent-west-1"].map(str::to_owned).to_vec(),
            servers: 3,
            agents: 1,
            options: Vec::new(),
            moments: vec![
                at(0, Some(0), What::Up { boot: 1 }),
                at(1, Some(1), What::Up { boot: 1 }),
                at(2, Some(3), What::Up { boot: 1 }),
                at(400, Some(0), stands(Role::Candidate, 1, None, None)),
                at(412, Some(0), stands(Role::Leader, 1, Some(0), Some(0))),
                at(415, Some(1), stands(Role::Follower, 1, Some(0), Some(0))),
                at(1_000, None, What::Client("put nightly via n1: acknowledged".into())),
                at(2_000, Some(3), What::Process("starts nightly#1".into())),
                at(2_500, Some(3), What::Process("ends nightly#1: 0".into())),
                at(3_000, None, What::Fault("t=3.000 partition n1 n2,n3".into())),
                at(3_100, Some(0), message("append", arrives)),
                at(3_200, Some(0), message("vote", None)),
                at(3_250, Some(0), stands(Role::Leader, 1, None, Some(123_456))),
                at(3_300, Some(1), What::Event("no leader: 1 of 3 answers".into())),
                at(4_000, Some(0), What::Down { why: "crash, torn".into() }),
                at(99_999_000, Some(1), violation),
            ],
        }
    }

    #[test]
    fn a_run_reads_by_column() {
        let golden = include_str!("log_golden.txt");
        let text = render(&story());
        for (line, expected) in text.lines().zip(golden.lines()) {
            assert_eq!(line, expected);
        }
        assert_eq!(text.lines().count(), golden.lines().count());
    }

    #[test]
    fn what_happened_begins_in_the_same_column_on_every_line() {
        let story = story();
        let mut log = Log::new(&story.hosts);
        let start = log.header().find("what").unwrap();
        for moment in &story.moments {
            let line = log.line(moment);
            assert_eq!(&line[start..], sentence(&story.hosts, moment), "{line}");
        }
    }
}

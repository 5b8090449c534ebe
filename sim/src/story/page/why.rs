//! How it stood at the first violation, and what led to it: the part of the page that is read
//! first, without a script.

use cronclave::consensus::Role;
use cronclave::time::Mono;

use super::super::faults::Fault;
use super::super::standing::{Board, Standing};
use super::super::telling::{index, name, role, sentence};
use super::super::{Moment, Story, What};
use super::{escape, link, put};

/// How many moments are listed as those that led to a violation.
pub(super) const LEAD_LEN: usize = 12;

/// How many more are listed because they name what the violation names.
const RELATED_MAX: usize = 6;

/// Of how many machines a line gives all names.
const ROW_HOSTS_MAX: usize = 3;

/// How many faults are listed that were over when it was found.
const OVER_MAX: usize = 7;

/// Writes how it stood at the first violation, and what led to it; nothing if there is none.
pub(super) fn write(page: &mut String, story: &Story, moments: &[&Moment], faults: &[Fault]) {
    let is_found = |moment: &&Moment| matches!(moment.what, What::Violation { .. });
    let Some(found) = moments.iter().position(is_found) else { return };
    let at = moments[found].at;
    let mut board = Board::new(story.hosts.len());
    for moment in &moments[..found] {
        board.see(moment);
    }
    put(page, format_args!("<section id=\"why\" aria-label=\"How it came to the violation\">\n"));
    put(page, format_args!("<div>\n<h2>Faults that held at {at}</h2>\n<ul>\n"));
    for fault in faults.iter().filter(|fault| fault.holds(at)) {
        let (label, from) = (escape(&fault.label), link(fault.from));
        put(page, format_args!("<li><b>{label}</b> since {from}</li>\n"));
    }
    if !faults.iter().any(|fault| fault.holds(at)) {
        page.push_str("<li>none</li>\n");
    }
    page.push_str("</ul>\n<h2>Faults that were over, latest first</h2>\n<ul>\n");
    let over = |fault: &&Fault| fault.from <= at && !fault.holds(at);
    for fault in faults.iter().rev().filter(over).take(OVER_MAX) {
        let (label, from) = (escape(&fault.label), link(fault.from));
        put(page, format_args!("<li>{label} at {from}</li>\n"));
    }
    page.push_str("</ul>\n</div>\n<div>\n<h2>Machines then</h2>\n<table>\n<thead><tr><th>machine");
    page.push_str("<th>stands<th>term<th>leader<th>last<th>committed<th>applied</thead>\n");
    for host in 0..story.hosts.len() {
        machine(page, story, host, board.of(host));
    }
    page.push_str("</table>\n</div>\n<div>\n<h2>What led to it</h2>\n<table class=\"lead\">\n");
    for row in lead(story, moments, found) {
        row.write(page);
    }
    put(page, format_args!("<tr class=\"violation\"><td>{at}<td><td>the violation\n"));
    page.push_str("</table>\n</div>\n</section>\n");
}

/// What led to the moment at `found`: the last changes before it, and the last moments that name
/// the same thing, such as the execution that was started twice.
pub(super) fn lead(story: &Story, moments: &[&Moment], found: usize) -> Vec<Row> {
    let changes = |moment: &Moment| match moment.what {
        What::Up { .. } | What::Down { .. } | What::Stands { .. } => true,
        What::Fault(_) | What::Event(_) | What::Violation { .. } => true,
        What::Process(_) | What::Client(_) | What::Message { .. } => false,
    };
    let subjects = match &moments[found].what {
        What::Violation { text, .. } => subjects(text),
        What::Up { .. } | What::Down { .. } | What::Stands { .. } | What::Fault(_) => Vec::new(),
        What::Event(_) | What::Process(_) | What::Client(_) | What::Message { .. } => Vec::new(),
    };
    let related = |moment: &Moment| match &moment.what {
        What::Process(text) | What::Client(text) => {
            words(text).any(|word| subjects.contains(&word))
        }
        What::Up { .. } | What::Down { .. } | What::Stands { .. } | What::Fault(_) => false,
        What::Event(_) | What::Message { .. } | What::Violation { .. } => false,
    };
    let (mut lead, mut changed, mut named) = (Vec::<Row>::new(), 0, 0);
    for moment in moments[..found].iter().rev() {
        if changed == LEAD_LEN && (named == RELATED_MAX || subjects.is_empty()) {
            break;
        }
        if changed < LEAD_LEN && changes(moment) {
            let row = Row::new(story, moment);
            match lead.last_mut() {
                // The followers of a new leader are one line.
                Some(later) if later.what == row.what => later.join(row),
                Some(_) | None => {
                    changed += 1;
                    lead.push(row);
                }
            }
        } else if named < RELATED_MAX && related(moment) {
            named += 1;
            lead.push(Row::new(story, moment));
        }
    }
    lead.reverse();
    lead
}

/// The words of a violation that name one thing: those that hold a letter and a digit, and more
/// than the name of a machine.
fn subjects(text: &str) -> Vec<&str> {
    let has = |word: &str, is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    let names_one = |word: &&str| {
        word.len() > 3 && has(word, u8::is_ascii_digit) && has(word, u8::is_ascii_alphabetic)
    };
    words(text).filter(names_one).collect()
}

/// The words of a text, without the punctuation around them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let inside = |c: char| c.is_alphanumeric() || c == '#';
    text.split_whitespace().map(move |word| word.trim_matches(|c| !inside(c)))
}

/// A line of the table of machines.
fn machine(page: &mut String, story: &Story, host: usize, standing: Standing) {
    let own = escape(&name(&story.hosts, host));
    put(page, format_args!("<tr><th scope=\"row\">{own}"));
    match (standing.server, standing.up) {
        (Some(server), _) => {
            let leader = match server.leader {
                Some(leader) => name(&story.hosts, leader),
                None if server.role == Role::Leader => "none: lease over".to_owned(),
                None => "none".to_owned(),
            };
            put(
                page,
                format_args!(
                    "<td class=\"{0}\">{0}<td>{1}<td>{2}<td>{3}<td>{4}<td>{5}\n",
                    role(server.role),
                    server.term,
                    escape(&leader),
                    index(server.last),
                    index(server.committed),
                    index(server.applied),
                ),
            );
        }
        (None, up) => {
            let up = match up {
                Some(true) => "up",
                Some(false) => "down",
                None => "not known",
            };
            put(page, format_args!("<td class=\"{up}\">{up}<td><td><td><td><td>\n"));
        }
    }
}

/// A moment as a line of a table.
pub(super) struct Row {
    at: Mono,
    class: &'static str,
    /// The machines, earliest first.
    hosts: Vec<String>,
    pub(super) what: String,
}

impl Row {
    fn new(story: &Story, moment: &Moment) -> Self {
        let class = match moment.what {
            What::Fault(_) => "fault",
            What::Violation { .. } => "violation",
            What::Down { .. } => "down",
            What::Up { .. } | What::Stands { .. } | What::Event(_) => "",
            What::Process(_) | What::Client(_) | What::Message { .. } => "",
        };
        let host = moment.host.map(|host| name(&story.hosts, host));
        let what = sentence(&story.hosts, moment);
        Self { at: moment.at, class, hosts: host.into_iter().collect(), what }
    }

    /// Takes in an earlier line that says the same of another machine.
    fn join(&mut self, earlier: Self) {
        self.at = earlier.at;
        let mut hosts = earlier.hosts;
        hosts.extend(self.hosts.drain(..).filter(|host| !hosts.contains(host)).collect::<Vec<_>>());
        self.hosts = hosts;
    }

    fn write(&self, page: &mut String) {
        let (at, class, what) = (link(self.at), self.class, escape(&self.what));
        let hosts = match self.hosts.as_slice() {
            [] => "all".to_owned(),
            hosts if hosts.len() <= ROW_HOSTS_MAX => hosts.join(" "),
            [first, others @ ..] => format!("{first} and {} others", others.len()),
        };
        let hosts = escape(&hosts);
        put(
            page,
            format_args!("<tr class=\"{class}\"><td>{at}<th scope=\"row\">{hosts}<td>{what}\n"),
        );
    }
}

//! The page of a run: [`render`] makes one HTML file that a person can read in a browser.
//!
//! It holds all that it shows, loads nothing, and says so to the browser in a content security
//! policy. It answers, from the top: what was violated; which command replays it; which faults
//! held at that moment, how every machine stood, and what led to it; then the timeline; then all
//! faults and violations as text. All but the timeline is plain HTML and needs no script.
//!
//! **The timeline** runs to the right, one lane per machine, servers first. A screen is wide and a
//! cluster is small, so there is room for every lane at once and for words inside the spans; what
//! happens at the same time stands in one vertical line, which is what a failure of agreement has
//! to be read by. Each term has a colour: a leader is filled with it, its followers tinted, so two
//! leaders of one term, or a follower that is behind, can be seen without reading. Down is
//! hatched. The strip above it is the whole run.
//!
//! **Addresses.** `#t=12.403` puts the cursor there, `w=2` shows two seconds, `messages=1` draws
//! messages: `#t=12.403&w=2&messages=1`.
//!
//! **Bounds.** The page grows with the moments and their distinct texts only. The browser draws at
//! most 4,000 messages of the visible window, and lists 120 moments around the cursor.

use std::fmt::Write as _;

use cronclave::consensus::Role;
use cronclave::time::Mono;

use super::data::pack;
use super::faults::{Fault, Until, faults};
use super::standing::{Board, Standing};
use super::telling::{index, name, role, sentence};
use super::{Moment, REPLAY, Story, What};

const STYLE: &str = include_str!("page/style.css");
const TIMELINE: &str = include_str!("page/timeline.html");
const SCRIPTS: [&str; 3] =
    [include_str!("page/read.js"), include_str!("page/draw.js"), include_str!("page/act.js")];

/// How many moments are listed as those that led to a violation.
const LEAD_LEN: usize = 12;

/// How many more are listed because they name what the violation names.
const RELATED_MAX: usize = 6;

/// How many faults are listed that were over when it was found.
const OVER_MAX: usize = 7;

/// How many violations are listed at the top; all are in the table.
const TOP_VIOLATIONS_MAX: usize = 5;

/// The page of a story.
pub fn render(story: &Story) -> String {
    let mut moments: Vec<&Moment> = story.moments.iter().collect();
    moments.sort_by_key(|moment| moment.at);
    let faults = faults(story);
    let title = match story.violations().next().map(|found| &found.what) {
        Some(What::Violation { checker, .. }) => format!("Violation: {checker}"),
        Some(_) | None => "No violation".to_owned(),
    };
    let mut page = String::new();
    head(&mut page, &title);
    top(&mut page, story, &moments, &faults, &title);
    why(&mut page, story, &moments, &faults);
    page.push_str(TIMELINE);
    table(&mut page, story, &faults);
    page.push_str("</main>\n<script type=\"application/json\" id=\"story\">");
    page.push_str(&pack(story, &moments, &faults));
    page.push_str("</script>\n<script>\n(function () {\n\"use strict\";\n");
    page.extend(SCRIPTS);
    page.push_str("})();\n</script>\n</body>\n</html>\n");
    page
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a text takes any text");
}

/// Text for HTML, in elements and in quoted attributes. Control characters are replaced: HTML has
/// no way to write them.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

fn head(page: &mut String, title: &str) {
    put(
        page,
        format_args!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
             style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <link rel=\"icon\" href=\"data:,\">\n\
             <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
            escape(title)
        ),
    );
}

/// What was found, the run in numbers, how to replay it.
fn top(page: &mut String, story: &Story, moments: &[&Moment], faults: &[Fault], title: &str) {
    let found = story.violations().count();
    let class = if found == 0 { "good" } else { "bad" };
    put(page, format_args!("<header class=\"{class}\">\n<h1>{}</h1>\n", escape(title)));
    for moment in story.violations().take(TOP_VIOLATIONS_MAX) {
        if let What::Violation { text, .. } = &moment.what {
            let host = moment.host.map_or(String::new(), |host| {
                format!(" on <b>{}</b>", escape(&name(&story.hosts, host)))
            });
            let (at, text) = (link(moment.at), escape(text));
            put(page, format_args!("<p class=\"found\">At {at}{host}: {text}</p>\n"));
        }
    }
    if found > TOP_VIOLATIONS_MAX {
        let more = found - TOP_VIOLATIONS_MAX;
        put(page, format_args!("<p>and {more} more, in the table below</p>\n"));
    }
    if let Some(command) = story.replay() {
        put(
            page,
            format_args!(
                "<p class=\"replay\">Replay: <code id=\"command\">{}</code>\n\
                 <button id=\"copy\" type=\"button\" hidden>Copy</button></p>\n",
                escape(command)
            ),
        );
    }
    let end = moments.last().map_or(Mono::ZERO, |moment| moment.at);
    let agents = story.hosts.len().saturating_sub(story.servers);
    put(
        page,
        format_args!(
            "<p class=\"sums\">{}, {}; {end} s simulated; {}, {}, {}</p>\n<ul class=\"options\">\n",
            count(story.hosts.len() - agents, "server"),
            count(agents, "agent"),
            count(moments.len(), "moment"),
            count(faults.len(), "fault"),
            count(found, "violation"),
        ),
    );
    for (name, value) in story.options.iter().filter(|(name, _)| name != REPLAY) {
        let (name, value) = (escape(name), escape(value));
        put(page, format_args!("<li><span>{name}</span> {value}</li>\n"));
    }
    page.push_str("</ul>\n</header>\n<main>\n");
}

/// A time that moves the timeline's cursor.
fn link(at: Mono) -> String {
    format!("<a href=\"#t={at}\">{at}</a>")
}

/// How it stood at the first violation, and what led to it.
fn why(page: &mut String, story: &Story, moments: &[&Moment], faults: &[Fault]) {
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
    for moment in lead(moments, found) {
        row(page, story, moment);
    }
    put(page, format_args!("<tr class=\"violation\"><td>{at}<td><td>the violation\n"));
    page.push_str("</table>\n</div>\n</section>\n");
}

/// What led to the moment at `found`: the last changes before it, and the last
/// moments that name the same thing, such as the execution that was started twice.
fn lead<'a>(moments: &[&'a Moment], found: usize) -> Vec<&'a Moment> {
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
    let (mut lead, mut changed, mut named) = (Vec::new(), 0, 0);
    for moment in moments[..found].iter().rev() {
        if changed < LEAD_LEN && changes(moment) {
            changed += 1;
            lead.push(*moment);
        } else if named < RELATED_MAX && related(moment) {
            named += 1;
            lead.push(*moment);
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

/// `1 fault`, `2 faults`.
fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
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
fn row(page: &mut String, story: &Story, moment: &Moment) {
    let class = match moment.what {
        What::Fault(_) => " class=\"fault\"",
        What::Violation { .. } => " class=\"violation\"",
        What::Down { .. } => " class=\"down\"",
        What::Up { .. }
        | What::Stands { .. }
        | What::Event(_)
        | What::Process(_)
        | What::Client(_)
        | What::Message { .. } => "",
    };
    let host = moment.host.map_or_else(|| "all".to_owned(), |host| name(&story.hosts, host));
    let (at, host, what) =
        (link(moment.at), escape(&host), escape(&sentence(&story.hosts, moment)));
    put(page, format_args!("<tr{class}><td>{at}<th scope=\"row\">{host}<td>{what}\n"));
}

/// All faults and violations, as text.
fn table(page: &mut String, story: &Story, faults: &[Fault]) {
    put(
        page,
        format_args!(
            "<details id=\"text\" open>\n<summary>In words: {}, {}</summary>\n<table>\n\
             <thead><tr><th>from<th>until<th>machines<th>what<th>mended by</thead>\n",
            count(faults.len(), "fault"),
            count(story.violations().count(), "violation"),
        ),
    );
    let fault_row = |fault: &Fault| {
        let until = match fault.until {
            Until::AtOnce => "at once".to_owned(),
            Until::Open => "never mended".to_owned(),
            Until::Then(until) => link(until),
        };
        let touched: Vec<String> =
            fault.touched.keys().map(|host| escape(&name(&story.hosts, *host))).collect();
        let touched = if touched.is_empty() { "all".to_owned() } else { touched.join(" ") };
        let mended = escape(fault.mended_by.as_deref().unwrap_or_default());
        let (from, label) = (link(fault.from), escape(&fault.label));
        format!("<tr class=\"fault\"><td>{from}<td>{until}<td>{touched}<td>{label}<td>{mended}\n")
    };
    let mut rows: Vec<(Mono, String)> =
        faults.iter().map(|fault| (fault.from, fault_row(fault))).collect();
    for moment in story.violations() {
        let host = moment.host.map_or_else(|| "all".to_owned(), |host| name(&story.hosts, host));
        let (host, what) = (escape(&host), escape(&sentence(&story.hosts, moment)));
        let at = link(moment.at);
        let row = format!("<tr class=\"violation\"><td>{at}<td><td>{host}<td>{what}<td>\n");
        rows.push((moment.at, row));
    }
    rows.sort_by_key(|(at, _)| *at);
    for (_, row) in rows {
        page.push_str(&row);
    }
    page.push_str("</table>\n</details>\n");
}

#[cfg(test)]
mod tests;

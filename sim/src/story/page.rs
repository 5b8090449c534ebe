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

mod why;

use std::fmt::Write as _;

use cronclave::time::Mono;

use super::data::pack;
use super::faults::{Fault, Until, faults};
use super::telling::{name, sentence};
use super::{Moment, REPLAY, Story, What};

const STYLE: &str = include_str!("page/style.css");
const TIMELINE: &str = include_str!("page/timeline.html");
const SCRIPTS: [&str; 3] =
    [include_str!("page/read.js"), include_str!("page/draw.js"), include_str!("page/act.js")];

/// How many options are shown at once.
const TOP_OPTIONS_MAX: usize = 14;

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
    why::write(&mut page, story, &moments, &faults);
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
    for (nth, moment) in story.violations().take(TOP_VIOLATIONS_MAX).enumerate() {
        if let What::Violation { checker, text } = &moment.what {
            let host = moment.host.map_or(String::new(), |host| {
                format!(" on <b>{}</b>", escape(&name(&story.hosts, host)))
            });
            let (at, checker, text) = (link(moment.at), escape(checker), escape(text));
            if nth == 0 {
                put(page, format_args!("<p class=\"found\">At {at}{host}: {text}</p>\n"));
            } else {
                put(page, format_args!("<p class=\"more\">{at}{host}: {checker}: {text}</p>\n"));
            }
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
    let spares = story.hosts.len().saturating_sub(story.servers + story.agents);
    let spares = match spares {
        0 => String::new(),
        spares => format!(", {}", count(spares, "spare server")),
    };
    put(
        page,
        format_args!(
            "<p class=\"sums\">{}{spares}, {}; {end} s simulated; {}, {}, {}</p>\n",
            count(story.servers, "server"),
            count(story.agents, "agent"),
            count(moments.len(), "moment"),
            count(faults.len(), "fault"),
            count(found, "violation"),
        ),
    );
    options(page, story);
    page.push_str("</header>\n<main>\n");
}

/// The options: the first ones at once, all others when asked for.
fn options(page: &mut String, story: &Story) {
    let shown = story.options.iter().filter(|(name, _)| name != REPLAY);
    let items: Vec<String> = shown
        .map(|(name, value)| format!("<li><span>{}</span> {}</li>\n", escape(name), escape(value)))
        .collect();
    let (first, more) = items.split_at(items.len().min(TOP_OPTIONS_MAX));
    put(page, format_args!("<ul class=\"options\">\n{}</ul>\n", first.concat()));
    if !more.is_empty() {
        put(
            page,
            format_args!(
                "<details>\n<summary>{} more options</summary>\n<ul class=\"options\">\n{}</ul>\n\
                 </details>\n",
                more.len(),
                more.concat()
            ),
        );
    }
}

/// A time that moves the timeline's cursor.
fn link(at: Mono) -> String {
    format!("<a href=\"#t={at}\">{at}</a>")
}

/// `1 fault`, `2 faults`.
fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
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

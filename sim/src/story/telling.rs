//! What happened, in a sentence, and of what sort it is: shared by the log and the page.

use cronclave::consensus::Role;
use cronclave::id::LogIndex;

use super::standing::Server;
use super::{Moment, What};

/// What came of a client's request, read from the words of [`What::Client`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    /// It asks; nothing came of it yet.
    Asked,
    /// It was acknowledged, or its read was answered.
    Acknowledged,
    /// It was not carried out.
    Refused,
    /// It may or may not have been carried out.
    Unknown,
}

/// The words that tell an [`Answer`]; the first that occurs in a text decides.
const ANSWERS: [(Answer, &[&str]); 3] = [
    (Answer::Unknown, &["unknown", "silence", "lost", "timed", "timeout", "unanswered"]),
    (Answer::Refused, &["refused", "failed", "error", "rejected", "503", "507"]),
    (Answer::Acknowledged, &["acknowledged", "acked", "ack", "ok", "done", "written", "answered"]),
];

/// The words that say of [`What::Process`] that one starts.
const STARTS: [&str; 4] = ["start", "starts", "started", "launch"];

/// A line of a plan without the time that it begins with.
pub(super) fn without_time(line: &str) -> &str {
    let line = line.trim();
    let Some(rest) = line.strip_prefix("t=") else { return line };
    rest.split_once(char::is_whitespace).map_or(line, |(_, rest)| rest.trim_start())
}

/// What came of the request that `text` tells of.
pub(super) fn answer(text: &str) -> Answer {
    let told = |listed: &&[&str]| words(text).any(|word| listed.contains(&word.as_str()));
    let found = ANSWERS.iter().find(|(_, listed)| told(listed));
    found.map_or(Answer::Asked, |(answer, _)| *answer)
}

/// Whether a process starts; otherwise it ends.
pub(super) fn is_start(text: &str) -> bool {
    words(text).any(|word| STARTS.contains(&word.as_str()))
}

/// The words of a text, in small letters.
fn words(text: &str) -> impl Iterator<Item = String> {
    let parts = text.split(|c: char| !c.is_alphanumeric());
    parts.filter(|part| !part.is_empty()).map(str::to_lowercase)
}

/// The name of a machine, or its number if it has none.
pub(super) fn name(hosts: &[String], host: usize) -> String {
    hosts.get(host).cloned().unwrap_or_else(|| format!("#{host}"))
}

/// What a role is called.
pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Candidate => "candidate",
        Role::Follower => "follower",
        Role::Learner => "learner",
    }
}

/// An index of the log, or a dash.
pub(super) fn index(index: Option<LogIndex>) -> String {
    index.map_or_else(|| "-".to_owned(), |index| index.to_string())
}

/// What happened, on one line, without its time and its machine.
pub(super) fn sentence(hosts: &[String], moment: &Moment) -> String {
    let text = match &moment.what {
        What::Up { boot } => format!("boots, start {boot}"),
        What::Down { why } => format!("down: {why}"),
        What::Stands { role, term, leader, last, committed, applied } => {
            let (role, term, leader) = (*role, *term, *leader);
            let (last, committed, applied) = (*last, *committed, *applied);
            let server = Server { role, term, leader, last, committed, applied };
            stands(hosts, moment.host, &server)
        }
        What::Fault(line) => format!("FAULT {}", without_time(line)),
        What::Event(text) | What::Process(text) | What::Client(text) => text.clone(),
        What::Message { to, label, arrives } => {
            let to = name(hosts, *to);
            match arrives {
                None => format!("{label} to {to}, lost"),
                Some(arrives) => {
                    let micros = arrives.saturating_since(moment.at).as_micros();
                    format!("{label} to {to}, +{}.{:03} ms", micros / 1_000, micros % 1_000)
                }
            }
        }
        What::Violation { checker, text } => format!("VIOLATION of {checker}: {text}"),
    };
    one_line(&text)
}

/// How a server stands.
fn stands(hosts: &[String], host: Option<usize>, server: &Server) -> String {
    let Server { role, term, leader, .. } = *server;
    match (role, leader.map(|leader| name(hosts, leader))) {
        (Role::Leader, Some(_)) if leader == host => format!("leads term {term}"),
        (Role::Leader, Some(other)) => format!("leader of term {term}, names {other}"),
        (Role::Leader, None) => format!("leader of term {term}, lease over"),
        (Role::Candidate, _) => format!("asks for votes, term {term}"),
        (Role::Follower, Some(leader)) => format!("follows {leader}, term {term}"),
        (Role::Follower, None) => format!("follows nobody, term {term}"),
        (Role::Learner, Some(leader)) => format!("learns from {leader}, term {term}"),
        (Role::Learner, None) => format!("learns from nobody, term {term}"),
    }
}

/// The text with its line breaks and other control characters written out.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_by_its_words() {
        for (text, expected) in [
            ("put nightly via n1", Answer::Asked),
            ("put nightly via n1: acknowledged at 310", Answer::Acknowledged),
            ("put nightly via n1: refused, no leader", Answer::Refused),
            ("put nightly via n1: unknown", Answer::Unknown),
            ("put nightly: timed out, not acknowledged", Answer::Unknown),
            ("put okay via n1", Answer::Asked),
        ] {
            assert_eq!(answer(text), expected, "{text}");
        }
    }

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(one_line("a\nb\u{1b}[31m\tc"), "a\\nb\\u{1b}[31m\\tc");
    }
}

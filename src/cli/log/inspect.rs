//! `cronclave log inspect` and `cronclave log verify`: what a data directory holds.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::say;
use crate::codec::log::Seen;
use crate::codec::record::Record;
use crate::node::rescue::describe;
use crate::shell::archive::Depth;
use crate::shell::disk::{Inspection, Listed, Place, ToolError};
use crate::shell::exit::ExitError;

/// The arguments of `cronclave log inspect`.
#[derive(Clone, Debug, Args)]
pub(crate) struct InspectArgs {
    /// The data directory of a node, or its log directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// List the records instead: all of them, or the entries from FROM to TO
    #[arg(long, value_name = "FROM..TO", num_args = 0..=1, value_parser = parse_range)]
    records: Option<Option<Range>>,
}

/// The arguments of `cronclave log verify`.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The data directory of a node
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Entries from one index to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    from: u64,
    to: u64,
}

fn parse_range(text: &str) -> Result<Range, String> {
    let right = "right is FROM..TO, such as 100..200, 100.. or ..200";
    let wrong = |_| format!("{text:?} is not valid; {right}");
    let (from, to) = text.split_once("..").ok_or_else(|| wrong(()))?;
    let to = to.strip_prefix('=').unwrap_or(to);
    let number = |text: &str, none: u64| match text {
        "" => Ok(none),
        text => text.parse().map_err(|_| wrong(())),
    };
    let range = Range { from: number(from, 0)?, to: number(to, u64::MAX)? };
    if range.from > range.to {
        return Err(wrong(()));
    }
    Ok(range)
}

/// Prints what the directory holds.
pub(crate) fn inspect(args: &InspectArgs) -> Result<(), ExitError> {
    let form = if args.json { Form::Json } else { Form::Text };
    if let Some(range) = args.records {
        let list = |listed: &Listed<'_>| {
            if let Some(line) = line_of(listed, range, form) {
                say(&line);
            }
        };
        let inspection =
            Inspection::read(&args.dir, Depth::Summary, list).map_err(ToolError::from)?;
        return fail_if_damaged(&inspection);
    }
    let inspection =
        Inspection::read(&args.dir, Depth::Summary, |_| ()).map_err(ToolError::from)?;
    say(&match form {
        Form::Json => {
            let text = serde_json::to_string_pretty(&inspection);
            let text = text.map_err(|error| ExitError::Environment(error.to_string()))?;
            format!("{text}\n")
        }
        Form::Text => text_of(&inspection),
    });
    Ok(())
}

/// Checks everything that has a checksum, and says what is not whole.
pub(crate) fn verify(args: &VerifyArgs) -> Result<(), ExitError> {
    let inspection = Inspection::read(&args.dir, Depth::Whole, |_| ()).map_err(ToolError::from)?;
    say(&lines_of(&inspection));
    fail_if_damaged(&inspection)
}

fn fail_if_damaged(inspection: &Inspection) -> Result<(), ExitError> {
    let (Some(first), Some(repair)) = (inspection.damage.first(), &inspection.repair) else {
        return Ok(());
    };
    Err(ExitError::Damaged(format!("{}. To repair it: {repair}", first.describe())))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// One record as a line; `None` if it is not asked for.
fn line_of(listed: &Listed<'_>, range: Option<Range>, form: Form) -> Option<String> {
    let (kind, index, term, what) = match listed.seen {
        Seen::Record(record) => match record {
            Record::Entry { index, term, body } => {
                ("entry", Some(index.0), Some(term.0), describe(body))
            }
            Record::Vote(_) => ("vote", None, None, String::new()),
            Record::Truncate { from } => ("truncate", Some(from.0), None, String::new()),
            Record::Purge { upto, .. } => ("purge", Some(upto.0), None, String::new()),
            Record::Reset { next } => ("reset", Some(next.0), None, String::new()),
            Record::Committed(_) => ("committed", None, None, String::new()),
            Record::Local(_) => ("local", None, None, String::new()),
            Record::Checkpoint(_) => ("checkpoint", None, None, String::new()),
            Record::Doubt(doubt) => {
                let what = format!("cut {} bytes at {}:{}", doubt.len, doubt.segment, doubt.offset);
                ("doubt", Some(doubt.next.0), None, what)
            }
            Record::Settled => ("settled", None, None, String::new()),
        },
        Seen::Span { start, next } => ("span", Some(start.0), None, format!("next {next}")),
        Seen::Mark { synced, life } => {
            ("mark", None, None, format!("synced {synced}, life {life}"))
        }
    };
    if let Some(range) = range {
        let is_in = kind == "entry" && index.is_some_and(|i| (range.from..=range.to).contains(&i));
        if !is_in {
            return None;
        }
    }
    let (segment, offset, len) = (listed.segment, listed.offset, listed.len);
    Some(match form {
        Form::Json => format!(
            "{}\n",
            json!({
                "segment": segment, "offset": offset, "len": len, "kind": kind,
                "index": index, "term": term, "what": what,
            })
        ),
        Form::Text => {
            let number = |number: Option<u64>| number.map_or(String::new(), |n| n.to_string());
            let (index, term) = (number(index), number(term));
            let line = format!(
                "{segment:>4} {offset:>10} {len:>8}  {kind:<10} {index:>10} {term:>6}  {what}"
            );
            format!("{}\n", line.trim_end())
        }
    })
}

/// Rows of a table, the first its head; numbers stand on the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let mut text = String::new();
    for row in rows {
        let mut out = String::new();
        for ((cell, &width), column) in row.iter().zip(&widths).zip(0..) {
            let below = rows.iter().skip(1).all(|row| is_number(&row[column]));
            let gap = if column == 0 { "  " } else { "   " };
            let _ = match below {
                true => write!(out, "{gap}{cell:>width$}"),
                false => write!(out, "{gap}{cell:<width$}"),
            };
        }
        let _ = writeln!(text, "{}", out.trim_end());
    }
    text
}

fn text_of(inspection: &Inspection) -> String {
    let mut text = String::new();
    let mut row = |what: &str, value: String| {
        let _ = writeln!(text, "{what:<14}{value}");
    };
    row("directory", inspection.path.clone());
    if let Some(node) = &inspection.node {
        row("node", format!("{} ({}), boot {}", node.name, node.id, node.boot));
        row("incarnation", node.incarnation.clone());
        row("cluster", node.cluster.clone().unwrap_or_else(|| "none".to_owned()));
    }
    let known = inspection.known_formats;
    row(
        "formats",
        format!("node.json {}, log {}, snapshot {}", known.node, known.log, known.snapshot),
    );
    if let Some(raft) = &inspection.raft {
        let at = |at: Option<crate::shell::disk::At>| {
            at.map_or_else(|| "none".to_owned(), |at| format!("{} (term {})", at.index, at.term))
        };
        let term = raft.term.map_or_else(|| "none".to_owned(), |term| term.to_string());
        let voted = raft.voted_for.as_ref().map(|name| format!(", voted for {name}"));
        row("term", term + &voted.unwrap_or_default());
        let first = raft.first.map_or_else(|| "none".to_owned(), |first| first.to_string());
        row("entries", format!("{first} to {}", at(raft.last)));
        row("committed", format!("{} at least", at(raft.committed)));
        row("snapshot", at(raft.snapshot));
        row("purged", at(raft.purged));
        row("voters", raft.voters.join(", "));
    }
    if let Some(user) = &inspection.used_by {
        row("in use", format!("by process {user}: the end of the log may move meanwhile"));
    }
    if inspection.moves_pending {
        row("repair", "begun, and finished by the next start".to_owned());
    }
    text.push_str(&tables(inspection));
    text.push_str(&troubles(inspection));
    text
}

fn tables(inspection: &Inspection) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let mut text = String::new();
    if !inspection.segments.is_empty() {
        let head =
            ["SEGMENT", "FILE", "USED", "FIRST", "LAST", "TERMS", "VOTES", "SEALED", "LIFE", "END"];
        let mut rows = vec![head.map(String::from).to_vec()];
        for segment in &inspection.segments {
            let span = |first: Option<u64>, last: Option<u64>| match (first, last) {
                (Some(first), Some(last)) if first == last => first.to_string(),
                (Some(first), Some(last)) => format!("{first}-{last}"),
                _ => "-".to_owned(),
            };
            let end = match segment.chained {
                Some(false) => format!("{}, not chained", segment.end),
                Some(true) | None => segment.end.to_owned(),
            };
            rows.push(vec![
                segment.number.to_string(),
                segment.len.to_string(),
                segment.used.to_string(),
                number(segment.first),
                number(segment.last),
                span(segment.term_first, segment.term_last),
                segment.votes.to_string(),
                segment.sealed.to_string(),
                segment.life.to_string(),
                end,
            ]);
        }
        let _ = write!(text, "\n{}", table(&rows));
    }
    for spare in &inspection.spares {
        let _ = writeln!(text, "  spare of {} bytes: {}", spare.len, spare.file);
    }
    if !inspection.snapshots.is_empty() {
        let mut rows = vec![["SNAPSHOT", "FILE", "CHECKSUM"].map(String::from).to_vec()];
        for snapshot in &inspection.snapshots {
            let check = snapshot.damage.clone().unwrap_or_else(|| "ok".to_owned());
            rows.push(vec![number(snapshot.index), snapshot.len.to_string(), check]);
        }
        let _ = write!(text, "\n{}", table(&rows));
    }
    if let Some(history) = &inspection.history {
        let rows = history.rows.map_or_else(|| "unread".to_owned(), |rows| rows.to_string());
        let upto = number(history.upto);
        let _ = writeln!(
            text,
            "\nhistory       {rows} rows up to entry {upto}, {} bytes in {}",
            history.len, history.file
        );
    }
    text
}

fn troubles(inspection: &Inspection) -> String {
    let mut text = String::new();
    if let Some(torn) = &inspection.torn {
        let _ = writeln!(text, "\nTORN     {}: the next start cuts it", described(torn));
    }
    if let Some(doubt) = inspection.doubt {
        let _ = writeln!(
            text,
            "\nDOUBT    {} bytes were cut at byte {} of segment {}: entries from {} on may have \
             been lost here\n         and are fetched from the others, before this server votes",
            doubt.len, doubt.offset, doubt.segment, doubt.next
        );
    }
    for damage in &inspection.damage {
        let _ = writeln!(text, "\nDAMAGED  {}: {}", damage.file, described(damage));
    }
    match &inspection.repair {
        Some(repair) => {
            let _ = writeln!(text, "\nTo repair it: {repair}");
        }
        None => text.push_str("\nNothing is damaged.\n"),
    }
    text
}

fn described(place: &Place) -> String {
    match (place.segment, place.offset) {
        (Some(segment), Some(offset)) => {
            format!("segment {segment}, byte {offset}: {}", place.reason)
        }
        _ => place.reason.clone(),
    }
}

/// One line for each file.
fn lines_of(inspection: &Inspection) -> String {
    let mut text = String::new();
    let mut line = |file: &str, detail: String| {
        let bad = inspection.damage.iter().find(|damage| damage.file == file);
        let torn = inspection.torn.as_ref().filter(|torn| torn.file == file);
        let _ = match (bad, torn) {
            (Some(bad), _) => writeln!(text, "DAMAGED  {file}: {}", described(bad)),
            (None, Some(torn)) => {
                writeln!(text, "torn     {file}: {}; the next start cuts it", described(torn))
            }
            (None, None) => writeln!(text, "ok       {file}: {detail}"),
        };
    };
    if let Some(node) = &inspection.node {
        line(&format!("{}/node.json", inspection.path), format!("node {}", node.name));
    }
    for segment in &inspection.segments {
        line(&segment.file, format!("{} entries, {} bytes", segment.entries, segment.used));
    }
    for snapshot in &inspection.snapshots {
        let index = snapshot.index.unwrap_or(0);
        line(&snapshot.file, format!("up to entry {index}, {} bytes", snapshot.len));
    }
    if let Some(history) = &inspection.history {
        let rows = history.rows.map_or_else(|| "unread".to_owned(), |rows| rows.to_string());
        line(&history.file, format!("{rows} rows, {} bytes", history.len));
    }
    let shown = |file: &String| {
        inspection.segments.iter().any(|segment| segment.file == *file)
            || inspection.snapshots.iter().any(|snapshot| snapshot.file == *file)
    };
    for damage in inspection.damage.iter().filter(|damage| !shown(&damage.file)) {
        let _ = writeln!(text, "DAMAGED  {}: {}", damage.file, described(damage));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_entries_may_be_open() {
        let range = |from, to| Ok(Range { from, to });
        assert_eq!(parse_range("3..9"), range(3, 9));
        assert_eq!(parse_range("3..=9"), range(3, 9));
        assert_eq!(parse_range("3.."), range(3, u64::MAX));
        assert_eq!(parse_range("..9"), range(0, 9));
        for wrong in ["", "3", "9..3", "a..b", "-1..2"] {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_stand_on_the_right() {
        let row = |cells: [&str; 2]| cells.map(String::from).to_vec();
        let text = table(&[row(["N", "NAME"]), row(["10", "a"]), row(["9", "bcdef"])]);
        assert_eq!(text, "   N   NAME\n  10   a\n   9   bcdef\n");
    }
}

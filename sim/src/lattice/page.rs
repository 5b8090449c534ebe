//! What a lattice has shown, as a page: [`page`].

use std::fmt::Write as _;

use super::planted::Planted;
use super::run::{Row, Seen, Summary};
use super::sets::{quorum, tolerated};
use super::{Kind, SIZE_MAX};

const HEAD: &str = "\
# What a cluster of 1 to 7 servers survives

This page is written by `make lattice`. Every row is a count of simulated runs of the production
node, each with its own faults, under load, with all checkers on.
";

/// The page of a lattice that was run.
pub fn page(summary: &Summary) -> String {
    let mut text = HEAD.to_owned();
    deployment(&mut text, summary);
    verdicts(&mut text);
    kinds(&mut text, summary);
    for size in 1..=SIZE_MAX {
        of_size(&mut text, summary, size);
    }
    both_directions(&mut text, summary);
    text.push_str(SHAPES);
    text.push_str(PLACES);
    repeat(&mut text, summary);
    text
}

fn line(text: &mut String, cells: &[String]) {
    writeln!(text, "| {} |", cells.join(" | ")).expect("a text takes everything");
}

fn head(text: &mut String, heads: &[&str]) {
    line(text, &heads.iter().map(|&head| head.to_owned()).collect::<Vec<_>>());
    line(text, &heads.iter().map(|_| "---".to_owned()).collect::<Vec<_>>());
}

fn sum<'a>(rows: impl Iterator<Item = &'a Row>) -> Row {
    rows.fold(Row::default(), |mut sum, row| {
        sum.ran += row.ran;
        sum.red += row.red;
        sum.seen.add(row.seen);
        sum
    })
}

fn colour(row: &Row) -> String {
    match row.red {
        0 => "green".to_owned(),
        red => format!("**{red} RED**"),
    }
}

fn deployment(text: &mut String, summary: &Summary) {
    text.push_str("\n## Deployment\n\n");
    head(
        text,
        &["servers", "quorum", "may be lost", "runs within", "P", "runs beyond", "Z", "R", "L", ""],
    );
    for size in 1..=SIZE_MAX {
        let of = |beyond: bool| {
            let rows = summary.rows.iter();
            sum(rows.filter(|(key, _)| (key.0, key.2) == (size, beyond)).map(|(_, row)| row))
        };
        let (within, beyond) = (of(false), of(true));
        let both = sum([within, beyond].iter());
        line(
            text,
            &[
                size.to_string(),
                quorum(size).to_string(),
                tolerated(size).to_string(),
                within.ran.to_string(),
                both.seen.progress.to_string(),
                beyond.ran.to_string(),
                both.seen.zero.to_string(),
                both.seen.recovers.to_string(),
                both.seen.loses_nothing.to_string(),
                colour(&both),
            ],
        );
    }
    text.push_str(
        "\nAn even number tolerates no more than the odd one below it, and its halves stop each \
         other: run 3 or 5.\n",
    );
}

fn verdicts(text: &mut String) {
    text.push_str(
        "
## Verdicts

Each is given from outside, by what clients are told and what starts.

- **P**, progress: within 2.5 s (ten election timeouts) of the fault, whoever has a quorum
  acknowledges at least 50 writes and answers at least 50 linearizable reads of 75 each in 3 s,
  answers every request, and what is due starts.
- **Z**, zero: from 0.5 s (two timeouts) after the fault on, each server without a quorum is asked
  100 times in 5 s, writes and reads. None names a leader, acknowledges, or answers a read; each
  request is refused or ends as unknown within 3 s; no process starts.
- **R**, recovers: with so much back that the voters are exactly a quorum, P holds within 2.5 s.
- **L**, loses nothing: in the end all is healed, all servers hold the same state and vote, and the
  checkers of all runs have seen nothing acknowledged lost, nothing refused done, no read that is
  not linearizable, no entry committed without a quorum of disks, no due instant without its row and
  none that started twice.

The leader's place is asserted at the instant of the fault, and at least 50 writes and 50 reads have
been acknowledged before it: a run without is red.
",
    );
}

fn kinds(text: &mut String, summary: &Summary) {
    text.push_str("\n## Faults\n\nRuns within and beyond what may be lost.\n\n");
    let sizes: Vec<String> = (1..=SIZE_MAX).map(|size| format!("n={size}")).collect();
    let mut heads = vec!["", "what"];
    heads.extend(sizes.iter().map(String::as_str));
    heads.push("all");
    head(text, &heads);
    for kind in Kind::ALL {
        let mut cells = vec![kind.name().to_owned(), kind.about().to_owned()];
        let row = |size: usize, beyond| {
            summary.rows.get(&(size, kind, beyond)).copied().unwrap_or_default()
        };
        for size in 1..=SIZE_MAX {
            cells.push(pair(row(size, false), row(size, true)));
        }
        let all =
            |beyond| sum((1..=SIZE_MAX).map(|size| row(size, beyond)).collect::<Vec<_>>().iter());
        cells.push(pair(all(false), all(true)));
        line(text, &cells);
    }
}

fn pair(within: Row, beyond: Row) -> String {
    let red = within.red + beyond.red;
    let counts = match (within.ran, beyond.ran) {
        (0, 0) => return "-".to_owned(),
        (within, beyond) => format!("{within} / {beyond}"),
    };
    if red == 0 { counts } else { format!("{counts}, **{red} RED**") }
}

fn of_size(text: &mut String, summary: &Summary, size: usize) {
    let servers = if size == 1 { "server" } else { "servers" };
    writeln!(text, "\n### {size} {servers}\n").expect("a text takes everything");
    head(text, &["", "", "runs", "P", "Z", "R", "safety only", "L", ""]);
    let rows = summary.rows.iter().filter(|(key, _)| key.0 == size);
    for ((_, kind, beyond), row) in rows {
        let Seen { progress, zero, recovers, either, loses_nothing } = row.seen;
        let side = if *beyond { "beyond" } else { "within" };
        line(
            text,
            &[
                kind.name().to_owned(),
                side.to_owned(),
                row.ran.to_string(),
                progress.to_string(),
                zero.to_string(),
                recovers.to_string(),
                either.to_string(),
                loses_nothing.to_string(),
                colour(row),
            ],
        );
    }
}

fn both_directions(text: &mut String, summary: &Summary) {
    text.push_str(PLANTED);
    if summary.planted_rows.is_empty() {
        text.push_str("None was run.\n");
        return;
    }
    head(text, &["fault", "servers", "has to be", "runs", ""]);
    for ((planted, size, is_red), row) in &summary.planted_rows {
        let wanted = if *is_red { "red" } else { "green" };
        let is = match row.red {
            0 => format!("all {wanted}"),
            other => format!("**{other} are not**"),
        };
        let (name, ran) = (planted.name().to_owned(), row.ran.to_string());
        line(text, &[name, size.to_string(), wanted.to_owned(), ran, is]);
    }
    for planted in Planted::ALL {
        if !summary.planted_rows.keys().any(|(ran, ..)| *ran == planted) {
            writeln!(text, "\n`{}` was not run for this page.", planted.name())
                .expect("a text takes everything");
        }
    }
}

const PLANTED: &str = "
## The other direction

A page of green rows proves nothing by itself. With a known fault planted the same experiments have
to go red, by the verdict that speaks of it, and stay green where theory says that it does no harm.

- `quorum-too-small`, half of the servers are enough: every crash of one more than may be lost (C2)
  and every split in halves (P2) has to go red by Z or by what is committed without a quorum.
- `quorum-too-large`, one more than a majority is needed: every crash of as many as may be lost (C1)
  has to go red by P; one or two servers do not even start.
- `old-identity`, a server whose disk was lost comes back as who it was, and votes (D1). An entry is
  on exactly a quorum, some of those who hold it lose their disks, and the other holders are dead:
  the forgetful ones and those who never had the entry elect if together they are a quorum. With 3,
  5 or 7 servers one lost disk is enough, with 6 it takes two, and with 4 there is no way.

";

const SHAPES: &str = "
## The limits of partial networks

In P5 not all who reach each other reach the same others. What Raft owes then depends on who reaches
a quorum by links that go both ways.

| who reaches a quorum | verdict |
| --- | --- |
| the leader | P for it and whom it reaches: nobody of these lets another campaign |
| nobody | Z everywhere |
| others, but not the leader | safety only, and P when it is mended |
| only a server whose log is behind | Z: it must not lead, and nobody else can |

The third row is a limit of Raft with pre-votes: whoever would have to be elected may still hear the
leader that lost its quorum, and refuses to vote while it does (Ng et al., \"Omni-Paxos\", EuroSys
2023). Full meshes have no such row: P1, P2 and P4 are judged without exception.
";

const PLACES: &str = "
## What is enumerated

Sets are enumerated relative to the leader: `@0` leads at the instant of the fault, `@k` is the k-th
server after it. Servers differ in nothing but their numbers, so a set with a place of the leader is
the same experiment as its rotation that puts the leader first: the 69 sets of tolerated size, the
77 of one more, all 254 sets and all 1,155 partitions of the sizes 1 to 7 stand here for themselves
with every place of the leader.

Not here: disks that are gone for good beyond what may be lost. That is no outage but a decision of
an operator (`cronclave raft recover --unsafe`, [recovery.md](recovery.md)). A lone server whose
disk is wiped, and a wiped set as large as `bootstrap-expect`, cannot be told from fresh servers.
";

fn repeat(text: &mut String, summary: &Summary) {
    let hours = summary.simulated.as_secs_f64() / 3_600.0;
    writeln!(
        text,
        "
## Again

    make lattice                   # all of it, and this page
    cargo test --features sim      # a slice of it, every kind and every size

{} runs, {hours:.1} simulated hours. A red experiment prints the command that replays its plan.",
        summary.ran()
    )
    .expect("a text takes everything");
}

//! The table of mutants: [`Row`], for people and for the exit code.

use std::time::Duration;

/// What became of one mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The rows of the design's tables that it stands for.
    pub row: String,
    /// Who of those that have to find it may do so.
    pub expected: Vec<String>,
    /// What became of it.
    pub fate: Fate,
    /// How many seeds were run.
    pub seeds: u64,
    /// How long they took on one core; building is not counted.
    pub time: Duration,
}

/// What becomes of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// One of those that have to find it has.
    Killed {
        /// Which.
        by: String,
        /// In which run.
        seed: u64,
    },
    /// Only others have found it.
    Misjudged {
        /// Which, with commas.
        by: String,
    },
    /// Nobody has found it.
    Survived,
    /// It is the simulator without a mutant, and nobody has complained.
    Green,
    /// It could not be built or run.
    Failed(String),
}

impl Row {
    /// Whether it is as it should be.
    pub fn is_well(&self) -> bool {
        match &self.fate {
            Fate::Killed { .. } | Fate::Green => true,
            Fate::Misjudged { .. } | Fate::Survived | Fate::Failed(_) => false,
        }
    }

    fn cells(&self) -> [String; 7] {
        let (fate, by, seed) = match &self.fate {
            Fate::Killed { by, seed } => ("killed", by.clone(), seed.to_string()),
            Fate::Misjudged { by } => ("UNEXPECTED", by.clone(), String::new()),
            Fate::Survived => ("SURVIVED", String::new(), String::new()),
            Fate::Green => ("green", String::new(), String::new()),
            Fate::Failed(_) => ("FAILED", String::new(), String::new()),
        };
        let seconds = format!("{:.1}", self.time.as_secs_f64());
        [
            self.name.clone(),
            self.row.clone(),
            fate.to_owned(),
            by,
            seed,
            self.seeds.to_string(),
            seconds,
        ]
    }
}

const HEADS: [&str; 7] = ["mutant", "row", "fate", "by", "at seed", "seeds", "core-s"];

/// The columns that hold numbers, which stand to the right.
const NUMBERS: [bool; 7] = [false, false, false, false, true, true, true];

/// All rows as text, and under them what is not well, each with what was expected.
pub fn render(rows: &[Row]) -> String {
    let cells: Vec<[String; 7]> =
        std::iter::once(HEADS.map(str::to_owned)).chain(rows.iter().map(Row::cells)).collect();
    let mut widths = [0; 7];
    for line in &cells {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &cells {
        let mut out = String::new();
        for ((cell, width), is_number) in line.iter().zip(widths).zip(NUMBERS) {
            match is_number {
                true => out.push_str(&format!("{cell:>width$}  ")),
                false => out.push_str(&format!("{cell:<width$}  ")),
            }
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
    for row in rows.iter().filter(|row| !row.is_well()) {
        text.push_str(&complaint(row));
    }
    let well = rows.iter().filter(|row| row.is_well()).count();
    text.push_str(&format!("{well} of {} are as they should be\n", rows.len()));
    text
}

fn complaint(row: &Row) -> String {
    let (name, expected) = (&row.name, row.expected.join(" or "));
    match &row.fate {
        Fate::Failed(reason) => format!("{name} could not be judged: {reason}\n"),
        Fate::Survived => format!("{name} survived; {expected} should have found it\n"),
        Fate::Misjudged { by } if expected.is_empty() => {
            format!("{name} is no mutant, but {by} complained\n")
        }
        Fate::Misjudged { by } => {
            format!("{name} was found by {by} alone; {expected} should have found it\n")
        }
        Fate::Killed { .. } | Fate::Green => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, expected: &[&str], fate: Fate) -> Row {
        let expected = expected.iter().map(|&name| name.to_owned()).collect();
        let time = Duration::from_millis(1_250);
        Row { name: name.to_owned(), row: "M01".to_owned(), expected, fate, seeds: 12, time }
    }

    #[test]
    fn a_table_lines_up_and_ends_with_what_is_not_well() {
        let killed = Fate::Killed { by: "log matching".to_owned(), seed: 7 };
        let rows = [
            row("none", &[], Fate::Green),
            row("forgotten", &["log matching"], killed),
            row("kept", &["durability", "liveness"], Fate::Survived),
            row("odd", &["durability"], Fate::Misjudged { by: "no halt".to_owned() }),
            row("broken", &["durability"], Fate::Failed("it does not compile".to_owned())),
        ];
        let expected = "\
mutant     row  fate        by            at seed  seeds  core-s
none       M01  green                                 12     1.2
forgotten  M01  killed      log matching        7     12     1.2
kept       M01  SURVIVED                              12     1.2
odd        M01  UNEXPECTED  no halt                   12     1.2
broken     M01  FAILED                                12     1.2
kept survived; durability or liveness should have found it
odd was found by no halt alone; durability should have found it
broken could not be judged: it does not compile
2 of 5 are as they should be
";
        assert_eq!(render(&rows), expected);
        assert_eq!(rows.map(|row| row.is_well()), [true, true, false, false, false]);
    }

    #[test]
    fn a_complaint_about_no_mutant_at_all_says_so() {
        let text = render(&[row("none", &[], Fate::Misjudged { by: "liveness".to_owned() })]);
        assert!(text.contains("none is no mutant, but liveness complained"), "{text}");
    }
}

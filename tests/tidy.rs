//! The rules of the house that no lint knows. Each failure names the rule and says what to do.

#![expect(clippy::unwrap_used, reason = "a test fails by unwinding")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest line, in columns.
const LINE_LEN_MAX: usize = 100;

/// The longest file, in lines, tests included.
const FILE_LEN_MAX: usize = 800;

/// Which modules of the crate a module may use. The lowest stand first; `dispatch` may use the
/// types of `jobs`, and otherwise those that stand side by side do not know each other.
const LAYERS: [(&str, &[&str]); 14] = [
    ("time", &[]),
    ("id", &[]),
    ("schedule", &["time", "id"]),
    ("codec", &["time", "id"]),
    ("jobs", &["time", "id", "schedule", "codec"]),
    ("consensus", &["time", "id", "schedule", "codec"]),
    ("membership", &["time", "id", "schedule", "codec"]),
    ("dispatch", &["time", "id", "schedule", "codec", "jobs"]),
    ("node", &["time", "id", "schedule", "codec", "jobs", "consensus", "membership", "dispatch"]),
    ("driver", &["time", "id", "codec", "jobs", "consensus", "membership", "dispatch", "node"]),
    ("fuzzing", PURE),
    ("shell", SHELL),
    ("cli", EVERYTHING),
    ("main", EVERYTHING),
];

const PURE: &[&str] = &[
    "time",
    "id",
    "schedule",
    "codec",
    "jobs",
    "consensus",
    "membership",
    "dispatch",
    "node",
    "driver",
];

const SHELL: &[&str] = &[
    "time",
    "id",
    "schedule",
    "codec",
    "jobs",
    "consensus",
    "membership",
    "dispatch",
    "node",
    "driver",
    "fuzzing",
];

const EVERYTHING: &[&str] = &[
    "time",
    "id",
    "schedule",
    "codec",
    "jobs",
    "consensus",
    "membership",
    "dispatch",
    "node",
    "driver",
    "fuzzing",
    "shell",
];

/// The line that a pure module begins with, after its documentation.
const DENY: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";

/// What is never committed. Put together from halves, so that this file does not hold it itself.
const LEFTOVERS: [(&str, &str, &str); 6] = [
    ("FIX", "ME", "do it, or write an issue"),
    ("dbg", "!(", "take it out"),
    ("todo", "!(", "write it, or leave the function out"),
    ("unimplemented", "!(", "write it, or leave the function out"),
    ("#[ign", "ore", "a test that does not run proves nothing: make it run, or delete it"),
    ("should_", "panic", "assert on the value, or move the bug out of reach"),
];

struct File {
    /// Its path in the repository.
    path: String,
    text: String,
}

impl File {
    /// The top-level module of the crate that it belongs to.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        inside.split('/').next().filter(|module| *module != "lib")
    }

    fn is_pure(&self) -> bool {
        self.module().is_some_and(|module| PURE.contains(&module))
    }

    /// Its lines with their numbers, up to the tests at its end. A file of tests has none.
    fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.path.contains("/tests/") || self.path.ends_with("/tests.rs");
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.take_while(move |(_, line)| !is_test && *line != "mod tests {")
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file, in the order of their paths.
fn files() -> Vec<File> {
    let mut files = Vec::new();
    for dir in ["src", "sim", "tests", "benches", "fuzz/fuzz_targets"] {
        collect(&root().join(dir), &mut files);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 50, "the sources were not found");
    files
}

fn collect(dir: &Path, files: &mut Vec<File>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            files.push(File { path, text });
        }
    }
}

/// Fails with all that broke `rule`, and what to do about it.
fn report(rule: &str, remedy: &str, broken: &[String]) {
    let mut text = format!("{rule}. {remedy}.\n");
    for place in broken {
        writeln!(text, "  {place}").unwrap();
    }
    assert!(broken.is_empty(), "{text}");
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn lines_are_short() {
    let mut broken = Vec::new();
    for file in files() {
        for (at, line) in file.text.lines().enumerate() {
            if line.chars().count() > LINE_LEN_MAX {
                broken.push(format!("{}:{}", file.path, at + 1));
            }
        }
    }
    let rule = format!("A line has at most {LINE_LEN_MAX} columns");
    report(&rule, "Break it; cargo fmt leaves comments and long texts alone", &broken);
}

#[test]
fn files_are_short() {
    let long = |file: &File| file.text.lines().count() > FILE_LEN_MAX;
    let name = |file: File| format!("{}: {}", file.path, file.text.lines().count());
    let broken: Vec<String> = files().into_iter().filter(long).map(name).collect();
    let rule = format!("A file has at most {FILE_LEN_MAX} lines, tests included");
    report(
        &rule,
        "Pull its tests out into a file of their own, or a part that has a name",
        &broken,
    );
}

#[test]
fn code_is_ascii() {
    let mut broken = Vec::new();
    for file in files() {
        for (at, line) in file.text.lines().enumerate() {
            if !without_comment(line).is_ascii() {
                broken.push(format!("{}:{}", file.path, at + 1));
            }
        }
    }
    report("Code is ASCII", "Write other characters as \\u{...}; comments may hold them", &broken);
}

#[test]
fn nothing_is_left_over() {
    let mut broken = Vec::new();
    for file in files() {
        for (at, line) in file.text.lines().enumerate() {
            for (first, second, remedy) in LEFTOVERS {
                if line.contains(&format!("{first}{second}")) {
                    broken.push(format!("{}:{}: {first}{second}: {remedy}", file.path, at + 1));
                }
            }
        }
    }
    report("Nothing unfinished is committed", "See each", &broken);
}

#[test]
fn arrows_point_one_way() {
    let mut broken = Vec::new();
    for file in files() {
        let Some(module) = file.module() else { continue };
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            broken.push(format!("{}: the module {module} is in no layer", file.path));
            continue;
        };
        for (at, line) in file.production() {
            for used in used_modules(without_comment(line)) {
                let known = LAYERS.iter().any(|(name, _)| *name == used);
                if known && used != module && !allowed.contains(&used) {
                    broken.push(format!("{}:{at}: {module} uses {used}", file.path));
                }
            }
        }
    }
    let rule = "Arrows point one way: time, id <- schedule, codec <- jobs, consensus, membership, \
                dispatch (which may use jobs) <- node <- driver <- shell <- cli";
    report(rule, "Move the type down, or let the module above carry the fact over", &broken);
}

/// The top-level modules that a line names by `crate::`.
fn used_modules(line: &str) -> Vec<&str> {
    let mut used = Vec::new();
    for part in line.split("crate::").skip(1) {
        match part.strip_prefix('{') {
            Some(group) => {
                let end = group.find('}').unwrap_or(group.len());
                used.extend(group[..end].split(',').map(|name| first_name(name.trim())));
            }
            None => used.push(first_name(part)),
        }
    }
    used
}

fn first_name(path: &str) -> &str {
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    &path[..end]
}

#[test]
fn the_pure_half_has_no_locks_and_no_tasks() {
    let mut broken = Vec::new();
    // A database takes its file by a shared reference; in memory that needs a lock.
    let shared = |file: &File| file.path == "src/jobs/history/memory_backend.rs";
    let hosted = |file: &File| file.module() == Some("consensus") || shared(file);
    let pure = |file: &File| file.is_pure() && !hosted(file);
    for file in files().iter().filter(|file| pure(file)) {
        for (at, line) in file.production() {
            let code = without_comment(line);
            for word in
                ["async ", "Mutex", "RwLock", "std::thread", "tokio", "std::fs", "std::net::Tcp"]
            {
                if code.contains(word) {
                    broken.push(format!("{}:{at}: {word}", file.path));
                }
            }
        }
    }
    let rule = "A pure module has no async, no lock, no thread, no file and no socket; the host of \
                openraft and the history's file in memory alone excepted";
    report(rule, "Make it an Input and an Output, and let the shell do it", &broken);
}

#[test]
fn every_pure_module_denies_clocks_and_random_orders() {
    let pure: Vec<File> = files().into_iter().filter(File::is_pure).collect();
    let mut broken = Vec::new();
    for module in PURE {
        let (dir, single) = (format!("src/{module}/mod.rs"), format!("src/{module}.rs"));
        let head = pure.iter().find(|file| file.path == dir || file.path == single);
        match head {
            None => broken.push(format!("src/{module}: not found")),
            // Two files of plain types have nothing that could be denied.
            Some(_) if ["time", "id", "driver"].contains(module) => {}
            Some(file) if file.text.lines().any(|line| line == DENY) => {}
            Some(file) => broken.push(file.path.clone()),
        }
    }
    report("A pure module denies what .clippy.toml lists", &format!("Add {DENY}"), &broken);
}

#[test]
fn every_module_says_what_it_is() {
    let named = |file: &File| !file.path.ends_with("/tests.rs");
    let plain = |file: &File| named(file) && !file.text.starts_with("//!");
    let broken: Vec<String> = files().into_iter().filter(plain).map(|file| file.path).collect();
    report("A file opens with one sentence that says what it is", "Begin it with //!", &broken);
}

#[test]
fn crates_are_not_reached_by_path_of_this_machine() {
    let mut broken = Vec::new();
    for file in files() {
        for (at, line) in file.text.lines().enumerate() {
            if line.contains(concat!("/ho", "me/")) || line.contains(concat!("/ro", "ot/")) {
                broken.push(format!("{}:{}", file.path, at + 1));
            }
        }
    }
    report("No path of one machine is committed", "Make it relative", &broken);
}

//! The configuration file: where it is looked for, and its reading as YAML, JSON or TOML.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::shell::exit::ExitError;

/// The most bytes of a configuration file.
const FILE_LEN_MAX: u64 = 1 << 20;
/// The names of the file, the first before the second in whatever directory.
const STEMS: [&str; 2] = ["cronclave", "dkron"];
/// The endings of the file, in the order in which they are looked for.
const ENDINGS: [&str; 4] = ["yml", "yaml", "json", "toml"];
/// Endings that Dkron reads and this does not.
const ENDINGS_FOREIGN: [&str; 4] = ["hcl", "env", "properties", "ini"];

/// The directories where the file is looked for.
pub(crate) fn directories(home: Option<&Path>) -> Vec<PathBuf> {
    let mut list = vec![PathBuf::from("/etc/cronclave"), PathBuf::from("/etc/dkron")];
    if let Some(home) = home {
        list.extend([home.join(".cronclave"), home.join(".dkron")]);
    }
    list.push(PathBuf::from("config"));
    list
}

/// The first configuration file in `directories`, and what the operator should know of others.
pub(crate) fn find(directories: &[PathBuf]) -> (Option<PathBuf>, Vec<String>) {
    let mut warnings = Vec::new();
    for stem in STEMS {
        for directory in directories {
            for ending in ENDINGS {
                let path = directory.join(format!("{stem}.{ending}"));
                match path.try_exists() {
                    Ok(true) => return (Some(path), warnings),
                    Ok(false) => {}
                    Err(cause) => {
                        warnings.push(format!("cannot look for {}: {cause}", path.display()));
                    }
                }
            }
            for ending in ENDINGS_FOREIGN {
                let path = directory.join(format!("{stem}.{ending}"));
                if path.exists() {
                    let path = path.display();
                    warnings.push(format!("{path} is not read: write it as YAML, JSON or TOML"));
                }
            }
        }
    }
    (None, warnings)
}

/// Reads the file: its keys as they are written, and their values.
///
/// # Errors
/// If it cannot be read, is too long, or is not what its ending says; with line and column.
pub(crate) fn read(path: &Path) -> Result<Map<String, Value>, ExitError> {
    let shown = path.display();
    let fail = |cause: String| ExitError::Environment(cause);
    let open = |path| -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = open(path).map_err(|cause| fail(format!("cannot read {shown}: {cause}")))?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(fail(format!("{shown} is longer than {FILE_LEN_MAX} bytes")));
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
            let (line, column) = position(&text, good);
            return Err(fail(format!("{shown}:{line}:{column}: this is not UTF-8 text")));
        }
    };
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    let parsed = match ending.as_str() {
        "json" => parse_json(&text),
        "toml" => parse_toml(&text),
        foreign if ENDINGS_FOREIGN.contains(&foreign) => {
            let text = format!("{shown}: .{foreign} is not read, use .yml, .json or .toml");
            return Err(fail(text));
        }
        _ => parse_yaml(&text),
    };
    match parsed {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(fail(format!("{shown}:1:1: keys with values are expected")))
        }
        Err(Fault { line, column, text }) => Err(fail(format!("{shown}:{line}:{column}: {text}"))),
    }
}

struct Fault {
    line: u64,
    column: u64,
    text: String,
}

fn parse_yaml(text: &str) -> Result<Value, Fault> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let at = error.location();
        let (line, column) = at.map_or((1, 1), |at| (at.line(), at.column()));
        let text = error.without_snippet().to_string();
        // The place stands before it, and advice to programmers is of no use here.
        let cut = [" at line ", ", set Dup", "; use from_str"].map(|end| text.find(end));
        let text = &text[..cut.into_iter().flatten().min().unwrap_or(text.len())];
        Fault { line, column, text: text.lines().next().unwrap_or("").to_owned() }
    })
}

fn parse_json(text: &str) -> Result<Value, Fault> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line() as u64, error.column().max(1) as u64);
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or("").to_owned();
        Fault { line, column, text }
    })
}

fn parse_toml(text: &str) -> Result<Value, Fault> {
    toml::from_str(text).map_err(|error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        Fault { line, column, text: error.message().replace('\n', " ") }
    })
}

/// Line and column, from 1, of the byte at `offset`.
fn position(text: &str, offset: usize) -> (u64, u64) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    (line as u64, (before[line_start..].chars().count() + 1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn the_three_formats_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let yaml = "# dkron.yml\nserver: true\nretry-join:\n- 10.19.3.9\ntags:\n  Role: web\n";
        let toml = "server = true\nretry-join = [\"10.19.3.9\"]\n[tags]\nRole = \"web\"\n";
        let json = r#"{"server": true, "retry-join": ["10.19.3.9"], "tags": {"Role": "web"}}"#;
        let right: Value = serde_json::from_str(json).unwrap();
        for (name, text) in [("a.yml", yaml), ("a.toml", toml), ("a.json", json), ("a", yaml)] {
            let map = read(&write(dir.path(), name, text)).unwrap();
            assert_eq!(Value::Object(map), right, "{name}");
        }
        assert!(read(&write(dir.path(), "empty.yml", "# nothing\n")).unwrap().is_empty());
        assert!(read(&write(dir.path(), "empty.toml", "")).unwrap().is_empty());
    }

    #[test]
    fn a_bad_file_is_named_with_line_and_column() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text, place) in [
            ("a.yml", "server: true\nretry-join: [a\n", ":"),
            ("b.yml", "server: true\nx: @a\n", ":2:"),
            ("c.yml", "server: true\nserver: false\n", ":2:"),
            ("a.json", "{\n \"server\": tru }", ":2:"),
            ("a.toml", "a = 1\nserver = \n", ":2:10:"),
            ("list.yml", "- a\n- b\n", ":1:1:"),
        ] {
            let path = write(dir.path(), name, text);
            let error = read(&path).unwrap_err();
            assert_eq!(error.code(), 1);
            let start = format!("{}{place}", path.display());
            assert!(error.to_string().starts_with(&start), "{name}: {error}");
        }
        let missing = read(&dir.path().join("none.yml")).unwrap_err().to_string();
        assert!(missing.contains("none.yml") && missing.contains("No such file"), "{missing}");
        let hcl = read(&write(dir.path(), "a.hcl", "x")).unwrap_err().to_string();
        assert!(hcl.contains("use .yml"), "{hcl}");
    }

    #[test]
    fn our_file_goes_before_dkrons_in_whatever_directory() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().join("one"), dir.path().join("two")];
        assert_eq!(find(&dirs), (None, vec![]));
        write(&dirs[1], "dkron.toml", "");
        let dkron = write(&dirs[0], "dkron.json", "");
        assert_eq!(find(&dirs).0, Some(dkron));
        let ours = write(&dirs[1], "cronclave.yaml", "");
        assert_eq!(find(&dirs).0, Some(ours));
    }

    #[test]
    fn a_file_of_a_foreign_format_is_not_passed_over_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "dkron.hcl", "");
        let (found, warnings) = find(&[dir.path().to_owned()]);
        assert_eq!(found, None);
        assert!(warnings[0].contains("dkron.hcl is not read"), "{warnings:?}");
    }
}

//! Where settings come from: flags before `CRONCLAVE_...`, `DKRON_...`, the file and the defaults.
//!
//! [`Sources::gather`] gives each setting one value and its [`Origin`]. A source that gives an
//! empty value is passed over, as in Dkron.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

use crate::cli::file;
use crate::cli::keys::{self, KEYS, Key, Kind, Shown};
use crate::shell::exit::ExitError;

/// The prefixes of variables, the first before the second.
const ENV_PREFIXES: [&str; 2] = ["CRONCLAVE_", "DKRON_"];

/// A value as it came, before it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Raw {
    /// One text.
    Text(String),
    /// Several.
    List(Vec<String>),
    /// Texts by keys, whose case is kept.
    Map(BTreeMap<String, String>),
}

impl Raw {
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Map(map) => map.is_empty(),
        }
    }
}

/// What a masked value is shown as.
const MASK: &str = "********";

impl Raw {
    /// The value as it may be shown.
    pub(crate) fn show(&self, key: &Key) -> String {
        match (key.shown, self) {
            (Shown::Masked, _) if !self.is_empty() => MASK.to_owned(),
            (Shown::Masked, _) => String::new(),
            (Shown::Plain, Self::Text(text)) => text.clone(),
            (Shown::Plain, Self::List(list)) => {
                list.iter().map(|entry| without_secrets(entry)).collect::<Vec<_>>().join(", ")
            }
            (Shown::Plain, Self::Map(map)) => {
                map.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// A join entry of the form `provider=... secret=...` without what follows the provider's name.
pub(crate) fn without_secrets(entry: &str) -> String {
    if !entry.contains("provider=") {
        return entry.to_owned();
    }
    let name = entry.split_whitespace().find(|word| word.starts_with("provider="));
    format!("{} {MASK}", name.unwrap_or("provider=?"))
}

/// Where a value came from. Displays as the operator would look for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag of the command line.
    Flag(&'static str),
    /// A variable of the environment.
    Env(String),
    /// The configuration file.
    File(PathBuf),
    /// `--dev` implies it.
    Dev,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Env(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Dev => f.write_str("--dev"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The value.
    pub(crate) value: Raw,
    /// Where it came from.
    pub(crate) origin: Origin,
}

/// All settings, each with its origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// By name. Every name of [`KEYS`] is there, but for those that were never flags nor set.
    pub(crate) values: BTreeMap<&'static str, Found>,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    /// What the operator should know.
    pub(crate) warnings: Vec<String>,
}

/// Everything that settings are gathered from. Can be gathered again at any time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The flags that were given, by name.
    pub(crate) flags: BTreeMap<&'static str, Raw>,
    /// The environment.
    pub(crate) env: BTreeMap<String, String>,
    /// The file to read; else one is looked for.
    pub(crate) config: Option<PathBuf>,
    /// Where a file is looked for.
    pub(crate) directories: Vec<PathBuf>,
    /// What `--dev` implies, by name; empty without it.
    pub(crate) dev: BTreeMap<&'static str, String>,
}

impl Sources {
    /// One value and its origin for each setting.
    ///
    /// # Errors
    /// If the file cannot be read, or a value in it has a shape that its key cannot have.
    pub(crate) fn gather(&self) -> Result<Settings, ExitError> {
        let (found, mut warnings) = match &self.config {
            Some(path) => (Some(path.clone()), Vec::new()),
            // What lies in the usual places is for the cluster's member, not for a trial.
            None if !self.dev.is_empty() => (None, Vec::new()),
            None => file::find(&self.directories),
        };
        let in_file = match &found {
            Some(path) => read_file(path.clone(), &mut warnings)?,
            None => BTreeMap::new(),
        };
        let mut values = BTreeMap::new();
        for key in KEYS {
            let flag = self.flags.get(key.name).cloned();
            let flag = flag.map(|value| Found { value, origin: Origin::Flag(key.name) });
            let sources = [flag, self.variable(key), in_file.get(key.name).cloned()];
            let said = sources.into_iter().flatten().find(|found| !found.value.is_empty());
            let value = match (said, self.dev.get(key.name)) {
                (Some(found), _) => found,
                (None, Some(text)) => Found { value: Raw::Text(text.clone()), origin: Origin::Dev },
                (None, None) => Found { value: default(key), origin: Origin::Default },
            };
            values.insert(key.name, value);
        }
        Ok(Settings { values, file: found, warnings })
    }

    fn variable(&self, key: &Key) -> Option<Found> {
        for prefix in ENV_PREFIXES {
            for name in [key.name, key.alias] {
                let name = format!("{prefix}{}", name.to_ascii_uppercase().replace('-', "_"));
                let Some(text) = self.env.get(&name).filter(|text| !text.is_empty()) else {
                    continue;
                };
                let value = match key.kind {
                    Kind::List => Raw::List(split_list(text)),
                    Kind::Tags => Raw::List(split_words(text)),
                    Kind::Switch | Kind::Text | Kind::Number | Kind::Duration => {
                        Raw::Text(text.clone())
                    }
                };
                return Some(Found { value, origin: Origin::Env(name) });
            }
        }
        None
    }
}

/// The entries of a list that is written with commas.
pub(crate) fn split_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()
}

fn split_words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn default(key: &Key) -> Raw {
    match key.kind {
        Kind::List | Kind::Tags => Raw::List(Vec::new()),
        Kind::Switch | Kind::Text | Kind::Number | Kind::Duration => {
            Raw::Text(key.default.to_owned())
        }
    }
}

fn read_file(
    path: PathBuf,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<&'static str, Found>, ExitError> {
    let shown = path.display();
    let mut found = BTreeMap::new();
    for (written, value) in file::read(&path)? {
        let Some(key) = keys::find(&written) else {
            let hint = match keys::nearest(&written) {
                Some(name) => format!("; did you mean {name}?"),
                None => String::new(),
            };
            warnings.push(format!("{shown}: unknown key {written}{hint}"));
            continue;
        };
        let value = match shape(key, &value) {
            Ok(value) => value,
            Err(right) => {
                let value = match key.shown {
                    Shown::Plain => value.to_string(),
                    Shown::Masked => MASK.to_owned(),
                };
                let text = format!("{shown}: {written}: {value} is not valid; right is {right}");
                return Err(ExitError::Usage(text));
            }
        };
        let Some(value) = value else { continue };
        let value = Found { value, origin: Origin::File(path.clone()) };
        if found.insert(key.name, value).is_some() {
            warnings.push(format!("{shown}: {} stands there twice, {written} holds", key.name));
        }
    }
    Ok(found)
}

/// The value in the shape that its key has; `None` for null, or what would be right.
fn shape(key: &Key, value: &Value) -> Result<Option<Raw>, &'static str> {
    let right = match key.kind {
        Kind::Switch => "true or false",
        Kind::Text => "one text (in quotes, if it looks like another thing)",
        Kind::Number => "a whole number",
        Kind::Duration => "a duration such as 30s or 1h30m",
        Kind::List => "a list of texts",
        Kind::Tags => "keys with texts (in quotes, if they look like another thing)",
    };
    let list = |split: fn(&str) -> Vec<String>| match value {
        Value::Array(list) => list.iter().map(scalar).collect::<Option<Vec<_>>>().map(Raw::List),
        Value::String(text) => Some(Raw::List(split(text))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    };
    let raw = match (key.kind, value) {
        (_, Value::Null) => return Ok(None),
        (Kind::Tags, Value::Object(map)) => {
            let texts = map.iter().map(|(k, v)| scalar(v).map(|v| (k.clone(), v)));
            texts.collect::<Option<BTreeMap<_, _>>>().map(Raw::Map)
        }
        (Kind::Tags, _) => list(split_words),
        (Kind::List, _) => list(split_list),
        (Kind::Switch, Value::Number(_)) => None,
        (Kind::Number | Kind::Duration, Value::Bool(_)) => None,
        (Kind::Switch | Kind::Text | Kind::Number | Kind::Duration, _) => {
            scalar(value).map(Raw::Text)
        }
    };
    raw.map(Some).ok_or(right)
}

/// The text of one value. A fraction has none: `1.10` would become `1.1`.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(bit) => Some(bit.to_string()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

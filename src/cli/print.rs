//! `--print-config`: each setting, its value, and where that came from.

use std::fmt::Write as _;

use crate::cli::keys::{KEYS, Standing};
use crate::cli::sources::{Origin, Settings};
use crate::shell::config::AgentConfig;

/// The longest value that widens the column of values.
const VALUE_WIDTH_MAX: usize = 48;

/// A table of three columns. Settings without function stand in it only if they were set. Where
/// `config` is known, what it made of a setting is shown instead of the template or the gap.
pub(crate) fn table(settings: &Settings, config: Option<&AgentConfig>) -> String {
    let mut rows = Vec::new();
    for key in KEYS {
        let Some(found) = settings.values.get(key.name) else { continue };
        let is_shown = match key.standing {
            Standing::Built => true,
            Standing::NotBuilt | Standing::NotBuiltNoFlag | Standing::Needless => {
                found.origin != Origin::Default
            }
        };
        if is_shown {
            let made = config.and_then(|config| made_of(key.name, config));
            let value = made.unwrap_or_else(|| found.value.show(key));
            let value = value.replace(char::is_control, "?");
            let value = if value.is_empty() { "-".to_owned() } else { value };
            rows.push((key.name, value, found.origin.to_string()));
        }
    }
    let names = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
    let len = |text: &str| text.chars().count();
    let values = rows.iter().map(|row| len(&row.1)).filter(|&len| len <= VALUE_WIDTH_MAX).max();
    let values = values.unwrap_or(0);
    let mut out = String::new();
    for (name, value, origin) in rows {
        writeln!(out, "{name:names$}  {value:values$}  {origin}").expect("a String takes all");
    }
    out
}

/// What became of a setting that has no fixed default, or stands for an address.
fn made_of(name: &str, config: &AgentConfig) -> Option<String> {
    match name {
        "node-name" => Some(config.node_name.to_string()),
        "bind-addr" => Some(config.bind.to_string()),
        "advertise-addr" => Some(config.advertise.to_string()),
        "advertise-rpc-port" => Some(config.advertise_rpc_port.to_string()),
        "http-addr" => Some(config.http_addr.to_string()),
        _ => None,
    }
}

//! `cronclave agent`: its flags, and the way from them to a running agent.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use crate::cli::addr;
use crate::cli::build::{self, Surroundings};
use crate::cli::file;
use crate::cli::keys::{KEYS, Key, Kind, Standing};
use crate::cli::logging::{self, LogHandle};
use crate::cli::print;
use crate::cli::say;
use crate::cli::sources::{Raw, Sources, split_list};
use crate::shell::config::{
    AgentConfig, GOSSIP_PORT, HTTP_PORT, Mode, PEER_PORT, Reload, Reloaded,
};
use crate::shell::exit::ExitError;

/// The variables that name the configuration file, the first before the second.
const CONFIG_VARIABLES: [&str; 2] = ["CRONCLAVE_CONFIG", "DKRON_CONFIG"];
/// How often free ports are sought for `--dev`.
const PORT_TRIES_MAX: usize = 64;

/// The flags of `cronclave agent`. One flag for each of [`KEYS`], and these.
#[derive(Clone, Debug, Default)]
pub(crate) struct AgentArgs {
    flags: BTreeMap<&'static str, Raw>,
    config: Option<PathBuf>,
    mode: Option<Mode>,
    task: Option<Task>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    PrintConfig,
}

impl Args for AgentArgs {
    fn augment_args(command: Command) -> Command {
        let own = [
            Arg::new("config")
                .long("config")
                .value_name("PATH")
                .value_parser(value_parser!(PathBuf))
                .overrides_with("config")
                .help(
                    "The configuration file (YAML, JSON or TOML) [else cronclave.yml, dkron.yml]",
                ),
            Arg::new("dev")
                .long("dev")
                .action(ArgAction::SetTrue)
                .overrides_with("dev")
                .help("One server on loopback in a temporary directory, to try things out"),
            Arg::new("print-config")
                .long("print-config")
                .action(ArgAction::SetTrue)
                .overrides_with("print-config")
                .help("Show each setting with its value and where it came from, and exit"),
        ];
        command.args(own).args(KEYS.iter().filter_map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for AgentArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        self.mode = matches.get_flag("dev").then_some(Mode::Dev);
        self.task = matches.get_flag("print-config").then_some(Task::PrintConfig);
        for key in KEYS.iter().filter(|key| key.standing != Standing::NotBuiltNoFlag) {
            let Some(values) = matches.get_many::<String>(key.name) else { continue };
            let mut values = values.cloned();
            let raw = match key.kind {
                Kind::List => Raw::List(values.flat_map(|text| split_list(&text)).collect()),
                Kind::Tags => Raw::List(values.collect()),
                Kind::Switch | Kind::Text | Kind::Number | Kind::Duration => {
                    Raw::Text(values.next_back().unwrap_or_default())
                }
            };
            self.flags.insert(key.name, raw);
        }
        Ok(())
    }
}

fn flag(key: &'static Key) -> Option<Arg> {
    let arg = Arg::new(key.name).long(key.name);
    let arg = match key.standing {
        Standing::Built => arg,
        Standing::NotBuilt | Standing::Needless => {
            arg.hide_short_help(true).help_heading("Flags of Dkron without function here")
        }
        Standing::NotBuiltNoFlag => return None,
    };
    let arg = match key.kind {
        // `--server` and `--server=false`, but not `--server false`, as in Dkron.
        Kind::Switch => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("BOOL")
            .value_parser(PossibleValuesParser::new(["true", "false", "1", "0", "t", "f"])),
        Kind::Text => arg.value_name("TEXT"),
        Kind::Number => arg.value_name("NUMBER"),
        Kind::Duration => arg.value_name("DURATION"),
        Kind::List => arg.value_name("ENTRY"),
        Kind::Tags => arg.value_name("KEY=VALUE"),
    };
    let arg = match key.kind {
        Kind::List | Kind::Tags => arg.action(ArgAction::Append),
        Kind::Switch | Kind::Text | Kind::Number | Kind::Duration => {
            arg.action(ArgAction::Set).overrides_with(key.name)
        }
    };
    let help = match key.default {
        "" => key.help.to_owned(),
        default => format!("{} [{default}]", key.help),
    };
    Some(arg.help(help))
}

/// Gathers and checks the settings, starts logging, and calls `start`.
pub(crate) fn run(
    args: AgentArgs,
    start: impl FnOnce(AgentConfig) -> Result<(), ExitError>,
) -> Result<(), ExitError> {
    let env = std::env::vars_os();
    let env = env.filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let mode = args.mode.unwrap_or(Mode::Normal);
    // Dropped, and with it removed, when the agent has ended.
    let scratch = match mode {
        Mode::Normal => None,
        Mode::Dev => Some(scratch_directory()?),
    };
    let mut sources = sources(args.clone(), env.collect());
    if let Some(scratch) = &scratch {
        sources.dev = dev_settings(&scratch.path().to_string_lossy())?;
    }
    let settings = sources.gather()?;
    let level = Arc::new(OnceLock::<LogHandle>::new());
    let reload = reload(sources, Arc::clone(&level));
    let built = build::build(&settings, &surroundings(), mode, reload);
    match args.task {
        Some(Task::PrintConfig) => {
            // What is wrong is seen best beside where it came from, so the table comes first.
            say(&print::table(&settings, built.as_ref().ok()));
            for warning in &built?.warnings {
                super::complain(&format!("warning: {warning}\n"));
            }
            Ok(())
        }
        None => {
            let config = built?;
            let log = logging::init(config.log_level, config.log_format);
            // Set once, here.
            let _ = level.set(log);
            start(config)
        }
    }
}

fn sources(args: AgentArgs, env: BTreeMap<String, String>) -> Sources {
    let named = CONFIG_VARIABLES.iter().find_map(|name| env.get(*name).filter(|t| !t.is_empty()));
    let config = args.config.or_else(|| named.map(PathBuf::from));
    let home = env.get("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let directories = file::directories(home.as_deref());
    Sources { flags: args.flags, env, config, directories, dev: BTreeMap::new() }
}

/// Reads the same sources again. Their file may have changed, the rest has not.
fn reload(sources: Sources, log: Arc<OnceLock<LogHandle>>) -> Reload {
    Reload::new(move || {
        let settings = sources.gather()?;
        let (log_level, tags) = build::reloadable(&settings)?;
        if let Some(log) = log.get() {
            log.set_level(log_level);
        }
        let mut warnings = settings.warnings.clone();
        warnings.extend(build::without_function(&settings));
        Ok(Reloaded { tags, log_level, config_file: settings.file, warnings })
    })
}

fn surroundings() -> Surroundings {
    let host_name = match nix::unistd::gethostname() {
        Ok(name) => name.into_string().map_err(|_| "it is not UTF-8".to_owned()),
        Err(cause) => Err(cause.to_string()),
    };
    let interfaces = addr::interfaces().map_err(|cause| cause.to_string());
    Surroundings { interfaces, host_name, resolve }
}

fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|addr| addr.ip()).collect())
}

fn scratch_directory() -> Result<tempfile::TempDir, ExitError> {
    tempfile::Builder::new().prefix("cronclave-dev-").tempdir().map_err(|cause| {
        ExitError::Environment(format!("cannot make a temporary directory: {cause}"))
    })
}

/// What `--dev` implies where nothing else is said.
fn dev_settings(data_dir: &str) -> Result<BTreeMap<&'static str, String>, ExitError> {
    let no_port = |cause: io::Error| {
        ExitError::Environment(format!("cannot find a free port on 127.0.0.1: {cause}"))
    };
    let http = free_port(HTTP_PORT, &[]).map_err(no_port)?;
    let peers = free_port(PEER_PORT, &[http]).map_err(no_port)?;
    let gossip = free_port(GOSSIP_PORT, &[http, peers]).map_err(no_port)?;
    Ok(BTreeMap::from([
        ("server", "true".to_owned()),
        ("bootstrap-expect", "1".to_owned()),
        ("data-dir", data_dir.to_owned()),
        ("bind-addr", format!("127.0.0.1:{gossip}")),
        ("rpc-port", peers.to_string()),
        ("http-addr", format!("127.0.0.1:{http}")),
        ("profile", "local".to_owned()),
    ]))
}

/// The port `wanted` if it is free on loopback for TCP and UDP, else another one that is.
fn free_port(wanted: u16, taken: &[u16]) -> io::Result<u16> {
    let mut wanted = wanted;
    let mut cause = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_TRIES_MAX {
        let both = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).and_then(|listener| {
            let port = listener.local_addr()?.port();
            UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).map(|_| port)
        });
        match both {
            Ok(port) if !taken.contains(&port) => return Ok(port),
            Ok(_) => {}
            Err(error) => cause = error,
        }
        wanted = 0;
    }
    Err(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::config::LogLevel;

    #[test]
    fn a_taken_port_is_not_offered_again() {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let other = free_port(port, &[]).unwrap();
        assert_ne!(other, port);
    }

    #[test]
    fn a_reload_reads_the_file_again_and_keeps_flags_and_variables() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.yml");
        std::fs::write(&path, "log-level: warn\ntags: {a: b}\nregion: here\n").unwrap();
        let args = AgentArgs { config: Some(path.clone()), ..AgentArgs::default() };
        let env = BTreeMap::from([("DKRON_REGION".to_owned(), "there".to_owned())]);
        let handle = reload(sources(args, env), Arc::new(OnceLock::new()));
        let first = handle.read().unwrap();
        assert_eq!((first.log_level, &*first.tags["a"]), (LogLevel::Warn, "b"));
        assert_eq!(first.config_file.as_deref(), Some(&*path));
        std::fs::write(&path, "log-level: debug\ntags: {a: c}\nregion: here\nx: 1\n").unwrap();
        let second = handle.read().unwrap();
        assert_eq!((second.log_level, &*second.tags["a"]), (LogLevel::Debug, "c"));
        assert_eq!(second.tags["region"], "there");
        assert_eq!(second.warnings.len(), 1, "{:?}", second.warnings);
        std::fs::write(&path, "tags: [\n").unwrap();
        assert_eq!(handle.read().unwrap_err().code(), 1);
    }

    #[test]
    fn the_file_is_named_by_flag_before_variable() {
        let env = |names: &[&str]| {
            names.iter().map(|name| ((*name).to_owned(), format!("/{name}"))).collect()
        };
        let args = || AgentArgs::default();
        let found = sources(args(), env(&["DKRON_CONFIG", "HOME"]));
        assert_eq!(found.config, Some("/DKRON_CONFIG".into()));
        assert!(found.directories.contains(&"/HOME/.dkron".into()));
        let found = sources(args(), env(&CONFIG_VARIABLES));
        assert_eq!(found.config, Some("/CRONCLAVE_CONFIG".into()));
        let args = AgentArgs { config: Some("/flag".into()), ..args() };
        assert_eq!(sources(args, env(&CONFIG_VARIABLES)).config, Some("/flag".into()));
    }
}

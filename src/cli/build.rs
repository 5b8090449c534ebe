//! Settings become an [`AgentConfig`]: each value is checked, then what must fit together.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chrono_tz::{TZ_VARIANTS, Tz};

use crate::cli::addr::{self, Interface};
use crate::cli::keys::{self, KEYS, Key, Standing};
use crate::cli::sources::{Found, Origin, Raw, Settings, split_list, without_secrets};
use crate::codec::log::LogLimits;
use crate::consensus::LogBounds;
use crate::id::NodeName;
use crate::jobs::history::change::Limits;
use crate::schedule::parse_go_duration;
use crate::shell::config::{
    AgentConfig, GOSSIP_PORT, HTTP_PORT, LogLevel, Mode, Reload, TAGS_LEN_MAX,
};
use crate::shell::exit::ExitError;

/// The most servers that may found a cluster together. More than 7 only make writes slower.
pub const BOOTSTRAP_EXPECT_MAX: u32 = 31;
/// The most addresses that may be joined.
pub const JOIN_COUNT_MAX: usize = 256;
/// The most rounds of `retry-join` that may be asked for; more is "for ever", which is 0.
const RETRY_MAX_MAX: u32 = 1_000_000_000;
/// The least log after which a snapshot is taken, in bytes: a snapshot costs some syncs.
const SNAPSHOT_AFTER_MIN: u64 = 16 << 10;
/// The most that any part of the log may have, in bytes.
const LOG_SIZE_MAX: u64 = 1 << 44;
/// The most executions of one job that may be kept.
const HISTORY_ROWS_MAX: u64 = 10_000_000;
/// The least room for executions: a few with all of their output.
const HISTORY_BYTES_MIN: u64 = 1 << 20;
/// The most room for executions.
const HISTORY_BYTES_MAX: u64 = 1 << 40;
/// The shortest segment of the log, in bytes: room for some hundred records.
const SEGMENT_LEN_MIN: u64 = 64 << 10;
/// The longest: recovery holds one in memory.
const SEGMENT_LEN_MAX: u64 = 1 << 30;
/// From here on more servers are warned of.
const SERVERS_USEFUL_MAX: u32 = 7;

/// What the machine says, read once before settings are checked.
pub(crate) struct Surroundings {
    /// The addresses of this machine, or why they are not known.
    pub(crate) interfaces: Result<Vec<Interface>, String>,
    /// The host's name, or why it is not known.
    pub(crate) host_name: Result<String, String>,
    /// The addresses of a host.
    pub(crate) resolve: fn(&str) -> io::Result<Vec<IpAddr>>,
}

/// Checks the settings and makes a configuration of them.
///
/// # Errors
/// If a value is wrong (usage), or the machine does not give what one asks for (environment).
pub(crate) fn build(
    settings: &Settings,
    around: &Surroundings,
    mode: Mode,
    reload: Reload,
) -> Result<AgentConfig, ExitError> {
    let of = Of { settings };
    if of.is_set("encrypt") {
        let origin = &of.found("encrypt").origin;
        return Err(ExitError::Usage(format!(
            "encrypt (from {origin}): gossip encryption is not built yet; refusing to run \
             unencrypted when asked to encrypt"
        )));
    }
    let mut warnings = settings.warnings.clone();
    warnings.extend(without_function(settings));
    let server = of.switch("server")?;
    if mode == Mode::Dev && !server {
        return Err(of.wrong_text("server", "true with --dev"));
    }
    let bootstrap_expect = bootstrap_expect(&of, server, &mut warnings)?;
    let (join, retry_join) = joins(&of, around, &mut warnings)?;
    check_role(&of, mode, server, bootstrap_expect, &join, &retry_join)?;
    let bind = bind(&of, around)?;
    let advertise = advertise(&of, around, bind)?;
    let targets = if retry_join.is_empty() { &join } else { &retry_join };
    check_loopback(&of, mode, bootstrap_expect, bind, advertise, targets)?;
    let rpc_port = of.port("rpc-port")?;
    let advertise_rpc_port = match of.text("advertise-rpc-port") {
        "" | "0" => rpc_port,
        _ => of.port("advertise-rpc-port")?,
    };
    let http_addr = http_addr(&of, around)?;
    if server && !http_addr.ip().is_loopback() {
        warnings.push(format!(
            "http-addr {http_addr} is not loopback, and HTTP has no authentication: whoever \
             reaches it can run any command"
        ));
    }
    warnings.extend(retry_max(&of)?);
    let profile = of.parsed("profile")?;
    let (log_level, tags) = reloadable(settings)?;
    Ok(AgentConfig {
        node_name: node_name(&of, around)?,
        server,
        bootstrap_expect,
        data_dir: PathBuf::from(of.text("data-dir")),
        bind,
        advertise,
        rpc_port,
        advertise_rpc_port,
        http_addr,
        join,
        retry_join,
        retry_interval: of.duration("retry-interval", Duration::from_millis(1))?,
        tags,
        profile,
        raft_multiplier: of.number("raft-multiplier", 1, 10)?,
        log_bounds: log_bounds(&of)?,
        log_limits: log_limits(&of)?,
        timezone: timezone(&of)?,
        drain_timeout: of.duration("drain-timeout", Duration::ZERO)?,
        misfire_grace: of.duration("misfire-grace", Duration::ZERO)?,
        history: history_limits(&of)?,
        reconnect_timeout: of.duration("serf-reconnect-timeout", Duration::from_secs(1))?,
        log_level,
        log_format: of.parsed("log-format")?,
        mode,
        config_file: settings.file.clone(),
        warnings,
        reload,
    })
}

/// Dkron gives up joining after this many rounds; a node here never does, and says so.
fn retry_max(of: &Of<'_>) -> Result<Option<String>, ExitError> {
    let rounds: u32 = of.number("retry-max", 0, RETRY_MAX_MAX)?;
    let text = || format!("retry-max {rounds} is ignored: a node never gives up joining");
    Ok((rounds > 0).then(text))
}

/// How large the log gets before and after a snapshot.
fn log_bounds(of: &Of<'_>) -> Result<LogBounds, ExitError> {
    let snapshot_after_bytes = of.size("snapshot-after", SNAPSHOT_AFTER_MIN, LOG_SIZE_MAX)?;
    let bytes_max = of.size("log-max-size", 2 * SNAPSHOT_AFTER_MIN, LOG_SIZE_MAX)?;
    let least = snapshot_after_bytes.saturating_mul(2);
    if bytes_max < least {
        let right = format_args!("at least twice snapshot-after, {least} bytes");
        return Err(of.wrong_text("log-max-size", right));
    }
    Ok(LogBounds {
        snapshot_after_bytes,
        keep_bytes: of.size("log-keep-size", 0, LOG_SIZE_MAX)?,
        keep_entries: of.number("log-keep-entries", 0, u64::MAX >> 8)?,
        bytes_max,
    })
}

/// How much history of executions is kept.
fn history_limits(of: &Of<'_>) -> Result<Limits, ExitError> {
    Ok(Limits {
        rows_per_job: of.number("history-rows-per-job", 1, HISTORY_ROWS_MAX)?,
        bytes: of.size("history-bytes", HISTORY_BYTES_MIN, HISTORY_BYTES_MAX)?,
        age: of.duration("history-age", Duration::from_secs(1))?,
    })
}

/// How large the parts of the log get.
fn log_limits(of: &Of<'_>) -> Result<LogLimits, ExitError> {
    let segment_len = of.size("log-segment-size", SEGMENT_LEN_MIN, SEGMENT_LEN_MAX)?;
    Ok(LogLimits { segment_len, ..LogLimits::default() })
}

/// What may change while the node runs: log level and tags.
///
/// # Errors
/// If one of them is wrong.
pub(crate) fn reloadable(
    settings: &Settings,
) -> Result<(LogLevel, BTreeMap<String, String>), ExitError> {
    let of = Of { settings };
    Ok((of.parsed("log-level")?, tags(&of)?))
}

/// One sentence for each setting of Dkron that was set and does nothing yet.
pub(crate) fn without_function(settings: &Settings) -> Vec<String> {
    let of = Of { settings };
    let idle = |key: &&Key| match key.standing {
        Standing::NotBuilt | Standing::NotBuiltNoFlag => of.is_set(key.name),
        Standing::Built | Standing::Needless => false,
    };
    let list = KEYS.iter().filter(idle);
    list.map(|key| {
        let name = key.name;
        format!("{name} (from {}) has no function yet and is ignored", of.found(name).origin)
    })
    .collect()
}

/// The settings, asked by name.
struct Of<'a> {
    settings: &'a Settings,
}

impl Of<'_> {
    fn found(&self, name: &str) -> &Found {
        self.settings.values.get(name).expect("gather gives a value for each key")
    }

    fn text(&self, name: &str) -> &str {
        match &self.found(name).value {
            Raw::Text(text) => text.trim(),
            Raw::List(_) | Raw::Map(_) => unreachable!("{name} is a text by its kind"),
        }
    }

    fn list(&self, name: &str) -> &[String] {
        match &self.found(name).value {
            Raw::List(list) => list,
            Raw::Text(_) | Raw::Map(_) => unreachable!("{name} is a list by its kind"),
        }
    }

    /// Whether somebody said something other than "off".
    fn is_set(&self, name: &str) -> bool {
        let off = |text: &str| matches!(text, "" | "0") || parse_switch(text) == Some(false);
        let found = self.found(name);
        match &found.value {
            _ if found.origin == Origin::Default => false,
            Raw::Text(text) => !off(text),
            Raw::List(_) | Raw::Map(_) => true,
        }
    }

    fn wrong(&self, name: &str, value: &str, right: impl fmt::Display) -> ExitError {
        let origin = &self.found(name).origin;
        ExitError::Usage(format!(
            "{name}: \"{value}\" (from {origin}) is not valid; right is {right}"
        ))
    }

    fn wrong_text(&self, name: &str, right: impl fmt::Display) -> ExitError {
        self.wrong(name, self.text(name), right)
    }

    fn switch(&self, name: &str) -> Result<bool, ExitError> {
        parse_switch(self.text(name)).ok_or_else(|| self.wrong_text(name, "true or false"))
    }

    fn number<T>(&self, name: &str, min: T, max: T) -> Result<T, ExitError>
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        match self.text(name).parse() {
            Ok(number) if min <= number && number <= max => Ok(number),
            Ok(_) | Err(_) => {
                Err(self.wrong_text(name, format_args!("a whole number, {min} to {max}")))
            }
        }
    }

    fn port(&self, name: &str) -> Result<u16, ExitError> {
        self.number(name, 1, u16::MAX)
    }

    /// A number of bytes: digits, and a unit if it is not bytes.
    fn size(&self, name: &str, min: u64, max: u64) -> Result<u64, ExitError> {
        let text = self.text(name);
        let (digits, unit) =
            text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let scale = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => Some(1),
            "kib" => Some(1 << 10),
            "mib" => Some(1 << 20),
            "gib" => Some(1 << 30),
            _ => None,
        };
        let number: Option<u64> = digits.parse().ok();
        let size = number.zip(scale).and_then(|(number, scale)| number.checked_mul(scale));
        size.filter(|size| (min..=max).contains(size)).ok_or_else(|| {
            let right = format_args!("a size such as 512KiB, 64MiB or 1GiB, {min} to {max} bytes");
            self.wrong_text(name, right)
        })
    }

    fn duration(&self, name: &str, min: Duration) -> Result<Duration, ExitError> {
        let right = "a duration such as 30s, 1h30m or 500ms";
        match parse_go_duration(self.text(name)) {
            Ok(duration) if duration >= min => Ok(duration),
            Ok(_) => Err(self.wrong_text(name, format_args!("{right}, not less than {min:?}"))),
            Err(_) => Err(self.wrong_text(name, right)),
        }
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<T, ExitError> {
        let text = self.text(name).to_ascii_lowercase();
        text.parse().map_err(|right: T::Err| self.wrong_text(name, right))
    }
}

/// The words that Go takes for true and false.
fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn node_name(of: &Of<'_>, around: &Surroundings) -> Result<NodeName, ExitError> {
    let right = "1 to 128 characters, no white space, no control characters";
    let said = of.text("node-name");
    if !said.is_empty() {
        return NodeName::new(said).map_err(|_| of.wrong("node-name", said, right));
    }
    let host_name = around.host_name.as_deref().map_err(|cause| {
        ExitError::Environment(format!("cannot read the host name ({cause}); set node-name"))
    })?;
    NodeName::new(host_name).map_err(|_| of.wrong("node-name", host_name, right))
}

fn bootstrap_expect(
    of: &Of<'_>,
    server: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<NonZeroU32>, ExitError> {
    let expect = NonZeroU32::new(of.number("bootstrap-expect", 0, BOOTSTRAP_EXPECT_MAX)?);
    let Some(count) = expect.map(NonZeroU32::get) else { return Ok(None) };
    if !server {
        return Err(of.wrong_text("bootstrap-expect", "0, or with it server: true"));
    }
    if count % 2 == 0 {
        let less = count - 1;
        warnings.push(format!(
            "bootstrap-expect {count}: {count} servers survive no more losses than {less} would"
        ));
    }
    if count > SERVERS_USEFUL_MAX {
        warnings.push(format!(
            "bootstrap-expect {count}: each server beyond {SERVERS_USEFUL_MAX} makes writes slower"
        ));
    }
    Ok(expect)
}

/// `join` and `retry-join` as `host:port`.
fn joins(
    of: &Of<'_>,
    around: &Surroundings,
    warnings: &mut Vec<String>,
) -> Result<(Vec<String>, Vec<String>), ExitError> {
    let read = |name: &str| -> Result<Vec<String>, ExitError> {
        let list = of.list(name);
        if list.len() > JOIN_COUNT_MAX {
            let right = format!("at most {JOIN_COUNT_MAX} addresses");
            return Err(of.wrong(name, &format!("{} addresses", list.len()), right));
        }
        list.iter().map(|entry| join_address(of, around, name, entry.trim())).collect()
    };
    let (join, retry_join) = (read("join")?, read("retry-join")?);
    if join.is_empty() || retry_join.is_empty() {
        return Ok((join, retry_join));
    }
    warnings.push("join is ignored, since retry-join is set".to_owned());
    Ok((Vec::new(), retry_join))
}

fn join_address(
    of: &Of<'_>,
    around: &Surroundings,
    name: &str,
    entry: &str,
) -> Result<String, ExitError> {
    if entry.contains("provider=") {
        let right = "host or host:port; discovery by a cloud provider is not built yet";
        return Err(of.wrong(name, &without_secrets(entry), right));
    }
    let text = expand(of, around, name, entry)?;
    let split = addr::split_host_port(&text, GOSSIP_PORT, 1);
    let (host, port) = split.map_err(|right| of.wrong(name, entry, right))?;
    let unspecified = host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
    if host.is_empty() || unspecified {
        return Err(of.wrong(name, entry, "the address of another node: host or host:port"));
    }
    Ok(addr::join_host_port(&host, port))
}

/// A node that can neither found nor find a cluster is told so, and `--dev` stays alone.
fn check_role(
    of: &Of<'_>,
    mode: Mode,
    server: bool,
    expect: Option<NonZeroU32>,
    join: &[String],
    retry_join: &[String],
) -> Result<(), ExitError> {
    match mode {
        Mode::Normal => {
            if !server && join.is_empty() && retry_join.is_empty() {
                return Err(ExitError::Usage(
                    "neither --server nor --retry-join is given: a server needs --server (with \
                     --bootstrap-expect N to found a cluster), an agent needs --retry-join with \
                     the address of a server; to try it out: cronclave agent --dev"
                        .to_owned(),
                ));
            }
        }
        Mode::Dev => {
            let alone = "nothing, since --dev is one server alone";
            for (name, list) in [("join", join), ("retry-join", retry_join)] {
                if !list.is_empty() {
                    return Err(of.wrong(name, &list.join(","), alone));
                }
            }
            if expect != Some(NonZeroU32::MIN) {
                return Err(of.wrong_text("bootstrap-expect", "1 with --dev"));
            }
        }
    }
    Ok(())
}

fn expand(of: &Of<'_>, around: &Surroundings, name: &str, text: &str) -> Result<String, ExitError> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let interfaces = interfaces(around, name)?;
    addr::expand(text, interfaces).map_err(|right| of.wrong(name, text, right))
}

fn interfaces<'a>(around: &'a Surroundings, name: &str) -> Result<&'a [Interface], ExitError> {
    around.interfaces.as_deref().map_err(|cause| {
        let text = format!("{name}: cannot list the addresses of this machine: {cause}");
        ExitError::Environment(text)
    })
}

/// The address of a setting, template and host name resolved. An empty host is all interfaces.
fn address(
    of: &Of<'_>,
    around: &Surroundings,
    name: &str,
    port_default: u16,
    port_min: u16,
) -> Result<SocketAddr, ExitError> {
    let written = of.text(name);
    let text = expand(of, around, name, written)?;
    let split = addr::split_host_port(&text, port_default, port_min);
    let (host, port) = split.map_err(|right| of.wrong(name, written, right))?;
    if host.is_empty() {
        return Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    }
    if let Ok(ip) = host.parse() {
        return Ok(SocketAddr::new(ip, port));
    }
    let list = (around.resolve)(&host).map_err(|cause| {
        ExitError::Environment(format!("{name}: cannot resolve {host}: {cause}"))
    })?;
    let first = list.iter().find(|ip| ip.is_ipv4()).or_else(|| list.first());
    let none = || ExitError::Environment(format!("{name}: {host} has no address"));
    Ok(SocketAddr::new(*first.ok_or_else(none)?, port))
}

fn bind(of: &Of<'_>, around: &Surroundings) -> Result<SocketAddr, ExitError> {
    address(of, around, "bind-addr", GOSSIP_PORT, 1)
}

fn http_addr(of: &Of<'_>, around: &Surroundings) -> Result<SocketAddr, ExitError> {
    address(of, around, "http-addr", HTTP_PORT, 0)
}

fn advertise(
    of: &Of<'_>,
    around: &Surroundings,
    bind: SocketAddr,
) -> Result<SocketAddr, ExitError> {
    if !of.text("advertise-addr").is_empty() {
        let advertise = address(of, around, "advertise-addr", bind.port(), 1)?;
        if advertise.ip().is_unspecified() {
            return Err(of.wrong_text("advertise-addr", "one address that other nodes reach"));
        }
        return Ok(advertise);
    }
    if !bind.ip().is_unspecified() {
        return Ok(bind);
    }
    let ip = addr::private_ip(interfaces(around, "advertise-addr")?);
    let ip = ip.map_err(|right| of.wrong_text("advertise-addr", right))?;
    Ok(SocketAddr::new(ip, bind.port()))
}

/// Loopback may be advertised only where all who use it are on this machine.
fn check_loopback(
    of: &Of<'_>,
    mode: Mode,
    expect: Option<NonZeroU32>,
    bind: SocketAddr,
    advertise: SocketAddr,
    targets: &[String],
) -> Result<(), ExitError> {
    if !advertise.ip().is_loopback() || mode == Mode::Dev {
        return Ok(());
    }
    let host = |target: &str| addr::split_host_port(target, 1, 1).map(|split| split.0);
    let is_far = |target: &&String| !host(target).is_ok_and(|host| addr::is_loopback_host(&host));
    let from_bind = of.text("advertise-addr").is_empty();
    let name = if from_bind { "bind-addr" } else { "advertise-addr" };
    let right = match targets.iter().find(is_far) {
        Some(far) => format!(
            "an address that other machines reach, since {far} is not on this one and could not \
             answer a loopback address"
        ),
        // Nobody else can reach the node at all, so nobody is misled.
        None if bind.ip().is_loopback() || !targets.is_empty() => return Ok(()),
        None if expect == Some(NonZeroU32::MIN) => return Ok(()),
        None => {
            "an address that other machines reach; loopback only with a loopback bind-addr, or \
                 where every join address is loopback"
                .to_owned()
        }
    };
    Err(of.wrong_text(name, right))
}

fn timezone(of: &Of<'_>) -> Result<Tz, ExitError> {
    let text = of.text("timezone");
    text.parse().map_err(|_| {
        let mut right = "the name of a time zone, such as UTC or Europe/Berlin".to_owned();
        if let Some(name) = keys::nearest_of(text, TZ_VARIANTS.iter().map(|zone| zone.name())) {
            write!(right, "; did you mean {name}?").expect("a String takes all");
        }
        of.wrong_text("timezone", right)
    })
}

/// The tags of this node, `dc` and `region` among them.
fn tags(of: &Of<'_>) -> Result<BTreeMap<String, String>, ExitError> {
    let mut tags = match &of.found("tag").value {
        Raw::Map(map) => map.clone(),
        Raw::List(list) => tags_of_list(of, list)?,
        Raw::Text(_) => unreachable!("tag is no text by its kind"),
    };
    if let Some((key, value)) = tags.iter().find(|(key, _)| !is_tag_key(key)) {
        return Err(of.wrong("tag", &format!("{key}={value}"), "key=value, the key not empty"));
    }
    for (tag, name) in [("dc", "datacenter"), ("region", "region")] {
        // A tag of one's own gives way only to a value that somebody set.
        if of.found(name).origin != Origin::Default || !tags.contains_key(tag) {
            tags.insert(tag.to_owned(), of.text(name).to_owned());
        }
    }
    let len: usize = tags.iter().map(|(key, value)| key.len() + value.len()).sum();
    if len > TAGS_LEN_MAX {
        let right = format!("at most {TAGS_LEN_MAX} bytes, keys and values of all tags together");
        return Err(of.wrong("tag", &format!("{} tags of {len} bytes", tags.len()), right));
    }
    Ok(tags)
}

fn is_tag_key(key: &str) -> bool {
    !key.is_empty() && !key.contains('=') && !key.chars().any(char::is_control)
}

fn tags_of_list(of: &Of<'_>, list: &[String]) -> Result<BTreeMap<String, String>, ExitError> {
    let mut tags = BTreeMap::new();
    for entry in list {
        // Dkron splits at commas; a comma inside of a value stays where that gives no pairs.
        let parts = split_list(entry);
        let pairs = parts.len() > 1 && parts.iter().all(|part| part.contains('='));
        for pair in if pairs { parts } else { vec![entry.clone()] } {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(of.wrong("tag", &pair, "key=value"));
            };
            tags.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    Ok(tags)
}

#[cfg(test)]
mod tests;

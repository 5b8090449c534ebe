//! Every setting of an agent, once: [`KEYS`]. Flags, environment, file and
//! `--print-config` follow it.

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Its name: the flag, and with `_` in place of `-` the variable and the file's key too.
    pub(crate) name: &'static str,
    /// Another name for it in the file and in the environment, or empty.
    pub(crate) alias: &'static str,
    /// What its value looks like.
    pub(crate) kind: Kind,
    /// Its value where nothing else is said; empty if there is none.
    pub(crate) default: &'static str,
    /// Whether it does something.
    pub(crate) standing: Standing,
    /// Whether its value may be shown.
    pub(crate) shown: Shown,
    /// One line for `--help`.
    pub(crate) help: &'static str,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `true` or `false`; the flag alone is `true`.
    Switch,
    /// A text, or anything that is written as one.
    Text,
    /// A whole number.
    Number,
    /// A duration as Go writes it.
    Duration,
    /// Several texts: the flag repeated, or with commas between.
    List,
    /// Several `key=value`.
    Tags,
}

/// Whether a setting does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does.
    Built,
    /// Dkron's; has no function yet, and warns if it is set.
    NotBuilt,
    /// Dkron's, has no function yet, and was never a flag.
    NotBuiltNoFlag,
    /// Dkron's, and there is nothing to do for it.
    Needless,
}

/// Whether a value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// It may.
    Plain,
    /// It is or may hold a secret.
    Masked,
}

const fn built(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    let (standing, shown) = (Standing::Built, Shown::Plain);
    Key { name, alias: "", kind, default, standing, shown, help }
}

const fn later(name: &'static str, kind: Kind, shown: Shown) -> Key {
    let help = "Of Dkron; has no function yet";
    Key { name, alias: "", kind, default: "", standing: Standing::NotBuilt, shown, help }
}

/// All settings. The order is that of `--help` and `--print-config`.
pub(crate) const KEYS: &[Key] = &[
    built("server", Kind::Switch, "false", "Be a server: vote, schedule, answer HTTP"),
    built("node-name", Kind::Text, "", "Name of this node, unique in the cluster [the host name]"),
    built("bootstrap-expect", Kind::Number, "0", "How many servers found the cluster together"),
    built("retry-join", Kind::List, "", "A server to join, tried for ever; repeatable"),
    built("retry-interval", Kind::Duration, "30s", "Time between two rounds of retry-join"),
    built("retry-max", Kind::Number, "0", "Of Dkron; a node never gives up joining"),
    built("join", Kind::List, "", "A server to join where retry-join is not set; repeatable"),
    built("data-dir", Kind::Text, "./cronclave.data", "Where this node keeps its data"),
    built(
        "bind-addr",
        Kind::Text,
        "{{ GetPrivateIP }}:8946",
        "Where gossip (UDP) listens: an address or a template; peers listen on the same host",
    ),
    built("advertise-addr", Kind::Text, "", "Where others reach this node [bind-addr]"),
    built("rpc-port", Kind::Number, "6868", "The port where peers are accepted (TCP)"),
    built("advertise-rpc-port", Kind::Number, "", "The port where others find peers [rpc-port]"),
    built("http-addr", Kind::Text, "127.0.0.1:8080", "Where a server answers HTTP"),
    Key {
        alias: "tags",
        ..built("tag", Kind::Tags, "", "key=value to choose nodes by; repeatable")
    },
    built("datacenter", Kind::Text, "dc1", "The tag dc"),
    built("region", Kind::Text, "global", "The tag region"),
    built("timezone", Kind::Text, "UTC", "Time zone of jobs that name none, set at the founding"),
    built("misfire-grace", Kind::Duration, "1h", "How late a due instant may still run"),
    built("history-rows-per-job", Kind::Number, "1000", "The most executions kept of one job"),
    built("history-bytes", Kind::Text, "1GiB", "The most bytes of all executions kept together"),
    built("history-age", Kind::Duration, "2160h", "How long executions are kept after their end"),
    built("drain-timeout", Kind::Duration, "10s", "How long a stop waits for running executions"),
    built("profile", Kind::Text, "lan", "Speed of gossip: lan, wan or local"),
    built("raft-multiplier", Kind::Number, "1", "Multiplies the times of Raft, 1 to 10"),
    built("snapshot-after", Kind::Text, "64MiB", "How much log comes before the next snapshot"),
    built("log-keep-size", Kind::Text, "256MiB", "Log kept behind a snapshot for slow followers"),
    built("log-keep-entries", Kind::Number, "500000", "Entries kept behind a snapshot likewise"),
    built("log-max-size", Kind::Text, "1GiB", "Log without a snapshot at which writes are refused"),
    built("log-segment-size", Kind::Text, "64MiB", "Length at which a file of the log ends"),
    Key {
        alias: "reconnect-timeout",
        ..built(
            "serf-reconnect-timeout",
            Kind::Duration,
            "24h",
            "How long a failed member is remembered",
        )
    },
    built("log-level", Kind::Text, "info", "debug, info, warn, error, fatal or panic"),
    built("log-format", Kind::Text, "text", "text or json"),
    Key {
        shown: Shown::Masked,
        help: "Refused: gossip is not encrypted yet",
        ..built("encrypt", Kind::Text, "", "")
    },
    later("ui", Kind::Switch, Shown::Plain),
    later("mail-host", Kind::Text, Shown::Plain),
    later("mail-port", Kind::Number, Shown::Plain),
    later("mail-username", Kind::Text, Shown::Plain),
    later("mail-password", Kind::Text, Shown::Masked),
    later("mail-from", Kind::Text, Shown::Plain),
    later("mail-payload", Kind::Text, Shown::Plain),
    later("mail-subject-prefix", Kind::Text, Shown::Plain),
    // Endpoints and headers of webhooks often carry their token.
    later("pre-webhook-endpoint", Kind::Text, Shown::Masked),
    later("pre-webhook-payload", Kind::Text, Shown::Masked),
    later("pre-webhook-headers", Kind::List, Shown::Masked),
    later("webhook-endpoint", Kind::Text, Shown::Masked),
    later("webhook-payload", Kind::Text, Shown::Masked),
    later("webhook-headers", Kind::List, Shown::Masked),
    later("webhook-url", Kind::Text, Shown::Masked),
    later("cronitor-endpoint", Kind::Text, Shown::Masked),
    later("statsd-addr", Kind::Text, Shown::Plain),
    later("dog-statsd-addr", Kind::Text, Shown::Plain),
    later("dog-statsd-tags", Kind::List, Shown::Plain),
    later("enable-prometheus", Kind::Switch, Shown::Plain),
    later("otel-endpoint", Kind::Text, Shown::Plain),
    Key {
        standing: Standing::Needless,
        help: "Of Dkron; nothing is ever sent home",
        ..built("disable-usage-stats", Kind::Switch, "", "")
    },
    Key { standing: Standing::NotBuiltNoFlag, ..later("bootstrap", Kind::Switch, Shown::Plain) },
    Key { standing: Standing::NotBuiltNoFlag, ..later("devmode", Kind::Switch, Shown::Plain) },
    Key {
        standing: Standing::NotBuiltNoFlag,
        ..later("reconcileinterval", Kind::Text, Shown::Plain)
    },
];

/// How alike two names must be, 0 to 1, for one to be offered in place of the other.
const LIKENESS_MIN: f64 = 0.75;

/// The setting of this name. Case does not matter, and `_` is `-`, as in Dkron.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    let name = normal(name);
    KEYS.iter().find(|key| key.name == name || (!key.alias.is_empty() && key.alias == name))
}

/// The name that is most like `name`, if any is like it.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    let names = KEYS.iter().flat_map(|key| [key.name, key.alias]);
    nearest_of(&normal(name), names.filter(|name| !name.is_empty()))
}

/// That of `names` which is most like `name`, if any is like it.
pub(crate) fn nearest_of<'a>(
    name: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let rated = names.into_iter().map(|other| (strsim::jaro_winkler(name, other), other));
    let best = rated.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= LIKENESS_MIN).then_some(best.1)
}

fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_once() {
        let mut names: Vec<&str> = KEYS.iter().flat_map(|key| [key.name, key.alias]).collect();
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn names_are_found_as_dkron_finds_them() {
        assert_eq!(find("bootstrap_expect").unwrap().name, "bootstrap-expect");
        assert_eq!(find("Retry-Join").unwrap().name, "retry-join");
        assert_eq!(find("tags").unwrap().name, "tag");
        assert!(find("").is_none());
        assert!(find("nonsense").is_none());
    }

    #[test]
    fn the_nearest_name_is_offered_and_none_for_nonsense() {
        assert_eq!(nearest("retry-jion"), Some("retry-join"));
        assert_eq!(nearest("bootstrap_expects"), Some("bootstrap-expect"));
        assert_eq!(nearest("zzz"), None);
    }
}

use super::*;

use std::path::Path;

use crate::cli::print;
use crate::cli::sources::Sources;
use crate::shell::config::{GossipProfile, LogFormat, Reloaded};

/// A machine without a network of its own, on which settings are tried.
struct Bench {
    sources: Sources,
    mode: Mode,
    interfaces: Vec<Interface>,
    dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let one = |name: &str, ip: &str| Interface { name: name.into(), ip: ip.parse().unwrap() };
    let interfaces = vec![one("lo", "127.0.0.1"), one("eth0", "10.19.3.9")];
    let directories = vec![dir.path().to_owned()];
    let sources = Sources { directories, ..Sources::default() };
    Bench { sources, mode: Mode::Normal, interfaces, dir }
}

impl Bench {
    fn flag(mut self, name: &str, value: &str) -> Self {
        let key = keys::find(name).unwrap();
        let raw = match key.kind {
            keys::Kind::List | keys::Kind::Tags => {
                Raw::List(value.split('|').map(str::to_owned).collect())
            }
            keys::Kind::Switch | keys::Kind::Text | keys::Kind::Number | keys::Kind::Duration => {
                Raw::Text(value.to_owned())
            }
        };
        self.sources.flags.insert(key.name, raw);
        self
    }

    fn server(self) -> Self {
        self.flag("server", "true").flag("bootstrap-expect", "1")
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.dir.path().join(name), text).unwrap();
        self
    }

    fn build(&self) -> Result<AgentConfig, ExitError> {
        let around = Surroundings {
            interfaces: Ok(self.interfaces.clone()),
            host_name: Ok("bench".to_owned()),
            resolve: |host| match host {
                "alpha" => Ok(vec!["10.19.4.64".parse().unwrap()]),
                "localhost" => Ok(vec!["127.0.0.1".parse().unwrap()]),
                _ => Err(io::Error::from(io::ErrorKind::NotFound)),
            },
        };
        let reload = Reload::new(|| Err(ExitError::Usage("not in this test".to_owned())));
        build(&self.sources.gather()?, &around, self.mode, reload)
    }

    fn config(&self) -> AgentConfig {
        self.build().unwrap()
    }

    /// The text of the usage error.
    fn usage(&self) -> String {
        let error = self.build().unwrap_err();
        assert_eq!(error.code(), 2, "{error}");
        error.to_string()
    }

    fn origin(&self, name: &str) -> String {
        self.sources.gather().unwrap().values[name].origin.to_string()
    }
}

#[test]
fn the_defaults_are_those_of_dkron_but_for_http() {
    let config = bench().server().config();
    assert_eq!(config.node_name.as_str(), "bench");
    assert_eq!(config.bind, "10.19.3.9:8946".parse().unwrap());
    assert_eq!(config.advertise, config.bind);
    assert_eq!((config.rpc_port, config.advertise_rpc_port), (6868, 6868));
    assert_eq!(config.http_addr, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.data_dir, Path::new("./cronclave.data"));
    assert_eq!(config.retry_interval, Duration::from_secs(30));
    assert_eq!(config.drain_timeout, Duration::from_secs(10));
    assert_eq!(config.misfire_grace, Duration::from_secs(3600));
    assert_eq!(config.history, Limits::default());
    assert_eq!(config.reconnect_timeout, Duration::from_secs(24 * 3600));
    assert_eq!(config.profile, GossipProfile::Lan);
    assert_eq!((config.raft_multiplier, config.timezone), (1, Tz::UTC));
    assert_eq!((config.log_level, config.log_format), (LogLevel::Info, LogFormat::Text));
    assert_eq!(config.tags["dc"], "dc1");
    assert_eq!(config.tags["region"], "global");
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_snippets_of_dkrons_documentation_work() {
    let first = "# dkron.yml\nserver: true\nbootstrap-expect: 1\n";
    let config = bench().file("dkron.yml", first).config();
    assert!(config.server);
    assert_eq!(config.bootstrap_expect, NonZeroU32::new(1));
    let then = "# dkron.yml\nserver: true\nbootstrap-expect: 3\nretry-join:\n- 10.19.3.9\n\
                - 10.19.4.64\n- 10.19.7.215\n";
    let bench = bench().file("dkron.yml", then);
    let config = bench.config();
    assert_eq!(config.bootstrap_expect, NonZeroU32::new(3));
    assert_eq!(config.retry_join, ["10.19.3.9:8946", "10.19.4.64:8946", "10.19.7.215:8946"]);
    assert_eq!(config.config_file, Some(bench.dir.path().join("dkron.yml")));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn a_flag_goes_before_our_variable_before_dkrons_before_the_file() {
    let file = "server: true\nnode_name: file\n";
    let bench = bench().file("cronclave.yml", file);
    assert_eq!(bench.config().node_name.as_str(), "file");
    assert!(bench.origin("node-name").ends_with("cronclave.yml"));
    let bench = bench.env("DKRON_NODE_NAME", "dkron");
    assert_eq!(bench.config().node_name.as_str(), "dkron");
    let bench = bench.env("CRONCLAVE_NODE_NAME", "ours");
    assert_eq!(bench.config().node_name.as_str(), "ours");
    assert_eq!(bench.origin("node-name"), "CRONCLAVE_NODE_NAME");
    let bench = bench.flag("node-name", "flag");
    assert_eq!(bench.config().node_name.as_str(), "flag");
    assert_eq!(bench.origin("node-name"), "--node-name");
    assert_eq!(bench.origin("rpc-port"), "default");
    // An empty value is none.
    let bench = bench.flag("node-name", "").env("CRONCLAVE_NODE_NAME", "");
    assert_eq!(bench.origin("node-name"), "DKRON_NODE_NAME");
}

#[test]
fn lists_in_variables_have_commas_and_tags_have_white_space() {
    let bench = bench()
        .env("DKRON_RETRY_JOIN", "10.0.0.1, alpha:77,,[fd00::1]")
        .env("CRONCLAVE_TAG", "role=web  Zone=a,b");
    let config = bench.config();
    assert_eq!(config.retry_join, ["10.0.0.1:8946", "alpha:77", "[fd00::1]:8946"]);
    assert_eq!(config.tags["role"], "web");
    assert_eq!(config.tags["Zone"], "a,b");
}

#[test]
fn tags_of_flags_replace_those_of_the_file_and_keys_keep_their_case() {
    let file = "retry-join: alpha\nTags:\n  Role: web\n  size: 3\n  on: true\n";
    let bench = bench().file("cronclave.yml", file);
    let tags = bench.config().tags;
    assert_eq!((&*tags["Role"], &*tags["size"], &*tags["on"]), ("web", "3", "true"));
    let tags = bench.flag("tag", "a=1,b=2|c=x,y|dc=own").config().tags;
    assert_eq!((&*tags["a"], &*tags["b"], &*tags["c"]), ("1", "2", "x,y"));
    assert_eq!(tags["dc"], "own");
    assert!(!tags.contains_key("Role"));
}

#[test]
fn json_and_toml_say_the_same_as_yaml() {
    for (name, text) in [
        ("dkron.json", r#"{"retry-join": ["alpha"], "tags": {"Role": "web"}, "rpc-port": 77}"#),
        ("dkron.toml", "retry-join = [\"alpha\"]\nrpc-port = 77\n[tags]\nRole = \"web\"\n"),
        ("dkron.yaml", "retry-join: [alpha]\nrpc-port: 77\ntags: {Role: web}\n"),
    ] {
        let config = bench().file(name, text).config();
        assert_eq!(config.retry_join, ["alpha:8946"], "{name}");
        assert_eq!((config.rpc_port, &*config.tags["Role"]), (77, "web"), "{name}");
    }
}

#[test]
fn an_unknown_key_warns_with_the_nearest_name() {
    let config = bench().file("dkron.yml", "retry-jion: [alpha]\nserver: true\nqqq: 1\n").config();
    assert_eq!(config.warnings.len(), 2);
    let all = config.warnings.join("\n");
    assert!(all.contains("unknown key retry-jion; did you mean retry-join?"), "{all}");
    assert!(all.contains("unknown key qqq") && !all.contains("qqq;"), "{all}");
}

#[test]
fn a_value_of_the_wrong_type_names_key_value_and_what_is_right() {
    for (line, parts) in [
        ("server: [1]", ["server: [1]", "true or false"]),
        ("node-name: 1.5", ["node-name: 1.5", "quotes"]),
        ("bootstrap-expect: {a: 1}", ["bootstrap-expect: {\"a\":1}", "a whole number"]),
        ("retry-interval: true", ["retry-interval: true", "30s"]),
        ("retry-join: {a: b}", ["retry-join: {\"a\":\"b\"}", "a list of texts"]),
        ("tags: {v: 1.10}", ["tags: {\"v\":1.1}", "quotes"]),
        ("mail-password: [geheim]", ["mail-password: ********", "one text"]),
    ] {
        let text = bench().file("dkron.yml", line).usage();
        assert!(parts.iter().all(|part| text.contains(part)), "{line}: {text}");
        assert!(text.contains("dkron.yml"), "{text}");
    }
}

#[test]
fn each_wrong_value_is_refused_by_name() {
    for (name, value, right) in [
        ("rpc-port", "70000", "1 to 65535"),
        ("rpc-port", "0", "1 to 65535"),
        ("rpc-port", "x", "a whole number"),
        ("raft-multiplier", "0", "1 to 10"),
        ("raft-multiplier", "11", "1 to 10"),
        ("snapshot-after", "1KiB", "16384 to"),
        ("log-keep-size", "1 TB", "512KiB, 64MiB or 1GiB"),
        ("log-keep-entries", "-1", "a whole number"),
        ("log-max-size", "100MiB", "at least twice snapshot-after, 134217728 bytes"),
        ("history-rows-per-job", "0", "1 to 10000000"),
        ("history-bytes", "1KiB", "1048576 to 1099511627776 bytes"),
        ("history-bytes", "many", "a size such as 512KiB"),
        ("history-age", "999ms", "not less than 1s"),
        ("profile", "moon", "lan, wan, local"),
        ("bootstrap-expect", "-1", "0 to 31"),
        ("node-name", "a b", "no white space"),
        ("retry-interval", "30", "30s"),
        ("retry-interval", "0s", "not less than 1ms"),
        ("drain-timeout", "-1s", "30s"),
        ("retry-max", "-1", "0 to 1000000000"),
        ("log-level", "loud", "debug, info"),
        ("log-format", "xml", "text, json"),
        ("timezone", "Europe/Berln", "did you mean Europe/Berlin?"),
        ("tag", "role", "key=value"),
        ("tag", "=web", "key=value"),
        ("retry-join", "http://alpha", "host or host:port"),
        ("retry-join", "0.0.0.0", "another node"),
        ("join", "alpha:0", "from 1 to 65535"),
        ("bind-addr", "alpha:x", "host:port"),
        ("bind-addr", "{{ GetMyIP }}", "GetPrivateIP"),
        ("advertise-addr", "0.0.0.0", "one address"),
        ("http-addr", "alpha:x", "host:port"),
        ("server", "maybe", "true or false"),
    ] {
        let text = bench().server().flag(name, value).usage();
        let shown = value.split('|').next().unwrap();
        let start = format!("{name}: \"{shown}\" (from --{name}) is not valid; right is");
        assert!(text.starts_with(&start) && text.contains(right), "{text}");
    }
}

#[test]
fn tags_have_at_most_512_bytes_in_all() {
    let text = bench().server().flag("tag", &format!("a={}", "x".repeat(500))).usage();
    assert!(text.contains("bytes") && text.contains("at most 512"), "{text}");
    let fits = 512 - "adcdc1regionglobal".len();
    bench().server().flag("tag", &format!("a={}", "x".repeat(fits))).config();
}

#[test]
fn an_agent_without_an_address_is_told_what_it_needs() {
    let text = bench().usage();
    assert!(text.contains("--server") && text.contains("--retry-join"), "{text}");
    let text = bench().flag("bootstrap-expect", "3").flag("join", "alpha").usage();
    assert!(text.starts_with("bootstrap-expect") && text.contains("server: true"), "{text}");
    assert!(!bench().flag("join", "alpha").config().server);
}

#[test]
fn an_even_number_of_servers_warns() {
    for (expect, warned) in [("1", 0), ("2", 1), ("3", 0), ("4", 1), ("6", 1), ("7", 0), ("8", 2)] {
        let config = bench().server().flag("bootstrap-expect", expect).config();
        assert_eq!(config.warnings.len(), warned, "{expect}: {:?}", config.warnings);
    }
}

#[test]
fn encryption_is_refused_and_never_ignored() {
    let text = bench().server().env("DKRON_ENCRYPT", "c2VjcmV0").usage();
    assert!(text.contains("refusing to run unencrypted"), "{text}");
    assert!(text.contains("DKRON_ENCRYPT") && !text.contains("c2VjcmV0"), "{text}");
}

#[test]
fn what_has_no_function_yet_warns_by_name_only_if_it_is_set() {
    let file = "server: true\nui: false\nmail-host: mx\nmail-port: 0\nstatsd-addr: ''\n\
                webhook-headers: [a:b]\ndisable-usage-stats: true\ndevmode: true\n";
    let config = bench().file("dkron.yml", file).flag("enable-prometheus", "true").config();
    let names: Vec<&str> =
        config.warnings.iter().map(|text| text.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["mail-host", "webhook-headers", "enable-prometheus", "devmode"]);
    assert!(config.warnings[0].ends_with("has no function yet and is ignored"));
}

#[test]
fn a_bound_on_joining_is_ignored_aloud() {
    let warnings = |rounds| {
        let file = "server: true\nretry-join: [10.0.0.9]\n";
        bench().file("dkron.yml", file).flag("retry-max", rounds).config().warnings
    };
    assert_eq!(warnings("3"), ["retry-max 3 is ignored: a node never gives up joining"]);
    assert_eq!(warnings("0"), [] as [&str; 0]);
}

#[test]
fn discovery_by_provider_is_refused_without_its_secrets() {
    let entry = "provider=aws secret_access_key=geheim";
    let text = bench().flag("retry-join", entry).usage();
    assert!(text.contains("provider=aws") && text.contains("not built yet"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
}

#[test]
fn join_is_ignored_beside_retry_join() {
    let config = bench().flag("join", "alpha").flag("retry-join", "beta").config();
    assert!(config.join.is_empty());
    assert_eq!(config.retry_join, ["beta:8946"]);
    assert!(config.warnings[0].contains("join is ignored"), "{:?}", config.warnings);
}

#[test]
fn loopback_is_advertised_only_where_all_are_on_this_machine() {
    let local = || bench().flag("server", "true").flag("bind-addr", "127.0.0.2");
    let config = local().flag("retry-join", "127.0.0.1|localhost:77|[::1]").config();
    assert_eq!(config.advertise, "127.0.0.2:8946".parse().unwrap());
    local().config();
    let text = local().flag("retry-join", "127.0.0.1|10.19.4.64").usage();
    assert!(text.starts_with("bind-addr: \"127.0.0.2\""), "{text}");
    assert!(text.contains("10.19.4.64:8946 is not on this one"), "{text}");
    let open = || {
        let open = bench().flag("server", "true").flag("bind-addr", "0.0.0.0");
        open.flag("advertise-addr", "127.0.0.1")
    };
    let text = open().flag("bootstrap-expect", "3").usage();
    assert!(text.starts_with("advertise-addr: \"127.0.0.1\""), "{text}");
    open().flag("bootstrap-expect", "1").config();
    open().flag("bootstrap-expect", "3").flag("retry-join", "127.0.0.1").config();
}

#[test]
fn what_is_advertised_follows_what_is_bound() {
    let config = bench().server().flag("bind-addr", "0.0.0.0:9000").config();
    assert_eq!(config.advertise, "10.19.3.9:9000".parse().unwrap());
    let config = bench().server().flag("advertise-addr", "alpha").config();
    assert_eq!(config.advertise, "10.19.4.64:8946".parse().unwrap());
    let config = bench().server().flag("rpc-port", "7000").config();
    assert_eq!(config.advertise_rpc_port, 7000);
    let config = bench().server().flag("advertise-rpc-port", "7001").config();
    assert_eq!((config.rpc_port, config.advertise_rpc_port), (6868, 7001));
    let error = bench().server().flag("bind-addr", "nowhere").build().unwrap_err();
    assert_eq!(error.code(), 1);
    assert!(error.to_string().contains("cannot resolve nowhere"), "{error}");
}

#[test]
fn without_a_private_address_the_candidates_are_listed() {
    let mut bench = bench().server();
    bench.interfaces[1].ip = "9.9.9.9".parse().unwrap();
    assert_eq!(bench.config().bind, "9.9.9.9:8946".parse().unwrap());
    bench.interfaces.push(Interface { name: "eth1".into(), ip: "8.8.8.8".parse().unwrap() });
    let text = bench.usage();
    assert!(text.starts_with("bind-addr: \"{{ GetPrivateIP }}:8946\" (from default)"), "{text}");
    assert!(text.contains("9.9.9.9 (eth0), 8.8.8.8 (eth1)"), "{text}");
}

#[test]
fn http_that_others_reach_warns_once() {
    let config = bench().server().flag("http-addr", ":8080").config();
    assert_eq!(config.http_addr, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].contains("no authentication"), "{:?}", config.warnings);
    let agent = bench().flag("retry-join", "alpha").flag("http-addr", ":8080").config();
    assert!(agent.warnings.is_empty(), "an agent has no HTTP listener");
}

fn dev() -> Bench {
    let mut bench = bench();
    bench.mode = Mode::Dev;
    let implied = [
        ("server", "true"),
        ("bootstrap-expect", "1"),
        ("bind-addr", "127.0.0.1:7001"),
        ("rpc-port", "7002"),
        ("http-addr", "127.0.0.1:7003"),
        ("data-dir", "/scratch"),
    ];
    bench.sources.dev = implied.map(|(k, v)| (k, v.to_owned())).into();
    bench
}

#[test]
fn dev_is_one_server_alone_on_loopback() {
    let bench = dev().file("dkron.yml", "retry-join: [alpha]\nbootstrap-expect: 3\n");
    let config = bench.config();
    assert_eq!((config.mode, config.server), (Mode::Dev, true));
    assert_eq!(config.bootstrap_expect, NonZeroU32::new(1));
    assert_eq!(config.advertise, "127.0.0.1:7001".parse().unwrap());
    assert_eq!((config.rpc_port, config.advertise_rpc_port), (7002, 7002));
    assert_eq!(config.config_file, None);
    assert_eq!(bench.origin("rpc-port"), "--dev");
    let config = dev().flag("http-addr", "127.0.0.1:0").config();
    assert_eq!(config.http_addr.port(), 0);
    assert!(dev().flag("retry-join", "alpha").usage().contains("--dev is one server alone"));
    assert!(dev().flag("bootstrap-expect", "3").usage().contains("1 with --dev"));
    assert!(dev().flag("server", "false").usage().contains("true with --dev"));
}

#[test]
fn the_printed_table_shows_origins_and_hides_secrets() {
    let bench = bench()
        .server()
        .flag("encrypt", "geheim")
        .flag("retry-join", "alpha|provider=aws secret_access_key=geheim")
        .file("dkron.yml", "mail-password: geheim\nwebhook-headers: [geheim]\n")
        .env("DKRON_TAG", "role=web");
    let table = print::table(&bench.sources.gather().unwrap(), None);
    assert!(!table.contains("geheim"), "{table}");
    let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap();
    let words = |name: &str| line(name).split_whitespace().collect::<Vec<_>>();
    assert_eq!(words("server "), ["server", "true", "--server"]);
    assert_eq!(words("tag "), ["tag", "role=web", "DKRON_TAG"]);
    assert_eq!(words("rpc-port "), ["rpc-port", "6868", "default"]);
    assert_eq!(words("encrypt ")[1..], ["********", "--encrypt"]);
    assert_eq!(words("mail-password ")[1], "********");
    assert_eq!(words("advertise-addr ")[1..], ["-", "default"]);
    let origins = |name: &str| line(name).find(words(name).last().unwrap()).unwrap();
    assert_eq!(origins("server "), origins("rpc-port "));
    assert!(!table.contains("cronitor"), "what has no function is shown only if it is set");
}

#[test]
fn the_printed_table_shows_what_became_of_names_and_templates() {
    let bench = bench().server();
    let table = print::table(&bench.sources.gather().unwrap(), Some(&bench.config()));
    let words = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(words("node-name "), ["node-name", "bench", "default"]);
    assert_eq!(words("bind-addr "), ["bind-addr", "10.19.3.9:8946", "default"]);
    assert_eq!(words("advertise-addr "), ["advertise-addr", "10.19.3.9:8946", "default"]);
    assert_eq!(words("advertise-rpc-port "), ["advertise-rpc-port", "6868", "default"]);
}

#[test]
fn tags_and_log_level_are_read_again() {
    let bench = bench().file("dkron.yml", "server: true\ntags: {a: b}\n");
    let read = || reloadable(&bench.sources.gather().unwrap());
    assert_eq!(read().unwrap().0, LogLevel::Info);
    let path = bench.dir.path().join("dkron.yml");
    std::fs::write(&path, "server: true\nlog-level: debug\ntags: {a: c}\n").unwrap();
    let (level, tags) = read().unwrap();
    assert_eq!((level, &*tags["a"], &*tags["dc"]), (LogLevel::Debug, "c", "dc1"));
    std::fs::write(&path, "log-level: loud\n").unwrap();
    assert!(read().unwrap_err().to_string().contains("log-level"));
    let handle = Reload::new(move || {
        let (warnings, config_file) = (Vec::new(), None);
        Ok(Reloaded { tags: tags.clone(), log_level: level, config_file, warnings })
    });
    assert_eq!(handle.read().unwrap().log_level, LogLevel::Debug);
}

#[test]
fn how_much_history_is_kept_is_said_in_rows_bytes_and_time() {
    let bench = bench().server().env("CRONCLAVE_HISTORY_AGE", "36h");
    let bench = bench.file("dkron.yml", "history-bytes: 64 MiB\n");
    let history = bench.flag("history-rows-per-job", "7").config().history;
    let age = Duration::from_secs(36 * 3_600);
    assert_eq!(history, Limits { rows_per_job: 7, bytes: 64 << 20, age });
}

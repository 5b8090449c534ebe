//! Addresses as they are written in settings: templates, hosts, ports.
//!
//! `{{ GetPrivateIP }}`, `{{ GetPublicIP }}` and `{{ GetInterfaceIP "eth0" }}` stand for
//! addresses of this machine. [`expand`] is a pure function over a list of interfaces, which
//! [`interfaces`] reads.
//!
//! **Left out on purpose**
//! - The rest of go-sockaddr's language: an expression outside the three is refused by name.

use std::io;
use std::net::IpAddr;

/// An address of this machine, and the interface that bears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The interface's name, such as `eth0`.
    pub name: String,
    /// One of its addresses.
    pub ip: IpAddr,
}

/// The most expressions that one template may hold.
const EXPRESSIONS_MAX: usize = 8;
/// Interfaces that container engines and hypervisors make. Each machine has the same private
/// address there, so no other machine reaches it; they are taken only by name.
const BRIDGES: [&str; 8] = ["docker", "br-", "veth", "virbr", "cni", "flannel", "podman", "lxcbr"];

/// Why a text is not an address. Displays what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// A template is not closed, or holds an expression that is not known.
    #[error(
        "a template of {{{{ GetPrivateIP }}}}, {{{{ GetPublicIP }}}} or \
         {{{{ GetInterfaceIP \"eth0\" }}}}, or an address; \"{0}\" is none of these"
    )]
    Template(String),
    /// No private address, and not exactly one global one.
    #[error(
        "an address: this machine has no private address and {global} global ones, so name one of \
         its addresses: {candidates}"
    )]
    Ambiguous {
        /// How many global addresses there are.
        global: usize,
        /// All that could be named.
        candidates: String,
    },
    /// No public address.
    #[error("an address: this machine has no public one, so name one of: {0}")]
    NoPublic(String),
    /// No such interface, or none with an address.
    #[error(
        "the name of an interface with an address; \"{name}\" is none, there are: {candidates}"
    )]
    NoInterface {
        /// The name that was asked for.
        name: String,
        /// All that could be named.
        candidates: String,
    },
    /// No host, or a port that is none.
    #[error("host or host:port, the port from {port_min} to 65535")]
    HostPort {
        /// The lowest port that is allowed.
        port_min: u16,
    },
}

/// All addresses of this machine, in the order of its interfaces.
///
/// # Errors
/// If the operating system does not tell.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let list = if_addrs::get_if_addrs()?;
    Ok(list.into_iter().map(|i| Interface { ip: i.ip(), name: i.name }).collect())
}

/// Puts addresses for the expressions in `text`.
///
/// # Errors
/// If an expression is not known, or no address fits it.
pub fn expand(text: &str, interfaces: &[Interface]) -> Result<String, AddrError> {
    let mut out = String::new();
    let mut rest = text;
    for _ in 0..EXPRESSIONS_MAX {
        let Some((before, after)) = rest.split_once("{{") else { break };
        let Some((expression, tail)) = after.split_once("}}") else {
            return Err(AddrError::Template(text.to_owned()));
        };
        out.push_str(before);
        let ip = evaluate(expression.trim(), interfaces)?;
        // An IPv6 address with a port behind it needs brackets.
        match ip {
            IpAddr::V6(ip) if tail.starts_with(':') => out.push_str(&format!("[{ip}]")),
            IpAddr::V6(_) | IpAddr::V4(_) => out.push_str(&ip.to_string()),
        }
        rest = tail;
    }
    if rest.contains("{{") {
        return Err(AddrError::Template(text.to_owned()));
    }
    out.push_str(rest);
    Ok(out)
}

fn evaluate(expression: &str, interfaces: &[Interface]) -> Result<IpAddr, AddrError> {
    let unknown = || AddrError::Template(expression.to_owned());
    match expression {
        "GetPrivateIP" => private_ip(interfaces),
        "GetPublicIP" => public_ip(interfaces),
        _ => {
            let name = expression.strip_prefix("GetInterfaceIP").ok_or_else(unknown)?.trim();
            let quoted = name.strip_prefix('"').and_then(|n| n.strip_suffix('"'));
            let bare =
                quoted.or_else(|| name.strip_prefix('\'').and_then(|n| n.strip_suffix('\'')));
            interface_ip(bare.ok_or_else(unknown)?, interfaces)
        }
    }
}

/// The first private address, else the only global one.
///
/// # Errors
/// If there is neither; the candidates are named.
pub fn private_ip(interfaces: &[Interface]) -> Result<IpAddr, AddrError> {
    let own = || interfaces.iter().filter(|i| !is_bridge(&i.name)).map(|i| i.ip);
    let v4_first = own().filter(IpAddr::is_ipv4).chain(own().filter(IpAddr::is_ipv6));
    if let Some(ip) = v4_first.into_iter().find(|&ip| scope(ip) == Scope::Private) {
        return Ok(ip);
    }
    let global: Vec<IpAddr> = own().filter(|&ip| scope(ip) == Scope::Global).collect();
    match global[..] {
        [only] => Ok(only),
        _ => {
            let candidates = candidates(interfaces);
            Err(AddrError::Ambiguous { global: global.len(), candidates })
        }
    }
}

fn public_ip(interfaces: &[Interface]) -> Result<IpAddr, AddrError> {
    let global = || interfaces.iter().map(|i| i.ip).filter(|&ip| scope(ip) == Scope::Global);
    let first = global().find(IpAddr::is_ipv4).or_else(|| global().next());
    first.ok_or_else(|| AddrError::NoPublic(candidates(interfaces)))
}

fn interface_ip(name: &str, interfaces: &[Interface]) -> Result<IpAddr, AddrError> {
    let own = || interfaces.iter().filter(|i| i.name == name).map(|i| i.ip);
    let usable = own().filter(|&ip| ip.is_ipv4() || scope(ip) != Scope::LinkLocal);
    let first = own().find(IpAddr::is_ipv4).or_else(|| usable.into_iter().next());
    let candidates = || candidates(interfaces);
    first.ok_or_else(|| AddrError::NoInterface { name: name.to_owned(), candidates: candidates() })
}

fn candidates(interfaces: &[Interface]) -> String {
    let usable = interfaces.iter().filter(|i| scope(i.ip) != Scope::LinkLocal);
    let list: Vec<String> = usable.map(|i| format!("{} ({})", i.ip, i.name)).collect();
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

fn is_bridge(name: &str) -> bool {
    BRIDGES.iter().any(|prefix| name.starts_with(prefix))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Loopback,
    LinkLocal,
    Private,
    Global,
}

fn scope(ip: IpAddr) -> Scope {
    let (loopback, link_local, private) = match ip {
        IpAddr::V4(ip) => {
            // What RFC 6890 keeps off the Internet counts as private, as it does for Dkron.
            let special = match ip.octets() {
                [100, b, ..] => b & 0xc0 == 64,
                [192, 0, 0, _] => true,
                [198, b, ..] if b & 0xfe == 18 => true,
                [a, ..] => a >= 240 || ip.is_documentation(),
            };
            let none = ip.is_link_local() || ip.is_multicast() || ip.is_unspecified();
            (ip.is_loopback(), none, ip.is_private() || special)
        }
        IpAddr::V6(ip) => {
            let none = ip.is_unicast_link_local() || ip.is_multicast() || ip.is_unspecified();
            let documentation = matches!(ip.segments(), [0x2001, 0x0db8, ..]);
            (ip.is_loopback(), none, ip.is_unique_local() || documentation)
        }
    };
    match (loopback, link_local, private) {
        (true, _, _) => Scope::Loopback,
        (_, true, _) => Scope::LinkLocal,
        (_, _, true) => Scope::Private,
        (false, false, false) => Scope::Global,
    }
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port`, `v6` or `:port` into host and port. The host is
/// empty if there is none, and an IPv6 address loses its brackets.
///
/// # Errors
/// If the host has a character that no host has, or the port is no number from `port_min` on.
pub fn split_host_port(
    text: &str,
    port_default: u16,
    port_min: u16,
) -> Result<(String, u16), AddrError> {
    let bad = AddrError::HostPort { port_min };
    if let Ok(IpAddr::V6(ip)) = text.parse() {
        return Ok((ip.to_string(), port_default));
    }
    let (host, port) = if let Some(inner) = text.strip_prefix('[') {
        let (host, tail) = inner.split_once(']').ok_or(bad.clone())?;
        let Ok(IpAddr::V6(ip)) = host.parse() else { return Err(bad) };
        match tail.strip_prefix(':') {
            None if tail.is_empty() => (ip.to_string(), None),
            None => return Err(bad),
            Some(port) => (ip.to_string(), Some(port)),
        }
    } else {
        match text.split_once(':') {
            None => (text.to_owned(), None),
            Some((host, port)) => (host.to_owned(), Some(port)),
        }
    };
    let in_host = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '%');
    // A bare number is a port whose colon was forgotten; a resolver would make an address of it.
    let is_number = host.chars().all(|c| c.is_ascii_digit());
    let is_gap = if port.is_some() { !host.is_empty() && is_number } else { is_number };
    if is_gap || !host.chars().all(in_host) {
        return Err(bad);
    }
    let Some(port) = port else { return Ok((host, port_default)) };
    match port.parse() {
        Ok(port) if port >= port_min => Ok((host, port)),
        Ok(_) | Err(_) => Err(bad),
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Whether the host can only be this machine, as far as its text says.
pub fn is_loopback_host(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(list: &[(&str, &str)]) -> Vec<Interface> {
        let one = |&(name, ip): &(&str, &str)| Interface {
            name: name.to_owned(),
            ip: ip.parse().unwrap(),
        };
        list.iter().map(one).collect()
    }

    #[test]
    fn the_first_private_address_is_taken() {
        let list = machine(&[
            ("lo", "127.0.0.1"),
            ("docker0", "172.17.0.1"),
            ("eth0", "9.9.9.9"),
            ("eth1", "fd00::1"),
            ("eth1", "10.19.3.9"),
            ("eth2", "192.168.1.4"),
        ]);
        assert_eq!(expand("{{ GetPrivateIP }}:8946", &list).unwrap(), "10.19.3.9:8946");
        assert_eq!(expand("{{GetPublicIP}}", &list).unwrap(), "9.9.9.9");
        assert_eq!(expand("{{ GetInterfaceIP \"eth2\" }}:1", &list).unwrap(), "192.168.1.4:1");
        assert_eq!(expand("10.0.0.1:8946", &list).unwrap(), "10.0.0.1:8946");
    }

    #[test]
    fn without_a_private_address_the_only_global_one_is_taken() {
        let list = machine(&[("lo", "::1"), ("eth0", "2001:db9::5"), ("eth0", "fe80::1")]);
        assert_eq!(expand("{{ GetPrivateIP }}", &list).unwrap(), "2001:db9::5");
        assert_eq!(expand("{{ GetPrivateIP }}:8946", &list).unwrap(), "[2001:db9::5]:8946");
    }

    #[test]
    fn addresses_that_the_internet_does_not_carry_are_private() {
        for ip in ["100.64.0.1", "192.0.2.2", "198.19.0.1", "203.0.113.7", "172.16.0.1"] {
            let list = machine(&[("eth0", "9.9.9.9"), ("eth0", "fd00::2"), ("eth1", ip)]);
            assert_eq!(expand("{{ GetPrivateIP }}", &list).unwrap(), ip);
        }
        for ip in ["100.128.0.1", "198.20.0.1", "172.32.0.1", "2a00::1"] {
            let list = machine(&[("lo", "127.0.0.1"), ("eth0", "169.254.0.1"), ("eth1", ip)]);
            assert_eq!(expand("{{ GetPublicIP }}", &list).unwrap(), ip);
        }
    }

    #[test]
    fn two_global_addresses_are_an_error_that_lists_the_candidates() {
        let list = machine(&[("lo", "127.0.0.1"), ("eth0", "1.1.1.1"), ("eth1", "8.8.8.8")]);
        let text = private_ip(&list).unwrap_err().to_string();
        assert!(text.contains("2 global ones"), "{text}");
        let all = "127.0.0.1 (lo), 1.1.1.1 (eth0), 8.8.8.8 (eth1)";
        assert!(text.ends_with(all), "{text}");
    }

    #[test]
    fn what_is_no_known_expression_is_refused_by_name() {
        let list = machine(&[("lo", "127.0.0.1")]);
        for text in ["{{ GetAllInterfaces }}", "{{ GetPrivateIP", "{{ GetInterfaceIP eth0 }}"] {
            let error = expand(text, &list).unwrap_err();
            assert!(matches!(error, AddrError::Template(_)), "{text}: {error}");
        }
        let text = expand("{{ GetInterfaceIP \"eth9\" }}", &list).unwrap_err().to_string();
        assert!(text.contains("\"eth9\"") && text.contains("127.0.0.1 (lo)"), "{text}");
        let text = expand("{{ GetPublicIP }}", &list).unwrap_err().to_string();
        assert!(text.contains("no public"), "{text}");
    }

    #[test]
    fn hosts_and_ports_are_split() {
        let split = |text| split_host_port(text, 8946, 1).map(|(h, p)| join_host_port(&h, p));
        for (text, right) in [
            ("10.0.0.1", "10.0.0.1:8946"),
            ("10.0.0.1:77", "10.0.0.1:77"),
            ("node-1.example", "node-1.example:8946"),
            (":8080", ":8080"),
            ("::1", "[::1]:8946"),
            ("[::1]", "[::1]:8946"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(split(text).unwrap(), right, "{text}");
        }
        for text in [
            "",
            "a b",
            "host:",
            "host:0",
            "host:70000",
            "[::1",
            "[x]:1",
            "a:b:c",
            "http://a",
            "8080",
            "8080:1",
        ] {
            assert!(split(text).is_err(), "{text}");
        }
        assert_eq!(split_host_port("127.0.0.1:0", 8080, 0).unwrap().1, 0);
    }

    #[test]
    fn loopback_is_told_by_the_text_of_a_host() {
        for host in ["127.0.0.1", "127.8.0.2", "::1", "localhost", "a.localhost."] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["10.0.0.1", "db", "localhost.example"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[ {}A-Za-z0-9.:\"\\[\\]-]{0,40}|\\PC{0,40}") {
            let list = machine(&[("lo", "127.0.0.1"), ("eth0", "10.19.3.9")]);
            let _ = expand(&text, &list);
            if let Ok((host, port)) = split_host_port(&text, 8946, 1) {
                let joined = join_host_port(&host, port);
                proptest::prop_assert_eq!(split_host_port(&joined, 1, 1), Ok((host, port)));
            }
        }
    }
}

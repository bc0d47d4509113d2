//! Where on the network objects may be read from (SSRF): addresses that others can reach too, and hosts that are listed.
//!
//! Names are vetted in the resolver that the connection is made with, so that a name can't mean one address when it is
//! checked and another when it is used.

use crate::{Error, Policy, uri};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

/// What this process may connect to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Whether only public addresses may be reached. Else all may.
    pub public_only: bool,
    /// Hosts, by name or address, that may be reached all the same, on any port.
    pub hosts: Vec<String>,
    /// Ports of public addresses that may be asked, besides the web's own.
    pub ports: Vec<u16>,
}

/// The web's own ports: behind others stand mail servers, shells and databases.
const PORTS: [u16; 2] = [80, 443];

static NETWORK: OnceLock<Network> = OnceLock::new();

/// Sets what this process may reach, before it first speaks to a server; later calls change nothing.
pub fn set_network(network: Network) {
    let _ = NETWORK.set(network);
}

/// What this process may reach.
#[cfg(feature = "remote")]
pub(crate) fn network() -> &'static Network {
    NETWORK.get_or_init(Network::default)
}

impl Network {
    /// Whether a host was listed.
    pub fn lists(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        self.hosts.iter().any(|listed| listed.eq_ignore_ascii_case(bare))
    }

    /// Whether a host may be asked on a port.
    pub fn may_ask(&self, host: &str, port: u16) -> bool {
        !self.public_only || PORTS.contains(&port) || self.ports.contains(&port) || self.lists(host)
    }

    /// Whether an address may be connected to.
    pub fn may_reach(&self, address: IpAddr) -> bool {
        !self.public_only || is_public(address)
    }

    /// What strangers' jobs may reach of it.
    #[must_use]
    pub fn for_strangers(&self) -> Network {
        Network { public_only: true, ..self.clone() }
    }

    /// Checks what can be told of a URI before anything is connected to: HDFS's client resolves by itself, so that its
    /// hosts must be listed.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub fn check(&self, policy: &Policy, entry: &str) -> Result<(), Error> {
        if !(self.public_only || policy.public) || uri::scheme(entry) != Some("hdfs") {
            return Ok(());
        }
        let (_, authority, _) = uri::parts(entry)?;
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let why = || {
            Error::Denied(format!(
                "`{host}` is not among the hosts that may be reached (`serve --allow-host`)"
            ))
        };
        self.lists(host).then_some(()).ok_or_else(why)
    }
}

/// Whether an address is one that everybody means the same machine by (IANA's special-purpose registries).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        // This network, shared by carriers, protocol assignments, 6to4 relays, benchmarks, and all above multicast.
        (0, ..) | (100, 64..=127, _) | (192, 0, 0) | (192, 88, 99) | (198, 18..=19, _) | (224.., ..) => true,
        _ => {
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_documentation()
        }
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        // Mapped, compatible and translated addresses are those that they stand for.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(v4(high, low))
        }
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Teredo and the other assignments of IETF's, and documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, ..] => false,
        // Only this is given out (RFC 4291).
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_web_and_those_that_are_listed() {
        let (hosts, ports) = (vec!["own.example".to_owned()], vec![8080]);
        let network = Network { public_only: true, hosts, ports };
        let rows = [("a.example", 443, true), ("a.example", 80, true), ("a.example", 22, false)];
        for (host, port, may) in
            rows.into_iter().chain([("a.example", 8080, true), ("own.example", 22, true)])
        {
            assert_eq!(network.may_ask(host, port), may, "{host}:{port}");
        }
        assert!(Network::default().may_ask("a.example", 22));
    }

    #[test]
    fn addresses_that_are_public() {
        let rows = [
            ("93.184.216.34", true),
            ("127.0.0.1", false),
            ("127.8.8.8", false),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("172.31.0.1", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.100.100.200", false),
            ("192.0.0.192", false),
            ("198.19.0.1", false),
            ("203.0.113.7", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700::1111", true),
            ("::1", false),
            ("::", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:93.184.216.34", true),
            ("::127.0.0.1", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("64:ff9b::5db8:d822", true),
            ("2002:7f00:1::", false),
            ("2001:0:1::", false),
            ("2001:db8::1", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("fd00:ec2::254", false),
            ("ff02::1", false),
        ];
        for (address, expected) in rows {
            assert_eq!(is_public(address.parse().expect(address)), expected, "{address}");
        }
    }

    #[test]
    fn what_is_listed_may_be_reached() {
        let network = Network { public_only: true, hosts: vec!["nn.example".into()], ports: vec![] };
        let (open, strangers) = (Policy::default(), Policy { public: true, ..Policy::default() });
        assert!(network.check(&open, "hdfs://NN.example:8020/a").is_ok());
        assert!(network.check(&open, "hdfs://other:8020/a").is_err());
        assert!(
            network.check(&open, "https://other/a").is_ok(),
            "its address is vetted when it is connected to"
        );
        assert!(Network::default().check(&open, "hdfs://other/a").is_ok());
        assert!(Network::default().check(&strangers, "hdfs://other/a").is_err());
    }
}

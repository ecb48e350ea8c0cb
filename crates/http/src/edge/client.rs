//! Who sent a request: the one resolver of client addresses behind trusted proxies.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::header::FORWARDED;
use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Address a request is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddr {
    /// No peer address is known.
    Unknown,
    /// The address, IPv4-mapped IPv6 folded to IPv4.
    Ip(IpAddr),
}

impl ClientAddr {
    /// The key that limits count by: the address, an IPv6 address reduced to its /64, because one
    /// host owns all addresses of such a network.
    pub fn bucket(self) -> Self {
        match self {
            Self::Ip(IpAddr::V6(ip)) => {
                let network = u128::from(ip) & !u128::from(u64::MAX);
                Self::Ip(IpAddr::V6(Ipv6Addr::from(network)))
            }
            other => other,
        }
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// The networks whose forwarding headers are believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Reads addresses and CIDR networks; refuses anything else, and a prefix of length 0.
    pub fn parse<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> Result<Self, String> {
        let parse = |entry: S| {
            let entry = entry.as_ref().trim();
            let network =
                entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from)).map_err(
                    |_| format!("trusted proxy '{entry}' is neither an IP address nor a CIDR network"),
                )?;
            match network.prefix_len() {
                0 => Err(format!("trusted proxy '{entry}' would trust every address")),
                _ => Ok(network),
            }
        };
        entries.into_iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether no proxy is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the forwarding headers of this peer are believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }

    /// The client of a request that came from `peer`.
    ///
    /// Behind a trusted peer the hops are walked from the nearest to the farthest; the first one that
    /// is not trusted is the client. A hop that is no address ends the walk at the hop before it, as
    /// everything farther away may be forged.
    pub fn resolve(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> ClientAddr {
        let Some(peer) = peer.map(|ip| ip.to_canonical()) else { return ClientAddr::Unknown };
        if !self.trusts(peer) {
            return ClientAddr::Ip(peer);
        }
        ClientAddr::Ip(if headers.contains_key(X_FORWARDED_FOR) {
            self.walk(peer, elements(headers, X_FORWARDED_FOR).map(|hop| hop.and_then(address)))
        } else {
            self.walk(peer, elements(headers, FORWARDED).map(|hop| parameter(hop?, "for").and_then(address)))
        })
    }

    /// Whether the request reached a trusted peer over TLS, by that peer's word. `None`: no word.
    pub(crate) fn forwarded_secure(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<bool> {
        if !self.trusts(peer?) {
            return None;
        }
        let scheme = if headers.contains_key(X_FORWARDED_PROTO) {
            elements(headers, X_FORWARDED_PROTO).next()?
        } else {
            elements(headers, FORWARDED).next()?.and_then(|element| parameter(element, "proto"))
        };
        Some(scheme?.eq_ignore_ascii_case("https"))
    }

    fn walk(&self, peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut nearest = peer;
        for hop in hops {
            match hop {
                Some(hop) if self.trusts(hop) => nearest = hop,
                Some(hop) => return hop,
                None => return nearest,
            }
        }
        // Every hop is trusted: nobody further out is named.
        peer
    }
}

/// Comma-separated elements of all lines of a header, right to left, without empty ones. A line that
/// is no text is one unreadable element.
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Option<&str>> {
    headers.get_all(name).into_iter().rev().flat_map(|line| {
        let text = line.to_str().ok();
        text.unwrap_or("\0")
            .rsplit(',')
            .map(str::trim)
            .filter(|e| !e.is_empty())
            .map(move |e| text.map(|_| e))
    })
}

/// An address, alone or with a port, as proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let unbracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ip = match unbracketed {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip())),
    };
    ip.map(|ip| ip.to_canonical())
}

/// Value of a parameter of one `Forwarded` element.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    element.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in lines.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    fn resolve(proxies: &[&str], peer: &str, lines: &[(&'static str, &str)]) -> String {
        let proxies = TrustedProxies::parse(proxies).unwrap();
        proxies.resolve(peer.parse().ok(), &headers(lines)).to_string()
    }

    #[test]
    fn a_direct_client_cannot_change_its_bucket() {
        let forged = [("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4")];
        assert_eq!(resolve(&["10.0.0.0/8"], "198.51.100.9", &forged), "198.51.100.9");
        assert_eq!(resolve(&[], "198.51.100.9", &forged), "198.51.100.9");
    }

    #[test]
    fn behind_a_trusted_proxy_the_first_untrusted_hop_from_the_right_is_the_client() {
        for left in ["9.9.9.9", "8.8.8.8", "nonsense", ""] {
            let line = format!("{left}, 203.0.113.7, 10.1.1.1");
            assert_eq!(resolve(&["10.0.0.0/8"], "10.0.0.1", &[("x-forwarded-for", &line)]), "203.0.113.7");
        }
        let lines = [
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-for", "10.1.1.1"),
        ];
        assert_eq!(resolve(&["10.0.0.0/8"], "10.0.0.1", &lines), "203.0.113.7");
    }

    #[test]
    fn an_unreadable_hop_ends_the_walk_at_the_hop_to_its_right() {
        let of = |line| resolve(&["10.0.0.0/8"], "10.0.0.1", &[("x-forwarded-for", line)]);
        assert_eq!(of("203.0.113.7, garbage, 10.1.1.1"), "10.1.1.1");
        assert_eq!(of("203.0.113.7, garbage"), "10.0.0.1");
        assert_eq!(of("10.2.2.2, 10.1.1.1"), "10.0.0.1");
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        let of = |line| resolve(&["10.0.0.0/8"], "::ffff:10.0.0.1", &[("x-forwarded-for", line)]);
        assert_eq!(of("203.0.113.7:4711"), "203.0.113.7");
        assert_eq!(of("[2001:db8::1]:443"), "2001:db8::1");
        assert_eq!(of("[2001:db8::1]"), "2001:db8::1");
        assert_eq!(of("::ffff:203.0.113.7"), "203.0.113.7");
    }

    #[test]
    fn forwarded_counts_when_x_forwarded_for_is_absent() {
        let element = ("forwarded", "for=9.9.9.9, for=\"[2001:db8::17]:4711\";proto=https, For=10.1.1.1");
        assert_eq!(resolve(&["10.0.0.0/8"], "10.0.0.1", &[element]), "2001:db8::17");
        let both = [element, ("x-forwarded-for", "203.0.113.7")];
        assert_eq!(resolve(&["10.0.0.0/8"], "10.0.0.1", &both), "203.0.113.7");
        let hidden = [("forwarded", "for=9.9.9.9, for=_hidden")];
        assert_eq!(resolve(&["10.0.0.0/8"], "10.0.0.1", &hidden), "10.0.0.1");
    }

    #[test]
    fn without_a_peer_the_client_is_unknown() {
        let unknown = resolve(&["10.0.0.0/8"], "", &[("x-forwarded-for", "1.2.3.4")]);
        assert_eq!(unknown, "unknown");
    }

    #[test]
    fn a_bucket_of_ipv6_is_a_whole_64() {
        let bucket = |text: &str| ClientAddr::Ip(text.parse().unwrap()).bucket();
        assert_eq!(bucket("2001:db8:1:2::1"), bucket("2001:db8:1:2:ffff::9"));
        assert_ne!(bucket("2001:db8:1:2::1"), bucket("2001:db8:1:3::1"));
        assert_ne!(bucket("192.0.2.1"), bucket("192.0.2.2"));
    }

    #[test]
    fn a_proxy_that_is_no_network_or_everyone_is_refused() {
        for refused in ["0.0.0.0/0", "::/0", "proxy.example", "10.0.0.0/33", ""] {
            assert!(TrustedProxies::parse([refused]).is_err(), "{refused}");
        }
        assert!(TrustedProxies::parse(["10.0.0.0/8", "::1", " 192.0.2.1 "]).is_ok());
    }

    #[test]
    fn the_scheme_counts_only_from_a_trusted_peer() {
        let proxies = TrustedProxies::parse(["10.0.0.0/8"]).unwrap();
        let https = headers(&[("x-forwarded-proto", "https")]);
        let secure = |peer: &str, headers: &HeaderMap| proxies.forwarded_secure(peer.parse().ok(), headers);
        assert_eq!(secure("10.0.0.1", &https), Some(true));
        assert_eq!(secure("198.51.100.9", &https), None);
        assert_eq!(secure("10.0.0.1", &headers(&[("forwarded", "for=1.1.1.1;proto=http")])), Some(false));
        assert_eq!(secure("10.0.0.1", &HeaderMap::new()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_header_panics_and_an_untrusted_peer_stays_itself(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4),
            text in "[0-9a-f:.,\\[\\]\" ;=for_]{0,60}",
        ) {
            let proxies = TrustedProxies::parse(["10.0.0.0/8", "2001:db8::/32"]).unwrap();
            for name in [X_FORWARDED_FOR, FORWARDED, X_FORWARDED_PROTO] {
                let mut map = HeaderMap::new();
                for line in lines.iter().map(Vec::as_slice).chain([text.as_bytes()]) {
                    if let Ok(value) = HeaderValue::from_bytes(line) {
                        map.append(&name, value);
                    }
                }
                let stranger: IpAddr = "198.51.100.9".parse().unwrap();
                prop_assert_eq!(proxies.resolve(Some(stranger), &map), ClientAddr::Ip(stranger));
                prop_assert_eq!(proxies.forwarded_secure(Some(stranger), &map), None);
                let trusted = "10.0.0.1".parse().ok();
                proxies.resolve(trusted, &map);
                proxies.forwarded_secure(trusted, &map);
            }
        }

        #[test]
        fn what_stands_left_of_the_client_changes_nothing(left in "[0-9a-z.,: ]{0,40}") {
            let proxies = TrustedProxies::parse(["10.0.0.0/8"]).unwrap();
            let line = format!("{left},203.0.113.7, 10.1.1.1");
            let client = proxies.resolve("10.0.0.1".parse().ok(), &headers(&[("x-forwarded-for", &line)]));
            prop_assert_eq!(client.to_string(), "203.0.113.7");
        }
    }
}

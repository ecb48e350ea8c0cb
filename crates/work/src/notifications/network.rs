//! Which addresses notifications may be sent to.
//!
//! Over TLS, to public addresses. Without TLS to this machine alone, and to private networks when the
//! operator says so: an address that was copied from somewhere must not become a way into them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, redirect};
use url::{Host, Url};

/// Checks an address and takes it apart; the error is the broken rule, never the address.
pub(super) fn address(text: &str, allow_private: bool) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|_| "must be a URL".to_owned())?;
    let host = url.host().ok_or("must be a URL with a host")?;
    let is_here = match &host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    };
    match url.scheme() {
        "https" => {}
        "http" if is_here => {}
        "http" => return Err("must begin with https://, unless it is on this machine".to_owned()),
        _ => return Err("must begin with https://".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or a password".to_owned());
    }
    let literal = match host {
        Host::Domain(_) => None,
        Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
    };
    if literal.is_some_and(|ip| !(allow_private || is_here || is_public(ip))) {
        return Err("must not be in a private network; see notifications.allow_private_addresses".to_owned());
    }
    Ok(url)
}

/// What requests are made with. Redirects are not followed, for they could lead anywhere.
pub(super) fn client(allow_private: bool) -> Result<Client, String> {
    Client::builder()
        .user_agent(concat!("quarterdeck/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        // A proxy would look names up by itself.
        .no_proxy()
        .dns_resolver(Arc::new(Names { allow_private }))
        .build()
        .map_err(|why| format!("cannot prepare connections: {}", why.without_url()))
}

/// Looks names up, and leaves out what they must not mean.
struct Names {
    allow_private: bool,
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let host = name.as_str();
            let allowed =
                |ip: IpAddr| allow_private || is_public(ip) || host == "localhost" && ip.is_loopback();
            let found = tokio::net::lookup_host((host, 0)).await?;
            let found: Vec<SocketAddr> = found.filter(|address| allowed(address.ip())).collect();
            if found.is_empty() {
                return Err("the name means no public address".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is of the public internet.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match inner(ip) {
            Some(inner) => is_public_v4(inner),
            // 2000::/3 is all there is, less what is for documents.
            None => ip.segments()[0] & 0xe000 == 0x2000 && ip.segments()[..2] != [0x2001, 0xdb8],
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b)))
}

/// The IPv4 address inside a mapped, translated or tunnelled one.
fn inner(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = ip.segments();
    let joined = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(joined(high, low)),
        [0x2002, high, low, ..] => Some(joined(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for public in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "198.18.0.1",
            "192.0.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:a00:1::",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn an_address_is_refused_by_rule_and_never_repeated() {
        for good in ["https://hooks.example/x", "http://127.0.0.1:8/x", "http://localhost/", "https://[::1]/"]
        {
            assert!(address(good, false).is_ok(), "{good}");
        }
        for bad in [
            "http://hooks.example/s3cret",
            "ftp://hooks.example/s3cret",
            "https://u:s3cret@hooks.example/",
            "https://10.0.0.1/s3cret",
            "https://169.254.169.254/s3cret",
            "https://[fc00::1]/s3cret",
            "s3cret",
        ] {
            let rule = address(bad, false).unwrap_err();
            assert!(rule.starts_with("must ") && !rule.contains("s3cret"), "{rule}");
        }
        assert!(address("https://10.0.0.1/x", true).is_ok());
        assert!(address("http://10.0.0.1/x", true).is_err(), "never without TLS");
    }
}

//! Where a sink sends to, read from its parameters.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::message::Mailbox;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::config::{Given, SinkKind};
use super::network;

/// Shortest secret of a webhook, in bytes.
const MIN_SECRET: usize = 24;
const NTFY: &str = "https://ntfy.sh";

/// Everything a sink needs to know.
pub(super) enum Target {
    Console,
    Webhook { url: Url, key: SecretBytes },
    Ntfy { url: Url, topic: SecretString, token: Option<SecretString> },
    Slack { url: Url },
    Email(Box<Mail>),
}

/// What mail is sent with.
pub(super) struct Mail {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) login: Option<(String, SecretString)>,
    pub(super) from: Mailbox,
    pub(super) to: Vec<Mailbox>,
    pub(super) use_tls: bool,
    /// Certificates (PEM) of who may vouch for the server, instead of the system's.
    pub(super) authorities: Option<Vec<u8>>,
}

/// A key of any bytes.
pub(super) type SecretBytes = secrecy::SecretBox<Vec<u8>>;

impl Target {
    /// Reads the parameters of a sink of this kind; the error names the parameter and the rule.
    pub(super) fn new(kind: SinkKind, given: &Given, allow_private: bool) -> Result<Self, String> {
        let url = |name: &str, default: Option<&str>| {
            let text = given.text(name).or(default).unwrap_or_default();
            network::address(text, allow_private).map_err(|rule| format!("params.{name} {rule}"))
        };
        Ok(match kind {
            SinkKind::Console => Self::Console,
            SinkKind::Webhook => {
                Self::Webhook { url: url("url", None)?, key: key(given.required("secret")?)? }
            }
            SinkKind::Ntfy => Self::Ntfy {
                url: url("server_url", Some(NTFY))?,
                topic: topic(given.required("topic")?)?,
                token: given.secret("token"),
            },
            SinkKind::Slack => Self::Slack { url: url("url", None)? },
            SinkKind::Email => Self::Email(Box::new(Mail::new(given)?)),
        })
    }
}

/// The key of a webhook: the bytes behind `whsec_`, or the text itself.
fn key(secret: &str) -> Result<SecretBytes, String> {
    let bytes = match secret.strip_prefix("whsec_") {
        Some(encoded) => {
            STANDARD.decode(encoded).map_err(|_| "params.secret must be Base64 after whsec_".to_owned())?
        }
        None => secret.as_bytes().to_vec(),
    };
    if bytes.len() < MIN_SECRET {
        return Err(format!("params.secret must have at least {MIN_SECRET} bytes"));
    }
    Ok(SecretBytes::new(Box::new(bytes)))
}

fn topic(text: &str) -> Result<SecretString, String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain && text.len() <= 64 {
        Ok(text.into())
    } else {
        Err("params.topic must have at most 64 letters, digits, - and _".to_owned())
    }
}

impl Mail {
    fn new(given: &Given) -> Result<Self, String> {
        let port = match given.text("port") {
            None => 587,
            Some(text) => {
                let number = text.trim().parse().ok().filter(|port| *port > 0);
                number.ok_or("params.port must be between 1 and 65535")?
            }
        };
        let use_tls = match given.text("use_tls").map(str::trim) {
            None | Some("true") => true,
            Some("false") => false,
            Some(_) => return Err("params.use_tls must be true or false".to_owned()),
        };
        let to = given.required("to_addrs")?.split(',').map(|text| mailbox("to_addrs", text));
        let to = to.collect::<Result<Vec<_>, _>>()?;
        let username = given.text("username");
        let from = match (given.text("from_addr"), username.and_then(|name| name.parse().ok()), to.first()) {
            (Some(text), _, _) => mailbox("from_addr", text)?,
            (None, Some(from), _) => from,
            (None, None, Some(first)) => first.clone(),
            (None, None, None) => return Err("params.to_addrs must not be blank".to_owned()),
        };
        let login = match (username, given.secret("password")) {
            (Some(name), Some(password)) => Some((name.to_owned(), password)),
            (None, None) => None,
            _ => return Err("params.username and params.password must both be set, or neither".to_owned()),
        };
        let host = given.required("host")?.trim().to_owned();
        let is_here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if login.is_some() && !use_tls && !is_here {
            return Err("params.use_tls must be true where a password is sent".to_owned());
        }
        let authorities = given.text("ca_file").map(|path| {
            std::fs::read(path.trim()).map_err(|why| format!("params.ca_file cannot be read ({why})"))
        });
        Ok(Self { host, port, login, from, to, use_tls, authorities: authorities.transpose()? })
    }
}

fn mailbox(name: &str, text: &str) -> Result<Mailbox, String> {
    text.trim().parse().map_err(|_| format!("params.{name} must be mail addresses"))
}

/// The text of a secret, for the moment it is sent.
pub(super) fn shown(secret: &SecretString) -> &str {
    secret.expose_secret()
}

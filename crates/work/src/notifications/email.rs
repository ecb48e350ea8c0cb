//! Mail, over a connection that is secured before anything is said, unless the operator wants it plain.

use lettre::message::{Mailboxes, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use quarterdeck_domain::notification::Notification;

use super::sink::{Trouble, text};
use super::target::{Mail, shown};

/// Where TLS begins with the connection, not with a command.
const SUBMISSIONS: u16 = 465;

/// A way to the mail server; each notification takes a connection of its own.
pub(super) struct Post {
    mail: Mail,
    transport: AsyncSmtpTransport<Tokio1Executor>,
}

impl Post {
    pub(super) fn new(mail: Mail) -> Result<Self, String> {
        let tls = match (mail.use_tls, mail.port) {
            (false, _) => Tls::None,
            (true, SUBMISSIONS) => Tls::Wrapper(parameters(&mail)?),
            (true, _) => Tls::Required(parameters(&mail)?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(mail.host.clone())
            .port(mail.port)
            .tls(tls)
            .hello_name(ClientId::Domain("quarterdeck".to_owned()))
            // The dispatcher has its own patience.
            .timeout(None);
        if let Some((name, password)) = &mail.login {
            builder = builder.credentials(Credentials::new(name.clone(), shown(password).to_owned()));
        }
        Ok(Self { transport: builder.build(), mail })
    }

    pub(super) async fn send(&self, notification: &Notification) -> Result<(), Trouble> {
        let message = self.message(notification)?;
        self.transport.send(message).await.map(drop).map_err(|why| {
            // What the server said may repeat what it was told.
            let text = match why.status() {
                Some(code) => format!("the mail server answered {code}"),
                None if why.is_tls() => "the connection to the mail server cannot be secured".to_owned(),
                None if why.is_client() => "the mail server does not offer what is needed".to_owned(),
                None => "the connection to the mail server broke".to_owned(),
            };
            Trouble { text, may_pass: !(why.is_permanent() || why.is_client() || why.is_tls()) }
        })
    }

    fn message(&self, notification: &Notification) -> Result<Message, Trouble> {
        let Notification { severity, title, id, timestamp, .. } = notification;
        let to: Mailboxes = self.mail.to.iter().cloned().collect();
        Message::builder()
            .from(self.mail.from.clone())
            .mailbox(header::To::from(to))
            .date((*timestamp).into())
            .message_id(Some(format!("<{id}@quarterdeck>")))
            .subject(format!("[Quarterdeck] {severity}: {title}"))
            .header(header::ContentType::TEXT_PLAIN)
            .body(text(notification))
            .map_err(|_| Trouble::lasting("it cannot be written as a mail"))
    }
}

fn parameters(mail: &Mail) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(mail.host.clone());
    if let Some(pem) = &mail.authorities {
        let certificate = Certificate::from_pem(pem)
            .map_err(|_| "params.ca_file must hold certificates (PEM)".to_owned())?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
    }
    builder.build_rustls().map_err(|_| "TLS cannot be made ready".to_owned())
}

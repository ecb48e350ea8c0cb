//! `events tail`: what happens, line by line, as a client that recovers what it missed.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use quarterdeck_domain::channel::Shared;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::Context;
use super::user::{from_stdin, prompt};
use crate::Failure;
use crate::cli::{EventsCommand, TailArgs};
use crate::client::Client;
use crate::terminal::{harmless, harmless_json};

const CAPABLE: &str = "quarterdeck.v1";
/// First and longest wait before connecting again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Silence after which the line is asked whether it is still there, and how long the answer may take.
const HEARTBEAT: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<reqwest::Upgraded>;

pub(super) fn run(context: &Context<'_>, command: &EventsCommand) -> Result<ExitCode, Failure> {
    let EventsCommand::Tail(arguments) = command;
    let loaded = context.load()?;
    let client = Client::new(&loaded.config.api)?;
    let token = context.environment.text("QUARTERDECK_TOKEN").filter(|token| !token.trim().is_empty());
    let token = token.map(|token| SecretString::from(token.trim().to_owned()));
    let (token, is_ours) = match (token, &arguments.user) {
        (Some(token), None) => (token, false),
        (_, Some(user)) => {
            let password = password(context, arguments)?;
            (context.wait(client.login(user, &password))?, true)
        }
        (None, None) => {
            return Err(Failure::usage("the server has to know who follows its events")
                .hint("name yourself with --user, or put a session token into QUARTERDECK_TOKEN"));
        }
    };
    let mut tail = Tail { context, client: &client, arguments, token, positions: BTreeMap::new() };
    let ended = context.wait(tail.follow());
    if is_ours {
        // The session was made for this; a server that is gone has other worries.
        let _ = context.wait(client.logout(&tail.token));
    }
    match ended {
        // Ctrl-C is how following ends.
        Err(failure) if failure.exit_code == 130 => Ok(ExitCode::SUCCESS),
        ended => ended.map(|()| ExitCode::SUCCESS),
    }
}

fn password(context: &Context<'_>, arguments: &TailArgs) -> Result<SecretString, Failure> {
    if arguments.password_stdin {
        return Ok(from_stdin()?.into());
    }
    if !io::stdin().is_terminal() || context.output.is_json() {
        return Err(
            Failure::usage("there is no terminal to ask for the password on").hint("use --password-stdin")
        );
    }
    Ok(prompt("Password: ")?.into())
}

/// Why a connection ended.
enum End {
    /// It is worth another try.
    Lost(String),
    /// The server wants nothing more of this client.
    Refused(Failure),
}

struct Tail<'a> {
    context: &'a Context<'a>,
    client: &'a Client,
    arguments: &'a TailArgs,
    token: SecretString,
    /// Where each channel has been read to.
    positions: BTreeMap<String, Value>,
}

impl Tail<'_> {
    /// Follows until somebody stops it.
    async fn follow(&mut self) -> Result<(), Failure> {
        let (mut wait, mut refused) = (BACKOFF.0, false);
        loop {
            let end = match self.connect().await {
                Ok(mut socket) => {
                    (wait, refused) = (BACKOFF.0, false);
                    self.read(&mut socket).await
                }
                Err(failure) if failure.exit_code == 4 => End::Lost(failure.message),
                Err(failure) => return Err(failure),
            };
            match end {
                End::Lost(why) => self.context.output.note(&format!("{why}; connecting again")),
                // A ticket may have expired on the way; a second one has not.
                End::Refused(failure) if refused || failure.status != Some(401) => return Err(failure),
                End::Refused(_) => refused = true,
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    async fn connect(&self) -> Result<Socket, Failure> {
        let ticket = self.client.ticket(&self.token).await?;
        let offered = format!("{CAPABLE}, quarterdeck.ticket.{}", ticket.expose_secret());
        let upgraded = self.client.upgrade("/ws", &offered).await?;
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await)
    }

    async fn read(&mut self, socket: &mut Socket) -> End {
        let lost = |why: &dyn std::fmt::Display| End::Lost(format!("the line to the server broke ({why})"));
        let channels = match &self.arguments.channel[..] {
            [] => Shared::ALL.iter().map(|channel| channel.as_str().to_owned()).collect(),
            named => named.to_vec(),
        };
        let command = json!({"action": "subscribe", "channels": channels, "recover": self.positions});
        if let Err(error) = socket.send(Message::text(command.to_string())).await {
            return lost(&error);
        }
        let mut asked = false;
        loop {
            let next = tokio::time::timeout(if asked { PATIENCE } else { HEARTBEAT }, socket.next()).await;
            let text = match next {
                Ok(Some(Ok(Message::Text(text)))) => text,
                Ok(Some(Ok(Message::Close(frame)))) => return closed(frame),
                Ok(Some(Ok(_))) => continue,
                Ok(Some(Err(error))) => return lost(&error),
                Ok(None) => return lost(&"it was closed"),
                Err(_) if asked => return lost(&"no answer"),
                Err(_) => {
                    asked = true;
                    match socket.send(Message::text(r#"{"action":"ping"}"#)).await {
                        Ok(()) => continue,
                        Err(error) => return lost(&error),
                    }
                }
            };
            asked = false;
            let Ok(Value::Object(frame)) = serde_json::from_str(&text) else { continue };
            if let Err(failure) = self.take(&frame) {
                return End::Refused(failure);
            }
        }
    }

    fn take(&mut self, frame: &Map<String, Value>) -> Result<(), Failure> {
        let text = |name: &str| frame.get(name).and_then(Value::as_str).unwrap_or_default();
        match text("action") {
            "" if frame.contains_key("event_type") => self.show(frame),
            "pong" => self.advance(frame.get("positions")),
            "gap" => {
                self.miss(&[text("channel").to_owned()]);
                let position = json!({"epoch": frame.get("epoch"), "seq": frame.get("to")});
                self.positions.insert(text("channel").to_owned(), position);
            }
            "subscribed" => return self.subscribed(frame),
            _ => {}
        }
        Ok(())
    }

    fn subscribed(&mut self, ack: &Map<String, Value>) -> Result<(), Failure> {
        let denied = ack.get("denied").and_then(Value::as_array);
        // Without names everything is asked for, and what is not for this role is no surprise.
        if let Some(first) = denied.into_iter().flatten().find(|_| !self.arguments.channel.is_empty()) {
            let (channel, reason) = (first["channel"].as_str(), first["reason"].as_str());
            let text = format!(
                "channel '{}' cannot be followed ({})",
                harmless(channel.unwrap_or_default()),
                harmless(reason.unwrap_or("refused"))
            );
            return Err(
                Failure::runtime(text).hint("docs/realtime.md lists the channels and who may follow them")
            );
        }
        let recovery = ack.get("recovery").and_then(Value::as_object);
        let lost = recovery.into_iter().flatten().filter(|(_, found)| found["recovered"] != true);
        let lost: Vec<_> = lost.map(|(channel, _)| channel.clone()).collect();
        for channel in &lost {
            self.positions.remove(channel);
        }
        self.miss(&lost);
        // Recovered channels stand where they stood; what they missed follows.
        for (channel, position) in ack.get("positions").and_then(Value::as_object).into_iter().flatten() {
            self.positions.entry(channel.clone()).or_insert_with(|| position.clone());
        }
        let channels = ack.get("channels").and_then(Value::as_array).map_or(0, Vec::len);
        self.context.output.note(&format!("following {channels} channel(s); Ctrl-C ends it"));
        Ok(())
    }

    fn miss(&self, channels: &[String]) {
        let names = match channels {
            [] => return,
            few if few.len() <= 3 => harmless(&few.join(", ")),
            many => format!("{} channels", many.len()),
        };
        self.context.output.note(&format!("events on {names} may have been missed"));
    }

    fn advance(&mut self, positions: Option<&Value>) {
        for (channel, position) in positions.and_then(Value::as_object).into_iter().flatten() {
            self.is_new(channel, position);
        }
    }

    /// Moves the position on; whether it is further than before.
    fn is_new(&mut self, channel: &str, position: &Value) -> bool {
        let known = self.positions.get(channel);
        let is_old = known.is_some_and(|known| {
            known["epoch"] == position["epoch"] && known["seq"].as_u64() >= position["seq"].as_u64()
        });
        if !is_old {
            self.positions.insert(channel.to_owned(), position.clone());
        }
        !is_old
    }

    fn show(&mut self, event: &Map<String, Value>) {
        let text = |name: &str| harmless(event.get(name).and_then(Value::as_str).unwrap_or_default());
        let channel = text("channel");
        if !event.get("position").is_none_or(|position| self.is_new(&channel, position)) {
            return;
        }
        let output = &self.context.output;
        if output.is_json() {
            output.print(&format!("{}\n", harmless_json(event.clone().into())));
            return;
        }
        let payload = event.get("payload").cloned().map(harmless_json).unwrap_or_default();
        output.print(&format!("{}  {channel:<12}  {}  {payload}\n", text("timestamp"), text("event_type")));
    }
}

/// What a close frame means for this client.
fn closed(frame: Option<CloseFrame>) -> End {
    let (code, reason) =
        frame.map_or((1005, String::new()), |f| (f.code.into(), harmless(f.reason.as_str())));
    let refusal = |status, hint: &str| {
        let mut failure = Failure::runtime(format!("the server ended it: {reason} ({code})")).hint(hint);
        failure.status = Some(status);
        End::Refused(failure)
    };
    match code {
        4001 => refusal(401, "sign in again"),
        4003 => refusal(403, "sign in again, or ask for the right to read"),
        1009 => refusal(400, "this version of the command line is not made for this server"),
        _ => End::Lost(format!("the server closed the line ({code} {reason})")),
    }
}

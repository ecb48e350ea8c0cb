//! A client that follows the rules ends with exactly the matching events, or has been told what it missed:
//! whatever happens in between, on every back end, over two copies of the program.

use std::collections::{BTreeMap, BTreeSet};

use quarterdeck_bus::message::NatsConfig;
use quarterdeck_testkit::{Caller, Listening, NatsServer, Socket, TestDb, TestServer};
use serde_json::{Value, json};

use super::message;

const CHANNELS: [&str; 2] = ["tasks", "agents"];

/// Random numbers that a seed repeats (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// What has been published on a channel, in order.
type Published = BTreeMap<&'static str, Vec<String>>;

/// A client that follows the rules of the contract.
#[derive(Default)]
struct Client {
    /// Delivers what contains this letter alone.
    filter: Option<&'static str>,
    batch: bool,
    socket: Option<Socket>,
    positions: BTreeMap<String, Value>,
    /// Contents, per channel.
    received: BTreeMap<String, BTreeSet<String>>,
    /// What was there when the client loaded everything anew: nothing of it is missing.
    reloaded: BTreeMap<String, BTreeSet<String>>,
    recovered: usize,
    told: usize,
}

impl Client {
    async fn connect(&mut self, listening: &Listening, caller: &mut Caller, published: &Published) {
        let (mut socket, _) = listening.capable(caller).await;
        let mut command = json!({"action": "subscribe", "channels": CHANNELS, "batch": self.batch});
        if let Some(letter) = self.filter {
            command["filters"] = json!({"sender": letter});
        }
        if !self.positions.is_empty() {
            command["recover"] = json!(self.positions);
        }
        let ack = socket.ask(&command).await;
        for channel in CHANNELS {
            let recovery = &ack["recovery"][channel];
            // A first subscription begins where the channel is, as a load of everything would.
            if recovery["recovered"] == true {
                self.recovered += 1;
            } else {
                self.told += usize::from(!recovery.is_null());
                self.positions.insert(channel.to_owned(), ack["positions"][channel].clone());
                self.reload(channel, published);
            }
        }
        self.socket = Some(socket);
    }

    fn reload(&mut self, channel: &str, published: &Published) {
        let known = self.reloaded.entry(channel.to_owned()).or_default();
        known.extend(published.get(channel).into_iter().flatten().cloned());
    }

    /// Reads one frame; whether it was the answer to a ping.
    async fn read(&mut self, published: &Published) -> bool {
        let frame = self.socket.as_mut().expect("a connected client").next().await;
        match frame["action"].as_str() {
            Some("pong") => {
                for (channel, position) in frame["positions"].as_object().expect("positions") {
                    self.advance(channel, position);
                }
                return true;
            }
            Some("gap") => {
                let channel = frame["channel"].as_str().expect("a channel").to_owned();
                self.told += 1;
                self.positions.insert(channel.clone(), json!({"epoch": frame["epoch"], "seq": frame["to"]}));
                self.reload(&channel, published);
            }
            Some("batch") => {
                for event in frame["events"].as_array().expect("events") {
                    self.take(event);
                }
            }
            _ => self.take(&frame),
        }
        false
    }

    fn advance(&mut self, channel: &str, position: &Value) -> bool {
        let known = self.positions.entry(channel.to_owned()).or_insert_with(|| position.clone());
        let is_new = known["epoch"] != position["epoch"] || known["seq"].as_u64() < position["seq"].as_u64();
        if is_new {
            *known = position.clone();
        }
        is_new
    }

    fn take(&mut self, event: &Value) {
        let channel = event["channel"].as_str().expect("a channel");
        if !CHANNELS.contains(&channel) {
            return;
        }
        if !self.advance(channel, &event["position"]) {
            return;
        }
        let content = event["payload"]["content"].as_str().expect("content").to_owned();
        assert!(self.filter.is_none_or(|letter| content.starts_with(letter)), "{content} passed the filter");
        let fresh = self.received.entry(channel.to_owned()).or_default().insert(content.clone());
        assert!(fresh, "{channel} {content} came twice");
    }

    /// Everything that is there now, up to the answer to a ping.
    async fn ping(&mut self, published: &Published) {
        self.socket.as_mut().expect("a connected client").send(r#"{"action":"ping"}"#).await;
        while !self.read(published).await {}
    }

    fn check(&self, published: &Published) {
        for (channel, contents) in published {
            for content in contents {
                let wanted = self.filter.is_none_or(|letter| content.starts_with(letter));
                let has = |sets: &BTreeMap<String, BTreeSet<String>>| {
                    sets.get(*channel).is_some_and(|set| set.contains(content))
                };
                assert!(
                    !wanted || has(&self.received) || has(&self.reloaded),
                    "{channel} {content} is missing"
                );
            }
        }
    }
}

/// Copies of the program that share what they can share.
async fn copies(db: TestDb, nats: Option<&NatsServer>) -> Vec<TestServer> {
    let nats = nats.map(|server| NatsConfig { url: server.url().into(), ..NatsConfig::default() });
    let change = |options: &mut quarterdeck_testkit::Options| {
        options.bus.nats = nats.clone();
        // The smallest ring there is, so that it overflows.
        options.bus.history.size = 64;
    };
    let is_shared = db.is_shared();
    let first = TestServer::with(db, change).await;
    let second = if is_shared { Some(first.second(change).await) } else { None };
    [Some(first), second].into_iter().flatten().collect()
}

async fn interleave(servers: &[TestServer], seed: u64) -> (usize, usize) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut listening = Vec::new();
    for server in servers {
        server.app.auth.set_max_pending_tickets(1000);
        listening.push(server.listen().await);
    }
    let mut caller = servers[0].ceo().await;
    let mut published = Published::new();
    let mut clients = [
        Client::default(),
        Client { filter: Some("a"), ..Client::default() },
        Client { batch: true, ..Client::default() },
    ];
    for client in &mut clients {
        client.connect(&listening[0], &mut caller, &published).await;
    }
    let mut number = 0;
    for _ in 0..60 {
        let at = dice.roll(clients.len());
        let client = &mut clients[at];
        match dice.roll(8) {
            // A burst that one ring cannot hold, now and then.
            0..=3 => {
                let many = if dice.roll(6) == 0 { 90 } else { 1 + dice.roll(6) };
                for _ in 0..many {
                    let (channel, letter) = (CHANNELS[dice.roll(2)], ["a", "b"][dice.roll(2)]);
                    number += 1;
                    let content = format!("{letter}{number}");
                    let server = &servers[dice.roll(servers.len())];
                    message(server, channel, &content).await;
                    published.entry(channel).or_default().push(content);
                }
            }
            4 => drop(client.socket.take()),
            5 if client.socket.is_some() => client.ping(&published).await,
            6 if client.socket.is_some() => {
                // What was read before the line breaks counts, what was sent after it does not.
                client.socket.as_mut().unwrap().send(r#"{"action":"ping"}"#).await;
                for _ in 0..dice.roll(20) {
                    if client.read(&published).await {
                        break;
                    }
                }
                client.socket = None;
            }
            _ if client.socket.is_none() => {
                let there = dice.roll(listening.len());
                client.connect(&listening[there], &mut caller, &published).await;
            }
            _ => {}
        }
    }
    for client in &mut clients {
        if client.socket.is_none() {
            client.connect(&listening[0], &mut caller, &published).await;
        }
    }
    for channel in CHANNELS {
        message(&servers[servers.len() - 1], channel, "a-end").await;
    }
    let mut ends = (0, 0);
    for client in &mut clients {
        let has_all = |client: &Client| {
            CHANNELS.iter().all(|channel| client.received.get(*channel).is_some_and(|r| r.contains("a-end")))
        };
        while !has_all(client) {
            client.read(&published).await;
        }
        client.check(&published);
        ends = (ends.0 + client.recovered, ends.1 + client.told);
    }
    ends
}

/// Runs until history was recovered and loss was told, and as often as asked for.
async fn prove(db: impl AsyncFn() -> TestDb, nats: Option<&NatsServer>, rounds: u64) {
    let (mut recovered, mut told) = (0, 0);
    for seed in 1..=rounds {
        let servers = copies(db().await, nats).await;
        let (more, losses) = interleave(&servers, seed).await;
        (recovered, told) = (recovered + more, told + losses);
        for server in &servers {
            server.app.bus.stop().await;
            server.app.store.close().await;
        }
    }
    assert!(recovered > 0 && told > 0, "the rounds met both ends: {recovered} recovered, {told} told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_silence_in_memory() {
    prove(async || TestDb::sqlite(), None, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_silence_between_two_copies_on_postgres() {
    if TestDb::postgres().await.is_some() {
        prove(async || TestDb::postgres().await.expect("PostgreSQL answers"), None, 5).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_silence_between_two_copies_on_nats() {
    if let (Some(nats), Some(_)) = (NatsServer::start(), TestDb::postgres().await) {
        prove(async || TestDb::postgres().await.expect("PostgreSQL answers"), Some(&nats), 5).await;
    }
}

//! Who is let in, and how the others are told.

use std::time::Duration;

use quarterdeck_domain::role::HumanRole;
use quarterdeck_http::ws::SocketOptions;
use quarterdeck_testkit::{Closed, Listening, Socket, TestDb, TestServer, on_both_databases, ticket};
use serde_json::json;

fn closed(code: u16, reason: &str) -> Closed {
    Closed { code, reason: reason.to_owned() }
}

/// How a handshake with this query ends, and that nothing came before.
async fn refusal(listening: &Listening, query: &str) -> Closed {
    let url = format!("{}{query}", listening.ws());
    let mut socket = Socket::open(&url, &[]).await.expect("refusals complete the upgrade");
    let (closed, before) = socket.closed().await;
    assert!(before.is_empty(), "no frame before the close");
    closed
}

#[tokio::test]
async fn missing_empty_unknown_used_and_expired_tickets_end_in_4001() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let mut ceo = server.ceo().await;
    let missing = closed(4001, "Missing ticket");
    let invalid = closed(4001, "Invalid or expired ticket");
    assert_eq!(refusal(&listening, "").await, missing);
    assert_eq!(refusal(&listening, "?ticket=").await, missing);
    assert_eq!(refusal(&listening, "?ticket=nonsense").await, invalid);

    let used = ticket(&mut ceo).await;
    Socket::open(&format!("{}?ticket={used}", listening.ws()), &[]).await.unwrap().close().await;
    assert_eq!(refusal(&listening, &format!("?ticket={used}")).await, invalid);

    let expired = ticket(&mut ceo).await;
    server.advance(Duration::from_millis(30_001));
    assert_eq!(refusal(&listening, &format!("?ticket={expired}")).await, invalid);
    assert_eq!(server.app.sockets.count(), 0);
}

#[tokio::test]
async fn a_ticket_named_twice_is_burnt_wherever_it_is_named() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let mut ceo = server.ceo().await;
    let invalid = closed(4001, "Invalid or expired ticket");
    let (first, second) = (ticket(&mut ceo).await, ticket(&mut ceo).await);
    assert_eq!(refusal(&listening, &format!("?ticket={first}&ticket={second}")).await, invalid);
    let third = ticket(&mut ceo).await;
    let offered = format!("quarterdeck.v1, quarterdeck.ticket.{third}");
    let url = format!("{}?ticket={third}", listening.ws());
    let mut socket = Socket::open(&url, &[("sec-websocket-protocol", &offered)]).await.unwrap();
    assert_eq!(socket.protocol.as_deref(), Some("quarterdeck.v1"), "answered also when refusing");
    assert_eq!(socket.closed().await.0, invalid);
    for burnt in [first, second, third] {
        assert_eq!(refusal(&listening, &format!("?ticket={burnt}")).await, invalid);
    }
}

on_both_databases! {
    async fn of_racing_connections_with_one_ticket_exactly_one_is_accepted(db: TestDb) {
        let server = TestServer::on(db).await;
        let listening = server.listen().await;
        let mut ceo = server.ceo().await;
        let url = format!("{}?ticket={}", listening.ws(), ticket(&mut ceo).await);
        let race = (0..12).map(|_| {
            let url = url.clone();
            tokio::spawn(async move {
                let mut socket = Socket::open(&url, &[]).await.unwrap();
                socket.send(r#"{"action":"ping"}"#).await;
                match socket.try_next().await {
                    Ok(pong) => pong["action"].to_string(),
                    Err(closed) => closed.code.to_string(),
                }
            })
        });
        let ends = futures_util::future::join_all(race).await;
        let mut ends: Vec<_> = ends.into_iter().map(|end| end.unwrap()).collect();
        ends.sort_unstable();
        assert_eq!(ends, [vec!["\"pong\""], vec!["4001"; 11]].concat());
    }

    async fn every_role_that_reads_connects(db: TestDb) {
        let server = TestServer::on(db).await;
        let listening = server.listen().await;
        let mut people = vec![server.ceo().await];
        for role in [HumanRole::Manager, HumanRole::BoardMember, HumanRole::PairProgrammer, HumanRole::Observer] {
            people.push(server.person(role.as_str(), role).await);
        }
        for mut person in people {
            let mut socket = listening.plain(&mut person).await;
            let pong = socket.ask(&json!({"action": "ping"})).await;
            assert_eq!(pong, json!({"action": "pong"}), "the first frame is the reply to the first command");
        }
    }
}

#[tokio::test]
async fn no_other_credential_opens_a_socket() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let ceo = server.ceo().await;
    let session = ceo.cookie("session").unwrap();
    for header in [("cookie", format!("session={session}")), ("authorization", format!("Bearer {session}"))] {
        let mut socket = Socket::open(&listening.ws(), &[(header.0, &header.1)]).await.unwrap();
        assert_eq!(socket.closed().await.0, closed(4001, "Missing ticket"), "{}", header.0);
    }
}

#[tokio::test]
async fn somebody_who_must_change_the_password_is_refused() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let mut person = server.person("erin", HumanRole::Manager).await;
    let shown = ticket(&mut person).await;
    let id = person.get("/api/v1/auth/me").await.data()["id"].as_str().unwrap().to_owned();
    let sql = format!("UPDATE users SET must_change_password = true WHERE id = '{id}'");
    server.db.execute(&sql).await;
    server.app.auth.issue_ticket(&identity(&server, &person).await).await.unwrap();
    server
        .app
        .store
        .write(|tx| {
            Box::pin(async move {
                tx.signal(quarterdeck_store::Signal::Keys);
                Ok(())
            })
        })
        .await
        .unwrap();
    assert_eq!(
        refusal(&listening, &format!("?ticket={shown}")).await,
        closed(4003, "Password change required")
    );
}

async fn identity(
    server: &TestServer,
    caller: &quarterdeck_testkit::Caller,
) -> quarterdeck_domain::identity::Identity {
    let shown = quarterdeck_auth::Credentials { cookie: caller.cookie("session"), authorization: None };
    (*server.app.auth.identify(shown).await.unwrap()).clone()
}

#[tokio::test]
async fn faults_of_http_are_answered_as_such_and_use_up_no_ticket() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let shown = ticket(&mut server.ceo().await).await;
    let client = tokio::net::TcpStream::connect(listening.address);
    drop(client.await.unwrap());
    let path = format!("/api/v1/ws?ticket={shown}");
    let ask = |headers: &[(&str, &str)]| {
        let mut caller = server.anonymous();
        for (name, value) in headers {
            caller = caller.with_header(name, value);
        }
        let path = path.clone();
        async move { caller.get(&path).await }
    };
    let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let answer = ask(&[]).await;
    assert_eq!((answer.status, answer.header("upgrade")), (426, "websocket"));
    let answer = ask(&[upgrade[0], upgrade[1], ("sec-websocket-version", "8")]).await;
    assert_eq!((answer.status, answer.header("sec-websocket-version")), (426, "13"));
    for key in ["", "short", "bm90IHNpeHRlZW4="] {
        let headers = [upgrade[0], upgrade[1], ("sec-websocket-version", "13"), ("sec-websocket-key", key)];
        ask(&headers).await.refused(400, 2001);
    }
    let mut socket = Socket::open(&format!("{}?ticket={shown}", listening.ws()), &[]).await.unwrap();
    assert_eq!(socket.ask(&json!({"action": "ping"})).await["action"], "pong", "the ticket is still good");
}

#[tokio::test]
async fn pages_of_foreign_origins_are_refused_before_the_ticket_is_looked_at() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let shown = ticket(&mut server.ceo().await).await;
    let url = format!("{}?ticket={shown}", listening.ws());
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let refused = Socket::open(&url, &[("origin", origin)]).await.err().unwrap();
        assert_eq!(refused.status(), 403, "{origin}");
    }
    let own = format!("http://{}", listening.address);
    let mut socket = Socket::open(&url, &[("origin", &own)]).await.unwrap();
    assert_eq!(socket.ask(&json!({"action": "ping"})).await["action"], "pong");
}

#[tokio::test]
async fn handshakes_touch_no_tier_and_refused_ones_have_a_budget_of_their_own() {
    let server = TestServer::with(TestDb::sqlite(), |options| {
        (options.tiers.floor, options.tiers.anonymous) = (30, 30);
        options.sockets.refused_per_minute = 100;
    })
    .await;
    let listening = server.listen().await;
    for _ in 0..100 {
        assert_eq!(refusal(&listening, "").await.code, 4001);
    }
    assert_eq!(refusal(&listening, "").await, closed(1013, "Too many connections"));
    server.anonymous().get("/api/v1/setup/status").await.expect(200);
}

#[tokio::test]
async fn a_user_has_so_many_sockets_and_a_place_comes_free_with_each_end() {
    let server = TestServer::with(TestDb::sqlite(), |o| o.sockets.max_per_user = 2).await;
    let listening = server.listen().await;
    let mut ceo = server.ceo().await;
    let (first, _second) = (listening.plain(&mut ceo).await, listening.plain(&mut ceo).await);
    let query = format!("?ticket={}", ticket(&mut ceo).await);
    assert_eq!(refusal(&listening, &query).await, closed(1013, "Too many connections"));
    first.close().await;
    while server.app.sockets.count() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(listening.plain(&mut ceo).await.ask(&json!({"action": "ping"})).await["action"], "pong");
}

#[tokio::test]
async fn without_news_a_client_sees_1011_and_nothing_is_left_behind() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let query = format!("?ticket={}", ticket(&mut server.ceo().await).await);
    server.app.bus.stop().await;
    assert_eq!(refusal(&listening, &query).await, closed(1011, "Internal error"));
    assert_eq!((server.app.sockets.count(), server.app.rights.count()), (0, 0));
}

#[tokio::test]
async fn refusals_can_be_told_by_http() {
    let server = TestServer::with(TestDb::sqlite(), |o| o.sockets.deny_by_http = true).await;
    let listening = server.listen().await;
    let refused = Socket::open(&listening.ws(), &[]).await.err().unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["x-quarterdeck-close"], "4001");
}

/// A server that takes tickets in the first message.
async fn patient_server() -> TestServer {
    let sockets = SocketOptions { first_message_auth: true, ..SocketOptions::default() };
    TestServer::with(TestDb::sqlite(), |options| options.sockets = sockets).await
}

#[tokio::test]
async fn a_ticket_may_come_in_the_first_message_where_that_is_switched_on() {
    let server = patient_server().await;
    let listening = server.listen().await;
    let mut ceo = server.ceo().await;
    let mut socket = Socket::open(&listening.ws(), &[]).await.unwrap();
    let ok = socket.ask(&json!({"action": "auth", "ticket": ticket(&mut ceo).await})).await;
    assert_eq!(ok, json!({"action": "auth_ok"}));
    assert_eq!(socket.ask(&json!({"action": "auth"})).await, json!({"error": "Unknown action"}));
    assert_eq!(
        refusal(&listening, "?ticket=").await,
        closed(4001, "Missing ticket"),
        "an empty one stays one"
    );

    for (message, reason) in [
        ("x".to_owned(), "Invalid auth message"),
        ("[]".to_owned(), "Expected auth action"),
        (r#"{"action":"ping"}"#.to_owned(), "Expected auth action"),
        (r#"{"action":"auth"}"#.to_owned(), "Missing ticket"),
        (r#"{"action":"auth","ticket":1}"#.to_owned(), "Missing ticket"),
        (r#"{"action":"auth","ticket":"x"}"#.to_owned(), "Invalid or expired ticket"),
        (format!(r#"{{"action":"auth","x":"{}"}}"#, "x".repeat(5000)), "Auth message too large"),
    ] {
        let mut socket = Socket::open(&listening.ws(), &[]).await.unwrap();
        socket.send(message).await;
        assert_eq!(socket.closed().await.0, closed(4001, reason));
    }
}

#[tokio::test]
async fn who_says_nothing_is_sent_away() {
    let server = TestServer::with(TestDb::sqlite(), |options| {
        options.sockets.first_message_auth = true;
        options.sockets.auth_timeout = Duration::from_millis(50);
    })
    .await;
    let listening = server.listen().await;
    assert_eq!(refusal(&listening, "").await, closed(4001, "Auth timeout"));
}

#[tokio::test]
async fn a_capable_client_is_greeted_with_its_limits() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let (socket, greeting) = listening.capable(&mut server.ceo().await).await;
    assert_eq!(socket.protocol.as_deref(), Some("quarterdeck.v1"), "the ticket is never echoed");
    assert_eq!(greeting["protocol"], "quarterdeck.v1");
    assert!(greeting["connection_id"].is_string());
    let limits = json!({"message": 4096, "queue": 64, "channels": 21, "filters": 10});
    assert_eq!(greeting["limits"], limits);
    assert_eq!(greeting["features"], json!(["recover", "gap", "batch"]));
}

#[tokio::test]
async fn a_thousand_connections_cut_at_any_point_leave_nothing_behind() {
    let server = TestServer::with(TestDb::sqlite(), |o| {
        o.sockets.max_per_user = 0;
        o.sockets.refused_per_minute = 0;
    })
    .await;
    let listening = server.listen().await;
    let mut ceo = server.ceo().await;
    server.app.auth.set_max_pending_tickets(1000);
    for round in 0..1000 {
        match round % 4 {
            0 => drop(tokio::net::TcpStream::connect(listening.address).await.unwrap()),
            1 => {
                let stream = tokio::net::TcpStream::connect(listening.address).await.unwrap();
                let shown = ticket(&mut ceo).await;
                let head = format!(
                    "GET /api/v1/ws?ticket={shown} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
                );
                let _ = stream.try_write(head.as_bytes());
            }
            2 => drop(listening.plain(&mut ceo).await),
            _ => {
                let (mut socket, _) = listening.capable(&mut ceo).await;
                socket.send(r#"{"action":"subscribe","channels":["tasks"]}"#).await;
            }
        }
    }
    let bus = &server.app.bus;
    let own = bus.own(&identity(&server, &ceo).await.user_id).await.unwrap();
    let tasks = bus.shared(quarterdeck_domain::channel::Shared::Tasks);
    let left = || (server.app.sockets.count(), server.app.rights.count(), own.audience(), tasks.audience());
    let gone = async {
        while left() != (0, 0, 0, 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), gone).await.is_ok(), "left behind: {:?}", left());
}

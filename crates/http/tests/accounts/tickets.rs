//! WebSocket tickets as they are issued; what opens a socket with one is elsewhere.

use std::time::Duration;

use quarterdeck_domain::identity::AuthMethod;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{PASSWORD, TestServer, on_both_databases};
use serde_json::json;

use crate::{PEOPLE, TICKET, USERS, id_of, outcomes, race, somebody};

async fn ticket(caller: &mut quarterdeck_testkit::Caller) -> String {
    let data = caller.post_empty(TICKET).await.expect(200).data();
    data["ticket"].as_str().expect("a ticket").to_owned()
}

#[tokio::test]
async fn everybody_who_is_signed_in_gets_a_ticket_that_says_who_they_are() {
    let server = TestServer::start().await;
    for role in PEOPLE {
        let mut caller = somebody(&server, role).await;
        let data = caller.post_empty(TICKET).await.expect(200).data();
        assert_eq!(data["expires_in"], 30);
        let ticket = data["ticket"].as_str().unwrap();
        assert!(
            ticket.len() == 43 && ticket.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        );
        let identity = server.app.auth.consume_ticket(ticket).await.unwrap().expect("a good ticket");
        assert_eq!((identity.role, identity.auth_method), (role, AuthMethod::WsTicket));
        assert_eq!(*identity.user_id, *id_of(&mut caller).await);
        assert!(server.app.auth.consume_ticket(ticket).await.unwrap().is_none(), "once");
    }
}

#[tokio::test]
async fn a_bearer_token_of_a_session_gets_a_ticket_too() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    server.bearer(ceo.cookie("session").unwrap()).post_empty(TICKET).await.expect(200);
}

#[tokio::test]
async fn keys_the_command_line_and_nobody_get_no_ticket() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    let refusal = server.key_of(&ceo, HumanRole::Ceo).await.post_empty(TICKET).await.refused(401, 1000);
    assert_eq!(refusal.error(), "WebSocket tickets require JWT authentication");
    server.system_cli().post_empty(TICKET).await.refused(403, 1001);
    server.anonymous().post_empty(TICKET).await.refused(401, 1000);
    ceo.clone().without_csrf().post_empty(TICKET).await.refused(403, 1004);
}

#[tokio::test]
async fn who_must_change_the_password_gets_no_ticket() {
    let server = TestServer::start().await;
    let body = json!({"username": "new", "password": PASSWORD, "role": "manager"});
    server.ceo().await.post(USERS, &body).await.expect(201);
    let mut new = server.sign_in("new").await;
    let refusal = new.post_empty(TICKET).await.refused(403, 1001);
    assert_eq!(refusal.error(), "Password change required");
}

#[tokio::test]
async fn a_ticket_is_no_bearer_token_and_no_cookie() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let shown = ticket(&mut ceo).await;
    server.bearer(&shown).get(crate::ME).await.refused(401, 1000);
    server.anonymous().with_cookie("session", &shown).get(crate::ME).await.refused(401, 1000);
}

#[tokio::test]
async fn a_sixth_pending_ticket_is_refused_until_one_is_used_or_expires() {
    let server = TestServer::start().await;
    let (mut ceo, mut other) = (server.ceo().await, server.person("other", HumanRole::Observer).await);
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(ticket(&mut ceo).await);
    }
    ceo.post_empty(TICKET).await.refused(409, 4000);
    ticket(&mut other).await;
    server.app.auth.consume_ticket(&held[0]).await.unwrap().expect("a good ticket");
    ticket(&mut ceo).await;
    ceo.post_empty(TICKET).await.refused(409, 4000);
    server.advance(Duration::from_secs(30));
    ceo.post_empty(TICKET).await.refused(409, 4000);
    assert!(server.app.auth.consume_ticket(&held[1]).await.unwrap().is_some(), "good for its last instant");
    server.advance(Duration::from_micros(1));
    assert!(server.app.auth.consume_ticket(&held[2]).await.unwrap().is_none(), "and not longer");
    ticket(&mut ceo).await;
}

#[tokio::test]
async fn the_wall_clock_has_no_say() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    let shown = ticket(&mut ceo.clone()).await;
    server.clock.step_wall(chrono::TimeDelta::hours(5));
    assert!(server.app.auth.consume_ticket(&shown).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_issued_at_once_five_are_and_of_many_consumers_one_wins() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    let answers = race((0..12).map(|_| {
        let mut caller = ceo.clone();
        async move { caller.post_empty(TICKET).await }
    }))
    .await;
    assert_eq!(outcomes(&answers), [vec![(200, 0); 5], vec![(409, 4000); 7]].concat());
    let shown = answers[0].data()["ticket"].as_str().unwrap().to_owned();
    let consumers = (0..16).map(|_| {
        let (auth, shown) = (server.app.auth.clone(), shown.clone());
        tokio::spawn(async move { auth.consume_ticket(&shown).await.unwrap().is_some() })
    });
    let won = futures_util::future::join_all(consumers).await;
    assert_eq!(won.into_iter().filter(|won| *won.as_ref().unwrap()).count(), 1);
}

#[tokio::test]
async fn a_restart_voids_every_ticket() {
    let server = TestServer::start().await;
    let shown = ticket(&mut server.ceo().await).await;
    server.app.store.close().await;
    let server = server.second(|_| {}).await;
    assert!(server.app.auth.consume_ticket(&shown).await.unwrap().is_none());
}

on_both_databases! {
    async fn what_ends_a_session_or_changes_a_user_ends_their_tickets(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let heir = id_of(&mut server.person("heir", HumanRole::Manager).await).await;
        let good = async |ticket: &str| server.app.auth.consume_ticket(ticket).await.unwrap().is_some();
        let role = json!({"role": "observer"});

        let mut demoted = server.person("demoted", HumanRole::Manager).await;
        let (shown, id) = (ticket(&mut demoted).await, id_of(&mut demoted).await);
        ceo.patch(&format!("{USERS}/{id}"), &role).await.expect(200);
        assert!(!good(&shown).await, "demoted");

        let shown = ticket(&mut demoted).await;
        ceo.delete(&format!("{USERS}/{id}")).await.expect(204);
        assert!(!good(&shown).await, "deleted");

        let mut gone = server.person("gone", HumanRole::Manager).await;
        let shown = ticket(&mut gone).await;
        gone.post_empty("/api/v1/auth/logout").await.expect(204);
        assert!(!good(&shown).await, "signed out");

        let shown = ticket(&mut ceo).await;
        ceo.post_empty(&format!("{USERS}/{heir}/transfer-ceo")).await.expect(200);
        assert!(!good(&shown).await, "no CEO any more");
    }
}

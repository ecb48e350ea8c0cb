//! Signing out: always possible, never telling.

use std::time::Duration;

use quarterdeck_testkit::{Answer, TestServer, on_both_databases};

use crate::support::*;

#[track_caller]
fn left(answer: Answer) {
    let answer = answer.expect(204);
    assert!(answer.body.is_empty());
    assert_eq!(answer.header("clear-site-data"), "\"cookies\"");
    let cleared = set_cookies(&answer);
    assert_eq!(cleared.len(), 3);
    assert!(cleared.iter().all(|line| line.contains("=; ") && line.contains("; Max-Age=0;")), "{cleared:?}");
}

on_both_databases! {
    async fn a_token_is_revoked_by_signing_out_with_it(db: TestDb) {
        let server = TestServer::on(db).await;
        let ceo = server.ceo().await;
        let token = token_of(&ceo);
        left(ceo.clone().post_empty(LOGOUT).await);
        me(&server, &token).await.refused(401, 1002);
        let bearer = token_of(&server.sign_in("ceo").await);
        left(server.bearer(&bearer).post_empty(LOGOUT).await);
        me(&server, &bearer).await.refused(401, 1002);
    }

    async fn a_failing_store_does_not_hold_anybody_back(db: TestDb) {
        let server = TestServer::on(db).await;
        let ceo = server.ceo().await;
        server.app.store.close().await;
        left(ceo.clone().post_empty(LOGOUT).await);
    }

    async fn a_ticket_ends_with_the_session_it_came_from(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let answer = ceo.post_empty(TICKET).await.expect(200).data();
        ceo.post_empty(LOGOUT).await.expect(204);
        assert!(server.app.auth.consume_ticket(answer["ticket"].as_str().unwrap()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn any_credential_or_none_is_enough() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    let token = token_of(&ceo);
    left(server.anonymous().post_empty(LOGOUT).await);
    for odd in ["", "x", "a.b.c", &format!("{token}x"), &token[..token.len() - 2]] {
        left(server.anonymous().with_cookie("session", odd).post_empty(LOGOUT).await);
        left(
            server
                .anonymous()
                .with_header("authorization", &format!("Bearer {odd}"))
                .post_empty(LOGOUT)
                .await,
        );
    }
    left(server.system_cli().post_empty(LOGOUT).await);
    left(server.key_of(&ceo, quarterdeck_domain::role::HumanRole::Ceo).await.post_empty(LOGOUT).await);
    me(&server, &token).await.expect(200);
    server.system_cli().get(ME).await.expect(200);
    server.advance(Duration::from_secs(1440 * 60));
    left(ceo.clone().post_empty(LOGOUT).await);
}

#[tokio::test]
async fn a_forged_token_signs_nobody_out() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let claims = claims_of(&token_of(&ceo)).to_string();
    let forgery =
        forged(header, &claims, "a secret the server does not have", jsonwebtoken::Algorithm::HS256);
    left(server.bearer(&forgery).post_empty(LOGOUT).await);
    me(&server, &token_of(&ceo)).await.expect(200);
}

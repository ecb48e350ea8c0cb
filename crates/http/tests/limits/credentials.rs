//! The budget of credential checks.

use quarterdeck_testkit::PASSWORD;
use serde_json::json;

use crate::{LOGIN, ME, MINUTE, server_with, wait_of};

const WRONG: &str = "not the right password";

#[tokio::test]
async fn the_eleventh_login_of_an_address_is_refused_before_the_lockout_answers() {
    let server = server_with(|_| ()).await;
    server.ceo().await;
    server.advance(MINUTE);
    let body = json!({"username": "ceo", "password": WRONG});
    let mut guesser = server.anonymous().from("192.0.2.1");
    for _ in 0..9 {
        guesser.post(LOGIN, &body).await.refused(401, 1000);
    }
    guesser.post(LOGIN, &body).await.refused(429, 1003);
    assert_eq!(wait_of(&guesser.post(LOGIN, &body).await, 5000), 60);
    // From elsewhere the lock answers.
    server.anonymous().from("192.0.2.2").post(LOGIN, &body).await.refused(429, 1003);
    // Once the window has passed the lock answers here as well.
    server.advance(MINUTE);
    guesser.post(LOGIN, &body).await.refused(429, 1003);
}

#[tokio::test]
async fn login_setup_refresh_and_password_change_share_one_budget_and_nothing_else_uses_it() {
    let server = server_with(|tiers| tiers.anonymous = 100).await;
    let ceo = server.ceo().await;
    server.advance(MINUTE);
    let mut ceo = ceo.from("192.0.2.1");
    let mut stranger = server.anonymous().from("192.0.2.1");
    let login = json!({"username": "nobody", "password": WRONG});
    let change = json!({"current_password": WRONG, "new_password": "another good password"});
    for _ in 0..4 {
        stranger.post(LOGIN, &login).await.expect(401);
    }
    for _ in 0..2 {
        stranger.post("/api/v1/auth/setup", &login).await.refused(409, 4000);
        stranger.post_empty("/api/v1/auth/refresh").await.expect(401);
        ceo.post("/api/v1/auth/change-password", &change).await.expect(401);
        // A password change by nobody is no check of a credential.
        stranger.post("/api/v1/auth/change-password", &change).await.expect(401);
        ceo.get(ME).await.expect(200);
    }
    for path in [LOGIN, "/api/v1/auth/setup", "/api/v1/auth/refresh"] {
        wait_of(&stranger.post(path, &login).await, 5000);
    }
    wait_of(&ceo.post("/api/v1/auth/change-password", &change).await, 5000);
    ceo.get(ME).await.expect(200);
    ceo.post_empty("/api/v1/auth/logout").await.expect(204);
    let body = json!({"username": "ceo", "password": PASSWORD});
    server.anonymous().from("192.0.2.2").post(LOGIN, &body).await.expect(200);
}

//! Windows of single operations.

use quarterdeck_domain::role::{Guard, HumanRole};
use quarterdeck_http::edge::Data;
use quarterdeck_http::endpoint::post;
use quarterdeck_http::limits::Overrides;
use quarterdeck_testkit::{Caller, TestDb, TestServer};
use serde_json::json;

use crate::{MINUTE, USERS, out_of_the_box, server_with, wait_of};

async fn create(caller: &mut Caller, name: &str) -> quarterdeck_testkit::Answer {
    let body = json!({"username": name, "password": "a good password", "role": "observer"});
    caller.post(USERS, &body).await
}

fn nobody() -> String {
    format!("{USERS}/00000000-0000-0000-0000-000000000000")
}

#[tokio::test]
async fn an_exhausted_operation_names_itself_and_leaves_the_others_alone() {
    let server = server_with(|_| ()).await;
    let mut ceo = server.ceo().await;
    for _ in 0..3 {
        ceo.delete(&nobody()).await.expect(404);
    }
    let refusal = ceo.delete(&nobody()).await;
    assert_eq!(wait_of(&refusal, 5001), 60);
    assert_eq!(refusal.error(), "Rate limit exceeded for operation 'users.delete'. Retry after 60s.");
    assert_eq!(refusal.header("ratelimit-policy"), r#""users.delete";q=3;w=60"#);
    create(&mut ceo, "new").await.expect(201);
    // Having waited as told, the next call passes.
    server.advance(MINUTE);
    ceo.delete(&nobody()).await.expect(404);
}

#[tokio::test]
async fn a_users_window_is_nobody_elses() {
    let endpoint =
        post("/test", "test.limited", Guard::Read).limit(2, 60).gives::<u8>(200).to(async || Data(1));
    let server = TestServer::with(TestDb::sqlite(), |options| {
        out_of_the_box(options);
        options.endpoints.push(endpoint);
    })
    .await;
    let mut ceo = server.ceo().await;
    let mut other = server.person("other", HumanRole::Manager).await;
    for _ in 0..2 {
        ceo.post_empty("/api/v1/test").await.expect(200);
    }
    wait_of(&ceo.post_empty("/api/v1/test").await, 5001);
    wait_of(&server.sign_in("ceo").await.from("192.0.2.9").post_empty("/api/v1/test").await, 5001);
    for _ in 0..2 {
        other.post_empty("/api/v1/test").await.expect(200);
    }
    wait_of(&other.post_empty("/api/v1/test").await, 5001);
}

#[tokio::test]
async fn whoever_may_not_call_uses_nothing_of_the_window_but_pays_with_his_tier() {
    let server = server_with(|tiers| tiers.authenticated = 30).await;
    let mut ceo = server.ceo().await;
    let mut observer = server.person("observer", HumanRole::Observer).await;
    server.advance(MINUTE);
    for remaining in (0..30).rev() {
        let answer = create(&mut observer, "x").await.expect(403);
        assert_eq!(answer.header("ratelimit-remaining"), remaining.to_string());
        assert_eq!(answer.header("ratelimit-policy"), r#""authenticated";q=30;w=60"#);
    }
    wait_of(&create(&mut observer, "x").await, 5000);
    let stats = server.app.limits.limiter().stats();
    let scope = stats.scopes.iter().find(|scope| scope.name == "users.create").unwrap();
    assert_eq!(scope.windows, [0; 3]);
    create(&mut ceo, "new").await.expect(201);
}

#[tokio::test]
async fn a_refused_call_does_not_prolong_its_refusal() {
    let server = server_with(|_| ()).await;
    let mut ceo = server.ceo().await;
    for _ in 0..3 {
        ceo.delete(&nobody()).await.expect(404);
    }
    for waited in 0..60 {
        assert_eq!(wait_of(&ceo.delete(&nobody()).await, 5001), 60 - waited);
        server.advance(MINUTE / 60);
    }
    ceo.delete(&nobody()).await.expect(404);
}

#[tokio::test]
async fn the_operator_tightens_lifts_and_switches_off_from_the_next_request_on() {
    let server = server_with(|_| ()).await;
    let mut ceo = server.ceo().await;
    let none = json!({});
    let set = |windows| server.app.limits.set_overrides(Overrides::new(true, &windows, true, &none));
    set(json!({"users.delete": [1, 60]}));
    ceo.delete(&nobody()).await.expect(404);
    wait_of(&ceo.delete(&nobody()).await, 5001);
    for unlimited in [json!([0, 60]), json!([60, 0]), json!([0, 0])] {
        set(json!({"users.delete": unlimited}));
        for _ in 0..10 {
            ceo.delete(&nobody()).await.expect(404);
        }
    }
    set(json!({}));
    for _ in 0..2 {
        ceo.delete(&nobody()).await.expect(404);
    }
    wait_of(&ceo.delete(&nobody()).await, 5001);
    server.app.limits.set_overrides(Overrides::new(false, &json!({"users.delete": [1, 60]}), true, &none));
    for _ in 0..10 {
        ceo.delete(&nobody()).await.expect(404);
    }
}

#[tokio::test]
async fn a_path_no_tier_counts_still_has_its_operations_window() {
    let endpoint =
        post("/test", "test.uncounted", Guard::Public).limit(2, 60).gives::<u8>(200).to(async || Data(1));
    let server = TestServer::with(TestDb::sqlite(), |options| {
        out_of_the_box(options);
        options.tiers.anonymous = 1;
        options.tiers.excluded.push("/api/v1/test".to_owned());
        options.endpoints.push(endpoint);
    })
    .await;
    let mut caller = server.anonymous().from("192.0.2.1");
    for _ in 0..2 {
        caller.post_empty("/api/v1/test").await.expect(200);
    }
    let refusal = caller.post_empty("/api/v1/test").await;
    wait_of(&refusal, 5001);
    assert_eq!(refusal.header("ratelimit-policy"), r#""test.uncounted";q=2;w=60"#);
    server.anonymous().from("192.0.2.2").post_empty("/api/v1/test").await.expect(200);
}

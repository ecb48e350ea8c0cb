//! Limits of the running program: changed at run time, and shared by copies.

use quarterdeck_testkit::RedisServer;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::caller::{Caller, PASSWORD};
use crate::process::{Home, Server};

const WINDOWS: &str = "/settings/api/per_op_rate_limit_overrides";

async fn create(caller: &mut Caller, name: &str) -> (u16, u16) {
    let body = json!({"username": name, "password": PASSWORD, "role": "observer"});
    let answer = caller.post("/users", body).await;
    (answer.status, answer.code())
}

fn value(overrides: &str) -> Value {
    json!({ "value": overrides })
}

#[tokio::test]
async fn an_override_counts_from_the_next_request_on_and_a_bad_one_changes_nothing() {
    let server = Home::new().serve().await;
    let mut owner = Caller::owner(&server).await;
    owner.put(WINDOWS, value(r#"{"users.create":[1,3600]}"#)).await.expect(200);
    assert_eq!(create(&mut owner, "one").await, (201, 0));
    assert_eq!(create(&mut owner, "two").await, (429, 5001));
    for bad in [
        r#"{"users.create":[-1,60]}"#,
        r#"{"users.create":[true,60]}"#,
        r#"{"users.create":[1]}"#,
        r#"{"users.create":[1,60,1]}"#,
        r#"{"users.create":[1.5,60]}"#,
        r#"{"users.create":null}"#,
        r#"{" users.create ":[0,60]}"#,
        r#"{"":[0,60]}"#,
        "null",
        "[]",
        "",
    ] {
        owner.put(WINDOWS, value(bad)).await.refused(422, 2000);
        assert_eq!(create(&mut owner, "two").await, (429, 5001), "{bad}");
    }
    owner.put(WINDOWS, value(r#"{"users.create":[0,60]}"#)).await.expect(200);
    for n in 0..8 {
        assert_eq!(create(&mut owner, &format!("user-{n}")).await, (201, 0));
    }
    owner.put(WINDOWS, value("{}")).await.expect(200);
    owner.put("/settings/api/per_op_rate_limit_enabled", value("false")).await.expect(200);
    for n in 8..16 {
        assert_eq!(create(&mut owner, &format!("user-{n}")).await, (201, 0));
    }
}

#[tokio::test]
async fn a_misspelt_operation_is_stored_and_warned_of() {
    let server = Home::new().serve().await;
    let mut owner = Caller::owner(&server).await;
    owner.put(WINDOWS, value(r#"{"users.craete":[1,60]}"#)).await.expect(200);
    server.logged("settings.limits.unknown_operation", 1).await;
    server.logged("users.craete", 1).await;
}

#[tokio::test]
async fn two_processes_on_one_redis_admit_together_exactly_the_limit() {
    let Some(redis) = RedisServer::start() else { return };
    let homes = [Home::new(), Home::new()].map(|home| {
        home.with("QUARTERDECK_REDIS_URL", redis.url().expose_secret())
            .with("QUARTERDECK_API__RATE_LIMIT__TIME_UNIT", "hour")
    });
    let [one, two]: [Server; 2] = [homes[0].serve().await, homes[1].serve().await];
    let mut racers = tokio::task::JoinSet::new();
    for i in 0..40 {
        let mut caller = Caller::new(if i % 2 == 0 { &one } else { &two });
        racers.spawn(async move { caller.get("/setup/status").await.status });
    }
    let statuses = racers.join_all().await;
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(200), count(429)), (20, 20));
    for server in [one, two] {
        Caller::new(&server).get("/setup/status").await.refused(429, 5000);
        Caller::new(&server).get("/health").await.expect(200);
    }
}

//! What answers say about limits.

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::Answer;
use serde_json::json;

use crate::{LOGIN, ME, MINUTE, OPEN, USERS, server_with, wait_of};

/// Name, most, window, remaining and reset as both forms of the headers say them.
#[track_caller]
fn said(answer: &Answer) -> (String, u32, u32, u32, u32) {
    let (name, policy) = answer.header("ratelimit-policy").split_once(';').expect("a policy");
    let (same, state) = answer.header("ratelimit").split_once(';').expect("a state");
    assert_eq!(name, same);
    let member = |text: &str, key: &str| -> u32 {
        let value = text.split(';').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        value.expect(key).parse().expect(key)
    };
    let older = |name: &str| -> u32 { answer.header(name).parse().expect(name) };
    let (most, window) = (member(policy, "q"), member(policy, "w"));
    let (remaining, reset) = (member(state, "r"), member(state, "t"));
    assert_eq!(
        [older("ratelimit-limit"), older("ratelimit-remaining"), older("ratelimit-reset")],
        [most, remaining, reset]
    );
    let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    (name.expect("a quoted name").to_owned(), most, window, remaining, reset)
}

fn figures(name: &str, most: u32, window: u32, remaining: u32, reset: u32) -> (String, u32, u32, u32, u32) {
    (name.to_owned(), most, window, remaining, reset)
}

#[tokio::test]
async fn answers_name_the_tightest_limit_and_refusals_the_one_that_refused() {
    let server = server_with(|tiers| tiers.anonymous = 3).await;
    let mut caller = server.anonymous().from("192.0.2.1");
    let answer = caller.get(OPEN).await.expect(200);
    assert_eq!(answer.header("ratelimit-policy"), r#""anonymous";q=3;w=60"#);
    assert_eq!(answer.header("ratelimit"), r#""anonymous";r=2;t=60"#);
    assert_eq!(said(&answer), figures("anonymous", 3, 60, 2, 60));
    server.advance(MINUTE / 2);
    assert_eq!(said(&caller.get(OPEN).await), figures("anonymous", 3, 60, 1, 30));
    caller.get(OPEN).await.expect(200);
    let refusal = caller.get(OPEN).await;
    assert_eq!(said(&refusal), figures("anonymous", 3, 60, 0, 30));
    assert_eq!(wait_of(&refusal, 5000), 30);
}

#[tokio::test]
async fn the_floor_speaks_when_it_is_the_tightest_and_keeps_speaking_while_it_refuses() {
    let server = server_with(|tiers| (tiers.floor, tiers.anonymous) = (2, 2)).await;
    let mut caller = server.anonymous().from("192.0.2.1");
    caller.get("/nowhere").await.expect(404);
    server.advance(MINUTE / 4);
    assert_eq!(said(&caller.get(OPEN).await.expect(200)), figures("floor", 2, 60, 0, 45));
    // The first refusal counts stamps; the next ones only remember it.
    for reset in [45, 35] {
        for path in [OPEN, ME, "/nowhere"] {
            let refusal = caller.get(path).await;
            assert_eq!(u64::from(reset), wait_of(&refusal, 5000), "{path}");
            assert_eq!(said(&refusal), figures("floor", 2, 60, 0, reset), "{path}");
        }
        server.advance(std::time::Duration::from_secs(10));
    }
}

#[tokio::test]
async fn limits_of_users_operations_and_credentials_are_named_as_well() {
    let server = server_with(|_| ()).await;
    let mut ceo = server.ceo().await;
    server.advance(MINUTE);
    assert_eq!(said(&ceo.get(ME).await.expect(200)), figures("authenticated", 6_000, 60, 5_999, 60));
    let body =
        json!({"username": "new", "password": "a good password", "role": HumanRole::Observer.as_str()});
    assert_eq!(said(&ceo.post(USERS, &body).await.expect(201)), figures("users.create", 5, 60, 4, 60));
    let login = json!({"username": "nobody", "password": "a good password"});
    let answer = server.anonymous().from("192.0.2.1").post(LOGIN, &login).await.expect(401);
    assert_eq!(said(&answer), figures("credentials", 10, 60, 9, 60));
}

//! Accounts from outside: the first one, keys, users, who may do what, and what anybody may see.

mod api_keys;
mod api_keys_issue;
mod guards;
mod health;
mod openapi;
mod passwords;
mod routes;
mod setup;
mod system_user;
mod tickets;
mod users;
mod users_refused;

use std::sync::Arc;

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Answer, Caller, PASSWORD, TestServer};
use serde_json::{Value, json};
use tokio::sync::Barrier;

const ME: &str = "/api/v1/auth/me";
const KEYS: &str = "/api/v1/auth/api-keys";
const TICKET: &str = "/api/v1/auth/ws-ticket";
const USERS: &str = "/api/v1/users";

/// Every role a person can have, juniors first.
const PEOPLE: [HumanRole; 5] = [
    HumanRole::Observer,
    HumanRole::BoardMember,
    HumanRole::PairProgrammer,
    HumanRole::Manager,
    HumanRole::Ceo,
];

/// Somebody with this role.
async fn somebody(server: &TestServer, role: HumanRole) -> Caller {
    match role {
        HumanRole::Ceo => server.ceo().await,
        HumanRole::System => server.system_cli(),
        role => server.person(role.as_str(), role).await,
    }
}

/// The id of the account that calls.
async fn id_of(caller: &mut Caller) -> String {
    let me = caller.get(ME).await.expect(200).data();
    me["id"].as_str().expect("an id").to_owned()
}

fn credentials(username: &str) -> Value {
    json!({"username": username, "password": PASSWORD})
}

/// Sends one request per caller, all at once; the statuses, sorted.
async fn race<F>(callers: impl IntoIterator<Item = F>) -> Vec<Answer>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let callers: Vec<_> = callers.into_iter().collect();
    let start = Arc::new(Barrier::new(callers.len()));
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|caller| {
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                caller.await
            })
        })
        .collect();
    let answers = futures_util::future::join_all(tasks).await;
    let mut answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("no panic")).collect();
    answers.sort_by_key(|answer| answer.status);
    answers
}

/// Status and code of each answer.
fn outcomes(answers: &[Answer]) -> Vec<(u16, u16)> {
    answers.iter().map(|answer| (answer.status, answer.code())).collect()
}

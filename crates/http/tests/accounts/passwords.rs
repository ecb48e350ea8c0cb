//! Password hashes: their cost, what a corrupt one does, and what many at once do to the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quarterdeck_auth::HashCost;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_store::user;
use quarterdeck_testkit::{TestDb, TestServer, on_both_databases};

use crate::{ME, credentials};

const LOGIN: &str = "/api/v1/auth/login";

async fn hash_of(server: &TestServer, name: &str) -> String {
    user::by_username(server.app.store.read(), name).await.unwrap().unwrap().password_hash
}

#[tokio::test]
async fn a_stored_hash_shows_what_it_cost() {
    let server = TestServer::with(TestDb::sqlite(), |options| options.cost = HashCost::PRODUCTION).await;
    server.ceo().await;
    let (ceo, system) = (hash_of(&server, "ceo").await, hash_of(&server, "system").await);
    for hash in [&ceo, &system] {
        let rest = hash.strip_prefix("$argon2id$v=19$m=65536,t=3,p=4$").expect("the production cost");
        let (salt, output) = rest.split_once('$').expect("salt and hash");
        // 16 and 32 bytes in base64 without padding.
        assert_eq!((salt.len(), output.len()), (22, 43));
    }
    server.sign_in("ceo").await;
}

on_both_databases! {
    async fn the_same_password_has_two_hashes(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        server.person("Ada", HumanRole::Observer).await;
        assert_ne!(hash_of(&server, "ceo").await, hash_of(&server, "Ada").await);
    }

    async fn a_corrupt_hash_is_a_failure_of_the_server_and_gives_no_token(db: TestDb) {
        let server = TestServer::on(db).await;
        server.person("Ada", HumanRole::Observer).await;
        let good = hash_of(&server, "Ada").await;
        for corrupt in [
            "",
            "none",
            "$argon2id$",
            &good[..good.len() / 2],
            &good.replace("argon2id", "argon2i"),
            &good.replace("v=19", "v=7"),
            &good.replace("p=4", "p=0"),
            "$2b$12$abcdefghijklmnopqrstuuvwxyzabcdefghijklmnopqrstuvwxyzab",
        ] {
            let hash = corrupt.to_owned();
            let ada = user::by_username(server.app.store.read(), "Ada").await.unwrap().unwrap();
            let now = server.now();
            server
                .app
                .store
                .write(move |tx| {
                    Box::pin(async move { user::set_password(tx, &ada.id, &hash, false, now).await })
                })
                .await
                .unwrap();
            let answer = server.anonymous().post(LOGIN, &credentials("Ada")).await.refused(500, 8000);
            assert!(answer.header("set-cookie").is_empty(), "{corrupt}");
            assert_eq!(answer.error(), "Internal server error");
        }
    }

    async fn a_hash_of_another_cost_is_renewed_at_sign_in_and_the_token_is_good(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        let old = hash_of(&server, "ceo").await;
        server.sign_in("ceo").await;
        assert_eq!(hash_of(&server, "ceo").await, old, "nothing to renew");
        server.app.store.close().await;
        let server =
            server.second(|options| options.cost = HashCost { memory: 64, passes: 2, lanes: 1 }).await;
        let mut ceo = server.sign_in("ceo").await;
        assert!(hash_of(&server, "ceo").await.starts_with("$argon2id$v=19$m=64,t=2,p=1$"));
        ceo.get(ME).await.expect(200);
        server.sign_in("ceo").await;
        ceo.get(ME).await.expect(200);
    }
}

/// Enough to keep the pool busy while everything else happens.
const HEAVY: HashCost = HashCost { memory: 32_768, passes: 2, lanes: 4 };

#[tokio::test(flavor = "multi_thread")]
async fn under_many_sign_ins_at_once_others_are_served_and_the_surplus_is_told_to_wait() {
    let server = TestServer::with(TestDb::sqlite(), |options| options.cost = HEAVY).await;
    server.ceo().await;
    let hashed = Arc::new(AtomicUsize::new(0));
    let logins: Vec<_> = (0..100)
        .map(|_| {
            let (mut caller, hashed) = (server.anonymous(), Arc::clone(&hashed));
            tokio::spawn(async move {
                let answer = caller.post(LOGIN, &credentials("ceo")).await;
                hashed.fetch_add(usize::from(answer.status == 200), Ordering::SeqCst);
                answer
            })
        })
        .collect();
    // The surplus is refused at once: when the first refusal is there, the queue is full.
    let (mut accepted, mut refused) = (0, 0);
    let mut logins: futures_util::stream::FuturesUnordered<_> = logins.into_iter().collect();
    let mut served_before = None;
    while let Some(answer) = futures_util::StreamExt::next(&mut logins).await {
        let answer = answer.expect("no panic");
        if answer.status == 200 {
            accepted += 1;
            continue;
        }
        let answer = answer.refused(503, 8001);
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(answer.json()["error_detail"]["retry_after"], 1);
        refused += 1;
        if served_before.is_none() {
            server.anonymous().get("/api/v1/health").await.expect(200);
            served_before = Some(hashed.load(Ordering::SeqCst));
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    assert_eq!((accepted, refused), (64 + threads, 36 - threads));
    let before = served_before.expect("somebody was refused");
    assert!(before < accepted / 4, "health was answered after {before} of {accepted} hashes");
    server.sign_in("ceo").await;
}

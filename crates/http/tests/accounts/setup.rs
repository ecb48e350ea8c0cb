//! The first account.

use quarterdeck_domain::role::{HumanRole, OrgRole};
use quarterdeck_testkit::{TestServer, on_both_databases};
use serde_json::json;

use crate::{ME, credentials, outcomes, race};

const SETUP: &str = "/api/v1/auth/setup";
const STATUS: &str = "/api/v1/setup/status";

on_both_databases! {
    async fn of_many_setups_at_once_exactly_one_makes_the_ceo(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None };
        let servers = [&server, second.as_ref().unwrap_or(&server)];
        let answers = race((0..8).map(|i| {
            let mut caller = servers[i % 2].anonymous();
            async move { caller.post(SETUP, &credentials(&format!("founder {i}"))).await }
        }))
        .await;
        assert_eq!(outcomes(&answers), [vec![(201, 0)], vec![(409, 4000); 7]].concat());
        let mut ceo = server.anonymous();
        let (users, total) = server.app.auth.users(0, 50).await.unwrap();
        assert_eq!((users.len(), total), (1, 1));
        assert_eq!(users[0].role, HumanRole::Ceo);
        ceo.post("/api/v1/auth/login", &credentials(&users[0].username)).await.expect(200);
        ceo.get(ME).await.expect(200);
    }

    async fn the_same_setup_at_once_has_one_winner_too(db: TestDb) {
        let server = TestServer::on(db).await;
        let answers = race((0..8).map(|_| {
            let mut caller = server.anonymous();
            async move { caller.post(SETUP, &credentials("founder")).await }
        }))
        .await;
        assert_eq!(outcomes(&answers), [vec![(201, 0)], vec![(409, 4000); 7]].concat());
    }

    async fn the_first_account_is_ceo_and_owner_and_signed_in(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut caller = server.anonymous();
        assert_eq!(caller.get(STATUS).await.expect(200).data()["needs_admin"], true);
        let answer = caller.post(SETUP, &credentials("founder")).await.expect(201);
        assert_eq!(answer.data(), json!({"expires_in": 86_400, "must_change_password": false}));
        let me = caller.get(ME).await.expect(200).data();
        assert_eq!(me["role"], "ceo");
        assert_eq!(me["org_roles"], json!(["owner"]));
        assert_eq!(me["must_change_password"], false);
        assert_eq!(caller.get(STATUS).await.data()["needs_admin"], false);
    }

    async fn setup_stays_closed_once_a_ceo_exists(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        for name in ["ceo", "other"] {
            let refusal = server.anonymous().post(SETUP, &credentials(name)).await.refused(409, 4000);
            assert_eq!(refusal.error(), "Setup already completed");
            assert!(refusal.header("set-cookie").is_empty());
        }
        server.app.store.close().await;
        let server = server.second(|_| {}).await;
        server.anonymous().post(SETUP, &credentials("later")).await.refused(409, 4000);
    }

    async fn other_people_and_the_system_user_leave_setup_open(db: TestDb) {
        let server = TestServer::on(db).await;
        server.person("watcher", HumanRole::Observer).await;
        server.anonymous().post(SETUP, &credentials("watcher")).await.refused(409, 4000);
        server.anonymous().post(SETUP, &credentials("Watcher")).await.refused(409, 4000);
        server.anonymous().post(SETUP, &credentials("founder")).await.expect(201);
    }

    async fn the_first_person_becomes_owner_at_the_start_if_nobody_is(db: TestDb) {
        let server = TestServer::on(db).await;
        for name in ["first", "second"] {
            server.person(name, HumanRole::Observer).await;
            server.advance(std::time::Duration::from_secs(1));
        }
        server.app.store.close().await;
        let server = server.second(|_| {}).await;
        server.app.auth.ensure_owner().await.unwrap();
        let (users, _) = server.app.auth.users(0, 50).await.unwrap();
        let roles: Vec<_> = users.iter().map(|u| (u.username.as_str(), u.org_roles.as_slice())).collect();
        assert_eq!(roles, [("first", &[OrgRole::Owner][..]), ("second", &[])]);
    }
}

#[tokio::test]
async fn the_name_of_the_system_user_is_reserved_in_every_spelling() {
    let server = TestServer::start().await;
    for name in ["system", "System", "SYSTEM", "ｓｙｓｔｅｍ", "ſystem"] {
        let refusal = server.anonymous().post(SETUP, &credentials(name)).await.refused(409, 4000);
        assert!(refusal.header("set-cookie").is_empty(), "{name}");
    }
    server.anonymous().post(SETUP, &credentials("systems")).await.expect(201);
}

#[tokio::test]
async fn a_short_password_is_named_and_the_bound_is_the_configured_one() {
    let server = TestServer::with(quarterdeck_testkit::TestDb::sqlite(), |options| {
        options.auth.min_password_length = 10;
    })
    .await;
    let setup = async |password: &str| {
        let body = json!({"username": "founder", "password": password});
        server.anonymous().post(SETUP, &body).await
    };
    let refusal = setup("ninechars").await.refused(400, 2001);
    assert_eq!(refusal.json()["error_detail"]["errors"][0]["pointer"], "/password");
    assert!(!refusal.text().contains("ninechars"));
    assert_eq!(server.anonymous().get(STATUS).await.data()["min_password_length"], 10);
    setup("ten chars!").await.expect(201);
}

#[tokio::test]
async fn a_body_of_the_wrong_shape_is_refused_before_anything_happens() {
    let server = TestServer::start().await;
    let (long, password) = ("x".repeat(129), "correct horse battery");
    for body in [
        json!({}),
        json!([]),
        json!({"username": "founder"}),
        json!({"username": "", "password": password}),
        json!({"username": " \t", "password": password}),
        json!({"username": long, "password": password}),
        json!({"username": 1, "password": password}),
        json!({"username": "zero\u{0}", "password": password}),
        json!({"username": "founder", "password": null}),
        json!({"username": "founder", "password": "            "}),
        json!({"username": "founder", "password": "x".repeat(129)}),
    ] {
        server.anonymous().post(SETUP, &body).await.refused(400, 2001);
    }
    let most = json!({"username": "ä".repeat(128), "password": "ö".repeat(128)});
    server.anonymous().post(SETUP, &most).await.expect(201);
}

//! Several processes on one PostgreSQL.

use quarterdeck_testkit::TestDb;
use serde_json::json;

use crate::caller::{Caller, PASSWORD};
use crate::process::{Home, Server};

/// Two servers on one new database, started at the same time.
async fn two(db: &TestDb) -> [Server; 2] {
    let servers = [Home::on(db), Home::on(db)].map(|home| (home.spawn(), home));
    let [(one, _), (two, _)] = servers;
    one.ready().await;
    two.ready().await;
    [one, two]
}

#[tokio::test]
async fn both_variables_mean_postgres() {
    let Some(db) = TestDb::postgres().await else { return };
    let home = Home::on(&db).with("QUARTERDECK_DB_PATH", "mine.db");
    let server = home.serve().await;
    Caller::owner(&server).await;
    assert!(!home.data("mine.db").exists());
    let pool = db.postgres_pool().await.unwrap();
    let owners: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE username = 'ada'")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(owners, 1);
}

#[tokio::test]
async fn two_that_start_together_share_one_secret_and_one_system_user() {
    let Some(db) = TestDb::postgres().await else { return };
    let [one, two] = two(&db).await;
    let mut owner = Caller::owner(&one).await;
    owner.get("/auth/me").await.expect(200);
    owner.at(&two).get("/auth/me").await.expect(200);
    let pool = db.postgres_pool().await.unwrap();
    for (what, count) in [
        ("system users", "SELECT count(*) FROM users WHERE role = 'system'"),
        ("secrets", "SELECT count(*) FROM settings WHERE key = 'jwt_secret'"),
    ] {
        let found: i64 = sqlx::query_scalar(count).fetch_one(&pool).await.unwrap();
        assert_eq!(found, 1, "{what}");
    }
}

#[tokio::test]
async fn what_one_changes_the_other_knows_at_its_next_request() {
    let Some(db) = TestDb::postgres().await else { return };
    let [one, two] = two(&db).await;
    let mut here = Caller::owner(&one).await;
    let mut there = here.at(&two);
    for round in 0..3 {
        let mut session = Caller::signed_in(&one).await;
        let mut elsewhere = session.at(&two);
        // Both have seen the session and remember it.
        session.get("/auth/me").await.expect(200);
        elsewhere.get("/auth/me").await.expect(200);
        session.post("/auth/logout", json!({})).await.expect(204);
        elsewhere.get("/auth/me").await.expect(401);

        let name = format!("user-{round}");
        let body = json!({"username": name, "password": PASSWORD, "role": "observer"});
        let made = here.post("/users", body).await.expect(201).data();
        let path = format!("/users/{}", made["id"].as_str().unwrap());
        assert_eq!(there.get(&path).await.expect(200).data()["username"], name);

        let length = 20 + round;
        let body = json!({"value": length.to_string()});
        there.put("/settings/api/min_password_length", body).await.expect(200);
        assert_eq!(here.get("/setup/status").await.expect(200).data()["min_password_length"], length);
        let setting = here.get("/settings/api/min_password_length").await.expect(200).data();
        assert_eq!(setting["value"], length.to_string());
    }
}

#[tokio::test]
async fn one_that_dies_does_not_keep_the_other_from_working() {
    let Some(db) = TestDb::postgres().await else { return };
    let [one, two] = two(&db).await;
    let mut owner = Caller::owner(&one).await;
    let mut session = Caller::signed_in(&one).await;
    two.kill().await;
    session.post("/auth/logout", json!({})).await.expect(204);
    session.get("/auth/me").await.expect(401);
    owner.get("/auth/me").await.expect(200);
}

//! What callers hear when the database cannot do it.

use std::time::Duration;

use quarterdeck_store::{Database, Store, user};
use quarterdeck_testkit::{TestDb, on_both_databases};
use sea_orm::TransactionTrait;

use crate::put;

on_both_databases! {
    async fn a_failure_of_the_driver_is_500_without_sql_or_names(db: TestDb) {
        let store = db.open().await;
        db.execute("ALTER TABLE users RENAME TO elsewhere").await;
        let failure = user::by_id(store.read(), "a").await.unwrap_err();
        assert_eq!((failure.status(), failure.code().number()), (500, 8002));
        assert_eq!(failure.detail(), "Internal server error");
        assert!(failure.cause().unwrap_or_default().contains("users"), "the log says what was wrong");
    }

    async fn after_closing_everything_is_503(db: TestDb) {
        let store = db.open().await;
        store.close().await;
        for failure in [user::by_id(store.read(), "a").await.map(drop), put(&store, "x").await, store.ping().await] {
            let failure = failure.unwrap_err();
            assert_eq!((failure.status(), failure.code().number()), (503, 8001), "{failure}");
        }
        store.close().await;
    }
}

/// A store that waits only briefly for a free connection, of which it has one.
async fn narrow(db: &TestDb) -> Store {
    let mut database = db.database.clone();
    if let Database::Postgres { max_connections, acquire_timeout, .. } = &mut database {
        (*max_connections, *acquire_timeout) = (1, Duration::from_millis(100));
    }
    Store::open(database).await.expect("one connection is enough to open")
}

#[tokio::test]
async fn without_a_free_connection_reads_and_writes_are_503() {
    let Some(db) = TestDb::postgres().await else { return };
    let store = narrow(&db).await;
    let held = store.read().begin().await.unwrap();
    for failure in [user::by_id(store.read(), "a").await.map(drop), put(&store, "x").await] {
        let failure = failure.unwrap_err();
        assert_eq!((failure.status(), failure.code().number()), (503, 8001), "{failure}");
        assert_eq!(failure.retry_after_seconds(), Some(1));
    }
    held.rollback().await.unwrap();
    put(&store, "x").await.expect("the connection is free again");
}

#[tokio::test]
async fn a_busy_pool_does_not_keep_a_copy_from_hearing() {
    let Some(db) = TestDb::postgres().await else { return };
    let (busy, other) = (narrow(&db).await, db.open().await);
    let heard = crate::Heard::by(&busy);
    let held = busy.read().begin().await.unwrap();
    put(&other, "news").await.unwrap();
    assert!(heard.holds(&crate::news_of("news")), "heard, acknowledged and waited for");
    assert!(busy.signals_are_live());
    held.rollback().await.unwrap();
}

#[tokio::test]
async fn a_database_that_refuses_connections_is_503() {
    let Some(db) = TestDb::postgres().await else { return };
    let store = narrow(&db).await;
    let server = Server::of(&db);
    server.admit(false).await;
    server.end_connections("TRUE").await;
    let failure = user::by_id(store.read(), "a").await.unwrap_err();
    assert_eq!((failure.status(), failure.code().number()), (503, 8001), "{failure}");
    server.admit(true).await;
    crate::eventually(async || user::by_id(store.read(), "a").await.is_ok()).await;
}

/// The server behind a test's PostgreSQL database, as its administrator sees it.
pub(crate) struct Server {
    admin: TestDb,
    name: String,
}

impl Server {
    pub(crate) fn of(db: &TestDb) -> Self {
        let Database::Postgres { options, .. } = &db.database else { panic!("SQLite has no server") };
        let name = options.get_database().expect("a name").to_owned();
        let mut admin = db.clone();
        let Database::Postgres { options, .. } = &mut admin.database else { unreachable!() };
        **options = options.clone().database("postgres");
        Self { admin, name }
    }

    /// Lets new connections in, or not.
    pub(crate) async fn admit(&self, allowed: bool) {
        self.admin.execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS {allowed}", self.name)).await;
    }

    /// Ends the connections to the database that this condition on `pg_stat_activity` selects.
    pub(crate) async fn end_connections(&self, which: &str) {
        let sql = format!(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{}' AND {which}",
            self.name
        );
        self.admin.execute(&sql).await;
    }
}

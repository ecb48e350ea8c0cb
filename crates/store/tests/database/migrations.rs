//! The schema: wholly there or not at all, made once, and refused when it is not ours.

use std::time::Duration;

use quarterdeck_store::{Store, latest_version};
use quarterdeck_testkit::{TestDb, on_both_databases};

use crate::{eventually, put};

async fn refusal(db: &TestDb) -> String {
    let error = Store::open(db.database.clone()).await.expect_err("the database is refused");
    error.cause().expect("a sentence").to_owned()
}

on_both_databases! {
    async fn opening_again_changes_nothing(db: TestDb) {
        let store = db.open().await;
        let applied = store.applied_migrations().await.unwrap();
        let versions: Vec<_> = applied.iter().map(|m| m.version).collect();
        assert_eq!(versions, (1..=latest_version()).collect::<Vec<_>>());
        put(&store, "kept").await.unwrap();
        store.close().await;
        let store = db.open().await;
        assert_eq!(store.applied_migrations().await.unwrap(), applied);
        assert!(crate::has(&store, "kept").await);
    }

    async fn a_migration_that_fails_leaves_the_database_as_it_was(db: TestDb) {
        // Stands in the way of the last table, when everything before it is made.
        db.execute("CREATE TABLE settings (mine TEXT)").await;
        refusal(&db).await;
        for table in ["users", "api_keys", "sessions", "schema_migrations"] {
            assert!(db.try_execute(&format!("SELECT * FROM {table}")).await.is_err(), "{table}");
        }
        db.execute("SELECT mine FROM settings").await;
        db.execute("DROP TABLE settings").await;
        let store = db.open().await;
        assert_eq!(store.applied_migrations().await.unwrap().len() as i64, latest_version());
    }

    async fn an_edited_migration_is_refused(db: TestDb) {
        db.open().await.close().await;
        db.execute("UPDATE schema_migrations SET checksum = 'edited' WHERE version = 1").await;
        let sentence = refusal(&db).await;
        assert!(sentence.contains("migration 0001_identity was applied with other content"), "{sentence}");
    }

    async fn a_newer_database_is_refused(db: TestDb) {
        db.open().await.close().await;
        db.execute("INSERT INTO schema_migrations VALUES (9999, '9999_future', 'x')").await;
        let sentence = refusal(&db).await;
        assert!(sentence.contains("newer version of quarterdeck (migration 9999_future)"), "{sentence}");
    }

    async fn a_new_database_has_no_migrations_until_a_server_opens_it(db: TestDb) {
        let visitor = Store::attach(db.database.clone()).await.unwrap();
        assert_eq!(visitor.applied_migrations().await.unwrap(), []);
        db.open().await;
        assert_eq!(visitor.applied_migrations().await.unwrap().len() as i64, latest_version());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_start_together_on_a_fresh_server_all_start() {
    let Some(db) = TestDb::postgres().await else { return };
    let opened = futures_util::future::join_all((0..6).map(|_| {
        let database = db.database.clone();
        tokio::spawn(async move { Store::open(database).await })
    }));
    for store in opened.await {
        let store = store.unwrap().expect("every one of them opens");
        assert_eq!(store.applied_migrations().await.unwrap().len() as i64, latest_version());
    }
}

#[tokio::test]
async fn a_migration_cut_off_by_a_crash_leaves_nothing_behind() {
    let Some(db) = TestDb::postgres().await else { return };
    let (pool, onlooker) = (db.postgres_pool().await.unwrap(), db.postgres_pool().await.unwrap());
    // A table of the same name that is not committed yet holds the migration in its middle.
    let mut obstacle = pool.begin().await.unwrap();
    sqlx::query("CREATE TABLE settings (mine TEXT)").execute(&mut *obstacle).await.unwrap();
    let migrating = tokio::spawn(Store::open(db.database.clone()));
    let server = crate::failures::Server::of(&db);
    eventually(async || {
        let stuck = "SELECT count(*) FROM pg_stat_activity \
                     WHERE datname = current_database() AND wait_event_type = 'Lock'";
        sqlx::query_scalar::<_, i64>(stuck).fetch_one(&onlooker).await.unwrap() > 0
    })
    .await;
    server.end_connections("wait_event_type = 'Lock'").await;
    assert!(migrating.await.unwrap().is_err());
    obstacle.rollback().await.unwrap();
    let left = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&pool).await.unwrap(), 0);
    db.open().await;
}

#[tokio::test]
async fn waiting_for_another_programs_migration_is_not_ended_as_a_runaway_query() {
    let Some(mut db) = TestDb::postgres().await else { return };
    let (pool, onlooker) = (db.postgres_pool().await.unwrap(), db.postgres_pool().await.unwrap());
    let mut other = pool.begin().await.unwrap();
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('quarterdeck.migrations', 0))";
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let timeout = Duration::from_secs(1);
    if let quarterdeck_store::Database::Postgres { options, .. } = &mut db.database {
        **options = options.clone().options([("statement_timeout", timeout.as_millis())]);
    }
    let waiting = tokio::spawn(Store::open(db.database.clone()));
    eventually(async || {
        let patient = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                       AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '1.1 s'";
        waiting.is_finished() || sqlx::query_scalar::<_, i64>(patient).fetch_one(&onlooker).await.unwrap() > 0
    })
    .await;
    other.rollback().await.unwrap();
    waiting.await.unwrap().expect("it waited");
}

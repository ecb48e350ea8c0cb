//! Putting back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quarterdeck_store::Connection;
use quarterdeck_testkit::{TestServer, on_both_databases};
use sea_orm::Statement;
use serde_json::json;

use crate::{BACKUPS, ME, RESTORE, entry, furnish, furniture, id_of, make, restore, shelf, unpacked};

/// The next start of the same program, after the first has ended.
async fn again(server: TestServer) -> TestServer {
    let db = server.db.clone();
    server.app.store.close().await;
    drop(server);
    TestServer::on(db).await
}

async fn number(server: &TestServer, sql: &str) -> i64 {
    let reads = server.app.store.read();
    let statement = Statement::from_string(reads.get_database_backend(), sql);
    reads.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

on_both_databases! {
    async fn everything_comes_back(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        furnish(&server, "first");
        let manifest = make(&mut ceo).await;
        let id = id_of(&manifest);
        furnish(&server, "second");
        std::fs::write(server.db.folder().join("memory/later"), "x").unwrap();
        server.person("later", quarterdeck_domain::role::HumanRole::Observer).await;

        let mut keyed = server.system_cli().with_header("idempotency-key", "once");
        let answer = restore(&mut keyed, &id, json!(null)).await.expect(201).data();
        assert_eq!(answer["manifest"], manifest);
        assert_eq!(answer["restored_components"], json!(["persistence", "memory", "config"]));
        assert_eq!(answer["restart_required"], true);
        assert_eq!(furniture(&server), ["first", "first", "# first\n"]);
        assert!(!server.db.folder().join("memory/later").exists());

        // Until the restart there is nothing but health.
        for path in [ME, BACKUPS, "/api/v1/setup/status", "/docs/openapi.json", "/api/v1/metrics", "/nowhere"] {
            let refused = ceo.get(path).await.refused(503, 8001);
            assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0, "{path}");
        }
        assert_eq!(ceo.get("/api/v1/health").await.expect(200).data()["status"], "down");
        ceo.get("/api/v1/healthz").await.expect(200);
        ceo.get("/api/v1/readyz").await.expect(503);
        drop((ceo, keyed));

        let server = again(server).await;
        let mut keyed = server.system_cli().with_header("idempotency-key", "once");
        assert_eq!(restore(&mut keyed, &id, json!(null)).await.expect(201).data(), answer, "not done twice");
        restore(&mut keyed, &id, json!(["memory"])).await.refused(422, 2000);
        let mut ceo = server.ceo().await;
        assert_eq!(ceo.get("/api/v1/users").await.expect(200).json()["pagination"]["total"], 1);
        let safety = id_of(&json!({"backup_id": answer["safety_backup_id"]}));
        let kept = ceo.get(&format!("{BACKUPS}/{safety}")).await.expect(200).data();
        assert_eq!(kept["trigger"], "pre_migration");
        assert!(shelf(&server).contains(&format!("{safety}_pre_migration")), "it is not packed");
        let record = server.db.dump().await;
        assert!(record.contains(&format!("Restored the backup {id}")));
        let left: Vec<_> = std::fs::read_dir(server.db.folder()).unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("restore"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        drop((ceo, keyed));

        // And forth again, from the safety backup.
        restore(&mut server.system_cli(), &safety, json!(["persistence", "config"])).await.expect(201);
        assert_eq!(furniture(&server), ["first", "second", "# second\n"]);
        let server = again(server).await;
        assert_eq!(server.ceo().await.get("/api/v1/users").await.json()["pagination"]["total"], 2);
    }

    async fn a_backup_under_load_is_the_state_of_one_moment(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        server.db.execute("CREATE TABLE pairs (id BIGINT, side BIGINT, filler TEXT)").await;
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4_i64).map(|writer| {
            let (store, stop) = (server.app.store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                for at in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = writer * 1_000_000 + at;
                    let filler = "x".repeat(2000);
                    store.write(move |tx| Box::pin(async move {
                        for side in [1, 2] {
                            let sql = format!("INSERT INTO pairs VALUES ({id}, {side}, '{filler}')");
                            tx.execute_unprepared(&sql).await.map_err(quarterdeck_store::failure)?;
                        }
                        Ok(())
                    })).await.unwrap();
                }
            })
        }).collect();
        while number(&server, "SELECT count(*) FROM pairs").await < 400 {
            tokio::task::yield_now().await;
        }
        let before = number(&server, "SELECT count(*) FROM pairs").await;
        let id = id_of(&make(&mut server.system_cli()).await);
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        restore(&mut server.system_cli(), &id, json!(null)).await.expect(201);
        let server = again(server).await;
        assert!(number(&server, "SELECT count(*) FROM pairs").await >= before);
        let half = "SELECT count(*) FROM (SELECT id FROM pairs GROUP BY id HAVING count(*) <> 2) AS halves";
        assert_eq!(number(&server, half).await, 0);
    }

    async fn memory_alone_touches_neither_database_nor_configuration(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        furnish(&server, "first");
        let id = id_of(&make(&mut ceo).await);
        furnish(&server, "second");
        server.person("later", quarterdeck_domain::role::HumanRole::Observer).await;
        let answer = restore(&mut ceo, &id, json!(["memory"])).await.expect(201).data();
        assert_eq!(answer["restored_components"], json!(["memory"]));
        assert_eq!(furniture(&server), ["first", "second", "# second\n"]);
        ceo.get(ME).await.refused(503, 8001);
        let server = again(server).await;
        let mut ceo = server.ceo().await;
        assert_eq!(ceo.get("/api/v1/users").await.json()["pagination"]["total"], 2);
        let safety = answer["safety_backup_id"].as_str().unwrap();
        let kept = ceo.get(&format!("{BACKUPS}/{safety}")).await.expect(200).data();
        assert_eq!(kept["components"], json!(["memory"]), "exactly what was replaced is saved");
    }

    async fn every_copy_steps_aside(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        if !server.db.is_shared() { return }
        let other = server.second(|_| {}).await;
        let id = id_of(&make(&mut server.system_cli()).await);
        other.system_cli().get(BACKUPS).await.expect(200);
        restore(&mut server.system_cli(), &id, json!(null)).await.expect(201);
        other.system_cli().get(BACKUPS).await.refused(503, 8001);
        other.anonymous().get("/api/v1/healthz").await.expect(200);
    }

    async fn a_database_of_a_newer_program_is_not_put_back(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        unpacked(&mut ceo).await;
        let id = id_of(&make(&mut ceo).await);
        let manifest = entry(&server, &id).join("manifest.json");
        let text = std::fs::read_to_string(&manifest).unwrap();
        let now = format!("\"schema_version\": {}", quarterdeck_store::latest_version());
        assert!(text.contains(&now));
        std::fs::write(&manifest, text.replace(&now, "\"schema_version\": 9999")).unwrap();
        restore(&mut ceo, &id, json!(null)).await.refused(422, 2000);
    }
}

#[tokio::test]
async fn the_backup_that_is_put_back_does_not_make_way_for_the_safety_backup() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let id = id_of(&make(&mut ceo).await);
    server.advance(std::time::Duration::from_secs(40 * 24 * 3600));
    restore(&mut server.system_cli(), &id, json!(null)).await.expect(201);
    entry(&server, &id);
}

#[tokio::test]
async fn what_a_backup_does_not_hold_cannot_be_put_back() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let id = id_of(&make(&mut ceo).await);
    let refused = restore(&mut ceo, &id, json!(["persistence", "memory"])).await.refused(422, 2000);
    assert_eq!(refused.error(), "Invalid backup manifest");
    assert_eq!(shelf(&server).len(), 1);
    ceo.post(RESTORE, &json!({"backup_id": id})).await.refused(422, 2000);
    ceo.get(ME).await.expect(200);
}

//! The proof, and copies of the trail.

use std::time::Duration;

use quarterdeck_testkit::{Receiver, TestDb, TestServer, on_both_databases};
use serde_json::{Value, json};

use crate::{AUDIT, entry, put};

async fn unlock(db: &TestDb) {
    if db.is_shared() {
        db.execute("DROP TRIGGER audit_entries_keep ON audit_entries").await;
    } else {
        db.execute("DROP TRIGGER audit_entries_no_update").await;
        db.execute("DROP TRIGGER audit_entries_no_delete").await;
    }
}

on_both_databases! {
    async fn a_break_is_answered_logged_told_and_measured(db: TestDb) {
        let receiver = Receiver::answering(&[]).await;
        let sinks = json!([{"type": "webhook", "params": {
            "url": receiver.url, "secret": "a secret of a webhook in a test"}}]);
        let server = TestServer::with(db, |options| {
            options.notifications.sinks = serde_json::from_value(sinks).unwrap();
        })
        .await;
        let mut ceo = server.ceo().await;
        put(&server, entry(&server, "test:one")).await;
        put(&server, entry(&server, "test:two")).await;
        let verify = format!("{AUDIT}/verify");
        let whole = ceo.get(&verify).await.expect(200).data();
        assert_eq!((&whole["intact"], &whole["fault"], &whole["position"]), (&json!(true), &json!(null), &json!(2)));
        assert_eq!(whole["link"].as_str().unwrap().len(), 64);

        unlock(&server.db).await;
        server.db.execute("UPDATE audit_entries SET payload = replace(payload, 'Something', 'Nothing') WHERE position = 1").await;
        for _ in 0..3 {
            let broken = ceo.get(&verify).await.expect(200).data();
            assert_eq!((&broken["intact"], &broken["entries"]), (&json!(false), &json!(1)));
            assert_eq!(broken["fault"], json!({"position": 1, "what": "was changed after it was written"}));
        }
        let told = receiver.next().await.json();
        assert_eq!((&told["severity"], &told["source"]), (&json!("critical"), &json!("audit.chain")));
        assert_eq!(told["metadata"], json!({"position": 1}));
        server.app.audit.publish(server.app.edge.metrics().recorder());
        let metrics = server.anonymous().get("/api/v1/metrics").await.text();
        for line in [
            "quarterdeck_audit_chain_intact 0",
            "quarterdeck_audit_chain_depth 3",
            r#"quarterdeck_audit_chain_appends_total{status="signed"} 3"#,
            r#"quarterdeck_audit_chain_appends_total{status="error"} 0"#,
        ] {
            assert!(metrics.contains(line), "{line}\n{metrics}");
        }
        server.app.notifications.stop(Duration::from_secs(5)).await;
        assert!(receiver.waiting().await.is_none(), "the same break is told once");
    }

    async fn a_server_that_runs_notices_that_the_chain_was_cut_off_with_its_end(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        server.db.execute("CREATE TABLE old_head AS SELECT * FROM audit_head").await;
        put(&server, entry(&server, "test:one")).await;
        let verify = format!("{AUDIT}/verify");
        assert_eq!(ceo.get(&verify).await.expect(200).data()["intact"], true);
        unlock(&server.db).await;
        for sql in [
            "DELETE FROM audit_entries WHERE position = 1",
            "DELETE FROM audit_head",
            "INSERT INTO audit_head SELECT * FROM old_head",
        ] {
            server.db.execute(sql).await;
        }
        let broken = ceo.get(&verify).await.expect(200).data();
        assert_eq!(broken["fault"], json!({"position": 1, "what": "is missing"}));
    }

    async fn a_copy_holds_every_entry_in_order_with_its_proof(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        for number in 0..1100 {
            server.advance(Duration::from_millis(1));
            let mut entry = entry(&server, "test:write");
            entry.reason = format!("=cmd|\"{number}\"");
            put(&server, entry).await;
        }
        let answer = ceo.get(&format!("{AUDIT}/export")).await.expect(200);
        assert_eq!(answer.header("content-type"), "application/x-ndjson");
        assert_eq!(answer.header("content-disposition"), "attachment; filename=\"audit.ndjson\"");
        let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1102, "setup, the entries, and that somebody took a copy");
        let mut link = "genesis".to_owned();
        for (position, line) in lines.iter().enumerate() {
            assert_eq!(line["position"], json!(position));
            assert_eq!(line["previous_hash"], link);
            use sha2::{Digest, Sha256};
            let part = |name: &str| line[name].as_str().unwrap().to_owned();
            let text = format!("{link}|{}|{}|{}", part("event_hash"), part("signature"), part("timestamp"));
            link = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        }
        assert_eq!((&lines[0]["action_type"], &lines[1101]["action_type"]), (&json!("auth:setup"), &json!("audit:export")));

        let answer = ceo.get(&format!("{AUDIT}/export?format=csv&until=2027-01-15T08:00:00.002Z")).await.expect(200);
        assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8");
        let text = answer.text();
        let rows: Vec<_> = text.split("\r\n").collect();
        assert!(rows[0].starts_with("position,id,timestamp,action_type,verdict,"));
        assert_eq!(rows.len(), 5, "{text}");
        assert!(rows[2].contains("\"'=cmd|\"\"0\"\"\""), "{}", rows[2]);
        assert!(!rows.iter().any(|row| row.split(',').any(|cell| cell.starts_with(['=', '+', '-', '@']))));
    }
}

//! The audit chain: nobody changes it unnoticed, whatever tools they have, as long as they lack the key.

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use quarterdeck_domain::Result;
use quarterdeck_domain::audit::{Actor, Entry, Verdict};
use quarterdeck_store::Store;
use quarterdeck_store::audit::{Anchor, AuditKey, Filter, Report, after, page};
use quarterdeck_testkit::{TestDb, on_both_databases};
use sha2::{Digest, Sha256};

const SECRET: &[u8] = b"a secret that only the tests know";

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn entry(number: i64) -> Entry {
    Entry::new(&Actor::system("test.write"), "test:write", at(number), format!("Entry {number}"))
}

async fn append(store: &Store, entries: Vec<Entry>) -> Result<()> {
    let write = store.write(move |tx| {
        Box::pin(async move {
            entries.into_iter().for_each(|entry| tx.audit(entry));
            Ok(())
        })
    });
    write.await
}

/// A store with six signed entries.
async fn chain(db: &TestDb) -> Store {
    let store = db.open().await;
    store.sign_audit_with(AuditKey::derive(SECRET));
    for number in 0..6 {
        let entry = entry(number).agent("agent-1").task("task-1");
        append(&store, vec![entry]).await.unwrap();
    }
    store
}

async fn verify(store: &Store) -> Report {
    store.verify_audit(&[]).await.unwrap()
}

/// Takes away what keeps honest people from changing the trail.
async fn unlock(db: &TestDb) {
    if db.is_shared() {
        db.execute("DROP TRIGGER audit_entries_keep ON audit_entries").await;
    } else {
        for name in ["no_update", "no_delete", "no_replace"] {
            db.execute(&format!("DROP TRIGGER audit_entries_{name}")).await;
        }
    }
    db.execute("CREATE TABLE kept AS SELECT * FROM audit_entries").await;
    db.execute("CREATE TABLE kept_head AS SELECT * FROM audit_head").await;
}

async fn restore(db: &TestDb) {
    for sql in [
        "DELETE FROM audit_entries",
        "INSERT INTO audit_entries SELECT * FROM kept",
        "DELETE FROM audit_head",
        "INSERT INTO audit_head SELECT * FROM kept_head",
    ] {
        db.execute(sql).await;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Links everything anew, as somebody would who knows how but lacks the key. Entries whose payload no longer
/// has its hash get the right one.
async fn relink(db: &TestDb, store: &Store, key_id: Option<&str>) {
    let mut link = "genesis".to_owned();
    let rows = after(store.read(), None, None, None, 100).await.unwrap();
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|row| row.position);
    for row in &rows {
        let hash = hex(&Sha256::digest(&row.payload));
        let entry: Entry = serde_json::from_str(&row.payload).unwrap();
        let key = key_id.map(|id| format!(", key_id = '{id}'")).unwrap_or_default();
        db.execute(&format!(
            "UPDATE audit_entries SET event_hash = '{hash}', previous_hash = '{link}'{key} WHERE position = {}",
            row.position
        ))
        .await;
        link = hex(&Sha256::digest(format!("{link}|{hash}|{}|{}", row.signature, entry.timestamp)));
    }
    let key = key_id.map(|id| format!(", key_id = '{id}'")).unwrap_or_default();
    let last = rows.last().map_or(-1, |row| row.position);
    db.execute(&format!("UPDATE audit_head SET position = {last}, link = '{link}'{key}")).await;
}

#[track_caller]
fn broken(report: &Report, attack: &str, position: i64, what: &str) {
    let fault = report.fault.as_ref().unwrap_or_else(|| panic!("unnoticed: {attack}"));
    assert_eq!((fault.position, fault.what), (position, what), "{attack}");
}

on_both_databases! {
    async fn entries_can_be_added_and_nothing_else(db: TestDb) {
        let store = chain(&db).await;
        for sql in [
            "UPDATE audit_entries SET actor = 'nobody' WHERE position = 2",
            "UPDATE audit_entries SET payload = '{}'",
            "DELETE FROM audit_entries WHERE position = 5",
            "DELETE FROM audit_entries",
        ] {
            let refusal = db.try_execute(sql).await.unwrap_err().to_string();
            assert!(refusal.contains("audit_append_only"), "{sql}: {refusal}");
        }
        let replace = "INSERT OR REPLACE INTO audit_entries SELECT * FROM audit_entries WHERE position = 2";
        assert!(db.try_execute(replace).await.is_err());
        if db.is_shared() {
            assert!(db.try_execute("TRUNCATE audit_entries").await.is_err());
        }
        let report = verify(&store).await;
        assert_eq!((report.is_intact(), report.entries, report.signed, report.position), (true, 6, 6, 5));
        let stats = store.audit_stats();
        assert_eq!((stats.signed, stats.failed, stats.depth, stats.written_at), (6, 0, 6, 1_800_000_005.0));
    }

    async fn whatever_is_changed_behind_the_stores_back_is_noticed(db: TestDb) {
        let store = chain(&db).await;
        unlock(&db).await;
        let edited = "UPDATE audit_entries SET payload = replace(payload, 'Entry 2', 'Entry X') WHERE position = 2";
        let swap = [
            "UPDATE audit_entries SET position = 99 WHERE position = 2",
            "UPDATE audit_entries SET position = 2 WHERE position = 3",
            "UPDATE audit_entries SET position = 3 WHERE position = 99",
        ];
        let copy = |position: i64| {
            format!(
                "INSERT INTO audit_entries (position, id, recorded_at, actor, tool_name, action_type, verdict, \
                 payload, event_hash, previous_hash, signature, key_id) SELECT {position}, 'new', recorded_at, actor, \
                 tool_name, action_type, verdict, payload, event_hash, previous_hash, signature, key_id \
                 FROM kept WHERE position = 5"
            )
        };
        let filed = "is filed under something else than it says";
        let foreign = "does not belong to the chain";
        let (before, behind) = (copy(-1), copy(6));
        let mut attacks: Vec<(Vec<&str>, i64, &str)> = vec![
            (vec![edited], 2, "was changed after it was written"),
            (vec!["DELETE FROM audit_entries WHERE position = 3"], 3, "is missing"),
            (vec!["DELETE FROM audit_entries WHERE position = 0"], 0, "is missing"),
            (vec!["DELETE FROM audit_entries WHERE position = 5"], 5, "is missing"),
            (vec!["DELETE FROM audit_entries"], 0, "is missing"),
            (swap.to_vec(), 2, "does not follow the entry before it"),
            (vec!["UPDATE audit_entries SET signature = '', key_id = '' WHERE position = 2"], 3,
             "does not follow the entry before it"),
            (vec!["UPDATE audit_entries SET signature = '', key_id = '' WHERE position = 5"], 5,
             "is not the one the chain ended with"),
            (vec!["UPDATE audit_head SET position = 4"], 5, "does not belong to the chain"),
            (vec!["UPDATE audit_head SET position = 6"], 6, "is missing"),
            (vec!["UPDATE audit_head SET signature = ''"], 5, "ends a chain with a forged signature"),
            (vec![&before], -1, foreign),
            (vec![&behind], 6, foreign),
        ];
        // The end that was moved back holds another link than the chain has there.
        attacks[8].1 = 4;
        attacks[8].2 = "is not the one the chain ended with";
        for column in ["id", "actor", "agent_id", "task_id", "tool_name", "action_type", "verdict"] {
            let sql = format!("UPDATE audit_entries SET {column} = 'else' WHERE position = 2");
            attacks.push((vec![Box::leak(sql.into_boxed_str())], 2, filed));
        }
        attacks.push((vec!["UPDATE audit_entries SET recorded_at = recorded_at + 1 WHERE position = 2"], 2, filed));
        attacks.push((vec!["UPDATE audit_entries SET agent_id = NULL WHERE position = 2"], 2, filed));
        for (attack, position, what) in attacks {
            for sql in &attack {
                db.execute(sql).await;
            }
            broken(&verify(&store).await, &attack.join("; "), position, what);
            restore(&db).await;
        }
        assert!(verify(&store).await.is_intact(), "the database is as it was");
    }

    async fn who_lacks_the_key_cannot_link_the_chain_anew(db: TestDb) {
        let store = chain(&db).await;
        unlock(&db).await;
        let forged = "ends a chain with a forged signature";
        db.execute("UPDATE audit_entries SET payload = replace(payload, 'Entry 2', 'Entry X') WHERE position = 2")
            .await;
        relink(&db, &store, None).await;
        broken(&verify(&store).await, "edited", 2, "has a forged signature");
        restore(&db).await;

        for sql in [
            "UPDATE audit_entries SET position = 99 WHERE position = 2",
            "UPDATE audit_entries SET position = 2 WHERE position = 3",
            "UPDATE audit_entries SET position = 3 WHERE position = 99",
        ] {
            db.execute(sql).await;
        }
        relink(&db, &store, None).await;
        broken(&verify(&store).await, "reordered", 5, forged);
        restore(&db).await;

        db.execute("DELETE FROM audit_entries WHERE position = 5").await;
        relink(&db, &store, None).await;
        broken(&verify(&store).await, "cut off", 4, forged);
        restore(&db).await;

        db.execute("UPDATE audit_entries SET payload = replace(payload, 'Entry 2', 'Entry X') WHERE position = 2")
            .await;
        relink(&db, &store, Some("0123456789abcdef")).await;
        let foreign = "ends a chain that is not signed with the key of this program";
        broken(&verify(&store).await, "another key", 5, foreign);
    }

    async fn an_end_kept_elsewhere_shows_that_the_chain_was_cut_off_or_begun_anew(db: TestDb) {
        let store = chain(&db).await;
        let early = verify(&store).await.anchor().unwrap();
        let text = format!("{}:{}", early.position, early.link.to_uppercase());
        assert_eq!(text.parse::<Anchor>().unwrap(), early);
        db.execute("CREATE TABLE old_head AS SELECT * FROM audit_head").await;
        append(&store, vec![entry(6), entry(7)]).await.unwrap();
        let late = verify(&store).await.anchor().unwrap();
        let both = [early.clone(), late.clone()];
        assert!(store.verify_audit(&both).await.unwrap().is_intact());

        unlock(&db).await;
        // The end as it was once, with its own good signature.
        for sql in [
            "DELETE FROM audit_entries WHERE position > 5",
            "DELETE FROM audit_head",
            "INSERT INTO audit_head SELECT * FROM old_head",
        ] {
            db.execute(sql).await;
        }
        assert!(verify(&store).await.is_intact(), "nothing in the database says more");
        broken(&store.verify_audit(&both).await.unwrap(), "cut off", 7, "is missing");
        append(&store, vec![entry(6), entry(8)]).await.unwrap();
        let report = store.verify_audit(&both).await.unwrap();
        broken(&report, "written anew", 7, "is not the one that stood here before");
        for wrong in ["5", "5:", "-1:00", "x:y", &format!("5:{}", "g".repeat(64))] {
            assert!(wrong.parse::<Anchor>().is_err(), "{wrong}");
        }
    }

    async fn a_key_that_was_replaced_is_no_forgery(db: TestDb) {
        let store = db.open().await;
        append(&store, vec![entry(0)]).await.unwrap();
        store.sign_audit_with(AuditKey::derive(b"an older secret"));
        append(&store, vec![entry(1), entry(2)]).await.unwrap();
        store.sign_audit_with(AuditKey::derive(SECRET));
        append(&store, vec![entry(3)]).await.unwrap();
        let report = verify(&store).await;
        assert_eq!(report.fault, None);
        assert_eq!((report.entries, report.unsigned, report.unknown_key, report.signed), (4, 1, 2, 1));
    }

    async fn racing_writers_never_share_a_position(db: TestDb) {
        let store = chain(&db).await;
        let second = if db.is_shared() { db.open().await } else { store.clone() };
        second.sign_audit_with(AuditKey::derive(SECRET));
        let writes = (0..40).map(|number| {
            let store = if number % 2 == 0 { store.clone() } else { second.clone() };
            async move { append(&store, vec![entry(100 + number), entry(200 + number)]).await }
        });
        for written in join_all(writes).await {
            written.unwrap();
        }
        let report = verify(&store).await;
        assert_eq!((report.fault, report.entries, report.position), (None, 86, 85));
        let twice = "INSERT INTO audit_entries SELECT * FROM audit_entries WHERE position = 3";
        assert!(db.try_execute(twice).await.is_err(), "the database itself refuses");
    }

    async fn an_entry_stands_and_falls_with_the_change_it_records(db: TestDb) {
        let store = chain(&db).await;
        let undone: Result<()> = store
            .write(|tx| {
                Box::pin(async move {
                    tx.audit(entry(6));
                    Err(quarterdeck_domain::Error::conflict("no"))
                })
            })
            .await;
        assert!(undone.is_err());
        assert_eq!(verify(&store).await.entries, 6);
        // An entry that cannot be written takes the change with it.
        let bad = Entry { timestamp: "yesterday".to_owned(), ..entry(6) };
        let put = store.write(|tx| {
            Box::pin(async move {
                quarterdeck_store::setting::put(tx, "test", "key", "x", at(0)).await?;
                tx.audit(bad);
                Ok(())
            })
        });
        assert!(put.await.is_err());
        assert!(!crate::has(&store, "key").await);
        assert_eq!((verify(&store).await.entries, store.audit_stats().failed), (6, 1));
    }

    async fn pages_and_copies_are_in_the_order_of_time_with_the_place_as_last_word(db: TestDb) {
        let store = db.open().await;
        // Two copies of the program whose clocks differ.
        for second in [5, 3, 5, 4, 5] {
            let verdict = if second == 4 { Verdict::Deny } else { Verdict::Allow };
            append(&store, vec![entry(second).verdict(verdict)]).await.unwrap();
        }
        let positions = async |filter: &Filter, most, offset, limit| {
            let (records, total) = page(store.read(), filter, most, offset, limit).await.unwrap();
            (records.iter().map(|record| record.position).collect::<Vec<_>>(), total)
        };
        let all = Filter::default();
        assert_eq!(positions(&all, 100, 0, 10).await, (vec![4, 2, 0, 3, 1], 5));
        assert_eq!(positions(&all, 100, 1, 2).await, (vec![2, 0], 5));
        assert_eq!(positions(&all, 3, 2, 10).await, (vec![0], 3), "no more than may be read");
        assert_eq!(positions(&all, 100, 5, 10).await, (vec![], 5));
        let late = Filter { since: Some(at(4)), until: Some(at(4)), ..Filter::default() };
        assert_eq!(positions(&late, 100, 0, 10).await, (vec![3], 1));
        let denied = Filter { verdict: Some(Verdict::Deny), ..Filter::default() };
        assert_eq!(positions(&denied, 100, 0, 10).await, (vec![3], 1));

        let (mut last, mut copied) = (None, Vec::new());
        loop {
            let rows = after(store.read(), Some(at(4)), None, last.as_ref(), 2).await.unwrap();
            let Some(end) = rows.last().cloned() else { break };
            copied.extend(rows.iter().map(|row| row.position));
            last = Some(end);
        }
        assert_eq!(copied, [3, 0, 2, 4]);
    }
}

/// What the comment in the migration promises.
#[tokio::test]
async fn every_filter_is_served_in_order_by_an_index() {
    let db = TestDb::sqlite();
    let _store = chain(&db).await;
    let filters = [
        ("1 = 1", "audit_entries_time"),
        ("recorded_at >= 5 AND recorded_at <= 9", "audit_entries_time"),
        ("actor = 'a' AND recorded_at >= 5", "audit_entries_actor"),
        ("agent_id = 'a'", "audit_entries_agent"),
        ("tool_name = 'a'", "audit_entries_tool"),
        ("action_type = 'a:b'", "audit_entries_action"),
        ("verdict = 'deny' AND verdict <> 'allow'", "audit_entries_verdict"),
    ];
    for (filter, index) in filters {
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT position, payload FROM audit_entries WHERE {filter} \
             ORDER BY recorded_at DESC, position DESC LIMIT 50 OFFSET 0"
        );
        let plan = db.plan(&sql).await;
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{filter}: {plan}");
    }
}

//! Making, listing and removing.

use std::time::Duration;

use futures_util::future::join_all;
use quarterdeck_testkit::{TestServer, on_both_databases};
use serde_json::{Value, json};

use crate::{BACKUPS, furnish, id_of, make, place, shelf, unpacked};

on_both_databases! {
    async fn a_backup_says_what_it_holds(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        furnish(&server, "first");
        let mut cli = server.system_cli();
        let manifest = make(&mut cli).await;
        let id = id_of(&manifest);
        assert_eq!(manifest["components"], json!(["persistence", "memory", "config"]));
        assert_eq!(manifest["trigger"], "manual");
        assert_eq!(manifest["synthorg_version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(manifest["timestamp"], "2027-01-15T08:00:00.000000+00:00");
        assert!(manifest["size_bytes"].as_u64().unwrap() > 1000);
        assert_eq!(manifest.as_object().unwrap().len(), 7);
        let checksum = manifest["checksum"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        assert_eq!(checksum.len(), 64);
        assert_eq!(cli.get(&format!("{BACKUPS}/{id}")).await.expect(200).data(), manifest);
        let list = cli.get(BACKUPS).await.expect(200).json();
        assert_eq!(list["data"][0]["backup_id"], id.as_str());
        assert_eq!(list["data"][0]["compressed"], true);
        assert_eq!(shelf(&server), [format!("{id}_manual.tar.gz")]);
        cli.delete(&format!("{BACKUPS}/{id}")).await.expect(204);
        cli.get(&format!("{BACKUPS}/{id}")).await.refused(404, 3001);
        cli.delete(&format!("{BACKUPS}/{id}")).await.refused(404, 3001);
        assert!(shelf(&server).is_empty());
    }

    async fn of_many_that_ask_at_once_one_makes_a_backup(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        let other = if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None };
        let calls = (0..8).map(|at| {
            let server = other.as_ref().filter(|_| at % 2 == 1).unwrap_or(&server);
            let mut cli = server.system_cli();
            async move { cli.post_empty(BACKUPS).await }
        });
        let answers = join_all(calls).await;
        let made = answers.iter().filter(|answer| answer.status == 201).count();
        let statuses: Vec<_> = answers.iter().map(|answer| (answer.status, answer.code())).collect();
        assert_eq!(made, 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|found| **found == (409, 4000)).count(), 7, "{statuses:?}");
        assert_eq!(shelf(&server).len(), 1);
        make(&mut server.system_cli()).await;
    }

    async fn a_repeated_request_is_answered_and_not_done_again(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await.with_header("idempotency-key", "once");
        let first = make(&mut ceo).await;
        assert_eq!(make(&mut ceo).await, first);
        assert_eq!(shelf(&server).len(), 1);
        let mut cli = server.system_cli().with_header("idempotency-key", "once");
        assert_ne!(make(&mut cli).await, first, "a key belongs to who chose it");
        server.advance(Duration::from_secs(24 * 3600 + 1));
        let mut ceo = server.sign_in("ceo").await.with_header("idempotency-key", "once");
        assert_ne!(make(&mut ceo).await, first, "it is kept for a day");
        for key in ["", &"k".repeat(256)] {
            let mut ceo = server.sign_in("ceo").await.with_header("idempotency-key", key);
            ceo.post_empty(BACKUPS).await.refused(400, 2001);
        }
    }

    async fn what_is_done_is_on_record(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let id = id_of(&make(&mut ceo).await);
        server.system_cli().delete(&format!("{BACKUPS}/{id}")).await.expect(204);
        let kept = server.db.dump().await;
        for action in ["backup:create", "backup:delete"] {
            assert!(kept.contains(action), "{action}");
        }
        assert!(kept.contains(&format!("Made the backup {id}")));
        assert!(kept.contains(&format!("Removed the backup {id}")));
    }
}

#[tokio::test]
async fn the_list_is_ordered_by_time_whatever_the_names() {
    let server = TestServer::start().await;
    server.ceo().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.insert(0, id_of(&make(&mut server.system_cli()).await));
        server.advance(Duration::from_secs(1));
    }
    let ids = async |query: &str| {
        let list = server.system_cli().get(&format!("{BACKUPS}{query}")).await.expect(200).json();
        assert_eq!(list["pagination"]["total"], 5);
        list["data"].as_array().unwrap().iter().map(id_of).collect::<Vec<_>>()
    };
    assert_eq!(ids("").await, made);
    assert_eq!(ids("?offset=1&limit=2").await, made[1..3]);
    assert!(ids("?offset=5").await.is_empty());
    server.system_cli().get(&format!("{BACKUPS}?limit=201")).await.refused(400, 2001);
}

#[tokio::test]
async fn of_twelve_the_ten_newest_stay() {
    let server = TestServer::start().await;
    server.ceo().await;
    let mut made = Vec::new();
    for _ in 0..12 {
        made.insert(0, id_of(&make(&mut server.system_cli()).await));
        server.advance(Duration::from_secs(1));
    }
    let list = server.system_cli().get(BACKUPS).await.expect(200).json();
    let left: Vec<_> = list["data"].as_array().unwrap().iter().map(id_of).collect();
    assert_eq!(left, made[..10]);
    server.advance(Duration::from_secs(31 * 24 * 3600));
    make(&mut server.system_cli()).await;
    assert_eq!(shelf(&server).len(), 1, "old ones go");
}

#[tokio::test]
async fn settings_say_how_many_stay_and_whether_they_are_packed() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    unpacked(&mut ceo).await;
    ceo.put("/api/v1/settings/backup/retention_max_count", &json!({"value": "2"})).await.expect(200);
    for _ in 0..4 {
        make(&mut ceo).await;
        server.advance(Duration::from_secs(1));
    }
    let names = shelf(&server);
    assert!(names.len() == 2 && names.iter().all(|name| name.ends_with("_manual")), "{names:?}");
    for (key, value) in [
        ("path", "../x"),
        ("path", "a\\..\\b"),
        ("include", r#"["config","config"]"#),
        ("schedule_hours", "169"),
    ] {
        ceo.put(&format!("/api/v1/settings/backup/{key}"), &json!({"value": value})).await.refused(422, 2000);
    }
}

#[tokio::test]
async fn what_a_killed_process_left_is_not_listed_and_is_swept_at_the_next_start() {
    let server = TestServer::start().await;
    server.ceo().await;
    make(&mut server.system_cli()).await;
    let whole = shelf(&server);
    for name in ["0123456789ab_manual.partial", "_restore_0123456789ab"] {
        std::fs::create_dir_all(place(&server, name).join("persistence")).unwrap();
        std::fs::write(place(&server, name).join("manifest.json"), "{}").unwrap();
    }
    std::fs::write(place(&server, "0123456789ac_manual.tar.gz.partial"), "half").unwrap();
    std::fs::create_dir_all(place(&server, "0123456789ad_manual")).unwrap();
    std::fs::write(place(&server, "my-own-notes.partial"), "mine").unwrap();
    let list = server.system_cli().get(BACKUPS).await.expect(200).json();
    assert_eq!(list["pagination"]["total"], 1, "{list}");
    server.app.backups.sweep().await;
    let left: Vec<_> = shelf(&server)
        .into_iter()
        .filter(|name| !["0123456789ad_manual", "my-own-notes.partial"].contains(&&**name))
        .collect();
    assert_eq!(left, whole);
}

#[cfg(unix)]
#[tokio::test]
async fn backups_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    furnish(&server, "secret");
    make(&mut ceo).await;
    unpacked(&mut ceo).await;
    make(&mut ceo).await;
    let mut folders = vec![server.db.folder().join("backups")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{folder:?}");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                seen += 1;
                assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
            }
        }
    }
    assert!(seen > 4);
}

#[tokio::test]
async fn a_part_that_is_not_there_is_left_out() {
    let server = TestServer::start().await;
    server.ceo().await;
    let manifest: Value = make(&mut server.system_cli()).await;
    assert_eq!(manifest["components"], json!(["persistence"]));
}

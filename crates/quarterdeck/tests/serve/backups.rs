//! Backups by the command line, and what is left of a process that is killed while it makes one.

use quarterdeck_testkit::on_both_databases;
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::process::{Home, Run, until};

const LIMITS_OFF: (&str, &str) = ("QUARTERDECK_API_PER_OP_RATE_LIMIT_ENABLED", "false");
/// A stop makes one too; where backups are counted, it does not.
const NO_BACKUP_ON_STOP: (&str, &str) = ("QUARTERDECK_BACKUP_ON_SHUTDOWN", "false");

fn document(run: &Run) -> Value {
    assert_eq!(run.code, Some(0), "{run:#?}");
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:#?}"))
}

async fn list(home: &Home) -> Vec<Value> {
    let run = home.run(&["backup", "list", "--json"], "").await;
    document(&run).as_array().expect("a list").clone()
}

/// What lies in the folder of the backups.
fn shelf(home: &Home) -> Vec<String> {
    let entries = std::fs::read_dir(home.data("backups")).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

on_both_databases! {
    async fn the_command_line_makes_lists_checks_restores_and_removes(db: TestDb) {
        let home = Home::on(&db).with(NO_BACKUP_ON_STOP.0, NO_BACKUP_ON_STOP.1);
        let server = home.serve().await;
        let mut owner = Caller::owner(&server).await;
        assert!(list(&home).await.is_empty());
        let copy = home.path("copy.tar.gz");
        let copy = copy.to_str().unwrap();
        let made = document(&home.run(&["backup", "--json", "--output", copy], "").await);
        let id = made["backup_id"].as_str().unwrap().to_owned();
        assert_eq!(list(&home).await[0]["backup_id"], id.as_str());
        for what in [id.as_str(), copy] {
            let run = home.run(&["backup", "verify", what], "").await;
            assert_eq!(run.code, Some(0), "{run:#?}");
            assert!(run.stdout.contains("is sound"), "{run:#?}");
        }
        assert_eq!(home.run(&["backup", "create", "-o", copy], "").await.code, Some(2), "a file is not replaced");

        owner.post("/users", json!({"username": "bob", "password": "a long first password", "role": "observer"})).await.expect(201);
        let refused = home.run(&["backup", "restore", &id], "").await;
        assert_eq!(refused.code, Some(2), "{refused:#?}");
        assert!(refused.stderr.contains("--confirm"), "{refused:#?}");
        let planned = document(&home.run(&["backup", "restore", &id, "--dry-run", "--json"], "").await);
        assert_eq!(planned["components"], json!(["persistence"]));
        let restored = if db.is_shared() {
            home.run(&["backup", "restore", &id, "--confirm", "--no-restart", "--json"], "").await
        } else {
            home.run(&["backup", "restore", &id, "--confirm", "--json"], "").await
        };
        assert_eq!(document(&restored)["restart_required"], true);
        if db.is_shared() {
            owner.get("/users").await.expect(503);
            server.stop().await;
        } else {
            assert_eq!(server.ended().await.code, Some(0), "it was stopped");
        }
        let server = home.serve().await;
        let mut owner = Caller::signed_in(&server).await;
        assert_eq!(owner.get("/users").await.json()["pagination"]["total"], 1);
        let gone = home.run(&["backup", "delete", &id], "").await;
        assert_eq!(gone.code, Some(0), "{gone:#?}");
        assert_eq!(list(&home).await.len(), 1, "the safety backup");
        assert_eq!(home.run(&["backup", "delete", &id], "").await.code, Some(1));
    }

    async fn a_stopped_server_is_backed_up_and_restored_in_its_place(db: TestDb) {
        let home = Home::on(&db).with(NO_BACKUP_ON_STOP.0, NO_BACKUP_ON_STOP.1);
        let server = home.serve().await;
        Caller::owner(&server).await;
        if !db.is_shared() {
            let refused = home.run(&["backup", "create", "--local"], "").await;
            assert!(refused.code == Some(1) && refused.stderr.contains("another quarterdeck server"), "{refused:#?}");
        }
        server.stop().await;
        let made = document(&home.run(&["backup", "create", "--local", "--json"], "").await);
        let id = made["backup_id"].as_str().unwrap();
        let run = home.run(&["user", "create", "bob", "--generate"], "").await;
        assert_eq!(run.code, Some(0), "{run:#?}");
        let restored = document(&home.run(&["backup", "restore", id, "--confirm", "--local", "--json"], "").await);
        assert_eq!(restored["restored_components"], json!(["persistence"]));
        let server = home.serve().await;
        let mut owner = Caller::signed_in(&server).await;
        assert_eq!(owner.get("/users").await.json()["pagination"]["total"], 1);
    }

    async fn a_stop_makes_a_backup_and_so_does_a_start_that_is_told_to(db: TestDb) {
        let home = Home::on(&db).with("QUARTERDECK_BACKUP_ON_STARTUP", "true");
        home.serve().await.stop().await;
        let names = shelf(&home);
        let made = |by: &str| names.iter().filter(|name| name.contains(by)).count();
        assert_eq!((names.len(), made("_startup"), made("_shutdown")), (2, 1, 1), "{names:?}");
    }
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_backup_leaves_no_half_one() {
    let home = Home::new().with(LIMITS_OFF.0, LIMITS_OFF.1).with(NO_BACKUP_ON_STOP.0, NO_BACKUP_ON_STOP.1);
    // Enough to be killed in.
    std::fs::create_dir_all(home.data("memory")).unwrap();
    for at in 0..40 {
        let noise: Vec<u8> =
            (0..400_000_u32).map(|n| (n.wrapping_mul(2_654_435_761 + at) >> 13) as u8).collect();
        std::fs::write(home.data("memory").join(at.to_string()), noise).unwrap();
    }
    for pause in [0, 5, 20, 60, 120, 200] {
        let server = home.serve().await;
        let mut caller =
            if pause == 0 { Caller::owner(&server).await } else { Caller::signed_in(&server).await };
        let whole = list(&home).await.len();
        let calling =
            tokio::spawn(async move { caller.try_send(reqwest::Method::POST, "/admin/backups", None).await });
        until("something half made", async || shelf(&home).iter().any(|name| name.ends_with(".partial")))
            .await;
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        server.kill().await;
        let answered = calling.await.unwrap().is_ok_and(|answer| answer.status == 201);
        let server = home.serve().await;
        assert!(shelf(&home).iter().all(|name| !name.contains(".partial")), "{:?}", shelf(&home));
        let left = list(&home).await;
        assert!(left.len() <= whole + 1 && (!answered || left.len() == whole + 1));
        for backup in left {
            let run = home.run(&["backup", "verify", backup["backup_id"].as_str().unwrap()], "").await;
            assert_eq!(run.code, Some(0), "{run:#?}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_wipe_stops_the_server_saves_and_deletes() {
    let home = Home::new();
    let server = home.serve().await;
    Caller::owner(&server).await;
    let before = shelf(&home);
    let planned = document(&home.run(&["wipe", "--dry-run", "--json"], "").await);
    assert!(planned["entries"].as_array().unwrap().contains(&json!("quarterdeck.db")), "{planned}");
    assert_eq!(shelf(&home), before);
    Caller::signed_in(&server).await;
    let refused = home.run(&["wipe"], "wipe data\n").await;
    assert_eq!(refused.code, Some(2), "without a terminal nobody is asked: {refused:#?}");
    let copy = home.path("saved.tar.gz");
    let run = home.run(&["wipe", "--yes", "--output", copy.to_str().unwrap()], "").await;
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(server.ended().await.code, Some(0), "it was stopped first");
    assert!(!home.data("").exists());
    let sound = home.run(&["backup", "verify", copy.to_str().unwrap()], "").await;
    assert_eq!(sound.code, Some(0), "{sound:#?}");
    assert_eq!(home.run(&["wipe", "--yes"], "").await.code, Some(0), "again");
}

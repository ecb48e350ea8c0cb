//! Who may do what.

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{TestServer, on_both_databases};
use serde_json::json;

use crate::{BACKUPS, RESTORE, id_of, make};

on_both_databases! {
    async fn those_who_write_and_the_command_line_make_backups_and_nobody_else(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        make(&mut server.system_cli()).await;
        make(&mut server.person("pair", HumanRole::PairProgrammer).await).await;
        make(&mut server.person("manager", HumanRole::Manager).await).await;
        for role in [HumanRole::Observer, HumanRole::BoardMember] {
            let mut person = server.person(role.as_str(), role).await;
            let id = id_of(&make(&mut server.system_cli()).await);
            let one = format!("{BACKUPS}/{id}");
            person.post_empty(BACKUPS).await.refused(403, 1001);
            person.get(BACKUPS).await.refused(403, 1001);
            person.get(&one).await.refused(403, 1001);
            person.delete(&one).await.refused(403, 1001);
            person.post(RESTORE, &json!({"backup_id": id, "confirm": true})).await.refused(403, 1001);
        }
        server.anonymous().post_empty(BACKUPS).await.refused(401, 1000);
        server.anonymous().get(BACKUPS).await.refused(401, 1000);
        assert_eq!(server.system_cli().get(BACKUPS).await.json()["pagination"]["total"], 5);
    }
}

#[tokio::test]
async fn what_cannot_be_taken_back_may_be_left_to_the_ceo_and_the_command_line() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let mut manager = server.person("manager", HumanRole::Manager).await;
    let ids = [id_of(&make(&mut ceo).await), id_of(&make(&mut ceo).await), id_of(&make(&mut ceo).await)];
    let one = |at: usize| format!("{BACKUPS}/{}", ids[at]);
    manager.delete(&one(0)).await.expect(204);
    ceo.put("/api/v1/settings/backup/destructive_roles", &json!({"value": "ceo_or_system"}))
        .await
        .expect(200);
    manager.delete(&one(1)).await.refused(403, 1001);
    manager.post(RESTORE, &json!({"backup_id": ids[1], "confirm": true})).await.refused(403, 1001);
    manager.get(&one(1)).await.expect(200);
    make(&mut manager).await;
    ceo.delete(&one(1)).await.expect(204);
    server.system_cli().delete(&one(2)).await.expect(204);
}

#[tokio::test]
async fn what_names_no_backup_names_nothing() {
    let server = TestServer::start().await;
    let mut cli = server.system_cli();
    std::fs::create_dir_all(server.db.folder().join("backups/0123456789ab_manual")).unwrap();
    for id in ["../../x", "ABC", "0123456789a", "0123456789abc", "0123456789AB", "0123456789ab", "restore"] {
        let path = format!("{BACKUPS}/{}", id.replace('/', "%2F"));
        cli.get(&path).await.refused(404, 3001);
        let body = json!({"backup_id": id, "confirm": false});
        cli.post(RESTORE, &body).await.refused(422, 2000);
        let body = json!({"backup_id": id});
        cli.post(RESTORE, &body).await.refused(422, 2000);
        if id != "0123456789ab" {
            cli.delete(&path).await.refused(404, 3001);
            let body = json!({"backup_id": id, "confirm": true});
            cli.post(RESTORE, &body).await.refused(404, 3001);
        }
    }
    cli.get(&format!("{BACKUPS}/{}", "0".repeat(129))).await.refused(400, 2001);
    let unknown = json!({"backup_id": "ba9876543210", "confirm": true});
    cli.post(RESTORE, &unknown).await.refused(404, 3001);
    for body in [
        json!({"backup_id": "ba9876543210", "confirm": true, "component": ["memory"]}),
        json!({"backup_id": "ba9876543210", "confirm": true, "components": ["logs"]}),
        json!({"backup_id": "ba9876543210", "confirm": true, "components": []}),
        json!({"backup_id": "ba9876543210", "confirm": "yes"}),
        json!({"backup_id": "", "confirm": true}),
        json!({"confirm": true}),
    ] {
        cli.post(RESTORE, &body).await.refused(400, 2001);
    }
}

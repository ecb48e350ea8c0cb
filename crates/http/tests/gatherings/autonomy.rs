//! How freely agents act: the company's word for all of them.

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{TestServer, on_both_databases};
use serde_json::json;

use super::limited;

const PATH: &str = "/api/v1/agents/ada/autonomy";

on_both_databases! {
    async fn the_level_is_the_companys_and_asking_files_an_approval(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let shown = ceo.get(PATH).await.expect(200).data();
        assert_eq!(shown, json!({"agent_id": "ada", "level": "semi", "promotion_pending": false}));
        let asked = ceo.post(PATH, &json!({"level": "full"})).await.expect(200).data();
        assert_eq!(asked, json!({"agent_id": "ada", "level": "semi", "promotion_pending": true}));
        assert_eq!(ceo.get(PATH).await.data()["level"], "semi");
        let filed = ceo.get("/api/v1/approvals?action_type=org:promote").await.expect(200).data();
        assert_eq!((&filed[0]["status"], &filed[0]["requested_by"]), (&json!("pending"), &json!("ceo")));
        assert_eq!(filed[0]["metadata"], json!({"agent_id": "ada", "level": "full", "from_level": "semi"}));
        ceo.put("/api/v1/settings/company/autonomy_level", &json!({"value": "locked"})).await.expect(200);
        for agent in ["ada", "nobody-knows"] {
            let path = format!("/api/v1/agents/{agent}/autonomy");
            assert_eq!(ceo.get(&path).await.expect(200).data()["level"], "locked");
        }
        ceo.put("/api/v1/settings/company/autonomy_level", &json!({"value": "wild"})).await.expect(422);
    }
}

#[tokio::test]
async fn only_the_ceo_and_managers_may_ask() {
    let server = TestServer::start().await;
    let body = json!({"level": "supervised"});
    server.anonymous().post(PATH, &body).await.refused(401, 1000);
    server.system_cli().post(PATH, &body).await.refused(403, 1001);
    for role in [HumanRole::Observer, HumanRole::BoardMember, HumanRole::PairProgrammer] {
        let mut person = server.person(role.as_str(), role).await;
        person.post(PATH, &body).await.refused(403, 1001);
        person.get(PATH).await.expect(200);
    }
    server.person("manager", HumanRole::Manager).await.post(PATH, &body).await.expect(200);
}

#[tokio::test]
async fn what_is_no_level_or_no_id_is_refused() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    for body in
        [json!({}), json!({"level": "wild"}), json!({"level": "FULL"}), json!({"level": null}), json!([])]
    {
        ceo.post(PATH, &body).await.refused(400, 2001);
    }
    let long = format!("/api/v1/agents/{}/autonomy", "x".repeat(129));
    ceo.get(&long).await.refused(400, 2001);
    ceo.post(&long, &json!({"level": "full"})).await.refused(400, 2001);
}

#[tokio::test]
async fn asking_is_limited_to_ten_a_minute() {
    let server = limited().await;
    let mut ceo = server.ceo().await;
    for _ in 0..10 {
        ceo.post(PATH, &json!({"level": "full"})).await.expect(200);
    }
    ceo.post(PATH, &json!({"level": "full"})).await.refused(429, 5001);
}

//! Accounts managed by the CEO: what is refused, and with which word first.

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{PASSWORD, TestServer, on_both_databases};
use serde_json::json;

use crate::{USERS, credentials, id_of};

const NOBODY: &str = "/api/v1/users/00000000-0000-4000-8000-000000000000";

on_both_databases! {
    async fn creating_is_refused_for_the_first_reason_that_holds(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        server.person("Ada", HumanRole::Observer).await;
        let new = |name: &str, password: &str, role: &str| {
            json!({"username": name, "password": password, "role": role})
        };
        ceo.post(USERS, &new("system", "short", "system")).await.refused(422, 2000);
        ceo.post(USERS, &new("Ada", "short", "ceo")).await.refused(422, 2000);
        for name in ["Ada", "ada", "ＡＤＡ"] {
            ceo.post(USERS, &new(name, PASSWORD, "observer")).await.refused(409, 4000);
        }
        let second = ceo.post(USERS, &new("Bob", PASSWORD, "ceo")).await.refused(409, 4000);
        assert_eq!(second.error(), "A CEO already exists");
        for body in [
            new("Bob", "", "observer"),
            new("Bob", PASSWORD, "emperor"),
            new("Bob\u{0}", PASSWORD, "observer"),
            json!({"username": "Bob", "password": PASSWORD}),
        ] {
            ceo.post(USERS, &body).await.refused(400, 2001);
        }
        assert_eq!(server.app.auth.users(0, 50).await.unwrap().1, 2);
    }

    async fn a_role_change_is_refused_for_the_first_reason_that_holds(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let me = format!("{USERS}/{}", id_of(&mut ceo).await);
        let ada = format!("{USERS}/{}", id_of(&mut server.person("Ada", HumanRole::Observer).await).await);
        ceo.patch(NOBODY, &json!({"role": "system"})).await.refused(422, 2000);
        ceo.patch(NOBODY, &json!({"role": "observer"})).await.refused(404, 3000);
        let last = ceo.patch(&me, &json!({"role": "manager"})).await.refused(409, 4000);
        assert_eq!(last.error(), "The only CEO cannot lose the role");
        ceo.patch(&ada, &json!({"role": "ceo"})).await.refused(409, 4000);
        ceo.patch(&ada, &json!({})).await.refused(400, 2001);
        ceo.patch(&me, &json!({"role": "ceo"})).await.expect(200);
    }

    async fn deleting_is_refused_for_oneself_and_the_last_owner(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let me = id_of(&mut ceo).await;
        let ada = id_of(&mut server.person("Ada", HumanRole::Manager).await).await;
        ceo.delete(NOBODY).await.refused(404, 3000);
        ceo.delete(&format!("{USERS}/{me}")).await.refused(409, 4000);
        ceo.post(&format!("{USERS}/{ada}/org-roles"), &json!({"role": "owner"})).await.expect(201);
        ceo.delete(&format!("{USERS}/{me}/org-roles/owner")).await.expect(204);
        let last = ceo.delete(&format!("{USERS}/{ada}")).await.refused(409, 4000);
        assert_eq!(last.error(), "The last owner cannot lose the role");
        server.sign_in("Ada").await;
        ceo.delete(&format!("{USERS}/{ada}/org-roles/owner")).await.refused(409, 4000);
    }

    async fn an_organisation_role_is_refused_for_the_first_reason_that_holds(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let of = format!(
            "{USERS}/{}/org-roles",
            id_of(&mut server.person("Ada", HumanRole::Observer).await).await
        );
        let viewer = json!({"role": "viewer"});
        ceo.post(&format!("{NOBODY}/org-roles"), &viewer).await.refused(404, 3000);
        ceo.post(&of, &viewer).await.expect(201);
        ceo.post(&of, &json!({"role": "viewer", "scoped_departments": ["Eng"]})).await.refused(409, 4000);
        ceo.post(&of, &json!({"role": "editor", "scoped_departments": ["Eng"]})).await.refused(422, 2000);
        ceo.post(&of, &json!({"role": "department_admin"})).await.refused(422, 2000);
        let none = json!({"role": "department_admin", "scoped_departments": []});
        ceo.post(&of, &none).await.refused(422, 2000);
        for body in [
            json!({"role": "king"}),
            json!({"role": "department_admin", "scoped_departments": [" "]}),
            json!({"role": "department_admin", "scoped_departments": "Eng"}),
            json!({"role": "department_admin", "scoped_departments": ["zero\u{0}"]}),
        ] {
            ceo.post(&of, &body).await.refused(400, 2001);
        }
        ceo.delete(&format!("{NOBODY}/org-roles/king")).await.refused(422, 2000);
        ceo.delete(&format!("{NOBODY}/org-roles/viewer")).await.refused(404, 3000);
        ceo.delete(&format!("{of}/editor")).await.refused(404, 3000);
    }

    async fn a_handover_is_refused_to_nobody_and_to_oneself(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let me = id_of(&mut ceo).await;
        ceo.post_empty(&format!("{NOBODY}/transfer-ceo")).await.refused(404, 3000);
        ceo.post_empty(&format!("{USERS}/{me}/transfer-ceo")).await.refused(409, 4000);
        ceo.get(USERS).await.expect(200);
    }

    async fn text_no_database_can_hold_is_the_callers_fault(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        ceo.get(&format!("{USERS}/%00")).await.refused(400, 2001);
        ceo.delete(&format!("{USERS}/a%00b")).await.refused(400, 2001);
        ceo.delete("/api/v1/auth/sessions/%00").await.refused(400, 2001);
        ceo.delete("/api/v1/auth/api-keys/%00").await.refused(400, 2001);
        let zero = json!({"username": "\u{0}", "password": PASSWORD});
        server.anonymous().post("/api/v1/auth/login", &zero).await.refused(400, 2001);
        for odd in ["%E2%98%83", "%20", "'%3B--", "a%2Fb", &"x".repeat(2000), "%2500"] {
            ceo.get(&format!("{USERS}/{odd}")).await.refused(404, 3000);
        }
    }

    async fn login_names_are_matched_as_they_were_written(db: TestDb) {
        let server = TestServer::on(db).await;
        server.person("Ada", HumanRole::Observer).await;
        server.sign_in("Ada").await;
        server.anonymous().post("/api/v1/auth/login", &credentials("ada")).await.refused(401, 1000);
    }
}

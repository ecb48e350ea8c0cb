//! Accounts managed by the CEO: what works.

use std::time::Duration;

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Caller, PASSWORD, TestServer, on_both_databases};
use serde_json::{Value, json};

use crate::{KEYS, ME, TICKET, USERS, credentials, id_of, outcomes, race};

fn new(username: &str, role: &str) -> Value {
    json!({"username": username, "password": PASSWORD, "role": role})
}

async fn names(caller: &mut Caller, query: &str) -> Vec<String> {
    let page = caller.get(&format!("{USERS}{query}")).await.expect(200).data();
    page.as_array().unwrap().iter().map(|user| user["username"].as_str().unwrap().to_owned()).collect()
}

on_both_databases! {
    async fn a_new_account_is_shown_without_its_password_and_must_change_it(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let answer = ceo.post(USERS, &new("Ada", "manager")).await.expect(201);
        let user = answer.data();
        let id = user["id"].as_str().unwrap();
        let now = server.now().to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
        assert_eq!(user, json!({
            "id": id, "username": "Ada", "role": "manager", "must_change_password": true, "org_roles": [],
            "scoped_departments": [], "created_at": now, "updated_at": now,
        }));
        assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 4);
        let shown = ceo.get(&format!("{USERS}/{id}")).await.expect(200);
        assert_eq!(shown.data(), user);
        for answer in [answer, shown, ceo.get(USERS).await] {
            assert!(!answer.text().contains("argon2") && !answer.text().contains(PASSWORD));
        }
        let mut ada = server.anonymous();
        let session = ada.post("/api/v1/auth/login", &credentials("Ada")).await.expect(200).data();
        assert_eq!(session["must_change_password"], true);
        ada.get(KEYS).await.refused(403, 1001);
        ada.get(ME).await.expect(200);
    }

    async fn of_many_creations_of_one_name_one_succeeds(db: TestDb) {
        let server = TestServer::on(db).await;
        let ceo = server.ceo().await;
        let answers = race((0..8).map(|i| {
            let mut ceo = ceo.clone();
            let name = if i % 2 == 0 { "ada" } else { "Ada" };
            async move { ceo.post(USERS, &new(name, "observer")).await }
        }))
        .await;
        assert_eq!(outcomes(&answers), [vec![(201, 0)], vec![(409, 4000); 7]].concat());
        assert_eq!(server.app.auth.users(0, 50).await.unwrap().1, 2);
    }

    async fn pages_hold_every_account_once_oldest_first(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        for i in 0..7 {
            // Pairs of the same instant: the id decides.
            server.advance(Duration::from_secs((i + 1) % 2));
            ceo.post(USERS, &new(&format!("user {i}"), "observer")).await.expect(201);
        }
        let all = names(&mut ceo, "").await;
        assert_eq!((all.len(), all[0].as_str()), (8, "ceo"));
        let mut paged = Vec::new();
        for offset in (0..8).step_by(3) {
            let query = format!("?offset={offset}&limit=3");
            let page = ceo.get(&format!("{USERS}{query}")).await.expect(200).json();
            assert_eq!(page["pagination"], json!({"total": 8, "offset": offset, "limit": 3}));
            paged.extend(names(&mut ceo, &query).await);
        }
        assert_eq!(paged, all);
        let beyond = ceo.get(&format!("{USERS}?offset=100")).await.expect(200).json();
        assert_eq!(beyond["data"], json!([]));
        assert_eq!(beyond["pagination"], json!({"total": 8, "offset": 8, "limit": 50}));
        for query in ["limit=0", "limit=201", "limit=-1", "limit=abc", "offset=-1", "offset=1.5"] {
            ceo.get(&format!("{USERS}?{query}")).await.refused(400, 2001);
        }
    }

    async fn a_role_counts_from_the_next_request_on(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut ada = server.person("Ada", HumanRole::Observer).await;
        let id = id_of(&mut ada).await;
        let of = format!("{USERS}/{id}");
        let before = ceo.get(&of).await.data();
        ada.get("/api/v1/admin/backups").await.refused(403, 1001);
        server.advance(Duration::from_secs(1));
        let after = ceo.patch(&of, &json!({"role": "manager"})).await.expect(200).data();
        assert_eq!(after["role"], "manager");
        assert!(after["updated_at"].as_str() > before["updated_at"].as_str());
        assert_eq!(after["created_at"], before["created_at"]);
        ada.get("/api/v1/admin/backups").await.expect(200);
        ceo.patch(&of, &json!({"role": "observer"})).await.expect(200);
        ada.get("/api/v1/admin/backups").await.refused(403, 1001);
        assert_eq!(ada.get(ME).await.expect(200).data()["role"], "observer", "still signed in");
    }

    async fn nothing_of_a_deleted_user_works(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut ada = server.person("Ada", HumanRole::Manager).await;
        let id = id_of(&mut ada).await;
        let mut script = server.key_of(&ada, HumanRole::Manager).await;
        let mut bearer = server.bearer(ada.cookie("session").unwrap());
        let ticket = ada.post_empty(TICKET).await.expect(200).data();
        ceo.delete(&format!("{USERS}/{id}")).await.expect(204);
        for caller in [&mut ada, &mut script, &mut bearer] {
            assert_eq!(caller.get(ME).await.status, 401);
        }
        assert!(server.app.auth.consume_ticket(ticket["ticket"].as_str().unwrap()).await.unwrap().is_none());
        server.anonymous().post("/api/v1/auth/login", &credentials("Ada")).await.refused(401, 1000);
        ceo.get(&format!("{USERS}/{id}")).await.refused(404, 3000);
        ceo.delete(&format!("{USERS}/{id}")).await.refused(404, 3000);
        ceo.post(USERS, &new("Ada", "observer")).await.expect(201);
    }

    async fn organisation_roles_are_granted_and_taken_back(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut ada = server.person("Ada", HumanRole::Observer).await;
        let of = format!("{USERS}/{}/org-roles", id_of(&mut ada).await);
        let body = json!({"role": "department_admin", "scoped_departments": ["Ops", "Eng", "Ops"]});
        let user = ceo.post(&of, &body).await.expect(201).data();
        assert_eq!(user["org_roles"], json!(["department_admin"]));
        assert_eq!(user["scoped_departments"], json!(["Eng", "Ops"]), "sorted, each once");
        ceo.post(&of, &json!({"role": "viewer"})).await.expect(201);
        let me = ada.get(ME).await.data();
        assert_eq!(me["org_roles"], json!(["department_admin", "viewer"]));
        ceo.delete(&format!("{of}/department_admin")).await.expect(204);
        let me = ada.get(ME).await.data();
        assert_eq!((&me["org_roles"], &me["scoped_departments"]), (&json!(["viewer"]), &json!([])));
    }

    async fn of_two_owners_taken_at_once_one_remains(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mine = format!("{USERS}/{}/org-roles", id_of(&mut ceo).await);
        let theirs = {
            let mut ada = server.person("Ada", HumanRole::Observer).await;
            format!("{USERS}/{}/org-roles", id_of(&mut ada).await)
        };
        for _ in 0..10 {
            for of in [&mine, &theirs] {
                let granted = ceo.post(of, &json!({"role": "owner"})).await;
                assert!([201, 409].contains(&granted.status));
            }
            let answers = race([&mine, &theirs].map(|of| {
                let (mut ceo, path) = (ceo.clone(), format!("{of}/owner"));
                async move { ceo.delete(&path).await }
            }))
            .await;
            assert_eq!(outcomes(&answers), [(204, 0), (409, 4000)]);
        }
    }

    async fn the_ceo_role_is_handed_over_in_one_step(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut ada = server.person("Ada", HumanRole::Observer).await;
        let (me, heir) = (id_of(&mut ceo).await, id_of(&mut ada).await);
        let user = ceo.post_empty(&format!("{USERS}/{heir}/transfer-ceo")).await.expect(200).data();
        assert_eq!((user["id"].as_str(), user["role"].as_str()), (Some(heir.as_str()), Some("ceo")));
        assert_eq!(ceo.get(ME).await.data()["role"], "manager");
        ceo.get(USERS).await.refused(403, 1001);
        ada.post_empty(&format!("{USERS}/{me}/transfer-ceo")).await.expect(200);
        ceo.get(USERS).await.expect(200);
        ada.get(USERS).await.refused(403, 1001);
    }

    async fn of_two_handovers_at_once_one_happens(db: TestDb) {
        let server = TestServer::on(db).await;
        let ceo = server.ceo().await;
        let mut heirs = Vec::new();
        for name in ["Ada", "Bob"] {
            heirs.push(id_of(&mut server.person(name, HumanRole::Manager).await).await);
        }
        let answers = race(heirs.into_iter().map(|heir| {
            let mut ceo = ceo.clone();
            async move { ceo.post_empty(&format!("{USERS}/{heir}/transfer-ceo")).await }
        }))
        .await;
        assert_eq!(answers[0].status, 200);
        assert!([(403, 1001), (409, 4000)].contains(&(answers[1].status, answers[1].code())));
        let (users, _) = server.app.auth.users(0, 50).await.unwrap();
        assert_eq!(users.iter().filter(|user| user.role == HumanRole::Ceo).count(), 1);
    }
}

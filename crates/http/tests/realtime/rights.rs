//! Rights that end while a socket is open reach it at once.

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Caller, Closed, PASSWORD, TestServer, on_both_databases};
use serde_json::json;

use super::{message, subscribe};

async fn id_of(caller: &mut Caller) -> String {
    caller.get("/api/v1/auth/me").await.data()["id"].as_str().unwrap().to_owned()
}

/// The server the change is made on: another copy where the database can have one.
async fn elsewhere(server: &TestServer) -> Option<TestServer> {
    if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None }
}

on_both_databases! {
    async fn what_ends_a_session_closes_its_sockets_also_from_another_copy(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = elsewhere(&server).await;
        let there = second.as_ref().unwrap_or(&server);
        let listening = server.listen().await;
        let mut ceo = there.ceo().await;
        server.ceo().await;
        let revoked = Closed { code: 4003, reason: "Session revoked (session_revoked)".to_owned() };

        let mut person = server.person("logout", HumanRole::Manager).await;
        let mut socket = listening.plain(&mut person).await;
        person.post_empty("/api/v1/auth/logout").await.expect(204);
        assert_eq!(socket.closed().await.0, revoked);

        let mut person = server.person("password", HumanRole::Manager).await;
        let (mut socket, _) = listening.capable(&mut person).await;
        let mut same = there.sign_in("password").await;
        let body = json!({"current_password": PASSWORD, "new_password": "another long password"});
        same.post("/api/v1/auth/change-password", &body).await.expect(200);
        assert_eq!(socket.closed().await.0, revoked);

        let mut person = server.person("deleted", HumanRole::Manager).await;
        let id = id_of(&mut person).await;
        let mut socket = listening.plain(&mut person).await;
        ceo.delete(&format!("/api/v1/users/{id}")).await.expect(204);
        let closed = socket.closed().await.0;
        assert_eq!(closed.code, 4003);
        assert_eq!((server.app.sockets.count(), server.app.rights.count()), (0, 0));
    }

    async fn a_demoted_user_loses_what_the_new_role_may_not_read_and_keeps_the_rest(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = elsewhere(&server).await;
        let there = second.as_ref().unwrap_or(&server);
        let listening = server.listen().await;
        server.ceo().await;
        let mut ceo = there.ceo().await;
        let mut person = server.person("erin", HumanRole::Manager).await;
        let id = id_of(&mut person).await;
        let mut plain = listening.plain(&mut person).await;
        let (mut capable, _) = listening.capable(&mut person).await;
        for socket in [&mut plain, &mut capable] {
            socket.ask(&subscribe(&["budget", "tasks"])).await;
        }
        ceo.patch(&format!("/api/v1/users/{id}"), &json!({"role": "observer"})).await.expect(200);
        for socket in [&mut plain, &mut capable] {
            let ack = socket.next().await;
            assert_eq!(ack, json!({"action": "unsubscribed", "channels": ["tasks"]}));
        }
        message(&server, "budget", "secret").await;
        message(&server, "tasks", "open").await;
        for socket in [&mut plain, &mut capable] {
            assert_eq!(socket.next().await["payload"]["content"], "open");
            assert_eq!(socket.ask(&subscribe(&["budget"])).await["channels"], json!(["tasks"]));
        }
    }

    async fn presence_counts_over_all_copies(db: TestDb) {
        let server = TestServer::on(db).await;
        let listening = server.listen().await;
        let mut ceo = server.ceo().await;
        let mut person = server.person("erin", HumanRole::Observer).await;
        person.get("/api/v1/ws/presence").await.refused(403, 1001);
        let id = id_of(&mut person).await;
        let (first, _second) = (listening.plain(&mut person).await, listening.plain(&mut person).await);
        let shown = ceo.get("/api/v1/ws/presence").await.expect(200).data();
        assert_eq!((&shown[0]["user_id"], &shown[0]["connections"]), (&json!(id), &json!(2)));
        first.close().await;
        while server.app.sockets.count() > 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ceo.get("/api/v1/ws/presence").await.data()[0]["connections"], 1);

        if server.db.is_shared() {
            let second = server.second(|_| {}).await;
            let listening = second.listen().await;
            let mut there = second.sign_in("erin").await;
            let _third = listening.plain(&mut there).await;
            let stopping = tokio_util::sync::CancellationToken::new();
            let (sockets, store) = (second.app.sockets.clone(), second.app.store.clone());
            let reporting = tokio::spawn(sockets.report(store, stopping.clone()));
            let told = async {
                while ceo.get("/api/v1/ws/presence").await.data()[0]["connections"] != 2 {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(15), told).await.expect("it is told");
            stopping.cancel();
            reporting.await.unwrap();
            assert_eq!(ceo.get("/api/v1/ws/presence").await.data()[0]["connections"], 1);
        }
    }
}

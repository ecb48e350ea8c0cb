//! Rights that end while a stream is open reach it at once.

use quarterdeck_domain::role::HumanRole;
use quarterdeck_domain::setting::MASK;
use quarterdeck_testkit::{Caller, PASSWORD, TestServer, on_both_databases};
use serde_json::{Value, json};

use super::{Stream, ask, elsewhere, say, tool};

async fn id_of(caller: &mut Caller) -> String {
    caller.get("/api/v1/auth/me").await.data()["id"].as_str().unwrap().to_owned()
}

async fn arguments(stream: &mut Stream) -> Value {
    let frame = stream.next().await.unwrap();
    assert_eq!(frame.event, "approval_interrupt");
    frame.data["payload"]["tool_args"].clone()
}

on_both_databases! {
    async fn what_ends_a_session_ends_its_streams_also_from_another_copy(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = elsewhere(&server).await;
        let there = second.as_ref().unwrap_or(&server);
        let mut ceo = there.ceo().await;
        server.ceo().await;

        let mut person = server.person("logout", HumanRole::Manager).await;
        let stream = Stream::open(&person, "s").await;
        person.post_empty("/api/v1/auth/logout").await.expect(204);
        // Nothing that happens after the end is told.
        say(&server, "s", "secret");
        stream.ends(&["session_revoked"]).await;

        let person = server.person("password", HumanRole::Manager).await;
        let stream = Stream::open(&person, "s").await;
        let mut same = there.sign_in("password").await;
        let body = json!({"current_password": PASSWORD, "new_password": "another long password"});
        same.post("/api/v1/auth/change-password", &body).await.expect(200);
        stream.ends(&["session_revoked"]).await;

        let mut person = server.person("deleted", HumanRole::Manager).await;
        let id = id_of(&mut person).await;
        let stream = Stream::open(&person, "s").await;
        ceo.delete(&format!("/api/v1/users/{id}")).await.expect(204);
        stream.ends(&["session_revoked", "user_deleted"]).await;
        assert_eq!((server.app.streams.watchers(), server.app.rights.count()), (0, 0));
    }

    async fn the_session_of_a_task_is_for_who_asked_for_it_and_the_ceo(db: TestDb) {
        let server = TestServer::on(db).await;
        let ceo = server.ceo().await;
        let mut author = server.person("author", HumanRole::PairProgrammer).await;
        let body = json!({
            "title": "t", "description": "d", "type": "admin", "project": "p", "created_by": "author",
        });
        let task = author.post("/api/v1/tasks", &body).await.expect(201).data();
        let task = task["id"].as_str().unwrap();
        let (mut own, mut above) = (Stream::open(&author, task).await, Stream::open(&ceo, task).await);
        for role in [HumanRole::Manager, HumanRole::BoardMember, HumanRole::Observer] {
            let other = server.person(role.as_str(), role).await;
            let refused = ask(&other, &format!("session_id={task}"), None).await;
            assert_eq!(refused.status(), 404);
        }
        say(&server, task, "for two");
        assert_eq!((own.texts(1).await, above.texts(1).await), (vec!["for two".into()], vec!["for two".into()]));
    }

    async fn arguments_of_tools_are_for_those_who_decide(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = elsewhere(&server).await;
        let there = second.as_ref().unwrap_or(&server);
        let mut ceo = there.ceo().await;
        server.ceo().await;
        let (plain, masked) =
            (json!({"path": "/etc", "token": "s3cret"}), json!({"path": MASK, "token": MASK}));
        let mut open = Vec::new();
        for (name, role, sees) in [
            ("observer", HumanRole::Observer, &masked),
            ("programmer", HumanRole::PairProgrammer, &masked),
            ("board", HumanRole::BoardMember, &plain),
            ("manager", HumanRole::Manager, &plain),
        ] {
            let person = server.person(name, role).await;
            open.push((Stream::open(&person, "s").await, person, sees));
        }
        let last = tool(&server, "s").await;
        for (stream, person, sees) in &mut open {
            assert_eq!(arguments(stream).await, **sees);
            let listed = person.get("/api/v1/interrupts").await.expect(200);
            assert_eq!(listed.data()[0]["id"], *last);
            assert_eq!(listed.data()[0]["tool_args"], **sees);
            if **sees == masked {
                assert!(!listed.text().contains("s3cret"));
            }
        }
        let (mut stream, mut manager, _) = open.pop().unwrap();
        let id = id_of(&mut manager).await;
        ceo.patch(&format!("/api/v1/users/{id}"), &json!({"role": "observer"})).await.expect(200);
        tool(&server, "s").await;
        assert_eq!(arguments(&mut stream).await, masked, "a role that was lost counts at once");
        let mut replayed = Stream::after(&open[0].1, "s", Some("evt-unknown")).await;
        assert_eq!(arguments(&mut replayed).await, masked);
    }
}

//! Agents wait for people: one decides, everyone who waits hears it.

use std::time::Duration;

use futures_util::future::join_all;
use quarterdeck_domain::interrupt::{Ask, Interrupt, Resolution, Resume, ResumeDecision};
use quarterdeck_domain::role::HumanRole;
use quarterdeck_http::limits::Overrides;
use quarterdeck_testkit::{TestDb, TestServer, on_both_databases};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{SOON, Stream, elsewhere, id, question, tool, words};

const LONG: Duration = Duration::from_secs(600);

/// Waits on this copy; begun when this returns.
async fn waiter(server: &TestServer, id: &str, longest: Duration) -> JoinHandle<Option<Resolution>> {
    let (interrupts, id) = (server.app.interrupts.clone(), id.to_owned());
    let before = interrupts.awaited();
    let waits = tokio::spawn({
        let interrupts = interrupts.clone();
        async move { interrupts.wait(&id, longest).await.expect("the store answers") }
    });
    while interrupts.awaited() == before && !waits.is_finished() {
        tokio::task::yield_now().await;
    }
    waits
}

async fn answer(waits: JoinHandle<Option<Resolution>>) -> Option<Resolution> {
    timeout(SOON, waits).await.expect("woken, not out of time").unwrap()
}

fn resume(id: &str) -> String {
    format!("/api/v1/interrupts/{id}/resume")
}

on_both_databases! {
    async fn of_racing_answers_one_counts_and_every_waiter_hears_that_one(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = elsewhere(&server).await;
        let there = second.as_ref().unwrap_or(&server);
        let (here_ceo, there_ceo) = (server.ceo().await, there.ceo().await);
        for _ in 0..10 {
            let id = tool(&server, "s").await;
            let mut waits = vec![waiter(&server, &id, LONG).await];
            let (interrupts, same) = (server.app.interrupts.clone(), id.clone());
            waits.push(tokio::spawn(async move { interrupts.wait(&same, LONG).await.unwrap() }));
            let (interrupts, same) = (there.app.interrupts.clone(), id.clone());
            waits.push(tokio::spawn(async move { interrupts.wait(&same, LONG).await.unwrap() }));
            let answers = join_all((0..8).map(|number| {
                let mut caller = if number % 2 == 0 { here_ceo.clone() } else { there_ceo.clone() };
                let decision = ["approve", "reject", "revise"][number % 3];
                let body = json!({"decision": decision, "feedback": number.to_string()});
                let path = if number % 4 < 2 { resume(&id) } else { format!("/api/v1/events/resume/{id}") };
                async move { (number, caller.post(&path, &body).await) }
            }))
            .await;
            let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, a)| a.status == 200);
            assert_eq!((won.len(), lost.len()), (1, 7));
            assert_eq!(won[0].1.data(), json!({"status": "resumed"}));
            for (_, refusal) in lost {
                let error = refusal.refused(404, 3000).error();
                assert_eq!(error, format!("Interrupt '{id}' is no longer pending"));
            }
            for waits in waits {
                let resolution = answer(waits).await.expect("a decision");
                let feedback = resolution.resume.feedback.unwrap();
                assert_eq!(feedback.as_str(), won[0].0.to_string());
                assert_eq!(resolution.resolved_by, "ceo");
                assert_eq!(resolution.resolved_at, server.now());
            }
        }
        assert_eq!((server.app.interrupts.awaited(), there.app.interrupts.awaited()), (0, 0));
    }

    async fn an_answer_on_another_copy_wakes_whoever_waits_here(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = elsewhere(&server).await;
        let there = second.as_ref().unwrap_or(&server);
        let mut ceo = there.ceo().await;
        let id = question(&server, "s").await;
        let waits = waiter(&server, &id, LONG).await;
        ceo.post(&resume(&id), &json!({"response": "because"})).await.expect(200);
        let resolution = answer(waits).await.expect("an answer");
        assert_eq!(resolution.resume, Resume { response: Some(words("because")), ..Resume::default() });
    }

    async fn time_racing_an_answer_ends_in_one_of_the_two(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = elsewhere(&server).await;
        let there = second.as_ref().unwrap_or(&server);
        let ceo = there.ceo().await;
        let mut ends = [0, 0];
        for round in 0..60 {
            let id = tool(&server, "s").await;
            // From nothing to a second, through the time an answer takes.
            let longest = Duration::from_secs_f64(1e-6 * 1.26f64.powi(round));
            let waits = waiter(&server, &id, longest).await;
            let answered = ceo.clone().post(&resume(&id), &json!({"decision": "approve"})).await;
            match (answer(waits).await, answered.status) {
                (Some(resolution), 200) => {
                    assert_eq!(resolution.resume.decision, Some(ResumeDecision::Approve));
                    ends[0] += 1;
                }
                (None, 404) => {
                    assert_eq!(answered.error(), format!("Interrupt '{id}' is no longer pending"));
                    ends[1] += 1;
                }
                other => panic!("two ends: {other:?}"),
            }
        }
        assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}");
        let pending = ceo.clone().get("/api/v1/interrupts").await.expect(200);
        assert_eq!(pending.data(), json!([]));
    }

    async fn time_that_is_over_ends_an_interrupt_for_everyone_who_waits(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = elsewhere(&server).await;
        let there = second.as_ref().unwrap_or(&server);
        let mut ceo = server.ceo().await;
        let id = tool(&server, "s").await;
        let patient = waiter(there, &id, LONG).await;
        let hasty = server.app.interrupts.wait(&id, Duration::from_millis(20)).await.unwrap();
        assert_eq!((hasty, answer(patient).await), (None, None));
        let late = ceo.post(&resume(&id), &json!({"decision": "approve"})).await.refused(404, 3000);
        assert_eq!(late.error(), format!("Interrupt '{id}' is no longer pending"));
        assert_eq!(server.app.interrupts.wait("unknown", LONG).await.unwrap(), None);
        assert_eq!(server.app.interrupts.wait(&id, LONG).await.unwrap(), None);
    }

    async fn an_answer_waits_for_who_asks_later_and_its_id_is_never_given_again(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let ask = Ask::InfoRequest { question: words("why?"), context_snippet: Some(words("this")) };
        let interrupt = Interrupt::new(id("s"), words("a"), ask, server.now()).unwrap();
        let refused = async || {
            let again = server.app.interrupts.create(interrupt.clone()).await.unwrap_err();
            assert_eq!((again.status(), again.code().number()), (409, 4001));
        };
        server.app.interrupts.create(interrupt.clone()).await.unwrap();
        refused().await;
        ceo.post(&resume(&interrupt.id), &json!({"response": "so"})).await.expect(200);
        refused().await;
        for _ in 0..2 {
            let read = server.app.interrupts.wait(&interrupt.id, LONG).await.unwrap().unwrap();
            assert_eq!(read.resume.response, Some(words("so")));
        }
        refused().await;
    }

    async fn what_waits_is_listed_as_it_was_asked(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let first = tool(&server, "a").await;
        server.advance(Duration::from_millis(1500));
        let second = question(&server, "b").await;
        let tool = json!({
            "id": first, "type": "tool_approval", "session_id": "a", "agent_id": "agent-1",
            "created_at": "2027-01-15T08:00:00+00:00", "timeout_seconds": 300.0, "tool_name": "shell",
            "tool_args": {"path": "/etc", "token": "s3cret"}, "evidence_package_id": "e-1",
            "question": null, "context_snippet": null,
        });
        let info = json!({
            "id": second, "type": "info_request", "session_id": "b", "agent_id": "agent-1",
            "created_at": "2027-01-15T08:00:01.500+00:00", "timeout_seconds": 300.0, "tool_name": null,
            "tool_args": null, "evidence_package_id": null, "question": "why?", "context_snippet": null,
        });
        let all = ceo.get("/api/v1/interrupts").await.expect(200).json();
        assert_eq!((&all["data"], &all["success"]), (&json!([tool, info]), &json!(true)));
        assert_eq!(all.get("pagination"), None);
        let of = async |mut caller: quarterdeck_testkit::Caller, session: &str| {
            caller.get(&format!("/api/v1/interrupts?session_id={session}")).await.expect(200).data()
        };
        assert_eq!(of(ceo.clone(), "b").await, json!([info]));
        assert_eq!(of(ceo.clone(), "B").await, json!([]));
        ceo.post(&resume(&first), &json!({"decision": "reject"})).await.expect(200);
        assert_eq!(of(ceo.clone(), "a").await, json!([]));
    }

    async fn only_those_who_decide_may_answer(db: TestDb) {
        let server = TestServer::on(db).await;
        let id = tool(&server, "s").await;
        let body = json!({"decision": "approve"});
        server.anonymous().post(&resume(&id), &body).await.refused(401, 1000);
        for role in [HumanRole::Observer, HumanRole::PairProgrammer] {
            let mut person = server.person(role.as_str(), role).await;
            person.post(&resume(&id), &body).await.refused(403, 1001);
            person.post(&format!("/api/v1/events/resume/{id}"), &body).await.refused(403, 1001);
            person.get("/api/v1/interrupts").await.expect(200);
        }
        for role in [HumanRole::BoardMember, HumanRole::Manager] {
            let id = tool(&server, "s").await;
            let mut person = server.person(role.as_str(), role).await;
            person.post(&resume(&id), &body).await.expect(200);
            let resolution = server.app.interrupts.wait(&id, LONG).await.unwrap().unwrap();
            assert_eq!(resolution.resolved_by, role.as_str());
        }
        let mut ceo = server.ceo().await;
        ceo.clone().without_csrf().post(&resume(&id), &body).await.refused(403, 1004);
        ceo.post(&format!("/api/v1/events/resume/{id}"), &body).await.expect(200);
    }

    async fn an_answer_that_does_not_fit_leaves_the_interrupt_waiting(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let (tool, info) = (tool(&server, "s").await, question(&server, "s").await);
        let unfit = ceo.post(&resume(&tool), &json!({"response": "yes"})).await.refused(422, 2000);
        assert_eq!(unfit.error(), "TOOL_APPROVAL interrupts require a decision");
        let unfit = ceo.post(&resume(&info), &json!({"decision": "approve"})).await.refused(422, 2000);
        assert_eq!(unfit.error(), "INFO_REQUEST interrupts require a response");
        for malformed in [
            json!({"decision": "maybe"}),
            json!({"decision": "approve", "feedback": " "}),
            json!({"response": ""}),
            json!({"decision": "approve", "feedback": "a\0"}),
            json!([]),
        ] {
            ceo.post(&resume(&tool), &malformed).await.refused(400, 2001);
        }
        ceo.post(&resume(&"x".repeat(129)), &json!({})).await.refused(400, 2001);
        let unknown = ceo.post(&resume("int-1"), &json!({})).await.refused(404, 3000);
        assert_eq!(unknown.error(), "Interrupt 'int-1' not found");
        assert_eq!(server.app.interrupts.pending(None).await.unwrap().len(), 2);
        let fit = json!({"decision": "revise", "feedback": null, "response": null, "other": 1});
        ceo.post(&resume(&tool), &fit).await.expect(200);
        ceo.post(&resume(&info), &json!({"response": "so"})).await.expect(200);
    }

    async fn streams_and_sockets_are_told_of_each_interrupt_and_its_end_once(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut ceo).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["interrupts"]})).await;
        let mut stream = Stream::open(&ceo, "s").await;
        let (first, second) = (tool(&server, "s").await, question(&server, "s").await);
        ceo.post(&resume(&first), &json!({"response": "yes"})).await.refused(422, 2000);
        ceo.post(&resume(&first), &json!({"decision": "approve", "feedback": "ok"})).await.expect(200);
        ceo.post(&resume(&first), &json!({"decision": "approve"})).await.refused(404, 3000);
        ceo.post(&resume(&second), &json!({"response": "so"})).await.expect(200);
        for (kind, payload) in [
            ("approval_interrupt", json!({
                "interrupt_id": first, "timeout_seconds": 300.0, "tool_name": "shell",
                "tool_args": {"path": "/etc", "token": "s3cret"}, "evidence_package_id": "e-1",
            })),
            ("info_request_interrupt", json!({
                "interrupt_id": second, "timeout_seconds": 300.0, "question": "why?", "context_snippet": null,
            })),
            ("approval_resumed", json!({
                "interrupt_id": first, "decision": "approve", "feedback": "ok", "response": null,
                "resolved_by": "ceo",
            })),
            ("info_request_resumed", json!({
                "interrupt_id": second, "decision": null, "feedback": null, "response": "so",
                "resolved_by": "ceo",
            })),
        ] {
            let frame = stream.next().await.unwrap();
            assert_eq!((frame.event.as_str(), &frame.data["payload"]), (kind, &payload));
            assert_eq!(frame.data["agent_id"], "agent-1");
        }
        for (event_type, id) in [
            ("interrupt.created", &first), ("interrupt.created", &second),
            ("interrupt.resumed", &first), ("interrupt.resumed", &second),
        ] {
            let event = socket.next().await;
            assert_eq!((&event["event_type"], &event["channel"]), (&json!(event_type), &json!("interrupts")));
            assert_eq!(event["payload"]["interrupt_id"], **id);
            assert!(!event.to_string().contains("s3cret"));
        }
    }
}

#[tokio::test]
async fn who_gives_up_waiting_leaves_nothing_behind() {
    let server = TestServer::start().await;
    let id = tool(&server, "s").await;
    let waits = [waiter(&server, &id, LONG).await, waiter(&server, &id, LONG).await];
    for waits in waits {
        waits.abort();
        let _ = waits.await;
    }
    assert_eq!(server.app.interrupts.awaited(), 0);
    assert_eq!(server.app.interrupts.pending(None).await.unwrap().len(), 1, "it still waits for a person");
}

#[tokio::test]
async fn answers_are_limited_to_a_hundred_a_minute() {
    let server = TestServer::with(TestDb::sqlite(), |options| {
        options.overrides = Overrides::new(true, &json!({}), true, &json!({}));
    })
    .await;
    let mut ceo = server.ceo().await;
    for _ in 0..100 {
        ceo.post(&resume("unknown"), &json!({})).await.refused(404, 3000);
    }
    ceo.post(&resume("unknown"), &json!({})).await.refused(429, 5001);
}

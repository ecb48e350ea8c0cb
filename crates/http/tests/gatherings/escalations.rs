//! Conflicts before people: one of those who end one ends it.

use futures_util::future::join_all;
use quarterdeck_domain::conflict::DecisionStrategy;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{TestDb, TestServer, on_both_databases};
use serde_json::{Value, json};

use super::{at, conflict, elsewhere, escalate, left, limited, resolver, winner};

const LIST: &str = "/api/v1/conflicts/escalations";

fn reason() -> Value {
    json!({"reason": "no longer needed"})
}

fn ids(answer: &quarterdeck_testkit::Answer) -> Vec<String> {
    let data = answer.json()["data"].take();
    let id = |item: &Value| item["escalation"]["id"].as_str().expect("an id").to_owned();
    data.as_array().expect("a list").iter().map(id).collect()
}

/// A server on which somebody waits no longer than a minute.
async fn hasty(db: TestDb) -> TestServer {
    TestServer::with(db, |options| options.escalations.default_timeout_seconds = Some(60)).await
}

on_both_databases! {
    async fn of_racing_decisions_cancellations_and_sweeps_one_wins(db: TestDb) {
        let server = hasty(db).await;
        let second = elsewhere(&server).await;
        let there = second.as_ref().unwrap_or(&server);
        let (here_ceo, there_ceo) = (server.ceo().await, there.ceo().await);
        let mut ends = [0; 3];
        for round in 0..24 {
            let id = left(&server).await;
            server.advance(std::time::Duration::from_secs(60));
            // Who is asked first differs, or the sweep would never win or always.
            let asked = join_all((0..6).map(|number| {
                let mut caller = if number % 2 == 0 { here_ceo.clone() } else { there_ceo.clone() };
                let id = id.clone();
                async move {
                    match number % 3 {
                        0 => caller.post(&at(&id, "decision"), &winner("bob")).await,
                        _ => caller.post(&at(&id, "cancel"), &reason()).await,
                    }
                }
            }));
            let swept = async {
                let (here, there) = (server.app.escalations.sweep(), there.app.escalations.sweep());
                let (here, there) = tokio::join!(here, there);
                here.unwrap() + there.unwrap()
            };
            let (answers, swept) = if round % 2 == 0 {
                tokio::join!(asked, swept)
            } else {
                let (swept, answers) = tokio::join!(swept, asked);
                (answers, swept)
            };
            let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
            assert_eq!(won.len() + swept, 1, "one end");
            for refusal in lost {
                refusal.refused(409, 4000);
            }
            let now = here_ceo.clone().get(&format!("{LIST}/{id}")).await.expect(200).data();
            let status = now["status"].as_str().unwrap();
            match won.first() {
                Some(winner) => assert_eq!(winner.data(), now, "the winner was told what is"),
                None => assert_eq!((status, &now["escalation"]["decided_by"]), ("expired", &json!("system:expiry"))),
            }
            ends[["decided", "cancelled", "expired"].iter().position(|end| *end == status).unwrap()] += 1;
        }
        assert!((1..24).contains(&ends[2]), "{ends:?}");
    }

    async fn a_decision_is_told_kept_and_answered_whole(db: TestDb) {
        let server = hasty(db).await;
        let mut ceo = server.ceo().await;
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut ceo).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["approvals", "#dissent"]})).await;
        let (first, second, third) = (left(&server).await, left(&server).await, left(&server).await);
        let answer = ceo.post(&at(&first, "decision"), &winner("bob")).await.expect(201).data();
        let me = ceo.get("/api/v1/auth/me").await.data()["id"].take();
        let by = format!("human:{}", me.as_str().unwrap());
        let body = &answer["escalation"];
        assert_eq!(answer["status"], "decided");
        assert_eq!(answer["conflict_id"], body["conflict"]["id"]);
        assert_eq!(body["decided_by"], by);
        assert_eq!((&body["decided_at"], &body["expires_at"]), (&json!("2027-01-15T08:00:00Z"), &json!("2027-01-15T08:01:00Z")));
        assert_eq!(body["decision"], winner("bob")["decision"]);
        assert_eq!(body["cancel_reason"], Value::Null);
        assert_eq!(body["conflict"]["is_cross_department"], true);
        assert_eq!(body["conflict"]["positions"].as_array().unwrap().len(), 3);
        let cancelled = ceo.post(&at(&second, "cancel"), &reason()).await.expect(201).data();
        assert_eq!(cancelled["escalation"]["cancel_reason"], "no longer needed");
        assert_eq!((&cancelled["escalation"]["decision"], &cancelled["escalation"]["decided_by"]), (&Value::Null, &json!(by)));
        server.advance(std::time::Duration::from_secs(59));
        assert_eq!(server.app.escalations.sweep().await.unwrap(), 0);
        server.advance(std::time::Duration::from_secs(1));
        assert_eq!(server.app.escalations.sweep().await.unwrap(), 1, "at its time, not after it");
        assert_eq!(server.app.escalations.sweep().await.unwrap(), 0);
        let mut heard = Vec::new();
        for _ in 0..8 {
            heard.push(socket.next().await);
        }
        let told = |channel: &str| heard.iter().filter(|event| event["channel"] == channel).cloned().collect::<Vec<_>>();
        let types: Vec<_> = told("approvals").iter().map(|event| event["event_type"].as_str().unwrap().to_owned()).collect();
        assert_eq!(types, [
            "escalation.created", "escalation.created", "escalation.created", "escalation.decided",
            "escalation.cancelled", "escalation.expired",
        ]);
        assert_eq!(told("approvals")[3]["payload"], json!({
            "escalation_id": first, "conflict_id": answer["conflict_id"], "status": "decided", "task_id": "task-1",
            "decided_by": by,
        }));
        assert_eq!(told("approvals")[5]["payload"]["escalation_id"], json!(third));
        let dissents: Vec<_> = told("#dissent").iter().map(|event| event["payload"].clone()).collect();
        assert_eq!(dissents, [
            json!({"task_id": "task-1", "agent_id": "ada", "message": "ada is right"}),
            json!({"task_id": "task-1", "agent_id": "eve", "message": "eve is right"}),
        ]);
        assert!(server.db.dump().await.contains("escalation:decide"), "on record");
    }

    async fn the_list_is_the_pending_ones_the_oldest_first_unless_asked(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut all = Vec::new();
        for _ in 0..5 {
            all.push(left(&server).await);
            server.advance(std::time::Duration::from_millis(1));
        }
        ceo.post(&at(&all[1], "decision"), &winner("ada")).await.expect(201);
        ceo.post(&at(&all[3], "cancel"), &reason()).await.expect(201);
        let list = ceo.get(LIST).await.expect(200);
        assert_eq!(ids(&list), [&all[0], &all[2], &all[4]].map(Clone::clone));
        assert_eq!(list.json()["pagination"], json!({"total": 3, "offset": 0, "limit": 50}));
        assert_eq!(list.json()["degraded_sources"], json!([]));
        let page = ceo.get(&format!("{LIST}?offset=1&limit=1")).await.expect(200);
        assert_eq!(ids(&page), [all[2].clone()]);
        let beyond = ceo.get(&format!("{LIST}?offset=9")).await.expect(200);
        assert_eq!((ids(&beyond).len(), &beyond.json()["pagination"]["offset"]), (0, &json!(3)));
        for (status, found) in [("decided", 1), ("cancelled", 1), ("expired", 0), ("pending", 3)] {
            let list = ceo.get(&format!("{LIST}?status={status}")).await.expect(200);
            assert_eq!(ids(&list).len(), found, "{status}");
        }
        for query in ["status=done", "status=", "limit=0", "limit=201", "offset=-1"] {
            ceo.get(&format!("{LIST}?{query}")).await.refused(400, 2001);
        }
    }

    async fn a_broken_row_never_breaks_the_list_or_the_sweep(db: TestDb) {
        let server = hasty(db).await;
        let mut ceo = server.ceo().await;
        let (first, broken, last) = (left(&server).await, left(&server).await, left(&server).await);
        for damage in ["conflict = 'no json'", "conflict = '{}'", "decided_at = NULL"] {
            let sql = format!("UPDATE escalations SET {damage} WHERE id = '{broken}'");
            server.db.execute(&sql).await;
            let list = ceo.get(LIST).await.expect(200);
            let mut found = ids(&list);
            found.sort();
            assert_eq!(found, [first.clone(), last.clone()], "{damage}");
            assert_eq!(list.json()["degraded_sources"], json!(["escalations"]));
            ceo.get(&format!("{LIST}/{broken}")).await.refused(500, 8002);
        }
        server.advance(std::time::Duration::from_secs(60));
        assert_eq!(server.app.escalations.sweep().await.unwrap(), 3, "also what cannot be read");
    }

    async fn of_a_conflict_one_escalation_is_pending(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = elsewhere(&server).await;
        let there = second.as_ref().unwrap_or(&server);
        let conflict = conflict(&server);
        let tries = join_all((0..8).map(|number| {
            let at = if number % 2 == 0 { &server } else { there };
            let (escalations, conflict) = (at.app.escalations.clone(), conflict.clone());
            async move { escalations.escalate(conflict, &resolver()).await.map(|waiting| waiting.id().to_owned()) }
        }))
        .await;
        let (won, lost): (Vec<_>, Vec<_>) = tries.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 7));
        assert!(lost.into_iter().all(|refused| refused.unwrap_err().status() == 409));
        let mut ceo = server.ceo().await;
        let id = won.into_iter().next().unwrap().unwrap();
        ceo.post(&at(&id, "cancel"), &reason()).await.expect(201);
        server.app.escalations.escalate(conflict, &resolver()).await.expect("another one after its end");
    }

    async fn what_is_refused_leaves_the_escalation_pending(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let id = left(&server).await;
        let reject = json!({"decision": {"type": "reject", "reasoning": "neither"}});
        ceo.post(&at(&id, "decision"), &reject).await.refused(422, 2000);
        ceo.post(&at("unknown", "decision"), &reject).await.refused(422, 2000);
        ceo.post(&at(&id, "decision"), &winner("mallory")).await.refused(422, 2000);
        for malformed in [
            json!({}),
            json!({"decision": {"type": "coin"}}),
            json!({"decision": {"type": "winner", "reasoning": "r"}}),
            json!({"decision": {"type": "winner", "winning_agent_id": "ada"}}),
            json!({"decision": {"type": "winner", "winning_agent_id": "ada", "reasoning": " "}}),
            json!({"decision": {"type": "winner", "winning_agent_id": "ada", "reasoning": "r".repeat(4097)}}),
            json!({"decision": "winner"}),
            json!([]),
        ] {
            ceo.post(&at(&id, "decision"), &malformed).await.refused(400, 2001);
        }
        for malformed in [json!({}), json!({"reason": ""}), json!({"reason": "\n"}), json!({"reason": "r".repeat(4097)})] {
            ceo.post(&at(&id, "cancel"), &malformed).await.refused(400, 2001);
        }
        let unknown = ceo.post(&at("unknown", "decision"), &winner("ada")).await.refused(404, 3000);
        assert_eq!(unknown.error(), "Escalation 'unknown' not found");
        ceo.post(&at("unknown", "cancel"), &reason()).await.refused(404, 3000);
        ceo.get(&format!("{LIST}/unknown")).await.refused(404, 3000);
        ceo.get(&format!("{LIST}/{}", "x".repeat(129))).await.refused(400, 2001);
        assert_eq!(ids(&ceo.get(LIST).await), std::slice::from_ref(&id), "still pending");
        let text = "r".repeat(4096);
        let longest = json!({"decision": {"type": "winner", "winning_agent_id": "ada", "reasoning": text}, "more": 1});
        ceo.post(&at(&id, "decision"), &longest).await.expect(201);
        let late = ceo.post(&at(&id, "cancel"), &reason()).await.refused(409, 4000);
        assert_eq!(late.error(), format!("Escalation '{id}' is no longer pending: it is decided"));
    }

    async fn only_those_who_approve_may_end_one(db: TestDb) {
        let server = TestServer::on(db).await;
        let id = left(&server).await;
        for (action, body) in [("decision", winner("ada")), ("cancel", reason())] {
            server.anonymous().post(&at(&id, action), &body).await.refused(401, 1000);
            server.system_cli().post(&at(&id, action), &body).await.refused(403, 1001);
            for role in [HumanRole::Observer, HumanRole::PairProgrammer] {
                let mut person = server.person(role.as_str(), role).await;
                person.post(&at(&id, action), &body).await.refused(403, 1001);
                person.get(LIST).await.expect(200);
                person.get(&format!("{LIST}/{id}")).await.expect(200);
            }
        }
        server.system_cli().get(LIST).await.refused(403, 1001);
        server.anonymous().get(&format!("{LIST}/{id}")).await.refused(401, 1000);
        for role in [HumanRole::BoardMember, HumanRole::Manager] {
            let id = left(&server).await;
            let mut person = server.person(role.as_str(), role).await;
            person.post(&at(&id, "decision"), &winner("ada")).await.expect(201);
        }
        let mut ceo = server.ceo().await;
        ceo.clone().without_csrf().post(&at(&id, "cancel"), &reason()).await.refused(403, 1004);
        ceo.post(&at(&id, "cancel"), &reason()).await.expect(201);
    }
}

#[tokio::test]
async fn where_the_operator_allows_it_all_positions_can_be_refused() {
    let server = TestServer::with(TestDb::sqlite(), |options| {
        options.escalations.decision_strategy = DecisionStrategy::Hybrid;
    })
    .await;
    let mut ceo = server.ceo().await;
    let waiting = escalate(&server).await;
    let reject = json!({"decision": {"type": "reject", "reasoning": "neither"}});
    ceo.post(&at(waiting.id(), "decision"), &reject).await.expect(201);
    let resolution = waiting.resolution().await.unwrap().unwrap();
    assert_eq!(resolution.outcome.as_str(), "rejected_by_human");
    let losers: Vec<_> = resolution.dissents.iter().map(|dissent| dissent.agent_id.as_str()).collect();
    assert_eq!(losers, ["ada", "bob", "eve"]);
    let another = left(&server).await;
    ceo.post(&at(&another, "decision"), &winner("eve")).await.expect(201);
}

#[tokio::test]
async fn the_thirty_first_decision_of_a_minute_is_one_too_many() {
    let server = limited().await;
    let mut ceo = server.ceo().await;
    let id = left(&server).await;
    for (action, body) in [("decision", winner("mallory")), ("cancel", json!({}))] {
        let before = if action == "decision" { 422 } else { 400 };
        for _ in 0..30 {
            ceo.post(&at(&id, action), &body).await.expect(before);
        }
        let refused = ceo.post(&at(&id, action), &body).await.refused(429, 5001);
        assert!(
            refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| (1..=60).contains(&seconds))
        );
    }
    for path in [LIST.to_owned(), format!("{LIST}/{id}")] {
        for _ in 0..120 {
            ceo.get(&path).await.expect(200);
        }
        ceo.get(&path).await.refused(429, 5001);
    }
}

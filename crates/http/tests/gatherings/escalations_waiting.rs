//! Those who wait for a decision hear of it once, wherever it was made.

use std::time::Duration;

use quarterdeck_domain::conflict::{ConflictOutcome, Decision};
use quarterdeck_domain::escalation::{EscalationStatus, Fate};
use quarterdeck_testkit::{TestDb, TestServer, on_both_databases};
use quarterdeck_work::escalations::{CrossInstanceNotify, Resolution, Waiting};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{SOON, at, conflict, elsewhere, escalate, left, resolver, winner, words};

fn waits(waiting: Waiting) -> JoinHandle<Option<Resolution>> {
    tokio::spawn(async move { waiting.resolution().await.expect("the store answers") })
}

async fn answer(waits: JoinHandle<Option<Resolution>>) -> Option<Resolution> {
    timeout(SOON, waits).await.expect("woken, not out of time").unwrap()
}

/// A server on which somebody waits no longer than this.
async fn patient(db: TestDb, seconds: u32) -> TestServer {
    TestServer::with(db, |options| options.escalations.default_timeout_seconds = Some(seconds)).await
}

on_both_databases! {
    async fn a_decision_on_another_copy_wakes_whoever_waits_here(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = elsewhere(&server).await;
        let there = second.as_ref().unwrap_or(&server);
        let mut ceo = there.ceo().await;
        let waiting = escalate(&server).await;
        let id = waiting.id().to_owned();
        let waits = waits(waiting);
        tokio::task::yield_now().await;
        ceo.post(&at(&id, "decision"), &winner("bob")).await.expect(201);
        let resolution = answer(waits).await.expect("a decision");
        assert_eq!(resolution.outcome, ConflictOutcome::ResolvedByHuman);
        let Fate::Decided(Decision::Winner { winning_agent_id, .. }) = &resolution.escalation.fate else { panic!() };
        assert_eq!(winning_agent_id.as_str(), "bob");
        let losers: Vec<_> = resolution.dissents.iter().map(|d| (d.agent_id.as_str(), d.position.as_str())).collect();
        assert_eq!(losers, [("ada", "ada is right"), ("eve", "eve is right")]);
        assert_eq!(server.app.escalations.awaited(), 0);
    }

    async fn a_cancellation_wakes_too_and_nobody_has_lost(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let waiting = escalate(&server).await;
        let id = waiting.id().to_owned();
        let waits = waits(waiting);
        ceo.post(&at(&id, "cancel"), &json!({"reason": "settled among them"})).await.expect(201);
        let resolution = answer(waits).await.expect("an end");
        assert_eq!((resolution.outcome, resolution.dissents.len()), (ConflictOutcome::EscalatedToHuman, 0));
        assert_eq!(resolution.escalation.fate, Fate::Cancelled(Some("settled among them".to_owned())));
    }

    async fn a_decision_before_anybody_listens_is_honoured(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let waiting = escalate(&server).await;
        ceo.post(&at(waiting.id(), "decision"), &winner("ada")).await.expect(201);
        let resolution = answer(waits(waiting)).await.expect("a decision");
        assert_eq!(resolution.outcome, ConflictOutcome::ResolvedByHuman);
    }

    async fn time_racing_a_decision_ends_in_one_of_the_two(db: TestDb) {
        let server = patient(db, 60).await;
        let second = elsewhere(&server).await;
        let there = second.as_ref().unwrap_or(&server);
        let ceo = there.ceo().await;
        let mut ends = [0, 0];
        for round in 0..40 {
            let id = left(&server).await;
            // Of the minute so much is left: from nothing to a tenth of a second.
            let left = Duration::from_micros(1.34f64.powi(round) as u64);
            server.advance(Duration::from_secs(60) - left);
            let waits = waits(server.app.escalations.wait_again(&id).await.unwrap());
            let decided = ceo.clone().post(&at(&id, "decision"), &winner("ada")).await;
            let resolution = answer(waits).await.expect("an end");
            match (resolution.outcome, decided.status) {
                (ConflictOutcome::ResolvedByHuman, 201) => ends[0] += 1,
                (ConflictOutcome::EscalatedToHuman, 409) => {
                    assert_eq!(resolution.escalation.status(), EscalationStatus::Expired);
                    ends[1] += 1;
                }
                other => panic!("two ends: {other:?}"),
            }
        }
        assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}");
    }

    async fn who_stops_waiting_leaves_the_row_and_a_restart_waits_again(db: TestDb) {
        let server = TestServer::on(db).await;
        let waiting = escalate(&server).await;
        let id = waiting.id().to_owned();
        let waits = waits(waiting);
        tokio::task::yield_now().await;
        server.app.escalations.stop();
        assert_eq!(answer(waits).await, None, "sent away");
        assert_eq!(server.app.escalations.get(&id).await.unwrap().status(), EscalationStatus::Pending);
        let Some(restarted) = elsewhere(&server).await else { return };
        let again = tokio::spawn(restarted.app.escalations.wait_again(&id).await.unwrap().resolution());
        restarted.ceo().await.post(&at(&id, "decision"), &winner("eve")).await.expect(201);
        let resolution = timeout(SOON, again).await.unwrap().unwrap().unwrap().unwrap();
        assert_eq!(resolution.outcome, ConflictOutcome::ResolvedByHuman);
    }

    async fn who_needs_no_answer_takes_the_escalation_back(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let waiting = escalate(&server).await;
        let id = waiting.id().to_owned();
        waiting.withdraw().await.unwrap();
        let now = ceo.get(&format!("/api/v1/conflicts/escalations/{id}")).await.expect(200).data();
        assert_eq!(now["status"], "cancelled");
        assert_eq!(now["escalation"]["decided_by"], "system:resolver_cancelled");
        ceo.post(&at(&id, "decision"), &winner("ada")).await.refused(409, 4000);
    }
}

#[tokio::test]
async fn one_waits_for_one_escalation_on_one_copy() {
    let server = TestServer::start().await;
    let waiting = escalate(&server).await;
    let refused = server.app.escalations.wait_again(waiting.id()).await.err().expect("refused");
    assert_eq!(refused.status(), 409);
    let id = waiting.id().to_owned();
    drop(waiting);
    assert_eq!(server.app.escalations.awaited(), 0);
    assert!(server.app.escalations.wait_again(&id).await.is_ok());
    assert_eq!(server.app.escalations.wait_again("unknown").await.err().unwrap().status(), 404);
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_awaited() {
    let server = TestServer::start().await;
    let mut broken = conflict(&server);
    broken.positions.truncate(1);
    assert_eq!(server.app.escalations.escalate(broken, &resolver()).await.err().unwrap().status(), 422);
    let mut named = conflict(&server);
    named.id = words("twice");
    let _first = server.app.escalations.escalate(named.clone(), &resolver()).await.unwrap();
    assert!(server.app.escalations.escalate(named, &resolver()).await.is_err());
    assert_eq!(server.app.escalations.awaited(), 1);
}

/// Another program ends escalations in the database and says so on the channel.
#[tokio::test]
async fn ends_told_by_another_program_wake_and_ends_here_are_told_to_it() {
    let Some(db) = TestDb::postgres().await else { return };
    let server = TestServer::on(db).await;
    let pool = server.db.postgres_pool().await.unwrap();
    let mut listener = sqlx::postgres::PgListener::connect_with(&pool).await.unwrap();
    listener.listen("conflict_escalation_events").await.unwrap();
    let ears = server.app.escalations.clone();
    let hearing = tokio::spawn(async move { ears.keep_listening().await });

    let mut ceo = server.ceo().await;
    let told = left(&server).await;
    ceo.post(&at(&told, "decision"), &winner("ada")).await.expect(201);
    let heard = timeout(SOON, listener.recv()).await.expect("told").unwrap();
    assert_eq!(heard.payload(), format!("{told}:decided"));

    let waiting = escalate(&server).await;
    let id = waiting.id().to_owned();
    let waits = waits(waiting);
    // Until both listen, counted by the database itself.
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                     AND query LIKE 'LISTEN%conflict_escalation_events%'";
    let counting = other(&server).await;
    loop {
        let count: i64 = sqlx::query_scalar(listening).fetch_one(&counting).await.unwrap();
        if count == 2 {
            break;
        }
        tokio::task::yield_now().await;
    }
    server.db.execute(&format!(
        "BEGIN; UPDATE escalations SET status = 'expired', decided_at = 1, decided_by = 'system:expiry' WHERE id = '{id}'; \
         SELECT pg_notify('conflict_escalation_events', 'garbage'); \
         SELECT pg_notify('conflict_escalation_events', '{id}:won'); \
         SELECT pg_notify('conflict_escalation_events', '{id}:expired'); \
         SELECT pg_notify('conflict_escalation_events', '{id}:expired '); COMMIT"
    ))
    .await;
    let resolution = answer(waits).await.expect("an end");
    assert_eq!(resolution.escalation.status(), EscalationStatus::Expired);
    server.app.escalations.stop();
    timeout(SOON, hearing).await.expect("it stops").unwrap();
}

async fn other(server: &TestServer) -> sqlx::PgPool {
    server.db.postgres_pool().await.expect("PostgreSQL")
}

#[tokio::test]
async fn nothing_is_told_to_other_programs_where_the_operator_says_so() {
    let Some(db) = TestDb::postgres().await else { return };
    let server = TestServer::with(db, |options| {
        options.escalations.cross_instance_notify = CrossInstanceNotify::Off;
    })
    .await;
    let there = server.second(|_| {}).await;
    let mut listener = sqlx::postgres::PgListener::connect_with(&other(&server).await).await.unwrap();
    listener.listen("conflict_escalation_events").await.unwrap();
    timeout(SOON, server.app.escalations.keep_listening()).await.expect("nothing to hear");
    let waiting = escalate(&there).await;
    let id = waiting.id().to_owned();
    let waits = waits(waiting);
    server.ceo().await.post(&at(&id, "decision"), &winner("ada")).await.expect(201);
    assert!(answer(waits).await.is_some(), "copies of the program wake each other all the same");
    // What is told after it comes first.
    server.db.execute("SELECT pg_notify('conflict_escalation_events', 'last')").await;
    assert_eq!(timeout(SOON, listener.recv()).await.unwrap().unwrap().payload(), "last");
}

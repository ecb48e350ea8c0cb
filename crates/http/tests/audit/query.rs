//! Reading: who may, by what, in which order, and what is refused.

use std::time::Duration;

use axum::http::Method;
use quarterdeck_domain::audit::Verdict;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_http::v1::endpoints;
use quarterdeck_testkit::{TestServer, on_both_databases};
use serde_json::json;

use crate::{AUDIT, actions, entries, entry, put};

on_both_databases! {
    async fn everybody_who_may_read_reads_and_the_system_does_not(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut observer = server.person("observer", HumanRole::Observer).await;
        let mut board = server.person("board", HumanRole::BoardMember).await;
        let mut programmer = server.person("programmer", HumanRole::PairProgrammer).await;
        for path in [AUDIT.to_owned(), format!("{AUDIT}/verify"), format!("{AUDIT}/export")] {
            server.anonymous().get(&path).await.refused(401, 1000);
            server.system_cli().get(&path).await.refused(403, 1001);
        }
        for caller in [&mut observer, &mut board, &mut programmer, &mut ceo] {
            caller.get(AUDIT).await.expect(200);
        }
        observer.get(&format!("{AUDIT}/export")).await.refused(403, 1001);
        programmer.get(&format!("{AUDIT}/export")).await.refused(403, 1001);
        board.get(&format!("{AUDIT}/export")).await.expect(200);
        board.get(&format!("{AUDIT}/verify")).await.refused(403, 1001);
        ceo.get(&format!("{AUDIT}/verify")).await.expect(200);

        // Where people sit is not for everybody.
        let mut guest = server.anonymous().from("198.51.100.7");
        let body = json!({"username": "board", "password": quarterdeck_testkit::PASSWORD});
        guest.post("/api/v1/auth/login", &body).await.expect(200);
        assert_eq!(entries(&mut board, "action_type=auth:login").await[0]["ip"], "198.51.100.7");
        assert_eq!(entries(&mut observer, "action_type=auth:login").await[0]["ip"], json!(null));

        let value = json!({"value": "true"});
        ceo.put("/api/v1/settings/security/audit_restricted", &value).await.expect(200);
        observer.get(AUDIT).await.refused(403, 1001);
        programmer.get(AUDIT).await.refused(403, 1001);
        board.get(AUDIT).await.expect(200);
    }

    async fn conditions_hold_together_and_the_newest_comes_first(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let start = server.now();
        for (number, action) in ["test:one", "test:two", "test:two", "test:three"].into_iter().enumerate() {
            server.advance(Duration::from_secs(1));
            let mut entry = entry(&server, action).agent(&format!("agent-{}", number % 2));
            entry.tool_name = if number < 2 { "shell".to_owned() } else { "browser".to_owned() };
            entry.actor = format!("user-{}", number % 2);
            put(&server, if number == 2 { entry.verdict(Verdict::Deny) } else { entry }).await;
        }
        let at = |seconds: i64| (start + chrono::TimeDelta::seconds(seconds)).format("%Y-%m-%dT%H:%M:%SZ");
        let (three, two, one) = ("test:three", "test:two", "test:one");
        for (query, found) in [
            ("agent_id=agent-0".to_owned(), vec![two, one]),
            ("agent_id=agent-1&tool_name=browser".to_owned(), vec![three]),
            ("tool_name=shell".to_owned(), vec![two, one]),
            ("action_type=test:two".to_owned(), vec![two, two]),
            ("verdict=deny".to_owned(), vec![two]),
            ("verdict=escalate".to_owned(), vec![]),
            ("actor=user-1".to_owned(), vec![three, two]),
            (format!("since={}", at(3)), vec![three, two]),
            (format!("since={}&until={}", at(1), at(2)), vec![two, one]),
            (format!("until={}&tool_name=shell&verdict=allow", at(1)), vec![one]),
            ("agent_id=".to_owned(), vec![]),
        ] {
            assert_eq!(actions(&mut ceo, &query).await, found, "{query}");
        }
        let all = actions(&mut ceo, "").await;
        assert_eq!(all[..4], [three, two, two, one]);
        assert_eq!(all.last().unwrap(), "auth:setup");
        let page = ceo.get(&format!("{AUDIT}?tool_name=shell&offset=1&limit=1")).await.expect(200).json();
        assert_eq!(page["pagination"], json!({"total": 2, "offset": 1, "limit": 1}));
        assert_eq!(page["data"][0]["action_type"], one);
        let beyond = ceo.get(&format!("{AUDIT}?tool_name=shell&offset=9")).await.expect(200).json();
        assert_eq!((&beyond["data"], &beyond["pagination"]["offset"]), (&json!([]), &json!(2)));
        let again = ceo.get(&format!("{AUDIT}?offset=9223372036854775807")).await.expect(200).json();
        assert_eq!(again["data"], json!([]));

        let entry = &page["data"][0];
        for (member, value) in [
            ("agent_id", json!("agent-0")), ("task_id", json!(null)), ("approval_id", json!(null)),
            ("tool_category", json!("other")), ("verdict", json!("allow")), ("risk_level", json!("low")),
            ("matched_rules", json!([])), ("evaluation_duration_ms", json!(0.0)), ("confidence", json!("high")),
            ("request_id", json!(null)), ("ip", json!(null)), ("position", json!(1)),
        ] {
            assert_eq!(entry[member], value, "{member}");
        }
        assert_eq!(entry["arguments_hash"].as_str().unwrap().len(), 64);
    }

    async fn what_is_out_of_shape_is_400_and_what_makes_no_sense_422(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let long = "x".repeat(257);
        for shape in [
            "verdict=maybe", "action_type=login", "action_type=Auth:Login", "action_type=a:b:c", "action_type=",
            &format!("tool_name={long}"), &format!("agent_id={}", &long[..129]),
            &format!("action_type=a:{}", &long[..127]), &format!("jsonb_key_exists={long}"),
            &format!("jsonb_contains=[{}]", "1,".repeat(1100)), "limit=0", "limit=201", "offset=-1",
        ] {
            ceo.get(&format!("{AUDIT}?{shape}")).await.refused(400, 2001);
        }
        for sense in [
            "since=2026-01-01T00:00:00", "until=yesterday", "since=",
            "since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
            "jsonb_contains=nonsense", "jsonb_contains=1", "jsonb_contains=%22text%22",
            "jsonb_contains=[%22%5Cu0000%22]", "jsonb_contains=[]&jsonb_key_exists=a",
        ] {
            let refusal = ceo.get(&format!("{AUDIT}?{sense}")).await.refused(422, 2000);
            assert!(!refusal.text().contains("nonsense") && !refusal.text().contains("yesterday"));
        }
        let export = format!("{AUDIT}/export");
        ceo.get(&format!("{export}?since=2026-01-01T00:00:00")).await.refused(422, 2000);
        ceo.get(&format!("{export}?format=xml")).await.refused(400, 2001);
    }

    async fn rules_are_searched_on_postgresql_alone(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        for (action, rules) in [("test:one", ["a", "b"]), ("test:two", ["b", "c"])] {
            let mut entry = entry(&server, action);
            entry.matched_rules = rules.map(str::to_owned).to_vec();
            put(&server, entry).await;
        }
        let mut odd = entry(&server, "test:odd");
        odd.reason = "a\0b".to_owned();
        odd.matched_rules = vec!["a".to_owned()];
        put(&server, odd).await;
        if !server.db.is_shared() {
            for query in ["jsonb_contains=[%22a%22]", "jsonb_key_exists=a"] {
                ceo.get(&format!("{AUDIT}?{query}")).await.refused(422, 2000);
            }
            return;
        }
        for (query, found) in [
            ("jsonb_key_exists=b", vec!["test:two", "test:one"]),
            ("jsonb_key_exists=c&action_type=test:two", vec!["test:two"]),
            ("jsonb_key_exists=c&action_type=test:one", vec![]),
            ("jsonb_contains=[%22b%22,%22a%22]", vec!["test:one"]),
            ("jsonb_contains={%22a%22:1}", vec![]),
            ("jsonb_key_exists=' OR 1=1 --", vec![]),
        ] {
            let query = query.replace(' ', "%20");
            assert_eq!(actions(&mut ceo, &query).await, found, "{query}");
        }
    }
}

#[tokio::test]
async fn nothing_writes_to_the_trail() {
    for endpoint in endpoints().iter().filter(|e| e.docs().path.starts_with("/security/audit")) {
        assert_eq!(endpoint.docs().method, Method::GET, "{}", endpoint.docs().path);
    }
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        assert_eq!(ceo.send(method.clone(), AUDIT, Some("{}".to_owned())).await.status, 405);
        assert_eq!(ceo.send(method, &format!("{AUDIT}/x"), Some("{}".to_owned())).await.status, 404);
    }
}

//! Settings as clients see them.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use quarterdeck_domain::role::HumanRole::{self, BoardMember, Ceo, Manager, Observer, PairProgrammer};
use quarterdeck_testkit::{Answer, Caller, TestServer, on_both_databases};
use quarterdeck_work::settings::Dispatcher;
use serde_json::{Value, json};

const ALL: &str = "/api/v1/settings";
const TICKETS: &str = "/api/v1/settings/api/ws_ticket_max_pending_per_user";
const EXPORT: &str = "/api/v1/settings/security/export";
const IMPORT: &str = "/api/v1/settings/security/import";

fn value(text: &str) -> Value {
    json!({ "value": text })
}

fn when(caller: &Caller, tag: &str) -> Caller {
    caller.clone().with_header("if-match", tag)
}

#[track_caller]
fn shown(answer: Answer) -> (Value, Value) {
    let data = answer.expect(200).data();
    (data["value"].clone(), data["source"].clone())
}

on_both_databases! {
    async fn of_two_writers_with_the_same_tag_exactly_one_wins(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let tag = ceo.get(TICKETS).await.expect(200).header("etag").to_owned();
        let (mut one, mut other) = (when(&ceo, &tag), when(&ceo, &tag));
        let (seven, eight) = (value("7"), value("8"));
        let answers: [Answer; 2] = tokio::join!(one.put(TICKETS, &seven), other.put(TICKETS, &eight)).into();
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
        assert_eq!((won.len(), lost.len()), (1, 1));
        lost.into_iter().for_each(|answer| drop(answer.refused(409, 4002)));
        let stored = ceo.get(TICKETS).await.expect(200);
        assert_eq!(stored.data()["value"], won[0].data()["value"]);
        assert_eq!(stored.header("etag"), won[0].header("etag"));
    }

    async fn dropping_a_value_brings_the_default_back_and_may_be_repeated(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let stored = ceo.put(TICKETS, &value("9")).await.expect(200);
        assert_eq!(stored.data()["source"], "db");
        let stale = "\"0000000000000000\"";
        when(&ceo, stale).delete(TICKETS).await.refused(409, 4002);
        when(&ceo, stored.header("etag")).delete(TICKETS).await.expect(204);
        ceo.delete(TICKETS).await.expect(204);
        let back = ceo.get(TICKETS).await.expect(200).data();
        let seen = (&back["value"], &back["source"], &back["updated_at"]);
        assert_eq!(seen, (&json!("5"), &json!("default"), &Value::Null));
    }

    async fn an_import_is_stored_whole_or_not_at_all(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let policy = ceo.get(EXPORT).await.expect(200);
        assert_eq!(policy.data()["custom_policies_warning"], Value::Null);
        let tag = policy.header("etag").to_owned();

        let config = policy.data()["config"].clone();
        let again = when(&ceo, &tag).post(IMPORT, &json!({ "config": config })).await.expect(201);
        assert_eq!((&again.data()["config"], again.header("etag")), (&config, &*tag));

        let bad = json!({"config": {"lockout_threshold": 7, "max_concurrent_sessions": 101}});
        let refusal = ceo.post(IMPORT, &bad).await.refused(422, 2000);
        assert_eq!(refusal.error(), "Invalid security config");
        assert_eq!(
            refusal.json()["error_detail"]["errors"],
            json!([{"pointer": "/config/max_concurrent_sessions", "detail": "must be at most 100"}])
        );
        assert_eq!(ceo.get(EXPORT).await.expect(200).header("etag"), tag);

        let good = json!({"config": {"lockout_threshold": 7}});
        let changed = ceo.post(IMPORT, &good).await.expect(201);
        assert_eq!(changed.data()["config"]["lockout_threshold"], 7);
        when(&ceo, &tag).post(IMPORT, &good).await.refused(409, 4002);
    }
}

#[tokio::test]
async fn who_reads_sees_settings_and_only_ceo_and_manager_change_them() {
    let server = TestServer::start().await;
    let mut anonymous = server.anonymous();
    anonymous.get(ALL).await.refused(401, 1000);
    anonymous.put(TICKETS, &value("9")).await.refused(401, 1000);
    server.system_cli().get(ALL).await.refused(403, 1001);
    let people: [(&str, HumanRole, bool); 5] = [
        ("ceo", Ceo, true),
        ("manager", Manager, true),
        ("programmer", PairProgrammer, false),
        ("board", BoardMember, false),
        ("observer", Observer, false),
    ];
    for (name, role, writes) in people {
        let mut caller = if role == Ceo { server.ceo().await } else { server.person(name, role).await };
        for path in
            [ALL, TICKETS, "/api/v1/settings/api", "/api/v1/settings/_schema", "/api/v1/settings/_schema/api"]
        {
            caller.get(path).await.expect(200);
        }
        let config = json!({"config": {}});
        for (answer, success) in [
            (caller.put(TICKETS, &value("9")).await, 200),
            (caller.delete(TICKETS).await, 204),
            (caller.get(EXPORT).await, 200),
            (caller.post(IMPORT, &config).await, 201),
        ] {
            assert_eq!(answer.status, if writes { success } else { 403 }, "{name}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_refused_value_is_answered_with_the_broken_rule_and_not_repeated() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let path = |key: &str| format!("/api/v1/settings/{key}");
    for (key, text, rule) in [
        ("api/ws_ticket_max_pending_per_user", "1e3", "must be a whole number of at most 64 bits"),
        ("api/ws_ticket_max_pending_per_user", "51", "must be at most 50"),
        ("api/ticket_cleanup_interval_seconds", "nan", "must be a finite number"),
        ("api/rate_limit_time_unit", "Minute", "must be one of second, minute, hour, day"),
        ("api/per_op_rate_limit_overrides", "{\"secret", "must be valid JSON"),
    ] {
        let refusal = ceo.put(&path(key), &value(text)).await.refused(422, 2000);
        assert_eq!(refusal.error(), format!("Invalid setting value: {rule}"));
        assert_eq!(refusal.json()["error_detail"]["errors"], json!([{"pointer": "/value", "detail": rule}]));
        assert!(!refusal.text().contains("secret"));
        assert_eq!(shown(ceo.get(&path(key)).await).1, "default");
    }
    ceo.put(&path("api/server_port"), &value("4000")).await.refused(422, 2000);
    ceo.delete(&path("api/server_port")).await.refused(422, 2000);
}

#[tokio::test]
async fn a_body_of_the_wrong_shape_is_refused_before_anything_else() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    for body in [
        json!({}),
        json!({"value": 7}),
        json!({"value": null}),
        json!({"value": "7", "extra": 1}),
        json!({"value": "ä".repeat(65_537)}),
    ] {
        ceo.put(TICKETS, &body).await.refused(400, 2001);
    }
    for body in [json!({}), json!({"config": []}), json!({"config": {}, "extra": 1})] {
        ceo.post(IMPORT, &body).await.refused(400, 2001);
    }
    let (namespace, key) = ("n".repeat(65), "k".repeat(129));
    ceo.get(&format!("{ALL}/{namespace}")).await.refused(400, 2001);
    ceo.get(&format!("{ALL}/api/{key}")).await.refused(400, 2001);
}

#[tokio::test]
async fn what_is_not_registered_is_not_found() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    for path in ["auth/jwt_secret", "api/nothing", "nowhere/nothing"] {
        let path = format!("{ALL}/{path}");
        ceo.get(&path).await.refused(404, 3000);
        ceo.put(&path, &value("a value that is longer than thirty-two characters")).await.refused(404, 3000);
        ceo.delete(&path).await.refused(404, 3000);
    }
    for path in ["auth", "_schema/auth", "nowhere"] {
        ceo.get(&format!("{ALL}/{path}")).await.refused(404, 3000);
    }
    let all = ceo.get(&format!("{ALL}?limit=200")).await.expect(200).text();
    assert!(!all.contains("jwt_secret"));
}

#[tokio::test]
async fn the_list_is_paged_and_sorted() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let whole = ceo.get(&format!("{ALL}?limit=200")).await.expect(200).json();
    let total = whole["pagination"]["total"].as_u64().unwrap();
    assert_eq!(whole["data"].as_array().unwrap().len() as u64, total);
    let mut ids = Vec::new();
    for offset in (0..=total).step_by(7) {
        let page = ceo.get(&format!("{ALL}?offset={offset}&limit=7")).await.expect(200).json();
        for entry in page["data"].as_array().unwrap() {
            let definition = &entry["definition"];
            ids.push(format!("{}/{}", definition["namespace"], definition["key"]));
        }
    }
    assert_eq!(ids.len() as u64, total);
    assert!(ids.is_sorted());
    let beyond = ceo.get(&format!("{ALL}?offset=9999")).await.expect(200).json();
    assert_eq!((&beyond["data"], &beyond["pagination"]["offset"]), (&json!([]), &json!(total)));
    for query in ["limit=0", "limit=201", "offset=-1", "limit=abc"] {
        ceo.get(&format!("{ALL}?{query}")).await.refused(400, 2001);
    }
}

#[tokio::test]
async fn an_entry_has_the_members_of_the_contract() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let entry = ceo.put(TICKETS, &value("9")).await.expect(200).data();
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&entry), ["definition", "source", "updated_at", "value"]);
    let expected = [
        "default",
        "description",
        "enum_values",
        "group",
        "key",
        "level",
        "max_value",
        "min_value",
        "namespace",
        "read_only_post_init",
        "restart_required",
        "sensitive",
        "type",
        "validator_pattern",
        "yaml_path",
    ];
    assert_eq!(members(&entry["definition"]), expected);
    let keyfile = ceo.get(&format!("{ALL}/api/ssl_keyfile")).await.expect(200).data();
    assert_eq!(keyfile["value"], "********");
}

#[tokio::test]
async fn a_condition_is_read_from_all_its_header_lines() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let tag = ceo.get(TICKETS).await.expect(200).header("etag").to_owned();
    when(&ceo, &format!("W/{tag}")).put(TICKETS, &value("7")).await.refused(409, 4002);
    let tag = when(&when(&ceo, "\"a,b\""), &tag)
        .put(TICKETS, &value("7"))
        .await
        .expect(200)
        .header("etag")
        .to_owned();
    when(&ceo, "*").put(TICKETS, &value("8")).await.expect(200);
    when(&ceo, "").put(TICKETS, &value("9")).await.expect(200);
    when(&ceo, &tag).put(TICKETS, &value("10")).await.refused(409, 4002);
    assert_eq!(shown(ceo.get(TICKETS).await).0, "9");
}

#[tokio::test]
async fn static_paths_win_over_namespace_and_key() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    assert!(ceo.get(EXPORT).await.expect(200).data()["config"].is_object());
    assert!(ceo.get(&format!("{ALL}/observability/sinks")).await.expect(200).data().is_array());
    assert!(ceo.get(&format!("{ALL}/_schema")).await.expect(200).data().is_array());
    ceo.send(Method::PUT, EXPORT, Some(value("x").to_string())).await.refused(405, 2001);
}

#[tokio::test]
async fn who_follows_a_setting_has_heard_before_the_answer() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let dispatcher = Dispatcher::new(server.app.settings.clone());
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = Arc::clone(&heard);
    let tickets = quarterdeck_domain::setting::api::WS_TICKET_MAX_PENDING_PER_USER;
    dispatcher.subscribe("test", [tickets.definition()], move |settings, _| {
        told.lock().unwrap().push(settings.get(&tickets));
        async { Ok(()) }
    });
    dispatcher.start().unwrap();
    ceo.put(TICKETS, &value("9")).await.expect(200);
    assert_eq!(*heard.lock().unwrap(), [9]);
    ceo.put(TICKETS, &value("99")).await.refused(422, 2000);
    assert_eq!(*heard.lock().unwrap(), [9]);
    dispatcher.stop(Duration::from_secs(20)).await.unwrap();
}

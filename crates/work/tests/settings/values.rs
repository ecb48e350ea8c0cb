//! Where values come from, who may change them, and what a race leaves behind.

use std::time::Duration;

use chrono::TimeDelta;
use quarterdeck_domain::setting::{IfMatch, SettingSource, api, security};
use quarterdeck_store::setting;
use quarterdeck_work::settings::{Rule, Sources};
use serde_json::json;

use quarterdeck_testkit::on_both_databases;

use crate::*;

const TICKETS: &str = "api/ws_ticket_max_pending_per_user";

on_both_databases! {
    async fn the_database_beats_the_environment_which_beats_the_file_which_beats_the_default(db: TestDb) {
        let house = House::on(&db).await;
        let id = "api/min_password_length";
        let environment = [("QUARTERDECK_API_MIN_PASSWORD_LENGTH", " 20 ")];
        let file = [("api.auth.min_password_length", "16")];
        let seen = |settings: &Settings| {
            let entry = entry(settings, id);
            (entry.value, entry.source, settings.get(&api::MIN_PASSWORD_LENGTH))
        };

        let settings = house.settings().await;
        assert_eq!(seen(&settings), ("12".into(), SettingSource::Default, 12));
        let settings = house.open(None, &[], &file).await.unwrap();
        assert_eq!(seen(&settings), ("16".into(), SettingSource::Yaml, 16));
        let settings = house.open(None, &environment, &file).await.unwrap();
        assert_eq!(seen(&settings), ("20".into(), SettingSource::Env, 20));
        set(&settings, id, "24").await.unwrap();
        assert_eq!(seen(&settings), ("24".into(), SettingSource::Db, 24));
        let settings = house.open(None, &environment, &file).await.unwrap();
        assert_eq!(seen(&settings), ("24".into(), SettingSource::Db, 24), "after a restart");
        reset(&settings, id).await.unwrap();
        assert_eq!(seen(&settings), ("20".into(), SettingSource::Env, 20));
    }

    async fn dropping_a_value_twice_is_as_good_as_once_and_announced_once(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        let before = entry(&settings, TICKETS);
        set(&settings, TICKETS, "9").await.unwrap();
        let signals = house.count_signals();
        for _ in 0..2 {
            reset(&settings, TICKETS).await.unwrap();
            let after = entry(&settings, TICKETS);
            assert_eq!(
                (after.source, after.updated_at, after.etag()),
                (SettingSource::Default, None, before.etag())
            );
        }
        assert_eq!(*signals.lock().unwrap(), 1);
    }

    async fn a_broken_value_stores_and_announces_nothing(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        let signals = house.count_signals();
        for (id, values) in [
            (TICKETS, &["1e3", "true", "999999999999999999999", "0", "51", "", "hunter2"][..]),
            ("api/ticket_cleanup_interval_seconds", &["nan", "inf", "4.9"]),
            ("api/rate_limit_time_unit", &["Minute"]),
            ("api/per_op_rate_limit_enabled", &["yes"]),
            ("api/per_op_rate_limit_overrides", &["{", "null", r#"{"tasks.create":[-1,60]}"#]),
        ] {
            for value in values {
                let refusal = set(&settings, id, value).await.unwrap_err();
                assert_eq!(failure(&refusal), (422, 2000), "{id} {value}");
                assert!(refusal.detail().starts_with("Invalid setting value: "), "{}", refusal.detail());
                assert!(!refusal.to_string().contains("hunter2"));
            }
            assert_eq!(entry(&settings, id).source, SettingSource::Default);
        }
        assert_eq!(setting::all(house.store.read()).await.unwrap(), []);
        assert_eq!(*signals.lock().unwrap(), 0);
    }

    async fn of_two_writes_with_the_same_condition_exactly_one_wins(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        for round in 0..2 {
            let tag = entry(&settings, TICKETS).etag();
            let race = ["10", "11", "12"].map(|value| {
                let if_match = IfMatch::parse(&tag);
                settings.set(write_if(TICKETS, value, if_match), &ACTOR)
            });
            let results = futures_util::future::join_all(race).await;
            let won: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
            assert_eq!(won.len(), 1, "round {round}");
            assert!(results.iter().flat_map(|r| r.as_ref().err()).all(|e| failure(e) == (409, 4002)));
            let stored = entry(&settings, TICKETS);
            assert_eq!((&stored.value, stored.etag()), (&won[0].value, won[0].etag()));
        }
    }

    async fn a_stale_condition_refuses_writes_and_removals(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        let stale = entry(&settings, TICKETS).etag();
        let current = set(&settings, TICKETS, "9").await.unwrap().etag();
        let (namespace, key) = TICKETS.split_once('/').unwrap();
        for condition in [stale.clone(), format!("W/{current}"), "junk".to_owned()] {
            let write = write_if(TICKETS, "10", IfMatch::parse(&condition));
            assert_eq!(failure(&settings.set(write, &ACTOR).await.unwrap_err()), (409, 4002), "{condition}");
            let removal = settings.reset(namespace, key, IfMatch::parse(&condition), &ACTOR).await;
            assert_eq!(failure(&removal.unwrap_err()), (409, 4002), "{condition}");
        }
        assert_eq!(settings.get(&api::WS_TICKET_MAX_PENDING_PER_USER), 9);
        settings.reset(namespace, key, IfMatch::parse(&format!("{stale}, {current}")), &ACTOR).await.unwrap();
        settings.set(write_if(TICKETS, "10", IfMatch::Any), &ACTOR).await.unwrap();
    }

    async fn the_version_grows_even_if_the_clock_does_not(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        let first = set(&settings, TICKETS, "9").await.unwrap();
        house.clock.step_wall(TimeDelta::hours(-1));
        let second = set(&settings, TICKETS, "9").await.unwrap();
        assert!(second.updated_at > first.updated_at);
        assert_ne!(second.etag(), first.etag());
        house.clock.advance(Duration::from_secs(7200));
        let third = set(&settings, TICKETS, "9").await.unwrap();
        assert_eq!(third.updated_at, Some(DateTime::UNIX_EPOCH + TimeDelta::hours(1)));
    }

    async fn a_batch_is_stored_whole_with_one_time_or_not_at_all(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        let batch = |second: &str, condition: IfMatch| {
            vec![
                write_if(TICKETS, "9", IfMatch::Unconditional),
                write_if("api/jwt_expiry_minutes", second, condition),
            ]
        };
        let current = entry(&settings, "api/jwt_expiry_minutes").etag();
        for (writes, expected) in [
            (batch("0", IfMatch::Unconditional), (422, 2000)),
            (batch("60", IfMatch::parse("\"stale\"")), (409, 4002)),
            (vec![write_if(TICKETS, "9", IfMatch::Any), write_if(TICKETS, "8", IfMatch::Any)], (422, 2000)),
        ] {
            assert_eq!(failure(&settings.set_many(writes, &ACTOR).await.unwrap_err()), expected);
            assert_eq!(setting::all(house.store.read()).await.unwrap(), []);
        }
        let stored = settings.set_many(batch("60", IfMatch::parse(&current)), &ACTOR).await.unwrap();
        assert_eq!(stored[0].updated_at, stored[1].updated_at);
        assert_eq!(
            (settings.get(&api::WS_TICKET_MAX_PENDING_PER_USER), settings.get(&api::JWT_EXPIRY_MINUTES)),
            (9, 60)
        );
    }

    async fn a_live_change_is_seen_at_once_and_one_that_needs_a_restart_after_it(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        set(&settings, TICKETS, "9").await.unwrap();
        set(&settings, "api/max_meeting_context_keys", "50").await.unwrap();
        assert_eq!(settings.get(&api::WS_TICKET_MAX_PENDING_PER_USER), 9);
        assert_eq!(settings.get(&api::MAX_MEETING_CONTEXT_KEYS), 20, "in force until the restart");
        assert_eq!(entry(&settings, "api/max_meeting_context_keys").value, "50", "shown as stored");
        assert_eq!(house.settings().await.get(&api::MAX_MEETING_CONTEXT_KEYS), 50);
    }

    async fn reading_asks_no_database(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        set(&settings, TICKETS, "9").await.unwrap();
        house.store.close().await;
        assert_eq!(settings.get(&api::WS_TICKET_MAX_PENDING_PER_USER), 9);
        assert_eq!(entry(&settings, TICKETS).value, "9");
        assert!(set(&settings, TICKETS, "10").await.is_err());
    }

    async fn read_only_settings_come_from_outside_only(db: TestDb) {
        let house = House::on(&db).await;
        let row = setting::Row {
            namespace: "api".into(),
            key: "server_port".into(),
            value: "4000".into(),
            updated_at: DateTime::UNIX_EPOCH,
        };
        house.store.write(move |tx| Box::pin(async move { setting::swap(tx, &row, None).await })).await.unwrap();
        let settings = house.open(None, &[("QUARTERDECK_API_SERVER_PORT", "5000")], &[]).await.unwrap();
        assert_eq!(settings.get(&api::SERVER_PORT), 5000);
        assert_eq!(entry(&settings, "api/server_port").source, SettingSource::Env);
        assert_eq!(failure(&set(&settings, "api/server_port", "6000").await.unwrap_err()), (422, 2000));
        assert_eq!(failure(&reset(&settings, "api/server_port").await.unwrap_err()), (422, 2000));
    }

    async fn what_is_not_registered_is_not_there(db: TestDb) {
        let house = House::on(&db).await;
        let secret = "x".repeat(64);
        let stored = secret.clone();
        house
            .store
            .write(move |tx| {
                Box::pin(
                    async move { setting::put(tx, "auth", "jwt_secret", &stored, DateTime::UNIX_EPOCH).await },
                )
            })
            .await
            .unwrap();
        let settings = house.settings().await;
        for id in ["auth/jwt_secret", "api/nothing", "nowhere/nothing"] {
            let (namespace, key) = id.split_once('/').unwrap();
            assert_eq!(failure(&settings.entry(namespace, key).unwrap_err()), (404, 3000));
            assert_eq!(failure(&set(&settings, id, &"y".repeat(64)).await.unwrap_err()), (404, 3000));
            assert_eq!(failure(&reset(&settings, id).await.unwrap_err()), (404, 3000));
        }
        for namespace in ["auth", "nowhere", "API"] {
            assert_eq!(failure(&settings.entries_of(namespace).unwrap_err()), (404, 3000));
            assert_eq!(failure(&settings.definitions_of(namespace).unwrap_err()), (404, 3000));
        }
        assert!(settings.entries_of("hr").unwrap().is_empty(), "a namespace without settings yet");
        assert!(!format!("{:?}", settings.entries()).contains(&secret));
        let kept = setting::get(house.store.read(), "auth", "jwt_secret").await.unwrap().unwrap();
        assert_eq!(kept.value, secret);
    }

    async fn entries_are_sorted_and_match_the_definitions(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        let ids: Vec<_> = settings.entries().iter().map(|entry| entry.definition.id()).collect();
        assert!(ids.is_sorted());
        assert_eq!(ids.len(), settings.definitions().len());
        let of_api = settings.entries_of("api").unwrap();
        assert!(!of_api.is_empty() && of_api.len() == settings.definitions_of("api").unwrap().len());
    }

    async fn a_refused_outside_value_stops_the_start_and_is_not_repeated(db: TestDb) {
        let house = House::on(&db).await;
        for (name, value) in [
            ("QUARTERDECK_SECURITY_LOCKOUT_THRESHOLD", "hunter2"),
            ("QUARTERDECK_API_TRUSTED_PROXIES", r#"["0.0.0.0/0"]"#),
        ] {
            let refusal = house.open(None, &[(name, value)], &[]).await.unwrap_err();
            let sentence = refusal.cause().unwrap();
            assert!(sentence.starts_with(name) && !sentence.contains(value), "{sentence}");
        }
        let file = [("api.auth.lockout_threshold", "many")];
        let refusal = house.open(None, &[], &file).await.unwrap_err();
        assert!(
            refusal.cause().unwrap().starts_with("api.auth.lockout_threshold in the configuration file must be")
        );
    }

    async fn the_file_may_go_where_the_api_may_not(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.open(None, &[], &[("api.auth.min_password_length", "8")]).await.unwrap();
        assert_eq!(settings.get(&api::MIN_PASSWORD_LENGTH), 8);
        assert!(set(&settings, "api/min_password_length", "8").await.is_err());
    }

    async fn a_stored_value_that_breaks_a_newer_rule_is_ignored_until_replaced(db: TestDb) {
        let house = House::on(&db).await;
        let write = |value: &'static str| {
            house.store.write(move |tx| {
                Box::pin(async move {
                    setting::put(tx, "api", "ws_ticket_max_pending_per_user", value, DateTime::UNIX_EPOCH).await
                })
            })
        };
        write("5000").await.unwrap();
        let settings = house.settings().await;
        assert_eq!(entry(&settings, TICKETS).source, SettingSource::Default);
        assert_eq!(settings.get(&api::WS_TICKET_MAX_PENDING_PER_USER), 5);
        let tag = IfMatch::parse(&entry(&settings, TICKETS).etag());
        assert_eq!(settings.set(write_if(TICKETS, "7", tag), &ACTOR).await.unwrap().value, "7");
    }

    async fn a_rule_over_several_settings_sees_the_values_as_they_would_be(db: TestDb) {
        let house = House::on(&db).await;
        let rule = Rule::over(
            [security::LOCKOUT_THRESHOLD.definition(), api::WS_TICKET_MAX_PENDING_PER_USER.definition()],
            |values| {
                let (a, b) =
                    (values.get(&security::LOCKOUT_THRESHOLD), values.get(&api::WS_TICKET_MAX_PENDING_PER_USER));
                if a >= b { Ok(()) } else { Err("tickets must not outnumber attempts".to_owned()) }
            },
        );
        let settings = house.open_with(None, Sources::default(), vec![rule]).await.unwrap();
        let refusal = set(&settings, TICKETS, "11").await.unwrap_err();
        assert_eq!(refusal.detail(), "Invalid setting value: tickets must not outnumber attempts");
        let both = ["security/lockout_threshold", TICKETS].map(|id| write_if(id, "20", IfMatch::Unconditional));
        settings.set_many(both.into(), &ACTOR).await.unwrap();
        assert_eq!(failure(&reset(&settings, "security/lockout_threshold").await.unwrap_err()), (422, 2000));
        reset(&settings, TICKETS).await.unwrap();
        let import = settings.import_security(
            json!({"lockout_threshold": 1}).as_object().unwrap().clone(),
            IfMatch::Unconditional,
            &ACTOR,
        );
        let refusal = import.await.unwrap_err();
        assert_eq!((refusal.detail(), refusal.field_errors().len()), ("Invalid security config", 1));
    }

    async fn editors_of_one_document_all_get_their_edit_in(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        let add = |name: &'static str| {
            let settings = settings.clone();
            async move {
                let change = |text: &str| {
                    let mut map: serde_json::Map<_, _> = serde_json::from_str(text).unwrap();
                    map.insert(name.to_owned(), json!(1));
                    Ok(serde_json::to_string(&map).unwrap())
                };
                settings.modify("api", "per_op_concurrency_overrides", change, &ACTOR).await
            }
        };
        let (a, b, c) = tokio::join!(add("a"), add("b"), add("c"));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(settings.get(&api::PER_OP_CONCURRENCY_OVERRIDES), json!({"a": 1, "b": 1, "c": 1}));
    }

    async fn exporting_and_importing_the_policy_changes_nothing(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        for (id, value) in [("security/lockout_threshold", "+7"), ("security/max_concurrent_sessions", "9")] {
            set(&settings, id, value).await.unwrap();
        }
        let before = format!("{:?}", settings.entries());
        let exported = settings.export_security();
        assert_eq!(exported.config["max_concurrent_sessions"], json!(9));
        let signals = house.count_signals();
        let if_match = IfMatch::parse(&exported.etag);
        let imported = settings.import_security(exported.config.clone(), if_match, &ACTOR).await.unwrap();
        assert_eq!((imported.config, imported.etag), (exported.config, exported.etag));
        assert_eq!(format!("{:?}", settings.entries()), before);
        assert_eq!(*signals.lock().unwrap(), 0);
    }

    async fn an_import_with_one_bad_member_stores_nothing_and_names_it(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        for (bad, pointer) in [
            (json!({"lockout_threshold": 7, "max_concurrent_sessions": 101}), "/config/max_concurrent_sessions"),
            (json!({"lockout_threshold": 7, "no/such": 1}), "/config/no~1such"),
            (json!({"lockout_threshold": 7.5}), "/config/lockout_threshold"),
            (json!({"lockout_threshold": null}), "/config/lockout_threshold"),
            (json!({"lockout_threshold": [7]}), "/config/lockout_threshold"),
            (json!({"lockout_threshold": true}), "/config/lockout_threshold"),
        ] {
            let config = bad.as_object().unwrap().clone();
            let refusal = settings.import_security(config, IfMatch::Unconditional, &ACTOR).await.unwrap_err();
            assert_eq!((failure(&refusal), refusal.detail()), ((422, 2000), "Invalid security config"));
            let pointers: Vec<_> = refusal.field_errors().iter().map(|field| field.pointer.as_str()).collect();
            assert_eq!(pointers, [pointer]);
        }
        assert_eq!(setting::all(house.store.read()).await.unwrap(), []);
    }

    async fn an_import_is_refused_when_the_policy_has_changed_since_it_was_read(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        let seen = IfMatch::parse(&settings.export_security().etag);
        set(&settings, "security/max_concurrent_sessions", "9").await.unwrap();
        let config = json!({"lockout_threshold": 7}).as_object().unwrap().clone();
        let refusal = settings.import_security(config, seen, &ACTOR).await.unwrap_err();
        assert_eq!(failure(&refusal), (409, 4002));
        assert_eq!(settings.get(&security::LOCKOUT_THRESHOLD), 10);
    }
}

#[tokio::test]
async fn a_policy_moves_to_another_installation() {
    let (here, there) = (House::new().await, House::new().await);
    let (source, target) = (here.settings().await, there.settings().await);
    set(&source, "security/lockout_threshold", "7").await.unwrap();
    let policy = source.export_security();
    target.import_security(policy.config, IfMatch::Unconditional, &ACTOR).await.unwrap();
    assert_eq!(target.get(&security::LOCKOUT_THRESHOLD), 7);
    assert_eq!(setting::all(there.store.read()).await.unwrap().len(), 1, "only what differs is stored");
}

#[tokio::test]
async fn changes_of_the_security_policy_leave_a_trail() {
    let house = House::new().await;
    let settings = house.settings().await;
    let (log, _guard) = Log::start();
    set(&settings, TICKETS, "9").await.unwrap();
    assert!(log.text().contains("settings.value.set") && !log.text().contains("security.setting.changed"));
    set(&settings, "security/lockout_threshold", "77").await.unwrap();
    reset(&settings, "security/lockout_threshold").await.unwrap();
    let text = log.text();
    let trail: Vec<_> = text.lines().filter(|line| line.contains("security.setting.changed")).collect();
    assert_eq!(trail.len(), 2);
    for (line, action) in trail.iter().zip(["set", "delete"]) {
        for part in
            ["namespace=security", "key=\"lockout_threshold\"", &format!("action=\"{action}\""), &ACTOR.id]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
    assert!(!text.contains("=77") && !text.contains("\"77\""), "no value in the log");
}

//! Issuing API keys: to whom, of which rank, how many, and what the answer shows.

use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta};
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{TestServer, on_both_databases};
use serde_json::{Value, json};

use crate::{KEYS, ME, PEOPLE, id_of, outcomes, race, somebody};

#[tokio::test]
async fn a_key_never_has_a_higher_role_than_who_asks_for_it() {
    let server = TestServer::start().await;
    for asking in PEOPLE {
        let mut caller = somebody(&server, asking).await;
        for wanted in PEOPLE {
            let answer = caller.post(KEYS, &json!({"name": "key", "role": wanted})).await;
            let expected = if wanted <= asking { (201, 0) } else { (403, 1001) };
            assert_eq!((answer.status, answer.code()), expected, "{asking} asks for {wanted}");
        }
        caller.post(KEYS, &json!({"name": "key", "role": "system"})).await.refused(403, 1001);
    }
}

#[tokio::test]
async fn the_key_is_shown_once_and_the_list_shows_what_is_stored() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let end = (server.now() + TimeDelta::days(1)).to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let body = json!({"name": "nightly", "role": "manager", "expires_at": end});
    let answer = ceo.post(KEYS, &body).await.expect(201);
    let issued = answer.data();
    let made = server.now().to_rfc3339_opts(SecondsFormat::AutoSi, true);
    assert_eq!(
        issued["key"],
        json!({
            "id": issued["key"]["id"], "name": "nightly", "role": "manager", "user_id": id_of(&mut ceo).await,
            "created_at": made, "expires_at": end, "revoked": false,
        })
    );
    assert!(answer.header("content-encoding").is_empty(), "what holds a secret is not compressed");
    server.advance(Duration::from_secs(1));
    let later = ceo.post(KEYS, &json!({"name": "later", "role": "observer"})).await.expect(201).data();
    assert_eq!(later["key"]["expires_at"], Value::Null);
    let list = ceo.get(KEYS).await.expect(200);
    assert_eq!(list.data(), json!([later["key"], issued["key"]]), "newest first");
    assert!(!list.text().contains(issued["api_key"].as_str().unwrap()));
}

#[tokio::test]
async fn a_key_without_a_future_or_of_the_wrong_shape_is_refused() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let rfc = |time: chrono::DateTime<chrono::Utc>| time.to_rfc3339_opts(SecondsFormat::Micros, true);
    for end in [server.now(), server.now() - TimeDelta::seconds(1)] {
        let body = json!({"name": "late", "role": "ceo", "expires_at": rfc(end)});
        ceo.post(KEYS, &body).await.refused(422, 2000);
    }
    for body in [
        json!({}),
        json!({"name": "key"}),
        json!({"role": "ceo"}),
        json!({"name": " ", "role": "ceo"}),
        json!({"name": "x".repeat(129), "role": "ceo"}),
        json!({"name": "key", "role": "emperor"}),
        json!({"name": "key", "role": "CEO"}),
        json!({"name": "key", "role": "ceo", "expires_at": "2099-01-01T00:00:00"}),
        json!({"name": "key", "role": "ceo", "expires_at": "tomorrow"}),
        json!({"name": "key", "role": "ceo", "expires_at": 4_000_000_000_u64}),
    ] {
        ceo.post(KEYS, &body).await.refused(400, 2001);
    }
    assert_eq!(ceo.get(KEYS).await.data(), json!([]));
    let body = json!({"name": "abroad", "role": "ceo", "expires_at": "2099-01-01T02:00:00+02:00"});
    let data = ceo.post(KEYS, &body).await.expect(201).data();
    assert_eq!(data["key"]["expires_at"], "2099-01-01T00:00:00Z");
}

on_both_databases! {
    async fn fifty_live_keys_are_the_most_and_dead_ones_do_not_count(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let end = (server.now() + TimeDelta::seconds(1)).to_rfc3339_opts(SecondsFormat::Micros, true);
        let brief = json!({"name": "brief", "role": "observer", "expires_at": end});
        let lasting = json!({"name": "lasting", "role": "observer"});
        ceo.post(KEYS, &brief).await.expect(201);
        let first = ceo.post(KEYS, &lasting).await.expect(201).data();
        for _ in 2..48 {
            ceo.post(KEYS, &lasting).await.expect(201);
        }
        // The last two places, wanted by eight at once.
        let answers = race((0..8).map(|_| {
            let (mut caller, body) = (ceo.clone(), lasting.clone());
            async move { caller.post(KEYS, &body).await }
        }))
        .await;
        assert_eq!(outcomes(&answers), [vec![(201, 0); 2], vec![(409, 4000); 6]].concat());
        ceo.delete(&format!("{KEYS}/{}", first["key"]["id"].as_str().unwrap())).await.expect(204);
        ceo.post(KEYS, &lasting).await.expect(201);
        ceo.post(KEYS, &lasting).await.refused(409, 4000);
        server.advance(Duration::from_micros(1_000_001));
        ceo.post(KEYS, &lasting).await.expect(201);
        let mut other = server.person("other", HumanRole::Observer).await;
        other.post(KEYS, &lasting).await.expect(201);
        other.get(ME).await.expect(200);
    }
}

#[tokio::test]
async fn no_log_line_holds_a_key() {
    let lines = Lines::default();
    let sink = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || sink.clone())
        .finish();
    // This test runs on one thread, and so does everything it logs but the hashing.
    let _recording = tracing::subscriber::set_default(subscriber);
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let data = ceo.post(KEYS, &json!({"name": "key", "role": "ceo"})).await.expect(201).data();
    let key = data["api_key"].as_str().unwrap();
    server.bearer(key).get(ME).await.expect(200);
    server.bearer(&format!("{key}x")).get(ME).await.refused(401, 1000);
    ceo.delete(&format!("{KEYS}/{}", data["key"]["id"].as_str().unwrap())).await.expect(204);
    server.bearer(key).get(ME).await.refused(401, 1000);
    let log = lines.text();
    for event in ["api_key.issued", "api_key.revoked", "api_key_revoked", "api_key_not_found"] {
        assert!(log.contains(event), "{event}");
    }
    assert!(!log.contains(key));
}

#[derive(Clone, Default)]
struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic")).into_owned()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

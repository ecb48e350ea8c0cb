//! Nothing that proves who somebody is appears in a log.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{PASSWORD, on_both_databases};
use serde_json::json;
use tracing::level_filters::LevelFilter;

use crate::support::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Everything this process logs at INFO and above, on whatever thread.
fn recorded() -> &'static Lines {
    static LINES: OnceLock<Lines> = OnceLock::new();
    LINES.get_or_init(|| {
        let lines = Lines::default();
        let writer = lines.clone();
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(LevelFilter::INFO)
            .with_writer(move || writer.clone())
            .init();
        lines
    })
}

on_both_databases! {
    async fn no_secret_of_any_exchange_is_logged(db: TestDb) {
        let lines = recorded();
        let server = refreshing(db).await;
        let mut secrets = vec![PASSWORD.to_owned(), WRONG.to_owned()];
        let mut sessions = Vec::new();
        let mut callers = vec![server.ceo().await, server.person("ann", HumanRole::Manager).await];
        for _ in 0..6 {
            callers.push(server.sign_in("ann").await);
        }
        let mut ann = callers.pop().unwrap();
        let mut ceo = callers[0].clone();
        for caller in callers.iter().chain([&ann]) {
            sessions.push(session_of(caller));
            for cookie in ["session", "csrf_token", "refresh_token"] {
                secrets.push(caller.cookie(cookie).unwrap().to_owned());
            }
        }

        // Refused in every way.
        for _ in 0..11 {
            login(&server, "nobody", WRONG).await;
        }
        let short = "short-pass";
        secrets.push(short.to_owned());
        server.anonymous().post(SETUP, &credentials("x", short)).await.refused(400, 2001);
        let loose = "a value that is \"no\" JSON";
        secrets.push(loose.to_owned());
        let body = Some(loose.to_owned());
        server.anonymous().send(axum::http::Method::POST, LOGIN, body).await.refused(400, 2001);
        let forged = format!("{}x", token_of(&ann));
        for odd in [forged.as_str(), "odd-cookie-value", "a.dotted.value", "dotless-key-value"] {
            secrets.push(odd.to_owned());
            server.bearer(odd).get(ME).await.refused(401, 1000);
            server.anonymous().with_cookie("session", odd).get(ME).await.refused(401, 1000);
            server.anonymous().with_cookie("refresh_token", odd).post_empty(REFRESH).await.refused(401, 1005);
            server.anonymous().with_header("authorization", odd).get(ME).await.refused(401, 1000);
            server.anonymous().with_header("authorization", odd).post_empty(LOGOUT).await.expect(204);
        }
        let mut mismatch = ann.clone().without_csrf().with_header("x-csrf-token", "odd-csrf-value");
        secrets.push("odd-csrf-value".to_owned());
        mismatch.post_empty(TICKET).await.refused(403, 1004);

        // Granted in every way.
        let ticket = ann.post_empty(TICKET).await.expect(200).data()["ticket"].as_str().unwrap().to_owned();
        server.app.auth.consume_ticket(&ticket).await.unwrap().unwrap();
        server.app.auth.consume_ticket(&ticket).await.unwrap();
        secrets.push(ticket);
        let body = json!({"name": "script", "role": "observer"});
        let issued = ann.post("/api/v1/auth/api-keys", &body).await.expect(201).data();
        let raw = issued["api_key"].as_str().unwrap().to_owned();
        server.bearer(&raw).get(ME).await.expect(200);
        secrets.push(raw);
        ann.post_empty(REFRESH).await.expect(200);
        secrets.extend(["session", "csrf_token", "refresh_token"].map(|c| ann.cookie(c).unwrap().to_owned()));
        let new = "another good password";
        secrets.push(new.to_owned());
        ann.post(CHANGE, &new_password(WRONG, new)).await.refused(401, 1000);
        ann.post(CHANGE, &new_password(PASSWORD, new)).await.expect(200);
        sessions.push(session_of(&ann));
        // A late replay, and every way to end a session.
        server.advance(Duration::from_secs(11));
        let mut replay = callers[3].clone();
        replay.post_empty(REFRESH).await.refused(401, 1005);
        ceo.delete(&format!("{SESSIONS}/{}", session_of(&ann))).await.expect(204);
        ann.get(ME).await.refused(401, 1002);
        ceo.delete(&format!("{SESSIONS}/{}", session_of(&ann))).await.expect(204);
        callers[1].delete(&format!("{SESSIONS}/{}", session_of(&ceo))).await.refused(401, 1002);
        let mut bob = server.person("bob", HumanRole::Observer).await;
        bob.delete(&format!("{SESSIONS}/{}", session_of(&ceo))).await.refused(404, 3000);
        ceo.delete(&format!("{SESSIONS}?scope=others")).await.expect(200);
        ceo.post_empty(LOGOUT).await.expect(204);
        server.app.auth.upkeep().await;

        let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        for event in ["session.revoked", "csrf.rejected", "ws.ticket_issued"] {
            assert!(log.contains(event), "{event} was recorded");
        }
        // What was decided in a transaction is told after it, in the span of its request.
        for event in [
            "auth.token_issued", "session.created", "session.limit_enforced", "auth.account_locked",
            "auth.refresh_consumed",
        ] {
            let line = log.lines().find(|line| line.contains(event)).unwrap_or(event);
            assert!(line.contains("request{request_id="), "{line}");
        }
        let line_with = |text: &str| log.lines().find(|line| line.contains(text)).map(str::to_owned);
        for secret in secrets {
            assert_eq!(line_with(&secret), None, "{secret} is in the log");
        }
        for session in sessions {
            assert!(log.contains(&session[..8]), "the start of a session id is there to be found");
            assert_eq!(line_with(&session[..9]), None, "more of a session id than its start is in the log");
        }
        for line in log.lines() {
            assert!(!line.contains("$argon2"), "{line}");
        }
    }
}

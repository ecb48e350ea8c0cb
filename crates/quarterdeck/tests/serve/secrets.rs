//! What must not be written down.

use std::fs;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::caller::{Caller, PASSWORD};
use crate::process::{Home, patiently};

const JWT_SECRET: &str = "canary-of-signing-0123456789-0123456789";
/// 32 bytes in base64.
const SETTINGS_KEY: &str = "Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5MDA=";
const SENSITIVE: &str = "canary-of-settings.pem";
const COLLECTOR_TOKEN: &str = "canary-of-a-collector";
const WRONG_PASSWORD: &str = "canary of a wrong password";
const NEXT_PASSWORD: &str = "canary of the next password";
const IN_QUERY: &str = "canary-in-a-query";
const FORGED: &str = "canary.of.forgery";

#[tokio::test]
async fn no_secret_is_in_the_log_after_a_day_of_work() {
    let home = Home::new()
        .with("QUARTERDECK_JWT_SECRET", JWT_SECRET)
        .with("QUARTERDECK_LOG_DIR", "logs")
        .with("QUARTERDECK_SETTINGS_KEY", SETTINGS_KEY)
        .with("QUARTERDECK_API__AUTH__JWT_REFRESH_ENABLED", "true");
    let server = home.serve().await;
    let mut owner = Caller::owner(&server).await;
    let mut secrets: Vec<String> = [
        PASSWORD,
        JWT_SECRET,
        SETTINGS_KEY,
        SENSITIVE,
        COLLECTOR_TOKEN,
        WRONG_PASSWORD,
        NEXT_PASSWORD,
        IN_QUERY,
        FORGED,
        "canary",
    ]
    .map(str::to_owned)
    .into();
    let keep = |caller: &Caller, secrets: &mut Vec<String>| {
        for cookie in ["session", "csrf_token", "refresh_token"] {
            secrets.push(caller.cookie(cookie).to_owned());
        }
    };
    keep(&owner, &mut secrets);

    let key = json!({"name": "for scripts", "role": "observer", "expires_at": null});
    let key = owner.post("/auth/api-keys", key).await.expect(201).data();
    let key = key["api_key"].as_str().unwrap().to_owned();
    Caller::bearer(&server, &key).get("/auth/me").await.expect(200);
    secrets.push(key);
    let ticket = owner.post("/auth/ws-ticket", json!({})).await.expect(200).data();
    secrets.push(ticket["ticket"].as_str().unwrap().to_owned());
    owner.post("/auth/refresh", json!({})).await.expect(200);
    keep(&owner, &mut secrets);
    let change = json!({"current_password": PASSWORD, "new_password": NEXT_PASSWORD});
    owner.post("/auth/change-password", change).await.expect(200);
    keep(&owner, &mut secrets);

    let sensitive = owner.put("/settings/api/ssl_keyfile", json!({"value": SENSITIVE})).await;
    assert!([200, 403, 409, 422].contains(&sensitive.status), "{}", sensitive.text());
    let sinks = json!([{
        "sink_type": "http",
        "url": "http://127.0.0.1:9/",
        "headers": {"authorization": format!("Bearer {COLLECTOR_TOKEN}")},
        "enabled": false,
    }]);
    let value = json!({"value": sinks.to_string()});
    owner.put("/settings/observability/custom_sinks", value.clone()).await.expect(200);
    owner.put("/settings/observability/custom_sinks", json!({"value": COLLECTOR_TOKEN})).await.expect(422);

    let mut stranger = Caller::new(&server);
    let wrong = json!({"username": "ada", "password": WRONG_PASSWORD});
    stranger.post("/auth/login", wrong).await.expect(401);
    let odd = json!({"username": "ada", "password": [WRONG_PASSWORD], "token": IN_QUERY});
    assert!(stranger.post("/auth/login", odd).await.status >= 400);
    stranger.get(&format!("/users?token={IN_QUERY}&ticket={IN_QUERY}")).await.expect(401);
    Caller::bearer(&server, FORGED).get("/auth/me").await.expect(401);
    let mut stream = server.connect().await;
    let broken = format!(
        "POST /api/v1/auth/login HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n\
         cookie: session={FORGED}\r\ncontent-length: 40\r\n\r\n{{\"password\": \"{WRONG_PASSWORD}"
    );
    stream.write_all(broken.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let _ = patiently("an answer", stream.read_to_end(&mut Vec::new())).await;

    #[cfg(unix)]
    let written = {
        let run = server.stop().await;
        [run.stdout, run.stderr]
    };
    #[cfg(not(unix))]
    let written = [server.stdout(), server.stderr()];
    assert!(written[1].contains("/api/v1/auth/login"), "requests are logged: {}", written[1]);
    let mut written: Vec<(String, String)> =
        written.into_iter().map(|text| ("console".to_owned(), text)).collect();
    for file in fs::read_dir(home.path("logs")).unwrap() {
        let path = file.unwrap().path();
        written.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
    }
    assert!(written.iter().filter(|(_, text)| text.contains("api.request")).count() >= 2);
    for (place, text) in &written {
        for secret in &secrets {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "{secret} is in {place}");
        }
    }
}

//! The first start, the second, and the one after a crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quarterdeck_auth::cli_token::mint_cli_token;
use quarterdeck_auth::config::JwtAlgorithm;
use quarterdeck_testkit::on_both_databases;
use reqwest::Method;
use serde_json::json;
use tokio::sync::Notify;

use crate::caller::{Caller, PASSWORD};
use crate::process::{Home, patiently};

#[tokio::test]
async fn with_nothing_configured_one_line_says_where_it_is_and_a_note_how_to_begin() {
    let home = Home::new();
    let server = home.spawn_unconfigured();
    server.ready().await;
    let line = format!("Quarterdeck {} is ready at http://{}\n", env!("CARGO_PKG_VERSION"), server.address);
    const NOTE: &str = "quarterdeck user create NAME --role ceo";
    server.logged(NOTE, 1).await;
    let stderr = server.stderr();
    assert!(stderr.find("api.app.startup") < stderr.find(NOTE), "the note stands below the log: {stderr}");
    Caller::new(&server).get("/health").await.expect(200);
    let data = home.path(".local/share/quarterdeck");
    assert!(data.join("quarterdeck.db").is_file());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data), 0o700);
        assert_eq!(mode(&data.join("quarterdeck.db")), 0o600);
        let run = server.stop().await;
        assert_eq!(run.stdout, line);
    }
}

on_both_databases! {
    async fn a_second_start_keeps_the_secret_the_sessions_and_their_ends(db: TestDb) {
        let home = Home::on(&db);
        let first = home.serve().await;
        let owner = Caller::owner(&first).await;
        let mut ended = Caller::signed_in(&first).await;
        let kept_ticket = owner.cookie("session").to_owned();
        ended.clone().post("/auth/logout", json!({})).await.expect(204);
        first.stop().await;

        let second = home.serve().await;
        Caller::bearer(&second, &kept_ticket).get("/auth/me").await.expect(200);
        ended = ended.at(&second);
        ended.get("/auth/me").await.expect(401);
        assert!(!second.stderr().contains("No account exists yet"), "{}", second.stderr());
    }

    async fn after_a_kill_every_acknowledged_account_is_there(db: TestDb) {
        const ENOUGH: usize = 6;
        let home = Home::on(&db).with("QUARTERDECK_API_PER_OP_RATE_LIMIT_ENABLED", "false");
        let server = home.serve().await;
        let owner = Caller::owner(&server).await;
        let (numbers, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let (mut owner, numbers, enough) = (owner.clone(), Arc::clone(&numbers), Arc::clone(&enough));
                tokio::spawn(async move {
                    let mut acknowledged = Vec::new();
                    loop {
                        let number = numbers.fetch_add(1, Ordering::Relaxed);
                        let name = format!("user-{number}");
                        let body = json!({"username": name, "password": PASSWORD, "role": "observer"});
                        match owner.try_send(Method::POST, "/users", Some(body)).await {
                            Ok(answer) => drop(answer.expect(201)),
                            Err(_) => return acknowledged,
                        }
                        acknowledged.push(name);
                        if number >= ENOUGH {
                            enough.notify_one();
                        }
                    }
                })
            })
            .collect();
        patiently("enough accounts", enough.notified()).await;
        server.kill().await;
        let mut acknowledged = Vec::new();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
        assert!(acknowledged.len() >= 2, "{acknowledged:?}");

        let server = home.serve().await;
        let listed = owner.at(&server).get("/users?limit=200").await.expect(200).data();
        let listed: Vec<_> =
            listed.as_array().unwrap().iter().map(|user| user["username"].as_str().unwrap()).collect();
        for name in &acknowledged {
            assert!(listed.contains(&name.as_str()), "{name} is not among {listed:?}");
        }
    }
}

#[tokio::test]
async fn the_secret_can_come_from_a_file() {
    const SECRET: &str = "a secret of its own, long enough to sign with";
    let home = Home::new();
    let file = home.path("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let server = home.with("QUARTERDECK_JWT_SECRET_FILE", file.to_str().unwrap()).serve().await;
    let token = |secret: &str| {
        mint_cli_token(&secret.to_owned().into(), JwtAlgorithm::HS256, chrono::Utc::now()).unwrap()
    };
    Caller::bearer(&server, &token(SECRET)).get("/admin/backups").await.expect(200);
    let other = token("another secret, just as long, for signing");
    Caller::bearer(&server, &other).get("/admin/backups").await.expect(401);
}

#[tokio::test]
async fn a_second_server_on_one_data_folder_is_refused_and_the_first_goes_on() {
    let home = Home::new();
    let first = home.serve().await;
    let second = home.at_another_port();
    let run = second.spawn().ended().await;
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    assert!(run.stderr.contains("another quarterdeck server is using"), "{}", run.stderr);
    assert!(run.stderr.contains("--data-dir"), "{}", run.stderr);
    Caller::owner(&first).await.get("/auth/me").await.expect(200);
    first.kill().await;
    second.serve().await;
}

#[tokio::test]
async fn probes_are_not_counted() {
    let home = Home::new().with("QUARTERDECK_API__RATE_LIMIT__UNAUTH_MAX_REQUESTS", "1");
    let server = home.serve().await;
    let mut prober = Caller::new(&server);
    for _ in 0..2 {
        for path in ["/health", "/healthz", "/readyz"] {
            prober.get(path).await.expect(200);
        }
    }
    prober.get("/setup/status").await.expect(200);
    prober.get("/setup/status").await.expect(429);
}

//! Where the signing secret comes from.

use std::sync::Arc;

use quarterdeck_auth::{JwtSecret, Signer, resolve_secret, stored_secret};
use quarterdeck_domain::Result;
use quarterdeck_domain::clock::{SharedClock, SystemClock};
use quarterdeck_domain::setting::Registry;
use quarterdeck_store::{Store, setting};
use quarterdeck_testkit::{TestServer, on_both_databases};
use secrecy::ExposeSecret;

use crate::support::race;

const CONFIGURED: &str = "a configured secret of the operator";
const STORED: &str = "a stored secret from an earlier start";

async fn resolve(store: &Store, configured: &str) -> Result<JwtSecret> {
    let clock: SharedClock = SystemClock::shared();
    resolve_secret(store, &clock, &configured.into()).await
}

async fn plant(store: &Store, value: &'static str) {
    let now = chrono::Utc::now();
    let write = store.write(move |tx| Box::pin(setting::put(tx, "auth", "jwt_secret", value, now)));
    write.await.unwrap();
}

async fn stored(store: &Store) -> Option<String> {
    let row = setting::get(store.read(), "auth", "jwt_secret").await.unwrap();
    row.map(|row| row.value)
}

/// Whether a secret is this text: its tokens verify under the other.
fn is(secret: &JwtSecret, text: &str) -> bool {
    let algorithm = quarterdeck_auth::config::JwtAlgorithm::HS256;
    let now = chrono::Utc::now();
    let token = Signer::new(secret, algorithm).mint_for_cli(now);
    Signer::new(&JwtSecret::new(text.into()).unwrap(), algorithm).verify(&token, now).is_some()
}

on_both_databases! {
    async fn the_configured_secret_wins_and_the_stored_one_stays_as_it_is(db: TestDb) {
        let store = db.open().await;
        plant(&store, STORED).await;
        assert!(is(&resolve(&store, &format!("  {CONFIGURED}\n")).await.unwrap(), CONFIGURED));
        assert_eq!(stored(&store).await.as_deref(), Some(STORED));
    }

    async fn a_configured_secret_stores_nothing(db: TestDb) {
        let store = db.open().await;
        resolve(&store, CONFIGURED).await.unwrap();
        assert_eq!(stored(&store).await, None);
    }

    async fn a_configured_secret_of_white_space_counts_as_absent(db: TestDb) {
        let store = db.open().await;
        plant(&store, STORED).await;
        assert!(is(&resolve(&store, " \t\n").await.unwrap(), STORED));
    }

    async fn a_short_configured_secret_stops_the_start_and_is_not_repeated(db: TestDb) {
        let store = db.open().await;
        plant(&store, STORED).await;
        let refusal = resolve(&store, "  thirty-one characters are short  ").await.unwrap_err();
        let text = format!("{refusal} {refusal:?}");
        assert!(text.contains("QUARTERDECK_JWT_SECRET") && !text.contains("thirty"), "{text}");
    }

    async fn a_short_stored_secret_is_replaced(db: TestDb) {
        let store = db.open().await;
        plant(&store, "  short  ").await;
        let secret = resolve(&store, "").await.unwrap();
        let made = stored(&store).await.unwrap();
        assert!(made.len() == 64 && is(&secret, &made), "{} characters", made.len());
    }

    async fn a_restart_reuses_the_made_secret(db: TestDb) {
        let store = db.open().await;
        let first = resolve(&store, "").await.unwrap();
        store.close().await;
        let store = db.open().await;
        let second = resolve(&store, "").await.unwrap();
        let made = stored_secret(&store).await.unwrap().unwrap();
        let plain = made.expose_secret();
        assert!(is(&first, plain) && is(&second, plain));
        assert!(plain.len() == 64 && plain.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
    }

    async fn programs_that_start_together_end_with_one_secret(db: TestDb) {
        let first = db.open().await;
        let stores = match db.is_shared() {
            true => vec![first, db.open().await, db.open().await],
            false => vec![first],
        };
        let stores = Arc::new(stores);
        let secrets = race(12, |i| {
            let stores = Arc::clone(&stores);
            async move { resolve(&stores[i % stores.len()], "").await.unwrap() }
        }).await;
        let kept = stored(&stores[0]).await.unwrap();
        assert!(secrets.iter().all(|secret| is(secret, &kept)));
    }

    async fn the_secret_is_no_setting(db: TestDb) {
        let server = TestServer::on(db).await;
        resolve(&server.app.store, "").await.unwrap();
        let made = stored(&server.app.store).await.unwrap();
        assert!(Registry::of_this_program().unwrap().position("auth", "jwt_secret").is_none());
        assert!(server.app.settings.entry("auth", "jwt_secret").is_err());
        assert!(!format!("{:?}", server.app.settings.entries()).contains(&made));
    }
}

#[test]
fn the_secret_does_not_show_in_debug_output() {
    assert!(!format!("{:?}", JwtSecret::new(CONFIGURED.into()).unwrap()).contains("configured"));
}

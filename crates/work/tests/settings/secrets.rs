//! Sensitive settings: sealed at rest, masked everywhere.

use quarterdeck_domain::setting::{IfMatch, MASK, SettingSource};
use quarterdeck_store::setting;
use secrecy::ExposeSecret;

use quarterdeck_testkit::on_both_databases;

use crate::*;

const ID: &str = "providers/token";
const SECRET: &str = "hunter2-hunter2-hunter2";

async fn secret(settings: &Settings) -> Result<Option<String>> {
    Ok(settings.secret(&TOKEN).await?.map(|secret| secret.expose_secret().to_owned()))
}

on_both_databases! {
    async fn without_a_key_a_sensitive_value_is_refused_not_stored(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.open(None, &[], &[]).await.unwrap();
        let refusal = set(&settings, ID, SECRET).await.unwrap_err();
        assert_eq!((failure(&refusal), refusal.detail()), ((500, 8000), "Internal server error"));
        assert!(!format!("{refusal:?}").contains(SECRET));
        assert_eq!(setting::all(house.store.read()).await.unwrap(), []);
    }

    async fn a_value_that_does_not_open_fails_alone_and_is_masked_in_lists(db: TestDb) {
        let house = House::on(&db).await;
        set(&house.settings().await, ID, SECRET).await.unwrap();
        for keys in [Some(KEY_2), None] {
            let settings = house.open(keys, &[], &[]).await.unwrap();
            assert_eq!(failure(&settings.entry("providers", "token").unwrap_err()), (500, 8000));
            assert_eq!(failure(&secret(&settings).await.unwrap_err()), (500, 8000));
            let listed = settings.entries_of("providers").unwrap();
            let token = listed.iter().find(|entry| entry.definition.key == "token").unwrap();
            assert_eq!((token.value.as_str(), token.source), (MASK, SettingSource::Db));
            reset(&settings, "providers/other_token").await.unwrap();
        }
        let settings = house.open(Some(KEY_2), &[], &[]).await.unwrap();
        set(&settings, ID, "new").await.unwrap();
        assert_eq!(secret(&settings).await.unwrap().as_deref(), Some("new"), "overwriting mends it");
    }

    async fn a_sealed_value_moved_to_another_row_does_not_open(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        set(&settings, ID, SECRET).await.unwrap();
        house
            .store
            .write(|tx| {
                Box::pin(async move {
                    let row = setting::get(&**tx, "providers", "token").await?.unwrap();
                    setting::put(tx, "providers", "other_token", &row.value, row.updated_at).await
                })
            })
            .await
            .unwrap();
        let settings = house.settings().await;
        assert!(settings.entry("providers", "other_token").is_err());
        assert!(settings.secret(&OTHER_TOKEN).await.is_err());
        assert_eq!(secret(&settings).await.unwrap().as_deref(), Some(SECRET));
    }

    async fn a_start_with_a_new_first_key_lets_the_old_one_retire(db: TestDb) {
        let house = House::on(&db).await;
        let before = set(&house.settings().await, ID, SECRET).await.unwrap();
        let rotated = house.open(Some(&format!("{KEY_2},{KEY_1}")), &[], &[]).await.unwrap();
        assert_eq!(secret(&rotated).await.unwrap().as_deref(), Some(SECRET));
        let settings = house.open(Some(KEY_2), &[], &[]).await.unwrap();
        assert_eq!(secret(&settings).await.unwrap().as_deref(), Some(SECRET));
        assert_eq!(entry(&settings, ID).etag(), before.etag(), "the same value keeps its version");
    }

    async fn the_mask_is_not_a_value(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        assert_eq!(failure(&set(&settings, ID, MASK).await.unwrap_err()), (422, 2000));
    }

    async fn a_secret_of_the_environment_is_masked_and_readable(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.open(None, &[("QUARTERDECK_PROVIDERS_TOKEN", SECRET)], &[]).await.unwrap();
        let shown = entry(&settings, ID);
        assert_eq!((shown.value.as_str(), shown.source), (MASK, SettingSource::Env));
        assert_eq!(secret(&settings).await.unwrap().as_deref(), Some(SECRET));
        assert!(settings.secret(&OTHER_TOKEN).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_sensitive_value_is_shown_nowhere_and_stored_sealed() {
    let house = House::new().await;
    let settings = house.settings().await;
    let (log, _guard) = Log::start();
    let signals = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&signals);
    house.store.on_signal(move |signal| heard.lock().unwrap().push_str(&format!("{signal:?}")));

    let answer = set(&settings, ID, SECRET).await.unwrap();
    assert_eq!((answer.value.as_str(), answer.source), (MASK, SettingSource::Db));
    let shown = [
        format!("{:?}", entry(&settings, ID)),
        format!("{:?}", settings.entries()),
        format!("{:?}", settings.export_security()),
        format!("{settings:?} {:?}", settings.current()),
        signals.lock().unwrap().clone(),
    ];
    assert!(shown.iter().all(|text| !text.contains(SECRET)));
    assert!(shown[4].contains("token"), "the change was announced");
    assert_eq!(secret(&settings).await.unwrap().as_deref(), Some(SECRET));
    assert!(!log.text().contains(SECRET));

    house.store.close().await;
    let refusal = set(&settings, ID, SECRET).await.unwrap_err();
    assert!(!format!("{refusal} {refusal:?}").contains(SECRET));
    let Database::Sqlite { path, .. } = &house.db.database else { panic!("on SQLite") };
    for file in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
    }
}

#[tokio::test]
async fn the_tag_of_a_sensitive_setting_changes_with_each_write_but_not_with_the_value() {
    let house = House::new().await;
    let other = House::new().await;
    let (a, b) = (house.settings().await, other.settings().await);
    let first = set(&a, ID, SECRET).await.unwrap().etag();
    assert_eq!(first, set(&b, ID, "another").await.unwrap().etag(), "same time, same tag");
    assert_ne!(first, set(&a, ID, SECRET).await.unwrap().etag());
    let stale = write_if(ID, "x", IfMatch::parse(&first));
    assert_eq!(failure(&a.set(stale, &ACTOR).await.unwrap_err()), (409, 4002));
}

//! Rows of settings.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use quarterdeck_store::setting::{self, Row};
use quarterdeck_store::{Signal, Store, Tx};
use quarterdeck_testkit::on_both_databases;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds) + TimeDelta::microseconds(7)
}

fn row(value: &str, seconds: i64) -> Row {
    Row { namespace: "api".into(), key: "k".into(), value: value.into(), updated_at: at(seconds) }
}

async fn swap(store: &Store, row: Row, expected: Option<DateTime<Utc>>) -> bool {
    store
        .write(move |tx: &Tx| Box::pin(async move { setting::swap(tx, &row, expected).await }))
        .await
        .unwrap()
}

async fn remove(store: &Store, expected: DateTime<Utc>) -> bool {
    store
        .write(move |tx: &Tx| Box::pin(async move { setting::remove(tx, "api", "k", expected).await }))
        .await
        .unwrap()
}

on_both_databases! {
    async fn a_write_needs_the_version_it_expects(db: TestDb) {
        let store = db.open().await;
        assert!(!swap(&store, row("a", 1), Some(at(0))).await, "expects a row where none is");
        assert!(swap(&store, row("a", 1), None).await);
        assert!(!swap(&store, row("b", 2), None).await, "expects no row where one is");
        assert!(!swap(&store, row("b", 2), Some(at(0))).await, "expects an older version");
        assert_eq!(setting::get(store.read(), "api", "k").await.unwrap(), Some(row("a", 1)));
        assert!(swap(&store, row("b", 2), Some(at(1))).await);
        assert_eq!(setting::get(store.read(), "api", "k").await.unwrap(), Some(row("b", 2)));
    }

    async fn a_removal_needs_the_version_it_expects(db: TestDb) {
        let store = db.open().await;
        assert!(swap(&store, row("a", 1), None).await);
        assert!(!remove(&store, at(2)).await);
        assert!(remove(&store, at(1)).await);
        assert!(!remove(&store, at(1)).await, "nothing is left to remove");
        assert_eq!(setting::all(store.read()).await.unwrap(), []);
    }

    async fn an_unconditional_write_replaces_whatever_is_there(db: TestDb) {
        let store = db.open().await;
        for value in ["a", "b"] {
            store
                .write(move |tx: &Tx| {
                    Box::pin(async move { setting::put(tx, "auth", "jwt_secret", value, at(1)).await })
                })
                .await
                .unwrap();
            let stored = setting::get(store.read(), "auth", "jwt_secret").await.unwrap();
            assert_eq!(stored.map(|row| row.value).as_deref(), Some(value));
        }
    }

    async fn only_writes_that_happened_are_announced(db: TestDb) {
        let store = db.open().await;
        let heard = Arc::new(Mutex::new(0));
        let count = Arc::clone(&heard);
        store.on_signal(move |signal| {
            assert_eq!(*signal, Signal::Setting { namespace: "api".into(), key: "k".into() });
            *count.lock().unwrap() += 1;
        });
        let mut expected = 0;
        for (version, happens) in [(None, true), (None, false), (Some(at(1)), true), (Some(at(9)), false)] {
            assert_eq!(swap(&store, row("a", 1), version).await, happens);
            expected += i32::from(happens);
            assert_eq!(*heard.lock().unwrap(), expected, "{version:?}");
        }
        remove(&store, at(1)).await;
        remove(&store, at(1)).await;
        assert_eq!(*heard.lock().unwrap(), expected + 1);
    }

    async fn of_many_racing_writers_of_one_version_exactly_one_wins(db: TestDb) {
        let store = db.open().await;
        assert!(swap(&store, row("first", 1), None).await);
        let racers = (0..20).map(|i| swap(&store, row(&format!("racer {i}"), 2), Some(at(1))));
        let wins = futures_util::future::join_all(racers).await;
        let winners: Vec<_> = wins.iter().enumerate().filter(|(_, won)| **won).map(|(i, _)| i).collect();
        assert_eq!(winners.len(), 1);
        let stored = setting::get(store.read(), "api", "k").await.unwrap().unwrap();
        assert_eq!(stored.value, format!("racer {}", winners[0]));
    }

    async fn exchanging_the_text_keeps_the_version_and_needs_the_old_text(db: TestDb) {
        let store = db.open().await;
        assert!(swap(&store, row("old", 1), None).await);
        for (expected, done) in [("other", false), ("old", true), ("old", false)] {
            let exchanged = store
                .write(move |tx: &Tx| {
                    Box::pin(async move { setting::exchange(tx, &row(expected, 1), "new").await })
                })
                .await
                .unwrap();
            assert_eq!(exchanged, done, "{expected}");
        }
        assert_eq!(setting::get(store.read(), "api", "k").await.unwrap(), Some(row("new", 1)));
    }
}

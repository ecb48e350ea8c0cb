//! Jobs of concurrent callers share one commit on SQLite, and nothing else.

use std::pin::Pin;

use futures_util::FutureExt;
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::{Store, setting};
use quarterdeck_testkit::TestDb;
use sea_orm::ConnectionTrait;
use tokio::sync::oneshot;

use crate::{Heard, has, news_of, put};

type Waiting<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Keeps the writer busy until told otherwise.
async fn occupy(store: &Store) -> oneshot::Sender<()> {
    let (begun, has_begun) = oneshot::channel();
    let (release, released) = oneshot::channel();
    let store = store.clone();
    tokio::spawn(async move {
        let job = store.write(move |_| {
            Box::pin(async move {
                let _ = begun.send(());
                let _ = released.await;
                Ok(())
            })
        });
        job.await.expect("an empty job");
    });
    has_begun.await.expect("the writer takes the job");
    release
}

/// Hands the write to the writer, which is busy, and comes back.
fn queue<T: Send + 'static>(job: impl Future<Output = Result<T>> + Send + 'static) -> Waiting<T> {
    let mut job = Box::pin(job);
    assert!((&mut job).now_or_never().is_none(), "the writer is busy");
    job
}

fn queue_put(store: &Store, key: &str) -> Waiting<()> {
    let (store, key) = (store.clone(), key.to_owned());
    queue(async move { put(&store, &key).await })
}

#[tokio::test]
async fn jobs_that_wait_together_are_committed_together() {
    let db = TestDb::sqlite();
    let store = db.open().await;
    let release = occupy(&store).await;
    let first = queue_put(&store, "first");
    let (writer, reader) = (store.clone(), store.clone());
    let second = queue(async move {
        let look = writer.write(move |tx| {
            Box::pin(async move {
                let inside = setting::get(&**tx, "test", "first").await?.is_some();
                Ok((inside, has(&reader, "first").await))
            })
        });
        look.await
    });
    let _ = release.send(());
    assert_eq!(second.await.unwrap(), (true, false), "written, but not committed on its own");
    first.await.unwrap();
    assert!(has(&store, "first").await);
}

#[tokio::test]
async fn a_job_that_fails_or_panics_takes_nothing_with_it() {
    let db = TestDb::sqlite();
    let store = db.open().await;
    let heard = Heard::by(&store);
    let release = occupy(&store).await;
    let mut jobs = vec![queue_put(&store, "before")];
    for (key, panics) in [("failing", false), ("panicking", true)] {
        let store = store.clone();
        jobs.push(queue(async move {
            let job = store.write(move |tx| {
                Box::pin(async move {
                    setting::put(tx, "test", key, "x", chrono::DateTime::UNIX_EPOCH).await?;
                    assert!(!panics, "as planned");
                    Err(Error::conflict("as planned"))
                })
            });
            job.await
        }));
    }
    let early = store.clone();
    jobs.push(queue(async move { early.write(|_| panic!("before the first wait")).await }));
    jobs.push(queue_put(&store, "after"));
    let _ = release.send(());

    let statuses: Vec<_> = futures_util::future::join_all(jobs)
        .await
        .into_iter()
        .map(|outcome| outcome.map_or_else(|error| error.status(), |()| 200))
        .collect();
    assert_eq!(statuses, [200, 409, 500, 500, 200]);
    for (key, happened) in [("before", true), ("failing", false), ("panicking", false), ("after", true)] {
        assert_eq!(has(&store, key).await, happened, "{key}");
        assert_eq!(heard.holds(&news_of(key)), happened, "{key}");
    }
    put(&store, "later").await.expect("the writer goes on");
}

#[tokio::test]
async fn a_full_queue_refuses_more_and_keeps_what_it_has() {
    let db = TestDb::sqlite();
    let store = db.open().await;
    let release = occupy(&store).await;
    let keys: Vec<_> = (0..1024).map(|i| format!("key {i}")).collect();
    let jobs: Vec<_> = keys.iter().map(|key| queue_put(&store, key)).collect();
    for _ in 0..3 {
        let refusal = put(&store, "one too many").await.unwrap_err();
        assert_eq!((refusal.status(), refusal.code().number()), (503, 8001));
        assert_eq!(refusal.retry_after_seconds(), Some(1));
    }
    let _ = release.send(());
    for outcome in futures_util::future::join_all(jobs).await {
        outcome.unwrap();
    }
    assert_eq!(setting::all(store.read()).await.unwrap().len(), keys.len());
}

#[tokio::test]
async fn closing_waits_for_what_is_queued_and_refuses_what_comes_later() {
    let db = TestDb::sqlite();
    let store = db.open().await;
    let release = occupy(&store).await;
    let jobs: Vec<_> = (0..300).map(|i| queue_put(&store, &format!("key {i}"))).collect();
    let mut closing = Box::pin(store.close());
    assert!((&mut closing).now_or_never().is_none());
    let _ = release.send(());
    closing.await;
    for outcome in futures_util::future::join_all(jobs).await {
        outcome.unwrap();
    }
    let refusal = put(&store, "late").await.unwrap_err();
    assert_eq!((refusal.status(), refusal.code().number()), (503, 8001));
    store.close().await;
    let again = db.open().await;
    assert_eq!(setting::all(again.read()).await.unwrap().len(), 300);
}

#[tokio::test]
async fn a_job_whose_caller_went_away_is_committed_and_announced() {
    let db = TestDb::sqlite();
    let store = db.open().await;
    let heard = Heard::by(&store);
    let release = occupy(&store).await;
    drop(queue_put(&store, "abandoned"));
    let last = queue_put(&store, "last");
    let _ = release.send(());
    last.await.unwrap();
    assert!(has(&store, "abandoned").await);
    assert!(heard.holds(&news_of("abandoned")));
}

#[tokio::test]
async fn a_full_disk_fails_the_whole_commit_and_the_writer_goes_on_when_there_is_room() {
    let db = TestDb::sqlite();
    let store = db.open().await;
    let heard = Heard::by(&store);
    let release = occupy(&store).await;
    let mut jobs = vec![queue_put(&store, "before")];
    let full = store.clone();
    jobs.push(queue(async move {
        let job = full.write(|tx| {
            Box::pin(async move {
                // As good as a full disk, until the connection is a new one.
                let failed = |e| Error::internal(e);
                tx.execute_unprepared("PRAGMA max_page_count = 1").await.map_err(failed)?;
                setting::put(tx, "test", "huge", &"x".repeat(1 << 20), chrono::DateTime::UNIX_EPOCH).await
            })
        });
        job.await
    }));
    jobs.push(queue_put(&store, "after"));
    let _ = release.send(());
    for outcome in futures_util::future::join_all(jobs).await {
        assert!(outcome.unwrap_err().status() >= 500, "nothing was acknowledged");
    }
    for key in ["before", "huge", "after"] {
        assert!(!has(&store, key).await && !heard.holds(&news_of(key)), "{key}");
    }
    put(&store, "later").await.expect("there is room again");
    assert!(has(&store, "later").await);
}

//! Several copies of the program on one PostgreSQL: when a write returns, every copy has applied its
//! signals or has stopped trusting its caches.

use std::sync::Arc;
use std::time::Instant;

use quarterdeck_store::{Database, Signal, Store};
use quarterdeck_testkit::TestDb;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::failures::Server;
use crate::{Heard, eventually, has, news_of, put};

/// A copy that the server knows by this name.
async fn copy(db: &TestDb, name: &str) -> Store {
    named(db, name, None).await
}

async fn named(db: &TestDb, name: &str, through: Option<&Wire>) -> Store {
    let mut database = db.database.clone();
    if let Database::Postgres { options, .. } = &mut database {
        **options = options.clone().application_name(name);
        if let Some(wire) = through {
            **options = options.clone().host("127.0.0.1").port(wire.port);
        }
    }
    let store = Store::open(database).await.expect("the store opens");
    eventually(async || store.signals_are_live()).await;
    store
}

/// The connection a copy listens on is the one that holds an advisory lock for as long as it lives.
fn listener_of(name: &str) -> String {
    format!(
        "application_name = '{name}' AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' \
         AND mode = 'ShareLock')"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_write_returns_every_copy_has_applied_its_signal() {
    let Some(db) = TestDb::postgres().await else { return };
    let (a, b, c) = (copy(&db, "a").await, copy(&db, "b").await, copy(&db, "c").await);
    let (on_a, on_b, on_c) = (Heard::by(&a), Heard::by(&b), Heard::by(&c));
    for i in 0..20 {
        let key = format!("one by one {i}");
        put(&a, &key).await.unwrap();
        assert!(on_a.holds(&news_of(&key)) && on_b.holds(&news_of(&key)) && on_c.holds(&news_of(&key)));
    }
    let writes = (0..20).map(|i| {
        let (store, heard) = if i % 2 == 0 { (&a, &on_b) } else { (&b, &on_a) };
        let on_c = &on_c;
        async move {
            let key = format!("at once {i}");
            put(store, &key).await.unwrap();
            assert!(heard.holds(&news_of(&key)) && on_c.holds(&news_of(&key)));
        }
    });
    futures_util::future::join_all(writes).await;
    assert!(!on_b.holds(&Signal::Everything), "nobody had to start over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_announces_too_much_empties_the_caches_of_the_others() {
    let Some(db) = TestDb::postgres().await else { return };
    let (a, b) = (copy(&db, "a").await, copy(&db, "b").await);
    let (on_a, on_b) = (Heard::by(&a), Heard::by(&b));
    a.write(|tx| {
        Box::pin(async move {
            (0..500).for_each(|i| tx.signal(news_of(&format!("key {i}"))));
            Ok(())
        })
    })
    .await
    .unwrap();
    assert!(on_b.holds(&Signal::Everything));
    assert!(on_a.holds(&news_of("key 499")) && !on_a.holds(&Signal::Everything));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_lost_its_listener_trusts_nothing_until_it_has_started_over() {
    let Some(db) = TestDb::postgres().await else { return };
    let (a, b) = (copy(&db, "a").await, copy(&db, "b").await);
    let heard = Heard::by(&b);
    let server = Server::of(&db);
    server.admit(false).await;
    server.end_connections(&listener_of("b")).await;
    eventually(async || !b.signals_are_live()).await;
    put(&a, "missed").await.unwrap();
    assert!(!heard.holds(&news_of("missed")) && !b.signals_are_live());
    assert!(has(&b, "missed").await, "asking the database helps");
    server.admit(true).await;
    eventually(async || b.signals_are_live()).await;
    assert!(heard.holds(&Signal::Everything), "told to drop its caches before it trusts them again");
    put(&a, "again").await.unwrap();
    assert!(heard.holds(&news_of("again")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_writes_while_its_own_listener_is_gone_still_reaches_the_others() {
    let Some(db) = TestDb::postgres().await else { return };
    let (a, b) = (copy(&db, "a").await, copy(&db, "b").await);
    let heard = Heard::by(&b);
    Server::of(&db).end_connections(&listener_of("a")).await;
    for i in 0..3 {
        let key = format!("key {i}");
        put(&a, &key).await.unwrap();
        assert!(heard.holds(&news_of(&key)));
    }
    eventually(async || a.signals_are_live()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_copy_delays_a_write_for_its_lease_at_most_and_a_gone_one_not_at_all() {
    let Some(db) = TestDb::postgres().await else { return };
    let wire = Wire::to(&db).await;
    let (a, b) = (copy(&db, "a").await, named(&db, "b", Some(&wire)).await);
    let heard = Heard::by(&b);
    put(&a, "heard").await.unwrap();
    assert!(heard.holds(&news_of("heard")));

    wire.set(Flow::Stopped);
    let begun = Instant::now();
    put(&a, "unheard").await.unwrap();
    let while_hanging = begun.elapsed();
    assert!(!heard.holds(&news_of("unheard")));
    assert!(!b.signals_are_live(), "it has not heard, so it must not trust its caches");

    wire.set(Flow::Cut);
    let pool = db.postgres_pool().await.unwrap();
    eventually(async || {
        let listening = format!("SELECT count(*) FROM pg_stat_activity WHERE {}", listener_of("b"));
        sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(listening)).fetch_one(&pool).await.unwrap() == 0
    })
    .await;
    let begun = Instant::now();
    put(&a, "alone").await.unwrap();
    let when_gone = begun.elapsed();
    assert!(when_gone * 4 < while_hanging, "{when_gone:?} against {while_hanging:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_closed_is_not_waited_for() {
    let Some(db) = TestDb::postgres().await else { return };
    let wire = Wire::to(&db).await;
    let (a, b, hanging) = (copy(&db, "a").await, copy(&db, "b").await, named(&db, "c", Some(&wire)).await);
    b.close().await;
    let begun = Instant::now();
    put(&a, "without b").await.unwrap();
    let when_closed = begun.elapsed();
    wire.set(Flow::Stopped);
    let begun = Instant::now();
    put(&a, "with c hanging").await.unwrap();
    assert!(when_closed * 4 < begun.elapsed(), "{when_closed:?}");
    wire.set(Flow::Cut);
    drop(hanging);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_died_without_a_word_is_replaced() {
    let Some(db) = TestDb::postgres().await else { return };
    let wire = Wire::to(&db).await;
    let (a, b) = (copy(&db, "a").await, named(&db, "b", Some(&wire)).await);
    let heard = Heard::by(&b);
    wire.set(Flow::OldStopped);
    eventually(async || !b.signals_are_live()).await;
    eventually(async || b.signals_are_live()).await;
    assert!(heard.holds(&Signal::Everything));
    put(&a, "news").await.unwrap();
    assert!(heard.holds(&news_of("news")));
}

#[derive(Clone, Copy, PartialEq)]
enum Flow {
    /// Everything passes.
    Open,
    /// Connections stay, but nothing passes.
    Stopped,
    /// As before for the connections there are; new ones pass.
    OldStopped,
    /// Connections are closed and new ones refused.
    Cut,
}

/// A wire to the server of a database that can be disturbed.
struct Wire {
    port: u16,
    flow: Arc<watch::Sender<Flow>>,
}

impl Wire {
    async fn to(db: &TestDb) -> Self {
        let Database::Postgres { options, .. } = &db.database else { panic!("SQLite has no wire") };
        let server = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (flow, flowing) = watch::channel(Flow::Open);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(server.clone()).await.unwrap();
                tokio::spawn(carry(client, server, flowing.clone()));
            }
        });
        Self { port, flow: Arc::new(flow) }
    }

    fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mut flow: watch::Receiver<Flow>) {
    let born = *flow.borrow_and_update();
    let undisturbed = |now: Flow| now == Flow::Open || (now == Flow::OldStopped && born == now);
    while *flow.borrow() != Flow::Cut {
        if undisturbed(*flow.borrow()) {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                _ = flow.changed() => {}
            }
        } else if flow.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
    // Both ends are dropped here, which closes them.
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_waits_until_the_others_have_caught_up_but_not_for_ever() {
    let Some(db) = TestDb::postgres().await else { return };
    let (a, b) = (copy(&db, "a").await, copy(&db, "b").await);
    let (release, released) = watch::channel(false);
    let (caught_up, seen) = watch::channel(0);
    let caught_up = Arc::new(caught_up);
    b.on_news(move |signals| {
        let (count, mut released, caught_up) = (signals.len(), released.clone(), Arc::clone(&caught_up));
        Box::pin(async move {
            let _ = released.wait_for(|released| *released).await;
            caught_up.send_modify(|sum| *sum += count);
        })
    });
    let waiting = tokio::spawn({
        let a = a.clone();
        async move { put(&a, "slow").await }
    });
    let heard = Heard::by(&b);
    put(&b, "its own").await.expect("a copy does not wait for itself");
    assert!(heard.holds(&news_of("its own")));
    assert!(!waiting.is_finished() && *seen.borrow() == 0);
    release.send_replace(true);
    waiting.await.unwrap().unwrap();
    assert_eq!(*seen.borrow(), 1);

    release.send_replace(false);
    put(&a, "never").await.expect("the writer goes on by itself");
    assert_eq!(*seen.borrow(), 1);
}

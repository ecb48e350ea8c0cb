//! How news travels between the copies of the program.

use std::time::Duration;

use quarterdeck_bus::message::NatsConfig;
use quarterdeck_bus::{Bus, Options};
use quarterdeck_domain::channel::Shared;
use quarterdeck_domain::clock::SystemClock;
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_testkit::{NatsServer, TestDb};
use serde_json::json;

fn event(id: &str) -> Event {
    let now = SystemClock::shared().now();
    Event::new(EventType::TaskCreated, now, json!({"task_id": id})).unwrap()
}

/// Waits until a channel has come to this sequence.
async fn reached(bus: &Bus, seq: u64) {
    let position = quarterdeck_bus::Position { seq, ..bus.shared(Shared::Tasks).top() };
    let reached = bus.shared(Shared::Tasks).reached(&position);
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("it arrives");
}

async fn on_nats(db: &TestDb, nats: &NatsServer) -> Bus {
    let config = NatsConfig { url: nats.url().into(), ..NatsConfig::default() };
    let options = Options { nats: Some(config), ..Options::default() };
    Bus::start(db.open().await, SystemClock::shared(), options).await.expect("news travels")
}

#[tokio::test(flavor = "multi_thread")]
async fn events_travel_through_nats_and_survive_its_restart() {
    let Some(mut nats) = NatsServer::start() else { return };
    let (first, second) = (on_nats(&TestDb::sqlite(), &nats).await, on_nats(&TestDb::sqlite(), &nats).await);
    first.publish(event("1")).await.unwrap();
    reached(&second, 1).await;
    assert_eq!(first.shared(Shared::Tasks).top().epoch, second.shared(Shared::Tasks).top().epoch);

    nats.kill();
    // Committed and not yet told: it waits until the broker is back.
    first.publish(event("2")).await.unwrap();
    nats.restart();
    reached(&second, 2).await;
    reached(&first, 2).await;
    let late = on_nats(&TestDb::sqlite(), &nats).await;
    assert_eq!(
        late.shared(Shared::Tasks).top(),
        first.shared(Shared::Tasks).top(),
        "a new copy reads what there is"
    );
    for bus in [first, second, late] {
        bus.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_beside_an_embedded_database_is_heard() {
    let db = TestDb::sqlite();
    let bus = Bus::start(db.open().await, SystemClock::shared(), Options::default()).await.unwrap();
    let visitor = quarterdeck_store::Store::attach(db.database.clone()).await.unwrap();
    visitor
        .write(|tx| {
            Box::pin(async move {
                tx.publish(Ok(event("1")));
                Ok(())
            })
        })
        .await
        .unwrap();
    reached(&bus, 1).await;
    visitor.close().await;
    bus.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_survives_a_restart_where_copies_share_it() {
    let Some(db) = TestDb::postgres().await else { return };
    let start =
        async || Bus::start(db.open().await, SystemClock::shared(), Options::default()).await.unwrap();
    let bus = start().await;
    let before = bus.shared(Shared::Tasks).top();
    bus.publish(event("1")).await.unwrap();
    reached(&bus, 1).await;
    bus.stop().await;
    let again = start().await;
    let (cut, missed) = again.recover(again.shared(Shared::Tasks), &before).await;
    assert_eq!((cut.seq, missed.ok().map(|events| events.len())), (1, Some(1)));
    again.stop().await;
}

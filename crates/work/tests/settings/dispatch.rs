//! Hot reload.

use std::time::Duration;

use quarterdeck_domain::setting::api;
use quarterdeck_work::settings::{Change, Dispatcher};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use quarterdeck_testkit::on_both_databases;

use crate::*;

const TICKETS: &str = "api/ws_ticket_max_pending_per_user";
const LONG: Duration = Duration::from_secs(20);

/// Watches tickets and the token interval; hears the key and the ticket bound then in force.
fn listen(dispatcher: &Dispatcher) -> UnboundedReceiver<(&'static str, i64)> {
    let (tell, heard) = unbounded_channel();
    let watched = [
        api::WS_TICKET_MAX_PENDING_PER_USER.definition(),
        api::TICKET_CLEANUP_INTERVAL_SECONDS.definition(),
        api::MAX_MEETING_CONTEXT_KEYS.definition(),
    ];
    dispatcher.subscribe("listener", watched, move |settings: Settings, change: Change| {
        let tell = tell.clone();
        async move {
            tell.send((change.key, settings.get(&api::WS_TICKET_MAX_PENDING_PER_USER))).unwrap();
            Ok(())
        }
    });
    heard
}

async fn next(heard: &mut UnboundedReceiver<(&'static str, i64)>) -> (&'static str, i64) {
    timeout(LONG, heard.recv()).await.expect("told in time").unwrap()
}

on_both_databases! {
    async fn a_change_reaches_the_watchers_of_every_copy_with_the_new_value_in_force(db: TestDb) {
        let house = House::on(&db).await;
        let other = house.another().await;
        let (here, there) = (house.settings().await, other.settings().await);
        let dispatchers = [Dispatcher::new(here.clone()), Dispatcher::new(there.clone())];
        let mut heard = dispatchers.each_ref().map(listen);
        for dispatcher in &dispatchers {
            dispatcher.start().unwrap();
        }
        set(&here, "api/jwt_expiry_minutes", "60").await.unwrap();
        set(&here, TICKETS, "9").await.unwrap();
        for heard in &mut heard {
            assert_eq!(next(heard).await, ("ws_ticket_max_pending_per_user", 9));
        }
        reset(&there, TICKETS).await.unwrap();
        for heard in &mut heard {
            assert_eq!(next(heard).await, ("ws_ticket_max_pending_per_user", 5));
        }
        assert_eq!(there.get(&api::JWT_EXPIRY_MINUTES), 60);
    }

    async fn a_writer_returns_when_the_watchers_of_its_copy_have_heard(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        let dispatcher = Dispatcher::new(settings.clone());
        let mut heard = listen(&dispatcher);
        dispatcher.start().unwrap();
        for value in 6..16 {
            set(&settings, TICKETS, &value.to_string()).await.unwrap();
            assert_eq!(heard.try_recv().unwrap().1, value);
        }
        dispatcher.stop(LONG).await.unwrap();
        set(&settings, TICKETS, "5").await.unwrap();
        assert!(heard.try_recv().is_err(), "nobody dispatches, nobody is waited for");
    }

    async fn a_change_made_while_nobody_dispatched_is_told_at_the_start(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        let dispatcher = Dispatcher::new(settings.clone());
        let mut heard = listen(&dispatcher);
        set(&settings, TICKETS, "8").await.unwrap();
        dispatcher.start().unwrap();
        assert_eq!(next(&mut heard).await.1, 8);
        dispatcher.stop(LONG).await.unwrap();
        set(&settings, TICKETS, "9").await.unwrap();
        dispatcher.start().unwrap();
        assert_eq!(next(&mut heard).await.1, 9);
        dispatcher.stop(LONG).await.unwrap();
        assert!(heard.try_recv().is_err(), "nothing is told twice");
    }

    async fn a_second_start_is_refused_and_a_second_stop_harmless(db: TestDb) {
        let house = House::on(&db).await;
        let dispatcher = Dispatcher::new(house.settings().await);
        dispatcher.stop(LONG).await.unwrap();
        dispatcher.start().unwrap();
        assert!(dispatcher.start().is_err());
        for _ in 0..2 {
            dispatcher.stop(LONG).await.unwrap();
        }
        dispatcher.start().unwrap();
    }

    async fn a_stop_that_runs_out_of_time_is_final(db: TestDb) {
        let house = House::on(&db).await;
        let settings = house.settings().await;
        let dispatcher = Dispatcher::new(settings.clone());
        let (entered, mut inside) = unbounded_channel();
        dispatcher.subscribe("hanging", [api::WS_TICKET_MAX_PENDING_PER_USER.definition()], move |_, _| {
            entered.send(()).unwrap();
            std::future::pending()
        });
        dispatcher.start().unwrap();
        set(&settings, TICKETS, "9").await.unwrap();
        timeout(LONG, inside.recv()).await.unwrap().unwrap();
        assert!(dispatcher.stop(Duration::ZERO).await.is_err());
        assert!(dispatcher.start().is_err());
        dispatcher.stop(LONG).await.unwrap();
    }
}

#[tokio::test]
async fn a_failing_or_panicking_watcher_stops_neither_the_others_nor_the_loop() {
    let house = House::new().await;
    let settings = house.settings().await;
    let dispatcher = Dispatcher::new(settings.clone());
    let (log, _guard) = Log::start();
    let watched = [api::WS_TICKET_MAX_PENDING_PER_USER.definition()];
    dispatcher.subscribe("failing", watched, |_, _| async { Err("no luck".to_owned()) });
    dispatcher.subscribe("panicking", watched, |_, _| async { panic!("on purpose") });
    dispatcher
        .subscribe("panicking early", watched, |_, _| -> std::future::Ready<_> { panic!("on purpose") });
    let mut heard = listen(&dispatcher);
    dispatcher.start().unwrap();
    for value in ["8", "9"] {
        set(&settings, TICKETS, value).await.unwrap();
        assert_eq!(next(&mut heard).await.1.to_string(), value);
    }
    for name in ["\"failing\"", "\"panicking\"", "\"panicking early\""] {
        assert!(log.text().contains(name), "{name} is logged");
    }
}

#[tokio::test]
async fn a_change_that_needs_a_restart_is_warned_of_and_not_told() {
    let house = House::new().await;
    let settings = house.settings().await;
    let dispatcher = Dispatcher::new(settings.clone());
    let mut heard = listen(&dispatcher);
    let (log, _guard) = Log::start();
    dispatcher.start().unwrap();
    set(&settings, "api/max_meeting_context_keys", "50").await.unwrap();
    set(&settings, TICKETS, "9").await.unwrap();
    assert_eq!(next(&mut heard).await.0, "ws_ticket_max_pending_per_user");
    let text = log.text();
    let warning = text.lines().find(|line| line.contains("settings.notification.restart_required")).unwrap();
    assert!(warning.contains("WARN") && warning.contains("max_meeting_context_keys"), "{warning}");
    assert!(heard.try_recv().is_err());
}

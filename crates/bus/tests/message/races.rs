//! Many at once.

use std::collections::BTreeSet;

use quarterdeck_bus::message::{BusError, ChannelType};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{PATIENCE, message, on_both_buses, say};

on_both_buses! {
    async fn of_many_who_make_one_channel_one_succeeds(test: Test) {
        let copies = [test.bus.clone(), test.copy().await];
        let mut racing = JoinSet::new();
        for racer in 0..16 {
            let bus = copies[racer % 2].clone();
            racing.spawn(async move { bus.create_channel("#race", ChannelType::Topic).await });
        }
        let outcomes = racing.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        let exists = BusError::ChannelExists("#race".to_owned());
        assert!(outcomes.iter().flat_map(|outcome| outcome.as_ref().err()).all(|error| *error == exists));
    }

    async fn of_many_who_wait_for_one_subscriber_each_message_reaches_one(test: Test) {
        test.bus.subscribe("tasks", "a").await.unwrap();
        let copies = [test.bus.clone(), test.copy().await];
        let (tell, mut heard) = mpsc::unbounded_channel();
        let mut waiting = JoinSet::new();
        for waiter in 0..8 {
            let (bus, tell) = (copies[waiter % 2].clone(), tell.clone());
            waiting.spawn(async move {
                while let Ok(Some(message)) = bus.receive("tasks", "a", None).await {
                    tell.send(message.id).unwrap();
                }
            });
        }
        drop(tell);
        // No more at once than the queue holds.
        for _ in 0..20 {
            let three = [(); 3].map(|()| message("tasks", "ada", "a", ""));
            let mut said = BTreeSet::from_iter(three.iter().map(|message| message.id));
            test.bus.publish_batch(three).await.unwrap();
            while !said.is_empty() {
                let id = timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
                assert!(said.remove(&id), "twice, or never said");
            }
        }
        test.bus.unsubscribe("tasks", "a").await.unwrap();
        assert_eq!(timeout(PATIENCE, heard.recv()).await.unwrap(), None);
    }

    async fn many_who_subscribe_at_once_make_one_subscription(test: Test) {
        let copies = [test.bus.clone(), test.copy().await];
        let mut racing = JoinSet::new();
        for racer in 0..8 {
            let bus = copies[racer % 2].clone();
            racing.spawn(async move { bus.subscribe("tasks", "a").await });
        }
        assert!(racing.join_all().await.iter().all(Result::is_ok));
        assert_eq!(test.bus.channel("tasks").await.unwrap().subscribers, ["a"]);
        say(&test.bus, "tasks", "one").await;
        assert_eq!(crate::hear_all(&copies[1], "tasks", "a").await, ["one"]);
    }

    async fn two_who_write_to_each_other_first_share_a_line(test: Test) {
        let copy = test.copy().await;
        let (one, other) = tokio::join!(
            test.bus.send_direct(message("x", "a", "b", "to b"), "b"),
            copy.send_direct(message("x", "b", "a", "to a"), "a"),
        );
        assert_eq!((one, other), (Ok(()), Ok(())));
        assert_eq!(crate::hear_all(&copy, "@a:b", "a").await, ["to a"]);
        assert_eq!(crate::hear_all(&test.bus, "@a:b", "b").await, ["to b"]);
    }
}

//! Channels, subscriptions and what is received.

use quarterdeck_bus::message::{BusError, ChannelInfo, ChannelType, MAX_MESSAGE_BYTES};

use crate::{PATIENCE, SILENCE, hear, hear_all, message, on_both_buses, say};

fn unknown<T: std::fmt::Debug>(result: Result<T, BusError>) {
    assert_eq!(result.unwrap_err(), BusError::UnknownChannel("#nowhere".to_owned()));
}

fn not_subscribed<T: std::fmt::Debug>(result: Result<T, BusError>) {
    assert!(matches!(result.unwrap_err(), BusError::NotSubscribed { .. }));
}

on_both_buses! {
    async fn every_subscriber_of_a_topic_gets_every_message_in_order(test: Test) {
        test.bus.subscribe("tasks", "a").await.unwrap();
        test.bus.subscribe("tasks", "b").await.unwrap();
        test.bus.subscribe("agents", "c").await.unwrap();
        for text in ["1", "2", "3"] {
            say(&test.bus, "tasks", text).await;
        }
        for who in ["a", "b"] {
            assert_eq!(hear_all(&test.bus, "tasks", who).await, ["1", "2", "3"]);
        }
        assert_eq!(test.bus.receive("agents", "c", Some(SILENCE)).await, Ok(None));
    }

    async fn a_message_arrives_whole(test: Test) {
        test.bus.subscribe("tasks", "a").await.unwrap();
        let sent = message("tasks", "ada", "grace", "ä\n\u{0}");
        test.bus.publish(sent.clone(), Some(PATIENCE)).await.unwrap();
        assert_eq!(*hear(&test.bus, "tasks", "a").await, sent);
    }

    async fn a_subscription_begins_when_it_is_made_and_making_it_again_changes_nothing(test: Test) {
        say(&test.bus, "tasks", "before").await;
        test.bus.subscribe("tasks", "a").await.unwrap();
        say(&test.bus, "tasks", "1").await;
        test.copy().await.subscribe("tasks", "a").await.unwrap();
        test.bus.subscribe("tasks", "a").await.unwrap();
        say(&test.bus, "tasks", "2").await;
        assert_eq!(hear_all(&test.bus, "tasks", "a").await, ["1", "2"]);
        assert_eq!(test.bus.channel("tasks").await.unwrap().subscribers, ["a"]);
    }

    async fn a_received_message_is_gone(test: Test) {
        test.bus.subscribe("tasks", "a").await.unwrap();
        say(&test.bus, "tasks", "once").await;
        assert_eq!(hear(&test.bus, "tasks", "a").await.text(), "once");
        assert_eq!(test.copy().await.receive("tasks", "a", Some(SILENCE)).await, Ok(None));
    }

    async fn an_unknown_channel_is_an_error_of_its_own(test: Test) {
        unknown(test.bus.publish(message("#nowhere", "a", "b", ""), None).await);
        unknown(test.bus.subscribe("#nowhere", "a").await);
        unknown(test.bus.unsubscribe("#nowhere", "a").await);
        unknown(test.bus.receive("#nowhere", "a", None).await);
        unknown(test.bus.channel("#nowhere").await);
        unknown(test.bus.history("#nowhere", 1).await);
    }

    async fn receiving_needs_a_subscription(test: Test) {
        not_subscribed(test.bus.receive("tasks", "a", Some(SILENCE)).await);
        not_subscribed(test.bus.unsubscribe("tasks", "a").await);
        test.bus.subscribe("tasks", "a").await.unwrap();
        test.bus.unsubscribe("tasks", "a").await.unwrap();
        not_subscribed(test.bus.receive("tasks", "a", Some(SILENCE)).await);
        say(&test.bus, "tasks", "meanwhile").await;
        test.bus.subscribe("tasks", "a").await.unwrap();
        assert_eq!(test.bus.receive("tasks", "a", Some(SILENCE)).await, Ok(None));
    }

    async fn nothing_waits_no_longer_than_asked(test: Test) {
        test.bus.subscribe("tasks", "a").await.unwrap();
        for timeout in [std::time::Duration::ZERO, std::time::Duration::from_nanos(1), SILENCE] {
            assert_eq!(test.bus.receive("tasks", "a", Some(timeout)).await, Ok(None));
        }
        say(&test.bus, "tasks", "there").await;
        let heard = test.bus.receive("tasks", "a", Some(std::time::Duration::ZERO)).await;
        assert_eq!(heard.unwrap().unwrap().text(), "there");
    }

    async fn a_broadcast_is_for_everyone_known_when_it_was_published(test: Test) {
        test.bus.create_channel("#all", ChannelType::Broadcast).await.unwrap();
        test.bus.subscribe("tasks", "known").await.unwrap();
        say(&test.bus, "#all", "1").await;
        // Nobody subscribed to the broadcast itself.
        assert_eq!(hear_all(&test.copy().await, "#all", "known").await, ["1"]);
        assert_eq!(hear_all(&test.bus, "#all", "late").await, [""; 0]);
        say(&test.bus, "#all", "2").await;
        assert_eq!(hear_all(&test.bus, "#all", "known").await, ["2"]);
        assert_eq!(hear_all(&test.bus, "#all", "late").await, ["2"]);
        assert_eq!(test.bus.channel("#all").await.unwrap().subscribers, ["known", "late"]);
    }

    async fn leaving_a_broadcast_drops_what_waits_there(test: Test) {
        test.bus.create_channel("#all", ChannelType::Broadcast).await.unwrap();
        test.bus.subscribe("tasks", "a").await.unwrap();
        test.bus.subscribe("#all", "a").await.unwrap();
        say(&test.bus, "#all", "1").await;
        test.bus.unsubscribe("#all", "a").await.unwrap();
        assert_eq!(hear_all(&test.bus, "#all", "a").await, [""; 0]);
        say(&test.bus, "#all", "2").await;
        assert_eq!(hear_all(&test.bus, "#all", "a").await, ["2"]);
    }

    async fn a_direct_message_reaches_its_recipient_alone(test: Test) {
        let copy = test.copy().await;
        test.bus.send_direct(message("anywhere", "grace", "ada", "hello"), "ada").await.unwrap();
        let heard = hear(&copy, "@ada:grace", "ada").await;
        assert_eq!((heard.text(), heard.channel.as_str()), ("hello", "@ada:grace"));
        copy.send_direct(message("anywhere", "ada", "grace", "hello yourself"), "grace").await.unwrap();
        assert_eq!(hear_all(&test.bus, "@ada:grace", "grace").await, ["hello yourself"]);
        assert_eq!(hear_all(&test.bus, "@ada:grace", "ada").await, [""; 0]);
        let line = ChannelInfo {
            name: "@ada:grace".to_owned(),
            r#type: ChannelType::Direct,
            subscribers: vec!["ada".to_owned(), "grace".to_owned()],
        };
        assert_eq!(test.bus.channel("@ada:grace").await, Ok(line));
    }

    async fn a_direct_line_is_closed_to_others(test: Test) {
        test.bus.send_direct(message("x", "ada", "grace", "secret"), "grace").await.unwrap();
        let eve = || BusError::NotAParty { channel: "@ada:grace".to_owned(), agent: "eve".to_owned() };
        assert_eq!(test.bus.subscribe("@ada:grace", "eve").await, Err(eve()));
        not_subscribed(test.bus.receive("@ada:grace", "eve", Some(SILENCE)).await);
        assert_eq!(test.bus.publish(message("@ada:grace", "ada", "eve", ""), None).await, Err(eve()));
    }

    async fn a_direct_message_is_for_whom_it_names(test: Test) {
        for (to, recipient) in [("grace", "eve"), ("gr:ace", "gr:ace")] {
            let refusal = test.bus.send_direct(message("x", "ada", to, ""), recipient).await.unwrap_err();
            assert!(matches!(refusal, BusError::Invalid(_)), "{refusal}");
        }
        let refusal = test.bus.send_direct(message("x", "a:da", "grace", ""), "grace").await.unwrap_err();
        assert!(matches!(refusal, BusError::Invalid(_)), "{refusal}");
        assert_eq!(test.bus.channels().await.unwrap().len(), 2);
    }

    async fn a_channel_is_made_once_and_seen_by_every_copy(test: Test) {
        test.bus.create_channel("#new", ChannelType::Topic).await.unwrap();
        let copy = test.copy().await;
        for bus in [&test.bus, &copy] {
            for name in ["#new", "tasks"] {
                let refusal = bus.create_channel(name, ChannelType::Topic).await.unwrap_err();
                assert_eq!(refusal, BusError::ChannelExists(name.to_owned()));
            }
        }
        copy.subscribe("#new", "a").await.unwrap();
        say(&test.bus, "#new", "hello").await;
        assert_eq!(hear(&copy, "#new", "a").await.text(), "hello");
        let names: Vec<_> = test.copy().await.channels().await.unwrap().into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["#new", "agents", "tasks"]);
    }

    async fn a_channel_has_a_proper_name(test: Test) {
        for (name, kind) in [
            ("", ChannelType::Topic),
            ("a\nb", ChannelType::Broadcast),
            ("@a:b", ChannelType::Topic),
            ("@b:a", ChannelType::Direct),
            ("@a", ChannelType::Direct),
            ("#a", ChannelType::Direct),
        ] {
            let refusal = test.bus.create_channel(name, kind).await.unwrap_err();
            assert!(matches!(refusal, BusError::Invalid(_)), "{name}: {refusal}");
        }
        test.bus.create_channel("@a:b", ChannelType::Direct).await.unwrap();
        assert!(matches!(test.bus.subscribe("tasks", " ").await, Err(BusError::Invalid(_))));
    }

    async fn a_history_ends_with_the_newest_and_keeps_so_many(test: Test) {
        for text in 1..=7 {
            say(&test.bus, "tasks", &text.to_string()).await;
        }
        say(&test.bus, "agents", "other").await;
        for (limit, texts) in [
            (100, vec!["3", "4", "5", "6", "7"]),
            (2, vec!["6", "7"]),
            (0, vec![]),
            (-1, vec![]),
            (i64::MAX, vec!["3", "4", "5", "6", "7"]),
        ] {
            let history = test.copy().await.history("tasks", limit).await.unwrap();
            assert_eq!(history.iter().map(|message| message.text()).collect::<Vec<_>>(), texts, "{limit}");
        }
        test.bus.create_channel("#silent", ChannelType::Topic).await.unwrap();
        assert_eq!(test.bus.history("#silent", 10).await.unwrap(), []);
    }

    async fn a_batch_is_published_up_to_the_first_failure(test: Test) {
        test.bus.subscribe("tasks", "a").await.unwrap();
        let batch = ["tasks", "#nowhere", "tasks"].map(|channel| message(channel, "ada", "a", channel));
        unknown(test.bus.publish_batch(batch).await);
        assert_eq!(hear_all(&test.bus, "tasks", "a").await, ["tasks"]);
    }

    async fn a_message_over_the_cap_is_refused_and_poisons_nothing(test: Test) {
        test.bus.subscribe("tasks", "a").await.unwrap();
        let bare = serde_json::to_vec(&message("tasks", "ada", "a", "")).unwrap().len();
        // The text stands in its part and once more for those who only read text.
        let most = (MAX_MESSAGE_BYTES - bare) / 2;
        let refusal = test.bus.publish(message("tasks", "ada", "a", &"x".repeat(most + 1)), None).await;
        assert!(matches!(refusal, Err(BusError::TooLarge { most: MAX_MESSAGE_BYTES, .. })), "{refusal:?}");
        test.bus.publish(message("tasks", "ada", "a", &"x".repeat(most)), None).await.unwrap();
        say(&test.bus, "tasks", "next").await;
        assert_eq!(hear(&test.bus, "tasks", "a").await.text().len(), most);
        assert_eq!(hear(&test.bus, "tasks", "a").await.text(), "next");
        assert_eq!(test.bus.history("tasks", 10).await.unwrap().len(), 2);
    }
}

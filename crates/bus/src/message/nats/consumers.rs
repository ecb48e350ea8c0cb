//! Subscriptions: durable consumers on the server, and a mailbox for each that is used on this copy.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::datetime::DateTime;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, FromConsumer, PullConsumer, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use futures_util::TryStreamExt;

use super::mailbox::Mailbox;
use super::names::{consumer_name, token};
use super::{Nats, key};
use crate::message::channel::ChannelType;
use crate::message::error::{BusError, Result};

impl Nats {
    /// The subscription, made if it is not there.
    pub(super) async fn join(
        &self,
        name: &str,
        kind: ChannelType,
        subscriber: &str,
        idle: Option<Duration>,
    ) -> Result<Arc<Mailbox>> {
        let consumer = match self.find(name, subscriber).await? {
            Some(consumer) => self.update(consumer).await?,
            None => {
                // A broadcast is for everyone who was known when it was published.
                let since =
                    if kind == ChannelType::Broadcast { self.known_since(subscriber).await? } else { None };
                let from =
                    since.map_or(DeliverPolicy::New, |start_time| DeliverPolicy::ByStartTime { start_time });
                self.create_consumer(name, kind, subscriber, from, idle).await?
            }
        };
        Ok(self.keep(name, kind, subscriber, consumer))
    }

    /// The consumer of a subscription, if it is there.
    pub(super) async fn find(&self, name: &str, subscriber: &str) -> Result<Option<PullConsumer>> {
        self.link.check()?;
        let failed = |error: &dyn std::fmt::Display| BusError::server("look for a subscription", error);
        let info = match self.stream.consumer_info(consumer_name(name, subscriber)?).await {
            Ok(info) => info,
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&error)),
        };
        let config =
            pull::Config::try_from_consumer_config(info.config.clone()).map_err(|error| failed(&error))?;
        Ok(Some(PullConsumer::new(config, info, self.jetstream.clone())))
    }

    /// Gives a consumer the bounds of this configuration, if it has others.
    async fn update(&self, consumer: PullConsumer) -> Result<PullConsumer> {
        let found = &consumer.cached_info().config;
        let ours = self.consumer_config();
        if (found.max_ack_pending, found.ack_wait) == (ours.max_ack_pending, ours.ack_wait) {
            return Ok(consumer);
        }
        let config = pull::Config {
            durable_name: found.durable_name.clone(),
            deliver_policy: found.deliver_policy,
            filter_subject: found.filter_subject.clone(),
            inactive_threshold: found.inactive_threshold,
            ..ours
        };
        self.stream.create_consumer(config).await.map_err(|error| BusError::server("subscribe", error))
    }

    pub(super) async fn create_consumer(
        &self,
        name: &str,
        kind: ChannelType,
        subscriber: &str,
        deliver_policy: DeliverPolicy,
        idle: Option<Duration>,
    ) -> Result<PullConsumer> {
        let config = pull::Config {
            durable_name: Some(consumer_name(name, subscriber)?),
            deliver_policy,
            filter_subject: self.subject(name, kind),
            inactive_threshold: idle.unwrap_or_default(),
            ..self.consumer_config()
        };
        match self.stream.create_consumer(config).await {
            Ok(consumer) => Ok(consumer),
            // Another copy was quicker, with another start.
            Err(error) => match self.find(name, subscriber).await? {
                Some(consumer) => Ok(consumer),
                None => Err(BusError::server("subscribe", error)),
            },
        }
    }

    fn consumer_config(&self) -> pull::Config {
        pull::Config {
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait * 6,
            max_deliver: 1,
            max_ack_pending: self.queue_size.into(),
            ..pull::Config::default()
        }
    }

    /// When an agent got its first subscription of those it has.
    pub(super) async fn known_since(&self, subscriber: &str) -> Result<Option<DateTime>> {
        let (mut consumers, mut since) = (self.stream.consumers(), None);
        let ending = format!("__{}", token(subscriber));
        let failed = |error| BusError::server("list subscriptions", error);
        while let Some(consumer) = consumers.try_next().await.map_err(failed)? {
            if consumer.name.ends_with(&ending) {
                since = Some(since.map_or(consumer.created, |since| consumer.created.min(since)));
            }
        }
        Ok(since)
    }

    pub(super) fn keep(
        &self,
        name: &str,
        kind: ChannelType,
        subscriber: &str,
        consumer: PullConsumer,
    ) -> Arc<Mailbox> {
        let mut mailboxes = self.mailboxes();
        let mailbox = mailboxes.entry(key(name, subscriber)).or_insert_with(|| {
            Arc::new(Mailbox {
                channel: name.to_owned(),
                subscriber: subscriber.to_owned(),
                addressed: kind == ChannelType::Direct,
                jetstream: self.jetstream.clone(),
                consumer,
                link: Arc::clone(&self.link),
                patience: self.patience,
                queue_size: self.queue_size.into(),
                work: self.work.clone(),
                closed: self.stopping.child_token(),
                fetch: tokio::sync::Mutex::default(),
                reported: Mutex::default(),
            })
        });
        Arc::clone(mailbox)
    }
}

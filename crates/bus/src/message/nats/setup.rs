//! Streams as the bus needs them.

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{Context, ErrorCode, kv, stream};

use crate::message::error::{BusError, Result};

/// Makes a stream, or brings one that is there up to date and leaves alone what an operator may have
/// changed, such as the number of replicas.
pub(super) async fn ensure_stream(
    jetstream: &Context,
    new: stream::Config,
    update: impl Fn(&mut stream::Config),
) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| BusError::server("set up a stream", error);
    let found = match jetstream.get_stream(&new.name).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                let mut config = stream::Config { num_replicas: 1, ..new };
                update(&mut config);
                return jetstream.create_stream(config).await.map(drop).map_err(|error| failed(&error));
            }
            _ => return Err(failed(&error)),
        },
    };
    let mut config = found.clone();
    update(&mut config);
    if config != found {
        jetstream.update_stream(config).await.map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Makes a key-value bucket, or finds it. The client's own way to make one asks about the account first,
/// and does not understand what servers before 2.10 answer.
pub(super) async fn ensure_bucket(jetstream: &Context, name: String) -> Result<kv::Store> {
    let bucket = stream::Config {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..stream::Config::default()
    };
    ensure_stream(jetstream, bucket, |_| {}).await?;
    jetstream
        .get_key_value(name)
        .await
        .map_err(|error| BusError::server("find the bucket of channels", error))
}

//! Artifacts: what is known about them in the database, their bytes in a folder or a bucket.
//!
//! Bytes are written first, under a name nobody else has, and never change. The row names the content in
//! force, so one commit replaces it: whoever reads has the old bytes or the new ones. What no row names is
//! left over and is collected.

mod bucket;
mod contents;
mod folder;

use std::io;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use quarterdeck_domain::artifact::{
    Artifact, ArtifactId, ContentName, MAX_BYTES, NewArtifact, UNNAMED_TYPE, unknown,
};
use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::text::Bounded;
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_store::artifact::{self, Content, Filter, Stored};
use quarterdeck_store::{Store, Tx};
use serde_json::json;
use tracing::Instrument;

pub use self::bucket::BucketOptions;
pub use self::contents::Contents;
use self::folder::Draft;

/// Bytes of a content, piece by piece.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// How often a reader looks again when the content was replaced under its hands.
const LOOKS: usize = 16;

/// All artifacts. Cheap to clone.
#[derive(Clone)]
pub struct Artifacts(Arc<Inner>);

struct Inner {
    store: Store,
    clock: SharedClock,
    contents: Contents,
    most: u64,
}

impl Artifacts {
    /// The artifacts of this database, with their contents, which have at most `most` bytes together.
    pub fn new(store: Store, clock: SharedClock, contents: Contents, most: u64) -> Self {
        Self(Arc::new(Inner { store, clock, contents, most }))
    }

    /// Part of the list by id, and how long that is: 10,000 at most.
    ///
    /// # Errors
    /// The store's own.
    pub async fn page(&self, filter: &Filter, offset: u64, limit: u64) -> Result<(Vec<Artifact>, u64)> {
        artifact::page(self.0.store.read(), filter, offset, limit).await
    }

    /// One artifact.
    ///
    /// # Errors
    /// 404/3000 when there is none.
    pub async fn get(&self, id: &str) -> Result<Artifact> {
        self.stored(&known(id)?).await.map(|stored| stored.artifact)
    }

    async fn stored(&self, id: &ArtifactId) -> Result<Stored> {
        artifact::by_id(self.0.store.read(), id).await?.ok_or_else(|| unknown(id))
    }

    /// Makes an artifact without content.
    ///
    /// # Errors
    /// The store's own.
    pub async fn create(&self, actor: &Actor, new: NewArtifact) -> Result<Artifact> {
        let now = self.0.clock.now();
        let entry = Entry::new(actor, "artifact:create", now, "Created an artifact").arguments(&new);
        let artifact = Artifact::new(new, now);
        let create = self.0.store.write(move |tx| {
            Box::pin(async move {
                artifact::insert(tx, &artifact).await?;
                let Artifact { id, task_id, created_by, r#type, .. } = &artifact;
                let payload =
                    json!({"artifact_id": id, "task_id": task_id, "created_by": created_by, "type": r#type});
                tx.publish(Event::new(EventType::ArtifactCreated, now, payload));
                tx.audit(entry.task(task_id));
                Ok(artifact)
            })
        });
        create.await
    }

    /// Deletes an artifact and its content. The content goes first: an artifact that lost only that can be
    /// deleted again.
    ///
    /// # Errors
    /// 404/3000 when there is no such artifact; 500/8002 when the content cannot be removed, and then the
    /// artifact stays.
    pub async fn delete(&self, actor: &Actor, id: &str) -> Result<()> {
        let id = known(id)?;
        let removed = self.stored(&id).await?.content.map(|content| content.name);
        if let Some(name) = &removed {
            self.0.contents.remove(name).await.map_err(failed)?;
        }
        let (actor, now) = (actor.clone(), self.0.clock.now());
        let delete = self.0.store.write(move |tx| {
            Box::pin(async move {
                let Stored { artifact, content } =
                    artifact::delete(tx, &id).await?.ok_or_else(|| unknown(&id))?;
                let payload = json!({"artifact_id": id, "task_id": artifact.task_id});
                tx.publish(Event::new(EventType::ArtifactDeleted, now, payload));
                let sentence = format!("Deleted the artifact {id}");
                tx.audit(Entry::new(&actor, "artifact:delete", now, sentence).task(&artifact.task_id));
                Ok(content)
            })
        });
        match delete.await? {
            // Uploaded in between.
            Some(Content { name, .. }) if removed.as_ref() != Some(&name) => self.remove(&name).await,
            _ => {}
        }
        Ok(())
    }

    /// Gives an artifact content in place of what it had. `announced` is the number of bytes to come, if the
    /// caller said so.
    ///
    /// # Errors
    /// 404/3000 when there is no such artifact, 413/2002 beyond [`MAX_BYTES`], 507/8007 when all contents
    /// together would be too large, 500/8002 when they cannot be kept, and those of the bytes themselves.
    /// After each the content is what it was.
    pub async fn upload(
        &self,
        actor: &Actor,
        id: &str,
        announced: Option<u64>,
        bytes: impl Stream<Item = Result<Bytes>> + Send,
    ) -> Result<Artifact> {
        let id = known(id)?;
        self.stored(&id).await?;
        self.admit(&id, announced.unwrap_or_default()).await?;
        let name = ContentName::fresh(id);
        let mut draft = self.0.contents.begin(&name).await.map_err(failed)?;
        let mut bytes = pin!(bytes);
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            if draft.size + chunk.len() as u64 > MAX_BYTES {
                return Err(ErrorCode::ArtifactTooLarge.into());
            }
            draft.write(&chunk).await.map_err(failed)?;
        }
        self.admit(name.artifact(), draft.size).await?;
        // A caller that hangs up now must not leave the row without its bytes, or old bytes without a row.
        let (artifacts, actor) = (self.clone(), actor.clone());
        let settled = async move { artifacts.settle(actor, name, draft).await };
        tokio::spawn(settled.in_current_span()).await.map_err(Error::internal)?
    }

    /// Refuses early what cannot be kept in the end.
    async fn admit(&self, id: &ArtifactId, size: u64) -> Result<()> {
        if size > MAX_BYTES {
            return Err(ErrorCode::ArtifactTooLarge.into());
        }
        let others = artifact::usage_of_others(self.0.store.read(), id).await?;
        if others + size > self.0.most { Err(ErrorCode::ArtifactStorageFull.into()) } else { Ok(()) }
    }

    async fn settle(&self, actor: Actor, name: ContentName, mut draft: Draft) -> Result<Artifact> {
        let sha256 = draft.finish().await.map_err(failed)?;
        let kept = self.0.contents.keep(&draft, &name).await.map_err(failed);
        let content = Content { name: name.clone(), size: draft.size, sha256 };
        let recorded = match kept {
            Ok(()) => self.record(actor, content).await,
            Err(error) => Err(error),
        };
        match recorded {
            Ok((artifact, replaced)) => {
                if let Some(replaced) = replaced {
                    self.remove(&replaced.name).await;
                }
                Ok(artifact)
            }
            Err(error) => {
                self.discard(name).await;
                Err(error)
            }
        }
    }

    /// Puts a content in force; what it is in place of.
    async fn record(&self, actor: Actor, content: Content) -> Result<(Artifact, Option<Content>)> {
        let (now, most) = (self.0.clock.now(), self.0.most);
        let record = self.0.store.write(move |tx| {
            Box::pin(async move {
                let id = content.name.artifact();
                let before = artifact::by_id_for_change(tx, id).await?.ok_or_else(|| unknown(id))?;
                let mut artifact = Artifact { size_bytes: content.size, ..before.artifact.clone() };
                if artifact.content_type.is_empty() {
                    artifact.content_type = Bounded::new(UNNAMED_TYPE).map_err(Error::internal)?;
                }
                artifact::set_content(tx, &before.artifact, &content, &artifact.content_type, most).await?;
                let payload = json!({
                    "artifact_id": id, "size_bytes": content.size, "content_type": artifact.content_type,
                });
                tx.publish(Event::new(EventType::ArtifactContentUploaded, now, payload));
                let entry = Entry::new(&actor, "artifact:upload", now, format!("Uploaded content of {id}"));
                tx.audit(entry.arguments(&content.sha256).task(&artifact.task_id));
                Ok((artifact, before.content))
            })
        });
        record.await
    }

    /// Removes a content whose row could not be written, unless it was after all: a lost connection does not
    /// say how a commit ended, and the lock waits for it.
    async fn discard(&self, name: ContentName) {
        let wanted = name.clone();
        let referred = self.0.store.write(move |tx: &Tx| {
            Box::pin(async move {
                let stored = artifact::by_id_for_change(tx, wanted.artifact()).await?;
                Ok(stored.and_then(|stored| stored.content).is_some_and(|content| content.name == wanted))
            })
        });
        match referred.await {
            Ok(false) => self.remove(&name).await,
            Ok(true) => {}
            Err(error) => tracing::warn!(target: "work", error = %error, "work.artifact.left_over"),
        }
    }

    /// Removes what no row names; if that fails it is collected later.
    async fn remove(&self, name: &ContentName) {
        if let Err(error) = self.0.contents.remove(name).await {
            tracing::warn!(target: "work", artifact_id = %name.artifact(), error = %error, "work.artifact.left_over");
        }
    }

    /// The content of an artifact, or the part of it that `wanted` chooses; no bytes if it chooses none.
    ///
    /// # Errors
    /// 404/3000 when there is no such artifact, or it has no content; 500/8002 when that cannot be read.
    pub async fn read(
        &self,
        id: &str,
        wanted: impl Fn(&Content) -> Option<Range<u64>>,
    ) -> Result<(Artifact, Content, Option<ByteStream>)> {
        let id = known(id)?;
        let mut missing = None;
        for _ in 0..LOOKS {
            let Stored { artifact, content } = self.stored(&id).await?;
            let Some(content) = content.filter(|content| missing.as_ref() != Some(&content.name)) else {
                break;
            };
            let Some(part) = wanted(&content) else { return Ok((artifact, content, None)) };
            match self.0.contents.open(&content.name, content.size, part).await.map_err(failed)? {
                Some(bytes) => return Ok((artifact, content, Some(bytes))),
                // Replaced since the row was read, or lost: the row of now tells.
                None => missing = Some(content.name),
            }
        }
        Err(Error::with(ErrorCode::ResourceNotFound, format!("Artifact '{id}' has no content")))
    }

    /// Removes contents that no artifact has, and uploads that never ended, if they are older than `grace`;
    /// how many contents. A grace shorter than an upload takes is for when none is under way.
    ///
    /// # Errors
    /// The store's own; 500/8002 when contents cannot be listed or removed.
    pub async fn collect(&self, grace: Duration) -> Result<usize> {
        let listed = self.0.contents.list(grace).await.map_err(failed)?;
        let orphans = artifact::unreferenced(self.0.store.read(), listed).await?;
        for name in &orphans {
            self.0.contents.remove(name).await.map_err(failed)?;
        }
        if !orphans.is_empty() {
            tracing::info!(target: "work", count = orphans.len(), "work.artifact.collected");
        }
        Ok(orphans.len())
    }
}

/// An id that may be there; others are not looked for.
fn known(id: &str) -> Result<ArtifactId> {
    ArtifactId::parse(id).ok_or_else(|| unknown(id))
}

fn failed(error: io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::ArtifactStorageFull,
        _ => ErrorCode::PersistenceError,
    };
    Error::new(code).caused_by(format_args!("contents of artifacts: {error}"))
}

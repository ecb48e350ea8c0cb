//! Projects: made, changed, ended and deleted by people.

use std::sync::Arc;

use quarterdeck_domain::Result;
use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::project::{NewProject, Project, ProjectChange, unknown};
use quarterdeck_store::Store;
use quarterdeck_store::project::{self, Filter};
use serde_json::json;

/// All projects. Cheap to clone.
#[derive(Clone)]
pub struct Projects(Arc<Inner>);

struct Inner {
    store: Store,
    clock: SharedClock,
}

impl Projects {
    /// The projects of this database.
    pub fn new(store: Store, clock: SharedClock) -> Self {
        Self(Arc::new(Inner { store, clock }))
    }

    /// Part of the list by id, and how long that is: 10,000 at most.
    ///
    /// # Errors
    /// The store's own.
    pub async fn page(&self, filter: &Filter, offset: u64, limit: u64) -> Result<(Vec<Project>, u64)> {
        project::page(self.0.store.read(), filter, offset, limit).await
    }

    /// One project.
    ///
    /// # Errors
    /// 404/3000 when there is none.
    pub async fn get(&self, id: &str) -> Result<Project> {
        project::by_id(self.0.store.read(), id).await?.ok_or_else(|| unknown(id))
    }

    /// Makes a project in planning.
    ///
    /// # Errors
    /// 422/2000 as [`Project::check`].
    pub async fn create(&self, actor: &Actor, new: NewProject) -> Result<Project> {
        let now = self.0.clock.now();
        let entry = Entry::new(actor, "project:create", now, "Created a project").arguments(&new);
        let project = Project::new(new)?;
        let create = self.0.store.write(move |tx| {
            Box::pin(async move {
                project::insert(tx, &project).await?;
                let Project { id, name, status, lead, .. } = &project;
                let payload = json!({"project_id": id, "name": name, "status": status, "lead": lead});
                tx.publish(Event::new(EventType::ProjectCreated, now, payload));
                tx.audit(entry);
                Ok(project)
            })
        });
        let project = create.await?;
        tracing::info!(target: "work", project_id = project.id, "work.project.created");
        Ok(project)
    }

    /// Changes what is named; a change of nothing is none.
    ///
    /// # Errors
    /// 404/3000 when there is no such project; 422/2000 as [`Project::changed`].
    pub async fn update(&self, actor: &Actor, id: &str, change: ProjectChange) -> Result<Project> {
        let (actor, id, now) = (actor.clone(), id.to_owned(), self.0.clock.now());
        let update = self.0.store.write(move |tx| {
            Box::pin(async move {
                let before = project::by_id_for_change(tx, &id).await?.ok_or_else(|| unknown(&id))?;
                let entry = Entry::new(&actor, "project:update", now, format!("Changed the project {id}"));
                let entry = entry.arguments(&change);
                let project = before.changed(change)?;
                if project == before {
                    return Ok(project);
                }
                project::update(tx, &project).await?;
                if project.status != before.status {
                    let payload = json!({
                        "project_id": id, "status": project.status, "previous_status": before.status,
                        "from_status": before.status, "to_status": project.status,
                    });
                    tx.publish(Event::new(EventType::ProjectStatusChanged, now, payload));
                }
                tx.audit(entry);
                Ok(project)
            })
        });
        update.await
    }

    /// Deletes a project.
    ///
    /// # Errors
    /// 404/3000 when there is no such project.
    pub async fn delete(&self, actor: &Actor, id: &str) -> Result<()> {
        let (actor, id, now) = (actor.clone(), id.to_owned(), self.0.clock.now());
        let delete = self.0.store.write(move |tx| {
            Box::pin(async move {
                let project = project::by_id_for_change(tx, &id).await?.ok_or_else(|| unknown(&id))?;
                project::delete(tx, &id).await?;
                let payload = json!({"project_id": id, "name": project.name});
                tx.publish(Event::new(EventType::ProjectDeleted, now, payload));
                tx.audit(Entry::new(&actor, "project:delete", now, format!("Deleted the project {id}")));
                Ok(id)
            })
        });
        let id = delete.await?;
        tracing::info!(target: "work", project_id = id, "work.project.deleted");
        Ok(())
    }
}

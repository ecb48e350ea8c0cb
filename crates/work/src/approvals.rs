//! Approvals and the review gate. A decision, what it does to its task, its record, its event and its audit
//! entry are one transaction: of all who decide, one does.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use quarterdeck_domain::approval::{
    ActionType, Approval, Decision, DecisionOutcome, Labels, NewApproval, RiskLevel, TASK_COMPLETION,
    TimeoutPolicy,
};
use quarterdeck_domain::audit::{Actor, Entry, Verdict};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::decision_record::DecisionRecord;
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::notification::{Category, Notification, Severity};
use quarterdeck_domain::setting::security;
use quarterdeck_domain::task::{Task, TaskStatus};
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_store::approval::{self, Filter};
use quarterdeck_store::{Store, Tx, decision_record, task};
use serde_json::json;

use crate::notifications::Notifications;
use crate::settings::Settings;
use crate::tasks::{Change, Tasks};

/// Larger approvals are not part of the event that tells of them; who is told can ask for them.
const MAX_SHOWN: usize = 24 * 1024;

/// As what time decides.
const TIMEOUT: &str = "approvals.timeout";
/// Approvals that time looks at in one go.
const TIMEOUTS: u32 = 1000;

/// What people have to decide. Cheap to clone.
#[derive(Clone)]
pub struct Approvals(Arc<Inner>);

struct Inner {
    store: Store,
    settings: Settings,
    clock: SharedClock,
    tasks: Tasks,
    notifications: Notifications,
}

impl Approvals {
    /// Approvals in this store, and the tasks they are about. Who looks after the installation is told of
    /// what time has ended or decided.
    pub fn new(
        store: Store,
        settings: Settings,
        clock: SharedClock,
        tasks: Tasks,
        notifications: Notifications,
    ) -> Self {
        Self(Arc::new(Inner { store, settings, clock, tasks, notifications }))
    }

    /// Asks for a decision.
    ///
    /// # Errors
    /// 422/2000 when the evidence breaks a rule; 503/8001.
    pub async fn submit(&self, actor: &Actor, new: NewApproval) -> Result<Approval> {
        let (actor, now) = (actor.clone(), self.0.clock.now());
        self.0.store.write(move |tx| Box::pin(async move { submit(tx, &actor, new, now).await })).await
    }

    /// Hands finished work over to a reviewer: the task goes from `in_progress` to `in_review`, and an
    /// approval is asked for in the name of who did it.
    ///
    /// # Errors
    /// 404/3000 without such a task; 422/2000 when it is not in progress; 503/8001.
    pub async fn submit_for_review(&self, actor: &Actor, task_id: &str) -> Result<Approval> {
        let (tasks, actor, id, now) =
            (self.0.tasks.clone(), actor.clone(), task_id.to_owned(), self.0.clock.now());
        let hand_over = self.0.store.write(move |tx| {
            Box::pin(async move {
                let task = task::lock(tx, &id).await?.ok_or_else(|| Error::missing("Task", &id))?;
                let next = task.moved(TaskStatus::InReview, None, false, now)?;
                let change = Change { next, mutation: "transition", reason: Some("Work finished".into()) };
                let task = tasks.apply(tx, &actor, &task, change, &()).await?;
                let executor = task.assigned_to.clone().unwrap_or_else(|| actor.id.to_string());
                let new = NewApproval {
                    action_type: ActionType::new(TASK_COMPLETION).map_err(Error::internal)?,
                    title: "Review of finished work".to_owned(),
                    description: task.title.clone(),
                    risk_level: RiskLevel::Low,
                    ttl_seconds: None,
                    task_id: Some(task.id),
                    evidence_package: None,
                    metadata: Labels::default(),
                };
                let actor = Actor { id: executor.as_str().into(), name: executor.as_str().into(), ..actor };
                submit(tx, &actor, new, now).await
            })
        });
        hand_over.await
    }

    /// Decides, and moves the task that waits for the review.
    ///
    /// # Errors
    /// 404/3000 without such an approval or its task; 403/1001 for who did the work, or asked for the
    /// approval where that is forbidden; 409/4000 when the approval no longer waits or its task is not in
    /// review; 503/8001.
    pub async fn decide(&self, actor: &Actor, id: &str, decision: Decision) -> Result<Approval> {
        let (this, actor, id, now) = (self.clone(), actor.clone(), id.to_owned(), self.0.clock.now());
        let decide = self.0.store.write(move |tx| {
            Box::pin(async move {
                let approval =
                    approval::lock(tx, &id).await?.ok_or_else(|| Error::missing("Approval", &id))?;
                if approval.is_due(now) {
                    this.expire(tx, now).await?;
                    // The refusal must not undo that it has expired.
                    return Ok(Err(Error::conflict("The approval is expired, no longer pending")));
                }
                this.decide_in(tx, &actor, approval, decision, now).await.map(Ok)
            })
        });
        decide.await?
    }

    async fn decide_in(
        &self,
        tx: &Tx,
        actor: &Actor,
        approval: Approval,
        decision: Decision,
        now: DateTime<Utc>,
    ) -> Result<Approval> {
        approval.check_pending()?;
        if self.0.settings.get(&security::FORBID_SELF_DECISION) && approval.requester_id == *actor.id {
            return Err(Error::forbidden("Who asks for an approval may not decide it"));
        }
        let task = match &approval.task_id {
            Some(task_id) => Some(reviewable(tx, task_id, actor).await?),
            None => None,
        };
        let decided = Approval {
            status: decision.status(),
            decided_at: Some(now),
            decided_by: Some(actor.name.to_string()),
            decision_reason: decision.reason().map(ToOwned::to_owned),
            ..approval
        };
        if !approval::decide(tx, &decided).await? {
            return Err(Error::conflict("The approval is no longer pending"));
        }
        if let Some(task) = task.filter(|task| task.status == TaskStatus::InReview) {
            self.review(tx, actor, &decided, task, &decision, now).await?;
        }
        let (verdict, event, word) = match decision {
            Decision::Approve { .. } => (Verdict::Allow, EventType::ApprovalApproved, "approved"),
            Decision::Reject { .. } => (Verdict::Deny, EventType::ApprovalRejected, "rejected"),
        };
        let entry = Entry::new(actor, format!("approval:{word}"), now, format!("Approval {word}"));
        let entry = entry.verdict(verdict).risk(decided.risk_level).arguments(&(&decided.id, &decision));
        tx.audit(about_task(entry, &decided));
        tell(tx, event, &decided, now);
        if actor.operation == TIMEOUT {
            let severity = if verdict == Verdict::Allow { Severity::Info } else { Severity::Warning };
            let words = format!("Time has {word} an approval");
            self.notify(tx, severity, TIMEOUT, &words, &decided, now);
        }
        Ok(decided)
    }

    /// Moves a task out of its review, and keeps a record of why.
    async fn review(
        &self,
        tx: &Tx,
        actor: &Actor,
        decided: &Approval,
        task: Task,
        decision: &Decision,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let who = &actor.name;
        let said = decision.reason().filter(|reason| !reason.trim().is_empty());
        let (target, outcome, reason) = match decision {
            Decision::Approve { .. } => {
                (TaskStatus::Completed, DecisionOutcome::Approved, format!("Review approved by {who}"))
            }
            Decision::Reject { .. } => {
                let why = said.map(|said| format!(": {said}")).unwrap_or_default();
                (TaskStatus::InProgress, DecisionOutcome::Rejected, format!("Review rejected by {who}{why}"))
            }
        };
        let next = task.moved(target, None, false, now)?;
        let change = Change { next, mutation: "transition", reason: Some(reason) };
        self.0.tasks.apply(tx, actor, &task, change, decision).await?;
        let Some(executor) = &task.assigned_to else { return Ok(()) };
        let record = DecisionRecord {
            approval_id: Some(decided.id.clone()),
            reason: said.map(ToOwned::to_owned),
            ..DecisionRecord::new(&task, executor, &actor.id, outcome, now)
        };
        decision_record::append(tx, &record).await
    }

    async fn expire(&self, tx: &Tx, now: DateTime<Utc>) -> Result<usize> {
        let expired = approval::expire(tx, now).await?;
        let actor = Actor::system("approvals.expiry");
        for approval in &expired {
            let entry = Entry::new(&actor, "approval:expired", now, "Nobody decided in time");
            tx.audit(about_task(entry.verdict(Verdict::Deny).risk(approval.risk_level), approval));
            tell(tx, EventType::ApprovalExpired, approval, now);
            let words = "An approval has expired before anybody decided";
            self.notify(tx, Severity::Critical, "approvals.expiry", words, approval, now);
        }
        Ok(expired.len())
    }

    /// Tells who looks after the installation, once the change is durable.
    fn notify(
        &self,
        tx: &Tx,
        severity: Severity,
        source: &'static str,
        words: &str,
        approval: &Approval,
        now: DateTime<Utc>,
    ) {
        // The title of the approval is part of the line, so that two of them are not taken for one.
        let title = format!("{words}: {}", approval.title);
        let notification = Notification::new(Category::Approval, severity, source, title, now)
            .with("approval_id", approval.id.as_str())
            .with("action_type", approval.action_type.as_str())
            .with("risk_level", approval.risk_level.as_str());
        let notifications = self.0.notifications.clone();
        tx.after_commit(move || notifications.send(notification));
    }

    /// The approval with this id.
    ///
    /// # Errors
    /// 404/3000 without one; 503/8001.
    pub async fn get(&self, id: &str) -> Result<Approval> {
        let find = || approval::by_id(self.0.store.read(), id);
        let found = find().await?.ok_or_else(|| Error::missing("Approval", id))?;
        if !found.is_due(self.0.clock.now()) {
            return Ok(found);
        }
        self.sweep().await?;
        find().await?.ok_or_else(|| Error::missing("Approval", id))
    }

    /// Approvals, the newest first, and how many match in all.
    ///
    /// # Errors
    /// 503/8001.
    pub async fn page(&self, filter: &Filter, offset: u64, limit: u32) -> Result<(Vec<Approval>, u64)> {
        self.sweep().await?;
        approval::page(self.0.store.read(), filter, offset, limit).await
    }

    /// What reviewers have decided about a task, the oldest first, and how many decisions there are.
    ///
    /// # Errors
    /// 404/3000 without such a task; 503/8001.
    pub async fn decisions(
        &self,
        task_id: &str,
        offset: u64,
        limit: u32,
    ) -> Result<(Vec<DecisionRecord>, u64)> {
        self.0.tasks.get(task_id).await?;
        decision_record::page(self.0.store.read(), task_id, offset, limit).await
    }

    /// Ends approvals whose time is over; how many.
    ///
    /// # Errors
    /// 503/8001.
    pub async fn sweep(&self) -> Result<usize> {
        let mut ended = 0;
        loop {
            let now = self.0.clock.now();
            if !approval::is_any_due(self.0.store.read(), now).await? {
                return Ok(ended);
            }
            let this = self.clone();
            let expire = self.0.store.write(move |tx| Box::pin(async move { this.expire(tx, now).await }));
            let expired = expire.await?;
            if expired == 0 {
                // Another copy of the program is at it.
                return Ok(ended);
            }
            ended += expired;
        }
    }

    /// Lets time decide where the setting `security/approval_timeout_policy` says so; how often it did. An
    /// approval that cannot be decided now, because its task is not in review, waits on.
    ///
    /// # Errors
    /// 503/8001.
    pub async fn time_out(&self) -> Result<usize> {
        let policy = self.0.settings.get(&security::APPROVAL_TIMEOUT_POLICY);
        // The setting takes nothing else.
        let policy: TimeoutPolicy = serde_json::from_value(policy).unwrap_or_default();
        let Some(shortest) = policy.shortest_wait() else { return Ok(0) };
        let now = self.0.clock.now();
        let waiting = approval::waiting_since(self.0.store.read(), now - shortest, TIMEOUTS).await?;
        let mut actor = Actor::system(TIMEOUT);
        actor.name = "system:timeout".into();
        let mut decided = 0;
        for approval in waiting {
            let Some(decision) = policy.decide(&approval, now) else { continue };
            match self.decide(&actor, &approval.id, decision).await {
                Ok(_) => decided += 1,
                Err(error) if error.status() < 500 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(decided)
    }

    /// What time does: [`sweep`](Self::sweep) and [`time_out`](Self::time_out), with failures for the log.
    pub async fn upkeep(&self) {
        for outcome in [self.sweep().await, self.time_out().await] {
            if let Err(error) = outcome {
                tracing::error!(target: "work", error = %error, cause = error.cause(), "approvals.upkeep.failed");
            }
        }
    }
}

/// Asks for a decision within a transaction that does more.
pub(crate) async fn submit(tx: &Tx, actor: &Actor, new: NewApproval, now: DateTime<Utc>) -> Result<Approval> {
    let entry = Entry::new(actor, "approval:submit", now, "Approval asked for");
    let entry = entry.verdict(Verdict::Escalate).risk(new.risk_level).arguments(&new);
    let approval = Approval::new(new, (&actor.id, &actor.name), now)?;
    approval::insert(tx, &approval).await?;
    tx.audit(about_task(Entry { approval_id: Some(approval.id.clone()), ..entry }, &approval));
    tell(tx, EventType::ApprovalSubmitted, &approval, now);
    Ok(approval)
}

/// The task an approval is about, held, if this person may decide about it now.
async fn reviewable(tx: &Tx, task_id: &str, actor: &Actor) -> Result<Task> {
    let task = task::lock(tx, task_id).await?;
    let task =
        task.ok_or_else(|| Error::with(ErrorCode::ResourceNotFound, "Associated task could not be found"))?;
    // Agents are named freely: a name that could be the decider's counts as theirs.
    if task.assigned_to.as_deref().is_some_and(|executor| executor == &*actor.id || executor == &*actor.name)
    {
        return Err(Error::forbidden("Self-review is not permitted"));
    }
    match task.status {
        // What waits for authorisation goes on by the decision itself.
        TaskStatus::InReview | TaskStatus::AuthRequired => Ok(task),
        _ => Err(Error::conflict("The associated task is not in review")),
    }
}

fn about_task(entry: Entry, approval: &Approval) -> Entry {
    match &approval.task_id {
        Some(task_id) => entry.task(task_id),
        None => entry,
    }
}

fn tell(tx: &Tx, event_type: EventType, approval: &Approval, now: DateTime<Utc>) {
    let mut payload = json!({
        "approval_id": approval.id, "status": approval.status, "action_type": approval.action_type,
        "risk_level": approval.risk_level,
    });
    if let Ok(shown) = serde_json::to_value(approval.shown(now))
        && shown.to_string().len() <= MAX_SHOWN
    {
        payload["approval"] = shown;
    }
    tx.publish(Event::new(event_type, now, payload));
}

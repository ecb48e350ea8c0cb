use proptest::prelude::*;
use serde_json::json;

use super::*;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn new() -> NewTask {
    NewTask {
        title: "t".into(),
        description: "d".into(),
        r#type: TaskType::Admin,
        priority: Priority::Medium,
        project: "p".into(),
        created_by: "u".into(),
        assigned_to: None,
        estimated_complexity: Complexity::Medium,
        budget_limit: 0.0,
    }
}

fn task(status: TaskStatus) -> Task {
    let assignee = (status != TaskStatus::Created).then(|| "a".to_owned());
    Task { status, assigned_to: assignee, ..Task::new(new(), now()).unwrap() }
}

#[test]
fn all_pairs_of_statuses_go_as_the_table_says_and_nowhere_else() {
    let allowed = "created>assigned created>rejected \
        assigned>in_progress assigned>auth_required assigned>blocked assigned>cancelled assigned>failed \
        assigned>interrupted assigned>suspended \
        in_progress>in_review in_progress>auth_required in_progress>blocked in_progress>cancelled \
        in_progress>failed in_progress>interrupted in_progress>suspended \
        in_review>completed in_review>in_progress in_review>blocked in_review>cancelled \
        auth_required>assigned auth_required>cancelled \
        blocked>assigned failed>assigned interrupted>assigned suspended>assigned";
    let allowed: Vec<_> = allowed.split_whitespace().collect();
    let mut seen = 0;
    for from in TaskStatus::ALL {
        for to in TaskStatus::ALL {
            let before = task(*from);
            let after = before.moved(*to, Some("b".into()), false, now());
            let expected = allowed.contains(&format!("{from}>{to}").as_str());
            assert_eq!(after.is_ok(), expected, "{from} to {to}");
            if let Ok(after) = after {
                assert_eq!((after.version, after.status), (2, *to));
                seen += 1;
            }
        }
    }
    assert_eq!((TaskStatus::ALL.len().pow(2), seen), (144, allowed.len()));
}

#[test]
fn a_refusal_names_where_it_stands_where_it_wants_to_and_what_is_allowed() {
    let error = TaskStatus::InReview.check(TaskStatus::Assigned, false).unwrap_err();
    let words = "A task that is in_review cannot become assigned; allowed: blocked, cancelled, completed, in_progress";
    assert_eq!((error.status(), error.detail()), (422, words));
    let error = TaskStatus::Completed.check(TaskStatus::Completed, true).unwrap_err();
    assert!(error.detail().ends_with("allowed: nothing"));
    assert!(TaskStatus::Failed.check(TaskStatus::Cancelled, false).is_err());
    assert!(TaskStatus::Failed.check(TaskStatus::Cancelled, true).is_ok());
}

#[test]
fn the_status_says_whether_there_is_an_assignee() {
    let with = |status, assignee: Option<&str>| {
        Task { status, assigned_to: assignee.map(Into::into), ..Task::new(new(), now()).unwrap() }
            .check()
            .is_ok()
    };
    for status in TaskStatus::ALL {
        let wanted = status.wants_assignee();
        assert_eq!(with(*status, Some("a")), wanted != Some(false), "{status} with");
        assert_eq!(with(*status, None), wanted != Some(true), "{status} without");
    }
}

#[test]
fn every_rule_refuses() {
    let fresh = || Task::new(new(), now()).unwrap();
    let twice = || vec!["x".to_owned(), "x".to_owned()];
    let own = |task: &Task| vec![task.id.clone()];
    type Breaks = Box<dyn Fn(&mut Task)>;
    let broken: [(&str, Breaks); 14] = [
        ("title", Box::new(|t| t.title = " ".into())),
        ("description", Box::new(|t| t.description = String::new())),
        ("project", Box::new(|t| t.project = "\t".into())),
        ("created_by", Box::new(|t| t.created_by = String::new())),
        ("reviewers", Box::new(move |t| t.reviewers = twice())),
        ("dependencies", Box::new(move |t| t.dependencies = own(t))),
        ("delegation_chain", Box::new(move |t| t.delegation_chain = twice())),
        (
            "assigned_to",
            Box::new(|t| {
                (t.status, t.assigned_to, t.delegation_chain) =
                    (TaskStatus::Assigned, Some("a".into()), vec!["a".into()]);
            }),
        ),
        ("parent_task_id", Box::new(|t| t.parent_task_id = Some(t.id.clone()))),
        ("budget_limit", Box::new(|t| t.budget_limit = -0.5)),
        ("budget_limit", Box::new(|t| t.budget_limit = f64::NAN)),
        ("deadline", Box::new(|t| t.deadline = Some("tomorrow".into()))),
        (
            "artifacts_expected",
            Box::new(|t| {
                t.artifacts_expected =
                    vec![ExpectedArtifact { r#type: ArtifactType::Code, path: " ".into() }];
            }),
        ),
        (
            "acceptance_criteria",
            Box::new(|t| {
                t.acceptance_criteria = vec![AcceptanceCriterion { description: " ".into(), met: false }];
            }),
        ),
    ];
    for (name, breaks) in broken {
        let mut task = fresh();
        breaks(&mut task);
        let error = task.check().expect_err(name);
        assert_eq!(error.status(), 422);
        assert!(error.detail().starts_with(name), "{name}: {}", error.detail());
    }
    for deadline in ["2026-05-01", "2026-05-01T10:00:00Z", "2026-05-01T10:00:00", "2026-05-01T10:00:00+02:00"]
    {
        Task { deadline: Some(deadline.into()), ..fresh() }.check().unwrap();
    }
}

#[test]
fn the_wire_form_reads_back_and_shows_every_member() {
    let task = Task::new(new(), now()).unwrap();
    let wire = serde_json::to_value(&task).unwrap();
    assert_eq!(serde_json::from_value::<Task>(wire.clone()).unwrap(), task);
    assert_eq!(wire.as_object().unwrap().len(), 27);
    assert_eq!(wire["assigned_to"], Value::Null);
    assert_eq!((&wire["max_retries"], &wire["coordination_topology"]), (&json!(1), &json!("auto")));
    let id = task.id.strip_prefix("task-").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
}

proptest! {
    #[test]
    fn no_sequence_of_moves_breaks_a_rule_or_skips_a_version(steps in prop::collection::vec((0usize..12, any::<bool>()), 0..40)) {
        let mut task = Task::new(new(), now()).unwrap();
        let mut version = 1;
        for (target, names) in steps {
            let assignee = names.then(|| "somebody".to_owned());
            if let Ok(next) = task.moved(TaskStatus::ALL[target], assignee, false, now()) {
                version += 1;
                task = next;
            }
            prop_assert!(task.check().is_ok());
            prop_assert_eq!(task.version, version);
        }
    }
}

use super::*;

fn said(agent: &str, input: u32, output: u32) -> Contribution {
    Contribution {
        agent_id: agent.to_owned(),
        content: "I think so".to_owned(),
        phase: Phase::RoundRobinTurn,
        turn_number: 0,
        input_tokens: input,
        output_tokens: output,
        timestamp: DateTime::default(),
    }
}

fn held(contributions: Vec<Contribution>) -> Held {
    let item = |description: &str, assignee: Option<&str>| ActionItem {
        description: description.to_owned(),
        assignee_id: assignee.map(ToOwned::to_owned),
        priority: Priority::Medium,
    };
    Held {
        agenda: Agenda { title: "standup".to_owned(), context: String::new(), items: Vec::new() },
        contributions,
        summary: "all is well".to_owned(),
        decisions: vec!["go on".to_owned(), " ".to_owned()],
        action_items: vec![item("test", Some("bob")), item("call", Some("mallory")), item("", None)],
        conflicts_detected: false,
    }
}

fn meeting() -> Meeting {
    let participants = ["ada", "bob", "eve"].map(ToOwned::to_owned).to_vec();
    Meeting::begin("standup".to_owned(), Protocol::RoundRobin, 2000, participants, DateTime::default())
}

fn later() -> DateTime<Utc> {
    DateTime::default() + chrono::TimeDelta::milliseconds(2500)
}

#[test]
fn minutes_add_up_and_an_item_for_an_outsider_is_for_nobody() {
    let contributions = vec![said("bob", 10, 5), said("eve", 40, 2), said("ada", 3, 12)];
    let done = meeting().complete(held(contributions), later()).unwrap();
    let minutes = done.minutes.as_ref().unwrap();
    assert_eq!((minutes.total_input_tokens, minutes.total_output_tokens, minutes.total_tokens), (53, 19, 72));
    assert_eq!(
        (minutes.leader_id.as_str(), &minutes.participant_ids[..]),
        ("ada", &["bob".to_owned(), "eve".to_owned()][..])
    );
    assert_eq!(minutes.decisions, ["go on"]);
    let items: Vec<_> =
        minutes.action_items.iter().map(|i| (i.description.as_str(), i.assignee_id.as_deref())).collect();
    assert_eq!(items, [("test", Some("bob")), ("call", None)]);
    let shown = done.shown();
    assert_eq!(shown.contribution_rank, ["eve", "ada", "bob"], "by tokens, then by name");
    assert_eq!(shown.token_usage_by_participant["eve"], 42);
    assert_eq!(shown.meeting_duration_seconds, Some(2.5));
    assert_eq!(shown.token_usage_by_participant.values().sum::<u64>(), minutes.total_tokens);
}

#[test]
fn who_takes_no_part_cannot_have_spoken() {
    let refused = meeting().complete(held(vec![said("mallory", 1, 1)]), later()).unwrap_err();
    assert_eq!(refused.status(), 422);
}

#[test]
fn a_record_has_minutes_or_an_error_exactly_when_its_status_says_so() {
    let done = meeting().complete(held(Vec::new()), later()).unwrap();
    assert!(meeting().check().is_ok());
    for status in [MeetingStatus::Failed, MeetingStatus::BudgetExhausted] {
        assert!(meeting().fail(status, "no".to_owned()).check().is_ok());
        assert!(Meeting { status, ..done.clone() }.check().is_err());
        assert!(Meeting { status, ..meeting() }.check().is_err());
    }
    assert!(Meeting { error_message: Some("no".to_owned()), ..done.clone() }.check().is_err());
    assert!(Meeting { status: MeetingStatus::Completed, ..meeting() }.check().is_err());
    assert!(Meeting { token_budget: 0, ..meeting() }.check().is_err());
    let broken = |change: fn(&mut Minutes)| {
        let mut record = done.clone();
        change(record.minutes.as_mut().unwrap());
        record.check().is_err()
    };
    assert!(broken(|minutes| minutes.total_tokens += 1));
    assert!(broken(|minutes| minutes.total_input_tokens += 1));
    assert!(broken(|minutes| minutes.participant_ids.push("ada".to_owned())));
    assert!(broken(|minutes| minutes.participant_ids.push("bob".to_owned())));
    assert!(broken(|minutes| minutes.started_at = later() + chrono::TimeDelta::seconds(1)));
}

use serde_json::json;

use super::*;

#[test]
fn deadlines_are_days_or_moments() {
    for sound in [
        "2026-05-01",
        "2024-02-29",
        "2026-05-01T10:00:00Z",
        "2026-05-01T10:00:00.123456+02:00",
        "2026-05-01T10:00:00-0530",
        "2026-05-01t10:00:00z",
        "2026-05-01 10:00",
        "2026-05-01T10:00:00",
        "2026-05-01T10:00+01:00",
    ] {
        assert_eq!(Deadline::new(sound.to_owned()).unwrap().as_str(), sound);
    }
    for wrong in [
        "",
        " ",
        "tomorrow",
        "2026-02-30",
        "2026-5-1",
        "26-05-01",
        "+026-05-01",
        "2026-05-01T",
        "2026-05-01T25:00",
        "2026-05-01TZ",
        "2026-05-01T10:00:00 UTC",
        " 2026-05-01",
        "2026-05-01\n",
        "1777629600",
    ] {
        assert!(Deadline::new(wrong.to_owned()).is_err(), "{wrong:?}");
    }
    assert!(Deadline::new(format!("2026-05-01T10:00:00.{}Z", "1".repeat(60))).is_err());
}

#[test]
fn teams_hold_fifty_agents_each_once() {
    let team = |names: Vec<String>| serde_json::from_value::<Team>(json!(names));
    let named = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
    assert!(team(named(50)).is_ok() && team(Vec::new()).is_ok());
    assert!(team(named(51)).unwrap_err().to_string().contains("at most 50"));
    assert!(team(vec!["a".into(), "a".into()]).unwrap_err().to_string().contains("twice"));
    assert!(team(vec![" ".into()]).is_err() && team(vec!["a".repeat(129)]).is_err());
}

#[test]
fn a_change_tells_null_from_nothing() {
    let new = json!({"name": "n", "team": ["a"], "lead": "a", "deadline": "2026-05-01"});
    let project = Project::new(serde_json::from_value(new).unwrap()).unwrap();
    let change = |value| project.changed(serde_json::from_value(value).unwrap());
    assert_eq!(change(json!({})).unwrap(), project);
    let cleared = change(json!({"lead": null, "deadline": null})).unwrap();
    assert_eq!((cleared.lead, cleared.deadline), (None, None));
    for member in ["name", "description", "team", "budget", "status"] {
        assert!(serde_json::from_value::<ProjectChange>(json!({ member: null })).is_err(), "{member}");
    }
    assert_eq!(change(json!({"team": ["b"]})).unwrap_err().status(), 422);
    assert!(change(json!({"team": ["b"], "lead": "b"})).is_ok() && change(json!({"team": []})).is_ok());
}

#[test]
fn what_is_final_stays_so() {
    let project = Project::new(serde_json::from_value(json!({"name": "n"})).unwrap()).unwrap();
    let to = |from: ProjectStatus, to: ProjectStatus| {
        let project = Project { status: from, ..project.clone() };
        project.changed(ProjectChange { status: Some(to), ..ProjectChange::default() })
    };
    for &from in ProjectStatus::ALL {
        for &next in ProjectStatus::ALL {
            assert_eq!(to(from, next).is_ok(), from == next || !from.is_final(), "{from} to {next}");
        }
    }
}

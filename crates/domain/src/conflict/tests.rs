use super::*;

fn words<const MAX: usize>(text: &str) -> NotBlank<MAX> {
    NotBlank::new(text).unwrap()
}

fn position(agent: &str, department: &str) -> Position {
    Position {
        agent_id: words(agent),
        agent_department: words(department),
        agent_level: SeniorityLevel::Senior,
        position: words("rewrite it"),
        reasoning: words("it is old"),
        timestamp: DateTime::default(),
    }
}

fn conflict(positions: Vec<Position>) -> Result<Conflict> {
    Conflict::new(ConflictType::Architecture, None, words("the parser"), positions, DateTime::default())
}

fn winner(agent: &str) -> Decision {
    Decision::Winner { winning_agent_id: words(agent), reasoning: words("better") }
}

#[test]
fn a_conflict_has_two_positions_or_more_each_of_another_agent() {
    let sound = conflict(vec![position("ada", "engineering"), position("bob", "engineering")]).unwrap();
    assert!(!sound.is_cross_department);
    assert!(
        conflict(vec![position("ada", "engineering"), position("bob", "product")])
            .unwrap()
            .is_cross_department
    );
    for broken in [
        vec![],
        vec![position("ada", "engineering")],
        vec![position("ada", "engineering"), position("ada", "product")],
        vec![position("ada", "engineering"), position("b\0b", "product")],
    ] {
        assert_eq!(conflict(broken).unwrap_err().status(), 422);
    }
    let mut nul = sound.clone();
    nul.positions[1].reasoning = words("a\0b");
    assert_eq!(nul.check().unwrap_err().status(), 422);
    let lies = Conflict { is_cross_department: true, ..sound };
    assert_eq!(lies.check().unwrap_err().status(), 422);
}

#[test]
fn a_decision_fits_the_strategy_and_names_an_agent_of_the_conflict() {
    let conflict = conflict(vec![position("ada", "e"), position("bob", "e"), position("eve", "e")]).unwrap();
    let reject = Decision::Reject { reasoning: words("neither") };
    assert!(winner("ada").fits(DecisionStrategy::Winner).is_ok());
    assert!(winner("ada").fits(DecisionStrategy::Hybrid).is_ok());
    assert!(reject.fits(DecisionStrategy::Hybrid).is_ok());
    assert_eq!(reject.fits(DecisionStrategy::Winner).unwrap_err().status(), 422);
    assert!(winner("bob").settles(&conflict).is_ok() && reject.settles(&conflict).is_ok());
    assert_eq!(winner("mallory").settles(&conflict).unwrap_err().status(), 422);
    let losers =
        |decision: &Decision| conflict.losing(decision).map(|p| p.agent_id.to_string()).collect::<Vec<_>>();
    assert_eq!(losers(&winner("bob")), ["ada", "eve"]);
    assert_eq!(losers(&reject), ["ada", "bob", "eve"]);
}

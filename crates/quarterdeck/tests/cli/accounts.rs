use crate::deck::Deck;

const PASSWORD: &str = "correct horse battery staple";

fn migrated() -> Deck {
    let deck = Deck::new();
    deck.run(&["migrate"]).ended(0);
    deck
}

#[test]
fn migrating_twice_is_the_same_as_once() {
    let deck = Deck::new();
    let first = deck.run(&["migrate", "--json"]).ended(0).json();
    assert!(!first["migrations"].as_array().unwrap().is_empty());
    assert_eq!(deck.run(&["migrate", "--json"]).ended(0).json(), first);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = deck.path("data").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}

#[test]
fn accounts_are_made_and_listed() {
    let deck = migrated();
    let arguments = ["user", "create", "ada", "--role", "ceo", "--password-stdin", "--json"];
    let made = deck.run_with(&arguments, &[], &format!("{PASSWORD}\n")).ended(0);
    made.hides(PASSWORD);
    let user = &made.json()["user"];
    assert_eq!((user["username"].as_str(), user["role"].as_str()), (Some("ada"), Some("ceo")));
    assert_eq!(user["must_change_password"], true);
    let listed = deck.run(&["user", "list", "--json"]).ended(0);
    listed.hides("argon2");
    assert_eq!(listed.json(), serde_json::json!([user]));
    assert!(deck.run(&["user", "list"]).ended(0).stdout.contains("ada"));
}

#[test]
fn a_made_password_is_shown_this_once() {
    let deck = migrated();
    let made = deck.run(&["user", "create", "bob", "--generate", "--json"]).ended(0).json();
    let password = made["password"].as_str().unwrap();
    assert!(password.len() >= 20);
    let reset = deck.run(&["user", "reset-password", "bob", "--generate"]).ended(0);
    assert_ne!(reset.stdout.trim(), password);
    assert_eq!(reset.stdout.lines().count(), 1, "the password stands alone on stdout");
    deck.run(&["user", "list", "--json"]).hides(password);
}

#[test]
fn refusals_name_the_rule() {
    let deck = migrated();
    let create = |name: &str, password: &str| {
        deck.run_with(&["user", "create", name, "--password-stdin", "--json"], &[], password)
    };
    create("ada", PASSWORD).ended(0);
    assert_eq!(create("ada", PASSWORD).ended(1).failure()["error_code"], 4000);
    assert_eq!(create("SYSTEM", PASSWORD).ended(1).failure()["error_code"], 4000);
    let short = create("eve", "elevenchars").ended(1);
    assert!(short.failure()["message"].as_str().unwrap().contains("at least 12 characters"));
    short.hides("elevenchars");
    create("eve", "").ended(2);
    create(" ", PASSWORD).ended(2);
    let missing = deck.run(&["user", "reset-password", "nobody", "--generate", "--json"]).ended(1);
    assert_eq!(missing.failure()["error_code"], 3000);
    let system = deck.run(&["user", "reset-password", "system", "--generate", "--json"]).ended(1);
    assert!([3000, 4000].map(Into::into).contains(&system.failure()["error_code"]));
}

#[test]
fn without_a_terminal_the_password_needs_a_flag() {
    let run = migrated().run(&["user", "create", "ada"]).ended(2);
    assert!(run.stderr.contains("--password-stdin or --generate"), "{}", run.stderr);
}

#[test]
fn without_a_database_the_operator_is_told_how_to_make_one() {
    let deck = Deck::new();
    let run = deck.run(&["user", "list"]).ended(1);
    assert!(run.stderr.contains("there is no database yet") && run.stderr.contains("quarterdeck migrate"));
    assert!(!deck.path("data").exists());
}

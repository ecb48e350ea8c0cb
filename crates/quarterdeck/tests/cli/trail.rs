//! `audit` and `notify`.

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};

use crate::deck::{CANARY, Deck};

const PASSWORD: &str = "correct horse battery staple";
const SINKS: &str = "QUARTERDECK_NOTIFICATIONS__SINKS";

/// Two accounts, one of them with a new password.
fn used() -> Deck {
    let deck = Deck::new();
    deck.run(&["migrate"]).ended(0);
    deck.run_with(&["user", "create", "ada", "--password-stdin"], &[], PASSWORD).ended(0);
    deck.run_with(&["user", "create", "bob", "--role", "ceo", "--password-stdin"], &[], PASSWORD).ended(0);
    deck.run_with(&["user", "reset-password", "ada", "--password-stdin"], &[], PASSWORD).ended(0);
    deck
}

/// Changes the database by other means than the program.
fn execute(deck: &Deck, statements: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(deck.path("data/quarterdeck.db"));
        let mut connection = options.connect().await.unwrap();
        for sql in statements {
            connection.execute(sqlx::AssertSqlSafe((*sql).to_owned())).await.unwrap();
        }
        connection.close().await.unwrap();
    });
}

#[test]
fn what_the_command_line_does_to_accounts_is_in_the_trail_and_the_trail_is_proved() {
    let deck = used();
    let verified = deck.run(&["audit", "verify", "--json"]).ended(0).json();
    assert_eq!(
        (&verified["intact"], &verified["entries"], &verified["signed"]),
        (&json!(true), &json!(3), &json!(3))
    );
    let run = deck.run(&["audit", "verify", "--plain"]).ended(0);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines[0], "ok   The audit trail is intact: 3 entries.");
    let end = lines[1];
    deck.run(&["audit", "verify", "--expect", end]).ended(0);
    let other = format!("1:{}", "0".repeat(64));
    deck.run(&["audit", "verify", "--expect", &other]).ended(1);
    deck.run(&["audit", "verify", "--expect", "nonsense"]).ended(2);

    execute(
        &deck,
        &[
            "DROP TRIGGER audit_entries_no_update",
            "UPDATE audit_entries SET actor = 'ada' WHERE position = 1",
        ],
    );
    let run = deck.run(&["audit", "verify", "--plain"]).ended(1);
    assert!(
        run.stdout.contains("FAIL The audit trail is broken: entry 1 is filed under something else"),
        "{}",
        run.stdout
    );
    let broken = deck.run(&["audit", "verify", "--json"]).ended(1).json();
    assert_eq!((&broken["intact"], &broken["fault"]["position"]), (&json!(false), &json!(1)));
}

#[test]
fn the_trail_is_printed_in_three_forms() {
    let deck = used();
    let run = deck.run(&["audit", "export"]).ended(0);
    run.hides(PASSWORD);
    let lines: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| line["action_type"].as_str().unwrap()).collect();
    assert_eq!(told, ["user:create", "user:create", "user:password_reset"]);
    let first = &lines[0];
    assert_eq!((&first["actor"], &first["tool_name"]), (&json!("system"), &json!("cli.user_create")));
    assert_eq!((&first["position"], &first["previous_hash"]), (&json!(0), &json!("genesis")));
    assert_eq!(deck.run(&["audit", "export", "--json"]).ended(0).json(), Value::from(lines));
    let csv = deck.run(&["audit", "export", "--format", "csv"]).ended(0).stdout;
    assert!(csv.starts_with("position,id,timestamp,") && csv.matches("\r\n").count() == 4, "{csv}");
    let none = deck.run(&["audit", "export", "--json", "--until", "2020-01-01T00:00:00Z"]).ended(0).json();
    assert_eq!(none, json!([]));
    deck.run(&["audit", "export", "--since", "2026-01-02T00:00:00Z", "--until", "2026-01-01T00:00:00Z"])
        .ended(2);
    deck.run(&["audit", "export", "--since", "2026-01-02"]).ended(2);
    deck.run(&["audit", "export", "--format", "xml"]).ended(2);
    assert!(Deck::new().run(&["audit", "verify"]).ended(1).stderr.contains("there is no database yet"));
}

#[test]
fn a_trial_of_notifications_says_which_sink_works() {
    let deck = Deck::answered("200 OK\n{}");
    let good = json!({"type": "webhook", "params": {
        "url": format!("http://127.0.0.1:{}/hook/{CANARY}", deck.port()), "secret": "${HOOK_SECRET}"}});
    let sinks = json!([good]).to_string();
    let variables = [(SINKS, sinks.as_str()), ("HOOK_SECRET", CANARY)];
    let run = deck.run_with(&["notify", "test", "--plain"], &variables, "").ended(0);
    assert_eq!(run.stdout, "ok   notifications.sinks[0] (webhook): delivered\n");

    let bad = json!({"type": "slack", "params": {"url": format!("http://127.0.0.1:1/{CANARY}")}});
    let unset = json!({"type": "ntfy", "params": {"topic": "${NOWHERE}"}});
    let sinks = json!([good, bad, unset]).to_string();
    let variables = [(SINKS, sinks.as_str()), ("HOOK_SECRET", CANARY)];
    let run = deck.run_with(&["notify", "test", "--json"], &variables, "").ended(1);
    run.hides(CANARY);
    let tried = run.json();
    let outcomes: Vec<_> = tried["sinks"].as_array().unwrap().iter().map(|sink| &sink["delivered"]).collect();
    assert_eq!(outcomes, [&json!(true), &json!(false), &json!(false)]);
    assert_eq!(tried["sinks"][1]["error"], "cannot connect");
    assert!(tried["sinks"][2]["error"].as_str().unwrap().contains("NOWHERE"));
    let run = deck.run_with(&["notify", "test", "--plain"], &[], "").ended(0);
    assert_eq!(run.stdout, "ok   the log, for no sink is configured: the server writes it there\n");
}

#[test]
fn secrets_of_sinks_are_masked_and_their_file_is_for_its_owner() {
    let deck = Deck::new();
    std::fs::create_dir_all(deck.path("data")).unwrap();
    let file = deck.path("data/quarterdeck.toml");
    let write = |secret: &str| {
        let text = format!(
            "[[notifications.sinks]]\ntype = \"webhook\"\nparams = {{ url = \"https://example.org/x\", secret = \"{secret}\" }}\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    write("${HOOK_SECRET}");
    deck.run(&["config", "check"]).ended(0);
    write(CANARY);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let run = deck.run(&["config", "check"]).ended(1);
        assert!(run.stderr.contains("other users can read it"), "{}", run.stderr);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let run = deck.run(&["config", "show"]).ended(0);
    run.hides(CANARY);
    assert!(run.stdout.contains("webhook"), "{}", run.stdout);
    write("short");
    let run = deck.run(&["config", "check"]).ended(1);
    assert!(
        run.stderr.contains("notifications.sinks[0] params.secret must have at least 24 bytes"),
        "{}",
        run.stderr
    );
}

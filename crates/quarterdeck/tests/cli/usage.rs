use crate::deck::{CANARY, Deck};

const SECRETS: [(&str, &str); 5] = [
    ("QUARTERDECK_JWT_SECRET", CANARY),
    ("QUARTERDECK_DATABASE_URL", "postgresql://canary-user:canary-word@127.0.0.1:1/deck"),
    ("QUARTERDECK_SETTINGS_KEY", "Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2E="),
    ("QUARTERDECK_API_SSL_KEYFILE", CANARY),
    // Nobody listens there; the shortest wait is long enough.
    ("QUARTERDECK_DATABASE__POSTGRES__CONNECT_TIMEOUT_SECONDS", "1"),
];

#[test]
fn help_explains_every_command_and_shows_no_secret() {
    let deck = Deck::new();
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["--help-all"],
        &["help", "serve"],
        &["serve", "--help"],
        &["user", "create", "--help"],
    ] {
        let run = deck.run_with(arguments, &SECRETS, "").ended(0);
        run.hides("canary");
        run.hides("Y2FuYXJ5");
        assert!(run.stdout.contains("Usage:") && run.stderr.is_empty(), "{arguments:?}");
    }
    let all = deck.run(&["--help-all"]).stdout;
    for command in
        ["serve", "migrate", "status", "doctor", "config show", "user reset-password", "completion"]
    {
        assert!(all.contains(&format!("quarterdeck {command}")), "{command}");
    }
}

#[test]
fn no_configuration_command_shows_a_secret() {
    let deck = Deck::new();
    for arguments in [
        &["config", "show"][..],
        &["config", "show", "--json"],
        &["config", "check"],
        &["doctor"],
        &["doctor", "--json"],
        &["status", "-vv"],
        &["user", "list"],
    ] {
        let run = deck.run_with(arguments, &SECRETS, "");
        run.hides("canary");
        run.hides("Y2FuYXJ5");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_a_suggestion() {
    let deck = Deck::new();
    let run = deck.run(&["staus"]).ended(2);
    assert!(run.stderr.contains("'status'") && run.stdout.is_empty(), "{}", run.stderr);
    for arguments in [
        &["serve", "--port", "0"][..],
        &["serve", "--port", "65536"],
        &["status", "--interval", "1"],
        &["status", "--watch", "--interval", "0"],
        &["status", "--watch", "--json"],
        &["-q", "-v", "version"],
        &["--plain", "--json", "version"],
        &["user", "create", "ada", "--role", "system"],
        &["user", "create", "ada", "--generate", "--password-stdin"],
        &["completion", "tcsh"],
        &["config"],
    ] {
        deck.run(arguments).ended(2);
    }
}

#[test]
fn with_json_a_failure_is_one_document_on_stderr() {
    let deck = Deck::new();
    let usage = deck.run(&["--json", "serve", "--port", "x"]).ended(2).failure();
    assert_eq!(usage["exit_code"], 2);
    assert!(usage["message"].as_str().unwrap().contains("--port"));
    let broken = [("QUARTERDECK_LOG_LEVEL", "loud")];
    let failure = deck.run_with(&["config", "check", "--json"], &broken, "").ended(1).failure();
    assert_eq!(
        failure["message"],
        "log.level must be DEBUG, INFO, WARNING, ERROR or CRITICAL (set by QUARTERDECK_LOG_LEVEL)"
    );
    let unreachable = deck.run(&["status", "--json"]).ended(4).failure();
    assert_eq!(unreachable["exit_code"], 4);
    assert!(unreachable["hint"].as_str().unwrap().contains("quarterdeck serve"));
}

#[test]
fn the_version_is_told_in_three_ways() {
    let deck = Deck::new();
    let number = env!("CARGO_PKG_VERSION");
    assert_eq!(deck.run(&["version", "--short"]).ended(0).stdout, format!("{number}\n"));
    assert!(deck.run(&["version"]).ended(0).stdout.starts_with(&format!("quarterdeck {number} (commit ")));
    let document = deck.run(&["version", "--json"]).ended(0).json();
    assert_eq!(document["version"], number);
    assert!(document["commit"].is_string());
}

#[test]
fn commands_for_a_broken_configuration_work_with_one() {
    let deck = Deck::new();
    let broken = [("QUARTERDECK_CONFIG_PATH", "/nowhere/quarterdeck.toml")];
    for (arguments, code) in [
        (&["version"][..], 0),
        (&["completion", "bash"], 0),
        (&["doctor"], 1),
        (&["openapi"], 0),
        (&["--help"], 0),
    ] {
        deck.run_with(arguments, &broken, "").ended(code);
    }
    for arguments in [&["serve"][..], &["migrate"], &["status"], &["user", "list"]] {
        let run = deck.run_with(arguments, &broken, "").ended(1);
        assert!(
            run.stderr.contains("QUARTERDECK_CONFIG_PATH names /nowhere/quarterdeck.toml"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    let deck = Deck::new();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = deck.run(&["completion", shell]).ended(0).stdout;
        assert!(script.contains("reset-password"), "{shell}");
    }
}

#[test]
fn the_openapi_document_is_one_document_either_way() {
    let deck = Deck::new();
    let plain = deck.run(&["openapi"]).ended(0).json();
    assert_eq!(deck.run(&["openapi", "--json"]).ended(0).json(), plain);
    assert!(plain["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(plain["paths"].get("/api/v1/health").is_some());
}

use crate::deck::{CANARY, Deck};

#[test]
fn show_tells_every_value_and_its_source() {
    let deck = Deck::new();
    let run = deck.run_with(
        &["config", "show"],
        &[("QUARTERDECK_JWT_SECRET", CANARY), ("QUARTERDECK_API_JWT_EXPIRY_MINUTES", "30")],
        "",
    );
    let run = run.ended(0);
    for line in [
        "# no configuration file",
        "api.auth.jwt_secret = \"********\"  # QUARTERDECK_JWT_SECRET",
        "api.auth.lockout_threshold = 10",
        "api.auth.cookie_secure = false",
        "settings_key = null",
        "setting api/jwt_expiry_minutes = \"30\"  # QUARTERDECK_API_JWT_EXPIRY_MINUTES",
    ] {
        assert!(run.stdout.lines().any(|shown| shown == line), "{line}\n{}", run.stdout);
    }
    let port = format!("api.server.port = {}  # QUARTERDECK_API__SERVER__PORT", deck.port());
    assert!(run.stdout.contains(&port));
}

#[test]
fn show_gives_the_same_as_one_document() {
    let deck = Deck::new();
    let document = deck.run(&["config", "show", "--json"]).ended(0).json();
    let value = &document["values"]["api.server.port"];
    assert_eq!(value["value"], deck.port());
    assert_eq!(value["source"], "QUARTERDECK_API__SERVER__PORT");
    assert_eq!(document["values"]["data_dir"]["value"], deck.path("data").to_str().unwrap());
    assert_eq!(document["file"], serde_json::Value::Null);
}

#[test]
fn flags_win_over_variables() {
    let deck = Deck::new();
    let folder = deck.path("elsewhere");
    let arguments = ["config", "show", "--json", "--data-dir", folder.to_str().unwrap()];
    let document = deck.run(&arguments).ended(0).json();
    assert_eq!(document["values"]["data_dir"]["value"], folder.to_str().unwrap());
    assert_eq!(document["values"]["data_dir"]["source"], "--data-dir");
}

#[test]
fn check_accepts_what_is_valid_and_names_what_is_not() {
    let deck = Deck::new();
    assert_eq!(deck.run(&["config", "check"]).ended(0).stdout, "The configuration is valid.\n");
    let file = deck.path("deck.toml");
    std::fs::write(&file, "[api.auth]\nlockout_threshold = 101\n").unwrap();
    let run = deck.run(&["config", "check", "--config", file.to_str().unwrap()]).ended(1);
    let text = "api.auth.lockout_threshold must be between 1 and 100 (set in ";
    assert!(run.stderr.contains(text) && run.stdout.is_empty(), "{}", run.stderr);
}

#[test]
fn a_variable_that_means_nothing_is_told_once_unless_quiet() {
    let deck = Deck::new();
    let typo = [("QUARTERDECK_JWT_SECRTE", CANARY)];
    let run = deck.run_with(&["config", "check"], &typo, "").ended(0);
    assert_eq!(run.stderr.matches("QUARTERDECK_JWT_SECRTE means nothing").count(), 1, "{}", run.stderr);
    run.hides("canary");
    assert_eq!(deck.run_with(&["-q", "config", "check"], &typo, "").ended(0).stderr, "");
    let quiet = [typo[0], ("QUARTERDECK_QUIET", "Yes")];
    assert_eq!(deck.run_with(&["config", "check"], &quiet, "").ended(0).stderr, "");
    let document = deck.run_with(&["config", "check", "--json"], &typo, "").ended(0).json();
    assert_eq!(document["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn a_server_that_others_can_reach_is_warned_about() {
    let deck = Deck::new();
    let open = [("QUARTERDECK_API__SERVER__HOST", "0.0.0.0")];
    let run = deck.run_with(&["config", "check"], &open, "").ended(0);
    assert!(
        run.stdout.contains("warning: The server listens on every interface without TLS"),
        "{}",
        run.stdout
    );
}

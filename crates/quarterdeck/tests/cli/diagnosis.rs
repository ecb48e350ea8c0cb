use std::fs;
#[cfg(unix)]
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
#[cfg(unix)]
use std::process::Command;

use serde_json::Value;

use crate::deck::{CANARY, Deck};
#[cfg(unix)]
use crate::redis::Redis;

const HEALTHY: &str = "200 OK\n{\"success\":true,\"data\":{\"status\":\"ok\",\"persistence\":true,\
                       \"message_bus\":null,\"telemetry\":\"disabled\",\"version\":\"9.9.9\",\
                       \"uptime_seconds\":61.5}}";
const DEGRADED: &str = "200 OK\n{\"success\":true,\"data\":{\"status\":\"degraded\",\"persistence\":true,\
                        \"message_bus\":false,\"version\":\"\\u001b[31m9\\u009b2J.9\",\"uptime_seconds\":1}}";

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found = report["checks"].as_array().unwrap().iter().find(|check| check["check"] == name);
    found.unwrap_or_else(|| panic!("{name}: {report}"))
}

#[test]
fn a_healthy_server_is_reported_with_0() {
    let deck = Deck::answered(HEALTHY);
    let run = deck.run(&["status"]).ended(0);
    assert!(run.stdout.starts_with("✓ All systems operational\n"), "{}", run.stdout);
    assert!(run.stdout.contains("version 9.9.9, up 1 min 1 s"), "{}", run.stdout);
    let document = deck.run(&["status", "--json"]).ended(0).json();
    assert_eq!(document["healthy"], true);
    assert_eq!(document["health"]["version"], "9.9.9");
    assert!(deck.run(&["status", "--plain"]).ended(0).stdout.is_ascii());
}

#[test]
fn an_unhealthy_server_is_reported_with_3_and_cannot_paint_on_the_terminal() {
    let deck = Deck::answered(DEGRADED);
    let run = deck.run(&["status"]).ended(3);
    assert!(run.stdout.starts_with("• Degraded: 1 issue(s)"), "{}", run.stdout);
    assert!(!run.stdout.contains(['\u{1b}', '\u{9b}']), "{:?}", run.stdout);
    let document = deck.run(&["status", "--json"]).ended(3).json();
    assert_eq!(document["health"]["version"], "9.9");
}

#[test]
fn check_says_nothing_and_ends_as_the_server_is() {
    let silent = |deck: Deck, code| {
        let run = deck.run(&["status", "--check"]).ended(code);
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    };
    silent(Deck::answered(HEALTHY), 0);
    silent(Deck::answered(DEGRADED), 3);
    silent(Deck::answered("500 Internal Server Error\n{}"), 3);
    silent(Deck::answered("200 OK\nnot json"), 3);
    silent(Deck::new(), 4);
}

#[test]
fn an_answer_over_a_mebibyte_is_not_read() {
    let answer =
        format!("200 OK\n{{\"data\":{{\"status\":\"ok\"}},\"padding\":\"{}\"}}", "x".repeat(1024 * 1024));
    let run = Deck::answered(answer.leak()).run(&["status"]).ended(3);
    assert!(run.stderr.contains("is not a healthy quarterdeck server"), "{}", run.stderr);
}

#[test]
fn a_stopped_server_is_reported_with_4_and_how_to_start_it() {
    let run = Deck::new().run(&["status"]).ended(4);
    assert!(run.stderr.contains("hint: start it with `quarterdeck serve`"), "{}", run.stderr);
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_watching_with_130() {
    let mut child = Deck::answered(HEALTHY).start(&["status", "--watch"], &[]);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "✓ All systems operational\n");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn proxies_of_the_environment_are_not_asked() {
    let deck = Deck::answered(HEALTHY);
    let proxies = [("http_proxy", "http://127.0.0.1:1"), ("ALL_PROXY", "http://127.0.0.1:1")];
    deck.run_with(&["status", "--check"], &proxies, "").ended(0);
}

#[test]
fn the_doctor_finds_nothing_wrong_before_the_first_start() {
    let deck = Deck::new();
    let run = deck.run(&["doctor"]).ended(0);
    assert!(run.stdout.contains("Nothing keeps the server from working."), "{}", run.stdout);
    assert!(!deck.path("data").exists(), "looking leaves no trace");
}

#[test]
fn the_doctor_finds_an_up_to_date_database() {
    let deck = Deck::new();
    deck.run(&["migrate"]).ended(0);
    let report = deck.run(&["doctor", "--json"]).ended(0).json();
    assert_eq!(report["healthy"], true);
    assert!(check(&report, "database")["text"].as_str().unwrap().ends_with("is up to date"));
    assert!(check(&report, "data folder")["text"].as_str().unwrap().ends_with("by its owner only"));
}

#[test]
fn the_doctor_reports_every_fault_with_its_cure_and_ends_with_1() {
    let deck = Deck::new();
    fs::create_dir(deck.path("data")).unwrap();
    #[cfg(unix)]
    fs::set_permissions(deck.path("data"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(deck.path("data/quarterdeck.db"), "this is no database, however long it may be").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    // Accepts and hangs up: something that speaks no HTTP.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let taken = [("QUARTERDECK_API__SERVER__PORT", port.as_str())];
    let report = deck.run_with(&["doctor", "--json"], &taken, "").ended(1).json();
    assert_eq!(report["healthy"], false);
    let mut faults = vec!["database", "port"];
    if cfg!(unix) {
        faults.push("data folder");
    }
    for name in faults {
        let check = check(&report, name);
        assert_eq!(check["result"], "failed", "{check}");
        assert!(!check["mend"].as_str().unwrap().is_empty(), "{check}");
    }
}

#[test]
fn the_doctor_knows_the_server_on_its_port() {
    let deck = Deck::answered(HEALTHY);
    let report = deck.run(&["doctor", "--json"]).ended(1).json();
    let port = check(&report, "port");
    assert!(port["text"].as_str().unwrap().starts_with("a quarterdeck server of version 9.9.9"), "{port}");
    let secret = check(&report, "signing secret");
    assert_eq!(secret["result"], "failed", "a running server's secret has to be known: {secret}");
}

#[test]
fn the_doctor_tells_another_program_from_a_server() {
    let report = Deck::answered("404 Not Found\nhello").run(&["doctor", "--json"]).ended(1).json();
    assert!(check(&report, "port")["text"].as_str().unwrap().starts_with("another program answers"));
}

#[test]
fn the_doctor_survives_a_broken_configuration() {
    let deck = Deck::new();
    let run = deck.run_with(&["doctor", "--json"], &[("QUARTERDECK_LOG_DIR", "../x")], "").ended(1);
    let report = run.json();
    assert_eq!(check(&report, "configuration")["result"], "failed");
}

#[test]
fn the_doctor_asks_redis_only_where_one_is_named() {
    let report = Deck::new().run(&["doctor", "--json"]).ended(0).json();
    assert!(report["checks"].as_array().unwrap().iter().all(|check| check["check"] != "limits"), "{report}");
}

#[test]
fn the_doctor_finds_a_redis_that_is_away_and_hides_its_password() {
    let deck = Deck::new();
    // Nobody listens there.
    let url = format!("redis://ada:{CANARY}@127.0.0.1:{}", deck.port());
    let run = deck.run_with(&["doctor", "--json"], &[("QUARTERDECK_REDIS_URL", &url)], "").ended(1);
    run.hides(CANARY);
    let report = run.json();
    let limits = check(&report, "limits");
    assert_eq!(limits["result"], "failed", "{limits}");
    assert!(limits["text"].as_str().unwrap().starts_with("the Redis of redis_url cannot be used ("));
    assert!(limits["mend"].as_str().unwrap().contains("redis_url"), "{limits}");
    deck.run_with(&["config", "show"], &[("QUARTERDECK_REDIS_URL", &url)], "").ended(0).hides(CANARY);
}

#[test]
#[cfg(unix)]
fn the_doctor_finds_a_redis_that_works() {
    let deck = Deck::new();
    let Some(redis) = Redis::start() else { return };
    let url = redis.url();
    let report = deck.run_with(&["doctor", "--json"], &[("QUARTERDECK_REDIS_URL", &url)], "").ended(0).json();
    assert_eq!(check(&report, "limits")["result"], "ok", "{report}");
}

use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::json;
use tracing::instrument::WithSubscriber;
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::*;

#[test]
fn an_event_is_one_json_line_with_the_ids_of_the_scopes_around_it() {
    let rig = Rig::new(LoggingConfig::default());
    rig.log(|| {
        let request = info_span!("request", request_id = "r-1", method = "GET");
        let _request = request.enter();
        let task = info_span!("task", task_id = %"t-1", agent_id = tracing::field::Empty);
        let _task = task.enter();
        task.record("agent_id", "a-1");
        info!(target: "quarterdeck::test", method = "GET", duration_ms = 1.25, ok = true, "api.request.completed");
    });
    let mut lines = rig.lines();
    let time = lines[0].as_object_mut().unwrap().remove("timestamp").unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(time.as_str().unwrap()).is_ok());
    assert_eq!(
        lines,
        [json!({
            "level": "INFO", "logger": "quarterdeck::test", "event": "api.request.completed",
            "method": "GET", "duration_ms": 1.25, "ok": true,
            "request_id": "r-1", "task_id": "t-1", "agent_id": "a-1"
        })]
    );
}

#[test]
fn concurrent_requests_never_share_an_id_and_their_sub_tasks_keep_it() {
    let rig = Rig::new(LoggingConfig::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let request = |n: u64| {
        let span = rig.log(|| info_span!("request", request_id = n.to_string()));
        let handle = async move {
            info!(n, "started");
            tokio::task::yield_now().await;
            let sub_task = async move { info!(n, "sub-task") };
            tokio::spawn(sub_task.in_current_span().with_current_subscriber()).await.unwrap();
        };
        handle.instrument(span).with_subscriber(rig.dispatch.clone())
    };
    runtime.block_on(async {
        let requests: Vec<_> = (0..50).map(|n| tokio::spawn(request(n))).collect();
        for request in requests {
            request.await.unwrap();
        }
    });
    let lines = rig.lines();
    assert_eq!(lines.len(), 100);
    for line in lines {
        assert_eq!(line["request_id"], line["n"].to_string());
    }
}

#[test]
fn control_characters_of_the_input_stay_inside_their_line() {
    let rig = Rig::new(LoggingConfig::default());
    let path = "/a\r\n{\"level\":\"INFO\"}\u{1b}[31m\u{0}\u{2028}\u{202e}";
    rig.log(|| info!(path, "api.request.started"));
    assert!(rig.logging.flush());
    let text = rig.console.text();
    assert_eq!(text.lines().count(), 1);
    assert!(!text.trim_end().contains(|c: char| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c)));
    assert_eq!(rig.console.lines()[0]["path"], path);
}

#[test]
fn a_nested_secret_is_never_written() {
    #[derive(Debug)]
    #[allow(dead_code, reason = "read by its debug form only")]
    struct Login {
        user: &'static str,
        password: Option<&'static str>,
    }
    let rig = Rig::new(LoggingConfig::default());
    let nested = json!({"auth": {"api_key": "hunter2"}, "n": 1});
    rig.log(|| {
        info!(?nested, "a");
        info!(%nested, "b");
        info!(auth.api_key = "hunter2", "c");
        info!("said {nested} and {nested:?}");
        info!(login = ?Login { user: "ann", password: Some("hunter2") }, "d");
        info!(header = "Bearer hunter2", "e");
        let _scope = info_span!("s", agent_id = "token=hunter2").entered();
        error!(why = &io::Error::other("refused: api_key=hunter2") as &dyn std::error::Error, "f");
    });
    let lines = rig.lines();
    assert_eq!(lines.len(), 7);
    assert!(!rig.console.text().contains("hunter2"), "{}", rig.console.text());
    assert!(rig.console.text().contains("ann"));
    assert_eq!(lines[1]["nested"], r#"{"auth":{"api_key":"**REDACTED**"},"n":1}"#);
}

#[test]
fn levels_follow_the_root_the_logger_and_the_sinks() {
    let rig = Rig::new(LoggingConfig::default());
    let say = |round: &str| {
        rig.log(|| {
            debug!(target: "quarterdeck::a", round, "own.debug");
            info!(target: "quarterdeck::a", round, "own.info");
            info!(target: "sqlx::query", round, "library.info");
            warn!(target: "sqlx::query", round, "library.warning");
        });
        let lines = rig.lines();
        let said = lines.iter().filter(|line| line["round"] == round);
        said.map(|line| line["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let apply = |overrides: &str, loggers: &[(&str, LogLevel)], root| {
        let loggers = loggers.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect();
        rig.apply_all(rig.sinks(overrides, "[]"), loggers, root).unwrap();
    };
    assert_eq!(say("default"), ["own.info", "library.warning"]);
    apply(r#"{"console": {"level": "DEBUG"}}"#, &[], LogLevel::Debug);
    assert_eq!(say("debug"), ["own.debug", "own.info", "library.warning"]);
    apply("{}", &[("sqlx", LogLevel::Info), ("quarterdeck", LogLevel::Error)], LogLevel::Info);
    assert_eq!(say("loggers"), ["library.info", "library.warning"]);
    apply("{}", &[("sql", LogLevel::Info)], LogLevel::Error);
    assert!(say("half a name is no name").is_empty());
    apply(r#"{"console": {"level": "ERROR"}}"#, &[], LogLevel::Debug);
    assert!(say("quiet sink").is_empty());
}

#[test]
fn the_level_of_the_console_lets_its_lines_come_into_being() {
    let config = LoggingConfig { console_level: Some(LogLevel::Debug), ..LoggingConfig::default() };
    let rig = Rig::new(config);
    rig.log(|| debug!("a.b.c"));
    rig.apply("{}", "[]").unwrap();
    rig.log(|| debug!("a.b.d"));
    assert_eq!(events(&rig.lines()), ["a.b.c", "a.b.d"]);
}

#[test]
fn scopes_survive_a_quiet_root_and_correlation_can_be_turned_off() {
    let rig = Rig::new(LoggingConfig::default());
    rig.apply_all(rig.sinks("{}", "[]"), BTreeMap::new(), LogLevel::Error).unwrap();
    let say = || rig.log(|| info_span!("request", request_id = "r-1").in_scope(|| error!("a.b.c")));
    say();
    rig.logging.correlate(false);
    say();
    let lines = rig.lines();
    assert_eq!(lines[0]["request_id"], "r-1");
    assert_eq!(lines[1].get("request_id"), None);
}

/// A console whose reader is not reading.
struct Stuck(Receiver<()>, Captured, Sender<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.2.send(());
        let _ = self.0.recv();
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_console_never_holds_up_who_logs_and_the_missing_lines_are_told() {
    let (release, stuck) = channel();
    let (writing, written) = channel();
    let console = Captured::default();
    let out = Console { out: Box::new(Stuck(stuck, console.clone(), writing)), human: false, colour: false };
    let (logging, dispatch) = started(LoggingConfig::default(), out, 64 * 1024).unwrap();
    dispatcher::with_default(&dispatch, || {
        error!("first");
        written.recv().unwrap();
        // The writer is held; these fill the buffer and then find no room.
        for n in 0..2000 {
            info!(n, "api.request.started");
        }
    });
    let dropped = logging.dropped();
    assert!(dropped > 0 && dropped < 2000, "{dropped}");
    drop(release);
    assert!(logging.flush() && logging.flush());
    let lines = console.lines();
    let told: Vec<_> = lines.iter().filter(|line| line["event"] == "observability.lines.dropped").collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["lines"], dropped);
    let kept = lines.iter().filter(|line| line["event"] == "api.request.started").count() as u64;
    assert_eq!(kept + dropped, 2000);
}

#[test]
fn flush_gives_up_in_bounded_time_when_the_console_is_stuck() {
    let (_release, stuck) = channel();
    let (writing, written) = channel();
    let out =
        Console { out: Box::new(Stuck(stuck, Captured::default(), writing)), human: false, colour: false };
    let (logging, dispatch) = started(LoggingConfig::default(), out, BUFFER_BYTES).unwrap();
    dispatcher::with_default(&dispatch, || error!("first"));
    written.recv().unwrap();
    assert!(!logging.flush());
}

#[test]
fn an_error_is_written_without_waiting_for_a_flush() {
    let (release, stuck) = channel();
    let (writing, written) = channel();
    let out =
        Console { out: Box::new(Stuck(stuck, Captured::default(), writing)), human: false, colour: false };
    let (_logging, dispatch) = started(LoggingConfig::default(), out, BUFFER_BYTES).unwrap();
    dispatcher::with_default(&dispatch, || error!("a.b.c"));
    assert!(written.recv_timeout(Duration::from_secs(5)).is_ok());
    drop(release);
}

struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_console_nobody_reads_only_costs_its_lines() {
    let out = Console { out: Box::new(Broken), human: false, colour: false };
    let (logging, dispatch) = started(LoggingConfig::default(), out, BUFFER_BYTES).unwrap();
    dispatcher::with_default(&dispatch, || info!("a.b.c"));
    assert!(logging.flush());
    assert!(logging.dropped() >= 1);
}

#[test]
fn a_panic_is_one_critical_line_with_message_and_place() {
    let rig = Rig::new(LoggingConfig::default());
    let dispatch = rig.dispatch.clone();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| dispatcher::with_default(&dispatch, || log_panic(panic))));
    let _ = std::panic::catch_unwind(|| panic!("no room\nfor token=hunter2"));
    let _ = std::panic::catch_unwind(|| std::panic::panic_any(42));
    std::panic::set_hook(usual);
    let lines = rig.lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["level"], "CRITICAL");
    assert_eq!(lines[0]["event"], "api.app.panicked");
    assert_eq!(lines[0]["reason"], "no room\nfor token=**REDACTED**");
    assert!(lines[0]["location"].as_str().unwrap().contains("console.rs:"));
    assert_eq!(lines[1]["reason"], "no message");
}

#[test]
fn a_value_that_logs_while_it_is_formatted_does_not_disturb_its_line() {
    struct Chatty;
    impl std::fmt::Debug for Chatty {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            info!("inner");
            f.write_str("chatty")
        }
    }
    let rig = Rig::new(LoggingConfig::default());
    rig.log(|| info!(value = ?Chatty, "outer"));
    let lines = rig.lines();
    // A subscriber may also refuse to be entered twice; what counts is the outer line.
    let outer = lines.iter().find(|line| line["event"] == "outer").unwrap();
    assert_eq!(outer["value"], "chatty");
}

#[test]
fn a_terminal_gets_lines_for_people_until_json_is_asked_for() {
    let console = Captured::default();
    let out = Console { out: Box::new(console.clone()), human: true, colour: false };
    let (logging, dispatch) = started(LoggingConfig::default(), out, BUFFER_BYTES).unwrap();
    dispatcher::with_default(&dispatch, || info!(n = 1, "a.b.c"));
    assert!(logging.flush());
    let human = console.text();
    assert!(human.contains(" INFO     a.b.c n=1 quarterdeck::logging::tests::console\n"), "{human}");
    let sinks =
        quarterdeck_domain::sink::resolve("INFO", r#"{"console": {"json_format": true}}"#, "[]").unwrap();
    logging.apply(sinks, BTreeMap::new(), LogLevel::Info).unwrap();
    dispatcher::with_default(&dispatch, || info!("a.b.d"));
    assert!(logging.flush());
    assert_eq!(parse(&console.text()[human.len()..])[0]["event"], "a.b.d");
}

#[test]
fn a_line_formatted_for_people_just_before_a_swap_still_reaches_programs_as_json() {
    let rig = Rig::new(LoggingConfig::default());
    let line = queue::Line {
        json: "",
        human: "then INFO a.b.c path=\"x\"\n",
        event: 10..15,
        level: LogLevel::Info,
        logger: "quarterdeck",
    };
    assert!(rig.logging.shared.queue.push(&line));
    let lines = rig.lines();
    assert_eq!(events(&lines), ["a.b.c"]);
    assert_eq!(lines[0]["line"], "then INFO a.b.c path=\"x\"");
}

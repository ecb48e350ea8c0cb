use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use tracing::{debug, error, info};

use super::*;

fn read(directory: &Path, name: &str) -> Vec<Value> {
    parse(&fs::read_to_string(directory.join(name)).unwrap_or_else(|why| panic!("{name}: {why}")))
}

#[test]
fn without_a_directory_there_are_no_files_and_none_can_be_added() {
    let rig = Rig::new(LoggingConfig::default());
    rig.apply(r#"{"access.log": {"enabled": true}}"#, "[]").unwrap();
    let why = rig.apply("{}", r#"[{"sink_type": "file", "file_path": "x.log"}]"#).unwrap_err();
    assert_eq!(why, "x.log needs a log directory: set QUARTERDECK_LOG_DIR");
    assert!(rig.logging.defaults().iter().all(|sink| sink.enabled == (sink.identifier == CONSOLE)));
}

#[test]
fn a_directory_that_climbs_is_refused() {
    for directory in ["../x", "a/../b", "/var/log/.."] {
        let config = LoggingConfig { log_dir: Some(directory.into()), ..LoggingConfig::default() };
        let out = Console { out: Box::new(Captured::default()), human: false, colour: false };
        let why = started(config, out, BUFFER_BYTES).err().unwrap();
        assert_eq!(why, format!("the log path {directory} must not contain .."));
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let config = LoggingConfig { log_dir: Some(file.clone()), ..LoggingConfig::default() };
    let out = Console { out: Box::new(Captured::default()), human: false, colour: false };
    let why = started(config, out, BUFFER_BYTES).err().unwrap();
    assert!(why.starts_with("cannot open the log file ") && why.contains(file.to_str().unwrap()), "{why}");
}

#[test]
fn every_line_lands_in_the_files_of_its_subject_and_level() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::in_directory(directory.path());
    let loggers = BTreeMap::from([("quarterdeck".to_owned(), LogLevel::Debug)]);
    rig.apply_all(rig.sinks("{}", "[]"), loggers, LogLevel::Info).unwrap();
    rig.log(|| {
        info!("api.request.started");
        info!("auth.success");
        info!("settings.value.set");
        info!("persistence.migrated");
        info!("backup.created");
        info!("budget.spent");
        debug!("engine.step");
        error!("api.request.error");
    });
    let console = rig.lines();
    assert_eq!(console.len(), 7, "the console takes INFO");
    for (name, expected) in [
        ("audit.log", vec!["auth.success"]),
        ("errors.log", vec!["api.request.error"]),
        ("agent_activity.log", vec!["engine.step"]),
        ("cost_usage.log", vec!["budget.spent"]),
        ("access.log", vec!["api.request.started", "api.request.error"]),
        ("persistence.log", vec!["persistence.migrated"]),
        ("configuration.log", vec!["settings.value.set"]),
        ("backup.log", vec!["backup.created"]),
    ] {
        assert_eq!(events(&read(directory.path(), name)), expected, "{name}");
    }
    assert_eq!(read(directory.path(), "quarterdeck.log"), console);
    assert_eq!(read(directory.path(), "debug.log").len(), 8);
}

const SMALL: &str = r#"{"quarterdeck.log": {"rotation": {"max_bytes": 1024, "backup_count": 3}}}"#;

#[test]
fn a_full_file_is_rotated_and_only_the_wanted_number_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::in_directory(directory.path());
    rig.apply(SMALL, "[]").unwrap();
    for n in 0..100 {
        rig.log(|| info!(n, "a.b.c"));
        if n % 7 == 0 {
            assert!(rig.logging.flush());
        }
    }
    assert!(rig.logging.flush());
    assert!(!directory.path().join("quarterdeck.log.4").exists());
    let mut kept = Vec::new();
    for name in ["quarterdeck.log.3", "quarterdeck.log.2", "quarterdeck.log.1", "quarterdeck.log"] {
        assert!(fs::metadata(directory.path().join(name)).unwrap().len() <= 1024, "{name}");
        kept.extend(read(directory.path(), name).iter().map(|line| line["n"].as_u64().unwrap()));
    }
    let newest: Vec<u64> = (100 - kept.len() as u64..100).collect();
    assert_eq!(kept, newest, "the newest lines, each once, in order");
    assert!(kept.len() > 20);
}

#[test]
fn a_line_longer_than_a_file_gets_one_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::in_directory(directory.path());
    rig.apply(SMALL, "[]").unwrap();
    rig.log(|| {
        info!("first");
        info!(long = "x".repeat(3000), "second");
        info!("third");
    });
    assert!(rig.logging.flush());
    let all = ["quarterdeck.log.2", "quarterdeck.log.1", "quarterdeck.log"];
    let found: Vec<_> = all.iter().map(|name| read(directory.path(), name)).collect();
    assert_eq!(
        found.iter().map(|lines| events(lines)).collect::<Vec<_>>(),
        [["first"], ["second"], ["third"]]
    );
}

#[test]
fn with_nothing_to_keep_the_file_is_emptied() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::in_directory(directory.path());
    rig.apply(r#"{"quarterdeck.log": {"rotation": {"max_bytes": 1024, "backup_count": 0}}}"#, "[]").unwrap();
    for n in 0..50 {
        rig.log(|| info!(n, "a.b.c"));
    }
    assert!(rig.logging.flush());
    assert!(!directory.path().join("quarterdeck.log.1").exists());
    assert_eq!(read(directory.path(), "quarterdeck.log").last().unwrap()["n"], 49);
}

#[test]
fn rotated_files_are_compressed_when_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::in_directory(directory.path());
    let compressed = r#"{"quarterdeck.log": {"rotation": {"max_bytes": 1024, "compress_rotated": true}}}"#;
    rig.apply(compressed, "[]").unwrap();
    for n in 0..30 {
        rig.log(|| info!(n, "a.b.c"));
        assert!(rig.logging.flush());
    }
    // The old sink is closed by the swap, and with it the last compression is over.
    rig.apply(r#"{"quarterdeck.log": {"enabled": false}}"#, "[]").unwrap();
    let mut all = Vec::new();
    for number in (1..=5).rev() {
        let Ok(packed) = fs::File::open(directory.path().join(format!("quarterdeck.log.{number}.gz"))) else {
            continue;
        };
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        all.extend(parse(&text));
        assert!(!directory.path().join(format!("quarterdeck.log.{number}")).exists());
    }
    assert!(!all.is_empty());
    all.extend(read(directory.path(), "quarterdeck.log"));
    let numbers: Vec<_> = all.iter().map(|line| line["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..30).collect::<Vec<_>>());
}

#[test]
fn a_file_moved_by_another_program_is_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::in_directory(directory.path());
    rig.apply(r#"{"quarterdeck.log": {"rotation": {"strategy": "external", "max_bytes": 1024}}}"#, "[]")
        .unwrap();
    let path = directory.path().join("quarterdeck.log");
    rig.log(|| info!("before"));
    assert!(rig.logging.flush());
    fs::rename(&path, directory.path().join("moved.log")).unwrap();
    rig.log(|| info!("after"));
    assert!(rig.logging.flush());
    assert_eq!(events(&read(directory.path(), "moved.log")), ["before"]);
    assert_eq!(events(&read(directory.path(), "quarterdeck.log")), ["after"]);
    rig.log(|| info!(long = "x".repeat(2000), "long"));
    assert!(rig.logging.flush());
    assert!(!directory.path().join("quarterdeck.log.1").exists(), "rotation is the other program's");
}

#[test]
fn a_full_disk_costs_lines_of_that_file_and_is_told_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", directory.path().join("access.log")).unwrap();
    let rig = Rig::in_directory(directory.path());
    rig.log(|| info!("api.request.started"));
    assert!(rig.logging.flush());
    rig.log(|| info!("api.request.completed"));
    let lines = rig.lines();
    assert!(rig.logging.dropped() >= 2, "{}", rig.logging.dropped());
    let told = lines.iter().find(|line| line["event"] == "observability.sink.failed").unwrap();
    assert_eq!(told["sink"], "access.log");
    assert!(told["reason"].as_str().unwrap().contains("No space left"), "{told}");
    let count = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!((count("api.request.started"), count("api.request.completed")), (1, 1));
    assert_eq!(count("observability.sink.failed"), 1, "told once, not with every line");
}

#[test]
fn swapping_sinks_under_load_loses_no_line() {
    const LINES: usize = 5000;
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::in_directory(directory.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loggers: Vec<_> = (0..3)
            .map(|thread| {
                let rig = &rig;
                scope.spawn(move || {
                    rig.log(|| {
                        for n in 0..LINES {
                            info!(thread, n, "api.request.started");
                        }
                    });
                })
            })
            .collect();
        scope.spawn(|| {
            let variants = [
                r#"{"access.log": {"rotation": {"strategy": "external"}}, "console": {"json_format": true}}"#,
                r#"{"debug.log": {"enabled": false}, "access.log": {"rotation": {"max_bytes": 1073741824}}}"#,
                "{}",
            ];
            let mut next = variants.iter().cycle();
            while !done.load(Ordering::Relaxed) {
                rig.apply(next.next().unwrap(), "[]").unwrap();
            }
        });
        for logger in loggers {
            logger.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let lines = rig.lines();
    assert_eq!(rig.logging.dropped(), 0);
    for lines in [lines, read(directory.path(), "access.log")] {
        for thread in 0..3 {
            let numbers = lines.iter().filter(|line| line["thread"] == thread);
            assert!(numbers.map(|line| line["n"].as_u64().unwrap()).eq(0..LINES as u64));
        }
    }
}

#[test]
fn a_set_that_cannot_be_opened_leaves_the_old_one_running() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("taken.log")).unwrap();
    let rig = Rig::in_directory(directory.path());
    let before = rig.apply(
        r#"{"access.log": {"enabled": false}}"#,
        r#"[{"sink_type": "file", "file_path": "taken.log"}]"#,
    );
    assert!(before.unwrap_err().contains("taken.log"));
    rig.log(|| info!("api.request.started"));
    assert_eq!(rig.lines().len(), 1);
    assert_eq!(read(directory.path(), "access.log").len(), 1);
    let mut sinks = rig.sinks("{}", "[]");
    sinks.retain(|sink| sink.identifier != CONSOLE);
    let why = rig.apply_all(sinks, BTreeMap::new(), LogLevel::Info).unwrap_err();
    assert_eq!(why, "the console sink cannot be disabled");
}

#[test]
fn secrets_are_redacted_in_every_file() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::in_directory(directory.path());
    rig.apply(r#"{"access.log": {"json_format": false}}"#, "[]").unwrap();
    let nested = serde_json::json!({"auth": {"api_key": "hunter2"}});
    rig.log(|| error!(%nested, again = ?nested, password = "hunter2", "api.request.error"));
    assert!(rig.logging.flush());
    let mut seen = 0;
    for entry in fs::read_dir(directory.path()).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        seen += usize::from(text.contains("REDACTED"));
    }
    assert_eq!(seen, 4, "main, errors, debug and access");
    assert!(
        fs::read_to_string(directory.path().join("access.log"))
            .unwrap()
            .contains(" ERROR    api.request.error ")
    );
}

#[test]
fn log_files_are_not_for_everyone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let _rig = Rig::in_directory(directory.path());
    let mode = fs::metadata(directory.path().join("audit.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0);
}

//! The SQLite file: one server at a time, visitors noticed, and nothing acknowledged is lost.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use quarterdeck_store::{Database, Signal, Store, latest_version};
use quarterdeck_testkit::TestDb;

use crate::{Heard, eventually, has, put};

fn path_of(db: &TestDb) -> PathBuf {
    let Database::Sqlite { path, .. } = &db.database else { panic!("a file") };
    path.clone()
}

#[tokio::test]
async fn a_second_server_is_refused_with_a_sentence_until_the_first_is_gone() {
    let db = TestDb::sqlite();
    let first = db.open().await;
    let refusal = Store::open(db.database.clone()).await.expect_err("the file is taken");
    let sentence = refusal.cause().expect("a sentence");
    assert!(sentence.starts_with("another quarterdeck server is using "), "{sentence}");
    assert!(sentence.contains("--data-dir"), "it says what to do: {sentence}");
    put(&first, "x").await.expect("the first one goes on");
    first.close().await;
    db.open().await;
}

#[tokio::test]
async fn a_change_by_another_process_empties_the_caches() {
    let db = TestDb::sqlite();
    let store = db.open().await;
    let heard = Heard::by(&store);
    put(&store, "own").await.unwrap();
    db.execute("INSERT INTO settings VALUES ('test', 'foreign', 'x', 0)").await;
    eventually(async || heard.holds(&Signal::Everything)).await;
    assert!(has(&store, "foreign").await);
    heard.forget();
    let visitor = Store::attach(db.database.clone()).await.unwrap();
    put(&visitor, "visited").await.unwrap();
    eventually(async || heard.holds(&Signal::Everything)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_another_process_is_noticed_under_any_load() {
    let db = TestDb::sqlite();
    let store = db.open().await;
    let heard = Heard::by(&store);
    // More callers than one commit takes: the queue is never empty.
    let load: Vec<_> = (0..400)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { while store.write(|_| Box::pin(async { Ok(()) })).await.is_ok() {} })
        })
        .collect();
    db.execute("INSERT INTO settings VALUES ('test', 'foreign', 'x', 0)").await;
    eventually(async || heard.holds(&Signal::Everything)).await;
    load.iter().for_each(|task| task.abort());
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let db = TestDb::sqlite();
    let store = db.open().await;
    put(&store, "x").await.unwrap();
    for ending in ["", "-wal", "-shm"] {
        let path = format!("{}{ending}", path_of(&db).display());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_with_a_sentence() {
    let db = TestDb::sqlite();
    std::fs::write(path_of(&db), "a letter, not a database, and long enough to be sure of that".repeat(9))
        .unwrap();
    let refusal = Store::open(db.database.clone()).await.expect_err("it is refused");
    assert!(refusal.cause().is_some_and(|c| c.contains("check that it is an SQLite file")), "{refusal}");
}

const VICTIM: &str = "QUARTERDECK_TEST_VICTIM";

/// Not a test: the process that is killed. Writes without end and says what was acknowledged.
#[tokio::test]
#[ignore = "started by the tests below"]
async fn victim() {
    let Ok(path) = std::env::var(VICTIM) else { return };
    let say = |line: &str| {
        let mut out = std::io::stdout();
        let _ = writeln!(out, "\n{line}").and_then(|()| out.flush());
    };
    say("open");
    let store = Store::open(Database::Sqlite { path: path.into(), journal_size_limit: 1 << 20 }).await;
    let store = store.expect("the store opens");
    for round in 0.. {
        let keys: Vec<_> = (0..8).map(|i| format!("{round}-{i}")).collect();
        let done = futures_util::future::join_all(keys.iter().map(|key| put(&store, key))).await;
        assert!(done.iter().all(Result::is_ok));
        keys.iter().for_each(|key| say(&format!("stored {key}")));
    }
}

struct Victim {
    process: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Victim {
    fn start(db: &TestDb) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "files::victim", "--ignored", "--nocapture"])
            .env(VICTIM, path_of(db))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    fn line_with(&mut self, prefix: &str) -> String {
        let mut lines = self.lines.by_ref().map(|line| line.unwrap());
        lines.find_map(|line| line.strip_prefix(prefix).map(str::to_owned)).expect("it says so")
    }

    /// `kill -9`; what it had said until then.
    fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.lines.map_while(Result::ok).collect()
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let db = TestDb::sqlite();
    for _ in 0..3 {
        let mut victim = Victim::start(&db);
        let mut stored: Vec<_> = (0..100).map(|_| victim.line_with("stored ")).collect();
        let rest = victim.kill();
        stored.extend(rest.iter().filter_map(|line| line.strip_prefix("stored ").map(str::to_owned)));
        let store = db.open().await;
        for key in stored {
            assert!(has(&store, &key).await, "{key} was acknowledged");
        }
        store.close().await;
    }
}

#[tokio::test]
async fn a_crash_while_the_schema_is_made_leaves_all_or_nothing_of_it() {
    for microseconds in (0..24).map(|i| i * 700) {
        let db = TestDb::sqlite();
        let mut victim = Victim::start(&db);
        victim.line_with("open");
        let moment = std::time::Instant::now();
        while moment.elapsed() < std::time::Duration::from_micros(microseconds) {
            std::hint::spin_loop();
        }
        victim.kill();
        let visitor = Store::attach(db.database.clone()).await.unwrap();
        let applied = visitor.applied_migrations().await.unwrap().len() as i64;
        visitor.close().await;
        assert!(applied == 0 || applied == latest_version(), "{applied} after {microseconds} µs");
        let made = db.try_execute("SELECT * FROM users, settings").await.is_ok();
        assert_eq!(made, applied > 0, "after {microseconds} µs");
        let any = db.try_execute("SELECT * FROM users").await.is_ok();
        assert_eq!(any, made, "after {microseconds} µs");
        db.open().await;
    }
}

//! A private Redis for one test.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A server on a socket of its own. Ends with the value.
pub(crate) struct Redis {
    folder: TempDir,
    child: Child,
}

impl Redis {
    /// Starts the program named by `QUARTERDECK_TEST_REDIS`, or `redis-server`. When it is not
    /// installed, says so and answers `None`; a program that was named has to be there.
    #[allow(clippy::print_stderr, reason = "a skipped test should not look like one that ran")]
    pub(crate) fn start() -> Option<Self> {
        let named = std::env::var_os("QUARTERDECK_TEST_REDIS");
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(named.clone().unwrap_or_else(|| "redis-server".into()))
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(folder.path().join("redis.sock"))
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) if named.is_none() => {
                eprintln!("Skipped: redis-server does not start ({error}).");
                return None;
            }
            Err(error) => panic!("the program named in QUARTERDECK_TEST_REDIS does not start: {error}"),
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listens =
            lines.any(|line| line.is_ok_and(|line| line.to_lowercase().contains("ready to accept")));
        let redis = Self { folder, child };
        assert!(listens, "redis-server ended");
        std::thread::spawn(move || lines.for_each(drop));
        Some(redis)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.folder.path().join("redis.sock").display())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

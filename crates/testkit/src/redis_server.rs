//! A private Redis for one test.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use secrecy::SecretString;
use tempfile::TempDir;

/// A server on a socket of its own, without anything on disk. Ends with the value.
pub struct RedisServer {
    folder: TempDir,
    child: Child,
}

impl RedisServer {
    /// Starts the program named by `QUARTERDECK_TEST_REDIS`, or `redis-server`. When it is not
    /// installed, says so and answers `None`; a program that was named has to be there.
    #[allow(clippy::print_stderr, reason = "a skipped test should not look like one that ran")]
    pub fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        match launch(&folder) {
            Ok(child) => Some(Self { folder, child }),
            Err(error) if std::env::var_os("QUARTERDECK_TEST_REDIS").is_none() => {
                eprintln!(
                    "Skipped on Redis: redis-server does not start ({error}). Install it, or name it in QUARTERDECK_TEST_REDIS."
                );
                None
            }
            Err(error) => panic!("the program named in QUARTERDECK_TEST_REDIS does not start: {error}"),
        }
    }

    /// What [`Limiter::redis`](quarterdeck_limits::Limiter::redis) takes.
    pub fn url(&self) -> SecretString {
        format!("redis+unix://{}", socket(&self.folder).display()).into()
    }

    /// As the kernel does when memory runs out.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// A new server in the same place, which knows nothing.
    pub fn restart(&mut self) {
        self.child = launch(&self.folder).expect("it starts again");
    }

    /// Lets the server hang, or go on.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("a program named kill").success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("redis.sock")
}

/// Starts the server and waits for it to say that it listens.
fn launch(folder: &TempDir) -> std::io::Result<Child> {
    let program = std::env::var_os("QUARTERDECK_TEST_REDIS").unwrap_or_else(|| "redis-server".into());
    let mut child = Command::new(program)
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
        .arg(socket(folder))
        .arg("--dir")
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let listens = lines.any(|line| line.is_ok_and(|line| line.to_lowercase().contains("ready to accept")));
    if !listens {
        let _ = child.kill();
        return Err(std::io::Error::other(format!("it ended: {}", child.wait()?)));
    }
    std::thread::spawn(move || lines.for_each(drop));
    Ok(child)
}

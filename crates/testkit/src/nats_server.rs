//! A private NATS server with JetStream for one test.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A server on a free port of the loopback address, with messages up to 8 MiB. Ends with the value.
pub struct NatsServer {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl NatsServer {
    /// Starts the program named by `QUARTERDECK_TEST_NATS`, or `nats-server`. When it is not installed, says
    /// so and answers `None`; a program that was named has to be there.
    #[allow(clippy::print_stderr, reason = "a skipped test should not look like one that ran")]
    pub fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        match launch(&folder, None) {
            Ok((child, port)) => Some(Self { folder, port, child }),
            Err(error) if std::env::var_os("QUARTERDECK_TEST_NATS").is_none() => {
                eprintln!(
                    "Skipped on NATS: nats-server does not start ({error}). Install it, or name it in QUARTERDECK_TEST_NATS."
                );
                None
            }
            Err(error) => panic!("the program named in QUARTERDECK_TEST_NATS does not start: {error}"),
        }
    }

    /// Address of the server; without credentials, since it wants none.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// As the kernel does when memory runs out.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// The server again after [`kill`](Self::kill), at the same address and with what it had stored.
    pub fn restart(&mut self) {
        (self.child, self.port) = launch(&self.folder, Some(self.port)).expect("it starts again");
    }

    /// Lets the server hang, or go on.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("a program named kill").success());
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the server and waits for it to say where it listens, then that it is ready.
fn launch(folder: &TempDir, port: Option<u16>) -> std::io::Result<(Child, u16)> {
    let program = std::env::var_os("QUARTERDECK_TEST_NATS").unwrap_or_else(|| "nats-server".into());
    let (config, store) = (folder.path().join("nats.conf"), folder.path().join("store"));
    let port = port.map_or(-1, i32::from);
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\nmax_payload: 8MB\njetstream {{ store_dir: \"{}\" }}\n",
        store.display()
    );
    std::fs::write(&config, text)?;
    let mut child = Command::new(program)
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let port = lines.find_map(|line| {
        let (_, address) = line.split_once("Listening for client connections on ")?;
        address.rsplit_once(':')?.1.trim().parse().ok()
    });
    let ready = lines.any(|line| line.contains("Server is ready"));
    if let (Some(port), true) = (port, ready) {
        std::thread::spawn(move || lines.for_each(drop));
        return Ok((child, port));
    }
    let _ = child.kill();
    Err(std::io::Error::other(format!("it ended: {}", child.wait()?)))
}

//! The bare axum handler: what a request costs when nothing is done for it.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

use crate::Failure;

/// Serves one fixed JSON body, read from standard input, and prints where.
#[allow(clippy::print_stdout, reason = "the parent reads the address")]
pub(crate) async fn serve() -> Result<(), Failure> {
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body)?;
    let body: &'static [u8] = body.leak();
    let app = Router::new()
        .route("/api/v1/auth/me", get(move || async move { ([(CONTENT_TYPE, "application/json")], body) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/api/v1/auth/me", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// A process that serves the bare handler; ends with this value.
pub(crate) struct Bare {
    pub(crate) url: String,
    process: Child,
}

impl Bare {
    pub(crate) fn start(body: &str) -> Result<Self, Failure> {
        use std::io::{BufRead, BufReader, Write};
        let mut process = Command::new("taskset")
            .args(["-c", "0"])
            .arg(std::env::current_exe()?)
            .arg("bare")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        process.stdin.take().ok_or("no pipe")?.write_all(body.as_bytes())?;
        let mut url = String::new();
        BufReader::new(process.stdout.take().ok_or("no pipe")?).read_line(&mut url)?;
        Ok(Self { url: url.trim().to_owned(), process })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

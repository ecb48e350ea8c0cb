//! Quarterdeck as the contestants know it: the whole router on real sockets and a fresh SQLite file, and
//! two endpoints no real server has. Nothing is logged.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use quarterdeck_domain::clock::SystemClock;
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::role::Guard;
use quarterdeck_http::Caller;
use quarterdeck_http::app::App;
use quarterdeck_http::edge::{Data, Result, wrap};
use quarterdeck_http::endpoint::{Endpoint, post};
use quarterdeck_http::extract::Query;
use quarterdeck_http::server::{ServerOptions, serve as serve_sockets};
use quarterdeck_http::v1;
use quarterdeck_testkit::{Options, TestDb, TestServer};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use crate::Failure;

/// Serves until told to end, and prints where.
#[allow(clippy::print_stdout, reason = "the parent reads the address")]
pub(crate) async fn serve() -> Result<(), Failure> {
    let mut end = signal(SignalKind::terminate())?;
    let db = TestDb::sqlite();
    let mut options = Options::default();
    // All subscribers are one user.
    options.sockets.max_per_user = 0;
    let app = TestServer::wire(db.open().await, SystemClock::shared(), options).await;
    app.auth.set_max_pending_tickets(usize::MAX);
    let mut endpoints = v1::endpoints();
    endpoints.extend(test_endpoints());
    let service = wrap(app.router_of(endpoints), Arc::clone(&app.edge));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let stopping = CancellationToken::new();
    let served =
        tokio::spawn(serve_sockets(vec![listener], service, ServerOptions::default(), stopping.clone()));
    tokio::select! {
        _ = end.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    stopping.cancel();
    app.sockets.stop().await;
    served.await?;
    Ok(())
}

fn test_endpoints() -> [Endpoint; 2] {
    [
        post("/bench/publish", "bench.publish", Guard::Public)
            .doc("Tell everybody", "The body is the text of an event on the channel `system`.")
            .gives_nothing()
            .to(publish),
        post("/bench/tickets", "bench.tickets", Guard::Read)
            .doc("Make many tickets", "")
            .query::<Wanted>()
            .gives_list::<String>()
            .to(tickets),
    ]
}

/// How many tickets.
#[derive(Deserialize, IntoParams)]
struct Wanted {
    /// One for each connection.
    count: u16,
}

async fn publish(State(app): State<App>, body: String) -> Result<impl IntoResponse> {
    let event = Event::new(EventType::SystemStartup, app.clock.now(), json!({"message": body}))?;
    app.bus.publish(event).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn tickets(
    State(app): State<App>,
    Caller(caller): Caller,
    Query(wanted): Query<Wanted>,
) -> Result<impl IntoResponse> {
    let mut tickets = Vec::new();
    for _ in 0..wanted.count {
        tickets.push(app.auth.issue_ticket(&caller).await?.ticket);
    }
    Ok(Data(tickets))
}

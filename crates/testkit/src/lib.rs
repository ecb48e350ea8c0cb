//! Test servers and callers: a test reads like the sentence it proves.
//!
//! [`TestDb`] is a fresh database, [`TestServer`] the whole router on it with a clock that stands still,
//! [`Caller`] somebody who talks to it. [`on_both_databases`] makes one test out of a body for SQLite and
//! one for PostgreSQL.

mod caller;
mod db;
mod nats_server;
mod receiver;
mod redis_server;
mod server;
mod socket;

pub use caller::{Answer, Caller};
pub use db::TestDb;
pub use nats_server::NatsServer;
pub use receiver::{Received, Receiver};
pub use redis_server::RedisServer;
pub use server::{Options, PASSWORD, SECRET, TestServer};
pub use socket::{Closed, Listening, Socket, ticket};

/// Declares tests that run on SQLite and on PostgreSQL. The PostgreSQL half needs
/// `QUARTERDECK_TEST_POSTGRES_URL`, which `make test` sets, and says so when it is missing.
///
/// ```
/// quarterdeck_testkit::on_both_databases! {
///     async fn a_new_server_needs_an_admin(db: TestDb) {
///         let server = quarterdeck_testkit::TestServer::on(db).await;
///         let status = server.anonymous().get("/api/v1/setup/status").await;
///         assert_eq!(status.data()["needs_admin"], true);
///     }
/// }
/// ```
#[macro_export]
macro_rules! on_both_databases {
    ($($(#[$meta:meta])* async fn $name:ident($db:ident: TestDb) $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn proof($db: $crate::TestDb) $body

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                proof($crate::TestDb::sqlite()).await;
            }

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                if let Some(db) = $crate::TestDb::postgres().await {
                    proof(db).await;
                }
            }
        }
    )+};
}

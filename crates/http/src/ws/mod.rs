//! `GET /ws`: events in real time over a WebSocket.
//!
//! [`handshake`] lets a client in, [`connection`] moves bytes, [`dialogue`] answers commands, [`peer`] is
//! what the rest of the program sees of a client, [`sockets`] is all of them.

mod codec;
mod command;
mod connection;
mod dialogue;
mod handshake;
mod line;
mod metrics;
mod peer;
mod sockets;

pub(crate) use handshake::connect;
pub use sockets::{Present, SocketOptions, Sockets};

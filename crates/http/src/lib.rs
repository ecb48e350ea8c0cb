//! The front door: edge, endpoints of `/api/v1`, API reference and pages.
//!
//! Nothing but this crate knows HTTP. Endpoints are declared in [`endpoint`]; [`app`] makes the router
//! of them; [`edge`] wraps it.

pub mod app;
pub mod config;
mod cookies;
mod docs;
pub mod edge;
pub mod endpoint;
pub mod extract;
mod gate;
pub mod limits;
mod openapi;
pub mod pages;
pub mod rights;
pub mod server;
pub mod v1;
pub mod ws;

pub use gate::Caller;

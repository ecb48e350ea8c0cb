//! The front door: edge, endpoints of /api/v1, API reference.

pub mod config;
pub mod pages;
pub mod edge;
pub mod extract;

//! News: what has happened, told to everyone who may know.

pub mod message;

//! Test callers and servers for the other crates.

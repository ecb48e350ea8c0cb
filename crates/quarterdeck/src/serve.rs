//! The life of the server: what is started in which order, and stopped in the reverse one.

use crate::config::Loaded;
use crate::{Failure, Output};

/// Runs the server until it is told to stop.
pub(crate) async fn run(loaded: Loaded, output: &Output) -> Result<(), Failure> {
    let _ = (loaded, output);
    Err(Failure::runtime("this build has no server"))
}

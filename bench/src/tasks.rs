//! What tasks cost: creating them, next to the database alone, and listing them as they grow in number.
//!
//! A server has one core, the load generator the other. Contestants take turns, several rounds each, and
//! medians are compared.

mod create;
mod list;
pub(crate) mod raw;
mod seed;

use clap::{Parser, value_parser};
use serde_json::{Value, json};

use crate::Failure;
use crate::program::{Program, Variables};

/// Measures creating and listing tasks.
#[derive(Parser)]
#[command(no_binary_name = true, bin_name = "quarterdeck-bench tasks")]
pub(crate) struct Options {
    /// Times each contestant is measured.
    #[arg(long, default_value = "5", value_parser = value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Seconds of load in a round.
    #[arg(long, default_value = "3", value_parser = value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// How many tasks there are when they are listed; several with commas, the fewest first.
    #[arg(long, default_value = "1000,100000,1000000", value_delimiter = ',')]
    sizes: Vec<u32>,
}

/// A person may create 50 tasks a minute; a load run creates more.
const VARIABLES: Variables = &[("QUARTERDECK_API_PER_OP_RATE_LIMIT_ENABLED", "false")];

pub(crate) async fn run(options: &Options) -> Result<(), Failure> {
    create::run(options).await?;
    list::run(options).await
}

/// What a client sends to create a task.
fn new_task() -> Value {
    json!({
        "title": "Check the bilge pumps before the storm",
        "description": "Run each pump for five minutes, note its pressure, and replace what leaks.",
        "type": "development",
        "priority": "high",
        "project": "project-1",
        "created_by": "bench",
    })
}

/// A server with somebody signed in: the header that says who.
async fn start() -> Result<(Program, String), Failure> {
    let program = Program::start_with(VARIABLES)?;
    let account = program.first_account().await?;
    Ok((program, format!("Authorization: Bearer {}", account.api_key)))
}

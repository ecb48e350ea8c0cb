//! `POST /tasks`, each flushed to the disk before it is answered, next to SQLite alone.

use std::io::Write;

use tempfile::NamedTempFile;

use super::{Options, new_task, raw, start};
use crate::Failure;
use crate::wrk::{Load, Sample};

/// Clients that create at the same time; also how many rows the database alone writes in one commit.
const CONNECTIONS: [u32; 3] = [1, 16, 64];

/// What both sides took with so many clients.
struct Entry {
    connections: u32,
    program: Vec<Sample>,
    raw: Vec<Sample>,
}

pub(super) async fn run(options: &Options) -> Result<(), Failure> {
    let (program, header) = start().await?;
    let url = format!("{}/api/v1/tasks", program.url);
    let script = script()?;
    let mut field =
        CONNECTIONS.map(|connections| Entry { connections, program: Vec::new(), raw: Vec::new() });
    for round in 0..=options.rounds {
        for entry in &mut field {
            let get = Load::get(&url, Some(&header), options.seconds);
            let load = Load { connections: entry.connections, script: Some(script.path()), ..get };
            let program_took = load.run()?;
            let raw_took = raw::run(&program.database(), entry.connections, options.seconds)?;
            // The first round warms up, and makes the rows the database alone repeats.
            if round > 0 {
                entry.program.push(program_took);
                entry.raw.push(raw_took);
            }
        }
    }
    report(&field, options);
    Ok(())
}

/// What `wrk` sends.
fn script() -> Result<NamedTempFile, Failure> {
    let mut file = NamedTempFile::new()?;
    write!(
        file,
        "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = [[{}]]\n",
        new_task()
    )?;
    Ok(file)
}

#[allow(clippy::print_stdout, reason = "figures are what this program is for")]
fn report(field: &[Entry], options: &Options) {
    println!(
        "\nPOST /api/v1/tasks, durable, one core, median of {} rounds, next to SQLite writing the same rows\n\
         of task and audit entry with as many of them in a commit",
        options.rounds
    );
    println!(
        "{:<12} {:>9} {:>9} {:>9} {:>13} {:>9} {:>9} {:>7}",
        "connections", "req/s", "p50 us", "p99 us", "SQLite row/s", "p50 us", "p99 us", "ratio"
    );
    for entry in field {
        let (program, raw) = (Sample::median(&entry.program), Sample::median(&entry.raw));
        println!(
            "{:<12} {:>9.0} {:>9.0} {:>9.0} {:>13.0} {:>9.0} {:>9.0} {:>7.2}",
            entry.connections,
            program.rate,
            program.p50,
            program.p99,
            raw.rate,
            raw.p50,
            raw.p99,
            program.rate / raw.rate
        );
    }
}

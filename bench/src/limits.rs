//! What the limits cost: `GET /auth/me` with its path counted by the tiers and not, and single decisions.

use std::process::Command;

use crate::program::{Program, Variables};
use crate::wrk::{self, Load, Sample};
use crate::{Failure, ROUNDS, SECONDS};

const EXCLUDED: (&str, &str) =
    ("QUARTERDECK_API__RATE_LIMIT__EXCLUDE_PATHS", r#"["/api/v1/health", "/api/v1/auth/me"]"#);

/// Somebody signed in at one server, and what asking there cost.
struct Side {
    program: Program,
    header: String,
    samples: Vec<Sample>,
}

impl Side {
    async fn start(variables: Variables) -> Result<Self, Failure> {
        let program = Program::start_with(variables)?;
        let session = program.first_account().await?.session;
        Ok(Self { program, header: format!("Cookie: session={session}"), samples: Vec::new() })
    }
}

/// Counted and excluded take turns; then the micro figures of the limits themselves.
#[allow(clippy::print_stdout, reason = "figures are what this program is for")]
pub(crate) async fn run() -> Result<(), Failure> {
    let mut sides = [Side::start(&[]).await?, Side::start(&[EXCLUDED]).await?];
    for (side, counted) in sides.iter().zip([true, false]) {
        expect(side, counted).await?;
    }
    for round in 0..=ROUNDS {
        for side in &mut sides {
            let url = format!("{}/api/v1/auth/me", side.program.url);
            let sample = Load::get(&url, Some(&side.header), SECONDS).run()?;
            // The first round warms up.
            if round > 0 {
                side.samples.push(sample);
            }
        }
    }
    println!("GET /api/v1/auth/me, {} connections, one core, median of {ROUNDS} rounds", wrk::CONNECTIONS);
    let medians = sides.each_ref().map(|side| Sample::median(&side.samples));
    for (name, Sample { rate, p50, p99 }) in ["counted", "excluded"].into_iter().zip(medians) {
        println!("{name:<10} {rate:>10.0} req/s  p50 {p50:>6.0} us  p99 {p99:>6.0} us");
    }
    let [counted, excluded] = medians.map(|sample| 1.0 / sample.rate);
    println!("limits: {:.1} % of the time of a request\n", (1.0 - excluded / counted) * 100.0);
    drop(sides);
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let ran = Command::new(cargo)
        .args(["run", "--profile", "dist", "--quiet", "-p", "quarterdeck-limits", "--example", "limits_cost"])
        .status()?;
    if ran.success() { Ok(()) } else { Err("the figures of single decisions did not come".into()) }
}

/// Makes sure that a side counts, or does not.
async fn expect(side: &Side, counted: bool) -> Result<(), Failure> {
    let request = reqwest::Client::new().get(format!("{}/api/v1/auth/me", side.program.url));
    let (name, value) = side.header.split_once(": ").ok_or("no header")?;
    let answer = request.header(name, value).send().await?.error_for_status()?;
    if answer.headers().contains_key("ratelimit-limit") == counted {
        Ok(())
    } else {
        Err("the tiers count what they should not, or the other way round".into())
    }
}

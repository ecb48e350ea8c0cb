//! The load generator `wrk`, run as a program.

use std::path::Path;
use std::process::Command;

use crate::Failure;

/// Connections kept open, unless a run says otherwise.
pub(crate) const CONNECTIONS: u32 = 32;

/// One run.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) url: &'a str,
    pub(crate) header: Option<&'a str>,
    pub(crate) seconds: u32,
    pub(crate) connections: u32,
    /// What is sent instead of `GET`, as a script for `wrk`.
    pub(crate) script: Option<&'a Path>,
}

impl<'a> Load<'a> {
    /// `GET`s this as everybody is measured.
    pub(crate) const fn get(url: &'a str, header: Option<&'a str>, seconds: u32) -> Self {
        Self { url, header, seconds, connections: CONNECTIONS, script: None }
    }
}

/// What one run measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Median latency, microseconds.
    pub(crate) p50: f64,
    /// 99th percentile of latency, microseconds.
    pub(crate) p99: f64,
}

impl Sample {
    /// Medians of each figure.
    pub(crate) fn median(samples: &[Self]) -> Self {
        let middle = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<_> = samples.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Self { rate: middle(|s| s.rate), p50: middle(|s| s.p50), p99: middle(|s| s.p99) }
    }
}

impl Load<'_> {
    pub(crate) fn run(&self) -> Result<Sample, Failure> {
        let mut command = Command::new("taskset");
        command.args(["-c", "1", "wrk", "--latency", "-t1"]);
        command.arg(format!("-c{}", self.connections)).arg(format!("-d{}s", self.seconds));
        if let Some(script) = self.script {
            command.arg("-s").arg(script);
        }
        if let Some(header) = self.header {
            command.args(["-H", header]);
        }
        let output = command.arg(self.url).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || text.contains("Non-2xx") || text.contains("Socket errors") {
            return Err(
                format!("wrk met failures:\n{text}{}", String::from_utf8_lossy(&output.stderr)).into()
            );
        }
        let figure = |label: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
            line.map(str::trim).ok_or_else(|| format!("wrk printed no {label}:\n{text}"))
        };
        Ok(Sample {
            rate: figure("Requests/sec:")?.parse()?,
            p50: micros(figure("50%")?)?,
            p99: micros(figure("99%")?)?,
        })
    }
}

/// Reads `12.34ms` and its like.
fn micros(text: &str) -> Result<f64, Failure> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    for (unit, factor) in units {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    Err(format!("wrk printed a time in an unknown unit: {text}").into())
}

//! `GET /tasks` as tasks grow in number, next to a bare handler that returns the same bytes.

use serde_json::Value;

use super::seed::fill;
use super::{Options, new_task, start};
use crate::Failure;
use crate::peer::Bare;
use crate::program::Program;
use crate::wrk::{CONNECTIONS, Load, Sample};

/// What is asked for besides `limit=50`.
const QUESTIONS: [(&str, Question); 5] = [
    ("all", Question::All),
    ("status=", Question::Filter("status=completed")),
    ("project=", Question::Filter("project=project-7")),
    ("assigned_to=", Question::Filter("assigned_to=agent-7")),
    ("last page", Question::Last),
];

#[derive(Clone, Copy)]
enum Question {
    All,
    Filter(&'static str),
    /// By offset, past everything else.
    Last,
}

impl Question {
    fn path(self, size: u32) -> String {
        let list = "/api/v1/tasks?limit=50";
        match self {
            Self::All => list.to_owned(),
            Self::Filter(filter) => format!("{list}&{filter}"),
            Self::Last => format!("{list}&offset={}", size.saturating_sub(50)),
        }
    }
}

/// A server with so many tasks.
struct Deck {
    size: u32,
    program: Program,
    header: String,
}

/// One question at one server.
struct Entry<'a> {
    name: &'static str,
    deck: &'a Deck,
    url: String,
    samples: Vec<Sample>,
}

pub(super) async fn run(options: &Options) -> Result<(), Failure> {
    let mut decks = Vec::new();
    for &size in &options.sizes {
        decks.push(Deck::of(size).await?);
    }
    let first = decks.first().ok_or("there are no sizes")?;
    let bare = Bare::start(&first.ask(Question::All).await?)?;
    let mut bare_samples = Vec::new();
    let mut field = Vec::new();
    for (name, question) in QUESTIONS {
        for deck in &decks {
            deck.ask(question).await?;
            let url = format!("{}{}", deck.program.url, question.path(deck.size));
            field.push(Entry { name, deck, url, samples: Vec::new() });
        }
    }
    for round in 0..=options.rounds {
        let sample = Load::get(&bare.url, None, options.seconds).run()?;
        if round > 0 {
            bare_samples.push(sample);
        }
        for entry in &mut field {
            let sample = Load::get(&entry.url, Some(&entry.deck.header), options.seconds).run()?;
            // The first round warms up.
            if round > 0 {
                entry.samples.push(sample);
            }
        }
    }
    report(&Sample::median(&bare_samples), &field, options);
    Ok(())
}

impl Deck {
    async fn of(size: u32) -> Result<Self, Failure> {
        let (mut program, header) = start().await?;
        let (name, value) = header.split_once(": ").ok_or("no header")?;
        let create = reqwest::Client::new().post(format!("{}/api/v1/tasks", program.url));
        create.header(name, value).json(&new_task()).send().await?.error_for_status()?;
        program.pause(async |database| fill(database, size).await).await?;
        Ok(Self { size, program, header })
    }

    /// The answer, after a look at whether it is a full page of the right list.
    async fn ask(&self, question: Question) -> Result<String, Failure> {
        let (name, value) = self.header.split_once(": ").ok_or("no header")?;
        let url = format!("{}{}", self.program.url, question.path(self.size));
        let answer = reqwest::Client::new().get(url).header(name, value).send().await?;
        let text = answer.error_for_status()?.text().await?;
        let page: Value = serde_json::from_str(&text)?;
        let shown = page["data"].as_array().map_or(0, Vec::len);
        let total = page["pagination"]["total"].as_u64();
        match question {
            Question::All | Question::Last if total != Some(u64::from(self.size)) || shown != 50 => {
                Err(format!("{shown} tasks are shown of {total:?}, not 50 of {}", self.size).into())
            }
            Question::Filter(filter) if shown == 0 => Err(format!("no task matches {filter}").into()),
            _ => Ok(text),
        }
    }
}

#[allow(clippy::print_stdout, reason = "figures are what this program is for")]
fn report(bare: &Sample, field: &[Entry<'_>], options: &Options) {
    println!(
        "\nGET /api/v1/tasks?limit=50, {CONNECTIONS} connections, one core, median of {} rounds",
        options.rounds
    );
    println!(
        "{:<14} {:>9} {:>9} {:>9} {:>9} {:>7} {:>7}",
        "", "tasks", "req/s", "p50 us", "p99 us", "ratio", "growth"
    );
    let Sample { rate, p50, p99 } = bare;
    println!("{:<14} {:>9} {rate:>9.0} {p50:>9.0} {p99:>9.0} {:>7.2}", "bare handler", "", 1.0);
    let mut fewest = f64::NAN;
    for entry in field {
        let Sample { rate, p50, p99 } = Sample::median(&entry.samples);
        if Some(&entry.deck.size) == options.sizes.first() {
            fewest = rate;
        }
        println!(
            "{:<14} {:>9} {rate:>9.0} {p50:>9.0} {p99:>9.0} {:>7.2} {:>7.2}",
            entry.name,
            entry.deck.size,
            rate / bare.rate,
            fewest / rate
        );
    }
}

//! What the documents say is what the program does: tables name what exists, with its defaults, and the
//! tour of the README runs as printed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clap::CommandFactory;
use quarterdeck::cli::Cli;
use quarterdeck::config::Config;
use quarterdeck_domain::setting::Registry;
use quarterdeck_http::v1::endpoints;
use serde_json::Value;

fn read(name: &str) -> String {
    let path = root().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The rows of every table whose first cell is a name in backticks: name to further cells.
fn rows(text: &str) -> BTreeMap<String, Vec<String>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    lines
        .filter_map(|line| {
            let (name, rest) = line.split_once("` | ")?;
            Some((name.to_owned(), rest.split(" | ").map(|cell| cell.trim().to_owned()).collect()))
        })
        .collect()
}

/// Blocks of one language, with the text between the fences.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let open = format!("```{language}\n");
    text.split(open.as_str()).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect()
}

fn leaves(path: &str, value: Value, all: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                leaves(&if path.is_empty() { name } else { format!("{path}.{name}") }, value, all);
            }
        }
        leaf => drop(all.insert(path.to_owned(), leaf)),
    }
}

#[test]
fn the_configuration_page_names_every_value_with_its_default_and_nothing_else() {
    let mut defaults = BTreeMap::new();
    leaves("", serde_json::to_value(Config::default()).unwrap(), &mut defaults);
    let mut rows = rows(&read("docs/configuration.md"));
    rows.retain(|name, _| !name.starts_with("QUARTERDECK_"));
    for (name, default) in defaults {
        let row = rows.remove(&name).unwrap_or_else(|| panic!("docs/configuration.md does not name {name}"));
        let shown = match (name.as_str(), default) {
            ("data_dir", _) => "per platform".to_owned(),
            (_, Value::Null) => "none".to_owned(),
            (_, value) => format!("`{value}`"),
        };
        assert_eq!(row[0], shown, "the default of {name} in docs/configuration.md");
    }
    assert!(rows.is_empty(), "docs/configuration.md names what does not exist: {:?}", rows.keys());
}

#[test]
fn the_settings_page_names_every_setting_with_its_default_and_nothing_else() {
    let registry = Registry::of_this_program().unwrap();
    let mut rows = rows(&read("docs/settings.md"));
    rows.retain(|name, _| !name.contains(' '));
    for definition in registry.definitions() {
        let id = definition.id();
        let row = rows.remove(&id).unwrap_or_else(|| panic!("docs/settings.md does not name {id}"));
        let default = definition.default.map_or_else(|| "none".to_owned(), |text| format!("`{text}`"));
        assert_eq!(row[0], default, "the default of {id} in docs/settings.md");
        let bounds = match (definition.min_value, definition.max_value) {
            (Some(min), Some(max)) => Some(format!("{min}–{max}")),
            _ => None,
        };
        if let Some(bounds) = bounds {
            assert_eq!(row[1], bounds, "the bounds of {id} in docs/settings.md");
        }
        let change = match (definition.read_only_post_init, definition.restart_required) {
            (true, _) => "never",
            (false, true) => "restart",
            (false, false) => "at once",
        };
        assert_eq!(row[2], change, "when a change of {id} counts, in docs/settings.md");
    }
    assert!(rows.is_empty(), "docs/settings.md names what does not exist: {:?}", rows.keys());
}

#[test]
fn the_limits_page_names_every_limit_of_an_operation_and_nothing_else() {
    let page = read("docs/limits.md");
    let table =
        page.split_once("\n## Single operations\n").unwrap().1.split("\n\nAn operation may").next().unwrap();
    let mut rows = rows(table);
    for endpoint in endpoints() {
        let docs = endpoint.docs();
        let Some(rate) = docs.rate else { continue };
        let name = docs.operation;
        let row = rows.remove(name).unwrap_or_else(|| panic!("docs/limits.md does not name {name}"));
        let mut limit = format!("{} in {} s", rate.max, rate.seconds);
        if let Some(cap) = docs.in_flight {
            limit.push_str(&format!(", {cap} at once"));
        }
        assert_eq!(row[0], limit, "{name} in docs/limits.md");
    }
    assert!(rows.is_empty(), "docs/limits.md names what has no limit: {:?}", rows.keys());
}

#[test]
fn the_command_line_page_names_every_command_and_flag() {
    fn walk(path: &str, command: &clap::Command, page: &str) {
        for argument in command.get_arguments() {
            let Some(long) = argument.get_long().filter(|long| !["help", "version"].contains(long)) else {
                continue;
            };
            assert!(page.contains(&format!("`--{long}")), "docs/cli.md does not name --{long} of {path}");
        }
        for below in command.get_subcommands() {
            let path = format!("{path} {}", below.get_name());
            if below.get_subcommands().next().is_none() {
                assert!(page.contains(&format!("`{path}")), "docs/cli.md does not name {path}");
            }
            walk(&path, below, page);
        }
    }
    walk("quarterdeck", &Cli::command(), &read("docs/cli.md"));
}

#[test]
fn every_configuration_file_of_the_documents_is_accepted() {
    let home = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for page in ["README.md", "docs/configuration.md", "docs/meetings.md", "docs/operations.md"] {
        for block in blocks(&read(page), "toml") {
            let file = home.path().join("quarterdeck.toml");
            std::fs::write(&file, block).unwrap();
            let checked = Command::new(env!("CARGO_BIN_EXE_quarterdeck"))
                .args(["config", "check", "--config"])
                .arg(&file)
                .env_clear()
                .env("HOME", home.path())
                .output()
                .unwrap();
            assert!(checked.status.success(), "{page}: {}", String::from_utf8_lossy(&checked.stderr));
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let docs = std::fs::read_dir(root().join("docs")).unwrap();
    let decisions = std::fs::read_dir(root().join("docs/decisions")).unwrap();
    let top = std::fs::read_dir(root()).unwrap();
    let pages = docs.chain(decisions).chain(top).map(|entry| entry.unwrap().path());
    for page in pages.filter(|path| path.extension().is_some_and(|ending| ending == "md")) {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") {
                let target = page.parent().unwrap().join(path);
                assert!(target.exists(), "{} links to {link}", page.display());
            }
        }
    }
}

/// A server of its own, ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Each command block of the tour is run, and what it prints is compared with the block that follows:
/// line by line, where `…` stands for anything.
#[test]
fn the_tour_of_the_readme_works_as_printed() {
    let readme = read("README.md");
    let tour = readme.split_once("## Five minutes\n").unwrap().1.split("\n## ").next().unwrap();
    let commands = blocks(tour, "sh");
    let answers = blocks(tour, "text");
    assert_eq!(commands.len(), answers.len(), "every command block is followed by what it prints");

    let home = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let program = Path::new(env!("CARGO_BIN_EXE_quarterdeck"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let here = |name: &str| {
        let mut command = Command::new(name);
        command
            .current_dir(home.path())
            .env_clear()
            .env("PATH", &path)
            .env("HOME", home.path())
            .env("QUARTERDECK_API__SERVER__PORT", port.to_string())
            .stderr(Stdio::null());
        command
    };
    let mut server = Server(here("quarterdeck").arg("serve").stdout(Stdio::piped()).spawn().unwrap());
    let mut ready = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert!(ready.contains("is ready at"), "{ready}");

    const MARK: &str = "\u{1}";
    let script: String = commands.iter().map(|block| format!("{block}\nprintf '{MARK}'\n")).collect();
    let script = script.replace("127.0.0.1:3001", &format!("127.0.0.1:{port}"));
    let run = here("bash").args(["-euo", "pipefail", "-c", &script]).output().unwrap();
    let output = String::from_utf8(run.stdout).unwrap().replace(&port.to_string(), "3001");
    let printed: Vec<_> = output.split(MARK).collect();
    for ((command, answer), printed) in commands.iter().zip(answers).zip(printed) {
        let lines: Vec<_> = printed.lines().filter(|line| !line.trim().is_empty()).collect();
        let wanted: Vec<_> = answer.lines().collect();
        assert_eq!(lines.len(), wanted.len(), "{command}\nprinted\n{printed}");
        for (line, wanted) in lines.iter().zip(wanted) {
            assert!(matches(wanted, line), "{command}\nprinted\n{line}\nnot\n{wanted}");
        }
    }
    assert!(run.status.success(), "the tour ended with {}", run.status);
}

fn matches(pattern: &str, line: &str) -> bool {
    let parts: Vec<_> = pattern.split('…').collect();
    let [first, .., last] = parts.as_slice() else { return pattern == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for part in &parts[1..parts.len() - 1] {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

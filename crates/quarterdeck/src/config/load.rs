//! Brings the sources together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use toml::{Table, Value};

use super::{Config, Environment, Loaded, SECRETS, Source, data_dir, tree};

/// What the command line decides.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--host`
    pub host: Option<String>,
    /// `--port`
    pub port: Option<u16>,
    /// `--dev`
    pub dev: bool,
}

/// The data folder as it was named, links and all, for a configuration that cannot be loaded: by the flag, else
/// the environment, else the platform's.
pub fn named_data_dir(environment: &Environment, flags: &Flags) -> Option<PathBuf> {
    let named = flags.data_dir.clone().or_else(|| environment.path("QUARTERDECK_DATA_DIR"));
    named.or_else(|| data_dir::platform_default(environment))
}

/// Loads and checks the configuration.
///
/// # Errors
/// A sentence with the dotted name or the variable, the broken rule, and where the value came from;
/// never the value of a secret.
pub fn load(environment: &Environment, flags: &Flags) -> Result<Loaded, String> {
    let defaults = tree::leaves(&Config::default());
    let registry = quarterdeck_domain::setting::Registry::of_this_program()?;
    let settings = registry.definitions();
    let setting_paths: Vec<_> = settings.iter().filter_map(|setting| setting.yaml_path).collect();

    // A setting that nobody can change while the server runs is configuration under another name.
    let fixed = settings.iter().filter(|setting| setting.read_only_post_init);
    let fixed = fixed.filter_map(|setting| Some((setting.env_name(), setting.yaml_path?)));
    let is_setting = |name: &str| settings.iter().any(|setting| setting.env_name() == name);
    let variables = environment.sort(defaults.keys(), fixed, is_setting)?;
    let from_environment = variables.values.iter().map(|(path, (name, text))| {
        let value = tree::typed(defaults.get(path).unwrap_or(&Json::Null), text);
        (path.clone(), (value, Source::Environment(name.clone())))
    });
    let from_environment: BTreeMap<_, _> = from_environment.collect();

    let early_data_dir = match (&flags.data_dir, from_environment.get("data_dir")) {
        (Some(path), _) => Some(path.clone()),
        (None, Some((Value::String(path), _))) => Some(path.into()),
        _ => data_dir::platform_default(environment),
    };
    let file = configuration_file(environment, flags, early_data_dir.as_deref())?;

    let mut values: BTreeMap<String, (Value, Source)> = BTreeMap::new();
    if let Some(path) = &file {
        let names = Names { defaults: &defaults, settings: &setting_paths };
        for (name, value) in names.read(path)? {
            values.insert(name, (value, Source::File));
        }
    }
    values.extend(from_environment);
    let mut flag = |path: &str, value: Option<Value>, name| {
        if let Some(value) = value {
            values.insert(path.to_owned(), (value, Source::Flag(name)));
        }
    };
    flag("api.server.host", flags.host.clone().map(Value::String), "--host");
    flag("api.server.port", flags.port.map(|port| Value::Integer(port.into())), "--port");
    let mut origins: BTreeMap<String, Source> =
        values.iter().map(|(path, (_, source))| (path.clone(), source.clone())).collect();

    let typed = values.iter().filter(|(path, _)| defaults.contains_key(*path));
    let typed = typed.map(|(path, (value, _))| (path.clone(), value.clone())).collect();
    let refuse = |path: &str, text: String| match origins.get(path) {
        Some(Source::File) => match &file {
            Some(file) => format!("{text} (set in {})", file.display()),
            None => text,
        },
        Some(Source::Environment(name)) => format!("{text} (set by {name})"),
        Some(Source::Flag(name)) => format!("{text} (set by {name})"),
        _ => text,
    };
    let mut config = tree::build(&typed).map_err(|(path, text)| refuse(&path, text))?;
    if flags.dev {
        config.api.allow_development();
    }
    let first_word = |text: &str| text.split([' ', '[', ':']).next().unwrap_or_default().to_owned();
    config.validate().map_err(|text| refuse(&first_word(&text), text))?;

    let data_dir = match &flags.data_dir {
        Some(path) => {
            origins.insert("data_dir".to_owned(), Source::Flag("--data-dir"));
            Some(path.clone())
        }
        None if config.data_dir.as_os_str().is_empty() => early_data_dir,
        None => Some(config.data_dir.clone()),
    };
    config.data_dir = data_dir::normalise(&data_dir.ok_or(
        "there is no data folder: the environment names no home; name one with --data-dir or QUARTERDECK_DATA_DIR",
    )?)?;
    if flags.dev {
        for path in ["api.cors.allowed_origins", "api.auth.cookie_secure"] {
            origins.insert(path.to_owned(), Source::Flag("--dev"));
        }
    }

    let chosen = values
        .iter()
        .filter(|(path, _)| !SECRETS.contains(&path.as_str()))
        .map(|(path, (value, _))| (path.clone(), tree::text(value)))
        .collect();
    Ok(Loaded {
        config,
        file,
        setting_environment: variables.settings,
        chosen,
        unknown_variables: variables.unknown,
        origins,
    })
}

/// The file to read: one that was named has to exist, the one in the data folder need not.
fn configuration_file(
    environment: &Environment,
    flags: &Flags,
    data_dir: Option<&Path>,
) -> Result<Option<PathBuf>, String> {
    let named = match &flags.config {
        Some(path) => Some((path.clone(), "--config")),
        None => environment.path("QUARTERDECK_CONFIG_PATH").map(|path| (path, "QUARTERDECK_CONFIG_PATH")),
    };
    match named {
        Some((path, _)) if path.is_file() => Ok(Some(path)),
        Some((path, by)) => Err(format!("{by} names {}, which is not a file", path.display())),
        None => Ok(data_dir.map(|folder| folder.join("quarterdeck.toml")).filter(|path| path.is_file())),
    }
}

/// The names a file may use: those of the configuration and those of run-time settings.
struct Names<'a> {
    defaults: &'a BTreeMap<String, Json>,
    settings: &'a [&'static str],
}

impl Names<'_> {
    fn read(&self, path: &Path) -> Result<BTreeMap<String, Value>, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|e| format!("{shown} cannot be read ({e})"))?;
        let table: Table = toml::from_str(&text).map_err(|e| {
            // The error's own display quotes the line, which may hold a secret.
            let line =
                e.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            format!("{shown}, line {line}: {}", e.message().lines().next().unwrap_or_default())
        })?;
        let mut values = BTreeMap::new();
        self.flatten(table, "", &mut values).map_err(|text| format!("{shown}: {text}"))?;
        if let Some(secret) = SECRETS.iter().find(|secret| values.contains_key(**secret)) {
            refuse_shared(path, secret)?;
        }
        Ok(values)
    }

    fn flatten(&self, table: Table, path: &str, values: &mut BTreeMap<String, Value>) -> Result<(), String> {
        for (name, value) in table {
            let path = tree::join(path, &name);
            if self.defaults.contains_key(&path) || self.settings.contains(&path.as_str()) {
                values.insert(path, value);
            } else if self.has_below(&path) {
                let Value::Table(table) = value else {
                    return Err(format!("{path} must be a section"));
                };
                self.flatten(table, &path, values)?;
            } else {
                return Err(self.unknown(&path));
            }
        }
        Ok(())
    }

    fn has_below(&self, path: &str) -> bool {
        let below = |name: &str| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.defaults.keys().any(|name| below(name)) || self.settings.iter().any(|name| below(name))
    }

    fn unknown(&self, path: &str) -> String {
        if path == "api.rate_limit.max_requests" {
            return format!(
                "{path} is no longer used; set api.rate_limit.unauth_max_requests and \
                 api.rate_limit.auth_max_requests"
            );
        }
        let mut names: Vec<String> =
            self.defaults.keys().cloned().chain(self.settings.iter().map(|&name| name.to_owned())).collect();
        // Sections too: a slip in `[api.sever]` is reported before what stands in it.
        let sections: Vec<_> = names
            .iter()
            .filter_map(|name| name.rsplit_once('.'))
            .map(|(section, _)| section.to_owned())
            .collect();
        names.extend(sections);
        match tree::nearest(path, names.iter()) {
            Some(near) => format!("{path} is unknown; did you mean {near}?"),
            None => format!("{path} is unknown; `quarterdeck config show` lists every name"),
        }
    }
}

/// Refuses a file with secrets that other users of the machine can read.
fn refuse_shared(path: &Path, secret: &str) -> Result<(), String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o077 != 0 {
            let shown = path.display();
            return Err(format!(
                "{shown} holds {secret} and other users can read it; run `chmod 600 {shown}`"
            ));
        }
    }
    #[cfg(not(unix))]
    let _ = (path, secret);
    Ok(())
}

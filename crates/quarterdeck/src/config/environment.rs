//! What the environment says, read once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// What names of variables begin with.
pub(super) const PREFIX: &str = "QUARTERDECK_";
/// Short names and the values they stand for.
const SHORT: [(&str, &str); 9] = [
    ("ARTIFACT_DIR", "artifacts.dir"),
    ("DATABASE_URL", "database.url"),
    ("DB_PATH", "database.sqlite.path"),
    ("POSTGRES_SSL_MODE", "database.postgres.ssl_mode"),
    ("JWT_SECRET", "api.auth.jwt_secret"),
    ("SETTINGS_KEY", "settings_key"),
    ("LOG_DIR", "log.dir"),
    ("LOG_LEVEL", "log.level"),
    ("DATA_DIR", "data_dir"),
];
/// Variables that are no configuration values.
const OTHER: [&str; 4] = ["CONFIG_PATH", "QUIET", "TOKEN", "YES"];
/// A secret in a file is short; more is a wrong path.
const FILE_LIMIT: u64 = 64 * 1024;

/// The variables of this process.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

/// Variables of this program, sorted by what they mean.
#[derive(Default)]
pub(super) struct Variables {
    /// Dotted name to variable and text.
    pub(super) values: BTreeMap<String, (String, String)>,
    /// Run-time settings: variable to text.
    pub(super) settings: BTreeMap<String, String>,
    /// One sentence for each variable that means nothing.
    pub(super) unknown: Vec<String>,
}

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// A path; absent when unset or blank.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        let value = self.0.get(&OsString::from(name))?;
        (!value.to_string_lossy().trim().is_empty()).then(|| value.into())
    }

    /// Whether the variable is `1`, `true` or `yes`.
    pub fn is_true(&self, name: &str) -> bool {
        let value = self.0.get(&OsString::from(name)).and_then(|value| value.to_str()).unwrap_or_default();
        ["1", "true", "yes"].iter().any(|yes| value.trim().eq_ignore_ascii_case(yes))
    }

    /// The text of a variable; absent when unset.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(&OsString::from(name))?.to_str()
    }

    /// Sorts this program's variables. `paths` are the dotted names there are, `aliases` further
    /// variables for some of them, `is_setting` tells whether a variable overrides a run-time setting.
    pub(super) fn sort<'a>(
        &self,
        paths: impl Iterator<Item = &'a String>,
        aliases: impl Iterator<Item = (String, &'a str)>,
        is_setting: impl Fn(&str) -> bool,
    ) -> Result<Variables, String> {
        let mut names: BTreeMap<String, &str> = paths
            .map(|path| (format!("{PREFIX}{}", path.replace('.', "__").to_uppercase()), &**path))
            .collect();
        names.extend(SHORT.map(|(name, path)| (format!("{PREFIX}{name}"), path)));
        names.extend(aliases);
        let mut variables = Variables::default();
        for (name, value) in &self.0 {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            let value = value.to_str().ok_or_else(|| format!("{name} must be text in UTF-8"))?.trim();
            if value.is_empty() || OTHER.contains(&&name[PREFIX.len()..]) {
                continue;
            }
            let from_file = name.strip_suffix("_FILE").and_then(|base| names.get(base));
            let (path, text) = match (names.get(name), from_file) {
                (Some(path), _) => (path, value.to_owned()),
                (None, Some(path)) => (path, read(name, value)?),
                (None, None) if is_setting(name) => {
                    variables.settings.insert(name.to_owned(), value.to_owned());
                    continue;
                }
                (None, None) => {
                    variables.unknown.push(unknown(name, names.keys()));
                    continue;
                }
            };
            if text.is_empty() {
                continue;
            }
            if let Some((other, _)) = variables.values.insert((*path).to_owned(), (name.to_owned(), text)) {
                return Err(format!("{other} and {name} both set {path}; keep one of them"));
            }
        }
        Ok(variables)
    }
}

/// Values may be secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

fn read(name: &str, path: &str) -> Result<String, String> {
    let unreadable = |why: String| format!("{name} names {path}, which cannot be read ({why})");
    let length = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?.len();
    if length > FILE_LIMIT {
        return Err(unreadable("it is larger than 64 KiB".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
    Ok(text.trim().to_owned())
}

fn unknown<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> String {
    let hint =
        super::tree::nearest(name, names).map_or_else(String::new, |near| format!("; did you mean {near}?"));
    format!("{name} means nothing to this version of quarterdeck{hint}")
}

use std::fs;
#[cfg(unix)]
use std::os::unix::fs::{PermissionsExt, symlink};

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

const CANARY: &str = "canary-0123456789-0123456789-0123456789";
/// 32 bytes in URL-safe base64.
const KEY: &str = "Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2E=";

/// A home of its own with nothing in it.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        #[cfg(unix)]
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn load_with(&self, toml: &str, variables: &[(&str, &str)], mut flags: Flags) -> Result<Loaded, String> {
        if !toml.is_empty() {
            flags.config = Some(self.write("given.toml", toml));
        }
        let home = self.path("");
        let mut environment = vec![("HOME", home.to_str().unwrap())];
        environment.extend(variables);
        load(&environment.into_iter().collect(), &flags)
    }

    fn load(&self, toml: &str, variables: &[(&str, &str)]) -> Result<Loaded, String> {
        self.load_with(toml, variables, Flags::default())
    }
}

fn loaded(toml: &str, variables: &[(&str, &str)]) -> Loaded {
    Home::new().load(toml, variables).unwrap()
}

fn refusal(toml: &str, variables: &[(&str, &str)]) -> String {
    Home::new().load(toml, variables).map(|_| ()).unwrap_err()
}

#[test]
fn nothing_configured_is_a_working_configuration() {
    let home = Home::new();
    let loaded = home.load("", &[]).unwrap();
    assert_eq!((loaded.config.api.server.host.as_str(), loaded.config.api.server.port), ("127.0.0.1", 3001));
    assert_eq!(loaded.file, None);
    assert!(loaded.chosen.is_empty() && loaded.unknown_variables.is_empty());
    let folder = home.path(".local/share/quarterdeck");
    if cfg!(target_os = "linux") {
        assert_eq!(loaded.config.data_dir, folder);
        let database = loaded.config.database.database(&folder).unwrap();
        assert_eq!(database.to_string(), format!("SQLite {}", folder.join("quarterdeck.db").display()));
    }
}

#[test]
fn every_source_wins_over_the_one_before_it() {
    let home = Home::new();
    let file = "[api.server]\nport = 4001\nhost = \"127.0.0.2\"\nworkers = 2";
    let variable =
        [("QUARTERDECK_API__SERVER__PORT", "4002"), ("QUARTERDECK_API__SERVER__HOST", "127.0.0.3")];
    let flags = Flags { port: Some(4003), ..Flags::default() };
    let loaded = home.load_with(file, &variable, flags).unwrap();
    let server = &loaded.config.api.server;
    assert_eq!((server.port, server.host.as_str(), server.workers), (4003, "127.0.0.3", 2));
    assert_eq!(loaded.source("api.server.port"), &Source::Flag("--port"));
    assert_eq!(
        loaded.source("api.server.host"),
        &Source::Environment("QUARTERDECK_API__SERVER__HOST".to_owned())
    );
    assert_eq!(loaded.source("api.server.workers"), &Source::File);
    assert_eq!(loaded.source("api.server.reload"), &Source::Default);
}

#[test]
fn short_names_stand_for_long_ones() {
    let loaded = loaded(
        "",
        &[
            ("QUARTERDECK_DATABASE_URL", "postgresql://ada:word@db/deck"),
            ("QUARTERDECK_DB_PATH", "other.db"),
            ("QUARTERDECK_POSTGRES_SSL_MODE", "verify-full"),
            ("QUARTERDECK_JWT_SECRET", &format!("  {CANARY}\n")),
            ("QUARTERDECK_SETTINGS_KEY", KEY),
            ("QUARTERDECK_LOG_DIR", "/var/log/deck"),
            ("QUARTERDECK_LOG_LEVEL", "warn"),
        ],
    );
    let config = &loaded.config;
    assert_eq!(config.database.sqlite.path, "other.db");
    assert_eq!(
        config.database.database(&config.data_dir).unwrap().to_string(),
        "PostgreSQL deck on db:5432",
        "a URL wins over a file"
    );
    assert_eq!(config.api.auth.jwt_secret.expose_secret(), CANARY);
    assert_eq!(config.settings_key.as_ref().unwrap().expose_secret(), KEY);
    assert_eq!(config.log.dir.as_deref(), Some(Path::new("/var/log/deck")));
    assert_eq!(config.log.level, Some(LogLevel::Warning));
    assert!(loaded.unknown_variables.is_empty());
}

#[test]
fn a_bad_database_url_is_refused_even_with_a_file_named() {
    let text = refusal(
        "",
        &[("QUARTERDECK_DATABASE_URL", "postgresql://canary@db"), ("QUARTERDECK_DB_PATH", "q.db")],
    );
    assert_eq!(text, "database.url must name a database (set by QUARTERDECK_DATABASE_URL)");
}

#[test]
fn a_variable_of_white_space_is_not_set() {
    let loaded = loaded("", &[("QUARTERDECK_JWT_SECRET", "  "), ("QUARTERDECK_API__SERVER__PORT", "")]);
    assert_eq!(loaded.source("api.auth.jwt_secret"), &Source::Default);
    assert_eq!(loaded.source("api.server.port"), &Source::Default);
}

#[test]
fn a_secret_can_come_from_a_file() {
    let home = Home::new();
    let secret = home.write("jwt", &format!("{CANARY}\n"));
    let loaded = home.load("", &[("QUARTERDECK_JWT_SECRET_FILE", secret.to_str().unwrap())]).unwrap();
    assert_eq!(loaded.config.api.auth.jwt_secret.expose_secret(), CANARY);
    let long = [("QUARTERDECK_API__AUTH__JWT_SECRET_FILE", secret.to_str().unwrap())];
    assert_eq!(home.load("", &long).unwrap().config.api.auth.jwt_secret.expose_secret(), CANARY);
    let missing = home.path("missing");
    let text = home.load("", &[("QUARTERDECK_JWT_SECRET_FILE", missing.to_str().unwrap())]).unwrap_err();
    assert!(text.starts_with("QUARTERDECK_JWT_SECRET_FILE names "), "{text}");
    let huge = home.write("huge", &"x".repeat(64 * 1024 + 1));
    let text = home.load("", &[("QUARTERDECK_JWT_SECRET_FILE", huge.to_str().unwrap())]).unwrap_err();
    assert!(text.contains("larger than 64 KiB"), "{text}");
}

#[test]
fn two_variables_for_one_value_are_refused() {
    let home = Home::new();
    let file = home.write("jwt", CANARY);
    for other in [
        ("QUARTERDECK_JWT_SECRET_FILE", file.to_str().unwrap()),
        ("QUARTERDECK_API__AUTH__JWT_SECRET", CANARY),
    ] {
        let text = home.load("", &[("QUARTERDECK_JWT_SECRET", CANARY), other]).unwrap_err();
        assert!(text.contains("both set api.auth.jwt_secret"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn variables_are_read_as_what_they_stand_for() {
    let loaded = loaded(
        "",
        &[
            ("QUARTERDECK_API__CORS__ALLOWED_ORIGINS", "http://a.example, https://b.example:8443"),
            ("QUARTERDECK_API__SERVER__TRUSTED_PROXIES", r#"["10.0.0.0/8"]"#),
            ("QUARTERDECK_API__AUTH__EXCLUDE_PATHS", "[]"),
            ("QUARTERDECK_API__AUTH__JWT_REFRESH_ENABLED", "TRUE"),
            ("QUARTERDECK_API__AUTH__COOKIE_SECURE", "false"),
            ("QUARTERDECK_API__AUTH__COOKIE_NAME", "123"),
            ("QUARTERDECK_API__SERVER__WS_PING_INTERVAL", "5"),
        ],
    );
    let api = &loaded.config.api;
    assert_eq!(api.cors.allowed_origins, ["http://a.example", "https://b.example:8443"]);
    assert_eq!(api.server.trusted_proxies.len(), 1);
    assert!(api.auth.exclude_paths.as_ref().unwrap().is_empty());
    assert!(api.auth.jwt_refresh_enabled && !api.auth.secure_cookies());
    assert_eq!(api.auth.cookie_name, "123");
    assert_eq!(api.server.ws_ping_interval, 5.0);
}

#[test]
fn a_refusal_names_the_field_the_rule_and_the_source() {
    let variable = |name, value, text: &str| {
        assert_eq!(refusal("", &[(name, value)]), format!("{text} (set by {name})"));
    };
    variable(
        "QUARTERDECK_API__AUTH__LOCKOUT_THRESHOLD",
        "0",
        "api.auth.lockout_threshold must be between 1 and 100",
    );
    variable(
        "QUARTERDECK_API__AUTH__MAX_CONCURRENT_SESSIONS",
        "-1",
        "api.auth.max_concurrent_sessions must be a whole number between 0 and 4294967295",
    );
    variable(
        "QUARTERDECK_API__SERVER__PORT",
        "65536",
        "api.server.port must be a whole number between 0 and 65535",
    );
    variable(
        "QUARTERDECK_API__SERVER__PORT",
        "http",
        "api.server.port must be a whole number between 0 and 65535",
    );
    variable(
        "QUARTERDECK_API__AUTH__JWT_ALGORITHM",
        "none",
        "api.auth.jwt_algorithm must be one of `HS256`, `HS384`, `HS512`",
    );
    variable(
        "QUARTERDECK_API__AUTH__COOKIE_SECURE",
        "maybe",
        "api.auth.cookie_secure must be true, false or \"auto\"",
    );
    variable(
        "QUARTERDECK_API__AUTH__EXCLUDE_PATHS",
        r#"["^/a$", "("]"#,
        "api.auth.exclude_paths[1] must be a regular expression",
    );
    variable(
        "QUARTERDECK_API__SERVER__WS_PING_TIMEOUT",
        "nan",
        "api.server.ws_ping_timeout must be between 0 and 86400",
    );
    variable("QUARTERDECK_LOG_DIR", "../x", "log.dir must not contain ..");
    variable("QUARTERDECK_LOG_LEVEL", "loud", "log.level must be DEBUG, INFO, WARNING, ERROR or CRITICAL");
    variable("QUARTERDECK_DB_PATH", "../q.db", "database.sqlite.path must not contain ..");
    variable("QUARTERDECK_JWT_SECRET", "canary", "api.auth.jwt_secret must have at least 32 characters");
    let file = refusal("[api.auth]\njwt_expiry_minutes = \"long\"", &[]);
    assert!(file.starts_with("api.auth.jwt_expiry_minutes must be a whole number"), "{file}");
    assert!(file.ends_with("given.toml)"), "{file}");
}

#[test]
fn the_network_refusals_reach_the_operator() {
    let text = refusal("", &[("QUARTERDECK_API__CORS__ALLOWED_ORIGINS", "*")]);
    assert!(text.starts_with("api.cors.allowed_origins must not hold \"*\""), "{text}");
    let text = refusal("[api.server]\nssl_certfile = \"c.pem\"", &[]);
    assert!(text.starts_with("api.server.ssl_keyfile must be set"), "{text}");
    let text = refusal("[api.server]\ntrusted_proxies = [\"0.0.0.0/0\"]", &[]);
    assert!(text.starts_with("api.server.trusted_proxies must not hold"), "{text}");
    let text = refusal("[api.rate_limit]\nfloor_max_requests = 10", &[]);
    assert!(text.contains("(10)") && text.contains("(20)"), "{text}");
}

#[test]
fn unknown_keys_are_refused_with_what_was_probably_meant() {
    for (toml, near) in [
        ("[api.server]\nprot = 1", "api.server.prot is unknown; did you mean api.server.port?"),
        ("[api.sever]\nport = 1", "api.sever is unknown; did you mean api.server?"),
        ("[server]\nport = 1", "server is unknown"),
        ("[api]\nport = 1", "api.port is unknown; did you mean api.server.port?"),
        ("zzzzzzzzzzzz = 1", "zzzzzzzzzzzz is unknown; `quarterdeck config show` lists every name"),
        ("[api.rate_limit]\nmax_requests = 5", "api.rate_limit.max_requests is no longer used; set"),
        ("api = 5", "api must be a section"),
    ] {
        let text = refusal(toml, &[]);
        assert!(text.contains(&format!("given.toml: {near}")), "{toml}: {text}");
    }
}

#[test]
fn broken_toml_is_refused_without_quoting_it() {
    let text = refusal("[api.auth]\njwt_secret = \"canary\nx = 1", &[]);
    assert!(text.contains("given.toml, line 2: "), "{text}");
    assert!(!text.contains("canary"), "{text}");
    let text = refusal("[api.auth]\njwt_secret = [\"canary\"]", &[]);
    assert!(text.starts_with("api.auth.jwt_secret must be text"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn run_time_settings_are_handed_on() {
    let loaded = loaded(
        "[api.auth]\nlockout_threshold = 7\n[observability]\nsink_overrides = { console = { level = \"ERROR\" } }",
        &[("QUARTERDECK_API_JWT_EXPIRY_MINUTES", "30"), ("QUARTERDECK_API__AUTH__JWT_SECRET", CANARY)],
    );
    assert_eq!(loaded.setting_environment.get("QUARTERDECK_API_JWT_EXPIRY_MINUTES").unwrap(), "30");
    assert_eq!(loaded.chosen.get("api.auth.lockout_threshold").unwrap(), "7");
    assert_eq!(
        loaded.chosen.get("observability.sink_overrides").unwrap(),
        r#"{"console":{"level":"ERROR"}}"#
    );
    assert!(!loaded.chosen.contains_key("api.auth.jwt_secret"));
    assert_eq!(loaded.config.api.auth.jwt_expiry_minutes, 1440);
}

#[test]
fn an_unknown_variable_is_named_with_what_was_probably_meant() {
    let loaded = loaded(
        "",
        &[
            ("QUARTERDECK_JWT_SECRTE", CANARY),
            ("QUARTERDECK_CONFIG_PATH", ""),
            ("QUARTERDECK_QUIET", "1"),
            ("OTHER_QUARTERDECK_X", "1"),
        ],
    );
    assert_eq!(
        loaded.unknown_variables,
        ["QUARTERDECK_JWT_SECRTE means nothing to this version of quarterdeck; did you mean \
             QUARTERDECK_JWT_SECRET?"]
    );
}

#[test]
fn the_file_is_the_named_one_or_the_one_in_the_data_folder() {
    let home = Home::new();
    let folder = home.path("data");
    fs::create_dir(&folder).unwrap();
    home.write("data/quarterdeck.toml", "[api.server]\nport = 4001");
    let named = home.write("named.toml", "[api.server]\nport = 4002");
    let folder = [("QUARTERDECK_DATA_DIR", folder.to_str().unwrap())];
    let found = home.load("", &folder).unwrap();
    assert_eq!((found.config.api.server.port, found.file), (4001, Some(home.path("data/quarterdeck.toml"))));
    let variables = [folder[0], ("QUARTERDECK_CONFIG_PATH", named.to_str().unwrap())];
    assert_eq!(home.load("", &variables).unwrap().config.api.server.port, 4002);
    let flags = Flags { config: Some(home.path("missing.toml")), ..Flags::default() };
    let text = home.load_with("", &variables, flags).unwrap_err();
    assert!(text.starts_with("--config names ") && text.ends_with("which is not a file"), "{text}");
}

#[test]
fn the_data_folder_is_absolute_and_a_flag_decides_last() {
    let home = Home::new();
    let at = |flag: Option<PathBuf>, variable: &str, toml: &str| {
        let flags = Flags { data_dir: flag, ..Flags::default() };
        let loaded = home.load_with(toml, &[("QUARTERDECK_DATA_DIR", variable)], flags).unwrap();
        (loaded.config.data_dir.clone(), loaded.source("data_dir").clone())
    };
    let [flag, variable, file] = ["a/b", "v", "f"].map(|name| home.path(name));
    let toml = format!("data_dir = {:?}", file.to_str().unwrap());
    let variable_text = variable.to_str().unwrap();
    assert_eq!(at(Some(flag.clone()), variable_text, &toml), (flag, Source::Flag("--data-dir")));
    assert_eq!(at(None, variable_text, &toml).0, variable);
    assert_eq!(at(None, "", &toml), (file, Source::File));
    let relative = at(Some("some/where".into()), "", "").0;
    assert!(relative.is_absolute() && relative.ends_with("some/where"), "{relative:?}");
}

#[test]
#[cfg(unix)]
fn links_to_the_data_folder_are_followed() {
    let home = Home::new();
    fs::create_dir(home.path("real")).unwrap();
    symlink(home.path("real"), home.path("link")).unwrap();
    let folder = |path: PathBuf| home.load_with("", &[], Flags { data_dir: Some(path), ..Flags::default() });
    assert_eq!(folder(home.path("link/new")).unwrap().config.data_dir, home.path("real/new"));
    assert!(folder(home.path("link/new/../../x")).unwrap_err().contains("must not climb"));
}

#[test]
#[cfg(unix)]
fn a_file_with_secrets_that_others_can_read_is_refused() {
    let home = Home::new();
    let folder = |text: &str, mode| {
        let path = home.write("f.toml", text);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        home.load_with("", &[], Flags { config: Some(path), ..Flags::default() }).map(|_| ())
    };
    let secret = format!("[api.auth]\njwt_secret = \"{CANARY}\"");
    assert_eq!(folder(&secret, 0o600), Ok(()));
    let text = folder(&secret, 0o640).unwrap_err();
    assert!(text.contains("holds api.auth.jwt_secret") && text.contains("chmod 600"), "{text}");
    assert_eq!(folder("[api.server]\nport = 4001", 0o644), Ok(()));
}

#[test]
fn no_home_and_no_data_folder_is_refused() {
    let text = load(&Environment::default(), &Flags::default()).unwrap_err();
    assert!(text.starts_with("there is no data folder"), "{text}");
}

#[test]
fn a_settings_key_has_32_bytes() {
    let text = refusal("", &[("QUARTERDECK_SETTINGS_KEY", "canary")]);
    assert!(
        text.starts_with("settings_key") && text.ends_with("(set by QUARTERDECK_SETTINGS_KEY)"),
        "{text}"
    );
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn a_redis_url_is_one_of_a_redis_and_blank_is_none() {
    for toml in ["redis_url = \"\"", "redis_url = \"  \""] {
        assert!(loaded(toml, &[]).config.redis_url.is_none(), "{toml}");
    }
    assert!(loaded("", &[("QUARTERDECK_REDIS_URL", " ")]).config.redis_url.is_none());
    for url in ["redis://:canary@cache", "rediss://a:canary@cache:6380/1", "redis+unix:///run/redis.sock"] {
        let loaded = loaded("", &[("QUARTERDECK_REDIS_URL", url)]);
        assert_eq!(loaded.config.redis_url.as_ref().unwrap().expose_secret(), url);
    }
    for url in ["canary", "http://:canary@cache", "redis://:canary@", "redis://:canary@cache:x"] {
        let text = refusal("", &[("QUARTERDECK_REDIS_URL", url)]);
        assert!(text.starts_with("redis_url must be redis://"), "{url}: {text}");
        assert!(text.ends_with("(set by QUARTERDECK_REDIS_URL)") && !text.contains("canary"), "{text}");
    }
}

#[test]
fn a_redis_url_can_come_from_a_file() {
    let home = Home::new();
    let file = home.write("redis", "redis://:canary@cache\n");
    let loaded = home.load("", &[("QUARTERDECK_REDIS_URL_FILE", file.to_str().unwrap())]).unwrap();
    assert_eq!(loaded.config.redis_url.unwrap().expose_secret(), "redis://:canary@cache");
}

#[test]
fn development_shows_what_it_changed() {
    let home = Home::new();
    let loaded = home.load_with("", &[], Flags { dev: true, ..Flags::default() }).unwrap();
    assert_eq!(loaded.config.api.cors.allowed_origins, ["http://localhost:5173"]);
    assert_eq!(loaded.source("api.auth.cookie_secure"), &Source::Flag("--dev"));
}

#[test]
fn no_secret_shows() {
    let url = format!("postgresql://{CANARY}:{CANARY}@db/deck");
    let redis = format!("redis://{CANARY}:{CANARY}@cache");
    let variables = [
        ("QUARTERDECK_JWT_SECRET", CANARY),
        ("QUARTERDECK_DATABASE_URL", &url),
        ("QUARTERDECK_SETTINGS_KEY", KEY),
        ("QUARTERDECK_REDIS_URL", &redis),
    ];
    let loaded = loaded("", &variables);
    let shown = format!("{:?} {:?} {:?}", loaded.shown(), loaded.config, loaded.chosen);
    assert!(!shown.contains("canary") && !shown.contains(KEY), "{shown}");
    let names: Vec<_> = loaded.shown().into_iter().map(|(name, _)| name).collect();
    for secret in SECRETS {
        assert!(names.iter().any(|name| name == secret), "{secret}");
    }
}

#[test]
fn meetings_and_escalations_come_from_file_and_environment() {
    let file = "[[meetings.types]]\nname = \"standup\"\nfrequency = \"daily\"\nparticipants = [\"all\"]\n\
                [communication.conflict_resolution.escalation]\ndefault_timeout_seconds = 600";
    let config = loaded(file, &[]).config;
    assert_eq!(config.meetings.types[0].name, "standup");
    assert_eq!(config.communication.conflict_resolution.escalation.default_timeout_seconds, Some(600));
    let section = "QUARTERDECK_COMMUNICATION__CONFLICT_RESOLUTION__ESCALATION";
    let (timeout, strategy) =
        (format!("{section}__DEFAULT_TIMEOUT_SECONDS"), format!("{section}__DECISION_STRATEGY"));
    let types = r#"[{"name": "review", "trigger": "deploy.done", "min_interval_seconds": 60}]"#;
    let variables = [("QUARTERDECK_MEETINGS__TYPES", types), (&timeout, "60"), (&strategy, "hybrid")];
    let config = loaded(file, &variables).config;
    assert_eq!((config.meetings.types.len(), config.meetings.types[0].min_interval_seconds), (1, Some(60)));
    let escalation = config.communication.conflict_resolution.escalation;
    assert_eq!(
        (escalation.default_timeout_seconds, escalation.decision_strategy.as_str()),
        (Some(60), "hybrid")
    );
}

#[test]
fn what_escalations_and_meetings_cannot_be_is_refused_before_the_start() {
    let section = "communication.conflict_resolution.escalation";
    for (line, field) in [
        ("backend = \"postgres\"", "backend"),
        ("backend = \"redis\"", "backend"),
        ("cross_instance_notify = \"on\"", "cross_instance_notify"),
        ("notify_channel = \"a; DROP TABLE users\"", "notify_channel"),
        ("default_timeout_seconds = 0", "default_timeout_seconds"),
        ("default_timeout_seconds = \"soon\"", "default_timeout_seconds"),
        ("sweeper_interval_seconds = 4", "sweeper_interval_seconds"),
        ("reconnect_delay_seconds = 0", "reconnect_delay_seconds"),
    ] {
        let why = refusal(&format!("[{section}]\n{line}"), &[]);
        assert!(why.starts_with(&format!("{section}.{field}")) && !why.contains("DROP"), "{why}");
    }
    let url = [("QUARTERDECK_DATABASE_URL", "postgresql://u:p@localhost/q")];
    let on = "[communication.conflict_resolution.escalation]\ncross_instance_notify = \"on\"\nbackend = ";
    assert!(Home::new().load(&format!("{on}\"postgres\""), &url).is_ok());
    assert!(refusal(&format!("{on}\"sqlite\""), &url).starts_with(&format!("{section}.backend")));
    for types in ["[{name = \"a\"}]", "[{name = \"a\", trigger = \"t\", colour = \"red\"}]", "\"all\""] {
        let why = refusal(&format!("[meetings]\ntypes = {types}"), &[]);
        assert!(why.starts_with("meetings.types"), "{why}");
    }
}

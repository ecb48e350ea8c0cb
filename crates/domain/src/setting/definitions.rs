//! The settings of this program. A declaration is the description, the handle's name and type, and the
//! rules; nothing repeats it.

use super::Definition;

macro_rules! settings {
    ($($description:literal $name:ident: $value:ty = $setting:expr;)+) => {
        $(
            #[doc = $description]
            pub const $name: Setting<$value> = $setting.described($description);
        )+
        pub(super) const ALL: &[Definition] = &[$(*$name.definition()),+];
    };
}

pub(super) fn all() -> impl Iterator<Item = Definition> {
    let all = [
        api::ALL,
        backup::ALL,
        budget::ALL,
        communication::ALL,
        company::ALL,
        engine::ALL,
        observability::ALL,
        security::ALL,
    ];
    all.into_iter().flatten().copied()
}

/// The HTTP interface: server, transport, limits, sign-in.
pub mod api {
    use serde_json::Value;

    use super::super::Namespace::Api;
    use super::super::{Definition, Sensitive, Setting, shape};

    settings! {
        "Address the server listens on."
        SERVER_HOST: String = Setting::text(Api, "server_host", Some("127.0.0.1"))
            .group("server").read_only().file("api.server.host");

        "Port the server listens on."
        SERVER_PORT: i64 = Setting::int(Api, "server_port", "3001").within(1, 65_535)
            .group("server").read_only().file("api.server.port");

        "Path every endpoint begins with."
        API_PREFIX: String = Setting::text(Api, "api_prefix", Some("/api/v1")).pattern("/[^ ?#]*[^ /?#]")
            .group("server").advanced().read_only().file("api.api_prefix");

        "File with the TLS certificate chain (PEM); empty for plain HTTP."
        SSL_CERTFILE: String = Setting::text(Api, "ssl_certfile", None)
            .group("tls").advanced().read_only().file("api.server.ssl_certfile");

        "File with the private key of the TLS certificate (PEM)."
        SSL_KEYFILE: Sensitive = Setting::secret(Api, "ssl_keyfile")
            .group("tls").advanced().read_only().file("api.server.ssl_keyfile");

        "File with the authorities that client certificates are verified against (PEM); empty for none."
        SSL_CA_CERTS: String = Setting::text(Api, "ssl_ca_certs", None)
            .group("tls").advanced().read_only().file("api.server.ssl_ca_certs");

        "Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed: addresses or CIDR networks."
        TRUSTED_PROXIES: Value = Setting::json(Api, "trusted_proxies", Some("[]")).shaped(shape::networks)
            .group("server").advanced().read_only().file("api.server.trusted_proxies");

        "Origins whose pages may call the API from a browser."
        CORS_ALLOWED_ORIGINS: Value = Setting::json(Api, "cors_allowed_origins", Some("[]")).shaped(shape::origins)
            .group("cors").read_only().file("api.cors.allowed_origins");

        "Most requests without identity per client address and time unit."
        RATE_LIMIT_UNAUTH_MAX_REQUESTS: i64 = Setting::int(Api, "rate_limit_unauth_max_requests", "20")
            .within(1, 10_000).group("rate_limit").restart().file("api.rate_limit.unauth_max_requests");

        "Most requests per user and time unit."
        RATE_LIMIT_AUTH_MAX_REQUESTS: i64 = Setting::int(Api, "rate_limit_auth_max_requests", "6000")
            .within(1, 100_000).group("rate_limit").restart().file("api.rate_limit.auth_max_requests");

        "Time unit of the request limits."
        RATE_LIMIT_TIME_UNIT: String =
            Setting::word(Api, "rate_limit_time_unit", &["second", "minute", "hour", "day"], "minute")
            .group("rate_limit").restart().file("api.rate_limit.time_unit");

        "Paths that are never limited, compared exactly."
        RATE_LIMIT_EXCLUDE_PATHS: Value =
            Setting::json(Api, "rate_limit_exclude_paths", Some(r#"["/api/v1/health"]"#)).shaped(shape::paths)
            .group("rate_limit").advanced().restart().file("api.rate_limit.exclude_paths");

        "Requests per minute to an outside service whose connection names no limit of its own."
        MAX_RPM_DEFAULT: i64 = Setting::int(Api, "max_rpm_default", "60").within(1, 100_000)
            .group("rate_limit").advanced().restart().file("api.rate_limit.max_rpm_default");

        "Smallest response body that is compressed, in bytes."
        COMPRESSION_MINIMUM_SIZE_BYTES: i64 = Setting::int(Api, "compression_minimum_size_bytes", "1000")
            .within(100, 10_000).group("transport").advanced().restart()
            .file("api.server.compression_minimum_size_bytes");

        "Largest request body, in bytes."
        REQUEST_MAX_BODY_SIZE_BYTES: i64 = Setting::int(Api, "request_max_body_size_bytes", "52428800")
            .within(1_000_000, 536_870_912).group("transport").advanced().restart()
            .file("api.server.request_max_body_size_bytes");

        "Regular expressions of paths that need no identity; null for the built-in set."
        AUTH_EXCLUDE_PATHS: Value = Setting::json(Api, "auth_exclude_paths", None).shaped(shape::patterns)
            .group("authentication").advanced().restart().file("api.auth.exclude_paths");

        "Lifetime of a session token, in minutes."
        JWT_EXPIRY_MINUTES: i64 = Setting::int(Api, "jwt_expiry_minutes", "1440").within(1, 10_080)
            .group("authentication").file("api.auth.jwt_expiry_minutes");

        "Shortest password accepted, in characters."
        MIN_PASSWORD_LENGTH: i64 = Setting::int(Api, "min_password_length", "12").within(12, 128)
            .group("authentication").file("api.auth.min_password_length");

        "Whether first-run setup has been finished."
        SETUP_COMPLETE: bool = Setting::switch(Api, "setup_complete", "false").group("setup").advanced();

        "Time between two sweeps of expired WebSocket tickets, in seconds."
        TICKET_CLEANUP_INTERVAL_SECONDS: f64 = Setting::float(Api, "ticket_cleanup_interval_seconds", "60.0")
            .within(5.0, 3600.0).group("websocket").advanced();

        "Most unused WebSocket tickets a user may hold."
        WS_TICKET_MAX_PENDING_PER_USER: i64 = Setting::int(Api, "ws_ticket_max_pending_per_user", "5")
            .within(1, 50).group("websocket").advanced();

        "Whether a WebSocket ticket may come in the first message instead of the address."
        WS_FIRST_MESSAGE_AUTH: bool = Setting::switch(Api, "ws_first_message_auth", "false")
            .group("websocket").advanced().restart();

        "Longest wait for the first message that holds a ticket, in seconds."
        WS_AUTH_TIMEOUT_SECONDS: f64 = Setting::float(Api, "ws_auth_timeout_seconds", "10.0").within(1.0, 120.0)
            .group("websocket").advanced().restart();

        "Longest silence of a WebSocket client before it is cut, in seconds. 0 for any."
        WS_FRAME_TIMEOUT_SECONDS: f64 = Setting::float(Api, "ws_frame_timeout_seconds", "0").within(0.0, 600.0)
            .group("websocket").advanced().restart();

        "How a refused WebSocket handshake is told: a close frame that browsers see, or an HTTP answer."
        WS_DENIAL: String = Setting::word(Api, "ws_denial", &["close", "http"], "close")
            .group("websocket").advanced().restart();

        "Most WebSockets of one user on one copy of the server. 0 for any number."
        WS_MAX_CONNECTIONS_PER_USER: i64 = Setting::int(Api, "ws_max_connections_per_user", "1000")
            .within(0, 1_000_000).group("websocket").advanced().restart();

        "Most refused WebSocket handshakes of one address in a minute. 0 for any number."
        WS_REFUSED_HANDSHAKE_RATE: i64 = Setting::int(Api, "ws_refused_handshake_rate", "1000")
            .within(0, 1_000_000).group("websocket").advanced().restart();

        "Commands a WebSocket client may send each second; faster ones wait. 0 for any number."
        WS_COMMAND_RATE: i64 = Setting::int(Api, "ws_command_rate", "200").within(0, 100_000)
            .group("websocket").advanced().restart();

        "Longest life of a WebSocket, in seconds. 0 for that of a session token."
        WS_MAX_LIFETIME_SECONDS: i64 = Setting::int(Api, "ws_max_lifetime_seconds", "0").within(0, 2_592_000)
            .group("websocket").advanced().restart();

        "Events a channel keeps for clients that were away. 0 switches recovery off."
        WS_HISTORY_SIZE: i64 = Setting::int(Api, "ws_history_size", "512").within(0, 10_000)
            .group("websocket").advanced().restart();

        "How long a channel keeps an event for clients that were away, in seconds."
        WS_HISTORY_TTL_SECONDS: i64 = Setting::int(Api, "ws_history_ttl_seconds", "600").within(1, 86_400)
            .group("websocket").advanced().restart();

        "Most bytes of the events a channel keeps."
        WS_HISTORY_MAX_BYTES: i64 = Setting::int(Api, "ws_history_max_bytes", "4194304").within(65_536, 268_435_456)
            .group("websocket").advanced().restart();

        "Time in which failures to read the rights behind a socket or stream are counted, in seconds."
        AUTH_REVALIDATE_WINDOW_SECONDS: i64 = Setting::int(Api, "auth_revalidate_window_seconds", "60")
            .within(1, 3600).group("websocket").advanced().restart();

        "Failures to read the rights behind a socket or stream that end it."
        AUTH_REVALIDATE_MAX_FAILURES: i64 = Setting::int(Api, "auth_revalidate_max_failures", "5")
            .within(1, 100).group("websocket").advanced().restart();

        "Silence after which an event stream sends a sign of life, in seconds."
        SSE_KEEPALIVE_SECONDS: f64 = Setting::float(Api, "sse_keepalive_seconds", "30.0").within(1.0, 600.0)
            .group("websocket").advanced();

        "Whether single operations are rate limited."
        PER_OP_RATE_LIMIT_ENABLED: bool = Setting::switch(Api, "per_op_rate_limit_enabled", "true")
            .group("operation_limits").advanced().file("api.per_op_rate_limit.enabled");

        "Rate limits of single operations: operation to [max_requests, window_seconds]; 0 switches one off."
        PER_OP_RATE_LIMIT_OVERRIDES: Value = Setting::json(Api, "per_op_rate_limit_overrides", Some("{}"))
            .shaped(shape::rate_limits).group("operation_limits").advanced()
            .file("api.per_op_rate_limit.overrides");

        "Whether simultaneous runs of single operations are capped."
        PER_OP_CONCURRENCY_ENABLED: bool = Setting::switch(Api, "per_op_concurrency_enabled", "true")
            .group("operation_limits").advanced().file("api.per_op_concurrency.enabled");

        "Caps of simultaneous runs: operation to a whole number; 0 switches one off."
        PER_OP_CONCURRENCY_OVERRIDES: Value = Setting::json(Api, "per_op_concurrency_overrides", Some("{}"))
            .shaped(shape::caps).group("operation_limits").advanced()
            .file("api.per_op_concurrency.overrides");

        "Most lifecycle events one query reads."
        MAX_LIFECYCLE_EVENTS_PER_QUERY: i64 = Setting::int(Api, "max_lifecycle_events_per_query", "10000")
            .within(100, 1_000_000).group("queries").advanced();

        "Most audit records one query reads."
        MAX_AUDIT_RECORDS_PER_QUERY: i64 = Setting::int(Api, "max_audit_records_per_query", "10000")
            .within(100, 1_000_000).group("queries").advanced();

        "Most metric records one query reads."
        MAX_METRICS_PER_QUERY: i64 = Setting::int(Api, "max_metrics_per_query", "10000")
            .within(100, 1_000_000).group("queries").advanced();

        "Most context keys of a meeting."
        MAX_MEETING_CONTEXT_KEYS: i64 = Setting::int(Api, "max_meeting_context_keys", "20").within(5, 100)
            .group("meetings").advanced().restart();
    }
}

/// Backups.
pub mod backup {
    use serde_json::Value;

    use super::super::Namespace::Backup;
    use super::super::{Definition, Setting, shape};

    settings! {
        "Whether backups are made by themselves, again and again."
        ENABLED: bool = Setting::switch(Backup, "enabled", "false").group("schedule").file("backup.enabled");

        "Time between two backups that are made by themselves, in hours."
        SCHEDULE_HOURS: i64 = Setting::int(Backup, "schedule_hours", "6").within(1, 168)
            .group("schedule").file("backup.schedule_hours");

        "Whether a start makes a backup."
        ON_STARTUP: bool = Setting::switch(Backup, "on_startup", "false")
            .group("schedule").file("backup.on_startup");

        "Whether a stop makes a backup."
        ON_SHUTDOWN: bool = Setting::switch(Backup, "on_shutdown", "true")
            .group("schedule").file("backup.on_shutdown");

        "Folder of the backups; empty for the folder backups in the data folder."
        PATH: String = Setting::text(Backup, "path", None).shaped(shape::no_climbing)
            .group("content").restart().file("backup.path");

        "Whether a backup is packed into one compressed file; one made by a stop or before a restore never is."
        COMPRESSION: bool = Setting::switch(Backup, "compression", "true")
            .group("content").file("backup.compression");

        "What is saved: persistence (database and artifacts), memory, config."
        INCLUDE: Value = Setting::json(Backup, "include", Some(r#"["persistence","memory","config"]"#))
            .shaped(shape::components).group("content").restart().file("backup.include");

        "Most backups kept, beside those made before restores."
        RETENTION_MAX_COUNT: i64 = Setting::int(Backup, "retention_max_count", "10").within(1, 1000)
            .group("retention").file("backup.retention.max_count");

        "Age after which a backup is removed, in days; the newest stays."
        RETENTION_MAX_AGE_DAYS: i64 = Setting::int(Backup, "retention_max_age_days", "30").within(1, 365)
            .group("retention").file("backup.retention.max_age_days");

        "Backups made before restores that are kept whatever their age."
        RETENTION_MAX_PRE_MIGRATION: i64 = Setting::int(Backup, "retention_max_pre_migration", "20").within(1, 1000)
            .group("retention").advanced().file("backup.retention.max_pre_migration");

        "Who may delete and restore backups: those who write and the system user, or the CEO and the system user."
        DESTRUCTIVE_ROLES: String =
            Setting::word(Backup, "destructive_roles", &["system_or_write", "ceo_or_system"], "system_or_write")
            .group("access").advanced().file("backup.destructive_roles");
    }
}

/// Money, and how long records of it are kept.
pub mod budget {
    use serde_json::Value;

    use super::super::Namespace::Budget;
    use super::super::{Definition, Setting, shape};
    use crate::money::Currency;

    settings! {
        "Most that may be spent in a billing period. 0 for any amount."
        TOTAL_MONTHLY: f64 = Setting::float(Budget, "total_monthly", "100.0").within(0.0, 1e12).group("limits");

        "Most that may be spent for one task."
        PER_TASK_LIMIT: f64 = Setting::float(Budget, "per_task_limit", "5.0").within(0.0, 1e12).group("limits");

        "Most that one agent may spend in a day."
        PER_AGENT_DAILY_LIMIT: f64 = Setting::float(Budget, "per_agent_daily_limit", "10.0").within(0.0, 1e12)
            .group("limits");

        "Day of the month a billing period begins on, at midnight UTC."
        RESET_DAY: i64 = Setting::int(Budget, "reset_day", "1").within(1, 28).group("limits");

        "Currency new costs are recorded in. Nothing is converted: what is recorded keeps its own."
        CURRENCY: String = Setting::word(Budget, "currency", &Currency::CODES, "USD").group("limits");

        "Percent of the monthly budget from which on spending is worth a look."
        ALERT_WARN_AT: i64 = Setting::int(Budget, "alert_warn_at", "75").within(0, 100).group("alerts");

        "Percent of the monthly budget from which on it is nearly used up."
        ALERT_CRITICAL_AT: i64 = Setting::int(Budget, "alert_critical_at", "90").within(0, 100).group("alerts");

        "Percent of the monthly budget from which on it counts as used up."
        ALERT_HARD_STOP_AT: i64 = Setting::int(Budget, "alert_hard_stop_at", "100").within(0, 100).group("alerts");

        "Whether cheaper models take over when money runs short."
        AUTO_DOWNGRADE_ENABLED: bool = Setting::switch(Budget, "auto_downgrade_enabled", "false")
            .group("downgrade").advanced();

        "Percent of the monthly budget from which on cheaper models take over."
        AUTO_DOWNGRADE_THRESHOLD: i64 = Setting::int(Budget, "auto_downgrade_threshold", "85").within(0, 100)
            .group("downgrade").advanced();

        "Pairs of a model and the one that takes over: [[from, to], ...]."
        AUTO_DOWNGRADE_MAP: Value = Setting::json(Budget, "auto_downgrade_map", Some("[]"))
            .shaped(shape::downgrades).group("downgrade").advanced();

        "When a cheaper model may take over."
        AUTO_DOWNGRADE_BOUNDARY: String =
            Setting::word(Budget, "auto_downgrade_boundary", &["task_assignment"], "task_assignment")
            .group("downgrade").advanced();

        "Whether risk is counted."
        RISK_ENABLED: bool = Setting::switch(Budget, "risk_enabled", "false").group("risk").advanced();

        "Most risk units of one task."
        RISK_PER_TASK_LIMIT: f64 = Setting::float(Budget, "risk_per_task_limit", "5.0").within(0.0, 1e9)
            .group("risk").advanced();

        "Most risk units of one agent in a day."
        RISK_PER_AGENT_DAILY_LIMIT: f64 = Setting::float(Budget, "risk_per_agent_daily_limit", "20.0")
            .within(0.0, 1e9).group("risk").advanced();

        "Most risk units in a day."
        RISK_TOTAL_DAILY_LIMIT: f64 = Setting::float(Budget, "risk_total_daily_limit", "100.0").within(0.0, 1e9)
            .group("risk").advanced();

        "Percent of the daily risk from which on it is worth a look."
        RISK_ALERT_WARN_AT: i64 = Setting::int(Budget, "risk_alert_warn_at", "75").within(0, 100)
            .group("risk").advanced();

        "Percent of the daily risk from which on it is nearly used up."
        RISK_ALERT_CRITICAL_AT: i64 = Setting::int(Budget, "risk_alert_critical_at", "90").within(0, 100)
            .group("risk").advanced();

        "Whether productive and other tokens are told apart."
        PTE_TRACKING_ENABLED: bool = Setting::switch(Budget, "pte_tracking_enabled", "false")
            .group("tracking").advanced();

        "Cost records that are kept however old they are; sums outlive them all."
        RECORDS_KEPT: i64 = Setting::int(Budget, "records_kept", "100000").within(1_000, 100_000_000)
            .group("tracking").advanced();

        "Age up to which cost records are kept however many there are, in hours."
        RECORDS_KEPT_HOURS: i64 = Setting::int(Budget, "records_kept_hours", "168").within(168, 87_600)
            .group("tracking").advanced();
    }
}

/// Messages between agents, and streams of what they do.
pub mod communication {
    use super::super::Namespace::Communication;
    use super::super::{Definition, Setting};

    settings! {
        "Longest wait of one look for messages to bring to people who watch, in seconds."
        BUS_BRIDGE_POLL_TIMEOUT_SECONDS: f64 = Setting::float(Communication, "bus_bridge_poll_timeout_seconds", "1.0")
            .within(0.1, 10.0).group("bridge").advanced();

        "Failures in a row after which a channel of messages counts as dead; it is tried again later."
        BUS_BRIDGE_MAX_CONSECUTIVE_ERRORS: i64 = Setting::int(Communication, "bus_bridge_max_consecutive_errors", "30")
            .within(5, 100).group("bridge").advanced();

        "Longest time in which looks for messages end when the server stops, in seconds."
        BUS_BRIDGE_DRAIN_TIMEOUT_SECONDS: f64 = Setting::float(Communication, "bus_bridge_drain_timeout_seconds", "10.0")
            .within(1.0, 300.0).group("bridge").advanced();

        "Messages read at a time from a history in NATS."
        NATS_HISTORY_BATCH_SIZE: i64 = Setting::int(Communication, "nats_history_batch_size", "100").within(10, 1000)
            .group("nats").advanced();

        "Silence after which a history in NATS counts as read, in seconds."
        NATS_HISTORY_FETCH_TIMEOUT_SECONDS: f64 =
            Setting::float(Communication, "nats_history_fetch_timeout_seconds", "0.5").within(0.1, 5.0)
            .group("nats").advanced();

        "Events that may wait for one reader of an event stream; beyond that the newest are dropped."
        EVENT_STREAM_MAX_QUEUE_SIZE: i64 = Setting::int(Communication, "event_stream_max_queue_size", "256")
            .within(16, 10_000).group("streams").advanced().restart();
    }
}

/// The company as a whole.
pub mod company {
    use super::super::Namespace::Company;
    use super::super::{Definition, Setting};

    settings! {
        "How freely agents act."
        AUTONOMY_LEVEL: String =
            Setting::word(Company, "autonomy_level", &["locked", "supervised", "semi", "full"], "semi")
            .group("autonomy");
    }
}

/// Tasks, and how they are reviewed.
pub mod engine {
    use serde_json::Value;

    use super::super::Namespace::Engine;
    use super::super::{Definition, Setting, shape};

    settings! {
        "Most changes of tasks that wait while others are made; more are refused at once. 0 for no bound."
        MAX_QUEUE_SIZE: i64 = Setting::int(Engine, "max_queue_size", "1000").within(0, 1_000_000)
            .group("tasks").advanced().file("engine.max_queue_size");

        "Longest time a stop waits for changes of tasks that were accepted, in seconds."
        DRAIN_TIMEOUT_SECONDS: f64 = Setting::float(Engine, "drain_timeout_seconds", "10.0").within(0.1, 300.0)
            .group("tasks").advanced().file("engine.drain_timeout_seconds");

        "Whether agents are told of every change of a task, as a message on their channel `tasks`."
        PUBLISH_SNAPSHOTS: bool = Setting::switch(Engine, "publish_snapshots", "true")
            .group("tasks").advanced().file("engine.publish_snapshots");

        "Whether tasks that are blocked, failed, interrupted or suspended may be cancelled."
        CANCEL_STUCK_TASKS: bool = Setting::switch(Engine, "cancel_stuck_tasks", "false")
            .group("tasks").file("engine.cancel_stuck_tasks");

        "Stages of the review pipeline in order: built-in ones, and others that only people decide."
        REVIEW_STAGES: Value =
            Setting::json(Engine, "review_stages", Some(r#"["acceptance_criteria","artifacts_expected"]"#))
            .shaped(shape::stages).group("review");
    }
}

/// Logs.
pub mod observability {
    use serde_json::Value;

    use super::super::Namespace::Observability;
    use super::super::{Definition, Setting, shape};

    /// Levels of log events, the most talkative first.
    pub const LEVELS: &[&str] = &["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];

    settings! {
        "Least level of the events that are logged."
        ROOT_LOG_LEVEL: String = Setting::word(Observability, "root_log_level", LEVELS, "INFO")
            .group("logging").file("observability.root_log_level");

        "Levels of single loggers: logger name to level."
        PER_LOGGER_LEVELS: Value = Setting::json(Observability, "per_logger_levels", Some("{}"))
            .shaped(shape::levels).group("logging").advanced().file("observability.per_logger_levels");

        "Whether events carry the ids of the request, task and agent they belong to."
        ENABLE_CORRELATION: bool = Setting::switch(Observability, "enable_correlation", "true")
            .group("logging").advanced().file("observability.enable_correlation");

        "Changes to the built-in log sinks: sink identifier to the members that differ."
        SINK_OVERRIDES: Value = Setting::json(Observability, "sink_overrides", Some("{}"))
            .shaped(shape::object_of_objects).group("sinks").advanced().file("observability.sink_overrides");

        "Further log sinks."
        CUSTOM_SINKS: Value = Setting::json(Observability, "custom_sinks", Some("[]"))
            .shaped(shape::list_of_objects).group("sinks").advanced().file("observability.custom_sinks");
    }
}

/// The security policy that can be exported and imported.
pub mod security {
    use serde_json::Value;

    use super::super::Namespace::Security;
    use super::super::{Definition, Setting, shape};

    settings! {
        "Failed sign-ins within the window after which an account is locked."
        LOCKOUT_THRESHOLD: i64 = Setting::int(Security, "lockout_threshold", "10").within(1, 100)
            .group("lockout").file("api.auth.lockout_threshold");

        "Time in which failed sign-ins are counted, in minutes."
        LOCKOUT_WINDOW_MINUTES: i64 = Setting::int(Security, "lockout_window_minutes", "15").within(1, 1440)
            .group("lockout").file("api.auth.lockout_window_minutes");

        "Time an account stays locked, in minutes."
        LOCKOUT_DURATION_MINUTES: i64 = Setting::int(Security, "lockout_duration_minutes", "15").within(1, 1440)
            .group("lockout").file("api.auth.lockout_duration_minutes");

        "Most sessions a user may have at once; the oldest make way. 0 for no bound."
        MAX_CONCURRENT_SESSIONS: i64 = Setting::int(Security, "max_concurrent_sessions", "5").within(0, 100)
            .group("sessions").file("api.auth.max_concurrent_sessions");

        "Whether who asks for an approval is refused to decide it."
        FORBID_SELF_DECISION: bool = Setting::switch(Security, "forbid_self_decision", "false")
            .group("approvals").file("security.forbid_self_decision");

        "What becomes of approvals nobody decides: wait, deny after a time, or tiers by risk and action."
        APPROVAL_TIMEOUT_POLICY: Value =
            Setting::json(Security, "approval_timeout_policy", Some(r#"{"type":"wait"}"#))
            .shaped(shape::timeout_policy).group("approvals").advanced().file("security.approval_timeout_policy");
        "Whether only CEO, managers and board members may read the audit trail."
        AUDIT_RESTRICTED: bool = Setting::switch(Security, "audit_restricted", "false").group("audit");
    }
}

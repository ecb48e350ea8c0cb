-- Events committed with their change and still to be told, where a broker or another process tells them.
-- dialect: sqlite
CREATE TABLE realtime_outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    channel TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- dialect: postgres
CREATE TABLE realtime_outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id TEXT NOT NULL,
    channel TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- The shared log. The row of a channel is its lock: who has counted up `top` commits before the next one
-- can, so that sequence is commit order.
CREATE TABLE realtime_channels (
    channel TEXT PRIMARY KEY,
    epoch TEXT NOT NULL,
    top BIGINT NOT NULL,
    floor BIGINT NOT NULL,
    touched_at BIGINT NOT NULL
);
CREATE TABLE realtime_events (
    channel TEXT NOT NULL REFERENCES realtime_channels (channel) ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (channel, seq)
);

-- One-time tickets that any copy of the program may take back.
CREATE TABLE ws_tickets (
    digest TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    session_id TEXT,
    expires_at BIGINT NOT NULL
);
CREATE INDEX ws_tickets_user ON ws_tickets (user_id);

-- Who is connected to which copy of the program.
CREATE TABLE presence (
    instance TEXT NOT NULL,
    user_id TEXT NOT NULL,
    connections BIGINT NOT NULL,
    since BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    PRIMARY KEY (instance, user_id)
);

-- dialect: both
CREATE TABLE interrupts (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    session_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    timeout_seconds DOUBLE PRECISION NOT NULL,
    tool_name TEXT,
    tool_args TEXT,
    evidence_package_id TEXT,
    question TEXT,
    context_snippet TEXT,
    status TEXT NOT NULL DEFAULT 'pending',
    decision TEXT,
    feedback TEXT,
    response TEXT,
    resolved_by TEXT,
    resolved_at BIGINT
);
CREATE INDEX interrupts_pending ON interrupts (session_id, created_at) WHERE status = 'pending';

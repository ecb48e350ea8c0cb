-- What was done, by whom: append-only, each entry chained to the one before. `payload` is the entry, in
-- canonical JSON; the other columns repeat of it what is filtered by.
-- dialect: both
CREATE TABLE audit_entries (
    position BIGINT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    recorded_at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    agent_id TEXT,
    task_id TEXT,
    tool_name TEXT NOT NULL,
    action_type TEXT NOT NULL,
    verdict TEXT NOT NULL,
    payload TEXT NOT NULL,
    event_hash TEXT NOT NULL,
    previous_hash TEXT NOT NULL,
    signature TEXT NOT NULL,
    key_id TEXT NOT NULL
);
CREATE INDEX audit_entries_time ON audit_entries (recorded_at);
CREATE INDEX audit_entries_action ON audit_entries (action_type, position);
CREATE INDEX audit_entries_task ON audit_entries (task_id, position) WHERE task_id IS NOT NULL;
CREATE INDEX audit_entries_agent ON audit_entries (agent_id, position) WHERE agent_id IS NOT NULL;

-- The end of the chain; its row is the lock writers take. Signed, so that the newest entries cannot go
-- missing unnoticed.
CREATE TABLE audit_head (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    position BIGINT NOT NULL,
    link TEXT NOT NULL,
    signature TEXT NOT NULL,
    key_id TEXT NOT NULL
);
INSERT INTO audit_head (id, position, link, signature, key_id) VALUES (1, -1, 'genesis', '', '');

-- Answers kept for requests that are repeated with the same key.
CREATE TABLE idempotency_keys (
    scope TEXT NOT NULL,
    key_digest TEXT NOT NULL,
    request_digest TEXT NOT NULL,
    status BIGINT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (scope, key_digest)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- dialect: sqlite
CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries
BEGIN SELECT RAISE(ABORT, 'audit_append_only'); END;
CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries
BEGIN SELECT RAISE(ABORT, 'audit_append_only'); END;

-- dialect: postgres
CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_append_only';
END $$;
CREATE TRIGGER audit_entries_keep BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();

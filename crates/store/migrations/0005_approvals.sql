-- What people decide before something happens, and what reviewers have decided about finished work.
-- dialect: both
CREATE TABLE approvals (
    id TEXT PRIMARY KEY,
    action_type TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    requester_id TEXT NOT NULL,
    risk_level TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending',
    created_at BIGINT NOT NULL,
    expires_at BIGINT CHECK (expires_at > created_at),
    decided_at BIGINT,
    decided_by TEXT,
    decision_reason TEXT,
    task_id TEXT,
    evidence_package TEXT,
    metadata TEXT NOT NULL,
    CHECK ((status IN ('approved', 'rejected')) = (decided_at IS NOT NULL)),
    CHECK ((decided_at IS NULL) = (decided_by IS NULL)),
    CHECK (status <> 'rejected' OR decision_reason IS NOT NULL)
);
CREATE INDEX approvals_order ON approvals (created_at, id);
CREATE INDEX approvals_status ON approvals (status, created_at, id);
CREATE INDEX approvals_due ON approvals (expires_at) WHERE status = 'pending' AND expires_at IS NOT NULL;
CREATE INDEX approvals_task ON approvals (task_id) WHERE task_id IS NOT NULL;

CREATE TABLE decision_records (
    id TEXT PRIMARY KEY,
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE RESTRICT,
    approval_id TEXT,
    executing_agent_id TEXT NOT NULL,
    reviewer_agent_id TEXT NOT NULL,
    decision TEXT NOT NULL,
    reason TEXT,
    criteria_snapshot TEXT NOT NULL,
    recorded_at BIGINT NOT NULL,
    version BIGINT NOT NULL CHECK (version >= 1),
    metadata TEXT NOT NULL,
    UNIQUE (task_id, version),
    CHECK (executing_agent_id <> reviewer_agent_id)
);

-- dialect: sqlite
CREATE TRIGGER approvals_count_insert AFTER INSERT ON approvals
BEGIN
    INSERT INTO row_counts (kind, status, total) VALUES ('approvals', NEW.status, 1)
    ON CONFLICT (kind, status) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER approvals_count_move AFTER UPDATE OF status ON approvals WHEN OLD.status <> NEW.status
BEGIN
    UPDATE row_counts SET total = total - 1 WHERE kind = 'approvals' AND status = OLD.status;
    INSERT INTO row_counts (kind, status, total) VALUES ('approvals', NEW.status, 1)
    ON CONFLICT (kind, status) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER decision_records_no_update BEFORE UPDATE ON decision_records
BEGIN SELECT RAISE(ABORT, 'decision_records_append_only'); END;
CREATE TRIGGER decision_records_no_delete BEFORE DELETE ON decision_records
BEGIN SELECT RAISE(ABORT, 'decision_records_append_only'); END;

-- dialect: postgres
CREATE CONSTRAINT TRIGGER approvals_count AFTER INSERT OR DELETE OR UPDATE OF status ON approvals
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_rows();
CREATE FUNCTION decision_records_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'decision_records_append_only';
END $$;
CREATE TRIGGER decision_records_keep BEFORE UPDATE OR DELETE OR TRUNCATE ON decision_records
    FOR EACH STATEMENT EXECUTE FUNCTION decision_records_append_only();

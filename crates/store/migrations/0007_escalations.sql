-- Conflicts between agents, put before people. `conflict` and `decision` are JSON.
-- dialect: both
CREATE TABLE escalations (
    id TEXT PRIMARY KEY,
    conflict_id TEXT NOT NULL,
    task_id TEXT,
    conflict TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'decided', 'expired', 'cancelled')),
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    decided_at BIGINT,
    decided_by TEXT CHECK (decided_by LIKE 'human:%' OR decided_by LIKE 'system:%'),
    decision TEXT,
    cancel_reason TEXT,
    CHECK ((status = 'pending') = (decided_at IS NULL)),
    CHECK ((status = 'pending') = (decided_by IS NULL)),
    CHECK ((status = 'decided') = (decision IS NOT NULL))
);
CREATE UNIQUE INDEX escalations_one_pending ON escalations (conflict_id) WHERE status = 'pending';
CREATE INDEX escalations_listed ON escalations (status, created_at, id);
CREATE INDEX escalations_due ON escalations (expires_at) WHERE status = 'pending';

-- Positions that lost, one row each.
CREATE TABLE dissents (
    escalation_id TEXT NOT NULL REFERENCES escalations (id),
    conflict_id TEXT NOT NULL,
    task_id TEXT,
    agent_id TEXT NOT NULL,
    position TEXT NOT NULL,
    reasoning TEXT NOT NULL,
    outcome TEXT NOT NULL,
    recorded_at BIGINT NOT NULL,
    PRIMARY KEY (escalation_id, agent_id)
);

-- Meetings on record. `participants` and `minutes` are JSON.
CREATE TABLE meetings (
    id TEXT PRIMARY KEY,
    type_name TEXT NOT NULL,
    protocol TEXT NOT NULL,
    status TEXT NOT NULL,
    token_budget BIGINT NOT NULL CHECK (token_budget > 0),
    participants TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    minutes TEXT,
    error_message TEXT,
    CHECK ((status = 'completed') = (minutes IS NOT NULL)),
    CHECK ((status IN ('failed', 'budget_exhausted')) = (error_message IS NOT NULL))
);
CREATE INDEX meetings_time ON meetings (started_at, id);
CREATE INDEX meetings_status ON meetings (status, started_at, id);
CREATE INDEX meetings_type ON meetings (type_name, started_at, id);

-- When a meeting of each type was last begun: the row is what copies of the program race for.
CREATE TABLE meeting_runs (
    type_name TEXT PRIMARY KEY,
    begun_at BIGINT NOT NULL
);

-- dialect: sqlite
CREATE TRIGGER escalations_count_insert AFTER INSERT ON escalations
BEGIN
    INSERT INTO row_counts (kind, status, total) VALUES ('escalations', NEW.status, 1)
    ON CONFLICT (kind, status) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER escalations_count_move AFTER UPDATE OF status ON escalations WHEN OLD.status <> NEW.status
BEGIN
    UPDATE row_counts SET total = total - 1 WHERE kind = 'escalations' AND status = OLD.status;
    INSERT INTO row_counts (kind, status, total) VALUES ('escalations', NEW.status, 1)
    ON CONFLICT (kind, status) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER meetings_count_insert AFTER INSERT ON meetings
BEGIN
    INSERT INTO row_counts (kind, status, total) VALUES ('meetings', NEW.status, 1)
    ON CONFLICT (kind, status) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER meetings_count_move AFTER UPDATE OF status ON meetings WHEN OLD.status <> NEW.status
BEGIN
    UPDATE row_counts SET total = total - 1 WHERE kind = 'meetings' AND status = OLD.status;
    INSERT INTO row_counts (kind, status, total) VALUES ('meetings', NEW.status, 1)
    ON CONFLICT (kind, status) DO UPDATE SET total = total + 1;
END;

-- dialect: postgres
CREATE CONSTRAINT TRIGGER escalations_count AFTER INSERT OR DELETE OR UPDATE OF status ON escalations
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_rows();
CREATE CONSTRAINT TRIGGER meetings_count AFTER INSERT OR DELETE OR UPDATE OF status ON meetings
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_rows();

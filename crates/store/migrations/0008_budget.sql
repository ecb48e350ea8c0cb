-- What calls of models have cost; never changed. Amounts are whole units of the currency, and beside them
-- ten-thousand-millionths of one. The indexes are the orders pages are read in.
-- dialect: both
CREATE TABLE cost_records (
    id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    project_id TEXT,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    whole BIGINT NOT NULL,
    fraction BIGINT NOT NULL,
    currency TEXT NOT NULL,
    recorded_at BIGINT NOT NULL,
    call_category TEXT,
    accuracy_effort_ratio DOUBLE PRECISION,
    latency_ms DOUBLE PRECISION,
    cache_hit BOOLEAN,
    retry_count BIGINT,
    retry_reason TEXT,
    finish_reason TEXT,
    success BOOLEAN
);
CREATE INDEX cost_records_time ON cost_records (recorded_at, id);
CREATE INDEX cost_records_agent ON cost_records (agent_id, recorded_at, id);
CREATE INDEX cost_records_task ON cost_records (task_id, recorded_at, id);

-- Sums of the records of each day, days counted from 1970 UTC: of all, of an agent, of a task, and of an
-- agent in a task; an empty id stands for all. They outlive the records.
CREATE TABLE cost_days (
    agent_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    day BIGINT NOT NULL,
    currency TEXT NOT NULL,
    whole BIGINT NOT NULL,
    fraction BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    records BIGINT NOT NULL,
    PRIMARY KEY (agent_id, task_id, day, currency)
);

-- Every budget that was ever in force.
CREATE TABLE budget_config_versions (
    version BIGINT PRIMARY KEY,
    content_hash TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    saved_by TEXT NOT NULL,
    saved_at BIGINT NOT NULL
);

-- How well agents have worked together; the newest are kept.
CREATE TABLE coordination_metrics (
    id TEXT PRIMARY KEY,
    task_id TEXT NOT NULL,
    agent_id TEXT,
    computed_at BIGINT NOT NULL,
    team_size BIGINT NOT NULL,
    metrics TEXT NOT NULL
);
CREATE INDEX coordination_metrics_time ON coordination_metrics (computed_at, id);
CREATE INDEX coordination_metrics_task ON coordination_metrics (task_id, computed_at, id);
CREATE INDEX coordination_metrics_agent ON coordination_metrics (agent_id, computed_at, id);

-- What people have decided instead of stages of a review; the newest of a stage counts.
CREATE TABLE review_stage_decisions (
    id TEXT PRIMARY KEY,
    task_id TEXT NOT NULL,
    stage_name TEXT NOT NULL,
    number BIGINT NOT NULL,
    verdict TEXT NOT NULL,
    reason TEXT,
    decided_by TEXT NOT NULL,
    decided_at BIGINT NOT NULL,
    UNIQUE (task_id, stage_name, number)
);

-- dialect: sqlite
CREATE TRIGGER cost_records_no_update BEFORE UPDATE ON cost_records
BEGIN SELECT RAISE(ABORT, 'cost_records_immutable'); END;
CREATE TRIGGER budget_config_versions_no_update BEFORE UPDATE ON budget_config_versions
BEGIN SELECT RAISE(ABORT, 'budget_config_versions_immutable'); END;
CREATE TRIGGER budget_config_versions_no_delete BEFORE DELETE ON budget_config_versions
BEGIN SELECT RAISE(ABORT, 'budget_config_versions_immutable'); END;
CREATE TRIGGER review_stage_decisions_no_update BEFORE UPDATE ON review_stage_decisions
BEGIN SELECT RAISE(ABORT, 'review_stage_decisions_immutable'); END;

-- dialect: postgres
CREATE FUNCTION budget_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%_immutable', TG_TABLE_NAME;
END $$;
CREATE TRIGGER cost_records_keep BEFORE UPDATE ON cost_records
    FOR EACH STATEMENT EXECUTE FUNCTION budget_immutable();
CREATE TRIGGER budget_config_versions_keep BEFORE UPDATE OR DELETE OR TRUNCATE ON budget_config_versions
    FOR EACH STATEMENT EXECUTE FUNCTION budget_immutable();
CREATE TRIGGER review_stage_decisions_keep BEFORE UPDATE ON review_stage_decisions
    FOR EACH STATEMENT EXECUTE FUNCTION budget_immutable();

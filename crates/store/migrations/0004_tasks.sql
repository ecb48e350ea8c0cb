-- Tasks. `document` is the task in its wire form; the other columns repeat of it what is looked for and
-- counted.
-- dialect: both
CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    assigned_to TEXT,
    project TEXT NOT NULL,
    version BIGINT NOT NULL CHECK (version >= 1),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    finished_at BIGINT,
    document TEXT NOT NULL
);
-- One index for each way a list is asked for; all end in the order lists have.
CREATE INDEX tasks_order ON tasks (created_at, id);
CREATE INDEX tasks_status ON tasks (status, created_at, id);
CREATE INDEX tasks_project ON tasks (project, created_at, id);
CREATE INDEX tasks_assignee ON tasks (assigned_to, created_at, id) WHERE assigned_to IS NOT NULL;
CREATE INDEX tasks_finished ON tasks (finished_at, status) WHERE finished_at IS NOT NULL;

-- How many rows of a table have a status, kept by triggers, so that no list has to count what it does not
-- show.
CREATE TABLE row_counts (
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    total BIGINT NOT NULL,
    PRIMARY KEY (kind, status)
);

-- dialect: sqlite
CREATE TRIGGER tasks_count_insert AFTER INSERT ON tasks
BEGIN
    INSERT INTO row_counts (kind, status, total) VALUES ('tasks', NEW.status, 1)
    ON CONFLICT (kind, status) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER tasks_count_delete AFTER DELETE ON tasks
BEGIN
    UPDATE row_counts SET total = total - 1 WHERE kind = 'tasks' AND status = OLD.status;
END;
CREATE TRIGGER tasks_count_move AFTER UPDATE OF status ON tasks WHEN OLD.status <> NEW.status
BEGIN
    UPDATE row_counts SET total = total - 1 WHERE kind = 'tasks' AND status = OLD.status;
    INSERT INTO row_counts (kind, status, total) VALUES ('tasks', NEW.status, 1)
    ON CONFLICT (kind, status) DO UPDATE SET total = total + 1;
END;

-- dialect: postgres
-- Deferred to the commit: by then its transaction holds the audit chain, so that no two wait for each
-- other's rows.
CREATE FUNCTION count_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE row_counts SET total = total - 1 WHERE kind = TG_TABLE_NAME AND status = OLD.status;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO row_counts (kind, status, total) VALUES (TG_TABLE_NAME, NEW.status, 1)
        ON CONFLICT (kind, status) DO UPDATE SET total = row_counts.total + 1;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER tasks_count AFTER INSERT OR DELETE OR UPDATE OF status ON tasks
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_rows();

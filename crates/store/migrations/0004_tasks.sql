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

-- How many tasks stand where, kept by triggers, so that no list has to count what it does not show.
CREATE TABLE task_counts (
    status TEXT PRIMARY KEY,
    tasks BIGINT NOT NULL
);

-- dialect: sqlite
CREATE TRIGGER tasks_count_insert AFTER INSERT ON tasks
BEGIN
    INSERT INTO task_counts (status, tasks) VALUES (NEW.status, 1)
    ON CONFLICT (status) DO UPDATE SET tasks = tasks + 1;
END;
CREATE TRIGGER tasks_count_delete AFTER DELETE ON tasks
BEGIN
    UPDATE task_counts SET tasks = tasks - 1 WHERE status = OLD.status;
END;
CREATE TRIGGER tasks_count_move AFTER UPDATE OF status ON tasks WHEN OLD.status <> NEW.status
BEGIN
    UPDATE task_counts SET tasks = tasks - 1 WHERE status = OLD.status;
    INSERT INTO task_counts (status, tasks) VALUES (NEW.status, 1)
    ON CONFLICT (status) DO UPDATE SET tasks = tasks + 1;
END;

-- dialect: postgres
-- Deferred to the commit: by then its transaction holds the audit chain, so that no two wait for each
-- other's rows.
CREATE FUNCTION tasks_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE task_counts SET tasks = tasks - 1 WHERE status = OLD.status;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO task_counts (status, tasks) VALUES (NEW.status, 1)
        ON CONFLICT (status) DO UPDATE SET tasks = task_counts.tasks + 1;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER tasks_count AFTER INSERT OR DELETE OR UPDATE OF status ON tasks
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tasks_count();

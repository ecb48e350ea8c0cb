-- How many tasks a project and an assignee have; `status` holds which.
-- dialect: both
INSERT INTO row_counts (kind, status, total)
SELECT 'tasks.project', project, count(*) FROM tasks GROUP BY project;
INSERT INTO row_counts (kind, status, total)
SELECT 'tasks.assignee', assigned_to, count(*) FROM tasks WHERE assigned_to IS NOT NULL GROUP BY assigned_to;

-- dialect: sqlite
CREATE TRIGGER tasks_count_project_insert AFTER INSERT ON tasks
BEGIN
    INSERT INTO row_counts (kind, status, total) VALUES ('tasks.project', NEW.project, 1)
    ON CONFLICT (kind, status) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER tasks_count_assignee_insert AFTER INSERT ON tasks WHEN NEW.assigned_to IS NOT NULL
BEGIN
    INSERT INTO row_counts (kind, status, total) VALUES ('tasks.assignee', NEW.assigned_to, 1)
    ON CONFLICT (kind, status) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER tasks_count_place_delete AFTER DELETE ON tasks
BEGIN
    UPDATE row_counts SET total = total - 1 WHERE kind = 'tasks.project' AND status = OLD.project;
    UPDATE row_counts SET total = total - 1 WHERE kind = 'tasks.assignee' AND status = OLD.assigned_to;
    DELETE FROM row_counts WHERE kind = 'tasks.project' AND status = OLD.project AND total = 0;
    DELETE FROM row_counts WHERE kind = 'tasks.assignee' AND status = OLD.assigned_to AND total = 0;
END;
CREATE TRIGGER tasks_count_project_move AFTER UPDATE OF project ON tasks WHEN OLD.project <> NEW.project
BEGIN
    UPDATE row_counts SET total = total - 1 WHERE kind = 'tasks.project' AND status = OLD.project;
    DELETE FROM row_counts WHERE kind = 'tasks.project' AND status = OLD.project AND total = 0;
    INSERT INTO row_counts (kind, status, total) VALUES ('tasks.project', NEW.project, 1)
    ON CONFLICT (kind, status) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER tasks_count_assignee_leave AFTER UPDATE OF assigned_to ON tasks
WHEN OLD.assigned_to IS NOT NULL AND OLD.assigned_to IS NOT NEW.assigned_to
BEGIN
    UPDATE row_counts SET total = total - 1 WHERE kind = 'tasks.assignee' AND status = OLD.assigned_to;
    DELETE FROM row_counts WHERE kind = 'tasks.assignee' AND status = OLD.assigned_to AND total = 0;
END;
CREATE TRIGGER tasks_count_assignee_join AFTER UPDATE OF assigned_to ON tasks
WHEN NEW.assigned_to IS NOT NULL AND NEW.assigned_to IS NOT OLD.assigned_to
BEGIN
    INSERT INTO row_counts (kind, status, total) VALUES ('tasks.assignee', NEW.assigned_to, 1)
    ON CONFLICT (kind, status) DO UPDATE SET total = total + 1;
END;

-- dialect: postgres
CREATE FUNCTION count_row(counted text, value text, change bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF value IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO row_counts (kind, status, total) VALUES (counted, value, change)
    ON CONFLICT (kind, status) DO UPDATE SET total = row_counts.total + change;
    DELETE FROM row_counts WHERE kind = counted AND status = value AND total = 0;
END $$;
CREATE FUNCTION count_places_of_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.project = NEW.project AND OLD.assigned_to IS NOT DISTINCT FROM NEW.assigned_to THEN
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        PERFORM count_row('tasks.project', OLD.project, -1);
        PERFORM count_row('tasks.assignee', OLD.assigned_to, -1);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM count_row('tasks.project', NEW.project, 1);
        PERFORM count_row('tasks.assignee', NEW.assigned_to, 1);
    END IF;
    RETURN NULL;
END $$;
-- Deferred to the commit, as the counts by status are.
CREATE CONSTRAINT TRIGGER tasks_count_places AFTER INSERT OR DELETE OR UPDATE OF project, assigned_to ON tasks
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_places_of_tasks();

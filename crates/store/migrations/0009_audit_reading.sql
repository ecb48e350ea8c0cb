-- Reading the audit trail: newest first is by time, and the position tells entries of one time apart. Each
-- filter has an index in that order, so that a page costs the same however long the trail is.
-- dialect: both
DROP INDEX audit_entries_time;
DROP INDEX audit_entries_action;
DROP INDEX audit_entries_agent;
CREATE INDEX audit_entries_time ON audit_entries (recorded_at, position);
CREATE INDEX audit_entries_action ON audit_entries (action_type, recorded_at, position);
CREATE INDEX audit_entries_actor ON audit_entries (actor, recorded_at, position);
CREATE INDEX audit_entries_tool ON audit_entries (tool_name, recorded_at, position);
CREATE INDEX audit_entries_agent ON audit_entries (agent_id, recorded_at, position) WHERE agent_id IS NOT NULL;
-- Nearly everything is allowed; what is not has to be found without walking through that.
CREATE INDEX audit_entries_verdict ON audit_entries (verdict, recorded_at, position) WHERE verdict <> 'allow';

-- dialect: sqlite
-- INSERT OR REPLACE removes a row without asking the trigger for removals.
CREATE TRIGGER audit_entries_no_replace BEFORE INSERT ON audit_entries
WHEN EXISTS (SELECT 1 FROM audit_entries WHERE position = NEW.position OR id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'audit_append_only'); END;

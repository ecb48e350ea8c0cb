-- What teams work towards. `team` is a JSON array of agent ids.
-- dialect: both
CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    team TEXT NOT NULL,
    lead TEXT,
    deadline TEXT,
    budget DOUBLE PRECISION NOT NULL,
    status TEXT NOT NULL
);
CREATE INDEX projects_status ON projects (status, id);
CREATE INDEX projects_lead ON projects (lead, id) WHERE lead IS NOT NULL;

-- What came out of tasks. The bytes are elsewhere, under the id and `content_version`; without a version
-- there are none.
CREATE TABLE artifacts (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    path TEXT NOT NULL,
    task_id TEXT NOT NULL,
    created_by TEXT NOT NULL,
    description TEXT NOT NULL,
    project_id TEXT,
    content_type TEXT NOT NULL,
    size_bytes BIGINT NOT NULL DEFAULT 0 CHECK (size_bytes >= 0),
    created_at BIGINT NOT NULL,
    content_version TEXT,
    sha256 TEXT
);
CREATE INDEX artifacts_task ON artifacts (task_id, id);
CREATE INDEX artifacts_creator ON artifacts (created_by, id);
CREATE INDEX artifacts_kind ON artifacts (kind, id);

-- The sum of all `size_bytes`; its row is the lock uploads take.
CREATE TABLE artifact_usage (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    bytes BIGINT NOT NULL CHECK (bytes >= 0)
);
INSERT INTO artifact_usage (id, bytes) VALUES (1, 0);

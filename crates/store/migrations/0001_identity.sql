-- Times are microseconds since 1970-01-01 UTC. JSON arrays are stored as text.

-- dialect: both
CREATE TABLE users (
    id TEXT PRIMARY KEY,
    username TEXT NOT NULL UNIQUE,
    -- Case and compatibility forms folded away: names that read alike are one name.
    username_folded TEXT NOT NULL CONSTRAINT users_username_folded UNIQUE,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL,
    must_change_password BOOLEAN NOT NULL,
    org_roles TEXT NOT NULL,
    scoped_departments TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX users_role ON users (role);
CREATE INDEX users_created ON users (created_at, id);
CREATE UNIQUE INDEX users_one_ceo ON users (role) WHERE role = 'ceo';

-- A row here, for the length of one transaction, lets the CEO role change hands.
CREATE TABLE ceo_transfers (from_user TEXT PRIMARY KEY);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    key_hash TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    revoked BOOLEAN NOT NULL
);
CREATE INDEX api_keys_user ON api_keys (user_id);

CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    username TEXT NOT NULL,
    role TEXT NOT NULL,
    ip_address TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_active_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked BOOLEAN NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id, revoked, expires_at);
CREATE INDEX sessions_revoked ON sessions (revoked, expires_at);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    token_hash TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL,
    used BOOLEAN NOT NULL,
    used_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

CREATE TABLE login_attempts (
    id TEXT PRIMARY KEY,
    username TEXT NOT NULL,
    attempted_at BIGINT NOT NULL,
    ip_address TEXT NOT NULL
);
CREATE INDEX login_attempts_name ON login_attempts (username, attempted_at);
CREATE INDEX login_attempts_address ON login_attempts (ip_address, attempted_at);
CREATE INDEX login_attempts_age ON login_attempts (attempted_at);

CREATE TABLE settings (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (namespace, key)
);

-- dialect: sqlite
CREATE TRIGGER users_keep_ceo_update BEFORE UPDATE OF role ON users
WHEN OLD.role = 'ceo' AND NEW.role <> 'ceo' AND NOT EXISTS (SELECT 1 FROM ceo_transfers WHERE from_user = OLD.id)
BEGIN SELECT RAISE(ABORT, 'users_last_ceo'); END;

CREATE TRIGGER users_keep_ceo_delete BEFORE DELETE ON users WHEN OLD.role = 'ceo'
BEGIN SELECT RAISE(ABORT, 'users_last_ceo'); END;

CREATE TRIGGER users_keep_system BEFORE DELETE ON users WHEN OLD.id = 'system'
BEGIN SELECT RAISE(ABORT, 'users_system'); END;

CREATE TRIGGER users_keep_owner_update BEFORE UPDATE OF org_roles ON users
WHEN instr(OLD.org_roles, '"owner"') > 0 AND instr(NEW.org_roles, '"owner"') = 0
    AND NOT EXISTS (SELECT 1 FROM users WHERE id <> OLD.id AND id <> 'system' AND instr(org_roles, '"owner"') > 0)
BEGIN SELECT RAISE(ABORT, 'users_last_owner'); END;

CREATE TRIGGER users_keep_owner_delete BEFORE DELETE ON users
WHEN instr(OLD.org_roles, '"owner"') > 0
    AND NOT EXISTS (SELECT 1 FROM users WHERE id <> OLD.id AND id <> 'system' AND instr(org_roles, '"owner"') > 0)
BEGIN SELECT RAISE(ABORT, 'users_last_owner'); END;

-- dialect: postgres
CREATE FUNCTION users_keep() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    loses_role boolean := TG_OP = 'DELETE' OR NEW.role <> 'ceo';
    loses_owner boolean := TG_OP = 'DELETE' OR position('"owner"' in NEW.org_roles) = 0;
BEGIN
    IF TG_OP = 'DELETE' AND OLD.id = 'system' THEN
        RAISE EXCEPTION 'users_system';
    END IF;
    IF OLD.role = 'ceo' AND loses_role
        AND NOT (TG_OP = 'UPDATE' AND EXISTS (SELECT 1 FROM ceo_transfers WHERE from_user = OLD.id)) THEN
        RAISE EXCEPTION 'users_last_ceo';
    END IF;
    IF position('"owner"' in OLD.org_roles) > 0 AND loses_owner THEN
        -- Two owners stepping down at once must see each other.
        PERFORM pg_advisory_xact_lock(hashtext('quarterdeck.users.owner'));
        IF NOT EXISTS (SELECT 1 FROM users
                       WHERE id <> OLD.id AND id <> 'system' AND position('"owner"' in org_roles) > 0) THEN
            RAISE EXCEPTION 'users_last_owner';
        END IF;
    END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER users_keep BEFORE UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION users_keep();

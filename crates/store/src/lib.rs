//! Rows, migrations, queries and sealed secrets on SQLite and PostgreSQL.

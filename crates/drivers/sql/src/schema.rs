//! What is made in a database, version by version. Its names begin with `hotpair_`.
//!
//! | table | |
//! |---|---|
//! | `hotpair_store` | one row: whose it is, the fence, the mark |
//! | `hotpair_rows` | rows of tables without a mapping: name, key, value, version |
//! | `hotpair_quarantine` | rows that do not fit their columns, with the reason |
//! | `hotpair_mappings` | which tables were made by which mapping |
//! | `hotpair_migrations` | which of these versions were made, and when |

/// Statements by version, for each kind of database; a version once published is never changed.
pub(crate) struct Migration {
    pub(crate) postgres: &'static str,
    pub(crate) sqlite: &'static str,
}

/// All versions, from 1.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    postgres: "
CREATE TABLE hotpair_store (
    one integer PRIMARY KEY CHECK (one = 1),
    pair text NOT NULL,
    cluster text NOT NULL,
    epoch bigint NOT NULL,
    node text NOT NULL,
    instance text NOT NULL,
    record_epoch bigint NOT NULL,
    life bigint NOT NULL,
    number bigint NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE hotpair_rows (
    name text NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (name, key)
) WITH (fillfactor = 80);
CREATE TABLE hotpair_quarantine (
    name text NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    version bigint NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, key)
);
CREATE TABLE hotpair_mappings (
    name text PRIMARY KEY,
    sql_table text NOT NULL,
    definition text NOT NULL
);",
    sqlite: "
CREATE TABLE hotpair_store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    pair TEXT NOT NULL,
    cluster TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    node TEXT NOT NULL,
    instance TEXT NOT NULL,
    record_epoch INTEGER NOT NULL,
    life INTEGER NOT NULL,
    number INTEGER NOT NULL,
    written_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE hotpair_rows (
    name TEXT NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (name, key)
) WITHOUT ROWID;
CREATE TABLE hotpair_quarantine (
    name TEXT NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    version INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (name, key)
) WITHOUT ROWID;
CREATE TABLE hotpair_mappings (
    name TEXT PRIMARY KEY,
    sql_table TEXT NOT NULL,
    definition TEXT NOT NULL
);",
}];

/// Rows in quarantine are counted up to here.
pub(crate) const QUARANTINE_COUNTED: &str =
    "SELECT count(*) FROM (SELECT 1 FROM hotpair_quarantine LIMIT 100000) counted";

/// What a migrated table is that the program does not know.
pub(crate) fn too_new(found: i64) -> String {
    format!(
        "its hotpair tables are of version {found}, and this program knows {}: it was written by a \
         newer one",
        MIGRATIONS.len()
    )
}

//! SQLite: a file of this node, a copy of the tables, whether this node is master or not.
//!
//! The file belongs to one data directory: two nodes given the same file are told so. It is written
//! ahead (WAL), so that readers see whole transactions and wait for none. A file that goes away while it
//! is open is noticed, and made anew.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::behind::{Failure, Mark, Term};
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params, params_from_iter};

use crate::mapping::{Cell, ColumnKind, Mapping, VERSION};
use crate::prepared::{Plain, Prepared};
use crate::schema::{MIGRATIONS, QUARANTINE_COUNTED, too_new};
use crate::sink::{Writer, foreign, signed};

/// Somebody else who writes into the file is waited for.
const BUSY_WAIT: Duration = Duration::from_secs(2);
/// The fence of every transaction.
const FENCE: &str = "UPDATE hotpair_store SET written_at = CURRENT_TIMESTAMP WHERE one = 1 \
                     AND cluster = ?1 AND instance = ?2 AND record_epoch = ?3 AND life = ?4 \
                     AND number = ?5";
const MOVE_MARK: &str = "UPDATE hotpair_store SET epoch = max(epoch, ?3), record_epoch = ?3, \
                         life = ?4, number = ?5 WHERE one = 1 AND cluster = ?1 AND instance = ?2";
const PUT_ROW: &str = "INSERT INTO hotpair_rows (name, key, value, version) VALUES (?1, ?2, ?3, ?4) \
                       ON CONFLICT (name, key) DO UPDATE \
                       SET value = excluded.value, version = excluded.version";
const DELETE_ROW: &str = "DELETE FROM hotpair_rows WHERE name = ?1 AND key = ?2";
const PUT_QUARANTINE: &str = "INSERT INTO hotpair_quarantine (name, key, value, version, reason) VALUES (?1, ?2, ?3, ?4, ?5) \
     ON CONFLICT (name, key) DO UPDATE SET value = excluded.value, version = excluded.version, \
     reason = excluded.reason, at = CURRENT_TIMESTAMP";
const CLEAR_QUARANTINE: &str = "DELETE FROM hotpair_quarantine WHERE name = ?1 AND key = ?2";

/// An open file. See the file's header.
pub(crate) struct Sqlite {
    connection: Connection,
    path: PathBuf,
    /// The file that is open, whatever stands under its name by now.
    inode: u64,
    writer: Writer,
    term: Term,
    quarantined: u64,
}

impl Sqlite {
    /// Opens the file or makes it, and looks whose it is.
    pub(crate) fn open(
        path: &Path,
        writer: &Writer,
        term: &Term,
        mappings: &[Mapping],
    ) -> Result<(Self, Mark, u64), Failure> {
        // Made here, so that nobody else can read what is in it.
        let made = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        let inode =
            made.and_then(|file| file.metadata()).map(|meta| meta.ino()).map_err(|error| {
                Failure::Refused(format!("{} cannot be opened: {error}", path.display()))
            })?;
        let connection = Connection::open(path).map_err(|error| told(path, &error))?;
        let mut sqlite = Self {
            connection,
            path: path.to_owned(),
            inode,
            writer: writer.clone(),
            term: term.clone(),
            quarantined: 0,
        };
        sqlite.connection.busy_timeout(BUSY_WAIT).map_err(|error| told(path, &error))?;
        // With WAL this loses nothing but the newest transactions, mark and all, when power fails.
        let modes = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;";
        sqlite.execute(modes)?;
        sqlite.migrate()?;
        let mark = sqlite.owner()?;
        let mark = sqlite.make_mapped_tables(mark, mappings)?;
        sqlite.quarantined = sqlite.count_quarantined()?;
        let quarantined = sqlite.quarantined;
        Ok((sqlite, mark, quarantined))
    }

    fn migrate(&self) -> Result<(), Failure> {
        let table = "CREATE TABLE IF NOT EXISTS hotpair_migrations (version INTEGER PRIMARY KEY, \
                     made_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)";
        self.execute(table)?;
        let newest = "SELECT coalesce(max(version), 0) FROM hotpair_migrations";
        let found: i64 = self.ask(self.connection.query_row(newest, [], |row| row.get(0)))?;
        let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        if found > known {
            return Err(Failure::Refused(format!("{}: {}", self.path.display(), too_new(found))));
        }
        for (migration, version) in MIGRATIONS.iter().zip(1_i64..) {
            if version > found {
                let text = format!(
                    "BEGIN IMMEDIATE; {} INSERT INTO hotpair_migrations (version) VALUES ({version}); \
                     COMMIT;",
                    migration.sqlite
                );
                self.execute(&text)?;
            }
        }
        Ok(())
    }

    /// The file is this node's, or becomes it; how far it is.
    fn owner(&self) -> Result<Mark, Failure> {
        let Writer { pair, node, instance } = &self.writer;
        let first = "INSERT INTO hotpair_store \
                     (one, pair, cluster, epoch, node, instance, record_epoch, life, number) \
                     VALUES (1, ?1, ?2, 0, ?3, ?4, 0, 0, 0) ON CONFLICT DO NOTHING";
        let owner = &self.term.owner;
        self.ask(self.connection.execute(first, params![pair, owner, node, instance]))?;
        let select = "SELECT pair, cluster, node, instance, record_epoch, life, number \
                      FROM hotpair_store WHERE one = 1";
        let (whose, mark) = self.ask(self.connection.query_row(select, [], |row| {
            let whose: [String; 4] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
            let mark = Mark {
                epoch: Epoch(row.get::<_, i64>(4)?.cast_unsigned()),
                life: row.get::<_, i64>(5)?.cast_unsigned(),
                number: row.get::<_, i64>(6)?.cast_unsigned(),
            };
            Ok((whose, mark))
        }))?;
        let [found_pair, cluster, found_node, found_instance] = whose;
        let what = format!("the file {}", self.path.display());
        if found_pair != *pair || cluster != *owner {
            return Err(foreign(&what, (&found_pair, &cluster), &self.writer, &self.term));
        }
        if found_instance != *instance {
            return Err(Failure::Refused(format!(
                "{what} belongs to node {found_node:?} with the data directory {found_instance}, and \
                 this is node {node:?} with {instance}: give each node a file of its own; if it was \
                 this node's before, move it away, and it is made anew"
            )));
        }
        Ok(mark)
    }

    fn make_mapped_tables(&mut self, mark: Mark, mappings: &[Mapping]) -> Result<Mark, Failure> {
        let select = "SELECT m.name, m.sql_table, m.definition, s.name IS NULL FROM hotpair_mappings m \
                      LEFT JOIN sqlite_master s ON s.type = 'table' AND s.name = m.sql_table";
        let old: HashMap<String, (String, String, bool)> = self.ask((|| {
            let mut statement = self.connection.prepare(select)?;
            let rows = statement
                .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?))))?;
            rows.collect()
        })())?;
        let stands = |mapping: &Mapping| {
            let found = old.get(&mapping.table);
            found.is_some_and(|(_, definition, gone)| !gone && *definition == mapping.definition())
        };
        let kept = mappings.iter().filter(|mapping| stands(mapping)).count();
        if kept == mappings.len() && kept == old.len() {
            return Ok(mark);
        }
        self.begin(mark)?;
        for (name, (table, ..)) in &old {
            if !mappings.iter().any(|mapping| mapping.table == *name && stands(mapping)) {
                self.execute(&format!("DROP TABLE IF EXISTS \"{table}\""))?;
                let forget = "DELETE FROM hotpair_mappings WHERE name = ?1";
                self.ask(self.connection.execute(forget, [name]))?;
            }
        }
        for mapping in mappings.iter().filter(|mapping| !stands(mapping)) {
            self.make_mapped_table(mapping)?;
        }
        self.finish(Mark::default())?;
        Ok(Mark::default())
    }

    fn make_mapped_table(&self, mapping: &Mapping) -> Result<(), Failure> {
        let Mapping { table, sql, key, .. } = mapping;
        let there = "SELECT 1 FROM sqlite_master WHERE name = ?1";
        let there = self.connection.query_row(there, [sql], |_| Ok(())).optional();
        if self.ask(there)?.is_some() {
            return Err(Failure::Refused(format!(
                "{}: a table {sql:?} is there already, and hotpair did not make it: rename it, or map \
                 {table:?} to another name",
                self.path.display()
            )));
        }
        let mut columns = format!("\"{key}\" {} PRIMARY KEY", column_type(mapping.key_kind()));
        for (name, kind) in mapping.fields() {
            columns.push_str(&format!(", \"{name}\" {}", column_type(kind)));
        }
        self.execute(&format!("CREATE TABLE \"{sql}\" ({columns}, {VERSION} INTEGER NOT NULL)"))?;
        let note = "INSERT INTO hotpair_mappings (name, sql_table, definition) VALUES (?1, ?2, ?3)";
        let definition = mapping.definition();
        self.ask(self.connection.execute(note, params![table, sql, definition]))?;
        Ok(())
    }

    // --- a transaction

    /// Begins with the fence: the file must be the one that was opened, and stand at this mark.
    pub(crate) fn begin(&mut self, at: Mark) -> Result<(), Failure> {
        let stands = std::fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode);
        if !stands {
            tracing::warn!(file = %self.path.display(), "the store's file was taken away");
            return Err(Failure::Moved);
        }
        self.execute("BEGIN IMMEDIATE")?;
        let bound = params![
            self.term.owner,
            self.writer.instance,
            signed(at.epoch.0),
            signed(at.life),
            signed(at.number)
        ];
        let met =
            self.ask(self.connection.prepare_cached(FENCE).and_then(|mut s| s.execute(bound)))?;
        if met == 1 { Ok(()) } else { Err(Failure::Moved) }
    }

    /// Every row goes.
    pub(crate) fn wipe(&mut self, mappings: &[Mapping]) -> Result<(), Failure> {
        let mut all = "DELETE FROM hotpair_rows; DELETE FROM hotpair_quarantine;".to_owned();
        for mapping in mappings {
            all.push_str(&format!("DELETE FROM \"{}\";", mapping.sql));
        }
        self.execute(&all)
    }

    /// Writes rows.
    pub(crate) fn apply(
        &mut self,
        prepared: Prepared,
        mappings: &[Mapping],
    ) -> Result<(), Failure> {
        let written = self.write(prepared, mappings);
        self.quarantined += self.ask(written)?;
        Ok(())
    }

    /// How many rows went to quarantine.
    fn write(&self, prepared: Prepared, mappings: &[Mapping]) -> rusqlite::Result<u64> {
        let Prepared { plain, mapped, mut unfit, cleared } = prepared;
        let mut put = self.connection.prepare_cached(PUT_ROW)?;
        let mut delete = self.connection.prepare_cached(DELETE_ROW)?;
        for Plain { table, key, value, version } in &plain {
            match value {
                Some(value) => put.execute(params![table, &**key, &**value, signed(*version)])?,
                None => delete.execute(params![table, &**key])?,
            };
        }
        for (mut mapped, mapping) in mapped.into_iter().zip(mappings) {
            let mut put = self.connection.prepare_cached(&put_mapped(mapping))?;
            for row in mapped.puts {
                let cells = std::iter::once(&row.key).chain(&row.cells).map(value);
                let version = Value::Integer(signed(row.version));
                let done = put.execute(params_from_iter(cells.chain(std::iter::once(version))));
                match done {
                    Ok(_) => {}
                    Err(error) if self.refuses_row(&error) => {
                        unfit.push(
                            row.refused(mapping, format!("the database refuses it: {error}")),
                        );
                        mapped.deletes.push(row.key);
                    }
                    Err(error) => return Err(error),
                }
            }
            let Mapping { sql, key, .. } = mapping;
            let delete = format!("DELETE FROM \"{sql}\" WHERE \"{key}\" = ?1");
            let mut delete = self.connection.prepare_cached(&delete)?;
            for key in &mapped.deletes {
                delete.execute([value(key)])?;
            }
        }
        if !unfit.is_empty() || self.quarantined > 0 {
            let mut clear = self.connection.prepare_cached(CLEAR_QUARANTINE)?;
            for (table, key) in &cleared {
                clear.execute(params![table, &**key])?;
            }
            let mut put = self.connection.prepare_cached(PUT_QUARANTINE)?;
            for unfit in &unfit {
                let version = signed(unfit.version);
                put.execute(params![
                    unfit.table,
                    &*unfit.key,
                    &*unfit.value,
                    version,
                    unfit.reason
                ])?;
            }
        }
        Ok(unfit.len() as u64)
    }

    /// A constraint or a trigger of somebody's does, and the transaction still stands.
    fn refuses_row(&self, error: &rusqlite::Error) -> bool {
        error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
            && !self.connection.is_autocommit()
    }

    /// Moves the mark and commits; how many rows are in quarantine then.
    pub(crate) fn finish(&mut self, mark: Mark) -> Result<u64, Failure> {
        let bound = params![
            self.term.owner,
            self.writer.instance,
            signed(mark.epoch.0),
            signed(mark.life),
            signed(mark.number)
        ];
        let met =
            self.ask(self.connection.prepare_cached(MOVE_MARK).and_then(|mut s| s.execute(bound)))?;
        if met != 1 {
            return Err(Failure::Moved);
        }
        if self.quarantined > 0 {
            self.quarantined = self.count_quarantined()?;
        }
        self.execute("COMMIT")?;
        Ok(self.quarantined)
    }

    fn count_quarantined(&self) -> Result<u64, Failure> {
        let counted = self.connection.query_row(QUARANTINE_COUNTED, [], |row| row.get::<_, i64>(0));
        self.ask(counted).map(i64::cast_unsigned)
    }

    fn execute(&self, text: &str) -> Result<(), Failure> {
        self.ask(self.connection.execute_batch(text))
    }

    fn ask<T>(&self, answer: rusqlite::Result<T>) -> Result<T, Failure> {
        answer.map_err(|error| told(&self.path, &error))
    }
}

/// A failure as an operator reads it. What will not pass by itself is refused.
fn told(path: &Path, error: &rusqlite::Error) -> Failure {
    let file = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Failure::Refused(format!(
            "{file} is no SQLite database, or a damaged one ({error}): move it away, with its -wal and \
             -shm, and it is made anew from the tables"
        )),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            Failure::Refused(format!("{file} cannot be written: {error}"))
        }
        _ => Failure::Failed(format!("{file}: {error}")),
    }
}

fn column_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Json => "TEXT",
        ColumnKind::Integer | ColumnKind::Boolean => "INTEGER",
        ColumnKind::Float => "REAL",
    }
}

fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Text(text) | Cell::Json(text) => Value::Text(text.clone()),
        Cell::Integer(number) => Value::Integer(*number),
        Cell::Float(number) => Value::Real(*number),
        Cell::Boolean(truth) => Value::Integer(i64::from(*truth)),
    }
}

fn put_mapped(mapping: &Mapping) -> String {
    let Mapping { sql, key, .. } = mapping;
    let mut names = format!("\"{key}\"");
    let mut places = "?".to_owned();
    let mut set = String::new();
    for (name, _) in mapping.fields() {
        names.push_str(&format!(", \"{name}\""));
        places.push_str(", ?");
        set.push_str(&format!("\"{name}\" = excluded.\"{name}\", "));
    }
    format!(
        "INSERT INTO \"{sql}\" ({names}, {VERSION}) VALUES ({places}, ?) \
         ON CONFLICT (\"{key}\") DO UPDATE SET {set}{VERSION} = excluded.{VERSION}"
    )
}

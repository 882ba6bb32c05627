//! PostgreSQL: one database for the pair, written by whoever is master.
//!
//! A transaction begins with an `UPDATE` of the one row of `hotpair_store`, bound to cluster, epoch and
//! mark. It locks that row until the end: a master that was overtaken changes no row, and one that is
//! frozen in the middle is thrown out by the server after a few seconds, and with it what it had not
//! committed. Rows go as arrays: a statement a table, however many rows there are.
//!
//! A statement that fails for what is in its rows would fail for ever. So its batch is written once
//! more, carefully: behind savepoints, and halved until it is known which rows they are. They go to
//! quarantine, the others go on, in one transaction with the fence and the mark as ever.

use std::collections::HashMap;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::behind::{Failure, Mark, Term};
use hotpair_postgres::{ConnectError, Server, with_causes};
use tokio::task::JoinHandle;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use crate::driver::Probe;
use crate::mapping::{Cell, ColumnKind, Mapping, VERSION};
use crate::prepared::{Mapped, Plain, Prepared, Put, Unfit};
use crate::schema::{MIGRATIONS, QUARANTINE_COUNTED, too_new};
use crate::sink::{Writer, foreign, signed};

/// Of this session. The first throws out a writer that stands still in the middle of a transaction,
/// so that the next master need not wait for it.
const SESSION: &str = "
SET idle_in_transaction_session_timeout = '3s';
SET lock_timeout = '10s';
SET statement_timeout = '60s';
SET client_encoding = 'UTF8';
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
";
/// Only one at a time makes tables.
const MIGRATION_LOCK: i64 = 0x686f_7470_6169_7201;
/// The fence of every transaction.
const FENCE: &str = "UPDATE hotpair_store SET written_at = now() WHERE one = 1 AND cluster = $1 \
                     AND epoch = $2 AND record_epoch = $3 AND life = $4 AND number = $5";
const MOVE_MARK: &str = "UPDATE hotpair_store SET record_epoch = $3, life = $4, number = $5 \
                         WHERE one = 1 AND cluster = $1 AND epoch = $2";
const RAISE: &str = "UPDATE hotpair_store SET epoch = $3, node = $4, instance = $5 WHERE one = 1 \
                     AND pair = $1 AND cluster = $2 \
                     AND (epoch < $3 OR (epoch = $3 AND instance = $5)) \
                     RETURNING record_epoch, life, number";
const PUT_ROWS: &str = "INSERT INTO hotpair_rows (name, key, value, version) SELECT * FROM \
                        unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[]) \
                        ON CONFLICT (name, key) DO UPDATE \
                        SET value = excluded.value, version = excluded.version";
const DELETE_ROWS: &str = "DELETE FROM hotpair_rows r USING unnest($1::text[], $2::bytea[]) \
                           AS d(name, key) WHERE r.name = d.name AND r.key = d.key";
const PUT_QUARANTINE: &str = "INSERT INTO hotpair_quarantine (name, key, value, version, reason) SELECT * FROM \
     unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[], $5::text[]) \
     ON CONFLICT (name, key) DO UPDATE SET value = excluded.value, version = excluded.version, \
     reason = excluded.reason, at = now()";
const CLEAR_QUARANTINE: &str = "DELETE FROM hotpair_quarantine r USING unnest($1::text[], $2::bytea[]) \
     AS d(name, key) WHERE r.name = d.name AND r.key = d.key";

const SAVEPOINT: &str = "SAVEPOINT hotpair_put";
const NEXT_SAVEPOINT: &str = "RELEASE SAVEPOINT hotpair_put; SAVEPOINT hotpair_put";
const BACK_TO_SAVEPOINT: &str = "ROLLBACK TO SAVEPOINT hotpair_put";
const RELEASE_SAVEPOINT: &str = "RELEASE SAVEPOINT hotpair_put";
/// Of what a database says of a row, so much is kept as the reason.
const REASON_CHARS_MAX: usize = 500;

/// An open database. See the file's header.
pub(crate) struct Postgres {
    client: Client,
    connection: JoinHandle<()>,
    /// For errors: where it is.
    at: String,
    writer: Writer,
    term: Term,
    statements: HashMap<String, Statement>,
    quarantined: u64,
    /// Statements with rows are written behind savepoints.
    careful: bool,
    met_refused_row: bool,
    probe: Probe,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

type Parameter = Box<dyn ToSql + Sync + Send>;

impl Postgres {
    /// Connects, makes what is missing, raises the fence.
    pub(crate) async fn open(
        server: &Server,
        writer: &Writer,
        term: &Term,
        mappings: &[Mapping],
        probe: &Probe,
    ) -> Result<(Self, Mark, u64), Failure> {
        let at = server.to_string();
        let application = format!("hotpair {} {}", writer.pair, writer.node);
        let connected = server.connect(&application).await;
        let (client, connection) = connected.map_err(|error| match error {
            ConnectError::Untrusted(why) => {
                Failure::Refused(format!("PostgreSQL at {at}: connecting: {why}"))
            }
            ConnectError::Postgres(error) => told(&at, "connecting", &error),
        })?;
        let mut postgres = Self {
            client,
            connection,
            at,
            writer: writer.clone(),
            term: term.clone(),
            statements: HashMap::new(),
            quarantined: 0,
            careful: false,
            met_refused_row: false,
            probe: probe.clone(),
        };
        postgres.execute("setting up the session", SESSION).await?;
        postgres.check_encoding().await?;
        postgres.migrate().await?;
        let mark = postgres.raise().await?;
        let mark = postgres.make_mapped_tables(mark, mappings).await?;
        postgres.quarantined = postgres.count_quarantined().await?;
        let quarantined = postgres.quarantined;
        Ok((postgres, mark, quarantined))
    }

    async fn check_encoding(&self) -> Result<(), Failure> {
        let row = self.client.query_one("SHOW server_encoding", &[]).await;
        let encoding: String =
            row.map_err(|error| self.told("asking for its encoding", &error))?.get(0);
        if encoding == "UTF8" {
            return Ok(());
        }
        let at = &self.at;
        Err(Failure::Refused(format!(
            "PostgreSQL at {at} keeps texts as {encoding}: make the database with ENCODING 'UTF8'"
        )))
    }

    async fn migrate(&self) -> Result<(), Failure> {
        let failed = |error| self.told("making the hotpair tables", &error);
        let there = "SELECT to_regclass('hotpair_migrations') IS NOT NULL";
        let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        let version = async || -> Result<i64, tokio_postgres::Error> {
            if !self.client.query_one(there, &[]).await?.get::<_, bool>(0) {
                return Ok(0);
            }
            let newest = "SELECT coalesce(max(version), 0) FROM hotpair_migrations";
            Ok(self.client.query_one(newest, &[]).await?.get(0))
        };
        let mut found = version().await.map_err(failed)?;
        if found < known {
            self.client.batch_execute("BEGIN").await.map_err(failed)?;
            let lock = "SELECT pg_advisory_xact_lock($1)";
            self.client.execute(lock, &[&MIGRATION_LOCK]).await.map_err(failed)?;
            // Somebody else may have been quicker.
            found = version().await.map_err(failed)?;
            let table = "CREATE TABLE IF NOT EXISTS hotpair_migrations (version bigint PRIMARY KEY, \
                         made_at timestamptz NOT NULL DEFAULT now())";
            self.client.batch_execute(table).await.map_err(failed)?;
            for (migration, version) in MIGRATIONS.iter().zip(1_i64..) {
                if version > found {
                    self.client.batch_execute(migration.postgres).await.map_err(failed)?;
                    let note = "INSERT INTO hotpair_migrations (version) VALUES ($1)";
                    self.client.execute(note, &[&version]).await.map_err(failed)?;
                }
            }
            self.client.batch_execute("COMMIT").await.map_err(failed)?;
        }
        if found > known {
            let at = &self.at;
            return Err(Failure::Refused(format!("PostgreSQL at {at}: {}", too_new(found))));
        }
        Ok(())
    }

    /// The fence goes up to this epoch; from then on nobody of a smaller one writes. How far it is.
    async fn raise(&self) -> Result<Mark, Failure> {
        let failed = |error| self.told("raising the fence", &error);
        let Writer { pair, node, instance } = &self.writer;
        let epoch = signed(self.term.epoch.0);
        let first = "INSERT INTO hotpair_store \
                     (one, pair, cluster, epoch, node, instance, record_epoch, life, number) \
                     VALUES (1, $1, $2, $3, $4, $5, 0, 0, 0) ON CONFLICT DO NOTHING";
        let owner = &self.term.owner;
        let own: [&(dyn ToSql + Sync); 5] = [pair, owner, &epoch, node, instance];
        self.client.execute(first, &own).await.map_err(failed)?;
        match self.client.query_opt(RAISE, &own).await.map_err(failed)? {
            Some(row) => Ok(Mark {
                epoch: Epoch(row.get::<_, i64>(0).cast_unsigned()),
                life: row.get::<_, i64>(1).cast_unsigned(),
                number: row.get::<_, i64>(2).cast_unsigned(),
            }),
            None => Err(self.why_refused().await?),
        }
    }

    /// A conditional update met no row: whose is it?
    async fn why_refused(&self) -> Result<Failure, Failure> {
        let select = "SELECT pair, cluster, epoch, instance FROM hotpair_store WHERE one = 1";
        let row = self.client.query_opt(select, &[]).await;
        let Some(row) = row.map_err(|error| self.told("looking at the fence", &error))? else {
            // Somebody emptied it: it is made anew when it is opened again.
            return Ok(Failure::Moved);
        };
        let (pair, cluster): (String, String) = (row.get(0), row.get(1));
        if pair != self.writer.pair || cluster != self.term.owner {
            let what = format!("the database {}", self.at);
            return Ok(foreign(&what, (&pair, &cluster), &self.writer, &self.term));
        }
        let epoch = Epoch(row.get::<_, i64>(2).cast_unsigned());
        let same = row.get::<_, String>(3) == self.writer.instance;
        Ok(if epoch > self.term.epoch || (epoch == self.term.epoch && !same) {
            Failure::Overtaken { by: epoch }
        } else {
            Failure::Moved
        })
    }

    /// Tables of mappings that are new or have changed are made anew, and filled by a copy.
    async fn make_mapped_tables(
        &mut self,
        mark: Mark,
        mappings: &[Mapping],
    ) -> Result<Mark, Failure> {
        let doing = "making the mapped tables";
        let select = "SELECT name, sql_table, definition, to_regclass(quote_ident(sql_table)) IS NULL \
                      FROM hotpair_mappings";
        let rows = self.client.query(select, &[]).await;
        let mut old = HashMap::new();
        for row in rows.map_err(|error| self.told(doing, &error))? {
            let (name, table, definition): (String, String, String) =
                (row.get(0), row.get(1), row.get(2));
            old.insert(name, (table, definition, row.get::<_, bool>(3)));
        }
        let stands = |mapping: &Mapping| {
            let found = old.get(&mapping.table);
            found.is_some_and(|(_, definition, gone)| !gone && *definition == mapping.definition())
        };
        let kept = mappings.iter().filter(|mapping| stands(mapping)).count();
        if kept == mappings.len() && kept == old.len() {
            return Ok(mark);
        }
        self.begin(mark).await?;
        for (name, (table, ..)) in &old {
            if !mappings.iter().any(|mapping| mapping.table == *name && stands(mapping)) {
                self.execute(doing, &format!("DROP TABLE IF EXISTS \"{table}\"")).await?;
                let forget = "DELETE FROM hotpair_mappings WHERE name = $1";
                let done = self.client.execute(forget, &[name]).await;
                done.map_err(|error| self.told(doing, &error))?;
            }
        }
        for mapping in mappings.iter().filter(|mapping| !stands(mapping)) {
            self.make_mapped_table(mapping).await?;
        }
        self.finish(Mark::default()).await?;
        Ok(Mark::default())
    }

    async fn make_mapped_table(&self, mapping: &Mapping) -> Result<(), Failure> {
        let Mapping { table, sql, key, .. } = mapping;
        let mut columns = format!("\"{key}\" {} PRIMARY KEY", column_type(mapping.key_kind()));
        for (name, kind) in mapping.fields() {
            columns.push_str(&format!(", \"{name}\" {}", column_type(kind)));
        }
        let make = format!("CREATE TABLE \"{sql}\" ({columns}, {VERSION} bigint NOT NULL)");
        match self.client.batch_execute(&make).await {
            Ok(()) => {}
            Err(error) if error.code() == Some(&SqlState::DUPLICATE_TABLE) => {
                return Err(Failure::Refused(format!(
                    "PostgreSQL at {}: a table {sql:?} is there already, and hotpair did not make it: \
                     rename it, or map {table:?} to another name",
                    self.at
                )));
            }
            Err(error) => return Err(self.told("making the mapped tables", &error)),
        }
        let note = "INSERT INTO hotpair_mappings (name, sql_table, definition) VALUES ($1, $2, $3)";
        let done = self.client.execute(note, &[table, sql, &mapping.definition()]).await;
        done.map_err(|error| self.told("making the mapped tables", &error))?;
        Ok(())
    }

    // --- a transaction

    /// Begins with the fence: it must stand at this mark and at our epoch.
    pub(crate) async fn begin(&mut self, at: Mark) -> Result<(), Failure> {
        (self.probe)("store.batch");
        if self.fenced_by_select() {
            self.look_at_fence(at).await?;
            (self.probe)("store.fenced");
            return self.execute("beginning", "BEGIN").await;
        }
        self.execute("beginning", "BEGIN").await?;
        let (epoch, record_epoch, life, number) =
            (signed(self.term.epoch.0), signed(at.epoch.0), signed(at.life), signed(at.number));
        let bound: [&(dyn ToSql + Sync); 5] =
            [&self.term.owner, &epoch, &record_epoch, &life, &number];
        let met = self.client.execute(FENCE, &bound).await;
        if met.map_err(|error| self.told("the fence", &error))? != 1 {
            self.execute("leaving", "ROLLBACK").await?;
            return Err(self.why_refused().await?);
        }
        (self.probe)("store.fenced");
        Ok(())
    }

    /// Every row goes.
    pub(crate) async fn wipe(&mut self, mappings: &[Mapping]) -> Result<(), Failure> {
        // As long as it takes for what is there.
        let mut all = "SET LOCAL statement_timeout = 0; DELETE FROM hotpair_rows; \
                       DELETE FROM hotpair_quarantine;"
            .to_owned();
        for mapping in mappings {
            all.push_str(&format!("DELETE FROM \"{}\";", mapping.sql));
        }
        all.push_str("SET LOCAL statement_timeout = '60s'");
        self.execute("emptying it for a copy", &all).await
    }

    /// Writes rows, those of a table in one statement.
    pub(crate) async fn apply(
        &mut self,
        prepared: Prepared,
        mappings: &[Mapping],
    ) -> Result<(), Failure> {
        let Prepared { plain, mapped, mut unfit, cleared } = prepared;
        self.apply_plain(plain, &mut unfit).await?;
        for (mapped, mapping) in mapped.into_iter().zip(mappings) {
            self.apply_mapped(mapped, mapping, &mut unfit).await?;
        }
        let touched = !unfit.is_empty() || self.quarantined > 0;
        if touched && !cleared.is_empty() {
            let (names, keys): (Vec<String>, Vec<Vec<u8>>) =
                cleared.into_iter().map(|(table, key)| (table.to_string(), key.to_vec())).unzip();
            self.run(CLEAR_QUARANTINE, vec![Box::new(names), Box::new(keys)]).await?;
        }
        if !unfit.is_empty() {
            self.quarantined += unfit.len() as u64;
            self.put_quarantine(unfit).await?;
        }
        Ok(())
    }

    async fn apply_plain(
        &mut self,
        plain: Vec<Plain>,
        unfit: &mut Vec<Unfit>,
    ) -> Result<(), Failure> {
        let (puts, mut gone): (Vec<Plain>, Vec<Plain>) =
            plain.into_iter().partition(|row| row.value.is_some());
        for (index, reason) in self.put(PUT_ROWS, &puts, &bind_plain).await? {
            let Plain { table, key, value, version } = &puts[index];
            let (table, key, version) = (table.clone(), key.clone(), *version);
            let value = value.clone().unwrap_or_default();
            gone.push(Plain { table: table.clone(), key: key.clone(), value: None, version });
            unfit.push(Unfit { table, key, value, version, reason });
        }
        if !gone.is_empty() {
            let (names, keys): (Vec<String>, Vec<Vec<u8>>) =
                gone.into_iter().map(|row| (row.table.to_string(), row.key.to_vec())).unzip();
            self.run(DELETE_ROWS, vec![Box::new(names), Box::new(keys)]).await?;
        }
        Ok(())
    }

    async fn apply_mapped(
        &mut self,
        mapped: Mapped,
        mapping: &Mapping,
        unfit: &mut Vec<Unfit>,
    ) -> Result<(), Failure> {
        let Mapped { puts, mut deletes } = mapped;
        let bind = |rows: &[Put]| bind_mapped(mapping, rows);
        for (index, reason) in self.put(&put_mapped(mapping), &puts, &bind).await? {
            unfit.push(puts[index].refused(mapping, reason));
            // An older value must not stand there as if it were the newest.
            deletes.push(puts[index].key.clone());
        }
        if !deletes.is_empty() {
            let kind = mapping.key_kind();
            let Mapping { sql, key, .. } = mapping;
            let array = array_type(kind);
            let statement = format!("DELETE FROM \"{sql}\" WHERE \"{key}\" = ANY ($1::{array})");
            self.run(&statement, vec![column(kind, deletes.iter())]).await?;
        }
        Ok(())
    }

    /// Writes rows in one statement; carefully, in as many as it takes. Which of them the database
    /// refuses, and why.
    async fn put<T>(
        &mut self,
        statement: &str,
        rows: &[T],
        bind: &(impl Fn(&[T]) -> Vec<Parameter> + Sync),
    ) -> Result<Vec<(usize, String)>, Failure> {
        let mut refused = Vec::new();
        if rows.is_empty() {
            return Ok(refused);
        }
        if !self.careful {
            self.run(statement, bind(rows)).await?;
            return Ok(refused);
        }
        self.execute("a savepoint", SAVEPOINT).await?;
        let mut parts = Vec::new();
        parts.push(0..rows.len());
        while let Some(part) = parts.pop() {
            let error = match self.try_run(statement, bind(&rows[part.clone()])).await {
                Ok(()) => {
                    self.execute("a savepoint", NEXT_SAVEPOINT).await?;
                    continue;
                }
                Err(error) => error,
            };
            let Some(said) = error.as_db_error().filter(|said| is_about_rows(said)) else {
                return Err(self.told("writing", &error));
            };
            self.execute("going back", BACK_TO_SAVEPOINT).await?;
            if part.len() == 1 {
                refused.push((part.start, reason(said)));
            } else {
                let middle = part.start + part.len() / 2;
                parts.push(middle..part.end);
                parts.push(part.start..middle);
            }
        }
        self.execute("a savepoint", RELEASE_SAVEPOINT).await?;
        Ok(refused)
    }

    async fn put_quarantine(&mut self, unfit: Vec<Unfit>) -> Result<(), Failure> {
        let (mut names, mut keys, mut values, mut versions, mut reasons) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for Unfit { table, key, value, version, reason } in unfit {
            names.push(table.to_string());
            keys.push(key.to_vec());
            values.push(value.to_vec());
            versions.push(signed(version));
            reasons.push(reason.replace('\0', "\u{fffd}"));
        }
        let rows: Vec<Parameter> = vec![
            Box::new(names),
            Box::new(keys),
            Box::new(values),
            Box::new(versions),
            Box::new(reasons),
        ];
        self.run(PUT_QUARANTINE, rows).await
    }

    /// Moves the mark and commits; how many rows are in quarantine then.
    pub(crate) async fn finish(&mut self, mark: Mark) -> Result<u64, Failure> {
        let (epoch, record_epoch, life, number) = (
            signed(self.term.epoch.0),
            signed(mark.epoch.0),
            signed(mark.life),
            signed(mark.number),
        );
        let bound: [&(dyn ToSql + Sync); 5] =
            [&self.term.owner, &epoch, &record_epoch, &life, &number];
        if self.fenced_by_select() {
            self.move_mark_unbound(mark).await?;
        } else {
            let met = self.client.execute(MOVE_MARK, &bound).await;
            if met.map_err(|error| self.told("moving the mark", &error))? != 1 {
                self.execute("leaving", "ROLLBACK").await?;
                return Err(self.why_refused().await?);
            }
        }
        if self.quarantined > 0 {
            self.quarantined = self.count_quarantined().await?;
        }
        (self.probe)("store.written");
        self.execute("committing", "COMMIT").await?;
        Ok(self.quarantined)
    }

    async fn count_quarantined(&self) -> Result<u64, Failure> {
        let counted = self.client.query_one(QUARANTINE_COUNTED, &[]).await;
        let counted: i64 = counted.map_err(|error| self.told("counting", &error))?.get(0);
        Ok(counted.cast_unsigned())
    }

    async fn run(&mut self, text: &str, parameters: Vec<Parameter>) -> Result<(), Failure> {
        let done = self.try_run(text, parameters).await;
        done.map_err(|error| {
            self.met_refused_row |= error.as_db_error().is_some_and(is_about_rows);
            self.told("writing", &error)
        })
    }

    async fn try_run(
        &mut self,
        text: &str,
        parameters: Vec<Parameter>,
    ) -> Result<(), tokio_postgres::Error> {
        let statement = match self.statements.get(text) {
            Some(statement) => statement.clone(),
            None => {
                let made = self.client.prepare(text).await?;
                self.statements.insert(text.to_owned(), made.clone());
                made
            }
        };
        let parameters: Vec<&(dyn ToSql + Sync)> =
            parameters.iter().map(|p| -> &(dyn ToSql + Sync) { &**p }).collect();
        self.client.execute(&statement, &parameters).await.map(drop)
    }

    /// See [`crate::sink::Sink::be_careful`].
    pub(crate) fn be_careful(&mut self, careful: bool) {
        self.careful = careful;
    }

    /// See [`crate::sink::Sink::met_refused_row`].
    pub(crate) fn met_refused_row(&self) -> bool {
        self.met_refused_row
    }

    async fn execute(&self, doing: &str, text: &str) -> Result<(), Failure> {
        self.client.batch_execute(text).await.map_err(|error| self.told(doing, &error))
    }

    fn told(&self, doing: &str, error: &tokio_postgres::Error) -> Failure {
        told(&self.at, doing, error)
    }
}

/// The known bug of the test that must find it: the fence is looked at, and then relied upon.
#[cfg(feature = "planted-bugs")]
impl Postgres {
    fn fenced_by_select(&self) -> bool {
        std::env::var("HOTPAIR_PLANTED_BUG").is_ok_and(|bug| bug == "store-fence-by-select")
    }

    async fn look_at_fence(&self, at: Mark) -> Result<(), Failure> {
        let select = "SELECT 1 FROM hotpair_store WHERE one = 1 AND cluster = $1 AND epoch = $2 \
                      AND number = $3";
        let (epoch, number) = (signed(self.term.epoch.0), signed(at.number));
        let met = self.client.query_opt(select, &[&self.term.owner, &epoch, &number]).await;
        match met.map_err(|error| self.told("the fence", &error))? {
            Some(_) => Ok(()),
            None => Err(self.why_refused().await?),
        }
    }

    async fn move_mark_unbound(&self, mark: Mark) -> Result<(), Failure> {
        let update = "UPDATE hotpair_store SET record_epoch = $1, life = $2, number = $3";
        let (epoch, life, number) = (signed(mark.epoch.0), signed(mark.life), signed(mark.number));
        let met = self.client.execute(update, &[&epoch, &life, &number]).await;
        met.map(drop).map_err(|error| self.told("moving the mark", &error))
    }
}

/// The product: never.
#[cfg(not(feature = "planted-bugs"))]
impl Postgres {
    const fn fenced_by_select(&self) -> bool {
        false
    }

    async fn look_at_fence(&self, _at: Mark) -> Result<(), Failure> {
        Ok(())
    }

    async fn move_mark_unbound(&self, _mark: Mark) -> Result<(), Failure> {
        Ok(())
    }
}

/// A failure as an operator reads it. What will not pass by itself is refused.
fn told(at: &str, doing: &str, error: &tokio_postgres::Error) -> Failure {
    let Some(said) = error.as_db_error() else {
        return Failure::Failed(format!("PostgreSQL at {at}: {doing}: {}", with_causes(error)));
    };
    let text = format!("PostgreSQL at {at}: {doing}: {}", in_words(said));
    let code = said.code();
    let for_somebody = [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_CATALOG_NAME,
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::READ_ONLY_SQL_TRANSACTION,
    ];
    if for_somebody.contains(code) { Failure::Refused(text) } else { Failure::Failed(text) }
}

fn in_words(said: &DbError) -> String {
    let detail = said.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    format!("{}{detail} [{}]", said.message(), said.code().code()).replace('\n', " ")
}

/// It lies in the rows, whenever they are written: the value, a constraint, a limit of the program's, a
/// trigger that raises.
fn is_about_rows(said: &DbError) -> bool {
    let code = said.code();
    let class = code.code().get(..2).unwrap_or_default();
    matches!(class, "22" | "23" | "54") || *code == SqlState::RAISE_EXCEPTION
}

fn reason(said: &DbError) -> String {
    let text: String = in_words(said).chars().take(REASON_CHARS_MAX).collect();
    format!("the database refuses it: {text}")
}

fn column_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text => "text",
        ColumnKind::Integer => "bigint",
        ColumnKind::Float => "double precision",
        ColumnKind::Boolean => "boolean",
        ColumnKind::Json => "jsonb",
    }
}

/// As it is sent: JSON as text.
fn array_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Json => "text[]",
        ColumnKind::Integer => "bigint[]",
        ColumnKind::Float => "double precision[]",
        ColumnKind::Boolean => "boolean[]",
    }
}

fn put_mapped(mapping: &Mapping) -> String {
    let Mapping { sql, key, .. } = mapping;
    let mut names = format!("\"{key}\"");
    let mut arrays = format!("$1::{}", array_type(mapping.key_kind()));
    let (mut taken, mut placed, mut set) = ("c1".to_owned(), "c1".to_owned(), String::new());
    for ((name, kind), i) in mapping.fields().zip(2..) {
        names.push_str(&format!(", \"{name}\""));
        arrays.push_str(&format!(", ${i}::{}", array_type(kind)));
        placed.push_str(&format!(", c{i}"));
        let cast = if kind == ColumnKind::Json { "::jsonb" } else { "" };
        taken.push_str(&format!(", c{i}{cast}"));
        set.push_str(&format!("\"{name}\" = excluded.\"{name}\", "));
    }
    let last = mapping.fields().count() + 2;
    format!(
        "INSERT INTO \"{sql}\" ({names}, {VERSION}) SELECT {taken}, v FROM \
         unnest({arrays}, ${last}::bigint[]) AS u({placed}, v) \
         ON CONFLICT (\"{key}\") DO UPDATE SET {set}{VERSION} = excluded.{VERSION}"
    )
}

fn bind_plain(rows: &[Plain]) -> Vec<Parameter> {
    let names: Vec<String> = rows.iter().map(|row| row.table.to_string()).collect();
    let keys: Vec<Vec<u8>> = rows.iter().map(|row| row.key.to_vec()).collect();
    let values: Vec<Vec<u8>> =
        rows.iter().map(|row| row.value.as_deref().unwrap_or_default().to_vec()).collect();
    let versions: Vec<i64> = rows.iter().map(|row| signed(row.version)).collect();
    vec![Box::new(names), Box::new(keys), Box::new(values), Box::new(versions)]
}

fn bind_mapped(mapping: &Mapping, rows: &[Put]) -> Vec<Parameter> {
    let mut parameters = vec![column(mapping.key_kind(), rows.iter().map(|row| &row.key))];
    for (index, (_, kind)) in mapping.fields().enumerate() {
        parameters.push(column(kind, rows.iter().map(|row| &row.cells[index])));
    }
    let versions: Vec<i64> = rows.iter().map(|row| signed(row.version)).collect();
    parameters.push(Box::new(versions));
    parameters
}

fn column<'a>(kind: ColumnKind, cells: impl Iterator<Item = &'a Cell>) -> Parameter {
    match kind {
        ColumnKind::Text | ColumnKind::Json => Box::new(
            cells
                .map(|cell| match cell {
                    Cell::Text(text) | Cell::Json(text) => Some(text.clone()),
                    _ => None,
                })
                .collect::<Vec<Option<String>>>(),
        ),
        ColumnKind::Integer => Box::new(
            cells
                .map(|cell| if let Cell::Integer(number) = cell { Some(*number) } else { None })
                .collect::<Vec<Option<i64>>>(),
        ),
        ColumnKind::Float => Box::new(
            cells
                .map(|cell| if let Cell::Float(number) = cell { Some(*number) } else { None })
                .collect::<Vec<Option<f64>>>(),
        ),
        ColumnKind::Boolean => Box::new(
            cells
                .map(|cell| if let Cell::Boolean(truth) = cell { Some(*truth) } else { None })
                .collect::<Vec<Option<bool>>>(),
        ),
    }
}

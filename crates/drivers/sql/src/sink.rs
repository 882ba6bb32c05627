//! An open database, whichever it is. After any failure it is dropped: what was not committed is gone.

use hotpair_core::tables::behind::{Failure, Mark, Term};

use crate::driver::Probe;
use crate::mapping::Mapping;
use crate::postgres::Postgres;
use crate::prepared::Prepared;
use crate::sqlite::Sqlite;
use crate::target::Target;

/// Who writes.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    pub(crate) pair: String,
    pub(crate) node: String,
    pub(crate) instance: String,
}

/// A database that was opened, and how far it is.
pub(crate) struct Opened {
    pub(crate) sink: Sink,
    pub(crate) mark: Mark,
    pub(crate) quarantined: u64,
}

/// See the file's header.
pub(crate) enum Sink {
    Postgres(Postgres),
    Sqlite(Sqlite),
}

impl Sink {
    /// Connects, makes what is missing, raises the fence.
    pub(crate) async fn open(
        target: &Target,
        writer: &Writer,
        term: &Term,
        mappings: &[Mapping],
        probe: &Probe,
    ) -> Result<Opened, Failure> {
        match target {
            Target::Sqlite(path) => {
                let (sqlite, mark, quarantined) = Sqlite::open(path, writer, term, mappings)?;
                Ok(Opened { sink: Self::Sqlite(sqlite), mark, quarantined })
            }
            Target::Postgres(server) => {
                let (postgres, mark, quarantined) =
                    Postgres::open(server, writer, term, mappings, probe).await?;
                Ok(Opened { sink: Self::Postgres(postgres), mark, quarantined })
            }
        }
    }

    /// From now on a row that the database refuses for what is in it goes to quarantine, at the cost of a
    /// savepoint a statement; or not. SQLite needs none.
    pub(crate) fn be_careful(&mut self, careful: bool) {
        match self {
            Self::Postgres(postgres) => postgres.be_careful(careful),
            Self::Sqlite(_) => {}
        }
    }

    /// It failed for what is in a row: carefully it may go well.
    pub(crate) fn met_refused_row(&self) -> bool {
        match self {
            Self::Postgres(postgres) => postgres.met_refused_row(),
            Self::Sqlite(_) => false,
        }
    }

    /// Begins a transaction with the fence: nobody else has written, and this right still stands.
    pub(crate) async fn begin(&mut self, at: Mark) -> Result<(), Failure> {
        match self {
            Self::Postgres(postgres) => postgres.begin(at).await,
            Self::Sqlite(sqlite) => sqlite.begin(at),
        }
    }

    /// Every row goes.
    pub(crate) async fn wipe(&mut self, mappings: &[Mapping]) -> Result<(), Failure> {
        match self {
            Self::Postgres(postgres) => postgres.wipe(mappings).await,
            Self::Sqlite(sqlite) => sqlite.wipe(mappings),
        }
    }

    /// Writes rows.
    pub(crate) async fn apply(
        &mut self,
        prepared: Prepared,
        mappings: &[Mapping],
    ) -> Result<(), Failure> {
        match self {
            Self::Postgres(postgres) => postgres.apply(prepared, mappings).await,
            Self::Sqlite(sqlite) => sqlite.apply(prepared, mappings),
        }
    }

    /// Moves the mark and commits; how many rows are in quarantine then.
    pub(crate) async fn finish(&mut self, mark: Mark) -> Result<u64, Failure> {
        match self {
            Self::Postgres(postgres) => postgres.finish(mark).await,
            Self::Sqlite(sqlite) => sqlite.finish(mark),
        }
    }
}

/// Numbers of ours as databases have them: the life is any 64 bits.
pub(crate) fn signed(number: u64) -> i64 {
    number.cast_signed()
}

/// What a database says of itself that is somebody else's.
pub(crate) fn foreign(what: &str, found: (&str, &str), writer: &Writer, term: &Term) -> Failure {
    let (pair, cluster) = found;
    Failure::Refused(format!(
        "{what} holds the tables of pair {pair:?} in cluster {cluster}, and this is pair {:?} in \
         cluster {}: give each pair a database of its own, or see docs/operations/store.md on giving \
         this one away",
        writer.pair, term.owner
    ))
}

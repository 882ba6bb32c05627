//! Asks a PostgreSQL for the rows, a bounded batch at a time, all of one moment.
//!
//! The query is wrapped, so that the server itself turns its types into the few kinds there are: whole
//! numbers into `int8`, other numbers into `float8`, what is none of the kinds into text. Rows come through a portal,
//! 8,192 at a time; nothing is asked for before what came is taken in.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::builder::{
    BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{Field, Schema};
use hotpair_core::services::dataset::{Column, ColumnKind};
use hotpair_postgres::with_causes;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Row, Transaction};

use crate::error::LoadError;
use crate::layout::{Layout, data_type};
use crate::load::{Task, WorkerRead};
use crate::pieces::Worker;
use crate::row_groups::append;
use crate::spec::DatabaseSource;

/// Reads all rows of the query.
pub(crate) fn read(
    task: &Task<'_>,
    database: &DatabaseSource,
) -> Result<(Layout, Vec<WorkerRead>), LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(task, "beginning", &error))?;
    runtime.block_on(read_rows(task, database))
}

fn failed(task: &Task<'_>, doing: &'static str, error: &dyn Error) -> LoadError {
    LoadError::Database { database: task.file.to_owned(), doing, what: with_causes(error) }
}

async fn read_rows(
    task: &Task<'_>,
    database: &DatabaseSource,
) -> Result<(Layout, Vec<WorkerRead>), LoadError> {
    let application = format!("hotpair dataset {}", task.spec.name);
    let connecting = database.server.connect(&application);
    let (mut client, connection) = within(task, CONNECT_LIMIT, "connecting", connecting).await?;
    let cancel = client.cancel_token();
    let read = read_all(task, database, &mut client).await;
    if matches!(read, Err(LoadError::Cancelled)) {
        // The server would go on to look for rows that nobody wants; if this fails, it does.
        let _ = tokio::time::timeout(CONNECT_LIMIT, database.server.cancel(&cancel)).await;
    }
    connection.abort();
    read
}

async fn read_all(
    task: &Task<'_>,
    database: &DatabaseSource,
    client: &mut Client,
) -> Result<(Layout, Vec<WorkerRead>), LoadError> {
    let snapshot = client
        .build_transaction()
        .read_only(true)
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .start();
    let transaction = within(task, BATCH_LIMIT, "beginning", snapshot).await?;
    let preparing = transaction.prepare(&database.query);
    let found = within(task, BATCH_LIMIT, "reading the query", preparing).await?;
    let columns: Vec<(Column, &'static str)> = found
        .columns()
        .iter()
        .map(|column| {
            let (kind, cast) = kind_of(column.type_());
            (Column { name: column.name().to_owned(), kind }, cast)
        })
        .collect();
    let layout = Layout::new(
        task.spec,
        task.file,
        columns.iter().map(|(column, _)| column.clone()).collect(),
    )?;
    let wrapped = wrapped(&database.query, &columns);
    task.progress.expect_bytes(estimate(task, &transaction, &wrapped).await?);
    let preparing = transaction.prepare(&wrapped);
    let statement = within(task, BATCH_LIMIT, "reading the query", preparing).await?;
    let binding = transaction.bind(&statement, &[]);
    let portal = within(task, BATCH_LIMIT, "reading the query", binding).await?;
    let kinds: Vec<Column> = columns.into_iter().map(|(column, _)| column).collect();
    let schema = schema(&kinds);
    let mut worker = Worker::new(&layout, &task.progress.broken);
    let (mut row, mut limit) = (1_u64, FIRST_LIMIT);
    for number in 0.. {
        let rows = transaction.query_portal(&portal, BATCH_ROWS);
        let rows = within(task, limit, "reading rows", rows).await?;
        if rows.is_empty() {
            break;
        }
        limit = BATCH_LIMIT;
        let arrays = kinds.iter().enumerate().map(|(place, column)| {
            array(column, place, &rows).map_err(|error| failed(task, "reading rows", &error))
        });
        let arrays = arrays.collect::<Result<Vec<ArrayRef>, LoadError>>()?;
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)
            .map_err(|error| LoadError::Arrow { file: task.file.to_owned(), error })?;
        let mut piece = worker.empty_piece(number, row, rows.len());
        append(task, &layout, &mut worker, &mut piece, &batch, row)?;
        task.progress.add_rows(piece.rows as u64);
        task.progress.add_bytes(rows.len() as u64);
        row += rows.len() as u64;
        worker.pieces.push(piece);
        task.check()?;
    }
    let read = WorkerRead { texts: worker.texts, pieces: worker.pieces };
    Ok((layout, vec![read]))
}

/// Waits for the database, but not for ever, and not when nobody wants the rows any more.
async fn within<T, E: Error>(
    task: &Task<'_>,
    limit: Duration,
    doing: &'static str,
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, LoadError> {
    tokio::pin!(asked);
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let look = (tokio::time::Instant::now() + LOOK_EVERY).min(deadline);
        match tokio::time::timeout_at(look, &mut asked).await {
            Ok(answer) => return answer.map_err(|error| failed(task, doing, &error)),
            Err(_) if look == deadline => {
                let what = format!("no answer within {} s", limit.as_secs());
                let database = task.file.to_owned();
                return Err(LoadError::Database { database, doing, what });
            }
            Err(_) => task.check()?,
        }
    }
}

/// The kind of a type's values, and what it is turned into on the way.
fn kind_of(kind: &Type) -> (ColumnKind, &'static str) {
    match *kind {
        Type::BOOL => (ColumnKind::Boolean, ""),
        Type::INT2 | Type::INT4 | Type::INT8 => (ColumnKind::Integer, "::int8"),
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => (ColumnKind::Float, "::float8"),
        Type::DATE => (ColumnKind::Date, ""),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => (ColumnKind::Timestamp, ""),
        _ => (ColumnKind::Text, "::text"),
    }
}

fn wrapped(query: &str, columns: &[(Column, &'static str)]) -> String {
    let column = |(column, cast): &(Column, &'static str)| {
        let name = format!("\"{}\"", column.name.replace('"', "\"\""));
        format!("{name}{cast} AS {name}")
    };
    let columns: Vec<String> = columns.iter().map(column).collect();
    // A query may end in a comment.
    format!("SELECT {} FROM ({query}\n) AS hotpair_rows", columns.join(", "))
}

/// How many rows the planner expects: what there is to show how far a load is.
async fn estimate(
    task: &Task<'_>,
    transaction: &Transaction<'_>,
    query: &str,
) -> Result<u64, LoadError> {
    let explain = format!("EXPLAIN {query}");
    let asked = transaction.query(explain.as_str(), &[]);
    let plan = within(task, BATCH_LIMIT, "reading the query", asked).await?;
    let first: Option<String> = plan.first().and_then(|row| row.try_get(0).ok());
    let rows = first.and_then(|line| {
        let (_, rest) = line.split_once("rows=")?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    });
    Ok(rows.unwrap_or(0))
}

fn schema(columns: &[Column]) -> Arc<Schema> {
    let field = |column: &Column| Field::new(&column.name, data_type(column.kind), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<Field>>()))
}

fn array(column: &Column, place: usize, rows: &[Row]) -> Result<ArrayRef, tokio_postgres::Error> {
    macro_rules! filled {
        ($builder:expr, $given:ty, $own:expr) => {{
            let mut builder = $builder;
            for row in rows {
                builder.append_option(row.try_get::<_, Option<$given>>(place)?.map($own));
            }
            Arc::new(builder.finish())
        }};
    }
    Ok(match column.kind {
        ColumnKind::Boolean => filled!(BooleanBuilder::new(), bool, |truth| truth),
        ColumnKind::Integer => filled!(Int64Builder::new(), i64, |number| number),
        ColumnKind::Float => filled!(Float64Builder::new(), f64, |number| number),
        ColumnKind::Text => filled!(StringBuilder::new(), &str, |text| text),
        ColumnKind::Date => filled!(Date32Builder::new(), Days, |days: Days| days.0),
        ColumnKind::Timestamp => {
            let builder = TimestampMicrosecondBuilder::new().with_data_type(data_type(column.kind));
            filled!(builder, Microseconds, |moment: Microseconds| moment.0)
        }
    })
}

/// Days since 1970, from days since 2000.
struct Days(i32);

/// Microseconds since 1970, from microseconds since 2000.
struct Microseconds(i64);

impl<'a> FromSql<'a> for Days {
    fn from_sql(_: &Type, bytes: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let days = i32::from_be_bytes(bytes.try_into()?).checked_add(DAYS_TO_2000);
        days.filter(|days| *days > i32::MIN + DAYS_TO_2000)
            .map(Days)
            .ok_or_else(|| "a date that is infinite or too late".into())
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::DATE
    }
}

impl<'a> FromSql<'a> for Microseconds {
    fn from_sql(_: &Type, bytes: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let since_2000 = i64::from_be_bytes(bytes.try_into()?);
        let moment = since_2000.checked_add(MICROSECONDS_TO_2000);
        moment
            .filter(|_| since_2000 != i64::MIN)
            .map(Microseconds)
            .ok_or_else(|| "a timestamp that is infinite or too late".into())
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::TIMESTAMP | Type::TIMESTAMPTZ)
    }
}

const BATCH_ROWS: i32 = 8_192;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A query may have much to sort before it has its first row.
const FIRST_LIMIT: Duration = Duration::from_mins(10);
const BATCH_LIMIT: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(200);
const DAYS_TO_2000: i32 = 10_957;
const MICROSECONDS_TO_2000: i64 = 946_684_800_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_turns_types_into_kinds() {
        let column = |name: &str, kind: &Type| {
            let (kind, cast) = kind_of(kind);
            (Column { name: name.to_owned(), kind }, cast)
        };
        let columns =
            [column("a", &Type::INT4), column("b \"c\"", &Type::NUMERIC), column("d", &Type::UUID)];
        let wanted = "SELECT \"a\"::int8 AS \"a\", \"b \"\"c\"\"\"::float8 AS \"b \"\"c\"\"\", \
                      \"d\"::text AS \"d\" FROM (SELECT 1 -- all\n) AS hotpair_rows";
        assert_eq!(wrapped("SELECT 1 -- all", &columns), wanted);
    }

    #[test]
    fn times_are_counted_from_1970() {
        let days = |days: i32| Days::from_sql(&Type::DATE, &days.to_be_bytes()).map(|d| d.0);
        assert_eq!(days(0).unwrap(), 10_957);
        assert!(days(i32::MAX).is_err() && days(i32::MIN).is_err());
        let at = |at: i64| Microseconds::from_sql(&Type::TIMESTAMP, &at.to_be_bytes()).map(|m| m.0);
        assert_eq!(at(-MICROSECONDS_TO_2000).unwrap(), 0);
        assert!(at(i64::MAX).is_err() && at(i64::MIN).is_err());
    }
}

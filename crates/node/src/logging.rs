//! Logs to standard error, through a writer that loses lines rather than make anybody wait.

use std::io;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging; the guard flushes at its end. `RUST_LOG` chooses what is logged.
pub(crate) fn start(format: LogFormat) -> WorkerGuard {
    // A pipe that nobody reads fills up; the writer's thread may wait for it, nobody else.
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(8_192).finish(io::stderr());
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,zookeeper_client=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    guard
}

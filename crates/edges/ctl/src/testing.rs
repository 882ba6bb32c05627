//! A fake node for tests: takes HTTP requests, keeps them, answers what the test says.

use std::ops::AsyncFnOnce;
use std::sync::{Arc, Mutex};

use clap::{Args, Command};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::console::{Console, Outcome};

/// Answers every request by one function of `METHOD /path`.
pub(crate) struct Fake {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Fake {
    /// The answer that is none: the connection is closed.
    pub(crate) const HANG_UP: (u16, &'static str) = (0, "");

    pub(crate) async fn start<F>(answer: F) -> Self
    where
        F: Fn(&str) -> (u16, String) + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = heads.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = serve(stream, &answer, &kept).await;
            }
        });
        Self { address, heads, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The requests so far, `METHOD /path`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.heads().iter().map(|head| first_words(head)).collect()
    }

    /// The requests so far, whole.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &impl Fn(&str) -> (u16, String),
    kept: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let request = loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            break text;
        }
    };
    let (status, body) = answer(&first_words(&request));
    kept.lock().unwrap().push(request);
    if status == Fake::HANG_UP.0 {
        return Ok(());
    }
    let length = body.len();
    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await
}

fn first_words(head: &str) -> String {
    head.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A URL where nobody listens.
pub(crate) fn nobody() -> String {
    "http://127.0.0.1:1".to_owned()
}

/// Arguments as clap reads them.
pub(crate) fn parse<T: Args>(arguments: &[&str]) -> T {
    try_parse(arguments).unwrap()
}

pub(crate) fn try_parse<T: Args>(arguments: &[&str]) -> Result<T, clap::Error> {
    let command = T::augment_args(Command::new("test").no_binary_name(true));
    T::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

/// What a command wrote and how it ended.
pub(crate) struct Said {
    pub(crate) outcome: Outcome,
    pub(crate) results: String,
    pub(crate) notes: String,
}

pub(crate) async fn run<F>(command: F) -> Said
where
    F: AsyncFnOnce(&mut Console<'_>) -> anyhow::Result<Outcome>,
{
    let (mut results, mut notes) = (Vec::new(), Vec::new());
    let mut console = Console { results: Box::new(&mut results), notes: Box::new(&mut notes) };
    let outcome = command(&mut console).await.unwrap();
    drop(console);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { outcome, results: text(results), notes: text(notes) }
}

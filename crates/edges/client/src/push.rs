//! What the pair pushes to a session, followed over every cut.

use std::sync::Arc;
use std::time::Duration;

use hotpair_http::{Events, Opened};
use hotpair_protocol::{Envelope, ErrorNumber, Published, PushedRole};
use serde_json::Value;
use tokio::time::sleep;

use crate::error::{Error, data_of};
use crate::session::Shared;
use crate::targets::Heard;
use crate::wire::{heard, nothing};

/// One thing that was pushed.
#[derive(Debug)]
pub enum Pushed {
    /// What an asynchronous call came to. The same ticket may come again after a cut.
    Reply {
        /// The ticket.
        ticket: String,
        /// The function's answer, or why there is none.
        answer: Result<Value, Error>,
    },
    /// Something that was published while this stream was followed.
    Published {
        /// What it is about.
        topic: String,
        /// As it was published.
        payload: Value,
    },
    /// Who sends this serves, or does so no longer.
    Role {
        /// The epoch.
        epoch: u64,
        /// Whether it is served.
        serving: bool,
    },
    /// The stream was cut; it is being followed anew.
    Cut,
}

/// A stream of what is pushed. Follows anew by itself; ends only with the session.
#[derive(Debug)]
pub struct Push {
    shared: Arc<Shared>,
    /// Whether it says, coming back, what it has.
    takes: bool,
    last_id: String,
    events: Option<Events>,
}

impl Push {
    pub(crate) fn new(shared: Arc<Shared>, takes: bool) -> Self {
        Self { shared, takes, last_id: String::new(), events: None }
    }

    /// The next thing; waits for it however long it takes. An error is the end of the session.
    pub async fn next(&mut self) -> Result<Pushed, Error> {
        loop {
            let Some(events) = &mut self.events else {
                self.connect().await?;
                continue;
            };
            match events.next(SILENCE_MAX).await {
                Ok(Some(event)) => {
                    if !event.id.is_empty() {
                        self.last_id.clone_from(&event.id);
                    }
                    if let Some(pushed) = read(&event.name, &event.data) {
                        return Ok(pushed);
                    }
                }
                Ok(None) | Err(_) => {
                    self.events = None;
                    return Ok(Pushed::Cut);
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let wire = Arc::clone(&self.shared.wire);
        let mut pause = 0;
        loop {
            let (address, token) = (wire.choose(), self.shared.login().token.clone());
            let (url, bearer) = (wire.url(&address, "/v1/push"), format!("Bearer {token}"));
            let mut headers = vec![("authorization", bearer.as_str())];
            if self.takes && !self.last_id.is_empty() {
                headers.push(("last-event-id", &self.last_id));
            }
            let opened = wire.dialler().open_events_or_answer(&url, &headers, OPEN_LIMIT).await;
            let heard = match opened {
                Ok(Opened::Stream(events)) => {
                    self.events = Some(events);
                    return Ok(());
                }
                Ok(Opened::Answer(answer)) => heard(&answer),
                Err(error) => nothing(&error),
            };
            wire.handle(&address, &heard);
            if let Heard::Answer(Envelope { error_no: ErrorNumber::SessionUnknown, .. }) = heard {
                return Err(Error::SessionOver);
            }
            pause = (pause * 2).clamp(PAUSE_MS, PAUSE_MS_MAX);
            sleep(Duration::from_millis(fastrand::u64(pause / 2..=pause))).await;
        }
    }
}

/// What is not understood is of a later version.
fn read(name: &str, data: &str) -> Option<Pushed> {
    match name {
        "reply" => {
            let envelope: Envelope = serde_json::from_str(data).ok()?;
            let ticket = envelope.ticket.clone()?;
            Some(Pushed::Reply { ticket, answer: data_of(envelope) })
        }
        "role" => {
            let PushedRole { epoch, serving } = serde_json::from_str(data).ok()?;
            Some(Pushed::Role { epoch, serving })
        }
        "publish" => {
            let Published { topic, payload } = serde_json::from_str(data).ok()?;
            Some(Pushed::Published { topic, payload })
        }
        _ => None,
    }
}

/// The pair says something, if only that it is there, every four seconds.
const SILENCE_MAX: Duration = Duration::from_secs(10);
const OPEN_LIMIT: Duration = Duration::from_secs(2);
const PAUSE_MS: u64 = 20;
const PAUSE_MS_MAX: u64 = 500;

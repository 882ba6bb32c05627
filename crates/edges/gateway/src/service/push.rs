//! `GET /v1/push`: a session's answers, and what is published, as server-sent events, as they come.
//!
//! ```text
//! open ─▶ role ─▶ the replies that wait, oldest first ─▶ (woken) ─▶ … ─▶ role: not serving ─▶ end
//! ```
//!
//! Each `reply` has its row's version as `id`. Who comes back with `Last-Event-ID` has everything up
//! to there, and it is let go; everything after it is said again. So nothing is lost with a connection,
//! and what is said twice has the same ticket. What is published is said once, to who follows then. A stream that does not take its events in time is cut.

use std::sync::Arc;
use std::time::Duration;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::change::SessionKey;
use hotpair_http::{Bytes, Request, Response};
use hotpair_protocol::PushedRole;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::failure::Failure;
use super::{Answer, ClientService};
use crate::publications::{Publication, Topics};
use crate::sessions::session_key;
use crate::under_way::Following;

/// Why a stream ends.
enum End {
    /// It does not take its events, or is gone.
    Slow,
    /// This node does not serve its epoch any more.
    NotServing,
    /// The session is over, or follows with too many streams.
    Over,
}

impl ClientService {
    /// Begins a stream, or says why not.
    pub(super) async fn push(self: &Arc<Self>, request: &Request) -> Result<Response, Answer> {
        let pass = self
            .gate
            .enter()
            .map_err(|refused| Answer::Refused(self.not_serving(&refused.to_string(), false)))?;
        let epoch = pass.epoch();
        let refused = |failure: Failure| Answer::Refused(failure.envelope(epoch));
        let token = request.bearer().ok_or_else(|| refused(Failure::SessionWanted))?;
        let session = session_key(token);
        if !self.sessions.exists(session) {
            return Err(refused(Failure::SessionUnknown));
        }
        let topics = Topics::of_query(request.query.as_deref().unwrap_or_default())
            .map_err(|why| refused(Failure::Malformed(why)))?;
        self.sessions.hear(session, epoch);
        let last = request.headers.get("last-event-id");
        let has: u64 = last.and_then(|id| id.to_str().ok()?.trim().parse().ok()).unwrap_or(0);
        if has > 0 {
            self.let_go(epoch, session, has).await;
        }
        drop(pass);
        let (pieces, receiver) = mpsc::channel(PIECES);
        let stream = Stream {
            service: Arc::clone(self),
            following: self.followers.follow(session),
            published: self.publications.follow(),
            topics,
            session,
            epoch,
            pieces,
            said: has,
        };
        tokio::spawn(stream.run());
        Ok(Response::events(receiver))
    }
}

struct Stream {
    service: Arc<ClientService>,
    following: Following,
    published: broadcast::Receiver<Publication>,
    topics: Topics,
    session: SessionKey,
    epoch: Epoch,
    pieces: mpsc::Sender<Bytes>,
    /// The version of the last answer that was said.
    said: u64,
}

impl Stream {
    async fn run(mut self) {
        match self.say_all().await {
            End::Slow | End::Over => {}
            End::NotServing => {
                // The end of the stream says the same to whoever has no room for it.
                let _ = self.pieces.try_send(role(self.epoch, false));
            }
        }
    }

    async fn say_all(&mut self) -> End {
        if let Err(end) = self.say(|| role(self.epoch, true)).await {
            return end;
        }
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_turns = 0;
        loop {
            if let Err(end) = self.say_new(&mut silent_turns).await {
                return end;
            }
            tokio::select! {
                () = self.following.woken() => {}
                published = self.published.recv() => {
                    if let Err(end) = self.say_published(published).await {
                        return end;
                    }
                }
                () = self.pieces.closed() => return End::Slow,
                _ = turns.tick() => silent_turns += 1,
            }
            if silent_turns >= COMMENT_TURNS {
                silent_turns = 0;
                if let Err(end) = self.say(|| Bytes::from_static(b":\n\n")).await {
                    return end;
                }
            }
        }
    }

    async fn say_new(&mut self, silent_turns: &mut u32) -> Result<(), End> {
        if self.service.gate.serving_epoch() != Some(self.epoch) {
            return Err(End::NotServing);
        }
        if self.following.is_cut() || !self.service.sessions.exists(self.session) {
            return Err(End::Over);
        }
        for (version, kept) in self.service.waiting_answers(self.session, self.said) {
            self.say(|| reply(version, &kept.envelope(self.epoch))).await?;
            self.said = version;
            self.following.pushed(version);
            *silent_turns = 0;
        }
        Ok(())
    }

    async fn say_published(&self, published: Result<Publication, RecvError>) -> Result<(), End> {
        match published {
            Ok(Publication { topic, event }) if self.topics.want(&topic) => {
                self.say(|| event).await
            }
            Ok(_) => Ok(()),
            Err(RecvError::Lagged(missed)) => {
                self.say(|| format!(": {missed} publications were missed\n\n").into()).await
            }
            Err(RecvError::Closed) => Err(End::Over),
        }
    }

    /// Waits for room, asks the gate, and only then says it.
    async fn say(&self, piece: impl FnOnce() -> Bytes) -> Result<(), End> {
        let room = timeout(SLOW, self.pieces.reserve()).await.map_err(|_| End::Slow)?;
        let room = room.map_err(|_| End::Slow)?;
        let pass = self.service.gate.enter().map_err(|_| End::NotServing)?;
        if pass.epoch() != self.epoch {
            return Err(End::NotServing);
        }
        room.send(piece());
        Ok(())
    }
}

fn role(epoch: Epoch, serving: bool) -> Bytes {
    let role = PushedRole { epoch: epoch.0, serving };
    let data = serde_json::to_string(&role).expect("numbers are JSON");
    format!("event: role\ndata: {data}\n\n").into()
}

/// The envelope has no line breaks: answers of functions are compact JSON.
fn reply(version: u64, envelope: &[u8]) -> Bytes {
    let mut piece = format!("event: reply\nid: {version}\ndata: ").into_bytes();
    piece.extend(
        envelope.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }),
    );
    piece.extend_from_slice(b"\n\n");
    piece.into()
}

/// Pieces that may wait for one client.
const PIECES: usize = 4;
/// A client that takes nothing for so long is cut.
const SLOW: Duration = Duration::from_secs(5);
/// How often a stream looks whether this node still serves.
const TURN: Duration = Duration::from_millis(250);
/// Turns without an event before a comment says that the stream lives.
const COMMENT_TURNS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_one_line_of_data() {
        let piece = reply(7, b"{\"data\":\n1}");
        assert_eq!(&piece[..], b"event: reply\nid: 7\ndata: {\"data\": 1}\n\n");
    }
}

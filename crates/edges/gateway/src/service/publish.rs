//! `POST /v1/publish`: to everybody who follows `GET /v1/push` and wants the topic.

use hotpair_core::services::session::Session;
use hotpair_core::tables::SESSIONS;
use hotpair_http::Request;
use hotpair_protocol::{EPOCH_HEADER, PublishText};
use serde_json::json;

use super::arguments::object;
use super::failure::Failure;
use super::{ClientService, Outcome};
use crate::data::Data;
use crate::gate::Pass;
use crate::publications::{Publication, check_topic};
use crate::sessions::session_key;

impl ClientService {
    /// Publishes, for a session that may, or for whoever asks from this machine itself and was not
    /// passed on by a router.
    pub(super) fn publish(&self, pass: &Pass, request: &Request) -> Outcome {
        let body: PublishText<'_> = object(&request.body, "the body")?;
        match &body.session {
            Some(token) => self.check_publisher(pass, &token.0)?,
            None if is_of_this_machine(request) => {}
            None => return Err(Failure::SessionWanted),
        }
        let malformed = |why: String| Failure::Malformed(format!("the body: topic: {why}"));
        check_topic(&body.topic.0).map_err(malformed)?;
        let payload = body.payload.get();
        if payload.len() > PAYLOAD_BYTES_MAX {
            let why = format!("the body: payload has more than {PAYLOAD_BYTES_MAX} bytes");
            return Err(Failure::Malformed(why));
        }
        let topic = serde_json::to_string(&body.topic.0).expect("a text is JSON");
        // A line of data ends at a line break, and JSON has them between its words only.
        let payload = payload.replace(['\n', '\r'], " ");
        let event =
            format!("event: publish\ndata: {{\"topic\":{topic},\"payload\":{payload}}}\n\n").into();
        let topic = body.topic.0.into();
        let streams = self.publications.publish(Publication { topic, event });
        Ok(Data::text(json!({"streams": streams}).to_string()))
    }

    fn check_publisher(&self, pass: &Pass, token: &str) -> Result<(), Failure> {
        let session = session_key(token);
        let user = self.tables.look(|store| {
            let row = store.get(SESSIONS, &session.0)?;
            Session::decode(&row.value).ok().map(|session| session.user)
        });
        let user = user.ok_or(Failure::SessionUnknown)?;
        self.sessions.hear(session, pass.epoch());
        if self.settings.publishers.contains(&user) {
            return Ok(());
        }
        let why = "this user may not publish: sessions.publishers does not name it";
        Err(Failure::NotAllowed(why.to_owned()))
    }
}

/// A program of this machine: neither passed on by a router, nor the page of somebody else in a browser.
fn is_of_this_machine(request: &Request) -> bool {
    let from_elsewhere = [EPOCH_HEADER, "origin"];
    request.is_from_loopback()
        && !from_elsewhere.iter().any(|header| request.headers.contains_key(*header))
}

/// The largest payload.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

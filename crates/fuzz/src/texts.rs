//! Texts: configuration, znodes, HTTP.

use hotpair_protocol::{CallText, Envelope, LoginBody, PublishText, ResultBody, SessionBody};

/// A node's file, and a router's.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    hotpair::fuzzing::config(text);
}

/// A users file.
pub(crate) fn users(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    hotpair::fuzzing::users(text);
}

/// What stands in ZooKeeper.
pub(crate) fn znodes(bytes: &[u8]) {
    hotpair_coordinator::fuzzing::znodes(bytes);
}

/// Bodies of clients' requests, as nodes and routers read them.
pub(crate) fn bodies(bytes: &[u8]) {
    let _ = serde_json::from_slice::<CallText<'_>>(bytes);
    let _ = serde_json::from_slice::<PublishText<'_>>(bytes);
    let _ = serde_json::from_slice::<LoginBody>(bytes);
    let _ = serde_json::from_slice::<SessionBody>(bytes);
    let _ = serde_json::from_slice::<ResultBody>(bytes);
    hotpair_router::fuzzing::request(bytes);
}

/// Answers of nodes, as routers and clients read them.
pub(crate) fn answers(bytes: &[u8]) {
    hotpair_http::fuzzing::answer_head(bytes);
    hotpair_router::fuzzing::answer(bytes);
    if let Ok(envelope) = serde_json::from_slice::<Envelope>(bytes) {
        let again = serde_json::to_vec(&envelope).expect("an envelope is JSON");
        assert_eq!(
            serde_json::from_slice::<Envelope>(&again).expect("as it was written"),
            envelope
        );
    }
}

/// A stream of server-sent events, in pieces.
pub(crate) fn events(bytes: &[u8]) {
    hotpair_http::fuzzing::events(bytes);
}

/// What a dataset's publisher sends: frames, and rows in them.
pub(crate) fn feeds(bytes: &[u8]) {
    hotpair_feed::fuzzing::frames(bytes);
    let _ = hotpair_feed::updates(bytes);
}

/// What a function's program answers.
pub(crate) fn programs(bytes: &[u8]) {
    hotpair_gateway::fuzzing::program_answer(bytes);
}

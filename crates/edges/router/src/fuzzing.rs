//! Entrances for the fuzzer.

use hotpair_http::Method;

use crate::look;

/// These bytes as a request's body.
pub fn request(body: &[u8]) {
    for path in ["/v1/call", "/v1/result", "/v1/login", "/v1/functions"] {
        let _ = look::request(&Method::POST, path, body);
    }
}

/// These bytes as an answer: what is seen at a glance is what is there.
pub fn answer(body: &[u8]) {
    look::compare(body);
}

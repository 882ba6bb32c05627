//! A small blocking HTTP client, of another make than the product's, so that it can judge it.
//!
//! One request, one connection, one limit. No keeping alive, no redirects.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::place::Place;

/// Speaks to one HTTP server.
#[derive(Debug, Clone)]
pub struct Http {
    place: Place,
    address: SocketAddr,
    token: Option<String>,
    limit: Duration,
}

/// An answer, read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

impl Http {
    /// A client of the server at this address, spoken to from this place, waiting at most 2 s for
    /// each step (connect, each write, each read).
    #[must_use]
    pub fn new(place: Place, address: SocketAddr) -> Self {
        Self { place, address, token: None, limit: Duration::from_secs(2) }
    }

    /// The same with a bearer token.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// The same with another limit.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// GET.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.request("GET", path, "")
    }

    /// GET of a JSON document, whatever the status.
    pub fn get_json(&self, path: &str) -> Result<Value> {
        self.get(path)?.json().with_context(|| format!("GET {path} of {}", self.address))
    }

    /// POST of a JSON document.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.request("POST", path, &body.to_string())
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let mut stream = self.place.connect(self.address, self.limit)?;
        let authorization = match &self.token {
            Some(token) => format!("Authorization: Bearer {token}\r\n"),
            None => String::new(),
        };
        let content = match method {
            "GET" => String::new(),
            _ => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{authorization}{content}Connection: close\r\n\r\n",
            self.address
        );
        let at = || format!("{method} {path} of {}", self.address);
        stream.write_all(format!("{head}{body}").as_bytes()).with_context(at)?;
        let mut bytes = Vec::new();
        // Bounded: a server gone mad must not fill our memory.
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).with_context(at)?;
        parse(&bytes).with_context(at)
    }
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body)
            .with_context(|| format!("status {}, not JSON: {:?}", self.status, self.body))
    }
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .with_context(|| format!("no whole HTTP head in {} bytes", bytes.len()))?;
    let head = std::str::from_utf8(&bytes[..end]).context("an HTTP head that is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("no status in {head:?}"))?;
    let mut length = None;
    let mut chunked = false;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { bail!("a broken header {line:?}") };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.trim().parse::<usize>()?),
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let rest = &bytes[end + 4..];
    let body = if chunked { unchunked(rest)? } else { rest.to_vec() };
    if let Some(length) = length
        && body.len() != length
    {
        bail!("{} bytes of a body of {length}", body.len());
    }
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

fn unchunked(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|window| window == b"\r\n")
            .context("a chunked body without its last chunk")?;
        let size = std::str::from_utf8(&rest[..end])?.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).context("a chunk without a size")?;
        if size == 0 {
            return Ok(body);
        }
        let chunk = rest.get(end + 2..end + 2 + size).context("half a chunk")?;
        body.extend_from_slice(chunk);
        rest = rest.get(end + 2 + size + 2..).context("a chunk without its end")?;
    }
}

const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_and_a_chunked_answer_read_the_same() {
        let plain = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue").unwrap();
        let chunked = parse(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntru\r\n1\r\ne\r\n0\r\n\r\n",
        );
        assert_eq!(plain, chunked.unwrap());
        assert_eq!(plain.json().unwrap(), Value::Bool(true));
    }

    #[test]
    fn half_an_answer_is_an_error() {
        for half in [
            &b"HTTP/1.1 200 OK\r\nContent-Le"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntr",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntr",
        ] {
            assert!(parse(half).is_err());
        }
    }
}

//! The way in: a listener, and what is spoken on it.
//!
//! One byte tells TLS from everything else: a handshake begins with 22, and no HTTP does. So plain text
//! on a TLS port can be answered in plain text, and a port can let plain text in that comes from this
//! very machine.

use std::io;
use std::net::SocketAddr;

use hotpair_tls::{Acceptor, Stream, explain};
use tokio::net::{TcpListener, TcpStream};

/// A port that is served.
#[derive(Debug)]
pub struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) secured: Option<Secured>,
}

/// How TLS is spoken at a door.
#[derive(Debug)]
pub(crate) struct Secured {
    acceptor: Acceptor,
    plain_from_loopback: bool,
}

/// What came through it.
pub(crate) enum Came {
    /// Somebody to be answered.
    In(Stream),
    /// Plain text, where there must be none.
    Plain(TcpStream),
    /// A handshake that did not come about, and why.
    Failed(String),
    /// Nobody any more.
    Gone,
}

impl From<TcpListener> for Door {
    /// Plain text.
    fn from(listener: TcpListener) -> Self {
        Self { listener, secured: None }
    }
}

impl Door {
    /// TLS, if there is somebody to accept it, and nothing else then.
    #[must_use]
    pub fn new(listener: TcpListener, acceptor: Option<Acceptor>) -> Self {
        let secured = acceptor.map(|acceptor| Secured { acceptor, plain_from_loopback: false });
        Self { listener, secured }
    }

    /// The same, open to plain text from this machine itself: nobody can listen in there, and scripts
    /// and health checks need no certificates.
    #[must_use]
    pub fn with_plain_from_loopback(mut self) -> Self {
        if let Some(secured) = &mut self.secured {
            secured.plain_from_loopback = true;
        }
        self
    }
}

impl Secured {
    /// Lets one in; waits for its first byte, and for the handshake. Whoever calls limits that.
    pub(crate) async fn open(&self, stream: TcpStream, from: SocketAddr) -> Came {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(0) | Err(_) => return Came::Gone,
            Ok(_) if first[0] == HANDSHAKE => {}
            Ok(_) if self.plain_from_loopback && from.ip().to_canonical().is_loopback() => {
                return Came::In(Stream::Plain(stream));
            }
            Ok(_) => return Came::Plain(stream),
        }
        match self.acceptor.accept(stream).await {
            Ok(stream) => Came::In(stream),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Came::Gone,
            Err(error) => Came::Failed(explain(&error).unwrap_or_else(|| error.to_string())),
        }
    }
}

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 22;

#[cfg(test)]
mod tests {
    use hotpair_tls::testing::Authority;
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// What becomes of these bytes from there, at a door that is open to this machine.
    async fn came(first: &[u8], from: &str) -> Came {
        let folder = tempfile::tempdir().unwrap();
        let acceptor =
            Authority::new(folder.path()).identity("a", &["127.0.0.1"]).server(&[]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        stream.write_all(first).await.unwrap();
        stream.shutdown().await.unwrap();
        let door = Door::new(listener, Some(acceptor)).with_plain_from_loopback();
        let (accepted, _) = door.listener.accept().await.unwrap();
        door.secured.unwrap().open(accepted, from.parse().unwrap()).await
    }

    #[tokio::test]
    async fn plain_text_comes_in_from_this_machine_only() {
        for here in ["127.0.0.1:9", "127.0.1.1:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
            assert!(matches!(came(b"GET", here).await, Came::In(Stream::Plain(_))), "{here}");
        }
        assert!(matches!(came(b"GET", "10.0.0.2:9").await, Came::Plain(_)));
        assert!(matches!(came(b"", "127.0.0.1:9").await, Came::Gone));
        assert!(matches!(came(b"\x16\x03\x01", "10.0.0.2:9").await, Came::Gone));
        assert!(matches!(came(&[22; 64], "127.0.0.1:9").await, Came::Failed(_)));
    }
}

//! TLS on the link: both sides show a certificate that the authority has signed and that names the
//! pair; only then a first frame is read.
//!
//! ```text
//! door:  first byte 0x16 ─▶ handshake ─▶ names the pair? ─yes─▶ frames
//!        first byte 0x00 ─▶ a plain frame: refused in plain words (or taken, where both are allowed)
//! dial:  connect ─▶ handshake, the server must be called as the pair ─▶ frames
//! ```
//!
//! The name that counts is the pair's, on both sides, wherever the connection came from: addresses are
//! translated on the way, and hosts move. Where a node's own certificate does not name the pair, its
//! peer's cannot be asked to: then that has to name the host at which the peer is configured. What a connection's end proves is not touched by TLS: whether
//! the peer's kernel refuses is known before the first byte of a handshake.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotpair_tls::rustls::{Error, InvalidMessage};
use hotpair_tls::{Acceptor, Connector, Identity, Stream, TlsError, explain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What a TLS connection begins with; no plain frame is long enough to.
pub(crate) const TLS_FIRST_BYTE: u8 = 0x16;
/// Whoever is refused gets so long to read why before the connection is gone.
const PARTING: Duration = Duration::from_millis(200);

/// Who this node is on the link, and whom it speaks to. Clones share what was learned of the peer.
#[derive(Clone, Debug)]
pub struct LinkSecurity {
    acceptor: Acceptor,
    connector: Connector,
    pair: Arc<str>,
    /// What the other side's certificate has to name.
    name: Arc<str>,
    plain_too: bool,
    /// The last handshake with it found plain text.
    peer_is_plain: Arc<AtomicBool>,
}

/// A handshake that came to nothing.
#[derive(Debug)]
pub(crate) enum NoHandshake {
    /// What TLS, or we, have against the other side, in words.
    Refused(String),
    /// The connection ended or failed.
    Ended(io::Error),
}

impl LinkSecurity {
    /// For nodes of this pair. `plain_too`: for the time of a change from plain text to TLS, a peer
    /// without TLS is spoken to as well.
    ///
    /// # Errors
    /// When a certificate, a key or an authority is missing.
    pub fn new(identity: &Identity, pair: &str, plain_too: bool) -> Result<Self, TlsError> {
        Self::expecting(identity, pair, pair, plain_too)
    }

    /// The same, and the other side's certificate has to name this host instead of the pair.
    ///
    /// # Errors
    /// As above, or when that is no name.
    pub fn expecting(
        identity: &Identity,
        pair: &str,
        host: &str,
        plain_too: bool,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            acceptor: identity.mutual_server(&[])?,
            connector: identity.client(&[])?.named(host)?,
            pair: pair.into(),
            name: host.into(),
            plain_too,
            peer_is_plain: Arc::default(),
        })
    }

    /// What the other side's certificate has to name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the peer is to be dialled in plain text.
    pub(crate) fn dials_plain(&self) -> bool {
        self.plain_too && self.peer_is_plain.load(Ordering::Acquire)
    }

    /// A plain hello got no welcome: the peer may speak TLS by now.
    pub(crate) fn plain_was_refused(&self) {
        self.peer_is_plain.store(false, Ordering::Release);
    }

    pub(crate) fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// The handshake with the peer that we dialled.
    pub(crate) async fn connect(
        &self,
        peer: SocketAddr,
        stream: TcpStream,
    ) -> Result<Stream, NoHandshake> {
        let name = self.connector.expected("").map_err(|e| NoHandshake::Refused(e.to_string()))?;
        let connector = TlsConnector::from(Arc::clone(self.connector.config()));
        match connector.connect(name, stream).await {
            Ok(stream) => {
                self.peer_is_plain.store(false, Ordering::Release);
                Ok(Stream::Tls(Box::new(stream.into())))
            }
            Err(error) => Err(self.no_handshake(peer, error)),
        }
    }

    fn no_handshake(&self, peer: SocketAddr, error: io::Error) -> NoHandshake {
        if is_plain_text(&error) {
            self.peer_is_plain.store(true, Ordering::Release);
            return NoHandshake::Refused(format!(
                "{peer} does not speak TLS and this node does: the other node lacks tls.certificate, \
                 tls.key and tls.authority (or another program listens there)"
            ));
        }
        match objection(peer, &error) {
            Some(what) => NoHandshake::Refused(what),
            None => NoHandshake::Ended(error),
        }
    }

    /// The handshake with whoever came. Plain, if that is what comes and what is allowed.
    pub(crate) async fn accept(
        &self,
        from: SocketAddr,
        stream: TcpStream,
    ) -> Result<Stream, NoHandshake> {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(0) => return Err(NoHandshake::Ended(ErrorKind::UnexpectedEof.into())),
            Ok(_) if first[0] == TLS_FIRST_BYTE => {}
            Ok(_) if self.plain_too => return Ok(Stream::Plain(stream)),
            Ok(_) => {
                self.part(stream).await;
                return Err(NoHandshake::Refused(plain_came(from.ip())));
            }
            Err(error) => return Err(NoHandshake::Ended(error)),
        }
        let acceptor = TlsAcceptor::from(Arc::clone(self.acceptor.config()));
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream.into()))),
            Err((error, stream)) => {
                drain(stream).await;
                Err(match explain(&error) {
                    Some(why) => NoHandshake::Refused(format!(
                        "a node came from {} with TLS, and was refused: {why}",
                        from.ip()
                    )),
                    None => NoHandshake::Ended(error),
                })
            }
        }
    }

    /// Whether the other side of an accepted connection is of this pair; plain ones are asked later.
    pub(crate) fn is_of_our_pair(&self, stream: &Stream) -> bool {
        match stream {
            Stream::Plain(_) => true,
            Stream::Tls(_) => stream.peer_is_named(&self.name),
        }
    }

    /// Says in plain words that nothing is said in plain words.
    async fn part(&self, mut stream: TcpStream) {
        let text = format!(
            "the link of pair {} speaks TLS only: tls.certificate, tls.key and tls.authority are \
             missing in the configuration of whoever came",
            self.pair
        );
        let mut out = bytes::BytesMut::new();
        let rejection = crate::frame::Rejection {
            reason: crate::frame::RejectReason::Malformed,
            text,
            // Nothing that a stranger could not guess.
            pair: String::new(),
            node: String::new(),
        };
        crate::frame::encode(&crate::frame::Frame::Reject(rejection), &mut out);
        let _ = timeout(PARTING, stream.write_all(&out)).await;
        drain(stream).await;
    }
}

/// Lets the other side read our last word: closed with bytes unread, a connection is reset.
async fn drain(mut stream: TcpStream) {
    let rest = async {
        let _ = stream.shutdown().await;
        let mut scrap = [0; 1_024];
        for _ in 0..64 {
            if !matches!(stream.read(&mut scrap).await, Ok(1..)) {
                break;
            }
        }
    };
    let _ = timeout(PARTING, rest).await;
}

/// What is said of a plain connection.
fn plain_came(from: IpAddr) -> String {
    format!(
        "somebody at {from} spoke plain text to listen.peer, which takes TLS only; if that is the \
         other node, it lacks tls.certificate, tls.key and tls.authority"
    )
}

/// What TLS has against the peer that we dialled, or the peer against us.
pub(crate) fn objection(peer: SocketAddr, error: &io::Error) -> Option<String> {
    explain(error).map(|why| format!("TLS with {peer}: {why}"))
}

fn is_plain_text(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    matches!(
        error,
        Some(Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion
        ))
    )
}

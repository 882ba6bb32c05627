//! TLS to a ZooKeeper server: a port of our own on loopback, behind it a TLS connection that is there
//! already.
//!
//! ```text
//!   client library ──plain, loopback──▶ port that lets in one, ours ──TLS──▶ server's secure port
//! ```
//!
//! The library has TLS of its own, with a second library of cryptography and no word on why a handshake
//! failed (`docs/decisions/0014`). Here the handshake comes first, with the one that everything else
//! has, and its error says what is wrong. The port lets in the process's own user and nobody else, once;
//! it is bound for as long as the connection lasts, so that nobody can take its place.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use hotpair_tls::Connector;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Nobody but our own library knows of the port; it comes at once.
const COMES_WITHIN: Duration = Duration::from_secs(5);

/// Makes the TLS connection, then the port; where the library is to connect to. All of it ends with the
/// runtime that this is called in.
pub(crate) async fn open(server: &str, tls: &Connector) -> io::Result<SocketAddr> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let outer = tls.connect(server, stream).await?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = port.local_addr()?;
    tokio::spawn(carry(port, outer));
    Ok(address)
}

async fn carry(port: TcpListener, mut outer: impl AsyncRead + AsyncWrite + Unpin) {
    let Ok(Some(mut inner)) = tokio::time::timeout(COMES_WITHIN, let_in(&port)).await else {
        return;
    };
    let turned_away = async {
        // The library dials again when it is cut off: until its runtime ends, it must not meet others.
        while port.accept().await.is_ok() {}
    };
    tokio::select! {
        // Either end's end is the other's.
        _ = copy_bidirectional(&mut inner, &mut outer) => {}
        () = turned_away => {}
    }
    drop((inner, outer));
    while port.accept().await.is_ok() {}
}

/// The first connection that is our own user's.
async fn let_in(port: &TcpListener) -> Option<TcpStream> {
    loop {
        let (stream, from) = port.accept().await.ok()?;
        if stream.set_nodelay(true).is_ok() && is_own(from, port.local_addr().ok()?) {
            return Some(stream);
        }
        tracing::warn!(%from, "somebody else came to a port that only this process knows");
    }
}

/// Whether the connection from there was made by this process's user, as the kernel says.
fn is_own(from: SocketAddr, to: SocketAddr) -> bool {
    let us = std::fs::metadata("/proc/self").map(|own| own.uid()).ok();
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let user = user_of(&table, from, to);
    user.is_some() && user == us
}

/// The user of a connection in the kernel's table: `sl local remote st tx:rx tr:when retrnsmt uid …`.
fn user_of(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let (local, remote) = (shown(local)?, shown(remote)?);
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let found = fields.get(1..3)? == [local.as_str(), remote.as_str()];
        found.then(|| fields.get(7)?.parse().ok()).flatten()
    })
}

/// An address as the kernel's table has it: the four bytes as one number of this machine.
fn shown(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let bytes = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{bytes:08X}:{:04X}", address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_of_our_own_is_known_as_such() {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = port.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (_accepted, from) = port.accept().await.unwrap();
        assert!(is_own(from, address));
        drop(stream);
        let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert!(!is_own(nobody, address), "there is no such connection");
    }

    #[test]
    fn the_user_stands_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:AD9C 0100007F:08A5 01 00000000:00000000 00:00000000 00000000  1000        0 1 1\n";
        let address = |text: &str| text.parse().unwrap();
        let (local, remote) = (address("127.0.0.1:44444"), address("127.0.0.1:2213"));
        assert_eq!(user_of(table, local, remote), Some(1000));
        assert_eq!(user_of(table, remote, local), None);
    }
}

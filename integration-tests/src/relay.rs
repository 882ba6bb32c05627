//! A port that passes connections on once it is told to, and can hold back or lose what passes.
//!
//! For nodes whose link is to be cut without a network of their own: each is told the relay's address
//! as the other's. Before it is opened, the relay refuses; while it holds, connections live and nothing
//! moves, as in a network without a way; when it severs, they end and what was held is lost.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use hotpair_lab::port::Port;

/// A reserved port in front of another address.
#[derive(Debug)]
pub struct Relay {
    port: Port,
    target: SocketAddr,
    orders: Arc<Orders>,
}

/// What all connections obey.
#[derive(Debug, Default)]
struct Orders {
    over: AtomicBool,
    held: AtomicBool,
    /// How often it was severed: connections of an earlier count are to end.
    severed: AtomicU64,
    /// How many bytes came while it held.
    held_back: AtomicU64,
}

impl Relay {
    /// Nothing listens yet.
    pub fn closed(target: SocketAddr) -> Result<Self> {
        Ok(Self { port: Port::reserve()?, target, orders: Arc::default() })
    }

    /// The address to use in place of the target's.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Passes on from now on, until dropped; connections made go on until an end closes.
    pub fn open(&self) -> Result<()> {
        let address = self.address();
        let listener =
            TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))?;
        let (target, orders) = (self.target, Arc::clone(&self.orders));
        thread::spawn(move || {
            for near in listener.incoming() {
                if orders.over.load(Ordering::Relaxed) {
                    return;
                }
                let orders = Arc::clone(&orders);
                // A target that does not take it: the caller finds its connection closed.
                thread::spawn(move || near.and_then(|near| pass_on(&near, target, &orders)));
            }
        });
        Ok(())
    }

    /// Nothing passes any more, either way, until released.
    pub fn hold(&self) {
        self.orders.held_back.store(0, Ordering::Relaxed);
        self.orders.held.store(true, Ordering::Relaxed);
    }

    /// What was held passes, and everything after it.
    pub fn release(&self) {
        self.orders.held.store(false, Ordering::Relaxed);
    }

    /// Ends all connections; what was held is lost.
    pub fn sever(&self) {
        self.orders.severed.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether anything came since it holds that it would have passed on.
    #[must_use]
    pub fn has_held_back(&self) -> bool {
        self.orders.held_back.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.orders.over.store(true, Ordering::Relaxed);
        self.sever();
        // Wakes the thread, if there is one.
        drop(TcpStream::connect(self.address()));
    }
}

fn pass_on(near: &TcpStream, target: SocketAddr, orders: &Arc<Orders>) -> io::Result<()> {
    let born = orders.severed.load(Ordering::Relaxed);
    if orders.held.load(Ordering::Relaxed) {
        // Whoever calls while it holds would have been put through.
        orders.held_back.fetch_add(1, Ordering::Relaxed);
    }
    if !orders.wait_while_held(born) {
        return Ok(());
    }
    let far = TcpStream::connect(target)?;
    for (from, to) in [(near, &far), (&far, near)] {
        from.set_nodelay(true)?;
        from.set_read_timeout(Some(PAUSE))?;
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        let orders = Arc::clone(orders);
        thread::spawn(move || {
            // However one direction ends, the other one ends as well.
            let _ = orders.copy(&mut from, &mut to, born);
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

impl Orders {
    fn is_severed(&self, born: u64) -> bool {
        self.severed.load(Ordering::Relaxed) != born
    }

    /// Whether the connection is to go on.
    fn wait_while_held(&self, born: u64) -> bool {
        while self.held.load(Ordering::Relaxed) && !self.is_severed(born) {
            thread::sleep(PAUSE);
        }
        !self.is_severed(born)
    }

    fn copy(&self, from: &mut TcpStream, to: &mut TcpStream, born: u64) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        while !self.is_severed(born) {
            // Read while it holds as well: how else could it be told that something was held back?
            let length = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            if self.held.load(Ordering::Relaxed) {
                self.held_back.fetch_add(length as u64, Ordering::Relaxed);
            }
            if self.wait_while_held(born) {
                to.write_all(&buffer[..length])?;
            }
        }
        // An end that comes while it holds is held as well.
        self.wait_while_held(born);
        Ok(())
    }
}

const PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    /// A relay in front of an echo.
    fn echo() -> (Relay, Port) {
        let port = Port::reserve().unwrap();
        let listener = TcpListener::bind(port.address()).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                let (mut from, mut to) = (stream.as_ref().unwrap(), stream.as_ref().unwrap());
                let _ = io::copy(&mut from, &mut to);
            }
        });
        let relay = Relay::closed(port.address()).unwrap();
        relay.open().unwrap();
        (relay, port)
    }

    fn heard(stream: &mut TcpStream) -> Option<u8> {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok().map(|()| byte[0])
    }

    #[test]
    fn what_is_held_comes_later_and_what_is_severed_never() {
        let (relay, _port) = echo();
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(b"1").unwrap();
        assert_eq!(heard(&mut stream), Some(b'1'));
        relay.hold();
        stream.write_all(b"2").unwrap();
        let since = Instant::now();
        while !relay.has_held_back() {
            assert!(since.elapsed() < LONG, "what came was not held back");
            thread::sleep(PAUSE);
        }
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert_eq!(heard(&mut stream), None);
        relay.release();
        stream.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(heard(&mut stream), Some(b'2'));
        relay.hold();
        stream.write_all(b"3").unwrap();
        relay.sever();
        relay.release();
        assert_eq!(heard(&mut stream), None);
        let mut another = TcpStream::connect(relay.address()).unwrap();
        another.write_all(b"4").unwrap();
        assert_eq!(heard(&mut another), Some(b'4'));
    }
}

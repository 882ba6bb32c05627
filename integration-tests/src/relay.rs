//! A port that passes connections on, once it is told to; before, it refuses them.
//!
//! For nodes that are to meet late without a network of their own: each is told the relay's address
//! as the other's.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};
use hotpair_lab::port::Port;

/// A reserved port in front of another address.
#[derive(Debug)]
pub struct Relay {
    port: Port,
    target: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Relay {
    /// Nothing listens yet.
    pub fn closed(target: SocketAddr) -> Result<Self> {
        Ok(Self { port: Port::reserve()?, target, over: Arc::default() })
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
        let (target, over) = (self.target, Arc::clone(&self.over));
        thread::spawn(move || {
            for near in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                // A target that does not take it: the caller finds its connection closed.
                let _ = near.and_then(|near| pass_on(&near, &TcpStream::connect(target)?));
            }
        });
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread, if there is one.
        drop(TcpStream::connect(self.address()));
    }
}

fn pass_on(near: &TcpStream, far: &TcpStream) -> io::Result<()> {
    for (from, to) in [(near, far), (far, near)] {
        from.set_nodelay(true)?;
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        thread::spawn(move || {
            // However one direction ends, the other one ends as well.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

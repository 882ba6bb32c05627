//! Ports that nobody else takes, neither another test nor an outgoing connection.
//!
//! Binding port 0 and closing it again leaves a moment in which the kernel may give the number to
//! somebody else's outgoing connection, and a server that is restarted has that moment each time.
//! So ports come from below the range the kernel uses for connections, and each one is reserved by
//! a lock on a file that all tests of this machine share, for as long as the [`Port`] lives.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};
use std::{env, process};

use anyhow::{Context, Result, bail};

/// A free port of the loopback address, reserved until dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Never read: the lock on it is the reservation.
    _reservation: File,
}

impl Port {
    /// Reserves a port on which nothing listens now.
    pub fn reserve() -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = env::temp_dir().join("hotpair-ports");
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        // Processes start at different places, so that they seldom ask for the same lock.
        let start = u16::try_from(process::id() % 499).expect("below 499") * 31;
        for _ in RANGE {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let width = RANGE.end - RANGE.start;
            let number = RANGE.start + start.wrapping_add(step) % width;
            let path = folder.join(number.to_string());
            let file =
                File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
            if file.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _reservation: file });
            }
        }
        bail!("no free port between {} and {}", RANGE.start, RANGE.end)
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The port on the loopback address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

/// Below Linux's default range for outgoing connections, which begins at 32768.
const RANGE: Range<u16> = 12_000..31_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn two_reservations_never_share_a_number() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let numbers: BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let port = Port::reserve().unwrap();
        let number = port.number();
        let listener = TcpListener::bind(port.address()).unwrap();
        drop(port);
        let others: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        assert!(others.iter().all(|other| other.number() != number));
        drop(listener);
    }
}

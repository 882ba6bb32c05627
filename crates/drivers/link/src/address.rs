//! Where the peer is: its configured address, looked up when it is a name.
//!
//! A dial must never wait for the name service once the peer was found, least of all while its death
//! is being proven. So the address of the last welcome is kept and dialled again, and a name is
//! looked up anew only after several failures in a row, in the background and by one lookup at a
//! time (a lookup blocks a thread for as long as the resolver likes).
//!
//! Each dial goes to exactly one address: "refused" must speak of the address where the peer was.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hotpair_core::pair::fact::DialFailure;
use tokio::sync::watch;

use crate::complaint::{Complaints, Kind};

/// From so many failures in a row on, the name is looked up again.
const LOOK_UP_AFTER: u32 = 3;
/// After so many failures in a row the address of the last welcome is no longer preferred.
const FORGET_AFTER: u32 = 10;

#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    name: Arc<str>,
    book: Arc<Mutex<Book>>,
    /// Counts finished lookups.
    lookups: watch::Sender<u64>,
    complaints: Arc<Complaints>,
}

#[derive(Debug, Default)]
struct Book {
    /// The configuration gave an address, not a name.
    literal: bool,
    known: Vec<SocketAddr>,
    next: usize,
    welcomed: Option<SocketAddr>,
    failures: u32,
    looking: bool,
}

impl Addresses {
    pub(crate) fn new(name: &str, complaints: Arc<Complaints>) -> Self {
        let literal: Option<SocketAddr> = name.parse().ok();
        let book = Book {
            literal: literal.is_some(),
            known: literal.into_iter().collect(),
            ..Book::default()
        };
        Self {
            name: name.into(),
            book: Arc::new(Mutex::new(book)),
            lookups: watch::Sender::new(0),
            complaints,
        }
    }

    /// The address to dial; waits for a lookup only if none was ever found.
    pub(crate) async fn choose(&self) -> Option<SocketAddr> {
        let mut finished = self.lookups.subscribe();
        if let Some(address) = self.known() {
            return Some(address);
        }
        // The sender lives in `self`, so this ends with a lookup or by the caller's time limit.
        finished.changed().await.ok()?;
        self.known()
    }

    fn known(&self) -> Option<SocketAddr> {
        let mut book = self.book();
        let stale = book.known.is_empty() || book.failures >= LOOK_UP_AFTER;
        if stale && !book.literal && !book.looking {
            book.looking = true;
            self.look_up();
        }
        book.welcomed.or_else(|| book.known.get(book.next).copied())
    }

    pub(crate) fn welcomed(&self, address: SocketAddr) {
        let mut book = self.book();
        book.welcomed = Some(address);
        book.failures = 0;
    }

    pub(crate) fn failed(&self, how: DialFailure) {
        let mut book = self.book();
        match how {
            // Somebody is there: the address is not what is wrong.
            DialFailure::EndedEarly => return,
            DialFailure::Refused
            | DialFailure::TimedOut
            | DialFailure::Unreachable
            | DialFailure::Rejected => {}
        }
        book.failures = book.failures.saturating_add(1);
        if book.failures >= FORGET_AFTER {
            book.welcomed = None;
        }
        if book.welcomed.is_none() && !book.known.is_empty() {
            book.next = (book.next + 1) % book.known.len();
        }
    }

    fn look_up(&self) {
        let this = self.clone();
        tokio::spawn(async move {
            let found = tokio::net::lookup_host(&*this.name).await;
            let found = found.map(|addresses| addresses.take(16).collect::<Vec<_>>());
            let mut book = this.book();
            book.looking = false;
            match found {
                Ok(found) if found.is_empty() => {}
                Ok(found) => {
                    book.welcomed = book.welcomed.filter(|address| found.contains(address));
                    book.next = if found == book.known { book.next } else { 0 };
                    book.known = found;
                }
                Err(error) => {
                    let what = format!("cannot look up peer.address {}: {error}", this.name);
                    this.complaints.note(Kind::System, None, &what);
                }
            }
            drop(book);
            this.lookups.send_modify(|count| *count += 1);
        });
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn an_address_needs_no_lookup() {
        let addresses = Addresses::new("127.0.0.1:7202", Arc::default());
        for _ in 0..20 {
            assert_eq!(addresses.choose().await, Some(address("127.0.0.1:7202")));
            addresses.failed(DialFailure::TimedOut);
        }
        assert_eq!(*addresses.lookups.borrow(), 0);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_its_welcomed_address_is_kept_while_the_peer_dies() {
        let addresses = Addresses::new("localhost:7202", Arc::default());
        let first = addresses.choose().await.expect("localhost is known everywhere");
        assert_eq!(first.port(), 7202);
        let other = address("127.9.9.9:7202");
        addresses.welcomed(other);
        for _ in 0..LOOK_UP_AFTER {
            assert_eq!(addresses.choose().await, Some(other));
            addresses.failed(DialFailure::Refused);
        }
        assert_eq!(*addresses.lookups.borrow(), 1, "the proof's dials look nothing up");
        let mut finished = addresses.lookups.subscribe();
        addresses.choose().await;
        finished.changed().await.unwrap();
        assert_ne!(addresses.choose().await, Some(other), "the name does not say so any more");
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_gives_no_address() {
        let addresses = Addresses::new("no-such-host.invalid:1", Arc::default());
        assert_eq!(addresses.choose().await, None);
    }
}

//! Passwords: argon2id hashes as PHC strings, and the few threads that check them.
//!
//! A check is slow on purpose. Two threads at most do nothing else, at a low priority, behind a
//! queue that is short: what finds no room in it is refused, so that a crowd at the login delays
//! nobody who is in already.

use std::sync::{Arc, LazyLock, Mutex};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{mpsc, oneshot};

/// Logins that may wait for a check.
pub const LOGINS_WAITING_MAX: usize = 64;
/// Threads that check.
pub const THREADS: usize = 2;
/// Bytes of a password.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

/// The hash of a password, with a new salt, at the parameters that are recommended.
pub fn hash(password: &str) -> Result<String, String> {
    let hash = hasher().hash_password(password.as_bytes()).map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

/// Whether this text is a hash that passwords can be checked against; else why not.
pub fn check_hash(hash: &str) -> Result<(), String> {
    let hash = PasswordHash::new(hash).map_err(|error| format!("no PHC string: {error}"))?;
    Algorithm::try_from(hash.algorithm.as_str())
        .map_err(|_| format!("{} is not argon2", hash.algorithm))?;
    let parameters = Params::try_from(&hash).map_err(|error| error.to_string())?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("it has no salt or no hash".to_owned());
    }
    if parameters.m_cost() > MEMORY_KIB_MAX {
        return Err(format!("m={} is more than {MEMORY_KIB_MAX} KiB", parameters.m_cost()));
    }
    Ok(())
}

/// Whether the password is the one of this hash. Without a hash the answer is no, and takes as long.
fn verify(password: &str, hash: Option<&str>) -> bool {
    let right = hasher().verify_password(password.as_bytes(), hash.unwrap_or(&NOBODY)).is_ok();
    right && hash.is_some()
}

fn hasher() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

/// What a password of an unknown user is checked against.
static NOBODY: LazyLock<String> =
    LazyLock::new(|| hash("nobody has this password").expect("the default parameters are valid"));

struct Check {
    password: String,
    hash: Option<String>,
    answer: oneshot::Sender<bool>,
}

/// The queue at the login is full; nothing was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{LOGINS_WAITING_MAX} logins are waiting already; this one was not tried")]
pub struct LoginsFull;

/// Checks passwords on threads of its own, which end with it.
#[derive(Debug)]
pub struct Passwords {
    checks: mpsc::Sender<Check>,
}

impl Passwords {
    /// Starts the threads.
    pub fn start() -> std::io::Result<Self> {
        let (checks, waiting) = mpsc::channel(LOGINS_WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..THREADS {
            let waiting = Arc::clone(&waiting);
            std::thread::Builder::new()
                .name("passwords".to_owned())
                .spawn(move || work(&waiting))?;
        }
        Ok(Self { checks })
    }

    /// Whether the password is the one of this hash. Takes its time, but waits in no long queue.
    pub async fn check(&self, password: String, hash: Option<String>) -> Result<bool, LoginsFull> {
        let (answer, verdict) = oneshot::channel();
        self.checks.try_send(Check { password, hash, answer }).map_err(|_| LoginsFull)?;
        verdict.await.map_err(|_| LoginsFull)
    }
}

fn work(waiting: &Mutex<mpsc::Receiver<Check>>) {
    // Its own thread's priority only; as it was where that is not allowed.
    let _ = rustix::process::nice(NICE);
    loop {
        let next = waiting.lock().expect("nobody panics with it").blocking_recv();
        let Some(Check { password, hash, answer }) = next else { return };
        // Whoever went away meanwhile costs nothing any more.
        if !answer.is_closed() {
            let _ = answer.send(verify(&password, hash.as_deref()));
        }
    }
}

const NICE: i32 = 10;
/// A hash from the file must not make this process eat the machine: 1 GiB.
const MEMORY_KIB_MAX: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_hash_is_of_its_password_only_and_salted() {
        let one = hash("correct horse").unwrap();
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_ne!(one, hash("correct horse").unwrap());
        assert!(verify("correct horse", Some(&one)));
        assert!(!verify("battery staple", Some(&one)));
        assert!(!verify("nobody has this password", None));
        assert_eq!(check_hash(&one), Ok(()));
    }

    #[test]
    fn what_is_no_hash_says_why() {
        for text in ["", "secret", "$2b$12$abc", "$argon2id$v=19$m=19456,t=2,p=1"] {
            assert!(check_hash(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_crowd_at_the_login_is_refused_not_queued() {
        let passwords = Passwords::start().unwrap();
        let one = hash("right").unwrap();
        let all = (0..200).map(|i| {
            let password = if i == 0 { "right" } else { "wrong" };
            passwords.check(password.to_owned(), Some(one.clone()))
        });
        let mut answers = Vec::new();
        let mut tasks: Vec<_> = all.map(Box::pin).collect();
        // Each is polled once before any is waited for: all ask at the same time.
        let since = Instant::now();
        for task in &mut tasks {
            let polled =
                std::future::poll_fn(|context| std::task::Poll::Ready(task.as_mut().poll(context)));
            answers.push(polled.await);
        }
        // Where that was interrupted, some were checked meanwhile, and others had their place.
        let checked = THREADS * usize::try_from(since.elapsed().as_millis() / 5 + 1).unwrap();
        let refused =
            answers.iter().filter(|a| matches!(a, std::task::Poll::Ready(Err(_)))).count();
        assert!((200 - LOGINS_WAITING_MAX - checked..200).contains(&refused), "{refused}");
        assert_eq!(tasks.swap_remove(0).await, Ok(true));
    }
}

//! Waiting for something to become true, with a limit and a sentence that says what was awaited.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Tries until it succeeds or the limit is over; the error then names what never came and why not.
///
/// The attempt should be cheap and have its own time limit: it is made about a hundred times a
/// second. At least one attempt is made, and one more after the limit has passed, so that a machine
/// too busy to run us does not fail us.
pub fn eventually<T>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        let late = began.elapsed() > limit;
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if late => {
                return Err(anyhow!("not within {limit:?}: {what}; last seen: {error:#}"));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Checks again and again for the whole time that something stays true.
pub fn throughout(
    span: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<()>,
) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < span {
        attempt().map_err(|error| {
            anyhow!("no longer after {:?}: {what}; seen: {error:#}", began.elapsed())
        })?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;

    #[test]
    fn waiting_ends_with_the_first_success() {
        let mut tries = 0;
        let value = eventually(Duration::from_secs(5), "three tries", || {
            tries += 1;
            ensure!(tries == 3, "try {tries}");
            Ok(tries)
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn a_wait_in_vain_says_what_it_was_for_and_what_it_saw() {
        let vain: Result<()> =
            eventually(Duration::from_millis(20), "the sun", || Err(anyhow!("rain")));
        let said = vain.unwrap_err().to_string();
        assert!(said.contains("the sun") && said.contains("rain"), "{said}");
    }
}

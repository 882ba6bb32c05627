//! Words of others in our own sentences.

/// Words that may hold a caller's own, cut in the middle: an answer must not grow with a request.
pub(crate) fn shown(words: &str) -> String {
    let length = words.chars().count();
    if length <= SHOWN_MAX {
        return words.to_owned();
    }
    let begin: String = words.chars().take(SHOWN_MAX / 2).collect();
    let end: String = words.chars().skip(length - SHOWN_MAX / 2).collect();
    format!("{begin} … {end}")
}

const SHOWN_MAX: usize = 200;

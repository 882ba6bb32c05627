//! Entrances for the fuzzer.

use crate::zmtp::{Decoder, ZmtpError, read_command};

/// These bytes as a publisher's frames: cut anywhere, they are the same frames.
pub fn frames(bytes: &[u8]) {
    let whole = read([bytes]);
    assert_eq!(read(bytes.chunks(5)), whole);
    for (is_command, _, body) in whole.0 {
        if is_command {
            let _ = read_command(&body);
        }
    }
}

type Frames = (Vec<(bool, bool, Vec<u8>)>, Option<ZmtpError>);

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Frames {
    let (mut decoder, mut frames) = (Decoder::new(BYTES_MAX), Vec::new());
    for piece in pieces {
        decoder.take_in(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push((frame.is_command, frame.more, frame.body.to_vec())),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// As large as the fuzzer's own pieces, and no larger.
const BYTES_MAX: usize = 4 * 1024;

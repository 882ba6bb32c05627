//! ZMTP 3.0 with the NULL mechanism, as far as a subscriber needs it: bytes in, frames out, no IO.
//!
//! ```text
//! greeting, 64 bytes: ff 00×8 7f | 03 00 | "NULL" to 20 | as-server | 00×31
//! frame: flags (1 more, 2 long, 4 command) | length, u8 or u64 | body
//! ```
//!
//! A peer of a later 3.x is spoken to as 3.0, which all of them understand.

/// The beginning of every connection; sent whole, at once.
pub(crate) const GREETING_BYTES: usize = 64;

/// What a peer says that is no ZMTP, or not for us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ZmtpError {
    #[error("it does not speak ZMTP 3")]
    NoZmtp,
    #[error("it wants the security mechanism {0:?}; this version has NULL only")]
    Mechanism(String),
    #[error("it is a {0:?} socket, not a PUB")]
    NoPublisher(String),
    #[error("it broke the protocol: {0}")]
    Broken(&'static str),
    #[error("it sent {bytes} bytes at once; at most {bytes_max} are taken")]
    TooLarge { bytes: u64, bytes_max: usize },
    #[error("it said: {0}")]
    Said(String),
}

/// Ours.
pub(crate) fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    bytes[0] = 0xff;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    bytes[12..16].copy_from_slice(b"NULL");
    bytes
}

/// The peer's minor version, if it is one to go on with.
pub(crate) fn check_greeting(bytes: &[u8; GREETING_BYTES]) -> Result<u8, ZmtpError> {
    if bytes[0] != 0xff || bytes[9] & 1 == 0 || bytes[10] < 3 {
        return Err(ZmtpError::NoZmtp);
    }
    let mechanism = &bytes[12..32];
    let end = mechanism.iter().position(|byte| *byte == 0).unwrap_or(mechanism.len());
    if &mechanism[..end] != b"NULL" {
        return Err(ZmtpError::Mechanism(String::from_utf8_lossy(&mechanism[..end]).into_owned()));
    }
    Ok(bytes[11])
}

/// The command with which we say what we are.
pub(crate) fn ready() -> Vec<u8> {
    command(b"READY", b"\x0bSocket-Type\0\0\0\x03SUB")
}

/// Subscribes to everything, in the way that every 3.x understands: a message.
pub(crate) fn subscribe_all() -> [u8; 3] {
    [0, 1, 1]
}

/// Asks whether the peer is still there.
pub(crate) fn ping() -> Vec<u8> {
    // How long it may go without hearing of us, in tenths of a second: no matter.
    command(b"PING", &[0, 0])
}

fn command(name: &[u8], data: &[u8]) -> Vec<u8> {
    let length = 1 + name.len() + data.len();
    let mut bytes = vec![COMMAND];
    bytes.push(u8::try_from(length).expect("our commands are short"));
    bytes.push(u8::try_from(name.len()).expect("our commands have short names"));
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(data);
    bytes
}

/// A command of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// It is ready, and this kind of socket.
    Ready { socket: String },
    /// It asks whether we are there; to be answered with this.
    Ping { answer: Vec<u8> },
    /// Anything else; nothing to be done.
    Other,
}

/// Reads a command's body.
pub(crate) fn read_command(body: &[u8]) -> Result<Command, ZmtpError> {
    let broken = || ZmtpError::Broken("a command that ends too early");
    let (length, rest) = body.split_first().ok_or_else(broken)?;
    let (name, data) = rest.split_at_checked(usize::from(*length)).ok_or_else(broken)?;
    match name {
        b"READY" => Ok(Command::Ready { socket: socket_type(data).ok_or_else(broken)? }),
        b"ERROR" => {
            let said = String::from_utf8_lossy(data.get(1..).unwrap_or_default()).into_owned();
            Err(ZmtpError::Said(said))
        }
        b"PING" => {
            let context = data.get(2..).ok_or_else(broken)?;
            // ZMTP allows 16 bytes of it.
            Ok(Command::Ping { answer: command(b"PONG", &context[..context.len().min(16)]) })
        }
        _ => Ok(Command::Other),
    }
}

/// The property of that name among the metadata.
fn socket_type(mut data: &[u8]) -> Option<String> {
    while let Some((length, rest)) = data.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (value, rest) = rest.split_at_checked(length)?;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        data = rest;
    }
    None
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) is_command: bool,
    /// The message goes on in the next one.
    pub(crate) more: bool,
    pub(crate) body: &'a [u8],
}

/// Cuts what arrives into frames, wherever it is cut itself. Never holds more than one frame may have
/// and what came with its last piece.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    bytes_max: usize,
}

impl Decoder {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, bytes_max }
    }

    pub(crate) fn take_in(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, ZmtpError> {
        let bytes = &self.buffer[self.start..];
        let Some((flags, rest)) = bytes.split_first() else { return Ok(None) };
        if flags & !(MORE | LONG | COMMAND) != 0 {
            return Err(ZmtpError::Broken("a frame with unknown flags"));
        }
        let (length, head) = if flags & LONG == 0 {
            let Some(length) = rest.first() else { return Ok(None) };
            (u64::from(*length), 2)
        } else {
            let Some(length) = rest.first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*length), 9)
        };
        let small = usize::try_from(length).ok().filter(|length| *length <= self.bytes_max);
        let Some(length) = small else {
            return Err(ZmtpError::TooLarge { bytes: length, bytes_max: self.bytes_max });
        };
        let (from, end) = (self.start + head, self.start + head + length);
        if self.buffer.len() < end {
            return Ok(None);
        }
        let (is_command, more) = (flags & COMMAND != 0, flags & MORE != 0);
        self.start = end;
        Ok(Some(Frame { is_command, more, body: &self.buffer[from..end] }))
    }
}

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_words_are_those_of_the_protocol() {
        assert_eq!(ready(), b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB");
        assert_eq!(check_greeting(&greeting()), Ok(0));
        assert_eq!(ping(), b"\x04\x07\x04PING\0\0");
        let mut plain = greeting();
        plain[12..17].copy_from_slice(b"PLAIN");
        assert_eq!(check_greeting(&plain), Err(ZmtpError::Mechanism("PLAIN".to_owned())));
        assert_eq!(check_greeting(&[b'H'; 64]), Err(ZmtpError::NoZmtp));
    }

    #[test]
    fn frames_are_found_wherever_the_bytes_are_cut() {
        let long = [&[2, 0, 0, 0, 0, 0, 0, 1, 4][..], &[b'x'; 260]].concat();
        let bytes = [&b"\x01\x03abc\x00\x00"[..], &long, &ping()].concat();
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::new(1_000);
            let mut seen = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.take_in(part);
                while let Some(frame) = decoder.next().unwrap() {
                    seen.push((frame.is_command, frame.more, frame.body.to_vec()));
                }
            }
            let wanted = [
                (false, true, b"abc".to_vec()),
                (false, false, Vec::new()),
                (false, false, vec![b'x'; 260]),
                (true, false, b"\x04PING\0\0".to_vec()),
            ];
            assert_eq!(seen, wanted, "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_it_comes() {
        let mut decoder = Decoder::new(1_000);
        decoder.take_in(&[2, 0xff, 0, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(decoder.next(), Err(ZmtpError::TooLarge { .. })));
        let mut decoder = Decoder::new(1_000);
        decoder.take_in(&[0x80, 0]);
        assert!(matches!(decoder.next(), Err(ZmtpError::Broken(_))));
    }

    #[test]
    fn commands_are_read_and_half_ones_are_refused() {
        let body = b"\x05READY\x08Identity\0\0\0\0\x0bSocket-Type\0\0\0\x04XPUB";
        assert_eq!(read_command(body), Ok(Command::Ready { socket: "XPUB".to_owned() }));
        for end in 0..body.len() {
            assert!(read_command(&body[..end]).is_err(), "{end}");
        }
        let pong = Command::Ping { answer: b"\x04\x07\x04PONGab".to_vec() };
        assert_eq!(read_command(b"\x04PING\0\x0aab"), Ok(pong));
        assert_eq!(read_command(b"\x05ERROR\x03bad"), Err(ZmtpError::Said("bad".to_owned())));
        assert_eq!(read_command(b"\x03NEW"), Ok(Command::Other));
    }
}

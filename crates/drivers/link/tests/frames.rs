//! What any bytes do to the decoder, and that nothing is lost between a frame and its bytes.

use std::sync::Arc;

use bytes::BytesMut;
use fastrand::Rng;
use hotpair_core::pair::identity::{
    BootId, ClusterId, Contact, Epoch, Identity, Incarnation, Instance, NodeId, Role, Statement,
};
use hotpair_core::tables::position::Position;
use hotpair_link::{Frame, FrameError, RejectReason, Rejection, Times, decode, encode};

fn text(rng: &mut Rng) -> String {
    let length = rng.usize(0..40);
    let letters = ["a", "Z", "\"", "\\", "\u{0}", "ü", "股", "\n", "🦀", "/"];
    (0..length).map(|_| letters[rng.usize(0..letters.len())]).collect()
}

fn statement(rng: &mut Rng) -> Statement {
    let identity = Identity {
        incarnation: Incarnation {
            node: NodeId::new(&text(rng)),
            instance: Instance(rng.u128(..)),
            boot_id: BootId(rng.u128(..)),
        },
        life: rng.u64(..),
        pair: text(rng).into(),
        root: text(rng).into(),
        config_digest: rng.u64(..),
        version: text(rng).into(),
    };
    let roles = [Role::Standby, Role::Promoting, Role::Master, Role::Demoting];
    let contacts = [Contact::Never, Contact::Connected, Contact::Lost];
    Statement {
        identity: Arc::new(identity),
        cluster: rng.bool().then(|| ClusterId(rng.u128(..))),
        role: roles[rng.usize(0..4)],
        serving: rng.bool(),
        epoch: Epoch(rng.u64(..)),
        left: Epoch(rng.u64(..)),
        lease_ms: rng.u64(..),
        contact: contacts[rng.usize(0..3)],
        position: rng.bool().then(|| Position { epoch: Epoch(rng.u64(..)), number: rng.u64(..) }),
        complete: rng.bool(),
        guard: rng.bool().then(|| text(rng).into()),
    }
}

fn frame(rng: &mut Rng) -> Frame {
    let reasons = [RejectReason::Pair, RejectReason::Version, RejectReason::Malformed];
    match rng.u8(0..5) {
        0 => Frame::Hello { statement: statement(rng) },
        1 => Frame::Welcome { statement: statement(rng) },
        2 => Frame::Ping { number: rng.u64(..), sent_ms: rng.i64(..), statement: statement(rng) },
        3 => Frame::Answer {
            number: rng.u64(..),
            times: Times {
                sent_ms: rng.i64(..),
                received_ms: rng.i64(..),
                answered_ms: rng.i64(..),
            },
            statement: statement(rng),
        },
        _ => Frame::Reject(Rejection {
            reason: reasons[rng.usize(0..3)],
            text: text(rng),
            pair: text(rng),
            node: text(rng),
        }),
    }
}

#[test]
fn a_frame_comes_back_as_it_was_however_its_bytes_arrive() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..2_000 {
        let frames: Vec<Frame> = (0..rng.usize(1..4)).map(|_| frame(&mut rng)).collect();
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| encode(frame, &mut bytes));
        let (mut arrived, mut back) = (BytesMut::new(), Vec::new());
        while !bytes.is_empty() {
            let some = bytes.split_to(rng.usize(1..=bytes.len()));
            arrived.extend_from_slice(&some);
            while let Some(frame) = decode(&mut arrived).unwrap() {
                back.push(frame);
            }
        }
        assert_eq!(back, frames);
        assert!(arrived.is_empty());
    }
}

#[test]
fn no_bytes_make_the_decoder_panic() {
    let mut rng = Rng::with_seed(2);
    for _ in 0..20_000 {
        let mut bytes: BytesMut = (0..rng.usize(0..200)).map(|_| rng.u8(..)).collect();
        if rng.bool() && bytes.len() > 5 {
            let length = u32::try_from(bytes.len() - 4).unwrap();
            bytes[..4].copy_from_slice(&length.to_be_bytes());
            bytes[4] = rng.u8(0..7);
        }
        while let Ok(Some(_)) = decode(&mut bytes) {}
    }
}

#[test]
fn no_damage_to_a_good_frame_makes_the_decoder_panic() {
    let mut rng = Rng::with_seed(3);
    let mut survived = 0;
    for _ in 0..20_000 {
        let mut bytes = BytesMut::new();
        encode(&frame(&mut rng), &mut bytes);
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(0..bytes.len());
            bytes[at] = rng.u8(..);
        }
        survived += u32::from(matches!(decode(&mut bytes), Ok(Some(_))));
    }
    assert!(survived > 0, "some damage leaves a frame: the damage is not always in the prefix");
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_its_bytes_come() {
    for length in [0, 64 * 1024 + 1, u32::MAX] {
        let mut bytes = BytesMut::from(&length.to_be_bytes()[..]);
        assert_eq!(decode(&mut bytes), Err(FrameError::Length { length }));
    }
}

#[test]
fn an_unknown_tag_is_refused_before_its_body_comes() {
    let mut bytes = BytesMut::from(&[0, 0, 1, 0, 77][..]);
    assert_eq!(decode(&mut bytes), Err(FrameError::Tag { tag: 77 }));
}

#[test]
fn a_hello_of_another_version_is_known_by_its_head_alone() {
    let body = br#"{"magic":"hotpair","version":9,"greeting":"in words not known yet"}"#;
    let mut bytes = framed(1, body);
    assert_eq!(decode(&mut bytes), Err(FrameError::Version { version: 9 }));
}

#[test]
fn a_later_minor_word_in_a_statement_is_passed_over() {
    let mut rng = Rng::with_seed(4);
    let hello = Frame::Hello { statement: statement(&mut rng) };
    let mut bytes = BytesMut::new();
    encode(&hello, &mut bytes);
    let json = String::from_utf8(bytes[5..].to_vec()).unwrap();
    let richer = json.replacen('{', "{\"later\":[1,2],", 1).replace("\"life\"", "\"x\":0,\"life\"");
    assert_eq!(decode(&mut framed(1, richer.as_bytes())), Ok(Some(hello)));
}

#[test]
fn names_of_absurd_length_are_refused() {
    let long = "x".repeat(2_000);
    let body = format!(r#"{{"reason":"pair","text":"{long}","pair":"p","node":"n"}}"#);
    let error = decode(&mut framed(5, body.as_bytes())).unwrap_err();
    assert!(error.to_string().contains("text is 2000 bytes long"), "{error}");
}

fn framed(tag: u8, body: &[u8]) -> BytesMut {
    let length = u32::try_from(body.len() + 1).expect("test frames are short");
    let mut bytes = BytesMut::from(&length.to_be_bytes()[..]);
    bytes.extend_from_slice(&[tag]);
    bytes.extend_from_slice(body);
    bytes
}

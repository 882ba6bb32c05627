//! Bytes of the link and of the log.

use bytes::BytesMut;
use hotpair_core::services::session::Session;
use hotpair_core::tables::record;
use hotpair_core::tables::snapshot::{decode_history, decode_piece, encode_history, encode_piece};
use hotpair_core::tables::tickets::Ticketed;

/// Frames one after the other, as they come off a connection.
pub(crate) fn link(bytes: &[u8]) {
    let mut rest = BytesMut::from(bytes);
    while let Ok(Some(frame)) = hotpair_link::decode(&mut rest) {
        let mut again = BytesMut::new();
        hotpair_link::encode(&frame, &mut again);
        let read = hotpair_link::decode(&mut again);
        assert_eq!(read.expect("what was written is a frame"), Some(frame));
        assert!(again.is_empty());
    }
}

/// Both directions of a redo stream.
pub(crate) fn redo(bytes: &[u8]) {
    hotpair_link::fuzzing::redo_frames(bytes);
}

/// A record's body; its length and checksum are put before it here, for guessing them takes too long.
pub(crate) fn records(bytes: &[u8]) {
    let framed = record::fuzzing::framed(bytes);
    if let Ok((decoded, size)) = record::decode(&framed) {
        assert_eq!(size, framed.len());
        let mut again = Vec::new();
        record::encode(&decoded, &mut again);
        let (read, _) = record::decode(&again).expect("what was written is a record");
        assert_eq!(read, decoded);
    }
    // And as they are.
    let _ = record::decode(bytes);
}

/// A piece of a snapshot, and a history.
pub(crate) fn pieces(bytes: &[u8]) {
    if let Ok(piece) = decode_piece(bytes) {
        let mut again = Vec::new();
        encode_piece(&piece, &mut again);
        assert_eq!(again, bytes);
    }
    if let Ok(history) = decode_history(bytes) {
        let mut again = Vec::new();
        encode_history(&history, &mut again);
        assert_eq!(again, bytes);
    }
}

/// Rows of the pair's own tables.
pub(crate) fn rows(bytes: &[u8]) {
    if let Ok(session) = Session::decode(bytes) {
        assert_eq!(Session::decode(&session.encode()), Ok(session));
    }
    if let Ok(ticketed) = Ticketed::decode(bytes) {
        let again = ticketed.encode();
        assert_eq!(Ticketed::decode(&again).expect("what was written is a row").encode(), again);
    }
}

//! The engine's frames: in any cut they give the same bytes, or the same error.
#![no_main]

use bytes::BytesMut;
use execlet::{
    engine::{
        docker::frames::Decoder,
        framing::{Chunk, Framing as _},
    },
    wire::OutputStream,
};
use libfuzzer_sys::fuzz_target;

type Received = (Vec<u8>, Vec<u8>, bool);

fn decode(bytes: &[u8], cut: usize) -> Received {
    let (mut decoder, mut input) = (Decoder::default(), BytesMut::new());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(cut) {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(Chunk { stream: OutputStream::Stdout, bytes })) => stdout.extend_from_slice(&bytes),
                Ok(Some(Chunk { stream: OutputStream::Stderr, bytes })) => stderr.extend_from_slice(&bytes),
                Ok(None) => break,
                Err(_) => return (stdout, stderr, false),
            }
        }
    }
    let whole = decoder.finish(&input).is_ok();
    (stdout, stderr, whole)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, rest)) = data.split_first() else { return };
    let whole = decode(rest, rest.len().max(1));
    let cut = decode(rest, usize::from(*cut).max(1));
    assert_eq!(whole, cut);
});

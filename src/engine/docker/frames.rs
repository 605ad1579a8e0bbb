//! Docker's framing of output without a terminal:
//! `[stream, 0, 0, 0, length: u32 big endian]`, then so many bytes.
//!
//! Payload is handed on as it arrives, without waiting for the rest of its
//! frame: a frame may be as large as the command's write, and nothing here
//! needs it whole.

use bytes::{Buf, BytesMut};

use crate::{
    engine::framing::{Chunk, FrameError, Framing, Raw},
    wire::OutputStream,
};

const HEADER: usize = 8;

#[derive(Debug, Default)]
pub struct Decoder {
    current: Option<(OutputStream, usize)>,
}

/// The framing of a connection; `tty`: of a terminal's.
pub fn framing(tty: bool) -> Box<dyn Framing> {
    if tty { Box::new(Raw) } else { Box::<Decoder>::default() }
}

impl Framing for Decoder {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Chunk>, FrameError> {
        loop {
            match &mut self.current {
                None => {
                    let Some(header) = input.first_chunk::<HEADER>().copied() else { return Ok(None) };
                    self.current = Some(parse(header)?);
                    input.advance(HEADER);
                }
                Some((_, 0)) => self.current = None,
                Some(_) if input.is_empty() => return Ok(None),
                Some((stream, missing)) => {
                    let bytes = input.split_to(input.len().min(*missing)).freeze();
                    *missing -= bytes.len();
                    return Ok(Some(Chunk { stream: *stream, bytes }));
                }
            }
        }
    }

    fn finish(&self, rest: &[u8]) -> Result<(), FrameError> {
        match self.current {
            None | Some((_, 0)) if rest.is_empty() => Ok(()),
            None | Some(_) => Err(FrameError::Truncated),
        }
    }

    /// A header for what is missing of the current frame.
    fn resumption(&self) -> Vec<u8> {
        let Some((stream, missing)) = self.current.filter(|(_, missing)| *missing > 0) else { return Vec::new() };
        let stream = match stream {
            OutputStream::Stdout => 1,
            OutputStream::Stderr => 2,
        };
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        [&[stream, 0, 0, 0][..], &missing.to_be_bytes()].concat()
    }
}

fn parse(header: [u8; HEADER]) -> Result<(OutputStream, usize), FrameError> {
    let [stream, 0, 0, 0, length @ ..] = header else { return Err(FrameError::Header(header.to_vec())) };
    let stream = match stream {
        // 0 is standard input, which the engine uses for output that it cannot attribute.
        0 | 1 => OutputStream::Stdout,
        2 => OutputStream::Stderr,
        _ => return Err(FrameError::Header(header.to_vec())),
    };
    Ok((stream, u32::from_be_bytes(length) as usize))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn stdout(bytes: &'static [u8]) -> Option<Chunk> {
        Some(Chunk { stream: OutputStream::Stdout, bytes: Bytes::from_static(bytes) })
    }

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        [&[stream, 0, 0, 0][..], &length.to_be_bytes(), payload].concat()
    }

    #[test]
    fn a_payload_is_handed_on_before_its_frame_is_whole() -> Result<(), FrameError> {
        let mut decoder = Decoder::default();
        let mut input = BytesMut::from(&frame(1, b"hello")[..10]);
        assert_eq!(decoder.decode(&mut input)?, stdout(b"he"));
        assert_eq!(decoder.decode(&mut input)?, None);
        assert_eq!(decoder.finish(&input), Err(FrameError::Truncated));
        input.extend_from_slice(b"llo");
        assert_eq!(decoder.decode(&mut input)?, stdout(b"llo"));
        decoder.finish(&input)
    }

    #[test]
    fn a_stream_that_ends_in_a_header_is_truncated() {
        assert_eq!(Decoder::default().finish(&[1, 0, 0]), Err(FrameError::Truncated));
        assert_eq!(Decoder::default().finish(&[]), Ok(()));
    }

    #[test]
    fn what_is_no_header_is_an_error() {
        for header in [[3, 0, 0, 0, 0, 0, 0, 1], [1, 1, 0, 0, 0, 0, 0, 1]] {
            let mut input = BytesMut::from(&header[..]);
            assert_eq!(Decoder::default().decode(&mut input), Err(FrameError::Header(header.to_vec())));
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_the_bytes_gives_the_same_streams(frames in prop::collection::vec((1_u8..=2, prop::collection::vec(any::<u8>(), 0..50)), 0..20), cut in 1_usize..40) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(stream, payload)| frame(*stream, payload)).collect();
            let mut decoder = Decoder::default();
            let mut input = BytesMut::new();
            let mut received = [Vec::new(), Vec::new()];
            for piece in bytes.chunks(cut) {
                input.extend_from_slice(piece);
                while let Some(Chunk { stream, bytes: payload }) = decoder.decode(&mut input).map_err(|e| TestCaseError::fail(e.to_string()))? {
                    received[usize::from(stream == OutputStream::Stderr)].extend_from_slice(&payload);
                }
            }
            prop_assert!(decoder.finish(&input).is_ok());
            for (number, of_stream) in received.iter().enumerate() {
                let sent: Vec<u8> = frames.iter().filter(|(s, _)| usize::from(*s) == number + 1).flat_map(|(_, p)| p.clone()).collect();
                prop_assert_eq!(of_stream, &sent);
            }
        }
    }
}

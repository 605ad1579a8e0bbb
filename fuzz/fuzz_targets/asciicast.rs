//! Recordings: what is no recording does no harm, what is one is read as it was written, and text is the same
//! however its bytes are cut.
#![no_main]

use execlet::wire::asciicast::{Event, Text, decode_event, decode_header, encode_event, encode_header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let lines = String::from_utf8_lossy(data);
    for line in lines.lines() {
        if let Ok(header) = decode_header(line) {
            assert_eq!(decode_header(&encode_header(&header)), Ok(header));
        }
        if let Ok((seconds, event)) = decode_event(line) {
            assert!(seconds.is_finite() && seconds >= 0.0);
            match encode_event(1_500_000, &event) {
                Some(line) => assert_eq!(decode_event(&line), Ok((1.5, event))),
                None => assert_eq!(event, Event::Other),
            }
        }
    }
    let Some((cut, bytes)) = data.split_first() else { return };
    let mut text = Text::default();
    let mut joined: String = bytes.chunks(usize::from(*cut).max(1)).map(|part| text.push(part)).collect();
    // What waits for its rest is no character yet.
    let whole = String::from_utf8_lossy(bytes);
    if joined.len() < whole.len() {
        joined.push(char::REPLACEMENT_CHARACTER);
    }
    assert_eq!(joined, whole);
});

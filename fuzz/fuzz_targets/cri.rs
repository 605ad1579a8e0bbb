//! CRI log lines: what is written is read back byte for byte, and what is no record does no harm.
#![no_main]

use execlet::wire::{OutputStream, cri};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut log = Vec::new();
    cri::encode(&mut log, OutputStream::Stderr, "2026-01-02T03:04:05.000000006Z", data);
    let mut back = Vec::new();
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let record = cri::decode(&line[..line.len() - 1]).expect("a record");
        assert!(record.content.len() <= cri::MAX_CONTENT && record.stream == OutputStream::Stderr);
        back.extend_from_slice(record.content);
        if record.ends_line {
            back.push(b'\n');
        }
    }
    assert_eq!(back, data);
    for line in data.split(|byte| *byte == b'\n') {
        if let Some(record) = cri::decode(line) {
            assert!(record.content.len() < line.len());
        }
    }
});

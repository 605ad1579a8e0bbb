//! Output without a terminal: two streams, each whole.

use std::time::Duration;

use execlet::{core::offsets::StreamOffsets, engine::Engine as _};
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use crate::{
    lab::{shell, within},
    stage::{Stage, on_the_engine},
};

/// Fills `/blob` with bytes of every value, in a number that is no power of two.
async fn with_blob<S: Stage>(stage: &S) -> S::Container {
    let container = stage.gated().await;
    stage.text_of(&container, "head -c 1000003 /dev/urandom > /blob").await;
    container
}

#[tokio::test]
async fn stdout_and_stderr_arrive_apart_and_whole() {
    on_the_engine!(stage => {
        let container = with_blob(&stage).await;
        let rows = [
            ("true", ":", ":", 0),
            ("printf x", "printf x", ":", 0),
            ("printf x >&2; exit 4", ":", "printf x", 4),
            ("printf 'no newline'; printf 'here neither' >&2", "printf 'no newline'", "printf 'here neither'", 0),
            (r"printf '\000\001\002\n\r\n\377'", r"printf '\000\001\002\n\r\n\377'", ":", 0),
            ("cat /blob; tac /blob >&2; exit 5", "cat /blob", "tac /blob", 5),
            ("cat /blob & tac /blob >&2; wait", "cat /blob", "tac /blob", 0),
        ];
        for (script, stdout, stderr, code) in rows {
            let ran = stage.all_of(&container, &shell(script)).await;
            for (bytes, same) in [(&ran.output.stdout, stdout), (&ran.output.stderr, stderr)] {
                let expected = stage.text_of(&container, &format!("{{ {same}; }} | sha256sum | cut -c-64")).await;
                let digest = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
                assert_eq!(digest, expected.trim(), "{script}: {same}: {} bytes", bytes.len());
            }
            assert_eq!(ran.code, code, "{script}");
        }
    });
}

#[tokio::test]
async fn a_slow_reader_slows_the_command_and_loses_nothing() {
    on_the_engine!(stage => {
        let container = with_blob(&stage).await;
        let exec = stage.make(&container, &shell("for i in 1 2 3 4 5; do cat /blob; done; exit 3")).await;
        let mut stream = stage.go(&exec, false).await;
        // Longer than some engines wait for whoever reads the output of a command that has ended: this one cannot.
        sleep(Duration::from_secs(3)).await;
        let mut read = 0;
        while let Some(chunk) = within("output", stream.next()).await.expect("a stream without errors") {
            read += chunk.bytes.len() as u64;
            stage.engine().release(&exec, StreamOffsets { stdout: read, stderr: 0 }).await.expect("released");
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((read, stage.code_of(&exec).await), (5_000_015, 3));
    });
}

//! Output of a terminal: one raw stream.

use crate::{
    lab::{on_a_terminal, shell},
    stage::{Stage as _, on_the_engine},
};

#[tokio::test]
async fn a_command_has_a_terminal_only_if_asked() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        let script = "for n in 0 1 2; do if [ -t $n ]; then echo $n; fi; done";
        assert_eq!(stage.all_of(&container, &shell(script)).await.output.stdout, b"");
        assert_eq!(stage.all_of(&container, &on_a_terminal(script)).await.output.stdout, b"0\r\n1\r\n2\r\n");
    });
}

#[tokio::test]
async fn output_of_a_terminal_that_looks_like_a_frame_arrives_as_it_is() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        for first in 0..=2_u8 {
            let script = format!(r"printf '\00{first}\000\000\000\000\000\000\011hi'; exit 9");
            let run = stage.all_of(&container, &on_a_terminal(&script)).await;
            assert_eq!(run.output.stdout, [first, 0, 0, 0, 0, 0, 0, 9, b'h', b'i']);
            assert_eq!(run.code, 9);
        }
    });
}

#[tokio::test]
async fn a_terminal_merges_stdout_and_stderr_in_their_order() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        let run = stage.all_of(&container, &on_a_terminal("echo 1; echo 2 >&2; echo 3")).await;
        assert_eq!((run.output.stdout.as_slice(), run.output.stderr.as_slice()), (&b"1\r\n2\r\n3\r\n"[..], &b""[..]));
    });
}

#[tokio::test]
async fn a_megabyte_on_a_terminal_arrives_whole() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        let numbers = "seq 150000; exit 6";
        let plain = stage.all_of(&container, &shell(numbers)).await;
        let run = stage.all_of(&container, &on_a_terminal(numbers)).await;
        let expected = String::from_utf8(plain.output.stdout).unwrap().replace('\n', "\r\n");
        assert_eq!(run.output.stdout.len(), expected.len());
        // Not `assert_eq`, which would print it.
        assert!(run.output.stdout == expected.as_bytes(), "bytes differ");
        assert_eq!(run.code, 6);
    });
}

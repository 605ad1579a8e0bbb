use std::io::{self, Write};

use tokio::io::DuplexStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{CloseFrame, Role},
};

use super::*;
use crate::{
    cli::follow::{output::Screens, scripted::Kept},
    wire::words::Missing,
};

type Socket = WebSocketStream<DuplexStream>;

/// Both ends of a connection.
async fn connection() -> (Socket, Socket) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let server = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
    (WebSocketStream::from_raw_socket(ours, Role::Client, None).await, server)
}

/// A connection on which these are on their way.
async fn connection_of(messages: Vec<Message>) -> (Socket, Socket) {
    let (ours, mut server) = connection().await;
    for message in messages {
        server.send(message).await.expect("sent");
    }
    (ours, server)
}

fn local(input: Option<Input>) -> (LocalIo, Kept, Kept) {
    let (stdout, stderr) = (Kept::default(), Kept::default());
    let output = Output::to(stdout.clone(), stderr.clone(), None);
    (LocalIo { output, input, sizes: watch::channel(None).1, shown: Shown::default(), tty: false }, stdout, stderr)
}

const STDIN: u8 = 0;
const CLOSE: u8 = 255;

fn binary(channel: u8, data: &[u8]) -> Message {
    Message::Binary([&[channel], data].concat().into())
}

const SUCCESS: &[u8] = br#"{"metadata":{},"status":"Success"}"#;

#[tokio::test]
async fn output_is_kept_apart_and_the_status_ends_it() {
    let (ours, mut server) = connection().await;
    let (mut local, stdout, stderr) = local(None);
    let their_part = async {
        for message in [binary(1, b""), binary(1, b"out"), binary(2, b"err"), binary(9, b"?"), binary(3, SUCCESS)] {
            server.send(message).await.expect("sent");
        }
        // Nothing is sent for the sake of input that is not wanted, and the goodbye comes.
        while let Some(Ok(message)) = server.next().await {
            assert!(!message.is_binary(), "{message:?}");
        }
    };
    let (ended, ()) = tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
    let Ended::Status(status) = ended else { panic!("{ended:?}") };
    assert_eq!(status.status.as_deref(), Some("Success"));
    local.output.finish().await.expect("written");
    assert_eq!((stdout.take(), stderr.take()), (b"out".to_vec(), b"err".to_vec()));
}

/// Sends every byte of input back, then the status: what `cat` does.
async fn cat(mut server: Socket, received: &mut u64) {
    while let Some(Ok(message)) = server.next().await {
        let Message::Binary(bytes) = message else { continue };
        match bytes.split_first() {
            Some((&STDIN, data)) => {
                *received += data.len() as u64;
                server.send(binary(1, data)).await.expect("sent");
            }
            Some((&CLOSE, [STDIN])) => server.send(binary(3, SUCCESS)).await.expect("sent"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn any_amount_goes_through_cat_and_comes_back_whole() {
    let whole: Vec<u8> = (0..8 << 20).map(|at: u32| at.to_be_bytes()[2] ^ at.to_le_bytes()[0]).collect();
    let (ours, server) = connection().await;
    let (mut local, stdout, _) = local(Some(Input::from(io::Cursor::new(whole.clone()), None)));
    let mut received = 0;
    let (ended, ()) = tokio::join!(serve(ours, Protocol::V5, &mut local), cat(server, &mut received));
    assert!(matches!(ended, Ended::Status(_)), "{ended:?}");
    local.output.finish().await.expect("written");
    assert_eq!(received, whole.len() as u64);
    assert!(stdout.take() == whole);
}

#[tokio::test]
async fn after_a_break_each_byte_is_shown_once() {
    let (mut local, stdout, stderr) = local(None);
    // Both streams, in the order in which the agent received them; a connection has the first so many bytes.
    let all = [(1, &b"one "[..]), (2, b"e"), (1, b"two "), (2, b"rr"), (1, b"three")];
    for (bytes, piece, last) in [(3, 1, None), (7, 4, None), (11, 2, None), (16, 3, Some(SUCCESS))] {
        let (ours, mut server) = connection().await;
        let their_part = async {
            let mut left = bytes;
            for (channel, sent) in all {
                let sent = &sent[..left.min(sent.len())];
                left -= sent.len();
                // Cut differently each time.
                for piece in sent.chunks(piece) {
                    server.send(binary(channel, piece)).await.expect("sent");
                }
            }
            if let Some(status) = last {
                server.send(binary(3, status)).await.expect("sent");
            }
            drop(server);
        };
        let (ended, ()) = tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
        assert_eq!(matches!(ended, Ended::Status(_)), last.is_some(), "{ended:?}");
    }
    local.output.finish().await.expect("written");
    assert_eq!((stdout.take(), stderr.take()), (b"one two three".to_vec(), b"err".to_vec()));
}

/// Of a connection: what is kept, how much is said to be missing then, and what comes live.
type Connection = (&'static str, Missing, &'static str);

const NOTHING: Missing = Missing::Bytes(0);

fn skipped(missing: Missing) -> String {
    format!("{}\r\n", missing.notice())
}

#[tokio::test]
async fn after_a_break_new_output_is_shown_where_the_log_has_less_than_was_seen() {
    // Of all connections: what is shown on both streams, up to where, and how much of it is missing.
    type Row = (&'static [Connection], &'static str, String, (u64, u64));
    let rows: [Row; 6] = [
        // All of the gap was seen: nobody needs to know of it.
        (
            &[("kept seen", NOTHING, ""), ("kept", Missing::Bytes(3), "en more")],
            "kept seen more",
            String::new(),
            (14, 0),
        ),
        (&[("kept seen", NOTHING, ""), ("kept", Missing::Bytes(5), " more")], "kept seen more", String::new(), (14, 0)),
        // A part of it was not.
        (
            &[("kept seen", NOTHING, ""), ("kept", Missing::Bytes(8), "more")],
            "kept seenmore",
            skipped(Missing::Bytes(3)),
            (16, 3),
        ),
        // Who comes late has not seen any of it; once is enough to be told.
        (
            &[("kept", Missing::Bytes(8), "mo"), ("kept", Missing::Bytes(8), "more")],
            "keptmore",
            skipped(Missing::Bytes(8)),
            (16, 8),
        ),
        // It is not known how much is missing: what comes is shown, and what may be missing is said.
        (&[("kept", Missing::Unknown, " more")], "kept more", skipped(Missing::Unknown), (9, 0)),
        (
            &[("kept seen", NOTHING, ""), ("kept", Missing::Unknown, " more")],
            "kept seen more",
            skipped(Missing::Unknown),
            (14, 0),
        ),
    ];
    for tty in [false, true] {
        for (connections, out, err, shown) in &rows {
            let (mut local, stdout, stderr) = local(None);
            local.tty = tty;
            for (kept, missing, live) in *connections {
                let (ours, mut server) = connection().await;
                let their_part = async {
                    server.send(binary(1, kept.as_bytes())).await.expect("sent");
                    if *missing != NOTHING {
                        server.send(binary(2, skipped(*missing).as_bytes())).await.expect("sent");
                    }
                    server.send(binary(1, live.as_bytes())).await.expect("sent");
                    drop(server);
                };
                tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
            }
            assert_eq!((local.shown.up_to, local.shown.missing), *shown, "{connections:?}");
            local.output.finish().await.expect("written");
            let heard = (stdout.take(), stderr.take());
            assert_eq!(heard, (out.as_bytes().to_vec(), err.clone().into_bytes()), "{connections:?}");
        }
    }
}

#[tokio::test]
async fn each_notice_of_a_connection_counts() {
    let (mut local, stdout, stderr) = local(None);
    let notice = |bytes| binary(2, skipped(Missing::Bytes(bytes)).as_bytes());
    for connection in [
        // What is kept ended, and moved on before the first live piece.
        vec![binary(1, b"kept"), notice(8), notice(3), binary(1, b"more")],
        vec![binary(1, b"kept"), notice(11), binary(1, b"more, and"), notice(5), binary(1, b"the end")],
    ] {
        let (ours, mut server) = connection_of(connection).await;
        tokio::join!(serve(ours, Protocol::V5, &mut local), async { server.close(None).await.ok() });
    }
    assert_eq!((local.shown.up_to, local.shown.missing), (36, 16));
    local.output.finish().await.expect("written");
    assert_eq!(String::from_utf8(stdout.take()).expect("text"), "keptmore, andthe end");
    let told: String = [8, 3, 5].map(|bytes| skipped(Missing::Bytes(bytes))).concat();
    assert_eq!(String::from_utf8(stderr.take()).expect("text"), told);
}

#[tokio::test]
async fn the_pongs_tell_how_much_input_has_arrived() {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    let (mut local, _, _) = local(Some(Input::from(reader, None)));
    writer.write_all(b"12345").expect("written");
    let (ours, mut server) = connection().await;
    let their_part = async {
        let mut got = 0;
        // Reads on until the ping after the last byte was answered.
        while let Some(Ok(message)) = server.next().await {
            match message {
                Message::Binary(bytes) => got += bytes.len() - 1,
                Message::Ping(sent) if got == 5 && sent[7] == 5 => break,
                _ => {}
            }
        }
        server.flush().await.expect("the pong");
        drop(server);
    };
    let (ended, ()) = tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
    assert!(matches!(ended, Ended::Broken(_)), "{ended:?}");
    let input = local.input.as_ref().expect("input");
    assert!(input.all_arrived(), "{input:?}");
    // The next connection breaks before anything is read.
    writer.write_all(b"678").expect("written");
    let (ours, server) = connection().await;
    let (mut half, _ours) = (server, ());
    let their_part = async {
        half.next().await;
        half.next().await;
        drop(half);
    };
    let (ended, ()) = tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
    assert!(matches!(ended, Ended::Broken(_)), "{ended:?}");
    drop(writer);
}

#[tokio::test]
async fn input_that_is_not_known_to_have_arrived_counts_as_lost() {
    let (mut local, _, _) = local(Some(Input::from(&b"12345"[..], None)));
    let (ours, server) = connection().await;
    let their_part = async {
        // Frames come in, but nobody answers the pings.
        let (mut raw, mut buffer) = (server.into_inner(), [0; 4096]);
        let mut read = 0;
        while read < 30 {
            read += tokio::io::AsyncReadExt::read(&mut raw, &mut buffer).await.expect("bytes");
        }
    };
    let (ended, ()) = tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
    assert!(matches!(ended, Ended::Broken(_)), "{ended:?}");
    let input = local.input.expect("input");
    assert_eq!((input.sent, input.all_arrived()), (5, false));
}

#[tokio::test]
async fn input_that_had_ended_is_ended_again_on_the_next_connection() {
    let (mut local, _, _) = local(Some(Input::from(&b""[..], None)));
    for _ in 0..2 {
        let (ours, mut server) = connection().await;
        let their_part = async {
            loop {
                let message = server.next().await.expect("a frame").expect("a frame");
                if message.is_binary() {
                    assert_eq!(message.into_data()[..], [CLOSE, STDIN]);
                    break drop(server);
                }
            }
        };
        tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
    }
}

#[tokio::test]
async fn input_that_is_refused_goes_nowhere_and_is_not_missed() {
    let mut input = Input::from(&b"12345"[..], None);
    input.refused = true;
    let (mut local, stdout, _) = local(Some(input));
    let (ours, mut server) = connection().await;
    let their_part = async {
        server.send(binary(1, b"out")).await.expect("sent");
        server.send(binary(3, SUCCESS)).await.expect("sent");
        while let Some(Ok(message)) = server.next().await {
            assert!(!message.is_binary(), "{message:?}");
        }
    };
    let (ended, ()) = tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
    assert!(matches!(ended, Ended::Status(_)), "{ended:?}");
    assert!(local.input.is_some_and(|input| input.all_arrived()));
    local.output.finish().await.expect("written");
    assert_eq!(stdout.take(), b"out");
}

#[tokio::test]
async fn the_size_is_told_first_and_then_each_change() {
    let size = |columns| Some(Size { columns, rows: 24 });
    let (sender, receiver) = watch::channel(size(80));
    let (mut local, _, _) = local(None);
    local.sizes = receiver;
    local.tty = true;
    let (ours, mut server) = connection().await;
    let their_part = async {
        let mut told = Vec::new();
        while told.len() < 2 {
            let message = server.next().await.expect("a frame").expect("a frame");
            if message.is_binary() {
                told.push(String::from_utf8(message.into_data()[1..].to_vec()).expect("text"));
                sender.send_replace(size(100));
            }
        }
        drop(server);
        told
    };
    let (_, told) = tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
    assert_eq!(told, [r#"{"Width":80,"Height":24}"#, r#"{"Width":100,"Height":24}"#]);
}

#[tokio::test]
async fn the_keys_leave_a_connection_that_lives() {
    let keys = "ctrl-p,ctrl-q".parse().expect("keys");
    let (mut local, _, _) = local(Some(Input::from(&b"ls\n\x10\x11"[..], Some(keys))));
    local.tty = true;
    let (ours, mut server) = connection().await;
    let their_part = async {
        let mut typed = Vec::new();
        while let Some(Ok(message)) = server.next().await {
            if message.is_binary() {
                typed.extend_from_slice(&message.into_data());
            }
        }
        typed
    };
    let (ended, typed) = tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
    assert!(matches!(ended, Ended::Detached), "{ended:?}");
    // What was typed before may or may not have gone out; the keys and an end never do.
    assert!(typed.is_empty() || typed == b"\0ls\n", "{typed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_is_taken_for_dead() {
    let (ours, server) = connection().await;
    let (mut local, _, _) = local(None);
    let ended = serve(ours, Protocol::V5, &mut local).await;
    assert!(matches!(&ended, Ended::Broken(why) if why == "nothing received for 16 s"), "{ended:?}");
    drop(server);
}

#[tokio::test]
async fn a_close_is_never_taken_for_success() {
    let (ours, mut server) = connection().await;
    let (mut local, _, _) = local(None);
    let their_part = async { server.close(None).await };
    let (ended, _) = tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
    assert!(matches!(ended, Ended::Broken(_)), "{ended:?}");
}

#[tokio::test]
async fn who_is_sent_away_is_not_told_an_outcome() {
    let (ours, mut server) = connection().await;
    let (mut local, _, _) = local(None);
    let their_part = async {
        let status = br#"{"status":"Failure","message":"10 bytes are kept nowhere"}"#;
        server.send(binary(3, status)).await.expect("sent");
        let close = CloseFrame { code: close::POLICY.into(), reason: "gap".into() };
        server.send(Message::Close(Some(close))).await.expect("sent");
    };
    let (ended, ()) = tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
    assert!(matches!(&ended, Ended::Cut(why) if why == "10 bytes are kept nowhere"), "{ended:?}");
}

#[tokio::test]
async fn a_reader_who_has_left_ends_it() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (ours, mut server) = connection().await;
    let mut local = LocalIo {
        output: Output::to(Closed, io::sink(), None),
        input: None,
        sizes: watch::channel(None).1,
        shown: Shown::default(),
        tty: false,
    };
    let their_part = async { while server.send(binary(1, b"y\n")).await.is_ok() {} };
    let (ended, ()) = tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
    assert!(matches!(ended, Ended::OutputClosed), "{ended:?}");
    local.output.finish().await.expect("no error of ours");
}

#[tokio::test]
async fn our_terminal_is_asked_nothing_that_the_command_does_not_hear_the_answer_to() {
    const ASKED: &[u8] = b"# \x1b[6n";
    for (input, typed, refused, shown) in [
        (true, true, false, &b"# # \x1b[6n"[..]),
        // Whoever only watches, has input from elsewhere, or may not type any more.
        (false, true, false, b"# # "),
        (true, false, false, b"# # "),
        (true, true, true, b"# # "),
    ] {
        let messages = [&b""[..], ASKED, b"", ASKED].map(|payload| binary(1, payload));
        let (ours, mut server) = connection_of(messages.to_vec()).await;
        let (stdout, stderr) = (Kept::default(), Kept::default());
        let mut input = input.then(|| Input::from(io::empty(), None));
        if let Some(input) = &mut input {
            (input.typed, input.refused) = (typed, refused);
        }
        let mut local = LocalIo {
            output: Output::on(stdout.clone(), stderr, Screens::of(true, true, true), None),
            input,
            sizes: watch::channel(None).1,
            shown: Shown::default(),
            tty: true,
        };
        let their_part = async { server.send(binary(3, SUCCESS)).await };
        let (ended, _) = tokio::join!(serve(ours, Protocol::V5, &mut local), their_part);
        assert!(matches!(ended, Ended::Status(_)), "{ended:?}");
        local.output.finish().await.expect("written");
        assert_eq!(stdout.take().escape_ascii().to_string(), shown.escape_ascii().to_string());
    }
}

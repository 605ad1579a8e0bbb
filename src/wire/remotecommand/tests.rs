use bytes::Bytes;
use proptest::prelude::*;

use super::{message::message, *};
use crate::wire::OutputStream;

const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
const TERMINAL: Streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };

fn server(protocol: Protocol, streams: Streams) -> Server {
    Server::new(protocol, streams)
}

#[test]
fn the_first_of_the_clients_list_that_is_spoken_is_taken() {
    use Protocol::{V4, V5};
    let rows: [(&[&str], Option<Protocol>); 10] = [
        // client-go's executor; kube-rs; a kubelet's upper end; the other way round
        (&["v5.channel.k8s.io"], Some(V5)),
        (&["v5.channel.k8s.io, v4.channel.k8s.io"], Some(V5)),
        (&["v4.channel.k8s.io"], Some(V4)),
        (&["v4.channel.k8s.io,v5.channel.k8s.io"], Some(V4)),
        (&["v4.channel.k8s.io", "v5.channel.k8s.io"], Some(V4)),
        (&["base64url.bearer.authorization.k8s.io.dG9rZW4", " v5.channel.k8s.io "], Some(V5)),
        // neither what is older, nor base64, nor no protocol at all
        (&["v3.channel.k8s.io, channel.k8s.io"], None),
        (&["base64.channel.k8s.io, v4.base64.channel.k8s.io"], None),
        (&[""], None),
        (&[], None),
    ];
    for (offered, expected) in rows {
        assert_eq!(Protocol::negotiate(offered.iter().copied()), expected, "{offered:?}");
    }
}

#[test]
fn a_choice_of_channels_is_judged_as_the_kubelet_does() {
    let rows = [
        ((false, false, false, false), Err(StreamsError::None)),
        ((false, false, false, true), Err(StreamsError::None)),
        ((false, true, true, true), Err(StreamsError::TtyAndStderr)),
        ((true, false, false, false), Ok(())),
        ((true, true, false, true), Ok(())),
        ((false, true, true, false), Ok(())),
    ];
    for ((stdin, stdout, stderr, tty), expected) in rows {
        let streams = Streams { stdin, stdout, stderr, tty };
        assert_eq!(streams.validate().map(drop), expected, "{streams:?}");
    }
}

#[test]
fn the_greeting_is_empty_and_on_the_lowest_channel_that_is_written_to() {
    for ((stdout, stderr), expected) in [((true, true), 1), ((true, false), 1), ((false, true), 2), ((false, false), 3)]
    {
        let streams = Streams { stdin: true, stdout, stderr, tty: false };
        assert_eq!(server(Protocol::V5, streams).greeting()[..], [expected]);
    }
}

/// Protocol, channels, message, meaning.
type Row = (Protocol, Streams, &'static [u8], Result<Option<FromClient>, ProtocolError>);

#[test]
fn messages_of_a_client_mean_what_they_mean_to_a_kubelet() {
    use FromClient::{Input, InputEnded, Resized};
    use Protocol::{V4, V5};
    let input = |bytes: &'static [u8]| Ok(Some(Input(Bytes::from_static(bytes))));
    let size = |width, height| Ok(Some(Resized(TerminalSize { width, height })));
    let watch = Streams { stdin: false, ..ALL };
    let rows: [Row; 26] = [
        (V5, ALL, b"\x00hello", input(b"hello")),
        (V4, ALL, b"\x00hello", input(b"hello")),
        (V5, ALL, b"\x00\xff\x00", input(b"\xff\x00")),
        (V5, watch, b"\x00hello", Ok(None)),
        // empty messages and empty payloads, and channels that there are not
        (V5, ALL, b"", Ok(None)),
        (V5, ALL, b"\x00", Ok(None)),
        (V5, ALL, b"\x05hello", Ok(None)),
        (V5, ALL, b"\xfehello", Ok(None)),
        // channels that are the server's
        (V5, ALL, b"\x01hello", Ok(None)),
        (V5, ALL, b"\x02hello", Ok(None)),
        (V5, ALL, b"\x03{}", Ok(None)),
        // CLOSE
        (V5, ALL, b"\xff\x00", Ok(Some(InputEnded))),
        (V5, watch, b"\xff\x00", Ok(None)),
        (V5, ALL, b"\xff\x04", Ok(None)),
        (V5, ALL, b"\xff", Err(ProtocolError::CloseLength(1))),
        (V5, ALL, b"\xff\x00\x00", Err(ProtocolError::CloseLength(3))),
        (V5, ALL, b"\xff\x05", Err(ProtocolError::CloseChannel(5))),
        (V5, ALL, b"\xff\xff", Err(ProtocolError::CloseChannel(255))),
        // which version 4 does not have: a channel that there is not
        (V4, ALL, b"\xff\x00", Ok(None)),
        (V4, ALL, b"\xff", Ok(None)),
        // sizes
        (V5, TERMINAL, br#"{"Width":80,"Height":24}"#, Ok(None)),
        (V5, TERMINAL, b"\x04{\"Width\":80,\"Height\":24}", size(80, 24)),
        (V5, TERMINAL, b"\x04{\"Width\":80,\"Height\":24}\n{\"Width\":132,\"Height\":43}\n", size(132, 43)),
        (V4, TERMINAL, b"\x04{\"Width\":65535,\"Height\":1}", size(65535, 1)),
        (V5, TERMINAL, b"\x04{\"Width\":0,\"Height\":24}", Ok(None)),
        (V5, ALL, b"\x04{\"Width\":80,\"Height\":24}", Ok(None)),
    ];
    for (protocol, streams, message, expected) in rows {
        let got = server(protocol, streams).receive(Bytes::from_static(message));
        assert_eq!(got, expected, "{protocol} {streams:?} {message:?}");
    }
}

#[test]
fn what_is_no_size_ends_the_connection() {
    for payload in [&b"x"[..], br#"{"Width":65536,"Height":1}"#, br#"{"Width":-1,"Height":1}"#, b"[1,2,3]", b"}"] {
        let message = message(Channel::Resize, payload);
        let got = server(Protocol::V5, TERMINAL).receive(message);
        assert!(matches!(got, Err(ProtocolError::Resize(_))), "{payload:?}: {got:?}");
    }
    let mut server = server(Protocol::V5, TERMINAL);
    let endless = message(Channel::Resize, &[b' '; 600]);
    assert_eq!(server.receive(message(Channel::Resize, b"{")), Ok(None));
    assert_eq!(server.receive(endless.clone()), Ok(None));
    assert!(matches!(server.receive(endless), Err(ProtocolError::Resize(_))), "memory for it has an end");
}

#[test]
fn input_that_was_ended_stays_ended() {
    let mut server = server(Protocol::V5, ALL);
    assert_eq!(server.receive(Bytes::from_static(b"\xff\x00")), Ok(Some(FromClient::InputEnded)));
    assert_eq!(server.receive(Bytes::from_static(b"\x00more")), Ok(None));
    assert_eq!(server.receive(Bytes::from_static(b"\xff\x00")), Ok(None));
}

#[test]
fn there_is_one_status_and_nothing_after_it() {
    let mut server = server(Protocol::V5, ALL);
    assert_eq!(server.output(OutputStream::Stderr, &[&b"n"[..], b"", b"o\n"]).as_deref(), Some(&b"\x02no\n"[..]));
    assert_eq!(server.output(OutputStream::Stdout, &[b"", b""]), None, "an empty one would be a greeting");
    assert_eq!(server.finish(b"{}").as_deref(), Some(&b"\x03{}"[..]));
    assert_eq!(server.output(OutputStream::Stdout, &[b"late"]), None);
    assert_eq!(server.finish(b"{}"), None);
}

#[test]
fn only_streams_that_were_asked_for_are_sent() {
    let server = server(Protocol::V5, Streams { stderr: false, ..ALL });
    assert!(server.output(OutputStream::Stdout, &[b"x"]).is_some());
    assert_eq!(server.output(OutputStream::Stderr, &[b"x"]), None);
}

#[test]
fn a_client_says_what_kubectl_says() {
    let mut client = Client::new(Protocol::V5);
    let size = TerminalSize { width: 80, height: 24 };
    assert_eq!(client.resize(size)[..], b"\x04{\"Width\":80,\"Height\":24}"[..]);
    assert_eq!(client.input(b"ls\n").as_deref(), Some(&b"\x00ls\n"[..]));
    assert_eq!(client.input(b""), None);
    assert_eq!(client.end_input().as_deref(), Some(&b"\xff\x00"[..]));
    assert_eq!((client.end_input(), client.input(b"late")), (None, None));
    assert_eq!(Client::new(Protocol::V4).end_input(), None, "version 4 has no way to say it");
}

#[test]
fn a_connection_that_ends_without_a_status_is_never_success() {
    let client = || Client::new(Protocol::V5);
    assert_eq!(client().closed(Some(close::NORMAL)), Err(NoStatus::Closed));
    assert_eq!(client().closed(Some(close::GOING_AWAY)), Err(NoStatus::Code(1001)));
    assert_eq!(client().closed(None), Err(NoStatus::Broken));
    let mut client = client();
    assert_eq!(client.receive(Bytes::from_static(b"\x01")), Ok(None), "the greeting");
    assert_eq!(client.receive(Bytes::from_static(b"\x02")), Ok(Some(FromServer::Now)));
    assert_eq!(client.receive(Bytes::from_static(b"\x03{\"status\":")), Ok(Some(FromServer::Status)));
    assert_eq!(client.receive(Bytes::from_static(b"\x03\"Success\"}")), Ok(Some(FromServer::Status)));
    assert_eq!(client.closed(None).as_deref(), Ok(&b"{\"status\":\"Success\"}"[..]));
}

#[test]
fn a_status_without_end_ends_the_connection() {
    let mut client = Client::new(Protocol::V5);
    let half = message(Channel::Error, &vec![b' '; MAX_STATUS / 2 + 1]);
    assert_eq!(client.receive(half.clone()), Ok(Some(FromServer::Status)));
    assert_eq!(client.receive(half), Err(ProtocolError::StatusTooLong));
}

#[test]
fn a_reason_is_cut_between_characters() {
    let long = format!("{}é", "x".repeat(close::MAX_REASON - 1));
    assert_eq!(close::reason(&long).len(), close::MAX_REASON - 1);
    assert_eq!(close::reason("short"), "short");
}

/// One thing that a client does.
#[derive(Clone, Debug)]
enum Deed {
    Input(Vec<u8>),
    Size(u16, u16),
    /// A message that means nothing.
    Noise(u8),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100).prop_map(Deed::Input),
        (any::<u16>(), any::<u16>()).prop_map(|(width, height)| Deed::Size(width, height)),
        (5_u8..255).prop_map(Deed::Noise),
    ];
    prop::collection::vec(deed, 0..40)
}

proptest! {
    #[test]
    fn what_a_client_says_in_any_order_is_what_the_server_hears(deeds in deeds(), ended in any::<bool>()) {
        let mut client = Client::new(Protocol::V5);
        let mut server = server(Protocol::V5, TERMINAL);
        let (mut said, mut heard) = (Vec::new(), Vec::new());
        let (mut last_said, mut last_heard) = (None, None);
        let mut messages: Vec<Bytes> = deeds.iter().filter_map(|deed| match deed {
            Deed::Input(bytes) => {
                said.extend_from_slice(bytes);
                client.input(bytes)
            }
            Deed::Size(width, height) => {
                let size = TerminalSize { width: *width, height: *height };
                last_said = Some(size).filter(|size| size.is_real()).or(last_said);
                Some(client.resize(size))
            }
            Deed::Noise(number) => Some(Bytes::from(vec![*number, 1, 2, 3])),
        }).collect();
        if ended {
            messages.extend(client.end_input());
            messages.push(Bytes::from_static(b"\x00after the end"));
        }
        let mut ends = 0;
        for message in messages {
            match server.receive(message) {
                Ok(Some(FromClient::Input(bytes))) => heard.extend_from_slice(&bytes),
                Ok(Some(FromClient::Resized(size))) => last_heard = Some(size),
                Ok(Some(FromClient::InputEnded)) => ends += 1,
                Ok(None) => {}
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
        prop_assert_eq!((said, last_said, usize::from(ended)), (heard, last_heard, ends));
    }

    #[test]
    fn what_a_server_says_in_any_cut_is_what_the_client_hears(
        chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..100)), 0..40),
        status in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let mut server = server(Protocol::V4, ALL);
        let mut client = Client::new(Protocol::V4);
        let mut messages = vec![server.greeting()];
        let mut said = [Vec::new(), Vec::new()];
        for (to_stderr, bytes) in &chunks {
            let stream = if *to_stderr { OutputStream::Stderr } else { OutputStream::Stdout };
            said[usize::from(*to_stderr)].extend_from_slice(bytes);
            messages.extend(server.output(stream, &[bytes]));
        }
        messages.extend(server.finish(&status));
        messages.extend(server.output(OutputStream::Stdout, &[b"after the end"]));
        let mut heard = [Vec::new(), Vec::new()];
        for message in messages {
            match client.receive(message) {
                Ok(Some(FromServer::Output(stream, bytes))) => {
                    heard[usize::from(stream == OutputStream::Stderr)].extend_from_slice(&bytes);
                }
                Ok(Some(FromServer::Status | FromServer::Now) | None) => {}
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
        prop_assert_eq!(said, heard);
        let received = client.closed(Some(close::NORMAL)).unwrap_or_default();
        prop_assert_eq!(&received[..], &status[..]);
    }

    #[test]
    fn sizes_are_read_whole_wherever_the_channel_is_cut(
        sizes in prop::collection::vec((1_u16.., 1_u16..), 1..8), cut in 1_usize..40, between in "[ \n\t]{0,3}",
    ) {
        let documents: Vec<String> = sizes.iter().map(|(w, h)| format!(r#"{{"Width":{w},"Height":{h}}}"#)).collect();
        let text = documents.join(&between);
        let mut server = server(Protocol::V5, TERMINAL);
        let mut last = None;
        for piece in text.as_bytes().chunks(cut) {
            match server.receive(message(Channel::Resize, piece)) {
                Ok(Some(FromClient::Resized(size))) => last = Some((size.width, size.height)),
                Ok(_) => {}
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
        prop_assert_eq!(last.as_ref(), sizes.last());
    }

    #[test]
    fn no_message_whatever_it_holds_harms_either_side(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20), v5 in any::<bool>()) {
        let protocol = if v5 { Protocol::V5 } else { Protocol::V4 };
        let mut server = server(protocol, TERMINAL);
        let mut client = Client::new(protocol);
        for message in messages {
            let message = Bytes::from(message);
            // Refused or not, neither panics, and what comes out is never empty.
            if let Ok(Some(FromClient::Input(bytes))) = server.receive(message.clone()) {
                prop_assert!(!bytes.is_empty());
            }
            if let Ok(Some(FromServer::Output(_, bytes))) = client.receive(message) {
                prop_assert!(!bytes.is_empty());
            }
        }
    }
}

//! Whatever a client or a server is sent: no panic, no empty payload, no input after its end, one status.
#![no_main]

use bytes::Bytes;
use execlet::wire::{
    OutputStream,
    remotecommand::{Client, FromClient, FromServer, MAX_STATUS, Protocol, Server, Streams},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, mut rest)) = data.split_first() else { return };
    let protocol = if choice & 1 == 0 { Protocol::V5 } else { Protocol::V4 };
    let bit = |n: u8| choice >> n & 1 == 1;
    let streams = Streams { stdin: bit(1), stdout: bit(2), stderr: bit(3), tty: bit(4) };
    let (mut server, mut client) = (Server::new(protocol, streams), Client::new(protocol));
    let (mut ended, mut finished) = (false, false);
    // Each message is led by its length.
    while let Some((length, after)) = rest.split_first() {
        let (message, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        let message = Bytes::copy_from_slice(message);
        match server.receive(message.clone()) {
            Ok(Some(FromClient::Input(bytes))) => assert!(!bytes.is_empty() && !ended && streams.stdin),
            Ok(Some(FromClient::InputEnded)) => {
                assert!(!ended && streams.stdin && protocol == Protocol::V5);
                ended = true;
            }
            Ok(Some(FromClient::Resized(size))) => assert!(size.is_real() && streams.tty),
            Ok(None) => {}
            Err(_) => return,
        }
        // What one side says the other understands.
        let sent = if *length == 255 {
            assert_eq!(server.finish(&message).is_some(), !finished);
            finished = true;
            None
        } else {
            server.output(OutputStream::Stdout, &[&message])
        };
        if let Some(sent) = sent {
            assert!(!finished);
            let heard = Client::new(protocol).receive(sent);
            assert!(matches!(heard, Ok(Some(FromServer::Output(OutputStream::Stdout, bytes))) if bytes == message));
        }
        if client.receive(message).is_err() {
            return;
        }
    }
    assert!(client.closed(Some(1000)).map_or(0, |status| status.len()) <= MAX_STATUS);
});

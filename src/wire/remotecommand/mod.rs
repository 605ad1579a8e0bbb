//! The remotecommand protocol over WebSocket, `v5.channel.k8s.io` and `v4.channel.k8s.io`, as
//! kubectl, client-go, kube-rs and the kubelet speak it.
//!
//! Works on whole WebSocket messages: `[channel][payload]` in a binary one. The framing below,
//! pings, deadlines and who is connected are the caller's business.

mod client;
mod message;
mod protocol;
mod resize;
mod server;
mod streams;

pub use self::{
    client::{Client, FromServer, NoStatus},
    message::{Channel, MAX_STATUS, ProtocolError},
    protocol::{CLOSE_WAIT, PROTOCOL_HEADER, Protocol, close},
    resize::TerminalSize,
    server::{FromClient, Server},
    streams::{Streams, StreamsError},
};

#[cfg(test)]
mod tests;

//! gRPC over the engine's Unix socket.
//!
//! No call has a deadline that the engine hears of: it would go on to the shim and kill the runtime in the midst of a
//! start. Whoever has waited long enough goes away instead, which changes nothing there. There are no pings either, which
//! the engine answers by cutting the connection, and no repetitions.

use std::{
    io,
    path::{Path, PathBuf},
};

use http::{Uri, uri::PathAndQuery};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::UnixStream;
use tonic::{Request, Status, Streaming, body::Body, client::Grpc, metadata::MetadataValue};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

/// Where the kubelet's containers are. The only one that is asked.
pub const NAMESPACE: &str = "k8s.io";
const NAMESPACE_HEADER: &str = "containerd-namespace";
/// Bytes of one answer: a list of containers has the whole spec of each.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

pub struct Connection {
    socket: PathBuf,
    /// What all calls share but starts.
    shared: Mutex<Option<Channel>>,
}

/// One connection. It closes with the last call that is made over it and the last value.
#[derive(Clone)]
pub struct Channel(SendRequest<Body>);

impl Connection {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, shared: Mutex::new(None) }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A connection of its own. An error proves that nothing was sent.
    pub async fn open(&self) -> io::Result<Channel> {
        let connection = UnixStream::connect(&self.socket).await?;
        let opened = handshake(TokioExecutor::new(), TokioIo::new(connection)).await;
        let (sender, driver) = opened.map_err(io::Error::other)?;
        // Ends with the connection.
        tokio::spawn(driver);
        Ok(Channel(sender))
    }

    /// The connection that is there, or another one.
    pub async fn shared(&self) -> io::Result<Channel> {
        let open = self.shared.lock().clone().filter(|channel| !channel.0.is_closed());
        if let Some(channel) = open {
            return Ok(channel);
        }
        let channel = self.open().await?;
        *self.shared.lock() = Some(channel.clone());
        Ok(channel)
    }
}

impl Channel {
    pub async fn call<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let answer = client(self.service()).unary(request(question), of(path), ProstCodec::default()).await?;
        Ok(answer.into_inner())
    }

    pub async fn stream<Q, A>(&self, path: &'static str, question: Q) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut client = client(self.service());
        Ok(client.server_streaming(request(question), of(path), ProstCodec::default()).await?.into_inner())
    }

    fn service(
        &self,
    ) -> impl Service<
        http::Request<Body>,
        Response = http::Response<hyper::body::Incoming>,
        Error = hyper::Error,
        Future: Send,
    > + use<> {
        let sender = self.0.clone();
        service_fn(move |request| {
            let mut sender = sender.clone();
            async move { sender.send_request(request).await }
        })
    }
}

fn client<S>(service: S) -> Grpc<S> {
    Grpc::with_origin(service, Uri::from_static("http://containerd")).max_decoding_message_size(ANSWER_BYTES)
}

fn of(path: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(path)
}

fn request<Q>(question: Q) -> Request<Q> {
    let mut request = Request::new(question);
    request.metadata_mut().insert(NAMESPACE_HEADER, MetadataValue::from_static(NAMESPACE));
    request
}

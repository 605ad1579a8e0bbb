//! Stands between an engine and who calls it, and notes every call.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use http_body_util::BodyExt as _;
use hyper::{Request, Response, body::Incoming, client, server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

/// One call: its name, and the headers that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    pub namespace: Option<String>,
    pub deadline: Option<String>,
}

/// Lives as long as it is to be listened to.
pub struct Recording {
    calls: Arc<Mutex<Vec<Call>>>,
    _serving: JoinSet<()>,
}

impl Recording {
    /// Listens at `at` for who would call the engine at `engine`.
    pub fn begin(at: &Path, engine: PathBuf) -> Self {
        let listener = UnixListener::bind(at).expect("a socket");
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let mut serving = JoinSet::new();
        let noted = Arc::clone(&calls);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(serve(connection, engine.clone(), Arc::clone(&noted)));
            }
        });
        Self { calls, _serving: serving }
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// How often there was a call of this name.
    pub fn count(&self, name: &str) -> usize {
        self.calls().iter().filter(|call| call.name == name).count()
    }
}

async fn serve(connection: UnixStream, engine: PathBuf, calls: Arc<Mutex<Vec<Call>>>) {
    let to = UnixStream::connect(&engine).await.expect("the engine");
    let (sender, driver) =
        client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(to)).await.expect("HTTP/2");
    let service = service_fn(move |request: Request<Incoming>| {
        let header = |name: &str| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
        let name = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let call = Call { name, namespace: header("containerd-namespace"), deadline: header("grpc-timeout") };
        calls.lock().unwrap().push(call);
        let mut sender = sender.clone();
        async move {
            let (parts, body) = request.into_parts();
            let answer: Response<Incoming> = sender.send_request(Request::from_parts(parts, body.boxed())).await?;
            Ok::<_, hyper::Error>(answer)
        }
    });
    let serving =
        server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(connection), service);
    // Either end may go first.
    tokio::select! {
        end = serving => drop(end),
        end = driver => drop(end),
    }
}

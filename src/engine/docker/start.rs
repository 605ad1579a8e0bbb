//! The attached start, which does not go through bollard: its decoder takes a terminal's output for frames. The stream
//! is read raw from a connection of our own and framed by `frames`.

use std::{error::Error, path::Path};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, client::conn::http1::handshake, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::{
    answer::{refused, unreachable},
    frames::framing,
};
use crate::{
    core::ids::ExecId,
    engine::{EngineError, ExecStream, StartError},
};

/// Most bytes of an error text that are read, in bytes.
const ERROR_TEXT_LIMIT: usize = 64 * 1024;
const CALL: &str = "start exec";

/// Starts an exec over a connection of its own, which then carries the output.
pub async fn start(socket: &Path, exec: &ExecId, tty: bool) -> Result<ExecStream, StartError> {
    // Nothing was sent yet.
    let not_sent = |error: &dyn Error| StartError::Refused(unreachable(socket, CALL, error));
    let unclear = |error: &dyn Error| StartError::Unclear(unreachable(socket, CALL, error));
    let connection = UnixStream::connect(socket).await.map_err(|e| not_sent(&e))?;
    let (mut sender, driver) = handshake(TokioIo::new(connection)).await.map_err(|e| not_sent(&e))?;
    // Ends with the connection, whose other half is owned by the stream that is returned.
    tokio::spawn(driver.with_upgrades());
    let body = format!(r#"{{"Detach":false,"Tty":{tty}}}"#);
    let request = Request::post(format!("/exec/{exec}/start"))
        .header(header::HOST, "docker")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "tcp")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| not_sent(&e))?;
    let response = sender.send_request(request).await.map_err(|e| unclear(&e))?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {
            let upgraded = hyper::upgrade::on(response).await.map_err(|e| unclear(&e))?;
            Ok(match upgraded.downcast::<TokioIo<UnixStream>>() {
                Ok(parts) => ExecStream::over(parts.io.into_inner(), framing(tty), parts.read_buf.into(), tty),
                Err(upgraded) => ExecStream::new(TokioIo::new(upgraded), framing(tty), tty),
            })
        }
        status => {
            let text = Limited::new(response.into_body(), ERROR_TEXT_LIMIT).collect().await;
            let text = text.map(|body| error_text(&body.to_bytes())).unwrap_or_default();
            // Whatever the status, the engine has not done it.
            Err(match refused(status.as_u16(), text, EngineError::NoSuchExec) {
                EngineError::NoSuchExec(message) => StartError::Absent(message),
                other => StartError::Refused(other),
            })
        }
    }
}

fn error_text(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct ErrorBody {
        message: String,
    }
    serde_json::from_slice::<ErrorBody>(body)
        .map_or_else(|_| String::from_utf8_lossy(body).trim().to_owned(), |error| error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_text_is_taken_from_json_or_as_it_is() {
        assert_eq!(error_text(br#"{"message":"no"}"#), "no");
        assert_eq!(error_text(b"plain\n"), "plain");
    }
}

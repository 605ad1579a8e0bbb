//! The client for the API server that agents and managers have.

use std::time::Duration;

use kube::{Client, Config, Error};

/// How long the API server may say nothing when an answer is due: longer than a watch lasts that has nothing to tell.
const SILENCE: Duration = Duration::from_secs(40);

/// A client that neither repeats a call by itself nor waits for an answer for ever: whoever calls knows what may be
/// repeated, and when.
pub fn client(mut config: Config) -> Result<Client, Error> {
    // It would repeat what was refused with 429, 503 or 504 up to fifteen times, with pauses that grow to minutes: a watch that
    // is opened while the API server starts would tell nothing for as long. And what timed out may have been done.
    config.default_retry = false;
    config.read_timeout = Some(SILENCE);
    // A connection may have been idle before the call.
    config.reset_reader_on_write = true;
    Client::try_from(config)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::{Api, api::ListParams};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::Instant,
    };

    use super::*;

    fn pods(listener: &TcpListener) -> Api<Pod> {
        let address = listener.local_addr().expect("an address");
        Api::all(client(Config::new(format!("http://{address}").parse().expect("a URL"))).expect("a client"))
    }

    #[tokio::test]
    async fn what_was_refused_for_now_is_not_repeated_by_the_client() {
        for code in ["429 Too Many Requests", "503 Service Unavailable", "504 Gateway Timeout"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let pods = pods(&listener);
            let server = tokio::spawn(async move {
                let mut answered = 0;
                loop {
                    let (mut connection, _) = listener.accept().await.expect("a connection");
                    let read = connection.read(&mut [0; 4096]).await.expect("a call");
                    assert!(read > 0, "a call");
                    answered += 1;
                    let after = if answered == 1 { "Retry-After: 0\r\n" } else { "" };
                    let answer = format!("HTTP/1.1 {code}\r\n{after}Content-Length: 0\r\nConnection: close\r\n\r\n");
                    connection.write_all(answer.as_bytes()).await.expect("answered");
                    if answered > 1 {
                        return;
                    }
                }
            });
            let refused = pods.list(&ListParams::default()).await.expect_err("refused");
            assert!(
                matches!(&refused, Error::Api(status) if code.starts_with(&status.code.to_string())),
                "{refused:?}"
            );
            assert!(!server.is_finished(), "{code}: it was asked once");
            server.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let pods = pods(&listener);
        let _silent = tokio::spawn(async move {
            let connection = listener.accept().await.expect("a connection");
            std::future::pending::<()>().await;
            drop(connection);
        });
        let begun = Instant::now();
        pods.list(&ListParams::default()).await.expect_err("no answer");
        assert!(begun.elapsed() >= SILENCE && begun.elapsed() < SILENCE * 2, "{:?}", begun.elapsed());
    }
}

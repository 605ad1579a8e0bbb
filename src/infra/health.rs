//! `/livez`, `/readyz` and `/metrics`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use parking_lot::Mutex;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<States>>);

#[derive(Default)]
struct States {
    checks: BTreeMap<&'static str, Result<(), String>>,
    standby: bool,
}

impl Readiness {
    /// Not ready before this check holds.
    pub fn expect(&self, name: &'static str) {
        self.set(name, Err("not yet".to_owned()));
    }

    pub fn ready(&self, name: &'static str) {
        self.set(name, Ok(()));
    }

    pub fn not_ready(&self, name: &'static str, why: impl Into<String>) {
        self.set(name, Err(why.into()));
    }

    /// Waits for its predecessor to end, with everything else ready. That counts as ready, or each would wait for the
    /// other.
    pub fn stand_by(&self, standby: bool) {
        self.0.lock().standby = standby;
    }

    fn set(&self, name: &'static str, state: Result<(), String>) {
        self.0.lock().checks.insert(name, state);
    }

    fn report(&self) -> (StatusCode, String) {
        use std::fmt::Write as _;
        let states = self.0.lock();
        let mut text = String::new();
        let mut code = StatusCode::OK;
        if states.standby {
            return (code, "standing by for its predecessor\n".to_owned());
        }
        for (name, state) in &states.checks {
            let line = match state {
                Ok(()) => writeln!(text, "[+] {name} ok"),
                Err(why) => {
                    code = StatusCode::SERVICE_UNAVAILABLE;
                    writeln!(text, "[-] {name} failed: {why}")
                }
            };
            // Writing to a String cannot fail.
            line.unwrap_or_default();
        }
        (code, text)
    }
}

pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    registry: Arc<Registry>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(|State(state): State<Readiness>| async move { state.report() }))
        .with_state(readiness)
        .route("/metrics", get(metrics).with_state(registry));
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn metrics(State(registry): State<Arc<Registry>>) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let content_type = [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => (StatusCode::OK, content_type, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, content_type, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_that_is_not_ready_is_enough_and_is_named() {
        let readiness = Readiness::default();
        readiness.expect("engine");
        readiness.ready("watch");
        let (code, text) = readiness.report();
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "[-] engine failed: not yet\n[+] watch ok\n");
        readiness.ready("engine");
        assert_eq!(readiness.report().0, StatusCode::OK);
    }
}

//! What all requests share: the state, who may ask, and how an error is told.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;

use netflash_pxe::AGENT_BODY_MAX;

use super::{admin, agent, own_address};
use crate::data_dir::Running;
use crate::fleet::{Fleet, FleetError};
use crate::secret;

/// Largest request of the command line, in bytes.
const ADMIN_BODY_MAX: usize = 1 << 20;

/// The state behind every request.
pub(super) struct Web {
    pub(super) fleet: Arc<Fleet>,
    pub(super) admin_hash: String,
    pub(super) running: Running,
}

impl Web {
    /// The address machines reach this server by: as configured, else as the request itself says (`Host`), else that
    /// of the interface for DHCP or the first one.
    pub(super) fn address(&self, headers: Option<&HeaderMap>) -> Ipv4Addr {
        let config = &self.fleet.config;
        let configured = config.listen.address;
        let asked = || {
            let host = headers?.get(header::HOST)?.to_str().ok()?;
            host.split(':').next()?.parse().ok()
        };
        let interface = config.dhcp.as_ref().map(|dhcp| dhcp.interface.as_str());
        configured
            .or_else(asked)
            .unwrap_or_else(|| own_address(interface))
    }

    /// The plain HTTP address as a URL.
    pub(super) fn base(&self, headers: &HeaderMap) -> String {
        format!(
            "http://{}:{}",
            self.address(Some(headers)),
            self.running.http.port()
        )
    }
}

/// Everything that is asked over TLS.
pub(super) fn secure_routes(web: Arc<Web>) -> Router {
    let admin = admin::routes()
        .layer(middleware::from_fn_with_state(
            Arc::clone(&web),
            admins_only,
        ))
        .layer(DefaultBodyLimit::max(ADMIN_BODY_MAX));
    let agent = agent::routes().layer(DefaultBodyLimit::max(AGENT_BODY_MAX));
    Router::new()
        .merge(agent)
        .nest("/api/v1", admin)
        .layer(middleware::map_response(end_what_was_not_read))
        .with_state(web)
}

/// A body that was refused unread ends its connection, and the client must hear of it: it would send its next
/// request into the closing connection.
async fn end_what_was_not_read(mut response: Response) -> Response {
    let unread = [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNAUTHORIZED];
    if unread.contains(&response.status()) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

async fn admins_only(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    match bearer(request.headers()) {
        Some(token) if secret::matches(token, &web.admin_hash) => next.run(request).await,
        _ => refusal(
            StatusCode::UNAUTHORIZED,
            "the admin token is needed: see admin.token",
        ),
    }
}

/// The token of an `Authorization: Bearer` header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::trim)
}

/// An answer that says why not.
pub(super) fn refusal(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

impl IntoResponse for FleetError {
    fn into_response(self) -> Response {
        let status = match &self {
            FleetError::Absent(_) => StatusCode::NOT_FOUND,
            FleetError::Refused(_) | FleetError::Session(_) => StatusCode::CONFLICT,
            FleetError::Malformed(_) => StatusCode::BAD_REQUEST,
            FleetError::Unauthorized => StatusCode::UNAUTHORIZED,
            FleetError::Forbidden(_) => StatusCode::FORBIDDEN,
            FleetError::Storage(_) => StatusCode::INSUFFICIENT_STORAGE,
            FleetError::Vault(_) => StatusCode::INTERNAL_SERVER_ERROR,
            FleetError::Store(crate::store::StoreError::Exists(_)) => StatusCode::CONFLICT,
            FleetError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            // The whole chain is for the log; a peer hears the short message.
            log::error!("store {:#}", anyhow::Error::new(self));
            return refusal(status, "the server's database failed; see its log");
        }
        refusal(status, &self.to_string())
    }
}

/// Do the fleet's work, which may wait for a disk, away from the runtime, and answer in JSON.
pub(super) async fn work<T, F>(web: &Web, work: F) -> Response
where
    T: Serialize + Send + 'static,
    F: FnOnce(&Arc<Fleet>) -> Result<T, FleetError> + Send + 'static,
{
    let fleet = Arc::clone(&web.fleet);
    match tokio::task::spawn_blocking(move || work(&fleet)).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(error)) => error.into_response(),
        Err(died) => {
            log::error!("request died: {died}");
            refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the server failed; see its log",
            )
        }
    }
}

//! The agent's side of the API, as `netflash_pxe::contract` describes it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use netflash_pxe::{
    API_ANNOUNCE, API_CAPTURE, API_EVENTS, API_HELLO, API_IMAGE, API_JOB, API_KNOCK, API_MANIFEST,
    AgentEvent, CAPTURE_PART_MAX, CaptureEnd, Hello, Knock,
};

use super::answer::{Web, bearer, work};
use crate::fallback;
use crate::fleet::{Beside, FleetError};

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route(API_KNOCK, post(knock))
        .route(API_HELLO, post(hello))
        .route(API_JOB, get(job))
        .route(API_EVENTS, post(events))
        .route(API_ANNOUNCE, get(announce))
        .route(API_MANIFEST, get(manifest))
        .route(API_IMAGE, get(image))
        .route(
            API_CAPTURE,
            get(capture_state)
                .put(capture_part)
                .post(capture_end)
                .layer(DefaultBodyLimit::max(CAPTURE_PART_MAX)),
        )
}

/// The secret an agent got with its welcome.
struct Bearer(String);

impl<S: Sync> FromRequestParts<S> for Bearer {
    type Rejection = FleetError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Bearer, FleetError> {
        let secret = bearer(&parts.headers).ok_or(FleetError::Unauthorized)?;
        Ok(Bearer(secret.to_owned()))
    }
}

async fn knock(State(web): State<Arc<Web>>, Json(knock): Json<Knock>) -> Response {
    work(&web, move |fleet| fleet.knock(&knock)).await
}

async fn hello(State(web): State<Arc<Web>>, Json(hello): Json<Hello>) -> Response {
    work(&web, move |fleet| fleet.hello(&hello)).await
}

async fn job(State(web): State<Arc<Web>>, Bearer(bearer): Bearer) -> Response {
    work(&web, move |fleet| fleet.job_of(&bearer)).await
}

async fn events(
    State(web): State<Arc<Web>>,
    Path(id): Path<u64>,
    Bearer(bearer): Bearer,
    Json(events): Json<Vec<AgentEvent>>,
) -> Response {
    work(&web, move |fleet| fleet.agent_events(&bearer, id, &events)).await
}

async fn announce(
    State(web): State<Arc<Web>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Response {
    match beside(&web, id, &headers).await {
        Ok(here) => fallback::announce(&here.board),
        Err(error) => error.into_response(),
    }
}

async fn manifest(
    State(web): State<Arc<Web>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Response {
    match beside(&web, id, &headers).await {
        Ok(here) => fallback::manifest(&here.desk, here.machine, &here.image),
        Err(error) => error.into_response(),
    }
}

async fn image(State(web): State<Arc<Web>>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    match beside(&web, id, &headers).await {
        Ok(here) => fallback::image(&here.desk, here.machine, &here.image, &headers),
        Err(error) => error.into_response(),
    }
}

async fn capture_state(
    State(web): State<Arc<Web>>,
    Path(id): Path<u64>,
    Bearer(bearer): Bearer,
) -> Response {
    work(&web, move |fleet| fleet.capture_state(&bearer, id)).await
}

#[derive(Deserialize)]
struct At {
    offset: u64,
}

async fn capture_part(
    State(web): State<Arc<Web>>,
    Path(id): Path<u64>,
    Query(At { offset }): Query<At>,
    Bearer(bearer): Bearer,
    part: Bytes,
) -> Response {
    work(&web, move |fleet| {
        fleet.capture_part(&bearer, id, offset, &part)
    })
    .await
}

async fn capture_end(
    State(web): State<Arc<Web>>,
    Path(id): Path<u64>,
    Bearer(bearer): Bearer,
    Json(end): Json<CaptureEnd>,
) -> Response {
    let fleet = Arc::clone(&web.fleet);
    work(&web, move |_| fleet.capture_end(&bearer, id, end)).await
}

/// What the machine that asks may fetch of job `id`.
async fn beside(web: &Web, id: u64, headers: &HeaderMap) -> Result<Beside, FleetError> {
    let bearer = bearer(headers).ok_or(FleetError::Unauthorized)?.to_owned();
    let fleet = Arc::clone(&web.fleet);
    let looked_up = tokio::task::spawn_blocking(move || fleet.beside(&bearer, id)).await;
    looked_up.unwrap_or_else(|died| Err(FleetError::Refused(format!("request died: {died}"))))
}

//! The agent's side of the API, as `netflash_pxe::contract` describes it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use netflash_pxe::{API_EVENTS, API_HELLO, API_JOB, AgentEvent, Hello};

use super::answer::{Web, bearer, work};
use crate::fleet::FleetError;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route(API_HELLO, post(hello))
        .route(API_JOB, get(job))
        .route(API_EVENTS, post(events))
}

async fn hello(State(web): State<Arc<Web>>, Json(hello): Json<Hello>) -> Response {
    work(&web, move |fleet| fleet.hello(&hello)).await
}

async fn job(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let Some(bearer) = bearer(&headers).map(str::to_owned) else {
        return FleetError::Unauthorized.into_response();
    };
    work(&web, move |fleet| fleet.job_of(&bearer)).await
}

async fn events(
    State(web): State<Arc<Web>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
    Json(events): Json<Vec<AgentEvent>>,
) -> Response {
    let Some(bearer) = bearer(&headers).map(str::to_owned) else {
        return FleetError::Unauthorized.into_response();
    };
    work(&web, move |fleet| fleet.agent_events(&bearer, id, &events)).await
}

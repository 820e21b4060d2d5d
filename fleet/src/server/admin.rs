//! The command line's side of the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::answer::{Web, work};
use crate::api::{EVENTS_MAX, JOBS_MAX, MachineList, Status};
use crate::fleet::{CaptureRequest, FlashRequest, NewImage, PowerRequest, VerifyRequest};
use crate::job::Job;
use crate::machine::{MachineChange, NewMachine};
use crate::power::NewLogin;

type Shared = State<Arc<Web>>;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/status", get(status))
        .route("/machines", get(machines).post(add_machine))
        .route(
            "/machines/{name}",
            get(machine).post(change_machine).delete(remove_machine),
        )
        .route("/images", get(images).post(add_image))
        .route("/images/{name}", get(image))
        .route("/jobs", get(jobs))
        .route("/jobs/flash", post(flash))
        .route("/jobs/capture", post(capture))
        .route("/jobs/verify", post(verify))
        .route("/jobs/{id}", get(job))
        .route("/jobs/{id}/cancel", post(cancel))
        .route("/power", post(power))
        .route("/power/{order}", get(power_order))
        .route("/logins", get(logins).post(add_login))
        .route("/logins/forget", post(remove_login))
        .route("/events", get(events))
}

async fn status(State(web): Shared) -> Response {
    work(&web, |fleet| {
        let mut last: BTreeMap<String, Job> = BTreeMap::new();
        for job in fleet.jobs(JOBS_MAX)? {
            last.entry(job.machine_name.clone()).or_insert(job);
        }
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machines: fleet.machines()?.len(),
            seen: fleet.sightings()?.len(),
            images: fleet.images()?.len(),
            sessions: fleet.sessions.all(),
            fallback: fleet.desk.as_ref().map(|desk| desk.status()),
            jobs: last.into_values().collect(),
        })
    })
    .await
}

async fn machines(State(web): Shared) -> Response {
    work(&web, |fleet| {
        Ok(MachineList {
            machines: fleet.machines()?,
            seen: fleet.sightings()?,
        })
    })
    .await
}

async fn add_machine(State(web): Shared, Json(new): Json<NewMachine>) -> Response {
    work(&web, move |fleet| fleet.add_machine(&new)).await
}

async fn machine(State(web): Shared, Path(name): Path<String>) -> Response {
    work(&web, move |fleet| fleet.machine(&name)).await
}

async fn change_machine(
    State(web): Shared,
    Path(name): Path<String>,
    Json(change): Json<MachineChange>,
) -> Response {
    work(&web, move |fleet| fleet.change_machine(&name, &change)).await
}

async fn remove_machine(State(web): Shared, Path(name): Path<String>) -> Response {
    work(&web, move |fleet| fleet.remove_machine(&name)).await
}

async fn images(State(web): Shared) -> Response {
    work(&web, |fleet| fleet.images_and_captures()).await
}

async fn add_image(State(web): Shared, Json(new): Json<NewImage>) -> Response {
    work(&web, move |fleet| fleet.add_image(&new)).await
}

async fn image(State(web): Shared, Path(name): Path<String>) -> Response {
    work(&web, move |fleet| fleet.image(&name)).await
}

async fn flash(State(web): Shared, Json(request): Json<FlashRequest>) -> Response {
    work(&web, move |fleet| fleet.flash(&request)).await
}

async fn capture(State(web): Shared, Json(request): Json<CaptureRequest>) -> Response {
    work(&web, move |fleet| fleet.capture(&request)).await
}

async fn verify(State(web): Shared, Json(request): Json<VerifyRequest>) -> Response {
    work(&web, move |fleet| fleet.verify(&request)).await
}

async fn jobs(State(web): Shared) -> Response {
    work(&web, |fleet| fleet.jobs(JOBS_MAX)).await
}

async fn job(State(web): Shared, Path(id): Path<u64>) -> Response {
    work(&web, move |fleet| fleet.job(id)).await
}

async fn cancel(State(web): Shared, Path(id): Path<u64>) -> Response {
    work(&web, move |fleet| fleet.cancel(id)).await
}

async fn power(State(web): Shared, Json(request): Json<PowerRequest>) -> Response {
    work(&web, move |fleet| fleet.begin_power(request)).await
}

async fn power_order(State(web): Shared, Path(order): Path<u64>) -> Response {
    work(&web, move |fleet| fleet.power_order(order)).await
}

async fn logins(State(web): Shared) -> Response {
    work(&web, |fleet| fleet.logins()).await
}

async fn add_login(State(web): Shared, Json(new): Json<NewLogin>) -> Response {
    work(&web, move |fleet| fleet.add_login(&new)).await
}

/// By a body and not by the path: a name such as `bmc:[fe80::1]:623` is no part of a URL.
async fn remove_login(State(web): Shared, Json(name): Json<String>) -> Response {
    work(&web, move |fleet| fleet.remove_login(&name)).await
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: i64,
}

async fn events(State(web): Shared, Query(After { after }): Query<After>) -> Response {
    work(&web, move |fleet| fleet.events(after, EVENTS_MAX)).await
}

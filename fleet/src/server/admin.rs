//! The command line's side of the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::answer::{Web, work};
use crate::api::{EVENTS_MAX, JOBS_MAX, MachineList, PowerRequest, Status};
use crate::fleet::{CaptureRequest, FlashRequest, Fleet, FleetError, NewImage};
use crate::job::Job;
use crate::machine::NewMachine;
use crate::power::{PowerOutcome, PowerTarget, act_on_all};

type Shared = State<Arc<Web>>;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/status", get(status))
        .route("/machines", get(machines).post(add_machine))
        .route("/machines/{name}", get(machine).delete(remove_machine))
        .route("/images", get(images).post(add_image))
        .route("/images/{name}", get(image))
        .route("/jobs", get(jobs))
        .route("/jobs/flash", post(flash))
        .route("/jobs/capture", post(capture))
        .route("/jobs/{id}", get(job))
        .route("/jobs/{id}/cancel", post(cancel))
        .route("/power", post(power))
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
    work(&web, move |fleet| switch(fleet, &request)).await
}

fn switch(fleet: &Fleet, request: &PowerRequest) -> Result<Vec<PowerOutcome>, FleetError> {
    let machines = request.machines.iter().map(|name| fleet.machine(name));
    let targets: Vec<PowerTarget> = machines
        .map(|machine| {
            let machine = machine?;
            let mac = machine.identity.macs.first();
            Ok(PowerTarget {
                mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
                name: machine.name,
                power: machine.power,
            })
        })
        .collect::<Result<_, FleetError>>()?;
    Ok(act_on_all(&fleet.config.power, &targets, request.action))
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: i64,
}

async fn events(State(web): Shared, Query(After { after }): Query<After>) -> Response {
    work(&web, move |fleet| fleet.events(after, EVENTS_MAX)).await
}

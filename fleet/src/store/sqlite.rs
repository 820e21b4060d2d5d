//! The store in SQLite: one file, write-ahead log, one connection.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use netflash_pxe::Identity;

use super::schema::{STEPS, VERSION};
use super::{Event, JobDraft, LoginRow, Store, StoreError, Token, logins};
use crate::job::{Job, JobState};
use crate::machine::{Machine, NewMachine, Sighting, StoredImage};

/// Strangers remembered.
const SIGHTINGS_MAX: u32 = 1000;
/// Seconds an expired token is kept, so that its reuse is recognised.
const TOKEN_MEMORY: u64 = 86_400;
/// How long another process may hold the database, such as a backup.
const BUSY: Duration = Duration::from_secs(5);

/// The store in a SQLite file.
pub(crate) struct SqliteStore(Connection);

impl SqliteStore {
    /// Open or make the database at `path`.
    pub(crate) fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        let opening = |source| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        let connection = Connection::open(path).map_err(opening)?;
        connection.busy_timeout(BUSY).map_err(opening)?;
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON;")
            .map_err(opening)?;
        let mut store = SqliteStore(connection);
        let found: i64 = store
            .0
            .query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match found {
            VERSION => {}
            0..VERSION => {
                let change = store.0.transaction()?;
                for step in STEPS
                    .iter()
                    .skip(usize::try_from(found).unwrap_or_default())
                {
                    change.execute_batch(step)?;
                }
                change.pragma_update(None, "user_version", VERSION)?;
                change.commit()?;
            }
            found => {
                return Err(StoreError::Newer {
                    path: path.to_owned(),
                    found,
                    known: VERSION,
                });
            }
        }
        Ok(store)
    }

    /// Do `work` and log `event`, both or neither.
    fn change<T>(
        &mut self,
        event: Option<&Event>,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // What is worth an event outlives a power cut: files may be made because of it, and machines be told. Of the
        // rest (progress, tokens nobody has used) the last changes may be gone, and that costs no flush of the disk.
        let synchronous = if event.is_some() { "FULL" } else { "NORMAL" };
        self.0.pragma_update(None, "synchronous", synchronous)?;
        let change = self.0.transaction()?;
        let result = work(&change)?;
        if let Some(event) = event {
            change.execute(
                "INSERT INTO events (at, body) VALUES (?1, ?2)",
                params![sql(event.at), to_json(event)?],
            )?;
        }
        change.commit()?;
        Ok(result)
    }

    fn documents<T: DeserializeOwned>(&self, sql: &str, max: u32) -> Result<Vec<T>, StoreError> {
        let mut statement = self.0.prepare_cached(sql)?;
        let bodies = statement.query_map([max], |row| row.get::<_, String>(0))?;
        bodies
            .map(|body| Ok(serde_json::from_str(&body?)?))
            .collect()
    }
}

/// SQLite's integers are signed. Nothing that is counted here reaches the end.
fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    Ok(serde_json::to_string(value)?)
}

/// `taken` instead of SQLite's message when a unique name or index refuses the row.
fn unique(error: rusqlite::Error, taken: impl FnOnce() -> String) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::ConstraintViolation) => StoreError::Exists(taken()),
        _ => StoreError::Sql(error),
    }
}

impl Store for SqliteStore {
    fn machines(&self) -> Result<Vec<Machine>, StoreError> {
        self.documents("SELECT body FROM machines ORDER BY name LIMIT ?1", u32::MAX)
    }

    fn add_machine(&mut self, new: &NewMachine, event: &Event) -> Result<Machine, StoreError> {
        self.change(Some(event), |change| {
            change
                .execute(
                    "INSERT INTO machines (name, body) VALUES (?1, '{}')",
                    [&new.name],
                )
                .map_err(|error| {
                    unique(error, || format!("there is a machine {} already", new.name))
                })?;
            let machine = Machine {
                id: change.last_insert_rowid(),
                name: new.name.clone(),
                identity: Identity {
                    uuid: new.uuid.clone(),
                    serial: new.serial.clone(),
                    board_serial: None,
                    macs: new.macs.clone(),
                },
                power: new.power.clone(),
                groups: new.groups.clone(),
                kernel: new.kernel.clone(),
                inventory: None,
                last_seen: None,
                last_decision: None,
                created: event.at,
            };
            let body = to_json(&machine)?;
            change.execute(
                "UPDATE machines SET body = ?2 WHERE id = ?1",
                params![machine.id, body],
            )?;
            Ok(machine)
        })
    }

    fn update_machine(
        &mut self,
        machine: &Machine,
        event: Option<&Event>,
    ) -> Result<(), StoreError> {
        let body = to_json(machine)?;
        self.change(event, |change| {
            change.execute(
                "UPDATE machines SET body = ?2 WHERE id = ?1",
                params![machine.id, body],
            )?;
            Ok(())
        })
    }

    fn remove_machine(&mut self, id: i64, event: &Event) -> Result<(), StoreError> {
        self.change(Some(event), |change| {
            for table in ["tokens", "bearers"] {
                change.execute(&format!("DELETE FROM {table} WHERE machine = ?1"), [id])?;
            }
            change.execute("DELETE FROM machines WHERE id = ?1", [id])?;
            Ok(())
        })
    }

    fn sightings(&self) -> Result<Vec<Sighting>, StoreError> {
        self.documents(
            "SELECT body FROM sightings ORDER BY last_seen DESC LIMIT ?1",
            SIGHTINGS_MAX,
        )
    }

    fn sight(&mut self, sighting: &Sighting, event: Option<&Event>) -> Result<(), StoreError> {
        let key = Sighting::key(&sighting.identity);
        self.change(event, |change| {
            let before: Option<String> = change
                .query_row("SELECT body FROM sightings WHERE key = ?1", [&key], |row| {
                    row.get(0)
                })
                .optional()?;
            let mut sighting = sighting.clone();
            if let Some(before) = before {
                let before: Sighting = serde_json::from_str(&before)?;
                sighting.first_seen = before.first_seen;
                sighting.times = before.times.saturating_add(1);
            }
            change.execute(
                "INSERT INTO sightings (key, last_seen, body) VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET last_seen = ?2, body = ?3",
                params![key, sql(sighting.last_seen), to_json(&sighting)?],
            )?;
            change.execute(
                "DELETE FROM sightings WHERE key NOT IN
                 (SELECT key FROM sightings ORDER BY last_seen DESC LIMIT ?1)",
                [SIGHTINGS_MAX],
            )?;
            Ok(())
        })
    }

    fn unsight(&mut self, key: &str) -> Result<(), StoreError> {
        self.0
            .execute("DELETE FROM sightings WHERE key = ?1", [key])?;
        Ok(())
    }

    fn images(&self) -> Result<Vec<StoredImage>, StoreError> {
        self.documents("SELECT body FROM images ORDER BY name LIMIT ?1", u32::MAX)
    }

    fn add_image(&mut self, image: &StoredImage, event: &Event) -> Result<StoredImage, StoreError> {
        self.change(Some(event), |change| {
            change
                .execute(
                    "INSERT INTO images (name, body) VALUES (?1, '{}')",
                    [&image.name],
                )
                .map_err(|error| {
                    unique(error, || {
                        format!("there is an image {} already", image.name)
                    })
                })?;
            let mut image = image.clone();
            image.id = change.last_insert_rowid();
            let body = to_json(&image)?;
            change.execute(
                "UPDATE images SET body = ?2 WHERE id = ?1",
                params![image.id, body],
            )?;
            Ok(image)
        })
    }

    fn add_jobs(
        &mut self,
        draft: &JobDraft<'_>,
        machines: &[Machine],
        event: &Event,
    ) -> Result<Vec<Job>, StoreError> {
        self.change(Some(event), |change| {
            change.execute("INSERT INTO batches (image) VALUES (?1)", [draft.image])?;
            let batch = change.last_insert_rowid();
            let mut jobs = Vec::new();
            for machine in machines {
                change
                    .execute(
                        "INSERT INTO jobs (machine, active, body) VALUES (?1, 1, '{}')",
                        [machine.id],
                    )
                    .map_err(|error| {
                        unique(error, || {
                            format!(
                                "{} has an active job already; cancel it first",
                                machine.name
                            )
                        })
                    })?;
                let job = Job {
                    id: change.last_insert_rowid().unsigned_abs(),
                    machine: machine.id,
                    machine_name: machine.name.clone(),
                    image: draft.image,
                    image_name: draft.image_name.to_owned(),
                    batch,
                    wish: draft.wish.clone(),
                    capture: draft.capture.cloned(),
                    verify: draft.verify.cloned(),
                    compared: None,
                    captured: None,
                    state: JobState::Queued,
                    phase: None,
                    disk: None,
                    reason: String::new(),
                    progress: None,
                    best_done_bytes: 0,
                    report: None,
                    fruitless_boots: 0,
                    boots: 0,
                    created: event.at,
                    updated: event.at,
                    agent: None,
                    next_event: 0,
                };
                let body = to_json(&job)?;
                change.execute(
                    "UPDATE jobs SET body = ?2 WHERE id = ?1",
                    params![sql(job.id), body],
                )?;
                jobs.push(job);
            }
            Ok(jobs)
        })
    }

    fn job(&self, id: u64) -> Result<Option<Job>, StoreError> {
        let body: Option<String> = self
            .0
            .query_row("SELECT body FROM jobs WHERE id = ?1", [sql(id)], |row| {
                row.get(0)
            })
            .optional()?;
        Ok(body.map(|body| serde_json::from_str(&body)).transpose()?)
    }

    fn jobs(&self, max: u32) -> Result<Vec<Job>, StoreError> {
        self.documents("SELECT body FROM jobs ORDER BY id DESC LIMIT ?1", max)
    }

    fn active_jobs(&self) -> Result<Vec<Job>, StoreError> {
        self.documents(
            "SELECT body FROM jobs WHERE active = 1 ORDER BY id LIMIT ?1",
            u32::MAX,
        )
    }

    fn update_job(&mut self, job: &Job, event: Option<&Event>) -> Result<(), StoreError> {
        let body = to_json(job)?;
        self.change(event, |change| {
            change.execute(
                "UPDATE jobs SET active = ?2, body = ?3 WHERE id = ?1",
                params![sql(job.id), job.state.is_active(), body],
            )?;
            Ok(())
        })
    }

    fn add_token(&mut self, token: &Token, now: u64) -> Result<(), StoreError> {
        self.change(None, |change| {
            change.execute(
                "DELETE FROM tokens WHERE expires < ?1",
                [sql(now.saturating_sub(TOKEN_MEMORY))],
            )?;
            change.execute(
                "INSERT INTO tokens (hash, machine, expires, bound_to) VALUES (?1, ?2, ?3, ?4)",
                params![
                    token.hash,
                    token.machine,
                    sql(token.expires),
                    token.bound_to
                ],
            )?;
            Ok(())
        })
    }

    fn token(&self, hash: &str) -> Result<Option<Token>, StoreError> {
        let read = |row: &Row<'_>| {
            Ok(Token {
                hash: row.get(0)?,
                machine: row.get(1)?,
                expires: row.get::<_, i64>(2)?.unsigned_abs(),
                bound_to: row.get(3)?,
            })
        };
        let sql = "SELECT hash, machine, expires, bound_to FROM tokens WHERE hash = ?1";
        Ok(self.0.query_row(sql, [hash], read).optional()?)
    }

    fn bind_token(
        &mut self,
        hash: &str,
        bound_to: &str,
        bearer: &str,
        event: &Event,
    ) -> Result<(), StoreError> {
        self.change(Some(event), |change| {
            change.execute("UPDATE tokens SET bound_to = ?2 WHERE hash = ?1", params![hash, bound_to])?;
            change.execute(
                "DELETE FROM bearers WHERE machine = (SELECT machine FROM tokens WHERE hash = ?1)",
                [hash],
            )?;
            change.execute(
                "INSERT INTO bearers (hash, machine) SELECT ?2, machine FROM tokens WHERE hash = ?1",
                params![hash, bearer],
            )?;
            Ok(())
        })
    }

    fn bearer(&self, hash: &str) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT machine FROM bearers WHERE hash = ?1";
        Ok(self.0.query_row(sql, [hash], |row| row.get(0)).optional()?)
    }

    fn logins(&self) -> Result<Vec<LoginRow>, StoreError> {
        logins::all(&self.0)
    }

    fn login(&self, name: &str) -> Result<Option<LoginRow>, StoreError> {
        logins::one(&self.0, name)
    }

    fn set_login(&mut self, row: &LoginRow, event: &Event) -> Result<(), StoreError> {
        self.change(Some(event), |change| logins::set(change, row))
    }

    fn remove_login(&mut self, name: &str, event: &Event) -> Result<bool, StoreError> {
        self.change(Some(event), |change| logins::remove(change, name))
    }

    fn pin(&self, device: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT pin FROM pins WHERE device = ?1";
        Ok(self
            .0
            .query_row(sql, [device], |row| row.get(0))
            .optional()?)
    }

    fn set_pin(&mut self, device: &str, pin: &str, event: &Event) -> Result<(), StoreError> {
        self.change(Some(event), |change| {
            let sql = "INSERT OR REPLACE INTO pins (device, pin) VALUES (?1, ?2)";
            change.execute(sql, [device, pin])?;
            Ok(())
        })
    }

    fn log(&mut self, event: &Event) -> Result<(), StoreError> {
        self.change(Some(event), |_| Ok(()))
    }

    fn events(&self, after: i64, max: u32) -> Result<Vec<(i64, Event)>, StoreError> {
        let mut statement = self.0.prepare_cached(
            "SELECT id, body FROM (SELECT id, body FROM events WHERE id > ?1 ORDER BY id DESC LIMIT ?2) ORDER BY id",
        )?;
        let rows = statement.query_map(params![after, max], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        rows.map(|row| {
            let (id, body) = row?;
            Ok((id, serde_json::from_str(&body)?))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests;

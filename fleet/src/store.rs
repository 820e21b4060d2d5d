//! What the server remembers, behind one trait.
//!
//! Each method that changes something takes the [`Event`] that says so, and both become durable together: the event
//! log is complete, and is only ever added to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::job::{CaptureWish, FlashWish, Job, VerifyWish};
use crate::machine::{Machine, NewMachine, Sighting, StoredImage};

mod logins;
mod schema;
mod sqlite;

pub(crate) use sqlite::SqliteStore;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database cannot be opened.
    #[error("opening {path}")]
    Open {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The database was written by a newer netflash.
    #[error("{path} has version {found}, this netflash knows {known}; use the newer one")]
    Newer {
        /// Its file.
        path: PathBuf,
        /// Version found.
        found: i64,
        /// Version known.
        known: i64,
    },
    /// A statement failed.
    #[error("database")]
    Sql(#[from] rusqlite::Error),
    /// A row cannot be understood.
    #[error("a row of the database cannot be understood")]
    Row(#[from] serde_json::Error),
    /// What is unique exists already.
    #[error("{0}")]
    Exists(String),
}

/// A row of the event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// Seconds since 1970.
    pub(crate) at: u64,
    /// What happened, in a stable word such as `job_armed`.
    pub(crate) kind: String,
    /// The machine's name, where one is concerned.
    pub(crate) machine: Option<String>,
    /// The job's number, where one is concerned.
    pub(crate) job: Option<u64>,
    /// In plain words.
    pub(crate) text: String,
}

/// A one-time token as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Hash of the secret.
    pub(crate) hash: String,
    /// The machine it was made for.
    pub(crate) machine: i64,
    /// Seconds since 1970 after which it cannot be used for the first time.
    pub(crate) expires: u64,
    /// The agent key it is bound to, once used (as hash).
    pub(crate) bound_to: Option<String>,
}

/// A login of power devices as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoginRow {
    /// A profile, or `PROFILE:ADDRESS`.
    pub(crate) name: String,
    /// The user, for lists.
    pub(crate) user: String,
    /// Seconds since 1970 when it was entered.
    pub(crate) entered: u64,
    /// Given by the store: no two logins ever have the same.
    pub(crate) stamp: u64,
    /// User and password, sealed.
    pub(crate) sealed: Vec<u8>,
}

/// What jobs have in common that are entered together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JobDraft<'a> {
    /// Number of the image; 0 while there is none.
    pub(crate) image: i64,
    /// Its name.
    pub(crate) image_name: &'a str,
    /// What is asked of a flash.
    pub(crate) wish: &'a FlashWish,
    /// What is asked of a capture, if it is one.
    pub(crate) capture: Option<&'a CaptureWish>,
    /// What is asked of a comparison, if it is one.
    pub(crate) verify: Option<&'a VerifyWish>,
}

/// The server's memory.
pub(crate) trait Store: Send {
    /// All machines, by name.
    fn machines(&self) -> Result<Vec<Machine>, StoreError>;
    /// Enter a machine.
    fn add_machine(&mut self, new: &NewMachine, event: &Event) -> Result<Machine, StoreError>;
    /// Replace what is known of a machine.
    fn update_machine(
        &mut self,
        machine: &Machine,
        event: Option<&Event>,
    ) -> Result<(), StoreError>;
    /// Forget a machine with its tokens and bearers; its jobs stay in the log.
    fn remove_machine(&mut self, id: i64, event: &Event) -> Result<(), StoreError>;

    /// Strangers, the last one first.
    fn sightings(&self) -> Result<Vec<Sighting>, StoreError>;
    /// Note a stranger. The number of strangers kept is bounded; the oldest goes.
    fn sight(&mut self, sighting: &Sighting, event: Option<&Event>) -> Result<(), StoreError>;
    /// Forget a stranger that has become known.
    fn unsight(&mut self, key: &str) -> Result<(), StoreError>;

    /// All images, by name.
    fn images(&self) -> Result<Vec<StoredImage>, StoreError>;
    /// Enter an image; `id` of `image` is ignored.
    fn add_image(&mut self, image: &StoredImage, event: &Event) -> Result<StoredImage, StoreError>;

    /// Enter one job for each machine, all in one batch, or none of them.
    fn add_jobs(
        &mut self,
        draft: &JobDraft<'_>,
        machines: &[Machine],
        event: &Event,
    ) -> Result<Vec<Job>, StoreError>;
    /// A job.
    fn job(&self, id: u64) -> Result<Option<Job>, StoreError>;
    /// Jobs, the last one first, at most `max`.
    fn jobs(&self, max: u32) -> Result<Vec<Job>, StoreError>;
    /// The jobs that are not over.
    fn active_jobs(&self) -> Result<Vec<Job>, StoreError>;
    /// Replace a job.
    fn update_job(&mut self, job: &Job, event: Option<&Event>) -> Result<(), StoreError>;

    /// Keep a token, and drop those that expired long ago.
    fn add_token(&mut self, token: &Token, now: u64) -> Result<(), StoreError>;
    /// The token with this hash.
    fn token(&self, hash: &str) -> Result<Option<Token>, StoreError>;
    /// Bind a token to an agent's key, and let the agent's bearer in, instead of the machine's former ones.
    fn bind_token(
        &mut self,
        hash: &str,
        bound_to: &str,
        bearer: &str,
        event: &Event,
    ) -> Result<(), StoreError>;
    /// The machine a bearer belongs to.
    fn bearer(&self, hash: &str) -> Result<Option<i64>, StoreError>;

    /// All logins, by name.
    fn logins(&self) -> Result<Vec<LoginRow>, StoreError>;
    /// The login of this name.
    fn login(&self, name: &str) -> Result<Option<LoginRow>, StoreError>;
    /// Keep a login, instead of one of the same name; the `stamp` of `row` is ignored.
    fn set_login(&mut self, row: &LoginRow, event: &Event) -> Result<(), StoreError>;
    /// Forget a login; whether there was one.
    fn remove_login(&mut self, name: &str, event: &Event) -> Result<bool, StoreError>;

    /// The certificate a device is known by, in hexadecimal.
    fn pin(&self, device: &str) -> Result<Option<String>, StoreError>;
    /// Know a device by this certificate, and no longer by another one.
    fn set_pin(&mut self, device: &str, pin: &str, event: &Event) -> Result<(), StoreError>;

    /// Write to the log without changing anything else.
    fn log(&mut self, event: &Event) -> Result<(), StoreError>;
    /// The last `max` events, oldest first, with their numbers.
    fn events(&self, after: i64, max: u32) -> Result<Vec<(i64, Event)>, StoreError>;
}

//! The tables.
//!
//! What is searched for is a column; the rest of a row is one JSON document, so that a new field is no migration.

/// Version of the tables below, in `PRAGMA user_version`.
pub(super) const VERSION: i64 = 2;

/// What each version added to the one before it; the first entry makes version 1 of an empty database.
pub(super) const STEPS: [&str; VERSION as usize] = [TABLES, DEVICES];

const DEVICES: &str = "
CREATE TABLE logins (
    name TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    entered INTEGER NOT NULL,
    stamp INTEGER NOT NULL UNIQUE,
    sealed BLOB NOT NULL
) STRICT;
CREATE TABLE pins (
    device TEXT PRIMARY KEY,
    pin TEXT NOT NULL
) STRICT;
CREATE TABLE login_stamps (last INTEGER NOT NULL) STRICT;
INSERT INTO login_stamps VALUES (0);
";

/// The tables of version 1.
const TABLES: &str = "
CREATE TABLE machines (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    body TEXT NOT NULL
) STRICT;
CREATE TABLE sightings (
    key TEXT PRIMARY KEY,
    last_seen INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    body TEXT NOT NULL
) STRICT;
CREATE TABLE batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    image INTEGER NOT NULL
) STRICT;
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    machine INTEGER NOT NULL,
    active INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_active_job ON jobs (machine) WHERE active = 1;
CREATE TABLE tokens (
    hash TEXT PRIMARY KEY,
    machine INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    bound_to TEXT
) STRICT;
CREATE TABLE bearers (
    hash TEXT PRIMARY KEY,
    machine INTEGER NOT NULL
) STRICT;
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'the log is only added to'); END;
CREATE TRIGGER events_remain BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'the log is only added to'); END;
";

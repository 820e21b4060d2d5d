//! The rows of sealed logins.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{LoginRow, StoreError};

const COLUMNS: &str = "SELECT name, user, entered, stamp, sealed FROM logins";

pub(super) fn all(connection: &Connection) -> Result<Vec<LoginRow>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} ORDER BY name"))?;
    let rows = statement.query_map([], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn one(connection: &Connection, name: &str) -> Result<Option<LoginRow>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} WHERE name = ?1"))?;
    Ok(statement.query_row([name], read).optional()?)
}

/// Each login gets a stamp that none had before, also not one of the same name that is gone.
pub(super) fn set(change: &Transaction<'_>, row: &LoginRow) -> Result<(), StoreError> {
    change.execute("UPDATE login_stamps SET last = last + 1", [])?;
    change.execute(
        "INSERT OR REPLACE INTO logins (name, user, entered, stamp, sealed)
         SELECT ?1, ?2, ?3, last, ?4 FROM login_stamps",
        params![row.name, row.user, row.entered.cast_signed(), row.sealed],
    )?;
    Ok(())
}

/// Whether there was one.
pub(super) fn remove(change: &Transaction<'_>, name: &str) -> Result<bool, StoreError> {
    Ok(change.execute("DELETE FROM logins WHERE name = ?1", [name])? > 0)
}

fn read(row: &Row<'_>) -> rusqlite::Result<LoginRow> {
    Ok(LoginRow {
        name: row.get(0)?,
        user: row.get(1)?,
        entered: row.get::<_, i64>(2)?.unsigned_abs(),
        stamp: row.get::<_, i64>(3)?.unsigned_abs(),
        sealed: row.get(4)?,
    })
}

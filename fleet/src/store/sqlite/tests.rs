//! The store's promises, on a real database file.

use netflash_pxe::{Hex32, Mac};
use tempfile::TempDir;

use super::{SqliteStore, Store, StoreError, Token};
use crate::job::{FlashWish, JobState};
use crate::machine::{NewMachine, Sighting, StoredImage};
use crate::store::schema::STEPS;
use crate::store::{Event, JobDraft};

fn event(kind: &str) -> Event {
    Event {
        at: 1_000,
        kind: kind.to_owned(),
        machine: None,
        job: None,
        text: String::new(),
    }
}

fn store() -> (TempDir, SqliteStore) {
    let scratch = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&scratch.path().join("test.db")).unwrap();
    (scratch, store)
}

#[test]
fn a_database_of_version_1_is_brought_forward_with_what_is_in_it() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("old.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(STEPS[0]).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let body = r#"{"id":1,"name":"a","identity":{},"power":"qmp:/run/a","inventory":null,
        "last_seen":null,"last_decision":null,"created":1}"#;
    old.execute("INSERT INTO machines (name, body) VALUES ('a', ?1)", [body])
        .unwrap();
    drop(old);
    for _ in 0..2 {
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.machines().unwrap()[0].power, ["qmp:/run/a"]);
        assert!(store.logins().unwrap().is_empty());
    }
}

fn new_machine(name: &str, last: u8) -> NewMachine {
    NewMachine {
        name: name.to_owned(),
        macs: vec![Mac([2, 0, 0, 0, 0, last])],
        ..NewMachine::default()
    }
}

fn image(store: &mut SqliteStore) -> StoredImage {
    let image = StoredImage {
        id: 0,
        name: "debian".to_owned(),
        image_id: Hex32([3; 32]),
        path: "/srv/debian.img.zst".to_owned(),
        raw_bytes: 1 << 30,
        used_bytes: 1 << 29,
        stored_bytes: 1 << 28,
        min_target_bytes: 1 << 30,
        created: 1,
        state: Default::default(),
    };
    store.add_image(&image, &event("image_added")).unwrap()
}

#[test]
fn a_machine_has_one_active_job_and_a_batch_is_all_or_nothing() {
    let (_scratch, mut store) = store();
    let image = image(&mut store);
    let a = store
        .add_machine(&new_machine("a", 1), &event("x"))
        .unwrap();
    let b = store
        .add_machine(&new_machine("b", 2), &event("x"))
        .unwrap();
    let draft = JobDraft {
        image: image.id,
        image_name: &image.name,
        wish: &FlashWish::default(),
        capture: None,
        verify: None,
    };
    let first = store
        .add_jobs(&draft, std::slice::from_ref(&b), &event("x"))
        .unwrap();
    let log_before = store.events(0, 100).unwrap().len();
    let refused = store.add_jobs(&draft, &[a.clone(), b.clone()], &event("x"));
    assert!(matches!(refused, Err(StoreError::Exists(text)) if text.contains('b')));
    assert_eq!(
        store.active_jobs().unwrap(),
        first,
        "the job of machine a was not entered either"
    );
    assert_eq!(
        store.events(0, 100).unwrap().len(),
        log_before,
        "and nothing was logged"
    );

    let mut over = first[0].clone();
    over.state = JobState::Done;
    store.update_job(&over, Some(&event("job_done"))).unwrap();
    let both = store.add_jobs(&draft, &[a, b], &event("x")).unwrap();
    assert_eq!(both[0].batch, both[1].batch);
    assert_ne!(both[0].batch, over.batch);
}

#[test]
fn the_log_cannot_be_changed() {
    let (_scratch, mut store) = store();
    store.log(&event("alert")).unwrap();
    assert!(store.0.execute("UPDATE events SET at = 1", []).is_err());
    assert!(store.0.execute("DELETE FROM events", []).is_err());
    assert_eq!(store.events(0, 10).unwrap()[0].1.kind, "alert");
}

#[test]
fn binding_a_token_replaces_the_machines_bearers() {
    let (_scratch, mut store) = store();
    let machine = store
        .add_machine(&new_machine("a", 1), &event("x"))
        .unwrap();
    let token = |hash: &str| Token {
        hash: hash.to_owned(),
        machine: machine.id,
        expires: 2_000,
        bound_to: None,
    };
    for (hash, bearer) in [("t1", "b1"), ("t2", "b2")] {
        store.add_token(&token(hash), 1_000).unwrap();
        store
            .bind_token(hash, "key", bearer, &event("hello"))
            .unwrap();
    }
    assert_eq!(
        store.token("t1").unwrap().unwrap().bound_to.as_deref(),
        Some("key")
    );
    assert_eq!(store.bearer("b1").unwrap(), None);
    assert_eq!(store.bearer("b2").unwrap(), Some(machine.id));
    store.add_token(&token("t3"), 1_000_000).unwrap();
    assert_eq!(store.token("t1").unwrap(), None, "old tokens are dropped");
}

#[test]
fn strangers_are_counted_and_bounded() {
    let (_scratch, mut store) = store();
    let mut sighting = Sighting {
        identity: netflash_pxe::Identity {
            macs: vec![Mac([2, 0, 0, 0, 0, 9])],
            ..Default::default()
        },
        platform: "efi".to_owned(),
        reason: "unknown".to_owned(),
        first_seen: 5,
        last_seen: 5,
        times: 1,
    };
    store.sight(&sighting, Some(&event("seen"))).unwrap();
    sighting.first_seen = 9;
    sighting.last_seen = 9;
    store.sight(&sighting, Some(&event("seen"))).unwrap();
    let seen = store.sightings().unwrap();
    assert_eq!(
        (
            seen.len(),
            seen[0].times,
            seen[0].first_seen,
            seen[0].last_seen
        ),
        (1, 2, 5, 9)
    );
    store.unsight(&Sighting::key(&sighting.identity)).unwrap();
    assert!(store.sightings().unwrap().is_empty());
}

#[test]
fn a_newer_database_is_left_alone() {
    let (scratch, store) = store();
    store.0.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let again = SqliteStore::open(&scratch.path().join("test.db"));
    assert!(matches!(again, Err(StoreError::Newer { found: 99, .. })));
}

//! Jobs that compare, with a real store and no network but loopback.

use netflash_pxe::{CompareReport, EventKind, Order, Phase};

use super::super::tests::{Room, done, events, hello};
use super::*;
use crate::fleet::FlashRequest;
use crate::job::{FlashWish, JobState};

fn if_different(room: &Room) -> Vec<Job> {
    let request = FlashRequest {
        image: "tiny".to_owned(),
        machines: None,
        wish: FlashWish {
            if_different: true,
            ..FlashWish::default()
        },
    };
    room.fleet.flash(&request).unwrap()
}

fn verify(room: &Room) -> Job {
    let request = VerifyRequest {
        image: "tiny".to_owned(),
        machines: Some(vec!["a".to_owned()]),
        wish: VerifyWish::default(),
    };
    room.fleet.verify(&request).unwrap().remove(0)
}

fn compared(equal: bool) -> EventKind {
    EventKind::Compared(CompareReport {
        image_id: netflash_pxe::Hex32([0; 32]),
        disk: "/dev/vda".to_owned(),
        seconds: 1.0,
        equal,
        complete: equal,
        tables_right: true,
        right_frames: 0,
        differing_frames: u64::from(!equal),
        differing_bytes: u64::from(!equal) << 20,
        places: Vec::new(),
    })
}

/// Machine `last` says hello: its bearer and what it is told to do.
fn greeted(room: &Room, last: u8) -> (String, Option<netflash_pxe::Job>) {
    let mut hello = hello(&room.token(last), last, last);
    hello.identity.uuid = None;
    let welcome = room.fleet.hello(&hello).unwrap();
    (welcome.bearer, welcome.job)
}

/// The same where a job is given that compares.
fn comparing(room: &Room, last: u8, brief: bool) -> (String, u64) {
    let (bearer, job) = greeted(room, last);
    let job = job.expect("there is a job");
    assert!(matches!(job.order, Order::Compare(order) if order.brief == brief));
    (bearer, job.id)
}

#[test]
fn a_verify_job_needs_no_session_and_ends_by_what_was_found() {
    for (equal, state) in [(true, JobState::Done), (false, JobState::Differs)] {
        let room = Room::new("239.192.81.21:7821");
        let id = verify(&room).id;
        let (bearer, given) = comparing(&room, 1, false);
        assert_eq!(given, id);
        assert!(room.fleet.sessions.all().is_empty());
        let beside = room.fleet.beside(&bearer, id).unwrap();
        assert_eq!(
            beside.image.path(),
            room.scratch.path().join("tiny.img.zst")
        );
        // An agent's word that it has flashed is none of this job's.
        room.fleet
            .agent_events(&bearer, id, &events(vec![done(), compared(equal)]))
            .unwrap();
        let job = room.fleet.job(id).unwrap();
        assert_eq!(job.state, state);
        assert!(job.report.is_none() && job.compared.is_some());
        assert!(room.fleet.beside(&bearer, id).is_err(), "it is over");
        assert!(room.fleet.shelf.0.lock().unwrap().is_none());
    }
}

#[test]
fn only_machines_that_differ_get_a_session() {
    let room = Room::new("239.192.81.22:7822");
    let jobs = if_different(&room);
    assert!(jobs.iter().all(|job| job.state == JobState::Armed));
    let (equal, equal_id) = comparing(&room, 1, true);
    let (other, other_id) = comparing(&room, 2, true);
    assert!(room.fleet.sessions.all().is_empty());

    let said = room
        .fleet
        .agent_events(&other, other_id, &events(vec![compared(false)]));
    assert!(!said.unwrap().cancel);
    let given = room.fleet.job_of(&other).unwrap().job.unwrap();
    assert!(matches!(given.order, Order::Flash(_)));
    let session = room.fleet.sessions.all().remove(0);
    assert_eq!(session.awaited, 2, "nobody knows of the first yet");

    // The session of the other is none of its business.
    let surveying = EventKind::Phase {
        phase: Phase::Surveying,
        disk: None,
    };
    let mut said = events(vec![surveying, compared(true)]);
    let last = said.split_off(1);
    let answer = room.fleet.agent_events(&equal, equal_id, &said).unwrap();
    assert_eq!((answer.cancel, answer.session), (false, None));
    let answer = room.fleet.agent_events(&equal, equal_id, &last).unwrap();
    assert!(!answer.cancel);
    let job = room.fleet.job(equal_id).unwrap();
    assert_eq!(job.state, JobState::Done);
    assert!(job.reason.contains("nothing was written"), "{}", job.reason);
    assert_eq!(room.fleet.sessions.all()[0].awaited, 1);

    let mut finished = events(vec![done()]);
    finished[0].sequence = 7;
    room.fleet
        .agent_events(&other, other_id, &finished)
        .unwrap();
    assert_eq!(room.fleet.job(other_id).unwrap().state, JobState::Done);
    assert!(room.fleet.sessions.all().is_empty());
}

#[test]
fn a_restarted_server_asks_nobody_twice() {
    let room = Room::new("239.192.81.23:7823");
    if_different(&room);
    let (bearer, id) = comparing(&room, 2, true);
    room.fleet
        .agent_events(&bearer, id, &events(vec![compared(false)]))
        .unwrap();
    let Room { scratch, fleet } = room;
    drop(fleet);
    let fleet = Room::fleet(&scratch, "239.192.81.23:7824");
    assert_eq!(
        fleet.sessions.all().len(),
        1,
        "one machine is known to differ"
    );
    assert!(fleet.job(id).unwrap().needs_session());
}

#[test]
fn an_image_whose_file_is_gone_is_refused_at_once() {
    let room = Room::new("239.192.81.24:7825");
    std::fs::remove_file(room.scratch.path().join("tiny.img.zst")).unwrap();
    let request = VerifyRequest {
        image: "tiny".to_owned(),
        machines: None,
        wish: VerifyWish::default(),
    };
    assert!(room.fleet.verify(&request).is_err());
    assert!(room.fleet.jobs(10).unwrap().is_empty());
}

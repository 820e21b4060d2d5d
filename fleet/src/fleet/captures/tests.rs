//! Captures, with a real store and real files.

use std::sync::Arc;
use std::time::{Duration, Instant};

use netflash_imager::Image;
use netflash_pxe::Order;

use super::super::tests::{Room, done, events, hello};
use super::*;

/// How long a small image may take to be checked.
const CHECK: Duration = Duration::from_secs(60);

fn request(image: &str) -> CaptureRequest {
    CaptureRequest {
        image: image.to_owned(),
        machine: "a".to_owned(),
        wish: CaptureWish::default(),
    }
}

/// A room, the bearer of machine `a`, its capture job, and what it will send.
fn begun(
    group: &str,
) -> (
    Arc<Fleet>,
    tempfile::TempDir,
    String,
    u64,
    Vec<u8>,
    CaptureEnd,
) {
    let room = Room::new(group);
    let image = std::fs::read(room.scratch.path().join("tiny.img.zst")).unwrap();
    let id = Image::open(&room.scratch.path().join("tiny.img.zst")).unwrap();
    let end = CaptureEnd {
        bytes: image.len() as u64,
        image_id: Hex32(id.id().0),
        disk: "/dev/vda".to_owned(),
        took_ms: 5,
        notes: vec!["partition 2 is kept whole".to_owned()],
    };
    let job = room.fleet.capture(&request("room")).unwrap();
    let welcome = room.fleet.hello(&hello(&room.token(1), 1, 1)).unwrap();
    let given = welcome.job.expect("the capture is given at once");
    assert!(matches!(given.order, Order::Capture(order) if order.image_name == "room"));
    assert_eq!(given.id, job.id);
    let Room { scratch, fleet } = room;
    (Arc::new(fleet), scratch, welcome.bearer, job.id, image, end)
}

fn listed(fleet: &Fleet) -> Option<ImageState> {
    let images = fleet.images_and_captures().unwrap();
    let found = images.into_iter().find(|image| image.name == "room");
    found.map(|image| image.state)
}

fn await_end(fleet: &Arc<Fleet>, bearer: &str, id: u64) -> CaptureState {
    let limit = Instant::now() + CHECK;
    loop {
        let state = fleet.capture_state(bearer, id).unwrap();
        if matches!(state.stage, CaptureStage::Ready | CaptureStage::Failed) {
            return state;
        }
        assert!(Instant::now() < limit, "the check does not end");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_disk_becomes_an_image_that_is_listed_only_when_it_was_checked() {
    let (fleet, _scratch, bearer, id, image, end) = begun("239.192.81.1:7801");
    assert_eq!(listed(&fleet), Some(ImageState::Capturing));
    fleet.capture_part(&bearer, id, 0, &image[..100]).unwrap();
    let gap = fleet.capture_part(&bearer, id, 80, &image[80..]);
    assert!(matches!(gap, Err(FleetError::Refused(_))));
    // An agent's word does not end a capture.
    fleet
        .agent_events(&bearer, id, &events(vec![done()]))
        .unwrap();
    assert_eq!(listed(&fleet), Some(ImageState::Capturing));
    assert!(fleet.image("room").is_err());
    fleet.capture_part(&bearer, id, 100, &image[100..]).unwrap();

    fleet.capture_end(&bearer, id, end.clone()).unwrap();
    let state = await_end(&fleet, &bearer, id);
    assert_eq!(state.stage, CaptureStage::Ready, "{}", state.reason);
    let row = fleet.image("room").unwrap();
    assert_eq!((row.image_id, row.state), (end.image_id, ImageState::Ready));
    assert_eq!(std::fs::read(&row.path).unwrap(), image);
    let job = fleet.job(id).unwrap();
    assert_eq!((job.state, job.image), (JobState::Done, row.id));
    // Its agent goes on to its last action, and is not called off.
    let answer = fleet.agent_events(&bearer, id, &[]).unwrap();
    assert!(!answer.cancel);
    assert!(matches!(
        fleet.capture_part(&bearer, id, 0, b"more"),
        Err(FleetError::Refused(_))
    ));
}

#[test]
fn a_damaged_image_is_never_listed_as_ready() {
    let (fleet, _scratch, bearer, id, mut image, end) = begun("239.192.81.2:7802");
    let middle = image.len() / 3;
    image[middle] ^= 0x40;
    fleet.capture_part(&bearer, id, 0, &image).unwrap();
    fleet.capture_end(&bearer, id, end).unwrap();
    let state = await_end(&fleet, &bearer, id);
    assert_eq!(state.stage, CaptureStage::Failed);
    assert!(state.reason.contains("sent"), "{}", state.reason);
    assert_eq!(listed(&fleet), Some(ImageState::Failed));
    assert!(fleet.image("room").is_err());
    // The name is free again.
    fleet.capture(&request("room")).unwrap();
}

#[test]
fn a_server_that_died_while_it_checked_checks_again() {
    let (fleet, scratch, bearer, id, image, end) = begun("239.192.81.3:7803");
    fleet.capture_part(&bearer, id, 0, &image).unwrap();
    // Its last act: the end is in the store, and no thread is at it.
    fleet.sealing().insert(id);
    fleet.capture_end(&bearer, id, end).unwrap();
    assert_eq!(listed(&fleet), Some(ImageState::Sealing));
    drop(fleet);

    let fleet = Arc::new(Room::fleet(&scratch, "239.192.81.3:7803"));
    fleet.resume_sealing().unwrap();
    assert_eq!(await_end(&fleet, &bearer, id).stage, CaptureStage::Ready);
    assert_eq!(
        std::fs::read(fleet.image("room").unwrap().path).unwrap(),
        image
    );
}

#[test]
fn a_cancelled_capture_leaves_nothing_and_hears_of_it() {
    let (fleet, scratch, bearer, id, image, _) = begun("239.192.81.4:7804");
    fleet.capture_part(&bearer, id, 0, &image).unwrap();
    fleet.cancel(id).unwrap();
    let state = fleet.capture_state(&bearer, id).unwrap();
    assert_eq!(state.stage, CaptureStage::Failed);
    assert_eq!(listed(&fleet), None);
    let left = std::fs::read_dir(scratch.path().join("images")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn names_are_taken_once_and_other_agents_have_no_say() {
    let (fleet, _scratch, _bearer, id, ..) = begun("239.192.81.5:7805");
    for (name, word) in [("room", "captures"), ("tiny", "already"), ("-x", "name")] {
        let error = fleet.capture(&request(name)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(matches!(
        fleet.capture_state("another", id),
        Err(FleetError::Unauthorized)
    ));
}

//! What is read back while more arrives, and what need not be read at all.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::deploy::Deploy;
use crate::deploy::surface::{Mask, Reading};
use crate::deploy::tests::begin;
use crate::deploy::tests::fixture::{Disk, MIB, Sample, noise};
use crate::device::AlignedBuffer;
use crate::id::FrameId;

/// Submits frames and waits until `count` frames have been read back early.
fn feed_early(image: &Sample, deploy: &mut Deploy, frames: Range<u32>, count: usize) {
    for frame in frames.map(FrameId) {
        let stored = image.stored[frame.index()].clone();
        deploy.submit(vec![frame], stored).unwrap();
    }
    while deploy.backlog_bytes() > 0 || deploy.pipeline.judged_frames() < count {
        deploy.try_outcome();
        assert_eq!(deploy.failure().map(|error| error.to_string()), None);
    }
}

fn overwrite(disk: &Disk, offset: usize, bytes: usize) {
    let file = File::options().write(true).open(&disk.path).unwrap();
    file.write_all_at(&noise(77, bytes), offset as u64).unwrap();
}

#[test]
fn what_was_read_back_while_more_came_is_not_read_twice() {
    let image = Sample::of_frames(1, 42);
    let disk = Disk::of(&noise(99, image.raw.len()));
    let mut deploy = begin(&image, &disk);
    // The first frame is withheld, and the last fifteen at most are too few for a flush.
    feed_early(&image, &mut deploy, 0..42, 26);
    assert!(deploy.settle().unwrap().is_empty());
    assert_eq!(deploy.verified_frames, 41);
    let report = deploy.commit().unwrap();
    assert_eq!(report.verified_frames, 41);
    image.assert_on(&disk.content());
}

#[test]
fn a_frame_that_reads_back_wrong_early_is_wanted_again() {
    let image = Sample::of_frames(1, 20);
    let disk = Disk::of(&noise(99, image.raw.len()));
    let mut deploy = begin(&image, &disk);
    feed_early(&image, &mut deploy, 0..12, 0);
    overwrite(&disk, 3 * MIB + 9, 1);
    feed_early(&image, &mut deploy, 12..20, 16);
    let wrong = deploy.settle().unwrap();
    assert_eq!(wrong.iter().collect::<Vec<_>>(), [FrameId(3)]);
    image.feed(&mut deploy);
    assert!(deploy.settle().unwrap().is_empty());
    deploy.commit().unwrap();
    image.assert_on(&disk.content());
}

#[test]
fn a_disk_that_is_smaller_than_it_says_and_begins_anew_is_found_out() {
    let image = Sample::of_frames(1, 49);
    let disk = Disk::of(&noise(99, image.raw.len()));
    let mut deploy = begin(&image, &disk);
    feed_early(&image, &mut deploy, 0..49, 33);
    overwrite(&disk, MIB, 24 * MIB);
    assert!(!deploy.settle().unwrap().is_empty());
}

#[test]
fn a_new_file_is_not_read_to_find_it_empty() {
    let image = Sample::of_frames(1, 3);
    let disk = Disk::of(&[]);
    let file = File::options().write(true).open(&disk.path).unwrap();
    file.set_len(image.raw.len() as u64).unwrap();
    let deploy = begin(&image, &disk);
    let mut buffer = AlignedBuffer::padded(&noise(5, MIB), 512);
    let surface = &deploy.surface;
    let how = Reading {
        mask: Mask::Source,
        free_as_zero: false,
        hold: None,
    };
    assert!(!surface.reads_right(FrameId(1), &mut buffer, how).unwrap());
    assert_eq!(buffer[..], noise(5, MIB), "nothing was read");
}

//! Whole deploys to files: what is written, what is kept, what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::deploy::tests::fixture::{Disk, MIB, Sample, noise};
use crate::deploy::{
    AuditDepth, Deploy, DeployError, DeployEvent, DeployObserver, DeployOptions, DeployPhase,
    FreePolicy, VerifyPolicy, audit,
};
use crate::fit::{FitError, LastPartition};
use crate::id::FrameId;
use crate::target::{Target, TargetOptions};

mod early;
mod fixture;
mod partial;
mod plot;
mod refused;

fn begin(image: &Sample, disk: &Disk) -> Deploy {
    let target = disk.target();
    Deploy::begin(
        Arc::clone(&image.manifest),
        target,
        DeployOptions::default(),
        Arc::new(|_| {}),
    )
    .unwrap()
}

#[test]
fn a_whole_image_is_written_and_read_back() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, image.raw.len()));
    let report = image
        .deploy(disk.target(), DeployOptions::default())
        .unwrap();
    image.assert_on(&disk.content());
    assert_eq!(report.written_frames, image.manifest.sent().len() as u64);
    // One frame of zeros is read back too; the first frame is read back by the commit.
    assert_eq!(report.verified_frames, report.written_frames + 1 - 1);
    assert!(report.changed && report.rejected_frames == 0);
}

#[test]
fn the_free_space_of_the_former_owner_is_left_alone_by_default() {
    let image = Sample::with_table(1);
    let former = noise(99, image.raw.len());
    let disk = Disk::of(&former);
    image
        .deploy(disk.target(), DeployOptions::default())
        .unwrap();
    assert_eq!(disk.content()[4 * MIB..6 * MIB], former[4 * MIB..6 * MIB]);
}

#[test]
fn free_space_is_zeroed_when_asked_also_behind_the_image() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, image.raw.len() + 4 * MIB));
    let options = DeployOptions {
        free: FreePolicy::Zero,
        ..DeployOptions::default()
    };
    image.deploy(disk.target(), options.clone()).unwrap();
    let content = disk.content();
    image.assert_on(&content);
    for range in [4 * MIB..6 * MIB, 9 * MIB..10 * MIB, 12 * MIB..15 * MIB] {
        assert!(content[range].iter().all(|byte| *byte == 0));
    }
    let again = image.deploy(disk.target(), options).unwrap();
    assert!(!again.changed);
}

#[test]
fn discarding_free_space_spares_everything_else() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, image.raw.len()));
    let options = DeployOptions {
        free: FreePolicy::Discard,
        ..DeployOptions::default()
    };
    image.deploy(disk.target(), options).unwrap();
    image.assert_on(&disk.content());
}

#[test]
fn an_unchanged_disk_is_not_written_at_all() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, image.raw.len()));
    image
        .deploy(disk.target(), DeployOptions::default())
        .unwrap();
    let modified = disk.path.metadata().unwrap().modified().unwrap();

    let mut second = begin(&image, &disk);
    assert!(second.wanted().is_empty());
    assert!(second.settle().unwrap().is_empty());
    let report = second.commit().unwrap();
    assert!(!report.changed);
    assert_eq!(disk.path.metadata().unwrap().modified().unwrap(), modified);
}

#[test]
fn only_what_differs_is_fetched() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, image.raw.len()));
    image
        .deploy(disk.target(), DeployOptions::default())
        .unwrap();
    let mut damaged = disk.content();
    damaged[MIB + 5] ^= 1;
    damaged[3 * MIB + 5] ^= 1;
    // Free space differs too: nobody minds.
    damaged[5 * MIB] ^= 1;
    std::fs::write(&disk.path, &damaged).unwrap();

    let mut second = begin(&image, &disk);
    assert_eq!(second.wanted().iter().collect::<Vec<_>>(), [FrameId(1)]);
    image.feed(&mut second);
    second.settle().unwrap();
    let report = second.commit().unwrap();
    assert_eq!(report.written_frames, 1);
    assert_eq!(report.zeroed_bytes, MIB as u64);
    image.assert_on(&disk.content());
}

#[test]
fn a_damaged_table_alone_is_mended_without_any_frame() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, image.raw.len()));
    image
        .deploy(disk.target(), DeployOptions::default())
        .unwrap();
    let mut damaged = disk.content();
    let last = damaged.len() - 512;
    damaged[last] ^= 1;
    std::fs::write(&disk.path, &damaged).unwrap();

    let mut second = begin(&image, &disk);
    assert!(second.wanted().is_empty());
    second.settle().unwrap();
    assert!(second.commit().unwrap().changed);
    image.assert_on(&disk.content());
}

#[test]
fn a_wrong_frame_is_refused_and_the_disk_stays_as_it_was() {
    let image = Sample::with_table(1);
    let other = Sample::with_table(2);
    let former = noise(99, image.raw.len());
    let disk = Disk::of(&former);
    let mut deploy = begin(&image, &disk);
    let wanted = deploy.wanted().clone();
    let mut bomb = zstd::bulk::compress(&vec![0; 64 * MIB], 1).unwrap();
    for frame in wanted.iter() {
        let stored = image.stored[frame.index()].len();
        // Of the right length, but from another image, cut, or unpacking to more than a frame.
        let mut payload = other.stored[frame.index()].clone();
        if frame.0 % 3 == 1 {
            payload = noise(3, stored);
        } else if frame.0 % 3 == 2 {
            payload = std::mem::take(&mut bomb);
        }
        payload.resize(stored, 0);
        deploy.submit(vec![frame], payload).unwrap();
    }
    let mut refused = 0;
    while refused < wanted.len() {
        match deploy.try_outcome() {
            Some(outcome) => {
                assert!(!outcome.written);
                refused += 1;
            }
            None => std::thread::yield_now(),
        }
    }
    assert_eq!(deploy.wanted(), &wanted);
    assert!(matches!(
        deploy.commit(),
        Err(DeployError::Unsettled { .. })
    ));
    assert_eq!(disk.content(), former);
}

#[test]
fn a_payload_of_the_wrong_length_or_of_unknown_frames_is_refused_whole() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, image.raw.len()));
    let mut deploy = begin(&image, &disk);
    deploy.submit(vec![FrameId(1)], vec![0; 3]).unwrap();
    deploy.submit(vec![FrameId(1_000_000)], vec![0; 3]).unwrap();
    for _ in 0..2 {
        assert!(!deploy.try_outcome().unwrap().written);
    }
}

#[test]
fn several_frames_travel_in_one_payload() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, image.raw.len()));
    let mut deploy = begin(&image, &disk);
    let frames: Vec<FrameId> = deploy.wanted().iter().collect();
    let payload = frames
        .iter()
        .flat_map(|frame| image.stored[frame.index()].clone())
        .collect();
    deploy.submit(frames.clone(), payload).unwrap();
    deploy.settle().unwrap();
    let mut outcomes: Vec<FrameId> = std::iter::from_fn(|| deploy.try_outcome())
        .map(|o| o.frame)
        .collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, frames);
    deploy.commit().unwrap();
    image.assert_on(&disk.content());
}

#[test]
fn until_the_commit_nothing_on_the_disk_can_boot() {
    let image = Sample::with_table(1);
    let former = Sample::with_table(2);
    let disk = Disk::of(&former.raw);
    let mut deploy = begin(&image, &disk);
    image.feed(&mut deploy);
    deploy.settle().unwrap();
    let content = disk.content();
    assert!(content[..MIB].iter().all(|byte| *byte == 0));
    let tail = content.len() - 512..;
    assert!(content[tail].iter().all(|byte| *byte == 0));
    deploy.commit().unwrap();
    image.assert_on(&disk.content());
}

#[test]
fn a_larger_disk_gets_its_backup_table_at_its_end() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, image.raw.len() + 3 * MIB + 512 * 7));
    image
        .deploy(disk.target(), DeployOptions::default())
        .unwrap();
    let content = disk.content();
    image.assert_on(&content);
    assert_eq!(&content[content.len() - 512..][..8], b"EFI PART");
    assert_eq!(&content[image.raw.len() - 512..][..8], [0; 8]);
    assert!(
        !image
            .deploy(disk.target(), DeployOptions::default())
            .unwrap()
            .changed
    );
}

#[test]
fn a_smaller_disk_that_holds_all_partitions_will_do() {
    let image = Sample::with_table(1);
    // Ends within a frame.
    for bytes in [10 * MIB + MIB / 2 + 512 * 3, 9 * MIB + MIB / 2] {
        let disk = Disk::of(&noise(99, bytes));
        image
            .deploy(disk.target(), DeployOptions::default())
            .unwrap();
        let content = disk.content();
        image.assert_on(&content);
        assert_eq!(&content[content.len() - 512..][..8], b"EFI PART");
    }
}

#[test]
fn a_disk_too_small_is_refused_untouched() {
    let image = Sample::with_table(1);
    let former = noise(99, 8 * MIB);
    let disk = Disk::of(&former);
    let refused = image
        .deploy(disk.target(), DeployOptions::default())
        .unwrap_err();
    assert!(
        matches!(refused, DeployError::TooSmall { needed_bytes, .. } if needed_bytes == 9 * MIB as u64)
    );
    assert_eq!(disk.content(), former);
}

#[test]
fn other_sectors_are_refused_untouched() {
    let image = Sample::with_table(1);
    let former = noise(99, image.raw.len());
    let disk = Disk::of(&former);
    let options = TargetOptions {
        sector_bytes: Some(4096),
        ..TargetOptions::default()
    };
    let target = Target::open(&disk.path, options).unwrap();
    let refused = image.deploy(target, DeployOptions::default()).unwrap_err();
    let expected = FitError::SectorSize {
        image: 512,
        disk: 4096,
    };
    assert!(matches!(refused, DeployError::Fit { cause, .. } if cause == expected));
    assert_eq!(disk.content(), former);
}

#[test]
fn a_new_file_gets_exactly_the_length_of_the_image() {
    let image = Sample::without_table(1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let options = TargetOptions {
        create: true,
        ..TargetOptions::default()
    };
    for changed in [true, false] {
        let target = Target::open(&path, options).unwrap();
        let report = image.deploy(target, DeployOptions::default()).unwrap();
        assert_eq!(report.changed, changed);
        assert!(std::fs::read(&path).unwrap() == image.raw);
    }
}

#[test]
fn the_last_partition_grows_when_asked() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, 20 * MIB));
    let options = DeployOptions {
        last_partition: LastPartition::Grow,
        ..DeployOptions::default()
    };
    image.deploy(disk.target(), options).unwrap();
    let content = disk.content();
    let end = u64::from_le_bytes(content[1024 + 40..1024 + 48].try_into().unwrap());
    assert_eq!(end, (19 * MIB / 512 - 1) as u64);
}

#[test]
fn a_frame_that_reads_back_wrong_is_wanted_again() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, image.raw.len()));
    let mut deploy = begin(&image, &disk);
    image.feed(&mut deploy);
    while deploy.wanted().contains(FrameId(2)) || deploy.backlog_bytes() > 0 {
        deploy.try_outcome();
    }
    let damage = |at: usize| {
        let mut content = disk.content();
        content[at] ^= 1;
        std::fs::write(&disk.path, content).unwrap();
    };
    damage(2 * MIB + 9);
    let wrong = deploy.settle().unwrap();
    assert_eq!(wrong.iter().collect::<Vec<_>>(), [FrameId(2)]);
    image.feed(&mut deploy);
    assert!(deploy.settle().unwrap().is_empty());
    deploy.commit().unwrap();
    image.assert_on(&disk.content());
}

#[test]
fn a_sampled_read_back_reads_a_part() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, image.raw.len()));
    let options = DeployOptions {
        verify: VerifyPolicy::Sample,
        ..DeployOptions::default()
    };
    let report = image.deploy(disk.target(), options).unwrap();
    assert_eq!(report.verified_frames, 1);
    image.assert_on(&disk.content());
}

#[test]
fn a_stopped_deploy_says_so() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, image.raw.len()));
    let stop = Arc::new(AtomicBool::new(false));
    let options = DeployOptions {
        stop: Arc::clone(&stop),
        ..DeployOptions::default()
    };
    let mut deploy = Deploy::begin(
        Arc::clone(&image.manifest),
        disk.target(),
        options,
        Arc::new(|_| {}),
    )
    .unwrap();
    stop.store(true, Ordering::Relaxed);
    let refused = deploy.submit(vec![FrameId(1)], image.stored[1].clone());
    assert!(matches!(refused, Err(DeployError::Stopped)));
}

#[test]
fn another_disk_is_not_read_to_its_end() {
    let image = Sample::of_frames(1, 70);
    let mut content = noise(99, image.raw.len());
    let surveyed = |content: &[u8]| {
        let disk = Disk::of(content);
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let observer = Arc::new(move |event: DeployEvent| {
            counter.fetch_add(
                usize::from(event.phase == DeployPhase::Survey),
                Ordering::Relaxed,
            );
        });
        let options = DeployOptions::default();
        let deploy = Deploy::begin(
            Arc::clone(&image.manifest),
            disk.target(),
            options,
            observer,
        );
        let lacking = deploy.unwrap().wanted().len();
        (lacking, count.load(Ordering::Relaxed))
    };
    assert_eq!(surveyed(&content), (70, 64));
    // One of the samples is there: this disk was on its way to the image.
    content[..2 * MIB].copy_from_slice(&image.raw[..2 * MIB]);
    assert_eq!(surveyed(&content), (68, 64 + 70));
}

#[test]
fn an_audit_names_what_differs_and_writes_nothing() {
    let image = Sample::with_table(1);
    let disk = Disk::of(&noise(99, image.raw.len()));
    image
        .deploy(disk.target(), DeployOptions::default())
        .unwrap();
    let options = TargetOptions {
        read_only: true,
        ..TargetOptions::default()
    };
    let look = |depth| {
        let target = Target::open(&disk.path, options).unwrap();
        let manifest = Arc::clone(&image.manifest);
        let observer: DeployObserver = Arc::new(|_| {});
        audit(
            manifest,
            target,
            &DeployOptions::default(),
            depth,
            &observer,
        )
        .unwrap()
    };
    let clean = look(AuditDepth::Whole);
    assert!(clean.is_clean() && clean.complete);
    assert_eq!(look(AuditDepth::FirstDifference), clean);
    let mut damaged = disk.content();
    damaged[8 * MIB] ^= 1;
    damaged[0] ^= 1;
    std::fs::write(&disk.path, &damaged).unwrap();
    let found = look(AuditDepth::Whole);
    assert_eq!(found.differing, [FrameId(8)]);
    assert!(!found.tables_right);
    let brief = look(AuditDepth::FirstDifference);
    assert!(!brief.tables_right && brief.differing.is_empty() && !brief.complete);
    assert_eq!(disk.content(), damaged);

    damaged[0] ^= 1;
    std::fs::write(&disk.path, &damaged).unwrap();
    let brief = look(AuditDepth::FirstDifference);
    assert!(brief.tables_right && !brief.complete && !brief.is_clean());
    assert_eq!(brief.differing, [FrameId(8)]);
}

//! Deploys of single partitions: every byte of them is right, and no other byte of the disk has changed.

use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_assume,
    prop_oneof, proptest,
};

use crate::deploy::tests::fixture::MIB;
use crate::deploy::tests::plot::{Plot, SECTOR, assert_only, deploy, mib, scoped, set};
use crate::deploy::{AuditDepth, Deploy, DeployError, DeployOptions, FreePolicy, audit_with};
use crate::extent::ExtentKind;
use crate::id::FrameId;
use crate::scope::Scope;

/// Three partitions, none of which begins or ends with a frame.
fn crooked() -> Plot {
    Plot::gpt(
        12 * MIB,
        [
            2050..mib(4) + 7,
            mib(4) + 7..mib(7) + 1,
            mib(7) + 9..mib(11) + 3,
        ],
    )
}

/// An MBR with a primary and two logical partitions.
fn logical() -> Plot {
    Plot {
        logical: vec![
            (mib(4) + 5, mib(4) + 68..mib(6) + 11),
            (mib(6) + 11, mib(6) + 74..mib(9) + 40),
        ],
        ..Plot::mbr(10 * MIB, Some(63..mib(4) + 1))
    }
}

#[test]
fn only_one_partition_is_written() {
    for plot in [crooked(), logical()] {
        let image = plot.image(1, &[]);
        for number in plot.numbers() {
            let disk = plot.disk(2, plot.bytes);
            let before = disk.content();
            let report = deploy(&image, &disk, Scope::Only(set(&[number]))).unwrap();
            assert!(report.changed);
            assert_only(&image, &before, &disk.content(), &[plot.place(number)]);
        }
    }
}

#[test]
fn an_audit_of_some_partitions_sees_what_is_in_them_and_nothing_else() {
    let plot = crooked();
    let image = plot.image(1, &[]);
    let disk = plot.disk(2, plot.bytes);
    let look = |scope| {
        let found = audit_with(
            Arc::clone(&image.manifest),
            disk.target(),
            &scoped(scope),
            AuditDepth::Whole,
            &(Arc::new(|_| {}) as _),
            |frame| -> Result<_, DeployError> {
                let range = image.manifest.frame_range(frame);
                Ok(image.raw[range.start as usize..range.end as usize].to_vec())
            },
        );
        found.unwrap().is_clean()
    };
    let (only, keep) = (|number| Scope::Only(set(&[number])), Scope::Keep(set(&[2])));
    assert!(plot.numbers().iter().all(|number| !look(only(*number))));
    assert!(!look(keep.clone()));
    deploy(&image, &disk, only(2)).unwrap();
    assert!(look(only(2)) && !look(keep.clone()) && !look(Scope::Whole));
    deploy(&image, &disk, keep.clone()).unwrap();
    assert!(look(only(2)) && look(keep));
    let mut content = disk.content();
    content[plot.place(2).start + 512] ^= 1;
    std::fs::write(&disk.path, &content).unwrap();
    assert!(!look(only(2)) && look(Scope::Keep(set(&[2]))));
    assert_eq!(disk.content(), content);
}

#[test]
fn one_partition_is_kept_and_all_else_is_written_but_the_tables() {
    let plot = crooked();
    let image = plot.image(1, &[]);
    let disk = plot.disk(2, plot.bytes);
    let before = disk.content();
    deploy(&image, &disk, Scope::Keep(set(&[2]))).unwrap();
    let boot_code = 0..440;
    let (first, behind) = (
        34 * 512..plot.place(2).start,
        plot.place(2).end..12 * MIB - 33 * 512,
    );
    assert_only(
        &image,
        &before,
        &disk.content(),
        &[boot_code, first, behind],
    );
}

#[test]
fn the_tables_of_logical_partitions_stay() {
    let plot = logical();
    let image = plot.image(1, &[]);
    let disk = plot.disk(2, plot.bytes);
    let before = disk.content();
    deploy(&image, &disk, Scope::Keep(set(&[5]))).unwrap();
    let gap = plot.place(6).end..plot.bytes;
    let places = [
        0..440,
        512..plot.place(1).end,
        plot.place(1).end..(mib(4) + 5) as usize * 512,
    ];
    let places: Vec<Range<usize>> = places.into_iter().chain([plot.place(6), gap]).collect();
    assert_only(&image, &before, &disk.content(), &places);
}

#[test]
fn what_is_right_is_not_written_though_only_the_image_can_tell() {
    let plot = crooked();
    let image = plot.image(1, &[]);
    for scope in [Scope::Only(set(&[2])), Scope::Keep(set(&[3]))] {
        let disk = plot.disk(2, plot.bytes);
        deploy(&image, &disk, scope.clone()).unwrap();
        let modified = disk.path.metadata().unwrap().modified().unwrap();
        let report = deploy(&image, &disk, scope).unwrap();
        assert!(!report.changed && report.written_frames == 0);
        assert_eq!(disk.path.metadata().unwrap().modified().unwrap(), modified);
    }
}

#[test]
fn frames_out_of_scope_are_never_wanted() {
    let plot = crooked();
    let image = plot.image(1, &[]);
    let disk = plot.disk(2, plot.bytes);
    let options = scoped(Scope::Only(set(&[2])));
    let manifest = Arc::clone(&image.manifest);
    let begun = Deploy::begin(manifest, disk.target(), options, Arc::new(|_| {})).unwrap();
    let wanted: Vec<FrameId> = begun.wanted().iter().collect();
    assert_eq!(wanted, [4, 5, 6, 7].map(FrameId));
}

#[test]
fn a_single_changed_byte_is_mended_and_its_partition_held_back() {
    let plot = Plot::gpt(12 * MIB, [mib(1)..mib(4), mib(4)..mib(7), mib(7)..mib(11)]);
    let image = plot.image(1, &[]);
    let disk = plot.disk(2, plot.bytes);
    let scope = Scope::Only(set(&[1, 3]));
    deploy(&image, &disk, scope.clone()).unwrap();
    let whole = disk.content();
    let mut damaged = whole.clone();
    damaged[9 * MIB + 7] ^= 1;
    std::fs::write(&disk.path, &damaged).unwrap();

    let manifest = Arc::clone(&image.manifest);
    let options = scoped(scope);
    let mut again = Deploy::begin(manifest, disk.target(), options, Arc::new(|_| {})).unwrap();
    image.feed(&mut again);
    assert!(again.settle().unwrap().is_empty());
    let half = disk.content();
    let (first, third) = (plot.place(1), plot.place(3));
    assert!(half[first.clone()] == whole[first], "it was right");
    let head = third.start..third.start + MIB;
    assert!(half[head].iter().all(|byte| *byte == 0));
    assert!(
        half[third.end - MIB..third.end]
            .iter()
            .all(|byte| *byte == 0)
    );
    let report = again.commit().unwrap();
    assert!(disk.content() == whole);
    assert_eq!(report.written_frames, 1);
}

#[test]
fn a_disk_that_keeps_a_partition_tells_the_firmware_to_look_elsewhere_until_the_commit() {
    let plot = crooked();
    let image = plot.image(1, &[]);
    let disk = plot.disk(2, plot.bytes);
    let before = disk.content();
    let manifest = Arc::clone(&image.manifest);
    let options = scoped(Scope::Keep(set(&[2])));
    let mut begun = Deploy::begin(manifest, disk.target(), options, Arc::new(|_| {})).unwrap();
    image.feed(&mut begun);
    begun.settle().unwrap();
    let half = disk.content();
    assert_eq!(half[..2], [0xcd, 0x18], "int 18h");
    assert!(half[440..34 * 512] == before[440..34 * 512]);
    begun.commit().unwrap();
    assert!(disk.content()[..440] == image.raw[..440]);
}

#[test]
fn a_grown_last_partition_is_written_as_far_as_the_image_has_it() {
    let plot = Plot::mbr(8 * MIB, [63..mib(3) + 1, mib(3) + 1..mib(7)]);
    let image = plot.image(1, &[]);
    let grown = Plot {
        bytes: 20 * MIB,
        partitions: vec![plot.partitions[0].clone(), mib(3) + 1..mib(19)],
        ..plot.clone()
    };
    let disk = grown.disk(2, 20 * MIB);
    let before = disk.content();
    deploy(&image, &disk, Scope::Keep(set(&[2]))).unwrap();
    assert_only(
        &image,
        &before,
        &disk.content(),
        &[0..440, 512..plot.place(1).end],
    );

    let before = disk.content();
    deploy(&image, &disk, Scope::Only(set(&[2]))).unwrap();
    let mut after = disk.content();
    // Second copies further out speak of the former content: they are gone.
    let further = plot.place(2).end..grown.place(2).end;
    assert!(
        after[further.end - MIB..further.end]
            .iter()
            .all(|byte| *byte == 0)
    );
    for at in further {
        assert!(after[at] == before[at] || after[at] == 0);
        after[at] = before[at];
    }
    assert_only(&image, &before, &after, &[plot.place(2)]);
}

#[test]
fn a_partition_that_only_the_disk_has_stays_when_it_is_kept() {
    let plot = Plot::gpt(10 * MIB, Some(mib(1)..mib(4)));
    let image = plot.image(1, &[]);
    let more = Plot::gpt(10 * MIB, [mib(1)..mib(4), mib(5)..mib(8) + 3]);
    let disk = more.disk(1, 10 * MIB);
    // The noise of a seed is the same; the content of the second partition is its own.
    let mut content = disk.content();
    content[more.place(2)].fill(7);
    std::fs::write(&disk.path, &content).unwrap();
    deploy(&image, &disk, Scope::Keep(set(&[2]))).unwrap();
    assert!(disk.content()[more.place(2)].iter().all(|byte| *byte == 7));
}

#[derive(Debug, Clone)]
struct Trial {
    plot: Plot,
    runs: Vec<(ExtentKind, usize)>,
    /// The partitions named, by bits.
    named: u8,
    only: bool,
    free: FreePolicy,
    /// Where the disk differs from a restored one, when it was restored before.
    damages: Option<Vec<usize>>,
}

fn trial() -> impl Strategy<Value = Trial> {
    let steps = prop::collection::vec((0u64..40, 200u64..5000), 1..5);
    let kind = prop_oneof![
        Just(ExtentKind::Used),
        Just(ExtentKind::Zero),
        Just(ExtentKind::Free)
    ];
    let runs = prop::collection::vec((kind, 1usize..400), 0..40);
    let free = prop_oneof![
        Just(FreePolicy::Leave),
        Just(FreePolicy::Zero),
        Just(FreePolicy::Discard)
    ];
    let damages = prop::option::of(prop::collection::vec(any::<usize>(), 0..4));
    let choice = (1u8..16, any::<bool>(), free, damages, any::<bool>());
    (steps, runs, choice).prop_map(|(steps, runs, (named, only, free, damages, gpt))| {
        let mut place = if gpt { 34 } else { 1 };
        let mut partitions = Vec::new();
        for (gap, length) in steps {
            partitions.push(place + gap..place + gap + length);
            place += gap + length;
        }
        let bytes = ((place + 40 + mib(1)) * SECTOR).next_multiple_of(4096) as usize;
        let boot_gap = (partitions[0].start * SECTOR).next_multiple_of(4096) as usize;
        let mut all = vec![(ExtentKind::Used, boot_gap)];
        let mut left = bytes - boot_gap - MIB;
        for (kind, units) in runs {
            let run = (units * 4096).min(left / 4096 * 4096);
            all.push((kind, run));
            left -= run;
        }
        let plot = if gpt {
            Plot::gpt(bytes, partitions)
        } else {
            Plot::mbr(bytes, partitions)
        };
        Trial {
            plot,
            runs: all,
            named,
            only,
            free,
            damages,
        }
    })
}

/// The bytes that `scope` leaves to a deploy.
fn places(trial: &Trial, named: &[u32], disk_bytes: usize) -> Vec<Range<usize>> {
    let plot = &trial.plot;
    if trial.only {
        return named.iter().map(|number| plot.place(*number)).collect();
    }
    let mut mine = vec![true; disk_bytes];
    let tables = if plot.gpt { 34 * 512 } else { 512 };
    mine[440..tables].fill(false);
    if plot.gpt {
        mine[plot.bytes - 33 * 512..].fill(false);
    }
    named
        .iter()
        .for_each(|number| mine[plot.place(*number)].fill(false));
    let mut places: Vec<Range<usize>> = Vec::new();
    for at in (0..disk_bytes).filter(|at| mine[*at]) {
        match places.last_mut() {
            Some(last) if last.end == at => last.end += 1,
            _ => places.push(at..at + 1),
        }
    }
    places
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn no_byte_out_of_scope_changes_and_every_byte_in_scope_is_right(trial in trial()) {
        let plot = &trial.plot;
        let count = plot.partitions.len() as u32;
        let named: Vec<u32> = (1..=count).filter(|number| trial.named >> (number - 1) & 1 == 1).collect();
        prop_assume!(!named.is_empty());
        let scope = if trial.only { Scope::Only(set(&named)) } else { Scope::Keep(set(&named)) };
        let options = || DeployOptions { free: trial.free, ..scoped(scope.clone()) };
        let image = plot.image(1, &trial.runs);
        let disk = plot.disk(2, plot.bytes);
        let before = disk.content();
        let places = places(&trial, &named, plot.bytes);
        image.deploy(disk.target(), options()).unwrap();
        assert_only(&image, &before, &disk.content(), &places);

        let modified = || disk.path.metadata().unwrap().modified().unwrap();
        let first = modified();
        let again = image.deploy(disk.target(), options()).unwrap();
        prop_assert!(!again.changed);
        prop_assert_eq!(modified(), first);

        if let Some(damages) = &trial.damages {
            let mut content = disk.content();
            damages.iter().for_each(|at| content[at % plot.bytes / 512 * 512 + 99] ^= 1);
            prop_assume!(content[440..34 * 512] == before[440..34 * 512] || !plot.gpt);
            prop_assume!(content[440..512] == before[440..512]);
            prop_assume!(content[plot.bytes - 33 * 512..] == before[plot.bytes - 33 * 512..]);
            std::fs::write(&disk.path, &content).unwrap();
            image.deploy(disk.target(), options()).unwrap();
            assert_only(&image, &content, &disk.content(), &places);
        }
    }
}

/// What a whole image does to a disk stays the yardstick: the parts add up to it.
#[test]
fn all_partitions_one_after_the_other_make_the_whole() {
    let plot = crooked();
    let image = plot.image(1, &[]);
    let disk = plot.disk(2, plot.bytes);
    for number in plot.numbers() {
        deploy(&image, &disk, Scope::Only(set(&[number]))).unwrap();
    }
    deploy(&image, &disk, Scope::Keep(set(&plot.numbers()))).unwrap();
    assert!(
        !image
            .deploy(disk.target(), DeployOptions::default())
            .unwrap()
            .changed
    );
    image.assert_on(&disk.content());
}

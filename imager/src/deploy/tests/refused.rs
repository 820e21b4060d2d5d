//! Deploys of single partitions that are refused before anything is written.

use crate::deploy::layout::LayoutError;
use crate::deploy::tests::fixture::{Disk, MIB, Sample, noise};
use crate::deploy::tests::plot::{Plot, deploy, mib, set};
use crate::deploy::{DeployError, DeployOptions};
use crate::fit::FitError;
use crate::scope::Scope;
use crate::target::{Target, TargetOptions};

fn two() -> Plot {
    Plot::gpt(8 * MIB, [mib(1)..mib(3), mib(3)..mib(6)])
}

/// Why a deploy is refused, on a disk that stays as it was.
fn refusal(image: &Sample, disk: &Disk, scope: Scope) -> DeployError {
    let before = disk.content();
    let refused = deploy(image, disk, scope).unwrap_err();
    assert!(disk.content() == before);
    refused
}

fn layout(image: &Sample, disk: &Disk, scope: Scope) -> LayoutError {
    match refusal(image, disk, scope) {
        DeployError::Layout { cause, .. } => cause,
        other => panic!("{other}"),
    }
}

#[test]
fn the_first_difference_of_the_tables_is_named() {
    let image = two().image(1, &[]);
    let cases = [
        (
            Plot::gpt(8 * MIB, [mib(1)..mib(3), mib(3) + 8..mib(6)]),
            "partition 2 starts at byte 3149824 on the disk, 3145728 in the image; write the whole image",
        ),
        (
            Plot::gpt(8 * MIB, [mib(1)..mib(3) - 8, mib(3)..mib(6)]),
            "partition 1 is 2093056 bytes long on the disk, 2097152 bytes long in the image; write the whole image",
        ),
        (
            Plot::gpt(8 * MIB, Some(mib(1)..mib(3))),
            "partition 2 of the image is not on the disk; write the whole image",
        ),
        (
            Plot::gpt(8 * MIB, [mib(1)..mib(3), mib(3)..mib(6), mib(6)..mib(7)]),
            "partition 3 of the disk is not in the image; keep it too, or write only what shall be written",
        ),
        (
            Plot::mbr(8 * MIB, [mib(1)..mib(3), mib(3)..mib(6)]),
            "the disk has an MBR, the image a GPT; write the whole image",
        ),
    ];
    for (plot, words) in cases {
        let disk = plot.disk(2, 8 * MIB);
        assert_eq!(
            layout(&image, &disk, Scope::Keep(set(&[1]))).to_string(),
            words
        );
    }
    let empty = Disk::of(&noise(5, 8 * MIB));
    assert_eq!(
        layout(&image, &empty, Scope::Only(set(&[1]))),
        LayoutError::DiskWithoutTable
    );
}

#[test]
fn the_marks_by_which_systems_find_their_disk_must_be_the_same() {
    let image = two().image(1, &[]);
    // The GUIDs of the disk, its first partition, and the type of that.
    for (at, what) in [
        (512 + 56, "GUID"),
        (1024 + 16, "GUID of a partition"),
        (1024, ""),
    ] {
        let disk = two().disk(2, 8 * MIB);
        let mut content = disk.content();
        content[at] ^= 1;
        for (header, entries) in [(512, 1024), (8 * MIB - 512, 8 * MIB - 33 * 512)] {
            content[header + 56] = content[512 + 56];
            content.copy_within(1024..1024 + 128, entries);
            let array = crc32fast::hash(&content[entries..entries + 128 * 128]);
            content[header + 88..header + 92].copy_from_slice(&array.to_le_bytes());
            content[header + 16..header + 20].fill(0);
            let sum = crc32fast::hash(&content[header..header + 92]);
            content[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
        }
        std::fs::write(&disk.path, &content).unwrap();
        match layout(&image, &disk, Scope::Only(set(&[2]))) {
            LayoutError::Identity { what: found } => assert_eq!(found, what),
            LayoutError::Differs { what: found, .. } => {
                assert_eq!((what, found), ("", "is of the type"))
            }
            other => panic!("{other}"),
        }
    }
    let mbr = Plot::mbr(8 * MIB, Some(mib(1)..mib(3)));
    let disk = mbr.disk(2, 8 * MIB);
    let mut content = disk.content();
    content[440] ^= 1;
    std::fs::write(&disk.path, &content).unwrap();
    let refused = layout(&mbr.image(1, &[]), &disk, Scope::Only(set(&[1])));
    assert_eq!(
        refused,
        LayoutError::Identity {
            what: "disk signature"
        }
    );
}

#[test]
fn what_is_named_must_be_there() {
    let image = two().image(1, &[]);
    let disk = two().disk(2, 8 * MIB);
    for scope in [Scope::Only(set(&[2, 7])), Scope::Keep(set(&[7]))] {
        let expected = LayoutError::Unknown {
            number: 7,
            there: vec![1, 2],
        };
        assert_eq!(layout(&image, &disk, scope), expected);
    }
    let without = Sample::without_table(1);
    let refused = layout(&without, &disk, Scope::Only(set(&[1])));
    assert_eq!(refused, LayoutError::ImageWithoutTable);
}

#[test]
fn another_extended_partition_is_refused() {
    let plot = |first: u64| Plot {
        logical: vec![(first, mib(4)..mib(6))],
        ..Plot::mbr(8 * MIB, Some(mib(1)..mib(3)))
    };
    let disk = plot(mib(3) + 9).disk(2, 8 * MIB);
    let refused = layout(&plot(mib(3)).image(1, &[]), &disk, Scope::Only(set(&[1])));
    assert_eq!(refused, LayoutError::Extended);
}

#[test]
fn other_sectors_are_refused() {
    let image = two().image(1, &[]);
    let disk = two().disk(2, 8 * MIB);
    let options = TargetOptions {
        sector_bytes: Some(4096),
        ..TargetOptions::default()
    };
    let target = Target::open(&disk.path, options).unwrap();
    let options = DeployOptions {
        scope: Scope::Only(set(&[1])),
        ..DeployOptions::default()
    };
    let refused = image.deploy(target, options).unwrap_err();
    let expected = FitError::SectorSize {
        image: 512,
        disk: 4096,
    };
    assert!(matches!(refused, DeployError::Fit { cause, .. } if cause == expected));
}

#[test]
fn more_partitions_than_can_be_held_back_are_refused() {
    let start = |number: u64| mib(1) + number * 8;
    let many = Plot::gpt(
        8 * MIB,
        (0..65).map(|number| start(number)..start(number + 1)),
    );
    let disk = many.disk(2, 8 * MIB);
    let refused = layout(&many.image(1, &[]), &disk, Scope::Keep(set(&[66])));
    assert!(matches!(refused, LayoutError::Unknown { number: 66, .. }));
    let all: Vec<u32> = (1..=65).collect();
    let refused = layout(&many.image(1, &[]), &disk, Scope::Only(set(&all)));
    assert_eq!(refused, LayoutError::TooMany { count: 65, max: 64 });
}

#[test]
fn an_image_without_some_content_is_written_whole_only_when_that_is_said() {
    let mut image = two().image(1, &[]);
    image.leave_out(2);
    let disk = two().disk(2, 8 * MIB);
    assert!(matches!(
        refusal(&image, &disk, Scope::Whole),
        DeployError::Incomplete { number: 2 }
    ));
    let refused = layout(&image, &disk, Scope::Only(set(&[1, 2])));
    assert_eq!(refused, LayoutError::LeftOut { number: 2 });
    let refused = layout(&image, &disk, Scope::Keep(set(&[1])));
    assert_eq!(refused, LayoutError::LeftOut { number: 2 });

    for scope in [Scope::Only(set(&[1])), Scope::Keep(set(&[2]))] {
        deploy(&image, &disk, scope).unwrap();
    }
    let options = DeployOptions {
        incomplete: true,
        ..DeployOptions::default()
    };
    image.deploy(disk.target(), options).unwrap();
}

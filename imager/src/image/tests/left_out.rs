//! Images of a part of a disk.

use std::sync::atomic::AtomicBool;

use tempfile::TempDir;

use crate::extent::ExtentKind;
use crate::image::Image;
use crate::image::tests::{debian_like_disk, options, raw_of};
use crate::testing::MIB;
use crate::{PartitionSet, SealError, SealOptions, Sealed, Source, seal};

fn sealed_only(
    directory: &TempDir,
    raw: &[u8],
    used_only: bool,
    numbers: &[u32],
) -> Result<(Image, Sealed), SealError> {
    let disk = directory.path().join("disk.raw");
    std::fs::write(&disk, raw).unwrap();
    let path = directory.path().join("disk.img.zst");
    let _ = std::fs::remove_file(&path);
    let source = Source::open(&disk, directory.path()).unwrap();
    let options = SealOptions {
        only: Some(PartitionSet::new(numbers.iter().copied()).unwrap()),
        ..options(used_only)
    };
    let sealed = seal(
        source,
        &path,
        &options,
        &mut |_| {},
        &AtomicBool::new(false),
    )?;
    Ok((Image::open(&path).unwrap(), sealed))
}

#[test]
fn the_content_of_other_partitions_is_left_out_and_the_manifest_says_so() {
    let directory = TempDir::new().unwrap();
    let (raw, _) = debian_like_disk();
    for used_only in [true, false] {
        let (image, sealed) = sealed_only(&directory, &raw, used_only, &[1]).unwrap();
        assert!(
            sealed
                .notes
                .iter()
                .any(|note| note == "partition 2 (ext4) is left out as asked")
        );
        let [first, second] = image.manifest().partitions() else {
            panic!("two partitions")
        };
        assert!(!first.left_out && second.left_out);
        assert_eq!((second.used_bytes, second.label.as_str()), (0, "root"));
        let out = raw_of(&image);
        assert!(out[..4 * MIB as usize] == raw[..4 * MIB as usize]);
        assert!(
            out[4 * MIB as usize..68 * MIB as usize]
                .iter()
                .all(|byte| *byte == 0)
        );
        // What lies between partitions is not theirs: it is left out where that is free anyway.
        let gap = 80 * MIB as usize..90 * MIB as usize;
        assert_eq!(out[gap.clone()] == raw[gap], !used_only);
        let mut runs = image.manifest().extents().within(4 * MIB..68 * MIB);
        assert!(runs.all(|run| run.kind == ExtentKind::Free));
    }
}

#[test]
fn a_dirty_file_system_that_is_left_out_hinders_nobody() {
    let directory = TempDir::new().unwrap();
    let (mut raw, _) = debian_like_disk();
    // Not cleanly unmounted: s_state of the superblock.
    raw[4 * MIB as usize + 1024 + 58] = 0;
    let refused = sealed_only(&directory, &raw, true, &[2]).err().unwrap();
    assert!(matches!(refused, SealError::Unsafe { .. }), "{refused}");
    assert!(sealed_only(&directory, &raw, true, &[1]).is_ok());
}

#[test]
fn a_partition_that_is_not_there_and_a_stream_are_refused() {
    let directory = TempDir::new().unwrap();
    let (raw, _) = debian_like_disk();
    let refused = sealed_only(&directory, &raw, true, &[1, 7]).err().unwrap();
    assert_eq!(
        refused.to_string(),
        "there is no partition 7; the source has 1, 2"
    );
    let options = SealOptions {
        only: Some(PartitionSet::new([1]).unwrap()),
        ..options(true)
    };
    let source = Source::stream(std::io::Cursor::new(raw)).unwrap();
    let path = directory.path().join("stream.img.zst");
    let refused = seal(
        source,
        &path,
        &options,
        &mut |_| {},
        &AtomicBool::new(false),
    )
    .unwrap_err();
    assert!(matches!(refused, SealError::OnlyOfStream), "{refused}");
    assert!(!path.exists());
}

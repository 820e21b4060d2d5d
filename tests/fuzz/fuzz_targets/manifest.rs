//! A manifest from a stranger: it comes in-band with a session, before any of its data.
//!
//! What parses must be usable: every question a receiver asks of a manifest is asked here.

#![no_main]

use libfuzzer_sys::fuzz_target;
use netflash_imager::{
    BLOCK_BYTES_MAX, ExtentKind, FrameId, ImageId, LastPartition, Manifest, Plan, fit, mask_frame,
};

/// Frames that are masked for real: each is a mebibyte, and the fuzzer wants to be quick.
const MASKED: u32 = 2;

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = Manifest::parse(bytes) else {
        return;
    };
    assert_eq!(manifest.id(), ImageId::of(bytes));
    let frames = manifest.frame_count();
    // Nothing is claimed that the bytes do not pay for.
    assert!(u64::from(frames) * 4 + manifest.sent().len() as u64 * 32 <= bytes.len() as u64);

    let mut place = 0;
    let mut sent = 0;
    for frame in (0..frames).map(FrameId) {
        let range = manifest.frame_range(frame);
        assert!(range.start == place && range.end > place && range.end <= manifest.raw_bytes());
        let mut inside = place;
        let mut used = false;
        for run in manifest.frame_extents(frame) {
            assert!(run.offset == inside && run.bytes > 0);
            inside = run.end();
            used |= run.kind == ExtentKind::Used;
        }
        assert_eq!(inside, range.end);
        assert_eq!(manifest.is_sent(frame), used);
        sent += u64::from(used) * u64::from(manifest.stored_bytes(frame));
        manifest.hash(frame);
        if frame.0 < MASKED {
            mask_frame(
                &manifest,
                frame,
                &mut vec![1; (range.end - range.start) as usize],
            );
        }
        place = range.end;
    }
    assert_eq!(place, manifest.raw_bytes());

    let plan = Plan::new(&manifest);
    assert_eq!(plan.bytes(), sent);
    for (number, block) in plan.blocks().iter().enumerate() {
        assert!(block.frames.len() == 1 || block.bytes <= BLOCK_BYTES_MAX);
        for &frame in plan.frames(number as u32) {
            assert_eq!(plan.block_of(frame), Some(number as u32));
        }
    }
    assert!(
        manifest
            .masked()
            .windows(2)
            .all(|pair| pair[0].end < pair[1].start)
    );
    manifest.boot();

    // The tables for disks of many sizes: an answer or an error, and nothing beyond the disk.
    for disk_bytes in [manifest.raw_bytes(), 1 << 40, 1 << 20, 4096, 0] {
        for last in [LastPartition::Keep, LastPartition::Grow] {
            let fitted = fit(manifest.tables(), disk_bytes, manifest.sector_bytes(), last);
            let runs = fitted.map(|tables| tables.runs).unwrap_or_default();
            assert!(
                runs.iter()
                    .all(|run| run.offset + run.data.len() as u64 <= disk_bytes)
            );
        }
    }
});

//! The codec against itself, and against bytes that lie.

use proptest::prelude::*;

use super::*;
use crate::extent::ExtentKind;
use crate::extent::tests::any_extents;
use crate::tables::Gpt;

fn any_tables(sector_bytes: u32) -> impl Strategy<Value = Tables> {
    let gpt = (any::<[u8; 16]>(), 0usize..20, 1u8..255).prop_map(|(disk_guid, kept, fill)| Gpt {
        disk_guid,
        first_usable_lba: 34,
        last_usable_lba: 90_000,
        entries_lba: 2,
        backup_lba: 90_033,
        backup_entries_lba: 90_001,
        entry_count: 128,
        entry_bytes: 128,
        entries: (0..128 * 128)
            .map(|index| if index < kept * 128 { fill } else { 0 })
            .collect(),
    });
    prop_oneof![
        Just(Tables {
            sector_bytes,
            lba0: None,
            gpt: None
        }),
        any::<u8>().prop_map(move |fill| Tables {
            sector_bytes,
            lba0: Some(vec![fill; sector_bytes as usize]),
            gpt: None
        }),
        (any::<u8>(), gpt).prop_map(move |(fill, gpt)| Tables {
            sector_bytes,
            lba0: Some(vec![fill; sector_bytes as usize]),
            gpt: Some(gpt)
        }),
    ]
}

/// Any valid manifest, of disks up to some ninety frames.
pub(crate) fn any_manifest() -> impl Strategy<Value = Manifest> {
    let sector = prop_oneof![Just(512u32), Just(4096)];
    (
        any_extents(),
        sector,
        "\\PC{0,20}",
        any::<u64>(),
        prop::option::of(any::<[u8; 32]>()),
    )
        .prop_filter("a disk has a size", |(extents, ..)| !extents.is_empty())
        .prop_flat_map(|(extents, sector_bytes, note, created, parent)| {
            let frames = frames_of(extents.raw_bytes()) as usize;
            let sent = used_frames(&extents).len();
            (
                prop::collection::vec(prop_oneof![9u32..400, 9u32..=STORED_BYTES_MAX], frames),
                prop::collection::vec(any::<[u8; 32]>(), sent),
                any_tables(sector_bytes),
            )
                .prop_map(move |(stored_bytes, hashes, tables)| ManifestParts {
                    sector_bytes,
                    created,
                    min_target_bytes: extents.raw_bytes(),
                    parent: parent.map(ImageId),
                    note: note.clone(),
                    stored_bytes,
                    hashes,
                    tables,
                    partitions: vec![Partition {
                        number: 3,
                        bytes: extents.raw_bytes(),
                        label: note.clone(),
                        os: Some("Debian".into()),
                        ..Partition::default()
                    }],
                    extents: extents.clone(),
                })
        })
        .prop_map(|parts| Manifest::new(&parts).unwrap())
}

/// A small manifest: two frames, the second free and short.
pub(crate) fn small() -> Manifest {
    let mut extents = Extents::new();
    extents.push(ExtentKind::Used, 1 << 20);
    extents.push(ExtentKind::Free, 5000);
    Manifest::new(&ManifestParts {
        sector_bytes: 512,
        created: 1_700_000_000,
        min_target_bytes: 1 << 20,
        parent: None,
        note: "small".into(),
        extents,
        stored_bytes: vec![700, 20],
        hashes: vec![[9; 32]],
        tables: Tables {
            sector_bytes: 512,
            lba0: None,
            gpt: None,
        },
        partitions: Vec::new(),
    })
    .unwrap()
}

proptest! {
    #[test]
    fn a_manifest_survives_its_bytes(manifest in any_manifest()) {
        let again = Manifest::parse(manifest.to_bytes()).unwrap();
        prop_assert_eq!(again.id(), manifest.id());
        prop_assert_eq!(&render(&again.parts), &**manifest.to_bytes());
    }

    #[test]
    fn a_cut_manifest_is_refused(manifest in any_manifest(), cut in any::<prop::sample::Index>()) {
        let bytes = manifest.to_bytes();
        prop_assert!(Manifest::parse(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn what_parses_renders_to_the_same_bytes(
        manifest in any_manifest(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = manifest.to_bytes().to_vec();
        for (place, value) in flips {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(manifest) = Manifest::parse(&bytes) {
            prop_assert_eq!(render(&manifest.parts), bytes);
            for frame in (0..manifest.frame_count()).map(FrameId) {
                manifest.hash(frame);
                manifest.frame_extents(frame).for_each(drop);
            }
        }
    }

    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Manifest::parse(&noise).is_err());
        let framed = [&MAGIC[..], &VERSION.to_le_bytes(), &FRAME_BYTES.to_le_bytes(), &noise].concat();
        let _ = Manifest::parse(&framed);
    }
}

#[test]
fn a_huge_disk_in_few_bytes_is_refused_before_it_is_allocated() {
    let mut writer = Writer::default();
    writer.raw(&MAGIC).u16(VERSION).u32(FRAME_BYTES).u32(512);
    writer.u64(1 << 46).u64(0).u64(0).u8(0).u16(0);
    writer.u32(1).varint((1 << 34) << 2);
    let error = Manifest::parse(&writer.finish()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("sizes of the stored frames: 268435456 bytes wanted"),
        "{error}"
    );
}

#[test]
fn frames_without_used_bytes_have_the_hash_of_zeros() {
    let manifest = small();
    assert_eq!(manifest.sent(), [FrameId(0)]);
    assert_eq!(manifest.hash(FrameId(0)), [9; 32]);
    assert_eq!(
        manifest.hash(FrameId(1)),
        *blake3::hash(&[0; 5000]).as_bytes()
    );
    assert_eq!(manifest.stored_range(FrameId(1)), 700..720);
}

#[test]
fn a_newer_format_asks_for_an_update() {
    let mut bytes = small().to_bytes().to_vec();
    bytes[8] = 2;
    assert_eq!(
        Manifest::parse(&bytes),
        Err(ManifestError::Version { version: 2 })
    );
}

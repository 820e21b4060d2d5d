//! Makes the seeds of the fuzz target `manifest`: one valid manifest of each kind.
//!
//! `cargo run --manifest-path tests/fuzz/Cargo.toml --bin seed-manifest` writes them to
//! `tests/fuzz/seeds/manifest`.

use std::fs;
use std::path::Path;

use netflash_imager::{
    BootModes, ExtentKind, Extents, Gpt, ImageId, Manifest, ManifestParts, Partition, Tables,
};

const MIB: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/manifest");
    fs::create_dir_all(&seeds)?;
    for (name, parts) in [
        ("plain", plain()),
        ("mbr", mbr()),
        ("gpt-512", gpt(512)),
        ("gpt-4096", gpt(4096)),
    ] {
        fs::write(seeds.join(name), Manifest::new(&parts)?.to_bytes())?;
    }
    Ok(())
}

/// A disk with no table, one of its bytes in a frame of its own.
fn plain() -> ManifestParts {
    let mut extents = Extents::new();
    extents.push(ExtentKind::Used, 2 * MIB);
    extents.push(ExtentKind::Zero, MIB);
    extents.push(ExtentKind::Used, 1);
    ManifestParts {
        sector_bytes: 512,
        created: 1_800_000_000,
        min_target_bytes: 3 * MIB + 1,
        parent: None,
        note: String::new(),
        extents,
        stored_bytes: vec![MIB as u32 + 40, 300, 58, 18],
        hashes: vec![[1; 32], [2; 32], [3; 32]],
        tables: Tables {
            sector_bytes: 512,
            lba0: None,
            gpt: None,
        },
        partitions: Vec::new(),
    }
}

fn mbr() -> ManifestParts {
    let mut extents = Extents::new();
    extents.push(ExtentKind::Used, 4096);
    extents.push(ExtentKind::Zero, MIB - 4096);
    extents.push(ExtentKind::Used, MIB);
    extents.push(ExtentKind::Free, 5 * MIB);
    extents.push(ExtentKind::Zero, MIB);
    let partition = Partition {
        number: 1,
        start_bytes: MIB,
        bytes: MIB,
        used_bytes: MIB,
        kind: "0x83".into(),
        fs: "ext4".into(),
        label: "root".into(),
        uuid: "01234567-89ab-cdef-0123-456789abcdef".into(),
        os: Some("Debian".into()),
        boot: BootModes {
            bios: true,
            uefi: false,
        },
    };
    ManifestParts {
        min_target_bytes: 2 * MIB,
        parent: Some(ImageId([7; 32])),
        note: "a note".into(),
        extents,
        stored_bytes: vec![100, 9000, 58, 58, 58, 58, 58, 58],
        hashes: vec![[1; 32], [2; 32]],
        tables: Tables {
            sector_bytes: 512,
            lba0: Some(vec![0x55; 512]),
            gpt: None,
        },
        partitions: vec![partition],
        ..plain()
    }
}

fn gpt(sector_bytes: u32) -> ManifestParts {
    let sectors = 8 * MIB / u64::from(sector_bytes);
    let array = (128 * 128 / u64::from(sector_bytes)).max(1);
    let mut entries = vec![0; 128 * 128];
    entries[..300].fill(0x11);
    let gpt = Gpt {
        disk_guid: [9; 16],
        first_usable_lba: 2 + array,
        last_usable_lba: sectors - array - 2,
        entries_lba: 2,
        backup_lba: sectors - 1,
        backup_entries_lba: sectors - array - 1,
        entry_count: 128,
        entry_bytes: 128,
        entries,
    };
    let lba0 = Some(vec![0xee; sector_bytes as usize]);
    ManifestParts {
        sector_bytes,
        tables: Tables {
            sector_bytes,
            lba0,
            gpt: Some(gpt),
        },
        ..mbr()
    }
}

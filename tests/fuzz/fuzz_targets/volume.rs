//! Hostile file systems to the readers of free space: valid ones of every kind, made by their own
//! tools at the start, with bytes laid over where metadata lie, and checksums mended.
#![no_main]

use std::cell::RefCell;
use std::process::Command;

use libfuzzer_sys::fuzz_target;
use netflash_imager::free_of_volume;

#[path = "../mend.rs"]
mod mend;

use mend::mend;

const SECTOR: usize = 512;
/// One change: which sector (2 bytes), where in it (2), how (1), and with what (1).
const CHANGE_BYTES: usize = 6;
const CHANGES_MAX: usize = 64;

/// Kinds of volumes: size in MiB, and what makes one of the file `$1`.
const KINDS: [(usize, &str); 9] = [
    (300, "mkfs.xfs -q -f -m crc=0 $1"),
    (300, "mkfs.xfs -q -f $1"),
    (120, "mkfs.btrfs -q $1"),
    (8, "mke2fs -q -F -t ext4 -b 1024 -O ^metadata_csum $1"),
    (8, "mke2fs -q -F -t ext2 -b 1024 $1"),
    (2, "mkswap $1"),
    (
        40,
        "device=$(losetup --find --show $1) && pvcreate -y $device && vgcreate -y fuzz$$ $device \
         && vgcfgbackup -f $1.vg fuzz$$ \
         && sed -i 's/^\\t}$/\\t}\\nlogical_volumes { a { id = \"AAAAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAAAA\" \
            status = [\"READ\", \"WRITE\", \"VISIBLE\"] flags = [] segment_count = 1 \
            segment1 { start_extent = 0 extent_count = 3 type = \"striped\" stripe_count = 1 \
            stripes = [\"pv0\", 2] } } }/' $1.vg \
         && vgcfgrestore -f $1.vg --force fuzz$$; code=$?; rm -f $1.vg; losetup -d $device; exit $code",
    ),
    (16, "mkfs.fat -F 16 $1"),
    (8, "mkntfs -q -F $1"),
];

/// A volume, and which of its sectors are not empty.
struct Seed {
    raw: Vec<u8>,
    sectors: Vec<usize>,
}

impl Seed {
    fn make(kind: usize) -> Seed {
        let (mebibytes, script) = KINDS[kind];
        let name = format!("netflash-seed-{}-{kind}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = std::fs::File::create(&path).expect("a temporary file");
        file.set_len((mebibytes as u64) << 20).expect("room for it");
        let made = Command::new("sh")
            .args(["-c", script, "seed"])
            .arg(&path)
            .output();
        let made = made.expect("a shell");
        let raw = std::fs::read(&path).expect("what was made");
        std::fs::remove_file(&path).expect("ours to remove");
        assert!(
            made.status.success(),
            "{script}: {made:?}; run ./scripts/setup as root"
        );
        let sectors = raw
            .chunks(SECTOR)
            .enumerate()
            .filter(|(_, sector)| sector.iter().any(|&byte| byte != 0))
            .map(|(index, _)| index)
            .collect();
        Seed { raw, sectors }
    }

    /// Does what `input` says, asks for what is free, and takes it back.
    fn play(&mut self, input: &[u8]) {
        let Some((&flags, changes)) = input.split_first() else {
            return;
        };
        let mut undo = Vec::new();
        for change in changes.chunks_exact(CHANGE_BYTES).take(CHANGES_MAX) {
            let sector = usize::from(u16::from_le_bytes([change[0], change[1]]));
            let at = usize::from(u16::from_le_bytes([change[2], change[3]])) % SECTOR;
            let place = self.sectors[sector % self.sectors.len()] * SECTOR + at;
            undo.push((place, self.raw[place]));
            self.raw[place] = match change[4] % 4 {
                0 => change[5],
                1 => self.raw[place] ^ 1 << (change[5] % 8),
                2 => self.raw[place].wrapping_add(change[5]),
                _ => 0xff,
            };
        }
        if flags & 1 == 0 {
            let places: Vec<usize> = undo.iter().map(|(place, _)| *place).collect();
            mend(&mut self.raw, &places, &mut undo);
        }
        if let Ok(free) = free_of_volume(&self.raw) {
            let bytes = self.raw.len() as u64;
            assert!(
                free.iter()
                    .all(|range| range.start < range.end && range.end <= bytes)
            );
            assert!(free.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
        while let Some((place, byte)) = undo.pop() {
            self.raw[place] = byte;
        }
    }
}

thread_local! {
    static SEEDS: RefCell<Vec<Seed>> = RefCell::new((0..KINDS.len()).map(Seed::make).collect());
}

fuzz_target!(|input: &[u8]| {
    if let Some((&kind, input)) = input.split_first() {
        SEEDS.with_borrow_mut(|seeds| seeds[usize::from(kind) % KINDS.len()].play(input));
    }
});

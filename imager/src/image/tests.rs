//! Images from sealing to extracting, against other readers of the format, and damaged ones.

use std::io::{Cursor, Read};
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::extent::ExtentKind;
use crate::testing::{MIB, blank, ext, free_of_dumpe2fs, noise, tool};
use crate::{
    Deploy, DeployOptions, ExtractError, SealError, SealOptions, Sealed, Source, SourceError,
    Target, TargetOptions, diff, extract_to_disk, extract_to_file, extract_to_stream, seal, verify,
};

mod left_out;

fn options(used_only: bool) -> SealOptions {
    SealOptions {
        used_only,
        whole: Default::default(),
        only: None,
        level: 1,
        note: "of a test".into(),
        parent: None,
        created: 1_800_000_000,
        threads: 2,
    }
}

fn sealed(directory: &TempDir, raw: &[u8], used_only: bool) -> (PathBuf, Sealed) {
    let source = directory.path().join("disk.raw");
    std::fs::write(&source, raw).unwrap();
    let image = directory.path().join("disk.img.zst");
    let source = Source::open(&source, directory.path()).unwrap();
    let sealed = seal(
        source,
        &image,
        &options(used_only),
        &mut |_| {},
        &AtomicBool::new(false),
    )
    .unwrap();
    (image, sealed)
}

/// Five frames and a bit: noise, zeros, text, and a tail that ends inside a sector.
fn some_disk() -> Vec<u8> {
    let mut raw = noise(5, MIB as usize + 4096);
    raw.resize(3 * MIB as usize, 0);
    raw.extend(b"text ".iter().cycle().take(2 * MIB as usize + 777));
    raw
}

/// A GPT disk of 96 MiB with an ext4 from 4 to 68 MiB; the free ranges of that, too.
fn debian_like_disk() -> (Vec<u8>, Vec<std::ops::Range<u64>>) {
    let directory = TempDir::new().unwrap();
    let path = blank(&directory, "gpt", 96 * MIB);
    tool(
        "sgdisk",
        &["--clear", "--new=1:2048:+1M", "--new=2:8192:+64M", &path],
        "",
    );
    let (ext_path, mut fs) = ext(
        &directory,
        64 * MIB,
        &["-t", "ext4", "-b", "4096", "-L", "root"],
    );
    let free = free_of_dumpe2fs(&ext_path);
    // What former files left in free blocks, and beside the partitions.
    for range in &free {
        fs[range.start as usize..range.end as usize]
            .copy_from_slice(&noise(9, (range.end - range.start) as usize));
    }
    let mut raw = std::fs::read(&path).unwrap();
    raw[4 * MIB as usize..68 * MIB as usize].copy_from_slice(&fs);
    raw[80 * MIB as usize..90 * MIB as usize].copy_from_slice(&noise(10, 10 * MIB as usize));
    (
        raw,
        free.into_iter()
            .map(|range| range.start + 4 * MIB..range.end + 4 * MIB)
            .collect(),
    )
}

fn raw_of(image: &Image) -> Vec<u8> {
    let mut raw = Vec::new();
    extract_to_stream(image, &mut raw, &mut |_| {}, &AtomicBool::new(false)).unwrap();
    raw
}

fn is_whole(image: &Image) -> bool {
    verify(image, 2, &|_| {}, &AtomicBool::new(false))
        .unwrap()
        .is_clean()
}

#[test]
fn an_image_is_a_zstd_file_of_the_raw_disk() {
    let directory = TempDir::new().unwrap();
    let raw = some_disk();
    let (path, _) = sealed(&directory, &raw, false);
    let path = path.to_str().unwrap();
    tool("zstd", &["-t", "-q", path], "");
    let copy = format!("{path}.raw");
    tool("zstd", &["-d", "-q", path, "-o", &copy], "");
    assert!(std::fs::read(copy).unwrap() == raw);
    let image = Image::open(Path::new(path)).unwrap();
    assert!(raw_of(&image) == raw && is_whole(&image));
}

#[test]
fn a_seekable_reader_finds_every_byte() {
    let directory = TempDir::new().unwrap();
    let raw = some_disk();
    let (path, _) = sealed(&directory, &raw, false);
    for (index, word) in noise(77, 40 * 16).chunks_exact(16).enumerate() {
        let place =
            |at: usize| u64::from_le_bytes(word[at..at + 8].try_into().unwrap()) % raw.len() as u64;
        let (from, to) = (place(0).min(place(8)), place(0).max(place(8)).max(1));
        let file = File::open(&path).unwrap();
        let mut reader = zeekstd::DecodeOptions::new(file)
            .offset(from)
            .offset_limit(to)
            .into_decoder()
            .unwrap();
        let mut found = Vec::new();
        reader.read_to_end(&mut found).unwrap();
        assert!(
            found == raw[from as usize..to as usize],
            "read {index}: {from}..{to}"
        );
    }
}

#[test]
fn only_what_is_used_is_kept_when_that_is_proved() {
    let directory = TempDir::new().unwrap();
    let (raw, free) = debian_like_disk();
    let (path, sealed) = sealed(&directory, &raw, true);
    // The first is empty.
    let note = "partition 1 is kept whole: no file system is recognised on it";
    assert_eq!(sealed.notes, [note]);
    let image = Image::open(&path).unwrap();
    let manifest = image.manifest();
    let out = raw_of(&image);
    assert!(is_whole(&image));
    for run in manifest.extents().iter() {
        let range = run.offset as usize..run.end() as usize;
        match run.kind {
            ExtentKind::Used => assert!(out[range.clone()] == raw[range]),
            ExtentKind::Zero => assert!(raw[range].iter().all(|&byte| byte == 0)),
            ExtentKind::Free => assert!(out[range].iter().all(|&byte| byte == 0)),
        }
    }
    // Everything that dumpe2fs calls free is free, in whole units; everything it does not, is kept.
    let mut expected = raw.clone();
    for range in free.iter().chain([&(80 * MIB..95 * MIB)]) {
        expected[range.start as usize..range.end as usize].fill(0);
    }
    assert!(out == expected);
    let gap = 96 * MIB - 68 * MIB - MIB + 2 * MIB;
    let free_bytes: u64 = free.iter().map(|range| range.end - range.start).sum();
    assert_eq!(
        manifest.extents().bytes_of(ExtentKind::Free),
        free_bytes + gap
    );
    let root = &manifest.partitions()[1];
    assert_eq!((root.fs.as_str(), root.label.as_str()), ("ext4", "root"));
    assert_eq!(root.used_bytes, 64 * MIB - free_bytes);
    assert_eq!(manifest.min_target_bytes(), 68 * MIB + 33 * 512);
    assert!(
        manifest.sent().len() < 30,
        "{} of 96 frames are sent",
        manifest.sent().len()
    );
}

#[test]
fn a_stream_gives_the_same_image_as_a_file() {
    let directory = TempDir::new().unwrap();
    let (raw, _) = debian_like_disk();
    for raw in [&raw[..], &raw[..5 * MIB as usize], &some_disk(), &[7]] {
        let (path, of_file) = sealed(&directory, raw, false);
        let again = directory.path().join("stream.img.zst");
        let source = Source::stream(Cursor::new(raw.to_vec())).unwrap();
        let of_stream = seal(
            source,
            &again,
            &options(false),
            &mut |_| {},
            &AtomicBool::new(false),
        )
        .unwrap();
        assert_eq!(of_stream.manifest.id(), of_file.manifest.id());
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap());
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(again).unwrap();
    }
}

#[test]
fn a_qcow2_image_is_read_and_one_with_a_backing_file_is_not() {
    let directory = TempDir::new().unwrap();
    let raw = some_disk();
    let name = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (plain, qcow2, child) = (name("plain.raw"), name("disk.qcow2"), name("child.qcow2"));
    // qemu-img counts in sectors.
    let whole = [
        &raw[..],
        &vec![0; raw.len().next_multiple_of(512) - raw.len()],
    ]
    .concat();
    std::fs::write(&plain, &whole).unwrap();
    tool("qemu-img", &["convert", "-O", "qcow2", &plain, &qcow2], "");
    tool(
        "qemu-img",
        &[
            "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &qcow2, &child,
        ],
        "",
    );
    let source = Source::open(Path::new(&qcow2), directory.path()).unwrap();
    let path = directory.path().join("q.img.zst");
    seal(
        source,
        &path,
        &options(true),
        &mut |_| {},
        &AtomicBool::new(false),
    )
    .unwrap();
    assert!(raw_of(&Image::open(&path).unwrap()) == whole);
    let refused = Source::open(Path::new(&child), directory.path())
        .err()
        .unwrap();
    assert!(refused.to_string().contains("backing file"));
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 4, "the raw copy is gone");
}

#[test]
fn other_formats_are_no_raw_disks() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("file");
    let mut vdi = vec![b' '; 64];
    vdi.extend([0x7f, 0x10, 0xda, 0xbe]);
    for head in [&b"\x04\x22\x4d\x18 rest"[..], b"PK\x03\x04", b"QED\0", &vdi] {
        std::fs::write(&path, head).unwrap();
        assert!(matches!(
            Source::open(&path, directory.path()),
            Err(SourceError::Format { .. })
        ));
        assert!(matches!(
            Source::stream(Cursor::new(head.to_vec())),
            Err(SourceError::Format { .. })
        ));
    }
    for head in [&b"KDMV"[..], b"conectix", b"vhdxfile", b"partclone-image"] {
        std::fs::write(&path, head).unwrap();
        assert!(matches!(
            Source::open(&path, directory.path()),
            Err(SourceError::Damaged { .. })
        ));
        assert!(matches!(
            Source::stream(Cursor::new(head)),
            Err(SourceError::Refused { .. })
        ));
    }
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(
        Source::open(&path, directory.path()),
        Err(SourceError::Empty { .. })
    ));
}

#[test]
fn no_image_means_nothing_left_behind() {
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(1)
                .ok_or_else(|| io::Error::other("cable pulled"))?;
            buffer.fill(1);
            Ok(buffer.len())
        }
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.img.zst");
    let attempt = |stop: bool| {
        let source = Source::stream(Failing(30)).unwrap();
        seal(
            source,
            &path,
            &options(false),
            &mut |_| {},
            &AtomicBool::new(stop),
        )
        .unwrap_err()
    };
    assert!(matches!(attempt(false), SealError::Read { .. }));
    assert!(matches!(attempt(true), SealError::Interrupted));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    std::fs::write(&path, b"dear to somebody").unwrap();
    assert!(matches!(attempt(false), SealError::Exists { .. }));
    assert_eq!(std::fs::read(&path).unwrap(), b"dear to somebody");
}

#[test]
fn a_file_extracted_has_the_bytes_and_the_holes() {
    use std::os::unix::fs::MetadataExt;
    let directory = TempDir::new().unwrap();
    let mut raw = some_disk();
    raw.resize(40 * MIB as usize, 0);
    let (path, _) = sealed(&directory, &raw, true);
    let out = directory.path().join("out.raw");
    extract_to_file(
        &Image::open(&path).unwrap(),
        &out,
        3,
        &|_| {},
        &AtomicBool::new(false),
    )
    .unwrap();
    assert!(std::fs::read(&out).unwrap() == raw);
    assert!(out.metadata().unwrap().blocks() * 512 < 8 * MIB);
}

#[test]
fn a_disk_gets_the_image_and_a_damaged_image_never_gets_committed() {
    let directory = TempDir::new().unwrap();
    let (raw, _) = debian_like_disk();
    let (path, _) = sealed(&directory, &raw, true);
    let disk = directory.path().join("disk");
    let extract = |image: &Image| {
        std::fs::write(&disk, noise(2, raw.len())).unwrap();
        let target = Target::open(&disk, TargetOptions::default()).unwrap();
        let manifest = Arc::clone(image.manifest());
        let deploy = Deploy::begin(manifest, target, DeployOptions::default(), Arc::new(|_| {}));
        extract_to_disk(image, deploy.unwrap())
    };
    let image = Image::open(&path).unwrap();
    assert!(extract(&image).unwrap().changed);
    let written = std::fs::read(&disk).unwrap();
    for run in image
        .manifest()
        .extents()
        .iter()
        .filter(|run| run.kind != ExtentKind::Free)
    {
        let range = run.offset as usize..run.end() as usize;
        assert!(written[range.clone()] == raw[range], "{run:?}");
    }

    let last = *image.manifest().sent().last().unwrap();
    let place = image.manifest().stored_range(last).start + 30;
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xa5; 4], place).unwrap();
    let error = extract(&image).unwrap_err();
    assert!(
        matches!(error, ExtractError::Damaged { frame, .. } if frame == last),
        "{error}"
    );
    assert!(
        std::fs::read(&disk).unwrap()[..MIB as usize]
            .iter()
            .all(|&byte| byte == 0)
    );
}

#[test]
fn a_difference_is_told_by_the_frame() {
    let directory = TempDir::new().unwrap();
    let raw = some_disk();
    let (path, first) = sealed(&directory, &raw, false);
    std::fs::remove_file(path).unwrap();
    let mut other = raw.clone();
    other[MIB as usize * 3 + 5] ^= 1;
    other[MIB as usize * 4 + 5] ^= 1;
    let (_, second) = sealed(&directory, &other, false);
    let found = diff(&first.manifest, &second.manifest);
    assert_eq!(
        (found.same_frames, found.changed_frames, found.sent_frames),
        (4, 2, 2)
    );
    assert_eq!(
        (
            found.changed.len(),
            found.changed[0].offset,
            found.changed[0].bytes
        ),
        (1, 3 * MIB, 2 * MIB)
    );
    assert_eq!(diff(&first.manifest, &first.manifest).changed_frames, 0);
}

#[test]
fn foreign_files_are_told_from_images() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("file");
    let seekable = {
        let mut bytes = zstd::bulk::compress(b"data", 1).unwrap();
        let entry = Entry {
            stored_bytes: bytes.len() as u32,
            raw_bytes: 4,
        };
        bytes.extend(seek_table::render(&[entry]));
        bytes
    };
    for bytes in [
        &b""[..],
        b"short",
        &noise(3, 5000),
        &zstd::bulk::compress(b"data", 1).unwrap(),
        &seekable,
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Image::open(&path).unwrap_err();
        assert!(matches!(error, ImageError::Foreign { .. }), "{error}");
    }
}

#[test]
fn a_table_of_a_billion_frames_in_a_small_file_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("file");
    let mut bytes = vec![0; 300];
    bytes.extend(1_000_000_000u32.to_le_bytes());
    bytes.push(0);
    bytes.extend(0x8f92_eab1u32.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = Image::open(&path).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("at byte 300: seek table of 8000000017 bytes in 309"),
        "{error}"
    );
}

static WHOLE: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let directory = TempDir::new().unwrap();
    let mut raw = vec![0; MIB as usize];
    raw.extend(b"some text ".iter().cycle().take(MIB as usize + 50_000));
    raw.extend(noise(1, 2000));
    let (path, _) = sealed(&directory, &raw, true);
    (raw, std::fs::read(path).unwrap())
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_truncated_image_is_refused(cut in any::<prop::sample::Index>()) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("cut");
        std::fs::write(&path, &WHOLE.1[..cut.index(WHOLE.1.len())]).unwrap();
        prop_assert!(Image::open(&path).is_err());
    }

    #[test]
    fn a_flipped_bit_is_found_or_changes_nothing(place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("flipped");
        let mut bytes = WHOLE.1.clone();
        bytes[place.index(WHOLE.1.len())] ^= 1 << bit;
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(image) = Image::open(&path) && is_whole(&image) {
            prop_assert!(raw_of(&image) == WHOLE.0);
        }
    }
}

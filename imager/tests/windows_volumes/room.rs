//! Partitions of noise, the drivers that fill them, and the way through an image and back.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use netflash_imager::{
    Deploy, DeployOptions, Image, SealOptions, Source, Target, TargetOptions, extract_to_disk, seal,
};
use tempfile::TempDir;

pub(super) const MIB: u64 = 1 << 20;

/// Where the partition begins on its disk.
const START: u64 = MIB;
/// What the disk has behind it; the last MiB of a disk is never left out.
const BEHIND: u64 = 2 * MIB;
/// How much larger the disk is that an image is restored onto.
const LARGER: u64 = 32 * MIB;

/// A kind of volume, and the programs that know it.
pub(super) struct Volume<'a> {
    /// In the words of `blkid`.
    pub(super) name: &'a str,
    /// Type in an MBR.
    pub(super) table_type: &'a str,
    pub(super) bytes: u64,
    /// Makes it on the file that is the last argument.
    pub(super) maker: &'a [&'a str],
    /// A FUSE driver, or `mtools`.
    pub(super) mount: &'a str,
    pub(super) partclone: &'a str,
    /// Finds no fault with the file that is the last argument.
    pub(super) checker: &'a [&'a str],
}

/// What came out.
pub(super) struct Judged {
    /// The partition before it was sealed.
    pub(super) original: String,
    pub(super) label: String,
    pub(super) used_bytes: u64,
    /// What `partclone` would copy.
    pub(super) partclone_bytes: u64,
    what: String,
}

impl Judged {
    /// At most 2 % more than `partclone` copies, and no less.
    pub(super) fn assert_near_partclone(&self) {
        let (ours, theirs) = (self.used_bytes, self.partclone_bytes);
        println!("{}: {ours} bytes used, partclone {theirs}", self.what);
        assert!(
            ours.abs_diff(theirs) * 50 <= theirs,
            "{}: {ours} bytes used, partclone {theirs}",
            self.what
        );
    }
}

/// A directory for one test, with noise in it.
pub(super) struct Room {
    directory: TempDir,
}

impl Room {
    pub(super) fn new() -> Room {
        let room = Room {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::write(room.path("noise"), noise(1, 64 * MIB)).unwrap();
        room
    }

    fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// Runs a program that must succeed, and gives all it says.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .args(arguments)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}; run ./scripts/setup"));
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {said} (needs root: sudo ./scripts/test)"
        );
        said
    }

    /// Makes `volume`, fills it by the shell script `fill`, and takes it through an image.
    pub(super) fn judge(&self, volume: &Volume<'_>, fill: &str) -> Judged {
        let original = self.path("original");
        fs::write(&original, noise(2, volume.bytes)).unwrap();
        let (maker, options) = volume.maker.split_first().unwrap();
        self.run(maker, &[options, &[&original]].concat());
        self.fill(volume, &original, fill);
        let before = self.sums(volume, &original);
        assert!(before.lines().count() > 20, "{before}");

        let image = self.sealed(volume, &original);
        let found = &image.manifest().partitions()[0];
        assert_eq!(found.fs, volume.name);
        let restored = self.restored(&image, volume);
        let (checker, options) = volume.checker.split_first().unwrap();
        self.run(checker, &[options, &[&restored]].concat());
        assert_eq!(self.sums(volume, &restored), before);
        let partclone_bytes = self.partclone(volume, &original);
        let (label, used_bytes) = (found.label.clone(), found.used_bytes);
        Judged {
            original,
            label,
            used_bytes,
            partclone_bytes,
            what: volume.maker.join(" "),
        }
    }

    /// Runs `script` with the volume on `path` mounted at `$M`, where nobody else sees it.
    fn mounted(&self, volume: &Volume<'_>, path: &str, script: &str) -> String {
        let open = match volume.mount {
            "mtools" => panic!("mtools mounts nothing"),
            driver => format!(
                "M=$(mktemp -d); LOOP=$(losetup --find --show {path})\n\
                 trap 'cd /; umount $M; losetup --detach $LOOP; rmdir $M' EXIT\n\
                 {driver} $LOOP $M >&2"
            ),
        };
        let unit = volume.bytes / 80;
        let noise = self.path("noise");
        let script = format!("set -e\nNOISE={noise}; UNIT={unit}\n{open}\n{script}\nsync");
        self.run("unshare", &["--mount", "sh", "-c", &script])
    }

    fn fill(&self, volume: &Volume<'_>, path: &str, script: &str) {
        if volume.mount != "mtools" {
            self.mounted(volume, path, script);
            return;
        }
        // Without a driver in FUSE the same script works on a directory, in three steps that are
        // copied one after the other.
        let staged = self.path("staged");
        let unit = volume.bytes / 80;
        let noise = self.path("noise");
        _ = fs::remove_dir_all(&staged);
        fs::create_dir(&staged).unwrap();
        let head = format!("set -e\nNOISE={noise}; UNIT={unit}; M={staged}\n");
        self.run("sh", &["-c", &(head.clone() + "for i in $(seq 1 50); do head -c $((i * UNIT / 50 + 1)) $NOISE >$M/f$i; done")]);
        let copy = format!("mcopy -s -o -i {path} {staged}/* ::");
        self.run("sh", &["-c", &copy]);
        self.run(
            "sh",
            &[
                "-c",
                &format!("for i in $(seq 1 2 50); do mdel -i {path} ::f$i; rm {staged}/f$i; done"),
            ],
        );
        self.run(
            "sh",
            &[
                "-c",
                &(head + "for i in 1 2 3; do tail -c $((i * UNIT * 2)) $NOISE >$M/big$i; done"),
            ],
        );
        self.run("sh", &["-c", &format!("mmd -i {path} ::dir; mcopy -i {path} {staged}/big* ::dir; mdel -i {path} ::dir/big2")]);
    }

    /// Every file of the volume and the hash of its content.
    fn sums(&self, volume: &Volume<'_>, path: &str) -> String {
        const SUMS: &str = "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
        if volume.mount != "mtools" {
            return self.mounted(volume, path, &format!("cd $M; {SUMS}; cd /"));
        }
        let out = self.path("out");
        _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).unwrap();
        self.run(
            "sh",
            &[
                "-c",
                &format!("mcopy -s -n -i {path} '::*' {out} && cd {out} && {SUMS}"),
            ],
        )
    }

    fn sealed(&self, volume: &Volume<'_>, original: &str) -> Image {
        let (disk, out) = (self.path("disk"), self.path("image"));
        _ = fs::remove_file(&out);
        let file = File::create(&disk).unwrap();
        file.set_len(START + volume.bytes + BEHIND).unwrap();
        file.write_all_at(&fs::read(original).unwrap(), START)
            .unwrap();
        let table = format!(
            "printf 'label: dos\\nstart={},size={},type={}\\n' | sfdisk --quiet {disk}",
            START / 512,
            volume.bytes / 512,
            volume.table_type
        );
        self.run("sh", &["-c", &table]);
        let options = SealOptions {
            used_only: true,
            whole: Default::default(),
            only: None,
            level: 1,
            note: String::new(),
            parent: None,
            created: 0,
            threads: 2,
        };
        let source = Source::open(Path::new(&disk), self.directory.path()).unwrap();
        let stop = AtomicBool::new(false);
        let sealed = seal(source, Path::new(&out), &options, &mut |_| {}, &stop).unwrap();
        assert_eq!(sealed.notes, [""; 0], "{}", volume.name);
        Image::open(Path::new(&out)).unwrap()
    }

    /// The partition as it is on a larger disk after the image was written there.
    fn restored(&self, image: &Image, volume: &Volume<'_>) -> String {
        let backing = self.path("target");
        let before = noise(3, START + volume.bytes + LARGER);
        fs::write(&backing, &before).unwrap();
        let device = self.run("losetup", &["--find", "--show", &backing]);
        let device = Loop(device.trim().to_owned());
        let target = Target::open(Path::new(&device.0), TargetOptions::default()).unwrap();
        let manifest = Arc::clone(image.manifest());
        let deploy = Deploy::begin(manifest, target, DeployOptions::default(), Arc::new(|_| {}));
        extract_to_disk(image, deploy.unwrap()).unwrap();
        drop(device);
        let mut content = vec![0; volume.bytes as usize];
        let file = File::open(&backing).unwrap();
        file.read_exact_at(&mut content, START).unwrap();
        let was = &before[START as usize..][..volume.bytes as usize];
        let left = content
            .chunks(4096)
            .zip(was.chunks(4096))
            .filter(|(now, was)| now == was);
        assert!(
            left.count() > 100,
            "free space of {} was written",
            volume.name
        );
        let restored = self.path("restored");
        fs::write(&restored, content).unwrap();
        restored
    }

    /// Bytes that `partclone` calls used.
    fn partclone(&self, volume: &Volume<'_>, path: &str) -> u64 {
        let log = self.path("partclone.log");
        let arguments = ["-c", "-s", path, "-O", "/dev/null", "-L", &log];
        let said = self.run(volume.partclone, &arguments);
        let number = |name: &str| -> u64 {
            let line = said.lines().find(|line| line.starts_with(name));
            let words = line.unwrap_or_else(|| panic!("{said}")).split_whitespace();
            words.rev().nth(1).unwrap().parse().unwrap()
        };
        number("Space in use:") * number("Block size:")
    }
}

/// A loop device; gone when dropped.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// Bytes that no compressor makes smaller, the same for the same seed.
fn noise(seed: u64, bytes: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes.div_ceil(8))
        .flat_map(|_| word())
        .take(bytes as usize)
        .collect()
}

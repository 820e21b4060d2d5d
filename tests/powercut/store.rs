//! The server's own disk under power cuts while a machine's disk is being captured: the file system beneath its whole
//! directory is recorded, cut, mounted again, and a new server is asked what it has.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::lab::sh;
use tests::sim::Chance;

use crate::daemon::DaemonDisk;
use crate::desk::{Sealed, Server, Stage};
use crate::journal::{Journal, SECTOR};
use crate::recording::cut_within;

/// The server's disk, bytes.
const STORE_BYTES: u64 = 48 << 20;
/// Its blocks, bytes, which it writes whole or not at all: a file system does not survive a torn superblock.
const BLOCK_BYTES: usize = 4096;
/// Power cuts.
const CUTS: usize = 200;
/// After one cut in so many the machine comes again, and the capture is brought to its end.
const RESUMED_EVERY: usize = 10;

/// A file system in a file, mounted.
struct Mounted(PathBuf);

impl Mounted {
    fn new(file: &Path, place: &Path) -> Result<Mounted> {
        fs::create_dir_all(place)?;
        sh(&format!(
            "mount -o loop {} {}",
            file.display(),
            place.display()
        ))?;
        Ok(Mounted(place.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Records a capture on the server's disk, cuts it everywhere, and asks a server on every disk that comes of it.
pub(crate) fn assert_every_cut_is_survived(seed: u64) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    let mut chance = Chance::new(seed);
    let image = Sealed::make(path, &mut chance)?;
    let backing = path.join("store.ext4");
    File::create(&backing)?.set_len(STORE_BYTES)?;
    sh(&format!(
        "mke2fs -q -t ext4 -b {BLOCK_BYTES} {}",
        backing.display()
    ))?;
    let place = path.join("store");
    {
        let _mounted = Mounted::new(&backing, &place)?;
        Server::start(&place)?.order()?;
    }
    let former = fs::read(&backing)?;
    let recorder = DaemonDisk::start(&backing, path);
    {
        let _mounted = Mounted::new(recorder.path(), &place)?;
        Server::start(&place)?.capture(&image, 1)?;
    }
    let journal = Journal::read(&recorder.finish());
    let writes = journal.epochs.iter().map(Vec::len).sum::<usize>();
    println!("{writes} writes, {} flushes", journal.flushes);

    // Places spread evenly over the epochs, and in each a random part of its writes.
    let cut = path.join("cut.ext4");
    let (mut disk, mut done, mut ready, mut resumed) = (former, 0, 0, 0);
    for (index, epoch) in journal.epochs.iter().enumerate() {
        while done * journal.epochs.len() < (index + 1) * CUTS {
            let mut content = disk.clone();
            let text = cut_within(epoch, &mut content, &mut chance, BLOCK_BYTES / SECTOR);
            fs::write(&cut, &content)?;
            let said = || format!("seed {seed}, cut {done}, epoch {index}: {text}");
            let _mounted = Mounted::new(&cut, &place).with_context(said)?;
            let server = Server::start(&place).with_context(said)?;
            let whole = server.judge(&image).with_context(said)? == Stage::Ready;
            // An image that has its name and not its row is the moment that is easily got wrong.
            let between = !whole && place.join("images/copy.img.zst").exists();
            if !whole && (between || done.is_multiple_of(RESUMED_EVERY)) {
                server.capture(&image, 2).with_context(said)?;
                resumed += 1;
            }
            ready += usize::from(whole);
            done += 1;
        }
        for write in epoch {
            write.apply(&mut disk, |_| true);
        }
    }
    println!(
        "{done} cuts: {ready} with the image whole, the others still awaited it; {resumed} brought to the end"
    );
    ensure!(
        ready > 0 && ready < done && resumed > 0,
        "the cuts were not spread"
    );
    Ok(())
}

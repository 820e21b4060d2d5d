//! A volume that the fuzzer changes here and there, and takes back.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

const PAGE: usize = 4096;
const SECTOR: usize = 512;
/// One change: which sector (2 bytes), where in it (2), how (1), and with what (1).
const CHANGE_BYTES: usize = 6;
const CHANGES_MAX: usize = 64;
/// As many as a change can name.
const SECTORS_MAX: usize = 1 << 16;

/// Bytes read at once.
const STEP: usize = 1 << 20;

/// A volume in memory, without its empty pages.
pub struct Patched {
    bytes: u64,
    pages: Vec<Option<Box<[u8; PAGE]>>>,
    /// Where changes go: the sectors that a reader reads while all is right.
    sectors: Vec<u64>,
    /// Places, and what was there.
    undo: Vec<(u64, Vec<u8>)>,
}

impl Patched {
    /// The volume in `file`.
    pub fn new(file: &File) -> Patched {
        let bytes = file.metadata().expect("a file").len();
        assert!(bytes.is_multiple_of(STEP as u64), "a volume is whole mebibytes");
        let (mut pages, mut step) = (Vec::new(), vec![0; STEP]);
        for at in (0..bytes).step_by(STEP) {
            file.read_exact_at(&mut step, at).expect("what was made");
            for page in step.chunks_exact(PAGE) {
                let full = page != [0; PAGE];
                pages.push(full.then(|| Box::new(page.try_into().expect("a page"))));
            }
        }
        Patched {
            bytes,
            pages,
            sectors: Vec::new(),
            undo: Vec::new(),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lets `reader` read the volume as it is, and remembers where it does.
    pub fn watch<T>(&mut self, reader: impl FnOnce(&dyn Fn(u64, &mut [u8])) -> T) -> T {
        let seen = RefCell::new(vec![false; self.bytes as usize / SECTOR]);
        let done = reader(&|at, buffer| {
            let sectors = at as usize / SECTOR..(at as usize + buffer.len()).div_ceil(SECTOR);
            seen.borrow_mut()[sectors].fill(true);
            self.read(at, buffer);
        });
        let seen = seen.into_inner().into_iter().enumerate();
        let sectors = seen.filter(|(_, seen)| *seen).take(SECTORS_MAX);
        self.sectors = sectors.map(|(number, _)| number as u64).collect();
        done
    }

    /// Fills `buffer` from `at` on; all of it lies within the volume.
    pub fn read(&self, at: u64, buffer: &mut [u8]) {
        let (mut at, mut rest) = (at, buffer);
        while !rest.is_empty() {
            let within = (at % PAGE as u64) as usize;
            let count = rest.len().min(PAGE - within);
            let (piece, behind) = rest.split_at_mut(count);
            match &self.pages[at as usize / PAGE] {
                Some(page) => piece.copy_from_slice(&page[within..within + count]),
                None => piece.fill(0),
            }
            (at, rest) = (at + count as u64, behind);
        }
    }

    /// `count` bytes at `at`; zeros beyond the end.
    pub fn get(&self, at: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let inside = self.bytes.saturating_sub(at).min(count as u64) as usize;
        self.read(at, &mut bytes[..inside]);
        bytes
    }

    /// Puts `bytes` at `at`, as far as the volume goes, until the next [`Patched::restore`].
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() && at < self.bytes {
            let within = at as usize % PAGE;
            let (piece, behind) = rest.split_at(rest.len().min(PAGE - within));
            let page = self.pages[at as usize / PAGE].get_or_insert_with(|| Box::new([0; PAGE]));
            let place = &mut page[within..within + piece.len()];
            self.undo.push((at, place.to_vec()));
            place.copy_from_slice(piece);
            (at, rest) = (at + piece.len() as u64, behind);
        }
    }

    /// Changes what `input` says; gives the places.
    pub fn change(&mut self, input: &[u8]) -> Vec<u64> {
        let mut places = Vec::new();
        for change in input.chunks_exact(CHANGE_BYTES).take(CHANGES_MAX) {
            let sector = usize::from(u16::from_le_bytes([change[0], change[1]]));
            let within = u64::from(u16::from_le_bytes([change[2], change[3]])) % SECTOR as u64;
            let place = self.sectors[sector % self.sectors.len()] * SECTOR as u64 + within;
            let byte = self.get(place, 1)[0];
            let changed = match change[4] % 4 {
                0 => change[5],
                1 => byte ^ 1 << (change[5] % 8),
                2 => byte.wrapping_add(change[5]),
                _ => 0xff,
            };
            self.put(place, &[changed]);
            places.push(place);
        }
        places
    }

    /// Takes everything back.
    pub fn restore(&mut self) {
        while let Some((at, bytes)) = self.undo.pop() {
            let page = self.pages[at as usize / PAGE].as_mut();
            let within = at as usize % PAGE;
            page.expect("made by put")[within..within + bytes.len()].copy_from_slice(&bytes);
        }
    }
}

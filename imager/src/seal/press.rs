//! Compressing one frame after another, as much as each is worth.
//!
//! What is compressed already (packages, pictures, films, encrypted files) is told by its bytes: each value is as
//! frequent as any other. Such a frame is passed through the fastest mode of zstd, which stores it as it is; the file
//! stays an ordinary zstd file. `docs/benchmarks.md` has what it gains and what it costs.

use std::io;

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

/// The level at which zstd looks for next to nothing.
const QUICK_LEVEL: i32 = -50;
/// Places of a frame that are looked at, spread evenly.
const SAMPLES: usize = 16;
/// Bytes of each.
const SAMPLE_BYTES: usize = 4096;
/// How much less even than chance the values of a sample may be, in per cent of the sum of their squares. At this
/// bound an ideal coder would gain less than one per cent.
const UNEVEN_MAX_PERCENT: u64 = 10;

/// What one thread compresses with.
pub(super) struct Press {
    thorough: Compressor<'static>,
    quick: Compressor<'static>,
    /// A frame of zeros of some length, compressed: most of a large disk is such frames.
    zeros: Option<(usize, Vec<u8>)>,
}

impl Press {
    /// A press that compresses at `level`.
    pub(super) fn new(level: i32) -> io::Result<Press> {
        Ok(Press {
            thorough: compressor(level)?,
            quick: compressor(QUICK_LEVEL.min(level))?,
            zeros: None,
        })
    }

    /// Replaces the content of `stored` by `raw`, compressed.
    pub(super) fn press(&mut self, raw: &[u8], stored: &mut Vec<u8>) -> io::Result<()> {
        let compressor = match is_even(raw) {
            true => &mut self.quick,
            false => &mut self.thorough,
        };
        compress(compressor, raw, stored)
    }

    /// The same for `raw_bytes` zeros.
    pub(super) fn zeros(&mut self, raw_bytes: usize, stored: &mut Vec<u8>) -> io::Result<()> {
        let known = self.zeros.take().filter(|(bytes, _)| *bytes == raw_bytes);
        let (_, zeros) = match known {
            Some(known) => self.zeros.insert(known),
            None => {
                let mut zeros = Vec::new();
                compress(&mut self.thorough, &vec![0; raw_bytes], &mut zeros)?;
                zeros.shrink_to_fit();
                self.zeros.insert((raw_bytes, zeros))
            }
        };
        stored.clone_from(zeros);
        Ok(())
    }
}

fn compressor(level: i32) -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(level)?;
    // With it `zstd -t` checks the content, not only the form.
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    Ok(compressor)
}

fn compress(
    compressor: &mut Compressor<'static>,
    raw: &[u8],
    stored: &mut Vec<u8>,
) -> io::Result<()> {
    stored.clear();
    stored.reserve(compress_bound(raw.len()));
    compressor.compress_to_buffer(raw, stored)?;
    Ok(())
}

/// Whether all values of a byte are about as frequent as each other in every sample of `raw`. Integers only: the same
/// disk must give the same image on every machine.
fn is_even(raw: &[u8]) -> bool {
    let step = raw.len() / SAMPLES;
    if step < SAMPLE_BYTES {
        return false;
    }
    raw.chunks_exact(step)
        .all(|part| is_sample_even(&part[..SAMPLE_BYTES]))
}

fn is_sample_even(sample: &[u8]) -> bool {
    let mut counts = [0u64; 256];
    sample
        .iter()
        .for_each(|&byte| counts[usize::from(byte)] += 1);
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    let length = sample.len() as u64;
    // What chance gives: each pair of bytes is equal once in 256 times, and each byte is equal to itself.
    let by_chance = length + length * (length - 1) / 256;
    squares * 100 <= by_chance * (100 + UNEVEN_MAX_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    const FRAME: usize = 1 << 20;

    fn pressed(raw: &[u8], level: i32) -> Vec<u8> {
        let mut stored = vec![9; 3];
        let mut press = Press::new(level).unwrap();
        press.press(raw, &mut stored).unwrap();
        assert!(zstd::bulk::decompress(&stored, raw.len()).unwrap() == raw);
        stored
    }

    #[test]
    fn noise_is_stored_as_it_is() {
        let raw = noise(5, FRAME);
        assert!(is_even(&raw));
        let stored = pressed(&raw, 19);
        assert!(
            (FRAME..FRAME + 64).contains(&stored.len()),
            "{}",
            stored.len()
        );
    }

    #[test]
    fn what_is_compressed_already_is_recognised() {
        let text: String = noise(4, 3 * FRAME / 2)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let packed = zstd::bulk::compress(text.as_bytes(), 3).unwrap();
        assert!(packed.len() > FRAME, "{}", packed.len());
        assert!(is_even(&packed[packed.len() - FRAME..]));
    }

    #[test]
    fn a_frame_with_anything_to_gain_is_compressed_thoroughly() {
        let text = b"all work and no play makes jack a dull boy. ".repeat(FRAME / 44 + 1);
        let words: Vec<u8> = (0..FRAME as u32 / 4).flat_map(u32::to_le_bytes).collect();
        let mut mixed = noise(6, FRAME);
        // A sixteenth of it, where a sample is taken.
        mixed[3 * FRAME / 16..4 * FRAME / 16].copy_from_slice(&text[..FRAME / 16]);
        for raw in [&text[..FRAME], &words, &mixed] {
            assert!(!is_even(raw));
            let plain = {
                let mut stored = Vec::new();
                compress(&mut compressor(3).unwrap(), raw, &mut stored).unwrap();
                stored
            };
            assert!(pressed(raw, 3) == plain);
        }
        assert!(
            !is_even(&noise(7, FRAME)[..SAMPLES * SAMPLE_BYTES - 1]),
            "too short to tell"
        );
    }

    #[test]
    fn zeros_are_compressed_once_for_each_length() {
        let mut press = Press::new(3).unwrap();
        let mut stored = Vec::new();
        for bytes in [FRAME, FRAME, 700, FRAME] {
            press.zeros(bytes, &mut stored).unwrap();
            assert!(zstd::bulk::decompress(&stored, bytes).unwrap() == vec![0; bytes]);
            assert_eq!(press.zeros.as_ref().unwrap().0, bytes);
        }
    }
}

//! Forward error correction: k source symbols of a block, and an extendable stream of repair symbols.
//!
//! The only file that names the FEC crate. Reed-Solomon at the crate's low rate has the property the
//! protocol rests on: a short repair stream is a prefix of a longer one, so fresh repair can be made at
//! any time. The crate panics on some arguments a peer could choose; every bound is checked here first.
//!
//! Its transforms go over a whole block at once, which no cache near the processor holds. What is needed most, the
//! beginning of the stream and the repair of losses below some per cent, is made of short transforms here, see
//! [`Short`]. It gives what the crate gives, and the tests compare them.

use reed_solomon_simd::engine::{DefaultEngine, Engine, ShardsRefMut, tables, utils};
use reed_solomon_simd::rate::{
    DecoderWork, EncoderWork, LowRateDecoder, LowRateEncoder, RateDecoder, RateEncoder,
};
use thiserror::Error;

mod cauchy;

/// Repair symbols a sender makes at first.
pub const FIRST_REPAIR: u16 = 64;
/// Repair symbols of one block at most; then its source symbols come again.
pub const MAX_REPAIR: u16 = 4096;
/// Source symbols of one block at most.
pub const MAX_SOURCE: u16 = 16384;

/// Up to so many lost symbols are solved for one by one, which costs their square; transforms cost the same for any.
const DIRECT_MAX: usize = 40;
/// Up to so many lost symbols are solved for by short transforms. The factors of more cost more than the transforms of
/// the crate (docs/decisions/0007-repair-that-costs-what-was-lost.md).
const SHORT_MAX: usize = 256;
/// The shortest transform, in symbols: shorter ones save nothing.
const PIECE_MIN: usize = 16;
/// What the engine computes on at a time, in bytes.
const LANE: usize = 64;

type Lane = [u8; LANE];

/// Why a block cannot be encoded or decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FecError {
    /// Sizes outside the bounds of this file.
    #[error(
        "{source_symbols} source and {repair_symbols} repair symbols of {symbol_bytes} bytes are out of bounds"
    )]
    Bounds {
        /// Source symbols.
        source_symbols: usize,
        /// Repair symbols.
        repair_symbols: usize,
        /// Bytes of each.
        symbol_bytes: usize,
    },
    /// Source and repair symbols together are fewer than the block has source symbols.
    #[error("too few symbols")]
    TooFew,
    /// A symbol that this block cannot have, one given twice, or one of the wrong length.
    #[error("symbol {number} does not fit the block")]
    Symbol {
        /// Its number among the source or among the repair symbols.
        number: u16,
    },
}

/// An erasure code over the symbols of one block. Implementations keep working memory between calls.
pub trait Fec {
    /// The first `count` repair symbols of `source`, one after the other.
    /// `source` is k symbols of `symbol_bytes`, the last padded with zeros.
    fn encode(
        &mut self,
        source: &[u8],
        symbol_bytes: usize,
        count: u16,
    ) -> Result<Vec<u8>, FecError>;

    /// Fills in the source symbols that `present` says are lacking. `repair` names repair symbols, each
    /// once: its number in the stream, and the slot of `source` where it lies until it is replaced.
    fn decode(
        &mut self,
        source: &mut [u8],
        symbol_bytes: usize,
        present: &[bool],
        repair: &[(u16, u16)],
    ) -> Result<(), FecError>;
}

/// Reed-Solomon over GF(2^16), any k of the symbols suffice.
#[derive(Default)]
pub struct ReedSolomon {
    encoder: Option<EncoderWork>,
    decoder: Option<DecoderWork>,
    short: Short,
}

impl ReedSolomon {
    /// Without working memory; the first block allocates it.
    pub fn new() -> ReedSolomon {
        ReedSolomon::default()
    }
}

impl std::fmt::Debug for ReedSolomon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReedSolomon")
    }
}

impl Fec for ReedSolomon {
    fn encode(
        &mut self,
        source: &[u8],
        symbol_bytes: usize,
        count: u16,
    ) -> Result<Vec<u8>, FecError> {
        let k = check(source.len(), symbol_bytes, usize::from(count))?;
        if count == 0 {
            return Ok(Vec::new());
        }
        if usize::from(count) <= k.next_power_of_two() {
            let lanes = self.short.repair(source, symbol_bytes, usize::from(count));
            let mut repair = vec![0; usize::from(count) * symbol_bytes];
            let symbols = repair.chunks_exact_mut(symbol_bytes);
            symbols
                .zip(lanes.chunks_exact(symbol_bytes.div_ceil(LANE)))
                .for_each(|(symbol, lanes)| unlane(lanes, symbol));
            return Ok(repair);
        }
        let bounds = |_| bounds(k, usize::from(count), symbol_bytes);
        let work = self.encoder.take();
        let mut encoder = LowRateEncoder::new(
            k,
            usize::from(count),
            symbol_bytes,
            DefaultEngine::new(),
            work,
        )
        .map_err(bounds)?;
        for symbol in source.chunks_exact(symbol_bytes) {
            encoder.add_original_shard(symbol).map_err(bounds)?;
        }
        let mut repair = Vec::with_capacity(usize::from(count) * symbol_bytes);
        let encoded = encoder.encode().map_err(bounds)?;
        encoded
            .recovery_iter()
            .for_each(|symbol| repair.extend_from_slice(symbol));
        drop(encoded);
        self.encoder = Some(encoder.into_parts().1);
        Ok(repair)
    }

    fn decode(
        &mut self,
        source: &mut [u8],
        symbol_bytes: usize,
        present: &[bool],
        repair: &[(u16, u16)],
    ) -> Result<(), FecError> {
        // The decoder costs what the highest symbol asks for, so it is sized by what came.
        let highest = repair
            .iter()
            .map(|(number, _)| usize::from(*number) + 1)
            .max()
            .unwrap_or(0);
        let k = check(source.len(), symbol_bytes, highest)?;
        let have = present.iter().filter(|&&present| present).count();
        if present.len() != k || have + repair.len() < k {
            return Err(FecError::TooFew);
        }
        if have == k {
            return Ok(());
        }
        // The formulas hold in the first stretch of the stream.
        if k - have <= SHORT_MAX && highest <= k.next_power_of_two() {
            return self.solve(source, symbol_bytes, present, repair);
        }
        let work = self.decoder.take();
        let mut decoder = LowRateDecoder::new(k, highest, symbol_bytes, DefaultEngine::new(), work)
            .map_err(|_| bounds(k, highest, symbol_bytes))?;
        for (at, symbol) in source
            .chunks_exact(symbol_bytes)
            .enumerate()
            .filter(|(at, _)| present[*at])
        {
            decoder
                .add_original_shard(at, symbol)
                .map_err(|_| FecError::Symbol { number: at as u16 })?;
        }
        for &(number, slot) in repair {
            let lies = usize::from(slot) * symbol_bytes;
            let symbol = source
                .get(lies..lies + symbol_bytes)
                .ok_or(FecError::Symbol { number })?;
            decoder
                .add_recovery_shard(usize::from(number), symbol)
                .map_err(|_| FecError::Symbol { number })?;
        }
        let decoded = decoder.decode().map_err(|_| FecError::TooFew)?;
        for (at, symbol) in decoded.restored_original_iter() {
            source[at * symbol_bytes..][..symbol_bytes].copy_from_slice(symbol);
        }
        drop(decoded);
        self.decoder = Some(decoder.into_parts().1);
        Ok(())
    }
}

impl ReedSolomon {
    /// Decodes a block of few losses: what the repair symbols would be if the lost symbols were zeros, and from the
    /// difference the lost symbols.
    fn solve(
        &mut self,
        source: &mut [u8],
        symbol_bytes: usize,
        present: &[bool],
        repair: &[(u16, u16)],
    ) -> Result<(), FecError> {
        let lost: Vec<u16> = (0..present.len() as u16)
            .filter(|&slot| !present[usize::from(slot)])
            .collect();
        for (at, &(number, _)) in repair.iter().enumerate() {
            if repair[..at].iter().any(|&(before, _)| before == number) {
                return Err(FecError::Symbol { number });
            }
        }
        let repair = &repair[..lost.len()];
        let place =
            |slot: u16| usize::from(slot) * symbol_bytes..(usize::from(slot) + 1) * symbol_bytes;
        let mut came = Vec::with_capacity(lost.len());
        for &(number, slot) in repair {
            let symbol = source.get(place(slot)).ok_or(FecError::Symbol { number })?;
            came.push((number, lanes(symbol)));
        }
        for &slot in &lost {
            source[place(slot)].fill(0);
        }
        let first = present.len().next_power_of_two() as u16;
        let rows: Vec<u16> = repair.iter().map(|&(number, _)| first + number).collect();
        let log = &tables::get_exp_log().log;
        let inverse = cauchy::Inverse::new(&rows, &lost, |element| log[usize::from(element)]);
        self.short
            .syndromes(source, symbol_bytes, &mut came, &inverse.row_logs);
        let unknown = Unknown {
            slots: &lost,
            logs: &inverse.column_logs,
        };
        if lost.len() <= DIRECT_MAX {
            direct(source, symbol_bytes, &came, &unknown);
        } else {
            self.short.solve(source, symbol_bytes, &came, &unknown);
        }
        Ok(())
    }
}

/// What is solved for: slots of source symbols, and the logarithms of their factors.
struct Unknown<'a> {
    slots: &'a [u16],
    logs: &'a [u16],
}

/// Each lost symbol as the sum of all syndromes, each divided by the distance of the two.
fn direct(
    source: &mut [u8],
    symbol_bytes: usize,
    syndromes: &[(u16, Vec<Lane>)],
    unknown: &Unknown,
) {
    let first = (source.len() / symbol_bytes).next_power_of_two() as u16;
    let log = &tables::get_exp_log().log;
    let engine = DefaultEngine::new();
    let mut product = vec![[0; LANE]; symbol_bytes.div_ceil(LANE)];
    let mut sum = product.clone();
    for (&slot, &factor) in unknown.slots.iter().zip(unknown.logs) {
        sum.fill([0; LANE]);
        for (number, syndrome) in syndromes {
            product.copy_from_slice(syndrome);
            let distance = (first + number) ^ slot;
            engine.mul(&mut product, reciprocal(log[usize::from(distance)]));
            utils::xor(&mut sum, &product);
        }
        engine.mul(&mut sum, factor);
        unlane(
            &sum,
            &mut source[usize::from(slot) * symbol_bytes..][..symbol_bytes],
        );
    }
}

/// Sums over a block by transforms of a part of it at a time.
///
/// Repair symbol `y` is the sum of `source[x] / (x + y)` over all `x`. Take the part of the block whose numbers differ
/// in their last bits only, `x = a + v`, and as many repair symbols `y = b + v`: the transform from the one to the other
/// gives the sums over this part times `Z(a + b)`, where `Z` is zero on all `v`. In the basis of the crate `Z` cuts the
/// last bits off. So one division for each part, and the way to `y` is gone once, by the sum over all parts. The way
/// back, from syndromes of repair symbols to lost symbols, has sums of the same form.
#[derive(Default)]
struct Short {
    part: Vec<Lane>,
    sum: Vec<Lane>,
}

impl Short {
    /// The first `count` repair symbols of `source`, at least 1 and at most k rounded up to a power of two.
    fn repair(&mut self, source: &[u8], symbol_bytes: usize, count: usize) -> &[Lane] {
        let first = (source.len() / symbol_bytes).next_power_of_two();
        let size = count.next_power_of_two().max(PIECE_MIN).min(first);
        let lanes = symbol_bytes.div_ceil(LANE);
        let log = &tables::get_exp_log().log;
        let engine = DefaultEngine::new();
        self.part.resize(size * lanes, [0; LANE]);
        self.sum.clear();
        self.sum.resize(size * lanes, [0; LANE]);
        for (at, symbols) in source.chunks(size * symbol_bytes).enumerate() {
            let here = symbols.len() / symbol_bytes;
            let (part, rest) = self.part.split_at_mut(here * lanes);
            for (symbol, lanes) in symbols
                .chunks_exact(symbol_bytes)
                .zip(part.chunks_exact_mut(lanes))
            {
                enlane(symbol, lanes);
            }
            rest.fill([0; LANE]);
            let mut shards = ShardsRefMut::new(size, lanes, &mut self.part);
            engine.ifft(&mut shards, 0, size, here, at * size);
            engine.mul(&mut self.part, reciprocal(log[(first / size) ^ at]));
            utils::xor(&mut self.sum, &self.part);
        }
        let mut shards = ShardsRefMut::new(size, lanes, &mut self.sum);
        engine.fft(&mut shards, 0, size, count, first);
        &self.sum
    }

    /// Takes from each repair symbol that `came` what `source` explains of it, and multiplies the rest by its factor.
    fn syndromes(
        &mut self,
        source: &[u8],
        symbol_bytes: usize,
        came: &mut [(u16, Vec<Lane>)],
        logs: &[u16],
    ) {
        let highest = came.iter().map(|&(number, _)| number).max().unwrap_or(0);
        let lanes = symbol_bytes.div_ceil(LANE);
        let engine = DefaultEngine::new();
        let stream = self.repair(source, symbol_bytes, usize::from(highest) + 1);
        for ((number, symbol), &factor) in came.iter_mut().zip(logs) {
            utils::xor(symbol, &stream[usize::from(*number) * lanes..][..lanes]);
            engine.mul(symbol, factor);
        }
    }

    /// The lost symbols from their syndromes.
    fn solve(
        &mut self,
        source: &mut [u8],
        symbol_bytes: usize,
        syndromes: &[(u16, Vec<Lane>)],
        unknown: &Unknown,
    ) {
        let highest = syndromes.iter().map(|&(number, _)| number).max();
        let count = usize::from(highest.unwrap_or(0)) + 1;
        let k = source.len() / symbol_bytes;
        let first = k.next_power_of_two();
        let size = count.next_power_of_two().max(PIECE_MIN).min(first);
        let lanes = symbol_bytes.div_ceil(LANE);
        let log = &tables::get_exp_log().log;
        let engine = DefaultEngine::new();
        self.sum.fill([0; LANE]);
        for (number, syndrome) in syndromes {
            self.sum[usize::from(*number) * lanes..][..lanes].copy_from_slice(syndrome);
        }
        let mut shards = ShardsRefMut::new(size, lanes, &mut self.sum);
        engine.ifft(&mut shards, 0, size, count, first);
        let mut lost = unknown.slots.iter().zip(unknown.logs).peekable();
        while let Some((slot, _)) = lost.peek() {
            let at = usize::from(**slot) / size;
            self.part.copy_from_slice(&self.sum);
            let mut shards = ShardsRefMut::new(size, lanes, &mut self.part);
            engine.fft(&mut shards, 0, size, size.min(k - at * size), at * size);
            let share = reciprocal(log[(first / size) ^ at]);
            while let Some((&slot, &factor)) =
                lost.next_if(|&(&slot, _)| usize::from(slot) / size == at)
            {
                let symbol = &mut self.part[usize::from(slot) % size * lanes..][..lanes];
                let factor = (u32::from(factor) + u32::from(share)) % u32::from(cauchy::ORDER);
                engine.mul(symbol, factor as u16);
                unlane(
                    symbol,
                    &mut source[usize::from(slot) * symbol_bytes..][..symbol_bytes],
                );
            }
        }
    }
}

/// The logarithm of one divided by the element with this logarithm.
fn reciprocal(log: u16) -> u16 {
    (cauchy::ORDER - log) % cauchy::ORDER
}

/// A symbol as the engine lays it out: 32 low bytes of elements, then 32 high ones; of a shorter tail each half.
fn lanes(symbol: &[u8]) -> Vec<Lane> {
    let mut lanes = vec![[0; LANE]; symbol.len().div_ceil(LANE)];
    enlane(symbol, &mut lanes);
    lanes
}

/// Lays a symbol out in as many lanes as it takes.
fn enlane(symbol: &[u8], lanes: &mut [Lane]) {
    let (whole, tail) = symbol.split_at(symbol.len() / LANE * LANE);
    let (full, last) = lanes.split_at_mut(symbol.len() / LANE);
    full.as_flattened_mut().copy_from_slice(whole);
    if let [last] = last {
        let (low, high) = tail.split_at(tail.len() / 2);
        last.fill(0);
        last[..low.len()].copy_from_slice(low);
        last[LANE / 2..][..high.len()].copy_from_slice(high);
    }
}

/// The opposite of [`enlane`].
fn unlane(lanes: &[Lane], symbol: &mut [u8]) {
    let (full, last) = lanes.split_at(symbol.len() / LANE);
    let (whole, tail) = symbol.split_at_mut(full.len() * LANE);
    whole.copy_from_slice(full.as_flattened());
    if let [last] = last {
        let (low, high) = tail.split_at_mut(tail.len() / 2);
        low.copy_from_slice(&last[..low.len()]);
        high.copy_from_slice(&last[LANE / 2..][..high.len()]);
    }
}

/// Everything the crate assumes about sizes; returns k.
fn check(source_bytes: usize, symbol_bytes: usize, repair: usize) -> Result<usize, FecError> {
    if symbol_bytes == 0
        || !symbol_bytes.is_multiple_of(2)
        || !source_bytes.is_multiple_of(symbol_bytes)
    {
        return Err(bounds(0, repair, symbol_bytes));
    }
    let k = source_bytes / symbol_bytes;
    if k == 0 || k > usize::from(MAX_SOURCE) || repair > usize::from(MAX_REPAIR) {
        return Err(bounds(k, repair, symbol_bytes));
    }
    Ok(k)
}

fn bounds(source_symbols: usize, repair_symbols: usize, symbol_bytes: usize) -> FecError {
    FecError::Bounds {
        source_symbols,
        repair_symbols,
        symbol_bytes,
    }
}

#[cfg(test)]
mod tests;

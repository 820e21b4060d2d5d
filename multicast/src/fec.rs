//! Forward error correction: k source symbols of a block, and an extendable stream of repair symbols.
//!
//! The only file that names the FEC crate. Reed-Solomon at the crate's low rate has the property the
//! protocol rests on: a short repair stream is a prefix of a longer one, so fresh repair can be made at
//! any time. The crate panics on some arguments a peer could choose; every bound is checked here first.

use reed_solomon_simd::engine::{DefaultEngine, Engine, tables, utils};
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

/// Up to so many lost symbols are solved for directly, which costs a quarter of a decode with transforms (measured
/// at k = 723: 1.4 against 5.5 ms for 8 lost symbols).
const DIRECT_MAX: usize = 48;
/// What the engine computes on at a time, in bytes.
const LANE: usize = 64;

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
        // The formula of the direct way holds in the first stretch of the stream.
        if k - have <= DIRECT_MAX && highest <= k.next_power_of_two() {
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
        let mut syndromes = Vec::with_capacity(lost.len());
        for &(number, slot) in repair {
            let symbol = source.get(place(slot)).ok_or(FecError::Symbol { number })?;
            syndromes.push(lanes(symbol));
        }
        for &slot in &lost {
            source[place(slot)].fill(0);
        }
        let highest = repair.iter().map(|&(number, _)| number).max().unwrap_or(0);
        let stream = self.encode(source, symbol_bytes, highest + 1)?;
        for (syndrome, &(number, _)) in syndromes.iter_mut().zip(repair) {
            utils::xor(syndrome, &lanes(&stream[place(number)]));
        }

        let first = present.len().next_power_of_two() as u16;
        let rows: Vec<u16> = repair.iter().map(|&(number, _)| first + number).collect();
        let log = &tables::get_exp_log().log;
        let inverse = cauchy::inverse_logs(&rows, &lost, |element| log[usize::from(element)]);
        let engine = DefaultEngine::new();
        let mut product = lanes(&source[..symbol_bytes]);
        for (&slot, factors) in lost.iter().zip(inverse.chunks_exact(lost.len())) {
            let mut sum = vec![[0; LANE]; product.len()];
            for (syndrome, &factor) in syndromes.iter().zip(factors) {
                product.copy_from_slice(syndrome);
                engine.mul(&mut product, factor);
                utils::xor(&mut sum, &product);
            }
            unlane(&sum, &mut source[place(slot)]);
        }
        Ok(())
    }
}

/// A symbol as the engine lays it out: 32 low bytes of elements, then 32 high ones; of a shorter tail each half.
fn lanes(symbol: &[u8]) -> Vec<[u8; LANE]> {
    let mut lanes = vec![[0; LANE]; symbol.len().div_ceil(LANE)];
    for (lane, piece) in lanes.iter_mut().zip(symbol.chunks(LANE)) {
        let (low, high) = piece.split_at(piece.len() / 2);
        lane[..low.len()].copy_from_slice(low);
        lane[LANE / 2..][..high.len()].copy_from_slice(high);
    }
    lanes
}

/// The opposite of [`lanes`].
fn unlane(lanes: &[[u8; LANE]], symbol: &mut [u8]) {
    for (lane, piece) in lanes.iter().zip(symbol.chunks_mut(LANE)) {
        let (low, high) = piece.split_at_mut(piece.len() / 2);
        low.copy_from_slice(&lane[..low.len()]);
        high.copy_from_slice(&lane[LANE / 2..][..high.len()]);
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
mod tests {
    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, proptest};

    use super::*;

    fn symbols(k: usize, symbol_bytes: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..k * symbol_bytes).map(|_| next()).collect()
    }

    /// Which of `k` source symbols are lost, and numbers of as many repair symbols.
    fn losses() -> impl Strategy<Value = (usize, Vec<u16>, Vec<u16>)> {
        (1..300_usize).prop_flat_map(|k| {
            let all: Vec<u16> = (0..k as u16).collect();
            let stream: Vec<u16> = (0..512).collect();
            (Just(k), 0..=k).prop_flat_map(move |(k, lost)| {
                let lost_symbols = proptest::sample::subsequence(all.clone(), lost);
                (
                    Just(k),
                    lost_symbols,
                    proptest::sample::subsequence(stream.clone(), lost),
                )
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_k_symbols_give_the_source((k, lost, numbers) in losses(), seed in any::<u64>()) {
            const SYMBOL: usize = 64;
            let mut fec = ReedSolomon::new();
            let source = symbols(k, SYMBOL, seed);
            let stream = fec.encode(&source, SYMBOL, 512).unwrap();
            let mut damaged = source.clone();
            let mut present = vec![true; k];
            let mut repair = Vec::new();
            for (&slot, &number) in lost.iter().zip(&numbers) {
                present[usize::from(slot)] = false;
                let symbol = &stream[usize::from(number) * SYMBOL..][..SYMBOL];
                damaged[usize::from(slot) * SYMBOL..][..SYMBOL].copy_from_slice(symbol);
                repair.push((number, slot));
            }
            fec.decode(&mut damaged, SYMBOL, &present, &repair).unwrap();
            prop_assert_eq!(damaged, source);
        }

        #[test]
        fn few_losses_are_mended_by_any_early_repair(
            k in 64..1100_usize,
            lost in proptest::collection::btree_set(0..64_u16, 1..=DIRECT_MAX),
            numbers in proptest::sample::subsequence((0..64_u16).collect::<Vec<_>>(), DIRECT_MAX),
            seed in any::<u64>(),
        ) {
            // Not a multiple of the engine's 64 bytes.
            const SYMBOL: usize = 90;
            let mut fec = ReedSolomon::new();
            let source = symbols(k, SYMBOL, seed);
            let stream = fec.encode(&source, SYMBOL, 64).unwrap();
            let (mut damaged, mut present, mut repair) = (source.clone(), vec![true; k], Vec::new());
            for (&lost, &number) in lost.iter().zip(&numbers) {
                let slot = usize::from(lost) * (k - 1) / 63;
                present[slot] = false;
                let symbol = &stream[usize::from(number) * SYMBOL..][..SYMBOL];
                damaged[slot * SYMBOL..][..SYMBOL].copy_from_slice(symbol);
                repair.push((number, slot as u16));
            }
            fec.decode(&mut damaged, SYMBOL, &present, &repair).unwrap();
            prop_assert_eq!(damaged, source);
        }

        #[test]
        fn a_short_repair_stream_is_a_prefix_of_a_long_one(k in 1..200_usize, seed in any::<u64>()) {
            let source = symbols(k, 2, seed);
            let mut fec = ReedSolomon::new();
            let long = fec.encode(&source, 2, MAX_REPAIR).unwrap();
            for count in [1, FIRST_REPAIR, 2 * FIRST_REPAIR, 1000] {
                let short = fec.encode(&source, 2, count).unwrap();
                prop_assert_eq!(&long[..short.len()], &short[..]);
            }
        }
    }

    #[test]
    fn arguments_out_of_bounds_are_errors_and_never_panics() {
        let mut fec = ReedSolomon::new();
        assert!(fec.encode(&[0; 9], 3, 1).is_err());
        assert!(fec.encode(&[0; 9], 2, 1).is_err());
        assert!(fec.encode(&[], 2, 1).is_err());
        assert!(fec.encode(&[0; 8], 0, 1).is_err());
        assert!(fec.encode(&[0; 8], 2, MAX_REPAIR + 1).is_err());
        let present = [true, true, true, false];
        assert_eq!(
            fec.decode(&mut [0; 8], 2, &present, &[]),
            Err(FecError::TooFew)
        );
        assert!(
            fec.decode(&mut [0; 8], 2, &present, &[(MAX_REPAIR, 3)])
                .is_err()
        );
        assert!(fec.decode(&mut [0; 8], 2, &present, &[(0, 4)]).is_err());
        assert!(
            fec.decode(&mut [0; 8], 2, &present, &[(0, 3), (0, 3)])
                .is_err()
        );
        assert!(
            fec.decode(&mut [0; 8], 2, &present[..3], &[(0, 3)])
                .is_err()
        );
    }
}

//! Any k symbols give the block, and short transforms give what the crate gives.

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
    fn losses_are_mended_by_any_early_repair(
        k in 256..1100_usize,
        lost in proptest::collection::btree_set(0..256_u16, 1..=128),
        numbers in proptest::sample::subsequence((0..200_u16).collect::<Vec<_>>(), 128),
        seed in any::<u64>(),
    ) {
        // Not a multiple of the engine's 64 bytes.
        const SYMBOL: usize = 90;
        let mut fec = ReedSolomon::new();
        let source = symbols(k, SYMBOL, seed);
        let stream = fec.encode(&source, SYMBOL, 200).unwrap();
        let (mut damaged, mut present, mut repair) = (source.clone(), vec![true; k], Vec::new());
        for (&lost, &number) in lost.iter().zip(&numbers) {
            let slot = usize::from(lost) * (k - 1) / 255;
            present[slot] = false;
            let symbol = &stream[usize::from(number) * SYMBOL..][..SYMBOL];
            damaged[slot * SYMBOL..][..SYMBOL].copy_from_slice(symbol);
            repair.push((number, slot as u16));
        }
        fec.decode(&mut damaged, SYMBOL, &present, &repair).unwrap();
        prop_assert_eq!(damaged, source);
    }

    #[test]
    fn short_transforms_give_the_stream_of_the_crate(
        k in 1..1100_usize,
        count in 1..600_usize,
        lanes in 1..4_usize,
        tail in 0..32_usize,
        seed in any::<u64>(),
    ) {
        let symbol_bytes = lanes * LANE - 2 * tail;
        let source = symbols(k, symbol_bytes, seed);
        let count = count.min(k.next_power_of_two());
        let engine = DefaultEngine::new();
        let mut encoder = LowRateEncoder::new(k, count, symbol_bytes, engine, None).unwrap();
        for symbol in source.chunks_exact(symbol_bytes) {
            encoder.add_original_shard(symbol).unwrap();
        }
        let stream: Vec<u8> = encoder.encode().unwrap().recovery_iter().flatten().copied().collect();
        let made = ReedSolomon::new().encode(&source, symbol_bytes, count as u16).unwrap();
        prop_assert_eq!(made, stream);
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

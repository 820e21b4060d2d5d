//! The erasure code alone, beside the decoder of the crate it is made with.

use std::{
    fmt::Write,
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use netflash_multicast::{Fec, ReedSolomon};
use reed_solomon_simd::{
    engine::DefaultEngine,
    rate::{LowRateDecoder, LowRateEncoder, RateDecoder, RateEncoder},
};

use crate::{case::Case, report};

/// Bytes of a symbol at an MTU of 1500.
const SYMBOL: usize = 1452;
/// Source symbols of a block.
const SIZES: [usize; 3] = [250, 500, 1000];
/// Losses, in per cent.
const LOSSES: [f64; 4] = [0.5, 1.0, 5.0, 20.0];
/// Machines of the room whose unluckiest counts.
const ROOM: i32 = 100;
/// How long each figure is looked for.
const PATIENCE: Duration = Duration::from_millis(150);

/// The section of the document.
pub(crate) fn section() -> Result<String> {
    let mut rows = String::new();
    for k in SIZES {
        let source = noise(k * SYMBOL);
        for loss in LOSSES {
            let wire = wire(ROOM, loss / 100.0, k as i32);
            let lost = (k as f64 * loss / 100.0).ceil() as usize;
            let row = row(&source, lost).context("coding")?;
            writeln!(
                rows,
                "| {k} | {loss} % | {lost} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {wire:.3} |",
                row.encode_theirs,
                row.encode_ours,
                row.decode_theirs,
                row.decode_ours,
                (k * SYMBOL) as f64 / 1e3 / row.decode_ours
            )?;
        }
    }
    let head = "| k | loss | lost symbols | encode, transforms | encode, ours | decode, transforms | decode, ours \
                | ours, MB/s | wire, 100 machines |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    report::frame(Case::Code, &format!("{head}{rows}"))
}

/// Milliseconds.
struct Row {
    encode_theirs: f64,
    encode_ours: f64,
    decode_theirs: f64,
    decode_ours: f64,
}

fn row(source: &[u8], lost: usize) -> Result<Row> {
    let k = source.len() / SYMBOL;
    let mut fec = ReedSolomon::new();
    let stream = fec.encode(source, SYMBOL, lost as u16)?;
    let slots: Vec<usize> = (0..lost).map(|at| at * k / lost).collect();
    let mut present = vec![true; k];
    slots.iter().for_each(|&slot| present[slot] = false);
    let repair: Vec<(u16, u16)> = (0..).zip(slots.iter().map(|&slot| slot as u16)).collect();
    let damaged = || {
        let mut damaged = source.to_vec();
        for (&slot, symbol) in slots.iter().zip(stream.chunks_exact(SYMBOL)) {
            damaged[slot * SYMBOL..][..SYMBOL].copy_from_slice(symbol);
        }
        damaged
    };
    let decode_ours = best(damaged, |mut damaged| {
        fec.decode(&mut damaged, SYMBOL, &present, &repair)?;
        anyhow::ensure!(damaged == source, "decoded wrongly");
        Ok(damaged)
    })?;
    let encode_ours = best(|| (), |()| Ok(fec.encode(source, SYMBOL, lost as u16)?))?;
    let encode_theirs = best(
        || (),
        |()| {
            let mut encoder = LowRateEncoder::new(k, lost, SYMBOL, DefaultEngine::new(), None)?;
            for symbol in source.chunks_exact(SYMBOL) {
                encoder.add_original_shard(symbol)?;
            }
            let encoded = encoder.encode()?;
            Ok(encoded.recovery_iter().map(<[u8]>::len).sum::<usize>())
        },
    )?;
    let decode_theirs = best(damaged, |mut damaged| {
        let mut decoder = LowRateDecoder::new(k, lost, SYMBOL, DefaultEngine::new(), None)?;
        for (at, symbol) in damaged.chunks_exact(SYMBOL).enumerate() {
            match slots.binary_search(&at) {
                Ok(number) => decoder.add_recovery_shard(number, symbol)?,
                Err(_) => decoder.add_original_shard(at, symbol)?,
            }
        }
        let decoded = decoder.decode()?;
        for (at, symbol) in decoded.restored_original_iter() {
            damaged[at * SYMBOL..][..SYMBOL].copy_from_slice(symbol);
        }
        anyhow::ensure!(damaged == source, "decoded wrongly");
        Ok(damaged)
    })?;
    Ok(Row {
        encode_theirs,
        encode_ours,
        decode_theirs,
        decode_ours,
    })
}

/// The shortest of many runs, in milliseconds. What `prepare` does is not counted.
fn best<T, R>(prepare: impl Fn() -> T, mut run: impl FnMut(T) -> Result<R>) -> Result<f64> {
    let end = Instant::now() + PATIENCE;
    let mut best = f64::INFINITY;
    while Instant::now() < end {
        let prepared = prepare();
        let start = Instant::now();
        black_box(run(prepared)?);
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}

/// Symbols sent for each source symbol until the unluckiest of `machines` has k: the expected maximum of as many
/// negative binomial draws.
fn wire(machines: i32, loss: f64, k: i32) -> f64 {
    let mut log = f64::from(k) * (-loss).ln_1p();
    let (mut had, mut sent, mut expected) = (0.0_f64, k, f64::from(k));
    loop {
        had += log.exp();
        let lacking = 1.0 - had.min(1.0).powi(machines);
        expected += lacking;
        if lacking < 1e-9 {
            return expected / f64::from(k);
        }
        log += loss.ln() + f64::from(sent).ln() - f64::from(sent - k + 1).ln();
        sent += 1;
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

//! Foreign disks whose checksums are right, whatever else is wrong with them.

/// How a VHDX is written down for the fuzzer: first this byte, then 512 bytes for each of its
/// structures, which lie far apart in the file.
pub const VHDX: u8 = 0xfe;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const PIECE: usize = 512;
/// Header, regions, block table, metadata table, metadata items: where `qemu-img` has them.
const PLACES: [usize; 5] = [64 * KIB, 192 * KIB, 2 * MIB, 3 * MIB, 3 * MIB + 64 * KIB];
/// What the checksum of the first two is taken of.
const SUMMED: [usize; 2] = [4 * KIB, 64 * KIB];
/// Bytes of a whole VHDX here.
const VHDX_BYTES: usize = 4 * MIB;

/// What stands where in the file that `bytes` stand for; the rest is zeros.
pub fn laid_out(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let Some((&VHDX, pieces)) = bytes.split_first() else {
        return vec![(0, summed(bytes.to_vec()))];
    };
    let mut file = vec![(0, b"vhdxfile".to_vec()), (VHDX_BYTES as u64 - 1, vec![0])];
    for (index, (piece, place)) in pieces.chunks(PIECE).zip(PLACES).enumerate() {
        let mut piece = piece.to_vec();
        if let Some(&bytes) = SUMMED.get(index) {
            piece.resize(bytes, 0);
            sum_vhdx(&mut piece);
        }
        file.push((place as u64, piece));
    }
    file
}

/// A file of any other format with its checksums put right.
fn summed(mut file: Vec<u8>) -> Vec<u8> {
    if file.starts_with(b"partclone-image") && file.len() > 110 {
        let crc = !crc32fast::hash(&file[..106]);
        file[106..110].copy_from_slice(&crc.to_le_bytes());
        sum_map(&mut file);
    }
    if file.starts_with(b"conectix") && file.len() >= 512 {
        let at = u64::from_be_bytes(file[16..24].try_into().expect("eight bytes"));
        sum_vhd(&mut file[..512], 64);
        if let Some(header) = file.get_mut(at as usize..).and_then(|f| f.get_mut(..1024)) {
            sum_vhd(header, 36);
        }
    }
    if file.get(257..262) == Some(b"ustar") {
        for header in file
            .chunks_exact_mut(512)
            .filter(|h| &h[257..262] == b"ustar")
        {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    file
}

/// The checksum behind the block map of a partclone file.
fn sum_map(file: &mut [u8]) {
    let blocks = u64::from_le_bytes(file[60..68].try_into().expect("eight bytes"));
    let end = usize::try_from(blocks.div_ceil(8))
        .ok()
        .and_then(|map| map.checked_add(110));
    let Some(end) = end.filter(|end| end.checked_add(4).is_some_and(|end| end <= file.len()))
    else {
        return;
    };
    let crc = !crc32fast::hash(&file[110..end]);
    file[end..end + 4].copy_from_slice(&crc.to_le_bytes());
}

fn sum_vhd(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let sum: u32 = bytes.iter().map(|&byte| u32::from(byte)).sum();
    bytes[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
}

fn sum_vhdx(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let mut crc = u32::MAX;
    for byte in bytes.iter() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    bytes[4..8].copy_from_slice(&(!crc).to_le_bytes());
}

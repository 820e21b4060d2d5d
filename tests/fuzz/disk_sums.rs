//! Foreign disks whose checksums are right, whatever else is wrong with them.

/// How a directory of Clonezilla is written down for the fuzzer: first this byte, then for each file
/// a byte and two, how long its name and its content are, and both.
pub const DIRECTORY: u8 = 0xfb;

/// How a VHDX is written down for the fuzzer: first this byte, then 512 bytes for each of its
/// structures, which lie far apart in the file.
pub const VHDX: u8 = 0xfe;

/// How a file of mostly zeros is written down: first this byte, then for each sector that is none
/// its number in three bytes, and the sector.
pub const SECTORS: u8 = 0xfc;

const SECTOR: usize = 512;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const PIECE: usize = 512;
/// Header, regions, block table, metadata table, metadata items: where `qemu-img` has them.
const PLACES: [usize; 5] = [64 * KIB, 192 * KIB, 2 * MIB, 3 * MIB, 3 * MIB + 64 * KIB];
/// What the checksum of the first two is taken of.
const SUMMED: [usize; 2] = [4 * KIB, 64 * KIB];
/// Bytes of a whole VHDX here.
const VHDX_BYTES: usize = 16 * MIB;

/// The files of the directory that `bytes` stand for, with their checksums put right; none when they
/// stand for a file.
pub fn directory(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let (&DIRECTORY, mut rest) = bytes.split_first()? else {
        return None;
    };
    let mut files = Vec::new();
    while let Some((head, behind)) = rest.split_at_checked(3) {
        let (name, content) = (usize::from(head[0]), u16::from_le_bytes([head[1], head[2]]));
        let (name, behind) = behind.split_at(name.min(behind.len()));
        let (content, behind) = behind.split_at(usize::from(content).min(behind.len()));
        let plain = name.iter().map(|&byte| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' => char::from(byte),
            _ => '_',
        });
        files.push((plain.collect(), summed(content.to_vec())));
        rest = behind;
    }
    Some(files)
}

/// What stands where in the file that `bytes` stand for; the rest is zeros.
pub fn laid_out(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    if let Some((&SECTORS, sectors)) = bytes.split_first() {
        let placed = sectors.chunks(3 + SECTOR).filter(|chunk| chunk.len() > 3);
        let placed = placed.map(|chunk| {
            let number = u64::from(u32::from_le_bytes([chunk[0], chunk[1], chunk[2], 0]));
            (number * SECTOR as u64, summed(chunk[3..].to_vec()))
        });
        return placed.collect();
    }
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
    if file.starts_with(b"\xfd7zXZ\0") {
        sum_xz(&mut file);
    }
    if file.starts_with(b"conectix") && file.len() >= SECTOR {
        let at = u64::from_be_bytes(file[16..24].try_into().expect("eight bytes"));
        sum_vhd(&mut file[..SECTOR], 64);
        if let Some(header) = file.get_mut(at as usize..).and_then(|f| f.get_mut(..1024)) {
            sum_vhd(header, 36);
        }
    }
    // What `sgdisk` keeps of a GPT: protective MBR, header, its backup, entries; or the disk's start.
    for entries in [3 * 512, 2 * 512] {
        if file.get(512..520) == Some(b"EFI PART") && file.len() > entries {
            let bytes = file.len().min(entries + 128 * 128);
            let crc = crc32fast::hash(&file[entries..bytes]);
            file[512 + 88..512 + 92].copy_from_slice(&crc.to_le_bytes());
            file[512 + 16..512 + 20].fill(0);
            let crc = crc32fast::hash(&file[512..512 + 92]);
            file[512 + 16..512 + 20].copy_from_slice(&crc.to_le_bytes());
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

/// The checksums of the stream's header, and of the header of its first block.
fn sum_xz(file: &mut [u8]) {
    if file.len() < 13 {
        return;
    }
    let crc = crc32fast::hash(&file[6..8]);
    file[8..12].copy_from_slice(&crc.to_le_bytes());
    let end = 12 + 4 * usize::from(file[12]);
    if file.len() >= end + 4 {
        let crc = crc32fast::hash(&file[12..end]);
        file[end..end + 4].copy_from_slice(&crc.to_le_bytes());
    }
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

//! The two checksums of Linux file systems that no crate at hand computes.

const CRC32C: u32 = 0x82f6_3b78;
const CRC16: u16 = 0xa001;

/// CRC-32C (Castagnoli, reflected) continued from `crc`, without a final inversion.
pub(super) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| {
        TABLE32[usize::from(crc as u8 ^ byte)] ^ crc >> 8
    })
}

/// CRC-32C of a structure in which the checksum itself, 4 bytes at `hole`, counts as zeros.
pub(super) fn crc32c_around(bytes: &[u8], hole: usize) -> u32 {
    let (before, rest) = bytes.split_at(hole.min(bytes.len()));
    let after = rest.get(4..).unwrap_or_default();
    !crc32c(crc32c(crc32c(!0, before), &[0; 4]), after)
}

/// CRC-16 (ANSI, reflected) continued from `crc`.
pub(super) fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { CRC16 } else { 0 }
        })
    })
}

static TABLE32: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { CRC32C } else { 0 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_values_of_both_polynomials_hold() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(
            crc32c_around(b"12\x99\x99\x99\x9989", 2),
            !crc32c(!0, b"12\0\0\0\089")
        );
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
    }
}

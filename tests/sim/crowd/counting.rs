//! A code that counts: k symbols of any kind are a block, whatever is in them.

use netflash_multicast::{Fec, FecError};

/// Stands for a code of which any k symbols suffice. It computes nothing, so only a room in which nobody looks at
/// the bytes can use it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

impl Fec for Counting {
    fn encode(
        &mut self,
        _source: &[u8],
        symbol_bytes: usize,
        count: u16,
    ) -> Result<Vec<u8>, FecError> {
        Ok(vec![0; symbol_bytes * usize::from(count)])
    }

    fn decode(
        &mut self,
        _source: &mut [u8],
        _symbol_bytes: usize,
        present: &[bool],
        repair: &[(u16, u16)],
    ) -> Result<(), FecError> {
        let have = present.iter().filter(|&&present| present).count();
        if have + repair.len() < present.len() {
            return Err(FecError::TooFew);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_than_k_symbols_are_too_few() {
        let present = [true, false, false];
        let decode = |repair| Counting.decode(&mut [0; 6], 2, &present, repair);
        assert_eq!(decode(&[(0, 1)]), Err(FecError::TooFew));
        assert_eq!(decode(&[(0, 1), (7, 2)]), Ok(()));
    }
}

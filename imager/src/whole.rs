//! Partitions that a person wants byte for byte, whatever their file systems say.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Which partitions are kept whole without their file systems being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole {
    /// These, by the numbers the Linux kernel gives them.
    Partitions(BTreeSet<u32>),
    /// Every one; only gaps between partitions are left out.
    All,
}

impl Whole {
    /// Whether partition `number` is one of them.
    pub fn has(&self, number: u32) -> bool {
        match self {
            Whole::Partitions(numbers) => numbers.contains(&number),
            Whole::All => true,
        }
    }

    /// The numbers asked for that are not among `there`.
    pub(crate) fn absent(&self, there: &[u32]) -> Option<u32> {
        match self {
            Whole::Partitions(numbers) => numbers.iter().copied().find(|n| !there.contains(n)),
            Whole::All => None,
        }
    }
}

impl Default for Whole {
    fn default() -> Whole {
        Whole::Partitions(BTreeSet::new())
    }
}

/// A text that names no partitions.
#[derive(Debug, Error)]
#[error("{0:?} is neither a partition number nor `all`; write --whole=2,3 or --whole=all")]
pub struct WholeError(String);

impl fmt::Display for Whole {
    /// As [`Whole::from_str`] reads it; nothing for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whole::Partitions(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
                f.pad(&numbers.join(","))
            }
            Whole::All => f.pad("all"),
        }
    }
}

impl FromStr for Whole {
    type Err = WholeError;

    /// Reads `all`, or numbers with commas between them.
    fn from_str(text: &str) -> Result<Whole, WholeError> {
        if text == "all" {
            return Ok(Whole::All);
        }
        let number = |word: &str| word.parse().map_err(|_| WholeError(word.to_owned()));
        text.split(',')
            .map(number)
            .collect::<Result<_, _>>()
            .map(Whole::Partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_all_are_understood_and_nothing_else() {
        let two: Whole = "2,5".parse().unwrap();
        assert_eq!([1, 2, 5].map(|number| two.has(number)), [false, true, true]);
        assert_eq!((two.absent(&[1, 2]), two.absent(&[2, 5])), (Some(5), None));
        assert_eq!(two.to_string(), "2,5");
        assert!("all".parse::<Whole>().unwrap().has(77));
        assert!(!Whole::default().has(0));
        for text in ["", "2,", "2 3", "ALL", "-1", "root"] {
            assert!(text.parse::<Whole>().is_err(), "{text:?}");
        }
    }
}

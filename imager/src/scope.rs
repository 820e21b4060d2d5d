//! Which partitions of a disk a deploy is about.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Partitions by the numbers the Linux kernel gives them: at least one, and no number twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionSet(BTreeSet<u32>);

/// A text or list that names no partitions.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PartitionSetError {
    /// Not a number.
    #[error("{0:?} is not the number of a partition; write numbers from 1 on, as in 1,2")]
    NotANumber(String),
    /// No number at all, or too many.
    #[error("{0} partitions are named; name 1 to {max}", max = PartitionSet::NUMBERS_MAX)]
    Count(usize),
}

impl PartitionSet {
    /// Most partitions in a set.
    pub const NUMBERS_MAX: usize = 128;

    /// The set of `numbers`.
    ///
    /// # Errors
    /// When there is none, more than [`PartitionSet::NUMBERS_MAX`], or one is 0.
    pub fn new(numbers: impl IntoIterator<Item = u32>) -> Result<PartitionSet, PartitionSetError> {
        let mut set = BTreeSet::new();
        for number in numbers {
            if number == 0 {
                return Err(PartitionSetError::NotANumber(number.to_string()));
            }
            set.insert(number);
            if set.len() > Self::NUMBERS_MAX {
                return Err(PartitionSetError::Count(set.len()));
            }
        }
        if set.is_empty() {
            return Err(PartitionSetError::Count(0));
        }
        Ok(PartitionSet(set))
    }

    /// Whether partition `number` is in it.
    pub fn has(&self, number: u32) -> bool {
        self.0.contains(&number)
    }

    /// The numbers, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }
}

impl fmt::Display for PartitionSet {
    /// As [`PartitionSet::from_str`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.pad(&numbers.join(","))
    }
}

impl FromStr for PartitionSet {
    type Err = PartitionSetError;

    /// Reads numbers with commas between them.
    fn from_str(text: &str) -> Result<PartitionSet, PartitionSetError> {
        let number = |word: &str| match word.parse() {
            Ok(number) => Ok(number),
            Err(_) => Err(PartitionSetError::NotANumber(word.to_owned())),
        };
        let numbers: Vec<u32> = text.split(',').map(number).collect::<Result<_, _>>()?;
        PartitionSet::new(numbers)
    }
}

/// What of a disk a deploy may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All of it, tables included.
    #[default]
    Whole,
    /// These partitions; the table of the disk stays, and must be that of the image.
    Only(PartitionSet),
    /// Everything the image has but these partitions; the table of the disk stays, and must be that of the image.
    Keep(PartitionSet),
}

/// Numbers that are no scope.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScopeError {
    /// Two wishes that exclude each other.
    #[error("partitions are either written alone or kept; choose one of the two")]
    Both,
    /// Numbers that no partition has.
    #[error(transparent)]
    Set(#[from] PartitionSetError),
}

impl Scope {
    /// The scope of an order: partitions to be written alone or to be kept; without any, the whole disk.
    ///
    /// # Errors
    /// When both kinds are given, or a number that no partition has.
    pub fn of(only: &[u32], keep: &[u32]) -> Result<Scope, ScopeError> {
        let set = |numbers: &[u32]| PartitionSet::new(numbers.iter().copied());
        match (only, keep) {
            ([], []) => Ok(Scope::Whole),
            (only, []) => Ok(Scope::Only(set(only)?)),
            ([], keep) => Ok(Scope::Keep(set(keep)?)),
            _ => Err(ScopeError::Both),
        }
    }

    /// Whether it is all of the disk.
    pub fn is_whole(&self) -> bool {
        *self == Scope::Whole
    }

    /// Whether partition `number` may be written.
    pub fn has(&self, number: u32) -> bool {
        match self {
            Scope::Whole => true,
            Scope::Only(only) => only.has(number),
            Scope::Keep(keep) => !keep.has(number),
        }
    }
}

impl fmt::Display for Scope {
    /// As an operator says it: `all`, `only 1,2`, `all but 4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Whole => f.write_str("all"),
            Scope::Only(only) => write!(f, "only {only}"),
            Scope::Keep(keep) => write!(f, "all but {keep}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> PartitionSet {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_are_understood_and_nothing_else() {
        assert_eq!(set("5,2,2").to_string(), "2,5");
        assert!(set("1").has(1) && !set("1").has(2));
        for text in ["", "0", "1,", "1 2", "-1", "all", "4294967296"] {
            assert!(text.parse::<PartitionSet>().is_err(), "{text:?}");
        }
        assert_eq!(PartitionSet::new([]), Err(PartitionSetError::Count(0)));
        assert!(PartitionSet::new(1..=129).is_err());
    }

    #[test]
    fn a_scope_is_one_wish_at_most() {
        assert_eq!(Scope::of(&[], &[]), Ok(Scope::Whole));
        assert_eq!(Scope::of(&[1], &[2]), Err(ScopeError::Both));
        assert!(matches!(Scope::of(&[0], &[]), Err(ScopeError::Set(_))));
        let only = Scope::of(&[1], &[]).unwrap();
        let keep = Scope::of(&[], &[2]).unwrap();
        assert_eq!([1, 2].map(|number| only.has(number)), [true, false]);
        assert_eq!([1, 2].map(|number| keep.has(number)), [true, false]);
        let words = [Scope::Whole, only, keep].map(|scope| scope.to_string());
        assert_eq!(words, ["all", "only 1", "all but 2"]);
    }
}

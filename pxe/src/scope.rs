//! Which partitions of a disk a flash is about.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What of the disk a flash writes: all of it, unless partitions are named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlashScope {
    /// These partitions and nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<u32>,
    /// All but these partitions and the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<u32>,
    /// Partitions that the image was made without may stay as they are on a disk that is written whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

impl FlashScope {
    /// Whether the whole disk is written as an image that has all of it.
    pub fn is_plain(&self) -> bool {
        *self == FlashScope::default()
    }
}

impl fmt::Display for FlashScope {
    /// As an operator says it: `all`, `only 1,2`, `all but 4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: &[u32]| {
            let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
            numbers.join(",")
        };
        match (self.only.as_slice(), self.keep.as_slice()) {
            ([], []) if self.incomplete => f.write_str("all but what the image lacks"),
            ([], []) => f.write_str("all"),
            ([], keep) => write!(f, "all but {}", list(keep)),
            (only, _) => write!(f, "only {}", list(only)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_named_is_the_whole_disk_and_a_word_misspelt_is_refused() {
        let plain: FlashScope = serde_json::from_str("{}").unwrap();
        assert!(plain.is_plain());
        assert!(serde_json::from_str::<FlashScope>(r#"{"onyl":[1]}"#).is_err());
    }

    #[test]
    fn it_is_said_in_an_operators_words() {
        let scope = |only: &[u32], keep: &[u32], incomplete| FlashScope {
            only: only.to_vec(),
            keep: keep.to_vec(),
            incomplete,
        };
        let said = [
            scope(&[], &[], false),
            scope(&[1, 2], &[], false),
            scope(&[], &[4], false),
            scope(&[], &[], true),
        ]
        .map(|scope| scope.to_string());
        let words = [
            "all",
            "only 1,2",
            "all but 4",
            "all but what the image lacks",
        ];
        assert_eq!(said, words);
    }
}

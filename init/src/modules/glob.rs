//! The shell patterns of `modules.alias`: `*`, `?` and `[abc]`, nothing else.

/// Whether `text` as a whole matches `pattern`.
///
/// Never backtracks further than the last `*`, so a hostile pattern costs at most
/// pattern × text steps.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some(next) = one(pattern, p, text[t]) {
            p = next;
            t += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            p = after;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// Matches one byte at `pattern[at]`; where the pattern goes on, or nothing.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match *pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => match pattern[at..].iter().position(|&b| b == b']') {
            Some(length) => {
                let set = &pattern[at + 1..at + length];
                in_set(set, byte).then_some(at + length + 1)
            }
            // An unclosed bracket stands for itself.
            None => (byte == b'[').then_some(at + 1),
        },
        literal => (literal == byte).then_some(at + 1),
    }
}

/// `abc` and `a-f`, both as the kernel's tools write them.
fn in_set(set: &[u8], byte: u8) -> bool {
    let mut rest = set;
    while let [first, tail @ ..] = rest {
        if let [b'-', last, after @ ..] = tail {
            if (*first..=*last).contains(&byte) {
                return true;
            }
            rest = after;
        } else {
            if *first == byte {
                return true;
            }
            rest = tail;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The obvious, exponential way.
    fn slow(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                slow(rest, text) || (!text.is_empty() && slow(pattern, &text[1..]))
            }
            ([_, ..], [byte, tail @ ..]) => {
                one(pattern, 0, *byte).is_some_and(|next| slow(&pattern[next..], tail))
            }
            _ => false,
        }
    }

    #[test]
    fn a_pci_alias_matches_its_card() {
        let card = b"pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00";
        assert!(matches(b"pci:v00008086d0000100Esv*sd*bc*sc*i*", card));
        assert!(!matches(b"pci:v00008086d0000100Fsv*sd*bc*sc*i*", card));
    }

    #[test]
    fn a_set_matches_members_and_ranges() {
        assert!(matches(b"usb:d0[1-3]", b"usb:d02"));
        assert!(matches(b"usb:d0[13]", b"usb:d03"));
        assert!(!matches(b"usb:d0[1-3]", b"usb:d04"));
    }

    proptest! {
        #[test]
        fn agrees_with_the_obvious_way(pattern in "[ab*?\\[\\]-]{0,10}", text in "[ab\\[]{0,10}") {
            prop_assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                slow(pattern.as_bytes(), text.as_bytes())
            );
        }

        #[test]
        fn never_panics(pattern: Vec<u8>, text: Vec<u8>) {
            matches(&pattern, &text);
        }
    }
}

//! Text from outside, made fit for a terminal, a log line and a table.

/// At most `max` characters of `text`, with control characters and line ends replaced by a space.
///
/// Everything a machine tells about itself goes through here before it is shown or stored.
pub fn plain(text: &str, max: usize) -> String {
    text.chars()
        .take(max)
        .map(|c| {
            if c.is_control() || is_invisible(c) {
                ' '
            } else {
                c
            }
        })
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Characters that reorder or hide what is printed around them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn escape_sequences_lose_their_escape() {
        assert_eq!(plain("a\x1b[31mb\n", 80), "a [31mb");
        assert_eq!(plain("abc\u{202e}def", 4), "abc");
    }
}

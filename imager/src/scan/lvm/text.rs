//! The text of LVM2: sections of sections, numbers, texts, and lists of those.

/// Deepest nesting; a group has four levels.
const DEPTH_MAX: usize = 8;

/// What stands behind a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Text(String),
    List(Vec<Value>),
    Section(Section),
}

/// Names and what they stand for, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section(pub(super) Vec<(String, Value)>);

impl Section {
    /// The sections of a text; none when it is none.
    pub(super) fn parse(text: &[u8]) -> Option<Section> {
        let mut words = Words { rest: text };
        words.section(0, true)
    }

    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        match self.value(name)? {
            Value::Section(section) => Some(section),
            _ => None,
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.value(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self, name: &str) -> Option<&[Value]> {
        match self.value(name)? {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The sections in it, with their names.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.0.iter().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((name.as_str(), section)),
            _ => None,
        })
    }

    /// All texts in it, also in lists, but not in sections of it.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|(_, value)| match value {
            Value::Text(text) => vec![text.as_str()],
            Value::List(list) => list
                .iter()
                .filter_map(|value| match value {
                    Value::Text(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        })
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value)
    }
}

struct Words<'a> {
    rest: &'a [u8],
}

impl Words<'_> {
    /// What is left up to the brace that closes the section, or to the end of the text.
    fn section(&mut self, depth: usize, outermost: bool) -> Option<Section> {
        let mut section = Section::default();
        loop {
            self.skip_blanks();
            match self.rest.first() {
                None => return outermost.then_some(section),
                Some(b'}') if !outermost => {
                    self.rest = &self.rest[1..];
                    return Some(section);
                }
                Some(_) => {}
            }
            let name = self.name()?;
            self.skip_blanks();
            let value = if self.take(b'{') {
                (depth < DEPTH_MAX).then_some(())?;
                Value::Section(self.section(depth + 1, false)?)
            } else {
                self.take(b'=').then_some(())?;
                self.skip_blanks();
                self.value()?
            };
            section.0.push((name, value));
        }
    }

    fn value(&mut self) -> Option<Value> {
        if !self.take(b'[') {
            return self.scalar();
        }
        let mut list = Vec::new();
        loop {
            self.skip_blanks();
            if self.take(b']') {
                return Some(Value::List(list));
            }
            list.push(self.scalar()?);
            self.skip_blanks();
            if !self.take(b',') && self.rest.first() != Some(&b']') {
                return None;
            }
        }
    }

    fn scalar(&mut self) -> Option<Value> {
        if self.take(b'"') {
            let mut text = Vec::new();
            loop {
                let (&byte, rest) = self.rest.split_first()?;
                self.rest = rest;
                match byte {
                    b'"' => return String::from_utf8(text).ok().map(Value::Text),
                    b'\\' => {
                        let (&byte, rest) = self.rest.split_first()?;
                        self.rest = rest;
                        text.push(byte);
                    }
                    byte => text.push(byte),
                }
            }
        }
        let digits = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        std::str::from_utf8(number)
            .ok()?
            .parse()
            .ok()
            .map(Value::Number)
    }

    fn name(&mut self) -> Option<String> {
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_+.-/@#".contains(byte);
        let count = self.rest.iter().take_while(is_part).count();
        let (name, rest) = self.rest.split_at(count);
        self.rest = rest;
        (count > 0).then(|| String::from_utf8_lossy(name).into_owned())
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.rest.first() == Some(&byte);
        if there {
            self.rest = &self.rest[1..];
        }
        there
    }

    /// Skips white space, the NUL at the end, and comments.
    fn skip_blanks(&mut self) {
        loop {
            let blanks = self
                .rest
                .iter()
                .take_while(|byte| byte.is_ascii_whitespace() || **byte == 0);
            self.rest = &self.rest[blanks.count()..];
            if self.rest.first() != Some(&b'#') {
                return;
            }
            let comment = self.rest.iter().take_while(|byte| **byte != b'\n').count();
            self.rest = &self.rest[comment..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_reads_as_it_is_written() {
        let text =
            b"# by hand\nvg {\n\tid = \"a\\\"b\"\n\tstatus = [\"READ\", \"WRITE\"]\n\tflags = []\n\
                     \tlv-0.1 { start = 7 }\n}\ncontents = \"x\" # end\n\0";
        let section = Section::parse(text).unwrap();
        let group = section.section("vg").unwrap();
        assert_eq!(group.text("id"), Some("a\"b"));
        assert_eq!(group.list("flags"), Some(&[][..]));
        assert_eq!(group.texts().collect::<Vec<_>>(), ["a\"b", "READ", "WRITE"]);
        let inner: Vec<_> = group
            .sections()
            .map(|(name, lv)| (name, lv.number("start")))
            .collect();
        assert_eq!(inner, [("lv-0.1", Some(7))]);
        assert_eq!(section.text("contents"), Some("x"));
    }

    #[test]
    fn what_is_no_text_of_a_group_is_none() {
        let deep = "a{".repeat(100_000);
        for text in [
            "{", "a", "a=", "a={}", "a=[1", "a=[1 2]", "a=\"", "a{", "}", "a=-1", &deep,
        ] {
            assert_eq!(Section::parse(text.as_bytes()), None, "{text:.20}");
        }
    }
}

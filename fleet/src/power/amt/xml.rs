//! XML as devices write it: elements, namespaces, text. Nothing else is understood, least of all a document type.

/// Deepest nesting.
const DEPTH_MAX: usize = 32;
/// Most elements.
const ELEMENTS_MAX: usize = 4096;

/// Why a text is no document of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its XML makes no sense at byte {at}: {what}")]
pub(super) struct XmlError {
    /// Where, from the start of the text.
    at: usize,
    what: &'static str,
}

/// An element with all that is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// The namespace's URI; empty for none.
    pub(super) namespace: String,
    /// Its name without prefix.
    pub(super) name: String,
    /// Its own text, without that of its children.
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// Read a document.
    pub(super) fn parse(text: &str) -> Result<Element, XmlError> {
        let mut reader = Reader {
            text,
            at: 0,
            names: Vec::new(),
            elements: 0,
        };
        reader.skip_between()?;
        let root = reader.element(0)?;
        reader.skip_between()?;
        if reader.rest().is_empty() {
            Ok(root)
        } else {
            Err(reader.error("there is something behind the document"))
        }
    }

    /// The first child of this name.
    pub(super) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The element at the end of a path of children.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Element> {
        path.iter()
            .try_fold(self, |element, name| element.child(name))
    }

    /// The text of the first child of this name.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        Some(self.child(name)?.text.trim())
    }
}

/// Text with what has a meaning in XML made harmless.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Prefixes and what they stand for, the innermost last.
    names: Vec<(&'a str, String)>,
    elements: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, what: &'static str) -> XmlError {
        XmlError { at: self.at, what }
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn need(&mut self, word: &str, what: &'static str) -> Result<(), XmlError> {
        if self.take(word) {
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    fn take_until(&mut self, end: &str, what: &'static str) -> Result<&'a str, XmlError> {
        let rest = self.rest();
        let length = rest.find(end).ok_or_else(|| self.error(what))?;
        self.at += length + end.len();
        Ok(&rest[..length])
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Blanks, comments and the declaration, outside the root.
    fn skip_between(&mut self) -> Result<(), XmlError> {
        self.take("\u{feff}");
        loop {
            self.skip_blanks();
            if self.take("<?") {
                self.take_until("?>", "a declaration without an end")?;
            } else if self.take("<!--") {
                self.take_until("-->", "a comment without an end")?;
            } else {
                return Ok(());
            }
        }
    }

    fn name(&mut self) -> Result<&'a str, XmlError> {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || "_-.:".contains(c)));
        let name = &rest[..end.unwrap_or(rest.len())];
        if name.is_empty() {
            return Err(self.error("a name is missing"));
        }
        self.at += name.len();
        Ok(name)
    }

    fn element(&mut self, depth: usize) -> Result<Element, XmlError> {
        self.elements += 1;
        if depth >= DEPTH_MAX || self.elements > ELEMENTS_MAX {
            return Err(self.error("too many elements, or too deep"));
        }
        self.need("<", "an element is missing")?;
        let outside = self.names.len();
        let tag = self.name()?;
        let empty = self.attributes()?;
        let (namespace, name) = self.resolve(tag)?;
        let mut element = Element {
            namespace,
            name,
            ..Element::default()
        };
        if !empty {
            self.content(tag, depth, &mut element)?;
        }
        self.names.truncate(outside);
        Ok(element)
    }

    /// Text and elements up to the tag that closes `tag`.
    fn content(&mut self, tag: &str, depth: usize, element: &mut Element) -> Result<(), XmlError> {
        loop {
            let rest = self.rest();
            let text = &rest[..rest
                .find('<')
                .ok_or_else(|| self.error("an element without an end"))?];
            element.text += &self.unescape(text)?;
            self.at += text.len();
            if self.take("</") {
                if self.name()? != tag {
                    return Err(self.error("another element is closed than was opened"));
                }
                self.skip_blanks();
                return self.need(">", "a tag without an end");
            }
            if self.take("<!--") {
                self.take_until("-->", "a comment without an end")?;
                continue;
            }
            element.children.push(self.element(depth + 1)?);
        }
    }

    /// Attributes up to the end of the tag; whether the element is empty.
    fn attributes(&mut self) -> Result<bool, XmlError> {
        loop {
            self.skip_blanks();
            if self.take("/>") {
                return Ok(true);
            }
            if self.take(">") {
                return Ok(false);
            }
            let name = self.name()?;
            self.skip_blanks();
            self.need("=", "an attribute without a value")?;
            self.skip_blanks();
            let quote = if self.take("\"") { "\"" } else { "'" };
            if quote == "'" {
                self.need("'", "a value without quotes")?;
            }
            let value = self.take_until(quote, "a value without an end")?;
            let value = self.unescape(value)?;
            if name == "xmlns" {
                self.names.push(("", value));
            } else if let Some(prefix) = name.strip_prefix("xmlns:") {
                self.names.push((prefix, value));
            }
        }
    }

    fn resolve(&self, tag: &str) -> Result<(String, String), XmlError> {
        let (prefix, name) = tag.split_once(':').unwrap_or(("", tag));
        let mut known = self.names.iter().rev();
        match known.find(|(known, _)| *known == prefix) {
            Some((_, namespace)) => Ok((namespace.clone(), name.to_owned())),
            None if prefix.is_empty() => Ok((String::new(), name.to_owned())),
            None => Err(self.error("a prefix that stands for nothing")),
        }
    }

    fn unescape(&self, text: &str) -> Result<String, XmlError> {
        let mut clear = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find('&') {
            clear.push_str(&rest[..start]);
            let (word, after) = rest[start + 1..]
                .split_once(';')
                .ok_or_else(|| self.error("an entity without an end"))?;
            let number = |digits: &str, radix| {
                let code = u32::from_str_radix(digits, radix).ok();
                code.and_then(char::from_u32)
            };
            let c = match word {
                "amp" => Some('&'),
                "lt" => Some('<'),
                "gt" => Some('>'),
                "quot" => Some('"'),
                "apos" => Some('\''),
                word => match (word.strip_prefix("#x"), word.strip_prefix('#')) {
                    (Some(digits), _) => number(digits, 16),
                    (None, Some(digits)) => number(digits, 10),
                    _ => None,
                },
            };
            clear.push(c.ok_or_else(|| self.error("an entity nobody knows"))?);
            rest = after;
        }
        clear.push_str(rest);
        Ok(clear)
    }
}

#[cfg(test)]
mod tests {
    use proptest::proptest;

    use super::{Element, escape};

    #[test]
    fn elements_have_names_in_namespaces() {
        let text = "<?xml version=\"1.0\"?>\n<!-- x --><a:E xmlns:a=\"urn:a\" xmlns='urn:d'>\n\
                    <b x=\"1\">t&lt;&#x41;</b><a:c/><a:c xmlns:a=\"urn:z\">2</a:c></a:E>\n";
        let root = Element::parse(text).unwrap();
        assert_eq!(
            (root.namespace.as_str(), root.name.as_str()),
            ("urn:a", "E")
        );
        assert_eq!(root.text_of("b"), Some("t<A"));
        assert_eq!(root.child("b").unwrap().namespace, "urn:d");
        assert_eq!(root.children[1].namespace, "urn:a");
        assert_eq!(
            (
                root.children[2].namespace.as_str(),
                root.children[2].text.as_str()
            ),
            ("urn:z", "2")
        );
        assert!(root.at(&["b", "c"]).is_none());
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let deep = "<a>".repeat(100) + &"</a>".repeat(100);
        let many = format!("<a>{}</a>", "<b/>".repeat(5000));
        for bad in [
            "",
            "x",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<p:a/>",
            "<a b></a>",
            "<a b=c/>",
            "<a>&x;</a>",
            "<a>&#xD800;</a>",
            "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
            "<a><![CDATA[x]]></a>",
            deep.as_str(),
            many.as_str(),
        ] {
            assert!(
                Element::parse(bad).is_err(),
                "{:?}",
                &bad[..bad.len().min(60)]
            );
        }
    }

    proptest! {
        #[test]
        fn every_text_survives_in_an_element(text in "[^\\p{C}\r]{0,40}") {
            let document = format!("<a b=\"{0}\">{0}</a>", escape(&text));
            assert_eq!(Element::parse(&document).unwrap().text, text);
        }

        #[test]
        fn hostile_text_ends_in_a_document_or_an_error(text in "[<>/a:b\"'=& ;#x!?-]{0,60}") {
            let _ = Element::parse(&text);
        }
    }
}

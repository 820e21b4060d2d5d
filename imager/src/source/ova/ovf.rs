//! The description of a machine (OVF): which files its disks are in.
//!
//! Of XML only what tells that is read: the attributes of two kinds of elements.

use std::collections::BTreeMap;

/// Elements that are looked at.
const ELEMENTS_MAX: usize = 100_000;
/// Disks of one machine.
const DISKS_MAX: usize = 256;

/// The files of the disks, in the order of the description. An empty disk has no file.
pub(super) fn disks(text: &str) -> Vec<String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let mut disks = Vec::new();
    for element in elements(text).take(ELEMENTS_MAX) {
        let of = |name: &str| attribute(element, name);
        match local(element.split_whitespace().next().unwrap_or_default()) {
            "File" => {
                if let (Some(id), Some(href)) = (of("id"), of("href")) {
                    files.entry(id).or_insert(href);
                }
            }
            "Disk" if disks.len() < DISKS_MAX => disks.extend(of("fileRef")),
            _ => {}
        }
    }
    let file = |id: &String| {
        let href = files.get(id)?;
        Some(href.strip_prefix("./").unwrap_or(href).to_owned())
    };
    disks.iter().filter_map(file).collect()
}

/// What stands between `<` and `>` of each element that opens; comments are left out.
fn elements(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let open = rest.find('<')?;
            rest = &rest[open + 1..];
            if let Some(comment) = rest.strip_prefix("!--") {
                let end = comment.find("-->")?;
                rest = &comment[end + 3..];
                continue;
            }
            let end = end_of_element(rest)?;
            let element = &rest[..end];
            rest = &rest[end + 1..];
            if !element.starts_with(['/', '?', '!']) {
                return Some(element.trim_end_matches('/'));
            }
        }
    })
}

/// Where the `>` is that is in no quotes.
fn end_of_element(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

/// The value of an attribute, with or without a prefix of a name space.
fn attribute(element: &str, name: &str) -> Option<String> {
    let (_, mut rest) = element.split_once(char::is_whitespace)?;
    loop {
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, next) = after[1..].split_once(quote)?;
        if local(key.trim()) == name {
            return Some(unescaped(value));
        }
        rest = next;
    }
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

fn unescaped(value: &str) -> String {
    value
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_found_in_their_order() {
        let text = r#"<?xml version="1.0"?>
            <Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
            <!-- <File ovf:id="f1" ovf:href="never"/> -->
            <References>
              <File ovf:href='one &amp; "more" > .vmdk' ovf:id="f1" ovf:size="5"/>
              <ovf:File ovf:id="f2" ovf:href="./two.vmdk"/>
            </References>
            <DiskSection><Info>Disks</Info>
              <Disk ovf:capacity="8" ovf:diskId="d2" ovf:fileRef="f2"/>
              <Disk ovf:capacity="8" ovf:diskId="empty"/>
              <Disk ovf:capacity="8" ovf:diskId="d1" ovf:fileRef = "f1"></Disk>
            </DiskSection></Envelope>"#;
        assert_eq!(disks(text), ["two.vmdk", "one & \"more\" > .vmdk"]);
        for end in 0..text.len() {
            if let Some(cut) = text.get(..end) {
                disks(cut);
            }
        }
    }

    #[test]
    fn a_description_of_the_largest_size_is_read_in_no_time() {
        let mut text: String = (0..50_000)
            .map(|index| format!("<File id=\"{index}\" href=\"x\"/>"))
            .collect();
        text += &"<Disk fileRef=\"none\"/>".repeat(50_000);
        text += "<Disk fileRef=\"0\"/>";
        // Beyond the most disks of a machine nothing is looked up: a hundred thousand times all would take minutes.
        assert!(disks(&text).is_empty());
    }
}

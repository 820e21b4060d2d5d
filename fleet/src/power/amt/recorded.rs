//! What real firmware said, from a folder of recordings that is not part of this repository; see Redfish's.

use std::fs;
use std::path::{Path, PathBuf};

use super::digest::Challenge;
use super::envelope::body;
use super::{parse_state, read_as_answer, settings};
use crate::power::PowerState;

fn folder() -> PathBuf {
    let folder = std::env::var_os("NETFLASH_RECORDED");
    PathBuf::from(folder.expect("NETFLASH_RECORDED names the folder")).join("amt")
}

fn each(folder: &Path, work: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each(&path, work);
        } else if path.extension().is_some_and(|end| end == "xml") {
            work(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
#[ignore = "needs NETFLASH_RECORDED"]
fn recorded_firmware_is_understood() {
    let mut answers = 0;
    each(&folder().join("responses"), &mut |path, text| {
        read_as_answer(text);
        body(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        answers += 1;
    });
    assert!(answers >= 50, "{answers} answers");
    let read = |path: &str| fs::read_to_string(folder().join(path)).unwrap();
    let pulled = body(&read("responses/cim/service/availabletoelement/pull.xml")).unwrap();
    let services = pulled.child("Items").unwrap().children.clone();
    assert_eq!(parse_state(&services), Ok(PowerState::On));
    let now = body(&read("responses/amt/boot/settingdata/get.xml")).unwrap();
    let written = settings::harmless(&now);
    assert!(written.len() > 15 && written.iter().any(|(name, _)| name == "OwningEntity"));
    let refused = read("http/401-challenge.http");
    let header = refused
        .lines()
        .find_map(|line| line.strip_prefix("WWW-Authenticate: "));
    assert!(!Challenge::parse(header.unwrap()).unwrap().stale);
}

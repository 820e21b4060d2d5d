//! What real controllers said, from a folder of recordings that is not part of this repository.
//!
//! Run by `cargo test -p netflash-fleet recorded -- --ignored` with `NETFLASH_RECORDED` naming the folder.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::NextBoot;
use super::super::http::{AnswerReader, HttpError};
use super::document::{Override, System, choose_system, link};
use super::quirks;

fn folder() -> PathBuf {
    let folder = std::env::var_os("NETFLASH_RECORDED");
    folder.expect("NETFLASH_RECORDED names the folder").into()
}

fn document(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
#[ignore = "needs NETFLASH_RECORDED"]
fn recorded_controllers_are_understood() {
    let mut understood = 0;
    for vendor in fs::read_dir(folder().join("redfish")).unwrap() {
        let vendor = vendor.unwrap().path();
        if !vendor.is_dir() {
            continue;
        }
        let nested = vendor.join("redfish/v1");
        let service = if nested.is_dir() {
            nested
        } else {
            vendor.clone()
        };
        let root = document(&service.join("index.json"));
        assert!(
            link(&root, "/Systems")
                .unwrap()
                .starts_with("/redfish/v1/Systems")
        );
        quirks::of(&root);
        let systems = document(&service.join("Systems/index.json"));
        let path = choose_system(&systems, None).unwrap();
        let id = path.trim_end_matches('/').rsplit('/').next().unwrap();
        let told = document(&service.join("Systems").join(id).join("index.json"));
        let system = System::parse(&told).unwrap();
        assert!(
            system.reset_target.ends_with("ComputerSystem.Reset"),
            "{system:?}"
        );
        let next = Override::parse(&told).unwrap().next();
        assert!(
            next.is_ok_and(|next| next == NextBoot::Usual || next == NextBoot::Pxe),
            "{path}"
        );
        println!("{}: {system:?}", vendor.display());
        understood += 1;
    }
    assert!(understood >= 4, "{understood} controllers");
}

#[test]
#[ignore = "needs NETFLASH_RECORDED"]
fn recorded_answers_are_the_same_wherever_they_are_cut() {
    let mut whole = 0;
    for entry in fs::read_dir(folder().join("amt/http")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let mut reader = AnswerReader::new();
        reader.feed(&bytes).unwrap();
        let answer = match reader.finish() {
            Err(HttpError::Cut(_)) if path.to_string_lossy().contains("truncated") => continue,
            answer => answer.unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        };
        for cut in 0..bytes.len() {
            let mut reader = AnswerReader::new();
            reader.feed(&bytes[..cut]).unwrap();
            reader.feed(&bytes[cut..]).unwrap();
            assert_eq!(
                reader.finish().unwrap(),
                answer,
                "{} at {cut}",
                path.display()
            );
        }
        whole += 1;
    }
    assert!(whole >= 4, "{whole} answers");
}

//! `netflash image add|list|show`: images the server can send.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::show;
use crate::Exit;
use crate::client::Client;
use crate::fleet::NewImage;
use crate::machine::{Machine, StoredImage};
use crate::table::{Table, bytes};

/// Images the server can send
#[derive(Debug, Subcommand)]
pub(crate) enum StoreImageCommand {
    Add(AddArgs),
    List(ListArgs),
    Show(ShowArgs),
}

/// Enter an image file that lies on the server; it stays where it is
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash image add debian-13 /srv/images/debian-13.img.zst")]
pub(crate) struct AddArgs {
    /// Its name: letters, digits, '.', '_', '-'
    name: String,
    /// The image file
    file: PathBuf,
}

/// List the server's images
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash image list")]
pub(crate) struct ListArgs {}

/// Show one of the server's images
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash image show debian-13")]
pub(crate) struct ShowArgs {
    /// Its name
    name: String,
}

pub(crate) fn run(command: StoreImageCommand, dir: &Path, json: bool) -> anyhow::Result<Exit> {
    let client = Client::find(dir)?;
    match command {
        StoreImageCommand::Add(args) => {
            let path = std::path::absolute(&args.file).context("finding the file")?;
            let path = path.into_os_string().into_string();
            let path = path.map_err(|path| anyhow::anyhow!("{} is not UTF-8", path.display()))?;
            let image: StoredImage = client.post(
                "images",
                &NewImage {
                    path,
                    name: args.name,
                },
            )?;
            show(json, &image, || {
                format!("{} is entered, image id {}\n", image.name, image.image_id)
            })?;
        }
        StoreImageCommand::List(ListArgs {}) => {
            let images: Vec<StoredImage> = client.get("images")?;
            show(json, &images, || table(&images))?;
        }
        StoreImageCommand::Show(args) => {
            anyhow::ensure!(Machine::is_name(&args.name), "{:?} is no name", args.name);
            let image: StoredImage = client.get(&format!("images/{}", args.name))?;
            show(json, &image, || {
                format!("{}{}\n", table(std::slice::from_ref(&image)), image.path)
            })?;
        }
    }
    Ok(Exit::Done)
}

fn table(images: &[StoredImage]) -> String {
    let mut table = Table::new(["IMAGE", "STATE", "DISK", "USED", "FILE", "ID"]);
    for image in images {
        table.row([
            image.name.clone(),
            image.state.word().to_owned(),
            bytes(image.raw_bytes),
            bytes(image.used_bytes),
            bytes(image.stored_bytes),
            image.image_id.to_string()[..16].to_owned(),
        ]);
    }
    table.render()
}

//! `--only`, `--keep` and `--incomplete`: which partitions are written, or compared.

use std::fmt;

use clap::Args;

use netflash_imager::{DeployOptions, PartitionSet, Scope};
use netflash_pxe::FlashScope;

// Which partitions of a disk it is about; all of it, unless some are named. No doc comment: clap would take it for the
// help of the command that has these options.
#[derive(Debug, Clone, Args)]
pub(crate) struct ScopeArgs {
    /// Only these partitions; the disk's table stays out of it
    #[arg(long, value_name = "N,M", conflicts_with = "keep")]
    only: Option<PartitionSet>,
    /// All but these partitions and the disk's table
    #[arg(long, value_name = "N,M")]
    keep: Option<PartitionSet>,
    /// All but the partitions that the image was made without
    #[arg(long, conflicts_with_all = ["only", "keep"])]
    incomplete: bool,
}

impl ScopeArgs {
    /// Whether it is the whole disk.
    pub(crate) fn is_whole(&self) -> bool {
        self.only.is_none() && self.keep.is_none()
    }

    /// These options in those of a deploy.
    pub(crate) fn options(&self) -> DeployOptions {
        DeployOptions {
            // clap lets only one of them through.
            scope: match (&self.only, &self.keep) {
                (Some(only), _) => Scope::Only(only.clone()),
                (None, Some(keep)) => Scope::Keep(keep.clone()),
                (None, None) => Scope::Whole,
            },
            incomplete: self.incomplete,
            ..DeployOptions::default()
        }
    }

    /// These options as a job has them.
    pub(crate) fn of_job(&self) -> FlashScope {
        let numbers =
            |set: &Option<PartitionSet>| set.iter().flat_map(PartitionSet::iter).collect();
        FlashScope {
            only: numbers(&self.only),
            keep: numbers(&self.keep),
            incomplete: self.incomplete,
        }
    }

    /// What of `disk` it is, in words.
    pub(crate) fn part_of(&self, disk: impl fmt::Display) -> String {
        match (&self.only, &self.keep) {
            (Some(only), _) => format!("partition {only} of {disk}"),
            (None, Some(keep)) => format!("{disk} but for partition {keep}"),
            (None, None) => disk.to_string(),
        }
    }
}

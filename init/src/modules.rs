//! Kernel modules: which one serves a device, what it needs, how it gets into the kernel.

mod glob;
mod index;
mod load;

pub(crate) use index::ModuleIndex;
pub(crate) use load::{LoadError, load};

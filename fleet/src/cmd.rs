//! The commands, one file each: arguments, what they do, and what they print.

pub(crate) mod lab;

//! netflash
fn main() {}

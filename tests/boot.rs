//! Ways from power-on to the agent: beside DHCP servers of others, by HTTP, from the menus of other boot
//! loaders, with every card and firmware that QEMU has.
//!
//! Each test has a world of its own and fails, never skips, without root or without the programs that
//! `./scripts/test` makes.

#[path = "boot/capture.rs"]
mod capture;
#[path = "boot/chain.rs"]
mod chain;
#[path = "boot/esp.rs"]
mod esp;
#[path = "boot/foreign.rs"]
mod foreign;
#[path = "boot/http.rs"]
mod http;
#[path = "boot/local.rs"]
mod local;
#[path = "boot/matrix.rs"]
mod matrix;
#[path = "boot/proxy.rs"]
mod proxy;
#[path = "boot/snippets.rs"]
mod snippets;
#[path = "boot/stage.rs"]
mod stage;

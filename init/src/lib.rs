//! What a machine does alone, from power-on to reboot.
//!
//! Two processes of one static program. PID 1 (the keeper) mounts, reaps, feeds the
//! watchdog and carries out the last action; it does nothing that could fail in an
//! interesting way. The worker, its only child, does everything else and may die:
//! the keeper then says so on every console and reboots after a delay.
//!
//! ```text
//!  kernel ── PID 1: keeper ──spawns──▶ worker ──▶ coldplug ─┐
//!              ▲  watchdog, reaping      │        network ──┼─▶ hello ─▶ job ─▶ flash, capture,
//!              └──── exit code: reboot, power off, halt ◀───┘            (loop)   compare
//! ```

mod capture;
mod coldplug;
mod compare;
mod console;
mod detour;
mod dhcp;
mod dhcp6;
mod disks;
mod events;
mod flash;
mod keeper;
mod knock;
mod links;
mod machine;
mod modules;
mod mounts;
mod network;
mod orphans;
mod screen;
mod server;
mod sink;
mod trust;
mod upload;
mod worker;

pub use keeper::run;

/// The parameters of the kernel command line, and what was wrong with it.
fn kernel_params() -> (netflash_pxe::KernelParams, Vec<netflash_pxe::ParamWarning>) {
    let line = std::fs::read("/proc/cmdline").unwrap_or_default();
    netflash_pxe::KernelParams::parse(&String::from_utf8_lossy(&line))
}

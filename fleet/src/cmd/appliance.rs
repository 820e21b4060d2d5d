//! `netflash appliance`: builds the kernel and initramfs that machines boot, and ways to start them.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use netflash_appliance::{BuildOptions, Report, build};

use crate::Exit;

mod bound;
mod iso;
mod kexec;

/// Kernel and initramfs together shall stay below this, in bytes: old machines load them by TFTP.
const APPLIANCE_BYTES_MAX: u64 = 40 << 20;

/// Build the kernel and initramfs that machines boot
#[derive(Debug, Args)]
pub(crate) struct ApplianceArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Build(BuildArgs),
    Iso(iso::IsoArgs),
    Kexec(kexec::KexecArgs),
}

/// Build vmlinuz and initramfs.img from a distribution's kernel package
///
/// The kernel is Debian's linux-image-amd64, downloaded by apt, or the package
/// given. The same inputs give the same bytes.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash appliance build --out appliance")]
struct BuildArgs {
    /// Directory for vmlinuz, initramfs.img, SHA256SUMS, THIRD-PARTY
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The agent, a static program [default: netflash-init beside netflash]
    #[arg(long, value_name = "PATH", env = "NETFLASH_AGENT")]
    agent: Option<PathBuf>,
    /// Kernel package to use instead of the one apt has
    #[arg(long, value_name = "FILE")]
    kernel_deb: Option<PathBuf>,
    /// Take the firmware that drivers ask for from a directory like /lib/firmware
    #[arg(long, value_name = "DIR")]
    firmware: Option<PathBuf>,
    /// Bake a server's trust.img in, for USB sticks
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Add the signed loaders for machines with Secure Boot
    ///
    /// Debian's shim and GRUB, downloaded by apt; nothing is installed.
    #[arg(long)]
    secure_boot: bool,
}

/// Runs the command; `json` asks for the report on standard output in that form.
pub(crate) fn run(args: ApplianceArgs, dir: &Path, json: bool) -> anyhow::Result<Exit> {
    let args = match args.action {
        Action::Build(args) => args,
        Action::Iso(args) => return iso::run(&args, dir, json),
        Action::Kexec(args) => return kexec::run(&args, dir),
    };
    let agent = args.agent.map_or_else(agent_beside_us, Ok)?;
    let options = BuildOptions {
        out: args.out,
        agent,
        kernel_deb: args.kernel_deb,
        firmware: args.firmware,
        trust: args.trust,
        secure_boot: args.secure_boot,
        level: BuildOptions::LEVEL,
    };
    let report = build(&options).context("building the appliance")?;
    if json {
        println!(
            "{}",
            serde_json::to_string(&report).context("rendering the report")?
        );
    } else {
        print(&options, &report);
    }
    Ok(Exit::Done)
}

fn agent_beside_us() -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("finding this program's own path")?;
    let agent = own.with_file_name("netflash-init");
    if !agent.is_file() {
        bail!(
            "no agent at {}; give one by --agent, or build it: cargo rustc -p netflash-init \
             --release -- -C target-feature=+crt-static",
            agent.display()
        );
    }
    Ok(agent)
}

fn print(options: &BuildOptions, report: &Report) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let total = report.vmlinuz_bytes + report.initramfs_bytes;
    println!(
        "kernel      {} ({} {})",
        report.kernel_version, report.kernel_package, report.kernel_package_version
    );
    println!("vmlinuz     {:.1} MiB", mib(report.vmlinuz_bytes));
    println!(
        "initramfs   {:.1} MiB, {} modules, {} firmware files",
        mib(report.initramfs_bytes),
        report.modules.len(),
        report.firmware.len()
    );
    println!("agent       {:.1} MiB", mib(report.agent_bytes));
    for loader in &report.loaders {
        println!("loader      {} {}", loader.package, loader.version);
    }
    println!(
        "together    {:.1} MiB in {}",
        mib(total),
        options.out.display()
    );
    if !report.missing_modules.is_empty() {
        eprintln!("this kernel has no {}", report.missing_modules.join(", "));
    }
    if total > APPLIANCE_BYTES_MAX {
        eprintln!(
            "larger than {:.0} MiB: slow to load by TFTP; use less firmware",
            mib(APPLIANCE_BYTES_MAX)
        );
    }
}

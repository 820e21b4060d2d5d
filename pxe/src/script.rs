//! The iPXE scripts that carry out a boot decision.
//!
//! Two of them: a *start* script, the same for everybody, asks the server again and again who this machine is and
//! what it shall boot; the answer is a *boot* script for this machine. Nothing is a dead end: whoever gets no answer
//! boots the local disk.
//!
//! Everything that comes from outside passes [`word`], so that no name or setting can add a command.

use std::fmt;
use std::str::FromStr;

use crate::{Boot, Decision};

/// How the firmware runs iPXE, as its setting `${platform}` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Platform {
    /// `pcbios`
    #[default]
    Bios,
    /// `efi`
    Efi,
}

impl FromStr for Platform {
    type Err = std::convert::Infallible;

    /// Everything but `efi` is a BIOS.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "efi" {
            Platform::Efi
        } else {
            Platform::Bios
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Platform::Bios => "pcbios",
            Platform::Efi => "efi",
        })
    }
}

/// What the agent is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentBoot {
    /// Path and query of the kernel below the base URL.
    pub kernel: String,
    /// Name and path of each initial RAM disk, in the order they are unpacked.
    pub initrds: Vec<(String, String)>,
    /// The kernel command line, without `initrd=`.
    pub command_line: String,
}

/// What iPXE loads from the server's `/boot/` to go on to the local disk under UEFI, where it cannot do that itself.
pub const DISK_LOADER: &str = "disk.efi";

/// Times the start script asks before it gives up and boots the local disk.
const ATTEMPTS_MAX: u32 = 20;

/// The script everybody starts with. `base` is the server's address such as `http://10.0.0.2:8080`.
pub fn start_script(base: &str) -> String {
    let base = word(base);
    let query = "mac=${netX/mac:hexhyp}&uuid=${uuid}&serial=${serial:uristring}\
                 &board=${smbios/2.7.0:uristring}&platform=${platform}";
    format!(
        "#!ipxe\n\
         set attempt:int32 0\n\
         :ask\n\
         chain --replace --autofree {base}/boot/ipxe?{query} ||\n\
         inc attempt\n\
         iseq ${{attempt}} {ATTEMPTS_MAX} && goto local ||\n\
         echo netflash: no answer from {base}, asking again\n\
         sleep 3\n\
         goto ask\n\
         :local\n\
         echo netflash: no answer, booting the local disk\n\
         iseq ${{platform}} efi && goto efi ||\n\
         {}\n\
         :efi\n\
         {}\n",
        local_disk(Platform::Bios, None),
        local_disk(Platform::Efi, None),
    )
}

/// The script that carries out `decision`. `agent` is needed when the agent is booted.
pub fn boot_script(
    base: &str,
    platform: Platform,
    decision: &Decision,
    agent: &AgentBoot,
) -> String {
    let base = word(base);
    let reason = word(&decision.reason.to_string());
    let lines = match decision.boot {
        Boot::LocalDisk => local_disk(platform, Some(&base)),
        Boot::Agent { .. } => {
            // Under UEFI the kernel takes the files by these names, under BIOS the loader has put them together.
            let names = agent
                .initrds
                .iter()
                .map(|(name, _)| format!("initrd={}", word(name)));
            let names: Vec<String> = names.collect();
            let mut lines = format!(
                "kernel {base}{} {} {} || goto failed\n",
                word(&agent.kernel),
                names.join(" "),
                word(&agent.command_line)
            );
            for (name, path) in &agent.initrds {
                lines += &format!(
                    "initrd --name {} {base}{} || goto failed\n",
                    word(name),
                    word(path)
                );
            }
            // Chaining to the start again is right for a server that is being restarted, and the script counts.
            lines
                + "boot || goto failed\n:failed\necho netflash: the agent could not be loaded\nsleep 5\n"
                + &format!("chain --replace --autofree {base}/boot/start.ipxe ||\n")
                + &local_disk(platform, Some(&base))
        }
    };
    format!("#!ipxe\necho netflash: {reason}\n{lines}\n")
}

/// How to go on to the local disk. What works differs by firmware, so the ways are tried in order; one of them is a
/// program of the server `base`, if that is there.
fn local_disk(platform: Platform, base: Option<&str>) -> String {
    match platform {
        Platform::Bios => "sanboot --no-describe --drive 0x80 || exit 1".to_owned(),
        // Builds of iPXE from before 2023 refuse the first line. After the last one the firmware tries its next entry:
        // exit 0 would mean "booted fine", and some firmware stops there.
        Platform::Efi => {
            let server = base.map(|base| format!("chain {base}/boot/{DISK_LOADER} ||\n"));
            format!(
                "sanboot --no-describe --drive 0 --filename \\EFI\\BOOT\\BOOTX64.EFI ||\n{}exit 1",
                server.unwrap_or_default()
            )
        }
    }
}

/// `text` without what iPXE gives a meaning: line ends, quoting, `${…}`, `#`, `||`, `&&`, `;`.
fn word(text: &str) -> String {
    const PUNCTUATION: &str = " .,:/=-_?@+%[]()";
    let kept = |c: &char| c.is_ascii_alphanumeric() || PUNCTUATION.contains(*c);
    text.chars().filter(kept).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::{AgentBoot, DISK_LOADER, Platform, boot_script, start_script};
    use crate::{Boot, BootReason, Decision};

    const BASE: &str = "http://10.77.0.1:8080";

    fn agent(command_line: &str) -> AgentBoot {
        let initrd = |name: &str| (name.to_owned(), format!("/boot/{name}"));
        AgentBoot {
            kernel: "/boot/vmlinuz".to_owned(),
            initrds: vec![
                initrd("initramfs.img"),
                initrd("trust.img"),
                initrd("token.img"),
            ],
            command_line: command_line.to_owned(),
        }
    }

    fn to_agent() -> Decision {
        Decision {
            boot: Boot::Agent { job: 3 },
            reason: BootReason::JobActive { job: 3 },
        }
    }

    #[test]
    fn the_agent_is_booted_with_each_file_named() {
        let script = boot_script(
            BASE,
            Platform::Efi,
            &to_agent(),
            &agent("console=ttyS0,115200"),
        );
        let lines: Vec<&str> = script.lines().collect();
        assert_eq!(lines[0], "#!ipxe");
        assert_eq!(
            lines[2],
            "kernel http://10.77.0.1:8080/boot/vmlinuz initrd=initramfs.img initrd=trust.img \
             initrd=token.img console=ttyS0,115200 || goto failed"
        );
        assert_eq!(
            lines[5],
            "initrd --name token.img http://10.77.0.1:8080/boot/token.img || goto failed"
        );
    }

    #[test]
    fn the_local_disk_is_reached_by_the_firmwares_own_way() {
        let decision = Decision {
            boot: Boot::LocalDisk,
            reason: BootReason::NoJob,
        };
        let bios = boot_script(BASE, Platform::Bios, &decision, &agent(""));
        assert!(bios.ends_with("sanboot --no-describe --drive 0x80 || exit 1\n"));
        let efi = boot_script(BASE, Platform::Efi, &decision, &agent(""));
        assert!(efi.ends_with("/boot/disk.efi ||\nexit 1\n") && !efi.contains("0x80"));
    }

    #[test]
    fn a_start_without_server_ends_at_the_local_disk() {
        let script = start_script(BASE);
        assert!(script.contains(
            "chain --replace --autofree http://10.77.0.1:8080/boot/ipxe?mac=${netX/mac:hexhyp}&"
        ));
        assert!(script.contains("sanboot") && script.ends_with("exit 1\n"));
        assert!(!script.contains(DISK_LOADER), "nobody is there to send it");
    }

    proptest! {
        #[test]
        fn nothing_from_outside_adds_a_command(text in "[ -~\\n\\r]{0,60}") {
            let script = boot_script(BASE, Platform::Bios, &to_agent(), &agent(&text));
            let plain = boot_script(BASE, Platform::Bios, &to_agent(), &agent(""));
            prop_assert_eq!(script.lines().count(), plain.lines().count());
            prop_assert!(!script.contains('$'));
            let separators = |s: &str| s.matches("||").count() + s.matches("&&").count();
            prop_assert_eq!(separators(&script), separators(&plain));
        }
    }
}

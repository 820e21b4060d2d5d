//! The GRUB scripts that carry out a boot decision, for firmware that starts nothing but what is signed.
//!
//! As with iPXE there are two: a *start* script, the same for everybody, asks the server who this machine is, and the
//! answer is a *boot* script for it. A distribution's signed GRUB knows TFTP and nothing better, so a question is the
//! name of a file: `netflash/boot/PLATFORM/MAC/UUID`. Nothing is a dead end: whoever gets no answer boots the local
//! disk.

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::{AgentBoot, Boot, Decision};

/// Times the start script asks before it gives up and boots the local disk.
const ATTEMPTS_MAX: u32 = 8;

/// Loaders of the local disk, in the order they are tried. The first is what a disk boots when its firmware has
/// forgotten everything; some systems are installed without it.
const LOCAL_LOADERS: [&str; 4] = [
    "/EFI/BOOT/BOOTX64.EFI",
    "/EFI/Microsoft/Boot/bootmgfw.efi",
    "/EFI/debian/shimx64.efi",
    "/EFI/ubuntu/shimx64.efi",
];

/// The script everybody starts with: `grub/grub.cfg` on the server.
pub fn grub_start(server: Ipv4Addr) -> String {
    let attempts: Vec<String> = (1..=ATTEMPTS_MAX).map(|n| n.to_string()).collect();
    format!(
        "set netflash_uuid=none\n\
         smbios --type 1 --get-uuid 8 --set netflash_uuid\n\
         for attempt in {attempts}; do\n\
         \x20 source (tftp,{server})/netflash/boot/$grub_platform/$net_default_mac/$netflash_uuid\n\
         \x20 echo netflash: asking {server} again\n\
         \x20 sleep 3\n\
         done\n\
         echo netflash: no answer, booting the local disk\n\
         {local}",
        attempts = attempts.join(" "),
        local = local_disk(),
    )
}

/// The script that carries out `decision`. `agent` is needed when the agent is booted; its paths are those of files
/// on `server`.
///
/// It returns to the start script when the agent cannot be loaded: right for a server that is being restarted.
pub fn grub_boot(server: Ipv4Addr, decision: &Decision, agent: &AgentBoot) -> String {
    let reason = word(&decision.reason.to_string());
    let mut script = format!("echo {}\n", quoted(&format!("netflash: {reason}")));
    match decision.boot {
        Boot::LocalDisk => script += &local_disk(),
        Boot::Agent { .. } => {
            let file = |path: &str| format!(" (tftp,{server})/{}", word(path).replace(' ', ""));
            let initrds: String = agent.initrds.iter().map(|(_, path)| file(path)).collect();
            let parameters: String = word(&agent.command_line)
                .split_whitespace()
                .map(|parameter| format!(" {}", quoted(parameter)))
                .collect();
            // Writing to a string cannot fail.
            let _ = write!(
                script,
                "if linux{kernel}{parameters}; then\n\
                 \x20 if initrd{initrds}; then\n\
                 \x20   boot\n\
                 \x20 fi\n\
                 fi\n\
                 echo netflash: the agent could not be loaded\n\
                 sleep 5\n",
                kernel = file(&agent.kernel),
            );
        }
    }
    script
}

/// The first and only words of a GRUB that iPXE loads to go on to the local disk under UEFI ([`crate::DISK_LOADER`]).
///
/// GRUB without its shell knows neither loops nor conditions: a line that fails leaves the next one to try.
pub fn grub_disk() -> String {
    let mut script = String::new();
    for loader in LOCAL_LOADERS {
        // Writing to a string cannot fail.
        let _ = write!(
            script,
            "search.file {loader} root\nchainloader ($root){loader}\nboot\n"
        );
    }
    script + "exit\n"
}

/// How to go on to the local disk. Firmware takes the end of a boot program for success and may stop there, so the
/// disk's own loader comes first; it is checked against the same keys as everything else.
fn local_disk() -> String {
    format!(
        "if [ \"$grub_platform\" = pc ]; then\n\
         \x20 set root=(hd0)\n\
         \x20 chainloader +1\n\
         \x20 boot\n\
         fi\n\
         for loader in {loaders}; do\n\
         \x20 if search --no-floppy --file --set=netflash_disk $loader; then\n\
         \x20   set root=$netflash_disk\n\
         \x20   chainloader ($netflash_disk)$loader\n\
         \x20   boot\n\
         \x20 fi\n\
         done\n\
         exit 1\n",
        loaders = LOCAL_LOADERS.join(" ")
    )
}

/// `text` without what GRUB gives a meaning: line ends, quoting, `$`, `;`, `|`, `&`, `#`, `<`, `>`, braces.
fn word(text: &str) -> String {
    const PUNCTUATION: &str = " .,:/=-_?@+%[]()";
    let kept = |c: &char| c.is_ascii_alphanumeric() || PUNCTUATION.contains(*c);
    text.chars().filter(kept).collect()
}

/// One argument. What [`word`] leaves has no quote in it.
fn quoted(text: &str) -> String {
    format!("'{text}'")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::{grub_boot, grub_start};
    use crate::{AgentBoot, Boot, BootReason, Decision};

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    fn agent(command_line: &str) -> AgentBoot {
        let initrd = |name: &str| (name.to_owned(), format!("netflash/{name}"));
        AgentBoot {
            kernel: "netflash/vmlinuz".to_owned(),
            initrds: vec![
                initrd("initramfs.img"),
                initrd("trust.img"),
                initrd("ticket/abc/token.img"),
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

    fn to_disk(reason: &str) -> Decision {
        Decision {
            boot: Boot::LocalDisk,
            reason: BootReason::Doubtful(reason.to_owned()),
        }
    }

    #[test]
    fn the_agent_is_booted_with_all_its_files() {
        let script = grub_boot(SERVER, &to_agent(), &agent("console=ttyS0,115200 quiet"));
        assert!(script.starts_with("echo 'netflash: job 3 is active'\n"));
        assert!(script.contains(
            "linux (tftp,10.77.0.1)/netflash/vmlinuz 'console=ttyS0,115200' 'quiet'; then"
        ));
        assert!(script.contains(
            "initrd (tftp,10.77.0.1)/netflash/initramfs.img (tftp,10.77.0.1)/netflash/trust.img \
             (tftp,10.77.0.1)/netflash/ticket/abc/token.img; then"
        ));
    }

    #[test]
    fn without_an_answer_and_without_a_job_the_disk_boots() {
        let started = grub_start(SERVER);
        assert!(started.contains("/netflash/boot/$grub_platform/$net_default_mac/$netflash_uuid"));
        for script in [started, grub_boot(SERVER, &to_disk("x"), &agent(""))] {
            assert!(script.contains("chainloader") && script.ends_with("exit 1\n"));
        }
    }

    #[test]
    fn whoever_cannot_load_the_agent_asks_again() {
        let script = grub_boot(SERVER, &to_agent(), &agent(""));
        assert!(!script.contains("exit") && script.ends_with("sleep 5\n"));
    }

    /// GRUB's own parser judges.
    #[test]
    fn grubs_own_parser_takes_the_scripts() {
        let scripts = [
            grub_start(SERVER),
            grub_boot(SERVER, &to_agent(), &agent("a=b c=d,e")),
            grub_boot(SERVER, &to_disk("its UUID (2) is another's"), &agent("")),
        ];
        for script in scripts {
            let mut child = std::process::Command::new("grub-script-check")
                .stdin(std::process::Stdio::piped())
                .spawn()
                .expect("grub-script-check is in the package grub-common: ./scripts/setup");
            let mut stdin = child.stdin.take().unwrap();
            std::io::Write::write_all(&mut stdin, script.as_bytes()).unwrap();
            drop(stdin);
            assert!(child.wait().unwrap().success(), "{script}");
        }
    }

    proptest! {
        #[test]
        fn nothing_from_outside_adds_a_command(text in "[ -~\\n\\r]{0,60}") {
            for (with, without) in [
                (
                    grub_boot(SERVER, &to_agent(), &agent(&text)),
                    grub_boot(SERVER, &to_agent(), &agent("")),
                ),
                (
                    grub_boot(SERVER, &to_disk(&text), &agent("")),
                    grub_boot(SERVER, &to_disk(""), &agent("")),
                ),
            ] {
                prop_assert_eq!(with.lines().count(), without.lines().count());
                for special in ["$", ";", "&", "|", "{", "\"", "\\", "#"] {
                    let count = |script: &str| script.matches(special).count();
                    prop_assert_eq!(count(&with), count(&without));
                }
                prop_assert!(with.matches('\'').count() % 2 == 0);
            }
        }
    }
}

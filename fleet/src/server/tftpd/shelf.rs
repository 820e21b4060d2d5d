//! What is behind the name of a file.
//!
//! ```text
//! grub/grub.cfg                          GRUB's start script
//! netflash/boot/PLATFORM/MAC/UUID        its boot script for this machine: the same decision as iPXE gets
//! netflash/vmlinuz, initramfs.img        the appliance
//! netflash/trust.img                     whom the agent believes
//! netflash/ticket/TICKET/token.img       the one-time token behind a ticket
//! anything else                          a file of the directory tftp, else a signed loader of the appliance
//! ```

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netflash_appliance::SignedLoaders;
use netflash_pxe::{AgentBoot, Identity, Platform, TftpRefusal, grub_boot, grub_start};

use crate::config::{DhcpConfig, DhcpMode};
use crate::fleet::{BootRequest, Way};
use crate::server::answer::Web;
use crate::server::boot;

/// Loaders that `netflash appliance build --secure-boot` puts beside the kernel.
const SIGNED_LOADERS: [&str; 2] = [SignedLoaders::SHIM, SignedLoaders::GRUB_NET];

/// Whether a loader is one of them.
pub(in crate::server) fn is_signed(loader: &str) -> bool {
    SIGNED_LOADERS.contains(&loader)
}

/// What is sent.
#[derive(Debug)]
pub(in crate::server) enum Goods {
    /// Made for this request.
    Bytes(Vec<u8>),
    /// A file, and its size when it was opened.
    File { file: File, bytes: u64 },
}

impl Goods {
    /// Its size in bytes.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Goods::Bytes(bytes) => bytes.len() as u64,
            Goods::File { bytes, .. } => *bytes,
        }
    }
}

/// Everything that has a name here.
#[derive(Clone)]
pub(in crate::server) struct Shelf(pub(in crate::server) Arc<Web>);

/// What a name means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'a> {
    Start,
    Boot {
        platform: &'a str,
        mac: &'a str,
        uuid: &'a str,
    },
    Trust,
    Token {
        ticket: &'a str,
    },
    Appliance(&'a str),
    Other(PathBuf),
}

impl<'a> Meaning<'a> {
    /// `None` for names that lead nowhere, or out of here.
    fn of(path: &'a str) -> Option<Meaning<'a>> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let plain = |part: &&str| !part.starts_with('.') && !part.contains(['\\', ':']);
        Some(match parts[..] {
            ["grub", "grub.cfg"] => Meaning::Start,
            ["netflash", "boot", platform, mac, uuid] => Meaning::Boot {
                platform,
                mac,
                uuid,
            },
            ["netflash", "trust.img"] => Meaning::Trust,
            ["netflash", "ticket", ticket, "token.img"] => Meaning::Token { ticket },
            ["netflash", name] if boot::APPLIANCE_FILES.contains(&name) => Meaning::Appliance(name),
            ["netflash", ..] | [] => return None,
            _ if parts.iter().all(plain) => Meaning::Other(parts.iter().collect()),
            _ => return None,
        })
    }
}

impl Shelf {
    /// Find what a name stands for. Asking for a boot script is a boot: it is decided, noted and counted.
    pub(super) fn find(&self, path: &str) -> Result<Goods, TftpRefusal> {
        let web = &self.0;
        let address = web.address(None);
        match Meaning::of(path).ok_or(TftpRefusal::NotFound)? {
            Meaning::Start => Ok(Goods::Bytes(grub_start(address).into_bytes())),
            Meaning::Boot {
                platform,
                mac,
                uuid,
            } => self.boot_script(platform, mac, uuid),
            Meaning::Trust => packed(boot::trust_image(web, address)),
            Meaning::Token { ticket } => {
                let token = web.fleet.token_of(ticket).ok_or(TftpRefusal::NotFound)?;
                packed(boot::token_image(&token))
            }
            Meaning::Appliance(name) => open(&self.appliance().join(name)),
            Meaning::Other(path) => match open_below(&web.fleet.dir.path("tftp"), &path) {
                Err(TftpRefusal::NotFound) if path.to_str().is_some_and(is_signed) => {
                    open(&self.appliance().join(path))
                }
                found => found,
            },
        }
    }

    /// Check that the loaders are there that firmware with Secure Boot is sent to, if it is.
    pub(in crate::server) fn check(&self, dhcp: &DhcpConfig) -> anyhow::Result<()> {
        let loader = &dhcp.uefi_loader;
        anyhow::ensure!(
            !(dhcp.http_boot && is_signed(loader)),
            "dhcp.http_boot and dhcp.uefi_loader = {loader:?} exclude each other: the GRUB behind it knows TFTP only"
        );
        let absent = |name: &&str| !matches!(self.find(name), Ok(Goods::File { .. }));
        if let Some(absent) = SIGNED_LOADERS
            .iter()
            .find(|name| is_signed(loader) && absent(name))
        {
            anyhow::bail!(
                "{absent} is not in {}: netflash appliance build --secure-boot puts it there",
                self.appliance().display()
            );
        }
        if dhcp.mode == DhcpMode::Proxy && is_signed(loader) {
            log::warn!(
                "dhcp uefi_loader={loader} mode=proxy; GRUB looks for its menu where the other DHCP server says: let that \
                 one name {} as its next server (siaddr, or option 66), else machines stop at a prompt of GRUB",
                self.0.address(None)
            );
        }
        Ok(())
    }

    fn appliance(&self) -> PathBuf {
        let fleet = &self.0.fleet;
        fleet.dir.path(&fleet.config.boot.appliance)
    }

    fn boot_script(&self, platform: &str, mac: &str, uuid: &str) -> Result<Goods, TftpRefusal> {
        let Ok(platform) = platform.parse::<Platform>();
        let mac = mac.parse().ok();
        let request = BootRequest {
            identity: Identity {
                uuid: boot::given(uuid).filter(|uuid| uuid != "none"),
                macs: mac.into_iter().collect(),
                ..Identity::default()
            },
            platform,
            way: Way::Network,
        };
        let fleet = &self.0.fleet;
        let answer = fleet.boot(&request).map_err(|error| {
            log::error!("boot {:#}", anyhow::Error::new(error));
            TftpRefusal::Failed
        })?;
        let ticket = answer.ticket.unwrap_or_default();
        let file = |name: &str| (name.to_owned(), format!("netflash/{name}"));
        let agent = AgentBoot {
            kernel: "netflash/vmlinuz".to_owned(),
            initrds: vec![
                file("initramfs.img"),
                file("trust.img"),
                file(&format!("ticket/{ticket}/token.img")),
            ],
            command_line: boot::command_line(&fleet.config.boot, mac, &answer.kernel),
        };
        let script = grub_boot(self.0.address(None), &answer.decision, &agent);
        Ok(Goods::Bytes(script.into_bytes()))
    }
}

fn packed(archive: Result<Vec<u8>, netflash_appliance::CpioError>) -> Result<Goods, TftpRefusal> {
    archive.map(Goods::Bytes).map_err(|error| {
        log::error!("boot archive error={error}");
        TftpRefusal::Failed
    })
}

/// A file below `root`; a link out of it is no file of ours.
fn open_below(root: &Path, path: &Path) -> Result<Goods, TftpRefusal> {
    let place = root.join(path).canonicalize();
    let place = place.map_err(|_| TftpRefusal::NotFound)?;
    let root = root.canonicalize().map_err(|_| TftpRefusal::NotFound)?;
    if !place.starts_with(root) {
        return Err(TftpRefusal::NotFound);
    }
    open(&place)
}

fn open(path: &Path) -> Result<Goods, TftpRefusal> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    match opened {
        Ok((facts, file)) if facts.is_file() => Ok(Goods::File {
            file,
            bytes: facts.len(),
        }),
        Ok(_) => Err(TftpRefusal::NotFound),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(TftpRefusal::NotFound),
        Err(error) => {
            log::error!("boot file={} error={error}", path.display());
            Err(TftpRefusal::Failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use netflash_pxe::TftpRefusal;
    use proptest::prelude::{prop_assert, proptest};

    use super::{Goods, Meaning, open_below};

    #[test]
    fn each_name_means_one_thing() {
        let boot = Meaning::of("/netflash/boot/efi/52:54:00:77:00:01/none");
        let expected = Meaning::Boot {
            platform: "efi",
            mac: "52:54:00:77:00:01",
            uuid: "none",
        };
        assert_eq!(boot, Some(expected));
        assert_eq!(Meaning::of("//grub//grub.cfg"), Some(Meaning::Start));
        assert_eq!(
            Meaning::of("netflash/initramfs.img"),
            Some(Meaning::Appliance("initramfs.img"))
        );
        assert_eq!(Meaning::of("netflash/appliance.json"), None);
        assert_eq!(Meaning::of("netflash/../admin.token"), None);
        assert_eq!(
            Meaning::of("/shimx64.efi"),
            Some(Meaning::Other("shimx64.efi".into()))
        );
    }

    #[test]
    fn nothing_leads_out_of_the_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("tftp");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(scratch.path().join("secret"), "s").unwrap();
        std::fs::write(root.join("loader"), "l").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
        for path in ["../secret", "link", "absent", "/", ""] {
            let found = open_below(&root, &PathBuf::from(path));
            assert!(matches!(found, Err(TftpRefusal::NotFound)), "{path}");
        }
        let found = open_below(&root, &PathBuf::from("loader"));
        assert!(matches!(found, Ok(Goods::File { bytes: 1, .. })));
    }

    proptest! {
        #[test]
        fn no_name_of_a_file_climbs(path in "[./\\\\a:~-]{0,24}") {
            if let Some(Meaning::Other(path)) = Meaning::of(&path) {
                let normal = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(path.components().all(normal));
            }
        }
    }
}

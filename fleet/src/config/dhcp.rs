//! `[dhcp]`: who gives out addresses, and how machines find their boot file.

use std::net::Ipv4Addr;

use serde::Deserialize;

/// Who gives out addresses on the machines' network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DhcpMode {
    /// This server, on an isolated network.
    #[default]
    Own,
    /// Another server; this one adds the boot file, as a proxy.
    Proxy,
    /// Another server, which hands out the boot file too (`netflash init` prints how). TFTP is served here.
    None,
}

/// DHCP and TFTP for machines that boot from the network.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DhcpConfig {
    /// Who gives out addresses.
    #[serde(default)]
    pub(crate) mode: DhcpMode,
    /// The interface of the machines' network.
    pub(crate) interface: String,
    /// First and last address to give out; of mode `own` alone.
    pub(crate) range: Option<[Ipv4Addr; 2]>,
    /// Network mask.
    #[serde(default = "default_netmask")]
    pub(crate) netmask: Ipv4Addr,
    /// iPXE for UEFI machines: `snponly.efi` or `ipxe.efi`.
    #[serde(default = "default_uefi_loader")]
    pub(crate) uefi_loader: String,
    /// iPXE for BIOS machines: `undionly.kpxe` or `ipxe.pxe`.
    #[serde(default = "default_bios_loader")]
    pub(crate) bios_loader: String,
    /// Answer UEFI HTTP boot too. Firmware that tries it after PXE asks twice before it goes on to its disk.
    #[serde(default)]
    pub(crate) http_boot: bool,
}

fn default_netmask() -> Ipv4Addr {
    Ipv4Addr::new(255, 255, 255, 0)
}

fn default_uefi_loader() -> String {
    "snponly.efi".to_owned()
}

fn default_bios_loader() -> String {
    "undionly.kpxe".to_owned()
}

impl DhcpConfig {
    /// The setting that makes no sense, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        // These go into dnsmasq's configuration: a line end or a comma would be another option.
        if !is_plain(&self.interface) {
            let problem = format!("{:?} is no interface", self.interface);
            return Err(("dhcp.interface", problem));
        }
        if !is_plain(&self.uefi_loader) || !is_plain(&self.bios_loader) {
            let problem = "must be file names".to_owned();
            return Err(("dhcp.uefi_loader, dhcp.bios_loader", problem));
        }
        let problem = match (self.mode, self.range) {
            (DhcpMode::Own, None) => "first and last address to give out are missing",
            (DhcpMode::Own, Some([first, last])) if first > last => {
                "the first address is above the last"
            }
            (DhcpMode::Proxy | DhcpMode::None, Some(_)) => {
                "addresses are given out by mode \"own\" alone; leave the range out"
            }
            _ => return Ok(()),
        };
        Err(("dhcp.range", problem.to_owned()))
    }
}

fn is_plain(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::{DhcpConfig, DhcpMode};

    fn parse(text: &str) -> Result<DhcpConfig, String> {
        let config: DhcpConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        let wrong = |(setting, problem)| format!("{setting}: {problem}");
        config.check().map_err(wrong)?;
        Ok(config)
    }

    #[test]
    fn addresses_are_given_out_by_an_own_server_alone() {
        let range = "range = ['10.0.0.5', '10.0.0.9']";
        let own = parse(&format!("interface = 'eth1'\n{range}")).unwrap();
        assert_eq!(own.mode, DhcpMode::Own);
        assert!(parse("interface = 'eth1'").is_err_and(|e| e.contains("missing")));
        for mode in ["proxy", "none"] {
            let text = format!("mode = '{mode}'\ninterface = 'eth1'\n");
            assert!(parse(&text).is_ok());
            assert!(parse(&(text + range)).is_err_and(|e| e.contains("dhcp.range")));
        }
    }

    #[test]
    fn nothing_adds_a_line_to_the_configuration_of_dnsmasq() {
        let text = "mode = 'none'\ninterface = \"eth0\\nport=53\"";
        assert!(parse(text).is_err_and(|e| e.contains("dhcp.interface")));
        let text = "mode = 'none'\ninterface = 'eth0'\nuefi_loader = 'a,b'";
        assert!(parse(text).is_err_and(|e| e.contains("loader")));
    }
}

//! `netflash init`: a server's directory, and what the network's DHCP server is to be told.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use anyhow::Context;
use clap::{Args, ValueEnum};
use netflash_multicast::{Family, Interface, InterfaceChoice};
use nix::ifaddrs::getifaddrs;
use serde_json::json;

use super::show;
use crate::Exit;
use crate::config::{Config, DhcpConfig, DhcpMode, TEMPLATE};
use crate::data_dir::DataDir;
use crate::snippet::{ForeignDhcp, Place};

/// Addresses given out by an own server, counted from the network's first.
const RANGE: [u32; 2] = [50, 200];

/// Make a server's directory and say what its network's DHCP server needs
///
/// Writes netflash.toml unless there is one. With a DHCP server that is to hand
/// out the boot file by itself, prints what to add to that one's configuration.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netflash --dir room init --iface eth1 --dhcp own     an isolated network
  netflash --dir room init --dhcp proxy                beside any DHCP server
  netflash --dir room init --dhcp kea > netflash.json  for that server's admin")]
pub(crate) struct InitArgs {
    /// Interface of the machines' network; needed when there are several
    #[arg(long, value_name = "IF", default_value = "auto")]
    iface: String,
    /// Who gives out addresses, and whether that server names the boot file
    #[arg(long, value_name = "WHO", default_value = "proxy")]
    dhcp: Dhcp,
}

/// Who gives out addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dhcp {
    /// This server, on an isolated network
    Own,
    /// Another server; this one adds the boot file
    Proxy,
    /// ISC dhcpd, which names the boot file
    Isc,
    /// Kea, which names the boot file
    Kea,
    /// A dnsmasq of yours, which names the boot file
    Dnsmasq,
    /// Windows Server, which names the boot file
    Windows,
}

impl Dhcp {
    fn mode(self) -> DhcpMode {
        match self {
            Dhcp::Own => DhcpMode::Own,
            Dhcp::Proxy => DhcpMode::Proxy,
            _ => DhcpMode::None,
        }
    }

    fn foreign(self) -> Option<ForeignDhcp> {
        match self {
            Dhcp::Own | Dhcp::Proxy => None,
            Dhcp::Isc => Some(ForeignDhcp::Isc),
            Dhcp::Kea => Some(ForeignDhcp::Kea),
            Dhcp::Dnsmasq => Some(ForeignDhcp::Dnsmasq),
            Dhcp::Windows => Some(ForeignDhcp::Windows),
        }
    }
}

/// The machines' network.
#[derive(Debug, Clone)]
struct Network {
    interface: String,
    address: Ipv4Addr,
    netmask: Ipv4Addr,
}

pub(crate) fn run(args: &InitArgs, dir: &Path, json: bool) -> anyhow::Result<Exit> {
    let network = Network::choose(&args.iface)?;
    let data = DataDir::open(dir)?;
    let path = data.config();
    let written = !path.exists();
    if written {
        let text = configuration(args.dhcp.mode(), &network)?;
        data.write("netflash.toml", 0o644, text.as_bytes())?;
    }
    let config = Config::load(&path)?;
    let dhcp = config.dhcp.as_ref();
    let suits = dhcp.is_some_and(|dhcp| dhcp.mode == args.dhcp.mode());
    let snippet = args
        .dhcp
        .foreign()
        .map(|kind| kind.snippet(&place(&config, dhcp, &network)));
    let result = json!({
        "config": path,
        "written": written,
        "suits": suits,
        "interface": network.interface,
        "address": network.address,
        "netmask": network.netmask,
        "snippet": snippet,
    });
    if written {
        eprintln!("{} is written, for {}", path.display(), network.interface);
    } else {
        eprintln!("{} is kept as it is", path.display());
    }
    if !suits {
        let mode = word(args.dhcp.mode());
        eprintln!("[dhcp] there is another: it needs mode = {mode:?}");
    }
    eprintln!("next: netflash appliance build --out appliance, then netflash serve as root");
    show(json, &result, || snippet.clone().unwrap_or_default())?;
    // A configuration that contradicts what was asked for is not what was asked for.
    Ok(if suits { Exit::Done } else { Exit::Failed })
}

impl Network {
    fn choose(iface: &str) -> anyhow::Result<Network> {
        let Ok(choice) = iface.parse::<InterfaceChoice>();
        let interface = Interface::choose(&choice, Family::V4)?;
        let name = interface.name().to_owned();
        let address = interface.ipv4().context("no IPv4 address")?;
        let mut entries = getifaddrs().context("listing interfaces")?;
        let netmask = entries.find_map(|entry| {
            let ours = entry.address?.as_sockaddr_in()?.ip() == address;
            let netmask = entry.netmask?.as_sockaddr_in()?.ip();
            (ours && entry.interface_name == name).then_some(netmask)
        });
        let netmask = netmask.with_context(|| format!("{name} has no network mask"))?;
        Ok(Network {
            interface: name,
            address,
            netmask,
        })
    }

    fn first(&self) -> Ipv4Addr {
        self.address & self.netmask
    }

    /// The addresses that an own server gives out.
    fn range(&self) -> anyhow::Result<[Ipv4Addr; 2]> {
        let [first, last] = RANGE.map(|host| Ipv4Addr::from(u32::from(self.first()) + host));
        let broadcast = self.first() | !self.netmask;
        anyhow::ensure!(
            last < broadcast,
            "the network of {} is smaller than usual ({}): write dhcp.range yourself",
            self.interface,
            self.netmask
        );
        Ok([first, last])
    }
}

/// The template with this network filled in.
fn configuration(mode: DhcpMode, network: &Network) -> anyhow::Result<String> {
    let Network {
        interface, netmask, ..
    } = network;
    let mut dhcp = vec![
        "[dhcp]".to_owned(),
        format!("mode = \"{}\"", word(mode)),
        format!("interface = \"{interface}\""),
    ];
    if mode == DhcpMode::Own {
        let [first, last] = network.range()?;
        dhcp.push(format!("range = [\"{first}\", \"{last}\"]"));
        dhcp.push(format!("netmask = \"{netmask}\""));
    }
    let mut lines: Vec<String> = TEMPLATE.lines().map(str::to_owned).collect();
    let is_in_dhcp = |line: &String| line.starts_with("#: ");
    let begin = lines
        .iter()
        .position(|line| line == "#: [dhcp]")
        .context("no [dhcp] in the template")?;
    let end = begin
        + lines[begin..]
            .iter()
            .take_while(|line| is_in_dhcp(line))
            .count();
    lines.splice(begin..end, dhcp);
    let text = lines.join("\n") + "\n";
    Ok(text.replace(
        "interface = \"auto\"",
        &format!("interface = \"{interface}\""),
    ))
}

fn word(mode: DhcpMode) -> &'static str {
    match mode {
        DhcpMode::Own => "own",
        DhcpMode::Proxy => "proxy",
        DhcpMode::None => "none",
    }
}

fn place<'a>(config: &Config, dhcp: Option<&'a DhcpConfig>, network: &Network) -> Place<'a> {
    let address = config.listen.address.unwrap_or(network.address);
    Place {
        http: SocketAddrV4::new(address, config.listen.http.port()),
        network: network.first(),
        bios_loader: dhcp.map_or("undionly.kpxe", |dhcp| &dhcp.bios_loader),
        uefi_loader: dhcp.map_or("snponly.efi", |dhcp| &dhcp.uefi_loader),
    }
}

#[cfg(test)]
mod tests {
    use super::{Network, configuration};
    use crate::config::{Config, DhcpMode};

    fn network(netmask: &str) -> Network {
        Network {
            interface: "eth1".to_owned(),
            address: "10.77.0.1".parse().unwrap(),
            netmask: netmask.parse().unwrap(),
        }
    }

    fn written(mode: DhcpMode) -> Config {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("netflash.toml");
        std::fs::write(
            &path,
            configuration(mode, &network("255.255.255.0")).unwrap(),
        )
        .unwrap();
        Config::load(&path).unwrap()
    }

    #[test]
    fn what_is_written_is_a_configuration_for_this_network() {
        for mode in [DhcpMode::Own, DhcpMode::Proxy, DhcpMode::None] {
            let config = written(mode);
            assert_eq!(config.multicast.interface, "eth1");
            let dhcp = config.dhcp.unwrap();
            assert_eq!((dhcp.mode, dhcp.interface.as_str()), (mode, "eth1"));
            assert_eq!(dhcp.range.is_some(), mode == DhcpMode::Own);
        }
        let range = written(DhcpMode::Own).dhcp.unwrap().range.unwrap();
        assert_eq!(
            range.map(|address| address.to_string()),
            ["10.77.0.50", "10.77.0.200"]
        );
    }

    #[test]
    fn a_small_network_needs_a_range_from_its_operator() {
        assert!(configuration(DhcpMode::Own, &network("255.255.255.192")).is_err());
        assert!(configuration(DhcpMode::Proxy, &network("255.255.255.192")).is_ok());
    }
}

//! A switch that does not pass multicast, or not all of it: nftables at the ports of the bridge.

use anyhow::{Context, Result};

use crate::lab::sh;

/// What does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// Everything to a group.
    Multicast,
    /// Large datagrams to a group: announces pass, data does not.
    LargeMulticast,
    /// Every datagram, to a group or not, towards the machine and from it; only DHCP passes.
    Datagrams,
}

/// The wall in front of some machines; it falls when this is dropped.
#[derive(Debug)]
pub struct Wall;

impl Wall {
    /// Builds it in front of `receivers` of a hall, by the names of their namespaces.
    pub fn build(receivers: &[&str], blocked: Blocked) -> Result<Wall> {
        let ports: Vec<String> = receivers.iter().map(|name| format!("p-{name}")).collect();
        Wall::before(&ports, blocked)
    }

    /// Builds it at these ports of the bridge.
    pub fn before(ports: &[String], blocked: Blocked) -> Result<Wall> {
        let mut rules = String::from(
            "table bridge wall {\nchain forward {\n\
             type filter hook forward priority 10; policy accept;\n",
        );
        for port in ports {
            let group = format!("oifname \"{port}\" ip daddr 224.0.0.0/4 ip protocol udp");
            rules.push_str(&match blocked {
                Blocked::Multicast => format!("{group} drop\n"),
                Blocked::LargeMulticast => format!("{group} ip length > 1000 drop\n"),
                Blocked::Datagrams => format!(
                    "oifname \"{port}\" udp sport != 67 drop\niifname \"{port}\" udp dport != 67 drop\n"
                ),
            });
        }
        rules.push_str("}\n}\n");
        let directory = tempfile::tempdir().context("making room for the nftables rules")?;
        let path = directory.path().join("wall.nft");
        std::fs::write(&path, rules).context("writing the nftables rules")?;
        sh(&format!("nft -f {}", path.display()))?;
        Ok(Wall)
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        // Its world may be gone before it.
        let _ = sh("nft delete table bridge wall");
    }
}

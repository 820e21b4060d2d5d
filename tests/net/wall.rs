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
}

/// The wall in front of some machines; it falls when this is dropped.
#[derive(Debug)]
pub struct Wall;

impl Wall {
    /// Builds it in front of `receivers`, by the names of their namespaces.
    pub fn build(receivers: &[&str], blocked: Blocked) -> Result<Wall> {
        let size = match blocked {
            Blocked::Multicast => "",
            Blocked::LargeMulticast => "ip length > 1000",
        };
        let mut rules = String::from(
            "table bridge wall {\nchain forward {\n\
             type filter hook forward priority 10; policy accept;\n",
        );
        for receiver in receivers {
            rules.push_str(&format!(
                "oifname \"p-{receiver}\" ip daddr 224.0.0.0/4 ip protocol udp {size} drop\n"
            ));
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

//! Loss of datagrams towards each machine, by nftables in the bridge, and how
//! much really was lost.
//!
//! Only the session's own traffic is hit: multicast towards the machine. DHCP
//! and TFTP of the emulated firmware have retry timers of many seconds, and
//! would only measure those.

use anyhow::{Context, Result};
use serde_json::Value;

use super::shell;

/// Loss is drawn out of this many.
const DRAWN_FROM: u32 = 10_000;

/// The table of one room: one chain of rules for each port.
#[derive(Debug)]
pub struct LossTable {
    ports: Vec<String>,
    percent: f64,
}

/// What passed and what was dropped at one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCount {
    /// Multicast datagrams that came to the port.
    pub datagrams: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// How many of them were dropped.
    pub dropped: u64,
}

impl LossCount {
    /// Dropped, in per cent of what came.
    pub fn percent(&self) -> f64 {
        100.0 * self.dropped as f64 / self.datagrams.max(1) as f64
    }

    /// What came since an earlier count of the same port.
    #[must_use]
    pub fn since(&self, earlier: &LossCount) -> LossCount {
        LossCount {
            datagrams: self.datagrams - earlier.datagrams,
            bytes: self.bytes - earlier.bytes,
            dropped: self.dropped - earlier.dropped,
        }
    }
}

impl LossTable {
    /// Installs the rules for these ports of the bridge.
    pub fn install(ports: Vec<String>, percent: f64) -> Result<LossTable> {
        let table = LossTable { ports, percent };
        let directory = tempfile::tempdir().context("making room for the nftables rules")?;
        let path = directory.path().join("loss.nft");
        std::fs::write(&path, table.rules()).context("writing the nftables rules")?;
        shell::sh(&format!("nft -f {}", path.display()))?;
        Ok(table)
    }

    /// The asked loss in per cent.
    pub fn percent(&self) -> f64 {
        self.percent
    }

    /// Counters of one port, since the room was made.
    pub fn count(&self, port: &str) -> Result<LossCount> {
        let came = counter(&format!("came_{port}"))?;
        let dropped = counter(&format!("dropped_{port}"))?;
        Ok(LossCount {
            datagrams: came.0,
            bytes: came.1,
            dropped: dropped.0,
        })
    }

    fn rules(&self) -> String {
        let mut rules = String::from("table bridge lab {\n");
        for port in &self.ports {
            rules.push_str(&format!(
                "counter came_{port} {{ }}\ncounter dropped_{port} {{ }}\n"
            ));
        }
        rules.push_str("chain forward {\ntype filter hook forward priority 0; policy accept;\n");
        let lost = (self.percent / 100.0 * f64::from(DRAWN_FROM)).round();
        for port in &self.ports {
            for group in ["ip daddr 224.0.0.0/4", "ip6 daddr ff00::/8"] {
                let traffic = format!("oifname \"{port}\" {group} meta l4proto udp");
                rules.push_str(&format!("{traffic} counter name came_{port}\n"));
                if lost > 0.0 {
                    rules.push_str(&format!(
                        "{traffic} numgen random mod {DRAWN_FROM} < {lost} counter name dropped_{port} drop\n"
                    ));
                }
            }
        }
        rules.push_str("}\n}\n");
        rules
    }
}

fn counter(name: &str) -> Result<(u64, u64)> {
    let text = shell::sh(&format!("nft -j list counter bridge lab {name}"))?;
    let json: Value = serde_json::from_str(&text).context("reading nft's JSON")?;
    let number = |key: &str| {
        json["nftables"]
            .as_array()?
            .iter()
            .find_map(|item| item["counter"][key].as_u64())
    };
    number("packets")
        .zip(number("bytes"))
        .with_context(|| format!("nft lists no counter {name}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_loss_no_rule_drops() {
        let table = LossTable {
            ports: vec!["t1".into()],
            percent: 0.0,
        };
        assert!(!table.rules().contains("numgen"));
    }

    #[test]
    fn two_per_cent_are_two_hundred_of_ten_thousand() {
        let table = LossTable {
            ports: vec!["t1".into(), "t2".into()],
            percent: 2.0,
        };
        assert_eq!(table.rules().matches("mod 10000 < 200").count(), 2 * 2);
    }
}

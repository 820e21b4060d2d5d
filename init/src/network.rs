//! All network cards at once: up, signal, address, renewal, for as long as the machine runs.
//!
//! A machine may have twelve cards and one cable. Every Ethernet card gets a thread of its
//! own, which never gives up; who needs the network waits for the first address, and a little
//! longer for that of the card the machine was booted from.
//!
//! ```text
//!   card ─┐                     ┌─ DHCP ────┐
//!   card ─┴─ bond? ─── VLAN? ───┼─ static ──┼─── address, routes, MTU
//!   (each alone without a bond) └─ IPv6 ────┘
//! ```

mod holder;
mod stack;
mod supply;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use netflash_multicast::Family;
use netflash_pxe::{Bond, Iface, KernelParams, OrphanKind, StaticAddress, VlanId};

use crate::links::{Link, Netlink};
use crate::machine::is_preferred;
use crate::orphans;

use holder::Holder;

/// Pause between looks for new cards and changed signals.
const POLL: Duration = Duration::from_millis(500);
/// How much longer the preferred card may take than another.
const PREFERRED_WAIT: Duration = Duration::from_secs(15);
/// Cards served; a machine has 32 at most.
const CARDS_MAX: usize = 64;

/// How this machine shall reach its network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wiring {
    /// The card to prefer.
    pub preferred: Option<Iface>,
    /// The protocol by which the server is reached: addresses of the other are of no use.
    pub family: Family,
    /// The cards to use as one.
    pub bond: Option<Bond>,
    /// The tag on everything.
    pub vlan: Option<VlanId>,
    /// The address, where no DHCP server shall be asked for one.
    pub ip: Option<StaticAddress>,
    /// The router beside that address.
    pub gateway: Option<Ipv4Addr>,
    /// The machine's, for DHCP servers that go by it.
    pub uuid: Option<[u8; 16]>,
}

impl Wiring {
    /// What the kernel command line says.
    pub(crate) fn new(params: &KernelParams, uuid: Option<[u8; 16]>) -> Wiring {
        Wiring {
            preferred: params.iface.clone(),
            family: Family::default(),
            bond: params.bond.clone(),
            vlan: params.vlan,
            ip: params.ip,
            gateway: params.gateway,
            uuid,
        }
    }

    /// The same, to reach this server.
    pub(crate) fn towards(self, server: &SocketAddr) -> Wiring {
        Wiring {
            family: Family::of(server),
            ..self
        }
    }

    /// Modules that no device asks for.
    pub(crate) fn modules(&self) -> Vec<&'static str> {
        let bond = self.bond.is_some().then_some("bonding");
        let vlan = self.vlan.is_some().then_some("8021q");
        bond.into_iter().chain(vlan).collect()
    }
}

/// The cards of this machine and their addresses.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wiring: Wiring,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    links: Vec<Link>,
    /// By the name of the card or the bond.
    addresses: BTreeMap<String, IpAddr>,
    /// Which card has the address that is not lent.
    holder: Holder,
}

impl Network {
    /// Starts the threads.
    pub(crate) fn start(wiring: Wiring) -> Network {
        let shared = Arc::new(Shared {
            wiring,
            ..Shared::default()
        });
        let network = Network {
            shared: shared.clone(),
        };
        let watch = move || watch(&shared);
        if let Err(error) = thread::Builder::new().name("network".into()).spawn(watch) {
            log::error!("no network: {error}");
        }
        network
    }

    /// The Ethernet cards there are now.
    pub(crate) fn links(&self) -> Vec<Link> {
        self.shared.lock().links.clone()
    }

    /// Waits for an address, at most this long; whether there is one.
    ///
    /// While the preferred card exists and has none yet, others are waited over for some time.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut first: Option<Instant> = None;
        let mut state = self.shared.lock();
        loop {
            let now = Instant::now();
            if state.addresses.is_empty() {
                first = None;
            } else {
                let since = *first.get_or_insert(now);
                if self.is_served(&state) || now >= since + PREFERRED_WAIT {
                    return true;
                }
            }
            if now >= end {
                return !state.addresses.is_empty();
            }
            let pause = POLL.min(end - now);
            let (guard, _) = self
                .shared
                .changed
                .wait_timeout(state, pause)
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
        }
    }

    /// One line about every card, for a person who looks for the right cable.
    pub(crate) fn describe(&self) -> String {
        let state = self.shared.lock();
        if state.links.is_empty() {
            let orphans = orphans::describe(&orphans::list(), OrphanKind::Network);
            return orphans.unwrap_or_else(|| "no network card was found".into());
        }
        let cards = state.links.iter().map(|link| {
            let what = self.describe_card(&state, link);
            format!("{} ({}) {what}", link.name, link.permanent)
        });
        let above = state
            .addresses
            .iter()
            .filter(|(name, _)| state.links.iter().all(|link| link.name != **name))
            .map(|(name, address)| format!("{name} has {address}"));
        let lines: Vec<String> = cards.chain(above).collect();
        lines.join(", ")
    }

    fn describe_card(&self, state: &State, link: &Link) -> String {
        let wiring = &self.shared.wiring;
        let wants = match (wiring.ip, wiring.vlan) {
            _ if wiring.family == Family::V6 => {
                "waits for a router or a DHCPv6 server to give it an address".into()
            }
            (Some(ip), _) => format!("could have {ip}"),
            (None, Some(vlan)) => format!("asks for an address in VLAN {vlan} (DHCP)"),
            (None, None) => "asks for an address (DHCP)".into(),
        };
        match (state.addresses.get(&link.name), link.carrier) {
            (Some(address), true) => format!("has {address}"),
            (Some(address), false) => format!("has {address}, but no link now"),
            (None, false) => "has no cable or no link yet".into(),
            (None, true) if link.bond.is_some() => "is part of the bond".into(),
            (None, true) if wiring.bond.is_some() => "is not part of the bond".into(),
            (None, true) => wants,
        }
    }

    fn is_served(&self, state: &State) -> bool {
        let wiring = &self.shared.wiring;
        let mut wanted = state
            .links
            .iter()
            .filter(|link| is_preferred(link, wiring.preferred.as_ref()))
            .peekable();
        // A bond has the one address there is.
        wiring.bond.is_some()
            || wanted.peek().is_none()
            || wanted.any(|link| state.addresses.contains_key(&link.name))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // State is replaced as a whole, so it is right even if a thread died over it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds cards as their drivers bring them, and starts a thread for each, or one for their bond.
fn watch(shared: &Arc<Shared>) {
    let mut served = BTreeSet::new();
    let mut bond = shared.wiring.bond.clone().map(stack::Bonding::new);
    loop {
        match Netlink::open().and_then(|mut netlink| netlink.links()) {
            Ok(links) => {
                let cards: Vec<Link> = links.into_iter().filter(is_card).collect();
                shared.lock().links.clone_from(&cards);
                shared.changed.notify_all();
                let tops = match &mut bond {
                    Some(bond) => bond.tend(&cards, &shared.wiring).into_iter().collect(),
                    None => cards,
                };
                for top in tops {
                    if served.len() < CARDS_MAX && served.insert(top.index) {
                        supply::start(shared.clone(), top);
                    }
                }
            }
            Err(error) => log::warn!("network cards cannot be listed: {error}"),
        }
        thread::sleep(POLL);
    }
}

/// A card of hardware has a device; bridges and the like have none.
fn is_card(link: &Link) -> bool {
    Path::new("/sys/class/net")
        .join(&link.name)
        .join("device")
        .exists()
}

#[cfg(test)]
mod tests {
    use netflash_pxe::Mac;

    use super::*;

    fn network(preferred: Option<&str>, links: &[&str], addressed: &[&str]) -> Network {
        let link = |(index, name): (usize, &&str)| Link {
            index: index as u32,
            name: (*name).into(),
            mac: Mac([2, 0, 0, 0, 0, index as u8]),
            permanent: Mac([2, 0, 0, 0, 0, index as u8]),
            up: true,
            carrier: index == 0,
            mtu: 1500,
            bond: None,
        };
        let state = State {
            links: links.iter().enumerate().map(link).collect(),
            addresses: addressed
                .iter()
                .map(|name| (name.to_string(), [10, 7, 0, 2].into()))
                .collect(),
            holder: Holder::default(),
        };
        let wiring = Wiring {
            preferred: preferred.map(|name| Iface::Name(name.into())),
            ..Wiring::default()
        };
        Network {
            shared: Arc::new(Shared {
                wiring,
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
        }
    }

    #[test]
    fn the_first_address_will_do_when_no_card_is_preferred_or_it_is_absent() {
        let short = Duration::from_millis(50);
        assert!(network(None, &["eth0", "eth1"], &["eth1"]).wait(short));
        assert!(network(Some("eth7"), &["eth0"], &["eth0"]).wait(short));
        assert!(!network(None, &["eth0"], &[]).wait(short));
    }

    #[test]
    fn the_preferred_card_is_waited_for_but_not_for_ever() {
        let network = network(Some("eth0"), &["eth0", "eth1"], &["eth1"]);
        assert!(!network.is_served(&network.shared.lock()));
        let started = Instant::now();
        assert!(network.wait(Duration::from_millis(200)));
        assert!(started.elapsed() >= Duration::from_millis(200));
        let mut state = network.shared.lock();
        let address = state.addresses["eth1"];
        state.addresses.insert("eth0".into(), address);
        assert!(network.is_served(&state));
    }

    #[test]
    fn an_address_on_a_bond_is_all_there_is_to_wait_for() {
        let mut network = network(Some("eth0"), &["eth0", "eth1"], &["uplink0"]);
        let shared = Arc::get_mut(&mut network.shared).unwrap();
        shared.wiring.bond = "802.3ad".parse().ok();
        assert!(network.wait(Duration::ZERO));
        assert!(network.describe().contains("uplink0 has 10.7.0.2"));
    }

    #[test]
    fn every_card_is_described_by_what_it_lacks() {
        let text = network(None, &["eth0", "eth1"], &[]).describe();
        assert!(text.contains("eth0 (02:00:00:00:00:00) asks for an address"));
        assert!(text.contains("eth1 (02:00:00:00:00:01) has no cable"));
        assert!(
            network(None, &[], &[])
                .describe()
                .contains("no network card")
        );
    }
}

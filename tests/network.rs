//! The machine's network: whatever happens to it, and however it has to be reached, the machine ends with its disk
//! verified, and nobody lays hand on it.
//!
//! Each test has a world of its own and fails, never skips, without root or
//! without the programs that `./scripts/test` makes.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tests::lab::{Machine, ServerProcess, inside, sh, wait_until};

#[path = "network/desk.rs"]
mod desk;
#[path = "network/lender.rs"]
mod lender;
#[path = "network/router.rs"]
mod router;
#[path = "network/switch.rs"]
mod switch;

use desk::Desk;
use lender::{Lender, Terms};
use router::Router;
use switch::Switch;

/// From power-on to the agent's first lease, on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// Until a machine on an idle desk notices what was done to it, or goes on after it.
const NOTICE_LIMIT: Duration = Duration::from_secs(120);

/// How long a port of the bridge listens, and then learns, before it delivers: 45 seconds in all.
const SPANNING_TREE: Duration = Duration::from_millis(22_500);

/// Bits per second of a session that lasts long enough for all of it: two minutes.
const RATE_SLOW: u64 = 1_700_000;

/// Bits per second where nothing happens to the network.
const RATE: u64 = 12_000_000;

/// Seconds that DHCP leases last: the flash is longer by far.
const LEASE_SECONDS: u32 = 40;

#[test]
fn a_room_is_flashed_whatever_happens_to_its_network() -> Result<()> {
    inside("a_room_is_flashed_whatever_happens_to_its_network", || {
        let desk = Desk::set(RATE_SLOW)?;
        let room = desk.room(vec![desk.machine(1), desk.machine(2)])?;
        let (first, second) = (room.machine("lab-1")?, room.machine("lab-2")?);
        // Short for the ports that are there from the beginning.
        spanning_tree("s0", Duration::from_secs(2))?;
        let lender = Lender::start(room.directory(), &terms(LEASE_SECONDS))?;
        let mut server = desk.serve(&room, &["lab-1", "lab-2"])?;
        server.flash("small", &["lab-1", "lab-2"], "auto")?;

        // The first machine has a link and its port is dead: it delivers 45 s after it came up.
        desk.start(&room, first)?;
        sh("ip link set t1 down")?;
        desk.start(&room, second)?;
        said(first, "state=link")?;
        forward_delay(SPANNING_TREE)?;
        sh("ip link set t1 up")?;
        let up = Instant::now();
        said(first, "state=bound")?;
        let deaf = up.elapsed();
        eprintln!(
            "lab-1 had its lease {:.1} s after its port came up",
            deaf.as_secs_f64()
        );
        ensure!(
            deaf >= 2 * SPANNING_TREE,
            "the port delivered after {deaf:?}"
        );
        forward_delay(Duration::from_secs(2))?;

        for machine in [first, second] {
            receives(&server, machine, 0.02)?;
        }

        // Nobody lends addresses from here on, and the leases end on the way.
        drop(lender);

        for flap in 1..=3 {
            busy(&server, first)?;
            first.pull_cable()?;
            thread::sleep(Duration::from_secs(2));
            first.plug_cable()?;
            wait_until(format!("flap {flap} to be noticed"), NOTICE_LIMIT, || {
                Ok(first.serial(1).matches("card=eth0 state=link").count() == flap)
            })?;
        }

        busy(&server, second)?;
        second.pull_cable()?;
        thread::sleep(Duration::from_secs(20));
        second.plug_cable()?;

        receives(&server, first, 0.3)?;
        receives(&server, second, 0.3)?;
        busy(&server, first)?;
        busy(&server, second)?;
        drop(server);
        thread::sleep(Duration::from_secs(3));
        server = desk.serve_again(&room)?;

        for machine in [first, second] {
            desk.await_flash(&server, machine)?;
            let run = machine.run_count()?;
            ensure!(run == 1, "{} was started {run} times", machine.spec().name);
            ensure!(
                machine.said(1, "state=overdue"),
                "the lease of {} did not end in the flash",
                machine.spec().name
            );
        }
        Ok(())
    })
}

#[test]
#[ignore = "a minute more of a machine: scripts/nightly"]
fn one_cable_of_twelve_will_do_and_so_will_an_address_of_its_own() -> Result<()> {
    inside(
        "one_cable_of_twelve_will_do_and_so_will_an_address_of_its_own",
        || {
            let desk = Desk::set(RATE)?;
            // Eight cards without a link, three with one and nobody behind it, and the last on the room's switch.
            let mut twelve = desk.machine(1);
            twelve.cards = (1..=10).map(|hub| format!("hubport,hubid={hub}")).collect();
            twelve
                .cards
                .push("tap,ifname=t9,script=no,downscript=no".to_owned());
            let room = desk.room(vec![twelve, desk.machine(2)])?;
            sh("ip tuntap add t9 mode tap")?;
            sh("ip link set t9 master br0 up")?;
            let (twelve, alone) = (room.machine("lab-1")?, room.machine("lab-2")?);
            let near = Lender::start(
                room.directory(),
                &Terms {
                    more: "option mtu 9000",
                    ..terms(LEASE_SECONDS)
                },
            )?;
            second_namespace()?;
            let far = Lender::start(
                room.directory(),
                &Terms {
                    place: ("second", "eth0"),
                    range: ("10.77.0.150", "10.77.0.199"),
                    ..terms(LEASE_SECONDS)
                },
            )?;
            let server = desk.serve(&room, &["lab-1", "lab-2"])?;
            let refused = server.ask(&[
                "machine",
                "set",
                "lab-2",
                "--kernel",
                "netflash.ip=10.77.0.0/24",
            ]);
            ensure!(
                refused.is_err(),
                "the address of a network was taken for a machine's"
            );
            server.ask(&[
                "machine",
                "set",
                "lab-2",
                "--kernel",
                "netflash.ip=10.77.0.7/24",
            ])?;
            server.flash("small", &["lab-1", "lab-2"], "auto")?;

            desk.start(&room, twelve)?;
            for card in 0..8 {
                twelve.set_card_link(&format!("nic{card}"), false)?;
            }
            desk.start(&room, alone)?;
            said(alone, "state=bound address=10.77.0.7/24 server=none")?;
            said(twelve, "state=welcome")?;
            said(alone, "state=welcome")?;

            let bound: Vec<String> = lines_with(twelve, "state=bound");
            ensure!(
                bound.len() == 1,
                "one of two servers lends to one card: {bound:?}"
            );
            ensure!(bound[0].contains(&twelve.spec().card_mac(11)), "{bound:?}");
            let is_near = bound[0].contains("server=10.77.0.1 ");
            ensure!(
                is_near == twelve.said(1, "mtu=9000"),
                "the MTU is that of the server that lent: {bound:?}"
            );
            ensure!(
                !alone.said(1, "server=10.77"),
                "a machine with an address asked for one"
            );
            let shown = server.ask(&["machine", "show", "lab-1"])?;
            let cards = shown["inventory"]["nics"].as_array().map_or(0, Vec::len);
            ensure!(cards == 12, "the server knows of {cards} cards");
            drop((near, far));
            for machine in [twelve, alone] {
                desk.await_flash(&server, machine)?;
            }
            Ok(())
        },
    )
}

#[test]
fn two_cables_bonded_by_lacp_carry_a_tagged_flash() -> Result<()> {
    inside("two_cables_bonded_by_lacp_carry_a_tagged_flash", || {
        let desk = Desk::set(RATE)?;
        let mut machine = desk.machine(1);
        machine.cards = Switch::CABLES
            .iter()
            .map(|cable| cable.machine_end())
            .collect();
        let bond = format!(
            "netflash.vlan={} netflash.bond=802.3ad:{}+{}",
            Switch::VLAN,
            machine.card_mac(1),
            machine.card_mac(2)
        );
        let room = desk.room(vec![machine])?;
        let switch = Switch::start(room.directory())?;
        let lender = Lender::start(room.directory(), &terms(LEASE_SECONDS))?;
        let server = desk.serve(&room, &["lab-1"])?;
        server.ask(&["machine", "set", "lab-1", "--kernel", &bond])?;
        server.flash("small", &["lab-1"], "auto")?;
        let machine = room.machine("lab-1")?;
        desk.start(&room, machine)?;
        // What is left are the two cables to the other switch.
        machine.pull_cable()?;
        said(machine, "state=bound")?;
        wait_until(
            "the switch to have both cables in one group",
            NOTICE_LIMIT,
            || {
                let partner = format!("partner={}", machine.spec().card_mac(1));
                Ok(switch
                    .says()
                    .lines()
                    .any(|line| line.contains(&partner) && line.contains("ports=2")))
            },
        )?;
        desk.await_flash(&server, machine)?;
        let bound = lines_with(machine, "state=bound");
        ensure!(bound[0].contains("card=uplink0"), "{bound:?}");
        ensure!(
            machine.said(1, &format!("receiving card=uplink0.{}", Switch::VLAN)),
            "not in the VLAN"
        );
        drop(lender);
        Ok(())
    })
}

/// One machine makes its address itself and is flashed by multicast; the other is lent one and hears no multicast.
#[test]
fn machines_without_ipv4_are_flashed() -> Result<()> {
    inside("machines_without_ipv4_are_flashed", || {
        let desk = Desk::set(RATE)?.by_ipv6("fd77::1");
        let room = desk.room(vec![desk.machine(1), desk.machine(2)])?;
        sh("ip netns exec server sysctl -qw net.ipv6.conf.eth0.accept_dad=0")?;
        sh("ip -n server addr add fd77::1/64 dev eth0 nodad")?;
        sh("nft add table bridge deaf")?;
        sh("nft add chain bridge deaf forward { type filter hook forward priority 1 ; }")?;
        sh("nft add rule bridge deaf forward oifname t2 ip6 daddr ff15::/16 drop")?;
        let server = desk.serve(&room, &["lab-1", "lab-2"])?;
        server.flash("small", &["lab-1", "lab-2"], "auto")?;
        let (own, lent) = (room.machine("lab-1")?, room.machine("lab-2")?);

        let router = Router::announce(room.directory(), "fd77::")?;
        desk.start(&room, own)?;
        said(own, "state=bound address=fd77::")?;
        drop(router);
        let _router = Router::lend(room.directory(), "fd77::100", "fd77::1ff")?;
        desk.start(&room, lent)?;
        said(lent, "state=lent address=fd77::1")?;
        said(lent, "state=bound address=fd77::1")?;

        for machine in [own, lent] {
            desk.await_flash(&server, machine)?;
            let serial = machine.serial(1);
            ensure!(!serial.contains("10.77.0."), "an address of IPv4: {serial}");
        }
        ensure!(
            !own.said(1, "state=lent"),
            "a router gave an address already"
        );
        let heard = room.loss().count("t1")?;
        ensure!(heard.datagrams > 1000, "{heard:?} came by multicast");
        let fetched = server
            .job_of("lab-2")?
            .report
            .and_then(|report| report.fallback)
            .unwrap_or_default();
        ensure!(fetched.bytes > 0, "nothing came over HTTP");
        eprintln!(
            "{} datagrams by IPv6 multicast, {} bytes over HTTP",
            heard.datagrams, fetched.bytes
        );
        Ok(())
    })
}

/// Two cables to one switch that knows of no bond, and the frames are large.
#[test]
#[ignore = "half a minute more of a machine: scripts/nightly"]
fn a_bond_with_one_cable_out_goes_on_with_large_frames() -> Result<()> {
    inside(
        "a_bond_with_one_cable_out_goes_on_with_large_frames",
        || {
            let desk = Desk::set(RATE_SLOW * 2)?;
            let mut machine = desk.machine(1);
            machine.cards = vec!["tap,ifname=t9,script=no,downscript=no".to_owned()];
            let room = desk.room(vec![machine])?;
            sh("ip tuntap add t9 mode tap")?;
            sh("ip link set t9 master br0 up")?;
            for link in ["t1", "t9", "s0", "br0"] {
                sh(&format!("ip link set {link} mtu 9000"))?;
            }
            sh("ip -n server link set eth0 mtu 9000")?;
            let _lender = Lender::start(
                room.directory(),
                &Terms {
                    more: "option mtu 9000",
                    ..terms(LEASE_SECONDS)
                },
            )?;
            let server = desk.serve(&room, &["lab-1"])?;
            server.ask(&[
                "machine",
                "set",
                "lab-1",
                "--kernel",
                "netflash.bond=active-backup",
            ])?;
            server.flash("small", &["lab-1"], "auto")?;
            let machine = room.machine("lab-1")?;
            desk.start(&room, machine)?;
            receives(&server, machine, 0.1)?;
            busy(&server, machine)?;
            machine.pull_cable()?;
            desk.await_flash(&server, machine)?;
            let bound = lines_with(machine, "state=bound");
            ensure!(bound[0].contains("card=uplink0"), "{bound:?}");
            ensure!(machine.said(1, "card=uplink0 mtu=9000"), "no large frames");
            let heard = room.loss().count("t1")?;
            let mean = heard.bytes / heard.datagrams.max(1);
            eprintln!("datagrams of {mean} bytes on average until the cable was out");
            // Announces are small, and come many times a second.
            ensure!(mean > 2000, "datagrams of {mean} bytes");
            Ok(())
        },
    )
}

/// What the room's DHCP server lends for this long.
fn terms(seconds: u32) -> Terms<'static> {
    Terms {
        place: ("server", "eth0"),
        range: ("10.77.0.50", "10.77.0.99"),
        seconds,
        more: "",
    }
}

/// A second host on the room's switch, at 10.77.0.2.
fn second_namespace() -> Result<()> {
    for line in [
        "ip netns add second",
        "ip link add s1 type veth peer name eth0 netns second",
        "ip link set s1 master br0 up",
        "ip -n second link set eth0 up",
        "ip -n second addr add 10.77.0.2/24 brd + dev eth0",
    ] {
        sh(line)?;
    }
    Ok(())
}

fn lines_with(machine: &Machine, words: &str) -> Vec<String> {
    let serial = machine.serial(1);
    let lines = serial.lines().filter(|line| line.contains(words));
    lines.map(str::to_owned).collect()
}

/// Turns the bridge's spanning tree on, and waits until the port delivers.
fn spanning_tree(port: &str, delay: Duration) -> Result<()> {
    sh("ip link set br0 type bridge stp_state 1")?;
    forward_delay(delay)?;
    wait_until(format!("{port} to deliver"), NOTICE_LIMIT, || {
        Ok(sh(&format!("bridge link show dev {port}"))?.contains("state forwarding"))
    })
}

/// How long ports listen, and how long they learn.
fn forward_delay(delay: Duration) -> Result<()> {
    let hundredths = delay.as_millis() / 10;
    sh(&format!(
        "ip link set br0 type bridge forward_delay {hundredths}"
    ))
    .map(drop)
}

fn said(machine: &Machine, words: &str) -> Result<()> {
    let name = &machine.spec().name;
    wait_until(format!("{name} to say {words}"), BOOT_LIMIT, || {
        Ok(machine.said(1, words))
    })
}

/// Waits until this part of the image is on the machine's disk.
fn receives(server: &ServerProcess<'_>, machine: &Machine, part: f64) -> Result<()> {
    let name = &machine.spec().name;
    wait_until(
        format!("{name} to have {part} of the image"),
        NOTICE_LIMIT * 4,
        || {
            let job = server.job_of(name)?;
            ensure!(!job.has_failed(), "{name}: {}", job.reason);
            Ok(job.done_part() >= part)
        },
    )
}

/// A fault proves nothing that comes when the machine has its image.
fn busy(server: &ServerProcess<'_>, machine: &Machine) -> Result<()> {
    let name = &machine.spec().name;
    let job = server.job_of(name)?;
    eprintln!("{name} has {:.0} % of the image", 100.0 * job.done_part());
    ensure!(
        !job.is_done() && job.done_part() < 0.95,
        "{name} is too far for a fault"
    );
    Ok(())
}

//! Intel AMT against a simulated machine that refuses what firmware refuses. It was proved with pip's `amt` 0.8 and
//! with Intel's own envelopes, sent by curl; in here curl judges its digest and its HTTP.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tests::bmc::Board;

use crate::desk::{Desk, lab};
use crate::device::Device;
use crate::service::OwnCertificate;

const PLAIN: &str = "[power.desk]\ndriver = \"amt\"\ntls = false\n";

/// A running machine with AMT.
pub(crate) struct AmtDevice {
    device: Device,
    host: &'static str,
    port: u16,
    board: Board,
}

impl AmtDevice {
    pub(crate) const USER: &'static str = "admin";
    pub(crate) const PASSWORD: &'static str = "P@ssw0rd & more";

    /// A machine at a free port of `host`, whose board is in `directory`.
    pub(crate) fn start(
        host: &'static str,
        directory: &Path,
        options: &[&str],
    ) -> Result<AmtDevice> {
        fs::create_dir_all(directory)?;
        let words = [host, Self::USER, Self::PASSWORD].map(OsStr::new);
        let places = [lab().as_os_str(), directory.as_os_str()];
        let options = options.iter().map(OsStr::new);
        let words = words.into_iter().chain(places).chain(options);
        let device = Device::start("amt_device.py", words)?;
        Ok(AmtDevice {
            port: device.port()?,
            device,
            host,
            board: Board::at(directory),
        })
    }

    /// Its power setting.
    pub(crate) fn power(&self) -> String {
        format!("desk:{}:{}", self.host, self.port)
    }
}

fn desk(profile: &str) -> Result<Desk> {
    let desk = Desk::open(profile)?;
    desk.login("desk", AmtDevice::USER, AmtDevice::PASSWORD)?;
    Ok(desk)
}

fn device(desk: &Desk, options: &[&str]) -> Result<AmtDevice> {
    let device = AmtDevice::start("127.0.0.1", &desk.scratch.path().join("a"), options)?;
    desk.add("a", 1, &[&device.power()])?;
    Ok(device)
}

#[test]
fn curl_is_let_in_and_told_the_settings() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let device = AmtDevice::start("127.0.0.1", scratch.path(), &[])?;
    let envelope = "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
        xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
        xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\"><s:Header>\
        <a:Action>http://schemas.xmlsoap.org/ws/2004/09/transfer/Get</a:Action><a:To>/wsman</a:To>\
        <w:ResourceURI>http://intel.com/wbem/wscim/1/ips-schema/1/IPS_OptInService</w:ResourceURI>\
        <a:MessageID>1</a:MessageID><a:ReplyTo></a:ReplyTo></s:Header><s:Body></s:Body></s:Envelope>";
    let ask = |password: &str| -> Result<String> {
        let output = Command::new("curl")
            .args(["--silent", "--digest", "--noproxy", "*", "--user"])
            .arg(format!("{}:{password}", AmtDevice::USER))
            .args([
                "--header",
                "Content-Type: application/soap+xml;charset=UTF-8",
            ])
            .args(["--data-binary", envelope])
            .arg(format!("http://127.0.0.1:{}/wsman", device.port))
            .stdin(Stdio::null())
            .output()
            .context("starting curl: run ./scripts/setup")?;
        ensure!(output.status.success(), "curl: {}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert!(ask(AmtDevice::PASSWORD)?.contains("<g:OptInRequired>0</g:OptInRequired>"));
    assert_eq!(device.device.count("wrong"), 0);
    assert!(ask("wrong")?.starts_with("<!DOCTYPE HTML"));
    Ok(())
}

#[test]
fn a_machine_is_switched_and_boots_the_network_once() -> Result<()> {
    let desk = desk(PLAIN)?;
    let device = device(&desk, &["console", "nonce_uses=3"])?;
    assert_eq!(desk.power(&["status", "a"])?["state"], "off");
    desk.ask(&["power", "bootdev", "pxe", "a"])?;
    device.device.await_lines(6)?;
    let calls: Vec<String> = device
        .device
        .said()
        .into_iter()
        .filter(|line| line.starts_with("call "))
        .collect();
    let order = [
        "IPS_OptInService Get",
        "AMT_BootSettingData Get",
        "CIM_BootConfigSetting ChangeBootOrder",
        "AMT_BootSettingData Put",
        "CIM_BootService SetBootConfigRole",
        "CIM_BootConfigSetting ChangeBootOrder",
    ];
    assert_eq!(calls, order.map(|call| format!("call {call}")));
    assert_eq!(desk.power(&["on", "a"])?["state"], "on");
    assert_eq!(desk.power(&["reset", "a"])?["state"], "on");
    assert_eq!(desk.power(&["cycle", "a"])?["state"], "on");
    desk.ask(&["power", "bootdev", "pxe", "a"])?;
    desk.ask(&["power", "bootdev", "usual", "a"])?;
    assert_eq!(desk.power(&["reset", "a"])?["state"], "on");
    assert_eq!(device.board.starts()?, ["network", "disk", "disk", "disk"]);
    let off = desk.power(&["off", "a", "--soft"])?;
    assert_eq!(off["state"], "off", "no agent hears it, so hard: {off}");
    assert_eq!(
        device.device.count("wrong"),
        0,
        "a used-up nonce is no wrong password"
    );
    Ok(())
}

#[test]
fn consent_a_wrong_password_and_a_page_have_their_words() -> Result<()> {
    let desk = desk(PLAIN)?;
    let path = |name: &str| desk.scratch.path().join(name);
    let asking = AmtDevice::start("127.0.0.1", &path("asking"), &["consent", "busy=2"])?;
    desk.add("asking", 1, &[&asking.power()])?;
    assert_eq!(
        desk.power(&["bootdev", "pxe", "asking"])?["failure"],
        "user-consent"
    );
    assert_eq!(
        desk.power(&["on", "asking", "--netboot"])?["failure"],
        "user-consent"
    );
    assert!(asking.board.starts()?.is_empty(), "it was left alone");
    assert_eq!(
        desk.power(&["on", "asking"])?["state"],
        "on",
        "power needs no consent; busy is not for ever"
    );

    let strict = AmtDevice::start("127.0.0.1", &path("strict"), &[])?;
    desk.add("strict", 2, &[&strict.power()])?;
    desk.login(&strict.power(), AmtDevice::USER, "wrong")?;
    for action in ["status", "on", "off"] {
        assert_eq!(
            desk.power(&[action, "strict"])?["failure"],
            "wrong-password"
        );
    }
    strict.device.await_lines(1)?;
    assert_eq!(
        strict.device.count("wrong"),
        1,
        "more tries would lock the account"
    );

    let page = AmtDevice::start("127.0.0.1", &path("page"), &["page"])?;
    desk.add("page", 3, &[&page.power()])?;
    assert_eq!(desk.power(&["status", "page"])?["failure"], "refused");
    assert_eq!(
        desk.power(&["bootdev", "http", "asking"])?["failure"],
        "unsupported"
    );
    Ok(())
}

#[test]
fn over_tls_only_the_known_certificate_is_talked_to() -> Result<()> {
    let desk = desk("[power.desk]\ndriver = \"amt\"\n")?;
    let directory = desk.scratch.path().join("certificate");
    fs::create_dir(&directory)?;
    OwnCertificate::make(&directory)?;
    let pair = format!("tls={0}/device.pem:{0}/device.key", directory.display());
    let device = device(&desk, &[&pair])?;
    assert_eq!(desk.power(&["status", "a"])?["failure"], "tls-mismatch");
    assert!(device.device.said().is_empty());
    desk.ask(&["power", "trust", "a", "--yes"])?;
    assert_eq!(desk.power(&["on", "a"])?["state"], "on");
    Ok(())
}

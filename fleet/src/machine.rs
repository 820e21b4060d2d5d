//! Machines the server knows, and strangers it has seen.

use serde::{Deserialize, Deserializer, Serialize};

use netflash_pxe::{Identity, Inventory, KernelParams, Mac};

/// A machine somebody entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The server's number for it.
    pub(crate) id: i64,
    /// Its name: letters, digits, `.`, `_`, `-`.
    pub(crate) name: String,
    /// What tells it apart: entered first, completed by its agent.
    pub(crate) identity: Identity,
    /// Each `PROFILE:ADDRESS`, best first; see the configuration's power profiles.
    #[serde(default, deserialize_with = "several")]
    pub(crate) power: Vec<String>,
    /// Groups it belongs to.
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    /// Kernel parameters of its agent, behind those of all machines.
    #[serde(default)]
    pub(crate) kernel: String,
    /// What its agent found.
    pub(crate) inventory: Option<Inventory>,
    /// Seconds since 1970 when it last asked what to boot or said hello.
    pub(crate) last_seen: Option<u64>,
    /// What it was last told to boot, and why.
    pub(crate) last_decision: Option<String>,
    /// Seconds since 1970 when it was entered.
    pub(crate) created: u64,
}

impl Machine {
    /// Longest name, in bytes; also what a session's feedback carries.
    pub(crate) const NAME_MAX: usize = 32;

    /// Longest kernel parameters, in bytes: the kernel takes 2048 in all.
    pub(crate) const KERNEL_MAX: usize = 512;

    /// Whether a text can be a machine's name.
    pub(crate) fn is_name(text: &str) -> bool {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        (1..=Self::NAME_MAX).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with(['.', '-'])
    }

    /// Whether a text can be its kernel parameters; if not, why.
    ///
    /// Only what a boot loader hands on as it stands, and no parameter of the agent that it would not understand: the
    /// machine would wait in front of a network it cannot reach, and nobody would see why.
    pub(crate) fn check_kernel(text: &str) -> Result<(), String> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b" =.,:/+-_@%".contains(&b);
        if let Some(other) = text.chars().find(|&c| !u8::try_from(c).is_ok_and(allowed)) {
            return Err(format!("kernel parameters cannot hold {other:?}"));
        }
        if text.len() > Self::KERNEL_MAX {
            return Err(format!(
                "kernel parameters of more than {} bytes",
                Self::KERNEL_MAX
            ));
        }
        let (_, warnings) = KernelParams::parse(text);
        warnings
            .first()
            .map_or(Ok(()), |warning| Err(warning.to_string()))
    }
}

/// What is changed of a machine; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MachineChange {
    /// Kernel parameters of its agent; empty for none.
    pub(crate) kernel: Option<String>,
}

/// A machine to be entered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMachine {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) macs: Vec<Mac>,
    #[serde(default)]
    pub(crate) uuid: Option<String>,
    #[serde(default)]
    pub(crate) serial: Option<String>,
    #[serde(default, deserialize_with = "several")]
    pub(crate) power: Vec<String>,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    #[serde(default)]
    pub(crate) kernel: String,
}

/// A list, or what stood there when there could be one at most.
fn several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Several {
        List(Vec<String>),
        AtMostOne(Option<String>),
    }
    Ok(match Several::deserialize(deserializer)? {
        Several::List(list) => list,
        Several::AtMostOne(one) => one.into_iter().collect(),
    })
}

/// A machine that asked for something to boot and is not known for certain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sighting {
    /// What it said of itself.
    pub(crate) identity: Identity,
    /// `pcbios` or `efi`.
    pub(crate) platform: String,
    /// Why it is not taken for a known machine.
    pub(crate) reason: String,
    /// Seconds since 1970.
    pub(crate) first_seen: u64,
    /// Seconds since 1970.
    pub(crate) last_seen: u64,
    /// How often.
    pub(crate) times: u64,
}

impl Sighting {
    /// Strangers are told apart by their first MAC address, else by their UUID.
    pub(crate) fn key(identity: &Identity) -> String {
        match (identity.macs.first(), &identity.uuid) {
            (Some(mac), _) => mac.to_string(),
            (None, Some(uuid)) => uuid.to_ascii_lowercase(),
            (None, None) => "nameless".to_owned(),
        }
    }
}

/// An image the server can send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredImage {
    /// The server's number for it.
    pub(crate) id: i64,
    /// Its name.
    pub(crate) name: String,
    /// BLAKE3 of its manifest.
    pub(crate) image_id: netflash_pxe::Hex32,
    /// Where the file lies.
    pub(crate) path: String,
    /// Size of the raw disk, in bytes.
    pub(crate) raw_bytes: u64,
    /// Bytes in use.
    pub(crate) used_bytes: u64,
    /// Bytes of the file.
    pub(crate) stored_bytes: u64,
    /// Smallest disk it fits on, in bytes.
    pub(crate) min_target_bytes: u64,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// Whether it can be sent.
    #[serde(default)]
    pub(crate) state: ImageState,
}

/// Whether an image can be sent. Only ready ones are in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ImageState {
    /// It can.
    #[default]
    Ready,
    /// A machine is to send it, or sends it.
    Capturing,
    /// It is there and is being checked.
    Sealing,
    /// It could not be captured.
    Failed,
}

impl ImageState {
    /// The word for tables and JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            ImageState::Ready => "ready",
            ImageState::Capturing => "capturing",
            ImageState::Sealing => "sealing",
            ImageState::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Machine, NewMachine};

    #[test]
    fn a_machine_entered_when_it_had_one_power_setting_is_still_read() {
        let power = |json: &str| serde_json::from_str::<NewMachine>(json).unwrap().power;
        assert_eq!(
            power(r#"{"name":"a","power":"qmp:/run/a"}"#),
            ["qmp:/run/a"]
        );
        assert!(power(r#"{"name":"a","power":null}"#).is_empty());
        assert_eq!(power(r#"{"name":"a","power":["x:1","y:2"]}"#).len(), 2);
    }

    #[test]
    fn kernel_parameters_reach_the_agent_as_they_stand_and_are_understood() {
        for good in [
            "",
            "netflash.vlan=20 netflash.bond=802.3ad:eth0+eth1",
            "console=ttyS1,115200",
        ] {
            assert_eq!(Machine::check_kernel(good), Ok(()), "{good}");
        }
        for (bad, word) in [
            ("netflash.vlan=5000", "1 to 4094"),
            ("netflash.vlam=20", "not known"),
            ("netflash.gateway=10.0.0.1", "netflash.ip"),
            ("a=${mac}", "'$'"),
            ("a || reboot", "'|'"),
            ("a\nb", "'\\n'"),
            (&"x".repeat(513), "512"),
        ] {
            let problem = Machine::check_kernel(bad).unwrap_err();
            assert!(problem.contains(word), "{bad}: {problem}");
        }
    }

    #[test]
    fn names_are_fit_for_a_console_and_a_shell() {
        for good in ["lab1", "room-3.pc_07", "X"] {
            assert!(Machine::is_name(good), "{good}");
        }
        for bad in ["", "-x", ".x", "a b", "a\n", "ä", &"x".repeat(33)] {
            assert!(!Machine::is_name(bad), "{bad:?}");
        }
    }
}

//! What is read from a controller's documents. All of it is a stranger's: every field may be absent or of another kind.

use serde_json::Value;

use super::super::failure::{Failure, PowerError};
use super::super::{NextBoot, PowerState};

/// Longest path followed, in bytes.
const PATH_MAX: usize = 1024;
/// Systems that are looked at.
const SYSTEMS_MAX: usize = 64;

/// A path that may be asked for: of this service, and fit for the first line of a request.
pub(super) fn path(text: &str) -> Result<String, PowerError> {
    // Some services write their own address before it; who is asked stays our choice.
    let path = match text.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => text,
    };
    let fit = path.starts_with('/')
        && path.len() <= PATH_MAX
        && path.bytes().all(|b| b.is_ascii_graphic());
    if fit {
        Ok(path.to_owned())
    } else {
        Err(Failure::Garbage.because(format!("{text:?} is no path")))
    }
}

/// The link at a JSON pointer.
pub(super) fn link(document: &Value, pointer: &str) -> Result<String, PowerError> {
    let id = document.pointer(&format!("{pointer}/@odata.id"));
    let id = id
        .and_then(Value::as_str)
        .ok_or_else(|| Failure::Garbage.because(format!("its document has no link {pointer}")))?;
    path(id)
}

/// The system that is wanted, or the only one.
pub(super) fn choose_system(systems: &Value, wanted: Option<&str>) -> Result<String, PowerError> {
    let members = systems.get("Members").and_then(Value::as_array);
    let members = members.ok_or_else(|| Failure::Garbage.because("it lists no systems"))?;
    let mut paths = Vec::new();
    for member in members.iter().take(SYSTEMS_MAX) {
        paths.push(link(member, "")?);
    }
    let id = |path: &str| {
        path.trim_end_matches('/')
            .rsplit('/')
            .next()
            .map(str::to_owned)
    };
    let found = match (wanted, paths.as_slice()) {
        (Some(wanted), paths) => paths
            .iter()
            .find(|path| id(path).as_deref() == Some(wanted)),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    found.cloned().ok_or_else(|| {
        let ids: Vec<String> = paths.iter().filter_map(|path| id(path)).collect();
        let text = format!(
            "name one of its systems, as HOST/SYSTEM: {}",
            ids.join(", ")
        );
        Failure::Setting.because(text)
    })
}

/// The resource on which changes are made, where it is another one (DSP0266, section 10.10).
pub(super) fn settings(document: &Value) -> Option<String> {
    link(document, "/@Redfish.Settings/SettingsObject").ok()
}

fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    let list = value?.as_array()?;
    let texts = list.iter().filter_map(Value::as_str);
    Some(texts.map(str::to_owned).collect())
}

/// What a system's document says of its power.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct System {
    pub(super) state: PowerState,
    /// Where a reset is asked for.
    pub(super) reset_target: String,
    /// The kinds of reset it offers, where it lists them in place.
    pub(super) reset_kinds: Option<Vec<String>>,
    /// Where it lists them otherwise.
    pub(super) reset_info: Option<String>,
}

impl System {
    pub(super) fn parse(document: &Value) -> Result<System, PowerError> {
        let state = match document.get("PowerState").and_then(Value::as_str) {
            // On its way is not there yet.
            Some("On" | "PoweringOff" | "Paused") => PowerState::On,
            Some("Off" | "PoweringOn") => PowerState::Off,
            other => {
                let text = format!("its system's PowerState is {other:?}");
                return Err(Failure::Garbage.because(text));
            }
        };
        let action = document.pointer("/Actions/#ComputerSystem.Reset");
        let target = action.and_then(|action| action.get("target")?.as_str());
        let target =
            target.ok_or_else(|| Failure::Unsupported.because("its system has no reset"))?;
        Ok(System {
            state,
            reset_target: path(target)?,
            reset_kinds: texts(action.and_then(|a| a.get("ResetType@Redfish.AllowableValues"))),
            reset_info: match action.and_then(|a| a.get("@Redfish.ActionInfo")?.as_str()) {
                Some(info) => Some(path(info)?),
                None => None,
            },
        })
    }
}

/// The kinds of reset in an ActionInfo document.
pub(super) fn reset_kinds_of_info(document: &Value) -> Option<Vec<String>> {
    let parameters = document.get("Parameters")?.as_array()?;
    let kind =
        |parameter: &&Value| parameter.get("Name").and_then(Value::as_str) == Some("ResetType");
    texts(parameters.iter().find(kind)?.get("AllowableValues"))
}

/// What a document says of the next boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Override {
    enabled: Option<String>,
    target: Option<String>,
    /// `UEFI` or `Legacy`, where there is a choice.
    pub(super) mode: Option<String>,
    /// What may be chosen, where that is listed.
    pub(super) targets: Option<Vec<String>>,
}

impl Override {
    pub(super) fn parse(document: &Value) -> Result<Override, PowerError> {
        let boot = document.get("Boot").filter(|boot| boot.is_object());
        let boot =
            boot.ok_or_else(|| Failure::Unsupported.because("it cannot choose what is booted"))?;
        let text = |name: &str| boot.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Override {
            enabled: text("BootSourceOverrideEnabled"),
            target: text("BootSourceOverrideTarget"),
            mode: text("BootSourceOverrideMode"),
            targets: texts(boot.get("BootSourceOverrideTarget@Redfish.AllowableValues")),
        })
    }

    /// What is booted next.
    pub(super) fn next(&self) -> Result<NextBoot, PowerError> {
        match (self.enabled.as_deref(), self.target.as_deref()) {
            (Some("Disabled") | None, _) | (_, Some("None") | None) => Ok(NextBoot::Usual),
            (Some("Once"), Some("Pxe")) => Ok(NextBoot::Pxe),
            (Some("Once"), Some("UefiHttp")) => Ok(NextBoot::Http),
            (Some("Once"), Some("Hdd")) => Ok(NextBoot::Disk),
            (Some(enabled), Some(target)) => {
                let text = format!("the device has noted {target}, {enabled}");
                Err(Failure::NotConfirmed.because(text))
            }
        }
    }
}

/// What went wrong, from the body of an error (DSP0266, section 8.6): the plainest words in it.
pub(super) fn complaint(body: &Value) -> Option<String> {
    let error = body.get("error")?;
    let extended = error.pointer("/@Message.ExtendedInfo/0/Message");
    let words = extended.or_else(|| error.get("message"))?;
    Some(words.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Failure, NextBoot, Override, PowerState, System};
    use super::{choose_system, complaint, path, reset_kinds_of_info};

    #[test]
    fn paths_stay_with_the_device_and_on_one_line() {
        assert_eq!(
            path("/redfish/v1/Systems/1").unwrap(),
            "/redfish/v1/Systems/1"
        );
        assert_eq!(path("https://10.0.0.1/a/b").unwrap(), "/a/b");
        for bad in ["", "a", "https://10.0.0.1", "/a b", "/a\r\nX: y", "/\u{e4}"] {
            assert_eq!(path(bad).unwrap_err().failure, Failure::Garbage, "{bad:?}");
        }
    }

    #[test]
    fn the_only_system_is_taken_and_one_of_several_is_named() {
        let member = |id: &str| json!({ "@odata.id": format!("/redfish/v1/Systems/{id}") });
        let one = json!({ "Members": [member("Self")] });
        assert_eq!(
            choose_system(&one, None).unwrap(),
            "/redfish/v1/Systems/Self"
        );
        let two = json!({ "Members": [member("a"), member("b")] });
        assert_eq!(
            choose_system(&two, Some("b")).unwrap(),
            "/redfish/v1/Systems/b"
        );
        let unclear = choose_system(&two, None).unwrap_err();
        assert!(unclear.detail.ends_with("a, b"), "{unclear}");
        assert!(choose_system(&two, Some("c")).is_err() && choose_system(&json!(7), None).is_err());
    }

    #[test]
    fn kinds_of_reset_are_in_place_or_elsewhere() {
        let action = json!({ "target": "/reset", "ResetType@Redfish.AllowableValues": ["On", 7] });
        let document =
            json!({ "PowerState": "PoweringOn", "Actions": { "#ComputerSystem.Reset": action } });
        let system = System::parse(&document).unwrap();
        assert_eq!(
            (system.state, system.reset_kinds),
            (PowerState::Off, Some(vec!["On".to_owned()]))
        );
        let info =
            json!({ "Parameters": [{ "Name": "ResetType", "AllowableValues": ["ForceOff"] }] });
        assert_eq!(
            reset_kinds_of_info(&info),
            Some(vec!["ForceOff".to_owned()])
        );
        assert_eq!(reset_kinds_of_info(&json!({})), None);
        let vague = System::parse(&json!({ "PowerState": "Sideways" })).unwrap_err();
        assert_eq!(vague.failure, Failure::Garbage);
    }

    #[test]
    fn only_once_is_once() {
        let next = |enabled: &str, target: &str| {
            let boot =
                json!({ "BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": target });
            Override::parse(&json!({ "Boot": boot })).unwrap().next()
        };
        assert_eq!(next("Once", "Pxe"), Ok(NextBoot::Pxe));
        assert_eq!(next("Disabled", "Pxe"), Ok(NextBoot::Usual));
        assert_eq!(next("Once", "None"), Ok(NextBoot::Usual));
        assert_eq!(
            next("Continuous", "Pxe").unwrap_err().failure,
            Failure::NotConfirmed
        );
    }

    #[test]
    fn a_complaint_is_told_in_its_plainest_words() {
        let body = json!({ "error": { "message": "general", "@Message.ExtendedInfo": [{ "Message": "no such value" }] } });
        assert_eq!(complaint(&body).as_deref(), Some("no such value"));
        assert_eq!(
            complaint(&json!({ "error": { "message": "general" } })).as_deref(),
            Some("general")
        );
        assert_eq!(complaint(&json!("no")), None);
    }
}

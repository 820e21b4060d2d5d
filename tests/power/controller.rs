//! A management controller that speaks Redfish, strictly, in the ways of several vendors.
//!
//! It refuses what devices refuse: no login, the wrong media type, a kind of reset it does not list, a value it does
//! not know, an ETag that is missing or old, one session too many. Nothing is answered from a recording: each document
//! is made from its state and from the [`Board`] it switches.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tests::bmc::Board;
use tests::lab::First;

use crate::service::{Answering, Asked, Reply};
use crate::vendor::{Etag, Vendor};

/// Sessions at a time.
const SESSIONS_MAX: usize = 4;
/// Wrong passwords until the account is locked for good.
const WRONG_MAX: u32 = 3;
/// From an accepted reset to its effect.
const DELAY: Duration = Duration::from_millis(300);

/// A controller in front of a board.
pub(crate) struct Controller {
    vendor: Vendor,
    board: Board,
    /// The mode in which the machine really boots.
    firmware: &'static str,
    state: Mutex<State>,
}

struct State {
    mode: String,
    version: u32,
    sessions: BTreeMap<String, String>,
    made: u32,
    wrong: u32,
    /// Questions until a task is done.
    tasks: BTreeMap<String, u32>,
    /// Answers that are "busy" still to be given.
    busy: u32,
    asked: Vec<String>,
}

impl Controller {
    pub(crate) const USER: &'static str = "root";
    pub(crate) const PASSWORD: &'static str = "calvin & hobbes";

    pub(crate) fn new(vendor: Vendor, board: Board, firmware: &'static str) -> Controller {
        Controller {
            vendor,
            board,
            firmware,
            state: Mutex::new(State {
                mode: firmware.to_owned(),
                version: 1,
                sessions: BTreeMap::new(),
                made: 0,
                wrong: 0,
                tasks: BTreeMap::new(),
                busy: 0,
                asked: Vec::new(),
            }),
        }
    }

    /// Be busy for the next `answers`.
    pub(crate) fn be_busy(&self, answers: u32) {
        self.state().busy = answers;
    }

    /// End every session, as a restart of the controller does.
    pub(crate) fn forget_sessions(&self) {
        self.state().sessions.clear();
    }

    /// Sessions that nobody has closed.
    pub(crate) fn sessions(&self) -> usize {
        self.state().sessions.len()
    }

    /// Wrong passwords so far.
    pub(crate) fn wrong(&self) -> u32 {
        self.state().wrong
    }

    /// What was asked so far, as `METHOD PATH`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn system_path(&self) -> String {
        format!("/redfish/v1/Systems/{}", self.vendor.system)
    }

    /// Where the next boot is changed.
    fn boot_path(&self) -> String {
        let system = self.system_path();
        if self.vendor.settings {
            format!("{system}/SD")
        } else {
            system
        }
    }

    fn route(&self, asked: &Asked) -> Reply {
        let system = self.system_path();
        let path = asked.path.trim_end_matches('/');
        let method = asked.method.as_str();
        if method == "GET" && path == "/redfish/v1" {
            return told(&self.root());
        }
        if path == "/redfish/v1/SessionService/Sessions" && method == "POST" {
            return self.make_session(asked);
        }
        if let Some(refusal) = self.check_login(asked) {
            return refusal;
        }
        if self.state().busy > 0 {
            self.state().busy -= 1;
            return complaint(503, "try again later");
        }
        match (method, path) {
            ("GET", "/redfish/v1/Systems") => told(&json!({
                "@odata.id": "/redfish/v1/Systems",
                "Name": "Systems",
                "Members@odata.count": 1,
                "Members": [{ "@odata.id": system }],
            })),
            ("GET", path) if path == system || path == self.boot_path() => self.tell_system(path),
            ("PATCH", path) if path == self.boot_path() => self.change(asked),
            ("GET", path) if path == format!("{system}/ResetActionInfo") => told(&json!({
                "@odata.id": path,
                "Parameters": [{ "Name": "ResetType", "AllowableValues": self.vendor.resets }],
            })),
            ("POST", path) if path == format!("{system}/Actions/ComputerSystem.Reset") => {
                self.reset(asked)
            }
            ("GET", path) if path.starts_with("/redfish/v1/TaskMonitors/") => self.task(path),
            ("DELETE", path) => {
                let mut state = self.state();
                let before = state.sessions.len();
                state.sessions.retain(|_, id| id != path);
                if state.sessions.len() < before {
                    empty()
                } else {
                    complaint(404, "no such thing")
                }
            }
            _ => complaint(404, "no such thing"),
        }
    }

    fn root(&self) -> Value {
        let mut root = json!({
            "@odata.id": "/redfish/v1/",
            "@odata.type": "#ServiceRoot.v1_5_0.ServiceRoot",
            "Id": "RootService",
            "Name": "Root Service",
            "RedfishVersion": "1.6.0",
            "Vendor": self.vendor.name,
            "Systems": { "@odata.id": "/redfish/v1/Systems" },
        });
        if self.vendor.sessions {
            root["SessionService"] = json!({ "@odata.id": "/redfish/v1/SessionService" });
            root["Links"] =
                json!({ "Sessions": { "@odata.id": "/redfish/v1/SessionService/Sessions" } });
        }
        root
    }

    fn make_session(&self, asked: &Asked) -> Reply {
        if !self.vendor.sessions {
            return complaint(404, "no such thing");
        }
        let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        let mut state = self.state();
        let right = body["UserName"] == Self::USER && body["Password"] == Self::PASSWORD;
        if !right || state.wrong >= WRONG_MAX {
            state.wrong += u32::from(!right);
            return complaint(401, "the user or the password is wrong");
        }
        if state.sessions.len() >= SESSIONS_MAX {
            return complaint(503, "there is no session left");
        }
        state.made += 1;
        let (token, id) = (
            format!("token-{}", state.made),
            format!("/redfish/v1/SessionService/Sessions/{}", state.made),
        );
        state.sessions.insert(token.clone(), id.clone());
        let mut reply =
            told(&json!({ "@odata.id": id, "UserName": Self::USER, "Name": "Session" }));
        reply.status = 201;
        // Some write their whole address.
        reply
            .headers
            .push(("Location", format!("https://device{id}")));
        reply.headers.push(("X-Auth-Token", token));
        reply
    }

    fn check_login(&self, asked: &Asked) -> Option<Reply> {
        let mut state = self.state();
        let refused = || Some(complaint(401, "log in first"));
        if let Some(token) = asked.header("x-auth-token") {
            return if state.sessions.contains_key(token) {
                None
            } else {
                refused()
            };
        }
        // "root:calvin & hobbes" (RFC 7617).
        let right = "Basic cm9vdDpjYWx2aW4gJiBob2JiZXM=";
        match asked.header("authorization") {
            Some(basic) if basic == right && state.wrong < WRONG_MAX => None,
            Some(_) => {
                state.wrong += 1;
                refused()
            }
            None => refused(),
        }
    }

    fn tell_system(&self, path: &str) -> Reply {
        let on = match self.board.is_on() {
            Ok(on) => on,
            Err(error) => return complaint(500, &error.to_string()),
        };
        let state = self.state();
        let (enabled, target) = match self.board.next() {
            Ok(Some(First::Network)) => ("Once", "Pxe"),
            Ok(Some(First::Disk)) => ("Once", "Hdd"),
            _ => ("Disabled", "None"),
        };
        let system = self.system_path();
        let mut action = json!({ "target": format!("{system}/Actions/ComputerSystem.Reset") });
        if self.vendor.reset_info {
            action["@Redfish.ActionInfo"] = format!("{system}/ResetActionInfo").into();
        } else {
            action["ResetType@Redfish.AllowableValues"] = json!(self.vendor.resets);
        }
        let mut document = json!({
            "@odata.id": path,
            "@odata.type": "#ComputerSystem.v1_10_0.ComputerSystem",
            "Id": self.vendor.system,
            "Name": "System",
            "PowerState": if on { "On" } else { "Off" },
            "Boot": {
                "BootSourceOverrideEnabled": enabled,
                "BootSourceOverrideTarget": target,
                "BootSourceOverrideMode": state.mode,
                "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Hdd", "Cd"],
            },
            "Actions": { "#ComputerSystem.Reset": action },
        });
        if self.vendor.settings {
            document["@Redfish.Settings"] =
                json!({ "SettingsObject": { "@odata.id": self.boot_path() } });
        }
        let mut reply = told(&document);
        match self.vendor.etag {
            Etag::None => {}
            Etag::Weak => reply
                .headers
                .push(("ETag", format!("W/\"{}\"", state.version))),
            _ => reply
                .headers
                .push(("ETag", format!("\"{}\"", state.version))),
        }
        reply
    }

    fn change(&self, asked: &Asked) -> Reply {
        if asked.header("content-type") != Some("application/json") {
            return complaint(415, "say it in JSON");
        }
        let given = asked.header("if-match");
        let mut state = self.state();
        let present = format!("\"{}\"", state.version);
        match (self.vendor.etag, given) {
            (Etag::Required, None) => return complaint(428, "If-Match is needed"),
            (Etag::Required, Some(etag)) if etag != present => {
                return complaint(412, "it has changed");
            }
            (Etag::Broken, Some(_)) => return complaint(412, "it has changed"),
            _ => {}
        }
        let Ok(body) = serde_json::from_slice::<Value>(&asked.body) else {
            return complaint(400, "that is no JSON");
        };
        let (Some(all), Some(boot)) = (body.as_object(), body["Boot"].as_object()) else {
            return complaint(400, "there is nothing about Boot");
        };
        let known = [
            "BootSourceOverrideEnabled",
            "BootSourceOverrideTarget",
            "BootSourceOverrideMode",
        ];
        if all.len() > 1 || boot.keys().any(|key| !known.contains(&key.as_str())) {
            return complaint(400, "there is a property it does not know");
        }
        let text = |name: &str| boot.get(name).map(|value| value.as_str().unwrap_or("?"));
        let next = match (text(known[0]), text(known[1])) {
            (Some("Disabled"), _) | (_, Some("None")) => None,
            (Some("Once"), Some("Pxe")) => Some(First::Network),
            (Some("Once"), Some("Hdd")) => Some(First::Disk),
            _ => return complaint(400, "it knows no such override"),
        };
        let mode = match text(known[2]) {
            Some(mode @ ("UEFI" | "Legacy")) => mode.to_owned(),
            Some(_) => return complaint(400, "it knows no such mode"),
            None if self.vendor.mode_falls_back => "Legacy".to_owned(),
            None => state.mode.clone(),
        };
        let complains = self.vendor.mode_complains && text(known[2]) == Some(state.mode.as_str());
        state.mode = mode;
        state.version += 1;
        // An override for another firmware than the machine's does nothing.
        let next = next.filter(|_| state.mode == self.firmware);
        if let Err(error) = self.board.choose(next) {
            return complaint(500, &error.to_string());
        }
        if complains {
            return complaint(400, "the mode is set already");
        }
        self.accept(&mut state)
    }

    /// Done, or a task.
    fn accept(&self, state: &mut State) -> Reply {
        if !self.vendor.tasks {
            return empty();
        }
        let monitor = format!("/redfish/v1/TaskMonitors/{}", state.tasks.len() + 1);
        state.tasks.insert(monitor.clone(), 2);
        let mut reply = told(&json!({ "TaskState": "New" }));
        reply.status = 202;
        reply.headers.push(("Location", monitor));
        reply
    }

    fn task(&self, path: &str) -> Reply {
        let mut state = self.state();
        match state.tasks.get_mut(path) {
            None => complaint(404, "no such task"),
            Some(0) => told(&json!({ "TaskState": "Completed", "TaskStatus": "OK" })),
            Some(left) => {
                *left -= 1;
                let mut reply = told(&json!({ "TaskState": "Running" }));
                reply.status = 202;
                reply
            }
        }
    }

    fn reset(&self, asked: &Asked) -> Reply {
        if asked.header("if-match").is_some() {
            return complaint(412, "an action has no version");
        }
        if asked.header("content-type") != Some("application/json") {
            return complaint(415, "say it in JSON");
        }
        let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        let kind = body["ResetType"].as_str().unwrap_or_default().to_owned();
        if !self.vendor.resets.contains(&kind.as_str()) {
            return complaint(400, &format!("{kind:?} is not among the kinds of reset"));
        }
        let on = self.board.is_on().unwrap_or(false);
        if (kind == "On") == on {
            return complaint(409, "it is so already");
        }
        let board = self.board.clone();
        thread::spawn(move || {
            thread::sleep(DELAY);
            let done = match kind.as_str() {
                "On" => board.on(),
                "ForceOff" => board.off(),
                "ForceRestart" | "PowerCycle" => board.reset(),
                // Nobody is there to hear it.
                _ => Ok(()),
            };
            // The test may be over by now; a board that was not switched is noticed where it is looked at.
            drop(done);
        });
        self.accept(&mut self.state())
    }
}

impl Answering for Controller {
    fn answer(&self, asked: &Asked) -> Reply {
        let line = format!("{} {}", asked.method, asked.path);
        self.state().asked.push(line);
        self.route(asked)
    }
}

fn told(document: &Value) -> Reply {
    Reply {
        status: 200,
        headers: vec![("OData-Version", "4.0".to_owned())],
        body: document.to_string(),
    }
}

fn empty() -> Reply {
    Reply {
        status: 204,
        headers: Vec::new(),
        body: String::new(),
    }
}

fn complaint(status: u16, words: &str) -> Reply {
    let body = json!({ "error": {
        "code": "Base.1.8.GeneralError",
        "message": "See ExtendedInfo.",
        "@Message.ExtendedInfo": [{ "MessageId": "Base.1.8.GeneralError", "Message": words }],
    } });
    let mut reply = told(&body);
    reply.status = status;
    reply
}

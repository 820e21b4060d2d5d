//! The conversation with a Redfish service: login, documents, changes with ETags, tasks.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::deadline::Deadline;
use super::super::failure::{Failure, PowerError};
use super::super::http::Answer;
use super::super::login::Login;
use super::super::pin::Pin;
use super::super::wire::{Request, Wire};
use super::document;
use crate::base64::base64;

/// Pause between two looks at a task.
const LOOK: Duration = Duration::from_millis(500);
/// Where sessions are made, when the root does not say (DSP0266, section 13.3.4).
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

/// How requests say who we are.
enum Access {
    /// Not yet.
    None,
    /// By a session; it is closed at its location.
    Session {
        token: String,
        location: Option<String>,
    },
    /// By user and password in each request, where there are no sessions.
    Basic,
}

/// A document, and the mark of its version.
pub(super) struct Told {
    pub(super) document: Value,
    etag: Option<String>,
}

/// A service, and who we are to it.
pub(super) struct Talk {
    wire: Wire,
    login: Login,
    access: Access,
    /// Where sessions are made.
    sessions: String,
}

impl Talk {
    pub(super) fn new(wire: Wire, login: Login) -> Talk {
        Talk {
            wire,
            login,
            access: Access::None,
            sessions: SESSIONS.to_owned(),
        }
    }

    pub(super) fn certificate(&mut self, until: Deadline) -> Result<Pin, PowerError> {
        self.wire.certificate(until)
    }

    /// A document that everybody may read.
    pub(super) fn tell_openly(&mut self, path: &str, until: Deadline) -> Result<Told, PowerError> {
        let request = Request {
            method: "GET",
            path,
            headers: vec![("OData-Version", "4.0".to_owned())],
            body: None,
        };
        let answer = self.wire.exchange(&request, until)?;
        told(&answer)
    }

    /// Make a session; where there are none, user and password go with each request.
    pub(super) fn log_in(&mut self, root: &Value, until: Deadline) -> Result<(), PowerError> {
        if let Ok(sessions) = document::link(root, "/Links/Sessions") {
            self.sessions = sessions;
        }
        self.make_session(until)
    }

    fn make_session(&mut self, until: Deadline) -> Result<(), PowerError> {
        let body = json!({ "UserName": self.login.user, "Password": self.login.password });
        let request = Request {
            method: "POST",
            path: &self.sessions,
            headers: vec![
                ("OData-Version", "4.0".to_owned()),
                ("Content-Type", "application/json".to_owned()),
            ],
            body: Some(body.to_string()),
        };
        let answer = self.wire.exchange(&request, until)?;
        match answer.status {
            200 | 201 => {
                let token = answer
                    .header("x-auth-token")
                    .filter(|token| is_field(token));
                let token =
                    token.ok_or_else(|| Failure::Garbage.because("its session has no token"))?;
                self.access = Access::Session {
                    token: token.to_owned(),
                    location: answer
                        .header("location")
                        .and_then(|at| document::path(at).ok()),
                };
                Ok(())
            }
            404 | 405 | 501 => {
                self.access = Access::Basic;
                Ok(())
            }
            // A service may answer a wrong password with "bad request".
            400 | 401 | 403 => Err(Failure::WrongPassword.because(reason(&answer))),
            _ => Err(refusal(&answer)),
        }
    }

    /// Close the session, or the controller soon has none left. Best effort: it times out by itself otherwise.
    pub(super) fn log_out(&mut self, until: Deadline) {
        if let Access::Session {
            location: Some(path),
            ..
        } = &self.access
        {
            let path = path.clone();
            let _ = self.send_once("DELETE", &path, None, None, until);
        }
        self.access = Access::None;
    }

    pub(super) fn get(&mut self, path: &str, until: Deadline) -> Result<Told, PowerError> {
        let answer = self.send("GET", path, None, None, until)?;
        told(&answer)
    }

    /// Ask for an action, and wait for its task where it has one.
    pub(super) fn post(
        &mut self,
        path: &str,
        body: &Value,
        until: Deadline,
    ) -> Result<(), PowerError> {
        let answer = self.send("POST", path, Some(body), None, until)?;
        self.settle(&answer, until)
    }

    /// Change a document that was `told`. Services disagree about If-Match: some want it, some compare it wrongly; so
    /// it is sent where there is an ETag, then with a fresh one, then left out.
    pub(super) fn patch(
        &mut self,
        path: &str,
        told: &Told,
        body: &Value,
        until: Deadline,
    ) -> Result<(), PowerError> {
        let etag = told.etag.clone();
        let mut answer = self.send("PATCH", path, Some(body), etag.as_deref(), until)?;
        if answer.status == 412 {
            let fresh = self.get(path, until)?.etag;
            answer = self.send("PATCH", path, Some(body), fresh.as_deref(), until)?;
        }
        if answer.status == 412 {
            answer = self.send("PATCH", path, Some(body), None, until)?;
        }
        if answer.status == 428 {
            answer = self.send("PATCH", path, Some(body), Some("*"), until)?;
        }
        self.settle(&answer, until)
    }

    /// Done, refused, or under way as a task that is waited for (DSP0266, section 11.3).
    fn settle(&mut self, answer: &Answer, until: Deadline) -> Result<(), PowerError> {
        if answer.status != 202 {
            return accepted(answer);
        }
        let location = answer.header("location").map(str::to_owned).or_else(|| {
            let body: Value = serde_json::from_slice(&answer.body).ok()?;
            Some(body.get("@odata.id")?.as_str()?.to_owned())
        });
        // A task nobody can ask about: the state that is read back tells.
        let Some(location) = location else {
            return Ok(());
        };
        let monitor = document::path(&location)?;
        loop {
            let answer = self.send("GET", &monitor, None, None, until)?;
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
            let state = body.get("TaskState").and_then(Value::as_str);
            match (answer.status, state) {
                (200, Some("Exception" | "Killed" | "Cancelled" | "Interrupted")) => {
                    let words = body.pointer("/Messages/0/Message").and_then(Value::as_str);
                    let text = format!("its task failed: {}", words.unwrap_or("no reason given"));
                    return Err(Failure::Refused.because(text));
                }
                (202, _) | (200, Some("New" | "Starting" | "Running" | "Pending" | "Service")) => {}
                // A task that is over may be forgotten at once.
                (404 | 410, _) => return Ok(()),
                _ => return accepted(&answer),
            }
            if until.left() <= LOOK {
                return Err(until.passed("its task is still under way"));
            }
            thread::sleep(LOOK);
        }
    }

    /// One exchange as who we are. A session that has expired is made anew, once: its password was right before.
    fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
        until: Deadline,
    ) -> Result<Answer, PowerError> {
        let mut answer = self.send_once(method, path, body, etag, until)?;
        if answer.status == 401 && matches!(self.access, Access::Session { .. }) {
            self.make_session(until)?;
            answer = self.send_once(method, path, body, etag, until)?;
        }
        match answer.status {
            401 => Err(Failure::WrongPassword.because(reason(&answer))),
            _ => Ok(answer),
        }
    }

    fn send_once(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
        until: Deadline,
    ) -> Result<Answer, PowerError> {
        let mut headers = vec![("OData-Version", "4.0".to_owned())];
        match &self.access {
            Access::Session { token, .. } => headers.push(("X-Auth-Token", token.clone())),
            Access::Basic => headers.push(("Authorization", self.basic())),
            Access::None => {}
        }
        if body.is_some() {
            headers.push(("Content-Type", "application/json".to_owned()));
        }
        if let Some(etag) = etag.filter(|etag| is_field(etag)) {
            headers.push(("If-Match", etag.to_owned()));
        }
        let request = Request {
            method,
            path,
            headers,
            body: body.map(Value::to_string),
        };
        self.wire.exchange(&request, until)
    }

    /// RFC 7617.
    fn basic(&self) -> String {
        let both = format!("{}:{}", self.login.user, self.login.password.text());
        format!("Basic {}", base64(both.as_bytes()))
    }
}

/// A value that can stand in one line of a request's head.
fn is_field(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

fn told(answer: &Answer) -> Result<Told, PowerError> {
    accepted(answer)?;
    let document: Value = serde_json::from_slice(&answer.body)
        .map_err(|_| Failure::Garbage.because(String::from_utf8_lossy(&answer.body)))?;
    let inside = document.get("@odata.etag").and_then(Value::as_str);
    let etag = answer.header("etag").or(inside).map(str::to_owned);
    Ok(Told { document, etag })
}

fn accepted(answer: &Answer) -> Result<(), PowerError> {
    match answer.status {
        200..=299 => Ok(()),
        _ => Err(refusal(answer)),
    }
}

/// The word for an answer that is none of success.
fn refusal(answer: &Answer) -> PowerError {
    let failure = match answer.status {
        401 => Failure::WrongPassword,
        404 | 405 | 501 => Failure::Unsupported,
        // Also "too many sessions" and "a change is under way".
        429 | 503 => Failure::Busy,
        300..=399 => Failure::Garbage,
        _ => Failure::Refused,
    };
    failure.because(reason(answer))
}

fn reason(answer: &Answer) -> String {
    let body = serde_json::from_slice(&answer.body).ok();
    let words = body.as_ref().and_then(document::complaint);
    match words {
        Some(words) => format!("HTTP {}: {words}", answer.status),
        None => format!("HTTP {}", answer.status),
    }
}

#[cfg(test)]
mod tests {
    use super::is_field;

    #[test]
    fn a_token_cannot_smuggle_a_header() {
        assert!(is_field("W/\"abc def\""));
        assert!(!is_field("a\r\nX: y") && !is_field(""));
    }
}

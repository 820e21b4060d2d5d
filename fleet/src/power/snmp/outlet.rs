//! Outlets as they are written: `HOST/7`, `HOST:PORT/2.7`, and several of them with `+` in between.

use std::fmt;

use super::Host;
use crate::power::failure::{Failure, PowerError};

/// Outlets of one machine; servers have up to six power supplies.
const OUTLETS_MAX: usize = 8;

/// One outlet of one PDU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outlet {
    pub(super) host: Host,
    /// Its index in the PDU's tables, such as `1.7`.
    index: String,
}

impl Outlet {
    /// The object of this outlet in a column of a table.
    pub(super) fn object(&self, column: &str) -> String {
        format!("{column}.{}", self.index)
    }
}

impl fmt::Display for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host.name, self.index)
    }
}

/// The outlets an address names. One without a host is on the PDU of the one before; a single number is completed by
/// `prefix`, the indexes of a PDU that stands alone.
pub(super) fn outlets(address: &str, prefix: &[u32]) -> Result<Vec<Outlet>, PowerError> {
    let mut found: Vec<Outlet> = Vec::new();
    for part in address.split('+') {
        let (host, number) = match (part.rsplit_once('/'), found.last()) {
            (Some((host, number)), _) => (host.parse()?, number),
            (None, Some(before)) => (before.host.clone(), part),
            (None, None) => return Err(wrong(address)),
        };
        let index = index(number, prefix).ok_or_else(|| wrong(address))?;
        found.push(Outlet { host, index });
        if found.len() > OUTLETS_MAX {
            let text = format!("more than {OUTLETS_MAX} outlets for one machine");
            return Err(Failure::Setting.because(text));
        }
    }
    Ok(found)
}

fn index(number: &str, prefix: &[u32]) -> Option<String> {
    let given: Vec<u32> = number
        .split('.')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let whole = match given.len() {
        1 => [prefix, &given].concat(),
        all if all == prefix.len() + 1 => given,
        _ => return None,
    };
    let words: Vec<String> = whole.iter().map(u32::to_string).collect();
    Some(words.join("."))
}

fn wrong(address: &str) -> PowerError {
    Failure::Setting.because(format!(
        "{address:?} is no HOST/OUTLET, such as 10.0.0.9/7 or 10.0.0.9/7+8"
    ))
}

#[cfg(test)]
mod tests {
    use super::{Failure, outlets};

    fn objects(address: &str, prefix: &[u32]) -> Vec<String> {
        let found = outlets(address, prefix).unwrap();
        let shown = found.iter().map(|outlet| {
            let port = outlet.host.port.map(|port| format!(":{port}"));
            let host = &outlet.host.name;
            format!("{host}{} {}", port.unwrap_or_default(), outlet.object("9"))
        });
        shown.collect()
    }

    #[test]
    fn an_outlet_is_a_number_or_the_whole_index() {
        assert_eq!(objects("pdu/7", &[]), ["pdu 9.7"]);
        assert_eq!(objects("10.0.0.9:1161/7", &[1]), ["10.0.0.9:1161 9.1.7"]);
        assert_eq!(objects("[fe80::1]/2.1.7", &[1, 1]), ["fe80::1 9.2.1.7"]);
    }

    #[test]
    fn two_power_supplies_hang_on_two_outlets_of_one_pdu_or_of_two() {
        assert_eq!(objects("a/7+8", &[]), ["a 9.7", "a 9.8"]);
        assert_eq!(objects("a/7+b:99/3", &[]), ["a 9.7", "b:99 9.3"]);
    }

    #[test]
    fn what_is_no_outlet_is_refused_before_anything_is_asked() {
        for bad in [
            "",
            "pdu",
            "pdu/",
            "7",
            "pdu/x",
            "pdu/-1",
            "pdu/1.2",
            "pdu/7+",
            "-v/7",
            "a/1+1+1+1+1+1+1+1+1",
            "pdu/7 8",
            "pdu/4294967296",
        ] {
            let error = outlets(bad, &[]).unwrap_err();
            assert_eq!(error.failure, Failure::Setting, "{bad:?}");
        }
    }
}

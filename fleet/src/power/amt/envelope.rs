//! The messages to and from Intel AMT: SOAP 1.2 with WS-Addressing and WS-Management (DSP0226).

use super::super::failure::{Failure, PowerError};
use super::xml::{Element, escape};

const SOAP: &str = "http://www.w3.org/2003/05/soap-envelope";
const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing";
const ANONYMOUS: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";
const WSMAN: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd";
const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
const CIM: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/";
const AMT: &str = "http://intel.com/wbem/wscim/1/amt-schema/1/";
const IPS: &str = "http://intel.com/wbem/wscim/1/ips-schema/1/";

/// Items asked for in one Pull, and characters.
const PULL_ELEMENTS: u32 = 999;
const PULL_CHARACTERS: u32 = 99_999;

/// What is asked of a class.
pub(super) enum Ask<'a> {
    Get,
    /// Replace the one instance by these properties, in this order.
    Put(&'a [(String, String)]),
    Enumerate,
    Pull(&'a str),
    /// Call a method; the argument is the XML inside its input.
    Call(&'a str, String),
}

/// The URI of a class: the part before its first underscore says whose it is.
pub(super) fn class_uri(class: &str) -> String {
    let base = match class.split('_').next() {
        Some("AMT") => AMT,
        Some("IPS") => IPS,
        _ => CIM,
    };
    format!("{base}{class}")
}

/// A request. All names are declared on the envelope's elements as firmware expects them.
pub(super) fn request(class: &str, ask: &Ask<'_>, message: u32) -> String {
    let uri = class_uri(class);
    let (action, body) = match ask {
        Ask::Get => (format!("{TRANSFER}/Get"), String::new()),
        Ask::Put(properties) => {
            let inside: String = properties
                .iter()
                .map(|(name, value)| format!("<h:{name}>{}</h:{name}>", escape(value)))
                .collect();
            let body = format!("<h:{class} xmlns:h=\"{uri}\">{inside}</h:{class}>");
            (format!("{TRANSFER}/Put"), body)
        }
        Ask::Enumerate => (
            format!("{ENUMERATION}/Enumerate"),
            format!("<n:Enumerate xmlns:n=\"{ENUMERATION}\"></n:Enumerate>"),
        ),
        Ask::Pull(context) => (
            format!("{ENUMERATION}/Pull"),
            format!(
                "<n:Pull xmlns:n=\"{ENUMERATION}\"><n:EnumerationContext>{}</n:EnumerationContext>\
                 <n:MaxElements>{PULL_ELEMENTS}</n:MaxElements>\
                 <n:MaxCharacters>{PULL_CHARACTERS}</n:MaxCharacters></n:Pull>",
                escape(context)
            ),
        ),
        Ask::Call(method, input) => (
            format!("{uri}/{method}"),
            format!("<h:{method}_INPUT xmlns:h=\"{uri}\">{input}</h:{method}_INPUT>"),
        ),
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\
         <s:Envelope xmlns:s=\"{SOAP}\" xmlns:a=\"{ADDRESSING}\" xmlns:w=\"{WSMAN}\"><s:Header>\
         <a:Action>{action}</a:Action><a:To>/wsman</a:To><w:ResourceURI>{uri}</w:ResourceURI>\
         <a:MessageID>{message}</a:MessageID><a:ReplyTo><a:Address>{ANONYMOUS}</a:Address></a:ReplyTo>\
         <w:OperationTimeout>PT60S</w:OperationTimeout></s:Header><s:Body>{body}</s:Body></s:Envelope>"
    )
}

/// An argument that names an instance of another class.
pub(super) fn reference(name: &str, class: &str, selectors: &[(&str, &str)]) -> String {
    let uri = class_uri(class);
    let selectors: String = selectors
        .iter()
        .map(|(key, value)| format!("<w:Selector Name=\"{key}\">{}</w:Selector>", escape(value)))
        .collect();
    format!(
        "<h:{name}><a:Address>{ANONYMOUS}</a:Address><a:ReferenceParameters>\
         <w:ResourceURI>{uri}</w:ResourceURI><w:SelectorSet>{selectors}</w:SelectorSet>\
         </a:ReferenceParameters></h:{name}>"
    )
}

/// The one element in the body of an answer; a fault is a failure.
pub(super) fn body(text: &str) -> Result<Element, PowerError> {
    let garbage = |what: String| Failure::Garbage.because(what);
    let envelope = Element::parse(text).map_err(|error| garbage(error.to_string()))?;
    if envelope.name != "Envelope" || envelope.namespace != SOAP {
        return Err(garbage("it is no SOAP 1.2".to_owned()));
    }
    let body = envelope
        .child("Body")
        .and_then(|body| body.children.first());
    let body = body.ok_or_else(|| garbage("its body is empty".to_owned()))?;
    if body.name == "Fault" && body.namespace == SOAP {
        return Err(fault(body));
    }
    Ok(body.clone())
}

/// A fault, by the last part of its most special code: prefixes differ from one firmware to the next.
fn fault(fault: &Element) -> PowerError {
    let code = fault
        .at(&["Code", "Subcode", "Value"])
        .or_else(|| fault.at(&["Code", "Value"]));
    let code = code.map_or("", |value| value.text.trim());
    let code = code.rsplit(':').next().unwrap_or_default();
    let reason = fault
        .at(&["Reason", "Text"])
        .map_or("", |text| text.text.trim());
    let failure = match code {
        "DestinationUnreachable" | "ActionNotSupported" | "UnsupportedFeature" => {
            Failure::Unsupported
        }
        "TimedOut" | "QuotaLimit" | "Concurrency" => Failure::Busy,
        _ => Failure::Refused,
    };
    failure.because(format!("{code}: {reason}"))
}

/// A method's `ReturnValue`; the class of power has values of its own (DMTF, CIM_PowerManagementService).
pub(super) fn returned(method: &str, output: &Element) -> Result<(), PowerError> {
    let value = output.text_of("ReturnValue");
    let value: Option<u32> = value.and_then(|value| value.parse().ok());
    let power = method == "RequestPowerStateChange";
    let (failure, words) = match value {
        Some(0) => return Ok(()),
        // A job was started: the state that is read back tells how it ends.
        Some(4096) if power => return Ok(()),
        None => (Failure::Garbage, "it returns nothing"),
        Some(1) => (Failure::Unsupported, "not supported"),
        Some(3) if !power => (Failure::Busy, "busy"),
        Some(4099) => (Failure::Busy, "busy"),
        Some(6) if !power => (Failure::Refused, "access denied"),
        Some(6) => (Failure::Busy, "in use"),
        Some(5) => (Failure::Refused, "invalid parameter"),
        Some(4097) => (Failure::Refused, "not from its present state"),
        Some(_) => (Failure::Refused, "failed"),
    };
    let number = value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    Err(failure.because(format!("{method}: {words} (ReturnValue {number})")))
}

#[cfg(test)]
mod tests {
    use super::{Ask, Element, Failure, body, reference, request, returned};

    #[test]
    fn requests_are_documents_with_all_their_headers() {
        let input = reference(
            "Source",
            "CIM_BootSourceSetting",
            &[("InstanceID", "Intel(r) AMT: <x>")],
        );
        let text = request(
            "CIM_BootConfigSetting",
            &Ask::Call("ChangeBootOrder", input),
            7,
        );
        let envelope = Element::parse(&text).unwrap();
        let header = envelope.child("Header").unwrap();
        for name in [
            "Action",
            "To",
            "ResourceURI",
            "MessageID",
            "ReplyTo",
            "OperationTimeout",
        ] {
            assert!(header.child(name).is_some(), "{name}");
        }
        assert!(
            header
                .text_of("Action")
                .unwrap()
                .ends_with("/CIM_BootConfigSetting/ChangeBootOrder")
        );
        let input = envelope.at(&["Body", "ChangeBootOrder_INPUT"]).unwrap();
        assert!(input.namespace.ends_with("CIM_BootConfigSetting"));
        let selector = input
            .at(&["Source", "ReferenceParameters", "SelectorSet"])
            .unwrap();
        assert_eq!(selector.text_of("Selector"), Some("Intel(r) AMT: <x>"));
    }

    fn answer(inside: &str) -> String {
        format!(
            "<a:Envelope xmlns:a=\"{}\"><a:Header></a:Header><a:Body>{inside}</a:Body></a:Envelope>",
            super::SOAP
        )
    }

    #[test]
    fn a_fault_has_its_word() {
        let fault = |code: &str| {
            let inside = format!(
                "<a:Fault><a:Code><a:Value>a:Sender</a:Value><a:Subcode><a:Value>{code}</a:Value></a:Subcode></a:Code>\
                 <a:Reason><a:Text>because</a:Text></a:Reason></a:Fault>"
            );
            body(&answer(&inside)).unwrap_err().failure
        };
        assert_eq!(fault("e:DestinationUnreachable"), Failure::Unsupported);
        assert_eq!(fault("e:AccessDenied"), Failure::Refused);
        assert_eq!(body("<html></html>").unwrap_err().failure, Failure::Garbage);
        assert_eq!(body(&answer("")).unwrap_err().failure, Failure::Garbage);
    }

    #[test]
    fn a_returned_value_has_its_word() {
        let output = |value: &str| {
            body(&answer(&format!(
                "<x><ReturnValue>{value}</ReturnValue></x>"
            )))
            .unwrap()
        };
        let word = |method: &str, value: &str| {
            returned(method, &output(value)).map_err(|error| error.failure)
        };
        assert_eq!(word("RequestPowerStateChange", "4096"), Ok(()));
        assert_eq!(word("RequestPowerStateChange", "4099"), Err(Failure::Busy));
        assert_eq!(word("ChangeBootOrder", "3"), Err(Failure::Busy));
        assert_eq!(word("ChangeBootOrder", "x"), Err(Failure::Garbage));
        assert_eq!(word("ChangeBootOrder", "2"), Err(Failure::Refused));
    }
}

//! A cheap look at what passes: as much of a request as tells whether it may be sent twice, as much of
//! an answer as tells what became of it. The bytes themselves are passed on as they are.

use std::ops::Range;
use std::time::Duration;

use hotpair_http::Method;
use hotpair_protocol::{CallText, ErrorNumber, ResultBody};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::fact::{Repeatable, Told};

/// What counts of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looked {
    /// What sending it again would do.
    pub(crate) repeatable: Repeatable,
    /// The longest time that one sending of it may take.
    pub(crate) limit: Duration,
}

/// Looks at a request.
pub(crate) fn request(method: &Method, path: &str, body: &[u8]) -> Looked {
    let usual = |repeatable| Looked { repeatable, limit: LIMIT_DEFAULT };
    match path {
        "/v1/call" => call(body),
        // One login more is a session that nobody uses, and that ends by itself.
        "/v1/heartbeat" | "/v1/login" | "/v1/logout" => usual(Repeatable::Harmless),
        "/v1/result" => usual(result(body)),
        _ if method == Method::GET => usual(Repeatable::Harmless),
        _ => usual(Repeatable::Once),
    }
}

/// Fetching deletes: only under a number is it answered the same again.
fn result(body: &[u8]) -> Repeatable {
    match serde_json::from_slice::<ResultBody>(body) {
        Ok(ResultBody { request: None, .. }) => Repeatable::Once,
        Ok(ResultBody { request: Some(_), .. }) => Repeatable::Numbered,
        Err(_) => Repeatable::Harmless, // the node refuses it
    }
}

fn call(body: &[u8]) -> Looked {
    // What cannot be read here is refused by the node, which reads it the same way.
    let Ok(call) = serde_json::from_slice::<CallText<'_>>(body) else {
        return Looked { repeatable: Repeatable::Harmless, limit: LIMIT_DEFAULT };
    };
    // Functions of other programs have limits of their own, which only the node knows.
    let is_own = call.function.is_some_and(|number| OWN.contains(&number))
        || call.gsv.as_ref().is_some_and(|gsv| gsv.0.starts_with(OWN_SERVICES));
    let limit = match call.timeout_ms {
        Some(ms) => Duration::from_millis(ms).min(FUNCTION_LIMIT_MAX) + LIMIT_MARGIN,
        None if is_own || call.is_async => LIMIT_DEFAULT,
        None => FUNCTION_LIMIT_MAX + LIMIT_MARGIN,
    };
    let only_looks = match (&call.function, &call.gsv, &call.name) {
        (Some(number), None, None) => LOOKS.iter().any(|(known, ..)| known == number),
        (None, Some(gsv), Some(name)) => {
            LOOKS.iter().any(|(_, service, known)| *service == gsv.0 && *known == name.0)
        }
        _ => false,
    };
    let repeatable = match (&call.session, call.request) {
        (Some(_), Some(_)) => Repeatable::Numbered,
        _ if only_looks => Repeatable::Harmless,
        _ => Repeatable::Once,
    };
    Looked { repeatable, limit }
}

/// What an answer's envelope says; nothing if it is none.
pub(crate) fn answer(body: &[u8]) -> Option<Told> {
    let quick = quickly(body);
    match quick {
        Some(told) if told.error_no != ErrorNumber::NotServing.number() => Some(told),
        Some(_) | None => slowly(body),
    }
}

/// The beginning that our own nodes' envelopes have.
fn quickly(body: &[u8]) -> Option<Told> {
    let rest = body.strip_prefix(b"{\"error_no\":")?;
    let (error_no, rest) = number(rest)?;
    let mut rest = rest.strip_prefix(b",\"error_info\":\"")?;
    loop {
        let at = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        let escaped = rest[at] == b'\\';
        rest = rest.get(at + 1 + usize::from(escaped)..)?;
        if !escaped {
            break;
        }
    }
    let (epoch, rest) = number(rest.strip_prefix(b",\"epoch\":")?)?;
    let whole = matches!(rest.first(), Some(b',' | b'}')) && body.ends_with(b"}");
    let error_no = i64::try_from(error_no).ok()?;
    whole.then_some(Told { error_no, epoch, perhaps_executed: false })
}

/// Whether a quick look sees what a whole one sees, wherever there is something to see.
#[cfg(feature = "fuzzing")]
pub(crate) fn compare(body: &[u8]) {
    if let (Some(quick), Some(slow)) = (quickly(body), slowly(body)) {
        assert_eq!((quick.error_no, quick.epoch), (slow.error_no, slow.epoch));
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).filter(|end| *end > 0)?;
    let number = bytes[..end]
        .iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?;
    Some((number, &bytes[end..]))
}

fn slowly(body: &[u8]) -> Option<Told> {
    #[derive(Deserialize)]
    struct Outside {
        error_no: i64,
        epoch: u64,
    }
    #[derive(Deserialize)]
    struct Inside {
        data: Executed,
    }
    #[derive(Deserialize)]
    struct Executed {
        executed: Option<IgnoredAny>,
    }
    let Outside { error_no, epoch } = serde_json::from_slice(body).ok()?;
    let inside = serde_json::from_slice::<Inside>(body);
    let perhaps_executed = inside.is_ok_and(|inside| inside.data.executed.is_some());
    Some(Told { error_no, epoch, perhaps_executed })
}

/// Functions of the node itself that change nothing.
const LOOKS: [(u32, &str, &str); 8] = [
    (1001, "hotpair/table/1.0", "get"),
    (1005, "hotpair/table/1.0", "scan"),
    (1101, "hotpair/dataset/1.0", "get"),
    (1102, "hotpair/dataset/1.0", "scan"),
    (1103, "hotpair/dataset/1.0", "describe"),
    (1201, "hotpair/functions/1.0", "list"),
    (1901, "hotpair/test/1.0", "echo"),
    (1902, "hotpair/test/1.0", "sleep"),
];
/// Numbers of the node's own functions.
const OWN: Range<u32> = 1_000..2_000;
/// What their services' names begin with.
const OWN_SERVICES: &str = "hotpair/";
/// A node's own limit for a function of its own where its caller gives none, and some time to say so.
const LIMIT_DEFAULT: Duration = Duration::from_secs(35);
/// A node's own limit for a function whatever its caller says.
const FUNCTION_LIMIT_MAX: Duration = Duration::from_mins(10);
/// Time for a node to say that a function took too long.
const LIMIT_MARGIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(body: &str) -> Repeatable {
        request(&Method::POST, "/v1/call", body.as_bytes()).repeatable
    }

    #[test]
    fn only_what_does_no_harm_is_sent_twice() {
        assert_eq!(kind(r#"{"session":"s","request":7,"function":9}"#), Repeatable::Numbered);
        assert_eq!(kind(r#"{"session":"s","function":9}"#), Repeatable::Once);
        assert_eq!(kind(r#"{"request":7,"function":1002}"#), Repeatable::Once);
        assert_eq!(kind(r#"{"function":1001}"#), Repeatable::Harmless);
        let by_name = r#"{"gsv":"hotpair/table/1.0","name":"scan"}"#;
        assert_eq!(kind(by_name), Repeatable::Harmless);
        assert_eq!(kind(r#"{"gsv":"trade/table/1.0","name":"scan"}"#), Repeatable::Once);
        assert_eq!(kind("{"), Repeatable::Harmless, "the node refuses it");
        let of = |method: Method, path| request(&method, path, b"{}").repeatable;
        assert_eq!(of(Method::POST, "/v1/heartbeat"), Repeatable::Harmless);
        assert_eq!(of(Method::GET, "/v1/functions"), Repeatable::Harmless);
        assert_eq!(of(Method::POST, "/v1/publish"), Repeatable::Once);
        let fetch = |body: &str| request(&Method::POST, "/v1/result", body.as_bytes()).repeatable;
        assert_eq!(fetch(r#"{"session":"s","ticket":"7","request":8}"#), Repeatable::Numbered);
        assert_eq!(fetch(r#"{"session":"s","ticket":"7"}"#), Repeatable::Once);
    }

    #[test]
    fn a_call_may_take_what_it_asks_for_and_a_little_more() {
        let limit = |body: &str| request(&Method::POST, "/v1/call", body.as_bytes()).limit;
        assert_eq!(limit(r#"{"function":9,"timeout_ms":1000}"#), Duration::from_secs(6));
        assert_eq!(limit(r#"{"function":9,"timeout_ms":99999999999}"#).as_secs(), 605);
        assert_eq!(limit(r#"{"function":9}"#).as_secs(), 605, "only the node knows its limit");
        assert_eq!(limit(r#"{"function":9,"async":true}"#), LIMIT_DEFAULT);
        assert_eq!(limit(r#"{"function":1002}"#), LIMIT_DEFAULT);
        assert_eq!(limit(r#"{"gsv":"hotpair/table/1.0","name":"put"}"#), LIMIT_DEFAULT);
    }

    #[test]
    fn an_envelope_is_read_whatever_its_fields_order_and_nothing_else_is() {
        let told = |error_no, epoch| Some(Told { error_no, epoch, perhaps_executed: false });
        let text = br#"{"error_no":0,"error_info":"","epoch":7,"data":{"epoch":9}}"#;
        assert_eq!(quickly(text), told(0, 7));
        assert_eq!(answer(br#"{"epoch":7,"data":{},"error_no":308000006}"#), told(308_000_006, 7));
        let escaped = br#"{"error_no":308000009,"error_info":"a \"b\", \\","epoch":3}"#;
        assert_eq!(quickly(escaped), told(308_000_009, 3));
        for none in ["", "hi", "{}", "[1]", r#"{"error_no":0,"error_info":"#] {
            assert_eq!(answer(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn a_refusal_tells_whether_something_was_done() {
        let body = |data: &str| {
            format!(r#"{{"error_no":308000005,"error_info":"x","epoch":3,"data":{data}}}"#)
        };
        let perhaps = |data| answer(body(data).as_bytes()).unwrap().perhaps_executed;
        assert!(perhaps(r#"{"executed":"unknown"}"#));
        assert!(!perhaps(r#"{"master":"b"}"#));
        assert!(!perhaps("{}"));
    }
}

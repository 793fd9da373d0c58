//! The JSON form of a list of faults, checked value by value so that an error points at its line.

use std::{fmt, time::Duration};

use didit_api::error::OddThrottle;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{Ending, Fault, FaultsError, Refusal, RetryAfter, Rule, Truncation, When};

pub(crate) fn read(text: &str) -> Result<Vec<Rule>, FaultsError> {
    let file: RawFile = serde_json::from_str(text).map_err(|error| FaultsError::File {
        line: error.line(),
        column: error.column(),
        message: without_position(&error),
    })?;
    Ok(file.rules.into_iter().map(Rule::from).collect())
}

/// The message without the " at line … column …" that `serde_json` ends it with.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).unwrap_or(&text).to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    rules: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    fault: RawFault,
    #[serde(default)]
    routes: Vec<String>,
    #[serde(default)]
    methods: Vec<RawMethod>,
    #[serde(default)]
    when: When,
}

// Tagged from outside: the other forms are buffered by serde, which would lose the line and column.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum RawFault {
    Status {
        #[serde(deserialize_with = "code")]
        code: StatusCode,
        #[serde(default)]
        retry_after: Option<RawRetryAfter>,
        #[serde(default)]
        headers: Vec<RawHeader>,
    },
    #[serde(rename = "absurd-429")]
    AbsurdThrottle,
    #[serde(rename = "odd-429")]
    OddThrottle(#[serde(deserialize_with = "odd_throttle")] OddThrottle),
    Delay {
        #[serde(deserialize_with = "millis")]
        ms: Duration,
    },
    ResetBeforeWork,
    WorkThenDrop,
    LateCommit {
        #[serde(deserialize_with = "millis")]
        ms: Duration,
        #[serde(default)]
        ending: RawEnding,
    },
    NeverCommit {
        #[serde(deserialize_with = "millis")]
        ms: Duration,
        #[serde(default)]
        ending: RawEnding,
    },
    TruncatedBody(#[serde(deserialize_with = "truncation")] Truncation),
    SlowBody {
        #[serde(deserialize_with = "piece")]
        bytes: usize,
        #[serde(deserialize_with = "millis")]
        every_ms: Duration,
    },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum RawEnding {
    #[default]
    Drop,
    Silence,
    Status(#[serde(deserialize_with = "code")] StatusCode),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTruncation {
    at_byte: Option<usize>,
    at_percent: Option<u64>,
    #[serde(default)]
    chunked: bool,
}

/// A number of seconds, a text sent as it is, or an object with a date.
struct RawRetryAfter(RetryAfter);

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum RawDate {
    DateInS(u64),
    DateAgoS(u64),
}

struct RawHeader(HeaderName, HeaderValue);

struct RawMethod(Method);

impl From<RawRule> for Rule {
    fn from(raw: RawRule) -> Self {
        let fault = match raw.fault {
            RawFault::Status { code, retry_after, headers } => status(code, retry_after, headers),
            RawFault::AbsurdThrottle => Fault::AbsurdThrottle,
            RawFault::OddThrottle(odd) => Fault::OddThrottle(odd),
            RawFault::Delay { ms } => Fault::Delay(ms),
            RawFault::ResetBeforeWork => Fault::ResetBeforeWork,
            RawFault::WorkThenDrop => Fault::WorkThenDrop,
            RawFault::LateCommit { ms, ending } => Fault::LateCommit { after: ms, ending: ending.into() },
            RawFault::NeverCommit { ms, ending } => Fault::NeverCommit { after: ms, ending: ending.into() },
            RawFault::TruncatedBody(cut) => Fault::TruncatedBody(cut),
            RawFault::SlowBody { bytes, every_ms } => Fault::SlowBody { bytes, every: every_ms },
        };
        Self {
            fault,
            routes: raw.routes,
            methods: raw.methods.into_iter().map(|RawMethod(method)| method).collect(),
            when: raw.when,
        }
    }
}

/// The plain form where it says everything.
fn status(code: StatusCode, retry_after: Option<RawRetryAfter>, headers: Vec<RawHeader>) -> Fault {
    let retry_after = retry_after.map(|RawRetryAfter(value)| value);
    let headers: Vec<_> = headers.into_iter().map(|RawHeader(name, value)| (name, value)).collect();
    match retry_after {
        None if headers.is_empty() => Fault::status(code),
        Some(RetryAfter::Seconds(seconds)) if headers.is_empty() => Fault::status(code).with_retry_after(seconds),
        retry_after => Fault::Refusal(Refusal { code, retry_after, headers }),
    }
}

impl From<RawEnding> for Ending {
    fn from(raw: RawEnding) -> Self {
        match raw {
            RawEnding::Drop => Self::Drop,
            RawEnding::Silence => Self::Silence,
            RawEnding::Status(code) => Self::Status(code),
        }
    }
}

impl<'de> Deserialize<'de> for RawRetryAfter {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct AnyForm;

        impl<'de> Visitor<'de> for AnyForm {
            type Value = RetryAfter;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds, a text, {\"date_in_s\": …} or {\"date_ago_s\": …}")
            }

            fn visit_u64<E: Error>(self, seconds: u64) -> Result<RetryAfter, E> {
                Ok(RetryAfter::Seconds(seconds))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RetryAfter, E> {
                header_value(text).map(RetryAfter::Text)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RetryAfter, A::Error> {
                Ok(match RawDate::deserialize(MapAccessDeserializer::new(map))? {
                    RawDate::DateInS(seconds) => RetryAfter::DateIn(Duration::from_secs(seconds)),
                    RawDate::DateAgoS(seconds) => RetryAfter::DateAgo(Duration::from_secs(seconds)),
                })
            }
        }

        from.deserialize_any(AnyForm).map(Self)
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (name, value) = <(String, String)>::deserialize(from)?;
        let known = name.parse().map_err(|_| refused(format_args!("{name:?} is no header's name")))?;
        Ok(Self(known, header_value(&value)?))
    }
}

impl<'de> Deserialize<'de> for RawMethod {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        let known = [Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE, Method::HEAD];
        let method = known.into_iter().find(|method| method.as_str() == name);
        method.map(Self).ok_or_else(|| {
            refused(format_args!("method {name:?} is not known; allowed are GET, POST, PATCH, PUT, DELETE, HEAD"))
        })
    }
}

fn code<'de, D: Deserializer<'de>>(from: D) -> Result<StatusCode, D::Error> {
    let code = u16::deserialize(from)?;
    let status = StatusCode::from_u16(code).ok().filter(|_| (400..=599).contains(&code));
    status.ok_or_else(|| refused(format_args!("status {code} is no error; allowed are 400 to 599")))
}

fn odd_throttle<'de, D: Deserializer<'de>>(from: D) -> Result<OddThrottle, D::Error> {
    let name = String::deserialize(from)?;
    match name.as_str() {
        "sandbox-quota" => Ok(OddThrottle::SandboxQuota),
        "phone-attempts" => Ok(OddThrottle::PhoneAttempts),
        "import-job" => Ok(OddThrottle::ImportJob),
        _ => Err(refused(format_args!(
            "odd 429 {name:?} is not known; allowed are sandbox-quota, phone-attempts, import-job"
        ))),
    }
}

fn truncation<'de, D: Deserializer<'de>>(from: D) -> Result<Truncation, D::Error> {
    let raw = RawTruncation::deserialize(from)?;
    let cut = match (raw.at_byte, raw.at_percent) {
        (Some(byte), None) => Truncation::at_byte(byte),
        (None, Some(percent)) => match u8::try_from(percent) {
            Ok(percent @ 0..=100) => Truncation::at_percent(percent),
            _ => {
                return Err(refused(format_args!(
                    "a body cannot be cut off at {percent} percent; allowed are 0 to 100"
                )));
            }
        },
        _ => return Err(refused(format_args!("a body is cut off at either `at_byte` or `at_percent`"))),
    };
    Ok(if raw.chunked { cut.chunked() } else { cut })
}

fn piece<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    match usize::deserialize(from)? {
        0 => Err(refused(format_args!("a body in pieces of 0 bytes never ends; the least is 1"))),
        bytes => Ok(bytes),
    }
}

fn header_value<E: Error>(text: &str) -> Result<HeaderValue, E> {
    text.parse().map_err(|_| refused(format_args!("{text:?} cannot stand in a header")))
}

fn millis<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let delay = Duration::from_millis(u64::deserialize(from)?);
    if delay > Fault::LONGEST_DELAY {
        return Err(refused(format_args!("a delay of {delay:?} is longer than {:?}", Fault::LONGEST_DELAY)));
    }
    Ok(delay)
}

pub(crate) fn probability<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(from)?;
    if !(0.0..=1.0).contains(&value) {
        return Err(refused(format_args!("a probability of {value} is not from 0 to 1")));
    }
    Ok(value)
}

pub(crate) fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
    let numbers = Vec::deserialize(from)?;
    if numbers.contains(&0) {
        return Err(refused(format_args!("requests are counted from 1, not 0")));
    }
    Ok(numbers)
}

pub(crate) fn between<'de, D: Deserializer<'de>>(from: D) -> Result<(Duration, Duration), D::Error> {
    let (from, until) = <(u64, u64)>::deserialize(from)?;
    if from >= until {
        return Err(refused(format_args!("the time from {from} ms to {until} ms is empty")));
    }
    Ok((Duration::from_millis(from), Duration::from_millis(until)))
}

fn refused<E: Error>(why: fmt::Arguments<'_>) -> E {
    E::custom(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn every_field_is_read() {
        let rules = read(
            r#"{"rules":[{"fault":{"status":{"code":503,"retry_after":2}},"routes":["aml"],"methods":["POST"],
                "when":{"probability":0.5}},{"fault":"reset-before-work"}]}"#,
        )
        .unwrap();
        let status = Fault::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(2);
        let first = Rule::new(status).on_route("aml").on_method(Method::POST).when(When::Probability(0.5));
        assert_eq!(rules, [first, Rule::new(Fault::ResetBeforeWork)]);
    }

    #[test]
    fn every_fault_can_be_written() {
        let secs = Duration::from_secs;
        let answer = || Refusal::new(StatusCode::TOO_MANY_REQUESTS);
        let reset = (HeaderName::from_static("x-ratelimit-reset"), HeaderValue::from_static("-1"));
        for (text, fault) in [
            (r#"{"status":{"code":429,"retry_after":"-1"}}"#, {
                Fault::Refusal(answer().retry_after(RetryAfter::Text(HeaderValue::from_static("-1"))))
            }),
            (r#"{"status":{"code":429,"retry_after":{"date_in_s":5}}}"#, {
                Fault::Refusal(answer().retry_after(RetryAfter::DateIn(secs(5))))
            }),
            (r#"{"status":{"code":429,"retry_after":{"date_ago_s":5}}}"#, {
                Fault::Refusal(answer().retry_after(RetryAfter::DateAgo(secs(5))))
            }),
            (r#"{"status":{"code":429,"retry_after":0,"headers":[["X-RateLimit-Reset","-1"]]}}"#, {
                Fault::Refusal(answer().retry_after(0).header(reset.0, reset.1))
            }),
            (r#""absurd-429""#, Fault::AbsurdThrottle),
            (r#"{"odd-429":"phone-attempts"}"#, Fault::OddThrottle(OddThrottle::PhoneAttempts)),
            (r#"{"late-commit":{"ms":3000}}"#, Fault::late_commit(secs(3))),
            (r#"{"late-commit":{"ms":3000,"ending":"silence"}}"#, {
                Fault::late_commit(secs(3)).with_ending(Ending::Silence)
            }),
            (r#"{"never-commit":{"ms":3000,"ending":{"status":504}}}"#, {
                Fault::never_commit(secs(3)).with_ending(Ending::Status(StatusCode::GATEWAY_TIMEOUT))
            }),
            (r#"{"truncated-body":{"at_byte":7}}"#, Fault::TruncatedBody(Truncation::at_byte(7))),
            (r#"{"truncated-body":{"at_percent":7,"chunked":true}}"#, {
                Fault::TruncatedBody(Truncation::at_percent(7).chunked())
            }),
            (r#"{"slow-body":{"bytes":2,"every_ms":3000}}"#, Fault::SlowBody { bytes: 2, every: secs(3) }),
        ] {
            let file = format!(r#"{{"rules":[{{"fault":{text}}}]}}"#);
            assert_eq!(read(&file).unwrap(), [Rule::new(fault)], "{text}");
        }
    }

    #[test]
    fn an_error_names_the_line_and_the_value() {
        let text = "{\n \"rules\": [\n  { \"fault\": \"work-then-drop\", \"when\": { \"probability\": 1.5 } }\n ]\n}";
        let message = error(text);
        assert!(message.starts_with("faults, line 3, column "), "{message}");
        assert!(message.ends_with("a probability of 1.5 is not from 0 to 1"), "{message}");
    }

    #[test]
    fn what_the_format_does_not_know_is_refused() {
        for (text, part) in [
            (r#"{"rules":[],"seed":1}"#, "seed"),
            (r#"{"rules":[{"fault":"explode"}]}"#, "explode"),
            (r#"{"rules":[{"fault":"work-then-drop","route":"aml"}]}"#, "route"),
            (r#"{"rules":[{"fault":{"status":{"code":200}}}]}"#, "status 200"),
            (r#"{"rules":[{"fault":{"status":{"code":503,"after":1}}}]}"#, "after"),
            (r#"{"rules":[{"fault":{"delay":{"ms":99999999999}}}]}"#, "longer"),
            (r#"{"rules":[{"fault":"work-then-drop","methods":["post"]}]}"#, "\"post\""),
            (r#"{"rules":[{"fault":"work-then-drop","when":{"nth":[0]}}]}"#, "from 1"),
            (r#"{"rules":[{"fault":"work-then-drop","when":{"between_ms":[2,2]}}]}"#, "from 2 ms to 2 ms"),
            (r#"{"rules":[{"fault":{"status":{"code":503,"retry_after":-1}}}]}"#, "seconds, a text"),
            (r#"{"rules":[{"fault":{"status":{"code":503,"retry_after":{"date":1}}}}]}"#, "date_in_s"),
            (r#"{"rules":[{"fault":{"status":{"code":503,"retry_after":"a\nb"}}}]}"#, "cannot stand in a header"),
            (r#"{"rules":[{"fault":{"status":{"code":503,"headers":[["a b","c"]]}}}]}"#, "\"a b\""),
            (r#"{"rules":[{"fault":{"odd-429":"tea"}}]}"#, "\"tea\""),
            (r#"{"rules":[{"fault":{"late-commit":{"ms":1,"ending":"nowhere"}}}]}"#, "nowhere"),
            (r#"{"rules":[{"fault":{"late-commit":{"ms":1,"ending":{"status":200}}}}]}"#, "status 200"),
            (r#"{"rules":[{"fault":{"truncated-body":{"at_percent":101}}}]}"#, "101 percent"),
            (r#"{"rules":[{"fault":{"truncated-body":{}}}]}"#, "either `at_byte`"),
            (r#"{"rules":[{"fault":{"slow-body":{"bytes":0,"every_ms":1}}}]}"#, "0 bytes"),
        ] {
            let message = error(text);
            assert!(message.contains(part), "{message}");
        }
    }
}

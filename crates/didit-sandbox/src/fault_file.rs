//! The JSON form of a list of faults, checked value by value so that an error points at its line.

use std::{fmt, time::Duration};

use http::{Method, StatusCode};
use serde::{Deserialize, Deserializer, de::Error};

use crate::faults::{Fault, FaultsError, Rule, When};

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
        retry_after: Option<u64>,
    },
    Delay {
        #[serde(deserialize_with = "millis")]
        ms: Duration,
    },
    ResetBeforeWork,
    WorkThenDrop,
}

struct RawMethod(Method);

impl From<RawRule> for Rule {
    fn from(raw: RawRule) -> Self {
        let fault = match raw.fault {
            RawFault::Status { code, retry_after } => Fault::Status { code, retry_after },
            RawFault::Delay { ms } => Fault::Delay(ms),
            RawFault::ResetBeforeWork => Fault::ResetBeforeWork,
            RawFault::WorkThenDrop => Fault::WorkThenDrop,
        };
        Self {
            fault,
            routes: raw.routes,
            methods: raw.methods.into_iter().map(|RawMethod(method)| method).collect(),
            when: raw.when,
        }
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
        ] {
            let message = error(text);
            assert!(message.contains(part), "{message}");
        }
    }
}

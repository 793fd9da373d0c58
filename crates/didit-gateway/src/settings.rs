//! The gateway's own settings, which stand in the section `gateway` of its file.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use tower_didit::config::{Config, HiddenText, HumanDuration, OrOff};

/// The gateway's own settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Settings {
    /// Where applications connect to; port 0 takes a free one.
    #[schemars(with = "String", example = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Where `/metrics`, `/healthz`, `/readyz` and `/status` are; "off" for nowhere.
    #[schemars(with = "OrOff<String>", example = "127.0.0.1:9090")]
    pub metrics: OrOff<SocketAddr>,
    /// Whether either address may be one that other machines can reach. Needs an access token.
    pub allow_remote: bool,
    /// A file that holds the access token and nothing else. `DIDIT_GATEWAY__ACCESS_TOKEN` in the environment does too.
    pub access_token_file: Option<PathBuf>,
    /// What applications send as `x-gateway-token`; at least 16 characters of visible ASCII.
    #[serde(skip_serializing_if = "HiddenText::is_elsewhere")]
    pub access_token: Option<HiddenText>,
    /// Names or addresses that requests may be addressed to, without scheme and port, beside those of the loopback; all if
    /// empty and `allow_remote` is set.
    pub hosts: Vec<String>,
    /// How the log is written to standard error.
    pub log: LogFormat,
    /// A file of certificates (PEM) to trust beside the built-in roots.
    pub ca_file: Option<PathBuf>,
    /// Whether an `http://` upstream is spoken to in HTTP/2 without asking. TLS upstreams are asked (ALPN).
    pub upstream_h2c: bool,
    /// How long the making of a connection to the upstream may take.
    pub connect_timeout: HumanDuration,
    /// How long a connection to the upstream is kept for the next call.
    pub pool_idle_timeout: HumanDuration,
    /// The most connections that are served at once; more wait.
    #[schemars(range(min = 1))]
    pub max_connections: usize,
    /// The most bytes of a request's head, 8 KiB to 1 MiB.
    #[schemars(range(min = 8192, max = 1_048_576))]
    pub max_head: usize,
    /// The most header fields of a request.
    #[schemars(range(min = 1))]
    pub max_headers: usize,
    /// The most bytes of a request's body.
    pub max_body: u64,
    /// How long a request's head may take to come in, 100 ms to a day.
    pub header_timeout: HumanDuration,
    /// How long a connection may stand idle, 100 ms to a day.
    pub idle_timeout: HumanDuration,
    /// How long a body may make no progress, in either direction, 100 ms to a day. An application that reads less than
    /// some 300 kB of an answer in this time, or less than its own socket keeps, may be taken for one that does not read.
    pub body_timeout: HumanDuration,
    /// How long calls that are under way may take to end once the gateway is told to stop.
    pub grace: HumanDuration,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Pretty,
}

/// Why a setting cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct InvalidSetting {
    pub(crate) key: Cow<'static, str>,
    pub(crate) problem: String,
}

// ===== impl Settings =====

impl Settings {
    /// The section's name.
    pub const SECTION: &str = "gateway";

    /// The shortest access token: as many characters as a random 96-bit token has in base 64.
    pub const SHORTEST_TOKEN: usize = 16;

    /// The shortest time that an application may be given. Each of its connections is looked at as often.
    const SHORTEST_PATIENCE: Duration = Duration::from_millis(100);

    /// The JSON Schema (draft 2020-12) of the gateway's file: the stack's settings, and these.
    pub fn schema() -> Schema {
        let mut generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
        let own = generator.subschema_for::<Self>();
        let own_definitions = generator.take_definitions(true);
        let mut schema = Config::schema();
        let mut put = |table: &str, name: &str, value: serde_json::Value| {
            if let Some(table) = schema.get_mut(table).and_then(serde_json::Value::as_object_mut) {
                table.insert(name.to_owned(), value);
            }
        };
        put("properties", Self::SECTION, own.to_value());
        for (name, definition) in own_definitions {
            put("$defs", &name, definition);
        }
        schema
    }

    /// Checks what types do not, and reads the file of the token.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`], which names the setting, the value, and what is allowed.
    pub(crate) fn check(mut self) -> Result<Self, InvalidSetting> {
        let wrong = |key: &'static str, problem| Err(InvalidSetting { key: key.into(), problem });
        if let (None, Some(file)) = (&self.access_token, &self.access_token_file) {
            match HiddenText::read(file) {
                Ok(token) => self.access_token = Some(token),
                Err(error) => return wrong("access_token_file", format!("{file:?}: {error}")),
            }
        }
        if let Some(token) = self.access_token.as_ref().map(HiddenText::expose) {
            let is_visible = token.bytes().all(|byte| byte.is_ascii_graphic());
            if token.len() < Self::SHORTEST_TOKEN || !is_visible {
                let (length, least) = (token.len(), Self::SHORTEST_TOKEN);
                let problem = format!("a token of {length} bytes; at least {least} of visible ASCII are needed");
                return wrong("access_token", problem);
            }
        }
        for (key, address) in [("listen", Some(self.listen)), ("metrics", self.metrics.on())] {
            let Some(address) = address.filter(|address| !address.ip().to_canonical().is_loopback()) else { continue };
            if !self.allow_remote {
                return wrong(key, format!("{address} can be reached from other machines; that takes --allow-remote"));
            }
            if self.access_token.is_none() {
                let problem = format!("{address} can be reached from other machines; that takes an access token");
                return wrong(key, problem);
            }
        }
        if let Some(metrics) = self.metrics.on().filter(|metrics| collide(self.listen, *metrics)) {
            // The one that was chosen is to blame, and not the default that was in its way.
            let (key, value, other) = match Self::default().metrics.on() == Some(metrics) {
                true => ("listen", self.listen, "gateway.metrics"),
                false => ("metrics", metrics, "gateway.listen"),
            };
            let off = if key == "metrics" { ", or \"off\"" } else { "" };
            let problem = format!("{value} takes the place of {other}; allowed is another port{off}");
            return wrong(key, problem);
        }
        if let Some((index, host)) = self.hosts.iter().enumerate().find(|(_, host)| !is_host(host)) {
            let problem = format!(
                "{host:?} is no host; allowed is a name or an address, such as \"gateway.internal\" or \"10.0.0.1\", \
                 without scheme, port and path"
            );
            return Err(InvalidSetting { key: format!("hosts.{index}").into(), problem });
        }
        let day = Duration::from_secs(86_400);
        let tick = Duration::from_millis(1);
        for (key, value, least) in [
            ("connect_timeout", self.connect_timeout, tick),
            ("pool_idle_timeout", self.pool_idle_timeout, tick),
            ("header_timeout", self.header_timeout, Self::SHORTEST_PATIENCE),
            ("idle_timeout", self.idle_timeout, Self::SHORTEST_PATIENCE),
            ("body_timeout", self.body_timeout, Self::SHORTEST_PATIENCE),
            ("grace", self.grace, Duration::ZERO),
        ] {
            if !(least..=day).contains(&value.0) {
                return wrong(key, format!("{value}; allowed is {least:?} to {day:?}"));
            }
        }
        for (key, value, least, most) in [
            ("max_connections", self.max_connections, 1, tokio::sync::Semaphore::MAX_PERMITS),
            ("max_head", self.max_head, 8_192, 1_048_576),
            ("max_headers", self.max_headers, 1, 32_768),
        ] {
            if !(least..=most).contains(&value) {
                return wrong(key, format!("{value}; allowed is {least} to {most}"));
            }
        }
        Ok(self)
    }
}

/// Whether only one of two addresses can be listened on. Port 0 takes a free one.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let takes = |all: IpAddr, ip: IpAddr| all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4());
    let (here, there) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && one.port() != 0 && (here == there || takes(here, there) || takes(there, here))
}

/// Whether a `Host` may be this, but for its port.
fn is_host(text: &str) -> bool {
    let is_name = |name: &str| {
        let mut labels = name.strip_suffix('.').unwrap_or(name).split('.');
        let ours = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        labels.all(|label| !label.is_empty() && label.bytes().all(ours))
    };
    text.parse::<IpAddr>().is_ok() || is_name(text)
}

impl Default for Settings {
    fn default() -> Self {
        let seconds = |seconds| Duration::from_secs(seconds).into();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            metrics: OrOff::On(SocketAddr::from(([127, 0, 0, 1], 9090))),
            allow_remote: false,
            access_token_file: None,
            access_token: None,
            hosts: Vec::new(),
            log: LogFormat::default(),
            ca_file: None,
            upstream_h2c: false,
            connect_timeout: seconds(10),
            pool_idle_timeout: seconds(60),
            max_connections: 16_384,
            // As much as common servers take.
            max_head: 64 * 1024,
            max_headers: 100,
            // Twice the largest upload that Didit takes.
            max_body: 32 * 1024 * 1024,
            header_timeout: seconds(10),
            idle_timeout: seconds(120),
            body_timeout: seconds(30),
            // Below the 30 s after which orchestrators kill.
            grace: seconds(25),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_addresses_of_one_port_are_told_apart_where_both_can_be_listened_on() {
        for (one, other, collides) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("127.0.0.1:80", "[::1]:80", false),
        ] {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!([collide(one, other), collide(other, one)], [collides; 2], "{one} {other}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for host in ["gateway", "gateway.internal", "my_pod-1.svc.", "10.0.0.1", "::1", "LOCALHOST"] {
            assert!(is_host(host), "{host}");
        }
        for other in ["", ".", "a..b", "http://x/", "x/", "x:80", "[::1]", "10.0.0.1:80", "a b", "*.x", "user@x", "é"]
        {
            assert!(!is_host(other), "{other}");
        }
    }
}

//! A log in memory, in the lines that an application would write.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tracing::{Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter;

/// JSON lines, as `tracing-subscriber` writes them. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct JsonLog(Arc<Mutex<Vec<u8>>>);

impl JsonLog {
    /// A subscriber that writes what is at least this important.
    pub fn subscriber(&self, level: Level) -> impl Subscriber + Send + Sync + 'static {
        // NOTE: as `schema.md` of the telemetry module describes it.
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_max_level(level)
            .with_writer(self.clone())
            .finish()
    }

    /// All lines so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer()).into_owned()
    }

    /// The lines that contain a text, as `grep` finds them.
    ///
    /// # Errors
    ///
    /// If a line is no JSON.
    pub fn grep(&self, text: &str) -> Result<Vec<Value>, serde_json::Error> {
        self.text().lines().filter(|line| line.contains(text)).map(serde_json::from_str).collect()
    }

    fn buffer(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for JsonLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for JsonLog {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

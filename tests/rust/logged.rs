//! What a test's own thread logs, spans with their fields included.

use std::io::Write;
use std::sync::{Arc, Mutex, Once};

use tracing::Level;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::format::FmtSpan;

#[derive(Clone, Default)]
pub(crate) struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    /// Listens until the guard is dropped, on this thread.
    pub(crate) fn listen(&self) -> DefaultGuard {
        self.listen_to(Level::TRACE, FmtSpan::FULL)
    }

    /// The same to records alone, of this level and above.
    pub(crate) fn listen_to_records(&self, level: Level) -> DefaultGuard {
        self.listen_to(level, FmtSpan::NONE)
    }

    fn listen_to(&self, level: Level, spans: FmtSpan) -> DefaultGuard {
        // Somebody must always want every record, or one that is first met while no test listens may stay switched off.
        static ALWAYS: Once = Once::new();
        ALWAYS.call_once(|| drop(tracing::subscriber::set_global_default(tracing_subscriber::registry())));
        let output = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_span_events(spans)
            .with_ansi(false)
            .with_writer(move || output.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

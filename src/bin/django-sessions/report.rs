//! What is said: sentences, numbers, colours, progress; and Ctrl-C.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use django_sessions::backends::StoreError;
use django_sessions::serializers::json;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::sync::watch;

pub(crate) const INTERRUPTED: u8 = 130;

/// Why it was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Exit code 1.
    Refused(String),
    /// Exit code 2.
    Usage(String),
    /// Exit code 130. What there is to say is said.
    Interrupted,
    /// Nobody reads what is printed any more.
    Unread,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Refused(format!("cannot write: {error}")),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(format!("{}. Try again when it works", sentence(&error)))
    }
}

/// An error with its causes. Those of this crate name no session and no secret.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut said = String::new();
    for cause in causes.map(ToString::to_string) {
        // Some errors say themselves what their cause says.
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    // A database quotes what it was given on further lines.
    said.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}

pub(crate) fn say(line: impl Display) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}

/// One line of JSON.
pub(crate) fn say_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = json::to_vec(value).map_err(|error| Failure::Refused(format!("no JSON: {error}")))?;
    let mut output = io::stdout().lock();
    output.write_all(&text)?;
    Ok(output.write_all(b"\n")?)
}

pub(crate) fn many(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// 1,234,567
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let groups =
        digits.as_bytes()[first..].chunks(3).map(|group| std::str::from_utf8(group).expect("digits"));
    let groups: Vec<_> =
        Some(&digits[..first]).filter(|head| !head.is_empty()).into_iter().chain(groups).collect();
    groups.join(",")
}

pub(crate) fn bytes(number: u64) -> String {
    match number {
        0..10_000 => format!("{} B", grouped(number)),
        10_000..10_000_000 => format!("{:.1} KB", number as f64 / 1e3),
        _ => format!("{:.1} MB", number as f64 / 1e6),
    }
}

/// A length of time by its largest unit.
pub(crate) fn length(time: SignedDuration) -> String {
    let seconds = time.as_secs().unsigned_abs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

pub(crate) fn ago(moment: Timestamp, now: Timestamp) -> String {
    format!("{} ago", length(now.duration_since(moment)))
}

pub(crate) fn ends(moment: Option<Timestamp>, now: Timestamp) -> String {
    match moment {
        None => "never".to_owned(),
        Some(moment) if moment <= now => format!("{} ago", length(now.duration_since(moment))),
        Some(moment) => format!("in {}", length(moment.duration_since(now))),
    }
}

/// Colours, on a terminal that wants them.
#[derive(Clone, Copy)]
pub(crate) struct Colours(bool);

impl Colours {
    pub(crate) fn on_stdout() -> Self {
        Self(io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    fn paint(self, code: &str, text: impl Display) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    pub(crate) fn good(self, text: impl Display) -> String {
        self.paint("32", text)
    }

    pub(crate) fn bad(self, text: impl Display) -> String {
        self.paint("31", text)
    }

    pub(crate) fn faint(self, text: impl Display) -> String {
        self.paint("2", text)
    }
}

/// Whether Ctrl-C was pressed: what is under way is finished first. Pressed twice, it is not.
#[derive(Clone)]
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    pub(crate) fn watch() -> Self {
        let (sender, pressed) = watch::channel(false);
        tokio::spawn(async move {
            while interrupted().await.is_ok() {
                if sender.send_replace(true) {
                    std::process::exit(INTERRUPTED.into());
                }
            }
            // Without signals nobody interrupts.
            std::future::pending::<()>().await;
        });
        Self(pressed)
    }

    pub(crate) fn is_pressed(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits, but not for longer than until Ctrl-C. Returns whether it was pressed.
    pub(crate) async fn wait(&self, time: Duration) -> bool {
        let mut pressed = self.0.clone();
        let _ = tokio::time::timeout(time, pressed.wait_for(|pressed| *pressed)).await;
        self.is_pressed()
    }

    pub(crate) fn end(&self) -> Result<(), Failure> {
        if self.is_pressed() { Err(Failure::Interrupted) } else { Ok(()) }
    }
}

/// Ctrl-C, or the end that a service manager asks for.
async fn interrupted() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed,
            _ = terminated.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// How often and how long a store that does not answer is asked again.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Does it, and tries again for some seconds if the store does not answer.
pub(crate) async fn persist<T>(
    interrupt: &Interrupt,
    mut attempt: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        match attempt().await {
            Err(error) if may_pass(&error) => {
                if interrupt.wait(wait).await {
                    return Err(error);
                }
            }
            done => return done,
        }
        wait *= 2;
    }
    attempt().await
}

fn may_pass(error: &StoreError) -> bool {
    let is_full = || {
        let words = ["no space", "quota", "too large", "is full", "maxmemory", "OOM"];
        let sentence = sentence(error);
        words.iter().any(|word| sentence.to_lowercase().contains(&word.to_lowercase()))
    };
    match error {
        StoreError::Cache(_) | StoreError::Database(_) | StoreError::File(_) => !is_full(),
        _ => false,
    }
}

/// How far it is: a bar on a terminal, a line now and then elsewhere; on standard error.
pub(crate) struct Progress {
    what: &'static str,
    bar: Option<ProgressBar>,
    is_quiet: bool,
    total: Option<u64>,
    done: u64,
    start: Instant,
    shown: Instant,
}

const LINE_EVERY: Duration = Duration::from_secs(10);

impl Progress {
    pub(crate) fn new(what: &'static str, is_quiet: bool) -> Self {
        let on_terminal = !is_quiet && io::stderr().is_terminal();
        let bar =
            on_terminal.then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10)));
        let now = Instant::now();
        Self { what, bar, is_quiet, total: None, done: 0, start: now, shown: now }
    }

    /// Whether somebody sees a total.
    pub(crate) fn wants_total(&self) -> bool {
        self.bar.is_some()
    }

    pub(crate) fn begin(&mut self, total: Option<u64>) {
        self.total = total;
        self.start = Instant::now();
        let Some(bar) = &self.bar else { return };
        let template = match total {
            Some(total) => {
                bar.set_length(total);
                "{msg} [{bar:28.green}] {percent}%, {human_pos} of {human_len}, {rate}, {eta} left"
            }
            None => "{msg} {human_pos}, {rate}",
        };
        let style = ProgressStyle::with_template(template).expect("a template of indicatif");
        let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
            // A terminal that is gone is no reason to stop.
            let _ = write!(text, "{}/s", grouped(state.per_sec() as u64));
        };
        bar.set_style(style.with_key("rate", rate).progress_chars("##."));
        bar.set_message(self.what);
    }

    pub(crate) fn advance(&mut self, number: u64) {
        self.done += number;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if !self.is_quiet && self.shown.elapsed() >= LINE_EVERY {
            self.shown = Instant::now();
            let rate = self.done as f64 / self.start.elapsed().as_secs_f64();
            let of = self.total.map(|total| format!(" of {}", grouped(total))).unwrap_or_default();
            eprintln!("{} {}{of}, {rate:.0}/s", self.what, grouped(self.done));
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

/// `30d`, `12h`, `15m`, `45s`, `2w`.
pub(crate) fn parse_age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no length of time: write 30d, 12h, 15m or 45s, for instance");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        Some('w') => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|seconds| *seconds < 1 << 36).map(Duration::from_secs).ok_or_else(wrong)
}

/// A pause: `0.05`, `50ms` or `1s`.
pub(crate) fn parse_pause(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1_000.0),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.parse::<f64>().ok().map(|number| number / unit);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{text:?} is no number of seconds, like 0.05 or 50ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(
            [0, 12, 123, 1_234, 123_456, 1_234_567].map(grouped),
            ["0", "12", "123", "1,234", "123,456", "1,234,567"]
        );
        assert_eq!(many(1, "session"), "1 session");
        assert_eq!(many(1_000, "session"), "1,000 sessions");
        assert_eq!([312, 42_042, 12_000_000].map(bytes), ["312 B", "42.0 KB", "12.0 MB"]);
    }

    #[test]
    fn times() {
        assert_eq!(parse_age("30d"), Ok(Duration::from_secs(2_592_000)));
        assert_eq!(parse_pause("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse_pause("0.05"), Ok(Duration::from_millis(50)));
        for wrong in ["", "d", "30", "-1d", "1.5d", "99999999999999999999d", "9999999999999w", "x", "é"] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "ms", "-1", "nan", "inf", "1e400", "five"] {
            assert!(parse_pause(wrong).is_err(), "{wrong}");
        }
        assert_eq!(length(SignedDuration::from_secs(-90)), "90 s");
        assert_eq!(length(SignedDuration::from_hours(24 * 13)), "13 d");
    }
}

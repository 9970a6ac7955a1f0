//! `stats`.

use std::collections::HashMap;

use clap::Args;
use django_sessions::backends::manage::{StoredSession, Which};
use django_sessions::settings::Settings;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::place::{Place, describe, note_old};
use crate::report::{Colours, Failure, Interrupt, Progress, bytes, grouped, many, persist, say, say_json};
use crate::stored::user_of;

#[derive(Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    place: Place,
    /// Only say at the end
    #[arg(long)]
    no_progress: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// How many different names of values are counted; a site that makes them up has no end of them.
const MAX_NAMES: usize = 10_000;
/// How many of them are shown.
const TOP: usize = 10;

/// When sessions end, in hours from now; the last bin has no end.
const BINS: [(&str, i64); 8] = [
    ("within 1 h", 1),
    ("within 6 h", 6),
    ("within 1 d", 24),
    ("within 3 d", 72),
    ("within 7 d", 168),
    ("within 14 d", 336),
    ("within 30 d", 720),
    ("later", i64::MAX),
];

#[derive(Default)]
struct Seen {
    live: u64,
    over: u64,
    unreadable: u64,
    logged_in: u64,
    users: HashMap<String, u64>,
    sizes: Vec<u32>,
    ends: [u64; BINS.len()],
    never: u64,
    values: HashMap<String, Value>,
}

#[derive(Clone, Default)]
struct Value {
    bytes: u64,
    sessions: u64,
}

#[derive(Serialize)]
struct Report {
    live: u64,
    over: u64,
    unreadable: u64,
    logged_in: u64,
    anonymous: u64,
    users: u64,
    bytes: Sizes,
    ends: Vec<Bin>,
    values: Vec<Named>,
}

#[derive(Serialize)]
struct Sizes {
    total: u64,
    smallest: u32,
    median: u32,
    p95: u32,
    largest: u32,
}

#[derive(Serialize)]
struct Bin {
    ends: &'static str,
    sessions: u64,
}

#[derive(Serialize)]
struct Named {
    name: String,
    /// Of JSON, in all sessions together.
    bytes: u64,
    sessions: u64,
}

pub(crate) async fn run(options: &Stats, interrupt: &Interrupt) -> Result<(), Failure> {
    let (settings, store) = options.place.open().await?;
    let mut progress = Progress::new("Read", options.no_progress);
    let total = if progress.wants_total() { Some(store.count().await?) } else { None };
    progress.begin(total);
    let mut seen = Seen::default();
    let mut listing = store.list(Which::All, 500, "");
    let now = Timestamp::now();
    while !interrupt.is_pressed()
        && let Some(page) = persist(interrupt, async || listing.next_page().await).await?
    {
        progress.advance(page.len() as u64);
        page.iter().for_each(|session| seen.add(session, now));
    }
    progress.finish();
    let report = seen.report();
    match options.json {
        true => say_json(&report)?,
        false => report.print(&settings)?,
    }
    note_old(&settings);
    if interrupt.is_pressed() {
        eprintln!("Interrupted: these are the sessions that were read until then.");
    }
    interrupt.end()
}

impl Seen {
    fn add(&mut self, session: &StoredSession, now: Timestamp) {
        self.sizes.push(u32::try_from(session.size).unwrap_or(u32::MAX));
        match session.ends {
            Some(ends) if ends <= now => {
                self.over += 1;
                return;
            }
            Some(ends) => self.ends[bin_of(ends.duration_since(now))] += 1,
            None => self.never += 1,
        }
        self.live += 1;
        let Ok(data) = &session.data else {
            self.unreadable += 1;
            return;
        };
        if let Some(user) = user_of(data) {
            self.logged_in += 1;
            *self.users.entry(user).or_default() += 1;
        }
        for (name, value) in data.iter() {
            if self.values.len() < MAX_NAMES || self.values.contains_key(&*name) {
                let counted = self.values.entry(name.into_owned()).or_default();
                counted.sessions += 1;
                // What has no JSON form is counted without its size.
                counted.bytes += value.to_json().map_or(0, |text| text.as_bytes().len() as u64);
            }
        }
    }

    fn report(mut self) -> Report {
        self.sizes.sort_unstable();
        let at = |share: f64| {
            let place = (self.sizes.len() as f64 * share) as usize;
            self.sizes.get(place.min(self.sizes.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        let mut values: Vec<_> = self.values.into_iter().collect();
        values.sort_by(|(one, a), (other, b)| b.bytes.cmp(&a.bytes).then_with(|| one.cmp(other)));
        let bins = BINS.iter().zip(self.ends).map(|((ends, _), sessions)| Bin { ends, sessions });
        Report {
            live: self.live,
            over: self.over,
            unreadable: self.unreadable,
            logged_in: self.logged_in,
            anonymous: self.live - self.logged_in - self.unreadable,
            users: self.users.len() as u64,
            bytes: Sizes {
                total: self.sizes.iter().map(|size| u64::from(*size)).sum(),
                smallest: at(0.0),
                median: at(0.5),
                p95: at(0.95),
                largest: at(1.0),
            },
            ends: bins.chain([Bin { ends: "never", sessions: self.never }]).collect(),
            values: values
                .into_iter()
                .take(TOP)
                .map(|(name, value)| Named { name, bytes: value.bytes, sessions: value.sessions })
                .collect(),
        }
    }
}

fn bin_of(life: SignedDuration) -> usize {
    let is_within = |(_, hours): &(&str, i64)| life <= SignedDuration::from_hours((*hours).min(1 << 40));
    BINS.iter().position(is_within).unwrap_or(BINS.len() - 1)
}

/// Characters of the longest bar.
const WIDTH: u64 = 40;

impl Report {
    fn print(&self, settings: &Settings) -> Result<(), Failure> {
        let colours = Colours::on_stdout();
        say(format!("{} in {}", many(self.live, "live session"), describe(settings)))?;
        let mut lines = vec![
            ("logged in", format!("{}, of {}", grouped(self.logged_in), many(self.users, "user"))),
            ("anonymous", grouped(self.anonymous)),
        ];
        if self.unreadable > 0 {
            let text = format!("{}: signed with another key, or in another format", grouped(self.unreadable));
            lines.push(("unreadable", colours.bad(text)));
        }
        if self.over > 0 {
            lines.push((
                "over",
                format!("{}, not deleted yet: see `django-sessions prune`", grouped(self.over)),
            ));
        }
        let sizes = &self.bytes;
        lines.push((
            "size",
            format!(
                "{} in all; smallest {}, median {}, 95% up to {}, largest {}",
                bytes(sizes.total),
                bytes(sizes.smallest.into()),
                bytes(sizes.median.into()),
                bytes(sizes.p95.into()),
                bytes(sizes.largest.into())
            ),
        ));
        for (name, text) in lines {
            say(format!("  {name:12}{text}"))?;
        }
        let most = self.ends.iter().map(|bin| bin.sessions).max().unwrap_or_default();
        say(format!("\n{}", colours.faint("ENDS")))?;
        for bin in self.ends.iter().filter(|bin| bin.sessions > 0) {
            // Who is there is seen.
            let length = (bin.sessions * WIDTH / most.max(1)).max(1);
            let bar = "#".repeat(usize::try_from(length).unwrap_or_default());
            say(format!(
                "  {:12}{:40}  {:>10}",
                bin.ends,
                colours.good(format!("{bar:40}")),
                grouped(bin.sessions)
            ))?;
        }
        say(format!("\n{}", colours.faint("LARGEST VALUES                      ALL TOGETHER    SESSIONS")))?;
        for value in &self.values {
            let name: String = value.name.escape_debug().take(32).collect();
            say(format!("  {name:32}  {:>12}  {:>10}", bytes(value.bytes), grouped(value.sessions)))?;
        }
        Ok(())
    }
}

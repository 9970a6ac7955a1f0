//! `migrate`.
//!
//! Of a session that is moved, each request sees one of the two: the site reads both stores (`FALLBACK_ENGINE`) and writes
//! to the new one. A copy stays in the old store.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use django_sessions::backends::StoreError;
use django_sessions::backends::manage::{ManagedStore, StoredSession, Which};
use django_sessions::session::{Session, SessionKey};
use django_sessions::settings::Settings;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::place::{EngineName, Place, describe, open};
use crate::report::{Failure, Interrupt, Progress, many, parse_pause, persist, say, say_json, sentence};

#[derive(Args)]
#[command(
    after_help = "Settings with a FALLBACK_ENGINE say it all: sessions are moved from there. Otherwise say from where, and they\n\
                        are copied, and stay where they are, unless --move is given.\n\
                        Interrupted or killed, each session is in one store or in both: run the same command again."
)]
pub(crate) struct Migrate {
    /// What `manage.py export_session_settings --output FILE` wrote. Default: DJANGO_SESSIONS_FILE, or variables
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// From where
    #[arg(long, value_name = "ENGINE")]
    from: Option<EngineName>,
    /// Where to
    #[arg(long, value_name = "ENGINE")]
    to: Option<EngineName>,
    /// Settings of the store that sessions come from, if they are others
    #[arg(long, value_name = "FILE")]
    from_settings: Option<PathBuf>,
    /// Settings of the store that sessions go to, if they are others
    #[arg(long, value_name = "FILE")]
    to_settings: Option<PathBuf>,
    #[arg(long, value_name = "ALIAS")]
    from_cache: Option<String>,
    #[arg(long, value_name = "ALIAS")]
    to_cache: Option<String>,
    #[arg(long, value_name = "ALIAS")]
    from_database: Option<String>,
    #[arg(long, value_name = "ALIAS")]
    to_database: Option<String>,
    #[arg(long, value_name = "FOLDER")]
    from_path: Option<PathBuf>,
    #[arg(long, value_name = "FOLDER")]
    to_path: Option<PathBuf>,
    /// Take them out of the old store: the site reads both
    #[arg(long)]
    r#move: bool,
    /// How many sessions are brought at once
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// How long to leave the stores to others after each batch: 0.05, or 50ms
    #[arg(long, value_name = "TIME", value_parser = parse_pause, default_value = "0")]
    sleep: Duration,
    /// Go on from where this file says, and write there how far it is
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Only say at the end
    #[arg(long)]
    no_progress: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A request may take so long between its two steps, which are: add a session to the new store, take it out of the old
/// one.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Default, Serialize)]
struct Numbers {
    brought: u64,
    already_there: u64,
    ended_meanwhile: u64,
    unreadable: u64,
    refused: u64,
}

struct Migration<'a> {
    source: Arc<dyn ManagedStore>,
    target: Arc<dyn ManagedStore>,
    options: &'a Migrate,
    is_move: bool,
    interrupt: &'a Interrupt,
    checkpoint: Checkpoint,
    numbers: Numbers,
    /// Sessions that are in both stores: a request may be about to take them out of the old one.
    in_both: VecDeque<InBoth>,
    /// Up to where the old store was gone through.
    position: String,
}

#[derive(Clone)]
struct InBoth {
    names: Vec<SessionKey>,
    since: Instant,
    /// The position before them: until they are settled, a run that goes on must find them again.
    before: String,
}

pub(crate) async fn run(options: &Migrate, interrupt: &Interrupt) -> Result<(), Failure> {
    let to = options.place(Side::To).read()?;
    let (from, is_move) = match to.of_fallback().filter(|_| !options.says_from()) {
        Some(old) => (old, true),
        None => (options.place(Side::From).read()?, options.r#move),
    };
    let (source, target) = (open(&from).await?, open(&to).await?);
    let between = format!("{} to {}", describe(&from), describe(&to));
    let checkpoint = Checkpoint { path: options.checkpoint.clone(), between };
    let mut migration = Migration {
        source,
        target,
        options,
        is_move,
        interrupt,
        checkpoint,
        numbers: Numbers::default(),
        in_both: VecDeque::new(),
        position: String::new(),
    };
    let mut progress = Progress::new(if is_move { "Moved" } else { "Copied" }, options.no_progress);
    let done = migration.run(&mut progress).await;
    progress.finish();
    migration.report(&from, &to)?;
    match done {
        Err(Stop::Store(error)) => Err(Failure::Refused(format!(
            "a store failed: {}. Nothing is lost: when it works again, run the same command again, and it goes on",
            sentence(&error)
        ))),
        Err(Stop::Failed(failure)) => Err(failure),
        Ok(()) => {
            if !interrupt.is_pressed() {
                migration.checkpoint.remove();
            }
            interrupt.end()
        }
    }
}

enum Stop {
    Store(StoreError),
    Failed(Failure),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

#[derive(Clone, Copy)]
enum Side {
    From,
    To,
}

impl Migrate {
    /// Whether it is said where sessions come from.
    fn says_from(&self) -> bool {
        self.from.is_some()
            || self.from_settings.is_some()
            || self.from_cache.is_some()
            || self.from_database.is_some()
            || self.from_path.is_some()
    }

    fn place(&self, side: Side) -> Place {
        let (settings, engine, cache, database, path) = match side {
            Side::From => {
                (&self.from_settings, self.from, &self.from_cache, &self.from_database, &self.from_path)
            }
            Side::To => (&self.to_settings, self.to, &self.to_cache, &self.to_database, &self.to_path),
        };
        Place {
            settings: settings.clone().or_else(|| self.settings.clone()),
            engine,
            cache: cache.clone(),
            database: database.clone(),
            path: path.clone(),
            old: false,
        }
    }
}

impl Migration<'_> {
    async fn run(&mut self, progress: &mut Progress) -> Result<(), Stop> {
        self.position = self.checkpoint.read()?;
        self.probe().await?;
        let source = self.source.clone();
        let total = if progress.wants_total() { Some(source.count().await?) } else { None };
        progress.begin(total);
        let mut listing = source.list(Which::Live, self.options.batch as usize, &self.position);
        while !self.interrupt.is_pressed()
            && let Some(page) = persist(self.interrupt, async || listing.next_page().await).await?
        {
            let number = page.len() as u64;
            self.bring(page).await?;
            self.position = listing.position();
            progress.advance(number);
            self.settle(false).await?;
            self.write_checkpoint()?;
            self.interrupt.wait(self.options.sleep).await;
        }
        self.settle(true).await?;
        Ok(self.write_checkpoint()?)
    }

    fn write_checkpoint(&self) -> Result<(), Failure> {
        self.checkpoint.write(self.in_both.front().map_or(&self.position, |oldest| &oldest.before))
    }

    /// One store may have two names, and to move within it would be to delete.
    async fn probe(&self) -> Result<(), Stop> {
        let name = SessionKey::random().map_err(|error| Failure::Refused(sentence(&error)))?;
        let ends = Timestamp::now() + SignedDuration::from_mins(1);
        let session = Session::new();
        persist(self.interrupt, async || self.target.insert_until(&name, &session, Some(ends)).await).await?;
        let found = persist(self.interrupt, async || self.source.find(&name).await).await;
        persist(self.interrupt, async || self.target.delete(&name).await).await?;
        match found? {
            None => Ok(()),
            Some(_) => Err(Failure::Usage(
                "both are the same store: there is nothing to copy. Say --from and --to, or the settings of each. \
                 (db and cached_db share their table: switch between them as you like.)"
                    .into(),
            )
            .into()),
        }
    }

    async fn bring(&mut self, page: Vec<StoredSession>) -> Result<(), Stop> {
        let (mut ours, mut there) = (Vec::new(), Vec::new());
        for stored in page {
            let Ok(data) = stored.data else {
                self.numbers.unreadable += 1;
                continue;
            };
            let (name, ends) = (stored.name, stored.ends);
            if ends.is_some_and(|ends| ends <= Timestamp::now()) {
                continue;
            }
            let session = Session::with_data(Some(name.clone()), data);
            let added =
                persist(self.interrupt, async || self.target.insert_until(&name, &session, ends).await);
            match added.await {
                Ok(true) => ours.push(name),
                Ok(false) => there.push(name),
                Err(error) if is_of_the_session(&error) => self.numbers.refused += 1,
                Err(error) => return Err(error.into()),
            }
        }
        self.numbers.already_there += there.len() as u64;
        // Asked after they were added: who logs out from now on deletes both. Copies are made by nobody else; what is
        // there is one of an earlier run, then.
        if !self.is_move {
            self.drop_ended(&there).await?;
        }
        let kept = self.drop_ended(&ours).await?;
        self.numbers.brought += kept.len() as u64;
        if self.is_move {
            self.take_out(&kept).await?;
            if !there.is_empty() {
                let before = self.position.clone();
                self.in_both.push_back(InBoth { names: there, since: Instant::now(), before });
            }
        }
        Ok(())
    }

    /// Deletes those in the new store that have ended in the old one. Returns the others.
    async fn drop_ended(&mut self, names: &[SessionKey]) -> Result<Vec<SessionKey>, StoreError> {
        let mut kept = Vec::with_capacity(names.len());
        for name in names {
            if persist(self.interrupt, async || self.source.find(name).await).await?.is_some() {
                kept.push(name.clone());
            } else {
                persist(self.interrupt, async || self.target.delete(name).await).await?;
                self.numbers.ended_meanwhile += 1;
            }
        }
        Ok(kept)
    }

    async fn take_out(&self, names: &[SessionKey]) -> Result<(), StoreError> {
        for name in names {
            persist(self.interrupt, async || self.source.delete(name).await).await?;
        }
        Ok(())
    }

    /// Takes out of the old store what was found in both, and not a moment ago.
    async fn settle(&mut self, is_end: bool) -> Result<(), Stop> {
        while let Some(oldest) = self.in_both.front().cloned() {
            let left = GRACE.saturating_sub(oldest.since.elapsed());
            if !left.is_zero() && (!is_end || self.interrupt.wait(left).await) {
                return Ok(());
            }
            self.in_both.pop_front();
            let mut both = Vec::new();
            for name in oldest.names {
                if persist(self.interrupt, async || self.target.find(&name).await).await?.is_some() {
                    both.push(name);
                }
            }
            self.take_out(&both).await?;
        }
        Ok(())
    }

    fn report(&self, from: &Settings, to: &Settings) -> Result<(), Failure> {
        if self.options.json {
            return say_json(&self.numbers);
        }
        let numbers = &self.numbers;
        let verb = if self.is_move { "moved" } else { "copied" };
        say(format!(
            "{} {verb} from {} to {}.",
            many(numbers.brought, "session"),
            describe(from),
            describe(to)
        ))?;
        for (number, what) in [
            (numbers.already_there, "already there, and left as they are."),
            (numbers.ended_meanwhile, "ended meanwhile."),
            (
                numbers.unreadable,
                "left, for they cannot be read: their signature is of another SECRET_KEY, or their format of another \
                 serializer.",
            ),
            (
                numbers.refused,
                "left, for the new store does not take them: too large, or with values that it has no form for.",
            ),
        ] {
            if number > 0 {
                say(format!("{} {what}", many(number, "session")))?;
            }
        }
        if self.interrupt.is_pressed() {
            say("Interrupted: run it again for the rest.")?;
        }
        Ok(())
    }
}

/// Whether the session, and not the store, is what is wrong.
fn is_of_the_session(error: &StoreError) -> bool {
    use django_sessions::caches::CacheError;
    matches!(
        error,
        StoreError::Session(_)
            | StoreError::Format(_)
            | StoreError::InvalidKey
            | StoreError::Cache(CacheError::TooLarge { .. } | CacheError::InvalidKey)
    )
}

/// Where to go on, in a file. It holds no session key.
struct Checkpoint {
    path: Option<PathBuf>,
    between: String,
}

impl Checkpoint {
    fn read(&self) -> Result<String, Failure> {
        let Some(path) = self.path.as_deref().filter(|path| path.exists()) else { return Ok(String::new()) };
        let text = fs::read_to_string(path).map_err(|error| self.failed(path, &error))?;
        match text.split_once('\n') {
            Some((between, position)) if between == self.between => {
                Ok(position.trim_end_matches('\n').to_owned())
            }
            _ => Err(Failure::Usage(format!(
                "{} is no checkpoint of this migration. Name another file, or delete it to begin at the beginning: what \
                 was copied is not copied again",
                path.display()
            ))),
        }
    }

    fn write(&self, position: &str) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut temporary = path.clone().into_os_string();
        temporary.push(".new");
        let text = format!("{}\n{position}\n", self.between);
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, path))
            .map_err(|error| self.failed(path, &error))
    }

    fn failed(&self, path: &Path, error: &std::io::Error) -> Failure {
        Failure::Refused(format!(
            "the checkpoint {}: {error}. Name another file and run this again: what was copied is not copied again",
            path.display()
        ))
    }

    fn remove(&self) {
        if let Some(path) = &self.path {
            // If it stays, the next migration says so.
            let _ = fs::remove_file(path);
        }
    }
}

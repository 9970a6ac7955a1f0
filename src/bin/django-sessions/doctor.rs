//! `doctor`.

use std::time::{Duration, Instant};

use clap::Args;
use django_sessions::backends::manage::StoredSession;
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::session::{Session, SessionKey};
use django_sessions::settings::{Engine, Settings};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::inspect::find;
use crate::place::{Place, advice as advice_to_open, describe};
use crate::report::{Colours, Failure, say, say_json, sentence};

#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    place: Place,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// How often a load is measured.
const LOADS: usize = 100;

#[derive(Serialize)]
struct Step {
    step: &'static str,
    is_good: bool,
    says: String,
}

#[derive(Serialize)]
struct Report {
    store: String,
    is_good: bool,
    steps: Vec<Step>,
    /// Of a load, in microseconds.
    round_trip: Option<f64>,
}

/// What went wrong ends the visit.
type Checked<T> = Result<T, Failure>;

struct Visit {
    json: bool,
    steps: Vec<Step>,
}

impl Visit {
    fn note(&mut self, step: &'static str, result: Result<String, String>) -> Checked<()> {
        let is_good = result.is_ok();
        let says = result.unwrap_or_else(|why| why);
        if !self.json {
            let colours = Colours::on_stdout();
            let mark = if is_good { colours.good("ok  ") } else { colours.bad("BAD ") };
            say(format!("{mark} {step:18}{says}"))?;
        }
        self.steps.push(Step { step, is_good, says });
        Ok(())
    }
}

pub(crate) async fn run(options: &Doctor) -> Result<(), Failure> {
    let settings = options.place.read()?;
    let mut visit = Visit { json: options.json, steps: Vec::new() };
    let round_trip = examine(&settings, &mut visit).await?;
    let bad = visit.steps.iter().filter(|step| !step.is_good).count();
    if options.json {
        let store = describe(&settings);
        say_json(&Report { store, is_good: bad == 0, steps: visit.steps, round_trip })?;
    }
    match bad {
        0 => Ok(()),
        _ => Err(Failure::Refused(format!("{} is not as it should be: see above", describe(&settings)))),
    }
}

async fn examine(settings: &Settings, visit: &mut Visit) -> Checked<Option<f64>> {
    visit.note("settings", Ok(format!("{}: {}", settings.session_engine.name(), describe(settings))))?;
    let store = match settings.connect().await {
        Ok(store) => store,
        Err(error) => {
            visit.note("opens", Err(advice_to_open(settings, &error)))?;
            return Ok(None);
        }
    };
    visit.note("opens", Ok("it answers".into()))?;
    let mut session = Session::new();
    let token = SessionKey::random().map_err(|error| Failure::Refused(sentence(&error)))?;
    session.insert("django_sessions_doctor", token.as_str()).map_err(StoreError::from)?;
    let begin = Timestamp::now();
    match store.create(&mut session).await {
        Ok(()) => visit.note("writes", Ok("a new session".into()))?,
        Err(error) => {
            visit.note("writes", Err(advice(&error)))?;
            return Ok(None);
        }
    }
    let key = session.key().expect("it was created").clone();
    let round_trip = use_it(settings, visit, &*store, &mut session, begin).await;
    // Whatever was wrong, nothing is left behind.
    let deleted = store.delete(&key).await;
    let round_trip = round_trip?;
    visit.note("deletes", deleted.map(|_| "and it is gone".into()).map_err(|error| advice(&error)))?;
    if settings.session_engine != Engine::SignedCookies {
        let is_gone = store.load(&key).await.map(|session| session.key().is_none());
        if !is_gone.unwrap_or(false) {
            visit.note("stays deleted", Err("the session is still there: do two stores answer?".into()))?;
        }
    }
    Ok(round_trip)
}

async fn use_it(
    settings: &Settings,
    visit: &mut Visit,
    store: &dyn SessionStore,
    session: &mut Session,
    begin: Timestamp,
) -> Checked<Option<f64>> {
    let key = session.key().expect("it was created").clone();
    let loaded = store.load(&key).await;
    let is_same = |loaded: &Session| {
        let name = "django_sessions_doctor";
        loaded.get::<String>(name).ok() == session.get::<String>(name).ok()
    };
    visit.note(
        "reads back",
        match &loaded {
            Ok(loaded) if is_same(loaded) => Ok("the same values".into()),
            Ok(_) => {
                Err("what was written is not there: is this a replica that lags, or a cache that drops it?"
                    .into())
            }
            Err(error) => Err(advice(error)),
        },
    )?;
    if settings.session_engine != Engine::SignedCookies {
        look_at_what_is_stored(settings, visit, &key, begin).await?;
    }
    session.mark_modified();
    let saved = store.save(session).await;
    visit.note("saves", saved.map(|()| "over what is there".into()).map_err(|error| advice(&error)))?;
    let mut times = Vec::with_capacity(LOADS);
    for _ in 0..LOADS {
        let start = Instant::now();
        if store.load(&key).await.is_err() {
            return Ok(None);
        }
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let (median, slowest) = (micros(times[LOADS / 2]), micros(times[LOADS - 1]));
    visit.note(
        "round trip",
        Ok(format!("a load takes {median:.0} us, the slowest of {LOADS} {slowest:.0} us")),
    )?;
    Ok(Some(median))
}

/// As Django would find it: under its name, in its format, with its end.
async fn look_at_what_is_stored(
    settings: &Settings,
    visit: &mut Visit,
    key: &SessionKey,
    begin: Timestamp,
) -> Checked<()> {
    let found = match settings.connect_managed().await {
        Ok(store) => find(&*store, key).await,
        Err(error) => return visit.note("as Django stores", Err(sentence(&error))),
    };
    let text = match found {
        Err(error) => Err(advice(&error)),
        Ok(None) => Err("it is not there under its name".into()),
        Ok(Some(stored)) => match (&stored.data, stored.ends) {
            (Err(error), _) => Err(sentence(error)),
            // Caches that tell no end.
            (Ok(_), None) => Ok(format!("{} bytes", stored.size)),
            (Ok(_), Some(ends)) => check_end(settings, &stored, ends, begin),
        },
    };
    visit.note("as Django stores", text)
}

fn check_end(
    settings: &Settings,
    stored: &StoredSession,
    ends: Timestamp,
    begin: Timestamp,
) -> Result<String, String> {
    let age = SignedDuration::from_secs(settings.session_cookie_age);
    let difference = ends.duration_since(begin) - age;
    // Two seconds for caches that round, and for a slow store.
    match difference.abs() <= SignedDuration::from_secs(2) {
        true => Ok(format!("{} bytes, until {ends:.0}", stored.size)),
        false => Err(format!(
            "it ends {:#} off from SESSION_COOKIE_AGE: do the clocks agree, and TIME_ZONE and USE_TZ?",
            SignedDuration::from_secs(difference.as_secs())
        )),
    }
}

/// What the store says, and what to do.
fn advice(error: &StoreError) -> String {
    let sentence = sentence(error);
    let what = match sentence.to_lowercase() {
        text if text.contains("no such table")
            || text.contains("does not exist")
            || text.contains("doesn't exist") =>
        {
            ". Run `manage.py migrate` in the Django project; for a cache table, `manage.py createcachetable`"
        }
        text if text.contains("permission") || text.contains("denied") || text.contains("readonly") => {
            ". This user may not do that there: grant it the rights that Django's user has"
        }
        text if text.contains("no space") || text.contains("full") => ". Make room there",
        _ => "",
    };
    format!("{sentence}{what}")
}

//! What every [`SessionStore`] must do, to be run over a store of your own (feature `conformance`).
//!
//! This is the suite that this crate's own stores pass. Call it from a test, over a store that is empty:
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use django_sessions::backends::db::DbStore;
//! use django_sessions::conformance::{self, Clock, Options};
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::settings::Settings;
//!
//! let settings = Settings::new(SecretKeys::new("a key for tests"));
//! let store = DbStore::connect("sqlite::memory:", settings).await?;
//! # let pool = store.pool().sqlite().unwrap();
//! # sqlx::query("CREATE TABLE django_session (session_key TEXT PRIMARY KEY, session_data TEXT, expire_date TEXT)").execute(pool).await?;
//!
//! // The suite moves the store's clock, so that nobody has to wait two weeks.
//! let clock = Clock::manual();
//! let reader = clock.clone();
//! let store = Arc::new(store.with_clock(move || reader.now()));
//!
//! let mut options = Options::new(clock);
//! options.rounds = 3; // a quick run
//! let report = conformance::run(&store, &options).await?;
//! assert!(report.skipped.is_empty());
//! # Ok(()) }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```
//!
//! Where the time is the server's own, [`Clock::real`] waits in its place. What a store cannot do by its nature, its
//! [`Capabilities`] say; the cases that need it are then reported as skipped.

mod cases;

use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::backends::{SessionStore, StoreError};
use crate::crypto::RandomError;
use crate::session::SessionError;

/// The time as the store under test sees it.
///
/// Cheap to clone; clones of a manual clock share its time.
///
/// ```
/// use django_sessions::conformance::Clock;
/// use jiff::SignedDuration;
///
/// let clock = Clock::manual();
/// let seen_by_the_store = clock.clone();
/// let before = clock.now();
/// clock.set(before + SignedDuration::from_hours(1));
/// assert_eq!(seen_by_the_store.now().duration_since(before), SignedDuration::from_hours(1));
/// ```
#[derive(Clone, Debug)]
pub struct Clock(Time);

#[derive(Clone, Debug)]
enum Time {
    Manual(Arc<Mutex<Timestamp>>),
    Real,
}

impl Clock {
    /// A clock that stands still until it is moved, for a store that can be told the time. It begins within a second,
    /// not at its start, as clocks do.
    pub fn manual() -> Self {
        Self::at(Timestamp::from_microsecond(1_795_435_200_123_456).expect("a moment in 2026"))
    }

    /// A clock that stands still at `moment`.
    pub fn at(moment: Timestamp) -> Self {
        Self(Time::Manual(Arc::new(Mutex::new(moment))))
    }

    /// The time of this machine and of its servers: what is moved elsewhere is waited for here.
    pub fn real() -> Self {
        Self(Time::Real)
    }

    /// Whether time passes by itself.
    pub fn is_real(&self) -> bool {
        matches!(self.0, Time::Real)
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Time::Manual(moment) => *moment.lock().unwrap_or_else(PoisonError::into_inner),
            Time::Real => Timestamp::now(),
        }
    }

    /// Sets a manual clock. The real one cannot be set, and stays.
    pub fn set(&self, to: Timestamp) {
        if let Time::Manual(moment) = &self.0 {
            *moment.lock().unwrap_or_else(PoisonError::into_inner) = to;
        }
    }

    /// Moves a manual clock forwards, or waits so long.
    pub async fn advance(&self, by: Duration) {
        match &self.0 {
            Time::Manual(_) => {
                let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
                self.set(self.now().saturating_add(by).unwrap_or(Timestamp::MAX));
            }
            Time::Real => tokio::time::sleep(by).await,
        }
    }
}

/// What a store can do. Every store of Django's but two can do all of it.
///
/// ```
/// use django_sessions::conformance::{Capabilities, Clock, Options};
///
/// let mut options = Options::new(Clock::real());
/// options.capabilities = Capabilities::CACHE;
/// assert!(!options.capabilities.clears_expired);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// It knows which sessions there are: it refuses a taken key, finds none under a made-up one, and what was deleted
    /// stays deleted. A signed cookie knows nothing of the kind.
    pub knows_keys: bool,
    /// A save keeps the key. The key of a signed cookie is its content.
    pub keeps_keys: bool,
    /// `clear_expired` deletes what is over, and counts it. Caches do that by themselves.
    pub clears_expired: bool,
    /// A session that is to end some seconds after it was saved does so. Django's file engine does not look at when that
    /// was, and a signed cookie lives for `SESSION_COOKIE_AGE`, whatever is in it.
    pub ends_after_seconds: bool,
    /// A session that is to end at a moment does so.
    pub ends_at_moments: bool,
}

impl Capabilities {
    /// A store that can do everything.
    pub const ALL: Self = Self {
        knows_keys: true,
        keeps_keys: true,
        clears_expired: true,
        ends_after_seconds: true,
        ends_at_moments: true,
    };
    /// A cache, whose server drops what is over.
    pub const CACHE: Self = Self { clears_expired: false, ..Self::ALL };
    /// Files, as Django's engine keeps them.
    pub const FILE: Self = Self { ends_after_seconds: false, ..Self::ALL };
    /// Signed cookies, which are kept by the browser.
    pub const COOKIE: Self = Self {
        knows_keys: false,
        keeps_keys: false,
        clears_expired: false,
        ends_after_seconds: false,
        ends_at_moments: false,
    };
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::ALL
    }
}

/// How the suite is run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The store's clock.
    pub clock: Clock,
    /// What the store can do: everything.
    pub capabilities: Capabilities,
    /// The cases to run: all.
    pub cases: Vec<Case>,
    /// `SESSION_COOKIE_AGE` of the store's settings, in seconds: two weeks. With a real clock, sessions of no expiry of
    /// their own are waited for only if this is at most ten seconds.
    pub cookie_age: i64,
    /// Bytes in a large session: a million, which do not compress. memcached takes less than that.
    pub large: usize,
    /// How many sessions are over at once where they are cleared: 2,100, more than one statement of `DbStore` takes.
    pub expired: usize,
    /// Visitors at once: 64.
    pub visitors: u32,
    /// Requests of each of them: 30, some of which are cancelled.
    pub rounds: u32,
    /// Names and JSON texts of values that must come back to the letter. Leave out what the store's format refuses.
    pub values: Vec<(&'static str, &'static str)>,
}

impl Options {
    /// Every case, for a store that can do everything.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            capabilities: Capabilities::ALL,
            cases: Case::ALL.to_vec(),
            cookie_age: 1_209_600,
            large: 1_000_000,
            expired: 2_100,
            visitors: 64,
            rounds: 30,
            values: vec![
                ("nan", "NaN"),
                ("big", "1180591620717411303424"),
                ("negative", "-9223372036854775809"),
                ("float", "1.0"),
                ("exponent", "1e+16"),
                ("small", "5e-324"),
                ("surrogate", "\"\\ud800\""),
                ("nested", "{\"b\":[1,{\"a\":-Infinity}],\"a\":null}"),
                ("text", "\"\\u00e9\\ud83e\\udd80\""),
                ("empty", "{\"list\":[],\"dict\":{},\"text\":\"\"}"),
            ],
        }
    }
}

/// Declares the cases, each named after the function that runs it.
macro_rules! cases {
    ($($(#[doc = $doc:literal])+ $case:ident => $function:ident,)+) => {
        /// One thing that a store must do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Case {
            $($(#[doc = $doc])+ $case,)+
        }

        impl Case {
            /// Every case.
            pub const ALL: &[Self] = &[$(Self::$case,)+];

            /// The name in reports, such as `a_taken_key_is_refused`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$case => stringify!($function),)+
                }
            }

            async fn play<S>(self, store: &Arc<S>, options: &Options) -> Result<(), Ended>
            where
                S: SessionStore + ?Sized + 'static,
            {
                match self {
                    $(Self::$case => cases::$function(store, options).await,)+
                }
            }
        }
    };
}

cases! {
    /// What was saved is loaded, under its key; a second save replaces it.
    SavedIsLoaded => a_saved_session_is_loaded,
    /// A key that a visitor made up gives a session without one.
    UnknownKey => an_unknown_key_gives_a_session_without_one,
    /// A session without values is one.
    EmptySession => an_empty_session_is_one,
    /// `insert` refuses a taken key and changes nothing.
    TakenKey => a_taken_key_is_refused,
    /// Of many who insert under one key at once, one succeeds.
    OneOfMany => one_of_many_gets_a_key,
    /// Saving a deleted session is refused and brings nothing back.
    DeletedStaysDeleted => a_deleted_session_stays_deleted,
    /// No save that is under way during a logout undoes it.
    LogoutWins => a_logout_wins_over_concurrent_saves,
    /// Saving the same values twice in one moment is no deletion.
    SavedTwice => the_same_is_saved_twice,
    /// Values that no Rust type holds come back to the letter, in order.
    UntouchedValues => untouched_values_are_kept,
    /// `cycle_key` keeps the values, ends the old key and serves a session that has none.
    CycleKey => a_cycled_key_keeps_the_values_and_ends_the_old_key,
    /// `flush` leaves neither values nor key nor stored session.
    Flush => a_flush_leaves_nothing,
    /// Keys with quotes, dots, letters of other alphabets, spaces and control characters find nothing.
    OddKeys => odd_keys_find_nothing,
    /// Sessions of each kind of expiry end to the second; with a real clock, within two.
    EndOnTime => sessions_end_on_time,
    /// What is stored with an expiry in the past is over at once.
    OverAtOnce => a_session_of_the_past_is_over_at_once,
    /// `clear_expired` deletes what is over, all of it, and nothing else.
    ClearExpired => only_what_is_over_is_cleared,
    /// A large session is kept.
    Large => a_large_session_is_kept,
    /// Of many visitors at once, some of whose requests are cancelled, each gets the session that was asked for.
    NobodyElses => nobody_gets_the_session_of_another,
    /// A cancelled save leaves the session as it was or as it was to be, and the next one works.
    CancelledSaves => a_cancelled_save_leaves_a_whole_session,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Case {
    /// Runs this case alone.
    ///
    /// # Errors
    /// The [`Failure`], if the store does not do what it must. A case that does not apply to the store, by
    /// [`Options::capabilities`], passes.
    pub async fn run<S>(self, store: &Arc<S>, options: &Options) -> Result<(), Failure>
    where
        S: SessionStore + ?Sized + 'static,
    {
        match self.play(store, options).await {
            Ok(()) | Err(Ended::Skipped(_)) => Ok(()),
            Err(Ended::Failed(failure)) => Err(failure),
        }
    }
}

/// Runs the cases of `options` over `store`, which is empty, and is empty again if none fails.
///
/// # Errors
/// [`Failures`], with every case that failed and why, if any did.
pub async fn run<S>(store: &Arc<S>, options: &Options) -> Result<Report, Failures>
where
    S: SessionStore + ?Sized + 'static,
{
    let (mut report, mut failures) = (Report::default(), Vec::new());
    for &case in &options.cases {
        match case.play(store, options).await {
            Ok(()) => report.passed.push(case),
            Err(Ended::Skipped(why)) => report.skipped.push((case, why)),
            Err(Ended::Failed(failure)) => failures.push((case, failure)),
        }
    }
    if failures.is_empty() { Ok(report) } else { Err(Failures(failures)) }
}

/// What the suite did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The cases that passed.
    pub passed: Vec<Case>,
    /// The cases that the store cannot be asked to pass, and why.
    pub skipped: Vec<(Case, &'static str)>,
}

/// The cases that failed, and why.
pub struct Failures(pub Vec<(Case, Failure)>);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store fails {} of the cases:", self.0.len())?;
        self.0.iter().try_for_each(|(case, failure)| write!(f, "\n  {case}: {failure}"))
    }
}

/// As `Display`, since a test that unwraps shows this.
impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Failures {}

/// What a store did not do, and the line of the suite that found it.
#[derive(Debug)]
pub struct Failure {
    what: String,
    at: &'static Location<'static>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {})", self.what, self.at)
    }
}

impl Error for Failure {}

impl Failure {
    #[track_caller]
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), at: Location::caller() }
    }

    /// An error with all its sources, since the first of them rarely says enough.
    #[track_caller]
    fn unexpected(error: &dyn Error) -> Self {
        let (mut what, mut source) = (format!("unexpected error: {error}"), error.source());
        while let Some(error) = source {
            let more = error.to_string();
            // Some errors end with what their source says.
            if !what.ends_with(&more) {
                what.push_str(&format!(": {more}"));
            }
            source = error.source();
        }
        Self { what, at: Location::caller() }
    }
}

/// How a case can end other than well.
enum Ended {
    Skipped(&'static str),
    Failed(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Errors of a store end a case, with the line that they came up in.
macro_rules! fails_with {
    ($($error:ty),+) => {$(
        impl From<$error> for Failure {
            #[track_caller]
            fn from(error: $error) -> Self {
                Self::unexpected(&error)
            }
        }

        impl From<$error> for Ended {
            #[track_caller]
            fn from(error: $error) -> Self {
                Self::Failed(Failure::unexpected(&error))
            }
        }
    )+};
}

fails_with!(StoreError, SessionError, RandomError, tokio::task::JoinError);

//! The cases. Each leaves the store as empty as it found it.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::task::JoinSet;

use super::{Ended, Failure, Options};
use crate::backends::{SessionStore, StoreError};
use crate::crypto::get_random_string;
use crate::serializers::json::RawValue;
use crate::session::{Expiry, Session, SessionKey, VALID_KEY_CHARS};

type Outcome = Result<(), Ended>;

/// Ends the case unless the condition holds.
macro_rules! check {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(Failure::new(format!($($what)+)).into());
        }
    };
}

/// Ends the case unless both are equal. Shows neither: they may be session data.
macro_rules! check_eq {
    ($left:expr, $right:expr, $($what:tt)+) => {
        check!($left == $right, $($what)+)
    };
}

macro_rules! skip_unless {
    ($condition:expr, $why:expr) => {
        if !$condition {
            return Err(Ended::Skipped($why));
        }
    };
}

const NEEDS_KEYS: &str = "the store does not know which keys there are";

fn key_of(session: &Session) -> Result<SessionKey, Failure> {
    session.key().cloned().ok_or_else(|| Failure::new("a saved session has no key"))
}

async fn saved<S: SessionStore + ?Sized>(store: &S, name: &str) -> Result<(Session, SessionKey), Failure> {
    let mut session = Session::new();
    session.insert("name", name)?;
    store.save(&mut session).await?;
    let key = key_of(&session)?;
    Ok((session, key))
}

async fn saved_until<S: SessionStore + ?Sized>(
    store: &S,
    expiry: Option<Expiry>,
) -> Result<SessionKey, Failure> {
    let mut session = Session::new();
    session.set_expiry(expiry);
    store.save(&mut session).await?;
    key_of(&session)
}

async fn name<S: SessionStore + ?Sized>(store: &S, key: &SessionKey) -> Result<Option<String>, Failure> {
    Ok(store.load(key).await?.get("name")?)
}

/// Whether a live session is stored under `key`.
async fn lives<S: SessionStore + ?Sized>(store: &S, key: &SessionKey) -> Result<bool, Failure> {
    Ok(store.load(key).await?.key().is_some())
}

pub(super) async fn a_saved_session_is_loaded<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    let (mut session, key) = saved(&**store, "first").await?;
    let can = options.capabilities;
    check!(!can.knows_keys || store.exists(&key).await?, "a saved session does not exist");
    let loaded = store.load(&key).await?;
    check!(loaded.key() == Some(&key), "a loaded session does not have the key that was asked for");
    check!(!loaded.accessed() && !loaded.modified(), "loading counts as access or change");
    check_eq!(loaded.get::<String>("name")?.as_deref(), Some("first"), "the value is not the one saved");

    session.insert("name", "second")?;
    store.save(&mut session).await?;
    check!(!can.keeps_keys || session.key() == Some(&key), "a save changes the key");
    let key = key_of(&session)?;
    check_eq!(name(&**store, &key).await?.as_deref(), Some("second"), "a second save does not replace");
    store.delete(&key).await?;
    Ok(())
}

pub(super) async fn an_unknown_key_gives_a_session_without_one<S>(
    store: &Arc<S>,
    options: &Options,
) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    skip_unless!(options.capabilities.knows_keys, NEEDS_KEYS);
    let key = SessionKey::random()?;
    check!(!store.exists(&key).await?, "a key that nobody saved exists");
    let session = store.load(&key).await?;
    check!(session.key().is_none() && session.is_empty(), "a key that a visitor made up is adopted");
    check!(!store.exists(&key).await?, "loading makes a session");
    store.delete(&key).await?;
    Ok(())
}

pub(super) async fn an_empty_session_is_one<S>(store: &Arc<S>, _options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    let mut session = Session::new();
    store.save(&mut session).await?;
    let key = key_of(&session)?;
    let loaded = store.load(&key).await?;
    check!(loaded.key() == Some(&key), "a session without values is taken for none");
    check!(loaded.keys().next().is_none(), "an empty session has values");
    store.delete(&key).await?;
    Ok(())
}

pub(super) async fn a_taken_key_is_refused<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    skip_unless!(options.capabilities.knows_keys, NEEDS_KEYS);
    let (_, key) = saved(&**store, "owner").await?;
    let mut thief = Session::new();
    thief.insert("name", "thief")?;
    check!(!store.insert(&key, &thief).await?, "a taken key is not refused");
    check_eq!(name(&**store, &key).await?.as_deref(), Some("owner"), "a refused insert changes the session");
    store.delete(&key).await?;
    check!(store.insert(&key, &thief).await?, "the key of a deleted session is not free");
    store.delete(&key).await?;
    Ok(())
}

pub(super) async fn one_of_many_gets_a_key<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    skip_unless!(options.capabilities.knows_keys, NEEDS_KEYS);
    let key = SessionKey::random()?;
    let mut visitors = JoinSet::new();
    for visitor in 0..options.visitors {
        let (store, key) = (store.clone(), key.clone());
        visitors.spawn(async move {
            let mut session = Session::new();
            session.insert("name", &visitor.to_string())?;
            Ok::<_, Failure>((visitor, store.insert(&key, &session).await?))
        });
    }
    let mut winners = Vec::new();
    while let Some(visitor) = visitors.join_next().await {
        let (visitor, won) = visitor??;
        winners.extend(won.then_some(visitor.to_string()));
    }
    check!(winners.len() == 1, "{} visitors at once inserted under one key", winners.len());
    check_eq!(
        name(&**store, &key).await?,
        winners.pop(),
        "the session is not that of the one who inserted it"
    );
    store.delete(&key).await?;
    Ok(())
}

pub(super) async fn a_deleted_session_stays_deleted<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    skip_unless!(options.capabilities.knows_keys, NEEDS_KEYS);
    let (mut session, key) = saved(&**store, "gone").await?;
    let (one, other) = tokio::join!(store.delete(&key), store.delete(&key));
    check!(one? != other?, "of two who delete a session, not exactly one is told that it was there");
    check!(!lives(&**store, &key).await?, "a deleted session is loaded");
    check!(
        matches!(store.save(&mut session).await, Err(StoreError::Deleted)),
        "saving a deleted session is not refused as deleted"
    );
    check!(!store.update(&key, &session).await?, "a deleted session is updated");
    check!(!store.exists(&key).await?, "a save brings a deleted session back");
    check!(!store.delete(&key).await?, "a session is deleted that was gone");
    Ok(())
}

pub(super) async fn a_logout_wins_over_concurrent_saves<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    skip_unless!(options.capabilities.knows_keys, NEEDS_KEYS);
    for _ in 0..options.rounds.min(10) {
        let (_, key) = saved(&**store, "online").await?;
        let over = Arc::new(AtomicBool::new(false));
        let mut visitors = JoinSet::new();
        for _ in 0..4 {
            let (store, key, over) = (store.clone(), key.clone(), over.clone());
            visitors.spawn(async move {
                let mut session = Session::new();
                session.insert("name", "still here")?;
                while !over.load(Ordering::Relaxed) {
                    store.update(&key, &session).await?;
                    // A store that never waits would leave its thread to nobody else.
                    tokio::task::yield_now().await;
                }
                Ok::<_, Failure>(())
            });
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        store.delete(&key).await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
        over.store(true, Ordering::Relaxed);
        while let Some(visitor) = visitors.join_next().await {
            visitor??;
        }
        check!(!store.exists(&key).await?, "a concurrent save brings a deleted session back");
    }
    Ok(())
}

pub(super) async fn the_same_is_saved_twice<S>(store: &Arc<S>, _options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    let (mut session, _) = saved(&**store, "same").await?;
    for _ in 0..3 {
        match store.save(&mut session).await {
            Err(StoreError::Deleted) => {
                return Err(Failure::new("a save that changes nothing is taken for a deletion").into());
            }
            saved => saved?,
        }
    }
    store.delete(&key_of(&session)?).await?;
    Ok(())
}

pub(super) async fn untouched_values_are_kept<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    let mut session = Session::new();
    for (name, text) in &options.values {
        let value = RawValue::from_text(*text)
            .map_err(|error| Failure::new(format!("options: the value {name} is not JSON: {error}")))?;
        session.insert_raw(name, value);
    }
    store.save(&mut session).await?;
    let mut loaded = store.load(&key_of(&session)?).await?;
    loaded.insert("added", &true)?;
    store.save(&mut loaded).await?;
    let key = key_of(&loaded)?;
    let loaded = store.load(&key).await?;
    for (name, text) in &options.values {
        let value = loaded.get_raw(name)?.ok_or_else(|| Failure::new(format!("the value {name} is lost")))?;
        check!(value.as_bytes() == text.as_bytes(), "the value {name} changed from {text}");
    }
    let names: Vec<String> = loaded.keys().map(|name| name.into_owned()).collect();
    let expected = options.values.iter().map(|(name, _)| *name).chain(["added"]);
    check!(names.iter().map(String::as_str).eq(expected), "the order of values changed to {names:?}");
    store.delete(&key).await?;
    Ok(())
}

pub(super) async fn a_cycled_key_keeps_the_values_and_ends_the_old_key<S>(
    store: &Arc<S>,
    options: &Options,
) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    let (mut session, old) = saved(&**store, "cycled").await?;
    store.cycle_key(&mut session).await?;
    let new = key_of(&session)?;
    if options.capabilities.knows_keys {
        check!(new != old, "the key is the old one");
        check!(!store.exists(&old).await?, "the old key still exists");
    }
    check_eq!(name(&**store, &new).await?.as_deref(), Some("cycled"), "the values are not kept");
    check!(session.modified(), "the session is not marked, so its new key is not sent to the browser");
    store.delete(&new).await?;

    let mut fresh = Session::new();
    store.cycle_key(&mut fresh).await?;
    store.delete(&key_of(&fresh)?).await?;
    Ok(())
}

pub(super) async fn a_flush_leaves_nothing<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    let (mut session, key) = saved(&**store, "flushed").await?;
    store.flush(&mut session).await?;
    check!(session.is_empty() && session.key().is_none(), "a flushed session has a key or values");
    check!(session.modified(), "a flush does not count as a change");
    if options.capabilities.knows_keys {
        check!(!store.exists(&key).await?, "a flushed session exists");
        check!(!lives(&**store, &key).await?, "a flushed session is loaded");
    }
    Ok(store.flush(&mut session).await?)
}

pub(super) async fn odd_keys_find_nothing<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    let long = "k".repeat(10_000);
    for text in [
        "'; DROP TABLE django_session; --",
        "../../../etc/passwd",
        "ключ-ключ-ключ",
        "🔑🔑🔑🔑🔑🔑🔑🔑",
        "%%%%%%%%",
        "        ",
        "line\r\nbreak\r\n",
        "nul\0nul\0nul",
        "a:b:c:d:e:f:g",
        &long,
    ] {
        let Some(key) = SessionKey::new(text) else { continue };
        match store.load(&key).await {
            Ok(session) => {
                let text = &text[..text.len().min(32)];
                check!(session.key().is_none(), "the key {text:?} gives a session that has a key");
            }
            // The key of a signed cookie is its content, so this is one that was tampered with.
            Err(StoreError::Decode(_)) if !options.capabilities.knows_keys => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// An expiry of so many seconds, of a kind that the store knows.
fn ends_in(options: &Options, life: i64) -> Option<Expiry> {
    Some(match options.capabilities.ends_after_seconds {
        true => Expiry::Seconds(life),
        false => Expiry::At(options.clock.now() + SignedDuration::from_secs(life)),
    })
}

/// The kinds of expiry and how many seconds each gives a session; only those that `options` has the time for.
fn kinds_of_expiry(options: &Options, life: i64) -> Vec<(Option<Expiry>, i64)> {
    let moment = options.clock.now() + SignedDuration::from_secs(life);
    let can = options.capabilities;
    let mut kinds = Vec::new();
    kinds.extend(can.ends_after_seconds.then_some((Some(Expiry::Seconds(life)), life)));
    kinds.extend(can.ends_at_moments.then_some((Some(Expiry::At(moment)), life)));
    if !options.clock.is_real() || options.cookie_age <= 10 {
        kinds.extend([(None, options.cookie_age), (Some(Expiry::BrowserClose), options.cookie_age)]);
    }
    kinds
}

pub(super) async fn sessions_end_on_time<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    let clock = &options.clock;
    if !clock.is_real() {
        for (kind, life) in kinds_of_expiry(options, 60) {
            let kind = match kind {
                Some(Expiry::At(_)) => Some(Expiry::At(clock.now() + SignedDuration::from_secs(life))),
                kind => kind,
            };
            let key = saved_until(&**store, kind).await?;
            clock.advance(Duration::from_secs(life.unsigned_abs() - 1)).await;
            check!(lives(&**store, &key).await?, "{kind:?} is over a second early");
            clock.advance(Duration::from_secs(1)).await;
            check!(!lives(&**store, &key).await?, "{kind:?} lives longer than it should");
            store.delete(&key).await?;
        }
        return Ok(());
    }
    // All at once, since each is waited for. Caches get whole seconds, as Django gives them, so up to one is lost; and
    // memcached counts them by ticks of its own, which is up to one more.
    let mut keys = Vec::new();
    for (kind, life) in kinds_of_expiry(options, 4) {
        keys.push((saved_until(&**store, kind).await?, kind, life));
    }
    let start = clock.now();
    let longest = keys.iter().map(|(_, _, life)| *life).max().unwrap_or_default();
    for second in 0..=longest + 2 {
        for (key, kind, life) in &keys {
            let age = clock.now().duration_since(start).as_secs_f64();
            let lives = lives(&**store, key).await?;
            check!(lives || age > *life as f64 - 2.5, "{kind:?} is over after {age:.1} s in place of {life}");
            check!(!lives || age < *life as f64 + 1.5, "{kind:?} lives after {age:.1} s in place of {life}");
        }
        if second < longest + 2 {
            clock.advance(Duration::from_secs(1)).await;
        }
    }
    for (key, ..) in keys {
        store.delete(&key).await?;
    }
    Ok(())
}

pub(super) async fn a_session_of_the_past_is_over_at_once<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    skip_unless!(options.capabilities.ends_at_moments, "the store does not look at a session's own expiry");
    let yesterday = options.clock.now() - SignedDuration::from_hours(24);
    for kind in [Expiry::Seconds(-1), Expiry::At(yesterday)] {
        let key = saved_until(&**store, Some(kind)).await?;
        check!(!lives(&**store, &key).await?, "{kind:?} lives");
        store.delete(&key).await?;
    }
    Ok(())
}

pub(super) async fn only_what_is_over_is_cleared<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    skip_unless!(options.capabilities.clears_expired, "the store's server drops what is over by itself");
    let mut keys = Vec::new();
    for life in [1, 2, 1000] {
        keys.push(saved_until(&**store, ends_in(options, life)).await?);
    }
    options.clock.advance(Duration::from_secs(4)).await;
    let cleared = store.clear_expired().await?;
    check!(cleared == 2, "{cleared} sessions were cleared where 2 were over");
    check!(!store.exists(&keys[0]).await?, "a session that is over exists after it was cleared");
    let cleared = store.clear_expired().await?;
    check!(cleared == 0, "{cleared} sessions were cleared where none was over");
    check!(lives(&**store, &keys[2]).await?, "a live session was cleared");
    store.delete(&keys[2]).await?;

    // More than one statement takes.
    let mut visitors = JoinSet::new();
    for visitor in 0..8 {
        let (store, count) = (store.clone(), (options.expired + visitor) / 8);
        let soon = ends_in(options, 1);
        visitors.spawn(async move {
            for _ in 0..count {
                saved_until(&*store, soon).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(visitor) = visitors.join_next().await {
        visitor??;
    }
    options.clock.advance(Duration::from_secs(3)).await;
    let cleared = store.clear_expired().await?;
    check!(
        cleared == options.expired as u64,
        "{cleared} sessions were cleared where {} were over",
        options.expired
    );
    Ok(())
}

pub(super) async fn a_large_session_is_kept<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    // Random, so that compression does not help much.
    let large = get_random_string(options.large, VALID_KEY_CHARS)?;
    let mut session = Session::new();
    session.insert("large", &large)?;
    store.save(&mut session).await?;
    let key = key_of(&session)?;
    let loaded = store.load(&key).await?.get::<String>("large")?;
    check_eq!(loaded, Some(large), "a session of {} bytes is not kept", options.large);
    store.delete(&key).await?;
    Ok(())
}

/// Waits for all of them. No two may have had one key.
async fn all_different(mut visitors: JoinSet<Result<SessionKey, Failure>>) -> Outcome {
    let mut keys = HashSet::new();
    while let Some(visitor) = visitors.join_next().await {
        check!(keys.insert(visitor??), "two visitors had one key");
    }
    Ok(())
}

/// Cancels an operation in the midst: after it had to wait so many times. `None` if it was.
///
/// A timer would not do: it is good to a millisecond, and most stores are quicker than that.
async fn cancelled_after<F: Future + Unpin>(waits: u32, mut operation: F) -> Option<F::Output> {
    let mut waited = 0;
    poll_fn(|context| match Pin::new(&mut operation).poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if waited == waits => Poll::Ready(None),
        Poll::Pending => {
            waited += 1;
            Poll::Pending
        }
    })
    .await
}

pub(super) async fn nobody_gets_the_session_of_another<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    let mut visitors = JoinSet::new();
    for visitor in 0..options.visitors {
        let (store, rounds) = (store.clone(), options.rounds);
        visitors.spawn(async move {
            let mine = format!("visitor {visitor}");
            let (_, key) = saved(&*store, &mine).await?;
            for round in 0..rounds {
                if round % 3 == 0 {
                    cancelled_after((visitor + round) % 5, store.load(&key)).await;
                    continue;
                }
                let loaded = store.load(&key).await?;
                check!(loaded.key() == Some(&key), "a session is lost, or has another key");
                let name = loaded.get::<String>("name")?;
                check!(name.as_ref() == Some(&mine), "{mine} got the session of {name:?}");
            }
            store.delete(&key).await?;
            Ok(key)
        });
    }
    all_different(visitors).await
}

pub(super) async fn a_cancelled_save_leaves_a_whole_session<S>(store: &Arc<S>, options: &Options) -> Outcome
where
    S: SessionStore + ?Sized + 'static,
{
    skip_unless!(options.capabilities.keeps_keys, "a save gives another key, so there is nothing to look at");
    let mut visitors = JoinSet::new();
    for visitor in 0..options.visitors {
        let (store, rounds) = (store.clone(), options.rounds);
        visitors.spawn(async move {
            let (mut session, key) = saved(&*store, &format!("visitor {visitor}")).await?;
            // A cancelled save may be done all the same, and late: after one that was begun later.
            let (mut last, mut cancelled) = (None, HashSet::new());
            for round in 0..rounds {
                session.insert("round", &round)?;
                session.insert("again", &"x".repeat(1 + round as usize * 100))?;
                if round % 3 == 1 {
                    match cancelled_after((visitor + round) % 5, store.save(&mut session)).await {
                        Some(saved) => saved?,
                        None => drop(cancelled.insert(Some(round))),
                    }
                } else {
                    store.save(&mut session).await?;
                }
                if !cancelled.contains(&Some(round)) {
                    last = Some(round);
                }
                let loaded = store.load(&key).await?;
                check!(loaded.key() == Some(&key), "a session is lost after a cancelled save");
                let (found, again) = (loaded.get::<u32>("round")?, loaded.get::<String>("again")?);
                let whole =
                    found.is_some_and(|found| again.is_some_and(|x| x.len() == 1 + found as usize * 100));
                check!(whole, "half of a save is stored");
                check!(found == last || cancelled.contains(&found), "an older save is stored");
                let name = loaded.get::<String>("name")?;
                check!(name == Some(format!("visitor {visitor}")), "the session of {name:?} is stored");
            }
            store.delete(&key).await?;
            Ok(key)
        });
    }
    all_different(visitors).await
}

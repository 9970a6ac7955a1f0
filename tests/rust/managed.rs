//! What every store must do that can be looked after.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use django_sessions::backends::manage::{ManagedStore, PruneOptions, StoredSession, Which};
use django_sessions::session::{Session, SessionKey};
use jiff::{SignedDuration, Timestamp};

const SESSIONS: u32 = 25;
const TWO_WEEKS: SignedDuration = SignedDuration::from_hours(14 * 24);

/// How the stores differ.
pub(crate) struct Nature {
    /// How much an end may differ from what was asked for.
    pub(crate) grain: SignedDuration,
    /// What is over stays until it is deleted.
    pub(crate) keeps_expired: bool,
    /// The time of a save is known.
    pub(crate) knows_saved: bool,
}

pub(crate) async fn is_looked_after(store: &dyn ManagedStore, nature: Nature) {
    let mut numbers = BTreeMap::new();
    for number in 0..SESSIONS {
        let mut session = Session::new();
        session.insert("number", &number).unwrap();
        store.save(&mut session).await.unwrap();
        numbers.insert(session.key().unwrap().as_str().to_owned(), number);
    }
    assert_eq!(store.count().await.unwrap(), u64::from(SESSIONS));
    let (listed, pages) = all(store, Which::All, "").await;
    assert_eq!(numbers_of(&listed), numbers);
    for session in &listed {
        assert!(session.size > 0);
        assert!(is_near(session.ends.unwrap(), Timestamp::now() + TWO_WEEKS, SignedDuration::from_secs(10)));
        let saved =
            session.saved.map(|saved| is_near(saved, Timestamp::now(), SignedDuration::from_secs(10)));
        assert_eq!(saved, nature.knows_saved.then_some(true));
    }
    goes_on_where_it_was(store, pages, &numbers).await;
    is_found(store, &listed).await;
    keeps_the_end_that_it_is_given(store, &nature).await;
    if nature.keeps_expired {
        prunes(store).await;
    } else {
        assert_eq!(store.count_expired(Duration::ZERO).await.unwrap(), 0);
    }
    // What was live is.
    let (listed, _) = all(store, Which::Live, "").await;
    assert!(numbers.iter().all(|(key, number)| numbers_of(&listed).get(key) == Some(number)));
}

async fn all(store: &dyn ManagedStore, which: Which, from: &str) -> (Vec<StoredSession>, Vec<String>) {
    let mut listing = store.list(which, 10, from);
    let (mut sessions, mut positions) = (Vec::new(), Vec::new());
    while let Some(page) = listing.next_page().await.unwrap() {
        sessions.extend(page);
        positions.push(listing.position());
    }
    (sessions, positions)
}

fn numbers_of(sessions: &[StoredSession]) -> BTreeMap<String, u32> {
    let numbers = sessions.iter().map(|stored| {
        let number = stored.data.as_ref().unwrap().get("number").unwrap().to().unwrap();
        (stored.name.as_str().to_owned(), number)
    });
    numbers.collect()
}

fn is_near(one: Timestamp, other: Timestamp, grain: SignedDuration) -> bool {
    one.duration_since(other).abs() <= grain
}

/// From each position on, at least the rest is listed; and no position tells a key.
async fn goes_on_where_it_was(
    store: &dyn ManagedStore,
    positions: Vec<String>,
    numbers: &BTreeMap<String, u32>,
) {
    let mut listing = store.list(Which::All, 10, "");
    let mut before: BTreeMap<String, u32> = BTreeMap::new();
    for position in positions {
        before.extend(numbers_of(&listing.next_page().await.unwrap().unwrap()));
        assert_eq!(listing.position(), position);
        assert!(!numbers.keys().any(|key| position.contains(key.as_str())), "{position}");
        if position.is_empty() {
            break; // the end
        }
        let mut seen = before.clone();
        seen.extend(numbers_of(&all(store, Which::All, &position).await.0));
        assert_eq!(&seen, numbers);
    }
}

async fn is_found(store: &dyn ManagedStore, listed: &[StoredSession]) {
    for session in listed {
        let found = store.find(&session.name).await.unwrap().unwrap();
        assert_eq!((&found.name, found.size), (&session.name, session.size));
        let data = found.data.unwrap().to_json().unwrap();
        assert_eq!(data, session.data.as_ref().unwrap().to_json().unwrap());
    }
    for nobody in ["nobodynobodynobody", "a\0b45678901234", "../../../../etc/passwd"] {
        assert!(store.find(&SessionKey::from_stored_name(nobody)).await.unwrap().is_none());
    }
}

async fn keeps_the_end_that_it_is_given(store: &dyn ManagedStore, nature: &Nature) {
    let mut session = Session::new();
    session.insert("number", &4711).unwrap();
    let name = SessionKey::from_stored_name("movedmovedmovedmovedmovedmoved00");
    let ends = Timestamp::now() + SignedDuration::from_millis(1_000_750);
    assert!(store.insert_until(&name, &session, Some(ends)).await.unwrap());
    session.insert("number", &4712).unwrap();
    assert!(!store.insert_until(&name, &session, Some(ends)).await.unwrap(), "it is taken");
    let found = store.find(&name).await.unwrap().unwrap();
    let difference = found.ends.unwrap().duration_since(ends);
    assert!(difference.abs() <= nature.grain, "{difference:?}");
    let loaded = store.load(&name).await.unwrap();
    assert_eq!(loaded.get::<u32>("number").unwrap(), Some(4711));
    store.delete(&name).await.unwrap();
    assert!(store.find(&name).await.unwrap().is_none());

    // The name of a session whose key is hashed.
    let hashed = SessionKey::from_stored_name("sha256$qsdxewnmwem4j67hhaithn6dii4xfd6p");
    assert!(store.insert_until(&hashed, &session, Some(ends)).await.unwrap());
    let (listed, _) = all(store, Which::Live, "").await;
    assert!(listed.iter().any(|session| session.name == hashed));
    store.delete(&hashed).await.unwrap();
    assert!(!store.exists(&hashed).await.unwrap());
}

async fn prunes(store: &dyn ManagedStore) {
    let mut session = Session::new();
    session.insert("number", &0).unwrap();
    let name = |number: u64| SessionKey::from_stored_name(format!("over{number:028}"));
    let days = |number| SignedDuration::from_hours(24 * number);
    for number in 0..10 {
        let ended = Timestamp::now() - days(i64::try_from(number).unwrap()) - SignedDuration::from_secs(5);
        assert!(store.insert_until(&name(number), &session, Some(ended)).await.unwrap());
    }
    let (live, _) = all(store, Which::Live, "").await;
    let (listed, _) = all(store, Which::All, "").await;
    assert_eq!((live.len(), listed.len()), (SESSIONS as usize, SESSIONS as usize + 10));
    assert_eq!(store.count_expired(Duration::ZERO).await.unwrap(), 10);
    let seven_days = Duration::from_secs(7 * 86_400);
    assert_eq!(store.count_expired(seven_days).await.unwrap(), 3);

    // One that is over is not in the way of another.
    let tomorrow = Timestamp::now() + days(1);
    assert!(store.insert_until(&name(0), &session, Some(tomorrow)).await.unwrap());
    store.delete(&name(0)).await.unwrap();

    let mut seen = Vec::new();
    let mut options = PruneOptions::default();
    (options.older_than, options.pause) = (seven_days, Duration::ZERO);
    assert_eq!(
        store
            .prune(options, &mut |progress| {
                seen.push(progress.deleted);
                go_on()
            })
            .await
            .unwrap(),
        3
    );
    assert_eq!(seen.last(), Some(&3));
    (options.older_than, options.limit) = (Duration::ZERO, Some(2));
    assert_eq!(store.prune(options, &mut |_| go_on()).await.unwrap(), 2);
    (options.limit, options.batch_size) = (None, 3);
    let deleted = store.prune(options, &mut |_| ControlFlow::Break(())).await.unwrap();
    assert!(deleted <= 3, "it stops after a batch");
    assert_eq!(deleted + store.count_expired(Duration::ZERO).await.unwrap(), 4);
    store.prune(options, &mut |_| go_on()).await.unwrap();
    assert_eq!(store.count().await.unwrap(), u64::from(SESSIONS));
}

pub(crate) fn go_on() -> ControlFlow<()> {
    ControlFlow::Continue(())
}

//! What every cache must do, and what its tests need besides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use django_sessions::caches::{Cache, TimeLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

pub(crate) const MINUTE: Option<Duration> = Some(Duration::from_secs(60));
pub(crate) const SECOND: Option<Duration> = Some(Duration::from_secs(1));
/// Over before the end of `ends_on_time`, and not at once where whole seconds are kept: there a second may be none.
const BRIEF: Option<Duration> = Some(Duration::from_secs(2));
pub(crate) const FOR_EVER: Option<Duration> = None;

/// Timeouts with which Django keeps nothing, in a cache whose timeouts are whole seconds.
pub(crate) const AT_ONCE: [Option<Duration>; 2] = [Some(Duration::ZERO), Some(Duration::from_millis(999))];

/// Everything that a cache promises whose timeouts are whole seconds.
pub(crate) async fn conforms(cache: Arc<dyn Cache>) {
    keeps_nothing_without_time(&*cache, &AT_ONCE).await;
    conforms_with_fractions(cache).await;
}

/// Everything that every cache promises.
pub(crate) async fn conforms_with_fractions(cache: Arc<dyn Cache>) {
    stores_and_finds(&*cache).await;
    keeps_any_bytes(&*cache).await;
    keeps_nothing_without_time(&*cache, &AT_ONCE[..1]).await;
    touches(&*cache).await;
    ends_on_time(&*cache).await;
    lets_one_of_many_add(cache.clone()).await;
    brings_nothing_back(cache.clone()).await;
    keeps_whole_values(&*cache).await;
    mixes_no_answers_up(cache).await;
}

pub(crate) async fn stores_and_finds(cache: &dyn Cache) {
    assert_eq!(cache.get("a").await.unwrap(), None);
    assert!(!cache.replace("a", b"never", MINUTE).await.unwrap(), "a missing key is not made");
    assert_eq!(cache.get("a").await.unwrap(), None);

    assert!(cache.add("a", b"first", MINUTE).await.unwrap());
    assert!(!cache.add("a", b"second", MINUTE).await.unwrap(), "a taken key is not overwritten");
    assert_eq!(cache.get("a").await.unwrap().unwrap(), b"first");

    assert!(cache.replace("a", b"third", FOR_EVER).await.unwrap());
    assert_eq!(cache.get("a").await.unwrap().unwrap(), b"third");
    cache.set("a", b"fourth", MINUTE).await.unwrap();
    assert_eq!(cache.get("a").await.unwrap().unwrap(), b"fourth");

    assert!(cache.delete("a").await.unwrap());
    assert!(!cache.delete("a").await.unwrap());
    assert!(!cache.replace("a", b"fifth", MINUTE).await.unwrap(), "what is deleted stays deleted");
    cache.set("a", b"sixth", MINUTE).await.unwrap();
    assert_eq!(cache.get("a").await.unwrap().unwrap(), b"sixth");
}

pub(crate) async fn keeps_any_bytes(cache: &dyn Cache) {
    let all: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    for value in [&b""[..], b"\r\nEND\r\n", b" 42 ", &all] {
        // Any text of eight characters is a session key to Django.
        for key in ["bytes", ":1:django.contrib.sessions.cacheключ-🔑-é"] {
            cache.set(key, value, MINUTE).await.unwrap();
            assert_eq!(cache.get(key).await.unwrap().as_deref(), Some(value), "{key}");
            assert!(cache.replace(key, value, MINUTE).await.unwrap());
            assert!(cache.touch(key, MINUTE).await.unwrap());
            assert!(cache.delete(key).await.unwrap());
        }
    }
}

pub(crate) async fn keeps_nothing_without_time(cache: &dyn Cache, timeouts: &[Option<Duration>]) {
    for &at_once in timeouts {
        cache.set("zero", b"old", MINUTE).await.unwrap();
        assert!(!cache.add("zero", b"new", at_once).await.unwrap());
        assert_eq!(cache.get("zero").await.unwrap().unwrap(), b"old");
        assert!(cache.replace("zero", b"new", at_once).await.unwrap());
        assert_eq!(cache.get("zero").await.unwrap(), None);
        assert!(!cache.replace("zero", b"new", at_once).await.unwrap());

        assert!(cache.add("zero", b"new", at_once).await.unwrap());
        assert_eq!(cache.get("zero").await.unwrap(), None);

        cache.set("zero", b"old", MINUTE).await.unwrap();
        cache.set("zero", b"new", at_once).await.unwrap();
        assert_eq!(cache.get("zero").await.unwrap(), None);

        cache.set("zero", b"old", MINUTE).await.unwrap();
        assert!(cache.touch("zero", at_once).await.unwrap());
        assert_eq!(cache.get("zero").await.unwrap(), None);
        assert!(!cache.touch("zero", at_once).await.unwrap());
    }
}

pub(crate) async fn touches(cache: &dyn Cache) {
    for timeout in [MINUTE, FOR_EVER] {
        assert!(!cache.touch("touched", timeout).await.unwrap());
        for before in [MINUTE, FOR_EVER] {
            cache.set("touched", b"value", before).await.unwrap();
            assert!(cache.touch("touched", timeout).await.unwrap(), "{before:?} to {timeout:?}");
            assert_eq!(cache.get("touched").await.unwrap().unwrap(), b"value");
        }
        cache.delete("touched").await.unwrap();
    }
}

pub(crate) async fn ends_on_time(cache: &dyn Cache) {
    let forty_days = Some(Duration::from_secs(60 * 60 * 24 * 40));
    for (key, timeout) in [("brief", SECOND), ("days", forty_days), ("ever", FOR_EVER), ("minute", MINUTE)] {
        cache.set(key, b"value", timeout).await.unwrap();
    }
    assert!(cache.add("added", b"value", SECOND).await.unwrap());
    for (key, before, after) in
        [("shortened", MINUTE, SECOND), ("prolonged", BRIEF, MINUTE), ("freed", BRIEF, FOR_EVER)]
    {
        cache.set(key, b"value", before).await.unwrap();
        assert!(cache.touch(key, after).await.unwrap());
    }
    cache.set("replaced", b"value", BRIEF).await.unwrap();
    assert!(cache.replace("replaced", b"value", MINUTE).await.unwrap());

    // memcached's clock ticks once a second, so the end may be a second late.
    sleep(Duration::from_millis(2500)).await;
    for key in ["brief", "added", "shortened"] {
        assert_eq!(cache.get(key).await.unwrap(), None, "{key}");
        assert!(!cache.replace(key, b"value", MINUTE).await.unwrap(), "{key}");
    }
    for key in ["days", "ever", "minute", "prolonged", "freed", "replaced"] {
        assert_eq!(cache.get(key).await.unwrap().as_deref(), Some(&b"value"[..]), "{key}");
    }
    assert!(cache.add("brief", b"value", MINUTE).await.unwrap(), "free again");
}

pub(crate) async fn lets_one_of_many_add(cache: Arc<dyn Cache>) {
    for round in 0..10 {
        let key = format!("raced-{round}");
        assert_eq!(adders(&cache, &key).await, 1);
    }
}

/// How many of 32 that add at once are told that theirs is the value. Who has lost finds a value from then on.
pub(crate) async fn adders(cache: &Arc<dyn Cache>, key: &str) -> usize {
    let mut racers = JoinSet::new();
    for racer in 0..32 {
        let (cache, key) = (cache.clone(), key.to_owned());
        racers.spawn(async move {
            let won = cache.add(&key, format!("{racer}").as_bytes(), MINUTE).await.unwrap();
            assert!(cache.get(&key).await.unwrap().is_some());
            won
        });
    }
    racers.join_all().await.into_iter().filter(|won| *won).count()
}

/// Many replace a value while one deletes it: whoever was first, it is gone in the end.
pub(crate) async fn brings_nothing_back(cache: Arc<dyn Cache>) {
    for _ in 0..25 {
        cache.set("logged-out", b"old", MINUTE).await.unwrap();
        let mut racers = JoinSet::new();
        for racer in 0..8 {
            let cache = cache.clone();
            racers.spawn(async move {
                match racer {
                    3 => drop(cache.delete("logged-out").await.unwrap()),
                    _ => drop(cache.replace("logged-out", b"new", MINUTE).await.unwrap()),
                }
            });
        }
        racers.join_all().await;
        assert_eq!(cache.get("logged-out").await.unwrap(), None);
    }
}

/// Stores that are dropped anywhere: what is found afterwards is one of the values, whole.
pub(crate) async fn keeps_whole_values(cache: &dyn Cache) {
    cache.set("whole", &[0; 50_000], MINUTE).await.unwrap();
    for round in 0..60u64 {
        let value = vec![round as u8; 20_000 + 1000 * round as usize];
        let patience = Duration::from_micros((round * 397) % 1500);
        let _dropped = if round % 2 == 0 {
            tokio::time::timeout(patience, cache.replace("whole", &value, MINUTE)).await.is_ok()
        } else {
            tokio::time::timeout(patience, cache.set("whole", &value, MINUTE)).await.is_ok()
        };
        let found = cache.get("whole").await.unwrap().expect("nobody deletes it");
        let of_round = u64::from(found[0]);
        let length = if of_round == 0 && found.len() == 50_000 { 50_000 } else { 20_000 + 1000 * of_round };
        assert_eq!(found.len() as u64, length);
        assert!(of_round <= round && found.iter().all(|byte| *byte == found[0]), "round {round}");
    }
}

/// 48 tasks at once, a third of whose calls are dropped half-way: each answer is to the question that was asked.
pub(crate) async fn mixes_no_answers_up(cache: Arc<dyn Cache>) {
    let mut tasks = JoinSet::new();
    for task in 0..48u64 {
        let cache = cache.clone();
        tasks.spawn(async move {
            let key = format!("task-{task}");
            cache.set(&key, key.as_bytes(), MINUTE).await.unwrap();
            for round in 0..30 {
                if round % 3 == 0 {
                    let patience = Duration::from_micros((task * 37 + round * 211) % 900);
                    let _dropped = tokio::time::timeout(patience, cache.get(&key)).await;
                    continue;
                }
                assert_eq!(cache.get(&key).await.unwrap().as_deref(), Some(key.as_bytes()));
            }
        });
    }
    tasks.join_all().await;
}

/// A door to a server that the test can shut.
pub(crate) struct Door {
    pub(crate) address: String,
    guests: Arc<tokio::sync::Mutex<JoinSet<()>>>,
}

impl Door {
    pub(crate) async fn to(port: u32) -> Self {
        let port = u16::try_from(port).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let guests = Arc::new(tokio::sync::Mutex::new(JoinSet::new()));
        let inside = guests.clone();
        tokio::spawn(async move {
            while let Ok((mut guest, _)) = listener.accept().await {
                inside.lock().await.spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    let _closed = copy_bidirectional(&mut guest, &mut server).await;
                });
            }
        });
        Self { address, guests }
    }

    /// Ends all connections, as a server that restarts. New ones are let in.
    pub(crate) async fn slam(&self) {
        self.guests.lock().await.shutdown().await;
    }
}

pub(crate) async fn survives_lost_connections(cache: &dyn Cache, door: &Door) {
    for value in [&b"1"[..], b"2", b"3"] {
        cache.set("lost", value, MINUTE).await.unwrap();
        door.slam().await;
        assert_eq!(cache.get("lost").await.unwrap().as_deref(), Some(value));
        door.slam().await;
        assert!(cache.replace("lost", b"again", MINUTE).await.unwrap());
        assert_eq!(cache.get("lost").await.unwrap().unwrap(), b"again");
    }
}

/// A way to a server on which one answer is lost, with the connection: that to the first question with `word` in it.
pub(crate) async fn losing_an_answer(port: u32, word: &'static [u8]) -> String {
    let port = u16::try_from(port).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let is_lost = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((mut guest, _)) = listener.accept().await {
            let is_lost = is_lost.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (mut question, mut answer) = ([0; 4096], [0; 4096]);
                loop {
                    tokio::select! {
                        Ok(length @ 1..) = guest.read(&mut question) => {
                            let question = &question[..length];
                            server.write_all(question).await.unwrap();
                            let has_word = question.windows(word.len()).any(|part| part == word);
                            if has_word && !is_lost.swap(true, Ordering::Relaxed) {
                                assert_ne!(server.read(&mut answer).await.unwrap(), 0);
                                return;
                            }
                        }
                        Ok(length @ 1..) = server.read(&mut answer) => guest.write_all(&answer[..length]).await.unwrap(),
                        else => return,
                    }
                }
            });
        }
    });
    address
}

/// Nobody has deleted the value but we. Over [`losing_an_answer`].
pub(crate) async fn owns_a_delete_whose_answer_is_lost(cache: &dyn Cache) {
    cache.set("lost", b"1", MINUTE).await.unwrap();
    assert!(cache.delete("lost").await.unwrap());
    assert_eq!(cache.get("lost").await.unwrap(), None);
    assert!(!cache.delete("lost").await.unwrap());
}

pub(crate) const SHORT: TimeLimits =
    TimeLimits { connect: Duration::from_millis(200), response: Duration::from_millis(200) };

/// A listener that accepts and says nothing, as a server that hangs; and its address.
pub(crate) async fn silence() -> (tokio::task::JoinHandle<()>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let mut guests = Vec::new();
        while let Ok((guest, _)) = listener.accept().await {
            guests.push(guest);
        }
    });
    (task, address)
}

/// A port on which nobody listens.
pub(crate) async fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

pub(crate) fn assert_soon(start: Instant) {
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

//! Each store's load and save beside the bare call of its driver, and the clearing of expired sessions.
//!
//! ```text
//! cargo bench --bench stores --features sqlite,postgres,mysql,redis,memcached,filebased,file [-- WORD...]
//! ```
//!
//! Only the measurements with one of the WORDs in their name are made. `ROUNDS` (60), `TASKS` (`1,16,256`), `SIZES`
//! (`200,5000,50000`), `MILLISECONDS` of one side in one round (10) and `EXPIRED` rows (1000000) are variables of the
//! environment; `ROUNDS=20 TASKS=1,64 SIZES=200,5000 EXPIRED=100000` takes about a minute.
//!
//! A round runs both sides, for the same time each and in turns who is first; the ratio is the median of the rounds'
//! ratios, so whatever else the machine does meets both. The bare call asks for, or writes, the same bytes: a `SELECT
//! session_data ... WHERE session_key = ?` over the same pool, a `GET` over a connection of the same kind, and so on. What
//! the store does besides is its work: the expiry, the signature, zlib, JSON or pickle. The floor is the bare call and what of
//! that work nobody goes without (`stores/floor.rs`): where it misses the target, every client does.

#[path = "stores/bare.rs"]
mod bare;
#[path = "stores/clear.rs"]
mod clear;
#[path = "stores/floor.rs"]
mod floor;
#[path = "../tests/rust/servers/mod.rs"]
#[allow(dead_code)]
mod servers;

use std::fmt;
use std::future::Future;
use std::hint::black_box;
use std::io::{IsTerminal, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use django_sessions::backends::SessionStore;
use django_sessions::caches::format::Format;
use django_sessions::crypto::SecretKeys;
use django_sessions::serializers::json::{Object, RawValue};
use django_sessions::session::{Codec, Data, Session, SessionKey};
use django_sessions::settings::Settings;
use floor::Floor;
use jiff::Timestamp;

/// The most that a store may take, in times of the bare call.
const TARGET: f64 = 1.15;

/// As many sessions, so that tasks at once seldom meet in one row.
const SESSIONS: usize = 512;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One side of a measurement: makes the call for the session of this number.
type Side = Arc<dyn Fn(usize) -> Work + Send + Sync>;

/// A side of an async closure that has what it needs.
fn side<F, W>(call: F) -> Side
where
    F: Fn(usize) -> W + Send + Sync + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |number| Box::pin(call(number)))
}

/// The environment's numbers.
struct Plan {
    rounds: usize,
    tasks: Vec<usize>,
    sizes: Vec<usize>,
    round: Duration,
    expired: u64,
    words: Vec<String>,
}

impl Plan {
    fn new() -> Self {
        let numbers = |name: &str, default: &str| -> Vec<usize> {
            let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
            let number =
                |part: &str| part.trim().parse().unwrap_or_else(|_| panic!("{name}={text} is no number"));
            text.split(',').map(number).collect()
        };
        Self {
            rounds: numbers("ROUNDS", "60")[0],
            tasks: numbers("TASKS", "1,16,256"),
            sizes: numbers("SIZES", "200,5000,50000"),
            round: Duration::from_millis(numbers("MILLISECONDS", "10")[0] as u64),
            expired: numbers("EXPIRED", "1000000")[0] as u64,
            words: std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect(),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word))
    }
}

/// A store with what is to be compared with it.
struct Measured {
    name: &'static str,
    store: Arc<dyn SessionStore>,
    bare: Arc<dyn bare::Bare>,
    /// Of a load, and of each of the values that a save stores.
    floors: (Floor, &'static [Floor]),
}

/// Lower quartile, median and upper quartile.
#[derive(Clone, Copy)]
struct Quartiles([f64; 3]);

impl Quartiles {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |quarter: usize| samples[(samples.len() - 1) * quarter / 4];
        Self([at(1), at(2), at(3)])
    }

    fn median(self) -> f64 {
        self.0[1]
    }
}

impl fmt::Display for Quartiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, median, high] = self.0;
        write!(f, "{median:7.1} ({low:.1}-{high:.1})")
    }
}

/// A line of the table: microseconds a call of each, and how many times the bare call the store and the floor take.
struct Row {
    name: String,
    store: Quartiles,
    bare: Quartiles,
    ratio: Quartiles,
    floor: Quartiles,
}

impl Row {
    fn verdict(&self) -> &'static str {
        match (self.ratio.median() <= TARGET, self.floor.median() <= TARGET) {
            (true, _) => "met",
            (false, true) => "MISSED",
            (false, false) => "out of reach",
        }
    }

    fn print(&self) {
        let times = |Quartiles([low, ratio, high])| format!("{ratio:.2}x ({low:.2}-{high:.2})");
        println!(
            "| {:<34} | {:>24} | {:>24} | {:>19} | {:>19} | {:<12} |",
            self.name,
            self.store,
            self.bare,
            times(self.ratio),
            times(self.floor),
            self.verdict()
        );
    }
}

/// Calls a side from so many tasks for so long. Returns the microseconds of wall time that one call took.
async fn run(side: &Side, tasks: usize, time: Duration) -> f64 {
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let workers: Vec<_> = (0..tasks)
        .map(|_| {
            let (side, next) = (Arc::clone(side), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    side(number % SESSIONS).await;
                    if start.elapsed() >= time {
                        return;
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no call fails");
    }
    let calls = next.load(Ordering::Relaxed);
    start.elapsed().as_secs_f64() * 1e6 / calls as f64
}

/// The sides in turns, and in turns who is first: the store, the bare call, the floor.
async fn compare(name: String, plan: &Plan, tasks: usize, sides: [&Side; 3]) -> Row {
    for side in sides {
        run(side, tasks, plan.round).await;
    }
    let mut samples: [Vec<f64>; 3] = Default::default();
    for round in 0..plan.rounds {
        progress(&format!("{name}: round {} of {}", round + 1, plan.rounds));
        for turn in 0..3 {
            let side = (round + turn) % 3;
            samples[side].push(run(sides[side], tasks, plan.round).await);
        }
    }
    progress("");
    let [store, bare, floor] = samples;
    let times_bare = |side: &[f64]| Quartiles::of(side.iter().zip(&bare).map(|(a, b)| a / b).collect());
    let (ratio, floor) = (times_bare(&store), times_bare(&floor));
    let row = Row { name, store: Quartiles::of(store), bare: Quartiles::of(bare), ratio, floor };
    row.print();
    row
}

/// A line of standard error that the next one replaces; nothing where nobody looks.
fn progress(text: &str) {
    let mut output = std::io::stderr();
    if output.is_terminal() {
        write!(output, "\r\x1b[K{text}").and_then(|()| output.flush()).expect("standard error is open");
    }
}

fn settings() -> Settings {
    Settings::new(SecretKeys::new("measured with a key of the usual length, of fifty."))
}

fn key(number: usize) -> SessionKey {
    SessionKey::new(format!("benchmark{number:023}")).expect("long enough")
}

/// A login, and a cart that fills the rest: repetitive as JSON is, but for the words in it.
fn session(size: usize) -> Session {
    let mut data = Data::from(
        Object::parse(
            br#"{"_auth_user_id":"1","_auth_user_backend":"django.contrib.auth.backends.ModelBackend"}"#,
        )
        .expect("JSON"),
    );
    let (mut cart, mut state) = (Vec::new(), 1u64);
    let mut length = data.to_json().expect("JSON").len();
    while length + 70 < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let item = format!(
            r#"{{"sku":"{:016x}","price":"{}.{:02}","quantity":{}}}"#,
            state,
            state % 900,
            state % 100,
            1 + state % 9
        );
        length += item.len() + 1;
        cart.push(item);
    }
    data.insert("cart", RawValue::from_text(format!("[{}]", cart.join(","))).expect("JSON"));
    Session::with_data(None, data)
}

/// Loads and saves of one store, in each size and with each number of tasks.
async fn measure(measured: &Measured, plan: &Plan, rows: &mut Vec<Row>) {
    for &size in &plan.sizes {
        let content = Arc::new(session(size));
        for number in 0..SESSIONS {
            let key = key(number);
            measured.store.delete(&key).await.expect("the server is there");
            assert!(measured.store.insert(&key, &content).await.expect("the server is there"));
        }
        let stored = Arc::new(measured.bare.stored().await);
        let store = Arc::clone(&measured.store);
        let load = side(move |number| {
            let store = Arc::clone(&store);
            async move {
                let session = store.load(&key(number)).await.expect("the server is there");
                assert!(session.contains_key("cart"));
            }
        });
        let bare = Arc::clone(&measured.bare);
        let get = side(move |number| {
            let bare = Arc::clone(&bare);
            async move { assert!(!bare.get(number).await.is_empty()) }
        });
        let (of_load, of_save) = measured.floors;
        let bare = Arc::clone(&measured.bare);
        let read = side(move |number| {
            let bare = Arc::clone(&bare);
            async move { (of_load.read)(&bare.get(number).await) }
        });
        // As a request does it: what was loaded goes back with one value changed.
        let mut changed = measured.store.load(&key(0)).await.expect("the server is there");
        changed.insert("visits", &3).expect("a number has a JSON form");
        let (store, changed) = (Arc::clone(&measured.store), Arc::new(changed));
        let save = side(move |number| {
            let (store, changed) = (Arc::clone(&store), Arc::clone(&changed));
            async move { assert!(store.update(&key(number), &changed).await.expect("the server is there")) }
        });
        let contents: Arc<Vec<_>> =
            Arc::new(of_save.iter().zip(&*stored).map(|(floor, stored)| (floor.content)(stored)).collect());
        let (bare, bytes) = (Arc::clone(&measured.bare), Arc::clone(&stored));
        let set = side(move |number| {
            let (bare, bytes) = (Arc::clone(&bare), Arc::clone(&bytes));
            async move { bare.set(number, &bytes).await }
        });
        let bare = Arc::clone(&measured.bare);
        let write = side(move |number| {
            let (bare, bytes, contents) = (Arc::clone(&bare), Arc::clone(&stored), Arc::clone(&contents));
            async move {
                of_save.iter().zip(&*contents).for_each(|(floor, content)| (floor.write)(content));
                bare.set(number, &bytes).await
            }
        });
        for &tasks in &plan.tasks {
            for (operation, sides) in [("load", [&load, &get, &read]), ("save", [&save, &set, &write])] {
                let plural = if tasks == 1 { "" } else { "s" };
                let name = format!("{} {operation}, {size} B, {tasks} task{plural}", measured.name);
                rows.push(compare(name, plan, tasks, sides).await);
            }
        }
    }
}

/// What the stores do besides their driver's call: the signed text of databases and files, the pickle of caches.
fn own_work(plan: &Plan) {
    println!("Microseconds of the store's own work, without any driver: median (quartiles)\n");
    println!(
        "| {:<10} | {:>22} | {:>22} | {:>22} | {:>22} |",
        "", "signed text: read", "write", "pickle: read", "write"
    );
    println!("|{:-<12}|{:->23}:|{:->23}:|{:->23}:|{:->23}:|", "", "", "", "", "");
    let (codec, format, now) = (Codec::new(&settings()), Format::django(), Timestamp::now());
    let time = |work: &dyn Fn()| {
        let once = |_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e6
        };
        let samples = (0..200).map(once).collect();
        Quartiles::of(samples).to_string()
    };
    for &size in &plan.sizes {
        let text = codec.encode(&session(size), now).expect("it has a JSON form");
        let mut of_text = Session::with_data(None, codec.decode(&text).expect("it was just signed"));
        of_text.insert("visits", &3).expect("a number has a JSON form");
        let pickle = format.dumps(session(size).data()).expect("it has a pickled form");
        let mut of_pickle = Session::with_data(None, format.loads(&pickle).expect("it was just pickled"));
        of_pickle.insert("visits", &3).expect("a number has a JSON form");
        let columns = [
            time(&|| drop(black_box(codec.decode(black_box(&text))))),
            time(&|| drop(black_box(codec.encode(black_box(&of_text), now)))),
            time(&|| drop(black_box(format.loads(black_box(&pickle))))),
            time(&|| drop(black_box(format.dumps(black_box(of_pickle.data()))))),
        ];
        let [a, b, c, d] = columns;
        println!("| {:<10} | {a:>22} | {b:>22} | {c:>22} | {d:>22} |", format!("{size} B"));
    }
    println!();
}

fn main() {
    // `cargo test --all-targets` runs benches too, without this word.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    if cfg!(debug_assertions) {
        panic!("numbers of an unoptimised build mean nothing: use `cargo bench`");
    }
    let plan = Plan::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    own_work(&plan);
    runtime.block_on(async {
        println!(
            "Microseconds a call, median (quartiles) of {} rounds; target: at most {TARGET}x\n",
            plan.rounds
        );
        println!(
            "| {:<34} | {:>24} | {:>24} | {:>19} | {:>19} | {:<12} |",
            "", "store", "bare client", "store, times it", "floor, times it", "target"
        );
        println!("|{:-<36}|{:->25}:|{:->25}:|{:->20}:|{:->20}:|{:-<14}|", "", "", "", "", "", "");
        let mut rows = Vec::new();
        bare::each_store(&plan, &mut rows).await;
        let count = |verdict| rows.iter().filter(|row| row.verdict() == verdict).count();
        let [met, missed, beyond] = ["met", "MISSED", "out of reach"].map(count);
        println!("\nOf {} rows {met} met, {missed} missed, {beyond} out of any client's reach\n", rows.len());
        clear::each_database(&plan).await;
    });
}

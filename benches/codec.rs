//! Session data encoded and decoded in Rust and, in the same run, by Django in a child process; prints the ratios.
//!
//! `cargo bench --bench codec` wants an interpreter that has Django: `.venv/bin/python` (of `make build`), or `PYTHON`.

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use django_sessions::crypto::SecretKeys;
use django_sessions::serializers::json::Object;
use django_sessions::session::{Codec, Session};
use django_sessions::settings::Settings;
use jiff::Timestamp;

/// `django_side.py`, which answers each line with a line.
struct Django {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    version: String,
}

impl Django {
    fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = std::env::var_os("PYTHON").unwrap_or_else(|| root.join(".venv/bin/python").into());
        let mut child = Command::new(&python)
            .arg(root.join("benches/django_side.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; run `make build`, or set PYTHON", python.display()));
        let questions = child.stdin.take().expect("its input is piped");
        let answers = BufReader::new(child.stdout.take().expect("its output is piped"));
        let mut django = Self { child, questions, answers, version: String::new() };
        django.version = django.answer();
        django
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.questions, "{question}").expect("Django listens");
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("Django answers in UTF-8");
        assert!(
            !line.is_empty(),
            "Django ended early; is it installed in the interpreter that PYTHON names?"
        );
        line.trim_end().to_owned()
    }
}

impl Drop for Django {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Measures `run`, which does its work so many times, and returns the median of the nanoseconds for one.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    side: &str,
    mut run: impl FnMut(u64) -> Duration,
) -> f64 {
    let samples = RefCell::new(Vec::new());
    group.bench_function(side, |bencher| {
        bencher.iter_custom(|iterations| {
            let elapsed = run(iterations);
            samples.borrow_mut().push(elapsed.as_nanos() as f64 / iterations as f64);
            elapsed
        });
    });
    let mut samples = samples.into_inner();
    samples.sort_by(f64::total_cmp);
    // Empty when a filter on the command line leaves this one out.
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

fn timed(iterations: u64, mut once: impl FnMut(u64)) -> Duration {
    let start = Instant::now();
    (0..iterations).for_each(&mut once);
    start.elapsed()
}

fn main() {
    // `cargo test --all-targets` runs benches too, without this word.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    if cfg!(debug_assertions) {
        panic!("numbers of an unoptimised build mean nothing: use `cargo bench`");
    }
    let mut django = Django::start();
    let mut criterion = Criterion::default()
        .sample_size(40)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();

    let secret_keys = SecretKeys::new("measured with a key of the usual length, of fifty.");
    let codec = Codec::new(&Settings::new(secret_keys));
    let now = Timestamp::from_second(1_790_000_000).expect("a moment of 2026");
    let mut ratios = Vec::new();

    for name in ["login", "cart", "large"] {
        let text = django.ask(&format!("payload {name}"));
        let mut session =
            Session::with_data(None, Object::parse(text.as_bytes()).expect("Django wrote JSON"));
        let signed = codec.encode(&session, now).expect("Django wrote JSON");

        let mut group = criterion.benchmark_group(format!("encode {name}"));
        let rust = measure(&mut group, "rust", |iterations| {
            timed(iterations, |visit| {
                session.insert("visits", &visit).expect("a number has a JSON form");
                black_box(codec.encode(&session, now).expect("Django wrote JSON"));
            })
        });
        let django_time = measure(&mut group, "django", |iterations| {
            Duration::from_nanos(
                django.ask(&format!("encode {name} {iterations}")).parse().expect("nanoseconds"),
            )
        });
        group.finish();
        ratios.push((format!("encode {name}"), text.len(), django_time, rust));

        let mut group = criterion.benchmark_group(format!("decode {name}"));
        let rust = measure(&mut group, "rust", |iterations| {
            timed(iterations, |_| {
                let session =
                    Session::with_data(None, codec.decode(black_box(&signed)).expect("it was just signed"));
                black_box(session.get::<String>("_auth_user_id").expect("text"));
            })
        });
        let django_time = measure(&mut group, "django", |iterations| {
            Duration::from_nanos(
                django.ask(&format!("decode {name} {iterations}")).parse().expect("nanoseconds"),
            )
        });
        group.finish();
        ratios.push((format!("decode {name}"), text.len(), django_time, rust));
    }

    println!("\nmicroseconds (medians), {} beside Rust:", django.version);
    for (what, bytes, django, rust) in ratios {
        let (django_us, rust_us) = (django / 1000.0, rust / 1000.0);
        println!(
            "{what:13} {bytes:6} bytes  {django_us:9.1}  {rust_us:8.1}  {:5.2} times as fast",
            django / rust
        );
    }
    criterion.final_summary();
}

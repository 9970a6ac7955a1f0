//! One Django for all tests of a program, and generated cases for it and Rust.

use std::sync::{Mutex, OnceLock};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

use crate::django::{Answer, Django};

pub(crate) fn django() -> Option<&'static Mutex<Django>> {
    static DJANGO: OnceLock<Option<Mutex<Django>>> = OnceLock::new();
    DJANGO.get_or_init(|| Django::start().map(Mutex::new)).as_ref()
}

pub(crate) fn ask(question: &Value) -> Answer {
    django().expect("asked for at the start of the test").lock().unwrap().ask(question)
}

/// Runs at least `cases` of them; `PROPTEST_CASES` asks for more.
pub(crate) fn run<S: Strategy>(
    cases: u32,
    strategy: S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    if django().is_none() {
        return;
    }
    let cases = Config::default().cases.max(cases);
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
        .run(&strategy, test)
        .unwrap();
}

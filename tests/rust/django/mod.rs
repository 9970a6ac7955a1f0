//! A real Django in a child process, to be asked what it makes of the same input.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// Whether scripts can import the package.
#[allow(dead_code)] // as below
pub(crate) fn is_built() -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    let is_built = python.exists()
        && Command::new(&python)
            .args(["-c", "import django_rust_sessions"])
            .stderr(Stdio::null())
            .status()
            .expect("the environment's Python starts")
            .success();
    if !is_built {
        let why = "the Python package is not built: run `make build`";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        writeln!(std::io::stderr(), "\nSKIPPED: {why}").expect("standard error is open");
    }
    is_built
}

pub(crate) struct Django {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Django {
    /// Starts Django from the project's environment. Without one it says so and returns `None`: the test has nothing
    /// to compare with then. With `CI=true` that is a failure.
    #[allow(dead_code)] // not every test that shares this module
    pub(crate) fn start() -> Option<Self> {
        Self::start_script("child.py")
    }

    /// The same with another of the scripts beside this file.
    #[allow(dead_code)] // as above
    pub(crate) fn start_script(name: &str) -> Option<Self> {
        Self::start_with(name, &[])
    }

    /// The same with arguments.
    pub(crate) fn start_with(name: &str, arguments: &[&str]) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join(".venv/bin/python");
        if !python.exists() {
            let why = "Django is not installed: run `make venv`";
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
            writeln!(std::io::stderr(), "\nSKIPPED: {why}").expect("standard error is open");
            return None;
        }
        let mut child = Command::new(python)
            .arg(root.join("tests/rust/django").join(name))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the environment's Python starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Some(Self { child, input, output })
    }

    #[allow(dead_code)]
    pub(crate) fn ask(&mut self, question: &Value) -> Answer {
        let answer = self.ask_json(question);
        let text = |field: &str| answer[field].as_str().map(str::to_owned);
        match text("error") {
            Some(error) => Err(error),
            None => Ok(text("value").or_else(|| text("token")).expect("a value or a token")),
        }
    }

    pub(crate) fn ask_json(&mut self, question: &Value) -> Value {
        let input = self.input.as_mut().expect("open until the drop");
        writeln!(input, "{question}").expect("Django listens");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("Django answers");
        serde_json::from_str(&line).expect("Django answers in JSON")
    }
}

/// JSON text or a token, or the class of what Django raised.
#[allow(dead_code)]
pub(crate) type Answer = Result<String, String>;

impl Drop for Django {
    fn drop(&mut self) {
        drop(self.input.take());
        self.child.wait().expect("Django ends with its input");
    }
}

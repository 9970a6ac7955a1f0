//! Private servers for Rust tests: `tests/servers.py`, which Python's tests use too, starts them.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// Servers that are there until this value is dropped, or until this process ends in whatever way.
pub(crate) struct Servers {
    keeper: Child,
    addresses: Value,
}

impl Servers {
    /// Starts servers by name. Where one is not installed it says so and returns `None`: the test has nothing
    /// to do then. With `CI=true` that is a failure.
    pub(crate) fn start(names: &[&str]) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let venv = root.join(".venv/bin/python");
        let python = if venv.exists() { venv.as_path() } else { Path::new("python3") };
        let mut keeper = Command::new(python)
            .arg(root.join("tests/servers.py"))
            .arg("run")
            .args(names)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/servers.py needs Python 3.11 or newer: run `make venv`");
        let mut answer = String::new();
        let stdout = keeper.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut answer).expect("tests/servers.py answers with a line");
        let addresses =
            serde_json::from_str(&answer).expect("tests/servers.py failed and said why on standard error");
        let servers = Self { keeper, addresses };

        let missing = names.iter().find_map(|name| servers.addresses[name]["missing"].as_str());
        if let Some(why) = missing {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
            // Straight to standard error: cargo shows what is printed only when a test fails.
            writeln!(std::io::stderr(), "\nSKIPPED: {why}").expect("standard error is open");
            return None;
        }
        Some(servers)
    }

    /// A detail of a server: "url", "host", "socket", "folder" and so on.
    pub(crate) fn text(&self, name: &str, detail: &str) -> &str {
        let value = &self.addresses[name][detail];
        value.as_str().unwrap_or_else(|| panic!("{name} has no {detail}: {}", self.addresses))
    }

    /// A detail of a server that is a number: "port" or "pid".
    pub(crate) fn number(&self, name: &str, detail: &str) -> u32 {
        let value = self.addresses[name][detail].as_u64();
        value
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or_else(|| panic!("{name} has no {detail}: {}", self.addresses))
    }
}

impl Servers {
    /// A detail of each server of a group: "ports" or "pids".
    #[allow(dead_code, reason = "only groups have them")]
    pub(crate) fn numbers(&self, name: &str, detail: &str) -> Vec<u32> {
        let values = self.addresses[name][detail].as_array();
        let numbers =
            values.map(|values| values.iter().map(|value| value.as_u64()?.try_into().ok()).collect());
        numbers.flatten().unwrap_or_else(|| panic!("{name} has no {detail}: {}", self.addresses))
    }

    /// The socket of each server of a group that has one.
    #[allow(dead_code, reason = "only groups have them")]
    pub(crate) fn sockets(&self, name: &str) -> Vec<&str> {
        let values = self.addresses[name]["sockets"].as_array().expect("a group");
        values.iter().filter_map(Value::as_str).collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // The keeper stops everything when its standard input closes.
        drop(self.keeper.stdin.take());
        self.keeper.wait().expect("the keeper of the servers can be waited for");
    }
}

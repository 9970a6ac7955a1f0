//! Signals to the servers of a test.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Sends a signal by its name to a process and to those that it started: PostgreSQL has one for each connection.
/// `kill` does not wait, and a thread on another core may answer a last time: after `STOP` and `KILL`, none runs here.
pub(crate) fn signal(pid: u32, name: &str) {
    let family = family(pid);
    // Those that ended meanwhile are no concern.
    let pids = family.iter().map(u32::to_string);
    Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null()).status().unwrap();
    let rests = match name {
        "STOP" => "TtZX",
        "KILL" => "ZX",
        _ => return,
    };
    let start = Instant::now();
    while family.iter().any(|pid| states(*pid).chars().any(|state| !rests.contains(state))) {
        assert!(start.elapsed() < Duration::from_secs(10), "{family:?} still run after SIG{name}");
        sleep(Duration::from_millis(1));
    }
}

fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if status.contains(&format!("\nPPid:\t{pid}\n")) {
            family.push(child);
        }
    }
    family
}

/// The state of each thread of a process, in the letters of proc(5).
fn states(pid: u32) -> String {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let statistics = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    // The name before it, in parentheses, may hold anything.
    statistics.filter_map(|line| line.rsplit_once(") ")?.1.chars().next()).collect()
}

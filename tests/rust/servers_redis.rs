//! The private servers of Rust tests: they answer, they are ours alone, and nothing of them stays.

#[path = "servers/mod.rs"]
mod servers;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use servers::Servers;

fn connect(port: u32) -> std::io::Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", u16::try_from(port).expect("a port")))
}

/// Sends one command in Redis's inline form and returns the answer's first line and, of a value, the value.
fn ask(port: u32, command: &str) -> String {
    let mut stream = connect(port).expect("the server accepts connections");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
    write!(stream, "{command}\r\n").expect("the command is sent");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("the server answers");
    let Some(length) = line.trim_end().strip_prefix('$').and_then(|text| text.parse::<usize>().ok()) else {
        return line.trim_end().to_owned();
    };
    let mut value = vec![0; length];
    reader.read_exact(&mut value).expect("the value follows");
    String::from_utf8(value).expect("the value is text")
}

/// Whether the process is there; one that has ended and that nobody has waited for is not.
fn is_running(pid: u32) -> bool {
    let shown = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().expect("ps runs");
    let state = String::from_utf8_lossy(&shown.stdout);
    !state.trim().is_empty() && !state.starts_with('Z')
}

fn is_refused(port: u32) -> bool {
    connect(port).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn assert_gone(pid: u32, port: u32, folder: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_gone = || !is_running(pid) && is_refused(port) && !Path::new(folder).exists();
    while !is_gone() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!is_running(pid), "process {pid} is still there");
    assert!(is_refused(port), "port {port} still accepts connections");
    assert!(!Path::new(folder).exists(), "{folder} is still there");
}

#[test]
fn redis_answers_and_is_private() {
    let (Some(one), Some(other)) = (Servers::start(&["redis"]), Servers::start(&["redis"])) else { return };
    let (port, other_port) = (one.number("redis", "port"), other.number("redis", "port"));
    assert_eq!(one.text("redis", "url"), format!("redis://127.0.0.1:{port}/0"));
    assert_eq!(ask(port, "PING"), "+PONG");
    assert_eq!(ask(port, "SET greeting hello"), "+OK");
    assert_eq!(ask(port, "GET greeting"), "hello");
    assert_ne!(port, other_port);
    assert_ne!(one.text("redis", "folder"), other.text("redis", "folder"));
    assert_eq!(ask(other_port, "EXISTS greeting"), ":0");
}

#[test]
fn nothing_is_left_after_drop() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let (pid, port) = (servers.number("redis", "pid"), servers.number("redis", "port"));
    let folder = servers.text("redis", "folder").to_owned();
    assert!(is_running(pid) && Path::new(&folder).is_dir());
    drop(servers);
    assert_gone(pid, port, &folder);
}

/// Not a test of its own: the next one starts it in a process that it can kill.
#[test]
#[ignore = "waits to be killed by nothing_is_left_when_the_test_is_killed"]
fn hold_a_server() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let (pid, port) = (servers.number("redis", "pid"), servers.number("redis", "port"));
    println!("\nholding {pid} {port} {}", servers.text("redis", "folder"));
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn nothing_is_left_when_the_test_is_killed() {
    if Servers::start(&["redis"]).is_none() {
        return;
    }
    let mut holder = Command::new(std::env::current_exe().expect("a test knows its program"))
        .args(["--exact", "hold_a_server", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a test can start itself");
    let lines = BufReader::new(holder.stdout.take().expect("stdout is piped")).lines();
    let held = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("holding ").map(str::to_owned))
        .expect("the holder says what it holds");
    let words: Vec<&str> = held.split(' ').collect();
    let number = |text: &str| text.parse::<u32>().expect("a number");
    let (pid, port, folder) = (number(words[0]), number(words[1]), words[2]);
    assert_eq!(ask(port, "PING"), "+PONG");
    holder.kill().expect("the holder can be killed");
    holder.wait().expect("the holder has ended");
    assert_gone(pid, port, folder);
}

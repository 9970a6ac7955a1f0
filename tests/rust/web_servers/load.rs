//! Nobody ever gets another's session: many browsers at once, which hang up at random.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::dice::Dice;
use super::*;

const BROWSERS: usize = 40;

/// What the servers say of what went wrong.
static ERRORS: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Errors;

impl Write for Errors {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        ERRORS.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Counts {
    answered: AtomicUsize,
    dropped: AtomicUsize,
    failed: AtomicUsize,
}

/// One browser, which knows who it is.
struct Browser {
    name: String,
    address: SocketAddr,
    client: Option<Client>,
    cookies: BTreeMap<&'static str, String>,
    /// How often it may have been there.
    attempted: u64,
}

impl Browser {
    fn head(&self) -> String {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("Cookie: {}\r\n", cookies.join("; "))
    }

    fn keep_cookies(&mut self, reply: &Reply) {
        for name in ["sessionid", "csrftoken"] {
            if let Some(value) = reply.cookie(name) {
                self.cookies.insert(name, value);
            }
        }
    }

    async fn client(&mut self) -> &mut Client {
        if self.client.is_none() {
            self.client = Some(Client::connect(self.address).await);
        }
        self.client.as_mut().unwrap()
    }

    async fn log_in(&mut self) {
        let head = self.head();
        let reply = self.client().await.get("/token", &head).await;
        self.keep_cookies(&reply);
        let head = format!("{}X-CSRFToken: {}\r\n", self.head(), reply.text());
        let path = format!("/login/{}", self.name);
        let mut reply = self.client().await.ask("POST", &path, &head, b"").await;
        while reply.status == 500 {
            reply = self.client().await.ask("POST", &path, &head, b"").await;
        }
        assert_eq!(reply.status, 200, "{}: {reply:?}", self.name);
        self.keep_cookies(&reply);
        self.attempted = 0;
    }

    async fn visit(&mut self, dice: &mut Dice, counts: &Counts) {
        let head = self.head();
        self.attempted += 1;
        self.client().await.send("GET", "/visit", &head, b"").await;
        if dice.below(4) == 0 {
            // At once, while it is answered, or afterwards.
            if dice.below(2) == 0 {
                tokio::time::sleep(Duration::from_micros(dice.below(3_000))).await;
            }
            self.client.take().unwrap().hang_up(dice.below(2) == 0);
            counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let reply = self.client().await.try_reply().await.expect("the server answers");
        counts.answered.fetch_add(1, Ordering::Relaxed);
        if reply.status == 500 {
            // Each of those who hang up may cost the database a connection: it may take its time to make new ones.
            counts.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        assert_eq!(reply.status, 200, "{reply:?}");
        let text = reply.text();
        let (owner, visits) = text.split_once(' ').unwrap();
        assert_eq!(owner, self.name, "another's session");
        let visits: u64 = visits.parse().unwrap();
        assert!((1..=self.attempted).contains(&visits), "{visits} visits of {} attempts", self.attempted);
        if let Some(key) = reply.cookie("sessionid") {
            assert_eq!(Some(&key), self.cookies.get("sessionid"), "the key is the browser's own");
        }
    }
}

async fn browse(address: SocketAddr, number: usize, requests: usize, counts: Arc<Counts>) {
    let mut dice = Dice(number as u64 * 7919 + 1);
    let name = format!("browser-{number}");
    let cookies = BTreeMap::new();
    let mut browser = Browser { name, address, client: None, cookies, attempted: 0 };
    browser.log_in().await;
    for _ in 0..requests {
        match dice.below(200) {
            0 => browser.log_in().await,
            _ => browser.visit(&mut dice, &counts).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_another_s_session() {
    let Some(servers) = Servers::start(&["redis", "postgres"]) else { return };
    let requests = if std::env::var_os("PROPTEST_CASES").is_some() { 200_000 } else { 20_000 };
    let errors = tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_ansi(false);
    // Unless another test listens already.
    let _ours = errors.with_writer(|| Errors).try_init();
    let counts = Arc::new(Counts::default());
    for store in [on_redis(&servers).await, on_postgres(&servers).await] {
        for kind in KINDS {
            let app = App::start(kind, store.clone(), settings()).await;
            let each = requests / 4 / BROWSERS + 1;
            let mut browsers = JoinSet::new();
            for number in 0..BROWSERS {
                browsers.spawn(browse(app.address, number, each, counts.clone()));
            }
            browsers.join_all().await;
            // Afterwards, all is as before.
            let mut client = Client::connect(app.address).await;
            for _ in 0..50 {
                assert_eq!(client.get("/visit", "").await.status, 200, "{kind:?}");
            }
        }
    }
    let [answered, dropped, failed] =
        [&counts.answered, &counts.dropped, &counts.failed].map(|count| count.load(Ordering::Relaxed));
    let errors = String::from_utf8_lossy(&ERRORS.lock().unwrap()).into_owned();
    println!("{answered} answered, {dropped} dropped, {failed} failed");
    assert!(answered + dropped >= requests * 95 / 100 && dropped > requests / 10, "{answered}, {dropped}");
    assert!(failed * 50 <= answered, "{failed} failed: {errors}");
    let others = errors
        .lines()
        .find(|line| line.contains("could not be read or saved") && !line.contains("timed out"));
    assert_eq!(others, None, "nothing fails but what takes too long");
}

//! The program `django-sessions`, on what real Django releases signed.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use django_sessions::crypto::SecretKeys;
use django_sessions::serializers::json::Object;
use django_sessions::session::SessionKey;
use django_sessions::signing::TimestampSigner;
use jiff::Timestamp;
use serde_json::{Value, json};

const KEY: &str = "test-vectors-secret-key-that-guards-nothing";
const OLD_KEY: &str = "test-vectors-old-secret-key-rotated-away";

/// One run of the program.
struct Run {
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

/// What it said.
struct Said {
    code: i32,
    output: String,
    errors: String,
}

impl Run {
    fn inspect(arguments: &[&str]) -> Self {
        let arguments = ["inspect"].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
        Self { arguments, environment: vec![("DJANGO_SECRET_KEY", KEY.to_owned())] }
    }

    fn with_key(mut self, key: &str) -> Self {
        self.environment[0].1 = key.to_owned();
        self
    }

    fn with_fallbacks(mut self, fallbacks: &str) -> Self {
        self.environment.push(("DJANGO_SECRET_KEY_FALLBACKS", fallbacks.to_owned()));
        self
    }

    fn on(&self, input: impl AsRef<[u8]>) -> Said {
        let mut program = Command::new(env!("CARGO_BIN_EXE_django-sessions"))
            .args(&self.arguments)
            .env_remove("DJANGO_SECRET_KEY_FALLBACKS")
            .env_remove("DJANGO_SESSIONS_FILE")
            .env_remove("SECRET_KEY")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = program.stdin.take().unwrap();
        let input = input.as_ref().to_vec();
        // Aside, or both sides could wait for the other with full pipes; and a program that ends early reads nothing.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = program.wait_with_output().unwrap();
        writer.join().unwrap();
        Said {
            code: output.status.code().expect("it ends by itself"),
            output: String::from_utf8(output.stdout).unwrap(),
            errors: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A site whose sessions are in files of its first folder, and were in its second.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new(folders: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &&str| {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            json!({"session_engine": "file", "session_file_path": path})
        };
        let mut paths = folders.iter().map(path);
        let mut settings = paths.next().unwrap();
        settings["version"] = json!(1);
        settings["secret_key"] = json!(KEY);
        if let Some(old) = paths.next() {
            settings["fallback"] = old;
        }
        drop(paths);
        fs::write(folder.path().join("sessions.json"), settings.to_string()).unwrap();
        Self { folder }
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Run {
        let mut run =
            Run::inspect(&["--settings", self.folder.path().join("sessions.json").to_str().unwrap()]);
        run.arguments[0] = command.to_owned();
        run.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        run
    }

    /// What Django stores of a session in which this user is logged in.
    fn session(&self, user: &str) -> String {
        let signer = TimestampSigner::new(&SecretKeys::new(KEY), "django.contrib.sessions.SessionStore");
        let payload = json!({"_auth_user_id": user}).to_string().replace('\u{9b}', "\\u009b");
        signer.sign_object(payload.as_bytes(), false, Timestamp::now())
    }

    fn path(&self, store: &str, key: &str) -> PathBuf {
        self.folder.path().join(store).join(format!("sessionid{key}"))
    }

    fn write(&self, store: &str, session_data: &str) -> String {
        let key = SessionKey::random().unwrap().as_str().to_owned();
        fs::write(self.path(store, &key), session_data).unwrap();
        key
    }

    fn has(&self, store: &str, key: &str) -> bool {
        self.path(store, key).exists()
    }
}

impl Said {
    fn read(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.errors);
        self
    }

    /// It was refused, with all of these words, and nothing of the session was printed.
    fn refused(&self, words: &[&str]) {
        assert_eq!((self.code, self.output.as_str()), (1, ""), "{}", self.errors);
        for word in words {
            assert!(self.errors.contains(word), "{word:?} is missing: {}", self.errors);
        }
    }
}

fn release(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/django-{name}.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn vector<'a>(release: &'a Value, list: &str, name: &str) -> &'a Value {
    let vectors = release[list].as_array().unwrap();
    vectors.iter().find(|vector| vector["name"] == name).unwrap_or_else(|| panic!("no vector {name}"))
}

fn token<'a>(release: &'a Value, list: &str, name: &str) -> &'a str {
    vector(release, list, name)["token"].as_str().unwrap()
}

/// JSON without the white space between its tokens.
fn compact(text: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    text.chars()
        .filter(|c| {
            let kept = in_string || !c.is_ascii_whitespace();
            in_string = if in_string { escaped || *c != '"' } else { *c == '"' };
            escaped = in_string && !escaped && *c == '\\';
            kept
        })
        .collect()
}

/// The payload in a vector as the program writes it: of equal keys the last, and latin-1 characters as escapes.
fn expected(payload: &str) -> String {
    let latin_1: Vec<u8> = payload.chars().map(|c| u8::try_from(c).expect("latin-1")).collect();
    let text = Object::parse(&latin_1).unwrap().to_vec();
    text.into_iter()
        .map(|byte| if byte < 0x7f { char::from(byte).to_string() } else { format!("\\u00{byte:02x}") })
        .collect()
}

#[test]
fn sessions_of_every_engine_are_printed_to_the_letter() {
    let mut count = 0;
    for release in ["3.1", "4.2", "6.1"].map(release) {
        for vector in release["valid"].as_array().unwrap() {
            let text = |field: &str| vector[field].as_str();
            let (Some(token), Some(payload), Some(salt)) = (text("token"), text("payload"), text("salt"))
            else {
                continue;
            };
            let Some(class_name) = salt.strip_prefix("django.contrib.sessions.") else { continue };
            // Kilobytes suffice here; tests/rust/vectors.rs reads the megabytes.
            if payload.len() > 10_000 {
                continue;
            }
            let fallbacks = vector["fallback_keys"].as_array().cloned().unwrap_or_default();
            let fallbacks: Vec<_> = fallbacks.iter().map(|key| key.as_str().unwrap()).collect();
            let run = Run::inspect(&["--show-secrets", "--class-name", class_name])
                .with_key(text("secret_key").unwrap_or(KEY))
                .with_fallbacks(&fallbacks.join("\n"));
            let said = run.on(token).read();
            assert_eq!(compact(&said.output), compact(&expected(payload)), "{}", vector["name"]);
            assert!(said.errors.contains(salt), "{}", said.errors);
            count += 1;
        }
    }
    assert!(count > 100, "only {count} vectors");
}

#[test]
fn odd_numbers_are_shown_as_they_stand() {
    let release = release("6.1");
    let tokens = release["valid"].as_array().unwrap().iter().filter(|vector| vector["kind"] == "db");
    let printed: String = tokens
        .filter_map(|vector| vector["token"].as_str().filter(|token| token.len() < 10_000))
        .map(|token| Run::inspect(&[]).on(token).output)
        .collect();
    for text in ["NaN", "-Infinity", "1180591620717411303424", "1.0", "1e+16", "\\ud83"] {
        assert!(printed.contains(text), "{text}");
    }
}

#[test]
fn says_what_it_found() {
    let release = release("6.1");
    let said = Run::inspect(&[]).on(format!("{}\n", token(&release, "valid", "login/db"))).read();
    for words in
        ["HMAC-SHA256, compressed", "SECRET_KEY\n", "2023-11-14T22:13:20Z", "days ago", "content 171 bytes"]
    {
        assert!(said.errors.contains(words), "{words}: {}", said.errors);
    }
    assert!(said.output.starts_with("{\n  \"_auth_user_id\": \"7\",\n"), "{}", said.output);
    let said = Run::inspect(&[]).on(token(&release, "valid", "empty/db")).read();
    assert!(said.errors.contains("HMAC-SHA256, not compressed"), "{}", said.errors);
    assert_eq!(said.output, "{}\n");
}

#[test]
fn what_lets_its_reader_act_for_the_user_is_masked() {
    let release = release("6.1");
    let login = token(&release, "valid", "login/db");
    let hash = release["header"]["auth"]["session_auth_hash"].as_str().unwrap();
    let said = Run::inspect(&[]).on(login).read();
    assert!(!said.output.contains(hash) && !said.errors.contains(hash));
    assert!(said.output.contains("\"_auth_user_hash\": \"********\""), "{}", said.output);
    assert!(said.errors.contains("masked:     _auth_user_hash (--show-secrets"), "{}", said.errors);
    let said = Run::inspect(&["--show-secrets"]).on(login).read();
    assert!(said.output.contains(hash) && !said.errors.contains("masked"), "{}", said.errors);

    // An escape in a key hides nothing; other tokens are masked too.
    let signer = TimestampSigner::new(&SecretKeys::new(KEY), "django.contrib.sessions.SessionStore");
    let payload = br#"{"\u005fauth_user_hash":"s3cret","_csrftoken":"s3cret","_password_reset_token":["s3cret"],"a":1}"#;
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    let said = Run::inspect(&[]).on(signer.sign_object(payload, false, now)).read();
    assert!(!said.output.contains("s3cret") && said.output.contains("\"a\": 1"), "{}", said.output);
}

/// What would paint, or worse: as control characters of ASCII, of UTF-8 and of latin-1.
const ESCAPE: &str = "\u{1b}[31m\u{9b}2J";

#[test]
fn nothing_of_a_session_commands_the_terminal() {
    let signer = TimestampSigner::new(&SecretKeys::new(KEY), "django.contrib.sessions.SessionStore");
    let payload = b"{\"\\u001b[31m_csrftoken\":1,\"\xc2\x9b2J\":\"\xc2\x9b2J\"}";
    let token = signer.sign_object(payload, false, Timestamp::from_second(1_700_000_000).unwrap());
    for options in [&[][..], &["--table"], &["--json"]] {
        let said = Run::inspect(options).on(&token).read();
        assert!(!(said.output + &said.errors).contains(['\u{1b}', '\u{9b}']), "{options:?}");
    }
    let said = Run::inspect(&["--json"]).on(&token).read();
    let shown: Value = serde_json::from_str(&said.output).unwrap();
    assert_eq!(shown["session"]["\u{c2}\u{9b}2J"], "\u{c2}\u{9b}2J", "latin-1, as Django reads it");

    let site = Site::new(&["sessions"]);
    let key = site.write("sessions", &site.session(ESCAPE));
    for options in [&[][..], &["--table"], &["--json"]] {
        let said = site.run("inspect", options).on(&key).read();
        assert!(!(said.output + &said.errors).contains(['\u{1b}', '\u{9b}']), "{options:?}");
    }
    let said = site.run("inspect", &[]).on(&key).read();
    assert!(said.errors.contains("user:       \\u{1b}[31m\\u{9b}2J\n"), "{}", said.errors);
}

#[test]
fn keys_come_from_the_environment_or_a_file() {
    let release = release("6.1");
    let login = token(&release, "valid", "login/db");
    let rotated = Run::inspect(&[]).with_key("new").with_fallbacks(&format!("other\n{KEY}\n"));
    assert!(rotated.on(login).read().errors.contains("SECRET_KEY_FALLBACKS[1]"));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let from_file =
        || Run::inspect(&["--secret-key-file", path.to_str().unwrap()]).with_key("another").on(login);
    assert_eq!(from_file().code, 2, "there is no such file");
    fs::write(&path, format!("{KEY}\r\n")).unwrap();
    from_file().read();
    fs::write(&path, format!("new\n\n{KEY}")).unwrap();
    assert!(from_file().read().errors.contains("SECRET_KEY_FALLBACKS[0]"));
}

#[test]
fn a_refusal_says_why() {
    let release = release("6.1");
    let login = token(&release, "valid", "login/db");
    let cookie = token(&release, "valid", "login/cookie");

    Run::inspect(&[]).with_key(OLD_KEY).on(login).refused(&[
        "wrong key",
        "DJANGO_SECRET_KEY_FALLBACKS",
        "SessionStore",
    ]);
    let changed = format!("A{}", &login[1..]);
    Run::inspect(&[]).on(changed).refused(&["changed since it was signed"]);
    let foreign = token(&release, "valid", "login/signing");
    Run::inspect(&[]).on(foreign).refused(&["wrong salt: SECRET_KEY signed it", "django.core.signing.dumps"]);

    Run::inspect(&["--max-age", "1209600"])
        .on(cookie)
        .refused(&["expired: signed 2023-11-14T22:13:20Z", "1209600"]);
    Run::inspect(&["--max-age", "4000000000"]).on(cookie).read();

    Run::inspect(&[])
        .on("0123456789abcdefghijklmnopqrstuv")
        .refused(&["this is a session key", "django_session"]);
    Run::inspect(&[]).on([0xff, 0xfe, b':']).refused(&["not text"]);
}

#[test]
fn what_django_refuses_is_refused() {
    let release = release("6.1");
    let mut groups = HashSet::new();
    for vector in release["invalid"].as_array().unwrap() {
        let (Some(token), Some(group)) = (vector["token"].as_str(), vector["group"].as_str()) else {
            continue;
        };
        // The salt of another engine and SHA-1 are read and named: this program is asked what a token is.
        let is_read = matches!(group, "wrong_salt" | "wrong_algorithm");
        // One of each group: a thousand starts of a program would take too long.
        if is_read
            || token.is_empty()
            || vector["kind"] != "db"
            || vector["error"].is_null()
            || !groups.insert(group)
        {
            continue;
        }
        let said = Run::inspect(&[]).with_key(vector["secret_key"].as_str().unwrap_or(KEY)).on(token);
        assert_eq!((said.code, said.output.as_str()), (1, ""), "{}: {}", vector["name"], said.errors);
    }
    assert!(groups.len() >= 10, "only {groups:?}");
}

#[test]
fn salts_of_engines_of_one_s_own() {
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    let keys = SecretKeys::new(KEY);
    let signer = TimestampSigner::new(&keys, "django.contrib.sessions.TenantStore");
    let token = signer.sign_object(br#"{"tenant":1}"#, true, now);
    Run::inspect(&[]).on(&token).refused(&["--class-name"]);
    let said = Run::inspect(&["--class-name", "Other", "--class-name", "TenantStore"]).on(&token).read();
    assert!(
        said.errors.contains("TenantStore (salt \"django.contrib.sessions.TenantStore\")"),
        "{}",
        said.errors
    );
    assert_eq!(said.output, "{\n  \"tenant\": 1\n}\n");
}

#[test]
fn content_that_is_no_session_is_named() {
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    let keys = SecretKeys::new(KEY);
    let signer = TimestampSigner::new(&keys, "django.contrib.sessions.SessionStore");
    let inspect = |payload: &[u8]| {
        Run::inspect(&["--max-inflated", "100000"]).on(signer.sign_object(payload, true, now))
    };
    inspect(b"\x80\x04}\x94.").refused(&["pickle", "PickleSerializer"]);
    inspect(b"[1]").refused(&["an array"]);
    inspect(b"{").refused(&["not JSON"]);
    inspect(&[b' '; 200_000]).refused(&["more than 100000 bytes", "--max-inflated"]);
}

#[test]
fn sessions_of_before_django_3_1() {
    for name in ["1.11", "3.0", "3.1-sha1"] {
        let release = release(name);
        let said = Run::inspect(&[]).on(token(&release, "valid", "cart/legacy")).read();
        assert!(said.errors.contains("before Django 3.1"), "{}", said.errors);
        let said = Run::inspect(&[]).on(token(&release, "valid", "cart/cookie")).read();
        assert!(said.errors.contains("HMAC-SHA1"), "{}", said.errors);
        let legacy = token(&release, "valid", "cart/legacy");
        Run::inspect(&[])
            .with_key(OLD_KEY)
            .on(legacy)
            .refused(&["wrong key", "django.contrib.sessionsSessionStore"]);
        Run::inspect(&["--max-age", "1"]).on(legacy).refused(&["carries no time"]);
    }
    Run::inspect(&[]).on("A").refused(&["not base64"]);
}

#[test]
fn a_site_that_reads_two_stores_is_logged_out_of_both() {
    let site = Site::new(&["new", "old"]);
    let ada = site.session("1");
    let (in_new, in_old) = (site.write("new", &ada), site.write("old", &ada));
    let (in_both, by_key, by_id) =
        (site.write("new", &ada), site.write("old", &ada), site.write("old", &ada));
    fs::write(site.path("old", &in_both), &ada).unwrap();
    let of_another = site.write("old", &site.session("2"));

    for (key, folder) in [(&in_new, "new"), (&in_old, "old")] {
        let said = site.run("inspect", &[]).on(key).read();
        assert!(said.errors.contains(site.folder.path().join(folder).to_str().unwrap()), "{}", said.errors);
    }
    site.run("inspect", &[]).on("0123456789abcdef").refused(&["no such session in", "/new, nor in", "/old:"]);

    // The old one is not listed, and it is said how it would be.
    for command in ["list", "stats"] {
        let said = site.run(command, &[]).on("").read();
        assert!(
            said.errors.contains("/old (FALLBACK_ENGINE)") && said.errors.contains("--old"),
            "{}",
            said.errors
        );
        assert!(!site.run(command, &["--old"]).on("").read().errors.contains("FALLBACK_ENGINE"));
    }
    let said = site.run("list", &["--old", "--json", "--show-keys"]).on("").read();
    let lines = said.output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ids: HashMap<_, _> =
        lines.map(|line| (line["key"].as_str().unwrap().to_owned(), line["id"].clone())).collect();
    assert_eq!(ids.len(), 5);
    assert_eq!(Site::new(&["new"]).run("list", &["--old"]).on("").code, 2);

    // What an engine does not look at is refused: the store that was meant is another.
    for (command, options, sentence) in [
        (
            "list",
            &["--cache", "a"][..],
            "a cache (--cache) is for the engine cache or cached_db, and here it is file",
        ),
        ("stats", &["--database", "a"], "a database (--database) is for the engine db or cached_db"),
        (
            "end",
            &["--engine", "db", "--path", "/tmp"],
            "a folder (--path) is for the engine file, and here it is db",
        ),
    ] {
        let said = site.run(command, options).on(&in_new);
        assert!(said.code == 2 && said.errors.contains(sentence), "{}", said.errors);
    }

    // One store that is named is that one alone.
    let new = site.folder.path().join("new");
    let said =
        site.run("end", &["--user-id", "1", "--dry-run", "--path", new.to_str().unwrap()]).on("").read();
    assert!(said.output.starts_with("2 sessions would be ended") && said.errors.contains("--old"));

    site.run("end", &[]).on(&by_key).read();
    assert!(!site.has("old", &by_key));
    site.run("end", &["--session", ids[&by_id].as_str().unwrap()]).on("").read();
    assert!(!site.has("old", &by_id));
    for (options, words) in [(&["--dry-run"][..], "3 sessions would be ended"), (&[], "3 sessions ended")] {
        let said = site.run("end", &[&["--user-id", "1"][..], options].concat()).on("").read();
        assert!(said.output.starts_with(words), "{}", said.output);
    }
    for key in [&in_new, &in_old, &in_both] {
        assert!(!site.has("new", key) && !site.has("old", key));
    }
    assert!(site.has("old", &of_another));
}

/// As a site with `LEGACY` does: its users are logged in with what this program cannot read.
#[test]
fn sessions_that_cannot_be_read_may_be_the_user_s() {
    let site = Site::new(&["sessions"]);
    let legacy = site.write("sessions", token(&release("3.0"), "valid", "login/legacy"));
    let readable = site.write("sessions", &site.session("7"));
    for words in ["1 session ended", "0 sessions ended"] {
        let said = site.run("end", &["--user-id", "7"]).on("");
        assert_eq!(said.code, 1, "{}", said.errors);
        assert!(said.output.starts_with(words), "{}", said.output);
        assert!(
            said.errors.contains("1 session could not be read and may be this user's"),
            "{}",
            said.errors
        );
    }
    assert!(!site.has("sessions", &readable) && site.has("sessions", &legacy));
    let said = site.run("list", &["--user-id", "7"]).on("").read();
    assert!(said.errors.contains("1 session could not be read"), "{}", said.errors);
    site.run("end", &[]).on(&legacy).read();
    assert_eq!(
        site.run("end", &["--user-id", "7", "--json"]).on("").read().output,
        "{\"ended\":0,\"unreadable\":0,\"dry_run\":false}\n"
    );
}

#[test]
fn wrong_usage_has_a_code_of_its_own() {
    let said = Run::inspect(&[]).with_key("").on("a:b:c");
    assert_eq!(said.code, 2);
    assert!(
        said.errors.contains("DJANGO_SECRET_KEY") && said.errors.contains("--secret-key-file"),
        "{}",
        said.errors
    );
    assert_eq!(Run::inspect(&[]).on(" \n").code, 2, "nothing to read");
    assert_eq!(Run::inspect(&["--secret-key", "s3cret"]).on("a:b:c").code, 2, "never on the command line");
    let help = Run::inspect(&["--help"]).on("").read().output;
    for words in
        ["0  the session was read", "1  it was refused", "2  wrong usage", "DJANGO_SECRET_KEY_FALLBACKS"]
    {
        assert!(help.contains(words), "{help}");
    }
}

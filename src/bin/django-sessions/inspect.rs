//! `inspect`: a cookie of signed_cookies, the session_data of a row or a file, or the key of a session.

use std::fmt;
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;

use clap::Args;
use django_sessions::backends::StoreError;
use django_sessions::backends::hashed_keys::hashed_name;
use django_sessions::backends::manage::{ManagedStore, StoredSession};
use django_sessions::crypto::{Algorithm, SecretKeys};
use django_sessions::serializers::json::{Object, RawValue};
use django_sessions::serializers::legacy::{LegacyCodec, LegacyError};
use django_sessions::session::{Data, SessionKey};
use django_sessions::settings::Settings;
use django_sessions::signing::{DEFAULT_MAX_INFLATED, MaxAge, Signer, SigningError, TimestampSigner};
use jiff::{SignedDuration, Timestamp};

use crate::place::{Place, describe, open};
use crate::report::{self, Failure, many, say, sentence};
use crate::stored::{id, user_of};

const KEY_VARIABLE: &str = "DJANGO_SECRET_KEY";
const FALLBACKS_VARIABLE: &str = "DJANGO_SECRET_KEY_FALLBACKS";

/// More than any session: whoever pipes a film in is told so before the memory is gone.
const MAX_INPUT: u64 = 64 << 20;

pub(crate) const AFTER_HELP: &str = "\
Secret keys are never taken from the command line, where other users could see them:
  --settings FILE              a settings file of the site (DJANGO_SESSIONS_FILE)
  DJANGO_SECRET_KEY            or the site's SECRET_KEY
  DJANGO_SECRET_KEY_FALLBACKS  its SECRET_KEY_FALLBACKS, one a line
  --secret-key-file            or a file with both: SECRET_KEY in the first line, a fallback in each other

A session key is looked up in the store that the settings name.

Exit codes:
  0  the session was read
  1  it was refused; standard error says why
  2  wrong usage: an unknown option, no secret key, an input that cannot be read";

#[derive(Args, Clone)]
pub(crate) struct Inspect {
    #[command(flatten)]
    place: Place,
    /// File with the site's SECRET_KEY, and a fallback in each further line
    #[arg(long, value_name = "FILE")]
    secret_key_file: Option<PathBuf>,
    /// Class name (__qualname__) of a session engine of your own, whose salt is then tried too; may be repeated
    #[arg(long, value_name = "NAME")]
    class_name: Vec<String>,
    /// Refuse what was signed longer ago, as the signed_cookies engine does with SESSION_COOKIE_AGE
    #[arg(long, value_name = "SECONDS")]
    max_age: Option<u32>,
    /// Refuse compressed data that inflates to more
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MAX_INFLATED)]
    max_inflated: usize,
    /// Print login hashes and tokens too, which let their reader act for the user
    #[arg(long)]
    show_secrets: bool,
    /// A line a value in place of JSON
    #[arg(long, conflicts_with = "json")]
    table: bool,
    /// What it is and what is in it as one line of JSON, on standard output
    #[arg(long)]
    json: bool,
}

use Failure::{Refused, Usage};

/// A session that was read, and what there is to say about it.
struct Found {
    payload: Vec<u8>,
    facts: Vec<(&'static str, String)>,
}

pub(crate) async fn run(options: &Inspect) -> Result<(), Failure> {
    let settings = settings(options)?;
    let keys = secret_keys(options, settings.as_ref())?;
    let mut options = options.clone();
    let own =
        settings.as_ref().and_then(|settings| settings.key_salt.strip_prefix("django.contrib.sessions."));
    options.class_name.extend(own.filter(|name| *name != "SessionStore").map(str::to_owned));
    let options = &options;
    let token = read_token()?;
    let found = match &settings {
        Some(settings) if is_key(&token) => look_up(options, settings, &token).await?,
        _ if token.contains(':') => read_signed(options, &keys, &token)?,
        _ => read_legacy(options, &keys, &token)?,
    };
    let mut data = Object::parse(&found.payload).map_err(|error| {
        // Protocol 2 and newer begin with this byte, which JSON cannot.
        match found.payload.first() {
            Some(0x80) => Refused(
                "the signature is good, but the content is a pickle, not JSON (PickleSerializer)".into(),
            ),
            _ => Refused(format!("the signature is good, but the content is not a session: {error}")),
        }
    })?;
    let masked = if options.show_secrets { Vec::new() } else { mask(&mut data) };
    if options.json {
        return print_json(&found.facts, &masked, &data);
    }
    for (fact, text) in &found.facts {
        // Of what a session holds, nothing reaches the terminal as it is.
        let text = if *fact == "user" { text.escape_debug().to_string() } else { text.clone() };
        eprintln!("{:<12}{text}", format!("{fact}:"));
    }
    if !masked.is_empty() {
        let names = masked.join(", ");
        eprintln!("{:<12}{} (--show-secrets shows them)", "masked:", names.escape_debug());
    }
    if options.table {
        return print_table(&data);
    }
    Ok(print_pretty(&data.to_vec(), io::stdout().lock())?)
}

/// The longest value that a line of the table shows.
const MAX_SHOWN: usize = 100;

fn print_table(data: &Object) -> Result<(), Failure> {
    let names: Vec<_> = data.iter().map(|(name, _)| name.escape_debug().to_string()).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default().min(40);
    for (name, (_, value)) in names.iter().zip(data.iter()) {
        let text = value.as_bytes();
        let cut = if text.len() > MAX_SHOWN { "..." } else { "" };
        say(format!("{name:width$}  {}{cut}", on_a_line(&text[..text.len().min(MAX_SHOWN)])))?;
    }
    Ok(())
}

/// JSON without control characters. As Django reads it, it is latin-1.
fn on_a_line(text: &[u8]) -> String {
    let shown = |byte: &u8| match byte {
        b'\n' | b'\r' | b'\t' => " ".to_owned(),
        0x20..0x7f => char::from(*byte).to_string(),
        _ => format!("\\u00{byte:02x}"),
    };
    text.iter().map(shown).collect()
}

fn print_json(facts: &[(&'static str, String)], masked: &[String], data: &Object) -> Result<(), Failure> {
    let mut report = Object::new();
    let text = |text: &String| RawValue::new(text).expect("text has a JSON form");
    for (fact, says) in facts {
        report.insert(fact, text(says));
    }
    report.insert("masked", RawValue::new(masked).expect("so have texts"));
    let session = RawValue::from_text(data.to_vec()).expect("it was parsed");
    report.insert("session", session);
    say(on_a_line(&report.to_vec()))
}

// ------------------------------------------------------------------------------------------------ keys of sessions

/// What a session may be stored under. The key may be what the store has in place of one.
fn names_of(key: &SessionKey) -> Vec<SessionKey> {
    match key.is_stored_name() {
        true => vec![key.clone()],
        false => vec![key.clone(), hashed_name(key)],
    }
}

/// The session of this key, whatever name it is stored under.
pub(crate) async fn find(
    store: &dyn ManagedStore,
    key: &SessionKey,
) -> Result<Option<StoredSession>, StoreError> {
    for name in names_of(key) {
        if let Some(found) = store.find(&name).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn is_key(token: &str) -> bool {
    let is_key_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let rest = token.strip_prefix("sha256$").unwrap_or(token);
    (8..=40).contains(&rest.len()) && rest.chars().all(is_key_char)
}

async fn look_up(options: &Inspect, settings: &Settings, key: &str) -> Result<Found, Failure> {
    let key = SessionKey::from_stored_name(key);
    let store = open(settings).await?;
    if let Some(stored) = find(&*store, &key).await? {
        return describe_stored(settings, stored);
    }
    let mut places = describe(settings);
    if let Some(old) = options.place.old_besides(settings) {
        if let Some(stored) = find(&*open(&old).await?, &key).await? {
            return describe_stored(&old, stored);
        }
        // It may have moved between the two looks.
        if let Some(stored) = find(&*store, &key).await? {
            return describe_stored(settings, stored);
        }
        places = format!("{places}, nor in {}", describe(&old));
    }
    Err(Refused(format!("there is no such session in {places}: it was logged out, or has ended")))
}

fn describe_stored(settings: &Settings, stored: StoredSession) -> Result<Found, Failure> {
    let now = Timestamp::now();
    let mut facts = vec![("store", describe(settings)), ("session", id(&stored.name))];
    if stored.name.is_stored_name() {
        facts.push(("name", "a hash of its key (HASH_KEYS)".to_owned()));
    }
    if let Some(saved) = stored.saved {
        facts.push(("saved", moment(&Ok(saved), now)));
    }
    let ends = stored.ends.map_or_else(String::new, |ends| format!("{ends:.0}, "));
    facts.push(("ends", format!("{ends}{}", report::ends(stored.ends, now))));
    facts.push(("size", format!("{} bytes", stored.size)));
    let data = stored.data.map_err(|error| {
        Refused(format!(
            "it is stored, {} bytes, but cannot be read: {}. Is this the SECRET_KEY of the site that saved it, and the \
             format of its cache?",
            stored.size,
            sentence(&error)
        ))
    })?;
    facts.push(("user", user_of(&data).unwrap_or_else(|| "nobody is logged in".to_owned())));
    facts.push(("values", many(data.len() as u64, "value")));
    Ok(Found { payload: shown_values(&data).to_vec(), facts })
}

/// As JSON. What Python can pickle and JSON cannot hold is only named.
fn shown_values(data: &Data) -> Object {
    let mut object = Object::new();
    for (name, value) in data.iter() {
        let text = match value.to_json() {
            Ok(text) => text.into_owned(),
            Err(error) => RawValue::new(&format!("({error})")).expect("text has a JSON form"),
        };
        object.insert(&name, text);
    }
    object
}

// ------------------------------------------------------------------------------------------------ input

/// The settings of the site, if there are any. Only to read a token, its key is enough.
fn settings(options: &Inspect) -> Result<Option<Settings>, Failure> {
    let is_told = options.place.settings.is_some() || std::env::var_os("DJANGO_SESSIONS_FILE").is_some();
    let is_in_variables = std::env::var_os("SECRET_KEY").is_some();
    if is_told || is_in_variables { options.place.read().map(Some) } else { Ok(None) }
}

/// The keys, the current one first, each with Django's name for it.
fn secret_keys(options: &Inspect, settings: Option<&Settings>) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    if let Some(settings) = settings.filter(|_| options.secret_key_file.is_none()) {
        let keys = &settings.secret_keys;
        return Ok(named(keys.current().to_vec(), keys.fallbacks().map(<[u8]>::to_vec)));
    }
    let (current, fallbacks) = match &options.secret_key_file {
        Some(path) => {
            let text =
                fs::read_to_string(path).map_err(|error| Usage(format!("{}: {error}", path.display())))?;
            let (current, fallbacks) = text.split_once('\n').unwrap_or((&text, ""));
            (current.trim_end_matches('\r').to_owned(), fallbacks.to_owned())
        }
        None => (variable(KEY_VARIABLE)?, variable(FALLBACKS_VARIABLE)?),
    };
    if current.is_empty() {
        return Err(Usage(format!(
            "no secret key: name a settings file with --settings, set {KEY_VARIABLE}, or name a file with \
             --secret-key-file"
        )));
    }
    let fallbacks = fallbacks.lines().filter(|line| !line.is_empty());
    Ok(named(current.into_bytes(), fallbacks.map(|key| key.as_bytes().to_vec())))
}

fn named(current: Vec<u8>, fallbacks: impl Iterator<Item = Vec<u8>>) -> Vec<(String, Vec<u8>)> {
    let name = |(index, key)| (format!("SECRET_KEY_FALLBACKS[{index}]"), key);
    [("SECRET_KEY".to_owned(), current)].into_iter().chain(fallbacks.enumerate().map(name)).collect()
}

fn variable(name: &str) -> Result<String, Failure> {
    match std::env::var(name) {
        Ok(value) => Ok(value),
        Err(std::env::VarError::NotPresent) => Ok(String::new()),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Usage(format!("{name} is not text; use --secret-key-file")))
        }
    }
}

fn read_token() -> Result<String, Failure> {
    let stdin = io::stdin().lock();
    if stdin.is_terminal() {
        eprintln!("Paste a cookie's value or session_data, then press Ctrl-D on a line of its own:");
    }
    let mut input = Vec::new();
    stdin
        .take(MAX_INPUT + 1)
        .read_to_end(&mut input)
        .map_err(|error| Usage(format!("cannot read: {error}")))?;
    if input.len() as u64 > MAX_INPUT {
        return Err(Usage(format!("the input has more than {MAX_INPUT} bytes")));
    }
    let token = String::from_utf8(input).map_err(|_| Refused("the input is not text".into()))?;
    // A browser's developer tools show a quoted value with its quotes.
    let token = token.trim().trim_matches('"');
    if token.is_empty() {
        return Err(Usage("nothing came on standard input: pipe a cookie's value or session_data in".into()));
    }
    Ok(token.to_owned())
}

// ------------------------------------------------------------------------------------------------ reading

/// A salt that Django signs with, and who uses it.
struct Purpose {
    salt: String,
    user: String,
}

impl Purpose {
    fn new(salt: impl Into<String>, user: impl Into<String>) -> Self {
        Self { salt: salt.into(), user: user.into() }
    }

    /// What sessions are signed with.
    fn sessions(class_names: &[String]) -> Vec<Self> {
        let mut purposes = vec![
            Self::new("django.contrib.sessions.SessionStore", "db, cached_db or file"),
            Self::new("django.contrib.sessions.backends.signed_cookies", "signed_cookies"),
        ];
        let own = class_names.iter().map(|name| Self::new(format!("django.contrib.sessions.{name}"), name));
        purposes.extend(own);
        purposes
    }

    /// What else is signed in this form, and easily taken for a session.
    fn others() -> [Self; 1] {
        [Self::new("django.core.signing", "a call of django.core.signing.dumps")]
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (salt {:?})", self.user, self.salt)
    }
}

/// The format of today, and with SHA-1 that of the cookies of older sites.
fn read_signed(options: &Inspect, keys: &[(String, Vec<u8>)], token: &str) -> Result<Found, Failure> {
    let signature = token.rsplit_once(':').map_or(0, |(_, signature)| signature.len());
    let (algorithm, hash) = match signature {
        // As many characters as base64 makes of SHA-1's 20 bytes; of SHA-256's 32 it makes 43.
        27 => (Algorithm::Sha1, "HMAC-SHA1, as before Django 3.1"),
        _ => (Algorithm::Sha256, "HMAC-SHA256"),
    };
    let signer = |key: &[u8], purpose: &Purpose| {
        let signer = Signer::with_algorithm(&SecretKeys::new(key), &purpose.salt, algorithm);
        TimestampSigner::from(signer).max_inflated(options.max_inflated)
    };
    let tried = Purpose::sessions(&options.class_name);
    let combinations = || keys.iter().flat_map(|key| tried.iter().map(move |purpose| (key, purpose)));
    let good = |key: &[u8], purpose: &Purpose| {
        !matches!(signer(key, purpose).unsign(token, None), Err(SigningError::BadSignature))
    };
    let Some(((key_name, key), purpose)) = combinations().find(|((_, key), purpose)| good(key, purpose))
    else {
        for ((name, key), purpose) in
            keys.iter().flat_map(|key| Purpose::others().map(|purpose| (key, purpose)))
        {
            if good(key, &purpose) {
                return Err(Refused(format!(
                    "wrong salt: {name} signed it, but not as a session: it is of {purpose}"
                )));
            }
        }
        return Err(Refused(no_signature_matches(keys, &tried)));
    };

    let signer = signer(key, purpose);
    let signed_at = signer.signed_at(token);
    let now = Timestamp::now();
    let max_age = options.max_age.map(|seconds| MaxAge::new(SignedDuration::from_secs(seconds.into()), now));
    let payload = signer.unsign_object(token, max_age).map_err(|error| {
        Refused(match error {
            SigningError::SignatureExpired { .. } => format!(
                "expired: signed {} by {purpose}, and --max-age allows {} seconds",
                moment(&signed_at, now),
                options.max_age.unwrap_or_default()
            ),
            SigningError::TooLarge { max_size } => {
                format!("it inflates to more than {max_size} bytes; raise --max-inflated to read it")
            }
            error => {
                format!("the signature is good, of {purpose}, but the content is not: {}", sentence(&error))
            }
        })
    })?;
    let compression = if token.starts_with('.') { "compressed" } else { "not compressed" };
    let facts = vec![
        ("format", format!("{hash}, {compression}")),
        ("engine", purpose.to_string()),
        ("key", key_name.clone()),
        ("signed", moment(&signed_at, now)),
        ("size", format!("{} bytes, content {} bytes", token.len(), payload.len())),
    ];
    Ok(Found { payload, facts })
}

fn no_signature_matches(keys: &[(String, Vec<u8>)], tried: &[Purpose]) -> String {
    let names: Vec<_> = keys.iter().map(|(name, _)| name.as_str()).collect();
    let tried: String = tried.iter().map(|purpose| format!("\n  {purpose}")).collect();
    format!(
        "wrong key, wrong salt, or changed since it was signed.\nKeys tried: {}. Salts tried:{tried}\nIs this the key \
         of the site that made it? Was it rotated (then it belongs into {FALLBACKS_VARIABLE})? Has the site a session \
         engine of its own (--class-name)?",
        names.join(", ")
    )
}

/// What carries no colon: session data of before Django 3.1, or no data at all.
fn read_legacy(options: &Inspect, keys: &[(String, Vec<u8>)], token: &str) -> Result<Found, Failure> {
    if is_key(token) && token.len() == 32 {
        return Err(Refused(
            "this is a session key, not a session: its data is in the row of django_session with that session_key, \
             or in the cache. Name the site's settings with --settings, and it is looked up there"
                .into(),
        ));
    }
    let class_names = || std::iter::once("SessionStore").chain(options.class_name.iter().map(String::as_str));
    for ((key_name, key), class_name) in
        keys.iter().flat_map(|key| class_names().map(move |name| (key, name)))
    {
        match LegacyCodec::new(&SecretKeys::new(key), class_name).decode(token) {
            Ok(payload) => {
                if options.max_age.is_some() {
                    return Err(Refused(
                        "session data of before Django 3.1 carries no time, so --max-age refuses it".into(),
                    ));
                }
                let facts = vec![
                    ("format", "session data of before Django 3.1 (HMAC-SHA1), not compressed".to_owned()),
                    ("engine", format!("class {class_name}")),
                    ("key", key_name.clone()),
                    ("signed", "at a time that this format does not keep".to_owned()),
                    ("size", format!("{} bytes, content {} bytes", token.len(), payload.len())),
                ];
                return Ok(Found { payload, facts });
            }
            Err(LegacyError::BadHash) => {}
            Err(error) => {
                return Err(Refused(format!("neither signed data nor that of before Django 3.1: {error}")));
            }
        }
    }
    let tried: Vec<_> =
        class_names().map(|name| Purpose::new(format!("django.contrib.sessions{name}"), name)).collect();
    Err(Refused(no_signature_matches(keys, &tried)))
}

// ------------------------------------------------------------------------------------------------ output

/// The moment, and how long ago it was.
fn moment(signed_at: &Result<Timestamp, SigningError>, now: Timestamp) -> String {
    let Ok(signed_at) = signed_at else { return "at a time beyond every calendar".to_owned() };
    let age = now.duration_since(*signed_at);
    let days = age.as_hours() / 24;
    match age {
        _ if age.is_negative() => format!("{signed_at}, which is in the future of this machine's clock"),
        _ if days > 2 => format!("{signed_at}, {days} days ago"),
        _ => format!("{signed_at}, {:#} ago", SignedDuration::from_secs(age.as_secs())),
    }
}

/// Replaces what lets its reader act for the user. Returns the keys under which something was.
fn mask(data: &mut Object) -> Vec<String> {
    let is_secret = |key: &str| {
        key == "_auth_user_hash"
            || key == "_password_reset_token"
            || key.to_ascii_lowercase().contains("csrf")
    };
    let keys: Vec<String> =
        data.iter().map(|(key, _)| key.into_owned()).filter(|key| is_secret(key)).collect();
    for key in &keys {
        data.insert(key, RawValue::from_text("\"********\"").expect("this is JSON"));
    }
    keys
}

/// Indents well-formed JSON without reading its numbers or strings, so that `NaN`, `1.0` and 2**70 stay what they are.
fn print_pretty(text: &[u8], output: impl Write) -> io::Result<()> {
    /// Deeper levels are not indented further, or hostile nesting would fill a disk with spaces.
    const MAX_INDENT: usize = 40;
    let mut output = io::BufWriter::new(output);
    let new_line = |output: &mut io::BufWriter<_>, depth: usize| {
        write!(output, "\n{:width$}", "", width = 2 * depth.min(MAX_INDENT))
    };
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let mut bytes = text.iter().copied().filter(|byte| *byte != b'\r').peekable();
    while let Some(byte) = bytes.next() {
        if in_string {
            match byte {
                // As Django reads it, latin-1; and no control character reaches the terminal.
                0x7f.. => write!(output, "\\u00{byte:02x}")?,
                _ => output.write_all(&[byte])?,
            }
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\n' => {}
            b'{' | b'[' => {
                output.write_all(&[byte])?;
                while bytes.next_if(|byte| matches!(byte, b' ' | b'\t' | b'\n')).is_some() {}
                match bytes.next_if(|next| *next == byte + 2) {
                    Some(end) => output.write_all(&[end])?,
                    None => {
                        depth += 1;
                        new_line(&mut output, depth)?;
                    }
                }
            }
            b'}' | b']' => {
                depth -= 1;
                new_line(&mut output, depth)?;
                output.write_all(&[byte])?;
            }
            b',' => {
                output.write_all(b",")?;
                new_line(&mut output, depth)?;
            }
            b':' => output.write_all(b": ")?,
            _ => {
                in_string = byte == b'"';
                output.write_all(&[byte])?;
            }
        }
    }
    output.write_all(b"\n")?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pretty(text: &str) -> String {
        let mut output = Vec::new();
        print_pretty(text.as_bytes(), &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn pretty_text_is_the_same_json() {
        assert_eq!(pretty("{}"), "{}\n");
        assert_eq!(
            pretty(r#"{"a":[1, NaN ,1.0],"b":{ },"c":[ ],"d":"x\\\"{,:\\"}"#),
            "{\n  \"a\": [\n    1,\n    NaN,\n    1.0\n  ],\n  \"b\": {},\n  \"c\": [],\n  \"d\": \"x\\\\\\\"{,:\\\\\"\n}\n"
        );
        let mut output = Vec::new();
        print_pretty(b"{\"a\":\"\xe9\x9b\x7f\"}", &mut output).unwrap();
        assert_eq!(output, b"{\n  \"a\": \"\\u00e9\\u009b\\u007f\"\n}\n");
    }

    #[test]
    fn deep_nesting_is_not_indented_without_end() {
        let text = "[".repeat(5000) + &"]".repeat(5000);
        assert!(pretty(&text).len() < 5000 * 200);
    }
}

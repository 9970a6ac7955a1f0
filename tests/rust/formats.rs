//! What django-redis and Django's own Redis cache store, read and written by Rust, with them as judges.

mod django;

use std::sync::{Mutex, OnceLock};

use django::{Answer, Django};
use django_sessions::caches::format::{Compressor, Format, FormatError, Serializer};
use django_sessions::serializers::json::{Object, RawValue};
use django_sessions::session::Data;
use serde_json::{Value, json};

/// The largest session in these tests; a bomb must not get beyond it.
const MAX_SIZE: usize = 1 << 20;

fn django() -> Option<&'static Mutex<Django>> {
    static DJANGO: OnceLock<Option<Mutex<Django>>> = OnceLock::new();
    DJANGO.get_or_init(|| Django::start_script("formats.py").map(Mutex::new)).as_ref()
}

fn ask(question: Value) -> Answer {
    django().expect("asked for at the start of the test").lock().unwrap().ask(&question)
}

/// How many generated sessions each format gets.
fn cases(default: u64) -> u64 {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    // There are 19 formats to share them.
    asked.map_or(default, |cases: u64| cases.div_ceil(19).max(default))
}

const SERIALIZERS: [(Serializer, &str, &str); 3] = [
    (Serializer::Pickle, "pickle", "pickle.PickleSerializer"),
    (Serializer::Json, "json", "json.JSONSerializer"),
    (Serializer::Msgpack, "msgpack", "msgpack.MSGPackSerializer"),
];

const COMPRESSORS: [(Compressor, &str); 6] = [
    (Compressor::None, "identity.IdentityCompressor"),
    (Compressor::Zlib, "zlib.ZlibCompressor"),
    (Compressor::Gzip, "gzip.GzipCompressor"),
    (Compressor::Lz4, "lz4.Lz4Compressor"),
    (Compressor::Zstd, "zstd.ZStdCompressor"),
    (Compressor::Lzma, "lzma.LzmaCompressor"),
];

/// A format in both languages.
struct Case {
    format: Format,
    backend: &'static str,
    options: Value,
    /// The kinds of values that the serializer takes.
    kinds: &'static str,
}

impl Case {
    fn ask(&self, op: &str, mut details: Value) -> Answer {
        details["op"] = json!(op);
        details["backend"] = json!(self.backend);
        details["options"] = self.options.clone();
        details["kinds"] = json!(self.kinds);
        ask(details)
    }

    /// What this side stores for a generated session.
    fn stored(&self, seed: u64) -> Vec<u8> {
        unhex(&self.ask("encode", json!({"seed": seed})).unwrap())
    }

    #[track_caller]
    fn assert_same(&self, seed: u64, set: Value, data: &[u8]) {
        let answer = self.ask("check", json!({"seed": seed, "set": set, "data": hex(data)}));
        assert_eq!(answer.as_deref(), Ok("same"), "{:?}, seed {seed}", self.format);
    }

    fn read(&self, data: &[u8]) -> Answer {
        self.ask("decode", json!({"data": hex(data)}))
    }
}

fn format(serializer: Serializer, compressor: Compressor) -> Format {
    Format { serializer, compressor, max_size: MAX_SIZE, ..Format::default() }
}

/// django-redis with each serializer and compressor whose features are on, and Django's own.
fn formats() -> Vec<Case> {
    let mut all = vec![Case {
        format: Format { max_size: MAX_SIZE, ..Format::django() },
        backend: "django",
        options: json!({}),
        kinds: "pickle",
    }];
    for (serializer, kinds, serializer_class) in SERIALIZERS {
        for (compressor, compressor_class) in COMPRESSORS {
            let format = format(serializer, compressor);
            if format.check().is_ok() {
                let options = json!({
                    "SERIALIZER": format!("django_redis.serializers.{serializer_class}"),
                    "COMPRESSOR": format!("django_redis.compressors.{compressor_class}"),
                });
                all.push(Case { format, backend: "django_redis", options, kinds });
            }
        }
    }
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("Python writes hex");
    (0..text.len()).step_by(2).map(digits).collect()
}

/// The bytes that a Python expression makes.
fn python(code: &str) -> Vec<u8> {
    unhex(&ask(json!({"op": "eval", "code": code})).unwrap())
}

#[test]
fn what_python_stored_goes_back_unchanged_and_with_one_key_set() {
    if django().is_none() {
        return;
    }
    for case in formats() {
        for seed in 0..cases(25) {
            let stored = case.stored(seed);
            let mut data = case
                .format
                .loads(&stored)
                .unwrap_or_else(|error| panic!("{:?}, seed {seed}: {error:?}", case.format));
            case.assert_same(seed, json!({}), &case.format.dumps(&data).unwrap());
            data.insert("visits", RawValue::new(&[3]).unwrap());
            case.assert_same(seed, json!({"visits": [3]}), &case.format.dumps(&data).unwrap());
        }
    }
}

/// Not only the same value: where Python's own output has one form only, the same bytes.
#[test]
fn untouched_json_and_msgpack_are_the_same_bytes() {
    if django().is_none() {
        return;
    }
    for case in formats().iter().filter(|case| case.format.compressor == Compressor::None) {
        for seed in 0..cases(50) {
            if case.kinds != "pickle" {
                let stored = case.stored(seed);
                let data = case.format.loads(&stored).unwrap();
                assert!(case.format.dumps(&data).unwrap() == stored, "{:?}, seed {seed}", case.format);
            }
        }
    }
}

const NEW: &str =
    r#"{"cart":[{"sku":"tea \u00e9\ud83e\udd80","n":2}],"big":9007199254740993,"x":1.5,"":null,"t":true}"#;

#[test]
fn what_rust_creates_python_reads() {
    if django().is_none() {
        return;
    }
    for case in formats() {
        for text in ["{}".to_owned(), NEW.to_owned(), format!(r#"{{"text":"{}"}}"#, "tea ".repeat(10_000))] {
            let data = Data::from(Object::parse(text.as_bytes()).unwrap());
            let stored = case.format.dumps(&data).unwrap();
            assert_eq!(case.read(&stored).as_deref(), Ok(&*text), "{:?}", case.format);
            let back = case.format.loads(&stored).unwrap();
            assert_eq!(String::from_utf8(back.to_json().unwrap()).unwrap(), text, "{:?}", case.format);
        }
    }
}

/// The lengths at which the compressors begin, and one format read by another's reader of the same serializer.
#[test]
fn short_values_are_not_compressed() {
    if django().is_none() {
        return;
    }
    for case in
        formats().iter().filter(|case| case.kinds == "json" && case.format.compressor != Compressor::None)
    {
        let plain = format(Serializer::Json, Compressor::None);
        for length in 0..120 {
            let text = format!(r#"{{"a":"{}"}}"#, "a".repeat(length));
            let data = Data::from(Object::parse(text.as_bytes()).unwrap());
            let uncompressed = plain.dumps(&data).unwrap();
            let stored = case.format.dumps(&data).unwrap();
            let short = uncompressed.len() <= case.format.compressor.min_length();
            assert_eq!(stored == uncompressed, short, "{:?}, {} bytes", case.format, uncompressed.len());
            // Python's own, as one that read it would see from its length.
            let python = python(&format!("json.dumps({text}).encode()"));
            assert_eq!(python, uncompressed);
            for data in [&stored, &uncompressed] {
                assert_eq!(case.read(data).as_deref(), Ok(&*text));
                assert_eq!(case.format.loads(data).unwrap().to_json().unwrap(), text.as_bytes());
            }
        }
    }
    let never = Format { min_length: Some(usize::MAX), ..format(Serializer::Json, Compressor::Zlib) };
    let data = Data::from(Object::parse(NEW.as_bytes()).unwrap());
    assert!(never.dumps(&data).unwrap().starts_with(b"{"));
    let always = Format { min_length: Some(0), level: Some(9), ..never };
    assert!(always.dumps(&Data::new()).unwrap().starts_with(b"\x78\xda"), "the header of level 9");
}

#[test]
fn bombs_stop_at_the_cap() {
    if django().is_none() {
        return;
    }
    let gigabyte = [
        (Compressor::Zlib, "zlib.compress(bytes(1 << 28))"),
        (Compressor::Gzip, "gzip.compress(bytes(1 << 28))"),
        (Compressor::Gzip, "gzip.compress(bytes(1 << 18)) * 1024"),
        (Compressor::Lz4, "lz4.frame.compress(bytes(1 << 28))"),
        (Compressor::Lz4, "lz4.frame.compress(bytes(1 << 28), store_size=False)"),
        (Compressor::Zstd, "pyzstd.compress(bytes(1 << 28))"),
        (Compressor::Zstd, "pyzstd.compress(bytes(1 << 18)) * 1024"),
        (
            Compressor::Zstd,
            "pyzstd.compress_stream.__module__ and pyzstd.ZstdCompressor().compress(bytes(1 << 28), 2)",
        ),
        (Compressor::Lzma, "lzma.compress(bytes(1 << 26), preset=0)"),
        (Compressor::Lzma, "lzma.compress(bytes(1 << 26), preset=0, format=lzma.FORMAT_ALONE)"),
        (Compressor::Lzma, "lzma.compress(bytes(1 << 18)) * 256"),
    ];
    for (compressor, code) in gigabyte {
        for (serializer, ..) in SERIALIZERS {
            let format = format(serializer, compressor);
            if format.check().is_ok() {
                let refused = format.loads(&python(code));
                assert!(
                    matches!(refused, Err(FormatError::TooLarge { max_size: MAX_SIZE })),
                    "{code}: {refused:?}"
                );
            }
        }
    }
}

/// Whether both read it, of data that nobody's own serializer wrote.
#[test]
fn odd_data_is_read_or_refused_as_python_does() {
    if django().is_none() {
        return;
    }
    let wrapped = [
        "{}",
        "{} + b'garbage'",
        "{} + bytes(4)",
        "{} + {}",
        "{}[:-1]",
        "{}[:-9]",
        "{}[:4] + b'\\xff' + {}[5:]",
        "b'\\x1f\\x8b' + {}",
    ];
    let streams = [
        ("zlib", "zlib.compress"),
        ("zlib", "gzip.compress"),
        ("gzip", "gzip.compress"),
        ("lz4", "lz4.frame.compress"),
        ("zstd", "pyzstd.compress"),
        ("lzma", "lzma.compress"),
    ];
    let texts = [
        r#"b'{"a": 1}'"#,
        r#"'{"\u00e9": "\u20ac\U0001f980"}'.encode()"#,
        r#"b'{"\xe9": 1}'"#,
        r#"b'\xef\xbb\xbf{}'"#,
        r#"b' {"a" :1 } '"#,
        r#"b'{"a": 1, "a": [NaN, -Infinity], "b": "\\ud800"}'"#,
        r#"b'[1]'"#,
        r#"b'null'"#,
        r#"b'12'"#,
        r#"b' -1_2 '"#,
        r#"b'1.5'"#,
        r#"b''"#,
        r#"b'{"a": 1} x'"#,
        "b'[' * 100000",
    ];
    let packed = [
        r"b'\x81\xa1a\x01'",
        r"b'\x81\xc4\x01a\x01'",
        r"b'\x82\xa1a\x01\xa1a\x02'",
        r"b'\x81\x01\x01'",
        r"b'\x81\xa1a\x81\xc0\x01'",
        r"b'\x81\xa1a\xd6\xff\0\0\0\1'",
        r"b'\x81\xa1a\xd7\xff' + b'\xff' * 8",
        r"b'\x81\xa1a\xd8\xff' + bytes(16)",
        r"b'\x81\xa1a\xc7\x0c\xff' + bytes(12)",
        r"b'\x81\xa1a\xc7\x03\x05abc'",
        r"b'\x81\xa1a\xa1\xff'",
        r"b'\x81\xa1a\xc1'",
        r"b'\x81\xa1a'",
        r"b'\x81\xa1a\x01\x01'",
        r"b'\xdf\xff\xff\xff\xff'",
        r"b'\x90'",
        r"b'\x81\xa1a' + b'\x91' * 1022 + b'\x90'",
        r"b'\x81\xa1a' + b'\x91' * 1023 + b'\x90'",
        r"b'\x81\xa1a' + b'\x81\xa1a' * 1023 + b'\xc0'",
        r"b'\x81\xa1a' + b'\x81\xa1a' * 1024 + b'\xc0'",
    ];
    for case in formats().iter().filter(|case| case.kinds != "pickle") {
        let values: &[&str] = if case.kinds == "json" { &texts } else { &packed };
        for value in values {
            compare(case, value);
        }
        for (_, compress) in streams.iter().filter(|(name, _)| *name == case.format.compressor.name()) {
            for wrap in wrapped {
                compare(case, &wrap.replace("{}", &format!("{compress}({} * 200)", values[0])));
                compare(case, &wrap.replace("{}", &format!("{compress}({})", values[0])));
            }
        }
    }
}

/// Both read a dict from the value, or neither does.
#[track_caller]
fn compare(case: &Case, code: &str) {
    let data = python(code);
    let python = case.ask("is_dict", json!({"data": hex(&data)}));
    match case.format.loads(&data) {
        Ok(read) => {
            assert_eq!(python.as_deref(), Ok("dict"), "{:?} {code}: {read:?}", case.format);
            let again = case.format.dumps(&read).unwrap();
            let same = case.ask("same", json!({"one": hex(&data), "other": hex(&again)}));
            assert_eq!(same.as_deref(), Ok("same"), "{:?} {code}", case.format);
        }
        Err(error) => assert_ne!(python.as_deref(), Ok("dict"), "{:?} {code}: {error:?}", case.format),
    }
}

#[test]
fn a_format_of_a_settings_file() {
    let read = |text: &str| serde_json::from_str::<Format>(text);
    assert_eq!(read("{}").unwrap(), Format::default());
    let text = r#"{"serializer": "json", "pickle_version": 5, "compressor": "zstd", "min_length": 1, "level": 3, "max_size": 9}"#;
    let expected = Format {
        serializer: Serializer::Json,
        pickle_version: 5,
        compressor: Compressor::Zstd,
        min_length: Some(1),
        level: Some(3),
        max_size: 9,
    };
    assert_eq!(read(text).unwrap(), expected);
    for wrong in [r#"{"serializer": "yaml"}"#, r#"{"compressor": "brotli"}"#, r#"{"compressors": "zlib"}"#] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    let beyond = Format { pickle_version: 6, ..Format::default() };
    assert!(matches!(beyond.check(), Err(FormatError::PickleVersion { version: 6 })));
}

#[test]
fn json_that_was_read_as_latin_1_is_written_as_what_reads_the_same() {
    let data = Data::from(Object::parse(b"{\"\xe9\":\"\xff\"}").unwrap());
    let stored = format(Serializer::Json, Compressor::None).dumps(&data).unwrap();
    assert_eq!(String::from_utf8(stored).unwrap(), r#"{"\u00e9": "\u00ff"}"#);
}

//! Reads and writes tokens for `tests/interop`, which lets every installed Django read what Rust wrote.
//!
//! One JSON object a line in, one out: `{"op": "roundtrip" | "touch" | "write", "format": "db" | "cookie" | "legacy",
//! "token": ..., "salt": ..., "secret_key": ..., "algorithm": "sha256" | "sha1", "now": seconds}`, with `key` and
//! `value` for `touch`, `payload_json` for `write`, and `fallback_keys` where there are some.

use std::error::Error;
use std::io::{BufRead, Write};

use django_sessions::crypto::{Algorithm, SecretKeys};
use django_sessions::serializers::json::{Object, RawValue};
use django_sessions::serializers::legacy::LegacyCodec;
use django_sessions::signing::{Signer, TimestampSigner};
use jiff::Timestamp;
use serde_json::{Value, json};

enum Format {
    Signed(TimestampSigner),
    Legacy(LegacyCodec),
}

impl Format {
    fn new(request: &Value) -> Result<Self, Box<dyn Error>> {
        let fallbacks = request["fallback_keys"].as_array().cloned().unwrap_or_default();
        let keys = SecretKeys::new(text(request, "secret_key")?);
        let keys = keys.with_fallbacks(fallbacks.iter().filter_map(Value::as_str));
        let salt = text(request, "salt")?;
        if text(request, "format")? == "legacy" {
            let class_name = salt.strip_prefix("django.contrib.sessions").ok_or("not a legacy salt")?;
            return Ok(Self::Legacy(LegacyCodec::new(&keys, class_name)));
        }
        let algorithm = match request["algorithm"].as_str() {
            Some("sha1") => Algorithm::Sha1,
            _ => Algorithm::Sha256,
        };
        Ok(Self::Signed(Signer::with_algorithm(&keys, salt, algorithm).into()))
    }

    fn decode(&self, token: &str) -> Result<Object, Box<dyn Error>> {
        let payload = match self {
            Self::Signed(signer) => signer.unsign_object(token, None)?,
            Self::Legacy(codec) => codec.decode(token)?,
        };
        Ok(Object::parse(&payload)?)
    }

    fn encode(&self, object: &Object, now: Timestamp) -> String {
        match self {
            Self::Signed(signer) => signer.sign_object(&object.to_vec(), true, now),
            Self::Legacy(codec) => codec.encode(&object.to_vec()),
        }
    }
}

fn text<'a>(request: &'a Value, field: &str) -> Result<&'a str, Box<dyn Error>> {
    request[field].as_str().ok_or_else(|| format!("the field {field:?} is missing").into())
}

fn answer(request: &Value) -> Result<String, Box<dyn Error>> {
    let format = Format::new(request)?;
    let object = match text(request, "op")? {
        "roundtrip" => format.decode(text(request, "token")?)?,
        "touch" => {
            let mut object = format.decode(text(request, "token")?)?;
            object.insert(text(request, "key")?, RawValue::new(&request["value"])?);
            object
        }
        "write" => Object::parse(text(request, "payload_json")?.as_bytes())?,
        other => return Err(format!("unknown op {other:?}").into()),
    };
    let now = Timestamp::from_second(request["now"].as_i64().ok_or("the field \"now\" is missing")?)?;
    Ok(format.encode(&object, now))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = match answer(&serde_json::from_str(&line?)?) {
            Ok(token) => json!({ "token": token }),
            Err(error) => json!({ "error": format!("{error:?}") }),
        };
        writeln!(output, "{answer}")?;
    }
    Ok(())
}

//! JSON written as a pickle, without a graph in between: what Rust put into a session that was read from a cache.

use std::collections::HashMap;

use super::{BATCH, Opcodes, Writer};
use crate::serializers::json::RawValue;
use crate::serializers::json::scan::{Kind, Scanner, unescape};
use crate::serializers::pickle::Error;
use crate::serializers::pickle::int::Int;
use crate::serializers::pickle::json::{Scalar, scalar};

/// An array or object that was begun, and how many items or pairs were written of it.
struct Open {
    bracket: u8,
    opcodes: Opcodes,
    written: usize,
}

/// The keys that were written, as they stand in the JSON, and their places in the memo: equal ones are one object, as
/// `json.loads` makes them.
type Keys<'a> = HashMap<&'a [u8], u32>;

impl Writer<'_> {
    /// Writes what Python's `json.loads` makes of this text.
    ///
    /// # Errors
    /// None: whoever made the value has seen that it is JSON, and no integer longer than Python takes.
    pub(super) fn json(&mut self, json: &RawValue) -> Result<(), Error> {
        let mut scanner = Scanner::new(json.as_bytes());
        let (mut open, mut keys): (Vec<Open>, Keys<'_>) = (Vec::new(), HashMap::new());
        loop {
            if let Some(begun) = self.json_value(&mut scanner)? {
                self.json_key(&begun, &mut scanner, &mut keys)?;
                open.push(begun);
                continue;
            }
            while let Some(last) = open.last_mut() {
                last.written += 1;
                if scanner.take(b',') {
                    if last.written.is_multiple_of(BATCH) {
                        self.output.extend_from_slice(&[last.opcodes.many, b'(']);
                    }
                    self.json_key(last, &mut scanner, &mut keys)?;
                    break;
                }
                scanner.take(last.bracket);
                self.output.push(last.opcodes.many);
                open.pop();
            }
            if open.is_empty() {
                return Ok(());
            }
        }
    }

    /// Writes a scalar or an empty compound, and begins any other.
    fn json_value(&mut self, scanner: &mut Scanner<'_>) -> Result<Option<Open>, Error> {
        match scanner.kind()? {
            Kind::Array => return Ok(self.begin_json(scanner, b"[]", b']', Opcodes::APPEND)),
            Kind::Object => return Ok(self.begin_json(scanner, b"{}", b'}', Opcodes::SET_ITEM)),
            Kind::String => self.json_text(scanner.string()?),
            kind @ (Kind::Number | Kind::Literal(_)) => match scalar(scanner, kind)? {
                Scalar::None => self.output.push(b'N'),
                Scalar::Bool(false) => self.output.push(0x89),
                Scalar::Bool(true) => self.output.push(0x88),
                Scalar::Float(value) => self.float(value),
                Scalar::Int(Int::Small(value)) => self.int(value),
                Scalar::Int(Int::Big(bytes)) => self.long(&bytes),
            },
        }
        Ok(None)
    }

    fn begin_json(
        &mut self,
        scanner: &mut Scanner<'_>,
        [opening, bracket]: &[u8; 2],
        empty: u8,
        opcodes: Opcodes,
    ) -> Option<Open> {
        scanner.take(*opening);
        self.output.push(empty);
        if scanner.take(*bracket) {
            return None;
        }
        self.output.push(b'(');
        Some(Open { bracket: *bracket, opcodes, written: 0 })
    }

    /// Writes the key that comes next in an object.
    fn json_key<'t>(
        &mut self,
        open: &Open,
        scanner: &mut Scanner<'t>,
        keys: &mut Keys<'t>,
    ) -> Result<(), Error> {
        if open.bracket == b']' {
            return Ok(());
        }
        let key = scanner.key()?;
        if let Some(place) = keys.get(key) {
            self.get(*place);
            return Ok(());
        }
        self.json_text(key);
        keys.insert(key, self.next_place());
        Ok(())
    }

    /// A text, of which this stands between the quotes.
    fn json_text(&mut self, text: &[u8]) {
        match text.is_ascii() && !text.contains(&b'\\') {
            true => self.text(text),
            false => self.text(&unescape(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::serializers::json::RawValue;
    use crate::serializers::pickle::{Limits, Part, Protocol, Value, dumps_dict, loads};

    fn written(json: &RawValue) -> Vec<u8> {
        dumps_dict(&[[Part::Text(b"key"), Part::Json(json)]], Protocol::V4).unwrap()
    }

    #[test]
    fn reads_as_the_graph_of_the_same_text() {
        let many = format!("[{}0]", "1,".repeat(2500));
        let pairs: Vec<String> = (0..1001).map(|n| format!(r#""k{n}":[{n}]"#)).collect();
        let deep = "[".repeat(900) + &"]".repeat(900);
        for text in [
            "[]",
            "{}",
            r#" [ 1 , { "a" : [] , "b" : {} } , "x" ] "#,
            r#"[{"a":1,"b":[{"a":2}]},{"a":null,"\u0061":true,"b":false}]"#,
            r#"{"a":1,"b":2,"a":{"a":3}}"#,
            r#"["\ud800","\ud83e\udd80","\"\\\n","","é"]"#,
            "[NaN,-Infinity,Infinity,1.5,-0.0,1e300,0,255,256,65536,-1,2147483648,-9223372036854775808]",
            "[1180591620717411303424,-1180591620717411303424]",
            &format!("\"{}\"", "x".repeat(300)),
            &many,
            &format!("{{{}}}", pairs.join(",")),
            &deep,
        ] {
            let json = RawValue::from_text(text).unwrap();
            let dict = loads(&written(&json), &Limits::default()).unwrap();
            let (_, value) = dict.dict_items().unwrap().next().unwrap();
            let expected = Value::from_json(&json).unwrap();
            assert_eq!(value.to_json().unwrap(), expected.to_json().unwrap(), "{text:.100}");
        }
    }

    #[test]
    fn a_key_is_written_once() {
        let json = RawValue::from_text(r#"[{"sku":1},{"sku":2}]"#).unwrap();
        let pickle = written(&json);
        assert_eq!(pickle, b"\x80\x04}\x8c\x03key](}(\x8c\x03sku\x94K\x01u}(h\x00K\x02ues.");
    }
}

//! Rust values written as Python's `json.dumps` writes them.

use std::iter;

use serde::ser::{self, Serialize};

use super::Error;
use super::object::RAW_VALUE;

impl ser::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Error::Shape(message.to_string())
    }
}

/// Appends `text` as a JSON string in ASCII.
pub(crate) fn write_str(output: &mut Vec<u8>, text: &str) {
    output.push(b'"');
    for c in text.chars() {
        write_code_point(output, u32::from(c));
    }
    output.push(b'"');
}

pub(crate) fn write_code_point(output: &mut Vec<u8>, code_point: u32) {
    match code_point {
        0x22 => output.extend(b"\\\""),
        0x5c => output.extend(b"\\\\"),
        0x20..=0x7e => output.push(code_point as u8),
        0x08 => output.extend(b"\\b"),
        0x09 => output.extend(b"\\t"),
        0x0a => output.extend(b"\\n"),
        0x0c => output.extend(b"\\f"),
        0x0d => output.extend(b"\\r"),
        0x10000.. => {
            let offset = code_point - 0x10000;
            write_unit(output, 0xd800 + (offset >> 10));
            write_unit(output, 0xdc00 + (offset & 0x3ff));
        }
        _ => write_unit(output, code_point),
    }
}

fn write_unit(output: &mut Vec<u8>, unit: u32) {
    let hex = |shift: u32| b"0123456789abcdef"[(unit >> shift & 0xf) as usize];
    output.extend([b'\\', b'u', hex(12), hex(8), hex(4), hex(0)]);
}

/// Appends `value` as Python's `float.__repr__`, which `json.dumps` uses.
pub(crate) fn write_float(output: &mut Vec<u8>, value: f64) {
    if !value.is_finite() {
        let name = if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        };
        return output.extend(name.as_bytes());
    }
    if write_short(output, value) {
        return;
    }
    let mut scientific = format!("{value:e}");
    if scientific.len() > 17 {
        // From 16 digits on two shortest texts may be equally near. Python takes the even one, as does an exact
        // precision in Rust, but not the shortest text in Rust. Below a power of two the even one may be another
        // number, though.
        let (mantissa, _) = split_exponent(&scientific);
        let decimals = mantissa.trim_start_matches('-').len() - 2;
        let even = format!("{value:.decimals$e}");
        if even.parse() == Ok(value) {
            scientific = even;
        }
    }
    let (mantissa, exponent) = split_exponent(&scientific);
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return output.extend(format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs()).as_bytes());
    }
    if value.is_sign_negative() {
        output.push(b'-');
    }
    let digits = mantissa.bytes().filter(u8::is_ascii_digit);
    let leading_zeros = usize::try_from(-exponent).unwrap_or(0);
    let before_point = usize::try_from(exponent).unwrap_or(0) + 1;
    let mut digits = iter::repeat_n(b'0', leading_zeros).chain(digits);
    output.extend((0..before_point).map(|_| digits.next().unwrap_or(b'0')));
    output.push(b'.');
    let start = output.len();
    output.extend(digits);
    if output.len() == start {
        output.push(b'0');
    }
}

/// Appends the usual number, of few digits and without an exponent. What is none is left alone, and the answer is `false`.
fn write_short(output: &mut Vec<u8>, value: f64) -> bool {
    if value != 0.0 && !(1e-4..1e16).contains(&value.abs()) {
        return false;
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    // With so few digits no other shortest text exists.
    let is_short = text.len() <= 16;
    if is_short {
        output.extend(text.as_bytes());
    }
    is_short
}

fn split_exponent(scientific: &str) -> (&str, i32) {
    let (mantissa, exponent) = scientific.split_once('e').expect("LowerExp writes an exponent");
    (mantissa, exponent.parse().expect("LowerExp writes a decimal exponent"))
}

pub(super) struct Serializer<'a> {
    output: &'a mut Vec<u8>,
    /// Whether the bytes that come are the text of a `RawValue`.
    is_raw: bool,
}

impl<'a> Serializer<'a> {
    pub(super) fn new(output: &'a mut Vec<u8>) -> Self {
        Self { output, is_raw: false }
    }
}

/// Items of an array or object, with the brackets that close it and what it stands in.
pub(super) struct Compound<'a> {
    output: &'a mut Vec<u8>,
    is_first: bool,
    close: &'static [u8],
}

impl<'a> Compound<'a> {
    fn open(output: &'a mut Vec<u8>, open: &[u8], close: &'static [u8]) -> Self {
        output.extend(open);
        Self { output, is_first: true, close }
    }

    fn comma(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.output.push(b',');
        }
    }

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.comma();
        value.serialize(Serializer::new(self.output))
    }

    fn field<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), Error> {
        self.comma();
        write_str(self.output, key);
        self.output.push(b':');
        value.serialize(Serializer::new(self.output))
    }

    fn close(self) -> Result<(), Error> {
        self.output.extend(self.close);
        Ok(())
    }
}

macro_rules! integers {
    ($($method:ident $type:ty),*) => {$(
        fn $method(self, value: $type) -> Result<(), Error> {
            self.output.extend(value.to_string().as_bytes());
            Ok(())
        }
    )*};
}

impl<'a> ser::Serializer for Serializer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    integers!(serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_i128 i128,
              serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_u128 u128);

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.output.extend(if value { &b"true"[..] } else { b"false" });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        write_float(self.output, value);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        write_str(self.output, value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        if self.is_raw {
            self.output.extend(value);
            return Ok(());
        }
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.output.extend(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        if name == RAW_VALUE {
            return value.serialize(Serializer { is_raw: true, ..self });
        }
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let mut object = Compound::open(self.output, b"{", b"}");
        object.field(variant, value)?;
        object.close()
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Compound<'a>, Error> {
        Ok(Compound::open(self.output, b"[", b"]"))
    }

    fn serialize_tuple(self, _len: usize) -> Result<Compound<'a>, Error> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_struct(self, _: &'static str, _len: usize) -> Result<Compound<'a>, Error> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>, Error> {
        self.output.push(b'{');
        write_str(self.output, variant);
        Ok(Compound::open(self.output, b":[", b"]}"))
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Compound<'a>, Error> {
        Ok(Compound::open(self.output, b"{", b"}"))
    }

    fn serialize_struct(self, _: &'static str, _len: usize) -> Result<Compound<'a>, Error> {
        self.serialize_map(None)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>, Error> {
        self.output.push(b'{');
        write_str(self.output, variant);
        Ok(Compound::open(self.output, b":{", b"}}"))
    }
}

macro_rules! arrays {
    ($($trait:ident $method:ident),*) => {$(
        impl ser::$trait for Compound<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.item(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )*};
}

arrays!(SerializeSeq serialize_element, SerializeTuple serialize_element,
        SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field);

macro_rules! structs {
    ($($trait:ident),*) => {$(
        impl ser::$trait for Compound<'_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
                self.field(key, value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )*};
}

structs!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.comma();
        let start = self.output.len();
        key.serialize(Serializer::new(self.output))?;
        // A key that is not a string becomes the text that it has as a value, as in `json.dumps`.
        match self.output[start] {
            b'"' => {}
            b'{' | b'[' => {
                return Err(Error::Shape("a key must be a string, number, boolean or none".to_owned()));
            }
            _ => {
                self.output.insert(start, b'"');
                self.output.push(b'"');
            }
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.output.push(b':');
        value.serialize(Serializer::new(self.output))
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::to_vec;

    fn text<T: serde::Serialize>(value: T) -> String {
        String::from_utf8(to_vec(&value).unwrap()).unwrap()
    }

    #[test]
    fn floats_as_python() {
        let cases = [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e100, "1e+100"),
            (5e-324, "5e-324"),
            (0.1 + 0.2, "0.30000000000000004"),
            (f64::MAX, "1.7976931348623157e+308"),
            (9999999999999998.0, "9999999999999998.0"),
            (1_017.354_064_941_406_2, "1017.3540649414062"),
            (2f64.powi(-24), "5.960464477539063e-08"),
            (100.0, "100.0"),
            (-0.00012, "-0.00012"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(value), expected);
        }
    }

    #[test]
    fn keys_as_python() {
        assert_eq!(text(BTreeMap::from([(1, "a"), (2, "b")])), r#"{"1":"a","2":"b"}"#);
        assert_eq!(text(BTreeMap::from([(true, 1)])), r#"{"true":1}"#);
        assert_eq!(text(BTreeMap::from([(None::<u8>, 1)])), r#"{"null":1}"#);
        assert!(to_vec(&BTreeMap::from([(vec![1], 1)])).is_err());
    }

    #[test]
    fn compounds() {
        #[derive(serde::Serialize)]
        enum Item {
            Unit,
            One(u8),
            Two(u8, u8),
            Named { a: Option<u8> },
        }
        assert_eq!(
            text([Item::Unit, Item::One(1), Item::Two(1, 2), Item::Named { a: None }]),
            r#"["Unit",{"One":1},{"Two":[1,2]},{"Named":{"a":null}}]"#
        );
        assert_eq!(text("\u{7f}\u{0}\"\\/é🦀\n"), r#""\u007f\u0000\"\\/\u00e9\ud83e\udd80\n""#);
    }
}

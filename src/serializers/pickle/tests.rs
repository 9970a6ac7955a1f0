//! Hostile and odd pickles, opcode by opcode.

use super::*;
use crate::serializers::json::RawValue;

fn read(data: &[u8]) -> Result<Value, Error> {
    loads(data, &Limits::default())
}

fn json(data: &[u8]) -> Result<String, Error> {
    read(data)?.to_json().map(|json| str::from_utf8(json.as_bytes()).unwrap().to_owned())
}

fn is_malformed(data: &[u8]) -> bool {
    matches!(read(data), Err(Error::Malformed { .. }))
}

#[test]
fn opcodes_of_all_protocols() {
    let cases: [(&[u8], &str); 24] = [
        (b"I01\n.", "true"),
        (b"I00\n.", "false"),
        (b"I1\n.", "1"),
        (b"I010\n.", "8"),
        (b"I-0x10\n.", "-16"),
        (b"I99999999999999999999\n.", "99999999999999999999"),
        (b"L-1_000L\n.", "-1000"),
        (b"\x8a\x00.", "0"),
        (b"\x8a\x02\xff\xff.", "-1"),
        (b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00.", "18446744073709551615"),
        (b"\x8b\x01\x00\x00\x00\x80.", "-128"),
        (b"F1e5\n.", "100000.0"),
        (b"F-inf\n.", "-Infinity"),
        (b"S'a\\x41\\101\\n'\n.", r#""aAA\n""#),
        (b"V\\u00e9\xe9\\\\u\n.", r#""\u00e9\u00e9\\\\u""#),
        (b"\x8c\x03\xed\xa0\x80.", r#""\ud800""#),
        (b"(I1\nI2\nl.", "[1,2]"),
        (b"(I1\nI2\nI1\nI3\nd.", r#"{"1":3}"#),
        (b"}(K\x01K\x02G\x3f\xf0\x00\x00\x00\x00\x00\x00K\x03\x88K\x04u.", r#"{"1":4}"#),
        (b"]K\x01K\x020a.trailing", "[1]"),
        (b"](K\x01(1e.", "[1]"),
        (b"]2\x86.", "[[],[]]"),
        (b"]\x94K\x05\x94h\x01\x87.", "[[],5,5]"),
        (b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00K\x01.", "1"),
    ];
    for (data, expected) in cases {
        assert_eq!(json(data).as_deref(), Ok(expected), "{}", data.escape_ascii());
    }
}

#[test]
fn what_is_no_pickle_is_an_error() {
    let malformed: [&[u8]; 32] = [
        b".",
        b"0.",
        b"1.",
        b"2.",
        b"t.",
        b"e.",
        b"]e.",
        b"(.",
        b"K\x01K\x02(\x86.",
        b"a.",
        b"K\x01a.",
        b"NK\x01a.",
        b"}K\x01s.",
        b"}(K\x01u.",
        b"(K\x01d.",
        b"]K\x01K\x02s.",
        b"h\x00.",
        b"g0\n.",
        b"g-1\n.",
        b"I\n.",
        b"Ia\n.",
        b"F1e400\n.",
        b"Fx\n.",
        b"Sa\n.",
        b"S'\\x4'\n.",
        b"U\x01\xff.",
        b"\x8c\x01\xff.",
        b"V\\u12\n.",
        b"K\x01)R.",
        b"cos\nsystem\nK\x01R.",
        b"(o.",
        b"\x80\x03c\nx\n.",
    ];
    for data in malformed {
        assert!(is_malformed(data), "{}: {:?}", data.escape_ascii(), read(data));
    }
    let hostile_lengths: [&[u8]; 5] = [
        b"X\xff\xff\xff\xffa.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xffN.",
        b"\x8b\xff\xff\xff\x7fa.",
    ];
    for data in hostile_lengths {
        assert_eq!(read(data).unwrap_err(), Error::Truncated { offset: data.len() });
    }
    assert_eq!(read(b"\x80\x06N.").unwrap_err(), Error::Protocol(6));
    for data in [&b"P1\n."[..], b"NQ.", b"\x82\x01.", b"\x97.", b"N\x98."] {
        assert!(matches!(read(data), Err(Error::Outside { .. })), "{}", data.escape_ascii());
    }
}

#[test]
fn keys_must_be_hashable() {
    for (data, kind) in [
        (&b"}]Ns."[..], "list"),
        (b"}}Ns.", "dict"),
        (b"}(\x8fNu.", "set"),
        (b"}]\x85\x85Ns.", "list"),
        (b"\x8f(]\x90.", "list"),
        (b"(]\x91.", "list"),
        (b"}\x94h\x00\x85Ns.", "dict"),
    ] {
        assert_eq!(read(data).unwrap_err(), Error::Unhashable { kind }, "{}", data.escape_ascii());
    }
}

#[test]
fn limits_hold() {
    let limits = Limits { max_size: 1 << 20, max_depth: 100, max_nodes: 1000, max_memo: 100 };
    let limited = |data: &[u8]| match loads(data, &limits) {
        Err(Error::Limit { unit, .. }) => unit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limited(&vec![b']'; 2 << 20]), "bytes");
    assert_eq!(limited(&vec![b']'; 2000]), "values");
    assert_eq!(limited(&vec![b'('; 2000]), "levels");
    assert_eq!(limited(&[&b")"[..], &[b'\x85'; 200]].concat()), "levels");
    assert_eq!(limited(&[&b"]"[..], b"]a", &b"](".repeat(200)].concat()), "levels");
    assert_eq!(limited(b"Nr\x00\x00\x00\x01."), "places in the memo");
    assert_eq!(limited(b"Np1000000000000\n."), "places in the memo");
    // One list, made into sets again and again.
    let sets =
        [&b"]\x94("[..], &b"K\x01".repeat(500), b"e", &b"c__builtin__\nset\nh\x00\x85R".repeat(5), b"."]
            .concat();
    assert_eq!(limited(&sets), "values");
    // One text, encoded again and again.
    let text = "x".repeat(1 << 18);
    let call = b"c_codecs\nencode\nh\x00\x8c\x06latin1\x86R";
    let texts = [b"X\x00\x00\x04\x00", text.as_bytes(), b"\x94", &call.repeat(20), b"."].concat();
    assert_eq!(limited(&texts), "bytes of text");
}

/// A tower of pairs of the one below: small to keep, beyond all measure written out.
#[test]
fn a_billion_laughs() {
    for data in [
        [&b"X\x03\x00\x00\x00lol"[..], &b"2\x86".repeat(100), b"."].concat(),
        [&b"X\x03\x00\x00\x00lol"[..], b"\x94](h\x00h\x00e", b"."].concat(),
    ] {
        let value = read(&data).unwrap();
        let written = dumps(&value, Protocol::V4).unwrap();
        assert!(written.len() < 1000);
    }
    let tower = read(&[&b"X\x03\x00\x00\x00lol"[..], &b"2\x86".repeat(100), b"."].concat()).unwrap();
    assert!(matches!(tower.to_json(), Err(Error::Limit { .. })));
    assert!(matches!(tower.to::<serde_json::Value>(), Err(Error::Limit { .. })));
    // As a key it is compared in no time, too.
    let key = [&b"}X\x03\x00\x00\x00lol"[..], &b"2\x86".repeat(100), b"K\x01s."].concat();
    assert_eq!(read(&key).unwrap().dict_items().unwrap().count(), 1);
}

#[test]
fn depth_takes_no_stack() {
    let depth = 9_000;
    let data = [b"](".repeat(depth), b"e".repeat(depth), b".".to_vec()].concat();
    let value = read(&data).unwrap();
    let written = dumps(&value, Protocol::V5).unwrap();
    let again = read(&written).unwrap();
    assert_eq!(again.to_json(), value.to_json());
    assert!(matches!(again.to::<serde_json::Value>(), Err(Error::Limit { .. })));
    let json = again.to_json().unwrap();
    assert_eq!(Value::from_json(&json).unwrap().to_json().unwrap(), json);
}

#[test]
fn what_contains_itself() {
    let data = b"]\x94h\x00a.";
    let value = read(data).unwrap();
    assert_eq!(value.to_json(), Err(Error::Circular));
    assert!(matches!(value.to::<serde_json::Value>(), Err(Error::Limit { .. })));
    assert_eq!(dumps(&value, Protocol::V4).unwrap(), b"\x80\x04]\x94h\x00a.");
    // A tuple that contains itself by way of a list: ([t],), as CPython writes it.
    let data = b"\x80\x04]\x94h\x00\x85\x94a0h\x01.";
    let value = read(data).unwrap();
    let again = read(&dumps(&value, Protocol::V4).unwrap()).unwrap();
    let list = again.items().unwrap().next().unwrap();
    assert_eq!(list.items().unwrap().next().unwrap().id, again.id);
}

/// Many lists in one tuple that all hold the tuple: CPython's way to write it takes time squared.
#[test]
fn entangled_tuples_stay_within_bounds() {
    let count = 3000;
    let mut data = b"\x80\x04(".to_vec();
    data.extend(b"]\x94".repeat(count));
    data.extend(b"t\x94");
    for index in 0..count as u32 {
        data.push(b'j');
        data.extend(index.to_le_bytes());
        data.push(b'j');
        data.extend((count as u32).to_le_bytes());
        data.extend(b"a0");
    }
    data.push(b'.');
    let value = read(&data).unwrap();
    assert!(matches!(dumps(&value, Protocol::V4), Err(Error::Limit { .. })));
}

#[test]
fn names_of_python2() {
    let value = read(b"c__builtin__\nset\n(lp0\nVa\naVa\na\x85R.").unwrap();
    assert_eq!((value.kind(), value.items().unwrap().count()), (Kind::Set, 1));
    let value = read(b"\x80\x02cUserDict\nUserDict\n)R.").unwrap();
    assert_eq!(value.class(), "collections.UserDict");
    assert_eq!(read(b"\x80\x03cUserDict\nUserDict\n)R.").unwrap().class(), "UserDict.UserDict");
    assert!(is_malformed(b"\x80\x02cos\npath.join\n."));
    let date = b"cdatetime\ndate\n(S'\\x07\\xe1\\x08\\t'\ntR.";
    assert!(is_malformed(date));
    assert_eq!(loads_python2(date, &Limits::default()).unwrap().to::<String>().as_deref(), Ok("2017-08-09"));
}

#[test]
fn objects_are_named_and_never_called() {
    let value = read(b"cos\nsystem\n(Vrm -rf /\ntR.").unwrap();
    assert_eq!(value.to::<String>(), Err(Error::Object { class: "os.system".to_owned() }));
    assert_eq!(value.to_json(), Err(Error::NoJson { kind: "os.system".to_owned() }));
    assert_eq!(format!("{value:?}"), "Value(os.system)");
    assert!(!format!("{value:?}").contains("rm"));
    let written = dumps(&value, Protocol::V4).unwrap();
    assert_eq!(written, b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x8c\x08rm -rf /\x85R.");
    // A name cannot paint the log red.
    let value = read(b"cos\n\x1b[31m\n)R.").unwrap();
    assert_eq!(value.class(), "os.\\u{1b}[31m");
}

#[test]
fn shared_values_of_several_pickles() {
    let first = read(b"]\x94K\x01ah\x00\x86.").unwrap();
    let parts: Vec<_> = first.items().unwrap().collect();
    let other = Value::from_json(&RawValue::from_text("[1]").unwrap()).unwrap();
    let dict = Value::from_dict_items([
        (Value::str("a"), parts[0].clone()),
        (Value::str("b"), other),
        (Value::str("c"), parts[1].clone()),
    ]);
    let values: Vec<_> = dict.dict_items().unwrap().map(|(_, value)| value.id).collect();
    assert_eq!(values[0], values[2]);
    assert_ne!(values[0], values[1]);
}

/// Lists that grow in turns: each is moved when it has no room, and nothing of another is lost.
#[test]
fn values_that_grow_in_turns() {
    // Fewer than the opcode that is counted below.
    let rounds = 70;
    // Three containers in the memo, each of which gets one item a round, and one object that gets them all.
    let mut data = b"\x80\x04]\x94}\x94\x8f\x94c__main__\nShop\n)\x81\x94".to_vec();
    for round in 0..rounds as u8 {
        data.extend([b'h', 0, b'K', round, b'a', b'0']);
        data.extend([b'h', 1, b'K', round, b'K', round, b's', b'0']);
        data.extend([b'h', 2, b'(', b'K', round, 0x90, b'0']);
        data.extend([b'h', 3, b'K', round, b'a', b'0']);
    }
    data.extend(b"(h\x00h\x01h\x02h\x03t.");
    let value = read(&data).unwrap();
    for value in [read(&dumps(&value, Protocol::V5).unwrap()).unwrap(), value] {
        let parts: Vec<_> = value.items().unwrap().collect();
        let numbers = |value: &Value| value.to::<Vec<usize>>().unwrap();
        assert_eq!(numbers(&parts[0]), (0..rounds).collect::<Vec<_>>());
        assert_eq!(numbers(&parts[2]), (0..rounds).collect::<Vec<_>>());
        let pairs = parts[1].dict_items().unwrap().map(|(key, value)| (key.to(), value.to()));
        assert!(pairs.eq((0..rounds).map(|n| (Ok(n), Ok(n)))));
        assert_eq!(
            dumps(&parts[3], Protocol::V4).unwrap().iter().filter(|byte| **byte == b'K').count(),
            rounds
        );
    }
    // However they grow, the room that they left is no more than they take.
    let mut data = b"\x80\x04".to_vec();
    data.extend(b"]\x94".repeat(100));
    for round in 0..100 * 100u32 {
        data.extend([b'h', (round % 100) as u8, b'N', b'a', b'0']);
    }
    data.push(b'.');
    let grown = read(&data).unwrap();
    assert!(grown.graph.max_size() - data.len() < 6 * 4 * 100 * 100 + 16 * 200);
}

/// What CPython puts into the memo and never fetches leaves nothing behind, and what it fetches is one object.
#[test]
fn places_of_the_memo_that_nobody_fetches() {
    let data = b"\x80\x04]\x94(\x8c\x01a\x94\x8c\x01b\x94}\x94(\x8c\x01c\x94h\x02ue.";
    let value = read(data).unwrap();
    let written = dumps(&value, Protocol::V4).unwrap();
    assert_eq!(written, b"\x80\x04](\x8c\x01a\x8c\x01b\x94}\x8c\x01ch\x00se.");
    // A place that is filled again is another value, and one that was left out is none.
    assert_eq!(read(b"Nq\x05K\x01q\x050h\x05.").unwrap().to::<u8>(), Ok(1));
    assert!(is_malformed(b"Nq\x05h\x04."));
    // MEMOIZE counts the places that are taken.
    assert!(is_malformed(b"Nq\x05\x94h\x00h\x02."));
    assert_eq!(read(b"K\x07q\x05\x940h\x01.").unwrap().to::<u8>(), Ok(7));
}

/// Nothing above a mark is reached from below it, and no mark is taken for a value.
#[test]
fn marks_stay_apart_from_values() {
    for data in [
        &b"N(0."[..],
        b"N(.",
        b"N(a.",
        b"](a.",
        b"]((Nae.",
        b"(.",
        b"N(2.",
        b"1.",
        b"(1.",
        b"N(\x85.",
        b"](N(\x86.",
        b"}(N(s.",
        b"((e.",
        b"(]e.",
        b"(1N1.",
        b"}(Nu.",
        b"N(\x94.",
    ] {
        let judged = read(data);
        let is_sound = matches!(data, b"N(0.");
        assert_eq!(judged.is_ok(), is_sound, "{}", data.escape_ascii());
    }
    assert_eq!(read(b"](N(1e.").unwrap().items().unwrap().count(), 1);
}

/// Many bytearrays of one and the same bytes, which no pickler writes: small to keep, but each is written out.
#[test]
fn bytes_that_many_share() {
    let len = 100_000;
    let make = |count: usize| {
        let text = [&b"B"[..], &(len as u32).to_le_bytes(), &vec![b'x'; len], b"\x940("].concat();
        [&b"\x80\x04"[..], &text, &b"cbuiltins\nbytearray\nh\x00\x85R".repeat(count), b"t."].concat()
    };
    for protocol in [Protocol::V4, Protocol::V5] {
        let written = dumps(&read(&make(20)).unwrap(), protocol).unwrap();
        assert!((20 * len..20 * len + 1000).contains(&written.len()));
    }
    let max = Limits::default().max_size * 3;
    assert_eq!(read(&make(5000)).unwrap_err(), Error::Limit { unit: "bytes of text", max });
}

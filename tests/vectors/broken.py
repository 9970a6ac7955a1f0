"""What a signed session may hold instead of a session: broken base64, zlib and JSON."""

import base64
import zlib


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def plain(data):
    return b64(data)


def squeezed(data, level=6):
    return "." + b64(zlib.compress(data, level))


def signed_bodies():
    """What to sign (all that goes before the time): group, name, text."""
    good = b'{"a":1}'
    text = plain(good)  # eyJhIjoxfQ
    assert len(text) % 4 == 2

    # Base64. CPython skips characters beyond the alphabet.
    yield "base64", "length_1_mod_4", text[:9]
    yield "base64", "one_character", "e"
    yield "base64", "two_characters", "ey"
    yield "base64", "three_characters", "eyJ"
    yield "base64", "one_junk_character", text[:4] + "!" + text[4:]
    yield "base64", "two_junk_characters", text[:4] + "!!" + text[4:]
    yield "base64", "four_junk_characters", text[:4] + "!?*$" + text[4:]
    yield "base64", "junk_at_the_start", "!!!!" + text
    yield "base64", "junk_at_the_end", text + "!!!!"
    yield "base64", "only_junk", "!!!!"
    yield "base64", "spaces", text[:4] + "    " + text[4:]
    yield "base64", "newlines", text[:4] + "\r\n\r\n" + text[4:]
    yield "base64", "nul", text[:4] + "\x00\x00\x00\x00" + text[4:]
    yield "base64", "non_ascii", text[:4] + "éé" + text[4:]
    yield "base64", "non_ascii_3_bytes", text[:4] + "日" + text[4:]
    yield "base64", "astral", text[:4] + "\U0001f600" + text[4:]
    yield "base64", "separators_inside", text[:4] + "::::" + text[4:]
    yield "base64", "dots_inside", text[:4] + "...." + text[4:]
    yield "base64", "padded", text + "=="
    yield "base64", "padding_of_one", text + "="
    yield "base64", "padding_of_three", text + "==="
    yield "base64", "padding_of_four", text + "===="
    yield "base64", "padding_of_eight", text + "=" * 8
    yield "base64", "padding_inside", text[:4] + "=" + text[4:]
    yield "base64", "padding_in_pair_inside", text[:6] + "==" + text[6:]
    yield "base64", "padding_split_by_junk", text + "=!="
    yield "base64", "data_after_padding", text + "==" + text
    yield "base64", "data_after_padding_4", text + "==AAAA"
    yield "base64", "padding_at_the_start", "=" + text
    yield "base64", "padding_of_two_at_the_start", "==" + text
    yield "base64", "only_padding", "===="
    yield "base64", "loose_trailing_bits", text[:-1] + "R"
    yield "base64", "loose_trailing_bits_all", text[:-1] + "f"
    yield "base64", "loose_trailing_bits_of_three", plain(b'{"a":11}')[:-1] + "1"
    yield "base64", "url_alphabet", plain(b'{"\xff\xfe\xfb":"\xff\xef\xbf"}')
    yield (
        "base64",
        "standard_alphabet",
        plain(b'{"\xff\xfe\xfb":"\xff\xef\xbf"}').replace("-", "+").replace("_", "/"),
    )
    yield (
        "base64",
        "standard_and_url_alphabet",
        plain(b'{"\xff\xfe\xfb":"\xff\xef\xbf"}').replace("-", "+", 1),
    )
    yield "base64", "percent_encoded", text + "%3D%3D"
    yield "base64", "quoted", '"' + text + '"'

    # zlib. CPython ignores what follows the stream.
    data = b'{"cart":"' + b"abc" * 30 + b'"}'
    packed = zlib.compress(data)
    yield "zlib", "not_squeezed", "." + text
    yield "zlib", "only_a_dot", "."
    yield "zlib", "two_dots", "." + squeezed(data)
    yield "zlib", "dot_forgotten", b64(packed)
    for cut in range(len(packed)):
        yield "zlib", f"cut_to_{cut:02d}", "." + b64(packed[:cut])
    for position in range(len(packed)):
        flipped = bytearray(packed)
        flipped[position] ^= 1 << (position % 8)
        yield "zlib", f"flipped_{position:02d}", "." + b64(bytes(flipped))
    yield "zlib", "wrong_adler", "." + b64(packed[:-4] + b"\x00\x00\x00\x00")
    yield "zlib", "trailing_garbage", "." + b64(packed + b"garbage")
    yield "zlib", "trailing_byte", "." + b64(packed + b"\x00")
    yield "zlib", "second_stream", "." + b64(packed + packed)
    yield "zlib", "raw_deflate", "." + b64(packed[2:-4])
    yield (
        "zlib",
        "gzip",
        "." + b64(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + packed[2:-4] + b"\x00" * 8),
    )
    compressor = zlib.compressobj(zdict=b"abcabcabcabc")
    yield "zlib", "preset_dictionary", "." + b64(compressor.compress(data) + compressor.flush())
    compressor = zlib.compressobj(6, zlib.DEFLATED, 9)
    yield "zlib", "window_of_512", "." + b64(compressor.compress(data) + compressor.flush())
    compressor = zlib.compressobj(6, zlib.DEFLATED, 15, 8, zlib.Z_FIXED)
    yield "zlib", "fixed_codes", "." + b64(compressor.compress(data) + compressor.flush())
    compressor = zlib.compressobj()
    yield (
        "zlib",
        "sync_flush_without_end",
        "." + b64(compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)),
    )
    compressor = zlib.compressobj()
    flushed = compressor.compress(data[:20]) + compressor.flush(zlib.Z_FULL_FLUSH)
    yield (
        "zlib",
        "full_flush_inside",
        "." + b64(flushed + compressor.compress(data[20:]) + compressor.flush()),
    )
    for level in (0, 1, 9):
        yield "zlib", f"level_{level}", squeezed(data, level)
    yield "zlib", "squeezed_but_longer", squeezed(good)
    yield "zlib", "squeezed_nothing", squeezed(b"")
    yield "zlib", "squeezed_twice", squeezed(zlib.compress(data))
    yield "zlib", "reserved_block", "." + b64(b"\x78\x9c\x07\x00")
    yield "zlib", "distance_too_far", "." + b64(b"\x78\x9c\x03\x02\x00\x00\x00\x00\x01")

    # JSON.
    for name, body in JSON_BODIES:
        yield "json", name, plain(body)
    for name, body in LONG_JSON_BODIES:
        yield "json", name, squeezed(body, 9)


# Everything that a JSON reader can be asked. latin-1 is how Django reads the bytes.
JSON_BODIES = [
    ("nothing", b""),
    ("space", b" "),
    ("word", b"session"),
    ("trailing_garbage", b'{"a":1}x'),
    ("trailing_brace", b'{"a":1}}'),
    ("two_documents", b'{"a":1} {"b":2}'),
    ("trailing_nul", b'{"a":1}\x00'),
    ("spaces_around", b' \t\r\n{ "a" :\t1 ,\r\n"b" : [ 1 , 2 ] }\n '),
    ("form_feed", b'{\x0c"a":1}'),
    ("vertical_tab", b'\x0b{"a":1}'),
    ("no_break_space", b'{\xa0"a":1}'),
    ("byte_order_mark", b'\xef\xbb\xbf{"a":1}'),
    ("utf_16", '{"a":1}'.encode("utf-16")),
    ("comment", b'{"a":1/**/}'),
    ("cut_object", b'{"a":1'),
    ("cut_after_colon", b'{"a":'),
    ("cut_after_key", b'{"a"'),
    ("cut_in_key", b'{"a'),
    ("cut_after_brace", b"{"),
    ("cut_list", b'{"a":[1,2'),
    ("cut_list_after_comma", b'{"a":[1,'),
    ("cut_string", b'{"a":"b'),
    ("cut_escape", b'{"a":"b\\'),
    ("cut_unicode_escape", b'{"a":"\\u00'),
    ("comma_at_the_end", b'{"a":1,}'),
    ("comma_at_the_end_of_list", b'{"a":[1,]}'),
    ("comma_at_the_start", b'{,"a":1}'),
    ("two_commas", b'{"a":1,,"b":2}'),
    ("no_comma", b'{"a":1 "b":2}'),
    ("no_colon", b'{"a" 1}'),
    ("two_colons", b'{"a"::1}'),
    ("no_value", b'{"a":}'),
    ("no_key", b"{:1}"),
    ("bare_key", b"{a:1}"),
    ("number_as_key", b"{1:2}"),
    ("null_as_key", b"{null:2}"),
    ("single_quotes", b"{'a':1}"),
    ("wrong_bracket", b'{"a":[1}'),
    ("list", b"[1,2,3]"),
    ("empty_list", b"[]"),
    ("list_of_pairs", b'[["a",1]]'),
    ("string", b'"text"'),
    ("empty_string", b'""'),
    ("number", b"7"),
    ("zero", b"0"),
    ("float", b"1.5"),
    ("null", b"null"),
    ("true", b"true"),
    ("false", b"false"),
    ("nan", b"NaN"),
    ("infinity", b"Infinity"),
    ("minus_infinity", b"-Infinity"),
    ("duplicate_keys", b'{"a":1,"b":2,"a":3}'),
    ("duplicate_keys_escaped", b'{"a":1,"\\u0061":2}'),
    ("duplicate_keys_in_depth", b'{"x":{"a":[1],"a":{"b":1,"b":2}}}'),
    ("raw_newline_in_string", b'{"a":"x\ny"}'),
    ("raw_tab_in_string", b'{"a":"x\ty"}'),
    ("raw_nul_in_string", b'{"a":"x\x00y"}'),
    ("raw_1f_in_string", b'{"a":"x\x1fy"}'),
    ("raw_control_in_key", b'{"a\nb":1}'),
    ("raw_delete_in_string", b'{"a":"\x7f"}'),
    ("utf_8_in_string", '{"a":"é日"}'.encode()),
    ("utf_8_in_key", '{"é":1}'.encode()),
    ("astral_utf_8", '{"a":"\U0001f600"}'.encode()),
    ("latin_1_in_string", b'{"a":"\xe9\x80\xff"}'),
    ("high_bytes_outside_a_string", b'{"a":\xff}'),
    ("superscript_as_number", b'{"a":\xb2}'),
    ("superscript_in_number", b'{"a":1\xb2}'),
    ("every_escape", b'{"a":"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041"}'),
    ("upper_and_lower_hex", b'{"a":"\\u00E9\\u00e9\\uABCD\\uabcd"}'),
    ("unknown_escape", b'{"a":"\\x41"}'),
    ("escaped_quote_mark", b'{"a":"\\\'"}'),
    ("escaped_newline", b'{"a":"\\\n"}'),
    ("upper_u_escape", b'{"a":"\\U0041"}'),
    ("short_unicode_escape", b'{"a":"\\u41"}'),
    ("bad_unicode_escape", b'{"a":"\\u00g0"}'),
    ("unicode_escape_with_x", b'{"a":"\\u0x41"}'),
    ("unicode_escape_with_plus", b'{"a":"\\u+041"}'),
    ("unicode_escape_with_space", b'{"a":"\\u 041"}'),
    ("unicode_escape_with_underscore", b'{"a":"\\u0_41"}'),
    ("surrogate_pair", b'{"a":"\\ud83d\\ude00"}'),
    ("surrogate_high", b'{"a":"\\ud83d"}'),
    ("surrogate_low", b'{"a":"\\ude00"}'),
    ("surrogate_high_then_letter", b'{"a":"\\ud83dx"}'),
    ("surrogate_high_then_escape", b'{"a":"\\ud83d\\n"}'),
    ("surrogate_high_then_other_unicode", b'{"a":"\\ud83d\\u0041"}'),
    ("surrogate_high_twice", b'{"a":"\\ud83d\\ud83d\\ude00"}'),
    ("surrogates_swapped", b'{"a":"\\ude00\\ud83d"}'),
    ("surrogate_high_then_bad_escape", b'{"a":"\\ud83d\\u00g0"}'),
    ("surrogate_high_then_cut", b'{"a":"\\ud83d\\u'),
    ("surrogate_in_key", b'{"\\ud83d":1,"\\ud83d\\ude00":2}'),
    ("escaped_nul", b'{"a\\u0000":"\\u0000"}'),
    ("number_leading_zero", b'{"a":01}'),
    ("number_minus_leading_zero", b'{"a":-01}'),
    ("number_plus", b'{"a":+1}'),
    ("number_minus_only", b'{"a":-}'),
    ("number_two_minus", b'{"a":--1}'),
    ("number_no_whole_part", b'{"a":.5}'),
    ("number_no_fraction", b'{"a":1.}'),
    ("number_no_exponent", b'{"a":1e}'),
    ("number_no_exponent_after_sign", b'{"a":1e+}'),
    ("number_hex", b'{"a":0x10}'),
    ("number_underscore", b'{"a":1_000}'),
    ("number_two_points", b'{"a":1.2.3}'),
    ("number_letter_after", b'{"a":1f}'),
    ("number_minus_zero", b'{"a":-0}'),
    ("number_minus_zero_float", b'{"a":-0.0}'),
    ("number_minus_zero_exponent", b'{"a":-0e1}'),
    ("number_zero_exponent", b'{"a":0e0}'),
    ("number_upper_exponent", b'{"a":1E5,"b":1E+5,"c":1e-05,"d":1.50e3}'),
    ("number_trailing_zeros", b'{"a":1.500,"b":100.0}'),
    ("number_overflow", b'{"a":1e400,"b":-1e400}'),
    ("number_underflow", b'{"a":1e-400,"b":-1e-400}'),
    ("number_half_way", b'{"a":1.00000000000000011102230246251565,"b":9007199254740993.0}'),
    ("number_max_and_a_bit", b'{"a":1.7976931348623158e308,"b":1.7976931348623159e308}'),
    ("number_beyond_64_bits", b'{"a":18446744073709551616,"b":-9223372036854775809}'),
    ("number_300_digits", b'{"a":' + b"7" * 300 + b"}"),
    (
        "number_exponent_300_digits",
        b'{"a":1e' + b"9" * 300 + b',"b":1e-' + b"9" * 300 + b',"c":0e' + b"9" * 300 + b"}",
    ),
    ("constant_minus_nan", b'{"a":-NaN}'),
    ("constant_lower_nan", b'{"a":nan}'),
    ("constant_cut_nan", b'{"a":Na}'),
    ("constant_plus_infinity", b'{"a":+Infinity}'),
    ("constant_inf", b'{"a":Inf}'),
    ("constant_minus_inf", b'{"a":-Inf}'),
    ("constant_cut_infinity", b'{"a":Infinit}'),
    ("constant_infinity_and_more", b'{"a":Infinityx}'),
    ("constant_all", b'{"a":NaN,"b":Infinity,"c":-Infinity,"d":[NaN,-Infinity]}'),
    ("constant_upper_true", b'{"a":True}'),
    ("constant_cut_true", b'{"a":tru}'),
    ("constant_true_and_more", b'{"a":truex}'),
    ("constant_none", b'{"a":None}'),
    ("constant_undefined", b'{"a":undefined}'),
    ("pickle", b"\x80\x04}\x94\x8c\x01a\x94K\x01s."),
    ("php_session", b'a|i:1;b|s:1:"x";'),
    ("expiry_text", b'{"_session_expiry":"soon"}'),
    ("expiry_list", b'{"_session_expiry":[1]}'),
    ("expiry_float", b'{"_session_expiry":12.5}'),
]

LONG_JSON_BODIES = [
    ("digits_4300", b'{"a":' + b"7" * 4300 + b"}"),
    ("digits_4301", b'{"a":' + b"7" * 4301 + b"}"),
    ("digits_4301_minus", b'{"a":-' + b"7" * 4301 + b"}"),
    ("digits_5000_float", b'{"a":' + b"7" * 5000 + b'.5,"b":0.' + b"7" * 5000 + b"}"),
    ("nesting_100000_lists", b"[" * 100000 + b"]" * 100000),
    ("nesting_100000_objects", b'{"a":' * 100000 + b"1" + b"}" * 100000),
    ("nesting_100000_mixed", b'{"a":[' * 50000 + b"]}" * 50000),
    ("nesting_100000_in_a_key", b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}"),
    ("nesting_100000_unclosed", b"[" * 100000),
    ("nesting_100000_unclosed_objects", b'{"a":' * 100000),
    ("nesting_300", b'{"a":' + b"[" * 300 + b"]" * 300 + b"}"),
]


def bomb(size):
    """A JSON object of exactly this many bytes, nearly all of them one letter."""
    return squeezed(b'{"a":"' + b"0" * (size - 8) + b'"}', 9)

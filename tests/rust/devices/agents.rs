//! What is kept and shown of a `User-Agent` header, by Rust and by Django.

use django_sessions::contrib::devices::{Client, summarise};
use serde_json::{Value, json};

use crate::site::Site;

/// As browsers, libraries and fools send them.
const HEADERS: &[&[u8]] = &[
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0",
    b"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36 EdgA/141.0.0.0",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 EdgiOS/141.0 Mobile/15E148 Safari/604.1",
    b"Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko",
    b"Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
    b"Mozilla/5.0 (Android 15; Mobile; rv:143.0) Gecko/143.0 Firefox/143.0",
    b"Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/143.0 Mobile/15E148 Safari/604.1",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/141.0.0.0 Mobile/15E148 Safari/604.1",
    b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15",
    b"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Ubuntu Chromium/141.0.0.0 Safari/537.36",
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 OPR/122.0.0.0",
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Vivaldi/7.6",
    b"Mozilla/5.0 (Linux; Android 14; SAMSUNG SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
    b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    b"curl/8.5.0",
    b"python-requests/2.32.5",
    b"Wget/1.24.5 (linux-gnu)",
    b"okhttp/5.1.0",
    b"Mozilla/5.0 (Linux)",
    b"",
    b"   ",
    b"\tFirefox/1.0 \t (Windows)   ",
    b"a\x7fb\x80c\x9fd\xa0e\xadf\xffg",
    "Bröwser/1.0 (Mac OS X) 浏览器".as_bytes(),
    b"<script>alert('Chrome/')</script>",
];

#[tokio::test]
async fn the_same_text_as_django() {
    let folder = tempfile::tempdir().unwrap();
    let Some(site) = Site::start(&crate::sqlite(&folder), "off").await else { return };
    let mut headers: Vec<Vec<u8>> = HEADERS.iter().map(|header| header.to_vec()).collect();
    // Cut at the column's end, in the middle of what is left out, and never read to its end.
    headers.push(b"Firefox/1 ".repeat(40));
    headers.push([&b"\x01".repeat(900)[..], &b"Linux ".repeat(100)].concat());
    headers.push([&b"\x01".repeat(1019)[..], b"a", b"b", b"Linux"].concat());
    headers.push(b"x".repeat(100_000));
    headers.push((0..=255).collect());
    let latin_1 = |header: &Vec<u8>| header.iter().map(|byte| char::from(*byte)).collect::<String>();
    let question: Vec<String> = headers.iter().map(latin_1).collect();
    let django = site.ask("summaries", json!({"headers": question}));
    for (header, django) in headers.iter().zip(django.as_array().unwrap()) {
        let client = Client::new(None, None, header);
        let rust: Value = json!([client.user_agent(), summarise(client.user_agent())]);
        assert_eq!(rust, *django, "{:?}", String::from_utf8_lossy(header));
    }
}

//! Password hashes of real Django releases, read and judged by ours.

use std::collections::BTreeMap;

use django_sessions::contrib::auth::hashers::{Hasher, HasherError, Hashers, Verified, unusable_password};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    releases: BTreeMap<String, Release>,
}

#[derive(Deserialize)]
struct Release {
    defaults: BTreeMap<String, BTreeMap<String, u32>>,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    password: String,
    encoded: String,
    is_default_cost: bool,
    must_update: bool,
}

fn releases() -> BTreeMap<String, Release> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/passwords/passwords.json");
    serde_json::from_slice::<File>(&std::fs::read(path).unwrap()).unwrap().releases
}

impl Release {
    /// The release's hashers with its costs, `first` in front.
    fn hashers(&self, first: &str) -> Hashers {
        let mut all: Vec<_> = self.defaults.iter().collect();
        all.sort_by_key(|(name, _)| *name != first);
        Hashers::new(all.into_iter().map(|(name, costs)| {
            let cost = |field: &str| costs[field];
            match name.as_str() {
                "pbkdf2_sha256" => Hasher::Pbkdf2Sha256 { iterations: cost("iterations") },
                "pbkdf2_sha1" => Hasher::Pbkdf2Sha1 { iterations: cost("iterations") },
                "argon2" => Hasher::Argon2 {
                    time_cost: cost("time_cost"),
                    memory_cost: cost("memory_cost"),
                    parallelism: cost("parallelism"),
                },
                "bcrypt_sha256" => Hasher::BcryptSha256 { rounds: cost("rounds") },
                "bcrypt" => Hasher::Bcrypt { rounds: cost("rounds") },
                "scrypt" => Hasher::Scrypt {
                    work_factor: cost("work_factor"),
                    block_size: cost("block_size"),
                    parallelism: cost("parallelism"),
                },
                other => panic!("no hasher {other}"),
            }
        }))
    }
}

fn algorithm(encoded: &str) -> &str {
    encoded.split('$').next().unwrap()
}

/// Checks each entry with its own algorithm first in line, as the vectors were made.
#[test]
fn passwords_of_every_release() {
    for (name, release) in releases() {
        // At full cost each takes a second or so.
        let in_full =
            std::env::var_os("PROPTEST_CASES").is_some() || ["1.11", "6.1"].contains(&name.as_str());
        for entry in release.entries.iter().filter(|entry| in_full || !entry.is_default_cost) {
            let hashers = release.hashers(algorithm(&entry.encoded));
            let verified = hashers.verify_password(&entry.password, &entry.encoded).unwrap();
            // Salts of 12 characters were enough before Django 3.2, which renews them.
            let has_old_salt = matches!(name.as_str(), "1.11" | "2.2" | "3.0" | "3.1");
            let must_update = entry.must_update
                || (has_old_salt
                    && ["pbkdf2_sha256", "pbkdf2_sha1", "argon2"].contains(&algorithm(&entry.encoded)));
            let expected = Verified { is_correct: true, must_update };
            assert_eq!(verified, expected, "Django {name}: {}", entry.encoded);
        }
    }
}

#[test]
fn wrong_passwords_of_every_release() {
    for (name, release) in releases() {
        for entry in release.entries.iter().filter(|entry| !entry.is_default_cost) {
            // At no greater cost than the stored one: the time of the difference is another test's.
            let hashers = Hashers::new([cheap(algorithm(&entry.encoded))]);
            for wrong in [format!("{}x", entry.password), "Letmein".to_owned(), "x".to_owned()] {
                // The plain bcrypt sees 72 bytes only.
                if entry.password.len() >= 72
                    && wrong.starts_with(&entry.password[..72])
                    && algorithm(&entry.encoded) == "bcrypt"
                {
                    continue;
                }
                let verified = hashers.verify_password(&wrong, &entry.encoded).unwrap();
                assert!(!verified.is_correct, "Django {name}: {}", entry.encoded);
            }
        }
    }
}

fn cheap(algorithm: &str) -> Hasher {
    match algorithm {
        "pbkdf2_sha256" => Hasher::Pbkdf2Sha256 { iterations: 1200 },
        "pbkdf2_sha1" => Hasher::Pbkdf2Sha1 { iterations: 1200 },
        "argon2" => Hasher::Argon2 { time_cost: 1, memory_cost: 64, parallelism: 2 },
        "bcrypt_sha256" => Hasher::BcryptSha256 { rounds: 4 },
        "bcrypt" => Hasher::Bcrypt { rounds: 4 },
        _ => Hasher::Scrypt { work_factor: 256, block_size: 4, parallelism: 1 },
    }
}

const ALL: [&str; 6] = ["pbkdf2_sha256", "pbkdf2_sha1", "argon2", "bcrypt_sha256", "bcrypt", "scrypt"];

#[test]
fn what_is_made_is_accepted_and_up_to_date() {
    for name in ALL {
        let hashers = Hashers::new([cheap(name)]);
        let [first, second] = [(); 2].map(|()| hashers.make_password("pässwörd").unwrap());
        assert_ne!(first, second, "salted");
        assert_eq!(algorithm(&first), name);
        let verified = hashers.verify_password("pässwörd", &first).unwrap();
        assert_eq!(verified, Verified { is_correct: true, must_update: false }, "{first}");
    }
}

/// Every byte of a hash counts, and none of the damage is worse than an error.
#[test]
fn damaged_hashes() {
    for name in ALL {
        let hashers = Hashers::new([cheap(name)]);
        let encoded = hashers.make_password("letmein").unwrap();
        for place in 0..encoded.len() {
            for byte in ["$", "A", "z", "!", "="] {
                let mut damaged = encoded.clone();
                damaged.replace_range(place..=place, byte);
                if damaged == encoded {
                    continue;
                }
                // The last characters of bcrypt's salt and of base64 have bits that no byte has, which Django ignores too.
                let is_correct =
                    hashers.verify_password("letmein", &damaged).is_ok_and(|verified| verified.is_correct);
                assert!(!is_correct || name == "bcrypt" || name == "bcrypt_sha256", "{encoded} {damaged}");
            }
            let cut = &encoded[..place];
            assert!(
                !hashers.verify_password("letmein", cut).is_ok_and(|verified| verified.is_correct),
                "{cut}"
            );
        }
    }
}

#[test]
fn costs_out_of_bounds_are_refused() {
    let hashers = Hashers::new(ALL.map(cheap));
    for encoded in [
        "pbkdf2_sha256$0$salt$AAAA",
        "argon2$argon2id$v=19$m=4000000000,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
        "scrypt$1048576$salt$8$1$AAAA",
        "scrypt$3$salt$8$1$AAAA",
        "bcrypt$$2b$32$aaaaaaaaaaaaaaaaaaaaa.",
    ] {
        let error = hashers.verify_password("letmein", encoded).unwrap_err();
        assert!(matches!(error, HasherError::Cost { .. }), "{encoded}: {error}");
        assert!(!error.to_string().contains("salt"), "{error}");
    }
}

/// Nobody learns from the time whether there is such a user.
#[test]
fn an_account_that_is_not_there_costs_as_much() {
    let hashers = Hashers::new([Hasher::Pbkdf2Sha256 { iterations: 200_000 }]);
    let encoded = hashers.make_password("letmein").unwrap();
    let unusable = unusable_password().unwrap();
    let weak = Hashers::new([Hasher::Pbkdf2Sha256 { iterations: 1 }]).make_password("letmein").unwrap();
    let acts: [(&str, &dyn Fn()); 5] = [
        ("a wrong password", &|| {
            assert!(!hashers.verify_password("wrong", &encoded).unwrap().is_correct);
        }),
        ("no such user", &|| hashers.waste_time().unwrap()),
        ("no password", &|| drop(hashers.verify_password("wrong", &unusable))),
        ("an unknown hasher", &|| drop(hashers.verify_password("wrong", "md5$salt$hash"))),
        ("a weaker hash", &|| drop(hashers.verify_password("wrong", &weak))),
    ];
    // The best of many, by turns: what else runs on this machine slows all of them, some more often.
    let mut best = [f64::MAX; 5];
    let alike = |best: &[f64; 5]| best.iter().all(|time| (0.7..1.4).contains(&(time / best[0])));
    for round in 0..100 {
        if round >= 15 && alike(&best) {
            return;
        }
        for (best, (_, act)) in best.iter_mut().zip(acts) {
            let start = std::time::Instant::now();
            act();
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    let names = acts.map(|(name, _)| name);
    panic!("{names:?} take {:?} times a wrong password", best.map(|time| time / best[0]));
}

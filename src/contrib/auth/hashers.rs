//! Passwords as Django hashes them, `django.contrib.auth.hashers` (feature `hashers`).
//!
//! A hash is text that names its algorithm and cost: `pbkdf2_sha256$1500000$salt$base64`. [`Hashers`] stands for
//! `PASSWORD_HASHERS`: the first makes new hashes, all of them check. Hashing takes a good part of a second of one core
//! on purpose; on an event loop, do it in `tokio::task::spawn_blocking`.
//!
//! ```
//! use django_sessions::contrib::auth::hashers::{Hasher, Hashers};
//!
//! // PASSWORD_HASHERS of a site in tests; leave this out for Django's own.
//! let hashers = Hashers::new([Hasher::Pbkdf2Sha256 { iterations: 1000 }]);
//! let encoded = hashers.make_password("correct horse")?;
//! assert!(encoded.starts_with("pbkdf2_sha256$1000$"));
//! assert!(hashers.verify_password("correct horse", &encoded)?.is_correct);
//! assert!(!hashers.verify_password("battery staple", &encoded)?.is_correct);
//! # Ok::<(), django_sessions::contrib::auth::hashers::HasherError>(())
//! ```

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::crypto::{RANDOM_STRING_CHARS, RandomError, constant_time_compare, get_random_string, hex};
use crate::settings::PasswordHasher;

/// What stands before the random text of an account that nobody can log in to (`set_unusable_password`).
pub const UNUSABLE_PASSWORD_PREFIX: &str = "!";

/// Random characters after it.
const UNUSABLE_PASSWORD_SUFFIX_LENGTH: usize = 40;

/// Characters of a new salt: 128 bits of the 62 letters and digits, rounded up.
const SALT_LENGTH: usize = 22;

/// Salts with less entropy are to be renewed (`BasePasswordHasher.salt_entropy`), in bits.
const SALT_ENTROPY: f64 = 128.0;

/// What argon2 and scrypt may take of the memory, in bytes, whatever a stored hash asks for.
const MAX_MEMORY: u64 = 1 << 30;

/// OpenSSL's limit for scrypt, which Django leaves in place (`maxmem = 0`).
const SCRYPT_MAX_MEMORY: u64 = 32 << 20;

/// One of Django's hashers, with the cost of new hashes.
///
/// A subclass that only changes the cost is one of these with that cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(tag = "algorithm", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Hasher {
    /// `PBKDF2PasswordHasher`, Django's default.
    Pbkdf2Sha256 {
        /// Rounds of HMAC: 1,500,000 in Django 6.1, more with each release.
        iterations: u32,
    },
    /// `PBKDF2SHA1PasswordHasher`.
    Pbkdf2Sha1 {
        /// Rounds of HMAC.
        iterations: u32,
    },
    /// `Argon2PasswordHasher` (argon2id).
    Argon2 {
        /// Passes over the memory: 2.
        time_cost: u32,
        /// Memory in KiB: 102,400.
        memory_cost: u32,
        /// Lanes: 8.
        parallelism: u32,
    },
    /// `BCryptSHA256PasswordHasher`.
    BcryptSha256 {
        /// The logarithm of the cost: 12.
        rounds: u32,
    },
    /// `BCryptPasswordHasher`, which looks at the first 72 bytes only.
    Bcrypt {
        /// The logarithm of the cost: 12.
        rounds: u32,
    },
    /// `ScryptPasswordHasher`.
    Scrypt {
        /// N: 16,384.
        work_factor: u32,
        /// r: 8.
        block_size: u32,
        /// p: 5 (1 before Django 5.1).
        parallelism: u32,
    },
}

/// Django 6.1's `PASSWORD_HASHERS`.
const DEFAULT: [Hasher; 5] = [
    Hasher::Pbkdf2Sha256 { iterations: 1_500_000 },
    Hasher::Pbkdf2Sha1 { iterations: 1_500_000 },
    Hasher::Argon2 { time_cost: 2, memory_cost: 102_400, parallelism: 8 },
    Hasher::BcryptSha256 { rounds: 12 },
    Hasher::Scrypt { work_factor: 1 << 14, block_size: 8, parallelism: 5 },
];

/// Why a password could not be hashed or checked. None of the texts shows a password, a salt or a hash.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HasherError {
    /// The stored text names a hasher that is there, and is not of its form. Django raises `ValueError`.
    #[error("the stored password is not what {algorithm} writes")]
    Malformed {
        /// Whose form it is not.
        algorithm: &'static str,
    },
    /// The stored cost, or that of the settings, is beyond what is allowed or makes no sense.
    #[error("{algorithm} does not take this cost, or it asks for too much memory")]
    Cost {
        /// Whose cost it is.
        algorithm: &'static str,
    },
    /// A hasher that is not here: the first of `PASSWORD_HASHERS`, or the one of a stored password.
    #[error(
        "PASSWORD_HASHERS names {class}, which this crate does not know: put pbkdf2_sha256, pbkdf2_sha1, argon2, \
         bcrypt_sha256, bcrypt or scrypt first, and leave it to Django to log in those whose passwords it hashed"
    )]
    Unknown {
        /// Its dotted path.
        class: String,
    },
    /// There is no randomness for a salt.
    #[error("no salt could be made")]
    Random(#[from] RandomError),
}

/// The outcome of a check (`django.contrib.auth.hashers.verify_password`).
///
/// ```
/// use django_sessions::contrib::auth::hashers::{Hasher, Hashers};
///
/// let old = Hashers::new([Hasher::Pbkdf2Sha256 { iterations: 1000 }]).make_password("correct horse")?;
/// let hashers = Hashers::new([Hasher::Pbkdf2Sha256 { iterations: 2000 }]);
/// let verified = hashers.verify_password("correct horse", &old)?;
/// assert!(verified.is_correct && verified.must_update, "store hashers.make_password(..) now");
/// # Ok::<(), django_sessions::contrib::auth::hashers::HasherError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whether it is the password.
    pub is_correct: bool,
    /// Whether the hash is to be made anew, by [`Hashers::make_password`]: by another algorithm, cost or a longer salt.
    pub must_update: bool,
}

impl Verified {
    const NO: Self = Self { is_correct: false, must_update: false };
}

/// `PASSWORD_HASHERS`. The default is Django 6.1's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashers {
    known: Vec<Hasher>,
    /// Those of Django's, or the project's own, that are not here.
    unknown: Vec<Unknown>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Unknown {
    class: String,
    algorithm: Option<String>,
}

impl Default for Hashers {
    fn default() -> Self {
        Self::new(DEFAULT)
    }
}

impl Hashers {
    /// The hashers of the settings; the first makes new hashes.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(hashers: impl IntoIterator<Item = Hasher>) -> Self {
        let hashers = Vec::from_iter(hashers);
        assert!(!hashers.is_empty(), "PASSWORD_HASHERS is empty");
        Self { known: hashers, unknown: Vec::new() }
    }

    /// `PASSWORD_HASHERS` of the settings. A class of the project's own counts as the hasher whose `algorithm` it has, with
    /// its cost.
    ///
    /// One that is not here may stand in the list, but not first: a password that was hashed by it is an error, which names
    /// it.
    ///
    /// ```
    /// use django_sessions::contrib::auth::hashers::Hashers;
    /// use django_sessions::settings::{FileFormat, Settings};
    ///
    /// let text = r#"{"version": 1, "secret_key": "x", "auth": {"password_hashers": [
    ///     {"class": "shop.hashers.Slower", "algorithm": "pbkdf2_sha256", "iterations": 3000},
    ///     {"class": "django.contrib.auth.hashers.MD5PasswordHasher", "algorithm": "md5"}
    /// ]}}"#;
    /// let hashers = Hashers::from_settings(&Settings::from_str(text, FileFormat::Json)?.auth.password_hashers)?;
    /// assert!(hashers.make_password("correct horse")?.starts_with("pbkdf2_sha256$3000$"));
    /// let error = hashers.verify_password("correct horse", "md5$salt$hash").unwrap_err();
    /// assert!(error.to_string().contains("django.contrib.auth.hashers.MD5PasswordHasher"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`HasherError::Unknown`] when the first one, which makes new hashes, is not here.
    pub fn from_settings(hashers: &[PasswordHasher]) -> Result<Self, HasherError> {
        let mut these = Self { known: Vec::new(), unknown: Vec::new() };
        for hasher in hashers {
            match Hasher::from_settings(hasher) {
                Some(known) => these.known.push(known),
                None if these.known.is_empty() => {
                    return Err(HasherError::Unknown { class: hasher.class.clone() });
                }
                None => these
                    .unknown
                    .push(Unknown { class: hasher.class.clone(), algorithm: hasher.algorithm.clone() }),
            }
        }
        match these.known.is_empty() {
            true => Err(HasherError::Unknown { class: "none".to_owned() }),
            false => Ok(these),
        }
    }

    fn preferred(&self) -> Hasher {
        self.known[0]
    }

    /// Whether `password` is the one that `encoded` was made of.
    ///
    /// Without a usable `encoded` (an unknown hasher, an account without a password) it takes as long as with one, so
    /// that the time tells nobody which accounts there are. For a user who does not exist, call
    /// [`waste_time`](Self::waste_time).
    ///
    /// # Errors
    /// When `encoded` is damaged, or its cost is out of bounds.
    pub fn verify_password(&self, password: &str, encoded: &str) -> Result<Verified, HasherError> {
        let hasher = self.identify(encoded).filter(|_| is_password_usable(encoded));
        let Some(hasher) = hasher else {
            self.refuse_unknown(encoded)?;
            self.waste_time()?;
            return Ok(Verified::NO);
        };
        let preferred = self.preferred();
        let hasher_changed = hasher.algorithm() != preferred.algorithm();
        let must_update = hasher_changed || preferred.must_update(encoded)?;
        let is_correct = hasher.verify(password, encoded)?;
        if !is_correct && !hasher_changed && must_update {
            preferred.harden_runtime(password, encoded)?;
        }
        Ok(Verified { is_correct, must_update })
    }

    /// Text for the password column (`make_password`).
    ///
    /// # Errors
    /// When there is no randomness, or the settings' cost is out of bounds.
    pub fn make_password(&self, password: &str) -> Result<String, HasherError> {
        self.preferred().encode_anew(password)
    }

    /// Takes as long as a check, for a user name that nobody has (`ModelBackend.authenticate` hashes once as well).
    ///
    /// # Errors
    /// As [`make_password`](Self::make_password).
    pub fn waste_time(&self) -> Result<(), HasherError> {
        self.make_password(&get_random_string(UNUSABLE_PASSWORD_SUFFIX_LENGTH, RANDOM_STRING_CHARS)?)?;
        Ok(())
    }

    fn identify(&self, encoded: &str) -> Option<Hasher> {
        let (algorithm, _) = encoded.split_once('$')?;
        self.known.iter().copied().find(|hasher| hasher.algorithm() == algorithm)
    }

    /// Nobody shall take it for a wrong password when Django would know the hasher.
    fn refuse_unknown(&self, encoded: &str) -> Result<(), HasherError> {
        let algorithm = encoded.split_once('$').map(|(algorithm, _)| algorithm);
        let unknown = self.unknown.iter().find(|unknown| match &unknown.algorithm {
            Some(own) => algorithm == Some(own),
            None => algorithm.is_some(),
        });
        match unknown.filter(|_| is_password_usable(encoded)) {
            Some(unknown) => Err(HasherError::Unknown { class: unknown.class.clone() }),
            None => Ok(()),
        }
    }
}

/// Whether anybody can log in with a password at all (`is_password_usable`).
///
/// ```
/// use django_sessions::contrib::auth::hashers::{is_password_usable, unusable_password};
///
/// assert!(!is_password_usable(&unusable_password()?));
/// assert!(is_password_usable("pbkdf2_sha256$1500000$salt$hash"));
/// # Ok::<(), django_sessions::crypto::RandomError>(())
/// ```
pub fn is_password_usable(encoded: &str) -> bool {
    !encoded.starts_with(UNUSABLE_PASSWORD_PREFIX)
}

/// Text for the password column of an account that nobody can log in to (`make_password(None)`).
///
/// # Errors
/// When there is no randomness.
pub fn unusable_password() -> Result<String, RandomError> {
    let suffix = get_random_string(UNUSABLE_PASSWORD_SUFFIX_LENGTH, RANDOM_STRING_CHARS)?;
    Ok(format!("{UNUSABLE_PASSWORD_PREFIX}{suffix}"))
}

impl Hasher {
    /// The hasher of a class, by its algorithm or by its name in Django.
    fn from_settings(hasher: &PasswordHasher) -> Option<Self> {
        let of_django = match hasher.class.strip_prefix("django.contrib.auth.hashers.") {
            Some("PBKDF2PasswordHasher") => Some("pbkdf2_sha256"),
            Some("PBKDF2SHA1PasswordHasher") => Some("pbkdf2_sha1"),
            Some("Argon2PasswordHasher") => Some("argon2"),
            Some("BCryptSHA256PasswordHasher") => Some("bcrypt_sha256"),
            Some("BCryptPasswordHasher") => Some("bcrypt"),
            Some("ScryptPasswordHasher") => Some("scrypt"),
            _ => None,
        };
        let algorithm = hasher.algorithm.as_deref().or(of_django)?;
        // Salts are made, and found too short, by Django's own measure only.
        if hasher.salt_entropy.is_some_and(|bits| f64::from(bits) != SALT_ENTROPY) {
            return None;
        }
        let default = [&DEFAULT[..], &[Self::Bcrypt { rounds: 12 }]].concat();
        let default = default.into_iter().find(|default| default.algorithm() == algorithm)?;
        Some(default.with_cost(hasher))
    }

    fn with_cost(self, cost: &PasswordHasher) -> Self {
        match self {
            Self::Pbkdf2Sha256 { iterations } => {
                Self::Pbkdf2Sha256 { iterations: cost.iterations.unwrap_or(iterations) }
            }
            Self::Pbkdf2Sha1 { iterations } => {
                Self::Pbkdf2Sha1 { iterations: cost.iterations.unwrap_or(iterations) }
            }
            Self::Argon2 { time_cost, memory_cost, parallelism } => Self::Argon2 {
                time_cost: cost.time_cost.unwrap_or(time_cost),
                memory_cost: cost.memory_cost.unwrap_or(memory_cost),
                parallelism: cost.parallelism.unwrap_or(parallelism),
            },
            Self::BcryptSha256 { rounds } => Self::BcryptSha256 { rounds: cost.rounds.unwrap_or(rounds) },
            Self::Bcrypt { rounds } => Self::Bcrypt { rounds: cost.rounds.unwrap_or(rounds) },
            Self::Scrypt { work_factor, block_size, parallelism } => Self::Scrypt {
                work_factor: cost.work_factor.unwrap_or(work_factor),
                block_size: cost.block_size.unwrap_or(block_size),
                parallelism: cost.parallelism.unwrap_or(parallelism),
            },
        }
    }

    fn algorithm(self) -> &'static str {
        match self {
            Self::Pbkdf2Sha256 { .. } => "pbkdf2_sha256",
            Self::Pbkdf2Sha1 { .. } => "pbkdf2_sha1",
            Self::Argon2 { .. } => "argon2",
            Self::BcryptSha256 { .. } => "bcrypt_sha256",
            Self::Bcrypt { .. } => "bcrypt",
            Self::Scrypt { .. } => "scrypt",
        }
    }

    fn malformed(self) -> HasherError {
        HasherError::Malformed { algorithm: self.algorithm() }
    }

    fn cost(self) -> HasherError {
        HasherError::Cost { algorithm: self.algorithm() }
    }

    fn encode_anew(self, password: &str) -> Result<String, HasherError> {
        let salt = get_random_string(SALT_LENGTH, RANDOM_STRING_CHARS)?;
        match self {
            Self::Argon2 { .. } => argon2_encode(self, password, salt.as_bytes()),
            Self::BcryptSha256 { rounds } | Self::Bcrypt { rounds } => {
                let mut salt = [0; 16];
                getrandom_fill(&mut salt)?;
                self.bcrypt(password, rounds, salt, "2b")
            }
            _ => self.encode(password, &salt),
        }
    }

    /// `algorithm$cost$salt$hash` with this hasher's cost, for those whose salt is text.
    fn encode(self, password: &str, salt: &str) -> Result<String, HasherError> {
        let name = self.algorithm();
        match self {
            Self::Pbkdf2Sha256 { iterations: 0 } | Self::Pbkdf2Sha1 { iterations: 0 } => Err(self.cost()),
            Self::Pbkdf2Sha256 { iterations } => {
                let hash =
                    pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), salt.as_bytes(), iterations);
                Ok(format!("{name}${iterations}${salt}${}", BASE64_STANDARD.encode(hash)))
            }
            Self::Pbkdf2Sha1 { iterations } => {
                let hash = pbkdf2::pbkdf2_hmac_array::<sha1::Sha1, 20>(
                    password.as_bytes(),
                    salt.as_bytes(),
                    iterations,
                );
                Ok(format!("{name}${iterations}${salt}${}", BASE64_STANDARD.encode(hash)))
            }
            Self::Scrypt { work_factor: n, block_size: r, parallelism: p } => {
                // As OpenSSL counts: the big table, and a block for each lane.
                let memory = 128 * u64::from(r) * (u64::from(n) + u64::from(p) + 2);
                if !n.is_power_of_two() || n < 2 || memory > SCRYPT_MAX_MEMORY {
                    return Err(self.cost());
                }
                let parameters = scrypt::Params::new(n.ilog2() as u8, r, p).map_err(|_| self.cost())?;
                let mut hash = [0; 64];
                scrypt::scrypt(password.as_bytes(), salt.as_bytes(), &parameters, &mut hash)
                    .map_err(|_| self.cost())?;
                Ok(format!("{name}${n}${salt}${r}${p}${}", BASE64_STANDARD.encode(hash)))
            }
            _ => unreachable!("argon2 and bcrypt have forms of their own"),
        }
    }

    fn verify(self, password: &str, encoded: &str) -> Result<bool, HasherError> {
        let again = match self {
            Self::Argon2 { .. } => return argon2_verify(self, password, encoded),
            Self::BcryptSha256 { .. } | Self::Bcrypt { .. } => {
                let stored = self.bcrypt_parts(encoded)?;
                self.bcrypt(password, stored.rounds, stored.salt, stored.version)?
            }
            _ => {
                let (stored, salt) = self.stored(encoded)?;
                stored.encode(password, salt)?
            }
        };
        Ok(constant_time_compare(again.as_bytes(), encoded.as_bytes()))
    }

    /// The hasher with the cost of a stored hash, and its salt; for those whose salt is text.
    fn stored(self, encoded: &str) -> Result<(Self, &str), HasherError> {
        let number = |text: &str| text.parse::<u32>().map_err(|_| self.malformed());
        let parts: Vec<&str> = encoded.split('$').collect();
        match (self, &parts[..]) {
            (Self::Pbkdf2Sha256 { .. }, [_, iterations, salt, _]) => {
                Ok((Self::Pbkdf2Sha256 { iterations: number(iterations)? }, salt))
            }
            (Self::Pbkdf2Sha1 { .. }, [_, iterations, salt, _]) => {
                Ok((Self::Pbkdf2Sha1 { iterations: number(iterations)? }, salt))
            }
            (Self::Scrypt { .. }, [_, n, salt, r, p, _]) => {
                let (work_factor, block_size, parallelism) = (number(n)?, number(r)?, number(p)?);
                Ok((Self::Scrypt { work_factor, block_size, parallelism }, salt))
            }
            _ => Err(self.malformed()),
        }
    }

    /// Whether a hash by this algorithm is weaker than, or other than, what the settings ask for.
    fn must_update(self, encoded: &str) -> Result<bool, HasherError> {
        match self {
            Self::Pbkdf2Sha256 { .. } | Self::Pbkdf2Sha1 { .. } => {
                let (stored, salt) = self.stored(encoded)?;
                Ok(stored != self || is_salt_weak(salt.chars().count()))
            }
            Self::Scrypt { .. } => Ok(self.stored(encoded)?.0 != self),
            Self::BcryptSha256 { rounds } | Self::Bcrypt { rounds } => {
                Ok(self.bcrypt_parts(encoded)?.rounds != rounds)
            }
            Self::Argon2 { .. } => {
                let stored = Argon2Hash::read(self, encoded)?;
                let is_current = stored.variety == argon2::Algorithm::Argon2id
                    && stored.version == argon2::Version::V0x13
                    && stored.hasher == self
                    && stored.hash.len() == ARGON2_HASH_LENGTH;
                Ok(!is_current || is_salt_weak(stored.salt.len()))
            }
        }
    }

    /// Does the work that a weaker hash has spared, so that a wrong password takes as long as for a stronger one.
    fn harden_runtime(self, password: &str, encoded: &str) -> Result<(), HasherError> {
        match (self, self.algorithm()) {
            (Self::Pbkdf2Sha256 { iterations } | Self::Pbkdf2Sha1 { iterations }, name) => {
                let (
                    Self::Pbkdf2Sha256 { iterations: stored } | Self::Pbkdf2Sha1 { iterations: stored },
                    salt,
                ) = self.stored(encoded)?
                else {
                    return Err(self.malformed());
                };
                let Some(extra) = iterations.checked_sub(stored).filter(|extra| *extra > 0) else {
                    return Ok(());
                };
                let rest = match name {
                    "pbkdf2_sha1" => Self::Pbkdf2Sha1 { iterations: extra },
                    _ => Self::Pbkdf2Sha256 { iterations: extra },
                };
                rest.encode(password, salt).map(drop)
            }
            (Self::BcryptSha256 { rounds } | Self::Bcrypt { rounds }, _) => {
                let stored = self.bcrypt_parts(encoded)?;
                // The cost doubles with each round: once more at each cost from the stored one up makes up the rest.
                for rounds in stored.rounds..rounds {
                    self.bcrypt(password, rounds, stored.salt, stored.version)?;
                }
                Ok(())
            }
            // Django leaves these as they are.
            _ => Ok(()),
        }
    }

    fn bcrypt(
        self,
        password: &str,
        rounds: u32,
        salt: [u8; 16],
        version: &str,
    ) -> Result<String, HasherError> {
        let version = match version {
            "2a" => bcrypt::Version::TwoA,
            "2b" => bcrypt::Version::TwoB,
            "2y" => bcrypt::Version::TwoY,
            _ => return Err(self.malformed()),
        };
        let password = match self {
            Self::BcryptSha256 { .. } => hex(&Sha256::digest(password.as_bytes())).into_bytes(),
            _ => password.as_bytes().to_vec(),
        };
        let parts = bcrypt::hash_with_salt(password, rounds, salt).map_err(|_| self.cost())?;
        Ok(format!("{}${}", self.algorithm(), parts.format_for_version(version)))
    }

    /// Reads `algorithm$$2b$12$<22 characters of salt><31 of hash>`.
    fn bcrypt_parts(self, encoded: &str) -> Result<BcryptHash<'_>, HasherError> {
        let malformed = || self.malformed();
        let parts: Vec<&str> = encoded.split('$').collect();
        let &[_, "", version, rounds, data] = &parts[..] else { return Err(malformed()) };
        let salt = data.get(..22).ok_or_else(malformed)?;
        let salt = bcrypt::BASE_64.decode(salt).map_err(|_| malformed())?;
        Ok(BcryptHash {
            version,
            rounds: rounds.parse().map_err(|_| malformed())?,
            salt: salt.try_into().map_err(|_| malformed())?,
        })
    }
}

struct BcryptHash<'a> {
    version: &'a str,
    rounds: u32,
    salt: [u8; 16],
}

/// Bytes of a new argon2 hash (`argon2.DEFAULT_HASH_LENGTH`).
const ARGON2_HASH_LENGTH: usize = 32;

/// A stored `argon2$argon2id$v=19$m=102400,t=2,p=8$salt$hash`.
struct Argon2Hash {
    variety: argon2::Algorithm,
    version: argon2::Version,
    hasher: Hasher,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Argon2Hash {
    fn read(hasher: Hasher, encoded: &str) -> Result<Self, HasherError> {
        Self::parse(encoded).ok_or_else(|| hasher.malformed())
    }

    fn parse(encoded: &str) -> Option<Self> {
        let mut parts: Vec<&str> = encoded.split('$').collect();
        // The first release of argon2 wrote no version.
        if parts.len() == 5 {
            parts.insert(2, "v=16");
        }
        let &[_, variety, version, costs, salt, hash] = &parts[..] else { return None };
        let mut costs = costs.split(',').map(|cost| cost.split_once('='));
        let mut cost = |name: &str| {
            costs.next()?.filter(|(found, _)| *found == name).and_then(|(_, value)| value.parse::<u32>().ok())
        };
        let (memory_cost, time_cost, parallelism) = (cost("m")?, cost("t")?, cost("p")?);
        Some(Self {
            variety: argon2::Algorithm::new(variety).ok()?,
            version: match version {
                "v=16" => argon2::Version::V0x10,
                "v=19" => argon2::Version::V0x13,
                _ => return None,
            },
            hasher: Hasher::Argon2 { time_cost, memory_cost, parallelism },
            salt: BASE64_STANDARD_NO_PAD.decode(salt).ok()?,
            hash: BASE64_STANDARD_NO_PAD.decode(hash).ok()?,
        })
    }

    fn compute(&self, password: &str) -> Result<Vec<u8>, HasherError> {
        let Hasher::Argon2 { time_cost, memory_cost, parallelism } = self.hasher else {
            return Err(self.hasher.malformed());
        };
        let cost = |_| self.hasher.cost();
        if u64::from(memory_cost) * 1024 > MAX_MEMORY {
            return Err(self.hasher.cost());
        }
        let parameters =
            argon2::Params::new(memory_cost, time_cost, parallelism, Some(self.hash.len())).map_err(cost)?;
        let mut hash = vec![0; self.hash.len()];
        argon2::Argon2::new(self.variety, self.version, parameters)
            .hash_password_into(password.as_bytes(), &self.salt, &mut hash)
            .map_err(cost)?;
        Ok(hash)
    }
}

fn argon2_verify(hasher: Hasher, password: &str, encoded: &str) -> Result<bool, HasherError> {
    let stored = Argon2Hash::read(hasher, encoded)?;
    Ok(constant_time_compare(&stored.compute(password)?, &stored.hash))
}

fn argon2_encode(hasher: Hasher, password: &str, salt: &[u8]) -> Result<String, HasherError> {
    let Hasher::Argon2 { time_cost, memory_cost, parallelism } = hasher else {
        return Err(hasher.malformed());
    };
    let new = Argon2Hash {
        variety: argon2::Algorithm::Argon2id,
        version: argon2::Version::V0x13,
        hasher,
        salt: salt.to_vec(),
        hash: vec![0; ARGON2_HASH_LENGTH],
    };
    let hash = new.compute(password)?;
    let [salt, hash] = [salt, &hash].map(|bytes| BASE64_STANDARD_NO_PAD.encode(bytes));
    Ok(format!("argon2$argon2id$v=19$m={memory_cost},t={time_cost},p={parallelism}${salt}${hash}"))
}

fn is_salt_weak(length: usize) -> bool {
    length as f64 * (RANDOM_STRING_CHARS.len() as f64).log2() < SALT_ENTROPY
}

fn getrandom_fill(bytes: &mut [u8]) -> Result<(), RandomError> {
    getrandom::fill(bytes).map_err(RandomError)
}

//! The compressors of django-redis: the same containers, levels and shortest lengths.
//!
//! Each inflates within a limit, whatever the container says of its size.

mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "lzma")]
mod lzma;
mod zlib;
#[cfg(feature = "zstd")]
mod zstd;

use std::borrow::Cow;

use serde::Deserialize;

use super::FormatError;

/// How django-redis compresses (its `OPTIONS["COMPRESSOR"]`, a class of `django_redis.compressors`).
///
/// ```
/// use django_sessions::caches::format::Compressor;
///
/// assert_eq!(Compressor::Zlib.level(), 6);
/// assert_eq!(Compressor::Zlib.min_length(), 15, "bytes; what is not longer is stored as it is");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Compressor {
    /// Not at all: `identity.IdentityCompressor`, the default.
    #[default]
    None,
    /// `zlib.ZlibCompressor`: zlib streams of level 6.
    Zlib,
    /// `gzip.GzipCompressor`: gzip members of level 9.
    Gzip,
    /// `lz4.Lz4Compressor`: LZ4 frames (feature `lz4`).
    Lz4,
    /// `zstd.ZStdCompressor`: Zstandard frames of level 3 (feature `zstd`).
    Zstd,
    /// `lzma.LzmaCompressor`: `.xz` streams of level 4 (feature `lzma`).
    Lzma,
}

/// Why bytes were not inflated.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is more in them than may be.
    TooLarge,
    /// They are no such stream, or a broken one. django-redis then takes them for a value that was never compressed.
    Broken(Cow<'static, str>),
}

fn broken(why: impl Into<Cow<'static, str>>) -> Failure {
    Failure::Broken(why.into())
}

impl Compressor {
    /// The name in settings files.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zlib => "zlib",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Lzma => "lzma",
        }
    }

    /// Values of this many bytes or fewer are stored as they are (`min_length` of the classes).
    pub fn min_length(self) -> usize {
        match self {
            Self::None => usize::MAX,
            Self::Lzma => 100,
            _ => 15,
        }
    }

    /// The level that django-redis compresses with (`preset` of the classes, or the default of the library). LZ4 has one
    /// only.
    pub fn level(self) -> i32 {
        match self {
            Self::None | Self::Lz4 => 0,
            Self::Zlib => 6,
            Self::Gzip => 9,
            Self::Zstd => 3,
            Self::Lzma => 4,
        }
    }

    /// The levels that the compressor knows.
    fn levels(self) -> std::ops::RangeInclusive<i32> {
        match self {
            Self::None | Self::Lz4 => i32::MIN..=i32::MAX,
            Self::Zlib | Self::Gzip | Self::Lzma => 0..=9,
            Self::Zstd => -7..=22,
        }
    }

    /// Says early what [`compress`](Self::compress) would say with the first value.
    pub(super) fn check(self, level: i32) -> Result<(), FormatError> {
        let feature = match self {
            Self::Lz4 => cfg!(feature = "lz4"),
            Self::Zstd => cfg!(feature = "zstd"),
            Self::Lzma => cfg!(feature = "lzma"),
            Self::None | Self::Zlib | Self::Gzip => true,
        };
        if !feature {
            return Err(FormatError::FeatureOff { feature: self.name() });
        }
        if !self.levels().contains(&level) {
            return Err(FormatError::Level { compressor: self.name(), level });
        }
        Ok(())
    }

    pub(super) fn compress(self, data: &[u8], level: i32) -> Result<Vec<u8>, FormatError> {
        self.check(level)?;
        let failed = |why: &dyn std::fmt::Display| FormatError::Compress {
            compressor: self.name(),
            why: why.to_string(),
        };
        match self {
            Self::None => Ok(data.to_vec()),
            Self::Zlib => zlib::compress(data, level).map_err(|why| failed(&why)),
            Self::Gzip => gzip::compress(data, level).map_err(|why| failed(&why)),
            #[cfg(feature = "lz4")]
            Self::Lz4 => lz4::compress(data).map_err(|why| failed(&why)),
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::compress(data, level).map_err(|why| failed(&why)),
            #[cfg(feature = "lzma")]
            Self::Lzma => lzma::compress(data, level).map_err(|why| failed(&why)),
            #[allow(unreachable_patterns)]
            _ => Err(FormatError::FeatureOff { feature: self.name() }),
        }
    }

    /// What `data` inflates to, which is `max_size` bytes or fewer.
    pub(super) fn decompress(self, data: &[u8], max_size: usize) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Zlib => zlib::decompress(data, max_size),
            Self::Gzip => gzip::decompress(data, max_size),
            #[cfg(feature = "lz4")]
            Self::Lz4 => lz4::decompress(data, max_size),
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::decompress(data, max_size),
            #[cfg(feature = "lzma")]
            Self::Lzma => lzma::decompress(data, max_size),
            _ => Err(broken("not compressed")),
        }
    }

    /// Whether `data` starts as this compressor's output does.
    pub(super) fn wrote(self, data: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::Zlib => {
                data.len() > 1
                    && data[0] & 0x0f == 8
                    && data[0] >> 4 <= 7
                    && u16::from_be_bytes([data[0], data[1]]).is_multiple_of(31)
            }
            Self::Gzip => data.starts_with(b"\x1f\x8b"),
            Self::Lz4 => data.starts_with(b"\x04\x22\x4d\x18"),
            Self::Zstd => data.starts_with(b"\x28\xb5\x2f\xfd"),
            Self::Lzma => data.starts_with(b"\xfd7zXZ\0"),
        }
    }
}

/// Reads `reader` to its end, unless that is beyond `max_size` bytes.
#[cfg(any(feature = "lz4", feature = "zstd"))]
fn read_within(reader: impl std::io::Read, max_size: usize, hint: usize) -> Result<Vec<u8>, Failure> {
    use std::io::Read;

    let mut output = Vec::with_capacity(hint.min(max_size));
    let limit = u64::try_from(max_size).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(limit).read_to_end(&mut output).map_err(|error| broken(error.to_string()))?;
    if output.len() > max_size {
        return Err(Failure::TooLarge);
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compressor; 5] =
        [Compressor::Zlib, Compressor::Gzip, Compressor::Lz4, Compressor::Zstd, Compressor::Lzma];

    /// Those whose feature is on.
    fn compressors() -> impl Iterator<Item = Compressor> {
        ALL.into_iter().filter(|compressor| compressor.check(compressor.level()).is_ok())
    }

    fn noise(size: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..size).map(|_| next()).collect()
    }

    #[test]
    fn round_trip_of_every_size_and_level() {
        for compressor in compressors() {
            for level in [compressor.level(), 0, 1, 9] {
                for data in [vec![], vec![7], noise(1_000), noise(300_000), b"session ".repeat(100_000)] {
                    let stream = compressor.compress(&data, level).unwrap();
                    assert!(compressor.wrote(&stream), "{compressor:?}");
                    let back = compressor.decompress(&stream, data.len()).unwrap();
                    assert!(back == data, "{compressor:?} level {level}, {} bytes", data.len());
                }
            }
        }
    }

    #[test]
    fn the_cap_is_exact() {
        for compressor in compressors() {
            let stream = compressor.compress(&vec![0; 100_000], compressor.level()).unwrap();
            assert_eq!(compressor.decompress(&stream, 100_000).unwrap().len(), 100_000);
            for max_size in [99_999, 1, 0] {
                let refused = compressor.decompress(&stream, max_size);
                assert!(matches!(refused, Err(Failure::TooLarge)), "{compressor:?} {max_size}: {refused:?}");
            }
        }
    }

    #[test]
    fn every_cut_is_broken_and_so_is_every_spoilt_stream_or_it_stays_within_the_cap() {
        for compressor in compressors() {
            let stream = compressor.compress(&noise(100).repeat(30), compressor.level()).unwrap();
            for end in 1..stream.len() {
                let cut = compressor.decompress(&stream[..end], 10_000);
                assert!(matches!(cut, Err(Failure::Broken(_))), "{compressor:?} cut at {end}: {cut:?}");
            }
            for at in 0..stream.len() {
                for bit in 0..8 {
                    let mut spoilt = stream.clone();
                    spoilt[at] ^= 1 << bit;
                    if let Ok(data) = compressor.decompress(&spoilt, 10_000) {
                        assert!(data.len() <= 10_000);
                    }
                }
            }
        }
    }

    #[test]
    fn levels_beyond_those_known_are_refused() {
        for compressor in compressors().filter(|&compressor| compressor != Compressor::Lz4) {
            let refused = compressor.compress(b"data", 1000);
            assert!(matches!(refused, Err(FormatError::Level { level: 1000, .. })), "{refused:?}");
        }
    }
}

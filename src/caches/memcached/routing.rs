//! Which of several servers a key belongs to, as the two Python libraries see it.

use md5::{Digest, Md5};

/// How keys are spread over servers, which are named by their index.
#[derive(Clone, Debug)]
pub(super) enum Routing {
    /// pymemcache's `RendezvousHash`: of all servers the one whose name and the key hash highest.
    Rendezvous(Vec<String>),
    /// libmemcached's default: the key's hash modulo the number of servers.
    Modula(u32),
    /// libmemcached's ketama: the server of the next point on a circle. The points are sorted.
    Ketama { points: Vec<(u32, usize)>, is_weighted: bool },
}

/// libmemcached's `MEMCACHED_POINTS_PER_SERVER`.
const POINTS_A_SERVER: usize = 100;

/// How many points weighted ketama has a server, and how many of them one hash gives.
const WEIGHTED_POINTS: f32 = 160.0;
const POINTS_A_HASH: f32 = 4.0;

impl Routing {
    /// libmemcached's circle for these servers. It has a hash of its own only when it is weighted; the servers' weights are
    /// all the same.
    pub(super) fn ketama(servers: &[(String, u16)], is_weighted: bool) -> Self {
        // In libmemcached's arithmetic, which for some numbers of servers rounds down to one less.
        let count = servers.len() as f32;
        let share = 1.0 / count * WEIGHTED_POINTS / POINTS_A_HASH * count;
        let names_a_server = if is_weighted { share as usize } else { POINTS_A_SERVER };
        let mut points = Vec::new();
        for (index, (host, port)) in servers.iter().enumerate() {
            for number in 0..names_a_server {
                let name = match port {
                    11211 => format!("{host}-{number}"),
                    _ => format!("{host}:{port}-{number}"),
                };
                match is_weighted {
                    true => points.extend(md5_words(name.as_bytes()).map(|point| (point, index))),
                    false => points.push((one_at_a_time(name.as_bytes()), index)),
                }
            }
        }
        points.sort_unstable();
        Self::Ketama { points, is_weighted }
    }

    /// The server of a key.
    pub(super) fn server(&self, key: &str) -> usize {
        match self {
            Self::Rendezvous(names) => {
                let score = |index: &usize| (murmur3_32(&format!("{}-{key}", names[*index])), &names[*index]);
                // Of two with the same score Python takes the name that is greater, as this does.
                (0..names.len()).max_by_key(score).unwrap_or(0)
            }
            Self::Modula(servers) => (one_at_a_time(key.as_bytes()) % servers) as usize,
            Self::Ketama { points, is_weighted } => {
                let hash =
                    if *is_weighted { md5_words(key.as_bytes())[0] } else { one_at_a_time(key.as_bytes()) };
                let next = points.partition_point(|(point, _)| *point < hash);
                points.get(next).or(points.first()).map_or(0, |(_, index)| *index)
            }
        }
    }
}

/// pymemcache's `murmur3_32` with the seed 0. It takes the characters for bytes, and of those beyond U+00FF the lowest
/// byte.
fn murmur3_32(text: &str) -> u32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let data: Vec<u8> = text.chars().map(|char| char as u32 as u8).collect();
    let scramble = |block: u32| block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let (blocks, tail) = data.as_chunks::<4>();
    let mut hash = blocks.iter().fold(0, |hash: u32, block| {
        let mixed = (hash ^ scramble(u32::from_le_bytes(*block))).rotate_left(13);
        mixed.wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    let rest = tail.iter().rev().fold(0, |rest, byte| rest << 8 | u32::from(*byte));
    hash ^= scramble(rest);
    hash ^= data.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// libmemcached's default hash, Bob Jenkins's one-at-a-time. Its C code reads bytes with their sign.
fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = key.iter().fold(0u32, |hash, byte| {
        let hash = hash.wrapping_add(i32::from(*byte as i8) as u32);
        let hash = hash.wrapping_add(hash << 10);
        hash ^ hash >> 6
    });
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

/// The four words of an MD5, of which the first is libmemcached's `MD5` hash.
fn md5_words(data: &[u8]) -> [u32; 4] {
    let digest = Md5::digest(data);
    let (words, _) = digest.as_slice().as_chunks::<4>();
    std::array::from_fn(|index| u32::from_le_bytes(words[index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur3_as_in_python() {
        // What pymemcache's murmur3_32 gives.
        for (text, hash) in [
            ("", 0),
            ("a", 0x3c25_69b2),
            ("aa", 0x3710_91a9),
            ("aaaa", 0x7eee_d987),
            ("Hello, world!", 0xc036_3e43),
            ("é🔑ключ", 0x2358_9b26),
        ] {
            assert_eq!(murmur3_32(text), hash, "{text:?}");
        }
    }

    /// Where pylibmc 1.6.3 (libmemcached 1.0) stored these keys: set by a client of three servers, and looked for by
    /// clients of one each. pylibmc has no wheel for every Python that the tests run on.
    #[test]
    fn as_in_pylibmc() {
        let servers = [11211, 21212, 21213].map(|port| ("127.0.0.1".to_owned(), port));
        for (routing, stored) in [
            (Routing::Modula(3), "2222120121011000011102002011101101111122"),
            (Routing::ketama(&servers, false), "1120010112201021211202121012022122121200"),
            (Routing::ketama(&servers, true), "1110112210220111201222202212121211121112"),
        ] {
            for (number, server) in stored.bytes().enumerate() {
                let key = format!(":1:{}-{number}", if number % 4 == 0 { "ключ" } else { "session" });
                assert_eq!(routing.server(&key), usize::from(server - b'0'), "{key}");
            }
        }
    }
}

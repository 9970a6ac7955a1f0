//! The moment at which a value ends, as `FileBasedCache` pickles it before the value: a float, or `None` for never.

/// Opcodes of pickle.
const PROTO: u8 = 0x80;
const FRAME: u8 = 0x95;
const NONE: u8 = b'N';
const BINFLOAT: u8 = b'G';
const BININT: u8 = b'J';
const BININT1: u8 = b'K';
const BININT2: u8 = b'M';
const STOP: u8 = b'.';

/// Python's highest protocol since 3.8.
const PROTOCOL: u8 = 5;

/// When a value ends, in seconds since 1970; never if there is no number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct End(pub(super) Option<f64>);

impl End {
    /// The pickle that CPython writes, byte for byte.
    pub(super) fn dumps(self) -> Vec<u8> {
        match self.0 {
            None => vec![PROTO, PROTOCOL, NONE, STOP],
            Some(end) => {
                let mut pickle = vec![PROTO, PROTOCOL, FRAME];
                // How many bytes follow in the frame.
                pickle.extend(10u64.to_le_bytes());
                pickle.push(BINFLOAT);
                pickle.extend(end.to_be_bytes());
                pickle.push(STOP);
                pickle
            }
        }
    }

    /// The end that `data` begins with, and how many bytes it takes. Where `data` is cut off before an opcode, as an empty
    /// file is, Python meets an `EOFError`, which Django takes for the year 1970; every other damage is `None`.
    pub(super) fn loads(data: &[u8]) -> Option<(Self, usize)> {
        const OVER: End = End(Some(0.0));
        let mut rest = data;
        let mut value = None;
        loop {
            let Some((opcode, arguments)) = rest.split_first() else { return Some((OVER, data.len())) };
            rest = arguments;
            match *opcode {
                PROTO => take::<1>(&mut rest).filter(|[protocol]| *protocol <= PROTOCOL).map(drop)?,
                // Python reads a frame as a whole.
                FRAME => {
                    let length = u64::from_le_bytes(take(&mut rest)?);
                    (length <= rest.len() as u64).then_some(())?;
                }
                NONE => value = Some(End(None)),
                BINFLOAT => value = Some(End(Some(f64::from_be_bytes(take(&mut rest)?)))),
                BININT => value = Some(End(Some(f64::from(i32::from_le_bytes(take(&mut rest)?))))),
                BININT1 => value = Some(End(Some(f64::from(u8::from_le_bytes(take(&mut rest)?))))),
                BININT2 => value = Some(End(Some(f64::from(u16::from_le_bytes(take(&mut rest)?))))),
                STOP => return Some((value?, data.len() - rest.len())),
                _ => return None,
            }
        }
    }
}

fn take<const N: usize>(data: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = data.split_first_chunk()?;
    *data = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python_writes_it() {
        assert_eq!(End(None).dumps(), b"\x80\x05N.");
        let pickle = b"\x80\x05\x95\n\0\0\0\0\0\0\0GA\xd9T\xfc@ \0\0.";
        assert_eq!(End(Some(1_700_000_000.5)).dumps(), pickle);
        for (pickle, end) in [
            (&pickle[..], Some(1_700_000_000.5)),
            (b"\x80\x02N.", None),
            (b"\x80\x02K\x07.", Some(7.0)),
            (b"J\xff\xff\xff\xff.", Some(-1.0)),
            (b"M\x01\x02.", Some(513.0)),
        ] {
            let mut data = pickle.to_vec();
            data.extend(b"what follows");
            assert_eq!(End::loads(&data), Some((End(end), pickle.len())));
        }
    }

    #[test]
    fn what_is_cut_off_is_over_or_damaged() {
        let over = |data: &[u8]| End::loads(data).is_some_and(|(end, _)| end == End(Some(0.0)));
        for data in [&b""[..], b"\x80\x05", b"\x80\x05N"] {
            assert!(over(data), "{data:?}");
        }
        let pickle = End(Some(1_700_000_000.5)).dumps();
        for damaged in [&pickle[..1], &pickle[..5], &pickle[..11], &pickle[..20], b"\x80\x06N.", b".", b"x"] {
            assert_eq!(End::loads(damaged), None, "{damaged:?}");
        }
    }
}

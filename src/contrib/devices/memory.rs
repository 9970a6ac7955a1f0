//! Which rows this process wrote within the last minute. What it forgets is asked of the database.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::INTERVAL;

/// Sessions; about 2 MB.
const REMEMBERED: usize = 10_000;

#[derive(Default)]
pub(super) struct Memory {
    /// The oldest first.
    times: VecDeque<(Arc<str>, Timestamp)>,
    items: HashSet<Arc<str>>,
}

impl Memory {
    /// True once in [`INTERVAL`]; whoever is told so writes.
    pub(super) fn is_due(&mut self, item: &str, now: Timestamp) -> bool {
        // Both ways: a clock may be set back.
        let is_over = |then: &Timestamp| now.duration_since(*then).abs() >= INTERVAL;
        while let Some((oldest, _)) = self.times.pop_front_if(|(_, then)| is_over(then)) {
            self.items.remove(&oldest);
        }
        if self.items.contains(item) {
            return false;
        }
        if self.times.len() == REMEMBERED
            && let Some((oldest, _)) = self.times.pop_front()
        {
            self.items.remove(&oldest);
        }
        let item: Arc<str> = item.into();
        self.items.insert(item.clone());
        self.times.push_back((item, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn once_a_minute_and_no_more_than_it_may() {
        let (mut memory, start) = (Memory::default(), Timestamp::UNIX_EPOCH);
        let at = |seconds| start + SignedDuration::from_secs(seconds);
        assert!(memory.is_due("a", at(0)));
        assert!(memory.is_due("b", at(30)));
        assert!(!memory.is_due("a", at(59)));
        assert!(memory.is_due("a", at(60)));
        assert!(!memory.is_due("b", at(89)));
        assert!(memory.is_due("b", at(90)));
        assert!(memory.is_due("b", at(-3600)), "the clock was set back");

        let mut memory = Memory::default();
        for number in 0..=REMEMBERED {
            assert!(memory.is_due(&number.to_string(), start));
        }
        assert_eq!((memory.times.len(), memory.items.len()), (REMEMBERED, REMEMBERED));
        assert!(memory.is_due("0", start), "it was forgotten");
        assert!(!memory.is_due(&REMEMBERED.to_string(), start));
        assert!(memory.is_due("0", at(60)));
        assert_eq!((memory.times.len(), memory.items.len()), (1, 1));
    }
}

//! The times of admitted requests, exact to the microsecond in one to four bytes each.
//!
//! Stamps only ever grow, so after the oldest each is kept as its distance from the one before, as a
//! variable-length integer of seven bits a byte. A flood costs one or two bytes a stamp, ten thousand
//! spread over a minute two, over a day four. The first few live in the value itself: a key seen a
//! handful of times allocates nothing.

use std::collections::VecDeque;

/// Bytes kept in place; what fits beside the tag in the size of the pointer variant's alignment.
const FEW: usize = 22;

/// Capacity from which an emptied buffer is given back.
const ROOMY: usize = 256;

/// Non-decreasing times, in microseconds.
#[derive(Debug)]
pub(crate) struct Stamps {
    oldest: u64,
    newest: u64,
    len: u32,
    gaps: Gaps,
}

#[derive(Debug)]
enum Gaps {
    Few {
        used: u8,
        bytes: [u8; FEW],
    },
    #[allow(clippy::box_collection, reason = "a pointer keeps the small variant small")]
    Many(Box<VecDeque<u8>>),
}

impl Stamps {
    pub(crate) fn one(at: u64) -> Self {
        Self { oldest: at, newest: at, len: 1, gaps: Gaps::NONE }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Adds a time that is not before the newest.
    pub(crate) fn push(&mut self, at: u64) {
        debug_assert!(at >= self.newest);
        if self.len == 0 {
            *self = Self::one(at);
            return;
        }
        self.gaps.push(at - self.newest);
        self.newest = at;
        self.len += 1;
    }

    /// Drops every stamp that is `age` or more older than `now`.
    pub(crate) fn expire(&mut self, now: u64, age: u64) {
        if self.len == 0 || now - self.oldest < age {
            return;
        }
        if now - self.newest >= age {
            (self.len, self.gaps) = (0, Gaps::NONE);
            return;
        }
        // The newest stays, so there is a gap behind every one dropped here.
        while now - self.oldest >= age {
            self.oldest += self.gaps.pop();
            self.len -= 1;
        }
        self.gaps.tidy();
    }

    /// All of them, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        let (front, back) = self.gaps.bytes();
        let mut bytes = front.iter().chain(back).copied();
        let mut at = self.oldest;
        (0..self.len).map(move |i| {
            if i > 0 {
                at += unpack(|| bytes.next());
            }
            at
        })
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(crate) fn heap(&self) -> usize {
        match &self.gaps {
            Gaps::Few { .. } => 0,
            Gaps::Many(bytes) => bytes.capacity(),
        }
    }
}

impl Gaps {
    const NONE: Self = Self::Few { used: 0, bytes: [0; FEW] };

    fn bytes(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Few { used, bytes } => (&bytes[..usize::from(*used)], &[]),
            Self::Many(bytes) => bytes.as_slices(),
        }
    }

    fn push(&mut self, gap: u64) {
        let (packed, size) = pack(gap);
        let packed = &packed[..size];
        match self {
            Self::Few { used, bytes } if usize::from(*used) + size <= FEW => {
                let start = usize::from(*used);
                bytes[start..start + size].copy_from_slice(packed);
                *used += size as u8;
            }
            Self::Few { used, bytes } => {
                let mut many = VecDeque::with_capacity(2 * FEW);
                many.extend(&bytes[..usize::from(*used)]);
                many.extend(packed);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(bytes) => bytes.extend(packed),
        }
    }

    fn pop(&mut self) -> u64 {
        match self {
            Self::Few { used, bytes } => {
                let mut size = 0;
                let gap = unpack(|| {
                    size += 1;
                    Some(bytes[size - 1])
                });
                bytes.copy_within(size..usize::from(*used), 0);
                *used -= size as u8;
                gap
            }
            Self::Many(bytes) => unpack(|| bytes.pop_front()),
        }
    }

    /// Gives memory back that is no longer needed.
    fn tidy(&mut self) {
        let Self::Many(many) = self else { return };
        if many.len() <= FEW / 2 {
            let (used, mut bytes) = (many.len(), [0; FEW]);
            for (place, byte) in bytes.iter_mut().zip(many.iter()) {
                *place = *byte;
            }
            *self = Self::Few { used: used as u8, bytes };
        } else if many.capacity() >= ROOMY && many.len() < many.capacity() / 4 {
            many.shrink_to(many.len() * 2);
        }
    }
}

fn pack(mut gap: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut size = 0;
    loop {
        bytes[size] = (gap & 0x7f) as u8;
        gap >>= 7;
        size += 1;
        if gap == 0 {
            return (bytes, size);
        }
        bytes[size - 1] |= 0x80;
    }
}

fn unpack(mut next: impl FnMut() -> Option<u8>) -> u64 {
    let (mut gap, mut shift) = (0, 0);
    while let Some(byte) = next() {
        gap |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
        shift += 7;
    }
    gap
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_takes_eighty_bytes_with_its_key() {
        assert_eq!(size_of::<Gaps>(), 24);
        assert_eq!(size_of::<crate::memory::Slot>(), 80);
    }

    #[test]
    fn ten_thousand_stamps_in_a_minute_take_less_than_forty_kilobytes_and_are_given_back() {
        let mut stamps = Stamps::one(0);
        for i in 1..10_000 {
            stamps.push(i * 6_000);
        }
        assert!(stamps.heap() <= 40_000, "{} bytes", stamps.heap());
        stamps.expire(60_000_000 + 9_900 * 6_000, 60_000_000);
        assert_eq!(stamps.len(), 99);
        assert!(stamps.heap() <= 2 * 2 * 99, "{} bytes", stamps.heap());
        stamps.expire(u64::MAX, 60_000_000);
        assert_eq!((stamps.len(), stamps.heap()), (0, 0));
    }

    proptest! {
        #[test]
        fn every_stamp_comes_back_to_the_microsecond(
            steps in prop::collection::vec((prop_oneof![0..200u64, 0..100_000u64, 0..u64::MAX >> 12], 0..400_000u64), 1..300),
        ) {
            let (mut now, mut naive) = (0, vec![0]);
            let mut stamps = Stamps::one(0);
            for (gap, age) in steps {
                now += gap;
                stamps.push(now);
                naive.push(now);
                stamps.expire(now, age + 1);
                naive.retain(|at| now - at < age + 1);
                prop_assert_eq!(stamps.iter().collect::<Vec<_>>(), naive.clone());
                prop_assert_eq!(stamps.len() as usize, naive.len());
            }
        }
    }
}

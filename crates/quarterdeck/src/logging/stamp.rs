//! The time of a line, as text.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

/// Length of [`stamp`]'s text.
pub(super) const STAMP: usize = 27;

thread_local! {
    /// The second this thread last wrote, and its text.
    static SECOND: Cell<(u64, [u8; STAMP])> = const { Cell::new((u64::MAX, [0; STAMP])) };
}

/// RFC 3339 in UTC with microseconds. By hand: a calendar library costs more than the rest of a line.
pub(super) fn stamp(out: &mut String, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut second, mut text) = SECOND.get();
    if second != since.as_secs() {
        (second, text) = (since.as_secs(), whole_second(since.as_secs()));
        SECOND.set((second, text));
    }
    digits(&mut text[20..26], since.subsec_micros().into());
    out.push_str(std::str::from_utf8(&text).unwrap_or_default());
}

fn whole_second(seconds: u64) -> [u8; STAMP] {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to civil date, counting years from March so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    digits(&mut text[..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], rest / 3600);
    digits(&mut text[14..16], rest / 60 % 60);
    digits(&mut text[17..19], rest % 60);
    text
}

fn digits(places: &mut [u8], mut value: u64) {
    for place in places.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::{DateTime, SecondsFormat, Utc};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_stamp_is_the_calendars(seconds in 0_u64..8_000_000_000, micros in any::<[u32; 2]>()) {
            // The second time the same second is known.
            for micros in micros {
                let time = UNIX_EPOCH + Duration::new(seconds, micros % 1_000_000 * 1000);
                let mut ours = String::new();
                stamp(&mut ours, time);
                prop_assert_eq!(ours.len(), STAMP);
                let theirs = DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Micros, true);
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}

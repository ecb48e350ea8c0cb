//! Stretches of time that money and work are counted in. All begin and end at midnight UTC; the start
//! belongs to them, the end does not.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, Utc};

use crate::role::wire_enum;

/// From a time until before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// First moment.
    pub start: DateTime<Utc>,
    /// First moment after it.
    pub end: DateTime<Utc>,
}

impl Period {
    /// The billing period a time lies in: it begins on `reset_day` of a month, 1 to 28.
    pub fn billing(now: DateTime<Utc>, reset_day: u32) -> Self {
        let today = now.date_naive();
        let this_month = today.with_day(reset_day.clamp(1, 28)).unwrap_or(today);
        let start = if this_month <= today { this_month } else { this_month - Months::new(1) };
        Self { start: midnight(start), end: midnight(start + Months::new(1)) }
    }

    /// Whether a time lies in it.
    pub fn contains(&self, time: DateTime<Utc>) -> bool {
        self.start <= time && time < self.end
    }
}

wire_enum! {
    /// What a report is about: the last one of its kind that is over.
    ReportPeriod {
        /// A day.
        Daily = "daily",
        /// A week from Monday.
        Weekly = "weekly",
        /// A calendar month.
        Monthly = "monthly",
    }
}

impl ReportPeriod {
    /// The last such period that is over.
    pub fn before(self, now: DateTime<Utc>) -> Period {
        let today = now.date_naive();
        let (start, end) = match self {
            Self::Daily => (today - Days::new(1), today),
            Self::Weekly => {
                let monday = today - Days::new(today.weekday().num_days_from_monday().into());
                (monday - Days::new(7), monday)
            }
            Self::Monthly => {
                let first = today.with_day(1).unwrap_or(today);
                (first - Months::new(1), first)
            }
        };
        Period { start: midnight(start), end: midnight(end) }
    }
}

/// The first moment of a day.
pub fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Weekday};
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn shown(period: Period) -> (String, String) {
        (period.start.to_rfc3339(), period.end.to_rfc3339())
    }

    #[test]
    fn the_reset_day_belongs_to_the_period_it_begins() {
        let of = |text, day| shown(Period::billing(at(text), day));
        let march = ("2027-03-15T00:00:00+00:00".to_owned(), "2027-04-15T00:00:00+00:00".to_owned());
        assert_eq!(of("2027-03-15T00:00:00Z", 15), march);
        assert_eq!(of("2027-04-14T23:59:59.999999Z", 15), march);
        assert_eq!(of("2027-01-01T00:00:00Z", 28).0, "2026-12-28T00:00:00+00:00");
    }

    #[test]
    fn reports_are_about_what_is_over() {
        let of = |period: ReportPeriod, text| shown(period.before(at(text)));
        let days =
            |start: &str, end: &str| (format!("{start}T00:00:00+00:00"), format!("{end}T00:00:00+00:00"));
        // A Friday.
        let now = "2027-01-15T08:00:00Z";
        assert_eq!(of(ReportPeriod::Daily, now), days("2027-01-14", "2027-01-15"));
        assert_eq!(of(ReportPeriod::Weekly, now), days("2027-01-04", "2027-01-11"));
        assert_eq!(of(ReportPeriod::Monthly, now), days("2026-12-01", "2027-01-01"));
        assert_eq!(of(ReportPeriod::Weekly, "2027-01-11T00:00:00Z"), days("2027-01-04", "2027-01-11"));
        assert_eq!(of(ReportPeriod::Monthly, "2028-03-31T12:00:00Z"), days("2028-02-01", "2028-03-01"));
    }

    proptest! {
        #[test]
        fn every_moment_lies_in_one_billing_period_and_they_follow_each_other(
            seconds in 0_i64..7_000_000_000, day in 1_u32..=28,
        ) {
            let now = DateTime::from_timestamp(seconds, 0).unwrap();
            let period = Period::billing(now, day);
            prop_assert!(period.contains(now) && !period.contains(period.end));
            prop_assert_eq!((period.start.day(), period.start.time()), (day, NaiveTime::MIN));
            prop_assert_eq!(Period::billing(period.end, day).start, period.end);
            prop_assert_eq!(Period::billing(period.end - TimeDelta::microseconds(1), day), period);
            prop_assert!((28..=31).contains(&(period.end - period.start).num_days()));
        }

        #[test]
        fn a_report_ends_at_the_last_boundary(seconds in 100_000_000_i64..7_000_000_000) {
            let now = DateTime::from_timestamp(seconds, 0).unwrap();
            for (period, most) in [(ReportPeriod::Daily, 1), (ReportPeriod::Weekly, 7), (ReportPeriod::Monthly, 31)] {
                let Period { start, end } = period.before(now);
                prop_assert!(start < end && end <= now && (now - end).num_days() < most);
                prop_assert_eq!(period.before(end), Period { start, end });
                prop_assert_eq!(period.before(end - TimeDelta::microseconds(1)).end, start);
            }
            prop_assert_eq!(ReportPeriod::Weekly.before(now).start.weekday(), Weekday::Mon);
            prop_assert_eq!(ReportPeriod::Monthly.before(now).start.day(), 1);
        }
    }
}

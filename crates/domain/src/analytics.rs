//! How work and spending develop: trends over the past, and what they let expect.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};

use crate::cost_record::DayTotals;
use crate::money::Money;
use crate::period::midnight;
use crate::role::wire_enum;

/// Most days a forecast may look ahead.
pub const MAX_HORIZON: u32 = 90;
/// Days of the short trend of spending.
pub const SPARKLINE_DAYS: u64 = 7;

wire_enum! {
    /// How far a trend looks back.
    TrendPeriod {
        /// A week.
        Week = "7d",
        /// Thirty days.
        Month = "30d",
        /// Ninety days.
        Quarter = "90d",
    }
}

wire_enum! {
    /// What a trend shows.
    TrendMetric {
        /// Tasks that were completed.
        TasksCompleted = "tasks_completed",
        /// Money.
        Spend = "spend",
        /// Agents at work.
        ActiveAgents = "active_agents",
        /// Completed among completed and failed tasks, 0 to 1.
        SuccessRate = "success_rate",
    }
}

wire_enum! {
    /// What one point of a trend stands for.
    BucketSize {
        /// An hour.
        Hour = "hour",
        /// A day, UTC.
        Day = "day",
    }
}

impl BucketSize {
    /// Its length in microseconds.
    pub const fn micros(self) -> i64 {
        match self {
            Self::Hour => 3_600_000_000,
            Self::Day => 86_400_000_000,
        }
    }
}

impl TrendPeriod {
    /// What its points stand for.
    pub const fn bucket(self) -> BucketSize {
        match self {
            Self::Week => BucketSize::Hour,
            Self::Month | Self::Quarter => BucketSize::Day,
        }
    }

    const fn days(self) -> i64 {
        match self {
            Self::Week => 7,
            Self::Month => 30,
            Self::Quarter => 90,
        }
    }

    /// The beginnings of its buckets, oldest first: from the one the trend begins in to the current one.
    pub fn buckets(self, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let size = self.bucket().micros();
        let first = (now - TimeDelta::days(self.days())).timestamp_micros().div_euclid(size);
        let last = now.timestamp_micros().div_euclid(size);
        (first..=last).filter_map(|bucket| DateTime::from_timestamp_micros(bucket * size)).collect()
    }
}

/// What spending lets expect.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// What the days of the horizon will cost together.
    pub total: Money,
    /// Days from tomorrow, with what they and those before them will cost.
    pub days: Vec<(NaiveDate, Money)>,
    /// Whole days until nothing is left; `None` when that does not happen.
    pub days_until_exhausted: Option<u64>,
    /// Days with spending among those looked at, 0 to 1.
    pub confidence: f64,
    /// What a day costs.
    pub daily: Money,
}

impl Forecast {
    /// Looks `horizon` days ahead from what the last `horizon` days have cost, one entry per day and all
    /// in one currency. `left` is what may still be spent, `None` when any amount may.
    pub fn new(spent: &[DayTotals], horizon: u32, today: NaiveDate, left: Option<Money>) -> Self {
        let days = || spent.iter().map(|day| day.day);
        let span = match (days().min(), days().max()) {
            (Some(first), Some(last)) => (last - first).num_days().unsigned_abs() + 1,
            _ => 0,
        };
        let total: Money = spent.iter().map(|day| day.totals.cost).sum();
        let ahead = |count: u32| total.scaled(count.into(), span);
        let dated = |count: u32| Some((today.checked_add_days(Days::new(count.into()))?, ahead(count)));
        Self {
            total: ahead(horizon),
            days: (1..=horizon).filter_map(dated).collect(),
            days_until_exhausted: left.and_then(|left| left.lasts(total, span)),
            confidence: if span == 0 { 0.0 } else { (spent.len() as f64 / span as f64).min(1.0) },
            daily: ahead(1),
        }
    }
}

/// The days of the short trend of spending, today last, with what each has cost.
pub fn sparkline(spent: &[DayTotals], now: DateTime<Utc>) -> Vec<(DateTime<Utc>, Money)> {
    let by_day: BTreeMap<_, _> = spent.iter().map(|day| (day.day, day.totals.cost)).collect();
    let days = (0..SPARKLINE_DAYS).rev().map(|back| now.date_naive() - Days::new(back));
    days.map(|day| (midnight(day), by_day.get(&day).copied().unwrap_or_default())).collect()
}

#[cfg(test)]
mod tests {
    use chrono::Timelike;
    use proptest::prelude::*;

    use super::*;
    use crate::cost_record::Totals;
    use crate::money::Currency;

    fn money(amount: f64) -> Money {
        Money::from_f64(amount).unwrap()
    }

    fn day(number: u64, cost: f64) -> DayTotals {
        let totals = Totals { cost: money(cost), records: 1, ..Totals::default() };
        let day = NaiveDate::from_ymd_opt(2027, 1, 1).unwrap() + Days::new(number);
        DayTotals { day, currency: Currency::Usd, totals }
    }

    fn today() -> NaiveDate {
        day(14, 0.0).day
    }

    #[test]
    fn a_forecast_is_the_average_of_the_days_between_the_first_and_the_last() {
        let forecast = Forecast::new(&[day(10, 2.0), day(13, 4.0)], 4, today(), Some(money(4.0)));
        assert_eq!((forecast.daily, forecast.total, forecast.confidence), (money(1.5), money(6.0), 0.5));
        let ahead: Vec<_> =
            forecast.days.iter().map(|(day, cost)| (day.to_string(), cost.to_f64())).collect();
        let days = ["2027-01-16", "2027-01-17", "2027-01-18", "2027-01-19"].map(str::to_owned);
        assert_eq!(ahead, days.into_iter().zip([1.5, 3.0, 4.5, 6.0]).collect::<Vec<_>>());
        assert_eq!(forecast.days_until_exhausted, Some(3));
    }

    #[test]
    fn without_spending_everything_is_zero_and_nothing_runs_out() {
        let forecast = Forecast::new(&[], 2, today(), Some(money(4.0)));
        assert_eq!((forecast.total, forecast.daily, forecast.confidence), (Money::ZERO, Money::ZERO, 0.0));
        assert!(forecast.days.len() == 2 && forecast.days.iter().all(|(_, cost)| *cost == Money::ZERO));
        assert_eq!(forecast.days_until_exhausted, None);
        assert_eq!(Forecast::new(&[day(1, 1.0)], 2, today(), None).days_until_exhausted, None);
    }

    proptest! {
        #[test]
        fn no_forecast_is_negative_or_out_of_bounds(
            costs in prop::collection::btree_map(0_u64..90, 0.0..1e9, 0..90), horizon in 1_u32..=90, left in 0.0..1e9,
        ) {
            let spent: Vec<_> = costs.into_iter().map(|(number, cost)| day(number, cost)).collect();
            let forecast = Forecast::new(&spent, horizon, today(), Some(money(left)));
            prop_assert!((0.0..=1.0).contains(&forecast.confidence));
            prop_assert_eq!(forecast.days.len() as u32, horizon);
            prop_assert!(forecast.days.is_sorted());
            prop_assert_eq!(forecast.days.last().unwrap().1, forecast.total);
        }

        #[test]
        fn the_short_trend_has_seven_days_at_any_moment(seconds in 1_000_000_i64..7_000_000_000) {
            let now = DateTime::from_timestamp(seconds, 0).unwrap();
            let days = sparkline(&[], now);
            prop_assert_eq!(days.len(), 7);
            prop_assert!(days.iter().all(|(day, _)| day.num_seconds_from_midnight() == 0));
            prop_assert!(days[6].0 <= now && now < days[6].0 + TimeDelta::days(1));
            prop_assert_eq!(days[6].0 - days[0].0, TimeDelta::days(6));
        }

        #[test]
        fn buckets_lie_side_by_side_and_hold_the_whole_period(seconds in 10_000_000_i64..7_000_000_000) {
            let now = DateTime::from_timestamp(seconds, 0).unwrap();
            for period in TrendPeriod::ALL {
                let buckets = period.buckets(now);
                let size = TimeDelta::microseconds(period.bucket().micros());
                let start = now - TimeDelta::days(period.days());
                prop_assert!(buckets[0] <= start && start < buckets[0] + size);
                let last = *buckets.last().unwrap();
                prop_assert!(last <= now && now < last + size);
                prop_assert!(buckets.windows(2).all(|pair| pair[1] - pair[0] == size));
            }
        }
    }
}

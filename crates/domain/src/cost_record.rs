//! What one call of a model has cost.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::money::{Currency, Money};
use crate::role::wire_enum;
use crate::text::NotBlank;
use crate::{Error, ErrorCode, Result};

/// Most characters of an id, a provider or a model.
pub const MAX_ID: usize = 128;
/// Most characters of why a call was repeated.
pub const MAX_REASON: usize = 1024;
/// Most tokens of one call, so that sums never leave 64 bits.
const MAX_TOKENS: i64 = 1_000_000_000_000;

wire_enum! {
    /// What a call of a model was good for.
    #[schema(as = LLMCallCategory)]
    CallCategory {
        /// The work itself.
        Productive = "productive",
        /// Agents talking to each other.
        Coordination = "coordination",
        /// The program's own purposes.
        System = "system",
        /// Vectors for search.
        Embedding = "embedding",
    }
}

wire_enum! {
    /// Why a model stopped.
    FinishReason {
        /// It was done.
        Stop = "stop",
        /// It had no tokens left.
        MaxTokens = "max_tokens",
        /// It wants to use a tool.
        ToolUse = "tool_use",
        /// The provider held the answer back.
        ContentFilter = "content_filter",
        /// It failed.
        Error = "error",
    }
}

/// What one call of a model has cost. Never changed once it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct CostRecord {
    /// Who called.
    #[schema(value_type = String, min_length = 1)]
    pub agent_id: NotBlank<MAX_ID>,
    /// What for.
    #[schema(value_type = String, min_length = 1)]
    pub task_id: NotBlank<MAX_ID>,
    /// The project of the task.
    #[schema(value_type = Option<String>, min_length = 1)]
    pub project_id: Option<NotBlank<MAX_ID>>,
    /// Who runs the model.
    #[schema(value_type = String, min_length = 1)]
    pub provider: NotBlank<MAX_ID>,
    /// The model.
    #[schema(value_type = String, min_length = 1)]
    pub model: NotBlank<MAX_ID>,
    /// Tokens sent.
    #[schema(minimum = 0)]
    pub input_tokens: i64,
    /// Tokens received.
    #[schema(minimum = 0)]
    pub output_tokens: i64,
    /// The price.
    #[schema(value_type = f64, minimum = 0)]
    pub cost: Money,
    /// What the price is in.
    pub currency: Currency,
    /// When.
    pub timestamp: DateTime<Utc>,
    /// What it was good for.
    pub call_category: Option<CallCategory>,
    /// Accuracy won per effort.
    pub accuracy_effort_ratio: Option<f64>,
    /// Time it took, in milliseconds.
    pub latency_ms: Option<f64>,
    /// Whether the provider had the beginning in memory.
    pub cache_hit: Option<bool>,
    /// How often it was repeated.
    pub retry_count: Option<i64>,
    /// Why it was repeated.
    #[schema(value_type = Option<String>)]
    pub retry_reason: Option<NotBlank<MAX_REASON>>,
    /// Why the model stopped.
    pub finish_reason: Option<FinishReason>,
    /// Whether the answer was of use.
    pub success: Option<bool>,
}

impl CostRecord {
    /// Checks what types do not say.
    ///
    /// # Errors
    /// 422/2000 with the broken rule.
    pub fn check(&self) -> Result<()> {
        let tokens = [self.input_tokens, self.output_tokens];
        if tokens.iter().any(|count| !(0..=MAX_TOKENS).contains(count)) {
            return Err(Error::rule("token counts must be from 0 to 1000000000000"));
        }
        if self.cost > Money::ZERO && tokens == [0, 0] {
            return Err(Error::rule("a cost above 0 needs tokens"));
        }
        let figures = [self.accuracy_effort_ratio, self.latency_ms];
        if figures.iter().flatten().any(|figure| !figure.is_finite() || *figure < 0.0) {
            return Err(Error::rule("accuracy_effort_ratio and latency_ms must be numbers from 0"));
        }
        if self.retry_count.is_some_and(|count| count < 0) {
            return Err(Error::rule("retry_count must not be negative"));
        }
        if self.retry_reason.is_some() && self.retry_count.unwrap_or(0) < 1 {
            return Err(Error::rule("retry_reason needs a retry_count of at least 1"));
        }
        if self.timestamp < DateTime::UNIX_EPOCH {
            return Err(Error::rule("timestamp must not lie before 1970"));
        }
        let texts = [&self.agent_id, &self.task_id, &self.provider, &self.model].map(NotBlank::as_str);
        let optional = [self.project_id.as_deref(), self.retry_reason.as_deref()];
        if texts.into_iter().chain(optional.into_iter().flatten()).any(|text| text.contains('\0')) {
            return Err(Error::rule("a cost record must not hold the character NUL"));
        }
        Ok(())
    }
}

/// What calls have cost together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The price.
    pub cost: Money,
    /// Tokens sent.
    pub input_tokens: i64,
    /// Tokens received.
    pub output_tokens: i64,
    /// How many calls.
    pub records: i64,
}

/// What the calls of one day, in one currency, have cost together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayTotals {
    /// The day, UTC.
    pub day: NaiveDate,
    /// What the price is in.
    pub currency: Currency,
    /// The sums.
    pub totals: Totals,
}

/// The one currency of these sums; `configured` when there are none.
///
/// # Errors
/// 409/4007 when they are in several: nothing is ever converted.
pub fn currency_of(days: &[DayTotals], configured: Currency) -> Result<Currency> {
    let currency = days.first().map_or(configured, |first| first.currency);
    match days.iter().all(|day| day.currency == currency) {
        true => Ok(currency),
        false => Err(ErrorCode::MixedCurrencyAggregation.into()),
    }
}

/// All days together; every one is in the same currency.
pub fn sum(days: &[DayTotals]) -> Totals {
    days.iter().fold(Totals::default(), |sum, DayTotals { totals, .. }| Totals {
        cost: sum.cost + totals.cost,
        input_tokens: sum.input_tokens + totals.input_tokens,
        output_tokens: sum.output_tokens + totals.output_tokens,
        records: sum.records + totals.records,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<const MAX: usize>(text: &str) -> NotBlank<MAX> {
        NotBlank::new(text).unwrap()
    }

    fn sound() -> CostRecord {
        CostRecord {
            agent_id: text("a"),
            task_id: text("t"),
            project_id: None,
            provider: text("p"),
            model: text("m"),
            input_tokens: 1,
            output_tokens: 0,
            cost: Money::from_f64(0.5).unwrap(),
            currency: Currency::Usd,
            timestamp: DateTime::UNIX_EPOCH,
            call_category: None,
            accuracy_effort_ratio: None,
            latency_ms: None,
            cache_hit: None,
            retry_count: None,
            retry_reason: None,
            finish_reason: None,
            success: None,
        }
    }

    #[test]
    fn each_rule_of_a_record_is_checked() {
        assert!(sound().check().is_ok());
        let broken: [fn(&mut CostRecord); 9] = [
            |r| r.input_tokens = -1,
            |r| r.output_tokens = MAX_TOKENS + 1,
            |r| r.input_tokens = 0,
            |r| r.accuracy_effort_ratio = Some(f64::NAN),
            |r| r.latency_ms = Some(-1.0),
            |r| r.retry_count = Some(-1),
            |r| r.retry_reason = Some(text("timeout")),
            |r| (r.retry_reason, r.retry_count) = (Some(text("timeout")), Some(0)),
            |r| r.model = text("m\0"),
        ];
        for breaks in broken {
            let mut record = sound();
            breaks(&mut record);
            let refused = record.check().unwrap_err();
            assert_eq!((refused.status(), refused.code().number()), (422, 2000), "{record:?}");
        }
        let free = CostRecord { cost: Money::ZERO, input_tokens: 0, ..sound() };
        assert!(free.check().is_ok());
        let again = CostRecord { retry_count: Some(1), retry_reason: Some(text("timeout")), ..sound() };
        assert!(again.check().is_ok());
    }

    #[test]
    fn sums_of_several_currencies_are_refused() {
        let day = |currency| DayTotals { day: NaiveDate::default(), currency, totals: Totals::default() };
        assert_eq!(currency_of(&[], Currency::Usd).unwrap(), Currency::Usd);
        assert_eq!(currency_of(&[day(Currency::Eur)], Currency::Usd).unwrap(), Currency::Eur);
        let mixed = currency_of(&[day(Currency::Eur), day(Currency::Usd)], Currency::Usd).unwrap_err();
        assert_eq!((mixed.status(), mixed.code().number()), (409, 4007));
    }
}

//! How well agents have worked together on a task, in figures.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::text::NotBlank;
use crate::{Error, Result};

/// Most characters of an id.
pub const MAX_ID: usize = 128;

/// The figures of one run.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct CoordinationMetricsRecord {
    /// The task.
    #[schema(value_type = String, min_length = 1)]
    pub task_id: NotBlank<MAX_ID>,
    /// Who led the work.
    #[schema(value_type = Option<String>, min_length = 1)]
    pub agent_id: Option<NotBlank<MAX_ID>>,
    /// When they were computed.
    pub computed_at: DateTime<Utc>,
    /// How many agents took part, above 0.
    #[schema(minimum = 1)]
    pub team_size: i64,
    /// The figures.
    pub metrics: CoordinationMetrics,
}

/// Figures; `null` where there was nothing to count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CoordinationMetrics {
    /// Success per turn, compared with one agent alone.
    pub efficiency: Option<CoordinationEfficiency>,
    /// Turns more than one agent alone needs.
    pub overhead: Option<CoordinationOverhead>,
    /// Errors compared with one agent alone.
    pub error_amplification: Option<ErrorAmplification>,
    /// Messages per turn of thinking.
    pub message_density: Option<MessageDensity>,
    /// Work done twice.
    pub redundancy_rate: Option<RedundancyRate>,
    /// What more agents can win at most.
    pub amdahl_ceiling: Option<AmdahlCeiling>,
    /// How long the others wait for the slowest.
    pub straggler_gap: Option<StragglerGap>,
    /// Tokens spent for time won.
    pub token_speedup_ratio: Option<TokenSpeedupRatio>,
    /// Whether messages grow with the square of the team.
    pub message_overhead: Option<MessageOverhead>,
}

macro_rules! figures {
    ($($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $kind:ty),+ $(,)? })+) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
            pub struct $name { $($(#[$fmeta])* pub $field: $kind),+ }
        )+
    };
}

figures! {
    /// Success per turn, compared with one agent alone.
    CoordinationEfficiency {
        /// Part of the work that succeeded, 0 to 1.
        success_rate: f64,
        /// Turns of the team.
        turns_mas: f64,
        /// Turns of one agent.
        turns_sas: f64,
        /// Success rate by the ratio of turns.
        value: f64,
    }

    /// Turns more than one agent alone needs.
    CoordinationOverhead {
        /// Turns of the team.
        turns_mas: f64,
        /// Turns of one agent.
        turns_sas: f64,
        /// More turns, in percent.
        value_percent: f64,
    }

    /// Errors compared with one agent alone.
    ErrorAmplification {
        /// Error rate of the team.
        error_rate_mas: f64,
        /// Error rate of one agent.
        error_rate_sas: f64,
        /// Their ratio.
        value: f64,
    }

    /// Messages per turn of thinking.
    MessageDensity {
        /// Messages between agents.
        inter_agent_messages: u64,
        /// Turns of thinking.
        reasoning_turns: u64,
        /// Their ratio.
        value: f64,
    }

    /// Work done twice.
    RedundancyRate {
        /// Part of the work, 0 to 1.
        value: f64,
        /// How many pieces were compared.
        sample_count: u64,
    }

    /// What more agents can win at most.
    AmdahlCeiling {
        /// Part of the work that can be shared, below 1.
        parallelizable_fraction: f64,
        /// Most times faster.
        max_speedup: f64,
        /// Agents worth having.
        recommended_team_size: u64,
    }

    /// How long the others wait for the slowest.
    StragglerGap {
        /// Time of the slowest.
        slowest_duration_seconds: f64,
        /// Time on average.
        mean_duration_seconds: f64,
        /// The slowest.
        slowest_agent_id: String,
        /// Time between the two.
        gap_seconds: f64,
        /// That time by the average.
        gap_ratio: f64,
    }

    /// Tokens spent for time won.
    TokenSpeedupRatio {
        /// Times the tokens of one agent.
        token_multiplier: f64,
        /// Times faster than one agent.
        latency_speedup: f64,
        /// Their ratio.
        ratio: f64,
        /// Whether the ratio is out of proportion.
        alert: bool,
    }

    /// Whether messages grow with the square of the team.
    MessageOverhead {
        /// Agents.
        team_size: u64,
        /// Messages between them.
        message_count: u64,
        /// Part of all pairs from which on they do.
        quadratic_threshold: f64,
        /// Whether they do.
        is_quadratic: bool,
    }
}

impl CoordinationMetricsRecord {
    /// The figures as text.
    ///
    /// # Errors
    /// 422/2000 when the team is empty, a figure is not a finite number, or a text holds NUL.
    pub fn figures(&self) -> Result<String> {
        if self.team_size < 1 {
            return Err(Error::rule("team_size must be greater than 0"));
        }
        let text = serde_json::to_string(&self.metrics).map_err(Error::internal)?;
        // What is no number is written as null, which does not read back.
        if serde_json::from_str::<CoordinationMetrics>(&text).is_err() {
            return Err(Error::rule("every figure must be a finite number"));
        }
        let ids = [Some(&self.task_id), self.agent_id.as_ref()];
        if ids.into_iter().flatten().any(|id| id.contains('\0')) || text.contains("\\u0000") {
            return Err(Error::rule("a record must not hold the character NUL"));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: f64) -> CoordinationMetricsRecord {
        let density = MessageDensity { inter_agent_messages: 1, reasoning_turns: 2, value };
        CoordinationMetricsRecord {
            task_id: NotBlank::new("t").unwrap(),
            agent_id: None,
            computed_at: DateTime::UNIX_EPOCH,
            team_size: 2,
            metrics: CoordinationMetrics { message_density: Some(density), ..CoordinationMetrics::default() },
        }
    }

    #[test]
    fn a_figure_is_a_finite_number_and_a_team_is_not_empty() {
        assert!(record(0.5).figures().is_ok());
        for bad in [
            record(f64::NAN),
            record(f64::INFINITY),
            CoordinationMetricsRecord { team_size: 0, ..record(0.5) },
        ] {
            assert_eq!(bad.figures().unwrap_err().status(), 422);
        }
    }
}

//! Interrupts: an agent stops until a person decides or answers.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::role::wire_enum;
use crate::stream::SessionId;
use crate::text::NotBlank;
use crate::{Error, ErrorCode, Result};

/// Most characters of an id.
pub const MAX_ID: usize = 128;
/// Most characters of a question, an answer or what goes with them.
pub const MAX_TEXT: usize = 65_536;
/// Seconds a person has by default.
pub const DEFAULT_TIMEOUT_SECONDS: f64 = 300.0;

wire_enum! {
    /// What an interrupt waits for.
    InterruptType {
        /// Whether a tool may be used.
        ToolApproval = "tool_approval",
        /// The answer to a question.
        InfoRequest = "info_request",
    }
}

wire_enum! {
    /// What a person decides.
    ResumeDecision {
        /// Go on.
        Approve = "approve",
        /// Do not.
        Reject = "reject",
        /// Do it differently.
        Revise = "revise",
    }
}

/// An agent waits for a person.
#[derive(Clone, PartialEq)]
pub struct Interrupt {
    /// Unique.
    pub id: NotBlank<MAX_ID>,
    /// The session it interrupts.
    pub session_id: SessionId,
    /// Who waits.
    pub agent_id: NotBlank<MAX_ID>,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// How long it is worth waiting; more than 0. Advice, not a deadline.
    pub timeout_seconds: f64,
    /// What for.
    pub ask: Ask,
}

/// What an interrupt asks.
#[derive(Clone, PartialEq)]
pub enum Ask {
    /// May this tool be used?
    ToolApproval {
        /// Name of the tool.
        tool_name: NotBlank<MAX_ID>,
        /// Its arguments; may hold secrets.
        tool_args: Option<Map<String, Value>>,
        /// What speaks for it.
        evidence_package_id: Option<NotBlank<MAX_ID>>,
    },
    /// A question.
    InfoRequest {
        /// The question.
        question: NotBlank<MAX_TEXT>,
        /// What it is about.
        context_snippet: Option<NotBlank<MAX_TEXT>>,
    },
}

// Arguments, questions and answers may hold secrets: what is logged names the interrupt and no more.
impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, session_id, .. } = self;
        f.debug_struct("Interrupt").field("id", id).field("session_id", session_id).finish_non_exhaustive()
    }
}

impl Interrupt {
    /// An interrupt with an id of its own and the default timeout.
    ///
    /// # Errors
    /// As [`Interrupt::check`].
    pub fn new(
        session_id: SessionId,
        agent_id: NotBlank<MAX_ID>,
        ask: Ask,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let id = NotBlank::new(Uuid::now_v7().to_string()).map_err(Error::internal)?;
        let timeout_seconds = DEFAULT_TIMEOUT_SECONDS;
        let interrupt = Self { id, session_id, agent_id, created_at: now, timeout_seconds, ask };
        interrupt.check().map(|()| interrupt)
    }

    /// Checks what types do not say.
    ///
    /// # Errors
    /// 422/2000 when the timeout is not a number above 0, or a text holds the character NUL, which not
    /// every database can store.
    pub fn check(&self) -> Result<()> {
        if !self.timeout_seconds.is_finite() || self.timeout_seconds <= 0.0 {
            return Err(Error::rule("timeout_seconds must be greater than 0"));
        }
        let more: [Option<&str>; 2] = match &self.ask {
            Ask::ToolApproval { tool_name, evidence_package_id, .. } => {
                [Some(tool_name), evidence_package_id.as_deref()]
            }
            Ask::InfoRequest { question, context_snippet } => [Some(question), context_snippet.as_deref()],
        };
        let mut texts = more.into_iter().flatten().chain([self.id.as_str(), self.agent_id.as_str()]);
        if texts.any(|text| text.contains('\0')) {
            return Err(Error::rule("an interrupt must not hold the character NUL"));
        }
        Ok(())
    }

    /// What it waits for.
    pub const fn kind(&self) -> InterruptType {
        match self.ask {
            Ask::ToolApproval { .. } => InterruptType::ToolApproval,
            Ask::InfoRequest { .. } => InterruptType::InfoRequest,
        }
    }

    /// Whether this answers it.
    ///
    /// # Errors
    /// 422/2000 when the decision over a tool, or the answer to a question, is missing.
    pub fn accepts(&self, resume: &Resume) -> Result<()> {
        match self.kind() {
            InterruptType::ToolApproval if resume.decision.is_none() => {
                Err(Error::rule("TOOL_APPROVAL interrupts require a decision"))
            }
            InterruptType::InfoRequest if resume.response.is_none() => {
                Err(Error::rule("INFO_REQUEST interrupts require a response"))
            }
            _ => Ok(()),
        }
    }
}

/// What a person says to an interrupt.
#[derive(Clone, Default, PartialEq, Deserialize, ToSchema)]
#[schema(as = ResumeInterruptRequest)]
pub struct Resume {
    /// Needed for `tool_approval`.
    pub decision: Option<ResumeDecision>,
    /// What goes with it.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 65536, pattern = r"\S")]
    pub feedback: Option<NotBlank<MAX_TEXT>>,
    /// Needed for `info_request`.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 65536, pattern = r"\S")]
    pub response: Option<NotBlank<MAX_TEXT>>,
}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resume").field("decision", &self.decision).finish_non_exhaustive()
    }
}

/// What was said, by whom and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    /// What.
    pub resume: Resume,
    /// Name of the user.
    pub resolved_by: String,
    /// When.
    pub resolved_at: DateTime<Utc>,
}

/// What has become of an interrupt.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It waits.
    Pending,
    /// A person has spoken.
    Resolved(Resolution),
    /// Nobody has, in time.
    Expired,
}

/// 404/3000: no such interrupt.
pub fn unknown(id: &str) -> Error {
    Error::missing("Interrupt", id)
}

/// 404/3000: somebody was faster, or time was.
pub fn no_longer_pending(id: &str) -> Error {
    Error::with(ErrorCode::ResourceNotFound, format!("Interrupt '{id}' is no longer pending"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interrupt(ask: Ask) -> Result<Interrupt> {
        Interrupt::new(SessionId::new("s").unwrap(), NotBlank::new("a").unwrap(), ask, DateTime::default())
    }

    fn question(text: &str) -> Ask {
        Ask::InfoRequest { question: NotBlank::new(text).unwrap(), context_snippet: None }
    }

    #[test]
    fn each_kind_wants_its_own_answer() {
        let tool = Ask::ToolApproval {
            tool_name: NotBlank::new("t").unwrap(),
            tool_args: None,
            evidence_package_id: None,
        };
        let (tool, info) = (interrupt(tool).unwrap(), interrupt(question("q")).unwrap());
        let decided = Resume { decision: Some(ResumeDecision::Reject), ..Resume::default() };
        let answered = Resume { response: Some(NotBlank::new("r").unwrap()), ..Resume::default() };
        assert!(tool.accepts(&decided).is_ok() && info.accepts(&answered).is_ok());
        let refused = |interrupt: &Interrupt, resume| {
            let error = interrupt.accepts(resume).unwrap_err();
            assert_eq!((error.status(), error.code().number()), (422, 2000));
            error.detail().to_owned()
        };
        assert_eq!(refused(&tool, &answered), "TOOL_APPROVAL interrupts require a decision");
        assert_eq!(refused(&info, &decided), "INFO_REQUEST interrupts require a response");
    }

    #[test]
    fn timeouts_are_above_zero_and_texts_hold_no_nul() {
        let mut sound = interrupt(question("q")).unwrap();
        assert_eq!(sound.timeout_seconds, 300.0);
        for timeout in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            sound.timeout_seconds = timeout;
            assert_eq!(sound.check().unwrap_err().status(), 422, "{timeout}");
        }
        assert_eq!(interrupt(question("a\0b")).unwrap_err().status(), 422);
    }

    #[test]
    fn nothing_that_was_asked_or_answered_is_shown_to_a_log() {
        let interrupt = interrupt(question("hunter2")).unwrap();
        let resume = Resume { response: Some(NotBlank::new("hunter2").unwrap()), ..Resume::default() };
        assert!(!format!("{interrupt:?}{resume:?}").contains("hunter2"));
    }
}

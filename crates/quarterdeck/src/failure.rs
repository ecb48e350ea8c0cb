//! Failures as the command line tells them.

use quarterdeck_domain::Error;
use serde_json::{Value, json};

/// Why a command ends without its result, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// 1 failure, 2 usage, 3 server unhealthy, 4 server unreachable, 130 interrupted.
    pub exit_code: u8,
    /// A sentence.
    pub message: String,
    /// What to try next.
    pub hint: Option<String>,
    /// HTTP status of the server's answer.
    pub status: Option<u16>,
    /// Number of the server's or the store's error.
    pub error_code: Option<u16>,
}

impl Failure {
    fn with_code(exit_code: u8, message: impl Into<String>) -> Self {
        Self { exit_code, message: message.into(), hint: None, status: None, error_code: None }
    }

    /// The command could not do what it was asked.
    pub fn runtime(message: impl Into<String>) -> Self {
        Self::with_code(1, message)
    }

    /// The command was asked in a way it does not understand.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::with_code(2, message)
    }

    /// The server answered, but is not well.
    pub fn unhealthy(message: impl Into<String>) -> Self {
        Self::with_code(3, message)
    }

    /// The server did not answer.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::with_code(4, message)
    }

    /// The user pressed Ctrl-C.
    pub fn interrupted() -> Self {
        Self::with_code(130, "interrupted")
    }

    /// Adds what to try next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The form of `--json`.
    pub fn to_json(&self) -> Value {
        let mut error = json!({"message": self.message, "exit_code": self.exit_code});
        let members = [
            ("status", self.status.map(Value::from)),
            ("error_code", self.error_code.map(Value::from)),
            ("hint", self.hint.clone().map(Value::from)),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                error[name] = value;
            }
        }
        json!({ "error": error })
    }
}

/// On this machine the operator may read the cause, which clients of the server never see.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.cause().unwrap_or(error.detail()).to_owned();
        Self { error_code: Some(error.code().number()), ..Self::runtime(message) }
    }
}

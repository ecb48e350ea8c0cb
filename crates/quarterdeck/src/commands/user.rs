//! `user`: accounts in the local database, for the operator who is locked out.

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use quarterdeck_auth::{Auth, HashCost, Password, resolve_secret};
use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::clock::{SystemClock, random_bytes};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::user::User;
use serde_json::{Value, json};

use super::Context;
use crate::cli::{PasswordArgs, UserCommand};
use crate::config::Config;
use crate::terminal::harmless;
use crate::{Failure, local};

/// A password has at most 128 characters of at most 4 bytes, and a line break.
const STDIN_LIMIT: u64 = 1024;
/// Letters of made passwords: none that look alike, and one for each value of five bits.
const LETTERS: &[u8; 32] = b"23456789abcdefghjkmnpqrstuvwxyzA";
/// Twenty letters of five bits cannot be guessed.
const MADE_LETTERS: usize = 20;
const PAGE: u64 = 200;

pub(super) fn run(context: &Context<'_>, command: &UserCommand) -> Result<ExitCode, Failure> {
    let loaded = context.load()?;
    let config = &loaded.config;
    match command {
        UserCommand::Create { username, role, password } => {
            let name = NotBlank::new(username.clone())
                .map_err(|rule| Failure::usage(format!("the login name {rule}")))?;
            let chosen = Chosen::ask(context, password, config)?;
            let user = context.wait(with_accounts(config, async |auth| {
                Ok(auth
                    .create_user(&Actor::system("cli.user_create"), name, chosen.password.clone(), *role)
                    .await?)
            }))?;
            let done = format!("Made the account {} ({}).", harmless(&user.username), user.role);
            chosen.report(context, &done, json!({ "user": shown(&user) }));
        }
        UserCommand::List => {
            let users = context.wait(with_accounts(config, async |auth| all(auth).await))?;
            let mut text = format!("{:<24} {:<16} {:<36} PASSWORD\n", "NAME", "ROLE", "ID");
            for user in &users {
                let password = if user.must_change_password { "to be changed" } else { "chosen" };
                let name = harmless(&user.username);
                text.push_str(&format!("{name:<24} {:<16} {:<36} {password}\n", user.role.as_str(), user.id));
            }
            if users.is_empty() {
                text = "There are no accounts.\n".to_owned();
                context.output.note("Make the first one with `quarterdeck user create NAME --role ceo`.");
            }
            context.output.result(&text, &users.iter().map(shown).collect());
        }
        UserCommand::ResetPassword { username, password } => {
            confirm(context, &format!("Give {} a new password and end all sessions?", harmless(username)))?;
            let chosen = Chosen::ask(context, password, config)?;
            let id = context.wait(with_accounts(config, async |auth| {
                Ok(auth.reset_password(username, &chosen.password).await?)
            }))?;
            let done = format!("{} has a new password; all sessions ended.", harmless(username));
            chosen.report(context, &done, json!({"user": {"id": id, "username": username}}));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens the accounts beside a server that may be running, and closes them again.
async fn with_accounts<T>(
    config: &Config,
    job: impl AsyncFnOnce(&Arc<Auth>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let store = local::attach_current(config).await?;
    let result = async {
        let clock = SystemClock::shared();
        let secret = resolve_secret(&store, &clock, &config.api.auth.jwt_secret).await?;
        let auth =
            Auth::start(config.api.auth.clone(), store.clone(), clock, secret, HashCost::PRODUCTION).await?;
        job(&auth).await
    }
    .await;
    store.close().await;
    result
}

async fn all(auth: &Arc<Auth>) -> Result<Vec<User>, Failure> {
    let mut users = Vec::new();
    loop {
        let (page, total) = auth.users(users.len() as u64, PAGE).await?;
        let at_end = page.is_empty();
        users.extend(page);
        if at_end || users.len() as u64 >= total {
            return Ok(users);
        }
    }
}

fn shown(user: &User) -> Value {
    json!({
        "id": user.id,
        "username": user.username,
        "role": user.role,
        "must_change_password": user.must_change_password,
        "org_roles": user.org_roles,
        "scoped_departments": user.scoped_departments,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    })
}

/// A password, and its text when nobody else knows it yet.
struct Chosen {
    password: Password,
    made: Option<String>,
}

impl Chosen {
    fn ask(context: &Context<'_>, arguments: &PasswordArgs, config: &Config) -> Result<Self, Failure> {
        if arguments.generate {
            let text = make(config.api.auth.min_password_length as usize);
            let password = Password::new(text.clone()).map_err(Failure::runtime)?;
            return Ok(Self { password, made: Some(text) });
        }
        let text = if arguments.password_stdin {
            from_stdin()?
        } else if io::stdin().is_terminal() && !context.output.is_json() {
            from_terminal()?
        } else {
            return Err(Failure::usage("there is no terminal to ask for the password on")
                .hint("use --password-stdin or --generate"));
        };
        let password = Password::new(text).map_err(|rule| Failure::usage(format!("the password {rule}")))?;
        Ok(Self { password, made: None })
    }

    fn report(&self, context: &Context<'_>, done: &str, mut document: Value) {
        match &self.made {
            Some(password) => {
                context.output.note(done);
                context.output.note("This is the password; it is not shown again:");
                document["password"] = password.as_str().into();
                context.output.result(&format!("{password}\n"), &document);
            }
            None => context.output.result(&format!("{done}\n"), &document),
        }
    }
}

fn make(at_least: usize) -> String {
    let mut text = String::new();
    while text.len() < at_least.max(MADE_LETTERS) {
        let [byte] = random_bytes::<1>();
        text.push(char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    }
    text
}

pub(super) fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin()
        .take(STDIN_LIMIT)
        .read_to_string(&mut text)
        .map_err(|e| Failure::runtime(format!("the password cannot be read from standard input ({e})")))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

fn from_terminal() -> Result<String, Failure> {
    let first = prompt("New password: ")?;
    if prompt("Once more: ")? == first { Ok(first) } else { Err(Failure::runtime("the passwords differ")) }
}

/// Asks on the terminal for a password, which it does not show.
pub(super) fn prompt(text: &str) -> Result<String, Failure> {
    rpassword::prompt_password(text).map_err(|e| match e.kind() {
        io::ErrorKind::Interrupted => Failure::interrupted(),
        _ => Failure::runtime(format!("the password cannot be read ({e})")),
    })
}

/// Asks before something that cannot be taken back. Without a terminal the command itself is the answer.
fn confirm(context: &Context<'_>, question: &str) -> Result<(), Failure> {
    if context.cli.global.yes || context.output.is_json() || !io::stdin().is_terminal() {
        return Ok(());
    }
    let mut answer = String::new();
    let _ = write!(io::stderr(), "{question} [y/N] ");
    io::stdin()
        .read_line(&mut answer)
        .map_err(|e| Failure::runtime(format!("no answer can be read ({e})")))?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failure::runtime("nothing was changed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_password_is_as_long_as_demanded_and_always_another() {
        assert_eq!(make(12).len(), MADE_LETTERS);
        assert_eq!(make(128).len(), 128);
        assert_ne!(make(12), make(12));
        assert!(make(128).bytes().all(|letter| LETTERS.contains(&letter)));
    }

    #[test]
    fn every_letter_of_made_passwords_is_another() {
        let letters: std::collections::BTreeSet<_> = LETTERS.iter().collect();
        assert_eq!(letters.len(), LETTERS.len());
    }
}

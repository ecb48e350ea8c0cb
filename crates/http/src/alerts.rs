//! What people are told about though nobody asked: wiring between the rooms below.

use quarterdeck_auth::{Auth, Lockout};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::notification::{Category, Notification, Severity};
use quarterdeck_domain::role::HumanRole;
use quarterdeck_work::notifications::Notifications;

/// Tells of locked accounts that can do much.
pub fn of_lockouts(auth: &Auth, notifications: &Notifications, clock: SharedClock) {
    let notifications = notifications.clone();
    auth.on_lockout(move |lockout| {
        let Lockout { username, role, until, ip } = lockout;
        if !matches!(role, HumanRole::Ceo | HumanRole::Manager) {
            return;
        }
        let title = format!("The account {username} is locked");
        let until = until.format("%Y-%m-%d %H:%M:%S UTC");
        let from = ip.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
        notifications.send(
            Notification::new(Category::Security, Severity::Warning, "auth.lockout", title, clock.now())
                .body(format!("Too many wrong passwords; nobody can sign in with this name until {until}."))
                .with("role", role.as_str())
                .with("last_address", from),
        );
    });
}

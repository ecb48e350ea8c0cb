//! Who calls: tokens, cookies, CSRF, sessions, refresh, lockout, passwords, and several copies at once.

mod authenticate;
mod cookies;
mod copies;
mod csrf;
mod jwt;
mod lockout;
mod logout;
mod logs;
mod password_change;
mod races;
mod refresh;
mod secret;
mod sessions;
mod support;

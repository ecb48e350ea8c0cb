//! Tells the program which commit it was built from.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

fn main() {
    println!("cargo:rerun-if-env-changed=QUARTERDECK_BUILD_COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    // The log of HEAD grows with every commit and every checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    let given = std::env::var("QUARTERDECK_BUILD_COMMIT").ok();
    let commit = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    let date = git(&["log", "-1", "--format=%cs"]);
    println!("cargo:rustc-env=QUARTERDECK_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo:rustc-env=QUARTERDECK_COMMIT_DATE={}", date.as_deref().unwrap_or("unknown"));
}

//! Makes sure the folder of the built pages exists, so that the program builds before they do.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web/dist");
    std::fs::create_dir_all(&pages)?;
    // A release build carries the files inside it, so new pages mean a new program.
    println!("cargo:rerun-if-changed={}", pages.display());
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}

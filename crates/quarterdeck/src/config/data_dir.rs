//! The folder this program keeps its files in.

use std::io;
use std::path::{Path, PathBuf};

use super::{Environment, climbs};

/// The platform's folder for a program's data; `None` when the environment names no home.
pub(super) fn platform_default(environment: &Environment) -> Option<PathBuf> {
    let folder = |name: &str| environment.path(name).filter(|path| path.is_absolute());
    let home = |below: &str| Some(folder("HOME")?.join(below));
    let base = if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home("Library/Application Support")
    } else {
        folder("XDG_DATA_HOME").or_else(|| home(".local/share"))
    };
    base.map(|base| base.join("quarterdeck"))
}

/// Makes a path absolute and follows the symbolic links of the part that exists.
pub(super) fn normalise(path: &Path) -> Result<PathBuf, String> {
    let unusable = |e: io::Error| format!("data_dir {} cannot be used ({e})", path.display());
    let absolute = std::path::absolute(path).map_err(unusable)?;
    for ancestor in absolute.ancestors() {
        let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), absolute.strip_prefix(ancestor)) else {
            continue;
        };
        if climbs(rest) {
            return Err(format!("data_dir {} must not climb out of a missing folder", path.display()));
        }
        return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
    }
    Ok(absolute)
}

/// Makes the folder, for its owner only. One that exists is left as it is.
pub fn create(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

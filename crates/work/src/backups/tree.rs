//! Folders as wholes: copied, measured, fingerprinted, removed. Everything here blocks.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

/// How much of a file is in memory at a time.
const CHUNK: usize = 65_536;

/// Something in a folder.
pub(super) struct Item {
    /// Below the folder, parts separated by `/`.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Folder,
    File {
        bytes: u64,
    },
    Link {
        target: PathBuf,
    },
    /// A device, a socket, a pipe.
    Other,
}

/// Everything below a folder in the order of names; a folder comes before what it holds.
pub(super) fn items(folder: &Path) -> io::Result<Vec<Item>> {
    let mut items = Vec::new();
    walk(folder, "", &mut items)?;
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(items)
}

fn walk(folder: &Path, below: &str, items: &mut Vec<Item>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string();
        let name = name.map_err(|_| io::Error::other("a file name is not text in UTF-8"))?;
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        let path = entry.path();
        // What goes away while it is looked at was not there.
        let metadata = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let kind = if metadata.is_dir() {
            Kind::Folder
        } else if metadata.is_file() {
            Kind::File { bytes: metadata.len() }
        } else if metadata.is_symlink() {
            Kind::Link { target: fs::read_link(&path)? }
        } else {
            Kind::Other
        };
        let is_folder = matches!(kind, Kind::Folder);
        items.push(Item { name: name.clone(), path: path.clone(), kind });
        if is_folder {
            walk(&path, &name, items)?;
        }
    }
    Ok(())
}

/// Whether a link of this target stays where it is, wherever its folder is moved.
pub(super) fn stays_inside(target: &Path) -> bool {
    !target.as_os_str().is_empty()
        && target.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Copies what a folder holds into another, which is made if need be; what is there already stays. Links stay
/// links, unless they lead out of the folder; those, and what is no file, are left out and told of.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    make_folder(to)?;
    for item in items(from)? {
        let target = to.join(&item.name);
        match item.kind {
            Kind::Folder => make_folder(&target)?,
            Kind::File { .. } if !target.exists() => match copy_file(&item.path, &target) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            },
            Kind::File { .. } => {}
            #[cfg(unix)]
            Kind::Link { target: leads } if stays_inside(&leads) => {
                if fs::symlink_metadata(&target).is_err() {
                    std::os::unix::fs::symlink(leads, &target)?;
                }
            }
            _ => tracing::warn!(target: "backup", name = item.name, "backup.item.left_out"),
        }
    }
    sync_folder(to)
}

/// Copies a file, for its owner alone, onto the disk.
pub(super) fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut copy = create(to)?;
    io::copy(&mut source, &mut copy)?;
    copy.sync_all()
}

/// A new file for its owner alone.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A folder for its owner alone, with those above it; one that exists stays.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Writes a new file onto the disk.
pub(super) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Gives everything below a folder to its owner alone.
pub(super) fn restrict(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for Item { path, kind, .. } in items(folder)? {
            match kind {
                Kind::Folder => fs::set_permissions(path, fs::Permissions::from_mode(0o700))?,
                Kind::File { .. } => fs::set_permissions(path, fs::Permissions::from_mode(0o600))?,
                Kind::Link { .. } | Kind::Other => {}
            }
        }
    }
    Ok(())
}

/// Makes the names in a folder last.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Removes a file, a link, or a folder with all it holds; nothing there is fine. Links are not followed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Bytes of the files below a folder.
pub(super) fn size(folder: &Path) -> io::Result<u64> {
    let bytes = items(folder)?.into_iter().map(|item| match item.kind {
        Kind::File { bytes } => bytes,
        _ => 0,
    });
    Ok(bytes.sum())
}

/// The fingerprint of a folder and of what is said about it: kind, name and content of everything but `except`,
/// each preceded by its length, so that no two folders read alike.
pub(super) fn checksum(folder: &Path, except: &str, about: &[u8]) -> io::Result<String> {
    let mut hash = Sha256::new();
    let length = |bytes: u64| bytes.to_le_bytes();
    hash.update(length(about.len() as u64));
    hash.update(about);
    for item in items(folder)? {
        if item.name == except {
            continue;
        }
        let kind = match item.kind {
            Kind::Folder => b'd',
            Kind::File { .. } => b'f',
            Kind::Link { .. } => b'l',
            Kind::Other => return Err(io::Error::other("something is neither file nor folder nor link")),
        };
        hash.update([kind]);
        hash.update(length(item.name.len() as u64));
        hash.update(item.name.as_bytes());
        match item.kind {
            Kind::File { bytes } => {
                hash.update(length(bytes));
                hash_file(&item.path, &mut hash)?;
            }
            Kind::Link { target } => {
                let target = target.to_string_lossy();
                hash.update(length(target.len() as u64));
                hash.update(target.as_bytes());
            }
            Kind::Folder | Kind::Other => {}
        }
    }
    Ok(format!("sha256:{}", data_encoding::HEXLOWER.encode(&hash.finalize())))
}

fn hash_file(path: &Path, hash: &mut Sha256) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(()),
            read => hash.update(&chunk[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_are_told_in_one_row_alike_have_other_fingerprints() {
        let fingerprint = |files: &[(&str, &str)]| {
            let folder = tempfile::tempdir().unwrap();
            for (name, content) in files {
                write(&folder.path().join(name), content.as_bytes()).unwrap();
            }
            checksum(folder.path(), "manifest.json", b"").unwrap()
        };
        assert_ne!(fingerprint(&[("a", "bc")]), fingerprint(&[("ab", "c")]));
        assert_ne!(fingerprint(&[("a", "1b"), ("c", "")]), fingerprint(&[("a", "1"), ("bc", "")]));
        assert_eq!(fingerprint(&[("a", "b"), ("manifest.json", "x")]), fingerprint(&[("a", "b")]));
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_links_unless_they_lead_out() {
        use std::os::unix::fs::symlink;
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(&from.path().join("file"), b"x").unwrap();
        for (name, target) in [("in", "file"), ("out", "../../etc"), ("far", "/etc/passwd")] {
            symlink(target, from.path().join(name)).unwrap();
        }
        let copied = to.path().join("copy");
        copy(from.path(), &copied).unwrap();
        assert_eq!(fs::read_link(copied.join("in")).unwrap(), Path::new("file"));
        assert!(fs::symlink_metadata(copied.join("out")).is_err());
        assert!(fs::symlink_metadata(copied.join("far")).is_err());
    }
}

//! Backups as one packed file. What is unpacked is not trusted: nothing leaves the folder it is unpacked
//! into, and nothing grows beyond what its manifest announces. Everything here blocks.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use quarterdeck_domain::backup::MAX_MANIFEST;
use tar::{Archive, Builder, Entry, EntryType, Header};

use super::MANIFEST;
use super::tree::{self, Kind};

/// Most entries of an archive.
const MAX_ENTRIES: usize = 1_000_000;
/// What a name and its padding may take beside the content, in bytes.
const OVERHEAD: u64 = 8192;

/// Packs a folder, its manifest first so that it is found at once.
pub(super) fn pack(folder: &Path, to: &Path) -> io::Result<()> {
    let file = BufWriter::new(tree::create(to)?);
    let mut archive = Builder::new(GzEncoder::new(file, Compression::default()));
    archive.follow_symlinks(false);
    let items = tree::items(folder)?;
    let (first, rest): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.name == MANIFEST);
    for item in first.into_iter().chain(rest) {
        append(&mut archive, &item)?;
    }
    let mut file = archive.into_inner()?.finish()?;
    file.flush()?;
    file.get_ref().sync_all()
}

fn append<W: Write>(archive: &mut Builder<W>, item: &tree::Item) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    match &item.kind {
        Kind::Folder => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o700);
            header.set_size(0);
            archive.append_data(&mut header, format!("{}/", item.name), io::empty())
        }
        Kind::File { bytes } => {
            header.set_mode(0o600);
            header.set_size(*bytes);
            archive.append_data(&mut header, &item.name, File::open(&item.path)?.take(*bytes))
        }
        Kind::Link { target } => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            archive.append_link(&mut header, &item.name, target)
        }
        Kind::Other => Err(io::Error::other("something is neither file nor folder nor link")),
    }
}

/// The manifest of an archive, unread.
pub(super) fn manifest(archive: &Path) -> Result<Vec<u8>, String> {
    let mut opened = open(archive, u64::MAX)?;
    for entry in opened.entries().map_err(broken)?.take(MAX_ENTRIES) {
        let mut entry = entry.map_err(broken)?;
        if name_of(&entry)? == Path::new(MANIFEST) {
            return content_of_manifest(&mut entry);
        }
    }
    Err("it has no manifest".to_owned())
}

fn content_of_manifest(entry: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    entry.take(MAX_MANIFEST + 1).read_to_end(&mut content).map_err(broken)?;
    if content.len() as u64 > MAX_MANIFEST {
        return Err("its manifest is too large".to_owned());
    }
    Ok(content)
}

/// Unpacks an archive of `bytes` bytes of content, manifest apart, into a new folder.
pub(super) fn unpack(archive: &Path, into: &Path, bytes: u64) -> Result<(), String> {
    tree::make_folder(into).map_err(broken)?;
    let most = bytes.saturating_add(MAX_MANIFEST);
    let mut opened = open(archive, most.saturating_add(OVERHEAD.saturating_mul(MAX_ENTRIES as u64)))?;
    let mut links = HashSet::new();
    let (mut entries, mut total) = (0, 0_u64);
    for entry in opened.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        entries += 1;
        total = total.saturating_add(entry.size());
        if entries > MAX_ENTRIES || total > most {
            return Err("it holds more than it announces".to_owned());
        }
        let name = name_of(&entry)?;
        if name.as_os_str().is_empty() {
            continue;
        }
        if name.ancestors().any(|part| links.contains(part)) {
            return Err("an entry lies behind a link".to_owned());
        }
        if entry.header().entry_type() == EntryType::Symlink {
            links.insert(name.clone());
        }
        place(&mut entry, &into.join(&name))?;
    }
    // The fingerprint of the packed file comes last: without it the file is cut short.
    io::copy(&mut opened.into_inner(), &mut io::sink()).map_err(broken)?;
    Ok(())
}

fn place<R: Read>(entry: &mut Entry<'_, R>, target: &Path) -> Result<(), String> {
    if let Some(folder) = target.parent() {
        tree::make_folder(folder).map_err(broken)?;
    }
    match entry.header().entry_type() {
        EntryType::Directory => tree::make_folder(target).map_err(broken),
        EntryType::Regular | EntryType::Continuous => {
            let mut file = tree::create(target).map_err(broken)?;
            io::copy(entry, &mut file).map(drop).map_err(broken)
        }
        #[cfg(unix)]
        EntryType::Symlink => {
            let leads = entry.link_name().map_err(broken)?.ok_or("a link leads nowhere")?;
            if !tree::stays_inside(&leads) {
                return Err("a link leads out".to_owned());
            }
            std::os::unix::fs::symlink(leads, target).map_err(broken)
        }
        _ => Err("an entry is neither file nor folder nor link".to_owned()),
    }
}

/// The name of an entry below the folder; refused when it is absolute or climbs.
fn name_of<R: Read>(entry: &Entry<'_, R>) -> Result<PathBuf, String> {
    let path = entry.path().map_err(broken)?;
    let mut name = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => name.push(part),
            Component::CurDir => {}
            _ => return Err("an entry is named to lie elsewhere".to_owned()),
        }
    }
    Ok(name)
}

type Opened = Archive<io::Take<GzDecoder<BufReader<File>>>>;

fn open(path: &Path, most: u64) -> Result<Opened, String> {
    let file = File::open(path).map_err(broken)?;
    Ok(Archive::new(GzDecoder::new(BufReader::new(file)).take(most)))
}

fn broken(error: io::Error) -> String {
    format!("it cannot be unpacked ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of one entry, written without looking at its name.
    fn archive(at: &Path, name: &str, kind: EntryType, link: &str, content: &[u8]) {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_cksum();
        let mut builder = Builder::new(GzEncoder::new(File::create(at).unwrap(), Compression::fast()));
        builder.append(&header, content).unwrap();
        builder.into_inner().unwrap().finish().unwrap();
    }

    #[test]
    fn nothing_leaves_the_folder() {
        for (name, kind, link) in [
            ("../x", EntryType::Regular, ""),
            ("a/../../x", EntryType::Regular, ""),
            ("/etc/x", EntryType::Regular, ""),
            ("l", EntryType::Symlink, "/etc"),
            ("l", EntryType::Symlink, "../x"),
            ("l", EntryType::Symlink, "a/../../x"),
            ("l", EntryType::Symlink, ""),
            ("h", EntryType::Link, "../x"),
            ("h", EntryType::Link, "/etc/passwd"),
            ("d", EntryType::Block, ""),
            ("d", EntryType::Char, ""),
            ("d", EntryType::Fifo, ""),
        ] {
            let home = tempfile::tempdir().unwrap();
            let (file, into) = (home.path().join("a.tar.gz"), home.path().join("into"));
            archive(&file, name, kind, link, b"");
            assert!(unpack(&file, &into, 1000).is_err(), "{name} {kind:?} {link}");
            assert_eq!(std::fs::read_dir(&into).unwrap().count(), 0, "{name} {kind:?} {link}");
            assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2, "{name} {kind:?} {link}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_link() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("a.tar.gz");
        let mut builder = Builder::new(GzEncoder::new(File::create(&file).unwrap(), Compression::fast()));
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "l", "inside").unwrap();
        let mut header = Header::new_gnu();
        header.set_size(1);
        builder.append_data(&mut header, "l/x", &b"x"[..]).unwrap();
        builder.into_inner().unwrap().finish().unwrap();
        assert_eq!(
            unpack(&file, &home.path().join("into"), 1000).unwrap_err(),
            "an entry lies behind a link"
        );
    }

    #[test]
    fn what_grows_beyond_its_announcement_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("a.tar.gz");
        archive(&file, "bomb", EntryType::Regular, "", &vec![0; 10_000_000]);
        assert!(file.metadata().unwrap().len() < 100_000);
        let refused = unpack(&file, &home.path().join("into"), 1000).unwrap_err();
        assert_eq!(refused, "it holds more than it announces");
        assert!(!home.path().join("into/bomb").exists());
        unpack(&file, &home.path().join("other"), 10_000_000).unwrap();
    }

    #[test]
    fn an_archive_cut_anywhere_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let (folder, file) = (home.path().join("folder"), home.path().join("a.tar.gz"));
        tree::make_folder(&folder.join("sub")).unwrap();
        tree::write(&folder.join("sub/x"), b"content").unwrap();
        tree::write(&folder.join(MANIFEST), b"{}").unwrap();
        pack(&folder, &file).unwrap();
        let whole = std::fs::read(&file).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&file, &whole[..length]).unwrap();
            let into = home.path().join(format!("into-{length}"));
            assert!(unpack(&file, &into, 1000).is_err(), "{length} of {}", whole.len());
        }
        std::fs::write(&file, &whole).unwrap();
        unpack(&file, &home.path().join("into"), 7).unwrap();
        assert_eq!(std::fs::read(home.path().join("into/sub/x")).unwrap(), b"content");
        assert_eq!(manifest(&file).unwrap(), b"{}");
    }
}

//! A log file that does not grow without end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use flate2::Compression;
use flate2::write::GzEncoder;
use quarterdeck_domain::sink::{Rotation, RotationStrategy};

/// Logs name people and paths: readable by the group, not by everyone.
const MODE: u32 = 0o640;

/// An open log file and its rotation.
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    size: u64,
    /// A failed write may have left half a line, which the next one must not continue.
    torn: bool,
    compressing: Option<JoinHandle<()>>,
}

impl LogFile {
    /// Opens or creates the file and the directories it stands in.
    pub(super) fn open(path: PathBuf, rotation: Rotation) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let (file, size) = append(&path)?;
        Ok(Self { path, rotation, file, size, torn: false, compressing: None })
    }

    /// Appends whole lines; on failure answers with the bytes that are lost.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), (io::Error, usize)> {
        let mut rest = lines;
        let mut trouble = None;
        match self.rotation.strategy {
            RotationStrategy::External => trouble = self.follow().err(),
            RotationStrategy::Builtin => {
                let max = self.rotation.max_bytes;
                while self.size + rest.len() as u64 > max {
                    let room = usize::try_from(max.saturating_sub(self.size)).unwrap_or(usize::MAX);
                    let end = fitting(rest, room, self.size == 0);
                    self.append(&rest[..end]).map_err(|why| (why, rest.len()))?;
                    rest = &rest[end..];
                    if rest.is_empty() {
                        break;
                    }
                    if let Err(why) = self.rotate() {
                        // Better a file that is too long than lines that are gone.
                        trouble = Some(why);
                        break;
                    }
                }
            }
        }
        self.append(rest).map_err(|why| (why, rest.len()))?;
        trouble.map_or(Ok(()), |why| Err((why, 0)))
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.torn {
            self.file.write_all(b"\n")?;
            self.size += 1;
        }
        self.torn = true;
        self.file.write_all(lines)?;
        self.torn = false;
        self.size += lines.len() as u64;
        Ok(())
    }

    /// Opens the path again when another program has moved the file away.
    fn follow(&mut self) -> io::Result<()> {
        let ours = self.file.metadata()?;
        let there = fs::metadata(&self.path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(());
        }
        (self.file, self.size) = append(&self.path)?;
        self.torn = false;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        // The file being compressed has the name the next one needs.
        if let Some(compressing) = self.compressing.take() {
            let _ = compressing.join();
        }
        let kept = self.rotation.backup_count;
        if kept == 0 {
            self.file.set_len(0)?;
            self.size = 0;
            return Ok(());
        }
        for number in (1..kept).rev() {
            for packed in [false, true] {
                let (from, to) = (self.numbered(number, packed), self.numbered(number + 1, packed));
                if present(fs::rename(&from, &to))? {
                    // The other form of the oldest would otherwise outlive it.
                    present(fs::remove_file(self.numbered(number + 1, !packed)))?;
                }
            }
        }
        let first = self.numbered(1, false);
        fs::rename(&self.path, &first)?;
        present(fs::remove_file(self.numbered(1, true)))?;
        (self.file, self.size) = append(&self.path)?;
        self.torn = false;
        if self.rotation.compress_rotated {
            let packed = self.numbered(1, true);
            let compress = move || {
                super::layer::mute_this_thread();
                // What cannot be compressed stays as it is.
                if compress(&first, &packed).is_err() {
                    let _ = fs::remove_file(&packed);
                }
            };
            self.compressing = std::thread::Builder::new().name("log-gzip".into()).spawn(compress).ok();
        }
        Ok(())
    }

    fn numbered(&self, number: u32, packed: bool) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}{}", if packed { ".gz" } else { "" }));
        name.into()
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        if let Some(compressing) = self.compressing.take() {
            let _ = compressing.join();
        }
    }
}

/// End of the lines that fit into `room`; at least one line when the file is empty.
fn fitting(lines: &[u8], room: usize, empty: bool) -> usize {
    let last = lines[..room.min(lines.len())].iter().rposition(|byte| *byte == b'\n');
    match last {
        Some(last) => last + 1,
        None if empty => lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1),
        None => 0,
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Whether the file was there.
fn present(done: io::Result<()>) -> io::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(why) => Err(why),
    }
}

fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let out = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(to)?;
    let mut packed = GzEncoder::new(out, Compression::default());
    io::copy(&mut File::open(from)?, &mut packed)?;
    packed.finish()?;
    fs::remove_file(from)
}

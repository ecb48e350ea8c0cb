//! What the kernel says a server costs, summed over its processes.

use std::process::Child;
use std::time::Duration;

use procfs::process::Process;
use procfs::ticks_per_second;

use crate::Failure;

/// A process and all that descend from it.
pub(crate) struct Processes(Vec<Process>);

impl Processes {
    /// This process alone.
    pub(crate) fn own() -> Result<Self, Failure> {
        Ok(Self(vec![Process::myself()?]))
    }

    /// Those of a server that has started all of its processes.
    pub(crate) fn of(child: &Child) -> Result<Self, Failure> {
        let mut found = vec![Process::new(i32::try_from(child.id())?)?];
        let mut next = 0;
        while let Some(process) = found.get(next) {
            let mut children = Vec::new();
            for task in process.tasks()? {
                for child in task?.children()? {
                    children.push(Process::new(i32::try_from(child)?)?);
                }
            }
            found.append(&mut children);
            next += 1;
        }
        Ok(Self(found))
    }

    /// CPU time of user and kernel so far.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        let mut ticks = 0;
        for process in &self.0 {
            let stat = process.stat()?;
            ticks += stat.utime + stat.stime;
        }
        Ok(Duration::from_secs_f64(ticks as f64 / ticks_per_second() as f64))
    }

    /// Resident memory in bytes, but for pages of files: `Pss_Anon` and `Pss_Shmem`. They count a page
    /// that processes share once, and no other program on the machine can change them.
    pub(crate) fn memory(&self) -> Result<u64, Failure> {
        let mut bytes = 0;
        for process in &self.0 {
            let maps = process.smaps_rollup()?.memory_map_rollup;
            for (map, name) in maps.iter().flat_map(|map| ["Pss_Anon", "Pss_Shmem"].map(|name| (map, name))) {
                bytes += map.extension.map.get(name).ok_or("this kernel does not tell Pss by kind")?;
            }
        }
        Ok(bytes)
    }
}

/// Makes sure that this many sockets may be open here, and in the servers, which inherit the bound.
///
/// # Errors
/// When the bound is lower.
pub(crate) fn allow_sockets(sockets: u32) -> Result<(), Failure> {
    use procfs::process::LimitValue;
    // For everything that is no socket.
    let needed = u64::from(sockets) + 100;
    match Process::myself()?.limits()?.max_open_files.soft_limit {
        LimitValue::Value(allowed) if allowed < needed => {
            Err(format!("{allowed} files may be open and {needed} are needed: raise it with ulimit -n")
                .into())
        }
        _ => Ok(()),
    }
}

//! The one memory map of the project: a whole file as [`Bytes`], read-only, never copied.
//!
//! Only regular files are opened (a pipe or a device would block or never end). The length is taken from the open
//! file, and every later offset is checked against it.

use std::fs::File;
use std::path::Path;

use ossia_kernels::Bytes;

use super::{Error, Result};

/// The bytes of the regular file at `path`.
///
/// They are the file's own pages. Should another program shorten the file meanwhile, touching the lost part ends this
/// process by a bus error; should it overwrite the file, weights change. Neither can be prevented portably: do not
/// modify a checkpoint in use (replace it by a rename).
pub fn map(path: &Path) -> Result<Bytes> {
    let file = open_regular(path)?;
    let length = file.metadata().map_err(|e| Error::io(path, "read the length", e))?.len();
    if length == 0 {
        return Ok(Bytes::new(Vec::new()));
    }
    map_open(&file).map_err(|e| Error::io(path, "map into memory", e))
}

/// The regular file at `path` (through links), open for reading.
pub fn open_regular(path: &Path) -> Result<File> {
    let kind = std::fs::metadata(path).map_err(|e| Error::io(path, "open", e))?;
    if !kind.is_file() {
        let found = if kind.is_dir() { "a folder" } else { "a pipe, socket or device" };
        return Err(Error::file(path, "a regular file", found));
    }
    File::open(path).map_err(|e| Error::io(path, "open", e))
}

#[allow(unsafe_code)]
fn map_open(file: &File) -> std::io::Result<Bytes> {
    // SAFETY: the map is private and read-only, covers the length that the open file has now, and lives as long as any
    // `Bytes` of it. What remains is another process changing the file while we use it. A shorter file means SIGBUS,
    // which ends this process and cannot be used to read foreign memory. Changed contents are only ever read as
    // numbers whose every value is valid: names, offsets and text are checked and copied at opening, and a length or
    // an index is never read from the map again.
    let map = unsafe { memmap2::Mmap::map(file)? };
    // Pages of 2 MB where the file system has them (ext4 from Linux 6.16 on, xfs): weights are then read a third faster
    // than in small pages that lie scattered. It counts for what is not in memory yet; whoever refuses loses nothing.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(Bytes::new(map))
}

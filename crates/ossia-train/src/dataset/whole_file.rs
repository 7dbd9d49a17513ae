//! Files that are there as a whole or not at all: written beside their place, synced, then renamed.

use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::{Path, PathBuf};

/// A temporary file, removed again unless it took its place.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename nothing is there; before it the real error is already on its way.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Puts what `fill` writes into `path`, replacing a file that is there.
pub(crate) fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = Temporary(path.with_file_name(format!(".{name}.{}.tmp", std::process::id())));
    let mut out = BufWriter::new(File::create(&temporary.0)?);
    fill(&mut out)?;
    sync(&out.into_inner().map_err(std::io::IntoInnerError::into_error)?, path)?;
    std::fs::rename(&temporary.0, path)?;
    sync_folder(path)
}

/// Removes the temporary files in `folder` of writers that were killed. Nobody else may be writing there.
pub(crate) fn remove_left(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_temporary = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")).is_some_and(|name| {
            name.rsplit_once('.').is_some_and(|(_, process)| process.bytes().all(|b| b.is_ascii_digit()))
        });
        if is_temporary && entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes a rename inside the file's folder durable, where the system has a way to.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync(&File::open(parent)?, parent)
}

/// Waits until the system has kept a file or folder, which is to be found at `place`.
fn sync(file: &File, place: &Path) -> Result<()> {
    #[cfg(test)]
    SYNCED.with_borrow_mut(|synced| synced.push(place.to_owned()));
    #[cfg(not(test))]
    let _ = place;
    file.sync_all()
}

#[cfg(test)]
thread_local! {
    /// What this thread has waited for, in order.
    pub(crate) static SYNCED: std::cell::RefCell<Vec<PathBuf>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_kept_when_writing_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, |out| out.write_all(b"old")).unwrap();
        write(&path, |out| out.write_all(b"new")).unwrap();
        let failed = write(&path, |out| {
            out.write_all(b"torn")?;
            Err(std::io::Error::other("no room"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no room");
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_killed_writers_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let names = [".file.123.tmp", ".file.tmp", "file.123.tmp", ".file.abc.tmp", "file"];
        names.iter().for_each(|name| std::fs::write(dir.path().join(name), "").unwrap());
        remove_left(dir.path()).unwrap();
        let there: Vec<bool> = names.iter().map(|name| dir.path().join(name).exists()).collect();
        assert_eq!(there, [false, true, true, true, true]);
    }
}

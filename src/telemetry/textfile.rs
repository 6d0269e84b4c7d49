//! A text file for node_exporter's textfile collector: written beside, then renamed, so that no reader sees half of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Form, Page};

/// The file that is renamed: in the same directory, and with a name that the collector passes over.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map_or_else(Default::default, |n| n.to_string_lossy().into_owned());
    path.with_file_name(format!(".{name}.new"))
}

/// The file can be read by all: it holds counts, and the collector is another user. A confined run can change no mode, so this one
/// must pass the umask: [`crate::guard`] sets it.
const MODE: u32 = 0o644;

fn made(new: &Path) -> io::Result<File> {
    // One that a crash has left is no use to anybody; a link that somebody else has put there is not followed.
    let _ = fs::remove_file(new);
    OpenOptions::new().write(true).create_new(true).mode(MODE).open(new)
}

/// Writes the page in the form that the collector reads.
pub fn write(path: &Path, page: &Page) -> io::Result<()> {
    let new = beside(path);
    let written = made(&new)
        .and_then(|mut file| file.write_all(page.text(Form::Prometheus).as_bytes()))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// Whether it can be written, without a page to put there.
pub fn try_out(path: &Path) -> io::Result<()> {
    let new = beside(path);
    made(&new)?;
    fs::remove_file(&new)
}

/// Takes the file away: of a run that is over nothing is to be read.
pub fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_is_whole_or_not_there() {
        // As a run does.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("syntap.prom");
        let mut page = Page::default();
        page.counter("syntap_packets", "Seen.", &[], 5);
        fs::write(beside(&path), "half of an old").unwrap();
        write(&path, &page).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), page.text(Form::Prometheus));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        remove(&path);
        assert!(!path.exists());
        assert!(write(&dir.path().join("no/such/x.prom"), &page).is_err());
    }
}

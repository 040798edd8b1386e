//! What the tests of this room share.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

static LEFT_OUT: AtomicUsize = AtomicUsize::new(0);

/// Says by name that `test` could not run because `need` is not there.
///
/// That is a failure, so that a suite that left something out is not taken for a whole one. Who means it says so:
/// `LEAVE_OUT=npm` (a comma-separated list of needs). Then the name and the count go to standard error, past the
/// harness, which would swallow the output of a passing test.
pub fn left_out(need: &str, test: &str, why: &str) {
    let allowed = std::env::var("LEAVE_OUT").is_ok_and(|list| list.split(',').any(|n| n.trim() == need));
    assert!(allowed, "{test} needs {need}, and {why}; install it, or set LEAVE_OUT={need} to leave the test out");
    let count = LEFT_OUT.fetch_add(1, Ordering::SeqCst) + 1;
    let _ = writeln!(std::io::stderr(), "LEFT OUT ({count}): {test}: {why}");
}

/// The text of `file` in the published npm package `name` of exactly this version, fetched by `npm pack` (which
/// checks its integrity) into the user's cache folder; only the files asked for are unpacked, some packages are huge.
/// The error says why it could not be had.
pub fn npm_file(name: &str, version: &str, file: &str) -> Result<Vec<u8>, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|h| h.join(".cache")))
        .ok_or("there is no home folder for the cache")?
        .join("switchover-tests");
    let plain = format!("{}-{version}", name.trim_start_matches('@').replace('/', "-"));
    let (tarball, wanted) = (cache.join(format!("{plain}.tgz")), cache.join(&plain).join(file));
    let folder = wanted.parent().ok_or("the file has no folder")?;
    std::fs::create_dir_all(folder).map_err(|e| format!("{} cannot be made: {e}", folder.display()))?;
    if !wanted.exists() {
        // Beside the final place, so that the renames are on one file system and two tests at once do no harm.
        let work = tempfile::tempdir_in(&cache).map_err(|e| e.to_string())?;
        if !tarball.exists() {
            run(Command::new("npm").args(["pack", "--silent", &format!("{name}@{version}")]).current_dir(work.path()))?;
            let packed = std::fs::read_dir(work.path())
                .map_err(|e| e.to_string())?
                .filter_map(Result::ok)
                .find(|f| f.path().extension().is_some_and(|x| x == "tgz"))
                .ok_or("npm pack left no .tgz")?;
            place(&packed.path(), &tarball)?;
        }
        let inside = format!("package/{file}");
        run(Command::new("tar").arg("-xzf").arg(&tarball).arg(&inside).current_dir(work.path()))?;
        place(&work.path().join(inside), &wanted)?;
    }
    std::fs::read(&wanted).map_err(|e| format!("{} cannot be read: {e}", wanted.display()))
}

fn place(from: &Path, to: &Path) -> Result<(), String> {
    std::fs::rename(from, to).map_err(|e| format!("{} cannot be made: {e}", to.display()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{program} cannot be started: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

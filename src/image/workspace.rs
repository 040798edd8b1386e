//! A workspace on disk, as inference sees it.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{context, error::ImageError};
use crate::{
    domain::{config::App, ids::AppName},
    infer::{
        Files,
        docker::{ImagePlan, image_plan},
    },
};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1024 * 1024;
/// The most paths that are listed, so that a step can't fill the memory with them.
const MOST: usize = 200_000;

/// What the image of an app is built from: Dockerfile, context, port, and where each is known from. Blocks.
///
/// # Errors
/// [`ImageError::Unreadable`].
pub fn plan(workspace: &Path, name: &AppName, app: &App) -> Result<ImagePlan, ImageError> {
    let folder = Folder::read(workspace)
        .map_err(|e| ImageError::Unreadable { path: workspace.display().to_string(), why: e.to_string() })?;
    Ok(image_plan(&folder, name, app))
}

struct Folder {
    root: PathBuf,
    paths: Vec<String>,
}

impl Folder {
    /// Lists what is there; folders of dependencies are left out.
    fn read(root: &Path) -> io::Result<Self> {
        let mut paths = Vec::new();
        let mut left = vec![PathBuf::new()];
        while let Some(folder) = left.pop() {
            for entry in fs::read_dir(root.join(&folder))? {
                let entry = entry?;
                let (path, kind) = (folder.join(entry.file_name()), entry.file_type()?);
                let skipped = [".git", "node_modules", ".gradle", ".venv"].iter().any(|s| entry.file_name() == *s);
                if kind.is_dir() && !skipped {
                    left.push(path);
                } else if kind.is_file()
                    && paths.len() < MOST
                    && let Some(path) = path.to_str()
                {
                    paths.push(path.to_owned());
                }
            }
        }
        paths.sort();
        Ok(Self { root: root.to_owned(), paths })
    }
}

impl Files for Folder {
    fn list(&self) -> &[String] {
        &self.paths
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        // A link may have been put there by a step.
        let file = fs::File::open(context::inside(&self.root, path).ok()?).ok()?;
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

//! switchover.toml and the environment: what is read, what is refused and how, who is granted what.

mod documented;
mod grants;
mod listeners;
mod mistakes;

use std::{collections::BTreeMap, ffi::OsString, fs, os::unix::fs::PermissionsExt as _, path::Path, sync::LazyLock};

use switchover::settings::{self, Settings, SettingsMistake};
use tempfile::TempDir;

/// A key that GitHub could have given.
static KEY: LazyLock<String> =
    LazyLock::new(|| switchover::demo::github::AppKey::generate().expect("a key").private_pem);

/// A folder with a settings file and secrets, and an environment.
struct Server {
    folder: TempDir,
    env: BTreeMap<String, OsString>,
    file: bool,
}

impl Server {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), env: BTreeMap::new(), file: false }
    }

    /// One that needs nothing more.
    fn good() -> Self {
        Self::new()
            .var("SWITCHOVER_APP_ID", "7")
            .var("SWITCHOVER_PRIVATE_KEY", &KEY)
            .var("SWITCHOVER_WEBHOOK_SECRET", "hush")
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn var(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), OsString::from(value));
        self
    }

    fn secret(self, name: &str, text: &str, mode: u32) -> Self {
        let path = self.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permitted");
        self
    }

    fn toml(mut self, text: &str) -> Self {
        fs::write(self.path().join("switchover.toml"), text).expect("written");
        self.file = true;
        self
    }

    fn load(&self) -> Result<Settings, Vec<SettingsMistake>> {
        let names: Vec<String> = self.env.keys().cloned().collect();
        let path = self.path().join("switchover.toml");
        settings::load(self.file.then_some(path.as_path()), &|name| self.env.get(name).cloned(), &names)
    }

    fn right(&self) -> Settings {
        match self.load() {
            Ok(settings) => settings,
            Err(mistakes) => panic!("{}", settings::render(&mistakes)),
        }
    }

    /// All mistakes, with the folder's name taken out.
    fn told(&self) -> String {
        let mistakes = self.load().expect_err("mistakes");
        settings::render(&mistakes).replace(&self.path().display().to_string(), "/etc/switchover")
    }
}

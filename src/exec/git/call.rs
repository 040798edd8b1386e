//! One call of the git command line: its environment, limits, and what its errors mean.

use std::{
    ffi::OsString,
    fs::File,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};
use url::Url;

use super::{GitAuth, GitError};
use crate::exec::host::HostEnv;

/// Settings of every call. They stand above the mirror's own file, which a step could have written to.
const SETTINGS: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.pager", "cat"),
    ("core.sshCommand", "false"),
    ("credential.helper", ""),
    ("protocol.version", "2"),
    ("protocol.allow", "never"),
    ("protocol.http.allow", "always"),
    ("protocol.https.allow", "always"),
    ("http.followRedirects", "initial"),
    // A transfer slower than this for half a minute is dead.
    ("http.lowSpeedLimit", "500"),
    ("http.lowSpeedTime", "30"),
    ("fetch.writeCommitGraph", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("gc.autoDetach", "false"),
    ("maintenance.autoDetach", "false"),
    ("advice.detachedHead", "false"),
    ("safe.directory", "*"),
];

/// How many bytes of stderr are kept: the last ones tell why.
const STDERR_TAIL: usize = 8 * 1024;
/// Calls that don't speak to the network.
pub(super) const LOCAL_LIMIT: Duration = Duration::from_secs(120);

/// A call in the making.
pub(super) struct Call<'a> {
    git_dir: Option<&'a Path>,
    work_tree: Option<&'a Path>,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    secret: Option<SecretString>,
    stdin: Option<File>,
    limit: Duration,
    max_stdout: usize,
    cut: bool,
}

/// What a finished call printed.
pub(super) struct Done {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
    /// There was more on stdout than asked for; the call was ended there.
    pub(super) cut: bool,
}

impl<'a> Call<'a> {
    /// A call on the mirror (or on no repository at all).
    pub(super) fn new(git_dir: Option<&'a Path>) -> Self {
        Self {
            git_dir,
            work_tree: None,
            args: Vec::new(),
            env: Vec::new(),
            secret: None,
            stdin: None,
            limit: LOCAL_LIMIT,
            max_stdout: 64 * 1024 * 1024,
            cut: false,
        }
    }

    /// A call inside a worktree.
    pub(super) fn within(work_tree: &'a Path) -> Self {
        Self { work_tree: Some(work_tree), ..Self::new(None) }
    }

    pub(super) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(super) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(super) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The locked file as stdin, which git does not read: the lock then lasts as long as git lives, even when this
    /// process is killed, and whoever gets it next knows that no git is at work here any more.
    pub(super) fn holding(mut self, lock: Option<File>) -> Self {
        self.stdin = lock;
        self
    }

    pub(super) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// At most so many bytes of output are taken; then the call is ended and [`Done::cut`] says so.
    pub(super) fn cut_at(mut self, bytes: usize) -> Self {
        self.max_stdout = bytes;
        self.cut = true;
        self
    }

    /// Hands the credentials over through the helper script, for the origin of `url` only.
    pub(super) fn auth(mut self, auth: Option<&GitAuth>, askpass: &Path, url: &Url) -> Self {
        self.env.push(("GIT_ASKPASS".into(), askpass.into()));
        if let Some(auth) = auth {
            // Git asks by `Username for 'https://host': ` and `Password for 'https://name@host': `.
            let host = match url.port() {
                Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
                None => url.host_str().unwrap_or_default().to_owned(),
            };
            self.env.push(("GIT_CALL_FOR_USER".into(), format!("'{}://{host}'", url.scheme()).into()));
            self.env
                .push(("GIT_CALL_FOR_TOKEN".into(), format!("'{}://{}@{host}'", url.scheme(), auth.username).into()));
            self.env.push(("GIT_CALL_USER".into(), auth.username.clone().into()));
            self.env.push(("GIT_CALL_TOKEN".into(), auth.token.expose_secret().into()));
            self.secret = Some(auth.token.clone());
        }
        self
    }

    fn command(&self, home: &Path) -> Command {
        let host = HostEnv::of_process();
        let mut command = Command::new("git");
        command
            .env_clear()
            .env("PATH", &host.path)
            .envs(host.network.iter().map(|(n, v)| (n, v)))
            .env("HOME", home)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_CONFIG_COUNT", SETTINGS.len().to_string());
        for (n, (key, value)) in SETTINGS.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{n}"), key).env(format!("GIT_CONFIG_VALUE_{n}"), value);
        }
        if let Some(dir) = self.git_dir {
            command.env("GIT_DIR", dir).current_dir(dir);
        }
        if let Some(dir) = self.work_tree {
            command.current_dir(dir);
        }
        command.envs(self.env.iter().map(|(n, v)| (n, v))).args(&self.args);
        command
    }

    /// Runs it. A status other than 0 is not yet an error.
    pub(super) async fn run(mut self, home: &Path) -> Result<Done, GitError> {
        let mut command = self.command(home);
        command
            .stdin(self.stdin.take().map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let what = self.args.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
        let mut child = command.spawn().map_err(|e| GitError::NoGit(e.to_string()))?;
        // Helpers such as git-remote-https are in the group: dropped with us, they go too.
        let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let (max, cut_is_fine) = (self.max_stdout, self.cut);
        let work = async {
            let errors = tail(stderr);
            let output = head(stdout, max);
            tokio::pin!(errors);
            tokio::pin!(output);
            let mut said = None;
            let (out, cut) = tokio::select! {
                out = &mut output => out,
                text = &mut errors => { said = Some(text); output.await }
            };
            if cut {
                group.kill();
            }
            let said = match said {
                Some(text) => text,
                None => errors.await,
            };
            let status = child.wait().await.map_err(|e| GitError::Io(format!("waiting for git: {e}")))?;
            group.0 = None;
            Ok::<_, GitError>((status, out, said, cut))
        };
        let (status, stdout, stderr, cut) = match tokio::time::timeout(self.limit, work).await {
            Ok(done) => done?,
            Err(_) => return Err(GitError::Timeout { what, seconds: self.limit.as_secs() }),
        };
        if cut && !cut_is_fine {
            return Err(GitError::Other(format!("git {what} printed more than {max} bytes")));
        }
        let mut stderr = String::from_utf8_lossy(&stderr).into_owned();
        if let Some(secret) = &self.secret
            && !secret.expose_secret().is_empty()
        {
            stderr = stderr.replace(secret.expose_secret(), "***");
        }
        Ok(Done { status, stdout, stderr, cut })
    }

    /// Runs it; a status other than 0 is an error, read from what git says.
    pub(super) async fn ok(self, home: &Path) -> Result<Done, GitError> {
        let done = self.run(home).await?;
        if done.status.success() || done.cut { Ok(done) } else { Err(done.error()) }
    }
}

/// Kills a process group when dropped before its time.
struct Group(Option<Pid>);

impl Group {
    fn kill(&mut self) {
        if let Some(pid) = self.0.take() {
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn head(from: Option<impl AsyncRead + Unpin>, max: usize) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let Some(from) = from else { return (all, false) };
    // A read error ends the output as an end of file does; git's status tells the rest.
    let _ = from.take(max as u64 + 1).read_to_end(&mut all).await;
    let cut = all.len() > max;
    all.truncate(max);
    (all, cut)
}

async fn tail(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut from) = from else { return kept };
    let mut buffer = [0_u8; 4096];
    while let Ok(n) = from.read(&mut buffer).await {
        if n == 0 {
            break;
        }
        kept.extend_from_slice(&buffer[..n]);
        if kept.len() > 2 * STDERR_TAIL {
            kept.drain(..kept.len() - STDERR_TAIL);
        }
    }
    kept
}

impl Done {
    /// Output as lines or NUL-separated records.
    pub(super) fn records(&self, separator: u8) -> impl Iterator<Item = &[u8]> {
        self.stdout.split(move |b| *b == separator).filter(|r| !r.is_empty())
    }

    /// The one line that it printed.
    pub(super) fn line(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// What the failure means.
    pub(super) fn error(&self) -> GitError {
        classify(&self.stderr)
    }
}

/// Reads git's (English) complaints. Unknown ones keep their last lines.
pub(super) fn classify(stderr: &str) -> GitError {
    let said = |texts: &[&str]| texts.iter().any(|t| stderr.contains(t));
    let last: Vec<&str> = stderr.lines().filter(|l| !l.trim().is_empty()).collect();
    let tail: String = last[last.len().saturating_sub(5)..].join("\n").chars().take(1000).collect();
    if said(&[
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        "returned error: 401",
        "returned error: 403",
        "terminal prompts disabled",
    ]) {
        return GitError::Unauthorized;
    }
    if let Some(at) = stderr.find("couldn't find remote ref ") {
        let name = stderr[at + "couldn't find remote ref ".len()..].lines().next().unwrap_or_default();
        return GitError::MissingRef(name.to_owned());
    }
    if said(&["not our ref", "did not send all necessary objects"]) {
        return GitError::MissingRef("that commit".into());
    }
    if said(&["Repository not found", "returned error: 404", "returned error: 410"])
        || stderr.lines().any(|l| l.starts_with("fatal: repository '") && l.ends_with("' not found"))
    {
        return GitError::NotFound;
    }
    if said(&[".lock': File exists", "another git process seems to be running", "cannot lock ref"]) {
        return GitError::Locked(tail);
    }
    if said(&[
        "Could not resolve",
        "Failed to connect",
        "Couldn't connect",
        "Connection refused",
        "Connection reset",
        "Connection timed out",
        "Operation timed out",
        "Operation too slow",
        "returned error: 5",
        "returned error: 429",
        "RPC failed",
        "early EOF",
        "unexpected disconnect",
        "hung up unexpectedly",
        "Empty reply",
        "SSL_ERROR",
        "gnutls_handshake",
        "unable to access",
        "No space left on device",
        "index-pack failed",
    ]) {
        return GitError::Unreachable(tail);
    }
    if said(&[
        "not a git repository",
        "is corrupt",
        "is empty\n",
        "bad object",
        "bad config line",
        "unable to read tree",
        "unable to read sha1",
        "unable to read ",
        "missing blob",
        "missing tree",
        "inflate: ",
        "hash mismatch",
        "does not match index",
        "packfile",
        "invalid object",
        "broken link",
        "loose object",
        "bad tree object",
        "failed to read object",
        "Could not read ",
    ]) {
        return GitError::Corrupt(tail);
    }
    GitError::Other(if tail.is_empty() { "git failed and said nothing".into() } else { tail })
}

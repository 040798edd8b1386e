//! A git host on a free port: `git http-backend` behind a few lines of HTTP, with credentials and faults.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use base64::Engine;
use switchover::domain::ids::Sha;
use tempfile::TempDir;
use url::Url;

/// What the host does instead of serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Status(u16),
    Redirect(String),
    /// Takes the request and never answers.
    Hang,
    /// Answers and breaks off in the middle of the pack.
    Cut,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    password: Option<String>,
    seen: Vec<String>,
    hung: Vec<TcpStream>,
}

pub struct Host {
    pub url: Url,
    pub work: PathBuf,
    root: TempDir,
    state: Arc<Mutex<State>>,
}

impl Host {
    pub fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let bare = root.path().join("r.git");
        run(root.path(), &["init", "-q", "--bare", "-b", "main", "r.git"]);
        run(&bare, &["config", "uploadpack.allowReachableSHA1InWant", "true"]);
        run(&bare, &["config", "http.receivepack", "true"]);
        run(root.path(), &["init", "-q", "-b", "main", "work"]);
        let work = root.path().join("work");
        run(&work, &["remote", "add", "origin", "../r.git"]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/r.git", listener.local_addr().unwrap())).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, folder) = (Arc::clone(&state), root.path().to_owned());
        // Ends with the test process; the folder that it serves goes earlier.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, folder) = (Arc::clone(&shared), folder.clone());
                std::thread::spawn(move || serve(stream, &shared, &folder));
            }
        });
        Self { url, work, root, state }
    }

    pub fn fault(&self, fault: Option<Fault>) {
        self.state.lock().unwrap().fault = fault;
    }

    pub fn require(&self, password: &str) {
        self.state.lock().unwrap().password = Some(password.to_owned());
    }

    /// Request lines and Authorization headers so far.
    pub fn seen(&self) -> Vec<String> {
        self.state.lock().unwrap().seen.clone()
    }

    pub fn bare(&self) -> PathBuf {
        self.root.path().join("r.git")
    }

    pub fn git(&self, args: &[&str]) -> String {
        run(&self.work, args)
    }

    /// Writes files, commits and pushes the current branch.
    pub fn commit(&self, message: &str, files: &[(&str, &str)]) -> Sha {
        for (path, text) in files {
            let path = self.work.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["push", "-q", "--force", "origin", "HEAD"]);
        Sha::new(self.git(&["rev-parse", "HEAD"])).unwrap()
    }
}

pub fn run(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .args(["-c", "user.name=Jürgen Müller", "-c", "user.email=j@example.com", "-c", "protocol.file.allow=always"])
        .args(args)
        .output()
        .unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn serve(stream: TcpStream, state: &Mutex<State>, root: &Path) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut out = stream;
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        let (name, value) = line.trim().split_once(':').unwrap();
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v);
    let body = if header("transfer-encoding") == "chunked" {
        let mut all = Vec::new();
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).unwrap();
            if size == 0 {
                break all;
            }
            all.extend_from_slice(&chunk[..size]);
        }
    } else {
        let mut all = vec![0; header("content-length").parse().unwrap_or(0)];
        reader.read_exact(&mut all).unwrap();
        all
    };
    let mut parts = first.split_whitespace();
    let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let auth = header("authorization");
    let (fault, refused) = {
        let mut state = state.lock().unwrap();
        state.seen.push(format!("{method} {target} {auth}"));
        let wanted = state.password.as_ref().map(|p| {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{p}"));
            format!("Basic {pair}")
        });
        (state.fault.clone(), wanted.is_some_and(|w| w != auth))
    };
    match fault {
        Some(Fault::Hang) => {
            state.lock().unwrap().hung.push(out);
            return;
        }
        Some(Fault::Status(code)) => {
            let _ = write!(out, "HTTP/1.1 {code} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        }
        Some(Fault::Redirect(to)) => {
            let _ = write!(
                out,
                "HTTP/1.1 302 There\r\nLocation: {to}{target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            return;
        }
        _ if refused => {
            let _ = write!(
                out,
                "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            return;
        }
        _ => {}
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("REMOTE_USER", "someone")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        let _ = stdin.write_all(&body);
    });
    let mut answer = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut answer).unwrap();
    let _ = (feeder.join(), child.wait());
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(answer.len() - 4);
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let payload = &answer[end + 4..];
    let status = head.lines().find_map(|l| l.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let rest: String = head.lines().filter(|l| !l.starts_with("Status:")).map(|l| format!("{l}\r\n")).collect();
    let _ = write!(out, "HTTP/1.1 {status}\r\n{rest}Content-Length: {}\r\nConnection: close\r\n\r\n", payload.len());
    let cut = fault == Some(Fault::Cut) && method == "POST";
    let _ = out.write_all(if cut { &payload[..payload.len() / 2] } else { payload });
}

//! Clone, fetch and push over HTTP: `git http-backend` as a CGI program behind real authentication.

use std::{path::Path, process::Stdio};

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, http::StatusCode, web};
use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_util::io::ReaderStream;

use super::{
    StandIn,
    auth::{Denied, Who, allowed},
    faults::Effect,
    git,
    model::{Exchange, Level},
    server::{self, header},
};

pub(super) fn configure(cfg: &mut web::ServiceConfig) {
    for end in ["info/refs", "git-upload-pack", "git-receive-pack"] {
        // With and without ".git", as GitHub has it.
        cfg.service(web::resource(format!("/{{owner}}/{{repo}}/{end}")).to(serve));
    }
}

fn text(status: StatusCode, message: &str) -> HttpResponse {
    HttpResponseBuilder::new(status).content_type("text/plain; charset=utf-8").body(format!("{message}\n"))
}

async fn serve(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    payload: web::Payload,
    standin: web::Data<StandIn>,
) -> HttpResponse {
    let (owner, name) = path.into_inner();
    let shown = request.uri().path_and_query().map_or(String::new(), ToString::to_string);
    let method = request.method().as_str().to_owned();
    let verdict = standin.0.faults.judge(&method, &shown, true);
    if !verdict.delay.is_zero() {
        tokio::time::sleep(verdict.delay).await;
    }
    let fault = verdict.effect.is_some();
    let response = match verdict.effect {
        Some(Effect::Hang) => {
            standin.0.stop.cancelled().await;
            server::drop_connection()
        }
        Some(Effect::LoseRequest) => server::drop_connection(),
        Some(Effect::Status { status, .. }) => {
            text(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), "Fault on demand")
        }
        Some(Effect::SecondaryLimit { .. }) => text(StatusCode::TOO_MANY_REQUESTS, "Fault on demand"),
        Some(Effect::LoseResponse | Effect::Truncate) => {
            let _ = backend(&request, &owner, &name, payload, &standin).await;
            server::drop_connection()
        }
        Some(Effect::Delay { .. }) | None => backend(&request, &owner, &name, payload, &standin).await,
    };
    let exchange = Exchange {
        method,
        path: shown,
        template: None,
        version: String::new(),
        status: response.status().as_u16(),
        fault,
        request: None,
        response: None,
    };
    server::note(&standin, exchange);
    response
}

/// Whether this is (or leads to) a push.
fn is_push(request: &HttpRequest) -> bool {
    request.path().ends_with("/git-receive-pack")
        || request.query_string().split('&').any(|p| p == "service=git-receive-pack")
}

fn denied(why: Denied) -> HttpResponse {
    let ask = |message: &str| {
        HttpResponse::Unauthorized()
            .insert_header(("www-authenticate", "Basic realm=\"GitHub\""))
            .body(message.to_owned())
    };
    match why {
        Denied::Unauthorized(message) => ask(&message),
        Denied::Forbidden(message) => text(StatusCode::FORBIDDEN, &message),
        Denied::Hidden | Denied::NoApp => text(StatusCode::NOT_FOUND, "Repository not found."),
    }
}

/// Who may do it, and with which repository.
fn admit(request: &HttpRequest, owner: &str, name: &str, standin: &StandIn) -> Result<(i64, Who), Denied> {
    let who = standin.who(header(request, "authorization"))?;
    let name = name.strip_suffix(".git").unwrap_or(name);
    let level = if is_push(request) { Level::Write } else { Level::Read };
    let id = standin.read(|m| {
        // An earlier name works too ("Renaming a repository": git operations are redirected).
        let (id, _) = m.find(owner, name).ok_or(Denied::Hidden)?;
        let repo = m.repos.get(&id).ok_or(Denied::Hidden)?;
        allowed(m, &who, repo, &["contents"], level)?;
        Ok(id)
    });
    match (id, &who) {
        // git sends credentials only when asked for them.
        (Err(Denied::Hidden), Who::Anonymous) => Err(Denied::Unauthorized("Repository not found.".to_owned())),
        (Err(why), _) => Err(why),
        (Ok(id), _) => Ok((id, who)),
    }
}

async fn backend(
    request: &HttpRequest,
    owner: &str,
    name: &str,
    payload: web::Payload,
    standin: &StandIn,
) -> HttpResponse {
    let (repo, who) = match admit(request, owner, name, standin) {
        Ok(admitted) => admitted,
        Err(why) => return denied(why),
    };
    let login = standin.read(|m| who.login(m));
    let end = request.path().splitn(4, '/').nth(3).unwrap_or_default().to_owned();
    if end != "git-receive-pack" {
        return match cgi(request, standin, repo, &end, &login, payload).await {
            Ok(response) => response,
            Err(e) => failed(&e),
        };
    }
    // Refs before and after tell what a push did; nobody else pushes meanwhile.
    let lock = standin.repo_lock(repo);
    let held = lock.lock().await;
    let dir = standin.git_dir(repo);
    let pushed = async {
        let before = git::refs(&dir).await?;
        let response = cgi(request, standin, repo, &end, &login, payload)
            .await
            .map_err(|source| super::StandInError::Io { what: "git http-backend".to_owned(), source })?;
        let status = response.status();
        let headers = response.headers().clone();
        let body = actix_web::body::to_bytes(response.into_body()).await.unwrap_or_default();
        let after = git::refs(&dir).await?;
        drop(held);
        standin.after_push(repo, &login, &before, &after).await?;
        let mut response = HttpResponseBuilder::new(status);
        for (name, value) in headers {
            response.insert_header((name, value));
        }
        Ok::<_, super::StandInError>(response.body(body))
    };
    match pushed.await {
        Ok(response) => response,
        Err(error) => failed(&error),
    }
}

fn failed(error: &impl std::fmt::Display) -> HttpResponse {
    tracing::error!(%error, "git over HTTP failed");
    text(StatusCode::INTERNAL_SERVER_ERROR, "git failed")
}

/// One request through `git http-backend`.
async fn cgi(
    request: &HttpRequest,
    standin: &StandIn,
    repo: i64,
    end: &str,
    login: &str,
    mut payload: web::Payload,
) -> std::io::Result<HttpResponse> {
    let root = standin.0.data.join("git");
    let mut child = command(request, &root, repo, end, login)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(std::io::ErrorKind::BrokenPipe.into());
    };
    let mut out = BufReader::new(stdout);
    // The backend may answer before it has read everything: both directions at once.
    let feed = async {
        while let Some(Ok(chunk)) = payload.next().await {
            if stdin.write_all(&chunk).await.is_err() {
                break;
            }
        }
        drop(stdin);
    };
    let head = async {
        let mut response = HttpResponseBuilder::new(StatusCode::OK);
        let mut line = String::new();
        loop {
            line.clear();
            if out.read_line(&mut line).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
            }
            let line = line.trim_end();
            match line.split_once(": ") {
                Some(("Status", status)) => {
                    let code = status.split(' ').next().and_then(|c| c.parse().ok());
                    response.status(code.and_then(|c| StatusCode::from_u16(c).ok()).unwrap_or(StatusCode::OK));
                }
                Some((name, value)) => {
                    response.insert_header((name, value));
                }
                None if line.is_empty() => return Ok((response, out)),
                None => {}
            }
        }
    };
    if end == "git-receive-pack" {
        // Small and needed whole: the webhooks go out only when git is done.
        let ((), head) = tokio::join!(feed, head);
        let (mut response, mut out) = head?;
        let mut body = BytesMut::new();
        while out.read_buf(&mut body).await? > 0 {}
        child.wait().await?;
        return Ok(response.body(body.freeze()));
    }
    let ((), head) = tokio::join!(feed, head);
    let (mut response, out) = head?;
    let stream = ReaderStream::new(out).map(move |chunk| {
        // The child lives as long as its output is read.
        let _ = &child;
        chunk
    });
    Ok(response.streaming(stream))
}

fn command(request: &HttpRequest, root: &Path, repo: i64, end: &str, login: &str) -> tokio::process::Command {
    let mut command = git::command(None);
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{repo}.git/{end}"))
        .env("REQUEST_METHOD", request.method().as_str())
        .env("QUERY_STRING", request.query_string())
        .env("REMOTE_USER", login)
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("SERVER_PROTOCOL", "HTTP/1.1");
    let pass = [
        ("content-type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "HTTP_GIT_PROTOCOL"),
        ("accept", "HTTP_ACCEPT"),
    ];
    for (from, to) in pass {
        if let Some(value) = header(request, from) {
            command.env(to, value);
        }
    }
    if let Some(protocol) = header(request, "git-protocol") {
        command.env("GIT_PROTOCOL", protocol);
    }
    command
}

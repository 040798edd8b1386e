//! Sending: address, identity, limits, time-outs, what an answer means.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use octocrab::Octocrab;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use url::Url;

use super::{
    auth::{AppKey, Skew, TokenKey, TokenReply, Tokens, pause},
    call::{Call, Identity, Reply, under},
    error::GitHubError,
    limits::{CONCURRENT, Cost, Limits, told},
    text::cut_chars,
    transport::{self, Lost, causes},
};
use crate::{
    clock,
    domain::ids::{InstallationId, RepoRef},
};

/// The version of the REST API that all requests name ("API Versions"); the one after it breaks.
const API_VERSION: &str = "2022-11-28";
const USER_AGENT: &str = concat!("switchover/", env!("CARGO_PKG_VERSION"));
const READ_TRIES: u32 = 3;
const REDIRECTS: u32 = 3;

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the connection.
    pub connect: Duration,
    /// For the whole call, with its answer read.
    pub request: Duration,
    /// Before a read is tried again; four times that before the third try.
    pub pause: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), request: Duration::from_secs(30), pause: Duration::from_millis(250) }
    }
}

/// Where GitHub is and who we are there.
#[derive(Debug, Clone)]
pub struct GitHubConfig {
    /// Base of the API: `https://api.github.com`, `https://HOST/api/v3` of an Enterprise Server, or the stand-in's.
    pub api_url: Url,
    /// Base of the pages and of git: `https://github.com`.
    pub web_url: Url,
    /// The App's number.
    pub app_id: i64,
    /// The App's private key, PEM (PKCS#1 as GitHub writes it, or PKCS#8).
    pub private_key: SecretString,
    /// How long to wait; `Timeouts::default()` outside of tests.
    pub timeouts: Timeouts,
}

/// GitHub's API as the App sees it. Cheap to clone; all clones share tokens and limits.
#[derive(Clone)]
pub struct GitHub {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for GitHub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitHub")
            .field("api_url", &self.inner.api_url.as_str())
            .field("app_id", &self.inner.app_id)
            .finish_non_exhaustive()
    }
}

struct Inner {
    api_url: Url,
    web_url: Url,
    app_id: i64,
    key: AppKey,
    client: Octocrab,
    tokens: Tokens,
    limits: Limits,
    skew: Skew,
    places: Semaphore,
    timeouts: Timeouts,
}

impl GitHub {
    /// Makes the client; sends nothing. Must be called within a tokio runtime, which its calls then use.
    ///
    /// # Errors
    /// [`GitHubError::Config`] where an address or the private key cannot be used.
    pub fn new(config: GitHubConfig) -> Result<Self, GitHubError> {
        let unusable = |why: String| GitHubError::Config { why };
        for (name, url) in [("API", &config.api_url), ("web", &config.web_url)] {
            if !matches!(url.scheme(), "http" | "https") || url.host().is_none() || !url.username().is_empty() {
                return Err(unusable(format!(
                    "{url} is no {name} address; expected one such as https://api.github.com"
                )));
            }
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(unusable("the client was made outside of a tokio runtime".to_owned()));
        }
        let key = AppKey::new(config.app_id, config.private_key.expose_secret())?;
        let client = transport::client(&config.api_url, config.timeouts).map_err(unusable)?;
        Ok(Self {
            inner: Arc::new(Inner {
                api_url: config.api_url,
                web_url: config.web_url,
                app_id: config.app_id,
                key,
                client,
                tokens: Tokens::default(),
                limits: Limits::default(),
                skew: Skew::default(),
                places: Semaphore::new(CONCURRENT),
                timeouts: config.timeouts,
            }),
        })
    }

    /// The App's number.
    #[must_use]
    pub fn app_id(&self) -> i64 {
        self.inner.app_id
    }

    /// Base of the pages and of git.
    #[must_use]
    pub fn web_url(&self) -> &Url {
        &self.inner.web_url
    }

    /// Drops tokens and limits of an installation that was removed or suspended.
    pub fn forget_installation(&self, installation: InstallationId) {
        self.inner.tokens.forget(installation);
        self.inner.limits.forget(installation);
    }

    /// The address of a resource; each segment is encoded.
    pub(super) fn url(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Url, GitHubError> {
        let mut url = under(&self.inner.api_url, segments)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// The address of something in a repository.
    pub(super) fn repo_url(&self, repo: &RepoRef, rest: &[&str], query: &[(&str, &str)]) -> Result<Url, GitHubError> {
        let mut segments = vec!["repos", repo.owner.as_str(), repo.name.as_str()];
        segments.extend_from_slice(rest);
        self.url(&segments, query)
    }

    /// Sends and reads the answer as `T`.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, GitHubError> {
        self.run(call, |reply| serde_json::from_slice(&reply.body)).await
    }

    /// Sends and hands the answer to `read`. Repeatable calls are tried three times.
    pub(super) async fn run<T>(
        &self,
        call: Call,
        read: impl Fn(&Reply) -> Result<T, serde_json::Error>,
    ) -> Result<T, GitHubError> {
        let mut attempt = 1;
        loop {
            let outcome = self.attempt(&call).await.and_then(|reply| {
                read(&reply).map_err(|e| {
                    let what = call.what();
                    if call.repeatable {
                        GitHubError::Decode { what, why: cut_chars(&e.to_string(), 200) }
                    } else {
                        // It was done; what came of it can be read again.
                        GitHubError::Ambiguous { why: format!("the answer to {what} cannot be read: {e}"), until: None }
                    }
                })
            });
            let again = call.repeatable
                && attempt < READ_TRIES
                && match &outcome {
                    Ok(_) => false,
                    Err(GitHubError::NotFound { .. }) => call.fresh,
                    Err(e) => matches!(
                        e,
                        GitHubError::Server { .. } | GitHubError::Unreachable { .. } | GitHubError::Decode { .. }
                    ),
                };
            if !again {
                return outcome;
            }
            tokio::time::sleep(pause(self.inner.timeouts.pause, attempt)).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Reply, GitHubError> {
        let mut renewed = false;
        loop {
            let credential = match call.identity {
                Identity::App => self.inner.key.jwt(self.inner.skew.theirs(clock::now()))?,
                Identity::Installation(key) => self.token(key).await?,
            };
            let (reply, clock_moved) = self.exchange(call, &credential).await?;
            if reply.status != StatusCode::UNAUTHORIZED {
                return self.judge(call, reply);
            }
            // A 401 did nothing, so even a write may be sent again.
            let again = match call.identity {
                Identity::App => clock_moved,
                Identity::Installation(key) => {
                    self.inner.tokens.refused(key, &credential).await;
                    true
                }
            };
            if renewed || !again {
                return self.judge(call, reply);
            }
            renewed = true;
        }
    }

    /// The token for `key`, from the cache or new.
    pub(super) async fn token(&self, key: TokenKey) -> Result<SecretString, GitHubError> {
        let now = self.inner.skew.theirs(clock::now());
        self.inner.tokens.get(key, now, self.fetch_token(key)).await
    }

    /// Boxed by its type: fetching a token goes through the same way as every call, which begins with a token.
    fn fetch_token(&self, key: TokenKey) -> BoxFuture<'_, Result<TokenReply, GitHubError>> {
        Box::pin(async move {
            self.inner.tokens.sweep(self.inner.skew.theirs(clock::now()));
            let id = key.installation.0.to_string();
            let url = self.url(&["app", "installations", &id, "access_tokens"], &[])?;
            let call = Call::write(Method::POST, url, Identity::App, Cost::Write, &key.request())?.repeatable();
            self.json::<TokenReply>(call).await.map_err(|error| match error {
                GitHubError::NotFound { .. } => GitHubError::Gone {
                    installation: key.installation,
                    why: "the App is not installed there any more".to_owned(),
                },
                GitHubError::Forbidden { message, .. } if suspended(&message) => {
                    GitHubError::Gone { installation: key.installation, why: message }
                }
                GitHubError::Invalid { message } => {
                    GitHubError::Forbidden { message, missing: Some(key.purpose.words()) }
                }
                other => other,
            })
        })
    }

    /// One request and its answer, redirects within GitHub followed. True if the answer's date moved our idea of
    /// GitHub's clock.
    async fn exchange(&self, call: &Call, credential: &SecretString) -> Result<(Reply, bool), GitHubError> {
        let mut url = call.url.clone();
        let mut redirects = 0;
        loop {
            self.admit(call)?;
            let reply = self.send(call, &url, credential).await?;
            let now = clock::now();
            let moved = self.inner.skew.note(reply.header("date"), now);
            // Renamed and transferred repositories: the same request at the new place. Nothing was done at the old.
            if matches!(reply.status.as_u16(), 301 | 302 | 307 | 308) && redirects < REDIRECTS {
                let target = reply.header("location").and_then(|l| url.join(l).ok());
                match target.filter(|t| t.origin() == url.origin() && *t != url) {
                    Some(target) => url = target,
                    None => return Ok((reply, moved)),
                }
                redirects += 1;
                continue;
            }
            return Ok((reply, moved));
        }
    }

    fn admit(&self, call: &Call) -> Result<(), GitHubError> {
        self.inner
            .limits
            .admit(call.identity.installation(), call.cost, Instant::now())
            .map_err(|wait| GitHubError::Limited { until: after(clock::now(), wait) })
    }

    async fn send(&self, call: &Call, url: &Url, credential: &SecretString) -> Result<Reply, GitHubError> {
        let not_sent = |why: String| GitHubError::Unreachable { why };
        let mut authorization = header::HeaderValue::from_str(&format!("Bearer {}", credential.expose_secret()))
            .map_err(|_| not_sent("GitHub's token cannot stand in a header".to_owned()))?;
        authorization.set_sensitive(true);
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(url.as_str())
            .header(header::AUTHORIZATION, authorization)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "application/vnd.github+json")
            .header("x-github-api-version", API_VERSION);
        if !call.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(call.body.clone()).map_err(|e| not_sent(e.to_string()))?;

        let _place = self.inner.places.acquire().await.map_err(|e| not_sent(e.to_string()))?;
        let began = Instant::now();
        let outcome = match self.inner.client.execute(request).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                // The transport has read it all; this only takes octocrab's box off.
                match body.collect().await {
                    Ok(body) => Ok(Reply { status: parts.status, headers: parts.headers, body: body.to_bytes() }),
                    Err(e) => Err(Lost::Broken(causes(&e))),
                }
            }
            Err(octocrab::Error::Service { source, .. }) => Err(match source.downcast::<Lost>() {
                Ok(lost) => *lost,
                Err(other) => Lost::Broken(causes(&*other)),
            }),
            Err(other) => Err(Lost::Broken(causes(&other))),
        };
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &outcome {
            Ok(reply) => tracing::debug!(
                method = %call.method, path = url.path(), status = reply.status.as_u16(), milliseconds,
                request = reply.header("x-github-request-id"), "GitHub answered"
            ),
            Err(lost) => {
                tracing::debug!(method = %call.method, path = url.path(), milliseconds, why = %lost, "no answer from GitHub");
            }
        }
        outcome.map_err(|lost| match lost {
            Lost::NotSent(why) => GitHubError::Unreachable { why },
            Lost::Broken(why) if call.repeatable => GitHubError::Unreachable { why },
            Lost::Broken(why) => GitHubError::Ambiguous { why: format!("{}: {why}", call.what()), until: None },
        })
    }

    /// What an answer means.
    fn judge(&self, call: &Call, reply: Reply) -> Result<Reply, GitHubError> {
        let who = call.identity.installation();
        let now = clock::now();
        let message = if reply.status.is_success() { String::new() } else { reply.message() };
        let told = told(reply.status.as_u16(), &reply.headers, &message, self.inner.skew.theirs(now));
        if let Some(wait) = self.inner.limits.note(who, told, Instant::now()) {
            return Err(GitHubError::Limited { until: after(now, wait) });
        }
        if reply.status.is_success() {
            return Ok(reply);
        }
        Err(match reply.status.as_u16() {
            401 => GitHubError::Unauthorized {
                why: match call.identity {
                    Identity::App => format!(
                        "{message}; check that the App id {} and the private key belong together, that the key was not deleted on the App's page, and this machine's clock",
                        self.inner.app_id
                    ),
                    Identity::Installation(_) => format!("{message}; a fresh token was refused too"),
                },
            },
            403 if suspended(&message) => match who {
                Some(installation) => GitHubError::Gone { installation, why: message },
                None => GitHubError::Forbidden { message, missing: None },
            },
            403 | 451 => GitHubError::Forbidden {
                message,
                missing: reply.header("x-accepted-github-permissions").map(|p| cut_chars(p, 200)),
            },
            404 | 410 => GitHubError::NotFound { what: call.what() },
            status if status >= 500 && call.repeatable => GitHubError::Server { what: call.what(), status },
            status if status >= 500 => {
                GitHubError::Ambiguous { why: format!("{} was answered {status}: {message}", call.what()), until: None }
            }
            _ => GitHubError::Invalid { message: format!("{}: {message}", call.what()) },
        })
    }

    /// Reads all pages of a list: `items` takes one page's part out of its answer.
    pub(super) async fn pages<P: DeserializeOwned, T>(
        &self,
        url: &Url,
        identity: Identity,
        items: impl Fn(P) -> Vec<T>,
    ) -> Result<Vec<T>, GitHubError> {
        const PER_PAGE: usize = 100;
        // A list without end must not keep us for ever; no list of GitHub's that is read here comes near this.
        const MOST_PAGES: usize = 200;
        let mut all = Vec::new();
        for page in 1..=MOST_PAGES {
            let mut url = url.clone();
            url.query_pairs_mut().append_pair("per_page", &PER_PAGE.to_string()).append_pair("page", &page.to_string());
            let found = items(self.json::<P>(Call::get(url, identity)).await?);
            let last = found.len() < PER_PAGE;
            all.extend(found);
            if last {
                break;
            }
        }
        Ok(all)
    }
}

/// `wait` after `now`, to the next whole second.
fn after(now: Timestamp, wait: Duration) -> Timestamp {
    let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX).saturating_add(1);
    now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

fn suspended(message: &str) -> bool {
    message.to_ascii_lowercase().contains("suspended")
}

//! What may stand in `switchover.toml`.

use super::variables as v;
use crate::domain::config::{
    formats as f,
    grammar::{Field, Format, Kind, Object, Wrong},
};

fn wrong<T>(why: impl Into<String>, hint: Option<String>) -> Result<T, Wrong> {
    Err(Wrong { why: why.into(), hint })
}

/// An address to listen on.
pub static ADDRESS: Format = Format {
    expected: "an address and a port, such as 127.0.0.1:8080 or [::]:8080",
    pattern: "^\\S+:[0-9]{1,5}$",
    check: |text| {
        if text.parse::<std::net::SocketAddr>().is_ok() {
            return Ok(());
        }
        let port = text.rsplit(':').next().and_then(|p| p.parse::<u16>().ok());
        let hint = match (text, port) {
            (_, None) => None,
            (text, Some(port)) if text.starts_with(':') => Some(format!("0.0.0.0:{port}")),
            (text, Some(port)) if text.starts_with("localhost") || !text.contains(':') => {
                Some(format!("127.0.0.1:{port}"))
            }
            _ => None,
        };
        wrong("is not an address with a port", hint)
    },
};

/// A path on this machine.
pub static FILE_PATH: Format = Format {
    expected: "a path",
    pattern: "^.+$",
    check: |text| {
        if text.is_empty() || text.len() > 4096 || text.chars().any(char::is_control) {
            return wrong("is not a path", None);
        }
        if text.contains("-----BEGIN ") { wrong("is a key, not the path of one", None) } else { Ok(()) }
    },
};

/// A Docker engine's address.
pub static DOCKER_ADDRESS: Format = Format {
    expected: "a Docker engine's address, such as unix:///var/run/docker.sock or tcp://build.example.com:2376",
    pattern: "^(unix:///.+|tcp://[^/\\s]+:[0-9]{1,5})$",
    check: |text| {
        let socket = text.strip_prefix("unix://").is_some_and(|p| p.starts_with('/') && p.len() > 1);
        let port = |t: &str| t.rsplit(':').next().and_then(|p| p.parse::<u16>().ok()).is_some_and(|p| p > 0);
        let tcp = text.strip_prefix("tcp://").is_some_and(|t| t.contains(':') && !t.contains(['/', ' ']) && port(t));
        if socket || tcp {
            return Ok(());
        }
        let hint = if text.starts_with('/') { Some(format!("unix://{text}")) } else { None };
        wrong("is not the address of a Docker engine", hint)
    },
};

/// A database.
pub static DATABASE: Format = Format {
    expected: "the setting left out: this build has SQLite inside the data folder alone",
    pattern: "^$",
    check: |_| wrong("is not available in this build", None),
};

fn is_owner(text: &str) -> bool {
    (1..=100).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

fn is_repository(text: &str) -> bool {
    (1..=100).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// The `owner/name` within what somebody copied from a browser or a clone command.
fn guess_repository(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/').trim_end_matches(".git");
    let mut parts = text.rsplit(['/', ':']);
    let (name, owner) = (parts.next()?, parts.next()?);
    (is_owner(owner) && is_repository(name)).then(|| format!("{owner}/{name}"))
}

/// One repository.
pub static REPOSITORY: Format = Format {
    expected: "a repository as owner/name",
    pattern: "^[^/\\s*]+/[^/\\s*]+$",
    check: |text| match text.split_once('/') {
        Some((owner, name)) if is_owner(owner) && is_repository(name) => Ok(()),
        _ => wrong("is not a repository", guess_repository(text)),
    },
};

/// One repository, or all of an owner.
pub static REPOSITORIES: Format = Format {
    expected: "a repository as owner/name, or owner/* for all of an owner",
    pattern: "^[^/\\s*]+/([^/\\s*]+|\\*)$",
    check: |text| match text.split_once('/') {
        Some((owner, name)) if is_owner(owner) && (name == "*" || is_repository(name)) => Ok(()),
        _ if matches!(text, "*" | "*/*" | "**") => wrong("would let in everybody who installs the App", None),
        None if is_owner(text) => wrong("is not a repository", Some(format!("{text}/*"))),
        _ => wrong("is not a repository", guess_repository(text)),
    },
};

/// A registry's host.
pub static REGISTRY_HOST: Format = Format {
    expected: "a registry's host, such as docker.io or registry.example.com:5000",
    pattern: "^[A-Za-z0-9.-]+(:[0-9]{1,5})?$",
    check: |text| {
        let ok = |t: &str| {
            let (host, port) = t.split_once(':').unwrap_or((t, "443"));
            (1..=253).contains(&host.len())
                && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
                && port.parse::<u16>().is_ok_and(|p| p > 0)
        };
        if ok(text) {
            return Ok(());
        }
        let host = text.split_once("://").map_or(text, |(_, rest)| rest).split('/').next().unwrap_or_default();
        wrong("is not the host of a registry", ok(host).then(|| host.to_owned()))
    },
};

/// A name that users reach an app by.
pub static PUBLIC_NAME: Format = Format {
    expected: "a host name, such as shop.example.com",
    pattern: "^[A-Za-z0-9.-]+$",
    check: |text| {
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        let ok = |t: &str| t.len() <= 253 && t.split('.').all(label);
        if ok(text) {
            return Ok(());
        }
        let host = text.split_once("://").map_or(text, |(_, rest)| rest);
        let host = host.split(['/', ':']).next().unwrap_or_default();
        wrong("is not a host name", ok(host).then(|| host.to_owned()))
    },
};

/// Which app an address is for.
pub static LISTENER: Format = Format {
    expected: "an app, or environment/app",
    pattern: "^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$",
    check: |text| {
        let (environment, app) = text.split_once('/').unwrap_or(("x", text));
        match ((f::ENVIRONMENT_NAME.check)(environment), (f::APP_NAME.check)(app)) {
            (Ok(()), Ok(())) => Ok(()),
            _ => wrong("is neither an app nor environment/app", None),
        }
    },
};

/// A namespace, or another name that is a DNS label ("Object Names and IDs").
pub static NAMESPACE: Format = Format {
    expected: "a name of lower-case letters, digits and dashes, at most 63",
    pattern: "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    check: |text| {
        let plain = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if (1..=63).contains(&text.len()) && plain && !text.starts_with('-') && !text.ends_with('-') {
            return Ok(());
        }
        wrong("is not such a name", None)
    },
};

/// A kind of object, with its group where the name alone could mean two.
pub static OBJECT_KIND: Format = Format {
    expected: "a kind, such as ServiceMonitor or Certificate.cert-manager.io",
    pattern: "^[A-Z][A-Za-z0-9]*(\\.[a-z0-9.-]+)?$",
    check: |text| {
        let (kind, group) = text.split_once('.').unwrap_or((text, "x"));
        let upper = kind.starts_with(|c: char| c.is_ascii_uppercase());
        let group = group.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c));
        if upper && kind.chars().all(|c| c.is_ascii_alphanumeric()) && group && text.len() <= 253 {
            return Ok(());
        }
        wrong("is not a kind of object", None)
    },
};

/// Key or value of a label ("Labels and Selectors").
pub static LABEL: Format = Format {
    expected: "a label's key or value, such as kubernetes.io/arch or amd64",
    pattern: "^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$",
    check: |text| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let inner = text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
        if text.len() <= 253 && inner && ends(text.chars().next()) && ends(text.chars().next_back()) {
            return Ok(());
        }
        wrong("is no part of a label", None)
    },
};

static NAMESPACE_KIND: Kind = Kind::Text(&NAMESPACE);
static OBJECT_KIND_KIND: Kind = Kind::Text(&OBJECT_KIND);
static LABEL_KIND: Kind = Kind::Text(&LABEL);
static REPOSITORIES_KIND: Kind = Kind::Text(&REPOSITORIES);
static PUBLIC_KIND: Kind = Kind::TextOr(&ADDRESS, &PUBLIC);
static NAME_KIND: Kind = Kind::Text(&PUBLIC_NAME);
static ENVIRONMENT_KIND: Kind = Kind::Text(&f::ENVIRONMENT_NAME);
static TARGET_KIND: Kind = Kind::Object(&TARGET);
static REGISTRY_KIND: Kind = Kind::Object(&REGISTRY);
static GRANT_KIND: Kind = Kind::Object(&GRANT);
static GRANTS_KIND: Kind = Kind::Map(&f::VARIABLE, &GRANT_KIND, 500);
static CHANNEL_KIND: Kind = Kind::Object(&CHANNEL);

const fn field(key: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { key, kind, required: false, default: None, doc }
}

const fn required(key: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { key, kind, required: true, default: None, doc }
}

/// Whether a variable or its key is there is looked at where both are known, so no field of these is required.
const fn of(variable: v::Variable) -> Field {
    Field {
        key: variable.key,
        kind: match variable.kind {
            Kind::Text(format) => Kind::Text(format),
            Kind::Word(words) => Kind::Word(words),
            Kind::Int(least, most) => Kind::Int(least, most),
            _ => Kind::Bool,
        },
        required: false,
        default: variable.default,
        doc: variable.doc,
    }
}

/// The file.
pub static FILE: Object = Object {
    name: "the file",
    doc: "Keys of the first table can be given in the environment too, which wins. Paths are from the file's own folder.",
    fields: &[
        of(v::LISTEN),
        of(v::PUBLIC_URL),
        of(v::DATA),
        of(v::DATABASE_URL),
        of(v::GITHUB_URL),
        of(v::GITHUB_WEB_URL),
        of(v::APP_ID),
        of(v::PRIVATE_KEY),
        of(v::WEBHOOK_SECRET),
        of(v::SLACK_URL),
        of(v::EXECUTOR),
        of(v::DOCKER_HOST),
        of(v::DOCKER_CERTS),
        of(v::START_AGENT),
        field(
            "trusted_local",
            Kind::List(&REPOSITORIES_KIND, 1_000),
            "Repositories whose steps may run on this host (executor and target `local`). Forks never.",
        ),
        field(
            "targets",
            Kind::Map(&f::ENVIRONMENT_NAME, &TARGET_KIND, 200),
            "Where releases run, by the name that repositories use.",
        ),
        field("kubernetes", Kind::Object(&CLUSTER), "The cluster that steps run in (executor `kubernetes`)."),
        field("registries", Kind::Map(&REGISTRY_HOST, &REGISTRY_KIND, 100), "Registries to push images to, by host."),
        field("secrets", Kind::Map(&REPOSITORY, &GRANTS_KIND, 5_000), "Secrets by repository (owner/name) and name."),
        field(
            "slack",
            Kind::Map(&f::CHANNEL, &CHANNEL_KIND, 1_000),
            "Slack incoming webhooks by channel: each is bound to one.",
        ),
        field("limits", Kind::Object(&LIMITS), "What this server may use."),
    ],
};

/// A target.
pub static TARGET: Object = Object {
    name: "a target",
    doc: "A place that releases run on.",
    fields: &[
        required(
            "kind",
            Kind::Word(&["local", "docker", "kubernetes"]),
            "`local`: processes on this host, `docker`: containers of its engine, both behind `switchover agent`; `kubernetes`: a namespace of a cluster.",
        ),
        required("repositories", Kind::List(&REPOSITORIES_KIND, 1_000), "Who may use it."),
        field(
            "listen",
            Kind::Map(&LISTENER, &PUBLIC_KIND, 1_000),
            "Where users reach each app, by `app` or `environment/app`. Others get a free port on 127.0.0.1, kept for good.",
        ),
        Field {
            key: "agent",
            kind: Kind::Text(&FILE_PATH),
            required: false,
            default: Some("agent inside the data folder"),
            doc: "Data folder of the agent.",
        },
        field(
            "kubeconfig_file",
            Kind::Text(&FILE_PATH),
            "Kubeconfig of the cluster (`kubernetes`). Default: the account of the pod that the server runs in.",
        ),
        field("context", Kind::Text(&f::LINE), "Context of the kubeconfig (`kubernetes`). Default: its current one."),
        field(
            "namespace",
            Kind::Text(&NAMESPACE),
            "The only namespace that releases touch (`kubernetes`; must be there).",
        ),
        field(
            "kinds",
            Kind::List(&OBJECT_KIND_KIND, 200),
            "Kinds of objects that manifests may hold beyond the usual ones (`kubernetes`), such as `ServiceMonitor`.",
        ),
        field(
            "service_accounts",
            Kind::List(&NAMESPACE_KIND, 200),
            "Service accounts that pods may run as, beside `default` (`kubernetes`).",
        ),
        field("kubectl", Kind::Text(&FILE_PATH), "kubectl, to render kustomize folders with (`kubernetes`)."),
        field("helm", Kind::Text(&FILE_PATH), "helm, to render charts with (`kubernetes`)."),
    ],
};

/// A public listener.
pub static PUBLIC: Object = Object {
    name: "a listener",
    doc: "Where users reach an app, where more than an address is to be said.",
    fields: &[
        required("address", Kind::Text(&ADDRESS), "Address and port. Apps may share it if all but one have `hosts`."),
        field(
            "hosts",
            Kind::List(&NAME_KIND, 100),
            "Host names of this app. Default: all that no other app has there.",
        ),
        field(
            "certificate_file",
            Kind::Text(&FILE_PATH),
            "Certificate, then those that lead to its root (PEM): TLS is spoken. Read again when it changes.",
        ),
        field("key_file", Kind::Text(&FILE_PATH), "The certificate's private key (PEM)."),
        field(
            "redirect",
            Kind::Text(&ADDRESS),
            "Plain address at which every request is sent on to this one by https.",
        ),
    ],
};

/// Where steps run.
pub static CLUSTER: Object = Object {
    name: "kubernetes",
    doc: "The cluster that steps run in (executor `kubernetes`).",
    fields: &[
        field(
            "kubeconfig_file",
            Kind::Text(&FILE_PATH),
            "Kubeconfig of the cluster. Default: the account of the pod that the server runs in.",
        ),
        field("context", Kind::Text(&f::LINE), "Context of the kubeconfig. Default: its current one."),
        Field {
            key: "namespace",
            kind: Kind::Text(&NAMESPACE),
            required: false,
            default: Some("switchover-steps"),
            doc: "The only namespace that steps use.",
        },
        field(
            "node_selector",
            Kind::Map(&LABEL, &LABEL_KIND, 20),
            "Labels of the nodes that steps may run on. Default: all.",
        ),
    ],
};

/// A registry.
pub static REGISTRY: Object = Object {
    name: "a registry",
    doc: "Where images are pushed to.",
    fields: &[
        required("username", Kind::Text(&f::LINE), "Who logs in."),
        required("password_file", Kind::Text(&FILE_PATH), "File with the password or token."),
        required("repositories", Kind::List(&REPOSITORIES_KIND, 1_000), "Who may push there."),
        Field {
            key: "plain_http",
            kind: Kind::Bool,
            required: false,
            default: Some("false"),
            doc: "Speak to it without TLS: only for a registry on this host or a network of its own.",
        },
    ],
};

/// A secret.
pub static GRANT: Object = Object {
    name: "a secret",
    doc: "A value and what it is granted to. Forks, Dependabot and Renovate never get one.",
    fields: &[
        required("file", Kind::Text(&FILE_PATH), "File with the value."),
        field("environments", Kind::List(&ENVIRONMENT_KIND, 100), "Environments whose running apps get it."),
        Field {
            key: "steps",
            kind: Kind::Bool,
            required: false,
            default: Some("false"),
            doc: "Whether steps get it on pushes to branches that environments are released from.",
        },
        Field {
            key: "pull_requests",
            kind: Kind::Bool,
            required: false,
            default: Some("false"),
            doc: "Whether steps of the repository's own pull requests get it too.",
        },
    ],
};

/// A channel.
pub static CHANNEL: Object = Object {
    name: "a channel",
    doc: "A Slack channel's incoming webhook.",
    fields: &[required("url_file", Kind::Text(&FILE_PATH), "File with the webhook's address.")],
};

/// The limits.
pub static LIMITS: Object = Object {
    name: "limits",
    doc: "What this server may use.",
    fields: &[
        Field {
            key: "concurrent_steps",
            kind: Kind::Int(1, 1_024),
            required: false,
            default: None,
            doc: "Steps that run at the same time. Default: the number of cores.",
        },
        field(
            "step_memory",
            Kind::Size,
            "Memory that one step may use (executors docker and kubernetes). Default: no limit.",
        ),
        Field {
            key: "step_disk",
            kind: Kind::Size,
            required: false,
            default: Some("20Gi"),
            doc: "What one step may write: workspace, home, new files in caches, and its containers (executors docker and kubernetes; the last two docker alone).",
        },
        Field {
            key: "step_internet",
            kind: Kind::Bool,
            required: false,
            default: Some("true"),
            doc: "Whether steps reach more than their companions (executors docker and kubernetes).",
        },
        Field {
            key: "cache_disk",
            kind: Kind::Size,
            required: false,
            default: Some("20Gi"),
            doc: "What caches and own images may hold together, and the builder's cache by itself (Docker 28 or newer); the longest unused goes first, looked at each hour.",
        },
        Field {
            key: "keep_logs",
            kind: Kind::Duration(3_600_000, 3_650 * 86_400_000),
            required: false,
            default: Some("30d"),
            doc: "How long logs, payloads of deliveries and unused caches and releases are kept.",
        },
    ],
};

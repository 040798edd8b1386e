//! What the engine is asked for, in its words ("Create a container" of the Docker Engine API).

use std::{
    collections::HashMap,
    io::Read as _,
    path::{Path, PathBuf},
};

use bollard::{
    models::{
        ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, ImageInspect, Mount, MountType,
        NetworkingConfig, ResourcesUlimits,
    },
    query_parameters::{
        DownloadFromContainerOptions, DownloadFromContainerOptionsBuilder, UploadToContainerOptions,
        UploadToContainerOptionsBuilder,
    },
};

use super::{Limits, held::Held, owner};
use crate::{
    domain::config::Service,
    exec::local::{ContainerStep, ExecError, StepSpec},
};

/// The container's first process. It runs the step's command as `sh -e -c`, with standard error in its place among the
/// output. At TERM it hands the signal to everything in the container and waits until all of it has ended, so that what
/// the shell had started gets its grace too; the first process itself can't be ended from inside.
const FIRST: &str = r#"
trap 'ending=1; kill -TERM -1 2>/dev/null' TERM
cd -- "$2" || exit 126
unset OLDPWD
sh -e -c "$1" 2>&1 &
step=$!
code=0
wait "$step" || code=$?
while kill -0 "$step" 2>/dev/null; do code=0; wait "$step" || code=$?; done
if [ -n "$ending" ]; then
    while kill -0 -1 2>/dev/null; do sleep 0.1 2>/dev/null || sleep 1; done
fi
exit "$code"
"#;

/// Variables of images that lead a tool's store out of the home, and what they are for a step: caches lie in the home.
/// (Maven's image has `MAVEN_CONFIG` for its entry point; its wrapper takes it for arguments.)
const STORES: [(&str, &str); 4] =
    [("MAVEN_CONFIG", ""), ("CARGO_HOME", "HOME/.cargo"), ("GOPATH", "HOME/go"), ("GRADLE_USER_HOME", "HOME/.gradle")];

/// Who a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Person {
    /// User and group.
    pub(super) id: u32,
    group: u32,
    /// Whether its folders must be given to it first.
    pub(super) is_given: bool,
}

impl Person {
    pub(super) fn of_server(rootless: bool) -> Self {
        let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
        if rootless {
            Self { id: 0, group: 0, is_given: false }
        } else if user.is_root() {
            Self { id: owner::NOBODY, group: owner::NOBODY, is_given: true }
        } else {
            Self { id: user.as_raw(), group: group.as_raw(), is_given: false }
        }
    }
}

/// Where a container of a step belongs.
pub(super) struct Place<'a> {
    pub(super) held: &'a Held,
    pub(super) network: &'a str,
    pub(super) limits: &'a Limits,
    /// The engine maps users; ours must stay who they are.
    pub(super) remapped: bool,
    /// How long companions may take.
    pub(super) ready: Option<std::time::Duration>,
}

impl Place<'_> {
    /// What all containers of a step have in common.
    pub(super) fn host(&self) -> HostConfig {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let memory = self.limits.memory.map(number);
        HostConfig {
            memory,
            // Both together: no swap.
            memory_swap: memory,
            #[expect(clippy::cast_possible_truncation, reason = "cores are few, and the cast saturates")]
            nano_cpus: self.limits.cpu.map(|cores| (cores * 1e9) as i64),
            pids_limit: Some(i64::from(self.limits.pids)),
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges".into()]),
            // When the machine's memory runs out, steps go first and not the server.
            oom_score_adj: Some(500),
            network_mode: Some(self.network.to_owned()),
            userns_mode: self.remapped.then(|| "host".to_owned()),
            ulimits: Some(vec![ResourcesUlimits { name: Some("core".into()), soft: Some(0), hard: Some(0) }]),
            // Browsers in tests need more than the engine's 64 MB; it counts as memory.
            shm_size: Some(512 << 20),
            ..HostConfig::default()
        }
    }
}

fn log(kind: &str, config: &[(&str, &str)]) -> Option<HostConfigLogConfig> {
    let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Some(HostConfigLogConfig { typ: Some(kind.to_owned()), config: Some(config) })
}

fn bind(path: &Path, read_only: bool) -> Result<Mount, ExecError> {
    let path = text("a path", path)?;
    Ok(Mount {
        typ: Some(MountType::BIND),
        source: Some(path.clone()),
        target: Some(path),
        read_only: Some(read_only),
        ..Mount::default()
    })
}

fn text(what: &str, path: &Path) -> Result<String, ExecError> {
    path.to_str().map(str::to_owned).ok_or_else(|| ExecError::Spec(format!("{what} is no UTF-8: {}", path.display())))
}

/// The container of a step.
pub(super) fn step(
    spec: &StepSpec,
    step: &ContainerStep,
    image_id: &str,
    image: &ImageInspect,
    person: Person,
    place: &Place<'_>,
) -> Result<ContainerCreateBody, ExecError> {
    let mut mounts = vec![bind(&step.workspace, false)?, bind(&spec.home, false)?];
    let mut caches: Vec<&PathBuf> = step.caches.iter().collect();
    caches.sort();
    caches.dedup();
    for cache in caches {
        mounts.push(bind(cache, false)?);
    }
    if let Some(mirror) = &step.mirror {
        mounts.push(bind(mirror, true)?);
    }
    let labels = place.held.labels("step", &[("dev.switchover.job", &step.job)]);
    Ok(ContainerCreateBody {
        image: Some(image_id.to_owned()),
        entrypoint: Some(vec!["sh".into(), "-c".into(), FIRST.into(), "sh".into()]),
        cmd: Some(vec![spec.command.clone(), text("the folder", &spec.cwd)?]),
        env: Some(environment(spec, step, image)?),
        user: Some(format!("{}:{}", person.id, person.group)),
        hostname: Some("step".into()),
        working_dir: Some("/".into()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        labels: Some(labels),
        host_config: Some(HostConfig { mounts: Some(mounts), log_config: log("none", &[]), ..place.host() }),
        ..ContainerCreateBody::default()
    })
}

/// The image's own environment is there already; this comes over it.
fn environment(spec: &StepSpec, step: &ContainerStep, image: &ImageInspect) -> Result<Vec<String>, ExecError> {
    let home = text("the home folder", &spec.home)?;
    let of_image = image.config.as_ref().and_then(|c| c.env.as_deref()).unwrap_or_default();
    let has = |name: &str| of_image.iter().any(|e| e.split_once('=').is_some_and(|(n, _)| n == name));
    let mut env: Vec<(String, String)> = [
        ("HOME", home.as_str()),
        ("TMPDIR", &format!("{home}/tmp")),
        ("USER", owner::NAME),
        ("LANG", "C.UTF-8"),
        ("CI", "true"),
    ]
    .map(|(n, v)| (n.to_owned(), v.to_owned()))
    .into();
    let stores = STORES.iter().filter(|(name, _)| has(name));
    env.extend(stores.map(|(name, value)| ((*name).to_owned(), value.replace("HOME", &home))));
    if step.mirror.is_some() {
        // The mirror is the server's, and the step may be another user.
        let safe = [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")];
        env.extend(safe.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(ExecError::Spec(format!("{name:?} can't be in an environment: no '=' and no NUL there")));
        }
        env.retain(|(n, _)| n != name);
        env.push((name.clone(), value.clone()));
    }
    Ok(env.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// The container of a companion. Images of databases begin as root and become somebody else, which takes a few
/// capabilities; what they may do to files is within their own.
pub(super) fn service(name: &str, service: &Service, image_id: &str, place: &Place<'_>) -> ContainerCreateBody {
    let caps = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];
    let endpoint = EndpointSettings { aliases: Some(vec![name.to_owned()]), ..EndpointSettings::default() };
    ContainerCreateBody {
        image: Some(image_id.to_owned()),
        env: Some(service.env.iter().map(|(n, v)| format!("{n}={v}")).collect()),
        hostname: Some(name.to_owned()),
        labels: Some(place.held.labels("service", &[("dev.switchover.service", name)])),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(place.network.to_owned(), endpoint)])),
        }),
        host_config: Some(HostConfig {
            cap_add: Some(caps.map(str::to_owned).into()),
            log_config: log("json-file", &[("max-size", "1m"), ("max-file", "1")]),
            ..place.host()
        }),
        ..ContainerCreateBody::default()
    }
}

/// Looks until something listens on a port, in the network of another container: with nothing but a shell, which the
/// step's image has; the companion's may have none. 0A is LISTEN, 0100007F is 127.0.0.1 (proc(5), `/proc/net/tcp`).
const PROBE: &str = r#"
port=$(printf %04X "$1")
while :; do
    for file in /proc/net/tcp /proc/net/tcp6; do
        [ -r "$file" ] || continue
        while read -r _ local _ state _; do
            case "$state $local" in
                "0A 0100007F:$port" | "0A 00000000000000000000000001000000:$port") ;;
                "0A "*":$port") exit 0 ;;
            esac
        done <"$file"
    done
    sleep 0.1 2>/dev/null || sleep 1
done
"#;

/// The container that waits for a port of another one.
pub(super) fn probe(port: u16, beside: &str, image_id: &str, place: &Place<'_>) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(image_id.to_owned()),
        entrypoint: Some(vec!["sh".into(), "-c".into(), PROBE.into(), "sh".into(), port.to_string()]),
        cmd: Some(Vec::new()),
        env: Some(vec!["HOME=/".into()]),
        user: Some("65534:65534".into()),
        working_dir: Some("/".into()),
        labels: Some(place.held.labels("probe", &[])),
        host_config: Some(HostConfig {
            network_mode: Some(format!("container:{beside}")),
            log_config: log("none", &[]),
            ..place.host()
        }),
        ..ContainerCreateBody::default()
    }
}

pub(super) fn download(path: &str) -> DownloadFromContainerOptions {
    DownloadFromContainerOptionsBuilder::default().path(path).build()
}

pub(super) fn upload(path: &str) -> UploadToContainerOptions {
    UploadToContainerOptionsBuilder::default().path(path).build()
}

/// The image's list of users (packed, as the engine gives it) with the step's user, packed again. None where it is no
/// plain file, or the home can't stand in it.
pub(super) fn with_person(packed: &[u8], person: Person, home: &Path) -> Option<Vec<u8>> {
    let home = home.to_str().filter(|h| !h.contains([':', '\n']))?;
    let mut list = String::new();
    if !packed.is_empty() {
        let mut archive = tar::Archive::new(packed);
        let mut file = archive.entries().ok()?.next()?.ok()?;
        if !file.header().entry_type().is_file() {
            return None;
        }
        file.read_to_string(&mut list).ok()?;
    }
    let same = |line: &&str| line.split(':').nth(2).is_some_and(|id| id == person.id.to_string());
    let mut lines: Vec<String> = list.lines().filter(|line| !same(line)).map(str::to_owned).collect();
    lines.push(format!("{}:x:{}:{}::{home}:/bin/sh", owner::NAME, person.id, person.group));
    let list = lines.join("\n") + "\n";
    let mut header = tar::Header::new_gnu();
    header.set_size(list.len() as u64);
    header.set_mode(0o644);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, "passwd", list.as_bytes()).ok()?;
    builder.into_inner().ok()
}

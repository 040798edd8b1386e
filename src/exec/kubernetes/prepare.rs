//! Everything up to the word to begin.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{LogParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::watch;

use super::{
    Failed, Inner, READY,
    bring::{self, Load},
    failed,
    held::Held,
    objects::{self, KEEPER},
    scripts, status,
    talk::{self, Place, Said},
    waiting::{Waiting, could_not_start, taken_away},
    watch::{self as watching, Seen, Watch},
};
use crate::{
    cluster::Fault,
    docker::{Reference, pull::PullError},
    domain::ids::Digest,
    exec::{
        files::tree_size,
        git::admin_folder,
        journal::{Journal, human},
        limits::Limits,
        local::{ContainerStep, ExecError, StepSpec},
    },
};

/// A mirror larger than that is not brought: git has nothing to work on then, and the log says so.
const MIRROR: u64 = 512 << 20;
/// Tries to bring the files.
const TRIES: u32 = 4;
/// What takes longer is said.
const LONG: Duration = Duration::from_secs(5);
/// Lines of a companion's own that stand in the step's log when it failed.
const LINES: i64 = 30;
/// The longest of these lines, in characters.
const LINE: usize = 1000;

/// What has begun.
pub(super) struct Ready {
    pub(super) pod: String,
    pub(super) watch: Watch,
    pub(super) memory: Option<u64>,
}

impl Inner {
    pub(super) async fn prepare(
        &self,
        spec: &StepSpec,
        step: &ContainerStep,
        held: &Held,
        journal: &Journal,
    ) -> Result<Ready, Failed> {
        let Some(image) = &step.image else {
            return Err(Failed::no_image());
        };
        let images = std::iter::once(image).chain(step.services.values().map(|s| &s.image));
        if let Some(wrong) = images.clone().find(|i| Reference::parse(i).is_none()) {
            return Err(Failed::People(PullError::Name(wrong.clone()).to_string()));
        }
        objects::companions_fit(&step.services).map_err(Failed::People)?;
        let tmp = spec.home.join("tmp");
        std::fs::create_dir_all(&tmp).map_err(|e| ExecError::Spec(format!("making {}: {e}", tmp.display())))?;
        let limits = Limits::of(&self.limits, &step.resources, f64::MAX, |text| journal.note(text));
        let watch = self.begin(spec, step, image, &limits, held).await?;
        let mut waiting = Waiting::new(self, step, journal);
        let pod = waiting.keeper_runs(&mut watch.seen.clone(), &held.selector()).await?;
        let pods = self.pods();
        let keeper = Place { pods: &pods, pod: &pod, container: KEEPER };
        let load = load(spec, step, journal).await;
        // Beside each other: a database takes its time.
        let (mut heard, mut lost) = (watch.seen.clone(), watch.seen.clone());
        let companions = self.companions_ready(&pods, step, &mut heard, journal, &mut waiting);
        let bringing = bring(&keeper, load, held, journal);
        let both = async { tokio::try_join!(bringing, companions).map(drop) };
        tokio::select! {
            both = both => both?,
            failed = taken_away(&mut lost) => return Err(failed),
        }
        begin_now(&keeper).await?;
        Ok(Ready { pod, watch, memory: limits.memory })
    }

    /// Makes the Job with all that belongs to it, and lets it begin.
    async fn begin(
        &self,
        spec: &StepSpec,
        step: &ContainerStep,
        image: &str,
        limits: &Limits,
        held: &Held,
    ) -> Result<Watch, Failed> {
        // The same name for the same step of a job: an earlier attempt that is still there is met.
        let mark = format!("{}\n{}\n{}", self.cluster.owner(), step.job, spec.log.display());
        let name = format!("step-{}", Digest::of(mark.as_bytes()).short());
        let attempt = format!("step-{}", held.id());
        let logins = objects::logins(step, &self.logins);
        let guarded = |image: &str| Reference::parse(image).is_some_and(|r| self.logins.guards(&r));
        let place = objects::Place {
            name: &name,
            attempt: &attempt,
            labels: held.labels(&label(&step.job)),
            limits,
            disk: self.limits.disk,
            node_selector: &self.node_selector,
            logs_in: logins.is_some(),
            ready: self.limits.ready.unwrap_or(READY),
            guarded: &guarded,
        };
        let env = objects::environment(spec)?;
        let job = objects::job(spec, step, image, &place)?;
        let made = held.job(job).await.map_err(failed("making the step's Job"))?;
        crate::failpoint::hit("exec.kubernetes.job_made");
        let owner = made.owner_ref(&()).map(|owner| {
            json!({ "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid })
        });
        let Some(owner) = owner else {
            return Err(ExecError::Spec("the cluster gave the Job no name".into()).into());
        };
        let secret = objects::env_secret(&place, &owner, &env)?;
        held.make(secret).await.map_err(failed("making the Secret of its environment"))?;
        if let Some(logins) = &logins {
            let secret = objects::login_secret(&place, &owner, logins)?;
            held.make(secret).await.map_err(failed("making the Secret of its logins"))?;
        }
        if !self.limits.internet {
            let policy = objects::closed(&place, &owner)?;
            held.make(policy).await.map_err(failed("making its NetworkPolicy"))?;
        }
        let watch = watching::pod(self.pods(), &held.selector());
        let begin = Patch::Merge(json!({ "spec": { "suspend": false } }));
        let patched = self.jobs().patch(&name, &PatchParams::default(), &begin).await.map_err(Fault::from);
        patched.map_err(failed("letting the Job begin"))?;
        crate::failpoint::hit("exec.kubernetes.job_begun");
        Ok(watch)
    }

    /// Waits until all companions are ready.
    async fn companions_ready(
        &self,
        pods: &Api<Pod>,
        step: &ContainerStep,
        seen: &mut watch::Receiver<Seen>,
        journal: &Journal,
        waiting: &mut Waiting<'_>,
    ) -> Result<(), Failed> {
        let limit = self.limits.ready.unwrap_or(READY);
        let mut since: BTreeMap<&str, Instant> = BTreeMap::new();
        let mut ready: BTreeSet<&str> = BTreeSet::new();
        loop {
            let now = seen.borrow_and_update().clone();
            if let Some(pod) = &now.pod {
                waiting.hopeless(pod)?;
                for (name, service) in &step.services {
                    let container = objects::companion(name);
                    let waits_for = objects::port(name, service).map_err(Failed::People)?;
                    let wrong = |why: String| format!("companion {name} ({}): {why}", service.image);
                    if ready.contains(name.as_str()) {
                        continue;
                    }
                    if let Some(ended) = status::ended(pod, &container) {
                        if waits_for.is_none() {
                            ready.insert(name);
                            continue;
                        }
                        last_lines(pods, &pod.name_any(), name, journal).await;
                        let code = ended.exit_code;
                        return Err(Failed::People(wrong(match could_not_start(ended.reason.as_deref()) {
                            true => format!("its image can't run it: {}", ended.message.as_deref().unwrap_or_default()),
                            false => format!("it ended with exit code {code} before it was ready"),
                        })));
                    }
                    if !status::runs(pod, &container) {
                        continue;
                    }
                    let began = *since.entry(name).or_insert_with(Instant::now);
                    let started = status::container(pod, &container).and_then(|c| c.started) == Some(true);
                    if waits_for.is_none() || started {
                        ready.insert(name);
                        if waits_for.is_some() {
                            let seconds = began.elapsed().as_secs_f64();
                            let image = &service.image;
                            journal.note(&format!("companion {name} ({image}) is ready after {seconds:.1} s"));
                        }
                    } else if began.elapsed() >= limit {
                        last_lines(pods, &pod.name_any(), name, journal).await;
                        let port = waits_for.unwrap_or_default();
                        let limit = limit.as_secs();
                        return Err(Failed::People(wrong(format!(
                            "nothing listens on its port {port} within {limit} s"
                        ))));
                    }
                }
            }
            if ready.len() == step.services.len() {
                return Ok(());
            }
            tokio::select! {
                changed = seen.changed() => if changed.is_err() {
                    return Err(ExecError::PodLost("nobody watches it any more".into()).into());
                },
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }
}

/// A label's value takes 63 letters, digits and some signs ("Labels and Selectors").
fn label(text: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let fits = text.len() <= 63
        && text.chars().all(good)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric());
    if fits { text.to_owned() } else { Digest::of(text.as_bytes()).short().to_owned() }
}

/// What is packed for the pod.
async fn load(spec: &StepSpec, step: &ContainerStep, journal: &Journal) -> Load {
    let mut folders = vec![step.workspace.clone(), spec.home.clone()];
    folders.extend(step.caches.iter().cloned());
    folders.sort();
    folders.dedup();
    let all = objects::folders(spec, step);
    let mounts = objects::mounts(all.iter().map(|f| f.as_path()));
    let mut mirror = None;
    if let Some((dir, own)) = step.mirror.clone().zip(admin_folder(&step.workspace)) {
        let measured = dir.clone();
        let size = tokio::task::spawn_blocking(move || tree_size(&measured)).await.unwrap_or(u64::MAX);
        if size <= MIRROR {
            mirror = Some((dir, own));
        } else {
            journal.note(&format!(
                "the repository's history ({}) is not brought to the cluster, up to {} is: git finds none",
                human(size),
                human(MIRROR)
            ));
        }
    }
    Load { folders, mirror, mounts }
}

/// Packs here, unpacks there. Done again from the begin when the connection breaks: it is the same each time.
async fn bring(keeper: &Place<'_>, load: Load, held: &Held, journal: &Journal) -> Result<(), Failed> {
    let begin = Instant::now();
    let mut tries = 0;
    let packed = loop {
        tries += 1;
        let (outlet, source) = talk::outlet();
        let (load, lock) = (load.clone(), held.lock());
        let packing = tokio::task::spawn_blocking(move || {
            let _lock = lock;
            bring::pack(&load, outlet)
        });
        let said = keeper.send(&scripts::BRING, source).await;
        let packed = packing.await.map_err(|e| ExecError::Spec(e.to_string()))?;
        let why = match (packed, said) {
            // The last entry tells whether all came: also where the connection was closed to say that there is no more.
            (Ok(packed), Ok(Said::Code(0, _) | Said::Unknown(_))) => match has_all(keeper).await {
                Ok(true) => break packed,
                Ok(false) => Fault::Away("not all of it arrived".into()),
                Err(fault) => fault,
            },
            (Err(e), _) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(ExecError::Spec(format!("packing the step's folders: {e}")).into());
            }
            (_, Ok(Said::NotRun(why))) => return Err(Failed::People(format!("its image can't run tar: {why}"))),
            (_, Ok(Said::Code(code, complaint))) => {
                return Err(Failed::People(format!(
                    "the tar of its image could not unpack the step's files (exit code {code}): {complaint}"
                )));
            }
            (Err(_), Ok(Said::Unknown(why))) => Fault::Away(why),
            (_, Err(fault)) => fault,
        };
        if tries == TRIES || !matches!(why, Fault::Away(_) | Fault::Missing(_)) {
            return Err(failed("bringing the step's files")(why));
        }
        tokio::time::sleep(Duration::from_secs(1) * 2_u32.pow(tries)).await;
    };
    for path in packed.unread.iter().take(5) {
        journal.note(&format!("{path} can't be read by the server, and is not brought"));
    }
    if begin.elapsed() >= LONG {
        let (files, bytes, seconds) = (packed.files, human(packed.bytes), begin.elapsed().as_secs_f64());
        journal.note(&format!("brought {files} files ({bytes}) to the cluster in {seconds:.1} s"));
    }
    Ok(())
}

async fn has_all(keeper: &Place<'_>) -> Result<bool, Fault> {
    let file = Path::new(scripts::SHARED).join("in").display().to_string();
    // Unpacking may still be at its last files.
    for _ in 0..20 {
        match keeper.run(&["test", "-e", &file]).await? {
            Said::Code(0, _) => return Ok(true),
            Said::Code(..) => tokio::time::sleep(Duration::from_millis(500)).await,
            Said::NotRun(why) | Said::Unknown(why) => return Err(Fault::Away(why)),
        }
    }
    Ok(false)
}

/// The word to begin. Said twice, it is the same: but for what changed in between, which then is not seen to be new.
async fn begin_now(keeper: &Place<'_>) -> Result<(), Failed> {
    let mut tries = 0;
    loop {
        tries += 1;
        let why = match keeper.run(&["sh", "-c", scripts::GO]).await {
            Ok(Said::Code(0, _)) => return Ok(()),
            Ok(Said::Code(code, why)) => Fault::Refused(format!("exit code {code} {why}")),
            Ok(Said::NotRun(why)) => Fault::Refused(why),
            Ok(Said::Unknown(why)) => Fault::Away(why),
            Err(fault) => fault,
        };
        if tries == TRIES || !matches!(why, Fault::Away(_)) {
            return Err(failed("telling the step to begin")(why));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// After a step that failed: which of its companions had ended, and their last words.
pub(super) async fn tell_of_the_dead(pods: &Api<Pod>, pod: &Pod, step: &ContainerStep, journal: &Journal) {
    for (name, service) in &step.services {
        let Some(ended) = status::ended(pod, &objects::companion(name)) else { continue };
        let how = match ended.reason.as_deref() {
            Some("OOMKilled") => "out of memory".to_owned(),
            _ => format!("exit code {}", ended.exit_code),
        };
        last_lines(pods, &pod.name_any(), name, journal).await;
        journal.note(&format!("companion {name} ({}) had ended: {how}", service.image));
    }
}

async fn last_lines(pods: &Api<Pod>, pod: &str, name: &str, journal: &Journal) {
    let params = LogParams {
        container: Some(objects::companion(name)),
        tail_lines: Some(LINES),
        limit_bytes: Some(256 * 1024),
        ..LogParams::default()
    };
    let Ok(text) = pods.logs(pod, &params).await else { return };
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let line: String = line.chars().take(LINE).collect();
        journal.note(&format!("{name} | {line}"));
    }
}

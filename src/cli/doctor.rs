//! `switchover doctor`: whether everything that the settings name can be used, before the first push needs it.

use std::{path::Path, process::ExitCode, time::Duration};

use switchover::{
    agent,
    cluster::{Cluster, rights},
    docker::Docker,
    settings::{self, ClusterSettings, ExecutorKind, Settings, TargetSettings},
};

use super::runtime;

/// One thing that was looked at.
struct Finding {
    what: String,
    /// What is wrong, with the mend; None: it is well.
    wrong: Option<String>,
    /// What is worth knowing.
    note: String,
}

impl Finding {
    fn of(what: impl Into<String>, result: Result<String, String>) -> Self {
        match result {
            Ok(note) => Self { what: what.into(), wrong: None, note },
            Err(wrong) => Self { what: what.into(), wrong: Some(wrong), note: String::new() },
        }
    }
}

/// Names in what `--rbac` prints.
#[derive(Debug, clap::Args)]
pub struct Rbac {
    /// Namespace that releases go to.
    #[arg(long, default_value = "production", value_name = "NAMESPACE")]
    pub releases: String,
    /// Namespace that steps run in.
    #[arg(long, default_value = "switchover-steps", value_name = "NAMESPACE")]
    pub steps: String,
    /// The server's service account.
    #[arg(long, default_value = "switchover", value_name = "NAME")]
    pub account: String,
    /// Namespace of that account.
    #[arg(long, default_value = "switchover", value_name = "NAMESPACE")]
    pub home: String,
}

/// `switchover doctor`.
pub fn doctor(config: Option<&Path>, rbac: Option<&Rbac>) -> ExitCode {
    if let Some(rbac) = rbac {
        let granted =
            rights::Granted { account: (&rbac.account, &rbac.home), releases: &rbac.releases, steps: &rbac.steps };
        print!("{}", rights::manifest(&granted));
        return ExitCode::SUCCESS;
    }
    match look(config) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("switchover: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn look(config: Option<&Path>) -> anyhow::Result<bool> {
    let settings = match super::settings(config) {
        Ok(settings) => settings,
        Err(mistakes) => {
            eprint!("{}", settings::render(&mistakes));
            return Ok(false);
        }
    };
    let findings = runtime(1)?.block_on(findings(&settings));
    let mut well = true;
    for finding in &findings {
        match &finding.wrong {
            None if finding.note.is_empty() => println!("ok      {}", finding.what),
            None => println!("ok      {}: {}", finding.what, finding.note),
            Some(wrong) => {
                well = false;
                println!("WRONG   {}: {wrong}", finding.what);
            }
        }
    }
    println!("\n{}", if well { "Everything that the settings name can be used." } else { "Mend what is wrong above." });
    Ok(well)
}

async fn findings(settings: &Settings) -> Vec<Finding> {
    let mut all = vec![Finding::of("settings", Ok(String::new())), Finding::of("data folder", data(&settings.data))];
    all.push(Finding::of(format!("GitHub at {}", settings.github_url), github(settings).await));
    let images = settings.targets.values().any(TargetSettings::runs_images);
    if settings.executor == ExecutorKind::Docker || images {
        let what = format!("Docker engine at {}", settings.docker.host);
        let asked = async {
            let docker = Docker::new(&settings.docker, "doctor").map_err(|e| e.to_string())?;
            docker.negotiated(&settings.docker).await.map_err(|e| e.to_string())?;
            Ok(String::new())
        };
        all.push(Finding::of(what, asked.await));
    }
    if settings.executor == ExecutorKind::Kubernetes {
        all.extend(cluster("cluster of the steps", &settings.kubernetes.cluster, &rights::STEPS, &[]).await);
    }
    for (name, target) in &settings.targets {
        match target {
            TargetSettings::Kubernetes(target) => {
                let kinds = &target.policy.kinds;
                all.extend(cluster(&format!("target {name}"), &target.cluster, &rights::RELEASE, kinds).await);
                for (key, tool) in [("kubectl", &target.kubectl), ("helm", &target.helm)] {
                    if let Some(tool) = tool.as_ref().filter(|t| !t.is_file()) {
                        let wrong = format!("{} is not there", tool.display());
                        all.push(Finding::of(format!("target {name}, {key}"), Err(wrong)));
                    }
                }
            }
            TargetSettings::Local(host) | TargetSettings::Docker(host) => {
                let client = agent::Client::new(agent::socket_path(&host.agent));
                let asked = client.status().await.map(|s| format!("{} services", s.services.len()));
                let known = match asked {
                    Ok(note) => Ok(note),
                    Err(_) if settings.start_agent => Ok("it is started by `switchover serve`".to_owned()),
                    Err(e) => {
                        Err(format!("no agent answers ({e}): start `switchover agent --data {}`", host.agent.display()))
                    }
                };
                all.push(Finding::of(format!("target {name}, agent"), known));
            }
        }
    }
    for host in settings.registries.keys() {
        all.push(Finding::of(format!("registry {host}"), registry(host, settings.registries[host].plain_http).await));
    }
    all
}

fn data(data: &Path) -> Result<String, String> {
    std::fs::create_dir_all(data)
        .and_then(|()| tempfile::NamedTempFile::new_in(data))
        .map(|_| String::new())
        .map_err(|e| format!("{} can't be written: {e}", data.display()))
}

async fn github(settings: &Settings) -> Result<String, String> {
    let github = super::github(settings).map_err(|e| format!("{e:#}"))?;
    github.app().await.map_err(|e| {
        format!("{e}: are `app_id` and `private_key_file` those of this App, and may this host reach GitHub?")
    })?;
    Ok(format!("the App {} signs in", settings.app_id))
}

async fn cluster(what: &str, settings: &ClusterSettings, rules: &[rights::Rule], kinds: &[String]) -> Vec<Finding> {
    let cluster = match Cluster::new(settings, "doctor").await {
        Ok(cluster) => cluster,
        Err(e) => return vec![Finding::of(what, Err(e.to_string()))],
    };
    let version = tokio::time::timeout(Duration::from_secs(15), cluster.client().apiserver_version()).await;
    let version = match version {
        Ok(Ok(version)) => version,
        Ok(Err(e)) => {
            let fault = switchover::cluster::Fault::from(e);
            return vec![Finding::of(what, Err(format!("{}: {}", cluster.address(), fault.words())))];
        }
        Err(_) => return vec![Finding::of(what, Err(format!("{} does not answer within 15 s", cluster.address())))],
    };
    let mut all =
        vec![Finding::of(what, Ok(format!("Kubernetes {}.{} at {}", version.major, version.minor, cluster.address())))];
    let rights = match cluster.missing_of(rules).await {
        Ok(missing) if missing.is_empty() => Ok(format!("all that is needed in namespace {}", cluster.namespace())),
        Ok(missing) => Err(format!(
            "in namespace {} the account may not: {}; `switchover doctor --rbac` prints the Role to give it",
            cluster.namespace(),
            missing.join(", ")
        )),
        Err(fault) => Err(fault.words().to_owned()),
    };
    all.push(Finding::of(format!("{what}, rights"), rights));
    if !kinds.is_empty() {
        let more = match cluster.missing_of_kinds(kinds).await {
            Ok(rights::Kinds { unknown, .. }) if !unknown.is_empty() => Err(format!(
                "the cluster has no kind {}: is its add-on installed, and the name right (`kubectl api-resources`)?",
                unknown.join(", ")
            )),
            Ok(rights::Kinds { rights, .. }) if !rights.is_empty() => Err(format!(
                "in namespace {} the account may not: {}; `kinds` allows them, so add them to its Role",
                cluster.namespace(),
                rights.join(", ")
            )),
            Ok(_) => Ok(kinds.join(", ")),
            Err(fault) => Err(fault.words().to_owned()),
        };
        all.push(Finding::of(format!("{what}, kinds beyond the usual"), more));
    }
    all.push(Finding::of(format!("{what}, DNS"), dns(&cluster, settings).await));
    let metrics = cluster.has_group("metrics.k8s.io").await;
    let note = match metrics {
        Ok(true) => Ok("autoscalers have figures".to_owned()),
        Ok(false) => Ok("not there: a HorizontalPodAutoscaler could not scale".to_owned()),
        Err(fault) => Err(fault.words().to_owned()),
    };
    all.push(Finding::of(format!("{what}, metrics"), note));
    all
}

/// Whether names of Services are known: pods and smoke tests go by them.
async fn dns(cluster: &Cluster, settings: &ClusterSettings) -> Result<String, String> {
    // From inside, by asking it.
    if settings.kubeconfig.is_none() {
        let asked =
            tokio::time::timeout(Duration::from_secs(5), tokio::net::lookup_host(("kubernetes.default.svc", 443)));
        return match asked.await {
            Ok(Ok(_)) => Ok("names of Services are known".to_owned()),
            Ok(Err(e)) => Err(format!("`kubernetes.default.svc` is not known here ({e}): does the cluster's DNS run?")),
            Err(_) => {
                Err("`kubernetes.default.svc` is not answered for within 5 s: does the cluster's DNS run?".to_owned())
            }
        };
    }
    let services: kube::Api<k8s_openapi::api::core::v1::Service> =
        kube::Api::namespaced(cluster.client(), "kube-system");
    match services.get_opt("kube-dns").await.map_err(switchover::cluster::Fault::from) {
        Ok(Some(_)) => Ok("the Service kube-dns is there".to_owned()),
        Ok(None) => Ok("no Service kube-dns in kube-system: it may have another name".to_owned()),
        Err(switchover::cluster::Fault::Forbidden(_)) => {
            Ok("can't be seen from here with this account; it needs no such right".to_owned())
        }
        Err(fault) => Err(fault.words().to_owned()),
    }
}

async fn registry(host: &str, plain: bool) -> Result<String, String> {
    let real = if host == "docker.io" { "registry-1.docker.io" } else { host };
    let scheme = if plain { "http" } else { "https" };
    let client = reqwest::Client::builder().timeout(Duration::from_secs(15)).build().map_err(|e| e.to_string())?;
    match client.get(format!("{scheme}://{real}/v2/")).send().await {
        // It wants a login for more, which is as it should be.
        Ok(answer) if answer.status().is_success() || answer.status().as_u16() == 401 => Ok(String::new()),
        Ok(answer) => Err(format!("it answers {} to /v2/: is it a registry?", answer.status())),
        Err(e) => Err(format!("it can't be reached: {e}")),
    }
}

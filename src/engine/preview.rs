//! `switchover plan ENV`: what a release would change in a cluster, before anything is applied.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{Engine, EngineError, releases::Request, rollouts::parse, targets::cluster_target};
use crate::{
    domain::{
        config::DeployFrom,
        ids::{Digest, EnvironmentName, RolloutId, Sha},
        rollout::Desired,
    },
    rollout::kubernetes,
    settings::TargetSettings,
    store::RepoState,
};

/// What is to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// `owner/name`; none: the only repository with such an environment.
    pub repository: Option<String>,
    /// The environment.
    pub environment: String,
    /// Which commit; none: the head of the branch that is released there.
    pub sha: Option<Sha>,
}

impl Engine {
    /// The objects of a release and the differences to what is live, as text.
    ///
    /// # Errors
    /// [`EngineError::Refused`] with the reason and the mend.
    pub async fn preview(&self, wanted: &Preview) -> Result<String, EngineError> {
        let refused = |words: String| EngineError::Refused(words);
        let name = EnvironmentName::new(&wanted.environment).map_err(|e| refused(e.to_string()))?;
        let mut found = Vec::new();
        for repo in self.store.repos().await?.into_iter().filter(|r| r.state == RepoState::Active) {
            let fits = wanted.repository.as_ref().is_none_or(|r| r.eq_ignore_ascii_case(&repo.info.repo.full_name()));
            if fits
                && let Some(policy) = self.policy(&repo.info).await?
                && policy.environments.contains_key(&name)
            {
                found.push((repo.info, policy));
            }
        }
        let (repo, policy) = match found.len() {
            1 => found.remove(0),
            0 => return Err(refused(format!("no repository that this server knows has an environment {name}"))),
            _ => {
                return Err(refused(format!(
                    "several repositories have an environment {name}: name one with --repo OWNER/NAME"
                )));
            }
        };
        let environment = &policy.environments[&name];
        let full_name = repo.repo.full_name();
        let target =
            self.settings.target_for(&full_name, environment.target.as_deref()).map_err(EngineError::Refused)?;
        let (_, TargetSettings::Kubernetes(target)) = target else {
            return Err(refused(format!("{name} runs on no cluster: `plan` shows objects of Kubernetes")));
        };
        let commit = match &wanted.sha {
            Some(sha) => sha.clone(),
            None => {
                let branch = match &environment.deploy {
                    DeployFrom::Branch(branch) => branch.clone(),
                    DeployFrom::PromoteFrom(_) | DeployFrom::Command => repo.default_branch.clone(),
                };
                let heads = self.mirrors.heads(repo.repo.id).await;
                let head = heads.into_iter().find(|(b, _)| *b == branch).map(|(_, sha)| sha);
                head.ok_or_else(|| {
                    refused(format!("the branch {branch} is not known yet: push to it, or name a commit with --sha"))
                })?
            }
        };
        let files = self.mirrors.list_files(repo.repo.id, &commit, 50_000).await?;
        let config = self.understand(&repo, &commit, &files).await?.config.map_err(|mistakes| {
            refused(format!("the configuration of {} has {} mistakes", commit.short(), mistakes.len()))
        })?;
        // What was released last stands for what may not be built yet.
        let mut digests: BTreeMap<_, _> =
            config.apps.keys().map(|app| (app.clone(), Digest::of(b"not built yet"))).collect();
        let mut note = "Images are not built yet: a digest stands for them.";
        if let Some(row) = self.store.rollouts_of(repo.repo.id, name.as_str(), 1).await?.first() {
            let desired: Desired = parse(&row.desired)?;
            for app in desired.apps {
                digests.insert(app.name, app.digest);
            }
            note = if row.sha == commit {
                ""
            } else {
                "Images are those of the newest release: this commit's may differ."
            };
        }
        let request = Request {
            repo: &repo,
            policy: &policy,
            environment: name.as_str(),
            commit: &commit,
            digests: &digests,
            run: None,
            actor: "plan",
        };
        let frozen = self.frozen(&request, &files, &config, &name, environment).await?;
        let desired = self.desired(RolloutId::generate(), &request, &config, &name, environment, &frozen)?;
        let secrets = self.settings.environment_secrets(&full_name, name.as_str(), &environment.secrets);
        let cluster = cluster_target(self, target, &full_name, secrets.into_iter().collect(), None).await?;
        let planned = kubernetes::plan(&cluster, &desired).await.map_err(|e| refused(e.to_string()))?;
        let mut out = format!("{full_name} {} to {name}, namespace {}\n", commit.short(), target.cluster.namespace);
        if !note.is_empty() {
            let _ = writeln!(out, "{note}");
        }
        for (title, lines) in &planned {
            if lines.is_empty() {
                let _ = writeln!(out, "\n  {title}: as it is");
                continue;
            }
            let _ = writeln!(out, "\n  {title}");
            for line in lines {
                let _ = writeln!(out, "    {line}");
            }
        }
        for (mark, words) in
            frozen.warnings.iter().map(|w| ("warning", w)).chain(frozen.notes.iter().map(|n| ("note", n)))
        {
            let _ = writeln!(out, "\n{mark}: {words}");
        }
        out.push_str("\nNothing was changed.\n");
        Ok(out)
    }
}

//! What the account must be allowed: one list, from which the shipped Role, `doctor` and the check before a release come.

use std::fmt::Write as _;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SelfSubjectRulesReview,
    SelfSubjectRulesReviewSpec,
};
use kube::{Api, Discovery, api::PostParams};

use super::{Cluster, Fault, objects::answered};

/// Rights on some kinds of objects of a namespace.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// API group; empty: the core.
    pub group: &'static str,
    /// Kinds, as the API server calls them.
    pub resources: &'static [&'static str],
    /// What may be done.
    pub verbs: &'static [&'static str],
    /// What for.
    pub why: &'static str,
}

const READ: &[&str] = &["get", "list", "watch"];
const ALL: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
/// Of what no watch is kept.
const WRITE: &[&str] = &["get", "list", "create", "patch", "delete"];

const fn rule(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
) -> Rule {
    Rule { group, resources, verbs, why }
}

/// What releases need in their namespace.
pub const RELEASE: [Rule; 15] = [
    rule("apps", &["deployments"], ALL, "Slots."),
    rule("", &["services"], ALL, "The pointer to the slot that serves, and its preview."),
    rule("discovery.k8s.io", &["endpointslices"], READ, "The proof of who would be reached."),
    rule(
        "",
        &["pods"],
        &["get", "list", "watch", "delete"],
        "Readiness; connections from before a switch are ended. Never exec.",
    ),
    rule("", &["pods/log"], &["get"], "Why a pod does badly; output of pre_deploy."),
    rule("", &["events"], &["list"], "Why a pod is not ready."),
    rule("", &["resourcequotas"], &["list"], "Room for a second slot, before anything is made."),
    rule("", &["configmaps", "secrets"], ALL, "Configuration, secrets and records of each slot; logins for pulling."),
    rule("batch", &["jobs", "cronjobs"], WRITE, "pre_deploy and smoke tests; Jobs in manifests."),
    rule("autoscaling", &["horizontalpodautoscalers"], ALL, "Autoscalers, which follow the slot that serves."),
    rule("policy", &["poddisruptionbudgets"], WRITE, "A budget for each slot."),
    rule("networking.k8s.io", &["ingresses", "networkpolicies"], WRITE, "What stands beside the slots in manifests."),
    rule("apps", &["daemonsets"], &["get", "create", "patch", "delete"], "The same."),
    rule("apps", &["statefulsets"], &["get", "create", "patch"], "The same; what holds data is never deleted."),
    rule("", &["persistentvolumeclaims"], &["get", "create", "patch"], "The same."),
];

/// What steps need in theirs (executor `kubernetes`).
pub const STEPS: [Rule; 7] = [
    rule(
        "batch",
        &["jobs"],
        &["get", "list", "create", "patch", "delete"],
        "A Job for each step; patch lets it begin once its Secrets are there.",
    ),
    rule("", &["pods"], &["list", "watch", "delete"], "How it goes; TERM and KILL."),
    rule("", &["pods/log"], &["get"], "Its output."),
    rule(
        "",
        &["pods/exec"],
        &["get", "create"],
        "Files go in and results come out, so that the pod needs no credentials.",
    ),
    rule(
        "",
        &["secrets"],
        &["create"],
        "Its environment and the logins for its images; never read, and gone with the Job.",
    ),
    rule("", &["events"], &["list"], "Why there is no pod."),
    rule("networking.k8s.io", &["networkpolicies"], &["create"], "Only where limits.step_internet is false."),
];

/// See [`Cluster::missing_of_kinds`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kinds {
    /// Kinds that the cluster has not.
    pub unknown: Vec<String>,
    /// Rights that the account has not, in words.
    pub rights: Vec<String>,
}

/// What objects in manifests need.
const KINDS: [&str; 4] = ["get", "create", "patch", "delete"];
/// Questions to the API server under way at once.
const AT_ONCE: usize = 8;

/// One right in words: `patch services`, `get jobs.batch`.
fn words(verb: &str, resource: &str, group: &str) -> String {
    if group.is_empty() { format!("{verb} {resource}") } else { format!("{verb} {resource}.{group}") }
}

impl Cluster {
    /// Rights of [`RELEASE`] that the account lacks in the namespace, in words.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn missing_rights(&self) -> Result<Vec<String>, Fault> {
        self.missing_of(&RELEASE).await
    }

    /// Whether the cluster has this group of APIs (`metrics.k8s.io`).
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn has_group(&self, group: &str) -> Result<bool, Fault> {
        Ok(answered(self.client().list_api_groups()).await??.groups.iter().any(|g| g.name == group))
    }

    /// The same for other rules.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn missing_of(&self, rules: &[Rule]) -> Result<Vec<String>, Fault> {
        let reviews: Api<SelfSubjectRulesReview> = Api::all(self.client());
        let review = SelfSubjectRulesReview {
            spec: SelfSubjectRulesReviewSpec { namespace: Some(self.namespace().to_owned()) },
            ..SelfSubjectRulesReview::default()
        };
        let status = answered(reviews.create(&PostParams::default(), &review)).await??.status.unwrap_or_default();
        let has = |group: &str, resource: &str, verb: &str| {
            status.resource_rules.iter().any(|rule| {
                let names =
                    |list: &Option<Vec<String>>, wanted: &str| list.iter().flatten().any(|x| x == "*" || x == wanted);
                let verbs = rule.verbs.iter().any(|v| v == "*" || v == verb);
                verbs
                    && names(&rule.api_groups, group)
                    && names(&rule.resources, resource)
                    && rule.resource_names.as_ref().is_none_or(Vec::is_empty)
            })
        };
        let all = rules.iter().flat_map(|rule| {
            rule.resources
                .iter()
                .flat_map(move |resource| rule.verbs.iter().map(move |verb| (rule.group, *resource, *verb)))
        });
        let unlisted: Vec<_> = all.filter(|(g, r, v)| !has(g, r, v)).collect();
        if !status.incomplete {
            return Ok(unlisted.into_iter().map(|(g, r, v)| words(v, r, g)).collect());
        }
        // An authorizer that can't list its rules leaves them out: of those it is asked one by one.
        let asked: Vec<BoxFuture<'_, Result<bool, Fault>>> =
            unlisted.iter().map(|(group, resource, verb)| self.may(group, resource, verb).boxed()).collect();
        let may: Vec<bool> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
        let missing = unlisted.into_iter().zip(may).filter(|(_, may)| !may);
        Ok(missing.map(|((g, r, v), _)| words(v, r, g)).collect())
    }

    /// Whether the account may do this in the namespace ("Checking API Access"). `resource`: as in a [`Rule`].
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn may(&self, group: &str, resource: &str, verb: &str) -> Result<bool, Fault> {
        let (resource, part) = resource.split_once('/').map_or((resource, None), |(r, s)| (r, Some(s)));
        let attributes = ResourceAttributes {
            namespace: Some(self.namespace().to_owned()),
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource: part.map(str::to_owned),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), non_resource_attributes: None },
            ..SelfSubjectAccessReview::default()
        };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client());
        let answer = answered(reviews.create(&PostParams::default(), &review)).await??;
        Ok(answer.status.is_some_and(|s| s.allowed))
    }

    /// What is wrong with kinds that the operator allows beyond the usual ones ([`ManifestPolicy::kinds`]:
    /// `Certificate.cert-manager.io`): the cluster does not know them, or the account lacks rights.
    ///
    /// [`ManifestPolicy::kinds`]: crate::domain::rollout::ManifestPolicy::kinds
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn missing_of_kinds(&self, kinds: &[String]) -> Result<Kinds, Fault> {
        if kinds.is_empty() {
            return Ok(Kinds::default());
        }
        let known = answered(Discovery::new(self.client()).run()).await??;
        let all: Vec<_> =
            known.groups().flat_map(|g| g.recommended_resources()).map(|(resource, _)| resource).collect();
        let mut missing = Kinds::default();
        for kind in kinds {
            let (name, group) = kind.split_once('.').map_or((kind.as_str(), None), |(k, g)| (k, Some(g)));
            let Some(found) = all.iter().find(|r| r.kind == name && group.is_none_or(|g| r.group == g)) else {
                missing.unknown.push(kind.clone());
                continue;
            };
            for verb in KINDS {
                if !self.may(&found.group, &found.plural, verb).await? {
                    missing.rights.push(words(verb, &found.plural, &found.group));
                }
            }
        }
        Ok(missing)
    }
}

/// A Role that gives these rights, as YAML. `namespace`: where it is, if that is to be written.
#[must_use]
pub fn role(name: &str, namespace: Option<&str>, rules: &[Rule]) -> String {
    let place = namespace.map(|n| format!(", namespace: {n}")).unwrap_or_default();
    let mut out =
        format!("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: {name}{place}}}\nrules:\n");
    for rule in rules {
        let _ = write!(
            out,
            "  # {}\n  - apiGroups: [{:?}]\n    resources: [{}]\n    verbs: [{}]\n",
            rule.why,
            rule.group,
            rule.resources.join(", "),
            rule.verbs.join(", ")
        );
    }
    out
}

/// Whose rights, and where.
#[derive(Debug, Clone, Copy)]
pub struct Granted<'a> {
    /// The service account's name and its namespace.
    pub account: (&'a str, &'a str),
    /// Where releases go.
    pub releases: &'a str,
    /// Where steps run.
    pub steps: &'a str,
}

/// Roles and bindings for both, as YAML: what `switchover doctor --rbac` prints, and `deploy/kubernetes/role.yaml` is.
#[must_use]
pub fn manifest(granted: &Granted<'_>) -> String {
    let (account, home) = granted.account;
    let mut out = String::from(
        "# What Switchover may, and why: as printed by `switchover doctor --rbac`, from the list that it checks before a release.\n",
    );
    let both = [("switchover-target", granted.releases, &RELEASE[..]), ("switchover-steps", granted.steps, &STEPS[..])];
    for (i, (name, namespace, rules)) in both.into_iter().enumerate() {
        let _ = write!(
            out,
            "{}{}---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {name}}}\n\
             subjects: [{{kind: ServiceAccount, name: {account}, namespace: {home}}}]\n",
            if i == 0 { "" } else { "---\n" },
            role(name, Some(namespace), rules),
        );
    }
    out
}

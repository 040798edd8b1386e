//! What the account must be allowed: one list, from which the shipped Role, `doctor` and the check before a release come.

use std::fmt::Write as _;

use k8s_openapi::api::authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use kube::{Api, api::PostParams};

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
        let reviews: Api<SelfSubjectRulesReview> = Api::all(self.client().clone());
        let review = SelfSubjectRulesReview {
            spec: SelfSubjectRulesReviewSpec { namespace: Some(self.namespace().to_owned()) },
            ..SelfSubjectRulesReview::default()
        };
        let status = answered(reviews.create(&PostParams::default(), &review)).await??.status.unwrap_or_default();
        // An authorizer that can't list its rules leaves them out; then only the attempt itself tells.
        if status.incomplete {
            return Ok(Vec::new());
        }
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
        Ok(all.filter(|(g, r, v)| !has(g, r, v)).map(|(g, r, v)| words(v, r, g)).collect())
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

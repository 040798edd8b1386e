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

/// What releases need.
pub const RELEASE: [Rule; 12] = [
    Rule { group: "apps", resources: &["deployments"], verbs: ALL, why: "slots" },
    Rule {
        group: "",
        resources: &["services"],
        verbs: ALL,
        why: "the pointer to the slot that serves, and its preview",
    },
    Rule {
        group: "",
        resources: &["pods"],
        verbs: &["get", "list", "watch", "delete"],
        why: "readiness; recycling of pinned connections",
    },
    Rule { group: "", resources: &["pods/log"], verbs: &["get"], why: "why a pod does badly, output of pre_deploy" },
    Rule { group: "", resources: &["events"], verbs: &["list"], why: "why a pod is not ready" },
    Rule { group: "", resources: &["resourcequotas"], verbs: &["list"], why: "room for two slots" },
    Rule {
        group: "discovery.k8s.io",
        resources: &["endpointslices"],
        verbs: READ,
        why: "proof of who would be reached",
    },
    Rule {
        group: "",
        resources: &["configmaps", "secrets"],
        verbs: ALL,
        why: "configuration, secrets and records of each slot",
    },
    Rule {
        group: "batch",
        resources: &["jobs"],
        verbs: &["get", "list", "create", "patch", "delete"],
        why: "pre_deploy and smoke tests",
    },
    Rule {
        group: "autoscaling",
        resources: &["horizontalpodautoscalers"],
        verbs: ALL,
        why: "autoscalers, which follow the slot that serves",
    },
    Rule {
        group: "policy",
        resources: &["poddisruptionbudgets"],
        verbs: &["get", "list", "create", "patch", "delete"],
        why: "a budget for each slot",
    },
    Rule {
        group: "networking.k8s.io",
        resources: &["ingresses", "networkpolicies"],
        verbs: &["get", "list", "create", "patch", "delete"],
        why: "what stands beside the slots in manifests",
    },
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

/// The Role that gives an account these rights, as YAML.
#[must_use]
pub fn role(name: &str, rules: &[Rule]) -> String {
    let mut out = format!("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata:\n  name: {name}\nrules:\n");
    for rule in rules {
        let list = |items: &[&str]| items.iter().map(|i| format!("\"{i}\"")).collect::<Vec<_>>().join(", ");
        let _ = write!(
            out,
            "  # {}\n  - apiGroups: [\"{}\"]\n    resources: [{}]\n    verbs: [{}]\n",
            rule.why,
            rule.group,
            list(rule.resources),
            list(rule.verbs)
        );
    }
    out
}

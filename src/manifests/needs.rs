//! What a pod asks of its namespace's quotas.

use serde_json::Value;

use super::diff::quantity;

/// Names of a quota's resources, and where a container says how much of it it asks for ("Resource Quotas": `cpu` and
/// `memory` mean the requests).
const COUNTED: [(&str, &str, &str); 6] = [
    ("requests.cpu", "requests", "cpu"),
    ("cpu", "requests", "cpu"),
    ("requests.memory", "requests", "memory"),
    ("memory", "requests", "memory"),
    ("limits.cpu", "limits", "cpu"),
    ("limits.memory", "limits", "memory"),
];

/// A resource of a quota that so many more pods would exceed: its name, what it allows, what is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// As the quota names it.
    pub resource: String,
    /// As the quota writes it.
    pub hard: String,
    /// As its status writes it.
    pub used: String,
}

/// The first resource of `quota` that has no room for these pods beside what runs: templates' `spec`, and how many of
/// each; fewer than none of those that go for them.
///
/// A quota for some pods only (with scopes) is passed over, and so is what a template does not say: admission decides on
/// those, and a guess would refuse what fits.
#[must_use]
pub fn no_room(quota: &Value, pods: &[(&Value, i64)]) -> Option<Short> {
    let scoped =
        ["/spec/scopes", "/spec/scopeSelector"].iter().any(|at| quota.pointer(at).is_some_and(|s| !s.is_null()));
    if scoped {
        return None;
    }
    let count = || pods.iter().map(|(_, count)| i128::from(*count) * 1_000).sum();
    let counted = COUNTED.iter().map(|(name, kind, what)| {
        let all = pods.iter().map(|(pod, count)| of_pod(pod, kind, what) * i128::from(*count)).sum::<i128>();
        (*name, all)
    });
    std::iter::once(("pods", count())).chain(counted).filter(|(_, needed)| *needed > 0).find_map(|(name, needed)| {
        let of = |which: &str| quota.get("status")?.get(which)?.get(name);
        let (hard, used) = (of("hard")?, of("used")?);
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        (quantity(used)? + needed > quantity(hard)?).then(|| Short {
            resource: name.to_owned(),
            hard: text(hard),
            used: text(used),
        })
    })
}

/// What the scheduler and quotas count for one pod, in thousandths ("Sidecar Containers", Resource sharing within
/// containers): the containers with the sidecars, or an init container with the sidecars before it, if that is more; and
/// the pod's overhead.
fn of_pod(pod: &Value, kind: &str, what: &str) -> i128 {
    let of = |container: &Value| {
        let asks = |kind: &str| container.get("resources")?.get(kind)?.get(what).and_then(quantity);
        // A limit alone is the request too.
        asks(kind).or_else(|| asks("limits")).unwrap_or(0)
    };
    // "Assign Pod-level CPU and memory resources": then they are the pod's.
    let whole = of(pod);
    if whole > 0 {
        return whole;
    }
    let list = |key: &str| pod.get(key).and_then(Value::as_array).into_iter().flatten();
    let (mut sidecars, mut most) = (0, 0);
    for container in list("initContainers") {
        if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            sidecars += of(container);
            most = most.max(sidecars);
        } else {
            most = most.max(sidecars + of(container));
        }
    }
    let overhead = pod.get("overhead").and_then(|o| o.get(what)).and_then(quantity).unwrap_or(0);
    most.max(sidecars + list("containers").map(of).sum::<i128>()) + overhead
}

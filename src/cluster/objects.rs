//! Reading and writing objects of any kind.

use std::{future::Future, time::Duration};

use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::GroupVersionKind,
    discovery::pinned_kind,
};
use serde_json::Value;

use super::{Cluster, Fault, MANAGER};

/// So long a single answer may take: a webhook of the cluster's may hold up a write for 30 s ("Dynamic Admission Control"),
/// and a server that took the connection and says nothing is away.
const ANSWER: Duration = Duration::from_secs(35);

/// Waits for an answer, but not for ever.
///
/// # Errors
/// [`Fault::Away`]: there was none in time; whether anything was done is unknown.
pub(super) async fn answered<T>(request: impl Future<Output = kube::Result<T>>) -> Result<kube::Result<T>, Fault> {
    tokio::time::timeout(ANSWER, request)
        .await
        .map_err(|_| Fault::Away(format!("the API server gave no answer within {} s", ANSWER.as_secs())))
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Named {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// `ConfigMap`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Named {
    /// Of an object. None: it says not what it is.
    #[must_use]
    pub fn of(object: &Value) -> Option<Self> {
        Some(Self {
            api_version: object.get("apiVersion")?.as_str()?.to_owned(),
            kind: object.get("kind")?.as_str()?.to_owned(),
            name: object.pointer("/metadata/name")?.as_str()?.to_owned(),
        })
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// What the API server calls a kind; the usual ones are known, others are asked for.
const PLURALS: [(&str, &str, &str); 16] = [
    ("v1", "ConfigMap", "configmaps"),
    ("v1", "Secret", "secrets"),
    ("v1", "Service", "services"),
    ("v1", "Pod", "pods"),
    ("v1", "Event", "events"),
    ("v1", "ResourceQuota", "resourcequotas"),
    ("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("v1", "ServiceAccount", "serviceaccounts"),
    ("apps/v1", "Deployment", "deployments"),
    ("apps/v1", "StatefulSet", "statefulsets"),
    ("batch/v1", "Job", "jobs"),
    ("batch/v1", "CronJob", "cronjobs"),
    ("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("networking.k8s.io/v1", "Ingress", "ingresses"),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
];

impl Cluster {
    /// The door to objects of one kind in the namespace.
    ///
    /// # Errors
    /// [`Fault::Refused`] for a kind that the cluster does not know.
    pub async fn api(&self, api_version: &str, kind: &str) -> Result<Api<DynamicObject>, Fault> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let known = PLURALS.iter().find(|(v, k, _)| *v == api_version && *k == kind);
        let resource = match known {
            Some((_, _, plural)) => ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                plural: (*plural).to_owned(),
            },
            None => {
                let wanted = GroupVersionKind::gvk(group, version, kind);
                match answered(pinned_kind(&self.client(), &wanted)).await? {
                    Ok((resource, _)) => resource,
                    Err(kube::Error::Discovery(_)) => {
                        return Err(Fault::Refused(format!("the cluster knows no kind {kind} of {api_version}")));
                    }
                    Err(e) => return Err(e.into()),
                }
            }
        };
        Ok(Api::namespaced_with(self.client(), self.namespace(), &resource))
    }

    async fn door(&self, object: &Value) -> Result<(Api<DynamicObject>, String), Fault> {
        let named = Named::of(object).ok_or_else(|| Fault::Refused("an object without kind or name".to_owned()))?;
        Ok((self.api(&named.api_version, &named.kind).await?, named.name))
    }

    /// Reads one object. None: there is none.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn read(&self, api_version: &str, kind: &str, name: &str) -> Result<Option<Value>, Fault> {
        let api = self.api(api_version, kind).await?;
        let found = answered(api.get_opt(name)).await??;
        Ok(found.map(|o| serde_json::to_value(o).unwrap_or_default()))
    }

    /// Makes an object. [`Fault::Conflict`]: there is one of that name.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn create(&self, object: &Value) -> Result<Value, Fault> {
        let (api, _) = self.door(object).await?;
        let made: DynamicObject = parse(object)?;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        Ok(serde_json::to_value(answered(api.create(&params, &made)).await??).unwrap_or_default())
    }

    /// Makes an object what it shall be, in the fields that it names ("Server-Side Apply"). Fields that another manager
    /// owns are a [`Fault::Conflict`] that names both, except what `kubectl apply` wrote, which is taken over.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn apply(&self, object: &Value) -> Result<Value, Fault> {
        let (api, name) = self.door(object).await?;
        let params = PatchParams::apply(MANAGER);
        let answer = match answered(api.patch(&name, &params, &Patch::Apply(object))).await? {
            Err(kube::Error::Api(status)) if status.code == 409 && only_kubectl(&status.message) => {
                tracing::info!(object = %name, "fields that kubectl wrote are taken over: {}", status.message);
                answered(api.patch(&name, &params.force(), &Patch::Apply(object))).await??
            }
            other => other?,
        };
        Ok(serde_json::to_value(answer).unwrap_or_default())
    }

    /// Makes the namespace itself.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn create_namespace(&self, labels: &Value) -> Result<(), Fault> {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client());
        let object = serde_json::json!({"metadata": {"name": self.namespace(), "labels": labels}});
        let object = serde_json::from_value(object).map_err(|e| Fault::Refused(e.to_string()))?;
        namespaces.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Removes the namespace with all that is in it, and waits until it is gone.
    ///
    /// # Errors
    /// [`Fault`]; [`Fault::Away`] when it is not gone within the time.
    pub async fn delete_namespace(&self, limit: std::time::Duration) -> Result<(), Fault> {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client());
        match namespaces.delete(self.namespace(), &DeleteParams::default()).await.map_err(Fault::from) {
            Ok(_) => {}
            Err(Fault::Missing(_)) => return Ok(()),
            Err(other) => return Err(other),
        }
        let gone = async {
            while namespaces.get_opt(self.namespace()).await?.is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
            Ok::<(), kube::Error>(())
        };
        match tokio::time::timeout(limit, gone).await {
            Ok(end) => Ok(end?),
            Err(_) => Err(Fault::Away("it is still being removed".to_owned())),
        }
    }

    /// Asks the API server what it would say to an object, with nothing written ("Dry-run").
    ///
    /// # Errors
    /// [`Fault`]: what it would refuse, and why.
    pub async fn try_apply(&self, object: &Value) -> Result<Value, Fault> {
        let (api, name) = self.door(object).await?;
        let params = PatchParams { dry_run: true, ..PatchParams::apply(MANAGER).force() };
        Ok(serde_json::to_value(answered(api.patch(&name, &params, &Patch::Apply(object))).await??).unwrap_or_default())
    }

    /// Changes an object by a list of steps, all or none ("JSON Patch", RFC 6902). A `test` that does not hold is a
    /// [`Fault::Conflict`].
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn patch(&self, api_version: &str, kind: &str, name: &str, steps: &Value) -> Result<Value, Fault> {
        let api = self.api(api_version, kind).await?;
        let patch: kube::api::Patch<()> = Patch::Json(
            serde_json::from_value(steps.clone()).map_err(|e| Fault::Refused(format!("a patch of ours: {e}")))?,
        );
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match answered(api.patch(name, &params, &patch)).await? {
            Ok(object) => Ok(serde_json::to_value(object).unwrap_or_default()),
            Err(kube::Error::Api(status)) if status.code == 422 && status.message.contains("testing ") => {
                Err(Fault::Conflict(status.message))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Merges fields into an object ("JSON Merge Patch", RFC 7386).
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn merge(&self, api_version: &str, kind: &str, name: &str, fields: &Value) -> Result<Value, Fault> {
        let api = self.api(api_version, kind).await?;
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        Ok(serde_json::to_value(answered(api.patch(name, &params, &Patch::Merge(fields))).await??).unwrap_or_default())
    }

    /// Deletes an object, with what belongs to it; one that is gone is fine. With `uid`, only that very one.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn delete(&self, api_version: &str, kind: &str, name: &str, uid: Option<&str>) -> Result<(), Fault> {
        let mut params = DeleteParams::background();
        params.preconditions = uid.map(|u| Preconditions { uid: Some(u.to_owned()), resource_version: None });
        let api = self.api(api_version, kind).await?;
        match answered(api.delete(name, &params)).await?.map_err(Fault::from) {
            Ok(_) | Err(Fault::Missing(_)) => Ok(()),
            // Another one under the same name.
            Err(Fault::Conflict(_)) if uid.is_some() => Ok(()),
            Err(other) => Err(other),
        }
    }
}

impl Cluster {
    /// Objects of a kind, as the API server has them.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn list(&self, api_version: &str, kind: &str, params: &ListParams) -> Result<Vec<Value>, Fault> {
        let api = self.api(api_version, kind).await?;
        let listed = answered(api.list(params)).await??;
        Ok(listed.items.into_iter().map(|o| serde_json::to_value(o).unwrap_or_default()).collect())
    }
}

fn parse(object: &Value) -> Result<DynamicObject, Fault> {
    serde_json::from_value(object.clone()).map_err(|e| Fault::Refused(format!("not an object: {e}")))
}

/// Whether nobody but kubectl's own managers holds the fields (`conflict with "kubectl-client-side-apply" using …`), or we
/// ourselves by another kind of write, or an autoscaler the number of copies of what is no longer its (`conflict with
/// "kube-controller-manager" with subresource "scale" using apps/v1: .spec.replicas`).
fn only_kubectl(message: &str) -> bool {
    let mut managers =
        message.split("conflict with \"").skip(1).chain(message.split("conflicts with \"").skip(1)).peekable();
    let scaled = message.contains("with subresource \"scale\"") && !message.contains("conflicts with");
    managers.peek().is_some()
        && managers.all(|rest| {
            rest.starts_with("kubectl")
                || rest.starts_with(MANAGER)
                || (scaled
                    && rest.starts_with("kube-controller-manager")
                    && rest.trim_end().ends_with(".spec.replicas"))
        })
}

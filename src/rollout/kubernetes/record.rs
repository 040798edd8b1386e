//! What belongs to a slot and is applied when it is switched to: kept in the cluster beside the slot, so that the way back
//! restores it, whoever goes it and whatever became of the store.

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    KubernetesTarget,
    look::{Door, object_label},
    names,
};
use crate::{
    cluster::{Fault, KIND, Named, OWNER},
    domain::{
        ids::{AppName, Slot},
        rollout::{DesiredApp, EnvironmentKey},
    },
    manifests::{self, SLOT, label},
};

/// The key in the Secret.
const KEY: &str = "record.json";

/// What is applied with a switch to a slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The slot's Deployment.
    pub deployment: String,
    /// The Service without its selector; None for a worker.
    pub service: Option<Value>,
    /// The autoscaler, pointed at the Deployment.
    pub autoscaler: Option<Value>,
    /// Objects that are not part of a slot.
    pub shared: Vec<Value>,
}

impl Record {
    /// Of a new slot.
    pub(super) fn of(app: &DesiredApp, deployment: &str, image: &str) -> Option<Self> {
        let manifests = app.spec.manifests.as_deref()?;
        Some(Self {
            deployment: deployment.to_owned(),
            service: manifests::service(manifests, &app.name, app.spec.port),
            autoscaler: manifests::autoscaler(manifests, deployment),
            shared: manifests::shared(manifests, image),
        })
    }
}

impl Record {
    /// Its shared objects.
    pub(super) fn names(&self) -> Vec<Named> {
        self.shared.iter().filter_map(Named::of).collect()
    }
}

impl KubernetesTarget {
    /// Keeps it. The same again changes nothing.
    pub(super) async fn keep_record(
        &self,
        key: &EnvironmentKey,
        app: &AppName,
        slot: &Slot,
        record: &Record,
    ) -> Result<(), Fault> {
        let mut labels = names::labels(self.cluster(), key, app, names::RECORD);
        labels.insert(SLOT.to_owned(), label(slot.as_str()));
        let text = serde_json::to_string(record).map_err(|e| Fault::Refused(e.to_string()))?;
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": names::record(key, app, slot), "labels": labels},
            "data": {KEY: base64::engine::general_purpose::STANDARD.encode(text)},
        });
        self.cluster().apply(&secret).await.map(drop)
    }

    /// Reads it. None: there is none, or it can't be read.
    pub(super) async fn read_record(
        &self,
        key: &EnvironmentKey,
        app: &AppName,
        slot: &Slot,
    ) -> Result<Option<Record>, Fault> {
        let found = self.cluster().read("v1", "Secret", &names::record(key, app, slot)).await?;
        let is = |s: &Value, key: &str, value: &str| object_label(s, key) == Some(value);
        // Nobody else's under that name.
        let found = found.filter(|s| is(s, OWNER, self.cluster().owner()) && is(s, KIND, names::RECORD));
        let data = found.as_ref().and_then(|s| s.get("data")?.get(KEY)?.as_str());
        let bytes = data.and_then(|d| base64::engine::general_purpose::STANDARD.decode(d).ok());
        Ok(bytes.and_then(|b| serde_json::from_slice(&b).ok()))
    }

    /// Keeps what stands there now as the record of a slot that ran before us: the objects that a release will write
    /// over, as they are live.
    pub(super) async fn record_what_stands(
        &self,
        key: &EnvironmentKey,
        app: &DesiredApp,
        slot: &Slot,
        deployment: &str,
        door: Option<&Door>,
    ) -> Result<(), Fault> {
        if self.read_record(key, &app.name, slot).await?.is_some() {
            return Ok(());
        }
        let service = door.filter(|d| d.web).map(|d| {
            let mut service = manifests::stripped(&d.object);
            if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
                spec.retain(|key, _| matches!(key.as_str(), "ports" | "type" | "externalTrafficPolicy"));
            }
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": d.name()},
                "spec": service.get("spec"),
            })
        });
        let manifests = app.spec.manifests.as_deref();
        let mut shared = Vec::new();
        for wanted in manifests.map(|m| m.shared.as_slice()).unwrap_or_default() {
            if let Some(live) = self.live_of(wanted).await? {
                shared.push(manifests::stripped(&live));
            }
        }
        let autoscaler = match manifests.and_then(|m| manifests::autoscaler(m, deployment)) {
            Some(wanted) => self.live_of(&wanted).await?.map(|live| manifests::stripped(&live)).map(|mut scaler| {
                scaler["spec"]["scaleTargetRef"] =
                    json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment});
                scaler
            }),
            None => None,
        };
        let record = Record { deployment: deployment.to_owned(), service, autoscaler, shared };
        self.keep_record(key, &app.name, slot, &record).await
    }

    /// The live object under the name of this one.
    pub(super) async fn live_of(&self, wanted: &Value) -> Result<Option<Value>, Fault> {
        let Some(named) = Named::of(wanted) else { return Ok(None) };
        self.cluster().read(&named.api_version, &named.kind, &named.name).await
    }
}

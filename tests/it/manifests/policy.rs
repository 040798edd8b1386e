use serde_json::{Value, json};
use switchover::{
    domain::rollout::ManifestPolicy,
    manifests::{managed_by_other, refuse},
};

use super::{SINGLE, objects};

fn strict() -> ManifestPolicy {
    ManifestPolicy { namespace: "shop".to_owned(), ..ManifestPolicy::default() }
}

fn refused(yaml: &str, policy: &ManifestPolicy) -> String {
    let found = refuse(&objects(&[("k8s/a.yaml", yaml)]), policy);
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_usual_is_allowed() {
    assert_eq!(refused(SINGLE, &strict()), "");
    let more = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a, namespace: shop}\n---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: c}\nspec: {jobTemplate: {spec: {template: {spec: {serviceAccountName: default, containers: [{name: c, securityContext: {capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}}]}}}}}\n";
    assert_eq!(refused(more, &strict()), "");
}

#[test]
fn kinds_and_namespaces() {
    let yaml = [
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  namespace: kube-system",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: 'x:y'}",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: x}",
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: x}",
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: x.y}",
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: x}",
        "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: x}",
        "apiVersion: autoscaling.k8s.io/v1\nkind: VerticalPodAutoscaler\nmetadata: {name: x}",
        "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: x}",
        "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {name: x}",
        "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: x}",
        "apiVersion: example.com/v1\nkind: Secret\nmetadata: {name: x}",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}",
        "apiVersion: v1\nkind: Endpoints\nmetadata: {name: x}",
        "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: x}",
        "apiVersion: policy/v1beta1\nkind: PodDisruptionBudget\nmetadata: {name: x}",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ntype: kubernetes.io/service-account-token",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x, labels: {switchover.dev/slot: a}}\nspec:\n  externalIPs: [1.2.3.4]\n  selector: {switchover.dev/slot: b}",
    ];
    insta::assert_snapshot!(refused(&yaml.join("\n---\n"), &strict()), @"");
    let mut granted = strict();
    granted.kinds = vec!["Certificate.cert-manager.io".into(), "RoleBinding".into(), "ClusterRoleBinding".into()];
    assert_eq!(refused(yaml[11], &granted), "");
    assert_eq!(refused(yaml[3], &granted), "");
    assert!(refused(yaml[2], &granted).contains("whole cluster"), "no grant reaches beyond the namespace");
}

#[test]
fn pods() {
    let yaml = r"apiVersion: apps/v1
kind: Deployment
metadata: {name: x}
spec:
  template:
    metadata:
      annotations: {container.apparmor.security.beta.kubernetes.io/c: unconfined}
    spec:
      hostNetwork: true
      hostPID: true
      hostIPC: true
      serviceAccountName: admin
      nodeName: n1
      priorityClassName: system-node-critical
      securityContext:
        sysctls: [{name: kernel.msgmax, value: '1'}, {name: net.ipv4.tcp_syncookies, value: '1'}]
        seccompProfile: {type: Unconfined}
      volumes:
        - name: socket
          hostPath: {path: /var/run/docker.sock}
        - name: fine
          emptyDir: {}
      initContainers:
        - name: i
          securityContext:
            privileged: true
      containers:
        - name: c
          ports:
            - containerPort: 80
              hostPort: 80
          securityContext:
            allowPrivilegeEscalation: true
            procMount: Unmasked
            capabilities:
              add: [CHOWN, NET_ADMIN, CAP_SYS_ADMIN]
            windowsOptions: {hostProcess: true}
            seLinuxOptions: {type: spc_t}
";
    insta::assert_snapshot!(refused(yaml, &strict()), @"");
    let mut granted = strict();
    granted.service_accounts = vec!["admin".to_owned()];
    assert!(!refused(yaml, &granted).contains("service account"));
    let cron = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: x}\nspec: {jobTemplate: {spec: {template: {spec: {hostNetwork: true}}}}}\n";
    insta::assert_snapshot!(refused(cron, &strict()), @"");
}

#[test]
fn others_that_manage() {
    let with = |metadata: Value| {
        let mut object = json!({"kind": "Deployment", "metadata": metadata});
        object["metadata"]["name"] = "shop".into();
        managed_by_other(&object).unwrap_or_else(|| "nobody".to_owned())
    };
    let all = [
        json!({"annotations": {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/shop"}}),
        json!({"labels": {"argocd.argoproj.io/instance": "shop"}}),
        json!({"annotations": {"argocd.argoproj.io/sync-wave": "1"}}),
        json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "f"}}),
        json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}, "annotations": {"kustomize.toolkit.fluxcd.io/reconcile": "disabled"}}),
        json!({"labels": {"helm.toolkit.fluxcd.io/name": "shop"}}),
        json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": {"meta.helm.sh/release-name": "shop"}}),
        json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}}),
        json!({"ownerReferences": [{"kind": "ReplicaSet", "name": "x"}, {"kind": "Shop", "name": "s", "controller": true}]}),
        json!({}),
    ];
    let told: Vec<String> = all.into_iter().map(with).collect();
    insta::assert_snapshot!(told.join("\n"), @"");
}

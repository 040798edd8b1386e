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
    insta::assert_snapshot!(refused(&yaml.join("\n---\n"), &strict()), @r#"
    k8s/a.yaml:2: Namespace `other` is not the target's, which is `shop`: remove it; what is released goes to that one
    k8s/a.yaml:9: ConfigMap `a` is for the namespace `kube-system`, and this target's is `shop`: remove the line `namespace`, or have the operator grant a target for the other
    k8s/a.yaml:12: `ClusterRoleBinding.rbac.authorization.k8s.io` belongs to the whole cluster, and a repository's manifests stay in their namespace: move it out of this folder; the operator applies it
    k8s/a.yaml:16: `RoleBinding.rbac.authorization.k8s.io` gives rights, which a repository can't give itself: the operator can allow it: `kinds = ["RoleBinding.rbac.authorization.k8s.io"]` in the target's settings
    k8s/a.yaml:20: `ServiceAccount` gives rights, which a repository can't give itself: the operator can allow it: `kinds = ["ServiceAccount"]` in the target's settings
    k8s/a.yaml:24: `CustomResourceDefinition.apiextensions.k8s.io` belongs to the whole cluster, and a repository's manifests stay in their namespace: move it out of this folder; the operator applies it
    k8s/a.yaml:28: `PersistentVolume` belongs to the whole cluster, and a repository's manifests stay in their namespace: move it out of this folder; the operator applies it
    k8s/a.yaml:32: `ScaledObject.keda.sh` is not supported yet: KEDA and a release would both set the number of copies. Until then, write a HorizontalPodAutoscaler
    k8s/a.yaml:36: `VerticalPodAutoscaler.autoscaling.k8s.io` is not supported yet: it would restart pods in the middle of a release. Until then, write `resources` into the Deployment
    k8s/a.yaml:40: `Rollout.argoproj.io` releases by itself: write `kind: Deployment` and `apiVersion: apps/v1`, without its `strategy`
    k8s/a.yaml:44: `Application.argoproj.io` is not among the usual kinds: the operator can allow it: `kinds = ["Application.argoproj.io"]` in the target's settings
    k8s/a.yaml:48: `Certificate.cert-manager.io` is not among the usual kinds: the operator can allow it: `kinds = ["Certificate.cert-manager.io"]` in the target's settings
    k8s/a.yaml:52: `Secret.example.com` is not among the usual kinds: the operator can allow it: `kinds = ["Secret.example.com"]` in the target's settings
    k8s/a.yaml:56: `Pod` can't be released: write a Deployment around the pod. Otherwise, the operator can allow it: `kinds = ["Pod"]` in the target's settings
    k8s/a.yaml:60: `Endpoints` says who is behind a Service, which is ours during a release: the operator can allow it: `kinds = ["Endpoints"]` in the target's settings
    k8s/a.yaml:63: `apiVersion: extensions/v1beta1` left Kubernetes years ago: write `apiVersion: networking.k8s.io/v1`
    k8s/a.yaml:67: `apiVersion: policy/v1beta1` left Kubernetes years ago: write `apiVersion: policy/v1`
    k8s/a.yaml:74: a Secret of type `kubernetes.io/service-account-token` gets a token of the cluster: remove it
    k8s/a.yaml:78: `switchover.dev/slot` is Switchover's own: remove it
    k8s/a.yaml:81: `switchover.dev/slot` is Switchover's own: remove it
    k8s/a.yaml:80: `externalIPs` takes traffic that is meant for others: remove it; `type: LoadBalancer` or an Ingress is the way in
    "#);
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
    insta::assert_snapshot!(refused(yaml, &strict()), @r#"
    k8s/a.yaml:9: `hostNetwork` opens the node's network to the pod: remove the line
    k8s/a.yaml:10: `hostPID` opens the node's processes to the pod: remove the line
    k8s/a.yaml:11: `hostIPC` opens the node's shared memory to the pod: remove the line
    k8s/a.yaml:12: the pod runs as the service account `admin`, which is not granted: remove the line, or have the operator write `service_accounts = ["admin"]` in the target's settings
    k8s/a.yaml:13: `nodeName` passes the scheduler by: remove the line; `nodeSelector` chooses among nodes
    k8s/a.yaml:14: system priorities push other pods off their nodes: remove the line, or use a class of your own
    k8s/a.yaml:20: the volume `socket` is a `hostPath`, which reaches into the node's files: use an `emptyDir`, a ConfigMap or a PersistentVolumeClaim
    k8s/a.yaml:16: the sysctl `kernel.msgmax` is the whole node's: remove it
    k8s/a.yaml:17: `seccompProfile` may not be turned off: write `type: RuntimeDefault`
    k8s/a.yaml:26: `i` is privileged, which gives it the node: remove the line
    k8s/a.yaml:31: `hostPort: 80` ties `c` to its node: two slots can't have one port there. Remove the line; a Service leads to the container's port
    k8s/a.yaml:33: `c` asks for more rights than it begins with: write `allowPrivilegeEscalation: false`
    k8s/a.yaml:36: `c` asks for the capability `NET_ADMIN`: remove it from `add`
    k8s/a.yaml:36: `c` asks for the capability `CAP_SYS_ADMIN`: remove it from `add`
    k8s/a.yaml:34: `c` asks for an unmasked `/proc`: remove the line
    k8s/a.yaml:37: `hostProcess` runs on the node itself: remove it
    k8s/a.yaml:38: the SELinux type `spc_t` is none for containers: remove it
    k8s/a.yaml:7: AppArmor may not be turned off: remove the annotation
    "#);
    let mut granted = strict();
    granted.service_accounts = vec!["admin".to_owned()];
    assert!(!refused(yaml, &granted).contains("service account"));
    let cron = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: x}\nspec: {jobTemplate: {spec: {template: {spec: {hostNetwork: true}}}}}\n";
    insta::assert_snapshot!(refused(cron, &strict()), @"k8s/a.yaml:4: `hostNetwork` opens the node's network to the pod: remove the line");
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
    insta::assert_snapshot!(told.join("\n"), @r"
    Deployment `shop` is managed by Argo CD (application `shop`): it would undo each switch. Remove the object from that application without deleting it (`argocd app set … --sync-policy none`, then take the file out of its folder), then remove `argocd.argoproj.io/tracking-id` from the object (`kubectl annotate` or `kubectl label … argocd.argoproj.io/tracking-id-`)
    Deployment `shop` is managed by Argo CD (application `shop`): it would undo each switch. Remove the object from that application without deleting it (`argocd app set … --sync-policy none`, then take the file out of its folder), then remove `argocd.argoproj.io/instance` from the object (`kubectl annotate` or `kubectl label … argocd.argoproj.io/instance-`)
    nobody
    Deployment `shop` is managed by Flux (Kustomization `apps`): it would undo each switch. Set `spec.prune: false` there and take the object out of it, or annotate the object with `kustomize.toolkit.fluxcd.io/reconcile: disabled`
    nobody
    Deployment `shop` is managed by Flux (HelmRelease `shop`): it would undo each switch. Set `spec.prune: false` there and take the object out of it, or annotate the object with `helm.toolkit.fluxcd.io/reconcile: disabled`
    Deployment `shop` belongs to the Helm release `shop`: `helm upgrade` would undo each switch. To hand it over: annotate it with `helm.sh/resource-policy: keep`, take it out of the chart, `helm upgrade` once, then remove the annotation `meta.helm.sh/release-name` and the label `app.kubernetes.io/managed-by`
    nobody
    Deployment `shop` is managed by Shop `s`: change it there; an object with an owner can't be released
    nobody
    ");
}

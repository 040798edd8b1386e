use serde_json::{Value, json};
use switchover::manifests::{why, why_no_pods};

fn pod(statuses: Value, more: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": "shop-a-1"},
        "spec": {"nodeName": "n1", "containers": [{"name": "shop", "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"memory": "256Mi"}}, "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}}}]},
        "status": {"phase": "Pending", "containerStatuses": statuses},
    });
    for (key, value) in more.as_object().unwrap() {
        pod["status"][key] = value.clone();
    }
    pod
}

fn waits(reason: &str, message: &str) -> Value {
    pod(
        json!([{"name": "shop", "image": "acme/shop@sha256:1", "state": {"waiting": {"reason": reason, "message": message}}, "restartCount": 0}]),
        json!({}),
    )
}

fn event(reason: &str, message: &str) -> Value {
    json!({"reason": reason, "message": message})
}

#[test]
fn reasons_in_words() {
    let none: [Value; 0] = [];
    let mut out: Vec<String> = Vec::new();
    let mut say = |pod: &Value, events: &[Value]| out.push(why(pod, events, None).unwrap_or_else(|| "-".to_owned()));
    // Images.
    say(
        &waits("ImagePullBackOff", "Back-off pulling image"),
        &[event(
            "Failed",
            "Failed to pull image \"acme/shop@sha256:1\": failed to resolve reference: unexpected status from HEAD request to https://r/v2: 401 Unauthorized",
        )],
    );
    say(&waits("ErrImagePull", "rpc error: docker.io/acme/shop:x: not found"), &none);
    say(&waits("ErrImagePull", "toomanyrequests: You have reached your pull rate limit"), &none);
    say(&waits("ErrImagePull", "dial tcp: lookup r.example.com: no such host"), &none);
    say(&waits("ErrImageNeverPull", ""), &none);
    // Configuration.
    say(&waits("CreateContainerConfigError", "couldn't find key PORT in ConfigMap shop/shop-config"), &none);
    say(&waits("CreateContainerConfigError", "secret \"shop-keys\" not found"), &none);
    say(&waits("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"), &none);
    say(&waits("RunContainerError", "exec: \"serve\": executable file not found in $PATH"), &none);
    // Scheduling.
    say(
        &pod(
            json!([]),
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available: no victims."}]}),
        ),
        &none,
    );
    say(
        &pod(
            json!([]),
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available: persistentvolumeclaim \"files\" not found."}]}),
        ),
        &none,
    );
    say(
        &pod(
            json!([]),
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 node(s) had untolerated taint {a: b}."}]}),
        ),
        &none,
    );
    // Volumes, network.
    say(
        &waits("ContainerCreating", ""),
        &[event(
            "FailedAttachVolume",
            "Multi-Attach error for volume \"pvc-1\" Volume is already used by pod(s) shop-b",
        )],
    );
    say(
        &waits("ContainerCreating", ""),
        &[event("FailedMount", "MountVolume.SetUp failed for volume \"c\" : configmap \"shop-config\" not found")],
    );
    say(
        &waits("ContainerCreating", ""),
        &[event("FailedCreatePodSandBox", "plugin type=\"bridge\" failed: no IP addresses available")],
    );
    say(&waits("ContainerCreating", ""), &none);
    // Taken away.
    say(&pod(json!([]), json!({"reason": "Evicted", "message": "The node was low on resource: memory."})), &none);
    say(
        &pod(
            json!([]),
            json!({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "x"}]}),
        ),
        &none,
    );
    say(
        &pod(json!([]), json!({"conditions": [{"type": "Ready", "status": "False", "reason": "NodeNotReady"}]})),
        &none,
    );
    // Probes.
    let running = pod(
        json!([{"name": "shop", "state": {"running": {}}, "restartCount": 2}]),
        json!({"conditions": [{"type": "Ready", "status": "False"}]}),
    );
    say(&running, &[event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")]);
    say(
        &running,
        &[event(
            "Unhealthy",
            "Readiness probe failed: Get \"http://10.0.0.1:8080/ready\": dial tcp 10.0.0.1:8080: connect: connection refused",
        )],
    );
    say(
        &running,
        &[event("Unhealthy", "Liveness probe failed: Get \"http://10.0.0.1:8080/\": context deadline exceeded")],
    );
    say(&running, &none);
    say(&pod(json!([]), json!({"conditions": [{"type": "Ready", "status": "True"}]})), &none);
    insta::assert_snapshot!(out.join("\n"), @r#"
    the image `acme/shop@sha256:1` can't be pulled: the registry does not let the cluster in (or has no such image): is its login among the operator's registries? (the answer: Failed to pull image "acme/shop@sha256:1": failed to resolve reference: unexpected status from HEAD request to https://r/v2: 401 Unauthorized)
    the image `acme/shop@sha256:1` can't be pulled: the registry has no such image (the answer: rpc error: docker.io/acme/shop:x: not found)
    the image `acme/shop@sha256:1` can't be pulled: the registry allows no more pulls for now (the answer: toomanyrequests: You have reached your pull rate limit)
    the image `acme/shop@sha256:1` can't be pulled: the node does not reach the registry (the answer: dial tcp: lookup r.example.com: no such host)
    the image `acme/shop@sha256:1` is not on the node, and `imagePullPolicy: Never` forbids to fetch it
    ConfigMap `shop-config` has no key `PORT`: add it, or mark the reference `optional`
    Secret `shop-keys` is not there: add it to the manifests, or make it in the namespace
    the image runs as root, and `runAsNonRoot` forbids it: write `USER` with a number into the Dockerfile, or `runAsUser` into the manifest (container has runAsNonRoot and image will run as root)
    its command is not in the image: exec: "serve": executable file not found in $PATH
    no node has room for it, which asks for 500m CPU and 2Gi memory: 0/3 nodes are available: 3 Insufficient memory.
    a volume that it needs is not there: 0/3 nodes are available: persistentvolumeclaim "files" not found.
    no node takes it: 0/1 nodes are available: 1 node(s) had untolerated taint {a: b}.
    its volume is in use on another node: a ReadWriteOnce volume can't be in two slots at once (Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) shop-b)
    ConfigMap `shop-config` is not there, and a volume needs it
    the node can't set the pod up: plugin type="bridge" failed: no IP addresses available
    -
    it was evicted from the node `n1`: The node was low on resource: memory.
    it is pushed away from the node `n1` by a more important pod: x
    its node `n1` no longer answers
    its readiness probe (GET :8080/ready) fails: it answers 503
    its readiness probe (GET :8080/ready) fails: nobody listens there: Get "http://10.0.0.1:8080/ready": dial tcp 10.0.0.1:8080: connect: connection refused
    its liveness probe fails: it does not answer in time: Get "http://10.0.0.1:8080/": context deadline exceeded; it was killed for it and started again (2 times)
    it runs, and is not ready yet
    -
    "#);
}

#[test]
fn crashes_with_their_last_lines() {
    let crashed = |ended: Value, restarts: u32| {
        pod(
            json!([{"name": "shop", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": ended}, "restartCount": restarts}]),
            json!({}),
        )
    };
    let log: Vec<String> = (0..40).map(|n| format!("line {n} with \u{1b}[31m colour")).collect();
    let told = why(&crashed(json!({"exitCode": 1, "reason": "Error"}), 3), &[], Some(&log)).unwrap();
    assert_eq!(told.lines().count(), 31);
    let rest = [
        why(&crashed(json!({"exitCode": 1, "reason": "Error"}), 1), &[], Some(&["Error: no DB_URL".to_owned()])),
        why(&crashed(json!({"exitCode": 137, "reason": "OOMKilled"}), 2), &[], None),
        why(&crashed(json!({"exitCode": 0, "reason": "Completed"}), 2), &[], None),
        why(&crashed(json!({"exitCode": 139, "reason": "Error"}), 2), &[], None),
        why(
            &crashed(json!({"exitCode": 128, "reason": "StartError", "message": "exec /app: exec format error"}), 2),
            &[],
            None,
        ),
        why(&crashed(json!({"exitCode": 134, "reason": "Error"}), 2), &[], None),
    ];
    insta::assert_snapshot!(rest.map(Option::unwrap).join("\n"), @r"
    it crashed with exit code 1, and was started again once. Its last lines:
        Error: no DB_URL
    it ran out of memory: it may use 256Mi (`resources.limits.memory`), and was started again 2 times
    it ended by itself with exit code 0; an app must keep running, and was started again 2 times
    it crashed with a segmentation fault (exit code 139), and was started again 2 times
    the image is built for another kind of processor: exec /app: exec format error, and was started again 2 times
    it crashed by signal 6 (exit code 134), and was started again 2 times
    ");
    // An init container that did its work is no reason; the one that failed is.
    let mut with_init = crashed(json!({"exitCode": 1}), 1);
    with_init["spec"]["initContainers"] = json!([{"name": "migrate"}]);
    with_init["status"]["initContainerStatuses"] =
        json!([{"name": "migrate", "state": {"terminated": {"exitCode": 0}}, "restartCount": 0}]);
    assert!(why(&with_init, &[], None).unwrap().starts_with("container `shop`: it crashed"));
    with_init["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] = 2.into();
    assert!(why(&with_init, &[], None).unwrap().starts_with("container `migrate`: it crashed with exit code 2"));
}

#[test]
fn no_pods_at_all() {
    let failing = |message: &str| {
        why_no_pods(
            &json!({"status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": message}]}}),
            &[],
        )
        .unwrap()
    };
    let all = [
        failing(
            "pods \"shop-1\" is forbidden: exceeded quota: team, requested: limits.memory=1Gi, used: limits.memory=3Gi, limited: limits.memory=3Gi",
        ),
        failing("pods \"shop-1\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true"),
        failing(
            "pods \"shop-1\" is forbidden: error looking up service account shop/api: serviceaccount \"api\" not found",
        ),
        failing("admission webhook \"policy.example.com\" denied the request: no latest"),
        why_no_pods(&json!({}), &[event("FailedCreate", "Error creating: Internal error")]).unwrap(),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    the namespace's quota does not allow another pod: team, requested: limits.memory=1Gi, used: limits.memory=3Gi, limited: limits.memory=3Gi
    the namespace's pod security does not allow this pod: "restricted:latest": runAsNonRoot != true
    the service account `shop/api` is not there: make it, or remove `serviceAccountName`
    a rule of the cluster refuses the pod: admission webhook "policy.example.com" denied the request: no latest
    the cluster refuses the pod: Error creating: Internal error
    "#);
    assert_eq!(why_no_pods(&json!({}), &[event("ScalingReplicaSet", "up")]), None);
}

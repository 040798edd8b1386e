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
    insta::assert_snapshot!(out.join("\n"), @"");
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
    insta::assert_snapshot!(rest.map(Option::unwrap).join("\n"), @"");
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
    insta::assert_snapshot!(all.join("\n"), @"");
    assert_eq!(why_no_pods(&json!({}), &[event("ScalingReplicaSet", "up")]), None);
}

use switchover::{
    domain::{config::AppKind, ids::AppName},
    manifests::{AppFacts, Script},
};

use super::{PAIR_SERVICE, SINGLE, app, colour, tie_up, told};

/// A plain Deployment with probes and all, so that nothing is warned about.
fn deployment(name: &str, image: &str, labels: &str, more: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  selector: {{matchLabels: {labels}}}\n  template:\n    metadata: {{labels: {labels}}}\n    spec:\n      containers:\n        - {{name: {name}, image: \"{image}\", readinessProbe: {{tcpSocket: {{port: 80}}}}, lifecycle: {{preStop: {{sleep: {{seconds: 5}}}}}}}}\n{more}---\n"
    )
}

fn service(name: &str, selector: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {selector}, ports: [{{port: 80, targetPort: 8080}}]}}\n---\n"
    )
}

#[test]
fn one_deployment_and_its_service() {
    insta::assert_snapshot!(told(&tie_up(&[app("shop", "docker.io/acme/shop")], &[("k8s/shop.yaml", SINGLE)], &[])), @r"
    shop: Deployment shop
      container shop
      service: Service shop
      configs: ConfigMap shop-config
    ");
}

#[test]
fn a_pair_by_its_shape() {
    let (blue, green) = (colour("blue"), colour("green"));
    let files = [
        ("cicd/deployment-blue.yml", blue.as_str()),
        ("cicd/deployment-green.yml", &green),
        ("cicd/service.yml", PAIR_SERVICE),
    ];
    insta::assert_snapshot!(told(&tie_up(&[app("shop", "acme/shop")], &files, &[])), @r"
    shop: pair by slot: blue = Deployment shop-blue, green = Deployment shop-green
      container shop
      service: Service shop
    ");
}

/// What differs, what the Services select, and what it is taken for.
#[test]
fn what_is_a_pair_and_what_is_not() {
    let two = |one: (&str, &str, &str), other: (&str, &str, &str), services: &str| {
        let yaml = deployment(one.0, one.1, one.2, "") + &deployment(other.0, other.1, other.2, "") + services;
        let tied = tie_up(&[app("x", "acme/x")], &[("k8s/a.yaml", yaml.trim_end_matches("---\n"))], &[]);
        told(&tied).lines().next().unwrap_or_default().to_owned()
    };
    let mut out = Vec::new();
    // The label may be called as it likes, and one label may be all there is.
    for (label, a, b) in
        [("ver", "blue", "green"), ("deployment", "a", "b"), ("stage", "v1", "v2"), ("라벨x", "blue", "green")]
    {
        let labels = |v: &str| format!("{{app: x, \"{label}\": {v}}}");
        let service = service("x", &labels(a));
        out.push(two(
            (&format!("x-{a}"), "acme/x:1", &labels(a)),
            (&format!("x-{b}"), "acme/x:2", &labels(b)),
            &service,
        ));
    }
    out.push(two(
        ("x-blue", "acme/x:1", "{app: x-blue}"),
        ("x-green", "acme/x:2", "{app: x-green}"),
        &service("x", "{app: x-blue}"),
    ));
    // A placeholder in the Service.
    let (blue, green) = ("{app: x, c: blue}", "{app: x, c: green}");
    out.push(two(("x-blue", "acme/x", blue), ("x-green", "acme/x", green), &service("x", "{app: x, c: \"${COLOR}\"}")));
    // A preview of each, and the one that is switched.
    let previews = service("x-blue", blue) + &service("x-green", green) + &service("x", green);
    out.push(two(("x-blue", "acme/x", blue), ("x-green", "acme/x", green), &previews));
    // No Service, or one over both.
    out.push(two(("x-blue", "acme/x", blue), ("x-green", "acme/x", green), ""));
    out.push(two(("x-blue", "acme/x", blue), ("x-green", "acme/x", green), &service("x", "{app: x}")));
    // A label that follows the colour.
    let (blue, green) = ("{app: x, v: v1, c: blue}", "{app: x, v: v2, c: green}");
    out.push(two(("x-blue", "acme/x", blue), ("x-green", "acme/x", green), &service("x", blue)));
    // Two apps of one image, each with its Service: no pair.
    let services = service("x-a", "{app: x-eu}") + &service("x-b", "{app: x-us}");
    out.push(two(("x-eu", "acme/x", "{app: x-eu}"), ("x-us", "acme/x", "{app: x-us}"), &services));
    // Another image: no pair, whatever they are called.
    out.push(two(("x-blue", "acme/x", "{c: blue}"), ("x-green", "acme/y", "{c: green}"), &service("x", "{c: blue}")));
    insta::assert_snapshot!(out.join("\n"), @r"
    x: pair by ver: blue = Deployment x-blue, green = Deployment x-green
    x: pair by deployment: a = Deployment x-a, b = Deployment x-b
    x: pair by stage: v1 = Deployment x-v1, v2 = Deployment x-v2
    x: pair by 라벨x: blue = Deployment x-blue, green = Deployment x-green
    x: pair by app: x-blue = Deployment x-blue, x-green = Deployment x-green
    x: pair by c: blue = Deployment x-blue, green = Deployment x-green
    x: pair by c: blue = Deployment x-blue, green = Deployment x-green
    x: pair by c: blue = Deployment x-blue, green = Deployment x-green
    x: pair by c: blue = Deployment x-blue, green = Deployment x-green
    x: pair by c: blue = Deployment x-blue, green = Deployment x-green
    unclear: x: it is not clear what runs it: Deployment `x-eu` (k8s/a.yaml:1), or Deployment `x-us` (k8s/a.yaml:12). Write the app's name as the right one is called: `x-eu:` in place of `x:`, under `apps` in .github/switchover.yml.
    x: Deployment x-blue
    ");
}

#[test]
fn a_pair_that_drifted_apart_is_told() {
    let green = colour("green")
        .replace("port: 8080", "port: 8081")
        .replace("      terminationGrace", "      priorityClassName: x\n      terminationGrace");
    let yaml = [colour("blue"), green, PAIR_SERVICE.to_owned()].join("---\n");
    insta::assert_snapshot!(told(&tie_up(&[app("shop", "acme/shop")], &[("k8s/a.yaml", &yaml)], &[])), @r"
    shop: pair by slot: blue = Deployment shop-blue, green = Deployment shop-green
      container shop
      service: Service shop
    warning: k8s/a.yaml:1 and k8s/a.yaml:23 are a pair, and differ beyond the label `slot`: in `spec.template.spec.containers[shop].readinessProbe.httpGet.p…`, `spec.template.spec.priorityClassName`. Each keeps what it has; if that is not meant, make them equal.
    ");
}

/// Front and back end, a database beside, and everything that belongs to them.
#[test]
fn several_apps_with_all_their_parts() {
    let back = deployment(
        "backend",
        "registry.example.com:5000/acme/shop-backend:VERSION",
        "{app: backend}",
        "      initContainers:\n        - {name: migrate, image: 'registry.example.com:5000/acme/shop-backend:VERSION'}\n        - {name: wait, image: 'busybox:1'}\n      volumes:\n        - {name: c, configMap: {name: backend-config}}\n        - {name: p, projected: {sources: [{secret: {name: backend-keys}}]}}\n      imagePullSecrets: [{name: hub}]\n",
    );
    let front = deployment("frontend", "IMAGE_PLACEHOLDER", "{app: frontend}", "");
    let rest = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: backend}\nspec: {minReplicas: 2, maxReplicas: 9, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: backend}}\n---\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: backend}\nspec: {minAvailable: 1, selector: {matchLabels: {app: backend}}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: backend-config}\ndata: {A: '1'}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: backend-keys}\nstringData: {K: v}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: hub}\ntype: kubernetes.io/dockerconfigjson\ndata: {.dockerconfigjson: e30=}\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec: {tls: [{secretName: tls}], rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: frontend, port: {number: 80}}}}]}}]}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: tls}\n---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: report}\nspec: {schedule: '@daily', jobTemplate: {spec: {template: {spec: {containers: [{name: r, image: 'registry.example.com:5000/acme/shop-backend:VERSION', envFrom: [{configMapRef: {name: backend-config}}]}]}}}}}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: back-only}\nspec: {podSelector: {matchLabels: {app: backend}}}\n---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: mysql}\nspec: {serviceName: mysql, selector: {matchLabels: {app: mysql}}, template: {metadata: {labels: {app: mysql}}, spec: {containers: [{name: m, image: 'mysql:8'}]}}}\n---\n";
    let load = deployment("k6-load", "grafana/k6", "{app: k6}", "");
    let strange = deployment("billing", "acme/billing:3", "{app: billing}", "") + &service("billing", "{app: billing}");
    let redis = deployment("cache", "bitnami/redis:7", "{app: cache}", "");
    let old = deployment("backend", "acme/shop-backend:1", "{app: backend, old: 'yes'}", "");
    let yaml = back
        + &front
        + &service("backend", "{app: backend}")
        + &service("frontend", "{app: frontend}")
        + &service("mysql", "{app: mysql}")
        + rest
        + &load
        + &strange
        + &redis;
    let apps = [
        app("backend", "registry.example.com:5000/acme/shop-backend"),
        app("frontend", "registry.example.com:5000/acme/shop-frontend"),
    ];
    let script = Script {
        path: "Jenkinsfile",
        text: "sh \"sed -i 's|IMAGE_PLACEHOLDER|registry.example.com:5000/acme/shop-frontend:${TAG}|' k8s/all.yaml\"\nsh 'kubectl apply -f k8s/all.yaml'",
    };
    let files =
        [("k8s/all.yaml", yaml.trim_end_matches("---\n")), ("k8s/old/backend.yaml", old.trim_end_matches("---\n"))];
    insta::assert_snapshot!(told(&tie_up(&apps, &files, &[script])), @r"
    backend: Deployment backend
      container backend, also migrate
      service: Service backend
      configs: ConfigMap backend-config, Secret backend-keys
      autoscaler: HorizontalPodAutoscaler backend
      budgets: PodDisruptionBudget backend
      shared: StatefulSet mysql, Deployment cache, Service mysql, ConfigMap backend-config, Secret hub, Secret tls, CronJob report, NetworkPolicy back-only
    frontend: Deployment frontend
      container frontend
      service: Service frontend
      shared: Ingress web
    note: k8s/old/backend.yaml: left out, because it looks like a copy that is no longer used
    note: k8s/all.yaml:95: Deployment `k6-load` is a load test: left out
    note: k8s/all.yaml:106: Deployment `billing` runs `acme/billing:3`, which none of the apps does: left out
    note: k8s/all.yaml:117: Service `billing` goes with it: left out
    ");
}

#[test]
fn ways_to_tell_which_is_which() {
    let ways = |one: &str, other: &str, apps: &[AppFacts], files: [&str; 2], script: &str| {
        let (one, other) =
            (deployment(one, "${IMAGE}", "{app: one}", ""), deployment(other, "${IMAGE}", "{app: two}", ""));
        let files = [(files[0], one.trim_end_matches("---\n")), (files[1], other.trim_end_matches("---\n"))];
        let script = Script { path: "deploy.sh", text: script };
        told(&tie_up(apps, &files, &[script])).lines().filter(|l| !l.starts_with(' ')).collect::<Vec<_>>().join("\n")
    };
    let mut out = Vec::new();
    let named = [app("backend", ""), app("frontend", "")];
    out.push(ways("shop-backend", "shop-web", &named, ["a.yaml", "b.yaml"], ""));
    let mut placed = [app("one", ""), app("two", "")];
    placed[0].path = "services/orders".to_owned();
    placed[1].path = "services/users".to_owned();
    out.push(ways("x", "w", &placed, ["services/users/k8s/d.yaml", "services/orders/k8s/d.yaml"], ""));
    out.push(ways("x", "w", &placed, ["k8s/users/d.yaml", "k8s/orders/d.yaml"], ""));
    let imaged = [app("one", "acme/orders"), app("two", "acme/users")];
    let set = "IMG=acme/orders\nkubectl set image deployment/w c=$IMG:1 -n prod\nkubectl -n prod set image deploy x c=acme/users:${TAG}\n";
    out.push(ways("x", "w", &imaged, ["a.yaml", "b.yaml"], set));
    let sed = "sed -i \"s#IMAGE#acme/orders:${TAG}#g\" k8s/b.yaml\nsed -e 's|x|acme/users:1|' k8s/a.yaml | kubectl apply -f -";
    out.push(ways("x", "w", &imaged, ["k8s/a.yaml", "k8s/b.yaml"], sed));
    insta::assert_snapshot!(out.join("\n\n"), @r"
    backend: Deployment shop-backend
    frontend: Deployment shop-web

    one: Deployment w
    two: Deployment x

    one: Deployment w
    two: Deployment x

    one: Deployment w
    two: Deployment x

    one: Deployment w
    two: Deployment x
    ");
}

#[test]
fn what_is_not_clear_is_asked_with_the_line() {
    let ask = |apps: &[AppFacts], yaml: &str| {
        let tied = tie_up(apps, &[("k8s/a.yaml", yaml.trim_end_matches("---\n"))], &[]);
        tied.unclear.join("\n")
    };
    let mut out = Vec::new();
    let (x, y) = (deployment("x", "acme/x:1", "{app: x}", ""), deployment("w", "acme/w:1", "{app: w}", ""));
    out.push(ask(&[app("shop", "")], &(x.clone() + &y)));
    out.push(ask(
        &[app("shop", "acme/x")],
        &(x.clone()
            + &deployment("x-eu", "acme/x:1", "{app: x-eu}", "")
            + &deployment("x-us", "acme/x:1", "{app: x-us}", "")),
    ));
    out.push(ask(&[app("one", "acme/x"), app("two", "acme/x")], &x));
    out.push(ask(
        &[app("x", "acme/x"), app("w", "acme/w")],
        &(deployment("x", "acme/x", "{app: s, n: x}", "")
            + &deployment("w", "acme/w", "{app: s, n: w}", "")
            + &service("s", "{app: s}")),
    ));
    out.push(ask(&[app("x", "acme/x")], &(x.clone() + &x.replace("port: 80", "port: 81"))));
    insta::assert_snapshot!(out.join("\n\n"), @r"
    shop: it is not clear what runs it: Deployment `x` (k8s/a.yaml:1), or Deployment `w` (k8s/a.yaml:12). Write `image: docker.io/acme/x` with the name of the right one's image, under `apps.shop` in .github/switchover.yml.

    shop: it is not clear what runs it: Deployment `x` (k8s/a.yaml:1), or Deployment `x-eu` (k8s/a.yaml:12), or Deployment `x-us` (k8s/a.yaml:23). Write the app's name as the right one is called: `x:` in place of `shop:`, under `apps` in .github/switchover.yml.

    Deployment `x` (k8s/a.yaml:1) may run each of the apps `one`, `two`: name one of them as it is, under `apps` in .github/switchover.yml: `x:`.

    k8s/a.yaml:23: Service `s` selects the pods of x and w: add a label to its selector that only one of them has.

    Deployment `x` stands in several files (k8s/a.yaml:1, k8s/a.yaml:12): remove all but one, or name the folder of one in the environment: `manifests: k8s`.
    ");
}

#[test]
fn workers_and_apps_without_manifests() {
    let mut worker = app("mailer", "acme/shop");
    worker.kind = AppKind::Worker;
    worker.image_of = Some(AppName::new("shop").unwrap());
    let yaml = deployment("shop", "acme/shop:1", "{app: shop}", "")
        + &deployment("shop-mailer", "acme/shop:1", "{app: mailer}", "")
        + &deployment("shop-cleaner", "acme/shop:1", "{app: cleaner}", "");
    let apps = [app("shop", "acme/shop"), worker, app("admin", "acme/admin")];
    insta::assert_snapshot!(told(&tie_up(&apps, &[("k8s/a.yaml", yaml.trim_end_matches("---\n"))], &[])), @r"
    mailer: Deployment shop-mailer
      container shop-mailer
    shop: Deployment shop
      container shop
    warning: Deployment `shop-cleaner` (k8s/a.yaml:23) runs the image of shop too, and no app is named so: it is left as it is, with its old image. To release it with the others, write `shop-cleaner: {image_of: shop}` under `apps` in .github/switchover.yml, with `kind: worker` if it answers no requests.
    note: admin: no manifest runs it: a plain Deployment and Service are made for it
    ");
}

#[test]
fn copies_for_environments() {
    let of = |replicas: &str| {
        deployment("shop", "acme/shop:1", "{app: shop}", "")
            .replace("spec:\n  selector", &format!("spec:\n  replicas: {replicas}\n  selector"))
            .trim_end_matches("---\n")
            .to_owned()
    };
    let (dev, prod) = (of("1"), of("5"));
    let files =
        [("deploy/dev/shop.yaml", dev.as_str()), ("deploy/prod/shop.yaml", &prod), ("deploy/shop-staging.yaml", &dev)];
    let tied = tie_up(&[app("shop", "acme/shop")], &files, &[]);
    assert_eq!(tied.apps.values().next().unwrap().workloads().next().unwrap()["spec"]["replicas"], 5);
    insta::assert_snapshot!(told(&tied), @r"
    shop: Deployment shop
      container shop
    note: deploy/dev/shop.yaml: left out, because it is for another environment than `production`
    note: deploy/shop-staging.yaml: left out, because it is for another environment than `production`
    ");
    // CI tells which of two is applied; Services that differ in where they point are one.
    let files = [("k8s/a.yaml", dev.as_str()), ("k8s/b.yaml", &prod)];
    let script = Script { path: ".github/workflows/cd.yml", text: "      run: kubectl apply -f ./k8s/b.yaml" };
    let tied = tie_up(&[app("shop", "acme/shop")], &files, &[script]);
    assert_eq!(tied.apps.values().next().unwrap().workloads().next().unwrap()["spec"]["replicas"], 5);
    let (blue, green) = (colour("blue"), colour("green"));
    let other = PAIR_SERVICE.replace("blue", "green");
    let files = [
        ("b.yml", blue.as_str()),
        ("g.yml", &green),
        ("service-blue.yml", PAIR_SERVICE),
        ("service-green.yml", &other),
    ];
    insta::assert_snapshot!(told(&tie_up(&[app("shop", "acme/shop")], &files, &[])), @r"
    shop: pair by slot: blue = Deployment shop-blue, green = Deployment shop-green
      container shop
      service: Service shop
    note: Service `shop` stands in 2 files that differ in where it points alone: service-blue.yml is taken
    ");
}

#[test]
fn what_cannot_be_blue_green_is_said() {
    let said = |yaml: &str, worker: bool| {
        let mut app = app("shop", "acme/shop");
        if worker {
            app.kind = AppKind::Worker;
        }
        let tied = tie_up(&[app], &[("k8s/a.yaml", yaml.trim_end_matches("---\n"))], &[]);
        if tied.unclear.is_empty() { "fine".to_owned() } else { tied.unclear.join("\n") }
    };
    let shop = deployment("shop", "acme/shop:1", "{app: shop}", "");
    let claim = deployment(
        "shop",
        "acme/shop:1",
        "{app: shop}",
        "      volumes:\n        - name: data\n          persistentVolumeClaim: {claimName: files}\n",
    );
    let pvc = |mode: &str| {
        format!(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: files}}\nspec:\n  accessModes: [{mode}]\n"
        )
    };
    let once = claim.clone() + &pvc("ReadWriteOnce");
    let out = [
        said(&shop.replace("kind: Deployment", "kind: StatefulSet"), false),
        said(&shop.replace("kind: Deployment", "kind: DaemonSet"), false),
        said(&shop.replace("image:", "ports: [{hostPort: 80}], image:"), false),
        said(&once, false),
        said(&once, true),
        said(&(claim + &pvc("ReadWriteMany")), false),
    ];
    insta::assert_snapshot!(out.join("\n"), @r"
    shop: k8s/a.yaml:1 is a StatefulSet, which can't be released blue/green: its pods have names and volumes of their own, so there can't be two sets of them. Write it as a Deployment that keeps its data in a database, or leave the app out of `apps`: then it is applied as it is.
    shop: k8s/a.yaml:1 is a DaemonSet, which can't be released blue/green: it runs once on each node, so there can't be a second one beside it. Write it as a Deployment that keeps its data in a database, or leave the app out of `apps`: then it is applied as it is.
    shop: k8s/a.yaml:10 is a `hostPort`: two releases can't have one port of a node. Remove the line; a Service leads to the container's port.
    shop: k8s/a.yaml:12 mounts the claim `files`, which is ReadWriteOnce (k8s/a.yaml:19): two releases on different nodes can't have it at once. Use a class that offers `ReadWriteMany`, keep the files elsewhere, or write `kind: worker` under `apps.shop`, if it may stop during a release.
    fine
    fine
    ");
}

#[test]
fn warnings_have_the_line_to_write() {
    let bare = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop}\nspec:\n  selector: {matchLabels: {app: shop}}\n  template:\n    metadata: {labels: {app: shop}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: h}]}}\n      volumes: [{name: v, persistentVolumeClaim: {claimName: gone}}]\n      containers:\n        - name: shop\n          image: acme/shop\n          imagePullPolicy: Never\n          envFrom: [{secretRef: {name: by-hand}}]\n---\napiVersion: v1\nkind: Service\nmetadata: {name: shop}\nspec: {type: LoadBalancer, externalTrafficPolicy: Local, selector: {app: shop}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: shop-headless}\nspec: {clusterIP: None, selector: {app: shop}}\n";
    let mut facts = app("shop", "acme/shop");
    facts.health = Some("/health".to_owned());
    insta::assert_snapshot!(told(&tie_up(&[facts], &[("k8s/a.yaml", bare)], &[])), @r#"
    shop: Deployment shop
      container shop
      service: Service shop
      shared: Service shop-headless
    warning: k8s/a.yaml:23: Service `shop-headless` selects shop's pods too, and only `shop` is switched: through it, both releases answer while one is being made ready. Remove it, or let its users come through `shop`.
    warning: k8s/a.yaml:15: `imagePullPolicy: Never` keeps nodes from fetching a new release: remove the line.
    warning: k8s/a.yaml:11: the claim `gone` is not among the manifests. Unless it is `ReadWriteMany`, two releases can't have it at once.
    warning: k8s/a.yaml:10: a required anti-affinity counts both releases: twice as many nodes are needed during one. Write `preferredDuringSchedulingIgnoredDuringExecution`, or `topologySpreadConstraints` with `matchLabelKeys: [pod-template-hash]`.
    warning: k8s/a.yaml:13: the container `shop` has no readiness probe: one is made that asks for /health. Better, write there: `readinessProbe: {httpGet: {path: /health, port: 8080}}`.
    warning: k8s/a.yaml:9: `terminationGracePeriodSeconds: 0` cuts every request that is being answered when a pod ends. Write the longest request in its place: `terminationGracePeriodSeconds: 40`.
    warning: k8s/a.yaml:13: the container `shop` has no `preStop`: a pod that ends still gets requests for a moment. Write there: `lifecycle: {preStop: {sleep: {seconds: 5}}}` (before Kubernetes 1.30: `{preStop: {exec: {command: [sleep, "5"]}}}`).
    warning: k8s/a.yaml:21: `externalTrafficPolicy: Local` answers a request only on a node with a pod of the app: a release waits until its pods are on every node where those of the release before are. Remove the line, unless the clients' addresses are needed.
    note: shop: Secret `by-hand` is named by its pods and is not among the manifests: taken as it stands in the namespace, and no part of the release
    "#);
    let budget = "---\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: shop}\nspec: {minAvailable: 1, selector: {matchLabels: {app: shop}}}\n";
    let scaler = |c: &str| {
        format!(
            "---\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: shop-{c}}}\nspec: {{scaleTargetRef: {{kind: Deployment, name: shop-{c}}}}}\n"
        )
    };
    let yaml = [colour("blue"), colour("green"), PAIR_SERVICE.to_owned()].join("---\n")
        + budget
        + &scaler("blue")
        + &scaler("green");
    insta::assert_snapshot!(told(&tie_up(&[app("shop", "acme/shop")], &[("k8s/a.yaml", &yaml)], &[])), @r"
    shop: pair by slot: blue = Deployment shop-blue, green = Deployment shop-green
      container shop
      service: Service shop
      autoscaler: HorizontalPodAutoscaler shop-blue
      budgets: PodDisruptionBudget shop
    warning: k8s/a.yaml:62: shop has a second HorizontalPodAutoscaler; only `shop-blue` is applied, and always points at what serves. Remove this one, here and in the cluster: `kubectl delete hpa shop-green`.
    warning: k8s/a.yaml:52: PodDisruptionBudget `shop` counts blue and green together, so nodes could be drained of all that serves: it is applied with `slot: blue`, and a copy of it for green.
    note: k8s/a.yaml:7: `replicas` is not applied, because `shop-blue` sets it
    ");
}

use serde_json::json;
use switchover::manifests::{Source, read, sort};

use super::{read_files, title};

/// What was read: titles with places, then refusals, then notes.
fn said(files: &[(&str, &str)]) -> String {
    let read = read_files(files);
    let objects = read.objects.iter().map(|o| format!("{} at {}", title(&o.value), o.at()));
    let refused = read.refused.iter().map(|r| format!("refused {r}"));
    let notes = read.notes.iter().map(|n| format!("note {n}"));
    objects.chain(refused).chain(notes).collect::<Vec<_>>().join("\n")
}

#[test]
fn documents_lists_line_ends_and_names() {
    let crlf = "\u{FEFF}apiVersion: v1\r\nkind: ConfigMap\r\nmetadata:\r\n  name: a\r\ndata:\r\n  t: |\r\n    eins\r\n    zwei\r\n---\r\n# nothing\r\n---\r\napiVersion: v1\r\nkind: Service\r\nmetadata: {name: b}\r\n";
    let list = "apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: ConfigMap\n    metadata: {name: c}\n  - apiVersion: v1\n    kind: ConfigMapList\n    items: [{apiVersion: v1, kind: ConfigMap, metadata: {name: d}}]\n";
    let json = r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "e"}}"#;
    insta::assert_snapshot!(said(&[("쿠버네티스/설정.yaml", crlf), ("k8s/list.yml", list), ("k8s/e.json", json)]), @r"
    ConfigMap a at 쿠버네티스/설정.yaml:1
    Service b at 쿠버네티스/설정.yaml:12
    ConfigMap c at k8s/list.yml:4
    ConfigMap d at k8s/list.yml:9
    Secret e at k8s/e.json:1
    ");
    assert_eq!(read_files(&[("a.yaml", crlf)]).objects[0].value["data"]["t"], "eins\nzwei\n");
}

#[test]
fn scalars_are_typed_as_kubectl_types_them() {
    let yaml = "apiVersion: v1\nkind: X\nmetadata: {name: x}\nspec:\n  - [0644, 0o644, 0x1F, 0b11, 089, 1_000, +5, -7, 9223372036854775808, 123456789012345678901234567890]\n  - [1.10, 1e3, 5., .5, -2.5E-3, 1.2.3, 12e, 0x, 12:30:45, 2026-01-02, 1234e5]\n  - [yes, No, on, OFF, y, n, true, False, ~, null, Null, '']\n  - ['yes', \"0644\", '1', !!str 5, _1, 0.0.0.0, 8080/TCP, =, <<x]\n";
    let read = read_files(&[("x.yaml", yaml)]);
    assert_eq!(
        read.objects[0].value["spec"],
        json!([
            [420, 420, 31, 3, 89, 1000, 5, -7, 9_223_372_036_854_775_808_u64, 1.234_567_890_123_456_8e29],
            [1.1, 1000, 5, 0.5, -0.0025, "1.2.3", "12e", "0x", "12:30:45", "2026-01-02", 123_400_000],
            [true, false, true, false, true, false, true, false, null, null, null, ""],
            ["yes", "0644", "1", "5", "_1", "0.0.0.0", "8080/TCP", "=", "<<x"],
        ])
    );
}

#[test]
fn keys_anchors_and_merges() {
    let yaml = "apiVersion: v1\nkind: X\nmetadata: {name: x}\ncommon: &c {a: 1, b: 2}\nmore: &m {b: 3, d: 4}\none: {<<: *c, b: 9}\ntwo:\n  <<: [*c, *m]\n  'on': quoted\n  on: bare\n  8080: number\nalias: *c\n";
    let read = read_files(&[("x.yaml", yaml)]);
    let value = &read.objects[0].value;
    assert_eq!(value["one"], json!({"b": 9, "a": 1}));
    assert_eq!(value["two"], json!({"on": "quoted", "true": "bare", "8080": "number", "a": 1, "b": 2, "d": 4}));
    assert_eq!(value["alias"], json!({"a": 1, "b": 2}));
    assert_eq!(read.objects[0].line_at("/two/true"), 10);
    assert_eq!(read.objects[0].line_at("/two/d"), 5);
    assert_eq!(read.objects[0].line_at("/two/nothing/here"), 7);
}

#[test]
fn what_only_a_live_object_has_is_taken_away() {
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: x\n  uid: 1-2\n  resourceVersion: '5'\n  creationTimestamp: null\n  managedFields: []\n  annotations:\n    kubectl.kubernetes.io/last-applied-configuration: '{}'\nspec:\n  template:\n    metadata: {creationTimestamp: null, labels: {a: b}}\nstatus: {replicas: 1}\n";
    let read = read_files(&[("x.yaml", yaml)]);
    assert_eq!(
        read.objects[0].value,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"},
            "spec": {"template": {"metadata": {"labels": {"a": "b"}}}},
        })
    );
}

#[test]
fn mistakes_name_place_and_mend() {
    let deep = format!("apiVersion: v1\nkind: X\nspec: {}", "[".repeat(200));
    let mut bomb = "apiVersion: v1\nkind: X\nmetadata: {name: x}\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..8 {
        let uses = vec![format!("*a{}", i - 1); 10].join(",");
        bomb.push_str(&format!("a{i}: &a{i} [{uses}]\n"));
    }
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: ${APP}-blue\n";
    let env = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x, labels: {v: 1.0}}\nspec:\n  template:\n    spec:\n      containers:\n        - name: c\n          env:\n            - name: PORT\n              value: 8080\n            - {name: ON, value: yes}\n";
    insta::assert_snapshot!(said(&[
        ("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: x\n"),
        ("b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  a: '1'\n  a: '2'\n"),
        ("c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  port: 8080\n  on: true\n  off: 'no'\n"),
        ("d.yaml", deployment),
        ("e.yaml", "kind: Service\nmetadata: {name: x} # apiVersion\n"),
        ("f.yaml", "apiVersion: v1\nkind: Service\nmetadata: {}\n"),
        ("g.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: Shop_Service}\n"),
        ("h.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: 8080}\n"),
        ("i.yaml", "apiVersion: v1\nkind: Service\nmetadata:\n  name: {{ .Release.Name }}-x\n"),
        ("j.yaml", env),
        ("k.yaml", &deep),
        ("l.yaml", &bomb),
        ("m.yaml", "apiVersion: v1\nkind: Job\nmetadata: {generateName: x-}\n"),
        ("n.yaml", "apiVersion: v1\nkind: X\nmetadata: {name: x}\nspec: .nan\n"),
        ("values.yaml", "image: acme/shop\n"),
        ("broken.yaml", "a: [\n"),
        ("kind.yaml", "apiVersion: kind.x-k8s.io/v1alpha4\nkind: Cluster\n"),
    ]), @r"
    ConfigMap x at c.yaml:1
    Deployment x at j.yaml:1
    refused a.yaml:4: this is not YAML: tabs disallowed within this context (block indentation): expected spaces for indentation
    refused b.yaml:7: `a` stands here a second time (first in line 6): one must go
    refused c.yaml:6: the value of `port` must be a text: put quotes around `8080`
    refused c.yaml:7: the value of `true` must be a text: put quotes around `true`
    refused d.yaml:4: the name `${APP}-blue` of this Deployment is filled in by a script: write it out. One Deployment is enough, Switchover makes the two itself
    refused e.yaml:1: the object has no `apiVersion`: write it, or remove the document
    refused f.yaml:3: Service has no `metadata.name`: write one
    refused g.yaml:3: the name `Shop_Service` is none that Kubernetes takes: lower-case letters, digits, dashes and dots, beginning and ending with a letter or digit
    refused h.yaml:3: the name `8080` of this Service is no text: put it in quotes
    refused i.yaml:4: this is a template (`{{ … }}`), not a manifest: a Helm chart needs its Chart.yaml beside `templates/`; otherwise write the values out
    refused j.yaml:11: the value of `PORT` must be a text: put it in quotes
    refused j.yaml:12: the name of a variable must be a text: put it in quotes
    refused j.yaml:3: the value of `v` must be a text: put quotes around `1`
    refused k.yaml:3: nested too deeply: expected at most 64 levels of nesting
    refused l.yaml:9: the file expands to more than 399948 values: expected fewer values, or fewer uses of aliases
    refused m.yaml:3: Job has a `generateName`: write a `name`, so that it can be found again
    refused n.yaml:4: `.nan` is no number that JSON has: put it in quotes if it is a text
    note `values.yaml` holds no Kubernetes object: left out
    note `broken.yaml` holds no Kubernetes object: left out
    note kind.yaml:1: `Cluster` is a tool's setting, no object: left out
    ");
}

#[test]
fn encodings_are_named() {
    let utf16: Vec<u8> = [0xFF, 0xFE].into_iter().chain("kind: X".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let latin = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: \"gr\xFC\xDFe\"}\n";
    let large = vec![b'#'; 3 << 20];
    let files: [(&str, &[u8]); 3] = [("a.yaml", &utf16), ("b.yaml", latin), ("c.yaml", &large)];
    let read = read(&files.map(|(path, bytes)| Source { path, bytes }));
    let told: Vec<String> = read.refused.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    a.yaml:1: the file is UTF-16: save it as UTF-8
    b.yaml:4: this is not UTF-8: save the file as UTF-8
    c.yaml:1: the file has 3072 KiB, more than 2048: Kubernetes takes no object that large
    ");
}

#[test]
fn folders_are_sorted() {
    let show = |paths: &[&str], folder: &str| format!("{:?}", sort(paths, folder));
    let all = [
        "k8s/app.yaml",
        "k8s/svc.yml",
        "k8s/README.md",
        "k8s/chart/Chart.yaml",
        "k8s/chart/templates/a.yaml",
        "k8s/.github/x.yaml",
        "k8s/examples/x.yaml",
        "docker-compose.yml",
        "k8s-old/app.yaml",
    ];
    insta::assert_snapshot!(show(&all, "k8s"), @r#"Sorted { plain: ["k8s/app.yaml", "k8s/svc.yml"], kustomize: None, charts: ["k8s/chart"], unclear: [] }"#);
    let kustomize =
        ["k8s/base/kustomization.yaml", "k8s/base/a.yaml", "k8s/overlays/prod/kustomization.yaml", "k8s/b.yaml"];
    insta::assert_snapshot!(show(&kustomize, "k8s"), @r#"Sorted { plain: ["k8s/b.yaml"], kustomize: None, charts: [], unclear: ["`k8s/base` and `k8s/overlays/prod` are folders for kustomize: say which one is applied, in the environment: `manifests: k8s/overlays/prod`"] }"#);
    insta::assert_snapshot!(show(&kustomize, "k8s/overlays/prod"), @r#"Sorted { plain: [], kustomize: Some("k8s/overlays/prod"), charts: [], unclear: [] }"#);
    insta::assert_snapshot!(show(&["Chart.yaml", "templates/a.yaml", "values.yaml"], ""), @r#"Sorted { plain: [], kustomize: None, charts: [""], unclear: [] }"#);
}

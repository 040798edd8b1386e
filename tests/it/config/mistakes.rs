use switchover::domain::config;

use super::told;

macro_rules! told {
    ($yaml:expr, @$expected:literal) => {
        insta::assert_snapshot!(told($yaml), @$expected)
    };
}

#[test]
fn all_mistakes_are_told_at_once() {
    told!("
version: 1
on: {push: main, pull_requests: true}
apps:
  backend:
    path: ../backend
    prot: 8080
    steps:
      test: {run: make, timeout: 20 min}
      lint: {}
  backend: {}
environments:
  production:
    deploy: {branch: main, promote_from: stagging}
  staging: {deploy: {branch: develop}, replicas: many}
notify: {slack: #deploys
}
", @r##"
    3:12 on.push | `push` is the single value `main`: expected a list in brackets, each item a branch or a pattern: `*` is anything but a slash, `**` anything, a leading `!` takes away; did you mean `[main]`?
    3:18 on.pull_requests | `pull_requests` is not a key of on: expected one of push, pull_request; did you mean `pull_request`?
    6:11 apps.backend.path | `../backend` leads out of its folder: expected a folder from the repository's root, such as services/api (`.` for the root itself)
    7:5 apps.backend.prot | `prot` is not a key of an app: expected one of kind, path, container, cache, env, secrets, steps, image, image_of, dockerfile, files, start, port, resources, health, pre_deploy, switch_after; did you mean `port`?
    9:34 apps.backend.steps.test.timeout | `20 min` is not a duration: expected a duration such as 20m, 30s or 250ms, 1s to 1d; did you mean `20m`?
    10:7 apps.backend.steps.lint | `lint` (a step) has no `run`: expected `run`, a shell command
    11:3 apps.backend | `backend` stands here a second time: expected it once (the first is on line 5)
    14:28 environments.production.deploy.promote_from | `branch` beside `promote_from`: expected one of the two: a branch is built, or another environment's digests are promoted
    14:42 environments.production.deploy.promote_from | there is no environment `stagging`: expected an environment of this file: staging; did you mean `staging`?
    15:50 environments.staging.replicas | `many` is not a whole number in range: expected a whole number from 1 to 1000
    16:10 notify.slack | `slack` has no value: expected a channel in quotes, such as "#deploys" (a bare # begins a comment)
    "##);
}

#[test]
fn version() {
    told!("apps: {}", @r#"
    1:1  | the file has no `version`: expected `version`, the number 1
    1:7 apps | `apps` names no app: expected at least one app; without `apps` they are inferred from the repository
    "#);
    told!("version: 2\nwhatever: [}", @r#"2:11  | this is not YAML: mismatched bracket '[' closed by '}': expected well-formed YAML"#);
    told!("version: 2\nwhatever: yes", @r#"1:10 version | `2` is not a version that this build knows: expected 1"#);
    told!("version: v1", @r#"1:10 version | `v1` is not a version that this build knows: expected 1"#);
    told!("version:", @r#"1:1 version | `version` has no value: expected the number 1"#);
    told!("version: '1'", @r#"1:10 version | `1` is in quotes: expected the number 1; did you mean `1`?"#);
    told!("version: [1]", @r#"1:10 version | `version` is a list: expected the number 1"#);
}

#[test]
fn shapes() {
    told!("- a\n- b", @r#"1:1  | the file is a list: expected a mapping with the keys version, on, apps, environments, notify"#);
    told!("just text", @r#"1:1  | the file is a single value: expected a mapping with the keys version, on, apps, environments, notify"#);
    told!("version: 1\napps: []\nenvironments: none\nnotify: '#deploys'\non: push", @r#"
    2:7 apps | `apps` is a list: expected a mapping from names to an app
    3:15 environments | `environments` is the single value `none`: expected a mapping from names to an environment
    4:9 notify | `notify` is a single value: expected a mapping with the keys slack
    5:5 on | `on` is a single value: expected a mapping with the keys push, pull_request
    "#);
    told!("version: 1\napps:\nenvironments:\n  p:\n", @r#"
    2:1 apps | `apps` has no value: expected a mapping from names to an app
    4:3 environments.p | `p` has no value: expected a mapping with the keys deploy, after, approval, allow, target, manifests, url, env, secrets, replicas, probe, smoke, min_ready, start_timeout, watch_for, keep_previous, drain_timeout, windows
    "#);
    told!("version: 1\napps: {a: {cache: target, env: [A=b], steps: [make test], secrets: {A: b}}}", @r#"
    2:19 apps.a.cache | `cache` is the single value `target`: expected a list in brackets, each item a folder in the step's home (~/.m2/repository) or below the app's folder (target); did you mean `[target]`?
    2:32 apps.a.env | `env` is a list: expected a mapping; its keys are letters, digits and underscores, such as DB_URL; PORT, URL and SWITCHOVER_… are Switchover's own
    2:46 apps.a.steps | `steps` is a list: expected a mapping from names to a step
    2:68 apps.a.secrets | `secrets` is a mapping: expected a list in brackets, each item letters, digits and underscores, such as DB_URL; PORT, URL and SWITCHOVER_… are Switchover's own
    "#);
    told!("version: 1\napps: {a: {steps: {test: make test}}}", @r#"2:26 apps.a.steps.test | `test` is a single value: expected a mapping with the keys run, reports, services, timeout, env, resources; did you mean `{run: make test}`?"#);
    told!("version: 1\non: {pull_request: yes}\napps: {a: {port: '8080', kind: job}}", @r#"
    2:20 on.pull_request | `yes` is not a boolean: expected true or false; did you mean `true`?
    3:18 apps.a.port | `8080` is in quotes: expected a whole number from 1 to 65535; did you mean `8080`?
    3:32 apps.a.kind | `job` is not one of the words: expected one of web, worker
    "#);
    told!("version: 1\n? [a, b]\n: c", @r#"2:3  | a key is not a plain text: expected a word before the `:`"#);
    told!("version: 1\n---\nversion: 1", @r#"2:1  | a second document begins here: expected one document: remove the `---`"#);
    told!("version: !foo 1", @r#"1:15  | the tag `!foo` has no meaning here: expected a value without a tag"#);
    told!("version: 1\napps: {a: &a {path: a}, b: {<<: *a, path: b}}", @r#"2:29 apps.b."<<" | merge keys are not supported: expected an alias for a whole value (`steps: *steps`)"#);
}

#[test]
fn not_yaml() {
    told!("version: 1\napps:\n\ta: {}", @r#"3:2  | this is not YAML: tabs disallowed within this context (block indentation): expected spaces for indentation"#);
    told!("version: 1\napps: {a: {path: b}", @r#"2:7  | this is not YAML: unclosed bracket '{': expected a closing bracket"#);
    told!("version: 1\nx: 'open", @r#"2:4  | this is not YAML: unclosed quote: expected a closing quote"#);
    told!("version: 1\napps:\n  a:\n    steps:\n      t: {run: make}\n     u: {run: x}", @r#"6:6  | this is not YAML: while parsing a block mapping, did not find expected key: expected well-formed YAML"#);
    told!("version: 1\napps: {a: {files: [**/*.jar]}}", @r#"2:20  | this is not YAML: while parsing node, found unknown anchor: expected quotes around a text that begins with `*` or `&`"#);
    told!("version: 1\nnote: a: b", @r#"2:8  | this is not YAML: mapping values are not allowed in this context: expected quotes around a text that contains `: `, or less indentation"#);
    told!("version: 1\napps: {a: {start: @foo}}", @r#"2:19  | this is not YAML: unexpected character: `@': expected quotes around a text that begins with a special character"#);
    told!("version: 1\napps: &a {b: *a}", @r#"2:14  | this alias stands inside what it stands for: expected an alias after the end of its anchor"#);
}

#[test]
fn unknown_keys() {
    told!("version: 1\napp: {}\nenviroments: {}\nx-anchors: {}", @r#"
    2:1 app | `app` is not a key of the file: expected one of version, on, apps, environments, notify; did you mean `apps`?
    3:1 enviroments | `enviroments` is not a key of the file: expected one of version, on, apps, environments, notify; did you mean `environments`?
    4:1 x-anchors | `x-anchors` is not a key of the file: expected one of version, on, apps, environments, notify
    "#);
    told!("version: 1\napps: {a: {depends_on: [b], ports: [80], healthcheck: /, timeout: 5m, deploy: {}, working-directory: x}}", @r#"
    2:12 apps.a.depends_on | `depends_on` is not a key of an app: expected one of kind, path, container, cache, env, secrets, steps, image, image_of, dockerfile, files, start, port, resources, health, pre_deploy, switch_after; did you mean `switch_after`?
    2:29 apps.a.ports | `ports` is not a key of an app: expected one of kind, path, container, cache, env, secrets, steps, image, image_of, dockerfile, files, start, port, resources, health, pre_deploy, switch_after; did you mean `port`?
    2:42 apps.a.healthcheck | `healthcheck` is not a key of an app: expected one of kind, path, container, cache, env, secrets, steps, image, image_of, dockerfile, files, start, port, resources, health, pre_deploy, switch_after; did you mean `health`?
    2:58 apps.a.timeout | `timeout` is not a key of an app: expected one of kind, path, container, cache, env, secrets, steps, image, image_of, dockerfile, files, start, port, resources, health, pre_deploy, switch_after (`timeout` is a key of a step)
    2:71 apps.a.deploy | `deploy` is not a key of an app: expected one of kind, path, container, cache, env, secrets, steps, image, image_of, dockerfile, files, start, port, resources, health, pre_deploy, switch_after (`deploy` is a key of an environment)
    2:83 apps.a.working-directory | `working-directory` is not a key of an app: expected one of kind, path, container, cache, env, secrets, steps, image, image_of, dockerfile, files, start, port, resources, health, pre_deploy, switch_after; did you mean `path`?
    "#);
    told!("version: 1\napps: {a: {steps: {test: {command: x, timeout-minutes: 5}}}}", @r#"
    2:20 apps.a.steps.test | `test` (a step) has no `run`: expected `run`, a shell command
    2:27 apps.a.steps.test.command | `command` is not a key of a step: expected one of run, reports, services, timeout, env, resources; did you mean `run`?
    2:39 apps.a.steps.test.timeout-minutes | `timeout-minutes` is not a key of a step: expected one of run, reports, services, timeout, env, resources; did you mean `timeout`?
    "#);
}

#[test]
fn names() {
    told!("version: 1\napps: {'my app': {}, -x: {}, '': {}, \"a/b\": {}}", @r#"
    2:8 apps."my app" | the name `my app` is not a name: expected a name of 1 to 63 letters, digits, dots, dashes and underscores; did you mean `my-app`?
    2:22 apps.-x | the name `-x` is not a name: expected a name of 1 to 63 letters, digits, dots, dashes and underscores; did you mean `x`?
    2:30 apps."" | the name `` is empty: expected a name of 1 to 63 letters, digits, dots, dashes and underscores
    2:38 apps."a/b" | the name `a/b` is not a name: expected a name of 1 to 63 letters, digits, dots, dashes and underscores; did you mean `a-b`?
    "#);
    told!("version: 1\napps: {a: {env: {MY-VAR: x, 1A: y, PORT: 80, SWITCHOVER_X: y}, secrets: ['a b', PORT]}}", @r#"
    2:18 apps.a.env.MY-VAR | the name `MY-VAR` is not the name of a variable: expected letters, digits and underscores, such as DB_URL; PORT, URL and SWITCHOVER_… are Switchover's own; did you mean `MY_VAR`?
    2:29 apps.a.env.1A | the name `1A` is not the name of a variable: expected letters, digits and underscores, such as DB_URL; PORT, URL and SWITCHOVER_… are Switchover's own
    2:36 apps.a.env.PORT | the name `PORT` is set by Switchover itself: expected letters, digits and underscores, such as DB_URL; PORT, URL and SWITCHOVER_… are Switchover's own
    2:46 apps.a.env.SWITCHOVER_X | the name `SWITCHOVER_X` is set by Switchover itself: expected letters, digits and underscores, such as DB_URL; PORT, URL and SWITCHOVER_… are Switchover's own
    2:74 apps.a.secrets[0] | `a b` is not the name of a variable: expected letters, digits and underscores, such as DB_URL; PORT, URL and SWITCHOVER_… are Switchover's own; did you mean `a_b`?
    2:81 apps.a.secrets[1] | `PORT` is set by Switchover itself: expected letters, digits and underscores, such as DB_URL; PORT, URL and SWITCHOVER_… are Switchover's own
    "#);
    told!("version: 1\napps: {a: {steps: {'a b': {run: x}, 'c ': {run: x}, 'd,e': {run: x}}}}", @r#"
    2:37 apps.a.steps."c " | the name `c ` ends with a space: expected a name of 1 to 63 letters, digits, dots, dashes, underscores and spaces; did you mean `c`?
    2:53 apps.a.steps."d,e" | the name `d,e` is not a name: expected a name of 1 to 63 letters, digits, dots, dashes, underscores and spaces; did you mean `d-e`?
    "#);
    told!("version: 1\nenvironments: {p: {deploy: command}}", @"warning 2:28 environments.p.deploy | nothing is ever released here: no command takes a commit to such an environment yet: expected `{branch: …}` with `approval: required`, or `{promote_from: …}`");
    told!("version: 1\nenvironments: {Prod: {deploy: command}, prod: {deploy: command}}", @r#"2:41 environments.prod | `Prod` and `prod` are one environment to GitHub: expected names that differ in more than case"#);
}

#[test]
fn paths() {
    told!("version: 1\napps:
  a: {path: /srv}
  b: {path: a\\b}
  c: {path: a/../../b}
  d: {path: ~/x}
  e: {path: .git/hooks}
  f: {dockerfile: ../Dockerfile, image: acme/x}
  g: {files: ['/etc/*', '../*', 'a[', 'dist/']}
  h: {cache: ['~/', '~/../x', /var, ., '~root/x']}
  i: {path: \"a\\0b\"}
  j: {path: ''}
", @r#"
    3:13 apps.a.path | `/srv` begins at the root of the machine: expected a folder from the repository's root, such as services/api (`.` for the root itself); did you mean `srv`?
    4:13 apps.b.path | `a\b` contains a backslash: expected a folder from the repository's root, such as services/api (`.` for the root itself); did you mean `a/b`?
    5:13 apps.c.path | `a/../../b` leads out of its folder: expected a folder from the repository's root, such as services/api (`.` for the root itself)
    6:13 apps.d.path | `~/x` begins in a home folder: expected a folder from the repository's root, such as services/api (`.` for the root itself)
    7:13 apps.e.path | `.git/hooks` leads into git's own folder: expected a folder from the repository's root, such as services/api (`.` for the root itself)
    8:19 apps.f.dockerfile | `../Dockerfile` leads out of its folder: expected a file below the app's folder, such as docker/Dockerfile
    9:15 apps.g.files[0] | `/etc/*` begins at the root of the machine: expected a pattern of files below the app's folder, such as target/*.jar or dist/**; did you mean `etc/*`?
    9:25 apps.g.files[1] | `../*` leads out of its folder: expected a pattern of files below the app's folder, such as target/*.jar or dist/**
    9:33 apps.g.files[2] | `a[` is not a pattern: unclosed character class; missing ']': expected a pattern of files below the app's folder, such as target/*.jar or dist/**
    9:39 apps.g.files[3] | `dist/` names no file: expected a pattern of files below the app's folder, such as target/*.jar or dist/**
    10:15 apps.h.cache[0] | `~/` names no folder: expected a folder in the step's home (~/.m2/repository) or below the app's folder (target)
    10:21 apps.h.cache[1] | `~/../x` leads out of its folder: expected a folder in the step's home (~/.m2/repository) or below the app's folder (target)
    10:31 apps.h.cache[2] | `/var` begins at the root of the machine: expected a folder in the step's home (~/.m2/repository) or below the app's folder (target); did you mean `var`?
    10:37 apps.h.cache[3] | `.` names no folder: expected a folder in the step's home (~/.m2/repository) or below the app's folder (target)
    10:40 apps.h.cache[4] | `~root/x` begins in a home folder: expected a folder in the step's home (~/.m2/repository) or below the app's folder (target)
    11:13 apps.i.path | `a�b` contains the control character U+0000: expected a folder from the repository's root, such as services/api (`.` for the root itself)
    12:13 apps.j.path | `` is empty: expected a folder from the repository's root, such as services/api (`.` for the root itself); did you mean `.`?
    "#);
}

#[test]
fn images_urls_and_the_rest() {
    told!("version: 1\napps:
  a: {image: 'acme/x:latest', container: 'Maven 3'}
  b: {image: Acme/X, dockerfile: Dockerfile}
  c: {image: 'localhost:5000/x/y'}
  d: {image: 'localhost:99999/x'}
  e: {health: health, port: 70000}
  f: {steps: {t: {run: '', services: {my_db: {image: x, ready: 3306}, b: {ready: tcp:0}}, resources: {cpu: -1, memory: 2GB}}}}
  g: {dockerfile: Dockerfile}
", @r#"
    3:14 apps.a.image | `acme/x:latest` has a tag (Switchover tags it with the commit): expected an image without a tag, such as docker.io/acme/backend, or a mapping with the keys name, from, tag; did you mean `acme/x`?
    3:42 apps.a.container | `Maven 3` is not an image: expected an image such as maven:3-eclipse-temurin-17
    4:14 apps.b.image | `Acme/X` is not the name of an image: expected an image without a tag, such as docker.io/acme/backend, or a mapping with the keys name, from, tag; did you mean `acme/x`?
    6:14 apps.d.image | `localhost:99999/x` is not the name of an image: expected an image without a tag, such as docker.io/acme/backend, or a mapping with the keys name, from, tag
    7:15 apps.e.health | `health` does not begin with `/`: expected a path that begins with `/`, such as /health; did you mean `/health`?
    7:29 apps.e.port | `70000` is not a whole number in range: expected a whole number from 1 to 65535
    8:24 apps.f.steps.t.run | `` is empty: expected a shell command
    8:39 apps.f.steps.t.services.my_db | the name `my_db` is not a host name: expected a host name of 1 to 63 lower-case letters, digits and dashes; did you mean `my-db`?
    8:64 apps.f.steps.t.services.my_db.ready | `3306` does not say how: expected `tcp:` and a port, such as tcp:3306, or `health`; did you mean `tcp:3306`?
    8:71 apps.f.steps.t.services.b | `b` (a service) has no `image`: expected `image`, an image such as maven:3-eclipse-temurin-17
    8:82 apps.f.steps.t.services.b.ready | `tcp:0` is not a way to be ready: expected `tcp:` and a port, such as tcp:3306, or `health`
    8:108 apps.f.steps.t.resources.cpu | `-1` is not a number of cores: expected cores such as 2, 0.5 or 500m
    8:120 apps.f.steps.t.resources.memory | `2GB` is not a size: expected a size such as 512Mi or 2Gi; did you mean `2Gi`?
    "#);
    told!("version: 1\nenvironments:
  a: {deploy: {branch: refs/heads/main}, url: shop.example.com, probe: {path: 'http://x/health?a=b', interval: 0ms}}
  b: {deploy: {branch: 'feature/*'}, url: 'https://u:p@x.org', replicas: 0, drain_timeout: 2d}
  c: {deploy: {}, url: 'ftp://x.org', allow: {roles: [owner, write], teams: ['@acme/sre', x], users: ['@me', 'a b']}}
  d: {deploy: manual, after: [''], allow: {}}
  e: {deploy: command, after: ['deploy (e)'], min_ready: 2m}
notify: {slack: deploys}
", @r##"
    3:24 environments.a.deploy.branch | `refs/heads/main` is a full reference: expected the name of one branch, such as main; did you mean `main`?
    3:47 environments.a.url | `shop.example.com` is not an address: expected an address such as https://shop.example.com; did you mean `https://shop.example.com`?
    3:79 environments.a.probe.path | `http://x/health?a=b` does not begin with `/`: expected a path that begins with `/`, such as /health; did you mean `/health`?
    3:112 environments.a.probe.interval | `0ms` is too short: expected a duration such as 20m, 30s or 250ms, 1ms to 1m
    4:24 environments.b.deploy.branch | `feature/*` is not a branch that git would take: expected the name of one branch, such as main
    4:43 environments.b.url | `https://u:*@x.org` contains a password: expected an address such as https://shop.example.com
    4:74 environments.b.replicas | `0` is not a whole number in range: expected a whole number from 1 to 1000
    4:92 environments.b.drain_timeout | `2d` is too long: expected a duration such as 20m, 30s or 250ms, at most 1d
    5:7 environments.c.deploy | `deploy` does not say where releases come from: expected `branch: …` or `promote_from: …`, or `deploy: command`
    5:24 environments.c.url | `ftp://x.org` is not an http(s) address: expected an address such as https://shop.example.com
    5:55 environments.c.allow.roles[0] | `owner` is not one of the words: expected one of write, maintain, admin
    5:78 environments.c.allow.teams[0] | `@acme/sre` begins with `@`: expected a team as org/team; did you mean `acme/sre`?
    5:91 environments.c.allow.teams[1] | `x` is not a team: expected a team as org/team
    5:103 environments.c.allow.users[0] | `@me` begins with `@`: expected a login on GitHub; did you mean `me`?
    5:110 environments.c.allow.users[1] | `a b` is not a login: expected a login on GitHub
    6:15 environments.d.deploy | `deploy` is the single value `manual`: expected `command` or a mapping with the keys branch, promote_from
    6:31 environments.d.after[0] | `` is empty: expected a text
    6:36 environments.d.allow | `allow` allows nobody: expected roles, teams or users
    7:32 environments.e.after | an environment cannot wait for its own deployment: expected other checks
    7:47 environments.e.min_ready | `min_ready` is not shorter than `start_timeout`, so no slot could ever be ready: expected a shorter `min_ready`
    8:17 notify.slack | `deploys` does not begin with `#`: expected a channel in quotes, such as "#deploys" (a bare # begins a comment); did you mean `"#deploys"`?
    "##);
    told!("version: 1\non: {push: ['release/v?', 'c++', 'a b', refs/heads/main, '[', '!']}", @r#"
    2:13 on.push[0] | `release/v?` contains `?`, which means different things elsewhere: expected a branch or a pattern: `*` is anything but a slash, `**` anything, a leading `!` takes away; did you mean `**`?
    2:27 on.push[1] | `c++` contains `+`, which means different things elsewhere: expected a branch or a pattern: `*` is anything but a slash, `**` anything, a leading `!` takes away; did you mean `**`?
    2:34 on.push[2] | `a b` is not a pattern of branches: expected a branch or a pattern: `*` is anything but a slash, `**` anything, a leading `!` takes away
    2:41 on.push[3] | `refs/heads/main` is a full reference: expected a branch or a pattern: `*` is anything but a slash, `**` anything, a leading `!` takes away; did you mean `main`?
    2:58 on.push[4] | `[` is not a pattern: unclosed character class; missing ']': expected a branch or a pattern: `*` is anything but a slash, `**` anything, a leading `!` takes away
    2:63 on.push[5] | `!` is not a pattern of branches: expected a branch or a pattern: `*` is anything but a slash, `**` anything, a leading `!` takes away
    "#);
}

#[test]
fn windows() {
    told!("version: 1\nenvironments: {p: {deploy: command, windows: [
      always, mon-fri 9-17 UTC, Mon-Fri 09:00-17:00 UTC, mon-fri 09:00-17:00, mon-fri 09:00-17:00 Seoul,
      mon-fri 09:00-17:00 Asia/Soul, mon 25:00-26:00 UTC, mon 10:00-10:00 UTC, mon 24:00-24:00 UTC,
      mon 09:00-17:00 ../../etc/passwd, daily 00:00-24:00 UTC]}}", @r#"
    3:7 environments.p.windows[0] | `always` has 1 parts instead of three (days, times, zone): expected days, times and a time zone, such as mon-fri 09:00-17:00 Asia/Seoul
    3:15 environments.p.windows[1] | `mon-fri 9-17 UTC` has `9-17` where times stand (09:00-17:00): expected days, times and a time zone, such as mon-fri 09:00-17:00 Asia/Seoul; did you mean `mon-fri 09:00-17:00 UTC`?
    3:33 environments.p.windows[2] | `Mon-Fri 09:00-17:00 UTC` has `Mon` where a day stands (mon, tue, … or daily): expected days, times and a time zone, such as mon-fri 09:00-17:00 Asia/Seoul; did you mean `mon-fri 09:00-17:00 UTC`?
    3:58 environments.p.windows[3] | `mon-fri 09:00-17:00` has 2 parts instead of three (days, times, zone): expected days, times and a time zone, such as mon-fri 09:00-17:00 Asia/Seoul; did you mean `mon-fri 09:00-17:00 UTC`?
    3:79 environments.p.windows[4] | `mon-fri 09:00-17:00 Seoul` has `Seoul` where a time zone stands (Asia/Seoul, UTC): expected days, times and a time zone, such as mon-fri 09:00-17:00 Asia/Seoul; did you mean `mon-fri 09:00-17:00 Asia/Seoul`?
    4:7 environments.p.windows[5] | `mon-fri 09:00-17:00 Asia/Soul` has `Asia/Soul` where a time zone stands (Asia/Seoul, UTC): expected days, times and a time zone, such as mon-fri 09:00-17:00 Asia/Seoul; did you mean `mon-fri 09:00-17:00 Asia/Seoul`?
    4:38 environments.p.windows[6] | `mon 25:00-26:00 UTC` has `25:00-26:00` where times stand (09:00-17:00): expected days, times and a time zone, such as mon-fri 09:00-17:00 Asia/Seoul
    4:59 environments.p.windows[7] | `mon 10:00-10:00 UTC` begins and ends at the same time: expected days, times and a time zone, such as mon-fri 09:00-17:00 Asia/Seoul
    4:80 environments.p.windows[8] | `mon 24:00-24:00 UTC` begins at 24:00: expected days, times and a time zone, such as mon-fri 09:00-17:00 Asia/Seoul
    5:7 environments.p.windows[9] | `mon 09:00-17:00 ../../etc/passwd` has `../../etc/passwd` where a time zone stands (Asia/Seoul, UTC): expected days, times and a time zone, such as mon-fri 09:00-17:00 Asia/Seoul
    "#);
}

#[test]
fn references_and_circles() {
    told!("version: 1\napps:
  backend: {switch_after: [frontend]}
  frontend: {switch_after: [bakend, worker]}
  worker: {kind: worker, switch_after: [backend, worker], port: 80, health: /h}
  mailer: {image_of: backnd, image: acme/mailer, files: [x]}
  other: {image_of: mailer}
  self: {image_of: self, steps: {build: {run: x}}}
environments:
  a: {deploy: {promote_from: b}}
  b: {deploy: {promote_from: c}}
  c: {deploy: {promote_from: a}}
  d: {deploy: {promote_from: d}}
  e: {deploy: {promote_from: stage}}
", @r#"
    3:13 apps.backend.switch_after | a circle: backend → frontend → worker → backend: expected `switch_after` without a circle
    4:29 apps.frontend.switch_after | there is no app `bakend`: expected an app of this file: backend, worker, mailer, other, self; did you mean `backend`?
    5:50 apps.worker.switch_after | `worker` names itself: expected another app
    5:59 apps.worker.port | a worker has no `port`: expected `kind: web` for an app that answers requests, or this key removed
    5:69 apps.worker.health | a worker has no `health`: expected `kind: web` for an app that answers requests, or this key removed
    6:22 apps.mailer.image_of | there is no app `backnd`: expected an app of this file: backend, frontend, worker, other, self; did you mean `backend`?
    6:30 apps.mailer.image | `image` beside `image_of`: expected one of the two: with `image_of` the other app makes what is released
    6:50 apps.mailer.files | `files` beside `image_of`: expected one of the two: with `image_of` the other app makes what is released
    7:21 apps.other.image_of | `mailer` runs the image of another app itself: expected the app that makes the image
    8:20 apps.self.image_of | an app cannot run its own image this way: expected another app
    10:7 environments.a.deploy | a circle: a → b → c → a: expected `deploy` without a circle
    13:30 environments.d.deploy.promote_from | `d` names itself: expected another environment
    14:30 environments.e.deploy.promote_from | there is no environment `stage`: expected an environment of this file: a, b, c, d
    "#);
}

#[test]
fn secrets_and_environment() {
    told!("version: 1\napps: {a: {env: {A: x}, secrets: [A, B]}}\nenvironments: {p: {deploy: command, env: {B: x}, secrets: [B]}}", @r#"
    2:35 apps.a.secrets | `A` is in `env` too: expected it in one of the two
    3:60 environments.p.secrets | `B` is in `env` too: expected it in one of the two
    "#);
    told!("version: 1\napps: {a: {env: {GH: ghp_0123456789abcdefghijABCDEFGHIJ012345, OK: ghp_short}, steps: {t: {run: 'curl -H xoxb-123456789012-abcdefghijkl x'}}}}", @r#"
    warning 2:22 apps.a.env.GH | this looks like a GitHub token, and everybody who reads the repository sees it: expected its name under `secrets`, and the value granted by the operator
    warning 2:97 apps.a.steps.t.run | this looks like a Slack token, and everybody who reads the repository sees it: expected its name under `secrets`, and the value granted by the operator
    "#);
    told!("version: 1\non: {push: [develop]}\nenvironments: {p: {deploy: {branch: main}}, q: {deploy: {branch: main}, after: [other]}}", @r#"warning 3:37 environments.p.deploy.branch | pushes to `main` are not tested, so nothing is ever released: expected `main` under `on.push`, or `after` without `switchover`"#);
}

#[test]
fn images_of_another_ci() {
    told!("version: 1\napps:
  a: {image: {from: ci, name: docker.io/acme/a, tag: \"sha-{short}\"}}
  b: {image: {from: ci, tag: latest}}
  c: {image: {from: ci, tag: \"{sha}-{short}\"}}
  d: {image: {tag: \"{sha}\"}}
  e: {image: {from: ci}, dockerfile: D, files: [x], steps: {build: {run: x}}}
  f: {image: {from: cI, nam: x}}
  g: {image: [x]}
  h: {image: {name: \"acme/h:1\"}}
", @r#"
    4:30 apps.b.image.tag | `latest` does not name the commit: expected a tag with {sha} (40 digits) or {short} (7 digits) in it, such as sha-{short}
    5:30 apps.c.image.tag | `{sha}-{short}` does not name the commit: expected a tag with {sha} (40 digits) or {short} (7 digits) in it, such as sha-{short}
    6:15 apps.d.image.tag | `tag` without `from: ci`: expected `from: ci`; what is built here is tagged with the commit
    7:26 apps.e.dockerfile | `dockerfile` beside `image: {from: ci}`: expected one of the two: nothing is built here
    7:41 apps.e.files | `files` beside `image: {from: ci}`: expected one of the two: nothing is built here
    8:21 apps.f.image.from | `cI` is not one of the words: expected one of build, ci; did you mean `ci`?
    8:25 apps.f.image.nam | `nam` is not a key of an image: expected one of name, from, tag; did you mean `name`?
    9:14 apps.g.image | `image` is a list: expected an image without a tag, such as docker.io/acme/backend, or a mapping with the keys name, from, tag
    10:21 apps.h.image.name | `acme/h:1` has a tag (Switchover tags it with the commit): expected an image without a tag, such as docker.io/acme/backend; did you mean `acme/h`?
    "#);
}

#[test]
fn warnings_alone() {
    told!("version: 1\napps:\n  a: {steps: {}}\n  b: {image_of: c, steps: {build: {run: x}}}\n  c: {dockerfile: D}", @r#"3:7 apps.a.steps | `steps` names no step: expected at least one step; without `steps` they are inferred from the app's folder"#);
    told!("version: 1\napps: {b: {image_of: c, steps: {build: {run: x}}}, c: {dockerfile: D}}", @r#"
    warning 2:33 apps.b.steps.build | this `build` makes nothing that is released: expected it in the app that `image_of` names
    warning 2:56 apps.c.dockerfile | `dockerfile` has no effect here: expected `image: …` beside it: without one there is nothing to push to
    "#);
}

#[test]
fn the_caret_stands_under_the_place() {
    let yaml = "version: 1\napps:\n  backend:\n    prot: 8080\n    steps:\n      test:\n        run: make\n        timeout: 20 min\n  größe: {}\n";
    let mistakes = config::parse(yaml).expect_err("mistakes");
    insta::assert_snapshot!(config::render(&mistakes, yaml, config::FILE_NAME), @r#"
    error: `prot` is not a key of an app
     --> .github/switchover.yml:4:5
      |
    4 |     prot: 8080
      |     ^^^^ expected one of kind, path, container, cache, env, secrets, steps, image, image_of, dockerfile, files, start, port, resources, health, pre_deploy, switch_after
      = did you mean `port`?

    error: `20 min` is not a duration
     --> .github/switchover.yml:8:18
      |
    8 |         timeout: 20 min
      |                  ^^^^^^ expected a duration such as 20m, 30s or 250ms, 1s to 1d
      = did you mean `20m`?

    error: the name `größe` is not a name
     --> .github/switchover.yml:9:3
      |
    9 |   größe: {}
      |   ^^^^^ expected a name of 1 to 63 letters, digits, dots, dashes and underscores
    "#);
}

#[test]
fn what_is_shown_acts_on_no_terminal_and_tells_no_secret() {
    let long = "x".repeat(300);
    let yaml = format!(
        "version: 1\n\"\\e[31m\": 1\nkey\u{202E}: ghp_0123456789abcdefghijABCDEFGHIJ012345\n{long}: {{a: '{long}'}}\n"
    );
    let mistakes = config::parse(&yaml).expect_err("mistakes");
    let text = config::render(&mistakes, &yaml, "f.yml");
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202E}') && !text.contains("ghp_"), "{text}");
    assert!(text.lines().all(|l| l.chars().count() < 260), "{text}");
    insta::assert_snapshot!(text, @r#"
    error: `�[31m` is not a key of the file
     --> f.yml:2:1
      |
    2 | "\e[31m": 1
      | ^^^^^^^^ expected one of version, on, apps, environments, notify

    error: `key�` is not a key of the file
     --> f.yml:3:1
      |
    3 | key�: ****************************************
      | ^^^^ expected one of version, on, apps, environments, notify

    error: `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…` is not a key of the file
     --> f.yml:4:1
      |
    4 | xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ expected one of version, on, apps, environments, notify
    "#);
}

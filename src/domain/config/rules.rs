//! What the table cannot say: how parts of the file must fit each other.

use std::{collections::HashMap, time::Duration};

use super::{
    branches,
    checker::{Checker, dotted},
    formats::unknown_reference,
    grammar::{Data, Pair, Value},
    mistake::{MAX_MISTAKES, Mistake, looks_secret, shown},
};

/// Adds the mistakes and returns the warnings.
pub(super) fn check(file: &Value, checker: &mut Checker) -> Vec<Mistake> {
    let mut rules = Rules { checker, warnings: Vec::new() };
    rules.apps(file.get("apps"));
    rules.environments(file);
    rules.secrets_in_the_clear(file, &mut Vec::new());
    let mut warnings = rules.warnings;
    warnings.sort_by_key(|w| (w.line, w.column));
    warnings.truncate(MAX_MISTAKES);
    warnings
}

struct Rules<'c> {
    checker: &'c mut Checker,
    warnings: Vec<Mistake>,
}

impl Rules<'_> {
    fn wrong(&mut self, pair: &Pair, key: &str, message: impl Into<String>, expected: impl Into<String>) {
        self.checker.add(Mistake::new(pair.at, key, message, expected));
    }

    fn apps(&mut self, apps: Option<&Value>) {
        let Some(apps) = apps else { return };
        if apps.data == Data::Map(Vec::new()) {
            let expected = "at least one app; without `apps` they are inferred from the repository";
            self.checker.add(Mistake::new(apps.at, "apps", "`apps` names no app", expected));
        }
        for app in apps.pairs() {
            let key = format!("apps.{}", app.key);
            self.worker(app, &key);
            self.image_of(app, apps, &key);
            self.image(app, &key);
            self.both_env_and_secret(app, &key);
            if let Some(steps) = app.value.written("steps")
                && steps.value.data == Data::Map(Vec::new())
            {
                let expected = "at least one step; without `steps` they are inferred from the app's folder";
                self.wrong(steps, &format!("{key}.steps"), "`steps` names no step", expected);
            }
            if let Some(dockerfile) = app.value.written("dockerfile")
                && app.value.written("image").is_none()
                && app.value.written("image_of").is_none()
            {
                let key = format!("{key}.dockerfile");
                let expected = "`image: …` beside it: without one there is nothing to push to";
                self.warnings.push(Mistake::new(dockerfile.at, &key, "`dockerfile` has no effect here", expected));
            }
        }
        self.references(apps, "apps", "switch_after", "app", &|app| app.value.written("switch_after"));
        self.cycles(apps, "apps", "switch_after", |app| app.value.texts("switch_after"));
    }

    fn worker(&mut self, app: &Pair, key: &str) {
        if app.value.text("kind") != Some("worker") {
            return;
        }
        for unfit in ["port", "health"] {
            if let Some(pair) = app.value.written(unfit) {
                let message = format!("a worker has no `{unfit}`");
                let expected = "`kind: web` for an app that answers requests, or this key removed";
                self.wrong(pair, &format!("{key}.{unfit}"), message, expected);
            }
        }
    }

    fn image_of(&mut self, app: &Pair, apps: &Value, key: &str) {
        let Some(pair) = app.value.written("image_of") else { return };
        let Some(other) = pair.value.as_text() else { return };
        let key_here = format!("{key}.image_of");
        match apps.pair(other) {
            None => {
                let known = apps.pairs().iter().map(|p| p.key.as_str()).filter(|k| *k != app.key);
                let (message, expected, hint) = unknown_reference(other, "app", known);
                self.checker.add(Mistake::new(pair.value.at, &key_here, message, expected).hint(hint));
            }
            Some(_) if other == app.key => {
                let mistake =
                    Mistake::new(pair.value.at, &key_here, "an app cannot run its own image this way", "another app");
                self.checker.add(mistake);
            }
            Some(found) => {
                if let Some(further) = found.value.text("image_of") {
                    let message = format!("{} runs the image of another app itself", shown(other));
                    let hint = (further != app.key && apps.pair(further).is_some()).then(|| further.to_owned());
                    let mistake = Mistake::new(pair.value.at, &key_here, message, "the app that makes the image");
                    self.checker.add(mistake.hint(hint));
                }
            }
        }
        for unfit in ["image", "dockerfile", "files"] {
            if let Some(beside) = app.value.written(unfit) {
                let message = format!("`{unfit}` beside `image_of`");
                let expected = "one of the two: with `image_of` the other app makes what is released";
                self.wrong(beside, &format!("{key}.{unfit}"), message, expected);
            }
        }
        if let Some(build) = app.value.get("steps").and_then(|s| s.written("build")) {
            let message = "this `build` makes nothing that is released";
            let expected = "it in the app that `image_of` names";
            self.warnings.push(Mistake::new(build.at, &format!("{key}.steps.build"), message, expected));
        }
    }

    /// What says nothing where the image is another CI's, and the other way round.
    fn image(&mut self, app: &Pair, key: &str) {
        let Some(image) = app.value.written("image") else { return };
        let pushed = image.value.text("from") == Some("ci");
        if let Some(tag) = image.value.written("tag").filter(|_| !pushed) {
            let key = format!("{key}.image.tag");
            self.wrong(
                tag,
                &key,
                "`tag` without `from: ci`",
                "`from: ci`; what is built here is tagged with the commit",
            );
        }
        for unfit in ["dockerfile", "files"].into_iter().filter(|_| pushed) {
            if let Some(beside) = app.value.written(unfit) {
                let message = format!("`{unfit}` beside `image: {{from: ci}}`");
                self.wrong(beside, &format!("{key}.{unfit}"), message, "one of the two: nothing is built here");
            }
        }
        if pushed && let Some(build) = app.value.get("steps").and_then(|s| s.written("build")) {
            let message = "this `build` makes nothing that is released";
            let expected = "no `build` beside `image: {from: ci}`";
            self.warnings.push(Mistake::new(build.at, &format!("{key}.steps.build"), message, expected));
        }
    }

    fn both_env_and_secret(&mut self, owner: &Pair, key: &str) {
        let Some(secrets) = owner.value.written("secrets") else { return };
        let env = owner.value.get("env");
        for secret in secrets.value.items() {
            let Some(name) = secret.as_text() else { continue };
            if env.is_some_and(|e| e.written(name).is_some()) {
                let message = format!("{} is in `env` too", shown(name));
                let mistake = Mistake::new(secret.at, &format!("{key}.secrets"), message, "it in one of the two");
                self.checker.add(mistake);
            }
        }
    }

    /// Every item of a list of names must be a key beside its owner, and not the owner itself.
    fn references<'v>(
        &mut self,
        all: &'v Value,
        section: &str,
        word: &str,
        what: &str,
        list: &dyn Fn(&'v Pair) -> Option<&'v Pair>,
    ) {
        for owner in all.pairs() {
            let Some(pair) = list(owner) else { continue };
            let single = std::slice::from_ref(&pair.value);
            let items = if pair.value.as_text().is_some() { single } else { pair.value.items() };
            for item in items {
                let Some(name) = item.as_text() else { continue };
                let key = format!("{section}.{}.{word}", owner.key);
                if name == owner.key {
                    let message = format!("{} names itself", shown(name));
                    self.checker.add(Mistake::new(item.at, &key, message, format!("another {what}")));
                } else if all.pair(name).is_none() {
                    let known = all.pairs().iter().map(|p| p.key.as_str()).filter(|k| *k != owner.key);
                    let (message, expected, hint) = unknown_reference(name, what, known);
                    self.checker.add(Mistake::new(item.at, &key, message, expected).hint(hint));
                }
            }
        }
    }

    /// Tells each cycle once, at its first member in the file.
    fn cycles(&mut self, all: &Value, section: &str, word: &str, next: impl Fn(&Pair) -> Vec<String>) {
        let index: HashMap<&str, usize> = all.pairs().iter().enumerate().map(|(i, p)| (p.key.as_str(), i)).collect();
        let edges: Vec<Vec<usize>> = all
            .pairs()
            .iter()
            .enumerate()
            .map(|(i, p)| next(p).iter().filter_map(|n| index.get(n.as_str()).copied()).filter(|n| *n != i).collect())
            .collect();
        // 0 unseen, 1 on the way, 2 done
        let mut state = vec![0_u8; edges.len()];
        for start in 0..edges.len() {
            if state[start] != 0 {
                continue;
            }
            let mut way = vec![(start, 0)];
            state[start] = 1;
            while let Some((at, step)) = way.last_mut() {
                let Some(&to) = edges[*at].get(*step) else {
                    state[*at] = 2;
                    way.pop();
                    continue;
                };
                *step += 1;
                match state[to] {
                    0 => {
                        state[to] = 1;
                        way.push((to, 0));
                    }
                    1 => {
                        let from = way.iter().position(|(n, _)| *n == to).unwrap_or(0);
                        let mut names: Vec<&str> =
                            way[from..].iter().map(|(n, _)| all.pairs()[*n].key.as_str()).collect();
                        names.push(&all.pairs()[to].key);
                        let owner = &all.pairs()[to];
                        let message = format!("a circle: {}", names.join(" → "));
                        let place = owner.value.pair(word).map_or(owner.at, |p| p.at);
                        let key = format!("{section}.{}.{word}", owner.key);
                        self.checker.add(Mistake::new(place, &key, message, format!("`{word}` without a circle")));
                    }
                    _ => {}
                }
            }
        }
    }

    fn environments(&mut self, file: &Value) {
        let Some(all) = file.get("environments") else { return };
        let mut names: HashMap<String, &Pair> = HashMap::new();
        for environment in all.pairs() {
            let key = format!("environments.{}", environment.key);
            if let Some(first) = names.insert(environment.key.to_lowercase(), environment) {
                // "Managing environments for deployment": environment names are not case-sensitive.
                let message =
                    format!("{} and {} are one environment to GitHub", shown(&first.key), shown(&environment.key));
                self.wrong(environment, &key, message, "names that differ in more than case");
            }
            self.deploy(file, environment, &key);
            self.both_env_and_secret(environment, &key);
            if let Some(allow) = environment.value.written("allow")
                && allow.value.data != Data::Invalid
                && ["roles", "teams", "users"].iter().all(|k| allow.value.texts(k).is_empty())
            {
                self.wrong(allow, &format!("{key}.allow"), "`allow` allows nobody", "roles, teams or users");
            }
            let (min_ready, limit) =
                (environment.value.duration("min_ready"), environment.value.duration("start_timeout"));
            if limit > Duration::ZERO
                && min_ready >= limit
                && let Some(pair) =
                    environment.value.written("min_ready").or(environment.value.written("start_timeout"))
            {
                let message = "`min_ready` is not shorter than `start_timeout`, so no slot could ever be ready";
                self.wrong(pair, &format!("{key}.{}", pair.key), message, "a shorter `min_ready`");
            }
        }
        self.references(all, "environments", "deploy.promote_from", "environment", &|e| {
            e.value.get("deploy")?.written("promote_from")
        });
        self.cycles(all, "environments", "deploy", |e| {
            e.value.get("deploy").and_then(|d| d.text("promote_from")).map(str::to_owned).into_iter().collect()
        });
    }

    fn deploy(&mut self, file: &Value, environment: &Pair, key: &str) {
        if let Some(after) = environment.value.written("after") {
            let own = format!("deploy ({})", environment.key);
            for item in after.value.items().iter().filter(|i| i.as_text() == Some(own.as_str())) {
                let message = "an environment cannot wait for its own deployment";
                self.checker.add(Mistake::new(item.at, &format!("{key}.after"), message, "other checks"));
            }
        }
        let Some(deploy) = environment.value.written("deploy") else { return };
        if deploy.value.as_text() == Some("command") {
            let message = "nothing is ever released here: no command takes a commit to such an environment yet";
            let expected = "`{branch: …}` with `approval: required`, or `{promote_from: …}`";
            self.warnings.push(Mistake::new(deploy.value.at, &format!("{key}.deploy"), message, expected));
        }
        let Data::Map(_) = deploy.value.data else { return };
        let key = format!("{key}.deploy");
        match (deploy.value.written("branch"), deploy.value.written("promote_from")) {
            (Some(_), Some(promote)) => {
                let expected = "one of the two: a branch is built, or another environment's digests are promoted";
                self.wrong(promote, &format!("{key}.promote_from"), "`branch` beside `promote_from`", expected);
            }
            (None, None) => {
                let expected = "`branch: …` or `promote_from: …`, or `deploy: command`";
                self.wrong(deploy, &key, "`deploy` does not say where releases come from", expected);
            }
            (Some(branch), None) => {
                let patterns = file.get("on").filter(|on| on.written("push").is_some()).map(|on| on.texts("push"));
                let waits = environment.value.written("after").is_none()
                    || environment.value.texts("after").iter().any(|a| a == "switchover");
                if let (Some(patterns), Some(name), true) = (patterns, branch.value.as_text(), waits)
                    && !branches::matches(&patterns, name)
                {
                    let message = format!("pushes to {} are not tested, so nothing is ever released", shown(name));
                    let expected = format!("{} under `on.push`, or `after` without `switchover`", shown(name));
                    self.warnings.push(Mistake::new(branch.value.at, &format!("{key}.branch"), message, expected));
                }
            }
            (None, Some(_)) => {}
        }
    }

    /// Well-known secrets written into the file, anywhere.
    fn secrets_in_the_clear(&mut self, value: &Value, path: &mut Vec<String>) {
        match &value.data {
            Data::Text(text) => {
                if let Some(what) = looks_secret(text) {
                    let expected = "its name under `secrets`, and the value granted by the operator";
                    let message = format!("this looks like {what}, and everybody who reads the repository sees it");
                    self.warnings.push(Mistake::new(value.at, &dotted(path), message, expected));
                }
            }
            Data::List(items) => items.iter().for_each(|item| self.secrets_in_the_clear(item, path)),
            Data::Map(pairs) => {
                for pair in pairs {
                    path.push(pair.key.clone());
                    self.secrets_in_the_clear(&pair.value, path);
                    path.pop();
                }
            }
            _ => {}
        }
    }
}

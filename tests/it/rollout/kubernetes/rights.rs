//! An account with the shipped Role alone: all works; with a right taken away, that is said before anything is touched.

use switchover::{
    cluster::rights::{RELEASE, Rule, role},
    domain::{config::AppKind, rollout::Ended},
};

use super::{Bench, POLITE, Wanted, answers, back_to, desired, made_up, told, watch};
use crate::{
    cluster::rig::until,
    rollout::stage::{pre_deploy, smoke},
};

const NAME: &str = "switchover-target";

/// `SWITCHOVER_TEST_ALL`: each right alone, and not only each line of the Role.
fn taken_away() -> Vec<(Rule, Vec<String>)> {
    let words = |rule: &Rule, resource: &str, verb: &str| match rule.group {
        "" => format!("{verb} {resource}"),
        group => format!("{verb} {resource}.{group}"),
    };
    let each = std::env::var_os("SWITCHOVER_TEST_ALL").is_some();
    let mut all = Vec::new();
    for rule in &RELEASE {
        let rights: Vec<_> = rule.resources.iter().flat_map(|r| rule.verbs.iter().map(move |v| (r, v))).collect();
        if !each {
            all.push((*rule, rights.iter().map(|(r, v)| words(rule, r, v)).collect()));
            continue;
        }
        for (resource, verb) in rights {
            let resources: &'static [&'static str] = rule.resources;
            let at = resources.iter().position(|r| r == resource).unwrap();
            let at_verb = rule.verbs.iter().position(|v| v == verb).unwrap();
            let one = Rule { resources: &resources[at..=at], verbs: &rule.verbs[at_verb..=at_verb], ..*rule };
            all.push((one, vec![words(rule, resource, verb)]));
        }
    }
    all
}

/// The Role without these rights.
fn without(gone: &Rule) -> String {
    let mut rules = Vec::new();
    for rule in &RELEASE {
        for i in 0..rule.resources.len() {
            for j in 0..rule.verbs.len() {
                let one = Rule { resources: &rule.resources[i..=i], verbs: &rule.verbs[j..=j], ..*rule };
                let is = one.group == gone.group
                    && gone.resources.contains(&one.resources[0])
                    && gone.verbs.contains(&one.verbs[0]);
                if !is {
                    rules.push(one);
                }
            }
        }
    }
    role(NAME, None, &rules)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_shipped_role_is_enough_and_a_missing_right_is_named() {
    let Some(bench) = Bench::new("the_shipped_role_is_enough_and_a_missing_right_is_named").await else { return };
    bench.ns.apply(&role(NAME, None, &RELEASE));
    let kubeconfig = bench.ns.account(NAME, bench.dir.path());
    let bench = Bench { watched: watch(&kubeconfig, &bench.ns.name).await, ..bench };
    let cluster = bench.ns.cluster;
    let push = |app: &str, v: &str| cluster.push_app(&format!("rights/{app}"), v, POLITE);
    let (images, next) = ([push("web", "one"), push("mailer", "one")], [push("web", "two"), push("mailer", "two")]);
    let version = |name: &str, images: &[crate::cluster::rig::Image; 2]| {
        let mut manifests = made_up("web", AppKind::Web);
        manifests.shared = vec![
            serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "beside"}, "data": {"v": name}}),
        ];
        let mailer = Wanted { name: "mailer", kind: AppKind::Worker, ..Wanted::web(&images[1]) };
        let web = Wanted { manifests: Some(manifests), ..Wanted::web(&images[0]) };
        let mut d = desired(name, vec![web, mailer]);
        d.apps[0].spec.pre_deploy = pre_deploy("echo migrated", true);
        d.apps[0].spec.smoke = smoke("test -n \"$URL\"");
        d
    };
    let (one, two) = (version("one", &images), version("two", &next));
    for d in [&one, &two, &back_to(&one)] {
        let (end, progress) = bench.release(d).await;
        assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
    }
    answers(bench.address("web"), "one");

    let who = format!("--as=system:serviceaccount:{}:switchover", bench.ns.name);
    let slots = bench.names("deployments");
    for (rule, words) in taken_away() {
        bench.ns.apply(&without(&rule));
        let (resource, part) = rule.resources[0].split_once('/').unwrap_or((rule.resources[0], ""));
        let resource = if rule.group.is_empty() { resource.to_owned() } else { format!("{resource}.{}", rule.group) };
        let part = format!("--subresource={part}");
        let can = || bench.ns.try_kubectl(&["auth", "can-i", rule.verbs[0], &resource, &part, &who]).is_ok();
        // Rules take a moment to reach the one who decides.
        tokio::task::block_in_place(|| until("the right is gone", || !can()));
        let (end, progress) = bench.release(&version("two", &next)).await;
        assert_eq!(end.outcome, Ended::Failed, "{words:?}: {} {}", end.words, told(&progress));
        for right in &words {
            assert!(end.words.contains(right.as_str()), "{right}: {}", end.words);
        }
        assert_eq!(bench.names("deployments"), slots, "{words:?}");
    }
    // And with all of them again.
    bench.ns.apply(&role(NAME, None, &RELEASE));
    let can = || bench.ns.try_kubectl(&["auth", "can-i", "get", "persistentvolumeclaims", &who]).is_ok();
    tokio::task::block_in_place(|| until("the rights are back", can));
    let (end, progress) = bench.release(&version("two", &next)).await;
    assert_eq!(end.outcome, Ended::Live, "{} {}", end.words, told(&progress));
}

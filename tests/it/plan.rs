//! The pure planner: facts in, decision out.

use std::collections::{BTreeMap, BTreeSet};

use switchover::{
    domain::{
        config::{self, RepoConfig},
        event::RepoInfo,
        ids::{Digest, InstallationId, RepoId, RepoRef, RunId, Sha},
        planned::{NewRun, Reused},
        run::{ConfigMistake, Context, Outcome, RunDetail, Trigger, Trust},
    },
    plan::{self, Decision, Earlier, Facts, Reuse, Subject},
};
use uuid::Uuid;

const CONFIG: &str = "
version: 1
apps:
  backend:
    path: backend
    steps:
      lint: {run: make lint}
      test: {run: make test}
      build: {run: make build}
    start: ./run
  docs:
    path: docs
    steps: {build: {run: make docs}}
environments:
  production: {deploy: {branch: main}}
";

fn sha(digit: char) -> Sha {
    Sha::new(digit.to_string().repeat(40)).expect("hex")
}

fn parse(text: &str) -> RepoConfig {
    config::parse(text).expect("a good configuration").config
}

fn info() -> RepoInfo {
    RepoInfo {
        repo: RepoRef { id: RepoId(1), owner: "acme".into(), name: "shop".into(), installation: InstallationId(2) },
        default_branch: "main".into(),
        archived: false,
        private: true,
    }
}

/// A decision's world, changed by each case as it needs.
struct World {
    repo: RepoInfo,
    context: Context,
    branch: String,
    trust: Trust,
    attempt: i64,
    stands: bool,
    message: String,
    config: Result<RepoConfig, Vec<ConfigMistake>>,
    policy: Option<RepoConfig>,
    trees: BTreeMap<String, String>,
    conflicts: Vec<String>,
    refused: Option<String>,
    earlier: Vec<Earlier>,
    proven: BTreeMap<String, Reused>,
    built: BTreeMap<String, Digest>,
    images: BTreeMap<String, String>,
    reuse: Reuse,
}

impl World {
    fn push(branch: &str) -> Self {
        Self {
            repo: info(),
            context: Context::Push,
            branch: branch.into(),
            trust: Trust::Own,
            attempt: 1,
            stands: false,
            message: "a change".into(),
            config: Ok(parse(CONFIG)),
            policy: Some(parse(CONFIG)),
            trees: BTreeMap::from([("backend".into(), "t1".into()), ("docs".into(), "t2".into())]),
            conflicts: Vec::new(),
            refused: None,
            earlier: Vec::new(),
            proven: BTreeMap::new(),
            built: BTreeMap::new(),
            images: BTreeMap::new(),
            reuse: Reuse::Fitting,
        }
    }

    fn pull() -> Self {
        Self { context: Context::PullRequest, ..Self::push("main") }
    }

    fn with_facts<T>(&self, then: impl FnOnce(&Facts<'_>) -> T) -> T {
        let pull = self.context == Context::PullRequest;
        let subject = Subject {
            context: self.context,
            lane: if pull { "pull/7".into() } else { self.branch.clone() },
            branch: self.branch.clone(),
            pull: pull.then_some(7),
            head: sha('a'),
            test: if pull { sha('c') } else { sha('a') },
            base: Some(sha('b')),
            attempt: self.attempt,
            stands: self.stands,
            trust: self.trust.clone(),
            delivery: None,
            detail: RunDetail { message: self.message.clone(), sender: "ann".into(), ..RunDetail::default() },
        };
        then(&Facts {
            repo: &self.repo,
            subject,
            config: self.config.as_ref().map_err(Vec::as_slice),
            policy: self.policy.as_ref(),
            trees: &self.trees,
            root: "root",
            tools: "tools",
            conflicts: &self.conflicts,
            refused: self.refused.as_deref(),
            earlier: &self.earlier,
            proven: &self.proven,
            built: &self.built,
            images: &self.images,
            reuse: self.reuse.clone(),
        })
    }

    fn plan(&self) -> Decision {
        let mut n = 0;
        self.with_facts(|f| {
            plan::plan(f, &mut || {
                n += 1;
                Uuid::from_u128(n)
            })
        })
    }

    fn run(&self) -> (NewRun, Vec<RunId>) {
        match self.plan() {
            Decision::Run { run, supersede, .. } => (*run, supersede),
            Decision::Nothing(why) => panic!("nothing: {why}"),
        }
    }

    /// Marks every step and build as proven.
    fn prove_all(&mut self) {
        let (steps, builds) = self.with_facts(plan::keys);
        let proof = Reused { run: RunId(Uuid::from_u128(99)), report: None };
        self.proven = steps.into_iter().map(|k| (k, proof.clone())).collect();
        self.built = builds.into_iter().map(|k| (k, Digest::of(b"built"))).collect();
    }
}

fn shape(run: &NewRun) -> String {
    let jobs: Vec<String> = run
        .jobs
        .iter()
        .map(|j| {
            let steps: Vec<String> =
                j.steps.iter().map(|s| format!("{}{}", s.name, if s.reused.is_some() { "=" } else { "" })).collect();
            format!("{}[{}]{}", j.app, steps.join(" "), if j.spec.release.is_some() { " release" } else { "" })
        })
        .collect();
    format!("{}{}", jobs.join(", "), run.outcome.map(|o| format!(" {}", o.as_str())).unwrap_or_default())
}

#[test]
fn a_push_to_an_environments_branch_is_tested_and_built() {
    let (run, _) = World::push("main").run();
    assert_eq!(shape(&run), "backend[lint test build] release, docs[build]");
    assert_eq!(run.jobs[0].priority, 0);
    assert_eq!(run.jobs[0].spec.trigger, Trigger::Release);
}

#[test]
fn a_pull_request_is_tested_and_not_built() {
    let (run, _) = World::pull().run();
    assert_eq!(shape(&run), "backend[lint test], docs[build]");
    assert_eq!((run.head, run.test), (sha('a'), sha('c')), "tested is the merge, shown on the head");
    assert_eq!(run.jobs[0].priority, 1);
}

#[test]
fn which_pushes_are_tested() {
    for (branch, tested) in [("main", true), ("develop", true), ("feature", false), ("release/1", false)] {
        let decision = World::push(branch).plan();
        assert_eq!(matches!(decision, Decision::Run { .. }), tested, "{branch}: {decision:?}");
    }
    let mut world = World::push("release/1");
    world.config = Ok(parse(&format!("{CONFIG}\non: {{push: [\"release/*\"]}}\n")));
    assert!(matches!(world.plan(), Decision::Run { .. }));
    world.branch = "main".into();
    assert!(matches!(world.plan(), Decision::Run { .. }), "an environment's branch is always tested");
}

#[test]
fn environments_come_from_the_default_branch_alone() {
    let mut world = World::push("evil");
    world.config = Ok(parse(&CONFIG.replace("branch: main", "branch: evil")));
    assert!(matches!(world.plan(), Decision::Nothing(_)), "a branch can't make itself an environment's");
}

#[test]
fn what_was_proven_is_not_run_again() {
    let mut world = World::push("main");
    world.prove_all();
    let (run, _) = world.run();
    assert_eq!(shape(&run), "backend[lint= test= build=] release, docs[build=]");
    assert!(run.jobs.iter().all(NewJob::nothing_to_do));
    // The release is gone: it is built again, its tests are not run again.
    world.built.clear();
    assert_eq!(shape(&world.run().0), "backend[lint= test= build] release, docs[build=]");
    // Another tree of one app.
    world.prove_all();
    world.trees.insert("backend".into(), "other".into());
    assert_eq!(shape(&world.run().0), "backend[lint test build] release, docs[build=]");
}

use switchover::domain::planned::NewJob;

#[test]
fn a_rerun_runs_what_was_asked_for() {
    let mut world = World::push("main");
    world.prove_all();
    world.attempt = 2;
    world.reuse = Reuse::Except(BTreeSet::from(["docs".to_owned()]));
    assert_eq!(shape(&world.run().0), "backend[lint= test= build=] release, docs[build]");
    world.reuse = Reuse::Nothing;
    assert_eq!(shape(&world.run().0), "backend[lint test build] release, docs[build]");
}

#[test]
fn a_rebuild_runs_what_makes_the_release_and_nothing_else() {
    let mut world = World::push("main");
    world.images = BTreeMap::from([("backend".into(), "docker.io/acme/backend".into())]);
    world.prove_all();
    assert_eq!(shape(&world.run().0), "backend[lint= test= build= image=] release, docs[build=]");
    (world.attempt, world.reuse) = (2, Reuse::Tests);
    let (run, _) = world.run();
    assert_eq!(shape(&run), "backend[lint= test= build image] release, docs[build=]");
    assert!(run.jobs[0].spec.release.as_ref().and_then(|r| r.image.as_ref()).is_some_and(|i| i.fresh));
}

#[test]
fn an_image_that_another_ci_pushes_is_waited_for() {
    let config = CONFIG.replace("    start: ./run", "    image: {from: ci, tag: \"main-{short}\"}");
    let mut world = World::push("main");
    world.config = Ok(parse(&config));
    world.images = BTreeMap::from([("backend".into(), "docker.io/acme/backend".into())]);
    let (run, _) = world.run();
    // Its `build` would make nothing that is released.
    assert_eq!(shape(&run), "backend[lint test image] release, docs[build]");
    let image = run.jobs[0].spec.release.as_ref().and_then(|r| r.image.clone()).expect("an image");
    assert_eq!(image.pushed_as.as_deref(), Some("main-aaaaaaa"));
    // Tests that are proven are not run again; the image is each commit's own.
    world.prove_all();
    world.built.clear();
    assert_eq!(shape(&world.run().0), "backend[lint= test= image] release, docs[build=]");
}

#[test]
fn a_newer_commit_supersedes() {
    let (queued, running) = (RunId(Uuid::from_u128(50)), RunId(Uuid::from_u128(51)));
    let earlier = |newer| {
        vec![Earlier { id: queued, running: false, newer }, Earlier { id: running, running: true, newer: false }]
    };
    let mut world = World::push("main");
    world.earlier = earlier(false);
    assert_eq!(world.run().1, [queued], "on branches a running test goes on");
    let mut world = World::pull();
    world.earlier = earlier(false);
    assert_eq!(world.run().1, [queued, running], "on pull requests nobody waits for the old one");
    let mut world = World::push("main");
    world.earlier = earlier(true);
    let (run, supersede) = world.run();
    assert_eq!((run.outcome, run.superseded_by), (Some(Outcome::Superseded), Some(queued)), "it came late");
    assert!(supersede.is_empty());
    // Pushed back on purpose: the branch stands on the older commit now.
    world.stands = true;
    let (run, supersede) = world.run();
    assert_eq!((run.outcome, supersede), (None, vec![queued]));
}

#[test]
fn what_can_not_run_says_why() {
    let mistake = ConfigMistake {
        file: None,
        line: 3,
        column: 1,
        message: "unknown key".into(),
        expected: "apps".into(),
        hint: None,
        source: None,
    };
    let case = |change: &dyn Fn(&mut World)| {
        let mut world = World::pull();
        change(&mut world);
        let (run, _) = world.run();
        assert!(run.jobs.is_empty());
        (run.outcome.expect("over"), run.detail)
    };
    let (outcome, detail) = case(&|w| w.config = Err(vec![mistake.clone()]));
    assert_eq!((outcome, detail.mistakes.len()), (Outcome::Failure, 1));
    let (outcome, detail) = case(&|w| w.conflicts = vec!["a.txt".into()]);
    assert_eq!((outcome, detail.conflicts), (Outcome::Failure, vec!["a.txt".to_owned()]));
    let (outcome, detail) = case(&|w| w.trust = Trust::Parked);
    assert!(outcome == Outcome::ActionRequired && detail.parked.is_some());
    let (outcome, detail) = case(&|w| w.refused = Some("not trusted".into()));
    assert_eq!((outcome, detail.parked.as_deref()), (Outcome::ActionRequired, Some("not trusted")));
    let (outcome, detail) = case(&|w| w.config = Ok(parse("version: 1\n")));
    assert!(outcome == Outcome::Success && detail.nothing.is_some());
}

#[test]
fn skip_ci_is_obeyed_for_pushes_only() {
    let mut world = World::push("main");
    world.message = "typo [skip ci]".into();
    let (run, _) = world.run();
    assert!(run.jobs.is_empty() && run.outcome == Some(Outcome::Success));
    let mut world = World::pull();
    world.message = "typo [skip ci]".into();
    assert_eq!(world.run().0.jobs.len(), 2);
}

#[test]
fn the_key_tells_new_work_from_a_redelivery() {
    let key = |change: &dyn Fn(&mut World)| {
        let mut world = World::pull();
        change(&mut world);
        world.run().0.key
    };
    let first = key(&|_| {});
    assert_eq!(first, key(&|_| {}), "the same again is the same");
    assert_ne!(first, key(&|w| w.attempt = 2));
    assert_ne!(first, key(&|w| w.trust = Trust::Approved(sha('a'))));
}

#[test]
fn an_archived_repository_gets_nothing() {
    let mut world = World::push("main");
    world.repo.archived = true;
    assert!(matches!(world.plan(), Decision::Nothing(_)));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the facts: a proof is only taken over when its key fits, and a parked one never runs anything.
        #[test]
        fn nothing_of_a_stranger_runs(attempt in 1..5i64, skip in any::<bool>(), proven in any::<bool>(), conflict in any::<bool>()) {
            let mut world = World::pull();
            if proven { world.prove_all(); }
            world.attempt = attempt;
            world.trust = Trust::Parked;
            if skip { world.message = "[skip ci]".into(); }
            if conflict { world.conflicts = vec!["x".into()]; }
            let (run, _) = world.run();
            prop_assert!(run.jobs.is_empty());
            prop_assert_eq!(run.outcome, Some(Outcome::ActionRequired));
        }

        #[test]
        fn other_commands_or_tools_prove_nothing(command in "[a-z]{1,12}") {
            let mut world = World::push("main");
            world.prove_all();
            let changed = CONFIG.replace("make test", &format!("other {command}"));
            world.config = Ok(parse(&changed));
            let (run, _) = world.run();
            let test = run.jobs[0].steps.iter().find(|s| s.name == "test").expect("a step");
            prop_assert!(test.reused.is_none());
        }
    }
}

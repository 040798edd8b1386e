//! What may stand in `.github/switchover.yml`. The checks, the JSON schema and the reference are made from this table.

use super::{
    formats as f,
    grammar::{Field, Kind, Object},
};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

static ANY: Kind = Kind::Text(&f::ANY_TEXT);
static LINE: Kind = Kind::Text(&f::LINE);
static CACHE: Kind = Kind::Text(&f::CACHE);
static FILES: Kind = Kind::Text(&f::FILES);
static SECRET: Kind = Kind::Text(&f::VARIABLE);
static APP_NAME: Kind = Kind::Text(&f::APP_NAME);
static BRANCH_PATTERN: Kind = Kind::Text(&f::BRANCH_PATTERN);
static ROLE: Kind = Kind::Word(&["write", "maintain", "admin"]);
static TEAM: Kind = Kind::Text(&f::TEAM);
static USER: Kind = Kind::Text(&f::USER);
static WINDOW: Kind = Kind::Text(&f::WINDOW);
static STEP_KIND: Kind = Kind::Object(&STEP);
static SERVICE_KIND: Kind = Kind::Object(&SERVICE);
static APP_KIND: Kind = Kind::Object(&APP);
static ENVIRONMENT_KIND: Kind = Kind::Object(&ENVIRONMENT);

const fn field(key: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { key, kind, required: false, default: None, doc }
}

impl Field {
    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }
}

const fn variables() -> Kind {
    Kind::Map(&f::VARIABLE, &ANY, 500)
}

const fn secrets() -> Kind {
    Kind::List(&SECRET, 200)
}

/// The file.
pub static FILE: Object = Object {
    name: "the file",
    doc: "All of it is optional but `version`; without the file, apps are inferred from what is there.",
    fields: &[
        field("version", Kind::Int(1, 1), "The version of this format: 1.").required(),
        field("on", Kind::Object(&ON), "Which events start tests.").or("{}"),
        field(
            "apps",
            Kind::Map(&f::APP_NAME, &APP_KIND, 100),
            "What is tested, built and released, by name. Without it, apps are inferred.",
        ),
        field(
            "environments",
            Kind::Map(&f::ENVIRONMENT_NAME, &ENVIRONMENT_KIND, 50),
            "Where it is released, by name. Always read from the default branch.",
        ),
        field("notify", Kind::Object(&NOTIFY), "Who is told. Always read from the default branch.").or("{}"),
    ],
};

/// `on:`
pub static ON: Object = Object {
    name: "on",
    doc: "Which events start tests.",
    fields: &[
        field(
            "push",
            Kind::List(&BRANCH_PATTERN, 100),
            "Branches whose pushes are tested. The last pattern that matches decides.",
        )
        .or("the default branch, develop, and every environment's branch"),
        field(
            "pull_request",
            Kind::Bool,
            "Whether pull requests are tested: the merge of head into base, shown on the head.",
        )
        .or("true"),
    ],
};

/// One app.
pub static APP: Object = Object {
    name: "an app",
    doc: "Something that is tested, and maybe built and released.",
    fields: &[
        field(
            "kind",
            Kind::Word(&["web", "worker"]),
            "`web` answers requests on a port and is released blue/green. `worker` has no port (a queue, a schedule) and is never doubled: the old one stops, then the new one starts.",
        )
        .or("web"),
        field(
            "path",
            Kind::Text(&f::FOLDER),
            "Its folder from the repository's root. An app whose folder is untouched is not tested again.",
        )
        .or("."),
        field("container", Kind::Text(&f::IMAGE), "Image that its steps run in (executors docker and kubernetes)."),
        field(
            "cache",
            Kind::List(&CACHE, 50),
            "Folders kept between runs; `~/` is the step's own home, others are below the app's folder.",
        ),
        field("env", variables(), "Plain environment of its steps."),
        field("secrets", secrets(), "Secrets of its steps; the operator grants them."),
        field(
            "steps",
            Kind::Map(&f::STEP_NAME, &STEP_KIND, 50),
            "Steps in order, by name. The one named `build` makes what is released. Without it, steps are inferred.",
        ),
        field(
            "image",
            Kind::TextOr(&f::IMAGE_NAME, &IMAGE),
            "Image to push to, tagged with the commit and deployed by digest; or one that your own CI pushes.",
        ),
        field(
            "image_of",
            Kind::Text(&f::APP_NAME),
            "Another app whose image (or local release) this one runs, with a `start` of its own.",
        ),
        field("dockerfile", Kind::Text(&f::FILE), "Dockerfile from the app's folder."),
        field(
            "files",
            Kind::List(&FILES, 100),
            "Files of a release where there is no image, as patterns from the app's folder.",
        )
        .or("everything there after `build`"),
        field(
            "start",
            Kind::Text(&f::COMMAND),
            "Command that starts it where there is no image. `PORT` in its environment tells where to listen.",
        ),
        field("port", Kind::Int(1, 65_535), "Port that it listens on in its container."),
        field("resources", Kind::Object(&RESOURCES), "CPU and memory that one running copy may use (targets with images).")
            .or("{}"),
        field("health", Kind::Text(&f::URL_PATH), "Path that answers 2xx when it is ready to serve."),
        field(
            "pre_deploy",
            Kind::Object(&PRE_DEPLOY),
            "Runs once per release, in the new release, before anything of it starts.",
        ),
        field("switch_after", Kind::List(&APP_NAME, 100), "Apps that are switched before this one."),
    ],
};

/// An image that is pushed by somebody else.
pub static IMAGE: Object = Object {
    name: "an image",
    doc: "The image of an app, where its name is not all that is to be said.",
    fields: &[
        field("name", Kind::Text(&f::IMAGE_NAME), "Its name without a tag.")
            .or("the app's, in the only registry that the operator granted"),
        field(
            "from",
            Kind::Word(&["build", "ci"]),
            "`build`: built here and pushed. `ci`: your own CI pushes it; a release waits up to an hour for the commit's tag.",
        )
        .or("build"),
        field("tag", Kind::Text(&f::IMAGE_TAG), "With `from: ci`: how the commit is tagged.").or("\"{sha}\""),
    ],
};

/// One step.
pub static STEP: Object = Object {
    name: "a step",
    doc: "A command that must succeed. Steps of an app run one after the other.",
    fields: &[
        field("run", Kind::Text(&f::COMMAND), "Shell command, run in the app's folder by `sh -e`.").required(),
        field(
            "reports",
            Kind::List(&FILES, 50),
            "JUnit XML files to read afterwards, as patterns from the app's folder.",
        ),
        field(
            "services",
            Kind::Map(&f::HOST_NAME, &SERVICE_KIND, 20),
            "Companion containers by host name (executors docker and kubernetes).",
        ),
        field("timeout", Kind::Duration(SECOND, DAY), "Time limit.").or("30m"),
        field("env", variables(), "Plain environment of this step alone, over the app's."),
        field("resources", Kind::Object(&RESOURCES), "CPU and memory asked for.").or("{}"),
    ],
};

/// A companion.
pub static SERVICE: Object = Object {
    name: "a service",
    doc: "A companion container of one step, such as a database.",
    fields: &[
        field("image", Kind::Text(&f::IMAGE), "Its image.").required(),
        field("env", variables(), "Its environment."),
        field(
            "ready",
            Kind::Text(&f::READY),
            "When it counts as ready: `tcp:PORT`, or `health` for the image's own check.",
        ),
    ],
};

/// `resources:`
pub static RESOURCES: Object = Object {
    name: "resources",
    doc: "What a step asks for (executors docker and kubernetes).",
    fields: &[field("cpu", Kind::Cpu, "Cores."), field("memory", Kind::Size, "Memory, in Kubernetes' units.")],
};

/// `pre_deploy:`
pub static PRE_DEPLOY: Object = Object {
    name: "pre_deploy",
    doc: "A command that runs once per release before its slot starts, such as a migration.",
    fields: &[
        field("run", Kind::Text(&f::COMMAND), "Shell command, run in the release.").required(),
        field(
            "reversible",
            Kind::Bool,
            "Whether the old release still works afterwards. If not, there is no automatic way back.",
        )
        .or("false"),
        field("timeout", Kind::Duration(SECOND, DAY), "Time limit.").or("10m"),
    ],
};

/// One environment.
pub static ENVIRONMENT: Object = Object {
    name: "an environment",
    doc: "A place that is released to.",
    fields: &[
        field(
            "deploy",
            Kind::WordOr("command", &DEPLOY),
            "Where its releases come from: a branch, or another environment. `command` is kept for later: nothing releases there yet.",
        )
        .required(),
        field("after", Kind::List(&LINE, 50), "Checks that must be green on the commit, other people's too.")
            .or("[switchover]"),
        field(
            "approval",
            Kind::Word(&["none", "required"]),
            "`none` switches as soon as the new slot is verified; `required` waits for `promote`.",
        )
        .or("none"),
        field("allow", Kind::Object(&ALLOW), "Who may command it.").or("those who may write to the repository"),
        field("target", Kind::Text(&f::ENVIRONMENT_NAME), "The operator's name of where it runs.")
            .or("the only one granted"),
        field("manifests", Kind::Text(&f::FOLDER), "Folder of Kubernetes manifests."),
        field("url", Kind::Text(&f::WEB_URL), "Where users reach it."),
        field("env", variables(), "Plain environment of the running apps."),
        field("secrets", secrets(), "Secrets of the running apps; the operator grants them."),
        field("replicas", Kind::Int(1, 1_000), "Running copies per slot.").or("1"),
        field("probe", Kind::Object(&PROBE), "How the release is watched from outside.").or("{}"),
        field("smoke", Kind::Object(&SMOKE), "Command that must succeed against the new slot alone."),
        field(
            "min_ready",
            Kind::Duration(0, DAY),
            "How long the new slot must answer well before it is ready to serve.",
        )
        .or("1s"),
        field("start_timeout", Kind::Duration(SECOND, DAY), "How long a slot may take until it is ready.").or("2m"),
        field(
            "watch_for",
            Kind::Duration(0, 7 * DAY),
            "How long after the switch a bad release is taken back by itself.",
        )
        .or("1m"),
        field("keep_previous", Kind::Duration(0, 30 * DAY), "How long the previous slot is kept warm after that.")
            .or("1h"),
        field("drain_timeout", Kind::Duration(0, DAY), "The longest request that must not be cut.").or("30s"),
        field("windows", Kind::List(&WINDOW, 50), "When automatic releases may begin.").or("always"),
    ],
};

/// `deploy:`
pub static DEPLOY: Object = Object {
    name: "deploy",
    doc: "Where releases come from: one of the two, never both.",
    fields: &[
        field("branch", Kind::Text(&f::BRANCH), "Every push to this branch."),
        field("promote_from", Kind::Text(&f::ENVIRONMENT_NAME), "Only what is live in that environment, on command."),
    ],
};

/// `allow:`
pub static ALLOW: Object = Object {
    name: "allow",
    doc: "Who may command an environment: anybody who is in one of these.",
    fields: &[
        field("roles", Kind::List(&ROLE, 3), "Roles in the repository, and those above them."),
        field("teams", Kind::List(&TEAM, 50), "Teams as org/team."),
        field("users", Kind::List(&USER, 200), "Users by login."),
    ],
};

/// `probe:`
pub static PROBE: Object = Object {
    name: "probe",
    doc: "The requests that prove a release.",
    fields: &[
        field("path", Kind::Text(&f::URL_PATH), "Path to GET.").or("the app's `health`"),
        field("interval", Kind::Duration(1, MINUTE), "Time between two requests of one prober.").or("20ms"),
        field("body", Kind::Text(&f::ANY_TEXT), "Body to POST instead."),
    ],
};

/// `smoke:`
pub static SMOKE: Object = Object {
    name: "smoke",
    doc: "A test of the new slot before users see it.",
    fields: &[
        field("run", Kind::Text(&f::COMMAND), "Shell command; `URL` in its environment tells where the slot is.")
            .required(),
        field("timeout", Kind::Duration(SECOND, HOUR), "Time limit.").or("1m"),
    ],
};

/// `notify:`
pub static NOTIFY: Object = Object {
    name: "notify",
    doc: "Who is told.",
    fields: &[field("slack", Kind::Text(&f::CHANNEL), "Slack channel; the operator maps it to a webhook.")],
};

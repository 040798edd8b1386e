-- Times are milliseconds since 1970 (UTC). JSON is TEXT. Names follow the domain, not GitHub's payloads.

CREATE TABLE deliveries (
    guid TEXT PRIMARY KEY,
    event TEXT NOT NULL,
    action TEXT,
    repo_id BIGINT,
    installation_id BIGINT,
    received_at BIGINT NOT NULL,
    body BLOB,
    -- pending, done, quarantined (can't be read), dead (gave up: `replay` revives it)
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT NOT NULL,
    processed_at BIGINT,
    note TEXT
);
-- "Which is due" and "is an older one of its repository due" must stay cheap with ten thousand waiting.
CREATE INDEX deliveries_due ON deliveries (next_at) WHERE state = 'pending';
CREATE INDEX deliveries_of_repo ON deliveries (repo_id) WHERE state = 'pending';
CREATE INDEX deliveries_by_state ON deliveries (state);
CREATE INDEX deliveries_by_time ON deliveries (received_at);

CREATE TABLE repos (
    id BIGINT PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    installation_id BIGINT NOT NULL,
    default_branch TEXT NOT NULL,
    archived BIGINT NOT NULL,
    private BIGINT NOT NULL,
    -- active, suspended, removed
    state TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- The commit of each branch that was acted upon last: what the sweeper compares GitHub's with.
CREATE TABLE heads (
    repo_id BIGINT NOT NULL,
    branch TEXT NOT NULL,
    sha TEXT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (repo_id, branch)
);

CREATE TABLE pulls (
    repo_id BIGINT NOT NULL,
    number BIGINT NOT NULL,
    open BIGINT NOT NULL,
    head TEXT NOT NULL,
    pull TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (repo_id, number)
);

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    repo_id BIGINT NOT NULL,
    -- (context, ref or pull request, head, base, attempt): a redelivery meets it, a re-run does not
    run_key TEXT NOT NULL,
    context TEXT NOT NULL,
    -- the branch, or `pull/N`: what a newer run supersedes within
    lane TEXT NOT NULL,
    pull BIGINT,
    head_sha TEXT NOT NULL,
    test_sha TEXT NOT NULL,
    base_sha TEXT,
    attempt BIGINT NOT NULL,
    -- queued, running, done
    state TEXT NOT NULL,
    outcome TEXT,
    superseded_by TEXT,
    delivery TEXT,
    detail TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    UNIQUE (repo_id, run_key)
);
CREATE INDEX runs_by_head ON runs (repo_id, head_sha);
CREATE INDEX runs_open ON runs (state, repo_id, lane);

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs (id),
    repo_id BIGINT NOT NULL,
    app TEXT NOT NULL,
    seq BIGINT NOT NULL,
    -- 0: leads to a release, 1: a test
    priority BIGINT NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT,
    spec TEXT NOT NULL,
    owner TEXT,
    lease_until BIGINT,
    epoch BIGINT NOT NULL DEFAULT 0,
    attempts BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT NOT NULL,
    digest TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX jobs_due ON jobs (state, priority, created_at);
CREATE INDEX jobs_by_run ON jobs (run_id);

CREATE TABLE steps (
    id TEXT PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs (id),
    run_id TEXT NOT NULL,
    repo_id BIGINT NOT NULL,
    app TEXT NOT NULL,
    name TEXT NOT NULL,
    seq BIGINT NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT,
    tree_key TEXT NOT NULL,
    reused_run TEXT,
    started_at BIGINT,
    finished_at BIGINT,
    result TEXT,
    report TEXT,
    last_lines TEXT,
    note TEXT,
    log TEXT
);
CREATE INDEX steps_by_job ON steps (job_id, seq);
CREATE INDEX steps_by_run ON steps (run_id);

-- What was proven: this step on this tree with these commands and tools ended well.
CREATE TABLE tested (
    repo_id BIGINT NOT NULL,
    tree_key TEXT NOT NULL,
    run_id TEXT NOT NULL,
    step_id TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (repo_id, tree_key)
);

-- What was built: content-addressed, never twice for one tree.
CREATE TABLE releases (
    repo_id BIGINT NOT NULL,
    build_key TEXT NOT NULL,
    app TEXT NOT NULL,
    sha TEXT NOT NULL,
    digest TEXT NOT NULL,
    path TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (repo_id, build_key)
);

CREATE TABLE environments (
    repo_id BIGINT NOT NULL,
    name TEXT NOT NULL,
    held BIGINT NOT NULL DEFAULT 0,
    hold_reason TEXT,
    hold_by TEXT,
    hold_at BIGINT,
    live_rollout TEXT,
    epoch BIGINT NOT NULL DEFAULT 0,
    -- slots that stay warm as the way back, as JSON, and when the next one of them is retired
    keep TEXT NOT NULL DEFAULT '[]',
    retire_at BIGINT,
    PRIMARY KEY (repo_id, name)
);

CREATE TABLE rollouts (
    id TEXT PRIMARY KEY,
    repo_id BIGINT NOT NULL,
    environment TEXT NOT NULL,
    kind TEXT NOT NULL,
    sha TEXT NOT NULL,
    run_id TEXT,
    -- gated (waits for checks, a window, a hold), queued, active, done
    state TEXT NOT NULL,
    outcome TEXT,
    message TEXT,
    desired TEXT NOT NULL,
    progress TEXT NOT NULL,
    detail TEXT NOT NULL,
    asked TEXT NOT NULL,
    actor TEXT NOT NULL,
    epoch BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT
);
CREATE INDEX rollouts_by_environment ON rollouts (repo_id, environment, created_at);
CREATE INDEX rollouts_open ON rollouts (state, next_at);
CREATE INDEX rollouts_by_sha ON rollouts (repo_id, sha);

-- What must be rendered again, because something under it changed. Written in the same transaction as the change.
CREATE TABLE dirty (
    kind TEXT NOT NULL,
    repo_id BIGINT NOT NULL,
    subject TEXT NOT NULL,
    since BIGINT NOT NULL,
    -- grows with each change: a rendering takes off only the mark of what it saw
    version BIGINT NOT NULL DEFAULT 1,
    PRIMARY KEY (kind, repo_id, subject)
);

-- What GitHub should show, and what it was seen to show. Reporting is making the two equal.
CREATE TABLE shown (
    key TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    repo_id BIGINT NOT NULL,
    base_key TEXT NOT NULL,
    sha TEXT NOT NULL,
    desired TEXT NOT NULL,
    desired_hash TEXT NOT NULL,
    shown_hash TEXT,
    github_id BIGINT,
    -- an attempt was made whose effect is not known: look before writing
    ambiguous BIGINT NOT NULL DEFAULT 0,
    attempts BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT NOT NULL,
    error TEXT,
    updated_at BIGINT NOT NULL
);
CREATE INDEX shown_by_base ON shown (base_key);
CREATE INDEX shown_by_sha ON shown (repo_id, sha);

CREATE TABLE messages (
    key TEXT PRIMARY KEY,
    repo_id BIGINT NOT NULL,
    channel TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    sent_at BIGINT,
    attempts BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT NOT NULL,
    error TEXT
);

-- Why something did or did not run: what `explain` prints.
CREATE TABLE reasons (
    id INTEGER PRIMARY KEY,
    at BIGINT NOT NULL,
    repo_id BIGINT,
    sha TEXT,
    delivery TEXT,
    text TEXT NOT NULL
);
CREATE INDEX reasons_by_sha ON reasons (sha);
CREATE INDEX reasons_by_delivery ON reasons (delivery);

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

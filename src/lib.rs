//! Switchover: a GitHub App that tests every push and releases blue/green with no lost request.
//!
//! The server decides, the agent serves: two processes of one binary. What flows:
//!
//! ```text
//! GitHub ─webhook→ web ──→ store (deliveries)
//!                            │
//!                     engine::planner    plan: event, config, facts -> decision            pure
//!                            │  one transaction: runs, cancellations; the delivery is done
//!                     engine::runner     Executor
//!                            │  steps, logs, test reports, releases
//!                     engine::rollouts   next(desired, progress, observed, now) -> step    pure
//!                            │  Target → agent → slots
//!                     engine::reporter   report(view) -> what GitHub and Slack should show pure
//!                            │  compare with what was last shown; write the difference
//!                     engine::sweeper    missed deliveries, branch heads, retention
//! ```
//!
//! Everything right of a webhook is driven by the [`store`], never by a call chain: each loop of the [`engine`] reads
//! what is due, acts, writes the outcome. The happy path, the periodic sweep and the restart run the same code.
//!
//! # Invariants
//!
//! 1. A delivery is on disk before GitHub gets a 2xx. Signature first, over the raw bytes, in constant time; JSON
//!    later; what can't be read is quarantined, never refused. ([`web::intake`], [`store`])
//! 2. Nothing acts on the world before the intent is recorded; every effect has a deterministic key, so recovery reads
//!    before it does again. ([`engine::reporter`], [`github`], [`rollout`], [`agent`])
//! 3. Every configured check ends in a terminal state, also on mistakes in the configuration, skips, cancellation and
//!    shutdown. ([`plan`], [`report`])
//! 4. Policy (environments, notifications, who may do what) comes from the default branch, never from a pull request's
//!    head; steps come from the tested commit. ([`engine::facts`])
//! 5. A release is named by its content, never by a tag; built once, promoted as it is. ([`domain::ids::Digest`])
//! 6. Exactly one slot serves, and which one is read from the live system, never guessed; an unknown slot stops the
//!    rollout with a clear message. ([`domain::rollout`], [`agent`])
//! 7. The way back never depends on the new version's health. ([`domain::rollout::machine`])
//! 8. At most one rollout per environment; a push supersedes queued work, never one past its switch.
//!    ([`engine::rollouts`])
//! 9. Every write of state is fenced by id and epoch: a stale worker is inert. ([`store::StoreError::Fenced`])
//! 10. A secret never reaches a check or a comment; a step gets only what the operator granted to its kind of trigger,
//!     a stranger's nothing. ([`settings`], [`report::redact`])
//!
//! ARCHITECTURE.md names the test that proves each.
//!
//! # Rooms
//!
//! Dependencies point down: main → web, control, engine, demo → store, github, exec, rollout → the agent's protocol
//! → plan, report, infer, settings → domain. Adapters never import each other. `tests/it/tidy.rs` holds the table.

pub mod agent;
pub mod clock;
pub mod cluster;
pub mod control;
pub mod demo;
pub mod docker;
pub mod domain;
pub mod engine;
pub mod exec;
pub mod failpoint;
pub mod github;
pub mod image;
pub mod infer;
pub mod manifests;
pub mod plan;
pub mod report;
pub mod rollout;
pub mod settings;
pub mod slack;
pub mod store;
pub mod telemetry;
pub mod web;

//! Whatever stands in names, messages and logs: rendered, it is text and nothing else.

use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, TextMergeStream};
use switchover::{
    domain::{
        check::{CheckRun, CheckStatus},
        run::{Outcome, StepEnd, TestState, Trust},
    },
    report::{
        MARKDOWN_MAX, and_check, deploy_check, rollout_messages, run_messages, step_check,
        view::{HoldView, MistakeView, RolloutState, RolloutView, RunView, StepView},
    },
};

use super::{CI, WEB, at, case, done, ended, failing_tests, job, live, queued};

const HEADINGS: &[&str] = &[
    "Newly failing: fail here, not on the base",
    "Newly fixed: failed on the base",
    "Failed",
    "Flaky: failed first, then held",
    "Slowest",
    "Reports that could not be read",
    "Last lines",
    "How it was understood",
    "What this changes once merged",
    "In conflict",
    "Requests",
    "What goes live",
    "Worth knowing",
];

/// Renders markdown as GitHub would and looks for anything that came from outside and is more than text.
fn look(markdown: &str) -> Result<(), String> {
    if markdown.len() > MARKDOWN_MAX {
        return Err(format!("{} bytes", markdown.len()));
    }
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_MATH;
    let (mut in_code, mut heading, mut columns) = (false, None::<String>, None);
    let mut cells = 0;
    for event in TextMergeStream::new(Parser::new_ext(markdown, options)) {
        match event {
            Event::Html(html) | Event::InlineHtml(html) => return Err(format!("HTML {html:?}")),
            Event::InlineMath(m) | Event::DisplayMath(m) => return Err(format!("mathematics {m:?}")),
            Event::FootnoteReference(_) | Event::TaskListMarker(_) | Event::Rule => return Err("a structure".into()),
            Event::Start(Tag::Image { .. }) => return Err("an image".into()),
            Event::Start(Tag::BlockQuote(_)) => return Err("a quotation".into()),
            Event::Start(Tag::Link { dest_url, .. }) => {
                let own = [WEB, CI, "https://shop.example"].iter().any(|own| dest_url.starts_with(own));
                if !own {
                    return Err(format!("a link to {dest_url}"));
                }
            }
            Event::Start(Tag::CodeBlock(_)) => in_code = true,
            Event::End(TagEnd::CodeBlock) => in_code = false,
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let text = heading.take().unwrap_or_default();
                if !HEADINGS.contains(&text.as_str()) {
                    return Err(format!("a heading {text:?}"));
                }
            }
            Event::Start(Tag::Table(alignments)) => columns = Some(alignments.len()),
            Event::Start(Tag::TableCell) => cells += 1,
            Event::End(TagEnd::TableRow | TagEnd::TableHead) => {
                if Some(cells) != columns {
                    return Err(format!("a row of {cells} cells"));
                }
                cells = 0;
            }
            Event::Text(text) if !in_code => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
                let mut chars = text.chars().peekable();
                while let Some(c) = chars.next() {
                    let next = chars.peek().copied().unwrap_or(' ');
                    if c == '@' && next.is_ascii_alphanumeric() || c == '#' && next.is_ascii_digit() {
                        return Err(format!("a mention in {text:?}"));
                    }
                }
                if text.contains("http://") || text.contains("www.") || text.to_lowercase().contains("gh-1") {
                    return Err(format!("an autolink in {text:?}"));
                }
            }
            _ => {}
        }
    }
    if in_code { Err("an open fence".into()) } else { Ok(()) }
}

fn look_at(check: &CheckRun) -> Result<(), String> {
    for markdown in [Some(&check.summary), check.text.as_ref()].into_iter().flatten() {
        look(markdown).map_err(|e| format!("{}: {e}\n{markdown}", check.name))?;
    }
    if (check.status == CheckStatus::Completed) != check.conclusion.is_some() {
        return Err("completed and concluded differ".into());
    }
    for a in &check.annotations {
        let limits = a.message.len() <= 64_000
            && !a.message.is_empty()
            && a.title.as_ref().is_none_or(|t| t.chars().count() <= 255)
            && a.raw_details.as_ref().is_none_or(|d| d.len() <= 64_000)
            && !a.path.starts_with("./")
            && !a.path.starts_with('/')
            && a.start_line >= 1;
        if !limits {
            return Err(format!("{a:?}"));
        }
    }
    if check.annotations.len() > 50 || check.actions.len() > 3 || check.title.chars().count() > 250 {
        return Err("too many".into());
    }
    Ok(())
}

fn hostile_steps(bad: &str, many: usize) -> Vec<StepView> {
    let mut test = failing_tests();
    for report in [&mut test.report, &mut test.base_report].into_iter().flatten() {
        report.problems = vec![bad.to_owned()];
        for case in &mut report.cases {
            case.suite = bad.to_owned();
            case.name.push_str(bad);
            case.message = Some(bad.to_owned());
            case.trace = Some(bad.to_owned());
            case.location = Some((bad.to_owned(), 0));
        }
    }
    let mut compared = failing_tests();
    if let Some(report) = &mut compared.report {
        for n in 0..many {
            report.cases.push(case(bad, &format!("{bad}{n}"), TestState::Failed, f64::NAN));
        }
        report.failed = u32::try_from(report.cases.len()).expect("few") - 2;
    }
    let mut plain = done(13, "build", Outcome::Failure, StepEnd::NotStarted(bad.to_owned()));
    plain.last_lines = std::iter::repeat_n(bad.to_owned(), many).collect();
    plain.note = Some(bad.to_owned());
    vec![test, compared, plain, queued(14, "late")]
}

fn hostile_run(bad: &str, many: usize) -> RunView {
    let mut run = ended(vec![job("backend", hostile_steps(bad, many))], Outcome::Failure);
    run.branch = bad.to_owned();
    run.base_ref = Some(bad.to_owned());
    run.message = bad.to_owned();
    run.author = bad.to_owned();
    run.notes = std::iter::repeat_n(bad.to_owned(), many).collect();
    run
}

fn hostile_rollout(bad: &str, many: usize, state: RolloutState) -> RolloutView {
    let mut rollout = RolloutView { state, ..live() };
    for text in [
        &mut rollout.commit_message,
        &mut rollout.author,
        &mut rollout.started_by,
        &mut rollout.message,
        &mut rollout.slot,
    ] {
        bad.clone_into(text);
    }
    rollout.notes = vec![bad.to_owned(); many];
    rollout.last_lines = vec![bad.to_owned(); many];
    rollout.hold = Some(HoldView { since: at(0), by: bad.to_owned(), reason: bad.to_owned() });
    for phase in &mut rollout.phases {
        phase.note = Some(bad.to_owned());
    }
    if let Some(probe) = &mut rollout.probe {
        probe.failures = vec![bad.to_owned(); many];
    }
    if let Some(goes) = &mut rollout.goes_live {
        for commit in &mut goes.commits {
            commit.message = bad.to_owned();
            commit.author = bad.to_owned();
        }
        for pull in &mut goes.pulls {
            pull.title = bad.to_owned();
            pull.author = bad.to_owned();
        }
    }
    rollout
}

fn everything(bad: &str, many: usize) -> Result<(), String> {
    let run = hostile_run(bad, many);
    for job in &run.jobs {
        for step in &job.steps {
            look_at(&step_check(&run, job, step))?;
        }
    }
    let mut variants = vec![run.clone()];
    variants.push(RunView { conflicts: vec![bad.to_owned(); many.max(1)], ..run.clone() });
    variants.push(RunView { parked: Some(bad.to_owned()), trust: Trust::Parked, outcome: None, ..run.clone() });
    variants.push(RunView { changes: vec![bad.to_owned(); many.max(1)], ..run.clone() });
    let mistake = MistakeView {
        // No path of git begins with a slash or a dot and a slash.
        file: format!("x{bad}"),
        line: 0,
        column: 7,
        length: 900,
        message: bad.to_owned(),
        expected: Some(bad.to_owned()),
        hint: Some(bad.to_owned()),
        source: Some(bad.to_owned()),
    };
    variants.push(RunView { config_mistakes: vec![mistake], ..run.clone() });
    for variant in &variants {
        look_at(&and_check(&variant.head_sha, std::slice::from_ref(variant)))?;
    }
    let mut messages = run_messages(&run);
    for state in [RolloutState::Running, RolloutState::Live, RolloutState::RolledBack, RolloutState::Stuck] {
        let rollout = hostile_rollout(bad, many, state);
        look_at(&deploy_check(&rollout))?;
        messages.extend(rollout_messages(&rollout));
    }
    for message in messages {
        let blocks = message.blocks.as_array().expect("blocks");
        if blocks.len() > 50 || blocks.is_empty() {
            return Err("blocks".into());
        }
        for block in blocks {
            let text = block["text"]["text"].as_str().or(block["elements"][0]["text"].as_str()).expect("text");
            if text.chars().count() > 3000 || text.contains("<!") || text.contains("<@") || text.is_empty() {
                return Err(text.to_owned());
            }
        }
    }
    Ok(())
}

fn hostile() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "@alice",
        "#12",
        "`",
        "```",
        "\n",
        "\n\n",
        "|",
        "<img src=x>",
        "</details>",
        "<!--",
        "](http://evil)",
        "[x]",
        "![y]",
        "http://evil",
        "www.evil.x",
        "GH-12",
        "&#64;bob",
        "\\",
        "- ",
        "# ",
        "1. ",
        "> ",
        "***",
        "~~~",
        "    ",
        "é",
        "😀",
        "\u{1b}[31m",
        "$x$",
        "$$",
        "===",
        "---",
        "acme/shop#7",
        "bob@x.y",
        "\u{0}",
        "<!channel>",
        ":",
        "//",
        "w",
        "_",
        "!",
    ]);
    prop_oneof![
        4 => prop::collection::vec(piece, 0..12).prop_map(|p| p.concat()),
        1 => any::<String>(),
    ]
}

proptest! {
    #[test]
    fn outside_text_stays_text(bad in hostile(), many in 0usize..4) {
        if let Err(e) = everything(&bad, many) {
            prop_assert!(false, "{bad:?}: {e}");
        }
    }
}

#[test]
fn enormous_input_keeps_the_limits_and_the_commands() {
    for bad in ["`".repeat(100_000), "x".repeat(300_000), "é\n".repeat(50_000), "@a |".repeat(20_000)] {
        everything(&bad, 60).unwrap_or_else(|e| panic!("{}: {}", &bad[..8], &e[..e.len().min(2000)]));
        let run = hostile_run(&bad, 60);
        let job = &run.jobs[0];
        let check = step_check(&run, job, &job.steps[0]);
        assert!(
            check.summary.ends_with("To run it again, press **Re-run**."),
            "{}",
            &check.summary[check.summary.len() - 100..]
        );
    }
}

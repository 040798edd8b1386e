//! `docker build` and its like in scripts: words, folders, variables. Enough of a shell to find what is built from what.

use std::collections::BTreeMap;

use super::super::project::join;

/// One build that a script does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Build {
    /// The Dockerfile from the repository's root; None for the context's own.
    pub dockerfile: Option<String>,
    /// Where the Dockerfile may be as well: kaniko looks in the context.
    pub or: Option<String>,
    /// The build context from the repository's root. A `*` stands for what only the CI knows.
    pub context: String,
    /// Name of the image without registry and tag, if it is plain.
    pub image: Option<String>,
    /// Build arguments with plain values.
    pub args: BTreeMap<String, String>,
    /// The file that says so.
    pub file: String,
    /// Its line, from 1; 0 where it is not known.
    pub line: usize,
}

/// Flags of `docker build` without a value ("docker buildx build").
const BARE: [&str; 13] = [
    "--no-cache",
    "--pull",
    "--push",
    "--load",
    "-q",
    "--quiet",
    "--rm",
    "--force-rm",
    "--squash",
    "--compress",
    "--disable-content-trust",
    "--debug",
    "-D",
];

/// What stands for the repository's root in CI files.
const ROOTS: [&str; 12] = [
    "$WORKSPACE",
    "${WORKSPACE}",
    "${env.WORKSPACE}",
    "$(pwd)",
    "`pwd`",
    "$PWD",
    "${PWD}",
    "${{ github.workspace }}",
    "$GITHUB_WORKSPACE",
    "${GITHUB_WORKSPACE}",
    "$CI_PROJECT_DIR",
    "${CI_PROJECT_DIR}",
];

/// Variables with plain values that a file sets: `NAME=value`, `NAME: value`, `NAME = 'value'`.
pub(super) fn variables(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let line = line.trim().trim_start_matches("- ").trim_start_matches("export ").trim_start_matches("def ");
        let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let Some(value) = rest.trim_start().strip_prefix(['=', ':']) else { continue };
        let value = value.trim().trim_matches(['"', '\'']);
        let plain = |c: char| c.is_alphanumeric() || "._-/:@".contains(c);
        if !name.is_empty() && !value.is_empty() && value.chars().all(plain) {
            found.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        if found.len() > 500 {
            break;
        }
    }
    found
}

/// A word with its variables put in; what only the CI knows becomes `*`.
pub(super) fn known(word: &str, variables: &BTreeMap<String, String>) -> String {
    let mut text = word.trim_start_matches("dir://").to_owned();
    for root in ROOTS {
        text = text.replace(root, ".");
    }
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, behind) = if let Some(inside) = after.strip_prefix("{{") {
            let end = inside.find("}}").unwrap_or(inside.len());
            (inside[..end].trim(), inside.get(end + 2..).unwrap_or_default())
        } else if let Some(inside) = after.strip_prefix(['{', '(']) {
            let end = inside.find(['}', ')']).unwrap_or(inside.len());
            (&inside[..end], inside.get(end + 1..).unwrap_or_default())
        } else {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            after.split_at(end)
        };
        let name = name.trim_start_matches("env.").trim_start_matches("params.");
        out.push_str(variables.get(name).map_or("*", String::as_str));
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// A path from the repository's root; None where it leads out of it.
pub(super) fn place(cwd: &str, word: &str) -> Option<String> {
    // `.` at the front was the root's own name.
    if let Some(rest) = word.strip_prefix("./").filter(|_| cwd.is_empty()) {
        return join("", rest);
    }
    join(cwd, word)
}

/// The builds in a script that begins in `cwd`.
pub(super) fn builds(script: &str, cwd: &str, first_line: usize, variables: &BTreeMap<String, String>) -> Vec<Build> {
    let mut found = Vec::new();
    let mut here = cwd.to_owned();
    // `dir('backend') {` of a Jenkinsfile: where it was before, and how many braces were open.
    let mut folders: Vec<(String, usize)> = Vec::new();
    let mut braces = 0_usize;
    let mut line_text = String::new();
    let mut begun = first_line;
    for (n, line) in script.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.starts_with('#') || trimmed.starts_with("//") {
            continue;
        }
        if line_text.is_empty() {
            begun = first_line + n;
        }
        if let Some(part) = trimmed.strip_suffix('\\').filter(|_| line_text.len() < 10_000) {
            line_text.push_str(part);
            line_text.push(' ');
            continue;
        }
        line_text.push_str(trimmed);
        let whole = std::mem::take(&mut line_text);
        if let Some(folder) = whole.split_once("dir(").and_then(|(_, rest)| quoted(rest))
            && whole.contains('{')
        {
            folders.push((here.clone(), braces));
            here = place(&here, &known(folder, variables)).unwrap_or_default();
        }
        for command in commands(&unquoted(&whole)) {
            let words = words(&command);
            if let [cd, folder] = words.as_slice()
                && cd == "cd"
            {
                here = place(&here, &known(folder, variables)).unwrap_or_default();
            } else if let Some(build) = build(&words, &here, variables) {
                found.push(Build { line: begun, ..build });
            }
        }
        if let Some(rest) = whole.split("docker.build(").nth(1) {
            let texts: Vec<&str> = rest.split(['"', '\'']).skip(1).step_by(2).collect();
            let mut words: Vec<String> = ["docker", "build", "-t"].map(str::to_owned).into();
            words.push(texts.first().copied().unwrap_or_default().to_owned());
            words.extend(texts.get(1).copied().unwrap_or(".").split_whitespace().map(str::to_owned));
            if let Some(build) = build(&words, &here, variables) {
                found.push(Build { line: begun, ..build });
            }
        }
        // Braces of variables close on their line.
        let (open, close) = (whole.matches('{').count(), whole.matches('}').count());
        braces = (braces + open).saturating_sub(close);
        while folders.last().is_some_and(|(_, at)| braces <= *at) {
            if let Some((before, _)) = folders.pop() {
                here = before;
            }
        }
    }
    found
}

fn quoted(text: &str) -> Option<&str> {
    let text = text.trim_start_matches(['(', ' ']);
    let quote = text.chars().next().filter(|c| "\"'".contains(*c))?;
    text[1..].split(quote).next()
}

/// The script in `sh '…'`, `sh("…")`, `sh """`, `- run: …`.
fn unquoted(line: &str) -> String {
    let line = line.trim_start_matches("- ").trim_start_matches("@");
    let rest = ["sh ", "sh(", "bat ", "run:", "script:", "command:"].iter().find_map(|p| line.strip_prefix(p));
    let Some(rest) = rest else { return line.to_owned() };
    let rest = rest.trim_start_matches("script:").trim_start_matches([' ', '(', '"', '\'', '|']);
    rest.trim_end_matches([' ', ')', '"', '\'']).to_owned()
}

/// The commands of a line.
fn commands(line: &str) -> Vec<String> {
    let line = line.replace("&&", "\n").replace("||", "\n").replace([';', '|'], "\n");
    // `( cd x && docker build . )`
    line.lines().map(|c| c.trim().trim_start_matches('(').trim_end_matches(" )").trim().to_owned()).collect()
}

/// The words of a command, quotes taken away. `${{ a b }}` and `$(…)` are parts of words.
pub(super) fn words(command: &str) -> Vec<String> {
    let mut all = Vec::new();
    let (mut word, mut any, mut quote, mut depth) = (String::new(), false, None, 0_usize);
    for c in command.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                any = true;
            }
            (None, c) if c.is_whitespace() && depth == 0 => {
                if any || !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (_, c) => {
                match c {
                    '{' | '(' if word.ends_with(['$', '{']) => depth += 1,
                    '}' | ')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                word.push(c);
            }
        }
    }
    if any || !word.is_empty() {
        all.push(word);
    }
    all
}

/// What a command builds, if it does.
fn build(words: &[String], cwd: &str, variables: &BTreeMap<String, String>) -> Option<Build> {
    let tool = |w: &str| {
        let name = w.rsplit('/').next().unwrap_or(w).trim_start_matches('$').to_lowercase();
        ["docker", "podman", "nerdctl", "buildah", "img"].contains(&name.as_str())
    };
    if let Some(at) = words.iter().position(|w| w.ends_with("kaniko/executor") || w == "executor") {
        return kaniko(&words[at + 1..], cwd, variables);
    }
    let at = words.iter().position(|w| tool(w))?;
    let mut rest = words[at + 1..].iter().map(String::as_str);
    let verb = rest.by_ref().find(|w| !matches!(*w, "buildx" | "image" | "builder") && !w.starts_with('-'))?;
    if !matches!(verb, "build" | "bud" | "b") {
        return None;
    }
    let mut build = Build::default();
    let (mut file, mut context) = (None, None);
    while let Some(word) = rest.next() {
        let (name, value) = match word.split_once('=').filter(|_| word.starts_with("--")) {
            Some((name, value)) => (name, Some(value.to_owned())),
            None if word.starts_with('-') && word != "-" && !BARE.contains(&word) => {
                // `-t=x`, `-fDockerfile` are rare; `-f x` is the rule.
                (word, rest.next().map(str::to_owned))
            }
            None => (word, None),
        };
        match (name, value) {
            ("-f" | "--file", Some(value)) => file = Some(known(&value, variables)),
            ("-t" | "--tag", Some(value)) => {
                build.image = build.image.or_else(|| plain_image(&known(&value, variables)))
            }
            ("--build-arg", Some(value)) => argument(&value, variables, &mut build.args),
            (word, None) if !word.starts_with('-') && context.is_none() => context = Some(known(word, variables)),
            _ => {}
        }
    }
    // `docker build -` and addresses have no folder of ours.
    let context = context.filter(|c| !c.contains("://") && !c.starts_with("git@") && !c.starts_with('/'))?;
    build.context = place(cwd, &context)?;
    if let Some(file) = file {
        build.dockerfile = Some(place(cwd, &file)?);
    }
    Some(build)
}

/// The flags of kaniko's executor ("kaniko: Additional Flags").
pub(super) fn kaniko(words: &[String], cwd: &str, variables: &BTreeMap<String, String>) -> Option<Build> {
    let mut build = Build::default();
    let (mut file, mut context, mut below) = (None, None, String::new());
    let mut rest = words.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with('-') => (name, value.to_owned()),
            _ if matches!(
                word,
                "--dockerfile" | "-f" | "--context" | "-c" | "--destination" | "-d" | "--build-arg"
            ) =>
            {
                (word, rest.next().unwrap_or_default().to_owned())
            }
            _ => continue,
        };
        match name {
            "--dockerfile" | "-f" => file = Some(known(&value, variables)),
            "--context" | "-c" => context = Some(known(&value, variables)),
            "--context-sub-path" => below = known(&value, variables),
            "--destination" | "-d" => build.image = build.image.or_else(|| plain_image(&known(&value, variables))),
            "--build-arg" => argument(&value, variables, &mut build.args),
            _ => {}
        }
    }
    if file.is_none() && context.is_none() {
        return None;
    }
    let outside = |p: &str| p.contains("://") || p.starts_with('/');
    let context = context.unwrap_or_else(|| ".".to_owned());
    // `/workspace/…` is where the pod has the checkout.
    let context = if outside(&context) { workspace(&context)? } else { context };
    build.context = join(&place(cwd, &context)?, &below)?;
    if let Some(file) = file {
        let file = if outside(&file) { workspace(&file)? } else { file };
        build.dockerfile = Some(place(cwd, &file)?);
        build.or = join(&build.context, &file);
    }
    Some(build)
}

fn workspace(path: &str) -> Option<String> {
    path.strip_prefix("/workspace").map(|rest| format!(".{rest}"))
}

fn argument(text: &str, variables: &BTreeMap<String, String>, into: &mut BTreeMap<String, String>) {
    if let Some((name, value)) = text.split_once('=') {
        let value = known(value, variables);
        if !value.contains('*') && into.len() < 100 {
            into.insert(name.to_owned(), value);
        }
    }
}

/// The last part of an image's name, where it is written out.
pub(super) fn plain_image(text: &str) -> Option<String> {
    let last = text.rsplit('/').next()?;
    let name = last.split([':', '@']).next()?;
    (!name.is_empty() && !name.contains('*')).then(|| name.to_owned())
}

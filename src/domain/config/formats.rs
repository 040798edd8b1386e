//! Kinds of text: names, paths, patterns, images, branches, addresses.

use super::{
    super::ids::{AppName, EnvironmentName, StepName},
    grammar::{Format, Wrong},
    mistake::nearest,
    window::Window,
};

fn wrong<T>(why: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { why: why.into(), hint: None })
}

fn hinted<T>(why: impl Into<String>, hint: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { why: why.into(), hint: Some(hint.into()) })
}

/// Not empty, not longer than this, and on one line unless `lines`.
fn sane(text: &str, most: usize, lines: bool) -> Result<(), Wrong> {
    if text.trim().is_empty() {
        return wrong("is empty");
    }
    if text.len() > most {
        return wrong(format!("has {} bytes, more than {most}", text.len()));
    }
    if let Some(c) = text.chars().find(|c| c.is_control() && !(lines && matches!(c, '\n' | '\t'))) {
        return wrong(format!("contains the control character U+{:04X}", u32::from(c)));
    }
    Ok(())
}

fn name_hint(text: &str, extra: &str, ok: fn(String) -> bool) -> Wrong {
    if text.is_empty() {
        return Wrong { why: "is empty".to_owned(), hint: None };
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
    let better: String = text.chars().take(63).map(|c| if fits(c) { c } else { '-' }).collect();
    let better = better.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    let hint = (text.is_ascii() && ok(better.clone())).then_some(better);
    Wrong { why: "is not a name".to_owned(), hint }
}

/// An app's name.
pub static APP_NAME: Format = Format {
    expected: "a name of 1 to 63 letters, digits, dots, dashes and underscores",
    pattern: "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    check: |text| match AppName::new(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(name_hint(text, "._-", |t| AppName::new(t).is_ok())),
    },
};

/// An environment's or a target's name.
pub static ENVIRONMENT_NAME: Format = Format {
    expected: "a name of 1 to 63 letters, digits, dots, dashes and underscores",
    pattern: "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    check: |text| match EnvironmentName::new(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(name_hint(text, "._-", |t| EnvironmentName::new(t).is_ok())),
    },
};

/// A step's name.
pub static STEP_NAME: Format = Format {
    expected: "a name of 1 to 63 letters, digits, dots, dashes, underscores and spaces",
    pattern: "^[A-Za-z0-9][A-Za-z0-9._ -]{0,62}$",
    check: |text| match StepName::new(text) {
        Ok(_) if text.ends_with(' ') => hinted("ends with a space", text.trim_end()),
        Ok(_) => Ok(()),
        Err(_) => Err(name_hint(text, "._- ", |t| StepName::new(t).is_ok())),
    },
};

/// A shell command, maybe of several lines.
pub static COMMAND: Format =
    Format { expected: "a shell command", pattern: "", check: |text| sane(text, 64 * 1024, true) };

/// Any text on one line.
pub static LINE: Format = Format { expected: "a text", pattern: "", check: |text| sane(text, 1024, false) };

/// Any text, also none and of several lines.
pub static ANY_TEXT: Format = Format {
    expected: "a text",
    pattern: "",
    check: |text| if text.is_empty() { Ok(()) } else { blank_or_sane(text) },
};

fn blank_or_sane(text: &str) -> Result<(), Wrong> {
    if text.trim().is_empty() && text.len() <= 64 { Ok(()) } else { sane(text, 64 * 1024, true) }
}

fn is_variable(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The name of an environment variable or a secret.
pub static VARIABLE: Format = Format {
    expected: "letters, digits and underscores, such as DB_URL; PORT, URL and SWITCHOVER_… are Switchover's own",
    pattern: "^[A-Za-z_][A-Za-z0-9_]{0,127}$",
    check: |text| {
        if !is_variable(text) {
            let better = text.replace(['-', '.', ' '], "_");
            return Err(Wrong {
                why: "is not the name of a variable".to_owned(),
                hint: is_variable(&better).then_some(better),
            });
        }
        if text == "PORT" || text == "URL" || text.starts_with("SWITCHOVER_") {
            return wrong("is set by Switchover itself");
        }
        Ok(())
    },
};

/// A folder's or file's path cut into its parts; `.` is none.
fn relative(text: &str, expected_file: bool) -> Result<(), Wrong> {
    if text.len() > 512 {
        return wrong("is longer than 512 bytes");
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return wrong(format!("contains the control character U+{:04X}", u32::from(c)));
    }
    if text.contains('\\') {
        return hinted("contains a backslash", text.replace('\\', "/"));
    }
    if text.starts_with('/') {
        let better = text.trim_start_matches('/');
        return Err(Wrong {
            why: "begins at the root of the machine".to_owned(),
            hint: (!better.is_empty()).then(|| better.to_owned()),
        });
    }
    if text.starts_with('~') {
        return wrong("begins in a home folder");
    }
    if text.split('/').any(|part| part == "..") {
        return wrong("leads out of its folder");
    }
    if text.split('/').any(|part| part.eq_ignore_ascii_case(".git")) {
        return wrong("leads into git's own folder");
    }
    if expected_file && (text.is_empty() || text.ends_with('/')) {
        return wrong("names no file");
    }
    Ok(())
}

/// Without `.` parts and doubled or trailing slashes.
#[must_use]
pub fn clean_path(text: &str) -> String {
    text.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

/// A folder in the repository.
pub static FOLDER: Format = Format {
    expected: "a folder from the repository's root, such as services/api (`.` for the root itself)",
    pattern: "^(?!/|~)(?!.*(^|/)\\.\\.(/|$)).*$",
    check: |text| if text.is_empty() { hinted("is empty", ".") } else { relative(text, false) },
};

/// A file below the app's folder.
pub static FILE: Format = Format {
    expected: "a file below the app's folder, such as docker/Dockerfile",
    pattern: "^(?!/|~)(?!.*(^|/)\\.\\.(/|$)).+$",
    check: |text| relative(text, true),
};

/// A pattern of files below the app's folder.
pub static FILES: Format = Format {
    expected: "a pattern of files below the app's folder, such as target/*.jar or dist/**",
    pattern: "^(?!/|~)(?!.*(^|/)\\.\\.(/|$)).+$",
    check: |text| {
        relative(text, true)?;
        match globset::GlobBuilder::new(text).literal_separator(true).build() {
            Ok(_) => Ok(()),
            Err(error) => wrong(format!("is not a pattern: {}", error.kind())),
        }
    },
};

/// A folder to keep between runs.
pub static CACHE: Format = Format {
    expected: "a folder in the step's home (~/.m2/repository) or below the app's folder (target)",
    pattern: "^(?!/)(?!.*(^|/)\\.\\.(/|$)).+$",
    check: |text| {
        let inner = text.strip_prefix("~/").unwrap_or(text);
        relative(inner, false)?;
        if clean_path(inner).is_empty() { wrong("names no folder") } else { Ok(()) }
    },
};

/// Lower-case parts of an image's name ("Docker image reference format").
fn is_image_name(text: &str) -> bool {
    let part_ok = |part: &str| {
        !part.is_empty()
            && part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
    };
    let (host, path) = match text.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), path),
        _ => (None, text),
    };
    let host_ok = host.is_none_or(|host| {
        let (name, port) = host.split_once(':').unwrap_or((host, "80"));
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
            && port.parse::<u16>().is_ok()
    });
    text.len() <= 255 && host_ok && path.split('/').all(part_ok)
}

/// The image's name, its tag and its digest.
fn split_image(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let after_host = rest.rfind('/').map_or(0, |i| i + 1);
    match rest[after_host..].find(':') {
        Some(colon) => (&rest[..after_host + colon], Some(&rest[after_host + colon + 1..]), digest),
        None => (rest, None, digest),
    }
}

/// An image to push to.
pub static IMAGE_NAME: Format = Format {
    expected: "an image without a tag, such as docker.io/acme/backend",
    pattern: "^[a-z0-9A-Z.:_/-]+$",
    check: |text| {
        let (name, tag, digest) = split_image(text);
        if tag.is_some() || digest.is_some() {
            return hinted("has a tag (Switchover tags it with the commit)", name);
        }
        if is_image_name(name) {
            return Ok(());
        }
        let lower = name.to_lowercase();
        let hint = is_image_name(&lower).then_some(lower);
        Err(Wrong { why: "is not the name of an image".to_owned(), hint })
    },
};

/// How an image is tagged with its commit. A tag without one could move to another image.
pub static IMAGE_TAG: Format = Format {
    expected: "a tag with {sha} (40 digits) or {short} (7 digits) in it, such as sha-{short}",
    pattern: "^[A-Za-z0-9_.-]*\\{(sha|short)\\}[A-Za-z0-9_.-]*$",
    check: |text| {
        let filled = text.replacen("{sha}", "0", 1);
        let filled = if filled == text { text.replacen("{short}", "0", 1) } else { filled };
        let ok = filled != text
            && filled.len() <= 88
            && filled.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
            && !filled.starts_with(['.', '-']);
        if ok { Ok(()) } else { Err(Wrong { why: "does not name the commit".to_owned(), hint: None }) }
    },
};

/// An image to run.
pub static IMAGE: Format = Format {
    expected: "an image such as maven:3-eclipse-temurin-17",
    pattern: "^[a-z0-9A-Z.:_/@-]+$",
    check: |text| {
        let (name, tag, digest) = split_image(text);
        let tag_ok = tag.is_none_or(|tag| {
            (1..=128).contains(&tag.len())
                && tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
                && !tag.starts_with(['.', '-'])
        });
        let digest_ok = digest.is_none_or(|digest| super::super::ids::Digest::new(digest).is_ok());
        if is_image_name(name) && tag_ok && digest_ok { Ok(()) } else { wrong("is not an image") }
    },
};

/// A path of a URL.
pub static URL_PATH: Format = Format {
    expected: "a path that begins with `/`, such as /health",
    pattern: "^/[^\\s#]*$",
    check: |text| {
        if text.len() > 1024 || text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '#') {
            return wrong("is not a path of a URL");
        }
        if !text.starts_with('/') {
            let path = url::Url::parse(text).map(|u| u.path().to_owned()).unwrap_or_else(|_| format!("/{text}"));
            return hinted("does not begin with `/`", path);
        }
        Ok(())
    },
};

/// An address on the web.
pub static WEB_URL: Format = Format {
    expected: "an address such as https://shop.example.com",
    pattern: "^https?://",
    check: |text| match url::Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") && url.has_host() => wrong("is not an http(s) address"),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => wrong("contains a password"),
        Ok(url) if url.has_host() => Ok(()),
        _ if text.contains('.') && !text.contains(char::is_whitespace) => {
            hinted("is not an address", format!("https://{text}"))
        }
        _ => wrong("is not an address"),
    },
};

/// The rules of `git check-ref-format --branch` that a name can break.
fn branch(text: &str) -> Result<(), Wrong> {
    if let Some(short) = text.strip_prefix("refs/heads/").or_else(|| text.strip_prefix("origin/")) {
        return hinted("is a full reference", short);
    }
    let bad = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let parts_ok = text.split('/').all(|p| !p.is_empty() && !p.starts_with('.') && !p.ends_with(".lock"));
    if text.len() > 244
        || text.chars().any(bad)
        || !parts_ok
        || text.contains("..")
        || text.contains("@{")
        || text.starts_with('-')
        || text.ends_with('.')
        || text == "@"
    {
        return wrong("is not a branch that git would take");
    }
    Ok(())
}

/// One branch.
pub static BRANCH: Format =
    Format { expected: "the name of one branch, such as main", pattern: "^[^\\s~^:?*\\[\\\\]+$", check: branch };

/// A pattern of branches.
pub static BRANCH_PATTERN: Format = Format {
    expected: "a branch or a pattern: `*` is anything but a slash, `**` anything, a leading `!` takes away",
    pattern: "^\\S+$",
    check: |text| {
        let pattern = text.strip_prefix('!').unwrap_or(text);
        if let Some(short) = pattern.strip_prefix("refs/heads/") {
            return hinted("is a full reference", short);
        }
        if pattern.is_empty() || pattern.len() > 244 || pattern.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return wrong("is not a pattern of branches");
        }
        // GitHub gives `?` and `+` another meaning than every other glob ("Workflow syntax": filter pattern cheat
        // sheet), so neither meaning would be the one that is expected.
        let mut escaped = false;
        for c in pattern.chars() {
            if !escaped && "?+{}".contains(c) {
                return hinted(format!("contains `{c}`, which means different things elsewhere"), "**");
            }
            escaped = c == '\\' && !escaped;
        }
        match super::branches::glob(pattern) {
            Ok(_) => Ok(()),
            Err(error) => wrong(format!("is not a pattern: {error}")),
        }
    },
};

/// When a companion counts as ready.
pub static READY: Format = Format {
    expected: "`tcp:` and a port, such as tcp:3306, or `health`",
    pattern: "^(health|tcp:[0-9]{1,5})$",
    check: |text| {
        if text == "health" || text.strip_prefix("tcp:").is_some_and(|p| p.parse::<u16>().is_ok_and(|p| p > 0)) {
            Ok(())
        } else if text.parse::<u16>().is_ok_and(|p| p > 0) {
            hinted("does not say how", format!("tcp:{text}"))
        } else {
            wrong("is not a way to be ready")
        }
    },
};

/// When automatic releases may begin.
pub static WINDOW: Format = Format {
    expected: "days, times and a time zone, such as mon-fri 09:00-17:00 Asia/Seoul",
    pattern: "^\\S+ [0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2} \\S+$",
    check: |text| Window::parse(text).map(|_| ()).map_err(|e| Wrong { why: e.why, hint: e.hint }),
};

/// A team.
pub static TEAM: Format = Format {
    expected: "a team as org/team",
    pattern: "^[^\\s/@]+/[^\\s/@]+$",
    check: |text| {
        let bare = text.strip_prefix('@').unwrap_or(text);
        let ok = |part: &str| {
            (1..=100).contains(&part.len())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.')
        };
        match bare.split_once('/') {
            Some((org, team)) if ok(org) && ok(team) && bare == text => Ok(()),
            Some((org, team)) if ok(org) && ok(team) => hinted("begins with `@`", bare),
            _ => wrong("is not a team"),
        }
    },
};

/// A user.
pub static USER: Format = Format {
    expected: "a login on GitHub",
    pattern: "^[A-Za-z0-9_-]{1,64}$",
    check: |text| {
        let bare = text.strip_prefix('@').unwrap_or(text);
        let ok =
            (1..=64).contains(&bare.len()) && bare.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        match (ok, bare == text) {
            (true, true) => Ok(()),
            (true, false) => hinted("begins with `@`", bare),
            _ => wrong("is not a login"),
        }
    },
};

/// A Slack channel.
pub static CHANNEL: Format = Format {
    expected: "a channel in quotes, such as \"#deploys\" (a bare # begins a comment)",
    pattern: "^#\\S{1,80}$",
    check: |text| match text.strip_prefix('#') {
        Some(name)
            if (1..=80).contains(&name.len()) && !name.contains(|c: char| c.is_whitespace() || c.is_control()) =>
        {
            Ok(())
        }
        None if !text.is_empty()
            && text.len() <= 80
            && !text.contains(|c: char| c.is_whitespace() || c.is_control()) =>
        {
            hinted("does not begin with `#`", format!("\"#{text}\""))
        }
        _ => wrong("is not a channel"),
    },
};

/// The name of a companion; it becomes a host name.
pub static HOST_NAME: Format = Format {
    expected: "a host name of 1 to 63 lower-case letters, digits and dashes",
    pattern: "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    check: |text| {
        let ok = |t: &str| {
            (1..=63).contains(&t.len())
                && t.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                && !t.starts_with('-')
                && !t.ends_with('-')
        };
        if ok(text) {
            return Ok(());
        }
        let better = text.to_lowercase().replace(['_', '.', ' '], "-");
        let hint = ok(&better).then_some(better);
        Err(Wrong { why: "is not a host name".to_owned(), hint })
    },
};

/// A reference to something that is named elsewhere in the file: the mistake, if it is not there.
#[must_use]
pub fn unknown_reference<'a>(
    text: &str,
    what: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> (String, String, Option<String>) {
    let names: Vec<&str> = known.clone().take(20).collect();
    let expected = if names.is_empty() {
        format!("the name of an {what}, and the file has none")
    } else {
        format!("an {what} of this file: {}", names.join(", "))
    };
    (format!("there is no {what} {}", super::mistake::shown(text)), expected, nearest(text, known))
}

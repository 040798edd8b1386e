//! Cutting text to GitHub's limits without breaking it. Pure.

/// What stands in place of a cut part of a log.
fn cut_above(bytes: usize) -> String {
    format!("[… {bytes} bytes above are left out; the whole log is behind the check's link]\n")
}

const CUT_END: &str = "\n\n*The rest is left out: it is too long for GitHub.*\n";

/// At most `limit` characters, with `…` where something was cut.
#[must_use]
pub fn cut_chars(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(limit.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// The longest start of `text` that is at most `limit` bytes and ends between characters.
#[must_use]
pub fn head(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// The longest end of `text` that is at most `limit` bytes and begins between characters.
#[must_use]
pub fn tail(text: &str, limit: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(limit))..]
}

/// A fenced code block: where its content stands, and the line that closes it.
struct Fence {
    start: usize,
    end: usize,
    closer: String,
}

/// The marker of a line that opens or closes a fence ("CommonMark", fenced code blocks).
fn marker(line: &str) -> Option<(char, usize, &str)> {
    let inner = line.trim_start_matches(' ');
    if line.len() - inner.len() > 3 {
        return None;
    }
    let sign = inner.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let count = inner.chars().take_while(|c| *c == sign).count();
    (count >= 3).then(|| (sign, count, inner[count..].trim()))
}

fn fences(text: &str) -> Vec<Fence> {
    let mut found = Vec::new();
    let mut open: Option<(char, usize, usize)> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let next = at + line.len();
        match (open, marker(line.trim_end_matches(['\n', '\r']))) {
            (None, Some((sign, count, info))) if sign == '~' || !info.contains('`') => open = Some((sign, count, next)),
            (Some((sign, count, start)), Some((s, c, ""))) if s == sign && c >= count => {
                found.push(Fence { start, end: at, closer: sign.to_string().repeat(count) });
                open = None;
            }
            _ => {}
        }
        at = next;
    }
    if let Some((sign, count, start)) = open {
        // The opening line may end the text with no newline after it.
        found.push(Fence { start: start.min(text.len()), end: text.len(), closer: sign.to_string().repeat(count) });
    }
    found
}

/// Markdown of at most `limit` bytes.
///
/// What is too long is taken first out of fenced blocks, from their top, the largest first: the tail of a log is what
/// matters. If that is not enough the end is cut at a line, and an open fence closed. With a limit under 200 bytes it
/// is cut plainly.
#[must_use]
pub fn fit_markdown(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    if limit < 200 {
        return head(text, limit).to_owned();
    }
    let text = cut_logs(text, limit);
    if text.len() <= limit {
        return text;
    }
    cut_end(&text, limit)
}

fn cut_logs(text: &str, limit: usize) -> String {
    let mut excess = text.len() - limit;
    let mut blocks = fences(text);
    blocks.sort_by_key(|f| std::cmp::Reverse(f.end - f.start));
    let mut cuts = Vec::new();
    for block in blocks {
        if excess == 0 {
            break;
        }
        let content = &text[block.start..block.end];
        let note = cut_above(content.len()).len();
        if content.len() <= note * 2 {
            continue;
        }
        let keep = content.len().saturating_sub(excess + note);
        let kept = tail(content, keep);
        // Whole lines where there are any.
        let kept = match kept.find('\n') {
            Some(n) if n + 1 < kept.len() => &kept[n + 1..],
            _ => kept,
        };
        let gone = content.len() - kept.len();
        cuts.push((block.start, block.start + gone));
        excess = excess.saturating_sub(gone.saturating_sub(note));
    }
    cuts.sort_unstable();
    let mut out = String::with_capacity(limit);
    let mut at = 0;
    for (from, to) in cuts {
        out.push_str(&text[at..from]);
        out.push_str(&cut_above(to - from));
        at = to;
    }
    out.push_str(&text[at..]);
    out
}

fn cut_end(text: &str, limit: usize) -> String {
    // Room for the note and a closing fence of any sane length.
    let kept = head(text, limit - CUT_END.len() - 40);
    let kept = match kept.rfind('\n') {
        Some(n) if n > kept.len() / 2 => &kept[..n],
        _ => kept,
    };
    let mut out = kept.to_owned();
    if let Some(open) = fences(kept).last().filter(|f| f.end == kept.len() && f.closer.len() <= 38) {
        out.push('\n');
        out.push_str(&open.closer);
    }
    out.push_str(CUT_END);
    out
}

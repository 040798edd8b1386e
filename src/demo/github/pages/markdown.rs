//! Markdown as GitHub shows it, of summaries, comments and READMEs: everything in it comes from outside.

use pulldown_cmark::{CowStr, Event, LinkType, Options, Parser, Tag, TagEnd, html};

use crate::web::pages::pieces::{Markup, href};

/// Tags that may stand in the text as they are: no attributes, nothing that runs, loads or moves.
const PLAIN_TAGS: [&str; 12] =
    ["details", "summary", "sub", "sup", "kbd", "b", "i", "strong", "em", "br", "code", "pre"];

/// Renders Markdown. Raw HTML is shown as text, but for a few plain tags and for comments, which are dropped; links
/// lead to the web or to this site; pictures become links.
#[must_use]
pub fn render(text: &str) -> Markup {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut out = String::with_capacity(text.len() * 2);
    let mut open: Vec<&'static str> = Vec::new();
    // A block of HTML comes line by line; a comment may span several.
    let mut whole: Vec<Event<'_>> = Vec::new();
    for event in Parser::new_ext(text, options) {
        match (whole.last_mut(), event) {
            (Some(Event::Html(before)), Event::Html(more)) => *before = format!("{before}{more}").into(),
            (_, event) => whole.push(event),
        }
    }
    let events: Vec<Event<'_>> = whole.into_iter().map(|event| harmless(event, &mut open)).collect();
    html::push_html(&mut out, events.into_iter());
    // What the text left open would swallow the rest of the page.
    for tag in open.iter().rev() {
        out.push_str(&format!("</{tag}>"));
    }
    Markup::trusted(out)
}

fn harmless<'a>(event: Event<'a>, open: &mut Vec<&'static str>) -> Event<'a> {
    let safe = |url: CowStr<'a>| CowStr::from(href(&url).to_owned());
    match event {
        Event::Html(raw) | Event::InlineHtml(raw) => plain_html(&raw, open),
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            let dest_url = if link_type == LinkType::Email { "#".into() } else { safe(dest_url) };
            Event::Start(Tag::Link { link_type: LinkType::Inline, dest_url, title, id })
        }
        Event::Start(Tag::Image { dest_url, title, id, .. }) => {
            Event::Start(Tag::Link { link_type: LinkType::Inline, dest_url: safe(dest_url), title, id })
        }
        Event::End(TagEnd::Image) => Event::End(TagEnd::Link),
        other => other,
    }
}

/// Raw HTML: plain tags stay, comments go, all else becomes text.
fn plain_html<'a>(raw: &str, open: &mut Vec<&'static str>) -> Event<'a> {
    let mut out = String::new();
    let mut rest = raw;
    while let Some(start) = rest.find('<') {
        out.push_str(&escaped(&rest[..start]));
        rest = &rest[start..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let end = rest.find('>').map_or(rest.len(), |i| i + 1);
        let tag = &rest[..end];
        let inner = tag.trim_start_matches('<').trim_end_matches('>').trim();
        let closing = inner.starts_with('/');
        let name = inner.trim_matches('/').trim().to_ascii_lowercase();
        match PLAIN_TAGS.iter().find(|known| **known == name) {
            Some(&"br") => out.push_str("<br>"),
            Some(known) if closing => {
                // Only what this text opened, in order: it must not end an element of the page.
                if open.last() == Some(known) {
                    open.pop();
                    out.push_str(&format!("</{known}>"));
                }
            }
            Some(known) => {
                open.push(known);
                out.push_str(&format!("<{known}>"));
            }
            None => out.push_str(&escaped(tag)),
        }
        rest = &rest[end..];
    }
    out.push_str(&escaped(rest));
    Event::InlineHtml(out.into())
}

fn escaped(text: &str) -> String {
    crate::web::pages::log::escape(text)
}

//! `--html FILE`: one page for a browser. It loads no other file, and shows its table without JavaScript too.
//!
//! Each verdict has a word and a symbol; colour only repeats them.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::ecs::timestamp;
use super::list;
use super::look::{Audit, Audited};
use super::names::Names;
use super::process::{Group, Thread};
use super::remarks;
use super::state::{Field, State};
use super::table::{self, Look, called};
use super::verdict::Verdict;
use crate::terminal::printable;

const PAGE: &str = include_str!("page.html");

/// More threads of one group than this are counted, not named.
const NAMED: usize = 200;

/// Returns the page.
pub(crate) fn render(audit: &Audit, names: &mut Names) -> Result<String> {
    let host = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    let now = timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let mut rows = String::new();
    for audited in &audit.processes {
        row(&mut rows, audited, names)?;
    }
    let mut notes = String::new();
    let shown: Vec<_> = audit.processes.iter().collect();
    for line in remarks::notes(audit, &shown) {
        writeln!(notes, "<p class=\"note\">{}</p>", escaped(&line))?;
    }
    // One pass, so that a name that looks like a placeholder is not replaced.
    let mut page = String::new();
    let mut parts = PAGE.split('@');
    page += parts.next().unwrap_or_default();
    for part in parts {
        match part {
            "HOST" => page += &escaped(&printable(host.trim_ascii())),
            "SUMMARY" => page += &escaped(&remarks::summary(audit)),
            "TIME" => page += &now,
            "VERSION" => page += env!("CARGO_PKG_VERSION"),
            "NOTES" => page += &notes,
            "ROWS" => page += &rows,
            // The at-rules of the style sheet, and the text after a placeholder.
            other if other.starts_with("media") => write!(page, "@{other}")?,
            other => page += other,
        }
    }
    Ok(page)
}

fn row(text: &mut String, audited: &Audited, names: &mut Names) -> Result<()> {
    let process = &audited.process;
    let verdict = audited.verdict();
    let word = verdict.map_or("zombie", Verdict::name);
    let (symbol, rank) = match verdict {
        Some(Verdict::Privileged) => ("&#9650; ", 0),
        Some(Verdict::Reduced) => ("&#9670; ", 1),
        Some(Verdict::Unprivileged) => ("&#9679; ", 2),
        Some(Verdict::Sandboxed) => ("&#9632; ", 3),
        None => ("", 4),
    };
    let bad = !process.consistent() || !audited.as_expected();
    let class = if bad { " class=\"bad\"" } else { "" };
    let state = list::state(audited);
    let user = escaped(&list::user(audited, names));
    let place = escaped(&table::place(process).unwrap_or_default());
    let command = escaped(&printable(&process.identity.command.join(&b' ')));
    write!(
        text,
        "<tr{class} data-verdict=\"{word}\"><td class=\"number\">{}</td>\
         <td class=\"verdict {word}\" data-value=\"{rank}\">{symbol}{word}</td>\
         <td>{state}</td><td>{user}</td><td class=\"number\">{}</td><td>{place}</td>\
         <td class=\"command\"><details><summary><b>{}</b> <code>{command}</code></summary>",
        process.pid,
        process.threads(),
        escaped(&printable(&process.name)),
    )?;
    let reasons = audited.judgement.as_ref().map(|one| one.reasons.join("; "));
    writeln!(text, "<p class=\"quiet\">{}</p>", escaped(&reasons.unwrap_or_default()))?;
    for failure in &audited.failures {
        writeln!(text, "<p class=\"note\">{}</p>", escaped(&remarks::failed(failure)))?;
    }
    for flag in &audited.flags {
        let line = format!("{flag}: {}", flag.explain());
        writeln!(text, "<p class=\"note\">{}</p>", escaped(&line))?;
    }
    for group in &process.groups {
        group_table(text, group, process.groups.first().map(|one| &one.first.state), names)?;
    }
    for worker in &process.workers {
        let title = format!("{} {}", worker.kind.label(), called(&worker.thread));
        state_table(text, &title, &[], (&worker.state, &[]), None, names)?;
    }
    writeln!(text, "</details></td></tr>")?;
    Ok(())
}

fn group_table(
    text: &mut String,
    group: &Group,
    first: Option<&State>,
    names: &mut Names,
) -> Result<()> {
    let count = group.count();
    let fields: Vec<_> = group.differs.iter().map(ToString::to_string).collect();
    let title = match (count, fields.as_slice()) {
        (1, []) => "1 thread".to_owned(),
        (_, []) => format!("{count} threads"),
        (1, fields) => format!("1 thread differs in {}", fields.join(", ")),
        (_, fields) => format!("{count} threads differ in {}", fields.join(", ")),
    };
    let threads = group.threads();
    state_table(text, &title, &threads, (&group.first.state, &group.varies), first, names)
}

fn state_table(
    text: &mut String,
    title: &str,
    threads: &[&Thread],
    (state, varies): (&State, &[Field]),
    first: Option<&State>,
    names: &mut Names,
) -> Result<()> {
    let look = Look { colored: false, width: None, explain: false, threads: true, long: true };
    writeln!(text, "<table><tr><th colspan=\"2\"><b>{}</b></th></tr>", escaped(title))?;
    let mut lines = Vec::new();
    let identity = table::identity(state, varies, names);
    let mut parts = identity.lines();
    lines.push(("user".to_owned(), parts.next().unwrap_or_default().to_owned()));
    lines.push(("group".to_owned(), parts.next().unwrap_or_default().to_owned()));
    lines.extend(parts.map(split));
    let capabilities = table::capabilities(state, varies);
    let mut parts = capabilities.lines();
    lines.push(("capabilities".to_owned(), parts.next().unwrap_or_default().to_owned()));
    lines.extend(parts.map(split));
    let confinement = table::confinement(state, first, varies, look);
    lines.extend(confinement.iter().map(|line| split(line)));
    if !threads.is_empty() {
        let named: Vec<_> = threads.iter().copied().take(NAMED).map(called).collect();
        let more = threads.len().saturating_sub(NAMED);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        lines.push(("threads".to_owned(), named.join(", ") + &rest));
    }
    for (name, value) in lines {
        let (name, value) = (escaped(&name), escaped(&value));
        writeln!(text, "<tr><th>{name}</th><td class=\"mono\">{value}</td></tr>")?;
    }
    writeln!(text, "</table>")?;
    Ok(())
}

/// Splits `label value`.
fn split(line: &str) -> (String, String) {
    let (label, value) = line.split_once(' ').unwrap_or((line, ""));
    (label.to_owned(), value.to_owned())
}

/// Escapes what HTML treats as markup. `@` is escaped too, because it marks the places of the template.
fn escaped(text: &str) -> String {
    let mut whole = String::new();
    for character in text.chars() {
        match character {
            '&' => whole += "&amp;",
            '<' => whole += "&lt;",
            '>' => whole += "&gt;",
            '"' => whole += "&quot;",
            '\'' => whole += "&#39;",
            '@' => whole += "&#64;",
            other => whole.push(other),
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_of_the_page_is_known() {
        let page = render(&Audit::default(), &mut Names::default()).unwrap();
        for placeholder in ["HOST", "SUMMARY", "TIME", "VERSION", "NOTES", "ROWS"] {
            assert!(PAGE.contains(&format!("@{placeholder}@")), "{placeholder}");
            assert!(!page.contains(&format!("@{placeholder}")), "{placeholder}");
        }
        assert_eq!(page.matches("@media").count(), PAGE.matches("@media").count());
        assert!(!page.contains("http:") && !page.contains("https:"), "the page loads something");
    }

    #[test]
    fn markup_in_names_is_escaped() {
        assert_eq!(escaped("<b a='1'>&\"@"), "&lt;b a=&#39;1&#39;&gt;&amp;&quot;&#64;");
    }
}

//! The demo's output for people: its table, and lines of at most 80 columns.

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};

use crate::report::{Counts, Report};
use crate::steps::Goal;
use crate::thread_counts::Count;
use crate::wrap::{PIPED, paragraph};

/// Returns the whole text of the demo.
pub(crate) fn render(report: &Report, colored: bool) -> String {
    let mut text = String::new();
    let what = match &report.goal {
        Goal::Root { user, uid, gid } => format!("root becomes {user} (uid {uid}, gid {gid})"),
        Goal::Unprivileged => "no_new_privs for every thread".to_owned(),
    };
    let say = |text: &mut String, line: &str| *text += &paragraph(line, PIPED, "    ");
    say(&mut text, &format!("{what}: {}", report.calls.join(", ")));
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", table(report, colored));
    let line = format!(
        "libpsx: {} threads in {}, {} calls, no thread held for longer than {}; plain: {}",
        report.performed,
        time(report.libpsx_us),
        report.calls.len(),
        time(report.longest_freeze_us),
        time(report.plain_us),
    );
    say(&mut text, &line);
    for note in &report.notes {
        say(&mut text, &format!("note: {note}"));
    }
    if let Some(held) = &report.held {
        let _ =
            writeln!(text, "process {} stays as the plain call left it: psx audit {0}", held.plain);
        let _ = writeln!(text, "process {} stays as libpsx left it: psx audit {0}", held.libpsx);
        let _ = writeln!(text, "interrupt to end them");
    }
    text
}

fn table(report: &Report, colored: bool) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    if colored {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let what = format!("threads {}", report.goal.unreached());
    table.set_header([what.as_str(), "before", "after the plain call", "after libpsx"]);
    for group in &report.groups {
        table.add_row(row(group.group.label(), &group.counts));
    }
    let bold = row("all", &report.total).map(|cell| cell.add_attribute(Attribute::Bold));
    table.add_row(bold);
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn row(label: &str, counts: &Counts) -> [Cell; 4] {
    let cell = |count: Count| {
        let text = format!("{} of {}", count.old, count.threads);
        let color = if count.old == 0 { Color::Green } else { Color::Red };
        Cell::new(text).fg(color).set_alignment(CellAlignment::Right)
    };
    [Cell::new(label), cell(counts.before), cell(counts.plain), cell(counts.libpsx)]
}

fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

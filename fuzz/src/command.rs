//! What `psx` reads: the files of other processes, policies, options.

use clap::Parser;
use libpsx::process::{Capability, CapabilitySet};
use privileges::unit::Unit;

use crate::audit::expect::Expectation;
use crate::audit::identity;
use crate::audit::policy::Policy;
use crate::tasks::{Stat, Status};
use crate::{caps, library, parts, run, text};

/// `stat`, `status`, `cgroup` and `cmdline` of a process, in this order.
pub(crate) fn audit_files(data: &[u8]) {
    let mut files = parts(data);
    let mut next = || files.next().unwrap_or_default();
    let [stat, status, cgroup, command] = std::array::from_fn(|_| next());
    if let Some(found) = Stat::parse(stat) {
        let open = stat.iter().position(|&byte| byte == b'(').expect("a name");
        let close = stat.iter().rposition(|&byte| byte == b')').expect("a name");
        assert_eq!(found.name, &stat[open + 1..close]);
        let rest = String::from_utf8_lossy(&stat[close + 1..]).into_owned();
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        assert_eq!(found.state, fields[0].as_bytes()[0]);
        assert_eq!(Ok(found.parent), fields[1].parse());
        assert_eq!(Ok(found.flags), fields[6].parse());
        assert_eq!(Ok(found.nice), fields[16].parse());
        assert_eq!(Ok(found.start), fields[19].parse());
        assert_eq!(Ok(found.scheduling.priority), fields[37].parse());
        assert_eq!(Ok(found.scheduling.policy), fields[38].parse());
    }
    if let Some(found) = Status::parse(status) {
        // The last line of a key counts.
        let value = |key: &str| {
            let lines = status.split(|&byte| byte == b'\n').rev();
            let mut values =
                lines.filter_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b":"));
            values.next().map(|value| String::from_utf8_lossy(value.trim_ascii()).into_owned())
        };
        let bits =
            |key: &str| value(key).and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        let own = &found.credentials;
        assert_eq!(value("Tgid").and_then(|text| text.trim().parse().ok()), Some(found.process));
        assert_eq!(bits("SigBlk"), Some(found.blocked));
        assert_eq!(bits("CapEff"), Some(own.sets.effective.bits()));
        assert_eq!(bits("CapPrm"), Some(own.sets.permitted.bits()));
        assert_eq!(bits("CapInh"), Some(own.sets.inheritable.bits()));
        assert_eq!(bits("CapBnd"), Some(own.bounding.bits()));
        assert_eq!(bits("CapAmb"), Some(own.ambient.bits()));
        let ids = value("Uid").unwrap_or_default();
        let ids: Vec<u32> = ids.split_ascii_whitespace().map_while(|id| id.parse().ok()).collect();
        let user = own.user;
        assert_eq!(ids[..4], [user.real, user.effective, user.saved, user.filesystem]);
        let groups = value("Groups").unwrap_or_default();
        assert_eq!(groups.split_ascii_whitespace().count(), own.groups.len());
    }
    let path = identity::control_group(cgroup);
    assert!(String::from_utf8_lossy(cgroup).contains(&path));
    if let Some(unit) = identity::unit(&path) {
        assert!(!unit.is_empty());
    }
    if let Some(container) = identity::container(&path) {
        let named = container.id.len() == 64 && container.id.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(named || container.engine.is_some());
    }
    let words = identity::arguments(command);
    let end = command.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    assert_eq!(words.join(&0), &command[..end]);
}

pub(crate) fn policy(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Err((line, message)) = Policy::parse(text) {
        let lines = 1 + text.bytes().filter(|&byte| byte == b'\n').count();
        assert!((1..=lines).contains(&line), "line {line} of {lines}: {message}");
        assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
    }
}

/// `KEY=VALUE`, as `psx audit --expect` takes it, and as a rule of a policy.
pub(crate) fn expectation(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let parsed = text.parse::<Expectation>();
    if let Ok(one) = &parsed {
        assert_eq!(one.text, text);
    }
    let (sign, word) = match (text.contains("<="), text.contains(">=")) {
        (true, _) => ("<=", "at-most"),
        (_, true) => (">=", "at-least"),
        _ => ("=", "is"),
    };
    let Some((key, value)) = text.split_once(sign) else {
        assert!(parsed.is_err());
        return;
    };
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if key.is_empty() || !key.chars().all(bare) || value.chars().any(char::is_control) {
        return;
    }
    let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
    let rule = format!("[[rule]]\nexpect.{key}.{word} = \"{quoted}\"\n");
    let policy = Policy::parse(&rule);
    assert_eq!(parsed.is_ok(), policy.is_ok(), "{:?}\n{:?}\n{rule}", parsed.err(), policy.err());
}

pub(crate) fn caps_arguments(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(bits) = caps::hex(text) {
        assert_eq!(caps::hex(&format!("{bits:#x}")), Ok(bits));
    }
    match caps::capability(text) {
        Ok(one) => {
            let number = u64::from(one.number());
            let known =
                library::capability(text).or_else(|| library::capability(&format!("cap_{text}")));
            assert_eq!(known, Some(number));
        }
        Err(why) => assert!(!why.is_empty()),
    }
    if let Ok(set) = caps::set(text) {
        let written = if set == CapabilitySet::EMPTY { "none".to_owned() } else { set.to_string() };
        assert_eq!(caps::set(&written), Ok(set));
        let others = CapabilitySet::all() - set;
        assert_eq!(caps::set(&format!("~{written}")), Ok(others));
        assert!(set.iter().all(|one: Capability| one.number() < 64));
    }
}

#[derive(Parser)]
struct Run {
    #[command(flatten)]
    run: run::Arguments,
}

/// The options of `psx run`, one a line. No file is opened.
pub(crate) fn run_arguments(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let words = ["psx run"].into_iter().chain(text.lines().take(30)).chain(["--", "true"]);
    if let Ok(parsed) = Run::try_parse_from(words) {
        let mut unit = Unit::default();
        if let Err(error) = parsed.run.set_directives(&mut unit) {
            assert!(!format!("{error:#}").is_empty());
        }
    }
}

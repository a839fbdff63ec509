//! `--policy FILE`: rules in TOML that say which processes must have which state. docs/audit-policy.md describes it.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};
use regex::bytes::Regex;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::expect::{Checker, Expectation, Level, keys, nearest, unknown_key, user};
use super::look::{Audit, Audited};

/// The version of the format. A file may name it.
const VERSION: &str = "1";

/// The rules of a file.
#[derive(Debug)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
}

/// A rule: which processes it is about, and what they must meet.
#[derive(Debug)]
struct Rule {
    title: String,
    /// Whether it is a violation if no process matches, and its level.
    required: Option<Level>,
    selector: Selector,
    expectations: Vec<(Expectation, Level)>,
}

/// The conditions by which a rule selects processes. All of them must hold.
#[derive(Debug, Default)]
struct Selector {
    name: Option<Regex>,
    command: Option<Regex>,
    unit: Option<Regex>,
    user: Option<u32>,
    container: Option<Container>,
}

#[derive(Debug)]
enum Container {
    /// The process must be in a container, or in no container.
    Any(bool),
    /// The container's ID or engine must match.
    Like(Regex),
}

/// An error with its line.
struct Fault {
    at: Range<usize>,
    message: String,
}

type Parsed<T> = Result<T, Fault>;
type Value<'i> = Spanned<DeValue<'i>>;

fn fault<T>(at: Range<usize>, message: impl Into<String>) -> Parsed<T> {
    Err(Fault { at, message: message.into() })
}

impl Policy {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
        match Self::parse(&text) {
            Ok(policy) => Ok(policy),
            Err((line, message)) => bail!("{shown}:{line}: {message}; no process was read"),
        }
    }

    /// Parses the text. An error has the number of the line.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let line = |at: usize| 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        let document = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            (line(at), error.message().lines().collect::<Vec<_>>().join("; "))
        })?;
        policy(document.get_ref()).map_err(|fault| (line(fault.at.start), fault.message))
    }

    /// Returns whether any rule is about this process, or may be.
    pub(crate) fn concerns(&self, audited: &Audited) -> bool {
        self.rules.iter().any(|rule| rule.selector.matches(audited) != Some(false))
    }

    /// Checks all processes. A process that has ended has no state to check. A process counts as unreadable if it cannot
    /// be seen whether a rule is about it.
    pub(crate) fn apply(&self, audit: &mut Audit, checker: &mut Checker<'_>) {
        let living = |one: &&Audited| !one.process.groups.is_empty();
        let undecided =
            |one: &&Audited| self.rules.iter().any(|rule| rule.selector.matches(one).is_none());
        audit.unreadable += audit.processes.iter().filter(living).filter(undecided).count();
        for rule in &self.rules {
            let mut found = false;
            for audited in &mut audit.processes {
                let matches = rule.selector.matches(audited) == Some(true);
                if audited.process.groups.is_empty() || !matches {
                    continue;
                }
                found |= rule.selector.proves(audited);
                let check = |(expectation, level): &(Expectation, Level)| {
                    expectation.check(&audited.process, Some(&rule.title), *level, checker)
                };
                let failures = rule.expectations.iter().filter_map(check).collect();
                audited.fail(failures);
            }
            match rule.required {
                Some(Level::Error) if !found => audit.missing.push(rule.title.clone()),
                _ => {}
            }
        }
    }
}

impl Selector {
    /// Returns whether a selected process meets `required`. A control group that a user has made, with the name of a unit, is
    /// not that unit.
    fn proves(&self, audited: &Audited) -> bool {
        let identity = &audited.process.identity;
        self.unit.as_ref().is_none_or(|pattern| {
            let none = identity.units().next().is_none();
            none || identity.is_of_any(|unit| pattern.is_match(unit.as_bytes()))
        })
    }

    /// Returns whether the process is selected, or None if that cannot be seen.
    fn matches(&self, audited: &Audited) -> Option<bool> {
        let process = &audited.process;
        let identity = &process.identity;
        let command = || identity.command.join(&b' ');
        let unit = |pattern: &Regex| {
            let mut units = identity.units().peekable();
            // A pattern for any unit is one for none too.
            let none = units.peek().is_none() && pattern.is_match(b"");
            none || units.any(|unit| pattern.is_match(unit.as_bytes()))
        };
        let container = |wanted: &Container| match (wanted, &identity.container) {
            (Container::Any(wanted), found) => *wanted == found.is_some(),
            (Container::Like(_), None) => false,
            (Container::Like(pattern), Some(found)) => {
                let engine = found.engine.unwrap_or_default();
                pattern.is_match(found.id.as_bytes()) || pattern.is_match(engine.as_bytes())
            }
        };
        let placed = |matches: bool| (!identity.place_unseen).then_some(matches);
        let conditions = [
            self.name.as_ref().map(|pattern| Some(pattern.is_match(&process.name))),
            self.command.as_ref().map(|pattern| Some(pattern.is_match(&command()))),
            self.unit.as_ref().map(|pattern| placed(unit(pattern))),
            self.user.map(|id| process.has_user(id)),
            self.container.as_ref().map(|wanted| placed(container(wanted))),
        ];
        let mut all = Some(true);
        for condition in conditions.into_iter().flatten() {
            match condition {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }
}

/// Returns the message for a key that is not one of these.
fn unknown(key: &str, place: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(meant) => format!("unknown key {key:?} in {place}: did you mean {meant}?"),
        None => format!("unknown key {key:?} in {place}: the keys are {}", known.join(", ")),
    }
}

fn policy(document: &DeTable<'_>) -> Parsed<Policy> {
    let mut rules = Vec::new();
    for (key, value) in document {
        match key.get_ref().as_ref() {
            "version" => {
                let version = value.get_ref().as_integer().map(|number| number.as_str());
                if version != Some(VERSION) {
                    return fault(value.span(), format!("this psx knows version {VERSION} only"));
                }
            }
            "rule" => {
                let Some(array) = value.get_ref().as_array() else {
                    return fault(value.span(), "rules are written as [[rule]]");
                };
                for (index, one) in array.iter().enumerate() {
                    rules.push(rule(one, index + 1)?);
                }
            }
            other => return fault(key.span(), unknown(other, "the policy", &["version", "rule"])),
        }
    }
    if rules.is_empty() {
        return fault(0..0, "the policy has no [[rule]]");
    }
    Ok(Policy { rules })
}

fn table<'v, 'i>(value: &'v Value<'i>, what: &str) -> Parsed<&'v DeTable<'i>> {
    let found = value.get_ref().type_str();
    match value.get_ref().as_table() {
        Some(table) => Ok(table),
        None => fault(value.span(), format!("{what} is a table, not a {found}")),
    }
}

fn text<'v>(value: &'v Value<'_>, what: &str) -> Parsed<&'v str> {
    let found = value.get_ref().type_str();
    match value.get_ref().as_str() {
        Some(text) => Ok(text),
        None => fault(value.span(), format!("{what} is a string, not a {found}")),
    }
}

fn flag(value: &Value<'_>, what: &str) -> Parsed<bool> {
    match value.get_ref().as_bool() {
        Some(flag) => Ok(flag),
        None => fault(value.span(), format!("{what} is true or false")),
    }
}

fn level(value: &Value<'_>) -> Parsed<Level> {
    match text(value, "level")? {
        "error" => Ok(Level::Error),
        "warning" => Ok(Level::Warning),
        "info" => Ok(Level::Info),
        other => {
            fault(value.span(), format!("unknown level {other:?}: use error, warning or info"))
        }
    }
}

fn pattern(value: &Value<'_>, what: &str) -> Parsed<Regex> {
    Regex::new(text(value, what)?).or_else(|error| {
        let lines: Vec<_> = error.to_string().lines().map(|line| line.trim().to_owned()).collect();
        fault(value.span(), format!("{what} is not a regular expression: {}", lines.join(" ")))
    })
}

/// Parses a pattern of unit names, in which `*` stands for any text.
fn unit(value: &Value<'_>) -> Parsed<Regex> {
    let parts: Vec<_> = text(value, "unit")?.split('*').map(regex::escape).collect();
    Regex::new(&format!("^{}$", parts.join(".*")))
        .or_else(|_| fault(value.span(), "the unit is too long"))
}

fn rule(value: &Value<'_>, number: usize) -> Parsed<Rule> {
    let fields = table(value, "a rule")?;
    let mut found = Rule {
        title: format!("rule {number}"),
        required: None,
        selector: Selector::default(),
        expectations: Vec::new(),
    };
    // The position of the level in the table does not matter: it applies to all expectations of the rule.
    let usual = fields.iter().find(|(key, _)| key.get_ref() == "level");
    let usual = usual.map_or(Ok(Level::Error), |(_, value)| level(value))?;
    for (key, value) in fields {
        match key.get_ref().as_ref() {
            "title" => found.title = text(value, "title")?.to_owned(),
            "level" => {}
            "required" => found.required = flag(value, "required")?.then_some(usual),
            "match" => found.selector = selector(table(value, "match")?)?,
            "expect" => found.expectations = expectations(table(value, "expect")?, usual)?,
            other => {
                let known = ["title", "level", "required", "match", "expect"];
                return fault(key.span(), unknown(other, "the rule", &known));
            }
        }
    }
    if found.expectations.is_empty() && found.required.is_none() {
        return fault(
            value.span(),
            format!("{:?} expects nothing: add [rule.expect]", found.title),
        );
    }
    Ok(found)
}

fn selector(fields: &DeTable<'_>) -> Parsed<Selector> {
    let mut found = Selector::default();
    for (key, value) in fields {
        match key.get_ref().as_ref() {
            "name" => found.name = Some(pattern(value, "name")?),
            "command" => found.command = Some(pattern(value, "command")?),
            "unit" => found.unit = Some(unit(value)?),
            "user" => {
                let id = word(value)?;
                let known = user(&id);
                found.user = Some(known.or_else(|why| fault(value.span(), why))?);
            }
            "container" => {
                found.container = Some(match value.get_ref().as_bool() {
                    Some(any) => Container::Any(any),
                    None => Container::Like(pattern(value, "container")?),
                });
            }
            other => {
                let known = ["name", "command", "unit", "user", "container"];
                return fault(key.span(), unknown(other, "match", &known));
            }
        }
    }
    Ok(found)
}

fn expectations(fields: &DeTable<'_>, usual: Level) -> Parsed<Vec<(Expectation, Level)>> {
    let mut found = Vec::new();
    for (key, value) in fields {
        let name = key.get_ref().as_ref();
        if !keys().any(|known| known == name) {
            return fault(key.span(), unknown_key(name));
        }
        let plain = |value: &Value<'_>, sign: &str| {
            let text = format!("{name}{sign}{}", words(name, value)?);
            text.parse::<Expectation>().or_else(|why| fault(value.span(), why))
        };
        let Some(parts) = value.get_ref().as_table() else {
            found.push((plain(value, "=")?, usual));
            continue;
        };
        let own = parts.iter().find(|(key, _)| key.get_ref() == "level");
        let level = own.map_or(Ok(usual), |(_, value)| level(value))?;
        let before = found.len();
        for (key, value) in parts {
            let sign = match key.get_ref().as_ref() {
                "level" => continue,
                "is" => "=",
                "at-most" => "<=",
                "at-least" => ">=",
                other => {
                    let known = ["is", "at-most", "at-least", "level"];
                    return fault(key.span(), unknown(other, name, &known));
                }
            };
            found.push((plain(value, sign)?, level));
        }
        if found.len() == before {
            return fault(
                value.span(),
                format!("{name} has no value: use is, at-most or at-least"),
            );
        }
    }
    Ok(found)
}

/// Returns a value as the text that `--expect` takes. An array is a list.
fn words(key: &str, value: &Value<'_>) -> Parsed<String> {
    let Some(array) = value.get_ref().as_array() else {
        return match key {
            "umask" => octal(value),
            "personality" => hexadecimal(value),
            _ => word(value),
        };
    };
    if array.is_empty() {
        return Ok("none".to_owned());
    }
    let mut all = Vec::new();
    for one in array.iter() {
        let word = word(one)?;
        if word.is_empty() || word.contains('+') {
            return fault(one.span(), format!("{word:?} is not a name"));
        }
        all.push(word);
    }
    Ok(all.join("+"))
}

/// Parses an umask. An umask is octal in every other place, so a decimal number is refused: it would be misread.
fn octal(value: &Value<'_>) -> Parsed<String> {
    match value.get_ref().as_integer() {
        Some(number) if number.radix() == 8 => Ok(number.as_str().to_owned()),
        Some(number) => fault(
            value.span(),
            format!("write the umask in octal: \"{}\" or 0o22", number.as_str()),
        ),
        None => word(value),
    }
}

/// Parses a personality. The text of an expectation is hexadecimal, and a number of TOML says what it is.
fn hexadecimal(value: &Value<'_>) -> Parsed<String> {
    let Some(number) = value.get_ref().as_integer() else { return word(value) };
    match u32::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) => Ok(format!("{number:#x}")),
        Err(_) => fault(value.span(), format!("{} is not a personality", number.as_str())),
    }
}

fn word(value: &Value<'_>) -> Parsed<String> {
    Ok(match value.get_ref() {
        DeValue::String(text) => text.as_ref().to_owned(),
        DeValue::Boolean(flag) => if *flag { "1" } else { "0" }.to_owned(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
        DeValue::Integer(number) => {
            let value_of = i64::from_str_radix(number.as_str(), number.radix());
            let decimal = value_of.map_or_else(|_| "it".to_owned(), |value| value.to_string());
            return fault(value.span(), format!("write the number in decimal: {decimal}"));
        }
        other => {
            let what = other.type_str();
            return fault(value.span(), format!("a {what} is not possible here"));
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> (usize, String) {
        Policy::parse(text).expect_err("the policy is wrong")
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            version = 1
            [[rule]]
            title = "web"
            level = "warning"
            required = true
            match = { name = "^nginx$", command = "worker", unit = "nginx*.service", user = 0, container = false }
            [rule.expect]
            uid = 0
            groups = []
            caps = { at-most = ["cap_net_bind_service", "cap_chown"] }
            bounding = "all"
            nnp = { is = true, level = "error" }
            seccomp = "filter"
            filters = { at-least = 1 }
            namespaces = { at-least = ["mnt"] }
            root = "/"
            umask = 0o022
            personality = 0x40000
            verdict = { at-most = "reduced" }
            consistent = true
            landlock = true
            [[rule]]
            expect.nnp = true
        "#;
        let policy = Policy::parse(text).unwrap();
        let (first, second) = (&policy.rules[0], &policy.rules[1]);
        assert_eq!((first.title.as_str(), second.title.as_str()), ("web", "rule 2"));
        assert_eq!(first.required, Some(Level::Warning));
        let texts: Vec<_> = first.expectations.iter().map(|(one, _)| one.text.as_str()).collect();
        assert!(texts.contains(&"caps<=cap_net_bind_service+cap_chown"), "{texts:?}");
        assert!(texts.contains(&"personality=0x40000"), "{texts:?}");
        assert!(texts.contains(&"groups=none") && texts.contains(&"umask=022"), "{texts:?}");
        let strict = first.expectations.iter().filter(|(_, level)| *level == Level::Error);
        assert_eq!(strict.map(|(one, _)| one.text.as_str()).collect::<Vec<_>>(), ["nnp=1"]);
        let unit = first.selector.unit.as_ref().unwrap();
        assert!(unit.is_match(b"nginx@a.service") && !unit.is_match(b"xnginx.service"));
    }

    #[test]
    fn a_personality_is_a_number_of_any_base() {
        for (value, text) in [
            ("10", "personality=0xa"),
            ("0x10", "personality=0x10"),
            ("0o10", "personality=0x8"),
            ("'10'", "personality=10"),
        ] {
            let policy = Policy::parse(&format!("[[rule]]\nexpect.personality = {value}")).unwrap();
            assert_eq!(policy.rules[0].expectations[0].0.text, text);
        }
    }

    #[test]
    fn an_error_names_the_line_and_the_nearest_word() {
        for (text, line, part) in [
            ("[[rule]]\nexpect.nnpp = true", 2, "unknown key \"nnpp\": did you mean nnp?"),
            ("[[rule]]\nexpct.nnp = true", 2, "in the rule: did you mean expect?"),
            ("\nrules = 3", 2, "in the policy: did you mean rule?"),
            ("[[rule]]\nexpect.nnp = true\n[rule.match]\nunits = 'a'", 4, "did you mean unit?"),
            ("[[rule]]\n\nexpect.caps = { at-mots = [] }", 3, "did you mean at-most?"),
            ("[[rule]]\nexpect.uid = 'no-such-user'", 2, "there is no user"),
            ("[[rule]]\nexpect.uid = { at-most = 3 }", 2, "uid cannot be compared with <="),
            ("[[rule]]\nexpect.caps = ['cap_nothing']", 2, "cap_nothing"),
            ("[[rule]]\nexpect.umask = 22", 2, "octal"),
            ("[[rule]]\nexpect.uid = 0x10", 2, "write the number in decimal: 16"),
            ("[[rule]]\nexpect.nice = 0o12", 2, "write the number in decimal: 10"),
            ("[[rule]]\nexpect.groups = [0b11]", 2, "write the number in decimal: 3"),
            ("[[rule]]\nexpect.nnp = 1\nmatch.user = 0x1", 3, "write the number in decimal: 1"),
            ("[[rule]]\nexpect.personality = -1", 2, "-1 is not a personality"),
            ("[[rule]]\nexpect.caps = ''", 2, "has no value"),
            ("[[rule]]\nexpect.nnp = 1.5", 2, "a float is not possible here"),
            ("[[rule]]\nlevel = 'fatal'\nexpect.nnp = 1", 2, "use error, warning or info"),
            ("[[rule]]\nexpect.nnp = 1\nmatch.name = '('", 3, "not a regular expression"),
            ("[[rule]]\ntitle = 'x'", 1, "expects nothing"),
            ("version = 2", 1, "version 1 only"),
            ("", 1, "no [[rule]]"),
            ("[[rule]]\nexpect = 3", 2, "is a table"),
            ("[[rule]\n", 1, ""),
        ] {
            let (at, message) = error(text);
            assert!(at == line && message.contains(part), "{text}: {at}: {message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = Policy::parse(&text);
        }

        /// Parses text that is similar to a policy: it reaches more of the parser than random text.
        #[test]
        fn no_text_like_a_policy_makes_the_parser_panic(
            parts in prop::collection::vec(prop::sample::select(vec![
                "[[rule]]\n", "[rule.match]\n", "[rule.expect]\n", "version = 1\n", "name", "unit",
                "caps", "nnp", "uid", "umask", "personality", "root", "verdict", "level", "expect.",
                " = ", "{ at-most = ", "{ is = ", " }", "[", "]", "\"", "'", ",", "\n", "0o22", "0x1",
                "-1", "99999999999999999999", "true", "\"none\"", "\"cap_kill\"", "\"+\"", "\u{e9}",
            ]), 0..24),
        ) {
            let _ = Policy::parse(&parts.concat());
        }

        #[test]
        fn any_value_of_any_key_is_taken_or_refused(
            key in prop::sample::select(keys().collect::<Vec<_>>()),
            value in "[ -~]{0,12}",
            sign in prop::sample::select(vec!["=", "<=", ">="]),
        ) {
            let _ = format!("{key}{sign}{value}").parse::<Expectation>();
        }
    }
}

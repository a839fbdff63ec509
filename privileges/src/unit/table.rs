//! Directives in a table of any format that serde reads.
#![forbid(unsafe_code)]

use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Directives;
use super::names::NotAssigned;
use super::values::nearest;

/// The names of directives, each with one value or a list of values. A list is one assignment for each of its elements;
/// an empty list is an empty assignment, which resets most directives and is an error for others, as in a unit file.
///
/// A name that systemd.exec(5) does not have is an error. A directive that is not supported is an error too.
impl<'de> Deserialize<'de> for Directives {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Table)
    }
}

struct Table;

impl<'de> Visitor<'de> for Table {
    type Value = Directives;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of directives of systemd.exec(5)")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Directives, A::Error> {
        let mut directives = Directives::default();
        while let Some(name) = map.next_key::<String>()? {
            for value in map.next_value::<Values>()?.0 {
                let value =
                    value.text(&name).map_err(|why| A::Error::custom(format!("{name}: {why}")))?;
                directives.assign(&name, &value).map_err(|not| {
                    A::Error::custom(match not {
                        NotAssigned::Bad(why) => format!("{name} = {value:?}: {why}"),
                        NotAssigned::PassedOver => {
                            let near = nearest(&name, super::names::supported());
                            let hint = near
                                .map_or_else(String::new, |near| format!("; did you mean {near}?"));
                            format!("{name}: it is not about privileges{hint}")
                        }
                        NotAssigned::Unsupported { .. } => {
                            format!(
                                "{name}: systemd has this directive, and it is not supported here"
                            )
                        }
                    })
                })?;
            }
        }
        Ok(directives)
    }
}

/// The value of one assignment.
enum Value {
    Text(String),
    Number(i64),
    Boolean(bool),
}

impl Value {
    fn text(self, name: &str) -> Result<String, &'static str> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Boolean(value) => Ok(if value { "yes" } else { "no" }.to_owned()),
            // The number 63 is ambiguous: the author may have meant 063, or 0o77 (which is 63).
            Self::Number(_) if name == "UMask" => Err("a mask is a string of octal digits"),
            Self::Number(number) => Ok(number.to_string()),
        }
    }
}

/// One value, or a list of values.
struct Values(Vec<Value>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMore)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(One)
    }
}

struct One;

impl Visitor<'_> for One {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a whole number, or true or false")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.trim().to_owned()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        let number =
            i64::try_from(number).map_err(|_| E::custom(format!("{number} is too large")))?;
        Ok(Value::Number(number))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }
}

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a whole number, true or false, or a list of these")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Values, E> {
        One.visit_str(text).map(|one| Values(vec![one]))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Values, E> {
        One.visit_i64(number).map(|one| Values(vec![one]))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Values, E> {
        One.visit_u64(number).map(|one| Values(vec![one]))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Values, E> {
        One.visit_bool(value).map(|one| Values(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = list.next_element()? {
            all.push(one);
        }
        if all.is_empty() {
            all.push(Value::Text(String::new()));
        }
        Ok(Values(all))
    }
}

//! Every public function and type of the published crates has an example, or appears in the example of its type or
//! module.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, Expr, ImplItem, Item, Lit, Meta, Type, Visibility};

/// The text of the doc comments, line by line.
fn documentation(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        let Meta::NameValue(pair) = &attribute.meta else { continue };
        let Expr::Lit(literal) = &pair.value else { continue };
        if let Lit::Str(line) = &literal.lit {
            text.push_str(&line.value());
            text.push('\n');
        }
    }
    text
}

/// The names in the code blocks of a documentation.
fn names_in_examples(documentation: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    // Every second part is the inside of a block.
    for block in documentation.split("```").skip(1).step_by(2) {
        let words = block.split(|c: char| !c.is_alphanumeric() && c != '_');
        names.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
    }
    names
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("doc")
            && matches!(&attribute.meta, Meta::List(list) if list.tokens.to_string() == "hidden")
    })
}

/// What a file shows in examples, and the public items that it has.
#[derive(Default)]
struct Crate {
    shown: BTreeSet<String>,
    items: Vec<(PathBuf, String)>,
}

impl Crate {
    fn read(root: &Path) -> Self {
        let mut all = Self::default();
        all.directory(&root.join("src"));
        all
    }

    fn directory(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !["engine", "sys"].contains(&name) {
                self.directory(&path);
            } else if name.ends_with(".md") {
                self.shown.extend(names_in_examples(&fs::read_to_string(&path).unwrap()));
            } else if name.ends_with(".rs") {
                let file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
                self.shown.extend(names_in_examples(&documentation(&file.attrs)));
                for item in &file.items {
                    self.item(&path, item);
                }
            }
        }
    }

    fn add(&mut self, path: &Path, name: &impl ToString, attributes: &[Attribute], public: bool) {
        let own = names_in_examples(&documentation(attributes));
        if public && !is_hidden(attributes) && own.is_empty() {
            self.items.push((path.to_owned(), name.to_string()));
        }
        self.shown.extend(own);
    }

    fn item(&mut self, path: &Path, item: &Item) {
        match item {
            Item::Fn(f) => self.add(path, &f.sig.ident, &f.attrs, is_public(&f.vis)),
            Item::Struct(s) => self.add(path, &s.ident, &s.attrs, is_public(&s.vis)),
            Item::Enum(e) => self.add(path, &e.ident, &e.attrs, is_public(&e.vis)),
            Item::Trait(t) => self.add(path, &t.ident, &t.attrs, is_public(&t.vis)),
            Item::Mod(m) => {
                for item in m.content.iter().flat_map(|(_, items)| items) {
                    self.item(path, item);
                }
            }
            Item::Impl(block) if block.trait_.is_none() => {
                let Type::Path(_) = &*block.self_ty else { return };
                for item in &block.items {
                    if let ImplItem::Fn(f) = item {
                        self.add(path, &f.sig.ident, &f.attrs, is_public(&f.vis));
                    }
                }
            }
            _ => {}
        }
    }

    fn without_example(&self) -> Vec<String> {
        let lacking = self.items.iter().filter(|(_, name)| !self.shown.contains(name));
        lacking.map(|(path, name)| format!("{}: {name}", path.display())).collect()
    }
}

fn check(directory: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(directory);
    let lacking = Crate::read(&root.canonicalize().unwrap()).without_example();
    assert!(lacking.is_empty(), "{} without an example:\n{}", lacking.len(), lacking.join("\n"));
}

#[test]
fn each_public_item_of_libpsx_is_in_an_example() {
    check(".");
}

#[test]
fn each_public_item_of_privileges_is_in_an_example() {
    check("privileges");
}

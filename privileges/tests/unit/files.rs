//! Unit files of this machine, and the drop-ins of a unit.

use super::*;

#[test]
fn units_of_this_machine_can_be_read() {
    let mut read = 0;
    for place in ["/usr/lib/systemd/system", "/lib/systemd/system"] {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|end| end != "service") || !path.is_file() {
                continue;
            }
            match Unit::read(&path) {
                Ok(_) => read += 1,
                // Templates have specifiers, and systemd-exit.service executes no program.
                Err(bad) => assert!(
                    bad.problems().iter().all(|one| one.why.contains("specifier")
                        || one.why.contains("executes no program")
                        || one.why.contains("shared")
                        || one.why.contains("native")),
                    "{bad}"
                ),
            }
        }
    }
    println!("{read} units read");
    if read == 0 {
        support::skipped("this machine has no unit files");
    }
}

/// Directories of units that are removed in the end.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let place = std::env::temp_dir().join(format!("privileges-{name}-{}", std::process::id()));
        std::fs::create_dir_all(place.join("etc")).unwrap();
        std::fs::create_dir_all(place.join("usr")).unwrap();
        Self(place)
    }

    fn write(&self, path: &str, lines: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("[Service]\n{lines}\n")).unwrap();
    }

    fn link(&self, target: &str, path: &str) {
        std::os::unix::fs::symlink(target, self.0.join(path)).unwrap();
    }

    /// Finds a unit in etc and usr.
    fn find(&self, name: &str) -> Result<Unit, UnitError> {
        Unit::find_in(name, &[&self.0.join("etc"), &self.0.join("usr")])
    }

    /// Returns the files of a unit, below the tree.
    fn files(&self, name: &str) -> Vec<String> {
        let unit = self.find(name).unwrap_or_else(|bad| panic!("{name}: {bad}"));
        let below = |path: &PathBuf| path.strip_prefix(&self.0).unwrap().display().to_string();
        unit.files().iter().map(below).collect()
    }

    /// Returns the files that systemd-analyze(1) `verify` reads: each has a line that it warns about. It looks for the unit in
    /// etc first, so the unit's name must be there. `None` if it cannot be run.
    fn files_of_systemd(&self, name: &str) -> Option<Vec<String>> {
        let path = self.0.join("etc").join(name);
        let places = format!("{0}/etc:{0}/usr", self.0.display());
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", "--generators=no"]).arg(path).stdin(Stdio::null());
        let output = command.env("SYSTEMD_COLORS", "0").env("SYSTEMD_UNIT_PATH", places).output();
        let text = String::from_utf8(output.ok()?.stderr).unwrap();
        let below = format!("{}/", self.0.display());
        let file = |line: &str| Some(line.strip_prefix(&below)?.split_once(':')?.0.to_owned());
        let files = text.lines().filter(|line| line.contains("Nonsense")).filter_map(file);
        Some(files.collect()).filter(|files: &Vec<String>| !files.is_empty())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn units_are_found_with_their_drop_ins() {
    let tree = Tree::new("units");
    tree.write("usr/a.service", "User=a\nNice=1\nUMask=022");
    tree.write("usr/a.service.d/10-x.conf", "Nice=2");
    tree.write("etc/a.service.d/20-y.conf", "UMask=077");
    tree.write("etc/a.service.d/10-x.conf", "Nice=3");
    // Hidden files, directories and other files are no drop-ins.
    tree.write("etc/a.service.d/.30.conf", "Nice=4");
    tree.write("etc/a.service.d/40.conf/50.conf", "Nice=5");
    tree.write("etc/a.service.d/60.txt", "Nice=6");
    tree.write("usr/b@.service", "User=b");
    tree.write("etc/b@one.service.d/only.conf", "Group=one");
    tree.write("etc/b@.service.d/all.conf", "Nice=4");
    tree.link("/dev/null", "etc/c.service");
    std::fs::write(tree.0.join("etc/e.service"), "").unwrap();
    let unit = tree.find("a").unwrap();
    let found = unit.directives();
    assert_eq!(
        (&found.user, found.nice, found.umask),
        (&Some(Id::from("a")), Some(3), Some(0o077)),
        "{:?}",
        unit.files()
    );
    assert_eq!(unit.files().len(), 3);
    let unit = tree.find("b@one.service").unwrap();
    assert_eq!(
        (&unit.directives().group, unit.directives().nice),
        (&Some(Id::from("one")), Some(4))
    );
    for (name, why) in [
        ("c", "masked"),
        ("e", "masked"),
        ("d", "not found"),
        ("../etc/passwd", "not the name of a unit"),
        ("@.service", "not the name of a unit"),
    ] {
        let bad = tree.find(name).unwrap_err().to_string();
        assert!(bad.contains(why), "{name}: {bad}");
    }
    let bad = Unit::read(tree.0.join("usr/nothing.service")).unwrap_err().to_string();
    assert!(bad.contains("No such file"), "{bad}");
}

/// A unit that executes no program, or that is masked, says nothing of a program's privileges.
#[test]
fn a_masked_or_idle_file_is_refused() {
    let tree = Tree::new("idle");
    let write =
        |name: &str, text: &str| std::fs::write(tree.0.join("usr").join(name), text).unwrap();
    tree.link("/dev/null", "usr/masked.service");
    write("empty.service", "");
    write("a.timer", "[Timer]\nOnCalendar=daily\n");
    write("b.timer", "[Timer]\nOnCalendar=daily\n[Service]\nUser=nobody\n");
    write("c.service", "[Unit]\nDescription=a\n");
    write("d.service", "[Socket]\nUser=nobody\n");
    write("e", "[Unit]\nDescription=a\n");
    for (name, why) in [
        ("masked.service", "masked"),
        ("empty.service", "masked"),
        ("a.timer", "executes no program"),
        ("b.timer", "executes no program"),
        ("c.service", "no section [Service]"),
        ("d.service", "no section [Service]"),
        ("e", "executes no program"),
    ] {
        let bad = Unit::read(tree.0.join("usr").join(name)).unwrap_err().to_string();
        assert!(bad.contains(why), "{name}: {bad}");
        if name.contains('.') {
            let bad = tree.find(name).unwrap_err().to_string();
            assert!(bad.contains(why), "{name}: {bad}");
        }
    }
    // The section can be that of a drop-in.
    tree.write("usr/c.service.d/10.conf", "User=nobody");
    assert_eq!(tree.find("c").unwrap().directives().user, Some(Id::from("nobody")));
}

/// As systemd does, by the end of the file's name.
#[test]
fn the_section_of_the_units_kind_counts() {
    let tree = Tree::new("kinds");
    let text = "[Service]\nUser=one\nNoNewPrivileges=yes\n[Socket]\nUser=two\nNoNewPrivileges=no\n\
                [Mount]\nUser=three\n[Swap]\nUser=four\n";
    for (name, user) in
        [("service", "one"), ("socket", "two"), ("mount", "three"), ("swap", "four")]
    {
        let path = tree.0.join(format!("usr/a.{name}"));
        std::fs::write(&path, text).unwrap();
        for unit in [Unit::read(&path).unwrap(), tree.find(&format!("a.{name}")).unwrap()] {
            assert_eq!(unit.directives().user, Some(Id::from(user)), "{name}");
        }
    }
    let unnamed = tree.0.join("usr/a");
    std::fs::write(&unnamed, text).unwrap();
    assert!(Unit::read(&unnamed).is_err());
    // A drop-in does not change the kind.
    std::fs::create_dir(tree.0.join("usr/a.service.d")).unwrap();
    std::fs::write(tree.0.join("usr/a.service.d/10.conf"), "[Socket]\nUser=root\n").unwrap();
    assert_eq!(tree.find("a").unwrap().directives().user, Some(Id::from("one")));
}

/// Writes units with prefixes, aliases, links and templates. The installed systemd reads the same files in the same order.
#[test]
fn files_are_those_that_systemd_reads() {
    let tree = Tree::new("order");
    let all = [
        // A unit with a prefix, an alias in etc and one in usr.
        "usr/foo-real.service",
        "usr/foo-real.service.d/10.conf",
        "usr/foo-real.service.d/20.conf",
        "etc/foo-.service.d/10.conf",
        "usr/foo-.service.d/15.conf",
        "usr/alias.service.d/20.conf",
        "usr/alias.service.d/30.conf",
        "usr/other.service.d/40.conf",
        "etc/service.d/10.conf",
        "etc/service.d/30.conf",
        "usr/service.d/05.conf",
        // A file in etc, which a link to the file in usr means too.
        "etc/over.service",
        "usr/over.service",
        "usr/over.service.d/50.conf",
        // An instance of a template, which has an alias.
        "usr/a-b@.service",
        "usr/a-b@x.service.d/50.conf",
        "usr/a-b@.service.d/51.conf",
        "usr/a-.service.d/52.conf",
        "usr/a-@x.service.d/53.conf",
        "usr/a-@.service.d/54.conf",
        "usr/c@x.service.d/55.conf",
        "usr/c@.service.d/56.conf",
        "usr/c@y.service.d/57.conf",
        // An instance with a file of its own.
        "etc/d@x.service",
        "usr/d@x.service.d/58.conf",
        // A file that is linked from elsewhere has the name of the link.
        "elsewhere/far.service",
        "usr/far.service.d/60.conf",
        "usr/linked.service.d/61.conf",
    ];
    for path in all {
        let command = if path.ends_with(".service") { "ExecStart=/bin/true\n" } else { "" };
        tree.write(path, &format!("{command}Nonsense=1"));
    }
    tree.link("../usr/foo-real.service", "etc/alias.service");
    tree.link("foo-real.service", "usr/other.service");
    tree.link("../usr/over.service", "etc/third.service");
    tree.link("../usr/a-b@.service", "etc/c@.service");
    tree.link("../usr/a-b@.service", "etc/c@x.service");
    tree.link("../usr/a-b@.service", "etc/c@y.service");
    tree.link("../elsewhere/far.service", "etc/linked.service");
    let general = ["usr/service.d/05.conf", "etc/service.d/10.conf", "etc/service.d/30.conf"];
    let foo = [
        "usr/foo-real.service",
        "usr/service.d/05.conf",
        "etc/foo-.service.d/10.conf",
        "usr/foo-.service.d/15.conf",
        "usr/foo-real.service.d/20.conf",
        "usr/alias.service.d/30.conf",
        "usr/other.service.d/40.conf",
    ];
    let of_instance = [
        "usr/a-b@x.service.d/50.conf",
        "usr/a-b@.service.d/51.conf",
        "usr/a-.service.d/52.conf",
        "usr/a-@x.service.d/53.conf",
        "usr/a-@.service.d/54.conf",
        "usr/c@x.service.d/55.conf",
        "usr/c@.service.d/56.conf",
    ];
    let with = |file, own: &[&'static str]| [&[file][..], &general[..], own].concat();
    let cases: [(&str, Vec<&str>); 6] = [
        ("alias.service", foo.to_vec()),
        ("third.service", with("etc/over.service", &["usr/over.service.d/50.conf"])),
        ("over.service", with("etc/over.service", &["usr/over.service.d/50.conf"])),
        ("c@x.service", with("usr/a-b@.service", &of_instance)),
        ("d@x.service", with("etc/d@x.service", &["usr/d@x.service.d/58.conf"])),
        ("linked.service", with("etc/linked.service", &["usr/linked.service.d/61.conf"])),
    ];
    for (name, wanted) in &cases {
        match tree.files_of_systemd(name) {
            Some(theirs) => assert_eq!(&theirs, wanted, "systemd: {name}"),
            None => support::skipped("systemd-analyze verify cannot be run here"),
        }
    }
    // A name that systemd does not have is an error here.
    for path in all {
        let path = tree.0.join(path);
        let text = std::fs::read_to_string(&path).unwrap().replace("Nonsense=1\n", "");
        std::fs::write(path, text).unwrap();
    }
    for (name, wanted) in &cases {
        assert_eq!(&tree.files(name), wanted, "{name}");
    }
    for name in ["foo-real", "other"] {
        assert_eq!(tree.files(name), foo, "{name}");
    }
}

/// A directory or a file that cannot be read may restrict the unit, so it is an error.
#[test]
fn what_cannot_be_read_is_an_error() {
    let tree = Tree::new("unreadable");
    tree.write("usr/a-b.service", "User=a");
    assert_eq!(tree.files("a-b"), ["usr/a-b.service"]);
    tree.link("loop", "usr/loop");
    for path in ["etc/a-b.service.d", "usr/a-.service.d", "usr/service.d"] {
        for target in [None, Some("../usr/loop")] {
            match target {
                Some(target) => tree.link(target, path),
                None => tree.write(path, ""),
            }
            let bad = tree.find("a-b").unwrap_err();
            assert_eq!(bad.problems()[0].file, Some(tree.0.join(path)), "{bad}");
            std::fs::remove_file(tree.0.join(path)).unwrap();
        }
    }
    tree.write("usr/a-b.service.d", "");
    assert!(Unit::read(tree.0.join("usr/a-b.service")).is_err());
    std::fs::remove_file(tree.0.join("usr/a-b.service.d")).unwrap();
    std::fs::create_dir(tree.0.join("usr/a-b.service.d")).unwrap();
    tree.link("nowhere", "usr/a-b.service.d/10.conf");
    let bad = tree.find("a-b").unwrap_err().to_string();
    assert!(bad.contains("10.conf"), "{bad}");
    // Links that lead in a circle, and one to a unit of another kind.
    tree.link("two.service", "usr/one.service");
    tree.link("one.service", "usr/two.service");
    tree.link("a-b.service", "usr/socket.socket");
    for name in ["one", "socket.socket"] {
        let bad = tree.find(name).unwrap_err().to_string();
        assert!(bad.contains("not found"), "{name}: {bad}");
    }
}

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
                // Templates have specifiers.
                Err(bad) => assert!(
                    bad.problems().iter().all(|one| one.why.contains("specifier")
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

#[test]
fn units_are_found_with_their_drop_ins() {
    let place = std::env::temp_dir().join(format!("privileges-units-{}", std::process::id()));
    let (etc, usr) = (place.join("etc"), place.join("usr"));
    let write = |path: &Path, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("[Service]\n{text}\n")).unwrap();
    };
    write(&usr.join("a.service"), "User=a\nNice=1\nUMask=022");
    write(&usr.join("a.service.d/10-x.conf"), "Nice=2");
    write(&etc.join("a.service.d/20-y.conf"), "UMask=077");
    write(&etc.join("a.service.d/10-x.conf"), "Nice=3");
    write(&usr.join("b@.service"), "User=b");
    write(&etc.join("b@one.service.d/only.conf"), "Group=one");
    write(&etc.join("b@.service.d/all.conf"), "Nice=4");
    std::os::unix::fs::symlink("/dev/null", etc.join("c.service")).unwrap();
    let places = [etc.as_path(), usr.as_path()];
    let unit = Unit::find_in("a", &places).unwrap();
    let found = unit.directives();
    assert_eq!(
        (&found.user, found.nice, found.umask),
        (&Some(Id::from("a")), Some(3), Some(0o077)),
        "{:?}",
        unit.files()
    );
    assert_eq!(unit.files().len(), 3);
    let unit = Unit::find_in("b@one.service", &places).unwrap();
    assert_eq!(
        (&unit.directives().group, unit.directives().nice),
        (&Some(Id::from("one")), Some(4))
    );
    assert!(Unit::find_in("c", &places).unwrap_err().to_string().contains("masked"));
    assert!(Unit::find_in("d", &places).unwrap_err().to_string().contains("not found"));
    assert!(Unit::find_in("../etc/passwd", &places).is_err());
    assert!(
        Unit::read(usr.join("nothing.service")).unwrap_err().to_string().contains("No such file")
    );
    std::fs::remove_dir_all(place).unwrap();
}

//! Checks the table of modules in src/lib.rs, which lists the modules that each may use, against the imports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Rooms = BTreeMap<String, BTreeSet<String>>;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// From each module to those it may use, in the order of the table.
fn table() -> (Vec<String>, Rooms) {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | [`"));
    let mut order = Vec::new();
    let mut rooms = Rooms::new();
    for row in rows {
        let (room, rest) = row.split_once("`]").unwrap();
        let may_know = rest.trim_end_matches('|').rsplit_once('|').unwrap().1;
        let known = may_know.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        order.push(room.to_owned());
        rooms.insert(room.to_owned(), known);
    }
    (order, rooms)
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file without comments and tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let without_tests = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    let without_tests = without_tests.split("\n#[cfg(all(test").next().unwrap();
    without_tests.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// From each module to those that its code names.
fn imports(rooms: &[String]) -> Rooms {
    let mut imports = Rooms::new();
    for room in rooms {
        let mut found = Vec::new();
        files(&source().join(room), &mut found);
        let tests = |path: &PathBuf| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            name == "tests" || name.ends_with("_tests") || name == "golden"
        };
        found.retain(|path| !tests(path));
        let text: String = found.iter().map(|path| code(path)).collect();
        let named = text.split("crate::").skip(1).filter_map(|after| {
            let end = after.find(|c: char| !c.is_alphanumeric() && c != '_')?;
            rooms.iter().find(|other| *other != room && **other == after[..end]).cloned()
        });
        imports.insert(room.clone(), named.collect());
    }
    imports
}

#[test]
fn the_table_of_rooms_is_what_the_imports_say() {
    let (order, rooms) = table();
    assert!(order.len() > 15, "the table is found: {order:?}");
    for (room, named) in imports(&order) {
        assert_eq!(named, rooms[&room], "{room}: imports on the left, table on the right");
    }
}

#[test]
fn every_room_is_in_the_table_and_knows_only_rooms_above_it() {
    let (order, rooms) = table();
    let folders = fs::read_dir(source()).unwrap().map(|entry| entry.unwrap().path());
    // The command line belongs to the program, not to the library.
    let folders: BTreeSet<String> = folders
        .filter(|path| path.is_dir() && !path.ends_with("cli"))
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(folders, order.iter().cloned().collect());
    for (at, room) in order.iter().enumerate() {
        for known in &rooms[room] {
            assert!(order[..at].contains(known), "{room} knows {known}, which is not above it");
        }
    }
}

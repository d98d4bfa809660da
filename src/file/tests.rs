use std::fs;

use super::*;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_there_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    fs::write(&path, "old").unwrap();
    let mut pending = PendingFile::create(&path).unwrap();
    pending.write_all(b"ne").unwrap();
    drop(pending);
    let failed = write_with(&path, |file| {
        file.write_all(b"new")?;
        Err(io::Error::other("no more"))
    });
    assert_eq!(failed.unwrap_err().to_string(), "no more");
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(names(folder.path()), ["out"]);
    write(&path, b"new").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(names(folder.path()), ["out"]);
}

#[test]
fn folders_and_what_is_not_there_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(write(folder.path(), b"").is_err());
    assert!(check(&folder.path().join("none/out")).is_err());
    assert!(check(Path::new("")).is_err());
    check(&folder.path().join("out")).unwrap();
    assert!(names(folder.path()).is_empty(), "a check leaves nothing");
}

#[test]
fn the_longest_name_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["x".repeat(255), "ü".repeat(127)] {
        write(&folder.path().join(name), b"new").unwrap();
    }
    assert_eq!(names(folder.path()).len(), 2);
}

#[test]
fn one_place_has_many_names() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("sub")).unwrap();
    assert!(is_same(&at("a"), &at("sub/../a")), "not there yet");
    assert!(!is_same(&at("a"), &at("b")));
    assert!(!is_same(&at("none/a"), &at("none/b")));
    if cfg!(unix) {
        assert!(is_same(Path::new("/dev/stdout"), Path::new("/proc/self/fd/1")));
        assert!(!is_same(Path::new("/dev/stdout"), Path::new("/dev/stderr")));
        assert!(!is_same(Path::new("/dev/null"), Path::new("/dev/null")), "takes everything");
    }
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    /// Whether a tool could make a special file.
    fn made(tool: &str, path: &Path, arguments: &[&str]) -> bool {
        let made = std::process::Command::new(tool).arg(path).args(arguments).status();
        let made = made.is_ok_and(|status| status.success());
        if !made {
            println!("skipped: {tool} makes nothing here");
        }
        made
    }

    /// The system's device of that name, or for root, who could delete it by mistake, a device of our own.
    fn device(folder: &Path, name: &str, minor: &str) -> Option<PathBuf> {
        if folder.metadata().unwrap().uid() != 0 {
            return Some(Path::new("/dev").join(name)).filter(|device| device.exists());
        }
        let own = folder.join(name);
        let made = made("mknod", &own, &["c", "1", minor]);
        let opens = made && File::options().write(true).open(&own).is_ok();
        if made && !opens {
            println!("skipped: devices in {} cannot be opened", folder.display());
        }
        opens.then_some(own)
    }

    #[test]
    fn permissions_of_a_file_that_is_there_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        for wanted in [0o600, 0o640, 0o755, 0o666] {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(wanted)).unwrap();
            let pending = PendingFile::create(&path).unwrap();
            let temporary = pending.temporary_path().unwrap();
            assert_eq!(mode(temporary) & !wanted, 0, "open to more than {wanted:o} on the way");
            pending.publish().unwrap();
            assert_eq!(mode(&path), wanted);
        }
    }

    #[test]
    fn a_new_file_is_as_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let (usual, ours) = (folder.path().join("usual"), folder.path().join("ours"));
        fs::write(&usual, "").unwrap();
        write(&ours, b"").unwrap();
        assert_eq!(mode(&ours), mode(&usual));
    }

    #[test]
    fn links_are_followed_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/file"), "old").unwrap();
        symlink("sub/link", at("first")).unwrap();
        symlink("file", at("sub/link")).unwrap();
        symlink("sub/new", at("dangling")).unwrap();
        symlink("circle", at("circle")).unwrap();
        write(&at("first"), b"new").unwrap();
        write(&at("dangling"), b"made").unwrap();
        assert!(at("first").is_symlink() && at("sub/link").is_symlink() && at("dangling").is_symlink());
        assert_eq!(fs::read_to_string(at("sub/file")).unwrap(), "new");
        assert_eq!(fs::read_to_string(at("sub/new")).unwrap(), "made");
        assert!(write(&at("circle"), b"").is_err());
        assert!(is_same(&at("first"), &at("sub/file")));
    }

    #[test]
    fn devices_are_written_through_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let Some(null) = device(folder.path(), "null", "3") else { return };
        let before = null.metadata().unwrap().ino();
        write(&null, b"gone").unwrap();
        let mut pending = PendingFile::create_seekable(&null).unwrap();
        pending.write_all(b"gone").unwrap();
        assert!(pending.temporary_path().is_some());
        pending.publish().unwrap();
        let after = null.metadata().unwrap();
        assert!(after.file_type().is_char_device() && after.ino() == before);
    }

    #[test]
    fn a_full_device_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let Some(full) = device(folder.path(), "full", "7") else { return };
        assert!(write(&full, b"x").is_err());
    }

    #[test]
    fn a_fifo_is_written_through_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        if !made("mkfifo", &path, &[]) {
            return;
        }
        check(&path).unwrap();
        for seekable in [false, true] {
            let reader = std::thread::spawn({
                let path = path.clone();
                move || fs::read_to_string(path).unwrap()
            });
            let mut pending = match seekable {
                true => PendingFile::create_seekable(&path).unwrap(),
                false => PendingFile::create(&path).unwrap(),
            };
            pending.write_all(b"through").unwrap();
            pending.publish().unwrap();
            assert_eq!(reader.join().unwrap(), "through");
            assert!(path.metadata().unwrap().file_type().is_fifo());
        }
        assert_eq!(names(folder.path()), ["fifo"]);
    }

    #[test]
    fn a_protected_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        // The administrator can write any file.
        if File::options().write(true).open(&path).is_err() {
            assert!(write(&path, b"new").is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        }
    }
}

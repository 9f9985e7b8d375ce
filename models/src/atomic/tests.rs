//! Failed, interrupted and concurrent writes.

use std::thread;

use super::*;

const KNOWN: [&str; 2] = ["a", "b"];

fn write_pair(place: &Path, contents: &[u8]) -> io::Result<()> {
    write_folder(place, &KNOWN, |folder| {
        KNOWN.iter().try_for_each(|name| write(&folder.join(name), contents))
    })
}

fn read_pair(place: &Path) -> Vec<u8> {
    let [a, b] = KNOWN.map(|name| fs::read(place.join(name)).unwrap());
    assert_eq!(a, b);
    a
}

fn names(folder: &Path) -> Vec<OsString> {
    folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn a_failed_fill_leaves_the_old_folder_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("bundle");
    write_folder::<io::Error>(&place, &KNOWN, |folder| write(&folder.join("a"), b"one")).unwrap();
    let failed = write_folder::<io::Error>(&place, &KNOWN, |folder| {
        write(&folder.join("a"), b"two")?;
        Err(io::Error::other("disk full"))
    });
    assert!(failed.is_err());
    assert_eq!(fs::read(place.join("a")).unwrap(), b"one");
    assert_eq!(names(root.path()), ["bundle"]);
    write_folder::<io::Error>(&place, &KNOWN, |folder| write(&folder.join("b"), b"three")).unwrap();
    assert_eq!(names(&place), ["b"]);
    assert_eq!(names(root.path()), ["bundle"]);
}

#[test]
fn files_of_other_programs_are_kept() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("mine");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("notes"), "important").unwrap();
    let error = write_folder::<io::Error>(&place, &["a"], |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("`notes`"), "{error}");
    let file = place.join("notes");
    let error = write_folder::<io::Error>(&file, &["a"], |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("is a file"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "important");
    assert_eq!((names(root.path()), names(&place)), (vec!["mine".into()], vec!["notes".into()]));
}

#[test]
fn without_exchange_every_cut_leaves_a_whole_folder() {
    let refuse: fn(&Path, &Path) -> Result<(), Errno> = |_, _| Err(Errno::INVAL);
    for steps in 0..=3 {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("state");
        let [old, partial] = ["old", "partial"].map(|extension| hidden(&place, extension).unwrap());
        write_pair(&place, b"before").unwrap();
        write_pair(&partial, b"after").unwrap();
        let renames = [(&place, &old), (&partial, &place), (&old, &partial)];
        renames[..steps].iter().for_each(|(from, to)| fs::rename(from, to).unwrap());
        assert_eq!(place.exists(), steps != 1);
        recover(&place).unwrap();
        assert_eq!(
            read_pair(&place),
            if steps < 2 { &b"before"[..] } else { b"after" },
            "{steps} steps"
        );
        write_pair(&place, b"next").unwrap();
        assert_eq!(names(root.path()), ["state"], "{steps} steps");

        write_pair(&partial, b"swapped").unwrap();
        swap(&partial, &place, refuse).unwrap();
        assert_eq!((read_pair(&place), read_pair(&partial)), (b"swapped".into(), b"next".into()));
        fs::remove_dir_all(&partial).unwrap();
        assert_eq!(swap(&partial, &place, refuse).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(read_pair(&place), b"swapped");
        assert_eq!(names(root.path()), ["state"]);
    }
}

#[test]
fn a_folder_is_restored_through_its_link() {
    let root = tempfile::tempdir().unwrap();
    let link = root.path().join("latest");
    std::os::unix::fs::symlink("state", &link).unwrap();
    write_pair(&link, b"one").unwrap();
    let place = root.path().join("state");
    fs::rename(&place, hidden(&place, "old").unwrap()).unwrap();
    recover(&link).unwrap();
    assert_eq!(read_pair(&place), b"one");
    write_pair(&link, b"two").unwrap();
    assert!(link.is_symlink());
    assert_eq!((read_pair(&place), names(root.path()).len()), (b"two".into(), 2));
    recover(&root.path().join("nowhere/state")).unwrap();
}

#[test]
fn a_longer_file_of_a_killed_writer_leaves_no_bytes() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log");
    fs::write(hidden(&path, "partial").unwrap(), "half of something long").unwrap();
    write(&path, b"short").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"short");
    assert_eq!(names(root.path()), ["log"]);
    assert_eq!(write(Path::new("/"), b"").unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn concurrent_writers_wait_for_each_other() {
    let root = tempfile::tempdir().unwrap();
    let (file, place) = (root.path().join("file"), root.path().join("state"));
    let whole = |read: &[u8]| {
        read.len() == 1000 * usize::from(read[0]) && read.iter().all(|byte| *byte == read[0])
    };
    thread::scope(|scope| {
        for writer in 1..=4_u8 {
            let contents = vec![writer; 1000 * usize::from(writer)];
            let (file, place) = (&file, &place);
            scope.spawn(move || {
                for _ in 0..10 {
                    write(file, &contents).unwrap();
                    assert!(whole(&fs::read(file).unwrap()));
                    write_pair(place, &contents).unwrap();
                    assert!(place.is_dir());
                }
            });
        }
    });
    assert!(whole(&fs::read(&file).unwrap()) && whole(&read_pair(&place)));
    assert_eq!(names(root.path()).len(), 2);
}

#[test]
fn a_link_names_the_file_and_replaces_what_was_there() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("place");
    // A file system in memory, if there is one, is another disk.
    let memory = tempfile::tempdir_in("/dev/shm").ok();
    for folder in
        [Some(root.path()), memory.as_ref().map(tempfile::TempDir::path)].into_iter().flatten()
    {
        let file = folder.join("file");
        fs::write(&file, folder.as_os_str().as_encoded_bytes()).unwrap();
        for _ in 0..2 {
            link(&file, &place).unwrap();
            assert_eq!(fs::read(&place).unwrap(), folder.as_os_str().as_encoded_bytes());
            let one_disk =
                folder.metadata().unwrap().dev() == root.path().metadata().unwrap().dev();
            assert_eq!(place.is_symlink(), !one_disk);
        }
    }
    let mut left = names(root.path());
    left.sort();
    assert_eq!(left, ["file", "place"]);
    assert!(link(&root.path().join("gone"), &place).is_err());
}

#[test]
fn a_failed_write_keeps_the_old_file() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("file");
    write(&place, b"old").unwrap();
    let failed =
        write_with(&place, |file| file.write_all(b"new").and(Err(io::Error::other("stop"))));
    assert_eq!(failed.unwrap_err().to_string(), "stop");
    assert_eq!(
        (fs::read(&place).unwrap(), names(root.path())),
        (b"old".to_vec(), vec![OsString::from("file")])
    );
}

#[test]
fn created_parents_are_removed_after_a_failure() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("new/deep/out");
    let failing = |meanwhile: &dyn Fn()| {
        let failed = write_folder(&place, &[], |_| {
            meanwhile();
            Err(io::Error::other("stop"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "stop");
    };
    failing(&|| {});
    assert!(names(root.path()).is_empty());
    // Folders with files of others stay.
    failing(&|| fs::write(root.path().join("new/note"), "mine").unwrap());
    assert_eq!(names(&root.path().join("new")), ["note"]);
    // So does a folder that existed before.
    fs::create_dir(root.path().join("new/deep")).unwrap();
    failing(&|| {});
    assert!(root.path().join("new/deep").is_dir());
    write_pair(&place, b"whole").unwrap();
    assert_eq!(names(&root.path().join("new/deep")), ["out"]);
}

#[test]
fn leftovers_of_a_killed_writer_are_removed() {
    let root = tempfile::tempdir().unwrap();
    for name in [".out.partial", "out"] {
        fs::create_dir(root.path().join(name)).unwrap();
        fs::write(root.path().join(name).join("a"), "half").unwrap();
    }
    fs::write(root.path().join(".out.lock"), "").unwrap();
    remove_partial(&root.path().join("out")).unwrap();
    assert_eq!(names(root.path()), ["out"]);
}

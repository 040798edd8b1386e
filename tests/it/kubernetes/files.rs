//! What comes back from a pod is the step's, and may be anything.

use std::{
    fs,
    io::{self, Read, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use proptest::prelude::*;
use switchover::{
    domain::run::StepEnd,
    exec::{
        kubernetes::unpack::{Back, TakeError, Taken, unpack},
        limits::StepLimits,
    },
};
use tar::{Builder, EntryType, Header};

use super::rig::{GNU, Stage, built, log, run, step};

const DONE: &[u8] = b"\0switchover-done 0\n";

/// An entry with exactly these bytes as its name and its link.
fn entry(kind: EntryType, name: &str, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    let fields = header.as_gnu_mut().unwrap();
    fields.name[..name.len()].copy_from_slice(name.as_bytes());
    fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o6777);
    header.set_size(data.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn stream(first: &[u8], entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = first.to_vec();
    entries.iter().for_each(|e| bytes.extend_from_slice(e));
    bytes.resize(bytes.len() + 10240, 0);
    bytes.extend_from_slice(DONE);
    bytes
}

fn take(bytes: impl Read, folder: &Path, mirrored: bool) -> Result<Taken, TakeError> {
    unpack(bytes, &Back { folder, mirrored, limit: 1 << 20 })
}

/// A folder with something beside it that must never change.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("back/inner")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/file"), "theirs").unwrap();
        fs::write(dir.path().join("back/file"), "ours").unwrap();
        symlink(dir.path().join("outside"), dir.path().join("back/out")).unwrap();
        Self(dir)
    }

    fn back(&self) -> std::path::PathBuf {
        self.0.path().join("back")
    }

    fn untouched(&self) -> bool {
        let beside: Vec<_> = fs::read_dir(self.0.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        let outside: Vec<_> = fs::read_dir(self.0.path().join("outside")).unwrap().flatten().collect();
        let file = self.0.path().join("outside/file");
        beside.len() == 2
            && outside.len() == 1
            && fs::read_to_string(&file).unwrap() == "theirs"
            && fs::metadata(&file).unwrap().nlink() == 1
    }
}

#[test]
fn nothing_leads_out_of_the_folder() {
    use EntryType as T;
    let outside = |p: &Place| p.0.path().join("outside/file").display().to_string();
    let place = Place::new();
    let long = format!("{}\0", place.0.path().join("outside/new").display());
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("an absolute name", vec![entry(T::Regular, &outside(&place), "", b"x")]),
        ("a way up", vec![entry(T::Regular, "inner/../../outside/file", "", b"x")]),
        ("through a link that is here", vec![entry(T::Regular, "out/file", "", b"x")]),
        ("a folder through a link", vec![entry(T::Directory, "out/new", "", b"")]),
        (
            "through a link of its own",
            vec![entry(T::Symlink, "inner/up", "../../outside", b""), entry(T::Regular, "inner/up/file", "", b"x")],
        ),
        (
            "a folder made a link",
            vec![entry(T::Symlink, "inner", "../outside", b""), entry(T::Regular, "inner/file", "", b"x")],
        ),
        ("another name of a file outside", vec![entry(T::Link, "mine", &outside(&place), b"")]),
        ("another name by a way up", vec![entry(T::Link, "mine", "../outside/file", b"")]),
        ("another name through a link", vec![entry(T::Link, "mine", "out/file", b"")]),
        ("another name of a link", vec![entry(T::Link, "mine", "out", b"")]),
        ("a long name", vec![entry(T::GNULongName, "long", "", long.as_bytes()), entry(T::Regular, "x", "", b"x")]),
        ("an endless name", vec![entry(T::GNULongName, "long", "", &vec![b'a'; 100_000])]),
        ("an endless block", vec![entry(T::XHeader, "pax", "", &vec![b'a'; 100_000])]),
        (
            "a part too long",
            vec![
                entry(T::GNULongName, "long", "", format!("{}\0", "a".repeat(300)).as_bytes()),
                entry(T::Regular, "x", "", b"x"),
            ],
        ),
        (
            "another size than it says",
            vec![entry(T::XHeader, "pax", "", b"12 size=513\n"), entry(T::Regular, "x", "", b"x")],
        ),
        ("no stream at all", vec![vec![b'x'; 1024]]),
    ];
    for (what, entries) in cases {
        for mirrored in [false, true] {
            let place = Place::new();
            let taken = take(stream(b"all\n", &entries).as_slice(), &place.back(), mirrored);
            assert!(matches!(taken, Err(TakeError::Hostile(_))), "{what}: {taken:?}");
            assert!(place.untouched(), "{what}");
            assert!(place.back().join("file").exists(), "{what}: nothing goes for a stream that is not believed");
        }
    }
}

#[test]
fn what_is_harmless_comes_as_it_is() {
    use EntryType as T;
    let place = Place::new();
    let back = place.back();
    fs::create_dir(back.join("was-folder")).unwrap();
    fs::write(back.join("was-folder/x"), "").unwrap();
    fs::write(back.join(".git"), "ours").unwrap();
    fs::write(back.join("inner/gone"), "").unwrap();
    let entries = [
        entry(T::Directory, "./", "", b""),
        entry(T::Regular, "./.git", "", b"theirs"),
        entry(T::Directory, "./inner/", "", b""),
        entry(T::Regular, "./inner/new", "", b"new"),
        entry(T::Regular, "./was-folder", "", b"now a file"),
        entry(T::Directory, "./file", "", b""),
        entry(T::Regular, "./file/below", "", b"b"),
        entry(T::Link, "./again", "./inner/new", b""),
        entry(T::Symlink, "./out", "/etc/passwd", b""),
        entry(T::Char, "./device", "", b""),
        entry(T::Fifo, "./pipe", "", b""),
        entry(T::XGlobalHeader, "pax", "", b"12 comment=x"),
    ];
    let taken = take(stream(b"all\n", &entries).as_slice(), &back, true).unwrap();
    assert_eq!((taken.files, taken.bytes, taken.removed), (5, 14, 1));
    assert!(place.untouched());
    let read = |path: &str| fs::read_to_string(back.join(path)).unwrap();
    assert_eq!(
        (read("inner/new").as_str(), read("was-folder").as_str(), read("file/below").as_str()),
        ("new", "now a file", "b")
    );
    assert_eq!((read("again").as_str(), read(".git").as_str()), ("new", "ours"));
    assert_eq!(fs::read_link(back.join("out")).unwrap(), Path::new("/etc/passwd"), "what it leads to is not followed");
    assert!(!back.join("device").exists() && !back.join("pipe").exists() && !back.join("inner/gone").exists());
    for file in ["inner/new", "file"] {
        assert_eq!(fs::metadata(back.join(file)).unwrap().permissions().mode() & 0o7000, 0, "{file}");
    }
    // Only what changed, beside a list of all that is there.
    let listed =
        stream(b"changed\n./inner\0./inner/new\0./again\0\0", &[entry(T::Regular, "./inner/new", "", b"newer")]);
    let taken = take(listed.as_slice(), &back, true).unwrap();
    assert_eq!((taken.files, taken.removed), (1, 3), "file, was-folder and the link to nowhere of ours go");
    let mut left: Vec<_> = fs::read_dir(&back).unwrap().flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, [".git", "again", "inner"]);
    // In a cache, what others put there stays.
    let taken = take(stream(b"all\n", &[]).as_slice(), &back, false).unwrap();
    assert_eq!(taken, Taken::default());
    assert!(back.join("inner/new").exists());
}

#[test]
fn a_stream_that_is_cut_or_too_large_takes_nothing_away() {
    let entries = [entry(EntryType::Regular, "a", "", &[b'a'; 700]), entry(EntryType::Regular, "b", "", b"b")];
    let whole = stream(b"changed\na\0b\0\0", &entries);
    for cut in [0, 3, 8, 10, 14, 100, 600, 1000, 2000, 5000, whole.len() - 1, whole.len() - 10] {
        let place = Place::new();
        let taken = take(&whole[..cut], &place.back(), true);
        assert!(matches!(taken, Err(TakeError::Cut)), "{cut}: {taken:?}");
        assert!(place.back().join("file").exists() && place.untouched(), "{cut}");
        let hidden = fs::read_dir(place.back()).unwrap().flatten();
        assert!(hidden.into_iter().all(|e| !e.file_name().to_string_lossy().starts_with(".switchover")), "{cut}");
    }
    let place = Place::new();
    let mut failed = whole[..whole.len() - DONE.len()].to_vec();
    failed.write_all(b"\0switchover-done 2\n").unwrap();
    assert!(matches!(take(failed.as_slice(), &place.back(), true), Err(TakeError::Packing(2))));
    // A file that would fill the disk ends it before a byte of it is written.
    let mut header = Header::new_gnu();
    header.set_path("huge").unwrap();
    header.set_entry_type(EntryType::Regular);
    header.set_size(1 << 50);
    header.set_cksum();
    let endless = io::Cursor::new(b"all\n").chain(io::Cursor::new(header.as_bytes().to_vec())).chain(io::repeat(7));
    assert!(matches!(take(endless, &place.back(), true), Err(TakeError::TooMuch(n)) if n == 1 << 20));
    assert!(!place.back().join("huge").exists() && place.untouched());
    let mut many = Builder::new(b"all\n".to_vec());
    for n in 0..3 {
        let mut header = Header::new_gnu();
        header.set_size(500_000);
        many.append_data(&mut header, format!("f{n}"), vec![0; 500_000].as_slice()).unwrap();
    }
    assert!(matches!(take(many.into_inner().unwrap().as_slice(), &place.back(), true), Err(TakeError::TooMuch(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_comes_nothing_outside_changes(
        entries in prop::collection::vec((
            prop::sample::select(b"0123456LKxgS7".to_vec()),
            "[a./]{0,12}|out/x|inner/[ab]|file/x",
            "[a./]{0,12}|\\.\\./outside/file|inner",
            prop::collection::vec(any::<u8>(), 0..600),
        ), 0..8),
        first in prop::sample::select(vec!["all\n", "changed\na\0inner/a\0\0", "changed\n\0", "other\n"]),
        cut in 0_usize..20_000,
        mirrored: bool,
    ) {
        let place = Place::new();
        let entries: Vec<_> =
            entries.iter().map(|(kind, name, link, data)| entry(EntryType::new(*kind), name, link, data)).collect();
        let bytes = stream(first.as_bytes(), &entries);
        let _ = take(&bytes[..cut.min(bytes.len())], &place.back(), mirrored);
        prop_assert!(place.untouched());
    }
}

/// A `tar` of an image's own, which packs what it likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_image_gets_nothing_onto_this_host() {
    let Some(stage) = Stage::new("a_hostile_image_gets_nothing_onto_this_host") else { return };
    let executor = stage.executor(StepLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    let name = format!("{}\0", target.display());
    let hostile = stream(
        b"",
        &[entry(EntryType::GNULongName, "long", "", name.as_bytes()), entry(EntryType::Regular, "x", "", b"owned")],
    );
    let script = "#!/bin/sh\ncase \"$*\" in *-cf*) cat /hostile ;; *) exec /usr/bin/tar \"$@\" ;; esac\n";
    let recipe = format!("FROM {GNU}\nCOPY tar /usr/local/bin/tar\nCOPY hostile /hostile\n");
    let image =
        built(stage.space.cluster, "steps/hostile", &recipe, &[("tar", script.as_bytes()), ("hostile", &hostile)]);
    let spec = step(&dir, &image, "echo ran");
    let result = run(&executor, &spec).await;
    let StepEnd::Untaken(why) = &result.end else { panic!("{result:?} {:?}", log(&spec)) };
    assert!(why.contains("leads out of its folder"), "{why}");
    assert!(!target.exists());
    stage.nothing_left().await;
}
